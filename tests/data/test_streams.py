"""Streams as data: the schema of a window, the simulator's coupling and rhythm, and windows of the real wearable data."""

from __future__ import annotations

import os
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

from fedjax_health.data.encode import make_encoder
from fedjax_health.data.non_eeg import NON_EEG, STEPS, load_non_eeg
from fedjax_health.data.schema import Column
from fedjax_health.data.simulator import simulate_table
from fedjax_health.data.stream_schema import stream_schema
from fedjax_health.data.vital_stream import VITAL_STREAM, make_vital_stream
from fedjax_health.evaluation.streams import autocorrelation, cross_correlation
from fedjax_health.types import Table, UserError

pytestmark = pytest.mark.quick_compile
ROOT = pathlib.Path(__file__).parents[2]
CHANNELS = (Column(name="a", low=0, high=10, decimals=0), Column(name="b", low=0, high=100, center=20, scale=5))
LABEL = Column(name="ill", kind="binary", role="label")


def test_a_window_is_a_record_step_by_step():
    schema = stream_schema("s", CHANNELS, LABEL, steps=3, seconds=2.0)
    assert [c.name for c in schema.inputs] == ["a[0]", "b[0]", "a[1]", "b[1]", "a[2]", "b[2]"]
    encoder = make_encoder(schema)
    assert encoder.layout == (6, 0, (), (-1,) * 6)
    windows = schema.windows(np.arange(12, dtype=np.float32).reshape(2, 6))
    np.testing.assert_array_equal(windows[1], [[6, 7], [8, 9], [10, 11]])
    # every step of a channel is scaled by the channel's own public numbers
    z = np.asarray(encoder.encode(jnp.full((6,), 5.0, jnp.float32)))
    np.testing.assert_allclose(z, [0.0, -3.0] * 3)
    back = np.asarray(encoder.decode(jnp.asarray([99.0, 0.0, 0.07, 1.0, -99.0, -99.0], jnp.float32)))
    np.testing.assert_allclose(back, [10, 20, 5, 25, 0, 0])


@pytest.mark.parametrize(
    ("channel", "steps", "seconds"),
    [
        (Column(name="c", low=0, high=1, nullable=True), 3, 1.0),
        (Column(name="c", kind="binary"), 3, 1.0),
        (CHANNELS[0], 1, 1.0),
        (CHANNELS[0], 3, 0.0),
    ],
)
def test_what_is_no_stream_is_refused(channel, steps, seconds):
    with pytest.raises(UserError, match="stream 's'"):
        stream_schema("s", (channel,), LABEL, steps, seconds)


@pytest.fixture(scope="module")
def simulated() -> Table:
    return simulate_table(make_vital_stream(), 400, seed=3)


def test_a_client_is_a_function_of_its_key_and_keeps_ranges(simulated):
    simulate = jax.jit(make_vital_stream().simulate)
    values, label, count = simulate(jax.random.key(0))
    assert values.shape == (12, 96) and values.dtype == jnp.float32 and label.shape == (12,)
    assert 3 <= int(count) <= 12
    np.testing.assert_array_equal(values, simulate(jax.random.key(0))[0])
    assert (np.asarray(values) != np.asarray(simulate(jax.random.key(1))[0])).any()
    windows = VITAL_STREAM.windows(simulated.values)
    for c, channel in enumerate(VITAL_STREAM.channels):
        assert windows[..., c].min() >= channel.low and windows[..., c].max() <= channel.high
        np.testing.assert_allclose(windows[..., c], np.round(windows[..., c], 1), atol=1e-4)
    assert np.isfinite(simulated.values).all()
    assert 0.4 < simulated.label.mean() < 0.6


def test_signals_remember_and_heart_and_breath_move_together(simulated):
    windows = VITAL_STREAM.windows(simulated.values)
    acf = autocorrelation(windows, 3)
    assert (acf[0] > (0.8, 0.3, 0.6, 0.75)).all() and (np.diff(acf, axis=0) < 0).all()
    pairs = cross_correlation(windows, 1)[1]  # heart with SpO2, breath and glucose; then the others
    assert pairs[1] > 0.5 and abs(pairs[0]) < 0.2
    swapped = windows.copy()
    swapped[..., 2] = windows[np.random.default_rng(0).permutation(len(windows)), :, 2]
    assert abs(cross_correlation(swapped, 1)[1, 1]) < 0.1  # another patient's breath does not


def test_patients_differ_and_the_day_has_a_rhythm(simulated):
    windows = VITAL_STREAM.windows(simulated.values)
    level = windows[..., 0].mean(1)
    total, own = level.var(), np.mean([level[simulated.client == k].var() for k in range(400)])
    assert own < 0.8 * total
    # records start at about half past six: the third window has breakfast behind it, the tenth is night
    place = np.arange(len(level)) - np.searchsorted(simulated.client, simulated.client)
    assert level[place == 2].mean() > level[place == 9].mean() + 3
    oxygen = windows[..., 1].mean(1)  # low saturation is a bad sign whatever the patient does
    assert oxygen[simulated.label == 0].mean() > oxygen[simulated.label == 1].mean() + 0.3


def seconds_file(folder: pathlib.Path, **changes) -> str:
    """Two subjects, each 70 s of rest and 40 s of walking."""
    rows = []
    for subject in (1, 2):
        for t in range(110):
            state = "Relax" if t < 70 else "PhysicalStress"
            rows.append((subject, t, 97.0, 60.0 + subject + t, 0.6, 0.0, 0.8, 30.0, 1.0, state))
    frame = pd.DataFrame(rows, columns=["subject", "t_s", "SpO2", "hr", "ax", "ay", "az", "temp", "EDA", "state"])
    for name, (row, value) in changes.items():
        frame[name] = frame[name].astype(object)
        frame.loc[row, name] = value
    path = folder / "noneeg_1hz.csv.gz"
    frame.to_csv(path, index=False)
    return str(path)


def test_non_eeg_windows_lie_in_one_state(tmp_path):
    source = load_non_eeg(seconds_file(tmp_path))
    windows = NON_EEG.windows(source.table.values)
    assert source.table.client.tolist() == [0, 0, 0, 1, 1, 1]
    assert source.table.label.tolist() == [0, 0, 1, 0, 0, 1]
    np.testing.assert_array_equal(windows[:3, 0, 0], [61, 61 + STEPS, 61 + 70])
    np.testing.assert_array_equal(np.diff(windows[..., 0]), 1)
    np.testing.assert_allclose(windows[..., 4], 1.0, rtol=1e-6)  # 0.6, 0, 0.8 g
    assert source.notes == ("Left out 28 of 220 seconds, at the ends of states, that do not fill a window of 32 s.",)
    folder = load_non_eeg(str(tmp_path))
    np.testing.assert_array_equal(folder.table.values, source.table.values)


def test_non_eeg_a_gap_breaks_a_window_and_ranges_are_kept(tmp_path):
    source = load_non_eeg(seconds_file(tmp_path, t_s=(10, 10.5), hr=(40, 999.0)))
    assert source.table.client.tolist() == [0, 0, 1, 1, 1]
    assert source.table.values.max() == 220
    assert source.notes[0] == "heart_rate: 1 of 220 values outside 30–220 bpm were clipped."


def test_non_eeg_explains_what_is_wrong(tmp_path):
    with pytest.raises(UserError, match="does not exist; give noneeg_1hz"):
        load_non_eeg(str(tmp_path))
    with pytest.raises(UserError, match="holds 'Dancing' in row 5"):
        load_non_eeg(seconds_file(tmp_path, state=(4, "Dancing")))
    with pytest.raises(UserError, match="'heart_rate' holds the text 'fast' in row 5"):
        load_non_eeg(seconds_file(tmp_path, hr=(4, "fast")))
    (tmp_path / "other.csv").write_text("subject,t_s,hr\n1,0,60\n")
    with pytest.raises(UserError, match=r"column 'SpO2' is missing"):
        load_non_eeg(str(tmp_path / "other.csv"))


@pytest.mark.realdata
def test_non_eeg_real_figures():
    path = (ROOT / os.environ.get("FEDJAX_HEALTH_DATA", "../shared/data") / "noneeg").resolve()
    assert path.is_dir(), f"no data set at {path}; set FEDJAX_HEALTH_DATA"
    source = load_non_eeg(str(path))
    windows = NON_EEG.windows(source.table.values)
    assert len(windows) == 1394 and source.table.client.max() == 19
    assert windows[..., 0].mean() == pytest.approx(77.32, abs=0.2)  # of all seconds
    assert windows[..., 1].mean() == pytest.approx(95.93, abs=0.05)
    assert source.table.label.mean() == pytest.approx(0.4835, abs=0.001)
