"""Tables and curves of a run: what each trained domain adds, and where they are written."""

from __future__ import annotations

import csv
import os
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from fedjax_health import build, one_shot, rng
from fedjax_health.build_attacks import make_attacks, make_disclosures
from fedjax_health.classifying import make_setting
from fedjax_health.config import Config
from fedjax_health.data.representation import encode_table
from fedjax_health.detectors import detector_costs, fit_classifiers
from fedjax_health.devices.round import METRICS
from fedjax_health.evaluation import central, copying, curves, efficiency, fairness, subgroup_risk, suite, tasks
from fedjax_health.evaluation.disclosure import disclosure_rows
from fedjax_health.evaluation.downstream import Programs
from fedjax_health.evaluation.rivals import rival_tables
from fedjax_health.evaluation.rows import exact_row
from fedjax_health.evaluation.single_feature import single_feature_rows
from fedjax_health.federated.canaries import together
from fedjax_health.files import replacing
from fedjax_health.models.base import Generative
from fedjax_health.prepared import Prepared
from fedjax_health.privacy import accounting
from fedjax_health.privacy.audit import Scores, audit_rows
from fedjax_health.privacy.plan import PrivacyPlan, Release
from fedjax_health.train.metrics import Writer
from fedjax_health.train.stage import Trained
from fedjax_health.types import Board, Row, Table

TABLES = ("similarity", "utility", "membership", "detection", "efficiency", "privacy", "fairness", "disclosure")


class Pictures(NamedTuple):
    """Curves that the report draws: histograms, correlations, ROC points."""

    distributions: list[tuple]
    correlations: list[tuple]
    roc: list[tuple]

    def write(self, folder: str) -> None:
        """Writes distributions.csv, correlations.csv and roc.csv.

        Args:
          folder: the run's tables/ folder.
        """
        columns = {
            "distributions": ("domain", "model", "feature", "left", "right", "density"),
            "correlations": ("domain", "model", "feature_a", "feature_b", "rho"),
            "roc": ("domain", "model", "row", "fpr", "tpr"),
        }
        for name, header in columns.items():
            path = os.path.join(folder, f"{name}.csv")
            with replacing(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
                out = csv.writer(file, lineterminator="\n")
                out.writerow(header)
                for line in getattr(self, name):
                    out.writerow([f"{v:.6g}" if isinstance(v, float) else v for v in line])


def evaluate(
    config: Config,
    p: Prepared,
    subjects: list[suite.Subject],
    mesh: Mesh,
    promise: tuple[float, float] | None,
    budget: tuple[float, float] | None,
    rows: dict[str, list[Row]],
    pictures: Pictures,
    writer: Board,
    made: dict[str, Programs] | None = None,
) -> suite.Fits:
    """Adds a domain's rows and curves.

    The classifiers that were trained for them are handed back.

    Args:
      config: the run.
      p: the domain.
      subjects: generators and their tables.
      mesh: devices.
      promise: (epsilon, delta) of the run, or None where it bounds no attack on membership.
      budget: (epsilon, delta) of the run, or None without a guarantee.
      rows, pictures: added to.
      writer: TensorBoard histograms.
      made: of `classifying.make_downstream_of`.
    """
    domain, setting = p.domain, make_setting(config, p, promise)
    rivals = rival_tables(setting, budget)
    fits = fit_classifiers(config, p, setting, subjects, rivals, mesh, made)
    useful, detected, fair = tasks.task_rows(setting, fits)
    attacked: list[tuple[str, str, suite.Pairs]] = []
    member, roc = suite.membership_tables(
        setting, subjects, fits, make_attacks(), lambda *scores: attacked.append(scores)
    )
    rows["similarity"] += suite.similarity_rows(setting, subjects, rivals)
    rows["similarity"] += copying.copying_rows(setting, subjects, rivals)
    rows["utility"] += useful + central.central_rows(setting, subjects, rivals, fits)
    rows["detection"] += detected + single_feature_rows(setting)
    if domain.task == "detection":
        rows["efficiency"] += detector_costs(config, p, fits)
    rows["fairness"] += fairness.size_rows(domain.name, domain.test, domain.schema)
    rows["fairness"] += fair + suite.shift_rows(setting, subjects) + subgroup_risk.risk_rows(setting, attacked)
    rows["membership"] += member
    rows["disclosure"] += disclosure_rows(setting, subjects, make_disclosures())
    first = {s.name: s.tables[0] for s in subjects}
    for b in curves.distribution_curves(domain.test, first, domain.schema):
        pictures.distributions.append(tuple(b._replace(domain=domain.name)))
    for name, table in {"real": domain.test, **first}.items():
        pictures.correlations.extend(
            (domain.name, name, *cell) for cell in curves.correlation_cells(table, domain.schema)
        )
    pictures.roc.extend(roc)
    for j, column in enumerate(domain.schema.inputs):
        synthetic = {name: table.values[:, j] for name, table in first.items()}
        writer.histograms(f"{domain.name}/{column.name}", domain.test.values[:, j], synthetic)
    return fits


def cost_rows(config: Config, p: Prepared, trained: dict[str, Trained], writer: Board) -> list[Row]:
    """Efficiency rows of a domain's trainings.

    Args:
      config: the run.
      p: the domain.
      trained: stage to training.
      writer: read back for the realised cohorts.
    """
    rows = []
    for model_name, parts in p.parts.items():
        stage, section = f"{p.domain.name}/{model_name}", build.model_config(model_name, config)
        costs = parts.costs
        steps = np.mean(np.asarray(costs.steps(jnp.bincount(p.domain.train.client))))
        cost = efficiency.Cost(costs.flops_per_step * float(steps), costs.bytes_up, costs.bytes_down)
        simulated = {name: writer.history(stage, name, config.seeds) for name in METRICS}
        t = trained[stage]
        rows += efficiency.training_rows(
            p.domain.name,
            model_name,
            cost,
            simulated,
            t.chunk_seconds,
            section.train.rounds_per_chunk,
            t.compile_seconds,
        )
    return rows + one_shot.cost_rows(p, config.privacy.mechanism != "none")


def privacy_rows(ledger: dict[str, Any]) -> list[Row]:
    """The ledger as a table; exact figures, so the interval is the value itself.

    Args:
      ledger: from the plan.
    """
    rows = []
    if ledger["epsilon_total"] is not None:
        for name in ("epsilon_total", "epsilon_replace_one", "delta", "delta_replace_one", "target_epsilon"):
            rows.append(exact_row("-", "-", "run", name, ledger[name]))
        for e in ledger["events"]:
            for name in ("epsilon", "rounds", "noise_multiplier", "l2_clip_norm", "sampling_probability"):
                rows.append(exact_row("-", "-", e["name"], name, e[name]))
        if alone := ledger.get("one_shot"):
            for stage in alone["generators"]:
                domain, model = stage.split("/")
                rows.append(exact_row(domain, model, "one-shot", "epsilon_one_shot", alone["epsilon_one_shot"]))
    return rows


def audit(config: Config, plan: PrivacyPlan, release: Release, p: Prepared, trained: Trained) -> list[Row]:
    """What a training's canaries say, none without canaries.

    Args:
      config: the run.
      plan: gives delta and the noise.
      release: which training.
      p: its domain.
      trained: its result.

    Raises:
      UserError: they prove more than is accounted for.
    """
    scores = trained.state.audit
    if scores == () or not trained.rounds:
        return []
    host, parts = jax.device_get(scores), p.parts[release.stage.split("/")[1]]
    overlap = jax.jit(jax.vmap(lambda key: together(parts, key, trained.rounds)))(trained.state.key)
    accounted = accounting.epsilon_of([(plan.event(release), trained.rounds)], plan.delta)
    return audit_rows(
        release.stage,
        Scores(host.inserted, host.rounds, np.asarray(overlap), host.during, host.loss),
        release.sampler.account,
        trained.rounds,
        plan.noise_multiplier,
        plan.delta,
        accounted,
        rng.host_rng(config.seed, rng.Stream.CANARY, release.stage),
    )


def white_box(
    model: Generative, p: Prepared, kind: str, params: Any, keys: jax.Array
) -> Callable[[Table, int], np.ndarray]:
    """Membership score by the trained model itself (not only what is released): the strongest view of a server.

    Args:
      model: gives `score`.
      p: its domain, and how that is encoded.
      kind: data.representation.
      params: final parameters, leading axis N.
      keys: typed keys [N].
    """
    score, public = jax.jit(model.score), jax.jit(p.domain.encoder.encode)

    def encode(table: Table, s: int) -> Any:
        values = table.values.astype(np.float32)
        if not p.fitted:
            return public(values)
        return encode_table(values, table.label, p.domain.schema, kind, p.fitted[s], None)

    def of(table: Table, s: int) -> np.ndarray:
        mine = jax.tree.map(lambda leaf: leaf[s], params)
        key = rng.stream_key(keys[s], 0, rng.Stream.ATTACK)
        return np.asarray(score(mine, encode(table, s), table.label, key), np.float64)

    return of


def show(writer: Writer, path: str, config: Config, rows: dict[str, list[Row]]) -> None:
    """Puts the figures and the final numbers into TensorBoard.

    Args:
      writer: TensorBoard.
      path: the run's folder.
      config: the run.
      rows: all tables.
    """
    folder = os.path.join(path, "figures")
    for name in sorted(os.listdir(folder)):
        writer.image(f"figures/{name.removesuffix('.png')}", os.path.join(folder, name))
    shown = ("auroc", "ks_complement", "c2st_auc", "detection_at_1pct_fpr")
    final = {
        f"{r.domain}/{r.model}/{r.row}/{r.metric}": r.value
        for name in ("utility", "detection", "similarity")
        for r in rows[name]
        if r.metric in shown and r.row in suite.OVERALL_ROWS and np.isfinite(r.value)
    }
    flat = {
        "epsilon": config.privacy.epsilon if config.privacy.mechanism != "none" else float("inf"),
        **{
            f"{m}.{k}": getattr(build.model_config(m, config).train, k)
            for m in build.trained(config)
            for k in ("rounds", "cohort", "l2_clip_norm")
        },
    }
    writer.hparams(flat, final)
