"""Synthetic network flows of WUSTL-EHMS-2020 against real ones: a VAE, a copula of the same free quantities, a plain copula.

`python -m benchmarks.flows [--quick] [--out FILE] [--data FOLDER] [--seeds 5]`.

Blocks of 200 rows, 24 of the 82 held out; the 21 network columns. Each table is told from the records it was made from
(`training`, as published comparisons do) and from the held-out blocks (`held-out`) by boosted trees (C2ST AUC, .5 = not at
all); `real` are the training blocks against the held-out ones. `broken` is the share of rows that break an exact relation of a
flow (`data.equations`). Central, without privacy. The VAE is `Synthesizer`'s own; nothing is tuned here.
"""

from __future__ import annotations

import argparse
import sys
import time
from typing import Any

import jax
import numpy as np

from benchmarks import report, work
from benchmarks.quality_figures import mean_of
from fedjax_health.data.cells import variables
from fedjax_health.data.encode import make_encoder
from fedjax_health.data.equations import broken_equations
from fedjax_health.data.frames import frame_from_table, table_from_frame
from fedjax_health.data.representation import make_decode, normal_knots
from fedjax_health.data.schema import Schema
from fedjax_health.data.split import take_clients
from fedjax_health.data.wustl_ehms import load_wustl_ehms
from fedjax_health.evaluation.baselines import gaussian_copula
from fedjax_health.evaluation.similarity import c2st_auc
from fedjax_health.synthesizer import Synthesizer
from fedjax_health.types import Table, UserError

PACKAGES = ("jax", "jaxlib", "numpy", "flax", "optax", "scikit-learn")
HELD_OUT = 24  # blocks
MOST_ROWS = 5000  # a side
QUICK_ROWS = 1500


def some_rows(table: Table, most: int, rng: np.random.Generator) -> Table:
    """At most so many records, in their old order.

    Args:
      table: records.
      most: how many.
      rng: chooses.
    """
    rows = np.sort(rng.permutation(len(table.label))[:most])
    return Table(*(column[rows] for column in table))


def told_apart(real: Table, other: Table, schema: Schema, seed: int) -> float:
    """C2ST AUC of two tables, as many rows of each.

    Args:
      real, other: tables.
      schema: their columns.
      seed: of rows and folds.
    """
    rng = np.random.default_rng(seed)
    most = min(len(real.label), len(other.label), MOST_ROWS)
    return c2st_auc(some_rows(real, most, rng), some_rows(other, most, rng), schema, rng)


def copula_of(fitted: Synthesizer, schema: Schema, rows: int, seed: int) -> Table:
    """The Gaussian copula by class of the free quantities, with the rest derived: where the VAE's training starts.

    Args:
      fitted: gives distribution functions, correlations and class shares.
      schema: without missing cells and categories.
      rows: how many.
      seed: of the draw.
    """
    assert fitted._published is not None
    published, shares, _, _ = fitted._published
    rng, count = np.random.default_rng(seed), len(variables(schema))
    label = rng.choice(len(shares), rows, p=np.asarray(shares, np.float64) / np.sum(shares)).astype(np.int32)
    x = rng.standard_normal((rows, make_encoder(schema).layout.dim)).astype(np.float32)
    plain = published.fitted._replace(own=np.tile(normal_knots(), (len(shares), count, 1)).astype(np.float32))
    return Table(np.asarray(jax.jit(make_decode(schema))(x, label, plain)), label, np.arange(rows, dtype=np.int32))


def results(folder: str, seeds: int, quick: bool) -> list[dict[str, Any]]:
    """All figures: mean over seeds with its 95 % interval.

    Args:
      folder: with wustl_ehms/.
      seeds: repeats.
      quick: few training rows, which trains shortly.
    """
    source = load_wustl_ehms(f"{folder}/wustl_ehms", "network")
    schema, blocks = source.schema, np.random.default_rng(0).permutation(int(source.table.client.max()) + 1)
    held = take_clients(source.table, np.sort(blocks[:HELD_OUT]))
    train = take_clients(source.table, np.sort(blocks[HELD_OUT:]))
    found: dict[str, list[float]] = {}
    for seed in range(seeds):
        mine = some_rows(train, QUICK_ROWS, np.random.default_rng(seed)) if quick else train
        fitted = Synthesizer(schema=schema, seed=seed).fit(frame_from_table(mine, schema))
        rows = len(mine.label)
        made = table_from_frame(fitted.sample(rows, seed=seed), schema, None, "synthetic rows")[0]
        for name, table in (
            ("real", mine),
            ("vae", made),
            ("copula of free quantities", copula_of(fitted, schema, rows, seed)),
            ("gaussian-copula", gaussian_copula(mine, schema, rows, np.random.default_rng(seed))),
        ):
            broken = np.any(list(broken_equations(table.values, schema).values()), axis=0).mean()
            figures = {"c2st_auc held-out": told_apart(held, table, schema, seed), "broken": float(broken)}
            if name != "real":
                figures["c2st_auc training"] = told_apart(mine, table, schema, seed)
            if name == "vae":
                figures["fit_seconds"] = fitted.seconds
            print(seed, name, {k: round(v, 4) for k, v in figures.items()}, flush=True)
            for metric, value in figures.items():
                found.setdefault(f"flows/{name}: {metric}", []).append(value)
    return [mean_of(name, values, "s" if name.endswith("seconds") else "figure") for name, values in found.items()]


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one seed, few rows")
    parser.add_argument("--out", help="file for the JSON object")
    parser.add_argument("--data", default="../shared/data", help="folder with wustl_ehms/")
    parser.add_argument("--seeds", type=int, default=5, help="repeats of each generator")
    args = parser.parse_args()
    if args.seeds < 1:
        parser.error(f"--seeds is {args.seeds}: give at least 1")
    began = time.perf_counter()
    try:
        found = results(args.data, 1 if args.quick else args.seeds, args.quick)
    except UserError as error:
        sys.exit(f"error: {error}")
    print(f"{time.perf_counter() - began:.0f} s", flush=True)
    report.finish(report.make_report("flows", report.host(), work.versions(*PACKAGES), found), args.out)


if __name__ == "__main__":
    main()
