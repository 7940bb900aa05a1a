"""The stages of a run, in order: load -> train -> synthesise -> evaluate -> attack -> report."""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Iterator

import jax.numpy as jnp

from fedjax_health import build, workdir
from fedjax_health.config import Config, to_json
from fedjax_health.drawing import synthesise
from fedjax_health.evaluation import collapse, efficiency, fairness
from fedjax_health.evaluation.rows import write_rows
from fedjax_health.federated import distributed, sharding
from fedjax_health.federated.federation import Data
from fedjax_health.prepare import load
from fedjax_health.prepared import Prepared, kept_of
from fedjax_health.privacy.plan import PrivacyPlan, Release, write_ledger
from fedjax_health.randomness import (
    Randomness,
    agree,
    end_randomness,
    keep_shares,
    noise_seed,
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
)
from fedjax_health.shadow_table import shadow_tables
from fedjax_health.synthesis.publish import publish_schemas
from fedjax_health.train.loop import make_hyper
from fedjax_health.train.metrics import Writer
from fedjax_health.train.stage import Trained, train_stage
from fedjax_health.types import Row

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
                if config.attacks.shadows:
                    with timed(f"shadows {p.domain.name}"):
                        rows["membership"] += shadow_tables(config, plan, p, done)
                for sentence in collapse.warnings(rows["similarity"], p.domain.name):
                    LOG.warning("warning: %s", sentence)
                    manifest["notes"].setdefault(p.domain.name, []).append(sentence)
                small = fairness.small_sentences(rows["fairness"], p.domain.name)
                manifest["notes"].setdefault(p.domain.name, []).extend(small)
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
    values = build.training_numbers(section, plan.noise_multiplier)
    hyper = {**make_hyper(values, config.seeds), "class_prior": jnp.asarray(p.shares)}
    keys = training_keys(randomness, noise_seed(config.seed, config.privacy.trial), release.stage, config.seeds)
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
