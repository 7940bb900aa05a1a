"""A toy domain with every kind of column, and factories of what the core's tests share."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fedjax_health.build_federation import build_federation
from fedjax_health.config import (
    DataConfig,
    DiffusionConfig,
    GanConfig,
    MedganConfig,
    ModelConfig,
    PateganConfig,
    VaeConfig,
)
from fedjax_health.data.domain import Domain, domain_from_simulator
from fedjax_health.data.encode import Encoder, make_encoder
from fedjax_health.data.population import Population
from fedjax_health.data.schema import Column, Schema
from fedjax_health.data.simulator import Simulator
from fedjax_health.devices.round import DeviceLayer, make_devices, make_ideal
from fedjax_health.federated import sharding
from fedjax_health.federated.federation import Data, Parts
from fedjax_health.federation_config import (
    AggregationConfig,
    CompressionConfig,
    DevicesConfig,
    HierarchyConfig,
    PartitionConfig,
    TrainConfig,
)
from fedjax_health.models.classifier import make_classifier
from fedjax_health.threefry import root_key
from fedjax_health.types import Hyper

H = 6  # most records of a client
SCHEMA = Schema(
    "toy",
    (
        Column(name="ward", kind="categorical", categories=("a", "b", "c")),
        Column(name="systolic", unit="mmHg", low=60, high=260, center=120, scale=20, decimals=0),
        Column(name="diastolic", unit="mmHg", low=30, high=160, center=80, scale=15, decimals=0, at_most="systolic"),
        Column(name="lactate", unit="mmol/L", low=0, high=20, transform="log1p", decimals=1, nullable=True),
        Column(name="sex", kind="binary", role="group", categories=("female", "male")),
        Column(name="sick", kind="binary", role="label"),
    ),
)


def _simulate(key):
    keys = jax.random.split(key, 8)
    count = jax.random.randint(keys[0], (), 0, H + 1)
    label = jax.random.bernoulli(keys[1], 0.4, (H,)).astype(jnp.int32)
    sick = label.astype(jnp.float32)
    systolic = jnp.clip(jnp.round(120.0 + 20.0 * sick + 15.0 * jax.random.normal(keys[2], (H,))), 60.0, 260.0)
    diastolic = jnp.round(systolic * jax.random.uniform(keys[3], (H,), minval=0.5, maxval=0.9))
    lactate = jnp.round(10.0 * jnp.exp(0.5 * sick + 0.3 * jax.random.normal(keys[4], (H,)))) / 10.0
    lactate = jnp.where(jax.random.bernoulli(keys[5], 0.3, (H,)), jnp.nan, lactate)
    ward = jax.random.categorical(keys[6], jnp.log(jnp.array([0.5, 0.3, 0.2])), shape=(H,)).astype(jnp.float32)
    sex = jnp.full((H,), jax.random.bernoulli(keys[7], 0.5).astype(jnp.float32))
    return jnp.stack([ward, systolic, diastolic, lactate, sex], -1), label, count


SIMULATOR = Simulator(SCHEMA, "diagnosis", H, _simulate)


@functools.cache
def encoder() -> Encoder:
    return make_encoder(SCHEMA)


@functools.cache
def domain(num_clients: int = 24, population: str = "stored", seed: int = 0) -> Domain:
    natural = PartitionConfig("natural", 2, 1.0, 0, 0.0, 0.0, 0.0, 1.0)
    config = DataConfig(
        domains=("toy",), path="", schema="", task="diagnosis", label="", features="all", population=population,
        num_clients=num_clients, validation_fraction=0.2, test_fraction=0.2, audit_fraction=0.2, reference_clients=24,
        representation="public",
        partition=natural,
    )  # fmt: skip
    return domain_from_simulator("toy", SIMULATOR, config, seed)


def _changed(section: str, values: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    assert set(changes) <= set(values), (section, changes)
    return values | changes


def train_config(
    *,
    aggregation: dict[str, Any] | None = None,
    compression: dict[str, Any] | None = None,
    hierarchy: dict[str, Any] | None = None,
    **changes: Any,
) -> TrainConfig:
    """A small training; sections take what differs, such as aggregation={"rule": "median"}."""
    values: dict[str, Any] = {
        "rounds": 6, "rounds_per_chunk": 2, "cohort": 8, "sampler": "poisson", "clients_per_chunk": 4, "local": "steps",
        "local_epochs": 1, "local_steps": 2, "batch_size": 3, "algorithm": "fedavg", "server_optimizer": "sgd",
        "client_optimizer": "sgd", "client_learning_rate": 0.1, "server_learning_rate": 1.0, "proximal_weight": 0.01,
        "concurrency": 6, "max_staleness": 8, "step_clip_norm": 0.0, "l2_clip_norm": 0.5, "ema_decay": 0.9,
        "clip_quantile": 0.0, "clip_learning_rate": 0.2, "convergence_window": 0, "convergence_tolerance": 0.01,
        "server_schedule": "constant",
    }  # fmt: skip
    rule = {
        "rule": "mean", "weighting": "equal", "assumed_attackers": 0.2, "attack": "none", "attackers": 0.0,
        "attack_scale": 1.0, "secure": "none", "secure_bits": 16, "secure_degree": 0,
    }  # fmt: skip
    wire = {
        "rotate": False, "sparsify": "none", "keep_fraction": 0.1, "error_feedback": False, "bits": 0, "sign": False,
        "down_bits": 0,
    }  # fmt: skip
    return TrainConfig(
        **_changed("train", values, changes),
        aggregation=AggregationConfig(**_changed("aggregation", rule, aggregation or {})),
        compression=CompressionConfig(**_changed("compression", wire, compression or {})),
        hierarchy=HierarchyConfig(**_changed("hierarchy", {"institutions": 0, "period": 2}, hierarchy or {})),
    )


def devices_config(**changes: Any) -> DevicesConfig:
    values: dict[str, Any] = {
        "shares": (0.25, 0.25, 0.25, 0.25), "availability": "always", "on_fraction": 0.7, "mean_on_seconds": 600.0,
        "failures_per_hour": 0.0, "deadline_seconds": 0.0, "over_commitment": 1.0,
    }  # fmt: skip
    return DevicesConfig(**_changed("devices", values, changes))


def vae_config(**changes: Any) -> VaeConfig:
    return VaeConfig(hidden=(8,), dense="auto", latent=2, kl_weight=1.0, train=train_config(**changes))


def gan_config(placement: str = "split", **changes: Any) -> GanConfig:
    return GanConfig(
        hidden=(8,), dense="auto", latent=2, placement=placement, penalty=10.0, generator_steps=2, generator_batch=8,
        generator_learning_rate=1e-2, train=train_config(**changes),
    )  # fmt: skip


def model_config(name: str, placement: str = "split", **changes: Any) -> ModelConfig:
    """The section of any generative model; `changes` are of its training."""
    if name == "vae":
        return vae_config(**changes)
    if name == "diffusion":
        return DiffusionConfig(hidden=(8,), dense="auto", steps=6, train=train_config(**changes))
    if name == "pategan":
        train = train_config(**{"sampler": "fixed", **changes})
        return PateganConfig(
            (8,),
            "auto",
            2,
            4,
            6,
            "mean",
            generator_steps=2,
            generator_batch=8,
            generator_learning_rate=1e-2,
            train=train,
        )
    gan = gan_config(placement, **changes)
    return MedganConfig(**vars(gan)) if name == "medgan" else gan


def linear():
    """Softmax regression: a convex model whose gradient fits on one line of NumPy."""
    return make_classifier(encoder().layout.dim, 2, ())


def make_parts(
    model: Any,
    config: TrainConfig,
    *,
    private: bool = True,
    bands: int = 0,
    mechanism: str = "",
    devices: int = 1,
    fleet: DevicesConfig | None = None,
    population: Population | None = None,
    least_share: float = 0.75,
    **of_domain: Any,
) -> Parts:
    """A federation of the toy domain's clients (or of another population) on a mesh of `devices`.

    Without a `fleet` the clients' own devices are ideal; a private fleet with a deadline keeps a timetable, as in a run.
    With `bands` the noise is correlated over so many rounds; a `mechanism` by its name goes before both.
    """

    def layer(cohort: int) -> DeviceLayer:
        if fleet is None:
            return make_ideal()
        return make_devices(fleet, cohort, timetable=private and fleet.deadline_seconds > 0)

    whole = population or domain(**of_domain).population
    over = fleet.over_commitment if fleet else 1.0
    dim, mesh = encoder().layout.dim, sharding.make_mesh(devices)
    named = mechanism or ("correlated_gaussian" if bands else "central_gaussian" if private else "none")
    return build_federation(model, whole, dim, 2, config, mesh, layer, over, named, bands, least_share)


def make_data(parts: Parts, seeds: int = 1, include: np.ndarray | None = None, **of_domain: Any) -> Data:
    mask = np.ones((seeds, parts.population.size), bool) if include is None else include
    return Data(domain(**of_domain).data, jnp.asarray(mask))


def hyper(seeds: int | None = 1, **changes: float) -> Hyper:
    """Every number a model or a transform may read, f32[N] (f32[] for seeds None)."""
    values = {
        "client_learning_rate": 0.1, "server_learning_rate": 1.0, "proximal_weight": 0.01, "l2_clip_norm": 0.5,
        "noise_multiplier": 1.0, "kl_weight": 1.0, "penalty": 10.0, "generator_learning_rate": 1e-2,
        "reconstruction_weight": 0.5, "rounds": 6.0,
    }  # fmt: skip
    assert set(changes) <= set(values), changes
    shape = () if seeds is None else (seeds,)
    scalars = {name: jnp.full(shape, value, jnp.float32) for name, value in (values | changes).items()}
    return {**scalars, "class_prior": jnp.broadcast_to(jnp.array([0.6, 0.4], jnp.float32), (*shape, 2))}


def keys(*seeds: int) -> jax.Array:
    """Root keys of a federation each; of the project's own generator, as checkpoints take for granted."""
    return jax.vmap(root_key)(jnp.asarray(seeds, jnp.uint32))


def flat(tree: Any) -> np.ndarray:
    """All leaves of a tree whose leaves have a leading axis N, as f64[N, P]."""
    leaves = [np.asarray(leaf, np.float64) for leaf in jax.tree.leaves(tree)]
    return np.concatenate([leaf.reshape(leaf.shape[0], -1) for leaf in leaves], 1)
