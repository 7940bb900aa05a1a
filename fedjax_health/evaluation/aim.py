"""AIM, a private rival: adaptively chosen pair marginals with Gaussian noise and a graphical model, by a curator who sees all.

The selection loop is written out here; `mbi` (McKenna, Apache-2.0) infers the graphical model and draws from it.
"""

from __future__ import annotations

import itertools
from typing import Any, NamedTuple

import dp_accounting
import numpy as np
import scipy.optimize
from dp_accounting import dp_event, rdp

from fedjax_health.data.schema import Schema
from fedjax_health.evaluation.graphical import Clique, draw, fitted, library, megabytes, model_marginals
from fedjax_health.evaluation.marginal_cells import decode_cells, encode_cells, grids_of
from fedjax_health.privacy.fit import client_weights
from fedjax_health.types import Table, UserError

SENSITIVITY = 1.0  # of a marginal, in the Euclidean and in the absolute norm
MEASURED = 0.9  # share of a round's zCDP that measures; the rest selects
ROUNDS_A_COLUMN = 16  # rounds that the first noise is meant for
MODEL_MB = 4.0  # most megabytes of the graphical model; the authors allow 80
ITERATIONS, LAST_ITERATIONS = 300, 1000  # of mirror descent, after a round and at the end
MEAN_ABSOLUTE = float(np.sqrt(2.0 / np.pi))  # of a standard normal number
TOLERANCE = 1e-6


class Released(NamedTuple):
    """What AIM publishes, and at what cost.

    Attributes:
      model: graphical model of `mbi`.
      measured: (columns, noise's deviation) of every marginal, in order; columns are places on the F axis, F = the label.
      events: of dp-accounting, all of them.
      epsilon: of their composition at the target's delta, add or remove one client.
    """

    model: Any
    measured: list[tuple[Clique, float]]
    events: list[dp_accounting.DpEvent]
    epsilon: float


def spent(events: list[dp_accounting.DpEvent], delta: float) -> float:
    """Epsilon of a composition of Gaussian and zCDP events at delta, add or remove one client, by dp-accounting's RDP.

    Args:
      events: `GaussianDpEvent` of multiplier z (1/(2 z^2)-zCDP) or `ZCDpEvent`.
      delta: in (0, 1).

    Source: Canonne, Kamath & Steinke 2020, arXiv 2004.00010 (conversion).
    """
    accountant = rdp.RdpAccountant(neighboring_relation=dp_accounting.NeighboringRelation.ADD_OR_REMOVE_ONE)
    return float(accountant.compose(dp_event.ComposedDpEvent(events)).get_epsilon(delta))


def budget(epsilon: float, delta: float) -> float:
    """The zCDP rho that spends (epsilon, delta): the largest with spent(rho) <= epsilon, to 1e-6.

    Args:
      epsilon: > 0, finite.
      delta: in (0, 1).

    Raises:
      UserError: values out of range, or an epsilon that delta does not allow.
    """
    if not 0.0 < epsilon < np.inf:
        raise UserError(
            f"epsilon={epsilon:g} of AIM must be positive and finite; give the run a budget or leave AIM out"
        )
    if not 0.0 < delta < 1.0:
        raise UserError(f"delta={delta:g} of AIM must be between 0 and 1, both excluded; K^-1.1 is usual")

    def excess(log_rho: float) -> float:
        return spent([dp_event.ZCDpEvent(float(np.exp(log_rho)))], delta) - epsilon

    low, high = np.log(1e-8), np.log(1e4)
    if excess(low) > 0:
        raise UserError(f"epsilon={epsilon:g} of AIM is too small for delta={delta:g}; raise either")
    if excess(high) <= 0:
        return float(np.exp(high))
    root: Any = scipy.optimize.brentq(excess, low, high, xtol=TOLERANCE)
    return float(np.exp(root - 2.0 * TOLERANCE))  # never a hair above


def marginal(codes: np.ndarray, weight: np.ndarray, sizes: tuple[int, ...], clique: Clique) -> np.ndarray:
    """Histogram of some columns in which every client has mass 1: M_r = sum_k sum_i w_ki e(x_ki), w_ki = 1 / n_k.

    Adding or removing one client adds or removes a vector >= 0 that sums to 1: its 1-norm is 1, its 2-norm at most 1.

    Args:
      codes: i64[M, d].
      weight: f64[M], of records; sums to 1 over a client's.
      sizes: codes of each column.
      clique: columns, in rising order.

    Returns:
      f64[product of their sizes], row-major.
    """
    shape = tuple(sizes[j] for j in clique)
    flat = np.ravel_multi_index(tuple(codes[:, j] for j in clique), shape)
    return np.bincount(flat, weights=weight, minlength=int(np.prod(shape)))


def choose(scores: np.ndarray, epsilon: float, rng: np.random.Generator) -> int:
    """Exponential mechanism: index with probability proportional to exp(epsilon q / (2 D)), D = 1; epsilon^2 / 8-zCDP.

    Args:
      scores: f64[n], each of sensitivity at most 1.
      epsilon: > 0.
      rng: one Gumbel number a score.

    Source: McSherry & Talwar 2007; bound: Cesar & Rogers 2020, arXiv 2004.07223.
    """
    return int(np.argmax(epsilon * scores / (2.0 * SENSITIVITY) + rng.gumbel(size=len(scores))))


def release(
    codes: np.ndarray,
    weight: np.ndarray,
    sizes: tuple[int, ...],
    epsilon: float,
    delta: float,
    rng: np.random.Generator,
) -> Released:
    """Measures all single marginals, then, as long as the budget lasts, the pair (or column) that the model misses most.

    A round of noise s and selection e selects by q_r = w_r (|M_r(D) - M_r(model)|_1 - sqrt(2 / pi) s n_r), w_r = 1 for a pair
    and 1/2 for a column (how much of all pairs it overlaps, over the most), and adds N(0, s^2 I) to M_r(D). The model depends
    on earlier answers only, so by the triangle inequality adding or removing a client moves q_r by at most w_r |M_r(D) -
    M_r(D')|_1 = w_r <= 1. It costs 1/(2 s^2) + e^2/8 of zCDP; when the answer changed the model by no more than noise does, s
    is halved and e doubled. Costs so depend on answers, but their sum is the same rho in every run, which is what a privacy
    filter needs. Models above MODEL_MB, times the share spent, are no candidates.

    Args:
      codes: i64[M, d], d >= 2.
      weight: f64[M], sums to 1 over each client's records.
      sizes: codes of each column.
      epsilon, delta: target, add or remove one client.
      rng: of noise and selection, drawn in floating point.

    Raises:
      UserError: no records, or a target out of range.

    Source: McKenna, Mullins, Sheldon & Miklau 2022, arXiv 2201.12677, Algorithm 4; filter: Feldman & Zrnic 2021,
      arXiv 2008.11193.
    """
    if not len(codes):
        raise UserError("AIM needs records, and the table has none; give it at least one")
    total, d, used = budget(epsilon, delta), len(sizes), 0.0
    noise = float(np.sqrt(ROUNDS_A_COLUMN * d / (2.0 * MEASURED * total)))
    selection = float(np.sqrt(8.0 * (1.0 - MEASURED) * total / (ROUNDS_A_COLUMN * d)))
    pairs, singles = list(itertools.combinations(range(d), 2)), [(j,) for j in range(d)]
    answers: dict[Clique, np.ndarray] = {r: marginal(codes, weight, sizes, r) for r in (*singles, *pairs)}
    known: dict[Clique, tuple[np.ndarray, float]] = {}
    measured: list[tuple[Clique, float]] = []
    events: list[dp_accounting.DpEvent] = []

    def measure(clique: Clique, deviation: float) -> None:
        noisy, variance = answers[clique] + deviation * rng.standard_normal(len(answers[clique])), deviation**2
        if clique in known:  # two answers are as good as their mean, weighted by precision
            before, other = known[clique]
            share = variance / (variance + other)
            noisy, variance = share * before + (1.0 - share) * noisy, share * other
        known[clique] = noisy, variance
        measured.append((clique, deviation))
        events.append(dp_event.GaussianDpEvent(deviation / SENSITIVITY))

    for one in singles:
        measure(one, noise)
        used += 0.5 / noise**2
    with library() as mbi:
        domain = mbi.Domain(range(d), sizes)
        model = fitted(mbi, domain, known, None, ITERATIONS)
        last = False
        while not last:
            left = total - used
            last = left <= 2.0 * (0.5 / noise**2 + selection**2 / 8.0)
            if last:
                noise = float(np.sqrt(1.0 / (2.0 * MEASURED * left)))
                selection = float(np.sqrt(8.0 * (1.0 - MEASURED) * left))
            used += 0.5 / noise**2 + selection**2 / 8.0
            most = MODEL_MB * used / total
            held = list(known)
            allowed = [r for r in answers if r in known or megabytes(mbi, domain, [*held, r]) <= most]
            expected = model_marginals(mbi, model, sizes)
            scores = [
                (0.5 * len(r)) * (np.abs(answers[r] - expected[r]).sum() - MEAN_ABSOLUTE * noise * len(answers[r]))
                for r in allowed
            ]
            chosen = allowed[choose(np.asarray(scores), selection, rng)]
            events.append(dp_event.ZCDpEvent(selection**2 / 8.0))
            measure(chosen, noise)
            model = fitted(mbi, domain, known, model, ITERATIONS)
            moved = np.abs(np.asarray(model.project(chosen).values).ravel() - expected[chosen]).sum()
            if moved <= MEAN_ABSOLUTE * noise * len(answers[chosen]):
                noise, selection = noise / 2.0, selection * 2.0
        model = fitted(mbi, domain, known, model, LAST_ITERATIONS)
    return Released(model, measured, events, spent(events, delta))


def aim(table: Table, schema: Schema, n: int, rng: np.random.Generator, epsilon: float, delta: float) -> Table:
    """Private rival: what a trusted curator of all records could publish under (epsilon, delta), hiding each client.

    Numeric columns on at most 16 public cells (`marginal_cells`), missing values and the label as codes; AIM over all pairs.

    Args:
      table: real records.
      schema: their columns.
      n: rows to make.
      rng: host generator.
      epsilon, delta: target, add or remove one client.

    Returns:
      Table of n rows with a running client index.

    Raises:
      UserError: no records, a missing value where none may be, or a target out of range.

    Source: McKenna, Mullins, Sheldon & Miklau 2022, arXiv 2201.12677.
    """
    grids = grids_of(schema)
    codes = encode_cells(table, schema, grids)
    sizes = tuple(grid.size for grid in grids)
    released = release(codes, client_weights(table.client), sizes, epsilon, delta, rng)
    return decode_cells(draw(released.model, n, rng), schema, grids, rng)
