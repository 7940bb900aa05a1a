"""From names in a config to parts: the only file that knows the concrete ones."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from fedjax_health.config import Config, GanConfig, TrainConfig, VaeConfig
from fedjax_health.data.domain import Domain, domain_from_simulator, domain_from_source
from fedjax_health.data.mimic3 import load_mimic3
from fedjax_health.data.physionet2019 import load_physionet2019
from fedjax_health.data.simulator import Simulator
from fedjax_health.data.source import Source
from fedjax_health.data.table import load_table
from fedjax_health.data.threats import make_threats
from fedjax_health.data.vitals import make_vitals
from fedjax_health.data.wustl_ehms import load_wustl_ehms
from fedjax_health.federated.aggregate import make_mean
from fedjax_health.federated.algorithms import SERVER_OPTIMIZERS, make_local_descent
from fedjax_health.federated.client import make_plan, make_run_client
from fedjax_health.federated.cohort import make_poisson
from fedjax_health.federated.round import Parts
from fedjax_health.models.base import GenerativeModel, Trainable, abstract_params
from fedjax_health.models.gan import make_gan
from fedjax_health.models.vae import make_vae
from fedjax_health.models.wgan_gp import make_wgan_gp
from fedjax_health.registry import lookup
from fedjax_health.transforms.base import chain
from fedjax_health.transforms.clip import make_clip
from fedjax_health.transforms.noise import make_gaussian_noise
from fedjax_health.types import Batch, UserError

SIMULATORS: dict[str, Callable[[], Simulator]] = {"vitals": make_vitals, "threats": make_threats}
SOURCES: dict[str, Callable[[Config], Source]] = {
    "physionet2019": lambda c: load_physionet2019(c.data.path),
    "wustl_ehms": lambda c: load_wustl_ehms(c.data.path, c.data.features),
    "mimic3": lambda c: load_mimic3(c.data.path, c.data.label),
    "table": lambda c: load_table(c.data.path, c.data.schema, c.data.task),
}
MODELS: dict[str, Callable[..., GenerativeModel]] = {"vae": make_vae, "gan": make_gan, "wgan_gp": make_wgan_gp}


def build_domain(name: str, config: Config) -> Domain:
    """Loads or simulates a domain.

    Args:
      name: one of SIMULATORS or SOURCES.
      config: the run.

    Raises:
      UserError: unknown name, or anything wrong with the data.
    """
    if name in SIMULATORS:
        return domain_from_simulator(name, SIMULATORS[name](), config.data, config.seed)
    load = lookup("data domain", name, {**SIMULATORS, **SOURCES})
    if not config.data.path:
        raise UserError(f"domain {name!r} needs its files; give their place with --config.data.path=PATH")
    return domain_from_source(name, load(config), config.data, config.seed)  # pyright: ignore[reportArgumentType,reportCallIssue]


def model_config(name: str, config: Config) -> VaeConfig | GanConfig:
    """The config section of a generative model."""
    return {"vae": config.vae, "gan": config.gan, "wgan_gp": config.wgan_gp}[name]


def build_model(name: str, domain: Domain, config: Config) -> GenerativeModel:
    """A generative model for a domain's columns.

    Args:
      name: one of MODELS.
      domain: gives the layout and the number of classes.
      config: the run.
    """
    make = lookup("model", name, MODELS)
    return make(domain.encoder.layout, domain.schema.num_classes, model_config(name, config))


def build_parts(model: Trainable, domain: Domain, train: TrainConfig, mesh: Mesh, private: bool) -> Parts:
    """A federation of a domain's clients.

    Args:
      model: what is trained.
      domain: whose clients train it.
      train: how.
      mesh: devices.
      private: clip, add noise to the sum, divide by the public expected cohort; else clip and divide by what came in.

    Raises:
      UserError: a batch larger than any client, or a cohort larger than the population.
    """
    population = domain.population
    if train.batch_size > population.max_count:
        raise UserError(
            f"{domain.name}: batch_size={train.batch_size} is larger than any client (the largest holds "
            f"{population.max_count} records); lower it"
        )
    if train.cohort > population.size:
        raise UserError(
            f"{domain.name}: cohort={train.cohort} is larger than the {population.size} training clients; lower it"
        )
    clip = make_clip()
    noise = make_gaussian_noise(lambda hyper: clip.l2_bound(None, hyper))  # pyright: ignore[reportArgumentType]
    sampler = make_poisson(population.size, float(train.cohort), mesh.size * train.clients_per_chunk)
    plan = make_plan(train, population.max_count)
    return Parts(
        model=model,
        population=population,
        run_client=make_run_client(
            population, make_local_descent(model, train.client_optimizer, train.step_clip_norm), plan
        ),
        sampler=sampler,
        transform=chain(clip, noise) if private else clip,
        aggregator=make_mean(train.weighting, sampler.expected if private else None),
        server_optimizer=SERVER_OPTIMIZERS[train.algorithm](),
        mesh=mesh,
        clients_per_chunk=train.clients_per_chunk,
        ema_decay=train.ema_decay,
    )


def local_flops(parts: Parts, domain: Domain, train: TrainConfig) -> float:
    """Floating-point operations of one client's local training, by XLA's own count of a step, averaged over clients.

    Args:
      parts: the federation.
      domain: gives the clients' sizes.
      train: batch size and local work.
    """
    dim, b = domain.encoder.layout.dim, train.batch_size
    batch = Batch(
        jax.ShapeDtypeStruct((b, dim), jnp.float32),  # pyright: ignore[reportArgumentType]
        jax.ShapeDtypeStruct((b,), jnp.int32),  # pyright: ignore[reportArgumentType]
        jax.ShapeDtypeStruct((b,), jnp.bool_),  # pyright: ignore[reportArgumentType]
    )
    scalars = ("kl_weight", "penalty", "generator_learning_rate", "client_learning_rate")
    hyper = {name: jax.ShapeDtypeStruct((), jnp.float32) for name in scalars}
    key = jax.eval_shape(jax.random.key, 0)
    analysis = jax.jit(parts.model.field).lower(abstract_params(parts.model.init), batch, hyper, key).cost_analysis()
    if train.local == "steps":
        steps = float(train.local_steps)
    else:
        steps = train.local_epochs * float(np.mean(-(-np.bincount(domain.train.client) // b)))
    return float(analysis["flops"]) * steps  # pyright: ignore[reportOptionalSubscript,reportArgumentType,reportCallIssue]
