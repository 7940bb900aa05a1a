"""Judging tables from anywhere: intervals that cover, copies that are seen, attacks that find members and only members."""

from __future__ import annotations

import numpy as np
import pytest
from strangers import HOLDOUT, REAL, SYNTHETIC, patients

from fedjax_health.data.foreign import Tables, make_tables
from fedjax_health.data.foreign_schema import infer_foreign
from fedjax_health.evaluation import copies, foreign
from fedjax_health.evaluation.foreign_membership import attack_rows, membership_tables
from fedjax_health.evaluation.foreign_utility import CLASSIFIERS, fit_all, joined, task_rows
from fedjax_health.evaluation.half_samples import half, half_masks, half_rows, spread_interval
from fedjax_health.results import make_attacks
from fedjax_health.types import Table, UserError


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def tables(**synthetic) -> Tables:
    schema, _ = infer_foreign(("real", REAL), ("holdout", HOLDOUT), "outcome", "person", "ward")
    return make_tables(("real", REAL), ("holdout", HOLDOUT), {k: (k, f) for k, f in synthetic.items()}, schema)


def case(**synthetic) -> foreign.Case:
    return foreign.Case("ward", tables(**synthetic), 0)


def clustered(seed: int, clients: int = 60, each: int = 5) -> Table:
    """Records whose values are those of their client and little else."""
    g = generator(seed)
    values = np.repeat(g.normal(size=(clients, 1)), each, 0) + 0.1 * g.normal(size=(clients * each, 1))
    client = np.repeat(np.arange(clients, dtype=np.int32), each)
    return Table(values.astype(np.float32), np.zeros(len(client), np.int32), client)


def test_a_half_has_half_of_the_clients_whole():
    table = clustered(0)
    part = half(table, generator())
    assert len(np.unique(part.client)) == 30 and (np.bincount(part.client)[np.unique(part.client)] == 5).all()
    masks = half_masks(table, generator(), 400)
    np.testing.assert_allclose(np.mean(masks), 0.5)
    np.testing.assert_allclose(np.mean(masks, 0), 0.5, atol=0.12)  # every client alike


def test_interval_of_a_mean_is_that_of_clients_not_of_rows():
    covered = {"client": 0, "row": 0}
    for seed in range(200):
        table = clustered(seed)
        for unit in covered:
            t = table if unit == "client" else table._replace(client=np.arange(len(table.label), dtype=np.int32))
            halves = [t.values[mask].mean() for mask in half_masks(t, generator(seed))]
            low, high = spread_interval(float(t.values.mean()), halves)
            covered[unit] += low <= 0 <= high
    assert covered["client"] >= 180  # 95 % of 200, less five standard deviations
    assert covered["row"] <= 140  # counted by row they are too narrow


def test_intervals_that_are_not_there():
    assert np.isnan(spread_interval(1.0, [1.0])).all() and np.isnan(spread_interval(1.0, [1.0, np.nan])).all()
    figures = {("synthetic", "welch_p"): 0.2, ("synthetic", "c2st_auc"): 0.6}
    halves = [{k: v + d for k, v in figures.items()} for d in (-0.1, 0.1)]
    few, p, auc = (*half_rows("d", "m", figures, halves, 9)[1:], *half_rows("d", "m", figures, halves, 10))
    assert np.isnan([few.low, p.low]).all() and auc.low < 0.6 < auc.high


def test_copies_are_counted_whatever_their_order():
    table = clustered(0)
    assert copies.same_rows(table, Table(table.values[::-1], table.label, table.client))
    assert not copies.same_rows(table, clustered(1)) and not copies.copied_rows(clustered(1), table).any()
    other = table._replace(label=1 - table.label)
    assert not copies.copied_rows(other, table).any()  # the label counts
    half_copied = Table(*(np.concatenate([a, b]) for a, b in zip(table, clustered(1), strict=True)))
    assert copies.copied_rows(half_copied, table).mean() == 0.5


def test_missing_cells_are_equal_and_minus_zero_is_zero():
    a = Table(np.array([[np.nan, 0.0]], np.float32), np.zeros(1, np.int32), np.zeros(1, np.int32))
    b = a._replace(values=np.array([[-np.nan, -0.0]], np.float32))
    assert copies.same_rows(a, b)


def test_chance_copies_both_sides_alike_and_memory_one():
    g = generator()
    none = np.zeros(600, np.int32)
    coarse = [Table(g.integers(0, 4, (600, 2)).astype(np.float32), none, np.arange(600)) for _ in range(3)]
    seen, control, (low, high) = copies.copy_shares(*coarse, generator())
    assert seen > 0.9 and control > 0.9 and low <= 0 <= high
    real, holdout, fresh = clustered(0), clustered(1), clustered(2)
    seen, control, (low, _) = copies.copy_shares(real, real, holdout, generator())
    assert (seen, control) == (1.0, 0.0) and low > 0.5
    assert copies.copy_shares(fresh, real, holdout, generator())[:2] == (0.0, 0.0)


def test_repeated_rows_of_one_client_are_no_coincidence():
    table = clustered(0, 4, 2)
    twice = table._replace(values=np.repeat(table.values[::2], 2, 0))  # each client's row, twice
    assert copies.repeated_elsewhere(twice) == 0.0
    assert copies.repeated_elsewhere(twice._replace(client=np.arange(8))) == 1.0


def test_mixed_up_files_are_refused():
    given = {"real": "a.csv", "holdout": "b.csv", "syn": "c.csv"}
    foreign.check_apart(case(syn=SYNTHETIC), given)
    with pytest.raises(UserError, match=r"b\.csv holds the same rows as c\.csv"):
        foreign.check_apart(case(syn=HOLDOUT), given)


def test_some_rows_are_of_whole_clients():
    table = clustered(0)
    few = foreign.some_rows(table, 52, generator())
    assert len(few.label) == 50 and (np.bincount(few.client) == 5).all()
    assert foreign.some_rows(table, 300, generator()) is table
    assert len(foreign.some_rows(table, 3, generator()).label) == 5  # one client at least


def test_attack_on_certain_and_on_random_scores():
    g = generator()
    hit = {r.metric: r for r in attack_rows("d", "m", "a:b", g.normal(9, 1, 2000), g.normal(0, 1, 2000), generator())}
    assert hit["auc"].value > 0.999 and hit["tpr_at_1pct_fpr"].low > 0.99 and hit["success (%)"].value > 99
    assert np.isnan(hit["tpr_at_0p1pct_fpr"].value) and hit["auc"].n == 4000 and hit["tpr_at_1pct_fpr"].n == 2000
    inside = 0
    for seed in range(16):
        g = generator(seed)
        rows = attack_rows("d", "m", "a:b", g.normal(size=200), g.normal(size=200), generator(seed))
        inside += rows[0].low <= 0.5 <= rows[0].high and rows[1].low <= 0.5 <= rows[1].high
    assert inside >= 12  # both, of 95 % each
    assert all(np.isnan(r.value) for r in attack_rows("d", "m", "a:b", np.zeros(9), np.zeros(99), generator()))


def test_classifiers_learn_and_constant_labels_are_predicted():
    given = case(good=patients(240, 4).drop(columns="person"), one=SYNTHETIC.assign(outcome="stable"))
    given = given._replace(tables=given.tables._replace(synthetic={**given.tables.synthetic, "void": _void(given)}))
    fits = fit_all(given)
    views = [(m, r) for m in ("good", "one", "void") for r in ("synthetic", "real+synthetic")]
    views += [("-", "real"), ("-", "gaussian-copula")]
    assert set(fits.by_row) == {(model, row + ending) for model, row in views for ending in CLASSIFIERS}
    both = fits.by_row["good", "real+synthetic"].trained
    assert len(both.label) == 2 * len(fits.by_row["-", "real"].trained.label) and len(np.unique(both.client)) > 200
    useful, fair = task_rows(given, fits)
    auroc = {(r.model, r.row): r for r in useful if r.metric == "auroc"}
    for key in (
        (m, r + end) for m, r in (("-", "real"), ("good", "synthetic")) for end in ("", ":logistic-regression")
    ):
        assert auroc[key].low > 0.7, key
    assert auroc["one", "synthetic"].value == 0.5 == auroc["one", "synthetic"].high
    assert fair == []  # no group column
    rows, points = membership_tables(given, fits, make_attacks())
    assert all(r.low <= r.value <= r.high for r in rows if np.isfinite(r.value)) and points


def _void(given: foreign.Case) -> Table:
    """Without any number, which trees cannot bin."""
    table = given.tables.synthetic["good"]
    return table._replace(values=np.where([True, True, False, False], np.float32(np.nan), table.values))


def test_joined_tables_share_no_client():
    a, b = clustered(0, 3, 2), clustered(1, 2, 2)
    assert joined(a, b).client.tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
