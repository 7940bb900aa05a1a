"""How many rows candidates add, how one is chosen and on whom, and what a paired gain is."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import toy

from configs import base
from fedjax_health.config import from_config_dict
from fedjax_health.evaluation.augmentation import (
    CANDIDATES,
    CHOSEN,
    NOTHING,
    amounts,
    choose,
    enough_rows,
    fit_more,
    fraction_row,
    gains,
    raised,
    validation_score,
)
from fedjax_health.evaluation.downstream import Downstream, Fitted
from fedjax_health.evaluation.mixtures import held
from fedjax_health.evaluation.rows import seed_rows
from fedjax_health.evaluation.setting import Setting, Subject
from fedjax_health.evaluation.suite import Fits
from fedjax_health.evaluation.tasks import Judge, Side, beside, task_rows
from fedjax_health.types import Table

SEEDS = 2
CONFIG = from_config_dict(base.get_config().to_dict()).evaluation


@pytest.mark.parametrize(
    ("real", "added"),
    [
        ([80, 20], [0, 60]),  # two classes: equal
        ([20, 80], [60, 0]),
        ([50, 50], [0, 0]),
        ([90, 6, 4], [0, 49, 51]),  # 100 rows at most: both to 55, and not to 90
        ([90, 10, 0], [0, 80, 0]),  # nothing of a class that no real record has
        ([0, 0], [0, 0]),
    ],
)
def test_smaller_classes_are_raised_to_one_level(real, added):
    found = raised(np.array(real))
    assert found.tolist() == added and found.sum() <= sum(real)


def test_candidates_add_shares_of_each_class():
    found = amounts(np.array([81, 19]))
    assert tuple(found) == CANDIDATES == ("none", "balance", "25%", "50%", "100%")
    assert {name: rows.tolist() for name, rows in found.items()} == {
        "none": [0, 0], "balance": [0, 62], "25%": [20, 5], "50%": [40, 10], "100%": [81, 19],
    }  # fmt: skip


def test_the_best_score_wins_ties_go_to_fewer_rows_and_what_is_undefined_is_not_chosen():
    added = {"none": 0, "balance": 60, "25%": 25, "50%": 50, "100%": 100}
    assert choose(dict.fromkeys(added, 0.7), added) == "none"
    assert choose(dict.fromkeys(added, 0.7) | {"balance": 0.71, "50%": 0.71 + 1e-15}, added) == "50%"
    assert choose(dict.fromkeys(added, 0.7) | {"100%": 0.8, "25%": np.nan}, added) == "100%"
    assert choose(dict.fromkeys(added, np.nan), added) == NOTHING
    assert choose(dict.fromkeys(added, np.nan) | {"50%": 0.1}, added) == "50%"


def test_a_detection_is_judged_by_precision_and_a_diagnosis_by_ranks():
    label, p = np.array([0, 0, 0, 1]), np.array([0.1, 0.2, 0.9, 0.8])
    score = np.stack([1 - p, p], 1)
    assert validation_score("diagnosis", label, score) == pytest.approx(2 / 3)
    assert validation_score("detection", label, score) == pytest.approx(1 / 2)
    assert np.isnan(validation_score("detection", np.zeros(4, int), score))


def test_rows_that_a_table_lacks_are_drawn_from_the_generator():
    table = Table(np.zeros((10, 1), np.float32), np.repeat([0, 1], [8, 2]).astype(np.int32), np.arange(10))
    asked = []

    def draw(seed: int, shares: np.ndarray, rows: int) -> Table:
        asked.append((seed, shares.tolist(), rows))
        return Table(np.ones((rows, 1), np.float32), np.ones(rows, np.int32), np.arange(rows))

    subject = Subject("m", [table, table], 10, lambda t, s: np.zeros(len(t.label)), draw)
    assert enough_rows(subject, 0, np.array([8, 2])) is table and not asked
    pool = enough_rows(subject, 1, np.array([9, 5]))
    assert asked == [(1, [0.25, 0.75], 4)]
    assert pool.values[:, 0].tolist() == [0.0] * 10 + [1.0] * 4 and pool.client.tolist() == list(range(14))
    assert enough_rows(subject._replace(draw=None), 1, np.array([9, 5])) is table


class Recorder:
    """Stands in for training: classifiers whose quality on validation and test clients is told beforehand."""

    def __init__(self, domain, quality):
        self.domain, self.quality, self.trained, self.asked = domain, quality, {}, []

    def fitted(self, name: str) -> Fitted:
        def probabilities(table: Table, seed: int) -> np.ndarray:
            who = "validation" if table is self.domain.validation else "test"
            self.asked.append((name, who, seed))
            good = self.quality(name, who, seed)
            noise = np.random.default_rng(0).random(len(table.label))
            p = np.clip(good * table.label + (1 - good) * noise, 0.01, 0.99)
            return np.stack([1 - p, p], 1)

        return Fitted(probabilities, lambda table, seed: np.full(len(table.label), float(seed)))

    def downstream(self) -> Downstream:
        def fit_mixtures(mixtures, stage):
            self.trained[stage] = mixtures
            return self.fitted(stage.split("/")[-1])

        at = held(self.domain.train, self.domain.population.size)
        return Downstream(lambda view, tables, stage: self.fitted(view), fit_mixtures, at, lambda: 1)


def make(quality, **changes):
    domain = toy.domain()
    include = np.ones((SEEDS, domain.population.size), bool)
    include[:, :4] = False
    setting = Setting(domain, include, dataclasses.replace(CONFIG, **changes), 0, None)
    subject = Subject("m", [domain.train] * SEEDS, 10, lambda t, s: np.zeros(len(t.label)))
    recorder = Recorder(domain, quality)
    fits, about = fit_more(setting, [subject], recorder.fitted("real"), recorder.downstream(), "toy/classifier")
    return setting, recorder, fits, about


def test_by_default_nothing_more_is_trained():
    _, recorder, fits, about = make(lambda *_: 0.5)
    assert (fits, about, recorder.trained) == ({}, {}, {})


def test_the_choice_sees_validation_clients_only_and_each_seed_has_its_own():
    # what is best on test clients is worst on validation clients
    best = {0: "25%", 1: "balance"}

    def quality(name: str, who: str, seed: int) -> float:
        if who == "test":
            return {"100%": 0.9}.get(name, 0.2)
        return 0.6 if name == best[seed] else 0.1 if name == "100%" else 0.3

    setting, recorder, fits, about = make(quality, augmentation="chosen")
    assert {who for _, who, _ in recorder.asked} == {"validation"}
    assert sorted(stage.split("/")[-1] for stage in recorder.trained) == sorted(set(CANDIDATES) - {NOTHING})
    key = ("m", CHOSEN)
    train, classes = setting.domain.train, setting.domain.schema.label.categories
    for s in range(SEEDS):
        figures = about[key][s]
        assert {name: figures[CHOSEN, f"chosen[{name}]"] for name in CANDIDATES} == {
            name: float(name == best[s]) for name in CANDIDATES
        }
        wanted = amounts(np.bincount(train.label[setting.include[s][train.client]], minlength=2))[best[s]]
        assert [figures[CHOSEN, f"added_rows[{c}]"] for c in classes] == wanted.tolist() and wanted.sum() > 0
        # the classifier judged later is the one that was chosen
        recorder.asked.clear()
        fits[key].probabilities(setting.domain.test, s)
        assert recorder.asked == [(best[s], "test", s)] and fits[key].loss(train, s)[0] == s
    for stage, mixtures in recorder.trained.items():
        for s, mixture in enumerate(mixtures):
            assert not mixture.made_count[~setting.include[s]].any(), stage


def test_rows_that_only_do_harm_are_not_added():
    _, _, _, about = make(lambda name, who, seed: 0.5 if name == "real" else 0.1, augmentation="chosen")
    for figures in about["m", CHOSEN]:
        assert figures[CHOSEN, "chosen[none]"] == 1
        assert sum(v for (_, metric), v in figures.items() if metric.startswith("added_rows")) == 0


def test_shares_of_the_clients_are_rows_of_their_own_with_a_paired_gain():
    quality = {"real": 0.5, "real@25%": 0.2, "real@25%+synthetic": 0.4}
    setting, recorder, fits, _ = make(lambda name, who, s: quality[name] - 0.1 * s, real_fractions=(1.0, 0.25))
    assert list(fits) == [("-", "real@25%"), ("m", "real@25%+synthetic")]
    alone, both = recorder.trained["toy/classifier/real@25%"], recorder.trained["toy/classifier/m/real@25%+synthetic"]
    for a, b in zip(alone, both, strict=True):  # the same clients with and without
        assert (a.real_first == b.real_first).all() and (a.real_count == b.real_count).all()
        assert not a.made_count.any() and (b.made_count == b.real_count)[4:].all()
    useful, _, _ = task_rows(setting, Fits({("-", "real"): recorder.fitted("real"), **fits}, {}))
    found = {(r.model, r.row, r.metric): r for r in useful}
    assert not any(metric.endswith("_gain") for _, row, metric in found if "+" not in row)
    gain, ours, base = (
        found[key] for key in (("m", "real@25%+synthetic", "auroc_gain"), ("m", "real@25%+synthetic", "auroc"),
                               ("-", "real@25%", "auroc"))
    )  # fmt: skip
    assert gain.value == pytest.approx(ours.value - base.value) and gain.n == SEEDS


def test_fraction_rows_are_named_by_the_share_of_clients():
    assert [fraction_row(f) for f in (1.0, 0.2, 0.05, 0.125)] == ["real", "real@20%", "real@5%", "real@12.5%"]


def test_a_paired_interval_leaves_out_what_a_seed_does_to_both_sides():
    alone = [{("real", "auroc"): x, ("real", "f1"): x} for x in (0.6, 0.7, 0.8)]
    both = [{("real+synthetic", "auroc"): x, ("real+synthetic", "f1"): x} for x in (0.62, 0.71, 0.83)]
    per_seed = [gains("real+synthetic", b, a) for b, a in zip(both, alone, strict=True)]
    assert [set(f) for f in per_seed] == [{("real+synthetic", "auroc_gain")}] * 3
    (row,) = seed_rows("d", "m", per_seed)
    # differences .02, .01, .03: mean .02, sd .01, t(.975, 2) = 4.3027
    assert (row.value, row.low, row.high) == pytest.approx(
        (0.02, 0.02 - 4.3027 * 0.01 / 3**0.5, 0.02 + 0.0248415), abs=1e-5
    )
    wide = seed_rows("d", "m", both)[0]
    assert wide.high - wide.low > 10 * (row.high - row.low)
    assert np.isnan(gains("real+a", {("real+a", "auroc"): np.nan}, alone[0])["real+a", "auroc_gain"])


def test_the_amount_stands_in_the_table_of_its_task():
    about = {(CHOSEN, "added_rows[x]"): 3.0}
    useful, detected = {(CHOSEN, "auroc"): 0.8}, {(CHOSEN, "pr_auc"): 0.5}
    none, rows = (lambda _: {}), np.arange(1)

    def judged(useful, detected) -> Judge:
        return Judge(useful, detected, none, np.zeros(1), 0.5)

    alone = judged(lambda _: {("real", "auroc"): 0.7}, lambda _: {("real", "pr_auc"): 0.4})
    judge = beside(CHOSEN, judged(lambda _: useful, lambda _: detected), [Side("real", "", alone)], None, about)
    assert judge.useful(rows) == {**useful, (CHOSEN, "auroc_gain"): pytest.approx(0.1), **about}
    assert judge.detected(rows) == {**detected, (CHOSEN, "pr_auc_gain"): pytest.approx(0.1), **about}
    judge = beside(CHOSEN, judged(lambda _: useful, none), [], None, about)
    assert (
        judge.useful(rows) == {**useful, **about} and judge.detected(rows) == {}
    )  # a diagnosis has no table of detection
