"""The stages of a run, in order: load -> train -> synthesise -> evaluate -> attack -> report."""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fedjax_health import build, one_shot, rng, workdir
from fedjax_health.config import Config, to_json
from fedjax_health.data.representation import layout_of
from fedjax_health.evaluation import collapse, efficiency, suite
from fedjax_health.evaluation.rows import write_rows
from fedjax_health.federated import distributed, sharding
from fedjax_health.federated.federation import Data
from fedjax_health.models.base import Generative, GenerativeModel
from fedjax_health.prepare import load
from fedjax_health.prepared import Prepared, kept_of
from fedjax_health.privacy.plan import PrivacyPlan, Release, write_ledger
from fedjax_health.randomness import (
    Randomness,
    agree,
    end_randomness,
    keep_shares,
    open_randomness,
    training_keys,
)
from fedjax_health.report.html import render_report
from fedjax_health.results import (
    TABLES,
    Pictures,
    audit,
    cost_rows,
    evaluate,
    privacy_rows,
    show,
    white_box,
)
from fedjax_health.synthesis.calibrate import calibrated_by
from fedjax_health.synthesis.generator_file import Nothing, Sizes, save_generator, sizes
from fedjax_health.synthesis.publish import publish, publish_schemas
from fedjax_health.synthesis.sample import Published, decoder_of, make_sampler
from fedjax_health.train.loop import make_hyper
from fedjax_health.train.metrics import Writer
from fedjax_health.train.stage import Trained, federation_keys, train_stage
from fedjax_health.types import Row, Table

MOST_SYNTHETIC_ROWS = 50_000
LOG = logging.getLogger("fedjax_health")


def run(config: Config, path: str) -> str | None:
    """Runs everything, or goes on where an interrupted run of the same config stopped.

    Of several processes (see `federated.distributed`) all train, over the devices of all; the first alone does the rest.

    Args:
      config: the run.
      path: its folder.

    Returns:
      Path of report.html; None in a process other than the first.

    Raises:
      UserError: something the user can mend; the manifest then says "failed".
    """
    distributed.check_same("config", to_json(config))
    if not distributed.is_main():
        return assist(config)
    began = time.perf_counter()
    workdir.open_workdir(path, config)
    manifest = workdir.manifest(config)
    workdir.write_manifest(path, manifest)

    @contextlib.contextmanager
    def timed(name: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        manifest["seconds"][name] = round(time.perf_counter() - start, 2)
        workdir.write_manifest(path, manifest)

    try:
        with Writer(path) as writer:
            with timed("load"):
                stages = [f"{domain}/{model}" for domain in config.data.domains for model in build.trained(config)]
                mine = open_randomness(config.privacy.randomness, path, stages)
                randomness = agree(mine, config.privacy.randomness)
                prepared, plan = load(config, randomness, manifest.setdefault("notes", {}))
                keep_shares(randomness, path, kept_of(prepared))
            rows: dict[str, list[Row]] = {name: [] for name in TABLES}
            pictures = Pictures([], [], [])
            mesh = sharding.make_local_mesh()
            done: dict[str, int] = {}
            trained: dict[str, Trained] = {}
            for release in plan.releases:
                with timed(f"train {release.stage}"):
                    p = next(p for p in prepared if p.domain.name == release.domain)
                    trained[release.stage] = train(config, plan, release, p, done, path, writer, randomness)
                    done[release.stage] = trained[release.stage].rounds
                    write_ledger(os.path.join(path, "privacy_ledger.json"), plan.ledger(done))
                    rows["privacy"] += audit(config, plan, release, p, trained[release.stage])
            end_randomness(randomness, path)  # before anything is published
            ledger = plan.ledger(done)
            write_ledger(os.path.join(path, "privacy_ledger.json"), ledger)  # also of a run that trains nothing
            # a promise that does not hide whether a client takes part bounds no attack on its membership
            hidden = plan.formal and plan.relation == "add_or_remove_one"
            budget = (ledger["epsilon_total"], ledger["delta"]) if plan.formal else None
            promise = budget if hidden else None
            for p in prepared:
                with timed(f"synthesise {p.domain.name}"):
                    subjects = synthesise(config, p, trained, path)
                with timed(f"evaluate {p.domain.name}"):
                    evaluate(config, p, subjects, mesh, promise, budget, rows, pictures, writer)
                for sentence in collapse.warnings(rows["similarity"], p.domain.name):
                    LOG.warning("warning: %s", sentence)
                    manifest["notes"].setdefault(p.domain.name, []).append(sentence)
                rows["efficiency"] += cost_rows(config, p, trained, writer)
            schemas = {p.domain.name: p.domain.schema for p in prepared}
            publish_schemas(os.path.join(path, "synthetic"), schemas, config.models)
            rows["privacy"] += privacy_rows(ledger)
            rows["efficiency"] += efficiency.run_rows(time.perf_counter() - began)
            for name, table in rows.items():
                write_rows(table, os.path.join(path, "tables", f"{name}.csv"))
            pictures.write(os.path.join(path, "tables"))
            manifest["status"] = "done"
            with timed("report"):
                workdir.write_manifest(path, manifest)
                report = render_report(path)
                show(writer, path, config, rows)
        workdir.write_manifest(path, manifest)
        return report
    except BaseException:
        manifest["status"] = "failed"
        workdir.write_manifest(path, manifest)
        raise


def assist(config: Config) -> None:
    """The part of a process other than the first: the same trainings, and no file.

    Args:
      config: the run.
    """
    randomness = agree(None, config.privacy.randomness)
    prepared, plan = load(config, randomness)
    done: dict[str, int] = {}
    for release in plan.releases:
        p = next(p for p in prepared if p.domain.name == release.domain)
        done[release.stage] = train(config, plan, release, p, done, "", None, randomness).rounds


def train(
    config: Config,
    plan: PrivacyPlan,
    release: Release,
    p: Prepared,
    done: dict[str, int],
    path: str,
    writer: Writer | None,
    randomness: Randomness,
) -> Trained:
    """One training of the run.

    Args:
      config: the run.
      plan: noise and budget.
      release: which training.
      p: its domain.
      done: rounds of the trainings before it.
      path: the run's folder.
      writer: metrics; None in a process that writes no files.
      randomness: of the run.
    """
    model = release.stage.split("/")[1]
    section = build.model_config(model, config)
    values = {
        "client_learning_rate": section.train.client_learning_rate,
        "server_learning_rate": section.train.server_learning_rate,
        "l2_clip_norm": section.train.l2_clip_norm,
        "noise_multiplier": plan.noise_multiplier,
        **build.model_numbers(section),
    }
    hyper = {**make_hyper(values, config.seeds), "class_prior": jnp.asarray(p.shares)}
    keys = training_keys(randomness, config.seed, release.stage, config.seeds)
    data = Data(p.data, jnp.asarray(p.include))
    epsilon = plan.epsilon_table(release, done)
    budget = config.privacy.epsilon if plan.formal else float("inf")
    forget = randomness.secret is not None
    return train_stage(
        release.stage,
        p.parts[model],
        section.train,
        keys,
        hyper,
        data,
        epsilon,
        budget,
        path,
        writer,
        forget,
        not p.fitted,
    )


class Drawn(NamedTuple):
    """What the rows of a model are drawn from.

    Attributes:
      model: gives `sample` and `score`.
      network: of each seed, what is released beside the representation.
      params: what its `score` reads, leading axis N.
      sizes: of the network, for its file.
    """

    model: Generative
    network: list[Any]
    params: Any
    sizes: Sizes


def drawn_from(config: Config, p: Prepared, name: str, trained: dict[str, Trained]) -> Drawn:
    """A model of a run once its trainings are done.

    Args:
      config: the run.
      p: the domain.
      name: of the model.
      trained: stage to training.
    """
    if name in p.one_shots:
        released = one_shot.released_of(p)
        stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *released)
        return Drawn(p.one_shots[name], released, stacked, Nothing())
    model, state = p.parts[name].model, trained[f"{p.domain.name}/{name}"].state
    assert isinstance(model, GenerativeModel)
    networks = [jax.tree.map(lambda leaf, s=s: leaf[s], state.average) for s in range(config.seeds)]
    return Drawn(model, networks, state.params, sizes(build.model_config(name, config)))


def synthesise(config: Config, p: Prepared, trained: dict[str, Trained], path: str) -> list[suite.Subject]:
    """Synthetic tables of every model and seed; the table and the generator of the first seed are published.

    Args:
      config: the run.
      p: the domain.
      trained: stage to training.
      path: the run's folder.
    """
    subjects, folder, domain = [], os.path.join(path, "synthetic"), p.domain.name
    for name in config.models:
        drawn, kind = drawn_from(config, p, name, trained), config.representation
        model, learns = drawn.model, isinstance(drawn.model, GenerativeModel)
        sample = make_sampler(model, decoder_of(p.domain.schema, kind))
        draw, missing = jax.jit(model.sample), layout_of(p.domain.schema, kind).missing
        keys = federation_keys(rng.named_seed(config.seed, f"{domain}/{name}", "synthesis"), config.seeds)
        total = len(p.domain.train.label)
        wanted = config.evaluation.synthetic_rows or min(total, MOST_SYNTHETIC_ROWS)
        tables, every = [], []
        for s, network in enumerate(drawn.network):
            fitted = p.fitted[s] if p.fitted else ()
            if p.fitted and learns:  # a copula's own margins are the data's
                fitted = calibrated_by(draw, network, p.shares[s], keys[s], kind, missing, p.fitted[s])
            released = Published(network, fitted)
            every.append(released)
            table = sample(released, p.shares[s], keys[s], max(total, wanted))
            if s == 0:
                published = Table(*(column[:wanted] for column in table))
                publish(folder, f"{domain}_{name}", published, p.domain.schema)
                save_generator(folder, domain, name, drawn.sizes, kind, released, p.shares[s], p.domain.schema)
            tables.append(Table(*(column[:total] for column in table)))
        score = white_box(model, p, kind, drawn.params, keys)
        more = rng.named_seed(config.seed, f"{domain}/{name}", "augmentation")
        again = functools.partial(draw_more, sample, every, more)
        subjects.append(suite.Subject(name, tables, min(wanted, total), score, again))
    return subjects


def draw_more(
    sample: Callable[[Published, np.ndarray, jax.Array, int], Table],
    released: Sequence[Published],
    seed: int,
    s: int,
    shares: np.ndarray,
    rows: int,
) -> Table:
    """Rows of a generator beside those of its table.

    Args:
      sample: of `make_sampler`.
      released: the generator of each seed.
      seed: address of their randomness, not that of the tables.
      s: number of the federation.
      shares: f32[L], class shares.
      rows: how many.
    """
    return sample(released[s], shares, federation_keys(seed, len(released))[s], rows)
