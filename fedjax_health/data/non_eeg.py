"""Non-EEG data set: wearables on 20 volunteers at rest and under physical, cognitive and emotional stress, once a second."""

# pandas' own annotations are unions that a chained expression does not narrow
# pyright: reportAttributeAccessIssue=false, reportArgumentType=false, reportCallIssue=false
from __future__ import annotations

import os

import numpy as np
import pandas as pd

from fedjax_health.data.frames import numbers, require_columns, table_from_frame
from fedjax_health.data.schema import Column, Schema
from fedjax_health.data.source import Source
from fedjax_health.data.stream_schema import stream_schema
from fedjax_health.types import Table, UserError

STEPS = 32  # seconds of a window; the shortest state of the protocol lasts 40
FILE = "noneeg_1hz.csv.gz"
STRESS = ("PhysicalStress", "CognitiveStress", "EmotionalStress")
CHANNELS = (
    Column(name="heart_rate", unit="bpm", low=30, high=220, center=75, scale=15, decimals=0),
    Column(name="spo2", unit="%", low=70, high=100, center=96, scale=2, decimals=0),
    Column(name="skin_temperature", unit="°C", low=15, high=42, center=32, scale=2, decimals=2),
    Column(name="skin_conductance", unit="µS", low=0, high=60, center=0.8, scale=0.6, transform="log1p", decimals=3),
    Column(name="acceleration", unit="g", low=0, high=8, center=1, scale=0.1, decimals=3),
)
LABEL = Column(name="state", kind="binary", role="label", categories=("relax", "stress"))
NUMBERS = tuple(
    Column(name=name, low=-1e9, high=1e9) for name in ("t_s", "hr", "SpO2", "temp", "EDA", "ax", "ay", "az")
)
READ = Schema("non_eeg", (Column(name="subject", role="client"), *NUMBERS, LABEL))
NON_EEG = stream_schema("non_eeg", CHANNELS, LABEL, STEPS, 1.0)


def load_non_eeg(path: str) -> Source:
    """Windows of 32 s that lie within one state, one after the other; a client is a subject, the label relax or stress.

    Subject and time of the session are not read as channels: rest comes first and last in every session, so the time tells
    the state. Skin temperature drifts with that time and keeps some of it, which a classifier may use. Acceleration is
    the length of the vector of its means over a second, so it shows posture and effort, not single movements.

    Args:
      path: noneeg_1hz.csv.gz (or .csv): one row a second with subject, t_s, SpO2, hr, ax, ay, az, temp, EDA, state; or a
        folder that holds it.

    Returns:
      Source with K subjects, M windows, F = 32 * 5.

    Raises:
      UserError: no such file, another layout, a state that the protocol does not know, or no window.

    Source: Birjandtalab et al., SiPS 2016; physionet.org/content/noneeg/1.0.0.
    """
    file = os.path.join(path, FILE) if os.path.isdir(path) else path
    if not os.path.isfile(file):
        raise UserError(f"{file!r} does not exist; give {FILE}, one row a second, or its folder")
    try:
        frame = pd.read_csv(file)
    except (ValueError, OSError, EOFError) as error:
        raise UserError(f"{file}: not readable as CSV ({' '.join(str(error).split())}); make it again") from error
    require_columns(frame.columns, READ, file)
    frame = frame.sort_values(["subject", "t_s"], kind="stable")
    state = frame["state"].to_numpy()
    length = np.sqrt(sum(np.square(numbers(frame[axis], file)) for axis in ("ax", "ay", "az")))
    renamed = frame.rename(
        columns={"hr": "heart_rate", "SpO2": "spo2", "temp": "skin_temperature", "EDA": "skin_conductance"}
    )
    known = {"Relax": "relax", **dict.fromkeys(STRESS, "stress")}
    renamed = renamed.assign(acceleration=length, state=[known.get(s, s) for s in state])
    seconds, notes = table_from_frame(renamed, Schema("non_eeg", (*CHANNELS, LABEL)), renamed["subject"], file)
    starts = _starts(seconds.client, state, numbers(frame["t_s"], file))
    if not len(starts):
        raise UserError(f"{file}: no state lasts {STEPS} s without a gap, so there is no window; give longer records")
    cells = seconds.values[starts[:, None] + np.arange(STEPS)[None, :]].reshape(len(starts), -1)
    client = np.unique(seconds.client[starts], return_inverse=True)[1].astype(np.int32)
    left = len(frame) - STEPS * len(starts)
    cut = f"Left out {left:,} of {len(frame):,} seconds, at the ends of states, that do not fill a window of {STEPS} s."
    return Source(NON_EEG, "diagnosis", Table(cells, seconds.label[starts], client), (*notes, cut))


def _starts(client: np.ndarray, state: np.ndarray, time: np.ndarray) -> np.ndarray:
    """First seconds of windows: i64[n], windows next to one another from the start of every unbroken state."""
    new = (np.diff(client) != 0) | (state[1:] != state[:-1]) | (np.diff(time) != 1)
    first = np.concatenate([[0], np.flatnonzero(new) + 1])
    length = np.diff(np.concatenate([first, [len(client)]]))
    return np.concatenate([a + STEPS * np.arange(n // STEPS) for a, n in zip(first, length, strict=True)])
