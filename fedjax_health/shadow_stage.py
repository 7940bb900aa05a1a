"""The stage that attacks by shadow federations: masks, what each shadow's clients are asked, one program, rows of table 3."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from fedjax_health import build, prepare, rng
from fedjax_health.attacks.shadows import AXIS, draw_masks, make_shadow_mesh, over_shadows
from fedjax_health.attacks.updates import watched
from fedjax_health.classifying import classifier_of
from fedjax_health.config import Config
from fedjax_health.data.representation import encode_table, layout_of
from fedjax_health.data.split import take_clients
from fedjax_health.evaluation.downstream import VIEWS, view_population
from fedjax_health.evaluation.mixtures import held
from fedjax_health.federated import sharding
from fedjax_health.models.base import GenerativeModel
from fedjax_health.prepared import Prepared
from fedjax_health.privacy.plan import PrivacyPlan
from fedjax_health.shadow_pipeline import Common, Plan, Shadow, make_pipeline, no_calibration
from fedjax_health.synthesis.calibrate import make_calibrate
from fedjax_health.synthesis.sample import decoder_of
from fedjax_health.threefry import root_key
from fedjax_health.types import Table

MOST_POPULATION = 100  # clients whose records tell RMIA how models treat records in general
BLOCK_BYTES = 1 << 29  # of records encoded shadow by shadow that are held at a time


class World(NamedTuple):
    """A domain's shadow federations before any is trained.

    Attributes:
      config: of the shadows: S seeds, a seed of their own, no canaries.
      prepared: the domain with federations for one device, masks bool[S, K], class shares f32[S, L], representations.
      plan: the run's noise.
      targets: i[n], clients, ascending.
      scored: records of the targets, then of the population; `client` is the place among `targets` and after them.
      mesh: of `attacks.shadows.make_shadow_mesh`.
    """

    config: Config
    prepared: Prepared
    plan: PrivacyPlan
    targets: np.ndarray
    scored: Table
    mesh: Mesh

    @property
    def member(self) -> np.ndarray:
        """bool[S, n], which targets took part in which shadow."""
        return self.prepared.include[:, self.targets]


class Found(NamedTuple):
    """Scores of one generator's shadows.

    Attributes:
      record: signal -> f64[S, R], of `World.scored`.
      client: signal -> f64[S, n], of the targets, where it has no record of its own.
      traces: how often the pipeline was traced.
      seconds: of compiling and of running.
    """

    record: dict[str, np.ndarray]
    client: dict[str, np.ndarray]
    traces: int
    seconds: tuple[float, float]


def make_world(config: Config, plan: PrivacyPlan, p: Prepared) -> World:
    """Draws targets and masks, and asks the clients of every shadow what those of the run were asked, with noise of its own.

    Of a shadow all that reads clients before training is done again from its mask, by the code of the run (`prepare`): class
    shares, and with a fitted representation distribution functions, correlations and categories, each with fresh noise of the
    run's multiplier. Held fixed is what is public: schema, public scaling, cells, noise multipliers, number of rounds.

    Args:
      config: the run.
      plan: its noise.
      p: the domain as the run prepared it.
    """
    name, domain, attacks = p.domain.name, p.domain, config.attacks
    generator = rng.host_rng(config.seed, rng.Stream.ATTACK, name, "shadows")
    stored = np.unique(domain.train.client)
    most = attacks.shadow_targets or len(stored)
    targets = np.sort(generator.permutation(stored)[:most])
    masks = draw_masks(targets, domain.population.size, attacks.shadows, generator)
    own = dataclasses.replace(
        config,
        seeds=attacks.shadows,
        seed=rng.named_seed(config.seed, name, "shadows"),
        privacy=dataclasses.replace(config.privacy, canaries=0),
    )
    bare = prepare.with_federations(domain, masks, own, sharding.make_mesh(1))
    population = np.unique(domain.validation.client)
    others = np.sort(generator.permutation(population)[:MOST_POPULATION])
    halves = take_clients(domain.train, targets), take_clients(domain.validation, others)
    scored = Table(
        np.concatenate([t.values for t in halves]),
        np.concatenate([t.label for t in halves]),
        np.concatenate([halves[0].client, halves[1].client + len(targets)]),
    )
    return World(own, prepare.ask(bare, plan, own), plan, targets, scored, make_shadow_mesh())


def _keys(world: World, *names: str) -> jax.Array:
    root = root_key(rng.named_seed(world.config.seed, world.prepared.domain.name, *names))
    return rng.numbered_keys(root, world.config.seeds)


def _blocks(world: World, model: str, size: int) -> Iterator[Shadow]:
    """Shadows `size` at a time, the last ones filled up with the first of all, leading axis `size`."""
    p, config = world.prepared, world.config
    keys, kind, split = _keys(world, model), config.representation, NamedSharding(world.mesh, PartitionSpec(AXIS))
    for start in range(0, config.seeds, size):
        which = np.arange(start, start + size) % config.seeds
        shadow = Shadow(keys[which], jnp.asarray(p.include[which]), jnp.asarray(p.shares[which]))
        if p.fitted:
            fitted = [p.fitted[s] for s in which]
            stacked = jax.tree.map(lambda *leaves: jnp.asarray(np.stack(leaves), jnp.float32), *fitted)
            records = [
                encode_table(world.scored.values, world.scored.label, p.domain.schema, kind, f, None) for f in fitted
            ]
            shadow = shadow._replace(fitted=stacked, records=jnp.asarray(np.stack(records)))
            if model in p.one_shots:
                shares = jnp.asarray(np.stack([p.categories[s] for s in which]))
                shadow = shadow._replace(statistics={"shares": shares})
            else:
                shadow = shadow._replace(x=prepare.stores(p.domain, kind, fitted, config.seed).x)
        yield jax.device_put(shadow, split)


def _block_size(world: World) -> int:
    """Shadows whose own records fit, a multiple of the devices; all of them where none has any."""
    devices, seeds, p = world.mesh.size, world.config.seeds, world.prepared
    every = -(-seeds // devices) * devices
    if not p.fitted:
        return every
    row = 4 * layout_of(p.domain.schema, world.config.representation).dim
    most = BLOCK_BYTES // (row * (len(p.domain.train.label) + len(world.scored.label)))
    return int(min(every, max(1, most // devices) * devices))


def _plan(world: World, model: str, rounds: int, views: tuple[str, ...]) -> Plan:
    """Static side of a generator's pipeline."""
    config, p = world.config, world.prepared
    domain, kind, judge, train = p.domain, config.representation, config.classifier, config.classifier.train
    classifier = classifier_of(judge, domain.encoder.layout.dim, domain.schema.num_classes)
    clients = int(domain.train.client.max()) + 1
    over = domain._replace(population=view_population(domain.train, clients))
    diagnosing = build.build_parts(classifier, over, train, config, sharding.make_mesh(1), published=False)
    generative = p.one_shots[model] if model in p.one_shots else p.parts[model].model
    calibrate, parts = no_calibration, p.parts.get(model)
    if p.fitted and isinstance(generative, GenerativeModel):
        calibrate = make_calibrate(generative.sample, kind, layout_of(domain.schema, kind).missing)
    if parts is not None and config.attacks.update_rounds:
        parts = watched(parts, world.targets, config.attacks.update_rounds)
    whole = train.rounds // train.rounds_per_chunk * train.rounds_per_chunk
    decode = decoder_of(domain.schema, kind)
    return Plan(parts, rounds, generative, decode, calibrate, domain.encoder, diagnosing, whole, views)  # pyright: ignore[reportArgumentType]


def run_shadows(world: World, model: str, rounds: int, views: tuple[str, ...] = VIEWS) -> Found:
    """Every shadow's whole pipeline of one generator, by one compiled program.

    Args:
      world: of `make_world`.
      model: the generator.
      rounds: that it trains, as the run's did; no matter for a one-shot model.
      views: on which diagnostic models are trained.
    """
    config, p, traces = world.config, world.prepared, 0
    domain = p.domain
    at = held(domain.train, int(domain.train.client.max()) + 1)
    section = build.model_config(model, config) if model not in p.one_shots else None
    numbers = build.training_numbers(section, world.plan.noise_multiplier) if section else {}
    judged = build.training_numbers(config.classifier)

    def scalars(values: Mapping[str, float]) -> dict[str, jax.Array]:
        return {name: jnp.float32(value) for name, value in values.items()}

    common = Common(
        domain.data._replace(x=jnp.zeros(0)) if p.fitted and section else domain.data,
        scalars(numbers),
        scalars(judged),
        jax.jit(domain.encoder.encode)(jnp.asarray(domain.train.values, jnp.float32)),
        jnp.asarray(domain.train.label),
        jnp.asarray(at.first, jnp.int32),
        jnp.asarray(at.count, jnp.int32),
        jnp.asarray(world.scored.values, jnp.float32),
        jnp.asarray(world.scored.label),
        root_key(rng.named_seed(config.seed, domain.name, model, "common")),
    )
    common = jax.device_put(common, NamedSharding(world.mesh, PartitionSpec()))
    pipeline = make_pipeline(_plan(world, model, rounds, views), domain.schema.num_classes)

    def one(shadow: Shadow, common: Common) -> Any:
        nonlocal traces
        traces += 1
        return pipeline(shadow, common)

    program, compiled, seconds, parts = jax.jit(over_shadows(one, world.mesh)), None, [0.0, 0.0], []
    for block in _blocks(world, model, _block_size(world)):
        began = time.perf_counter()
        if compiled is None:
            compiled = program.lower(block, common).compile()
            seconds[0] = time.perf_counter() - began
            began = time.perf_counter()
        parts.append(jax.device_get(compiled(block, common)))
        seconds[1] += time.perf_counter() - began
    found = {n: np.concatenate([part[n] for part in parts])[: config.seeds].astype(np.float64) for n in parts[0]}
    records = len(world.scored.label)
    record = {n: f for n, f in found.items() if f.shape[1] == records}
    client = {n: f for n, f in found.items() if n not in record}
    return Found(record, client, traces, (seconds[0], seconds[1]))
