"""Flow logs: WUSTL-EHMS-2020 and NSL-KDD, on invented rows in the original formats and on the data sets themselves."""

from __future__ import annotations

import gzip

import numpy as np
import pandas as pd
import pytest
import scipy.stats
from sources import NSL_TEST, NSL_TRAIN, clients, column, consistent, nsl_folder, nsl_line, real, wustl_frame

from fedjax_health.data.nsl_kdd import FAMILIES, LAYOUT, SERVICES, load_nsl_kdd, training_names
from fedjax_health.data.wustl_ehms import load_wustl_ehms
from fedjax_health.types import UserError

WUSTL = "wustl-ehms-2020_with_attacks_categories.csv"


def test_wustl_blocks_units_and_leaks(tmp_path):
    wustl_frame().to_csv(tmp_path / "wustl-ehms-2020_with_attacks_categories.csv", index=False)
    source = load_wustl_ehms(str(tmp_path))
    assert np.bincount(source.table.client).tolist() == [200, 200, 50]
    assert np.bincount(source.table.label).tolist() == [439, 1, 10]
    np.testing.assert_allclose(column(source, "Dur"), 12.5, rtol=1e-6)
    assert np.flatnonzero(np.isnan(column(source, "SpO2"))).tolist() == [5] and column(source, "ST")[5] == 0
    assert "SpO2: 1 zeros (sensor off) were treated as missing." in source.notes
    names = {c.name for c in source.schema.inputs}
    leaks = "SrcMac Sport Packet_num SrcAddr DstAddr DstMac Flgs Dir Dport Trans SrcGap DstGap DIntPktAct Label"
    assert not names & {*leaks.split(), "dMinPktSz"} and len(names) == 29
    for kind, size in (("network", 21), ("biometrics", 8)):
        assert len(load_wustl_ehms(str(tmp_path), kind).schema.inputs) == size


def test_wustl_header_lines_blank_rows_and_infinite_rates_are_repaired_and_counted(tmp_path):
    path, whole = str(tmp_path / "any.csv"), consistent(wustl_frame())
    whole.to_csv(path, index=False)
    plain = load_wustl_ehms(path)
    assert not any("break" in note or "clipped" in note for note in plain.notes)
    lines = (tmp_path / "any.csv").read_text().splitlines()
    endless = lines[8].split(",")
    endless[lines[0].split(",").index("Rate")] = "inf"
    bad = [*lines[:8], ",".join(endless), *lines[9:200], lines[0], "," * (len(endless) - 1), *lines[200:]]
    (tmp_path / "any.csv").write_text("\n".join(bad))
    source = load_wustl_ehms(path)
    assert source.notes[:2] == (
        "1 header lines among the records of any.csv were dropped (row 200).",
        "1 rows of any.csv without any value were dropped (row 201).",
    )
    assert "1 infinite values (Rate) were replaced by what their equations give." in source.notes
    for mine, its in zip(source.table, plain.table, strict=True):
        np.testing.assert_array_equal(mine, its)


def test_wustl_rows_that_break_a_relation_are_counted(tmp_path):
    frame = consistent(wustl_frame())
    frame.loc[[3, 4], "TotBytes"] += 50
    frame.to_csv(tmp_path / "any.csv", index=False)
    source = load_wustl_ehms(str(tmp_path / "any.csv"))
    assert any(note.startswith("2 of 450 rows break TotBytes = SrcBytes + DstBytes beyond") for note in source.notes)
    assert (column(source, "TotBytes") - column(source, "SrcBytes") - column(source, "DstBytes")).sum() == 100


def test_wustl_explains_what_is_wrong(tmp_path):
    with pytest.raises(UserError, match="features 'vitals' of WUSTL-EHMS are unknown"):
        load_wustl_ehms(str(tmp_path), "vitals")
    with pytest.raises(UserError, match=r"does not hold wustl-ehms-2020_with_attacks_categories.csv"):
        load_wustl_ehms(str(tmp_path))
    path = str(tmp_path / "any.csv")
    with pytest.raises(UserError, match="does not exist; download"):
        load_wustl_ehms(path)
    wustl_frame().drop(columns="DstLoad").to_csv(path, index=False)
    with pytest.raises(UserError, match="'DstLoad' is missing in the file"):
        load_wustl_ehms(path)
    twice = wustl_frame().rename(columns={"Label": "Load"})
    twice.to_csv(path, index=False)
    with pytest.raises(UserError, match="column 'Load' stands 2 times in the header"):
        load_wustl_ehms(path)
    wustl_frame().assign(SrcBytes=lambda f: [*f["SrcBytes"][:30], "many", *f["SrcBytes"][31:]]).to_csv(
        path, index=False
    )
    with pytest.raises(UserError, match="numeric column 'SrcBytes' holds the text 'many' in row 31"):
        load_wustl_ehms(path)
    wustl_frame().replace({"Attack Category": {"Spoofing ": "DoS"}}).to_csv(path, index=False)
    with pytest.raises(UserError, match="'Attack Category' holds 'DoS' in row 221"):
        load_wustl_ehms(path)


@pytest.mark.realdata
def test_wustl_real_figures():
    source = load_wustl_ehms(real("wustl_ehms"))
    assert source.table.values.shape == (16318, 29) and clients(source) == 82
    assert np.bincount(source.table.label).tolist() == [14272, 1124, 922]
    assert not any("clipped" in note for note in source.notes)
    assert np.nanmean(column(source, "Temp")) == pytest.approx(26.91, abs=0.01)
    assert np.nanmean(column(source, "Heart_rate")) == pytest.approx(75.44, abs=0.05)  # 3 zeros are missing here
    assert np.nanmean(column(source, "SpO2")) == pytest.approx(97.81, abs=0.05)
    assert np.isnan(column(source, "Resp_Rate")).sum() == 869


# the attacker's machine, where and when a flow was seen, what number it had, and the answer itself
TELLTALES = [
    "SrcMac", "DstMac", "SrcAddr", "DstAddr", "Sport", "Dport", "Packet_num", "Flgs", "Dir", "Trans", "SrcGap", "DstGap",
    "DIntPktAct", "dMinPktSz", "Label",
]  # fmt: skip


def same(mine, its) -> None:
    assert mine.schema == its.schema and mine.notes == its.notes
    for a, b in zip(mine.table, its.table, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.realdata
def test_wustl_identity_order_and_answer_cannot_reach_a_model(tmp_path):
    frame = pd.read_csv(f"{real('wustl_ehms')}/{WUSTL}.gz", low_memory=False)
    for name in TELLTALES:
        assert name in frame.columns
    plain = load_wustl_ehms(real("wustl_ehms"))
    assert not {c.name for c in plain.schema.columns} & set(TELLTALES)
    rng, path = np.random.default_rng(0), str(tmp_path / "changed.csv.gz")
    mixed = frame.assign(**{name: rng.permutation(frame[name]) for name in TELLTALES})
    for changed in (frame.drop(columns=TELLTALES), mixed):
        changed.to_csv(path, index=False, compression={"method": "gzip", "compresslevel": 1})
        same(load_wustl_ehms(path), plain)
    # the comparison sees a column that does reach it
    frame.assign(Load=rng.permutation(frame["Load"])).to_csv(
        path, index=False, compression={"method": "gzip", "compresslevel": 1}
    )
    with pytest.raises(AssertionError):
        same(load_wustl_ehms(path), plain)


@pytest.mark.realdata
def test_wustl_has_no_column_that_counts_rows():
    source = load_wustl_ehms(real("wustl_ehms"))
    order = np.arange(len(source.table.label))
    for c in source.schema.inputs:
        values = column(source, c.name)
        there = ~np.isnan(values)
        rank = scipy.stats.rankdata(values[there])
        rho = np.corrcoef(rank, order[there])[0, 1]
        assert abs(rho) < 0.9 and (np.diff(values[there]) > 0).mean() < 0.9, c.name


def test_nsl_reads_both_files_and_marks_groups_of_the_official_test_set(tmp_path):
    source = load_nsl_kdd(nsl_folder(tmp_path))
    assert source.task == "detection" and source.schema.label.categories == ("normal", "DoS", "Probe", "R2L", "U2R")
    assert source.table.label.tolist() == [0, 1, 0, 2, 0, 3, 4] and clients(source) == 7
    assert source.test is not None and source.test.label.tolist() == [0, 1, 2, 0, 2, 4]
    assert {name: rows.tolist() for name, rows in source.groups.items()} == {
        "kddtest-21": [False, True, True, True, False, False],
        "unseen names": [True, False, True, True, False, True],
        "seen names": [True, True, False, True, True, False],
    }
    assert column(source, "dst_bytes").tolist() == [5450.0] * 7
    assert {source.schema.inputs[i].categories[int(source.table.values[0, i])] for i in (1, 2, 3)} == {
        "tcp",
        "http",
        "SF",
    }
    names = {c.name for c in source.schema.columns}
    assert not names & {"attack", "difficulty", "num_outbound_cmds"} and len(source.schema.inputs) == 40
    families = dict.fromkeys(["normal"], "normal") | {n: f for f, all_of in FAMILIES.items() for n in all_of}
    mine = [source.schema.label.categories.index(families[n]) for n in training_names(nsl_folder(tmp_path))]
    assert mine == source.table.label.tolist()
    assert "2 of its 4 attacks have one of 2 names that the training file does not hold" in source.notes[-1]


def test_nsl_explains_what_is_wrong(tmp_path):
    with pytest.raises(UserError, match=r"does not hold KDDTrain\+_20Percent.txt or .*\.gz; download"):
        load_nsl_kdd(str(tmp_path))
    with pytest.raises(UserError, match="does not exist; download"):
        load_nsl_kdd(str(tmp_path / "gone"))
    good = NSL_TRAIN[0]
    for lines, message in (
        ((good, nsl_line("ransomware")), r"row 2 has the attack name 'ransomware', which belongs to no family"),
        ((good, good.rpartition(",")[0]), "row 2 ends before its 43th cell"),
        ((good.rpartition(",")[0],), "row 1 has 42 cells, not 43"),
        ((good, good + ",1"), "not readable as lines of 43 cells .*line 2"),
        ((good, nsl_line("satan", start="0,tcp,gopher2,SF,1,1")), "'service' holds 'gopher2' in row 2"),
        ((good, nsl_line("satan", start="0,tcp,http,SF,many,1")), "'src_bytes' holds the text 'many' in row 2"),
        ((good, nsl_line("satan", start="0,tcp,http,SF,,1")), "'src_bytes' has no value in row 2"),
        ((good, good), "all 2 rows have the label 'family' = 'normal'"),
    ):
        with pytest.raises(UserError, match=message):
            load_nsl_kdd(nsl_folder(tmp_path, lines))


def test_nsl_header_lines_among_the_records_and_infinite_values_are_repaired_and_counted(tmp_path):
    header = ",".join(LAYOUT)
    lines = (header, *NSL_TRAIN[:3], header, *NSL_TRAIN[3:], nsl_line("satan", start="0,tcp,http,SF,inf,1"))
    source = load_nsl_kdd(nsl_folder(tmp_path, lines))
    assert len(source.table.label) == 8 and column(source, "src_bytes")[-1] == 2e9
    assert source.notes[:2] == (
        "KDDTrain+_20Percent.txt: 2 header lines among the records of KDDTrain+_20Percent.txt were dropped (row 1, 5).",
        "KDDTrain+_20Percent.txt: src_bytes: 1 of 8 values outside 0–2,000,000,000 bytes were clipped (1 of them infinite).",
    )
    plain = load_nsl_kdd(nsl_folder(tmp_path))
    np.testing.assert_array_equal(source.table.values[:7], plain.table.values)


def test_nsl_labels_do_not_depend_on_the_difficulty_column(tmp_path):
    plain = load_nsl_kdd(nsl_folder(tmp_path))
    other = tuple(line.rpartition(",")[0] + ",0" for line in NSL_TRAIN)
    again = load_nsl_kdd(nsl_folder(tmp_path, other, tuple(line.rpartition(",")[0] + ",0" for line in NSL_TEST)))
    assert plain.test is not None and again.test is not None
    for mine, its in ((plain.table, again.table), (plain.test, again.test)):
        for a, b in zip(mine, its, strict=True):
            np.testing.assert_array_equal(a, b)
    assert again.groups["kddtest-21"].all() and not plain.groups["kddtest-21"].all()


@pytest.mark.realdata
def test_nsl_real_figures():
    source = load_nsl_kdd(real("nsl_kdd"))
    assert source.test is not None
    assert np.bincount(source.table.label).tolist() == [13449, 9234, 2289, 209, 11]
    assert np.bincount(source.test.label).tolist() == [9711, 7458, 2421, 2754, 200]  # as papers have counted since 2009
    unseen = source.groups["unseen names"] & (source.test.label > 0)
    assert unseen.sum() == 3752 and (source.groups["unseen names"] | source.groups["seen names"]).all()
    assert not any("clipped" in note for note in source.notes)
    assert len(set(SERVICES)) == 70 and sum(map(len, FAMILIES.values())) == 39
    with gzip.open(f"{real('nsl_kdd')}/KDDTest-21.txt.gz", "rt") as file:
        theirs = pd.read_csv(file, header=None)
    hard = source.groups["kddtest-21"]
    assert len(theirs) == hard.sum() == 11850
    for name, cells in (("src_bytes", theirs[4]), ("count", theirs[22]), ("dst_host_rerror_rate", theirs[39])):
        mine = source.test.values[hard, source.schema.index(name)]
        np.testing.assert_array_equal(np.sort(mine), np.sort(cells.to_numpy(np.float32)))
