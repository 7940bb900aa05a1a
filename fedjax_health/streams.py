"""The stages of a run on sensor streams: those of `experiment`, with windows for records and tables of their own."""

from __future__ import annotations

import contextlib
import csv
import functools
import os
import time
from collections.abc import Iterator

import jax

from fedjax_health import build, drawing, experiment, rng, workdir
from fedjax_health.build_attacks import make_attacks, make_disclosures
from fedjax_health.checks import STREAMS
from fedjax_health.classifying import make_setting
from fedjax_health.config import Config, to_json
from fedjax_health.data.stream_schema import StreamSchema
from fedjax_health.detectors import fit_classifiers
from fedjax_health.evaluation import efficiency, suite, tasks
from fedjax_health.evaluation.disclosure import disclosure_rows
from fedjax_health.evaluation.rows import write_rows
from fedjax_health.evaluation.stream_suite import StreamPoint, stream_points, stream_rows
from fedjax_health.federated import distributed, sharding
from fedjax_health.files import replacing
from fedjax_health.models.base import GenerativeModel
from fedjax_health.prepare import load
from fedjax_health.prepared import Prepared, kept_of
from fedjax_health.privacy.plan import write_ledger
from fedjax_health.randomness import agree, end_randomness, keep_shares, open_randomness
from fedjax_health.registry import lookup
from fedjax_health.report.stream_figures import stream_figures
from fedjax_health.results import (
    audit,
    cost_rows,
    privacy_rows,
    white_box,
)
from fedjax_health.synthesis.publish_windows import publish_windows
from fedjax_health.synthesis.sample import Published, decoder_of, make_sampler
from fedjax_health.train.metrics import Writer
from fedjax_health.train.stage import Trained, federation_keys
from fedjax_health.types import Row, Table, UserError

MOST_SYNTHETIC_WINDOWS = 10_000


def has_streams(config: Config) -> bool:
    """Whether a run is one of streams.

    Args:
      config: the run.

    Raises:
      UserError: it mixes streams with tables, whose reports differ.
    """
    found = [name for name in config.data.domains if name in STREAMS]
    if found and len(found) < len(config.data.domains):
        raise UserError(
            f"config data.domains={config.data.domains} mixes streams ({', '.join(found)}) with tables; give each a run"
        )
    if found and config.representation != "public":
        raise UserError(
            f"config data.representation={config.data.representation!r} is for tables, and {found[0]!r} holds windows; set "
            "it to 'auto'"
        )
    return bool(found)


def run(config: Config, path: str) -> str | None:
    """Trains, publishes windows and writes tables and figures; privacy and resuming are those of `experiment.run`.

    Args:
      config: the run; its domains are streams.
      path: its folder.

    Returns:
      Path of tables/streams.csv; None in a process other than the first.

    Raises:
      UserError: something the user can mend; the manifest then says "failed".
    """
    distributed.check_same("config", to_json(config))
    if not distributed.is_main():
        return experiment.assist(config)
    for model in config.models:
        lookup("model of streams", model, build.STREAM_MODELS)
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
                stages = [f"{domain}/{model}" for domain in config.data.domains for model in config.models]
                randomness = agree(open_randomness(config.privacy.randomness, path, stages), config.privacy.randomness)
                prepared, plan = load(config, randomness, manifest.setdefault("notes", {}))
                keep_shares(randomness, path, kept_of(prepared))
            rows: dict[str, list[Row]] = {
                name: [] for name in ("streams", "utility", "membership", "disclosure", "efficiency", "privacy")
            }
            points: list[StreamPoint] = []
            done: dict[str, int] = {}
            trained: dict[str, Trained] = {}
            for release in plan.releases:
                with timed(f"train {release.stage}"):
                    p = next(p for p in prepared if p.domain.name == release.domain)
                    trained[release.stage] = experiment.train(config, plan, release, p, done, path, writer, randomness)
                    done[release.stage] = trained[release.stage].rounds
                    write_ledger(os.path.join(path, "privacy_ledger.json"), plan.ledger(done))
                    rows["privacy"] += audit(config, plan, release, p, trained[release.stage])
            end_randomness(randomness, path)  # before anything is published
            ledger = plan.ledger(done)
            hidden = plan.formal and plan.relation == "add_or_remove_one"
            promise = (ledger["epsilon_total"], ledger["delta"]) if hidden else None
            for p in prepared:
                with timed(f"synthesise {p.domain.name}"):
                    subjects = synthesise(config, p, trained, path)
                with timed(f"evaluate {p.domain.name}"):
                    evaluate(config, p, subjects, promise, rows, points)
                rows["efficiency"] += cost_rows(config, p, trained, writer)
            rows["privacy"] += privacy_rows(ledger)
            rows["efficiency"] += efficiency.run_rows(sum(manifest["seconds"].values()))
            for name, table in rows.items():
                write_rows(table, os.path.join(path, "tables", f"{name}.csv"))
            _write_points(points, os.path.join(path, "tables", "stream_curves.csv"))
            for p in prepared:
                stream_figures(path, p.domain.name, config.models)
            manifest["status"] = "done"
        workdir.write_manifest(path, manifest)
        return os.path.join(path, "tables", "streams.csv")
    except BaseException:
        manifest["status"] = "failed"
        workdir.write_manifest(path, manifest)
        raise


def synthesise(config: Config, p: Prepared, trained: dict[str, Trained], path: str) -> list[suite.Subject]:
    """Synthetic windows of every model and seed; those of the first seed are published.

    Args:
      config: the run.
      p: the domain.
      trained: stage to training.
      path: the run's folder.
    """
    subjects, schema, total = [], p.domain.schema, len(p.domain.train.label)
    assert isinstance(schema, StreamSchema)
    wanted = config.evaluation.synthetic_rows or min(total, MOST_SYNTHETIC_WINDOWS)
    for name, parts in p.parts.items():
        model, stage = parts.model, f"{p.domain.name}/{name}"
        assert isinstance(model, GenerativeModel)
        state = trained[stage].state
        sample = make_sampler(model, decoder_of(schema, "public"))
        keys = federation_keys(rng.named_seed(config.seed, stage, "synthesis"), config.seeds)
        every = [Published(jax.tree.map(lambda leaf, s=s: leaf[s], state.average)) for s in range(config.seeds)]
        tables = [sample(every[s], p.shares[s], keys[s], max(total, wanted)) for s in range(config.seeds)]
        published = Table(*(column[:wanted] for column in tables[0]))
        publish_windows(os.path.join(path, "synthetic"), f"{p.domain.name}_{name}", published, schema)
        tables = [Table(*(column[:total] for column in table)) for table in tables]
        scores = white_box(model, p, "public", state.params, keys)
        again = rng.named_seed(config.seed, stage, "augmentation")
        draw = functools.partial(drawing.draw_more, sample, every, again)
        subjects.append(suite.Subject(name, tables, min(wanted, total), scores, draw))
    return subjects


def evaluate(
    config: Config,
    p: Prepared,
    subjects: list[suite.Subject],
    promise: tuple[float, float] | None,
    rows: dict[str, list[Row]],
    points: list[StreamPoint],
) -> None:
    """Adds a domain's rows: streams, the classifier trained on real, synthetic and both, and what an attacker learns.

    Args:
      config: the run.
      p: the domain.
      subjects: generators and their windows.
      promise: (epsilon, delta) of the run, or None.
      rows, points: added to.
    """
    setting = make_setting(config, p, promise)
    rows["streams"] += stream_rows(setting, subjects)
    points += stream_points(setting, subjects)
    fits = fit_classifiers(config, p, setting, subjects, {}, sharding.make_local_mesh())
    rows["utility"] += tasks.task_rows(setting, fits)[0]
    rows["membership"] += suite.membership_tables(setting, subjects, fits, make_attacks())[0]
    rows["disclosure"] += disclosure_rows(setting, subjects, make_disclosures())


def _write_points(points: list[StreamPoint], path: str) -> None:
    with replacing(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        out = csv.writer(file, lineterminator="\n")
        out.writerow(StreamPoint._fields)
        out.writerows([*p[:4], f"{p.x:.6g}", f"{p.value:.6g}"] for p in points)
