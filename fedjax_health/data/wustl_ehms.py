"""WUSTL-EHMS-2020: network flows and vital signs of a health-IoT testbed under man-in-the-middle attacks."""

# pandas' own annotations are unions that a chained expression does not narrow
# pyright: reportAttributeAccessIssue=false, reportArgumentType=false, reportCallIssue=false, reportIndexIssue=false
# pyright: reportReturnType=false, reportAssignmentType=false, reportGeneralTypeIssues=false, reportOperatorIssue=false
from __future__ import annotations

import numpy as np
import pandas as pd

from fedjax_health.data.frames import numbers, require_columns, table_from_frame
from fedjax_health.data.log_file import find_file, header_of, records_of, require_once
from fedjax_health.data.schema import Column, Schema
from fedjax_health.data.source import Source
from fedjax_health.types import UserError

FILE = "wustl-ehms-2020_with_attacks_categories.csv"
WHERE_TO_GET = f"download {FILE} from https://www.cse.wustl.edu/~jain/ehms/index.html"
BLOCK_ROWS = 200
HOUR_MS = 3_600_000.0


# What Argus, the testbed's flow monitor, computes from what. The destination only acknowledges, in packets of 60 bytes or of
# dMaxPktSz, so that its bytes say how many; of a load it counts the bytes but the (whole) mean size of one packet.
TO = "max(ceil(DstBytes / dMaxPktSz), 1)"  # packets of the destination
FROM = f"(TotPkts - {TO})"  # of the source, 1 or more
TIME = "max(Dur, 0.001)"  # ms; a flow cannot be shorter than the clock's step
SENT, RECEIVED = f"(SrcBytes - floor(SrcBytes / {FROM}))", f"(DstBytes - floor(DstBytes / {TO}))"
SRC_LOSS = f"round({FROM} * pSrcLoss / (100 - pSrcLoss))"  # lost packets of the source
EQUATIONS = {
    # settled: sizes and counts of flows that can be
    "DstBytes": f"max(DstBytes, 60 * ({TO} - 1) + dMaxPktSz)",
    "TotPkts": f"max(TotPkts, {TO} + 1)",
    "sMinPktSz": f"min(max(sMinPktSz, sMaxPktSz * (2 - {FROM})), sMaxPktSz)",
    "SrcBytes": f"min(max(SrcBytes, sMinPktSz * ({FROM} - 1) + sMaxPktSz), sMaxPktSz * ({FROM} - 1) + sMinPktSz)",
    "pSrcLoss": f"100 * min({SRC_LOSS}, Loss) / ({FROM} + min({SRC_LOSS}, Loss))",
    # derived
    "TotBytes": "SrcBytes + DstBytes",
    "SrcLoad": f"8000 * {SENT} / {TIME}",
    "DstLoad": f"8000 * {RECEIVED} / {TIME}",
    "Load": f"8000 * ({SENT} + {RECEIVED}) / {TIME}",
    "Rate": f"1000 * (TotPkts - 1) / {TIME}",
    "SIntPkt": f"Dur / max({FROM} - 1, 1)",
    "pLoss": "100 * Loss / (TotPkts + Loss)",
    "pDstLoss": f"100 * (Loss - {SRC_LOSS}) / ({TO} + Loss - {SRC_LOSS})",
}


def _flow(name: str, unit: str, high: float, center: float, scale: float = 1.0, decimals: int = 0) -> Column:
    """A count, rate or time of a flow: at least 0, heavy-tailed; center and scale are of log(1 + value)."""
    return Column(
        name=name, unit=unit, low=0.0, high=high, center=center, scale=scale, transform="log1p", decimals=decimals,
        equation=EQUATIONS.get(name, ""),
    )  # fmt: skip


def _frame_size(name: str, center: float) -> Column:
    equation = EQUATIONS.get(name, "")
    return Column(
        name=name, unit="bytes", low=60.0, high=1514.0, center=center, scale=100.0, decimals=0, equation=equation
    )


def _sign(name: str, unit: str, low: float, high: float, center: float, scale: float, **more) -> Column:
    return Column(
        name=name,
        unit=unit,
        low=low,
        high=high,
        center=center,
        scale=scale,
        **{"decimals": 0, "nullable": True, **more},
    )


NETWORK = (
    _flow("SrcBytes", "bytes", 1e6, 6.0),
    _flow("DstBytes", "bytes", 1e6, 5.0),
    _flow("SrcLoad", "bit/s", 1e9, 12.0),
    _flow("DstLoad", "bit/s", 1e9, 11.0),
    _flow("SIntPkt", "ms", HOUR_MS, 1.5, decimals=3),
    _flow("DIntPkt", "ms", HOUR_MS, 1.5, decimals=3),
    _flow("SIntPktAct", "ms", HOUR_MS, 0.0, decimals=3),
    _flow("SrcJitter", "ms", HOUR_MS, 1.5, decimals=3),
    _flow("DstJitter", "ms", HOUR_MS, 1.5, decimals=3),
    _frame_size("sMaxPktSz", 300.0),
    _frame_size("dMaxPktSz", 60.0),
    _frame_size("sMinPktSz", 60.0),
    _flow("Dur", "ms", HOUR_MS, 2.5, decimals=3),
    _flow("TotPkts", "packets", 1e4, 2.0, 0.5),
    _flow("TotBytes", "bytes", 1e6, 6.5),
    _flow("Load", "bit/s", 1e9, 12.5),
    _flow("Loss", "packets", 1e4, 0.0),
    _flow("pLoss", "%", 100.0, 0.0, decimals=4),
    _flow("pSrcLoss", "%", 100.0, 0.0, decimals=4),
    _flow("pDstLoss", "%", 100.0, 0.0, decimals=4),
    _flow("Rate", "packets/s", 1e6, 6.0, decimals=3),
)
BIOMETRICS = (
    _sign("Temp", "°C", 10.0, 45.0, 28.0, 2.0, decimals=1, nullable=False),
    _sign("SpO2", "%", 50.0, 100.0, 97.0, 2.0),
    _sign("Pulse_Rate", "bpm", 20.0, 300.0, 75.0, 10.0),
    _sign("SYS", "mmHg", 40.0, 280.0, 130.0, 15.0),
    _sign("DIA", "mmHg", 15.0, 180.0, 80.0, 10.0),
    _sign("Heart_rate", "bpm", 20.0, 300.0, 75.0, 10.0),
    _sign("Resp_Rate", "breaths/min", 1.0, 80.0, 18.0, 6.0),
    _sign("ST", "mV", -5.0, 5.0, 0.2, 0.2, decimals=2, nullable=False),
)
LABEL = Column(
    name="Attack Category", kind="categorical", role="label", categories=("normal", "Spoofing", "Data Alteration")
)
FEATURES = {"network": NETWORK, "biometrics": BIOMETRICS, "all": (*NETWORK, *BIOMETRICS)}


def load_wustl_ehms(path: str, features: str = "all") -> Source:
    """Reads the testbed's flows; a client is a block of 200 rows in file order (one device over some minutes).

    Left out, because they give the label away: SrcMac (is the label), Sport, Packet_num, SrcAddr, DstAddr, DstMac
    (identity and order), and Flgs, whose "M" (more than one MAC address in the flow) is set in 922 of 922 flows of Data
    Alteration and 13 others: the attacker's address again. Left out, because they are constant: Dir, Dport, Trans,
    SrcGap, DstGap, DIntPktAct, dMinPktSz. A vital sign of 0 means that the sensor is off and is treated as missing.
    Neighbouring rows are near copies of one another: split by client, never by row.

    Args:
      path: the CSV(.gz) file, or its folder.
      features: "network" (21 columns), "biometrics" (8) or "all".

    Returns:
      Source with M = 16,318 rows of the original file, K = 82 blocks, task "detection".

    Raises:
      UserError: a missing file or column, an unknown `features`, or cells that break the schema.

    Source: Hady et al., "Intrusion Detection System for Healthcare Systems Using Medical and Network Data", IEEE Access
    8, 2020.
    """
    if features not in FEATURES:
        raise UserError(f"features {features!r} of WUSTL-EHMS are unknown; use one of {', '.join(FEATURES)}")
    file = find_file(path, FILE, WHERE_TO_GET, single=True)
    schema = Schema("wustl_ehms", (*FEATURES[features], LABEL))
    try:
        require_once(header_of(file), file)
        frame = pd.read_csv(file, low_memory=False, skipinitialspace=True)
    except UserError:
        raise
    except (ValueError, OSError, EOFError) as error:  # parser, encoding and decompression errors
        raise UserError(f"{file}: not readable as CSV ({' '.join(str(error).split())}); {WHERE_TO_GET}") from error
    require_columns(frame.columns, schema, file)
    frame, notes = records_of(frame, [c.name for c in schema.columns], file)
    if features != "biometrics":
        frame["Dur"] = numbers(frame["Dur"], file) * 1000.0
        notes.append("Dur was converted from seconds to milliseconds, the unit of the other times of a flow.")
    for column in schema.inputs:
        if column.nullable:
            cells = numbers(frame[column.name], file)
            off = cells == 0.0
            frame[column.name] = np.where(off, np.nan, cells)
            if off.any():
                notes.append(f"{column.name}: {off.sum():,} zeros (sensor off) were treated as missing.")
    block = pd.Series(np.arange(len(frame)) // BLOCK_ROWS, name="block")
    table, clipped = table_from_frame(frame, schema, block, file)
    return Source(schema, "detection", table, (*notes, *clipped))
