"""Clients that nobody resembles, in or out by a coin: what a synthetic table, or its generator, proves about who took part.

Each canary is a client all of whose records are one point, drawn uniformly within the public ranges, far from where people are.
Whoever knows the points, but not the coins, scores each; `privacy.audit_bounds` turns scores and coins into lower bounds.
"""

from __future__ import annotations

import numpy as np

from fedjax_health.attacks.base import Attack, Published, public_space, require_synthetic
from fedjax_health.data.cells import kept, variables
from fedjax_health.data.equations import completed
from fedjax_health.data.representation import Fitted
from fedjax_health.data.schema import Schema
from fedjax_health.neighbours import nearest_distance
from fedjax_health.privacy.audit_bounds import Bound, audit_bound, clopper_pearson, one_run, one_run_gaussian
from fedjax_health.types import Table, UserError

BOUNDS: dict[str, Bound] = {
    "one run": one_run,
    "one run, f-DP": one_run_gaussian,
    "Clopper-Pearson": clopper_pearson,
}
NEAR = 1e-3  # of a column's public range: values so close count as the same
NAME = "rare-values"


def draw_canaries(schema: Schema, count: int, generator: np.random.Generator) -> Table:
    """One record of each canary: every column and the label uniform over what is public, nothing missing.

    A column that may not exceed another is uniform below that one's value.

    Args:
      schema: public ranges, resolutions and code books.
      count: how many.
      generator: draws them, once and in public.

    Returns:
      Table of `count` rows, `client` a running index.
    """
    uniform = generator.random((count, len(schema.inputs)))
    values = np.empty(uniform.shape)

    def fill(j: int) -> np.ndarray:
        c = schema.inputs[j]
        if c.kind != "numeric":
            values[:, j] = np.minimum(np.floor(uniform[:, j] * len(c.categories)), len(c.categories) - 1)
            return values[:, j]
        assert c.low is not None and c.high is not None
        high = np.minimum(fill(schema.index(c.at_most)), c.high) if c.at_most else c.high
        value = c.low + uniform[:, j] * np.maximum(high - c.low, 0.0)
        values[:, j] = value if c.decimals is None else np.round(value, c.decimals)
        return values[:, j]

    for j in range(len(schema.inputs)):
        fill(j)
    label = generator.integers(schema.num_classes, size=count).astype(np.int32)
    return Table(completed(values.astype(np.float32), schema), label, np.arange(count, dtype=np.int32))


def with_canary_clients(table: Table, canaries: Table, records: int) -> Table:
    """A client-major table with the canaries as further clients, each with its record so many times.

    Args:
      table: clients 0 ... K - 1.
      canaries: of `draw_canaries`.
      records: of each, >= 1.

    Returns:
      Table of clients 0 ... K + count - 1.

    Raises:
      UserError: records < 1.
    """
    if records < 1:
        raise UserError(f"records={records} of a canary must be at least 1; without one it is never seen")
    first = int(table.client.max(initial=-1)) + 1
    rows = np.repeat(np.arange(len(canaries.label)), records)
    return Table(
        np.concatenate([table.values, canaries.values[rows]]),
        np.concatenate([table.label, canaries.label[rows]]),
        np.concatenate([table.client, first + canaries.client[rows]]).astype(np.int32),
    )


def make_nearest_row() -> Attack:
    """Score of a record x: -min_s d(x, s) over synthetic records s, Euclidean in `public_space`; no reference is read.

    Canaries are drawn alike, so that none needs the calibration of `make_nearest_synthetic`, which would add the noise of its
    own distance to the population; an exact copy scores 0, the most there is.

    Returns:
      Attack; needs `Published.synthetic`; deterministic.
    """

    def score(published: Published, records: Table, schema: Schema, rng: np.random.Generator) -> np.ndarray:
        del rng
        synthetic = require_synthetic(published, "nearest-row")
        return -nearest_distance(public_space(records, schema), public_space(synthetic, schema))

    return Attack("nearest-row", "the synthetic table", score)


def make_rare_values() -> Attack:
    """Score of a record x: sum over numeric columns of log((1 + s_j) / (1 + r_j n_s / n_r)).

    s_j and r_j count the synthetic and the reference rows whose value lies within a thousandth of the public range of x_j, n_s
    and n_r all of them. A generator that keeps each column's distribution function gives a value that one client alone holds
    away, whatever the other columns are.

    Returns:
      Attack; needs `Published.synthetic` and a reference; deterministic.
    """

    def near(table: Table, j: int, at: np.ndarray, reach: float) -> np.ndarray:
        column = np.sort(table.values[:, j][~np.isnan(table.values[:, j])].astype(np.float64))
        return np.searchsorted(column, at + reach, "right") - np.searchsorted(column, at - reach, "left")

    def score(published: Published, records: Table, schema: Schema, rng: np.random.Generator) -> np.ndarray:
        del rng
        synthetic, found = require_synthetic(published, NAME), np.zeros(len(records.label))
        share = len(synthetic.label) / max(len(published.reference.label), 1)
        for j, c in enumerate(schema.inputs):
            if c.kind == "numeric":
                assert c.low is not None and c.high is not None
                at = np.nan_to_num(records.values[:, j].astype(np.float64), nan=np.inf)
                reach = NEAR * (c.high - c.low)
                own, usual = near(synthetic, j, at, reach), near(published.reference, j, at, reach)
                found += np.log((1.0 + own) / (1.0 + share * usual))
        return found

    return Attack(NAME, "the synthetic table, and real records of the attacker's own", score)


def function_scores(fitted: Fitted, schema: Schema, records: Table) -> np.ndarray:
    """Score of a record by a generator's published distribution functions: sum over variables of log(1e-6 + mass).

        mass = F_y(v + r) - F_y(v - r), r a thousandth of the variable's range, y the record's class

    Args:
      fitted: representation as published.
      schema: its columns.
      records: M.

    Returns:
      f64[M].
    """
    parts, found = variables(schema), np.zeros(len(records.label))
    own = np.nan_to_num(kept(records.values, parts), nan=np.inf)
    for j, v in enumerate(parts):
        edges, reach = np.asarray(fitted.edges[j], np.float64), NEAR * (v.high - v.low)
        for c, below in enumerate(np.asarray(fitted.below, np.float64)[:, j]):
            mine = records.label == c
            ends = (np.interp(own[mine, j] + sign * reach, edges, below) for sign in (1, -1))
            found[mine] += np.log(1e-6 + np.subtract(*ends))
    return found


def lower_bounds(scores: np.ndarray, inserted: np.ndarray, delta: float, seed: int) -> dict[str, float]:
    """95 % lower bounds on epsilon from scores and coins, each by itself; all split the canaries alike.

    "one run" holds for any mechanism and canaries that disturb each other; "one run, f-DP" for mechanisms whose trade-off curve
    is a Gaussian's, such as full participation; "Clopper-Pearson" for canaries that do not disturb each other. See
    `privacy.audit_bounds`.

    Args:
      scores: f64[m], higher where a canary looks inserted.
      inserted: bool[m], independent fair coins.
      delta: in (0, 1).
      seed: of the split.

    Raises:
      UserError: as `audit_bound`.
    """
    return {
        name: audit_bound(scores, inserted, delta, bound, np.random.default_rng(seed)) for name, bound in BOUNDS.items()
    }
