"""Detectors of a run: the joined one comes with the anomaly detector, and is calibrated on benign validation records alone."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import toy

from configs import base
from fedjax_health import detectors
from fedjax_health.config import from_config_dict
from fedjax_health.evaluation.controls import ANOMALY, JOINED
from fedjax_health.evaluation.joined import joined
from fedjax_health.evaluation.setting import Setting
from fedjax_health.evaluation.utility import positive_score
from fedjax_health.types import Table

SEEDS = 2


def classifier(table: Table, seed: int) -> np.ndarray:
    p = 1 / (1 + np.exp(-(table.values[:, 0] - 60) / (5 + seed)))
    return np.stack([1 - p, p], 1)


def anomaly(table: Table, seed: int) -> np.ndarray:
    s = np.nan_to_num(np.abs(table.values[:, 0] - 75)).astype(np.float64) + seed
    return np.stack([1 - s, s], 1)


def found(monkeypatch: pytest.MonkeyPatch, controls: tuple[str, ...], domain: Any) -> dict[tuple[str, str], Any]:
    """`fit_detectors` with the anomaly detector above in place of a trained one."""
    monkeypatch.setattr(detectors, "programs_of", lambda *args: None)
    monkeypatch.setattr(detectors, "make_trainer", lambda *args: None)
    monkeypatch.setattr(detectors, "fit_anomaly", lambda *args: anomaly)
    config = from_config_dict(base.get_config())
    evaluation = dataclasses.replace(config.evaluation, controls=controls, unknown_share=0.3)
    config = dataclasses.replace(config, seeds=SEEDS, evaluation=evaluation)
    include = np.ones((SEEDS, domain.population.size), bool)
    setting = Setting(domain, include, evaluation, 0, None)
    p: Any = SimpleNamespace(domain=domain, shares=np.full((SEEDS, 2), 0.5, np.float32))
    none: Any = None
    return detectors.fit_detectors(config, p, setting, [], none, none, classifier, {})


def test_the_joined_detector_comes_with_the_anomaly_detector_and_reads_benign_validation_records(monkeypatch):
    domain = toy.domain()._replace(task="detection")
    assert found(monkeypatch, (), domain) == {}
    rows = found(monkeypatch, ("anomaly",), domain)
    assert set(rows) == {("-", ANOMALY), ("-", JOINED)}
    validation, test = domain.validation, domain.test
    benign = Table(*(column[validation.label == 0] for column in validation))
    assert 0 < len(benign.label) < len(validation.label)
    want = joined(classifier, anomaly, [benign] * SEEDS, 0.3)
    for s in range(SEEDS):
        np.testing.assert_array_equal(rows["-", JOINED](test, s), want(test, s))
    assert (rows["-", JOINED](test, 0) != rows["-", JOINED](test, 1)).any()
    # the score of a validation attack is nothing to the calibration
    moved = validation.values.copy()
    moved[validation.label > 0] += 1000
    other = found(monkeypatch, ("anomaly",), domain._replace(validation=validation._replace(values=moved)))
    np.testing.assert_array_equal(positive_score(other["-", JOINED](test, 0)), positive_score(want(test, 0)))
