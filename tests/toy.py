"""A toy domain with every kind of column, and factories of what the core's tests share."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fedjax_health import build
from fedjax_health.config import DataConfig, GanConfig, TrainConfig, VaeConfig
from fedjax_health.data.domain import Domain, domain_from_simulator
from fedjax_health.data.encode import Encoder, make_encoder
from fedjax_health.data.schema import Column, Schema
from fedjax_health.data.simulator import Simulator
from fedjax_health.federated import sharding
from fedjax_health.federated.federation import Data, Parts
from fedjax_health.models.classifier import make_classifier
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
    config = DataConfig(
        domains=("toy",), path="", schema="", task="diagnosis", label="", features="all", population=population,
        num_clients=num_clients, validation_fraction=0.2, test_fraction=0.2, audit_fraction=0.2, reference_clients=24,
    )  # fmt: skip
    return domain_from_simulator("toy", SIMULATOR, config, seed)


def train_config(**changes: Any) -> TrainConfig:
    values: dict[str, Any] = {
        "rounds": 6, "rounds_per_chunk": 2, "cohort": 8, "clients_per_chunk": 4, "local": "steps", "local_epochs": 1,
        "local_steps": 2, "batch_size": 3, "algorithm": "fedavg", "client_optimizer": "sgd",
        "client_learning_rate": 0.1, "server_learning_rate": 1.0, "step_clip_norm": 0.0, "weighting": "equal",
        "l2_clip_norm": 0.5, "ema_decay": 0.9, "convergence_window": 0, "convergence_tolerance": 0.01,
    }  # fmt: skip
    assert set(changes) <= set(values), changes
    return TrainConfig(**(values | changes))


def vae_config(**changes: Any) -> VaeConfig:
    return VaeConfig(hidden=(8,), latent=2, kl_weight=1.0, train=train_config(**changes))


def gan_config(placement: str = "split", **changes: Any) -> GanConfig:
    return GanConfig(
        hidden=(8,), latent=2, placement=placement, penalty=10.0, generator_steps=2, generator_batch=8,
        generator_learning_rate=1e-2, train=train_config(**changes),
    )  # fmt: skip


def linear():
    """Softmax regression: a convex model whose gradient fits on one line of NumPy."""
    return make_classifier(encoder().layout.dim, 2, ())


def make_parts(model, config: TrainConfig, *, private=True, devices=1, **of_domain: Any) -> Parts:
    return build.build_parts(model, domain(**of_domain), config, sharding.make_mesh(devices), private)


def make_data(parts: Parts, seeds: int = 1, include: np.ndarray | None = None, **of_domain: Any) -> Data:
    mask = np.ones((seeds, parts.population.size), bool) if include is None else include
    return Data(domain(**of_domain).data, jnp.asarray(mask))


def hyper(seeds: int | None = 1, **changes: float) -> Hyper:
    """Every number a model or a transform may read, f32[N] (f32[] for seeds None)."""
    values = {
        "client_learning_rate": 0.1, "server_learning_rate": 1.0, "l2_clip_norm": 0.5, "noise_multiplier": 1.0,
        "kl_weight": 1.0, "penalty": 10.0, "generator_learning_rate": 1e-2,
    }  # fmt: skip
    assert set(changes) <= set(values), changes
    shape = () if seeds is None else (seeds,)
    scalars = {name: jnp.full(shape, value, jnp.float32) for name, value in (values | changes).items()}
    return {**scalars, "class_prior": jnp.broadcast_to(jnp.array([0.6, 0.4], jnp.float32), (*shape, 2))}


def keys(*seeds: int) -> jax.Array:
    return jax.vmap(jax.random.key)(jnp.asarray(seeds, jnp.uint32))


def flat(tree: Any) -> np.ndarray:
    """All leaves of a tree whose leaves have a leading axis N, as f64[N, P]."""
    leaves = [np.asarray(leaf, np.float64) for leaf in jax.tree.leaves(tree)]
    return np.concatenate([leaf.reshape(leaf.shape[0], -1) for leaf in leaves], 1)
