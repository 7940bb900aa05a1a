"""Real data sets, invented logs in their formats, and what the tests of adapters ask of a source."""

from __future__ import annotations

import os
import pathlib

import numpy as np
import pandas as pd

ROOT = pathlib.Path(__file__).parents[1]


def real(name: str) -> str:
    path = (ROOT / os.environ.get("FEDJAX_HEALTH_DATA", "../shared/data") / name).resolve()
    assert path.is_dir(), f"no data set at {path}; set FEDJAX_HEALTH_DATA"
    return str(path)


def column(source, name: str) -> np.ndarray:
    return source.table.values[:, source.schema.index(name)].astype(np.float64)


def clients(source) -> int:
    assert np.all(np.diff(source.table.client) >= 0)
    assert set(source.table.client.tolist()) == set(range(int(source.table.client[-1]) + 1))
    return int(source.table.client[-1]) + 1


def wustl_frame(rows: int = 450) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    flow = "SrcBytes DstBytes SrcLoad DstLoad SIntPkt DIntPkt SIntPktAct SrcJitter DstJitter TotPkts TotBytes Load Rate"
    cells = {name: rng.integers(1, 1000, rows) for name in flow.split()}
    cells |= dict.fromkeys(("sMaxPktSz", "dMaxPktSz", "sMinPktSz"), 60)
    cells |= dict.fromkeys(("Loss", "pLoss", "pSrcLoss", "pDstLoss", "ST"), 0)
    cells |= {"Dur": 0.0125, "Temp": 27.1, "SpO2": 98}
    cells |= dict.fromkeys(("Pulse_Rate", "SYS", "DIA", "Heart_rate", "Resp_Rate"), 75)
    cells |= {"SrcMac": "m", "Sport": "fido", "Packet_num": 1, "Flgs": " M ", "Dir": "   ->", "Label": 0}
    frame = pd.DataFrame(cells, index=range(rows)).assign(**{"Attack Category": "normal"})
    frame.loc[210:219, "Attack Category"] = "Data Alteration"
    frame.loc[220, "Attack Category"] = "Spoofing "
    frame.loc[5, ["SpO2", "ST"]] = 0
    return frame


def consistent(frame: pd.DataFrame) -> pd.DataFrame:
    """The flows with what Argus computes from the rest: four packets of the source, three of the destination."""
    frame = frame.assign(SrcBytes=496, DstBytes=186, TotPkts=7, dMaxPktSz=66, sMaxPktSz=310, sMinPktSz=60, TotBytes=682)
    frame["Dur"] = np.round(np.random.default_rng(1).uniform(0.009, 0.05, len(frame)), 6)
    frame["SrcLoad"], frame["DstLoad"] = np.round(8 * 372 / frame["Dur"]), np.round(8 * 124 / frame["Dur"])
    frame["Load"], frame["Rate"] = np.round(8 * 496 / frame["Dur"]), np.round(6 / frame["Dur"], 3)
    return frame.assign(SIntPkt=np.round(1000 * frame["Dur"] / 3, 6))


def nsl_line(attack: str, difficulty: int = 21, start: str = "0,tcp,http,SF,181,5450") -> str:
    """A line of NSL-KDD's 43 cells."""
    rest = "0,0,0,0,0,1,0,0,0,0,0,0,0,0,0,0,8,8,0.00,0.00,0.00,0.00,1.00,0.00,0.00,9,9,1.00,0.00,0.11,0.00,0.00,0.00,0.00,0.00"
    return f"{start},{rest},{attack},{difficulty}"


NSL_TRAIN = tuple(nsl_line(a) for a in ("normal", "neptune", "normal", "satan", "normal", "guess_passwd", "rootkit"))
NSL_TEST = (
    nsl_line("normal", 21), nsl_line("neptune", 18), nsl_line("mscan", 11), nsl_line("normal", 15), nsl_line("satan", 21),
    nsl_line("httptunnel", 21),
)  # fmt: skip


def nsl_folder(path: pathlib.Path, train=NSL_TRAIN, test=NSL_TEST) -> str:
    """Writes both files of NSL-KDD."""
    (path / "KDDTrain+_20Percent.txt").write_text("\n".join(train) + "\n")
    (path / "KDDTest+.txt").write_text("\n".join(test) + "\n")
    return str(path)
