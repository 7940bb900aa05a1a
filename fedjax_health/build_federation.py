"""From the names in a training's config to the parts of its federation."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import optax
from jax.sharding import Mesh

from fedjax_health import rng, tree
from fedjax_health.attacks.poisoning import make_update_attack, poison_population
from fedjax_health.build_costs import make_costs
from fedjax_health.build_secure import Secure, check_private_secure, make_secure
from fedjax_health.checks import MECHANISMS
from fedjax_health.checks_votes import check_votes
from fedjax_health.data.population import Population
from fedjax_health.devices.round import DeviceLayer
from fedjax_health.federated.adaptive_clip import with_clip_norm
from fedjax_health.federated.aggregate import Aggregator, make_mean
from fedjax_health.federated.algorithms import SCHEDULES, SERVER_OPTIMIZERS, Algorithm, make_fedavg, make_local_rule
from fedjax_health.federated.client import make_plan, make_run_client
from fedjax_health.federated.cohort import CohortSampler, make_fixed, make_full, make_poisson
from fedjax_health.federated.cyclic import check_turns, make_cyclic_poisson
from fedjax_health.federated.fedbuff import make_fedbuff
from fedjax_health.federated.federation import Parts, Scheme, message_like
from fedjax_health.federated.fednova import make_fednova
from fedjax_health.federated.fixed_point import make_fixed_point_mean
from fedjax_health.federated.hierarchy import make_hierarchy
from fedjax_health.federated.mime_lite import make_mime_lite
from fedjax_health.federated.record_sgd import make_direction, make_record_sgd
from fedjax_health.federated.robust import make_rule, make_stacked
from fedjax_health.federated.round import FLAT
from fedjax_health.federated.scaffold import make_scaffold
from fedjax_health.federated.teachers import make_dealt
from fedjax_health.federated.votes import make_vote_transform, make_votes
from fedjax_health.federation_config import AggregationConfig, TrainConfig
from fedjax_health.models.base import Trainable, abstract_params, ballot_of
from fedjax_health.privacy.correlated import make_correlated
from fedjax_health.threefry import root_key
from fedjax_health.transforms.base import UpdateTransform, chain
from fedjax_health.transforms.clip import make_clip
from fedjax_health.transforms.compress import make_compression, make_download
from fedjax_health.transforms.local import make_local_privacy
from fedjax_health.transforms.noise import make_gaussian_noise
from fedjax_health.types import UserError

CPU_CHUNK = 10  # clients side by side on one core: their parameters then stay in its cache
ACCELERATOR_BYTES = 2 << 30  # parameters, gradients and products of the clients side by side on an accelerator
MOST_MEMORY_BYTES = 8 << 30  # of what all clients together remember
CENTRAL = ("central_gaussian", "correlated_gaussian")  # noise on the server's sum hides a client


def build_federation(
    model: Trainable,
    population: Population,
    dim: int,
    num_classes: int,
    train: TrainConfig,
    mesh: Mesh,
    devices: Callable[[int], DeviceLayer],
    over_commitment: float,
    mechanism: str,
    noise_bands: int = 1,
    least_share: float = 0.75,
) -> Parts:
    """A federation of a population.

    Args:
      model: what is trained.
      population: who trains it.
      dim, num_classes: D and L of its records.
      train: how.
      mesh: the machine's devices.
      devices: cohort -> the clients' simulated devices.
      over_commitment: factor on the clients asked.
      mechanism: "central_gaussian" adds noise to the sum, and divides by the public expected cohort; so does
        "correlated_gaussian", with noise that cancels over rounds and clients that take turns; "record_gaussian" clips
        and noises every record's gradient on the client instead; "local_gaussian" every client's update, and the server,
        who sees each, divides by what came in, as for "none"; so does "distributed_gaussian", whose clients' shares of the
        noise make up the whole in a secure sum. For a model whose teachers vote "central_gaussian" is noise on the votes.
      noise_bands: b of "correlated_gaussian", rounds over which its noise is correlated and groups of clients.
      least_share: of "distributed_gaussian", share of the expected cohort whose noise is the whole of it, in (0, 1].

    Raises:
      UserError: a batch larger than any client, a cohort larger than the population, more to remember than fits, or
        privacy with parts that no accountant covers.
    """
    if mechanism not in MECHANISMS:
        raise UserError(f"mechanism={mechanism!r} is not one of {', '.join(MECHANISMS)}; give one of them")
    _check_sizes(train, population)
    ballot = ballot_of(model)
    if ballot is not None:
        check_votes(train, "train", mechanism, ballot.teachers, over_commitment)
    # noise on votes, none on a sum of updates
    private, records = mechanism in CENTRAL and ballot is None, mechanism == "record_gaussian"
    correlated = mechanism == "correlated_gaussian"
    if correlated:
        check_turns(train, noise_bands)
    local, distributed = mechanism == "local_gaussian", mechanism == "distributed_gaussian"
    direction = make_direction(model, train.batch_size) if records else model.field
    algorithm = make_record_sgd(direction, _rule(train)) if records else _algorithm(model, train, population.size)
    algorithm = with_clip_norm(algorithm, train, mechanism)
    params = abstract_params(model.init)
    message = jax.eval_shape(lambda p: message_like(algorithm, p), params.client)
    asked = min(population.size, math.ceil(train.cohort * over_commitment))

    def sampler(multiple: int) -> CohortSampler:
        if ballot is not None:
            return make_dealt(population.size, ballot.teachers, train.cohort // ballot.teachers)
        if train.algorithm == "fedbuff":
            return make_fixed(population.size, train.concurrency + train.cohort, 1)
        if train.sampler == "full":
            return make_full(population.size, multiple)
        if train.sampler == "fixed":
            return make_fixed(population.size, asked, multiple)
        if correlated:
            return make_cyclic_poisson(population.size, float(asked), noise_bands, multiple)
        return make_poisson(population.size, float(asked), multiple)

    wanted = train.cohort if train.algorithm == "fedbuff" else sampler(1).slots
    chunk = _chunk(train.clients_per_chunk, -(-wanted // mesh.size), 4 * tree.size(params.client))
    drawn = sampler(mesh.size * chunk)
    compression = make_compression(train.compression, message)
    secure = make_secure(train, sampler(1), compression, message, mechanism, least_share)
    transform = compression if records else _transform(compression, train, private and not correlated, secure)
    if local:
        transform = make_local_privacy(compression, train)
    if ballot is not None:
        transform = make_vote_transform(ballot, mechanism != "none")
    plan = make_plan(train, population.max_count, population.min_count)
    attacked = _attacked(population, train.aggregation, num_classes)
    parts = Parts(
        model=model,
        population=attacked,
        algorithm=algorithm,
        run_client=make_run_client(attacked, algorithm, plan),
        sampler=drawn,
        devices=devices(train.cohort),
        costs=make_costs(direction, algorithm, params, message, transform, train, plan, dim, secure),
        download=make_download(train.compression),
        transform=transform,
        aggregator=secure.aggregator if secure else _aggregator(train, drawn, private),
        server_optimizer=SERVER_OPTIMIZERS[train.server_optimizer](),
        schedule=SCHEDULES[train.server_schedule],
        mesh=mesh,
        clients_per_chunk=chunk,
        by_examples=train.aggregation.weighting == "examples",
        ema_decay=train.ema_decay,
        scheme=make_votes(ballot) if ballot is not None else _scheme(train, drawn),
        correlated=make_correlated(train.rounds, noise_bands) if correlated else None,
        noise_grid=secure.grid if secure else None,
    )
    _check_memory(parts, params.client, message)
    if private or local or distributed or (ballot is not None and mechanism != "none"):
        _check_private(parts)
    if private and secure:
        check_private_secure(parts, secure.graph, population.size)
    if records:
        drawn.account(1.0)  # refuses a sampler without an accountant
    return parts


def _check_sizes(train: TrainConfig, population: Population) -> None:
    if train.batch_size > population.max_count:
        raise UserError(
            f"batch_size={train.batch_size} is larger than any client (the largest holds {population.max_count} records); "
            "lower it"
        )
    if train.cohort > population.size:
        raise UserError(f"cohort={train.cohort} is larger than the {population.size} training clients; lower it")
    at_once = 2 * train.concurrency + train.cohort
    if train.algorithm == "fedbuff" and at_once > population.size:
        raise UserError(
            f"fedbuff with concurrency={train.concurrency} and cohort={train.cohort} needs {at_once} clients to choose from; "
            f"there are {population.size}; lower concurrency"
        )


def _rule(train: TrainConfig) -> optax.GradientTransformation:
    return make_local_rule(train.client_optimizer, train.step_clip_norm)


def _algorithm(model: Trainable, train: TrainConfig, size: int) -> Algorithm:
    rule = _rule(train)
    if train.algorithm == "scaffold":
        fraction = 1.0 if train.sampler == "full" else train.cohort / size
        return make_scaffold(model, rule, fraction)
    if train.algorithm == "fednova":
        return make_fednova(model, rule)
    if train.algorithm == "mime_lite":
        return make_mime_lite(model, rule)
    return make_fedavg(model, rule, proximal=train.algorithm == "fedprox")


def _scheme(train: TrainConfig, sampler: CohortSampler) -> Scheme:
    if train.algorithm == "fedbuff":
        return make_fedbuff(sampler, train.concurrency, train.cohort, train.max_staleness)
    if train.hierarchy.institutions:
        return make_hierarchy(train.hierarchy.institutions, train.hierarchy.period)
    return FLAT


def _chunk(configured: int, per_device: int, model_bytes: int) -> int:
    """Clients side by side on a device: as configured, or what is fast on this backend."""
    if configured:
        return min(configured, per_device)
    if jax.default_backend() == "cpu":
        return min(CPU_CHUNK, per_device)
    return max(1, min(per_device, ACCELERATOR_BYTES // (8 * model_bytes)))


def _attacked(population: Population, config: AggregationConfig, num_classes: int) -> Population:
    if config.attack == "none":
        return population
    return poison_population(population, config.attack, config.attackers, num_classes, _world())


def _world() -> jax.Array:
    """Key that decides who attacks: the same clients in every run, so that runs can be compared."""
    return rng.stream_key(root_key(0), 0, rng.Stream.POISON)


def _aggregator(train: TrainConfig, sampler: CohortSampler, private: bool) -> Aggregator:
    config, expected = train.aggregation, sampler.expected if private else None
    if config.rule == "fixed_point":
        return make_fixed_point_mean(train.l2_clip_norm, sampler.slots, expected)
    attack = None
    if config.attack != "none":
        attack = make_update_attack(config.attack, config.attackers, config.attack_scale, _world())
    if config.rule == "mean" and attack is None:
        return make_mean(expected, unit=config.weighting == "equal" and train.algorithm != "fedbuff")
    return make_stacked(make_rule(config.rule, config.assumed_attackers), attack)


def _transform(first: UpdateTransform, train: TrainConfig, private: bool, secure: Secure | None) -> UpdateTransform:
    if math.isinf(train.l2_clip_norm) and not private:
        return first
    bounded = chain(first, make_clip())
    code = (secure.code,) if secure else ()
    sent = chain(bounded, *code) if secure else bounded
    if not private:
        return sent
    # the server sides run backwards: the sum is decoded, and what is noised moves by the bound of what was sent
    return chain(bounded, make_gaussian_noise(lambda hyper: sent.l2_bound(None, hyper)), *code)  # pyright: ignore[reportArgumentType]


def _check_memory(parts: Parts, client: Any, message: Any) -> None:
    def of(p: Any, m: Any) -> Any:
        return parts.algorithm.slot(p), parts.transform.memory(m)

    size = parts.population.size
    total = 4 * size * tree.size(jax.eval_shape(of, client, message))
    if total > MOST_MEMORY_BYTES:
        raise UserError(
            f"what {size} clients remember between rounds would take {total / 2**30:.1f} GiB (limit "
            f"{MOST_MEMORY_BYTES >> 30}); use an algorithm without memory (fedavg, fedprox), turn error_feedback off, or "
            "lower the number of clients"
        )


def _check_private(parts: Parts) -> None:
    """A private run uses only what the accountant covers; the config's own rules are in `checks`."""
    if not parts.aggregator.bounded:
        raise UserError(
            "privacy needs aggregation.rule='mean': noise on a sum does not cover a robust rule or an attack"
        )
    if parts.by_examples:
        raise UserError(
            "privacy needs aggregation.weighting='equal': a weight of the data stretches the clipped update"
        )
    if not parts.devices.data_independent:
        raise UserError(
            "privacy with these devices is not accounted for: with over_commitment > 1, or availability without a "
            "deadline_seconds, one client's work changes who else takes part; set over_commitment=1 and a deadline"
        )
    parts.sampler.account(1.0)
