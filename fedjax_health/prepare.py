"""What is ready before the first training: domains, federations, who is left out, the plan, and what clients were asked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fedjax_health import build, rng
from fedjax_health.build_secure import seen_by_server
from fedjax_health.config import Config
from fedjax_health.data.domain import Domain
from fedjax_health.data.population import Store
from fedjax_health.data.representation import QUERIES, Fitted, encode_table
from fedjax_health.data.split import inclusion_masks
from fedjax_health.federated import distributed, sharding
from fedjax_health.federated.adaptive_clip import SHARE_BELOW
from fedjax_health.models.base import ballot_of
from fedjax_health.prepared import CATEGORIES, Prepared
from fedjax_health.privacy import category_shares
from fedjax_health.privacy.class_prior import noisy_class_shares
from fedjax_health.privacy.fit import client_weights, fit_representation
from fedjax_health.privacy.one_shot import OneShotRelease
from fedjax_health.privacy.plan import PrivacyPlan, Release, make_plan
from fedjax_health.randomness import BY_SEED, Randomness, kept_arrays, kept_shares, noise_seed, share_normals
from fedjax_health.types import Table


def load(
    config: Config, randomness: Randomness = BY_SEED, notes: dict[str, list[str]] | None = None
) -> tuple[list[Prepared], PrivacyPlan]:
    """The data of every domain with its federations, over the devices of all processes, and the noise for the whole run.

    Args:
      config: the run.
      randomness: of the run.
      notes: takes each domain's notes as soon as it is loaded, so that they are there even if the plan cannot be.
    """
    mesh = sharding.make_mesh()
    bare = [bare_domain(name, config, mesh) for name in config.data.domains]
    if notes is not None:
        notes |= {p.domain.name: list(p.domain.notes) for p in bare if p.domain.notes}
    plan = plan_privacy(config, bare)
    prepared = [measure(p, plan, config, randomness) for p in bare]
    for p in prepared:
        distributed.check_same(f"data of {p.domain.name}", (p.data, p.include, p.shares, p.categories))
    return prepared, plan


def bare_domain(name: str, config: Config, mesh: Any) -> Prepared:
    """Loads a domain, draws who is left out in each seed, and builds one federation a model; nothing is asked of clients yet.

    Args:
      name: domain.
      config: the run.
      mesh: devices.
    """
    domain = build.build_domain(name, config)
    size = domain.population.size
    include = inclusion_masks(size, config.data.audit_fraction, config.seeds, config.seed, name)
    return with_federations(domain, include, config, mesh)


def with_federations(domain: Domain, include: np.ndarray, config: Config, mesh: Any) -> Prepared:
    """A domain with one federation a model; nothing is asked of clients yet.

    Args:
      domain: whose clients.
      include: bool[N, K], who exists in each seed.
      config: the run.
      mesh: devices.
    """
    parts = {
        model: build.build_parts(
            build.build_model(model, domain, config), domain, build.model_config(model, config).train, config, mesh
        )
        for model in build.trained(config)
    }
    one_shots = {m: build.build_one_shot(m, domain, config) for m in config.models if m in build.ONE_SHOTS}
    nothing = np.zeros((config.seeds, domain.schema.num_classes), np.float32)
    return Prepared(domain, include, nothing, parts, domain.data, one_shots=one_shots)


def plan_privacy(config: Config, prepared: Sequence[Prepared]) -> PrivacyPlan:
    """The noise for the whole run, from the samplers that will run.

    Args:
      config: the run.
      prepared: all domains.
    """
    releases, records = [], config.privacy.mechanism == "record_gaussian"
    for p in prepared:
        for model, parts in p.parts.items():
            train = build.model_config(model, config).train
            name = p.domain.name
            passes = train.local_epochs if records else 1
            stage, also = f"{name}/{model}", SHARE_BELOW if train.clip_quantile else ""
            bound, least = seen_by_server(train, parts)
            ballot = ballot_of(parts.model)
            release = Release(
                stage, name, parts.sampler, train.rounds, bound, passes, also, least, parts.noise_grid,
                ballot.teachers if ballot else 0,
            )  # fmt: skip
            releases.append(release)
    units = [len(p.domain.train.label) if records else p.domain.population.size for p in prepared]
    one_shots = [
        OneShotRelease(f"{p.domain.name}/{model}", p.domain.name, category_shares.asks(p.domain.encoder.layout))
        for p in prepared
        for model in p.one_shots
    ]
    queries = QUERIES[config.representation]
    return make_plan(config.privacy, min(units), releases, queries=queries, one_shots=one_shots)


def measure(p: Prepared, plan: PrivacyPlan, config: Config, randomness: Randomness) -> Prepared:
    """Asks the clients of each seed for their class shares, and for what the representation needs, noise included.

    Args:
      p: a bare domain.
      plan: noise of every question.
      config: the run.
      randomness: of the run; of one that has ended the answers are kept, since their noise is gone.
    """
    kind, name, seeds = config.representation, p.domain.name, config.seeds
    classes = p.domain.schema.num_classes
    records = by_records(config)
    if randomness.ended:
        shares = kept_shares(randomness, name, (seeds, classes))
    else:
        shares = np.stack([class_shares(p, config, randomness, s, records) for s in range(seeds)])
    if kind == "public":
        return p._replace(shares=shares)
    if randomness.ended:
        arrays = kept_arrays(randomness, tuple(f"{name}/{field}" for field in Fitted._fields))
        fitted = tuple(Fitted(*(array[s] for array in arrays)) for s in range(seeds))
    else:
        fitted = padded([fit(p, plan, config, randomness, s, records) for s in range(seeds)])
    p = p._replace(shares=shares, fitted=fitted, data=stores(p.domain, kind, fitted, config.seed))
    if not p.one_shots:
        return p
    if randomness.ended and category_shares.asks(p.domain.encoder.layout):
        return p._replace(categories=tuple(kept_arrays(randomness, (f"{name}/{CATEGORIES}",))[0]))
    return p._replace(categories=tuple(categories(p, plan, config, randomness, s, records) for s in range(seeds)))


def ask(p: Prepared, plan: PrivacyPlan, config: Config) -> Prepared:
    """What `measure` asks by the run's seed, but for the encoded records: those are for `stores` to make, a few at a time.

    Args:
      p: a bare domain.
      plan: noise of every question.
      config: the run.
    """
    records, seeds = by_records(config), range(config.seeds)
    shares = np.stack([class_shares(p, config, BY_SEED, s, records) for s in seeds])
    if config.representation == "public":
        return p._replace(shares=shares)
    fitted = padded([fit(p, plan, config, BY_SEED, s, records) for s in seeds])
    asked = [categories(p, plan, config, BY_SEED, s, records) for s in seeds] if p.one_shots else []
    return p._replace(shares=shares, fitted=fitted, categories=tuple(asked))


def by_records(config: Config) -> bool:
    """Whether every record counts the same instead of every client, which no guarantee covers."""
    weightings = {build.model_config(m, config).train.aggregation.weighting for m in build.trained(config)}
    return config.privacy.mechanism == "none" and weightings == {"examples"}


def class_shares(p: Prepared, config: Config, randomness: Randomness, seed: int, records: bool) -> np.ndarray:
    """Class shares of one seed, f32[L].

    Args:
      p: the domain.
      config: the run.
      randomness: of the run.
      seed: number of the federation.
      records: see `by_records`.
    """
    held = int(p.domain.train.client.max()) + 1
    local = config.privacy.mechanism in ("local_gaussian", "distributed_gaussian")
    noise = config.privacy.prior_noise_multiplier if config.privacy.mechanism != "none" else 0.0
    normals = share_normals(randomness, noise_seed(config.seed, config.privacy.trial), p.domain.name, seed)
    include, classes = p.include[seed][:held], p.domain.schema.num_classes
    return noisy_class_shares(p.domain.train, include, classes, noise, normals, local, records)


def fit(
    p: Prepared,
    plan: PrivacyPlan,
    config: Config,
    randomness: Randomness,
    seed: int,
    records: bool,
) -> Fitted:
    """The representation of one seed.

    Args:
      p: the domain.
      plan: gives the noise.
      config: the run.
      randomness: of the run.
      seed: number of the federation.
      records: see `by_records`.
    """
    name = p.domain.name
    asked, weight = asked_records(p, seed, records)
    return fit_representation(
        asked.values,
        asked.label,
        weight,
        asked.client,
        p.domain.schema,
        config.representation,
        plan.statistics_noise,
        lambda query: share_normals(randomness, noise_seed(config.seed, config.privacy.trial), name, seed, query),
        rng.host_rng(config.seed, rng.Stream.SPREAD, name, str(seed)),
    )


def asked_records(p: Prepared, seed: int, records: bool) -> tuple[Table, np.ndarray]:
    """Records of the clients that exist in a seed, and their weights f64[M].

    Args:
      p: the domain.
      seed: number of the federation.
      records: see `by_records`.
    """
    there = p.include[seed][p.domain.train.client]
    asked = Table(*(column[there] for column in p.domain.train))
    return asked, np.ones(len(asked.client)) if records else client_weights(asked.client)


def categories(
    p: Prepared, plan: PrivacyPlan, config: Config, randomness: Randomness, seed: int, records: bool
) -> np.ndarray:
    """Shares of categories by class of one seed, f32[L, D - numeric], which may be empty.

    Args:
      p, plan, config, randomness, seed, records: as for `fit`.
    """
    layout, classes = p.domain.encoder.layout, p.domain.schema.num_classes
    if not category_shares.asks(layout):
        return np.zeros((classes, 0), np.float32)
    asked, weight = asked_records(p, seed, records)
    codes = np.asarray(jax.jit(p.domain.encoder.encode)(jnp.asarray(asked.values, jnp.float32)))[:, layout.numeric :]
    normals = share_normals(randomness, noise_seed(config.seed, config.privacy.trial), p.domain.name, seed, CATEGORIES)
    noise = plan.statistics_noise
    return category_shares.noisy_category_shares(codes, asked.label, weight, layout, classes, noise, normals)


def padded(fitted: Sequence[Fitted]) -> tuple[Fitted, ...]:
    """The same, with as many cells everywhere, so that one program serves all.

    Args:
      fitted: of the seeds.
    """
    most = max(np.shape(f.edges)[1] for f in fitted)

    def pad(array: Any) -> np.ndarray:
        width = [(0, 0)] * (array.ndim - 1) + [(0, most - array.shape[-1])]
        return np.pad(array, width, mode="edge")

    return tuple(f._replace(edges=pad(f.edges), below=pad(f.below)) for f in fitted)


def stores(domain: Domain, kind: str, fitted: Sequence[Fitted], seed: int) -> Store:
    """The domain's store with its records encoded as each seed's representation has it, leading axis N on every leaf.

    Args:
      domain: records and schema.
      kind: "scores" or "copula".
      fitted: of the seeds.
      seed: of the run; spreads values over their resolution.
    """
    train = domain.train
    x = [
        encode_table(
            train.values, train.label, domain.schema, kind, f, rng.host_rng(seed, rng.Stream.SPREAD, domain.name)
        )
        for f in fitted
    ]
    many = jax.tree.map(
        lambda leaf: jnp.broadcast_to(leaf[None], (len(x), *leaf.shape)), domain.data._replace(x=jnp.zeros(0))
    )
    return many._replace(x=jnp.asarray(np.stack(x)))
