"""NSL-KDD: connections of a simulated network of 1998, with attacks in training and others in the official test set."""

# pandas' own annotations are unions that a chained expression does not narrow
# pyright: reportAttributeAccessIssue=false, reportArgumentType=false, reportCallIssue=false, reportIndexIssue=false
# pyright: reportReturnType=false, reportAssignmentType=false, reportGeneralTypeIssues=false, reportOperatorIssue=false
from __future__ import annotations

import os

import numpy as np
import pandas as pd

from fedjax_health.data.frames import numbers, table_from_frame
from fedjax_health.data.log_file import find_file, records_of
from fedjax_health.data.schema import Column, Schema
from fedjax_health.data.source import Source
from fedjax_health.types import UserError

TRAIN, TEST = "KDDTrain+_20Percent.txt", "KDDTest+.txt"
WHERE_TO_GET = "download NSL-KDD from https://www.unb.ca/cic/datasets/nsl.html"
HARDEST, UNSEEN, SEEN = "kddtest-21", "unseen names", "seen names"  # groups of test records
EASIEST = 21  # difficulty of a record that all of the authors' 21 learners got right

# Attack names by family, with those of the test set alone; the KDD Cup's own counts put httptunnel into U2R and worm into R2L.
FAMILIES = {
    "DoS": ("back", "land", "neptune", "pod", "smurf", "teardrop", "apache2", "mailbomb", "processtable", "udpstorm"),
    "Probe": ("ipsweep", "nmap", "portsweep", "satan", "mscan", "saint"),
    "R2L": (
        "ftp_write", "guess_passwd", "imap", "multihop", "phf", "spy", "warezclient", "warezmaster", "named", "sendmail",
        "snmpgetattack", "snmpguess", "worm", "xlock", "xsnoop",
    ),
    "U2R": ("buffer_overflow", "loadmodule", "perl", "rootkit", "httptunnel", "ps", "sqlattack", "xterm"),
}  # fmt: skip
FAMILY_OF = {"normal": "normal", **{name: family for family, names in FAMILIES.items() for name in names}}
SERVICES = (
    "aol", "auth", "bgp", "courier", "csnet_ns", "ctf", "daytime", "discard", "domain", "domain_u", "echo", "eco_i", "ecr_i",
    "efs", "exec", "finger", "ftp", "ftp_data", "gopher", "harvest", "hostnames", "http", "http_2784", "http_443", "http_8001",
    "imap4", "IRC", "iso_tsap", "klogin", "kshell", "ldap", "link", "login", "mtp", "name", "netbios_dgm", "netbios_ns",
    "netbios_ssn", "netstat", "nnsp", "nntp", "ntp_u", "other", "pm_dump", "pop_2", "pop_3", "printer", "private", "red_i",
    "remote_job", "rje", "shell", "smtp", "sql_net", "ssh", "sunrpc", "supdup", "systat", "telnet", "tftp_u", "tim_i", "time",
    "urh_i", "urp_i", "uucp", "uucp_path", "vmnet", "whois", "X11", "Z39_50",
)  # fmt: skip
FLAGS = ("OTH", "REJ", "RSTO", "RSTOS0", "RSTR", "S0", "S1", "S2", "S3", "SF", "SH")


def _count(name: str, high: float, center: float = 0.0, scale: float = 0.5, unit: str = "") -> Column:
    """A heavy-tailed whole number from 0 on; center and scale are of log(1 + value)."""
    return Column(
        name=name, unit=unit, low=0.0, high=high, center=center, scale=scale, transform="log1p", decimals=0
    )  # fmt: skip


def _rate(name: str) -> Column:
    return Column(name=name, low=0.0, high=1.0, center=0.3, scale=0.4, decimals=2)


def _bit(name: str) -> Column:
    return Column(name=name, kind="binary")


FEATURES = (
    _count("duration", 100_000.0, 1.0, 2.0, "s"),
    Column(name="protocol_type", kind="categorical", categories=("icmp", "tcp", "udp")),
    Column(name="service", kind="categorical", categories=SERVICES),
    Column(name="flag", kind="categorical", categories=FLAGS),
    _count("src_bytes", 2e9, 4.0, 3.0, "bytes"),
    _count("dst_bytes", 2e9, 3.0, 4.0, "bytes"),
    _bit("land"),
    _count("wrong_fragment", 3.0),
    _count("urgent", 20.0),
    _count("hot", 200.0),
    _count("num_failed_logins", 10.0),
    _bit("logged_in"),
    _count("num_compromised", 10_000.0),
    _bit("root_shell"),
    _count("su_attempted", 2.0),
    _count("num_root", 10_000.0),
    _count("num_file_creations", 200.0),
    _count("num_shells", 10.0),
    _count("num_access_files", 20.0),
    _bit("is_host_login"),
    _bit("is_guest_login"),
    _count("count", 511.0, 3.0, 2.0, "connections"),
    _count("srv_count", 511.0, 2.5, 2.0, "connections"),
    *(
        _rate(name)
        for name in (
            "serror_rate", "srv_serror_rate", "rerror_rate", "srv_rerror_rate", "same_srv_rate", "diff_srv_rate",
            "srv_diff_host_rate",
        )
    ),
    Column(name="dst_host_count", unit="connections", low=0.0, high=255.0, center=180.0, scale=100.0, decimals=0),
    Column(name="dst_host_srv_count", unit="connections", low=0.0, high=255.0, center=120.0, scale=110.0, decimals=0),
    *(
        _rate(f"dst_host_{name}")
        for name in (
            "same_srv_rate", "diff_srv_rate", "same_src_port_rate", "srv_diff_host_rate", "serror_rate", "srv_serror_rate",
            "rerror_rate", "srv_rerror_rate",
        )
    ),
)  # fmt: skip
CONSTANT = "num_outbound_cmds"  # 0 in every record of the KDD Cup
LABEL = Column(name="family", kind="categorical", role="label", categories=("normal", *FAMILIES))
SCHEMA = Schema("nsl_kdd", (*FEATURES, LABEL))


def _layout() -> tuple[str, ...]:
    names = [column.name for column in FEATURES]
    names.insert(names.index("is_host_login"), CONSTANT)
    return (*names, "attack", "difficulty")


LAYOUT = _layout()  # cells of a line: 41 features, the attack's name, the difficulty level


def load_nsl_kdd(path: str) -> Source:
    """Reads the 20 % training file and the official test set; a record is a connection and, having no device, a client.

    The label is the attack's family: normal, DoS, Probe, R2L or U2R. The difficulty level (how many of the authors' learners
    were right) and the attack's name are never columns: they only make the groups of test records, each with all the benign
    records of its kind, so that false alarms are defined in it:
      "kddtest-21": those that not all 21 learners got right, which is the set of that name;
      "unseen names": normal, and attacks whose name is not in the training file;
      "seen names": normal, and the other attacks.

    Args:
      path: folder of KDDTrain+_20Percent.txt and KDDTest+.txt, .gz or not.

    Returns:
      Source with F = 40 columns (num_outbound_cmds, always 0, is left out), M = 25,192 training records and the test set of
      22,544 in the original files, task "detection".

    Raises:
      UserError: a missing file, a line of other than 43 cells, an unknown attack name, or cells that break the schema.

    Source: Tavallaee et al., "A Detailed Analysis of the KDD CUP 99 Data Set", CISDA 2009.
    """
    train_file, test_file = (find_file(path, name, WHERE_TO_GET) for name in (TRAIN, TEST))
    train, test = _read(train_file), _read(test_file)
    notes: list[str] = []
    tables = []
    for file, frame in ((train_file, train), (test_file, test)):
        frame, dropped = records_of(frame, LAYOUT, file)
        _require_whole(frame, file)
        frame["family"] = _families(frame["attack"], file)
        table, clipped = table_from_frame(frame, SCHEMA, None, file)
        name = os.path.basename(file)
        notes += [f"{name}: {note}" for note in (*dropped, *clipped)]
        tables.append((table, frame))
    (table, train), (official, test) = tables
    name = test["attack"].astype(str).str.strip()
    benign = (name == "normal").to_numpy()
    unseen = ~name.isin(set(train["attack"].astype(str).str.strip())).to_numpy()
    difficulty = numbers(test["difficulty"], test_file)
    groups = {HARDEST: difficulty < EASIEST, UNSEEN: benign | unseen, SEEN: benign | ~unseen}
    notes.append(
        f"The test set is the official KDDTest+ ({len(name):,} records): data.test_fraction is not used. "
        f"{np.count_nonzero(unseen & ~benign):,} of its {np.count_nonzero(~benign):,} attacks have one of "
        f"{name[unseen & ~benign].nunique()} names that the training file does not hold."
    )
    return Source(SCHEMA, "detection", table, tuple(notes), official, groups)


def training_names(path: str) -> np.ndarray:
    """Attack names of the training records, "normal" among them, as `load_nsl_kdd` orders them; for evaluation, never a column.

    Args:
      path: as for `load_nsl_kdd`.

    Returns:
      str[M].

    Raises:
      UserError: as `load_nsl_kdd`.
    """
    file = find_file(path, TRAIN, WHERE_TO_GET)
    frame, _ = records_of(_read(file), LAYOUT, file)
    _require_whole(frame, file)
    return frame["attack"].astype(str).str.strip().to_numpy(str)


def _read(file: str) -> pd.DataFrame:
    """Lines of 43 cells as text and numbers."""
    try:
        frame = pd.read_csv(
            file, header=None, low_memory=False, skipinitialspace=True, na_values=[""], keep_default_na=False
        )
    except (ValueError, OSError, EOFError) as error:  # parser, encoding and decompression errors
        raise UserError(
            f"{file}: not readable as lines of {len(LAYOUT)} cells ({' '.join(str(error).split())}); {WHERE_TO_GET}"
        ) from error
    if frame.shape[1] != len(LAYOUT):
        raise UserError(
            f"{file}: row 1 has {frame.shape[1]} cells, not {len(LAYOUT)} (41 features, the attack's name, the difficulty "
            f"level); {WHERE_TO_GET}"
        )
    return frame.set_axis(LAYOUT, axis=1)


def _require_whole(frame: pd.DataFrame, file: str) -> None:
    short = frame["difficulty"].isna().to_numpy()
    if short.any():
        raise UserError(
            f"{file}: row {1 + int(frame.index[short][0])} ends before its {len(LAYOUT)}th cell, the difficulty level; "
            f"{WHERE_TO_GET}"
        )


def _families(attack: pd.Series, file: str) -> pd.Series:
    name = attack.astype("string").str.strip()
    family = name.map(FAMILY_OF)
    unknown = (family.isna()).to_numpy(bool)
    if unknown.any():
        at = int(np.flatnonzero(unknown)[0])
        raise UserError(
            f"{file}: row {1 + int(attack.index[at])} has the attack name {str(attack.iloc[at])!r}, which belongs to no family "
            f"({', '.join(FAMILIES)}) of NSL-KDD; correct the cell or drop the row"
        )
    return family
