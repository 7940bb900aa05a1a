# pandas' own annotations are unions that a chained expression does not narrow
# pyright: reportArgumentType=false, reportCallIssue=false, reportReturnType=false, reportAttributeAccessIssue=false
"""Synthetic vitals of PhysioNet 2019 against the real ones: central, federated by patient, and private, beside their floors.

`python -m benchmarks.quality [--quick] [--out FILE] [--data FOLDER] [--seeds 3]`. Rows where all of eight vitals and age are
present, 70/30 by patient. Non-private generators are judged at the data's resolution against the records that they were
trained on (20,000 of them for central ones), as published comparisons do, and hold them to be equally important; private ones
count every patient the same, are judged at whole numbers against one record drawn from each patient in turn, and hide a whole
patient. What other patients' records reach against the same table is `real`, the ceiling for data that were not copied.

Floors: independent marginals and Gaussian copula (both pooled and without privacy), and `one-shot`: the private copula that the
representation is, before any training, at the same budget as the generator beside it.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import pathlib
import time
from typing import Any

import jax
import numpy as np
import pandas as pd
import scipy.stats

from benchmarks import report, work
from fedjax_health.data.frames import table_from_frame
from fedjax_health.data.representation import make_decode, normal_knots
from fedjax_health.data.schema import Column, Schema
from fedjax_health.evaluation.baselines import gaussian_copula, independent_marginals
from fedjax_health.evaluation.similarity import ROW, c2st_auc, similarity
from fedjax_health.synthesizer import Synthesizer, preset
from fedjax_health.types import Table

PACKAGES = ("jax", "jaxlib", "numpy", "flax", "optax", "dp-accounting", "scikit-learn")
FILE = "physionet2019/training_setB.psv.gz"
ROWS = 20_000
EPSILONS = (8.0, 3.0, 1.0)
METRICS = ("ks_complement", "wasserstein_sd", "correlation_error_mean", "correlation_error_max")
# public ranges, and rounded adult reference values as `data.clinical` has them
VITALS = (
    ("HR", 20, 300, 80, 20), ("O2Sat", 20, 100, 97, 3), ("SBP", 20, 300, 120, 25), ("MAP", 10, 300, 80, 15),
    ("DBP", 5, 300, 65, 15), ("Resp", 1, 100, 18, 5), ("Glucose", 10, 1000, 4.8, 0.4), ("Age", 14, 100, 60, 18),
)  # fmt: skip


def make_schema(decimals: int, client: bool = True) -> Schema:
    """Columns of the comparison.

    Args:
      decimals: resolution at which vitals are published.
      client: whether the patient is a client.
    """
    vitals = [
        Column(
            name=name, low=low, high=high, center=center, scale=scale, decimals=decimals,
            transform="log1p" if name == "Glucose" else "identity",
        )
        for name, low, high, center, scale in VITALS
    ]  # fmt: skip
    own = [Column(name="patient", role="client")] if client else []
    coded = (Column(name="Gender", kind="binary"), Column(name="SepsisLabel", kind="binary", role="label"))
    return Schema("vitals", (*own, *vitals, *coded))


def read(folder: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Training and test hours, 70/30 by patient, complete ones only.

    Args:
      folder: with `physionet2019/`.
    """
    names = ["patient", *(v[0] for v in VITALS), "Gender", "SepsisLabel"]
    whole = pd.read_csv(pathlib.Path(folder) / FILE, sep="|", usecols=names).dropna()
    patients = pd.unique(whole["patient"])
    order = np.random.default_rng(0).permutation(len(patients))
    train = whole["patient"].isin(patients[order[: int(0.7 * len(patients))]])
    return whole[train], whole[~train]


def one_a_patient(table: Table, rows: int, seed: int) -> Table:
    """Records drawn by patient first, so that each counts the same.

    Args:
      table: client-major.
      rows: how many.
      seed: of the draw.
    """
    generator, count = np.random.default_rng(seed), np.bincount(table.client)
    first = np.concatenate([[0], np.cumsum(count)[:-1]])
    patient = generator.integers(len(count), size=rows)
    row = first[patient] + (generator.random(rows) * count[patient]).astype(np.int64)
    return Table(table.values[row], table.label[row], table.client[row])


def judge(real: Table, made: Table, schema: Schema, seed: int) -> dict[str, float]:
    """Figures of one table against another; the classifier test sees all rows.

    Args:
      real, made: tables.
      schema: their columns.
      seed: of folds.
    """
    found = similarity(real, made, schema, np.random.default_rng(seed), max_rows=2000)
    rows = min(len(real.label), len(made.label))
    parts = [np.random.default_rng([seed, i]).permutation(len(t.label))[:rows] for i, t in enumerate((real, made))]
    cut = [Table(t.values[p], t.label[p], t.client[p]) for t, p in zip((real, made), parts, strict=True)]
    auc = c2st_auc(cut[0], cut[1], schema, np.random.default_rng(seed))
    label = float(np.mean(made.label != 0))
    shown = {m: found[ROW, m] for m in (*METRICS, "coverage")}
    return {**shown, "c2st_auc": auc, "label_rate": label}


def start_of(fitted: Synthesizer, schema: Schema, rows: int, seed: int) -> Table:
    """The one-shot copula behind a generator: standard normal scores, class and sex at their own rates, independent of them.

    Args:
      fitted: a synthesizer with representation "copula".
      schema: its columns.
      rows: how many.
      seed: of the draw.
    """
    assert fitted._published is not None
    published, shares, _, _ = fitted._published
    made = fitted.sample(rows, seed=seed)
    generator = np.random.default_rng(seed)
    x = generator.standard_normal((rows, len(VITALS) + 1)).astype(np.float32)
    x[:, -1] = made["Gender"].astype(int).to_numpy()
    plain = published.fitted._replace(own=np.tile(normal_knots(), (len(VITALS), 1)).astype(np.float32))
    label = (generator.random(rows) < shares[1]).astype(np.int32)
    values = np.asarray(jax.jit(make_decode(schema))(x, label, plain))
    return Table(values, label, np.arange(rows, dtype=np.int32))


def results(quick: bool, folder: str, seeds: int) -> list[dict[str, Any]]:
    """All figures.

    Args:
      quick: one seed, few rounds, central and epsilon 8 only.
      folder: of the data.
      seeds: repeats of each generator.
    """
    train, test = read(folder)
    central = train.sample(ROWS, random_state=0)
    found: dict[str, dict[str, list[float]]] = {}

    def note(name: str, figures: dict[str, float]) -> None:
        for metric, value in figures.items():
            found.setdefault(name, {}).setdefault(metric, []).append(value)
        print(name, {k: round(v, 4) for k, v in figures.items()}, flush=True)

    def coded(frame: pd.DataFrame, schema: Schema) -> Table:
        patient: Any = frame.get("patient")
        return table_from_frame(frame.round(2 if schema is not whole else 0), schema, patient, FILE)[0]

    fine, fine_alone, whole = make_schema(2), make_schema(2, False), make_schema(0)
    real = {"central": coded(central, fine), "federated": coded(train, fine)}
    other = coded(test, fine)
    patients = coded(train, whole)
    by_patient = one_a_patient(patients, ROWS, 1)
    for s in range(1 if quick else seeds):
        note("central/real", judge(real["central"], other, fine, s))
        for name, floor in (("independent-marginals", independent_marginals), ("gaussian-copula", gaussian_copula)):
            made_rows = floor(real["central"], fine, ROWS, np.random.default_rng(s))
            note(f"central/{name}", judge(real["central"], made_rows, fine, s))
        note("private/real", judge(by_patient, one_a_patient(coded(test, whole), ROWS, s), whole, s))
        for where in ("central",) if quick else ("central", "federated"):
            frame, schema = (central, fine_alone) if where == "central" else (train, fine)
            short = preset(np.bincount(pd.factorize(frame["patient"])[0]), math.inf, where != "central")
            if quick:
                short = dataclasses.replace(short, train=dataclasses.replace(short.train, rounds=500))
            made = Synthesizer(schema=schema, seed=s, preset=short).fit(frame)
            figures = judge(real[where], coded(made.sample(ROWS), fine_alone), fine, s)
            note(f"{where}/vae", {**figures, "fit_seconds": made.seconds})
        for epsilon in EPSILONS[:1] if quick else EPSILONS:
            made = Synthesizer(schema=whole, epsilon=epsilon, seed=s).fit(train.round(0))
            made_rows = table_from_frame(made.sample(ROWS), make_schema(0, False), None, "rows")[0]
            figures = judge(by_patient, made_rows, whole, s)
            spent = made.ledger["epsilon_total"]
            note(f"epsilon {epsilon:g}/vae", {**figures, "fit_seconds": made.seconds, "epsilon": spent})
            note(f"epsilon {epsilon:g}/one-shot", judge(by_patient, start_of(made, whole, ROWS, s), whole, s))
    return [
        mean_of(f"quality/physionet2019/{name}: {metric}", values, "s" if "seconds" in metric else "figure")
        for name, figures in found.items()
        for metric, values in figures.items()
    ]


def mean_of(name: str, values: list[float], unit: str) -> dict[str, Any]:
    """One figure as a mean over seeds with its 95 % Student-t interval.

    Args:
      name: what was measured.
      values: one a seed.
      unit: of them.
    """
    mean, n = float(np.mean(values)), len(values)
    half = float(scipy.stats.t.ppf(0.975, n - 1) * np.std(values, ddof=1) / math.sqrt(n)) if n > 1 else 0.0
    return {"name": name, "value": mean, "low": mean - half, "high": mean + half, "n": n, "unit": unit}


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one seed, few rounds, fewer generators")
    parser.add_argument("--out", help="file for the JSON object")
    parser.add_argument("--data", default="../shared/data", help="folder with physionet2019/")
    parser.add_argument("--seeds", type=int, default=3, help="repeats of each generator")
    args = parser.parse_args()
    began = time.perf_counter()
    found = results(args.quick, args.data, args.seeds)
    print(f"{time.perf_counter() - began:.0f} s", flush=True)
    report.finish(report.make_report("quality", report.host(), work.versions(*PACKAGES), found), args.out)


if __name__ == "__main__":
    main()
