"""The verdict on collapse: what shows each sign, and what never does."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import toy

from fedjax_health.attacks.base import public_space
from fedjax_health.data.schema import Column, Schema
from fedjax_health.data.simulator import simulate_table
from fedjax_health.data.threats import make_threats
from fedjax_health.data.vitals import make_vitals
from fedjax_health.evaluation import baselines
from fedjax_health.evaluation.collapse import (
    SIGNS,
    collapse_figures,
    duplicate_share,
    hardly_varies,
    lost_classes,
    sample_recall,
    signs,
    spread,
    verdict_rows,
    warnings,
)
from fedjax_health.evaluation.manifold import coverage
from fedjax_health.evaluation.similarity import ROW
from fedjax_health.types import Table

SEEDS = 3


def cut(table: Table, first: int, rows: int) -> Table:
    return Table(*(column[first : first + rows] for column in table))


def judged(world, made: Table) -> dict:
    schema, test, trained = world[:3]
    n = min(len(test.label), len(made.label))
    spaces = public_space(cut(test, 0, n), schema), public_space(cut(made, 0, n), schema)
    return {(ROW, "coverage"): coverage(*spaces), **collapse_figures(test, made, trained, schema, 400)}


@pytest.fixture(scope="module", params=["toy", "vitals", "threats"])
def world(request):
    """(schema, held-out records, training records, marks one a seed: real records of other clients, copulas)."""
    simulator = {"toy": lambda: toy.SIMULATOR, "vitals": make_vitals, "threats": make_threats}[request.param]()
    test, trained = (simulate_table(simulator, 60, seed=seed) for seed in (0, 99))
    ceiling, copulas = [], []
    for s in range(SEEDS):
        other = simulate_table(simulator, 60, seed=1 + s)
        ceiling.append(other)
        copulas.append(baselines.gaussian_copula(other, simulator.schema, len(other.label), np.random.default_rng(s)))
    return simulator.schema, test, trained, ceiling, copulas


def marks_of(world):
    names, found = ("real-vs-real", "gaussian-copula"), []
    for name, tables in zip(names, world[3:], strict=True):
        figures = [judged(world, table) for table in tables]
        found.append((name, [{(name, metric): value for (_, metric), value in f.items()} for f in figures]))
    return found, [[{(ROW, metric): v for (_, metric), v in f.items()} for f in seeds] for _, seeds in found]


def test_the_marks_never_collapse_and_one_row_shows_what_is_lost(world):
    ceiling = world[3]
    marks, per_seed = marks_of(world)
    for figures in per_seed:
        rows = verdict_rows("d", "m", figures, *marks)
        assert [(r.row, r.metric) for r in rows] == [(ROW, "collapsed"), *((ROW, f"collapsed[{s}]") for s in SIGNS)]
        assert all(r.value == 0 for r in rows)
        assert warnings(rows, "d") == []
    one = Table(*(np.repeat(column[:1], len(ceiling[0].label), axis=0) for column in ceiling[0]))
    one = one._replace(client=np.arange(len(one.label)))
    rows = verdict_rows("d", "m", [judged(world, one), *per_seed[1][1:]], *marks)  # one seed of three is enough
    assert {r.metric: r.value for r in rows} == {"collapsed": 1, **{f"collapsed[{s}]": 1 for s in SIGNS}}
    (sentence,) = warnings(rows, "d", str.upper)
    assert sentence.startswith("M on d collapsed in at least one seed: it reaches less than half")
    assert sentence.count(";") == 3 and warnings(rows, "other") == []


def test_straying_from_the_records_is_no_collapse_and_drawing_them_together_is(world):
    """Noise of a whole SD on every number: far from all records, on all sides of them; a fifth of the spread: the reverse."""
    schema, _, trained = world[:3]
    marks, _ = marks_of(world)
    numeric = np.array([c.kind == "numeric" for c in schema.inputs])
    r, values = np.random.default_rng(0), trained.values.astype(np.float64)
    sd, mean = np.nanstd(values, axis=0), np.nanmean(values, axis=0)
    stray = np.where(numeric, values + 1.5 * sd * r.normal(size=values.shape), values).astype(np.float32)
    together = np.where(numeric, mean + 0.25 * (values - mean), values[:1]).astype(np.float32)
    alone = np.arange(len(values))
    found = [judged(world, trained._replace(values=v, client=alone)) for v in (stray, together)]
    held = [{r.metric for r in verdict_rows("d", "m", [f], *marks) if r.value} for f in found]
    assert held[0] == set() and found[0][ROW, "sample_recall"] > 0.5
    assert "collapsed[coverage]" in held[1]


def test_a_lost_class_is_a_sign_of_its_own(world):
    ceiling = world[3]
    marks, per_seed = marks_of(world)
    kept = ceiling[0].label == 0
    lost = Table(ceiling[0].values[kept], ceiling[0].label[kept], np.arange(kept.sum()))
    rows = verdict_rows("d", "m", [judged(world, lost), *per_seed[0][1:]], *marks)
    held = {r.metric for r in rows if r.value}
    assert {"collapsed", "collapsed[classes]"} <= held and "collapsed[duplicates]" not in held


def test_a_class_that_chance_may_miss_is_not_lost():
    label = np.repeat([0, 1], [990, 10]).astype(np.int32)
    real = Table(np.zeros((1000, 1), np.float32), label, np.arange(1000))
    healthy = Table(np.zeros((5000, 1), np.float32), np.zeros(5000, np.int32), np.arange(5000))
    assert lost_classes(real, cut(healthy, 0, 999), 2) == 0  # 9.99 rows were to be expected
    assert lost_classes(real, cut(healthy, 0, 1000), 2) == 1
    assert lost_classes(real, healthy, 3) == 1  # a class that no real record has is not lost
    # whole clients: 10 of 100 clients have the class, so that 5 are to be expected among 50, however many rows they have
    patients = real._replace(client=np.repeat(np.arange(100), 10), label=np.where(np.arange(1000) % 100 == 0, 1, 0))
    others = healthy._replace(client=np.repeat(np.arange(50), 100))
    assert lost_classes(patients, others, 2) == 0
    assert lost_classes(patients, healthy._replace(client=np.repeat(np.arange(100), 50)), 2) == 1


def test_sample_recall_known_answers():
    line = np.arange(10.0)[:, None]
    assert sample_recall(line, line) == 1
    assert sample_recall(line, np.zeros((10, 1))) == 0.1
    # five neighbours of a spacing of 1 reach 3 from inside, 5 from the ends: -5 to 14
    assert sample_recall(np.array([[-5.0], [-5.1], [14.0], [14.1]]), line) == 0.5
    assert np.isnan(sample_recall(line, line[:5])) and np.isnan(sample_recall(line[:0], line))


def test_spread_is_that_of_the_models_scale_and_of_shares():
    plain = Column(name="a", low=0, high=1e6)
    values = np.array([0.0, 10.0, np.nan], np.float32)
    assert spread(plain, values) == 5
    assert spread(dataclasses.replace(plain, transform="log1p"), values) == pytest.approx(np.log(11) / 2)
    kind = Column(name="k", kind="categorical", categories=("x", "y"))
    assert spread(kind, np.array([0, 1, 0, 1], np.float32)) == pytest.approx(np.sqrt(0.5))
    assert spread(kind, np.zeros(4, np.float32)) == 0
    assert np.isnan(spread(kind, np.full(3, np.nan, np.float32)))


def test_a_narrow_column_shows_and_one_that_hardly_varies_does_not():
    schema = Schema("s", (Column(name="a", low=-9, high=9), Column(name="b", low=0, high=1),
                          Column(name="y", kind="binary", role="label")))  # fmt: skip
    r = np.random.default_rng(0)
    values = np.column_stack([r.normal(size=1000), r.random(1000) < 0.03]).astype(np.float32)
    real = Table(values, r.integers(0, 2, 1000).astype(np.int32), np.arange(1000))
    assert hardly_varies(values[:, 1]) and not hardly_varies(values[:, 0])

    def narrow(factors) -> float:
        return collapse_figures(real, real._replace(values=values * np.float32(factors)), real, schema, 100)[
            ROW, "narrow_columns"
        ]

    assert narrow([0.21, 1]) == 0 and narrow([0.19, 1]) == 1
    assert narrow([1, 0]) == 0
    assert narrow([np.nan, 1]) == 1  # missing throughout


def test_duplicates_count_beyond_those_of_coarse_real_rows():
    schema = Schema(
        "s", (Column(name="a", low=0, high=9, nullable=True), Column(name="y", kind="binary", role="label"))
    )
    r = np.random.default_rng(0)

    def coarse(seed: int) -> Table:
        r = np.random.default_rng(seed)
        values = r.integers(0, 10, 500).astype(np.float32)
        values[r.random(500) < 0.1] = np.nan
        return Table(values[:, None], r.integers(0, 2, 500).astype(np.int32), np.arange(500))

    real = coarse(0)
    assert duplicate_share(real) > 0.9
    figures = collapse_figures(real, coarse(1), real, schema, 1000)
    assert abs(figures[ROW, "excess_duplicates"]) < 0.02
    fine = Table(r.normal(size=(500, 1)).astype(np.float32), real.label, real.client)
    for share, shown in ((0.08, False), (0.12, True)):
        made = fine.values.copy()
        made[: int(500 * share)], label = made[0], np.where(np.arange(500) < 60, 0, real.label).astype(np.int32)
        found = collapse_figures(fine, Table(made, label, real.client), fine, schema, 1000) | {
            (ROW, "coverage"): np.nan
        }
        verdict = signs(found, {"coverage": 0.9, "sample_recall": 2.0})
        assert verdict["duplicates"] == shown
        assert not verdict["coverage"]  # undefined is no sign


def test_a_larger_table_does_not_pass_for_one_that_repeats_itself(world):
    schema, test, trained, ceiling, _ = world
    figures = collapse_figures(cut(test, 0, 100), ceiling[0], trained, schema, 1000)
    assert abs(figures[ROW, "excess_duplicates"]) < 0.1


@pytest.mark.parametrize(
    ("coverage_", "recall", "verdict"), [(0.29, 0.39, 1), (0.31, 0.39, 0), (0.29, 0.41, 0), (0.31, 0.41, 0)]
)
def test_coverage_and_recall_are_held_against_the_weaker_mark(coverage_, recall, verdict):
    def of(row: str, a: float, b: float):
        return row, [{(row, "coverage"): a, (row, "sample_recall"): b}] * 2

    quiet = {(ROW, "lost_classes"): 0.0, (ROW, "narrow_columns"): 0.0, (ROW, "excess_duplicates"): 0.0}
    figures = [{(ROW, "coverage"): coverage_, (ROW, "sample_recall"): recall, **quiet}]
    rows = verdict_rows("d", "m", figures, of("ceiling", 0.9, 0.8), of("copula", 0.6, 0.95))
    assert {r.metric: r.value for r in rows}["collapsed[coverage]"] == verdict
