"""Pure parts of the benchmark of attacks: roles, what is reported, and a known answer at a small size."""

from __future__ import annotations

import math

import numpy as np
import pytest

from benchmarks import attacks, known_attacks, report
from fedjax_health.data.vitals import VITALS
from fedjax_health.types import Row, Table


@pytest.fixture
def people(monkeypatch) -> Table:
    monkeypatch.setattr(known_attacks, "MEMBERS", 60)
    monkeypatch.setattr(known_attacks, "OUTSIDE", 120)
    r, clients = np.random.default_rng(0), 300
    values = np.empty((2 * clients, len(VITALS.inputs)), np.float32)
    for j, c in enumerate(VITALS.inputs):
        values[:, j] = r.uniform(c.low, c.high, 600) if c.kind == "numeric" else r.integers(len(c.categories), size=600)
    values[:, 0] = np.repeat(np.arange(clients), 2) / 2 + 30  # tells who it is, within the range of a heart rate
    return Table(values, r.integers(2, size=600).astype(np.int32), np.repeat(np.arange(clients, dtype=np.int32), 2))


def test_roles_are_disjoint_and_change_with_the_seed(people):
    one, two = (known_attacks.deal(people, s) for s in (0, 1))
    who = [set(np.unique(side.values[:, 0])) for side in one]
    assert [len(w) for w in who] == [60, 120, 60, 60]
    assert len(set.union(*who)) == 300
    assert who[0] != set(np.unique(two.member.values[:, 0]))


def test_a_copy_is_found_by_every_attack_and_others_by_none(people):
    dealt = known_attacks.deal(people, 0)
    for name, (member, outsider) in known_attacks.attacked(dealt, True, 0).items():
        assert member.min() > outsider.max(), name
    for name, (member, outsider) in known_attacks.attacked(dealt, False, 0).items():
        assert member.min() <= outsider.max(), name
    assert known_attacks.disclosed(dealt, True, 0)["linkability"].attack == (60, 60)


def test_what_is_not_defined_is_left_out_and_names_say_the_case():
    nan = math.nan
    rows = [
        Row("vitals", "copy", "logan", "auc", 0.5, nan, nan, 1),
        Row("vitals", "copy", "logan", "balanced_accuracy", 0.5, 0.4, 0.6, 3),
        Row("vitals", "copy", "linkability", "risk", nan, nan, nan, 9),
    ]
    found = known_attacks.figures(rows, "copy")
    assert found == [
        {"name": "known/copy/logan: AUC", "value": 0.5, "low": 0.5, "high": 0.5, "n": 1, "unit": "auc"},
    ]
    report.check({"benchmark": "attacks", "device": "", "versions": {}, "results": found})


def test_a_part_names_a_function_that_is_there():
    for path in attacks.PARTS.values():
        module, function = path.rsplit(".", 1)
        assert callable(getattr(__import__(f"benchmarks.{module}", fromlist=[function]), function))
