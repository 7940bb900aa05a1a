"""Joined detectors: shares of benign records, ties and ends of scores, and attacks that only one of the two sees."""

from __future__ import annotations

import numpy as np
import pytest

from fedjax_health.evaluation.detection import detection_threshold
from fedjax_health.evaluation.joined import FEWEST, benign_tail, depth, joined, log_odds
from fedjax_health.evaluation.utility import positive_score, ranking_figures
from fedjax_health.types import Table, UserError


def records(values: np.ndarray, label: np.ndarray | None = None) -> Table:
    n = len(values)
    return Table(
        values.astype(np.float32), np.zeros(n, np.int32) if label is None else label, np.arange(n, dtype=np.int32)
    )


def classifier(table: Table, seed: int) -> np.ndarray:
    """Sees the first column, in log-odds; three classes."""
    del seed
    attack = 1 / (1 + np.exp(-table.values[:, 0].astype(np.float64)))
    benign = 1 / (1 + np.exp(table.values[:, 0].astype(np.float64)))
    return np.stack([benign, attack / 4, 3 * attack / 4], 1)


def anomaly(table: Table, seed: int) -> np.ndarray:
    """Sees the second column; its scores are no probabilities."""
    del seed
    s = 100 * table.values[:, 1].astype(np.float64)
    return np.stack([1 - s, s], 1)


def test_a_score_is_as_rare_as_the_share_of_benign_records_at_or_above_it():
    score = np.random.default_rng(0).permutation(np.arange(1000.0))
    tail = benign_tail(score)
    above = 1000 - tail.cut  # scores at or above a cut are known: they are 0 … 999
    np.testing.assert_allclose(tail.depth, -np.log((1 + above) / 1001))
    assert tail.depth[0] == 0 and (np.diff(tail.cut) > 0).all() and (np.diff(tail.depth) > 0.3).all()
    assert FEWEST <= above[-1] < 2 * FEWEST and tail.scale == pytest.approx(np.mean(np.arange(1, above[-1])))
    np.testing.assert_allclose(depth(tail, tail.cut), tail.depth)
    exact = -np.log((1 + 1000 - np.arange(990)) / 1001)
    assert np.abs(depth(tail, np.arange(990.0)) - exact).max() < 0.06  # of a uniform score; cuts are half a bit apart
    np.testing.assert_array_equal(depth(tail, np.array([-5.0, 0.0])), 0.0)
    assert not np.allclose(depth(benign_tail(2 * score), score), depth(tail, score))  # another score is another tail


def test_beyond_every_benign_score_the_order_stays_and_an_exponential_tail_goes_on_as_it_is():
    score = np.random.default_rng(1).exponential(3.0, 20_000)
    tail = benign_tail(score)
    far = np.array([30.0, 60.0, 300.0, 3000.0])
    got = depth(tail, far)
    assert (np.diff(got) > 0).all()
    np.testing.assert_allclose(got, far / 3, rtol=0.4)  # ten scores say what the scale is


def test_equal_scores_are_equally_rare_and_count_all_of_them():
    score = np.repeat([0.0, 1.0, 2.0], [50, 30, 20])
    tail = benign_tail(score)
    np.testing.assert_array_equal(tail.cut, [0.0, 1.0, 2.0])
    np.testing.assert_allclose(tail.depth, -np.log(np.array([101, 51, 21]) / 101))
    assert np.isfinite(depth(tail, np.array([1e6]))).all() and depth(tail, np.array([3.0])) > tail.depth[-1]
    one = benign_tail(np.full(40, 7.0))
    np.testing.assert_allclose(depth(one, np.array([6.0, 7.0, 9.0])), [0.0, 0.0, 2.0])
    np.testing.assert_allclose(depth(benign_tail(np.array([1.5])), np.array([1.5, 2.5])), [0.0, 1.0])


def test_log_odds_rank_where_probabilities_are_tied_at_one():
    benign = np.array([1e-3, 1e-30, 1e-200, 0.0])
    score = np.stack([benign, 1 - benign], 1)
    assert len(np.unique(positive_score(score))) == 2
    assert (np.diff(log_odds(score)) > 0).all() and np.isfinite(log_odds(score)).all()
    np.testing.assert_allclose(log_odds(np.array([[0.2, 0.3, 0.5]])), np.log(4.0))


def test_an_attack_that_only_one_of_the_two_sees_is_found():
    r = np.random.default_rng(2)

    def draw(n: int, known: float, unknown: float) -> Table:
        # benign surprise has a heavy tail
        noise = np.stack([r.normal(size=n), r.standard_t(3, n)], 1)
        return records(noise + np.array([known, unknown]))

    validation, benign = draw(2000, 0, 0), draw(3000, 0, 0)
    loud = draw(300, 6, 0), draw(300, 0, 15), draw(300, 6, 15)  # known, unknown, both
    detector = joined(classifier, anomaly, [validation, validation], 0.5)
    point = detection_threshold(validation.label, detector(validation, 1), 0.05)
    assert 0.03 < np.mean(positive_score(detector(benign, 1)) >= point) < 0.07
    for attacks in loud:
        assert np.mean(positive_score(detector(attacks, 1)) >= point) > 0.95
    for alone, missed in ((classifier, loud[1]), (anomaly, loud[0])):  # each of the two by itself is blind to one
        truth = np.repeat([False, True], [3000, 300])
        p = np.concatenate([positive_score(alone(t, 1)) for t in (benign, missed)])
        q = np.concatenate([positive_score(detector(t, 1)) for t in (benign, missed)])
        assert ranking_figures(truth, p)[0] < 0.6 and ranking_figures(truth, q)[0] > 0.97
    assert detector(benign, 0).shape == (3000, 2)


def test_units_of_the_two_scores_do_not_matter_but_their_tails_do():
    r = np.random.default_rng(3)
    validation, some = (records(r.normal(size=(n, 2))) for n in (500, 50))

    def stretched(table: Table, seed: int) -> np.ndarray:
        return anomaly(table, seed) * 1e-3 + [1, -7]

    same = joined(classifier, stretched, [validation], 0.5)(some, 0)
    np.testing.assert_allclose(same, joined(classifier, anomaly, [validation], 0.5)(some, 0), rtol=1e-6, atol=1e-6)
    shifted = joined(classifier, anomaly, [validation._replace(values=validation.values + 1)], 0.5)(some, 0)
    assert not np.allclose(same, shifted)


def test_a_detector_that_diverged_says_nothing_and_calibration_needs_benign_records():
    validation = records(np.random.default_rng(4).normal(size=(30, 2)))

    def lost(table: Table, seed: int) -> np.ndarray:
        return np.full((len(table.label), 2), np.nan)

    assert np.isnan(joined(classifier, lost, [validation], 0.5)(validation, 0)).all()
    nobody = records(np.zeros((0, 2)))
    with pytest.raises(UserError, match="validation_fraction"):
        joined(classifier, anomaly, [validation, nobody], 0.5)


def test_the_share_says_whose_false_alarms_they_are_and_the_rarer_of_two_scores_is_the_alarm():
    r = np.random.default_rng(5)
    validation, benign = (records(r.normal(size=(4000, 2))) for _ in range(2))
    for share in (0.5, 0.2):
        score = positive_score(joined(classifier, anomaly, [validation], share)(benign, 0))
        alarms = benign.values[score >= np.quantile(score, 0.95)]
        low = [np.quantile(benign.values[:, i], 1 - 0.05 * part) for i, part in enumerate((1 - share, share))]
        by = [np.mean(alarms[:, i] > at - 0.1) for i, at in enumerate(low)]
        assert by[1] == pytest.approx(share, abs=0.12) and by[0] == pytest.approx(1 - share, abs=0.12)
    known, unknown = (
        depth(benign_tail(score(validation)), score(benign))
        for score in (lambda t: log_odds(classifier(t, 0)), lambda t: anomaly(t, 0)[:, 1])
    )
    alarm = positive_score(joined(classifier, anomaly, [validation], 0.2)(benign, 0))
    np.testing.assert_allclose(alarm, -np.log(np.minimum(np.exp(-known) / 0.8, np.exp(-unknown) / 0.2)))
