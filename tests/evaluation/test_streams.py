"""Stream figures against laws whose answers are known, and against windows that must fail."""

from __future__ import annotations

import numpy as np
import pytest
import toy

from fedjax_health.config import EvaluationConfig
from fedjax_health.data.encode import make_encoder
from fedjax_health.data.population import stored_population
from fedjax_health.data.schema import Column
from fedjax_health.data.stream_schema import stream_schema
from fedjax_health.evaluation.similarity import ROW
from fedjax_health.evaluation.stream_suite import shuffled_time, stream_points, stream_rows
from fedjax_health.evaluation.streams import (
    autocorrelation,
    cross_correlation,
    stream_figures,
    window_features,
    with_features,
)
from fedjax_health.evaluation.suite import Setting, Subject
from fedjax_health.types import Table, UserError

pytestmark = pytest.mark.quick_compile
T = 12
CHANNELS = (
    Column(name="a", low=-50, high=50, center=0, scale=1),
    Column(name="b", low=-50, high=50, center=0, scale=1),
)
SCHEMA = stream_schema("s", CHANNELS, Column(name="ill", kind="binary", role="label"), T, 60.0)


def ar(count: int, memory: float, seed: int, steps: int = T) -> np.ndarray:
    """Two independent channels, stationary AR(1) of unit variance: f64[count, steps, 2]."""
    rng = np.random.default_rng(seed)
    x = [rng.standard_normal((count, 2))]
    for _ in range(steps - 1):
        x.append(memory * x[-1] + np.sqrt(1 - memory**2) * rng.standard_normal((count, 2)))
    return np.stack(x, 1)


def table(windows: np.ndarray, clients: int = 60) -> Table:
    count = len(windows)
    label = (np.arange(count) % 2).astype(np.int32)
    client = np.sort(np.arange(count) % clients).astype(np.int32)
    return Table(windows.reshape(count, -1).astype(np.float32), label, client)


def test_autocorrelation_is_that_of_the_law():
    long = autocorrelation(ar(400, 0.7, 0, steps=600), 5)  # so long that centring by the window's mean costs little
    np.testing.assert_allclose(long, np.repeat(0.7 ** np.arange(1, 6)[:, None], 2, 1), atol=0.02)
    white = autocorrelation(ar(4000, 0.0, 1), 6)
    np.testing.assert_allclose(white, -1 / (T - 1), atol=0.015)


def test_autocorrelation_by_hand_and_not_of_levels():
    window = np.asarray([[0.0], [1.0], [0.0], [1.0]])[None]
    np.testing.assert_allclose(autocorrelation(window, 2)[:, 0], [-1.0, 1.0])
    far = np.concatenate([window, window + 1000.0])  # another patient's level is no memory
    np.testing.assert_allclose(autocorrelation(far, 2)[:, 0], [-1.0, 1.0])
    np.testing.assert_array_equal(autocorrelation(np.ones((3, 8, 1)), 2), 0.0)


def test_cross_correlation_finds_the_delay_and_its_sign():
    source = np.random.default_rng(0).standard_normal((500, T + 2))
    windows = np.stack([source[:, 2:], -source[:, :-2]], -1)  # b repeats a two steps later, upside down
    found = cross_correlation(windows, 3)[:, 0]
    assert np.argmax(np.abs(found)) == 3 + 2 and found[5] == pytest.approx(-1.0, abs=0.03)
    assert np.abs(np.delete(found, 5)).max() < 0.2
    flipped = cross_correlation(windows[..., ::-1], 3)[:, 0]
    np.testing.assert_allclose(flipped, found[::-1], atol=1e-12)


def test_features_by_hand():
    window = np.asarray([[1.0, 4.0], [2.0, 3.0], [3.0, 2.0], [4.0, 1.0]])[None]
    (found,) = window_features(window)
    spread = np.sqrt(1.25)
    own = [[2.5, 2.5], [spread, spread], [1, 1], [4, 4], [2, -2], [1, 1], [1, 1], [1 / 3, 1 / 3]]
    np.testing.assert_allclose(found, [*np.concatenate(own), -1.0])
    assert np.isfinite(window_features(np.ones((2, 4, 3)))).all()
    assert with_features(table(ar(6, 0.5, 0)), SCHEMA).values.shape == (6, 2 * T + 17)


def test_the_same_law_passes_and_every_mutation_fails():
    real, rng = ar(600, 0.8, 0), np.random.default_rng(0)

    def figures(windows: np.ndarray) -> dict[str, float]:
        found = stream_figures(table(real), table(windows), SCHEMA, np.random.default_rng(1))
        return {metric: value for (row, metric), value in found.items() if row == ROW}

    same = figures(ar(600, 0.8, 5))
    assert same["acf_error"] < 0.02 and same["cross_correlation_error"] < 0.02
    assert 0.42 < same["c2st_auc"] < 0.58 and same["ks_complement"] > 0.97
    assert same["label_rate_difference"] == 0.0
    rough = figures(ar(600, 0.5, 5))  # the marginals are right, the memory is not
    assert rough["acf_error"] > 0.1 and rough["c2st_auc"] > 0.8 and rough["ks_complement"] > 0.97
    mixed = figures(ar(600, 0.8, 5)[..., :1] + 0.3 * rng.standard_normal((600, T, 2)))  # channels move together
    assert mixed["cross_correlation_error"] > 0.2 and mixed["c2st_auc"] > 0.9
    moved = figures(ar(600, 0.8, 5) + 1.0)  # the memory is right, the level is not
    assert moved["acf_error"] < 0.02 and moved["ks_complement"] < 0.7 and moved["c2st_auc"] > 0.8


def test_copies_are_told_from_windows_of_ones_own():
    """A classifier cannot pass by knowing a client: the test splits by client."""
    real = table(ar(900, 0.8, 0) + np.repeat(np.random.default_rng(2).normal(0, 5, (60, 1, 2)), 15, 0))
    half = [Table(*(column[keep] for column in real)) for keep in (real.client < 30, real.client >= 30)]
    auc = stream_figures(half[0], half[1], SCHEMA, np.random.default_rng(0))[ROW, "c2st_auc"]
    assert auc < 0.75
    with pytest.raises(UserError, match="synthetic table has no windows"):
        stream_figures(real, Table(real.values[:0], real.label[:0], real.client[:0]), SCHEMA, np.random.default_rng(0))


def test_shuffled_time_keeps_every_value_and_loses_the_order():
    real = table(ar(300, 0.9, 0))
    mixed = shuffled_time(real, T, np.random.default_rng(0))
    a, b = SCHEMA.windows(real.values), SCHEMA.windows(mixed.values)
    np.testing.assert_array_equal(np.sort(a, 1)[..., 0], np.sort(b, 1)[..., 0])
    np.testing.assert_allclose(cross_correlation(a, 0), cross_correlation(b, 0), atol=1e-6)  # steps stay whole
    assert autocorrelation(a, 1).min() > 0.5 and autocorrelation(b, 1).max() < 0.0
    np.testing.assert_array_equal(mixed.label, real.label)


def domain():
    parts = [
        table(ar(count, 0.8, seed), clients) for count, seed, clients in ((400, 1, 60), (100, 2, 10), (400, 3, 60))
    ]
    train, validation, test = parts
    plain = toy.domain()
    return plain._replace(
        name="s", schema=SCHEMA, encoder=make_encoder(SCHEMA), population=stored_population(60, 7, 6),
        train=train, validation=validation, test=test,
    )  # fmt: skip


def test_rows_have_ceiling_floors_and_models_and_points_no_real_window():
    include = np.ones((2, 60), bool)
    include[0, :10] = include[1, 50:] = False
    setting = Setting(domain(), include, EvaluationConfig(300, 0, 0.05), 0, None)
    subject = Subject("vae", [table(ar(400, 0.5, s)) for s in (7, 8)], 400, lambda t, s: np.zeros(len(t.label)))
    rows = {(r.model, r.row, r.metric): r for r in stream_rows(setting, [subject])}
    assert all(r.n == 2 and r.domain == "s" for r in rows.values())
    error = {key[1]: r.value for key, r in rows.items() if key[2] == "acf_error" and key[1] not in ("a", "b")}
    assert error["real-vs-real"] < 0.05 and error["gaussian-copula"] < 0.05
    assert error["synthetic"] > 0.1 and error["shuffled-time"] > 0.2
    assert rows["vae", "a", "acf_error"].value > 0.1
    points = stream_points(setting, [subject])
    assert {(p.model, p.channel, p.curve) for p in points} == {
        (m, c, k) for m in ("real", "vae") for c in ("a", "b") for k in ("acf", "q05", "q50", "q95")
    }
    first = [p for p in points if (p.model, p.channel, p.curve) == ("real", "a", "acf")]
    assert [p.x for p in first] == [60.0 * lag for lag in range(1, T // 2 + 1)]
    np.testing.assert_allclose(first[0].value, autocorrelation(SCHEMA.windows(setting.domain.test.values), 1)[0, 0])
    band = [p.value for p in points if (p.model, p.curve) == ("real", "q95")]
    assert 1.2 < np.mean(band) < 2.1  # 1.64 of a standard normal
