"""Controls of a detection: the same numbers of rows in the same places, of training alone, and rows of the detection table."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import toy

from configs import base
from fedjax_health.config import from_config_dict
from fedjax_health.evaluation import controls
from fedjax_health.evaluation.augmentation import gains, raised
from fedjax_health.evaluation.controls import copula_rows, fit_controls, random_oversampling
from fedjax_health.evaluation.downstream import Downstream, Fitted
from fedjax_health.evaluation.mixtures import held
from fedjax_health.evaluation.setting import Setting, Subject
from fedjax_health.evaluation.suite import Fits
from fedjax_health.evaluation.tasks import task_rows
from fedjax_health.evaluation_config import CONTROLS
from fedjax_health.types import Table

pytestmark = pytest.mark.quick_compile

SEEDS = 2
CONFIG = from_config_dict(base.get_config().to_dict()).evaluation


def setting_of(**changes) -> Setting:
    domain = toy.domain()._replace(task="detection")
    include = np.ones((SEEDS, domain.population.size), bool)
    include[:, :4] = False
    return Setting(domain, include, dataclasses.replace(CONFIG, **changes), 0, None)


class Recorder:
    """Stands in for training, and keeps what it was asked to train on."""

    def __init__(self, domain):
        self.domain, self.trained = domain, {}

    def downstream(self) -> Downstream:
        def fit_mixtures(mixtures, stage, weights=None):
            self.trained[stage.split("/", 1)[1]] = mixtures, weights
            return fitted(0.5)

        at = held(self.domain.train, self.domain.population.size)
        return Downstream(lambda view, tables, stage: fitted(0.5), fit_mixtures, at, lambda: 1)


def fitted(good: float) -> Fitted:
    def probabilities(table: Table, seed: int) -> np.ndarray:
        noise = np.random.default_rng(seed).random(len(table.label))
        p = np.clip(good * table.label + (1 - good) * noise, 0.01, 0.99)
        return np.stack([1 - p, p], 1)

    return Fitted(probabilities, lambda table, seed: np.zeros(len(table.label)))


def test_every_origin_gives_as_many_rows_of_each_class_to_the_same_clients():
    setting = setting_of(controls=CONTROLS)
    domain, include = setting.domain, setting.include
    marked = domain.train._replace(values=domain.train.values + 0.0)
    subject = Subject("vae", [marked] * SEEDS, 10, lambda t, s: np.zeros(len(t.label)))
    recorder = Recorder(domain)
    shares = np.full((SEEDS, 2), 0.5, np.float32)
    found = fit_controls(setting, [subject], recorder.downstream(), shares, "toy/classifier")
    names = {"class-weights", "random-oversampling", "smote", "real+gaussian-copula", "vae/real+balanced"}
    assert {name.removeprefix("classifier/") for name in recorder.trained} == names
    assert set(found) == {
        ("-", controls.WEIGHTED), ("-", controls.OVERSAMPLED), ("-", controls.SMOTED), ("-", controls.COPULA),
        ("vae", controls.BALANCED),
    }  # fmt: skip
    kept = include[0][domain.train.client]
    wanted = raised(np.bincount(domain.train.label[kept], minlength=2).astype(np.int64))
    assert wanted[1] > 0 or wanted[0] > 0
    places = set()
    for name, (mixtures, weights) in recorder.trained.items():
        for s, mixture in enumerate(mixtures):
            if name.endswith("class-weights"):
                assert not mixture.made_count.any()
                np.testing.assert_allclose(weights, 1.0)
                continue
            assert weights is None
            assert np.bincount(mixture.made.label, minlength=2).tolist() == wanted.tolist()
            assert not mixture.made_count[~include[s]].any()
            places.add((mixture.made_first.tobytes(), mixture.made_count.tobytes()))
    assert len(places) == 1
    mine = {tuple(np.nan_to_num(v, nan=-1)) for v in domain.train.values[kept]}
    repeated = recorder.trained["classifier/random-oversampling"][0][0].made
    assert {tuple(np.nan_to_num(v, nan=-1)) for v in repeated.values} <= mine  # of this seed's training clients alone


def test_repeats_are_as_equal_as_can_be_and_a_copula_is_of_its_class():
    table = toy.domain().train
    count = np.bincount(table.label, minlength=2)
    again = random_oversampling(table, toy.SCHEMA, np.array([0, 2 * count[1] + 1]), np.random.default_rng(0))
    _, times = np.unique(np.nan_to_num(again.values, nan=-1), axis=0, return_counts=True)
    assert (again.label == 1).all() and len(again.label) == 2 * count[1] + 1 and times.min() >= 2
    made = copula_rows(table, toy.SCHEMA, np.array([0, 30]), np.random.default_rng(0))
    sick = table.values[table.label == 1]
    assert (made.label == 1).all() and set(made.values[:, 1]) <= set(sick[:, 1])
    nothing = copula_rows(table, toy.SCHEMA, np.zeros(2, int), np.random.default_rng(0))
    assert nothing.values.shape == (0, 5)


def test_nothing_is_trained_that_is_not_asked_for():
    setting = setting_of(controls=())
    recorder = Recorder(setting.domain)
    assert fit_controls(setting, [], recorder.downstream(), np.ones((SEEDS, 2)), "x/y") == {} == recorder.trained


def test_controls_are_rows_of_the_detection_table_alone_and_gains_are_paired():
    setting = setting_of()
    good = {"real": 0.3, "real+synthetic": 0.5, "smote": 0.4}
    fits = Fits(
        {("-", "real"): fitted(good["real"]), ("vae", "real+synthetic"): fitted(good["real+synthetic"])}, {},
        {("-", "smote"): fitted(good["smote"]).probabilities},
    )  # fmt: skip
    useful, detected, fair = task_rows(setting, fits)
    assert {r.row for r in useful} == {r.row for r in fair} == {"real", "real+synthetic"}
    value = {(r.row, r.metric): r for r in detected}
    for metric in ("auroc", "detection_rate", "false_positive_rate"):
        a, b, c = (value[row, metric].value for row in ("real+synthetic", "real", "smote"))
        assert value["real+synthetic", f"{metric}_gain"].value == pytest.approx(a - b)
        assert value["real+synthetic", f"{metric}_gain[over smote]"].value == pytest.approx(a - c)
        assert value["smote", f"{metric}_gain[over real]"].value == pytest.approx(c - b)
        device = value["real+synthetic", f"{metric}_gain[by device]"]
        assert device.value == pytest.approx(a - b) and device.n == len(np.unique(setting.domain.test.client))
        assert device.low <= device.high
        over = value["real+synthetic", f"{metric}_gain[over smote, by device]"]
        assert over.value == pytest.approx(a - c)
    assert ("smote", "auroc_gain[over smote]") not in value and ("real", "auroc_gain") not in value
    assert not any("[over" in r.metric or "by device" in r.metric for r in useful)


def test_a_gain_over_another_row_says_so():
    figures = {("a+b", "auroc"): 0.9, ("a+b", "brier"): 0.1}
    assert gains("a+b", figures, {("a", "auroc"): 0.8}) == {("a+b", "auroc_gain"): pytest.approx(0.1)}
    over = gains("a+b", figures, {("smote", "auroc"): 0.95}, "smote", "smote")
    assert over == {("a+b", "auroc_gain[over smote]"): pytest.approx(-0.05)}
