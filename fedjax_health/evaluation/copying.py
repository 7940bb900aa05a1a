"""Whether a table copies the records it was made from: authenticity, adversarial accuracy, which side its rows are nearer to.

Cheap signs of overfitting, and no evidence of privacy: tables that pass them leak who took part all the same ("The DCR
Delusion", arXiv 2505.01524). What an attacker learns is in the membership table.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
from threadpoolctl import threadpool_limits

from fedjax_health import rng
from fedjax_health.attacks.base import public_space
from fedjax_health.data.schema import Schema
from fedjax_health.data.split import take_clients
from fedjax_health.evaluation import baselines
from fedjax_health.evaluation.bootstrap import Interval, mean_replicates, percentiles, rows_with_intervals
from fedjax_health.evaluation.rows import Figures
from fedjax_health.evaluation.setting import Setting, Subject, included
from fedjax_health.neighbours import nearest, nearest_others
from fedjax_health.types import Row, Table

FIGURES = ("authenticity", "nnaa", "privacy_loss", "nearer_to_training")
MOST_FITTED = 10_000  # rows that floors are fitted to
CEILING, COPULA, MARGINALS = "real-vs-real", "gaussian-copula", "independent-marginals"


class Mean(NamedTuple):
    """A mean over records that is a term of a figure: values f64[n], and whose records they are, i[n]."""

    values: np.ndarray
    client: np.ndarray


def authentic(real: np.ndarray, synthetic: np.ndarray) -> np.ndarray:
    """Which synthetic records are no copies: 1[d(S_j, R_i*) > d(R_i*, R without R_i*)], R_i* the real record nearest to S_j.

    Args:
      real, synthetic: f64[n, D], n >= 2, f64[m, D], in a scaled space.

    Returns:
      bool[m], by synthetic record; the mean is the authenticity, 0 for a table of copies.

    Source: Alaa et al. (2022), arXiv 2102.08921 (some implementations index it by real record).
    """
    distance, index = nearest(synthetic, real)
    return distance[:, 0] > nearest_others(real)[0][index[:, 0], 0]


def adversarial_accuracy(real: np.ndarray, synthetic: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Whom a nearest-neighbour guess of "real or synthetic" is right about; the accuracy is the mean of both means.

    AA = ½ (1/n Σ_i 1[d_RS(i) > d_RR(i)] + 1/n Σ_j 1[d_SR(j) > d_SS(j)]), d_RR and d_SS to others: 0.5 = as near to one another
    as among themselves, 1 = told apart, 0 = copies. Sizes must be equal, since distances shrink with them.

    Args:
      real, synthetic: f64[n, D], n >= 2, in a scaled space.

    Returns:
      (of real records bool[n], of synthetic records bool[n]).

    Source: Yale et al. (2020), Generation and evaluation of privacy preserving synthetic health data.
    """
    return (
        nearest(real, synthetic)[0][:, 0] > nearest_others(real)[0][:, 0],
        nearest(synthetic, real)[0][:, 0] > nearest_others(synthetic)[0][:, 0],
    )


def nearer(synthetic: np.ndarray, training: np.ndarray, holdout: np.ndarray) -> np.ndarray:
    """Whether each synthetic record is nearer to training than to holdout: 1[d_T < d_H] + ½ 1[d_T = d_H].

    Args:
      synthetic: f64[m, D], in a scaled space.
      training, holdout: f64[n, D], the same n: the larger side would be nearer by its size alone.

    Returns:
      f64[m]; mean ½ for a table that knows no more of one side than of the other. Ties count half, since where columns are few
      most distances are ties.
    """
    to_training, to_holdout = nearest(synthetic, training)[0][:, 0], nearest(synthetic, holdout)[0][:, 0]
    return (to_training < to_holdout) + 0.5 * (to_training == to_holdout)


def copying_means(training: Table, holdout: Table, synthetic: Table, schema: Schema) -> dict[str, list[Mean]]:
    """Each figure as the sum of means over records of different people.

    Args:
      training: records that the table was made from.
      holdout: records of other people, of the same law.
      synthetic: records to judge. All three the same n >= 2 rows.
      schema: their columns.

    Returns:
      authenticity; nnaa, the adversarial accuracy against the holdout; privacy_loss, AA(holdout) - AA(training), above 0
      where the table lies nearer to what it was made from; nearer_to_training.
    """
    t, h, s = (public_space(table, schema) for table in (training, holdout, synthetic))
    of_training, of_synthetic = adversarial_accuracy(t, s)
    of_holdout, of_synthetic_too = adversarial_accuracy(h, s)
    both = of_synthetic_too / 2 - of_synthetic / 2
    return {
        "authenticity": [Mean(authentic(t, s).astype(np.float64), synthetic.client)],
        "nnaa": [Mean(of_holdout / 2, holdout.client), Mean(of_synthetic_too / 2, synthetic.client)],
        "privacy_loss": [
            Mean(of_holdout / 2, holdout.client), Mean(of_training / -2, training.client), Mean(both, synthetic.client)
        ],
        "nearer_to_training": [Mean(nearer(s, t, h), synthetic.client)],
    }  # fmt: skip


def copying_figures(row: str, means: Mapping[str, Sequence[Mean]]) -> Figures:
    """The figures of `copying_means`.

    Args:
      row: where they stand.
      means: terms of each.
    """
    return {(row, name): float(sum(m.values.mean() for m in terms)) for name, terms in means.items()}


def copying_intervals(
    row: str, means: Mapping[str, Sequence[Mean]], generator: np.random.Generator
) -> dict[tuple[str, str], Interval]:
    """Bootstrap intervals of the same figures: clients of each side are drawn again, each record keeping its neighbours.

    Args:
      row: where they stand.
      means: terms of each; synthetic records are clients of their own.
      generator: draws.

    Returns:
      Interval of each; n = real clients behind it, or synthetic rows where only these are looked at.
    """
    found = {}
    for name, terms in means.items():
        replicates = np.sum([mean_replicates(m.values, m.client, generator) for m in terms], axis=0)
        found[row, name] = Interval(*percentiles(replicates), len(np.unique(terms[0].client)))
    return found


def _first_clients(table: Table, clients: np.ndarray, n: int, generator: np.random.Generator) -> Table:
    """n rows of whole clients in random order (the last one's may be cut off); fewer where there are no more."""
    table = take_clients(table, generator.permutation(clients))
    return Table(*(column[:n] for column in table))


def copying_rows(setting: Setting, subjects: Sequence[Subject], rivals: Mapping[str, Sequence[Table]]) -> list[Row]:
    """Signs of copying, of every generator, beside floors and the ceiling: clients that no generator saw, as if they were made.

    Args:
      setting: the domain. Training records are those of the seed's clients, the holdout is the test clients.
      subjects: generators.
      rivals: of `rivals.rival_tables`.

    Returns:
      Rows "synthetic", ceiling, floors and rivals, each of `FIGURES`. As many rows of each side as the smallest has, at most
      `max_rows`; none where that is fewer than two.
    """
    domain, seeds = setting.domain, range(setting.include.shape[0])
    schema, kept = domain.schema, [included(setting, s, True) for s in seeds]
    out = [included(setting, s, False) for s in seeds]
    held = np.unique(domain.test.client)
    count = np.bincount(domain.train.client)
    n = min(
        len(domain.test.label), *(int(count[c].sum()) for c in (*kept, *out)), setting.config.max_rows,
        *(len(t.label) for made in (*(s.tables for s in subjects), *rivals.values()) for t in made),
    )  # fmt: skip
    if n < 2:
        return []

    def sides(s: int) -> tuple[Table, Table]:
        draw = setting.generator(rng.Stream.EVALUATE, "copying", str(s))
        return _first_clients(domain.train, kept[s], n, draw), _first_clients(domain.test, held, n, draw)

    def pooled(s: int) -> Table:
        draw = setting.generator(rng.Stream.EVALUATE, "copying-pooled", str(s))
        return _first_clients(domain.train, kept[s], MOST_FITTED, draw)

    both = [sides(s) for s in seeds]
    tables: dict[tuple[str, str], list[Table]] = {("-", CEILING): []}
    for s in seeds:
        draw = setting.generator(rng.Stream.EVALUATE, "copying-ceiling", str(s))
        tables["-", CEILING].append(_first_clients(domain.train, out[s], n, draw))
    for name, make in ((COPULA, baselines.gaussian_copula), (MARGINALS, baselines.independent_marginals)):
        draws = [setting.generator(rng.Stream.EVALUATE, "copying", name, str(s)) for s in seeds]
        tables["-", name] = [make(pooled(s), schema, n, draws[s]) for s in seeds]
    tables |= {("-", name): list(made) for name, made in rivals.items()}
    tables |= {(g.name, "synthetic"): g.tables for g in subjects}
    with threadpool_limits(1), ThreadPoolExecutor(os.cpu_count()) as pool:
        jobs = {
            key: [pool.submit(copying_means, *both[s], Table(*(c[:n] for c in t)), schema) for s, t in enumerate(made)]
            for key, made in tables.items()
        }
        found = {key: [job.result() for job in per_seed] for key, per_seed in jobs.items()}
    rows: list[Row] = []
    for (model, row), means in found.items():
        draw = setting.generator(rng.Stream.EVALUATE, "copying-interval", model, row)
        rows += rows_with_intervals(
            domain.name, model, [copying_figures(row, m) for m in means],
            lambda first=means[0], row=row, draw=draw: copying_intervals(row, first, draw),
        )  # fmt: skip
    return rows
