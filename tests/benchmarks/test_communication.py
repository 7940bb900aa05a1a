"""The data sets of the communication benchmark, its trials side by side, and its figures."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats

from benchmarks import communication, report, trials
from benchmarks.trials import Curve


def _curve(validation):
    validation = np.asarray(validation, np.float64)
    sent = np.tile(1e6 * np.arange(validation.shape[1], dtype=np.float64), (validation.shape[0], 1))
    return Curve(validation, validation, sent, 3 * sent, sent / 200_000)


def test_costs_are_those_of_the_first_look_that_reaches_the_target():
    curve = _curve([[0.5, 0.8, 0.9, 0.8], [0.5, 0.6, 0.7, 0.9]])
    costs = communication.costs_until(curve, 0.9)
    every = trials.EVERY
    assert {name: values.tolist() for name, values in costs.items()} == {
        "rounds": [2.0 * every, 3.0 * every],
        "MB up": [2.0, 3.0],
        "MB in all": [8.0, 12.0],
        "s simulated": [10.0, 15.0],
    }
    assert communication.costs_until(curve, 0.91) is None  # no seed
    assert communication.costs_until(_curve([[0.5, 0.9], [0.5, 0.8]]), 0.9) is None  # one of two


def test_a_mean_has_its_t_interval():
    values = np.asarray([1.0, 2.0, 4.0, 5.0, 8.0])
    result = communication.mean_result("x", values, "s", ("y", 2 * values))
    low, high = scipy.stats.t.interval(0.95, 4, values.mean(), scipy.stats.sem(values))
    assert (result["value"], result["ratio"], result["against"]) == (4.0, 0.5, "y")
    assert (result["low"], result["high"]) == (pytest.approx(low), pytest.approx(high))
    report.make_report("b", "d", {}, [result, *communication.rate_results("z", (0.1, 1.0))])


def test_dirichlet_clients_hold_the_natural_ones_records_in_skewed_shares():
    natural, dealt = (trials.make_records(name) for name in ("natural", "dirichlet"))
    assert natural.bounds == dealt.bounds == (64, 64)
    np.testing.assert_array_equal(np.sort(natural.store.x, 0), np.sort(dealt.store.x, 0))
    share = [np.asarray(records.store.y).reshape(trials.CLIENTS, -1).mean(1) for records in (natural, dealt)]
    assert np.mean(np.abs(share[1] - 0.5) > 0.4) > 0.6 > 0.1 > np.mean(np.abs(share[0] - 0.5) > 0.4)
    for held in ("validation", "test"):
        (x, y), (x_dealt, y_dealt) = getattr(natural, held), getattr(dealt, held)
        np.testing.assert_array_equal(x, x_dealt)
        np.testing.assert_array_equal(y, y_dealt)
    first = {records.tobytes() for records in np.asarray(natural.store.x)}
    assert not first & {row.tobytes() for row in natural.validation[0]}
    assert len(natural.validation[1]) == 64 * trials.VALIDATION and len(natural.test[1]) == 64 * trials.TEST


@pytest.mark.long
def test_federations_side_by_side_do_not_touch_each_other():
    records = trials.make_records("natural")
    rates = trials.same_rates((0.1, 1.0))
    same = trials.train(records, {}, rates, [7] * 5, 4, True)
    for field in same:
        assert field.shape == (5, 3) and np.ptp(field, axis=0).max() == 0
    assert (np.diff(same.up[0]) > 0).all() and same.up[0, 0] == same.seconds[0, 0] == 0
    assert same.up[0, -1] == 4 * trials.COHORT * 4 * (16 * 64 + 64 + 64 * 64 + 64 + 64 + 1)
    still = rates.copy()
    still[:, 2] = 0.0
    curve = trials.train(records, {}, still, [7] * 5, 4, True)
    np.testing.assert_array_equal(np.delete(curve.test, 2, 0), np.delete(same.test, 2, 0))
    assert np.ptp(curve.test[2]) == 0 and same.test[2, -1] > same.test[2, 0]


def test_tuning_takes_the_best_pair_on_validation(monkeypatch):
    asked = []

    def fake(records, changes, rates, seeds, rounds, fleet):
        asked.append((rates.tolist(), list(seeds)))
        score = -np.abs(np.log(rates[0] / 0.4)) - np.abs(np.log(rates[1] / 0.04))
        validation = score[:, None] - np.asarray([[3.0, 2.0, 1.0, 0.0]])
        return Curve(validation, -validation, validation, validation, validation)

    monkeypatch.setattr(trials, "train", fake)
    assert trials.tune(None, {}, 8, False) == (0.3, 0.03)
    assert len(asked) == len(trials.SERVER_RATES)
    assert all(set(seeds) == {trials.TUNING_SEED} for _, seeds in asked)
    assert trials.TUNING_SEED not in trials.SEEDS and len(trials.CLIENT_RATES) == len(trials.SEEDS)
