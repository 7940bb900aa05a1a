"""Singling out, linkability and inference on tables of which it is known what they tell."""

from __future__ import annotations

import numpy as np
import pytest

from fedjax_health.attacks.disclosure import Counted, People, one_a_client, secrets
from fedjax_health.attacks.singling_out import Term, isolated, matching
from fedjax_health.build_attacks import DISCLOSURES, make_disclosures
from fedjax_health.data.schema import Column, Schema
from fedjax_health.data.split import take_clients
from fedjax_health.evaluation.disclosure import residual_risk, wilson
from fedjax_health.types import Table

SCHEMA = Schema(
    "ward",
    (
        *(Column(name=f"x{j}", low=-6, high=6, center=0, scale=1, decimals=2, nullable=j == 0) for j in range(5)),
        Column(name="sex", kind="binary", role="group"),
        Column(name="y", kind="binary", role="label"),
    ),
)
PEOPLE = 600


def draw(seed: int, clients: int = PEOPLE, each: int = 2) -> Table:
    """People with two records; y follows the sign of x1, which everyone may know, but for one in five."""
    r, m = np.random.default_rng(seed), clients * each
    x = np.round(r.normal(size=(m, 5)), 2)
    y = (x[:, 1] > 0) ^ (r.random(m) < 0.2)
    x[r.random(m) < 0.1, 0] = np.nan
    values = np.column_stack([x, r.integers(2, size=m)]).astype(np.float32)
    return Table(values, y.astype(np.int32), np.repeat(np.arange(clients, dtype=np.int32), each))


SIDES = People(draw(1), draw(2))


def attempt(name: str, synthetic: Table, sides: People = SIDES, queries: int = 400):
    return make_disclosures()[name].attempt(synthetic, sides, SCHEMA, queries, np.random.default_rng(0))


def rates(outcome):
    return [wilson(counted).value for counted in outcome[:3]]


def risk(outcome):
    control = wilson(outcome.control)
    return residual_risk(wilson(outcome.attack), type(control)(*(outcome.scale * x for x in control)))


def test_a_copy_tells_every_secret_and_links_every_half():
    copy = SIDES.member
    for name in ("linkability", "inference"):
        for what, outcome in attempt(name, copy).items():
            attack, baseline, control = rates(outcome)
            assert attack == 1 and max(baseline, control) < 0.95, (name, what)
            assert risk(outcome).value == 1 and risk(outcome).low > 0.85
    single = attempt("singling-out", copy)
    assert rates(single["multivariate"])[0] > 0.5 and risk(single["multivariate"]).low > 0.4
    assert risk(single["univariate"]).low > 0
    learnt = attempt("attribute-inference", copy)["sex"]  # pure chance for whoever was not there
    assert risk(learnt).low > 0.1


@pytest.mark.parametrize("name", DISCLOSURES)
def test_people_who_took_no_part_are_as_safe_as_those_who_did(name):
    found = [attempt(name, draw(s)) for s in (3, 4)]
    for what in found[0]:
        for outcome in (f[what] for f in found):
            both = risk(outcome)
            assert both.low < 0.05 and both.high > -0.05, (what, outcome)
    if name.endswith("inference"):  # the population's rule is learnt, and is no risk
        attack, baseline, control = rates(found[0]["y"])
        assert min(attack, control) > baseline + 0.08


def test_a_shifted_copy_links_nobody():
    far = draw(1)
    far.values[:, :5] += 4.0
    attack, _, control = rates(attempt("linkability", far)[""])
    assert abs(attack - control) < 0.12


def test_one_row_constant_columns_and_nothing_present_are_answered():
    one = Table(*(a[:1] for a in draw(5)))
    flat = draw(5)
    flat.values[:], flat.label[:] = 1.0, 1
    gone = draw(5)
    gone.values[:, 0] = np.nan
    for table in (one, flat, gone):
        for name in DISCLOSURES:
            for outcome in attempt(name, table, queries=50).values():
                assert all(0 <= c.right <= c.guesses <= 50 for c in outcome[:3])
    outcome = attempt("linkability", one)[""]
    assert outcome.attack == outcome.baseline == Counted(400, 400)
    assert attempt("singling-out", flat)["multivariate"].attack.guesses == 0


def test_fewer_people_are_fewer_guesses_and_none_is_none():
    few = People(take_clients(SIDES.member, np.arange(30)), take_clients(SIDES.outsider, np.arange(10)))
    outcome = attempt("linkability", draw(6), few)[""]
    assert (outcome.attack.guesses, outcome.control.guesses) == (30, 10)
    assert attempt("singling-out", draw(6), few)["multivariate"].scale == 3
    nobody = People(few.member, take_clients(SIDES.outsider, np.arange(0)))
    for name in DISCLOSURES:
        for outcome in attempt(name, draw(6), nobody).values():
            assert outcome.control.guesses == 0 and np.isnan(risk(outcome).value)


def test_a_smaller_control_group_is_scaled_to_what_a_full_one_would_say():
    # 600 members, 150 others, a table of neither: isolated others times four are as many as isolated members
    small = People(SIDES.member, take_clients(SIDES.outsider, np.arange(150)))
    single = [attempt("singling-out", draw(s), small, 600)["multivariate"] for s in (7, 8, 9)]
    members, others = (sum(getattr(o, side).right for o in single) for side in ("attack", "control"))
    assert members > 150 and abs(4 * others - members) < 3 * 4 * np.sqrt(others + members / 16)


def test_conditions_are_met_by_the_right_rows_and_isolate_one_person():
    columns = np.array([[1, 2, 3, np.nan], [0, 0, 1, 1]], np.float32)
    other = np.array([[9.0], [0.0]], np.float32)
    sides = [(columns, np.array([0, 0, 1, 2])), (other, np.array([0]))]
    low, gap, high, zero = (
        (Term(0, "<=", 2.0),),
        (Term(0, "missing", 0.0),),
        (Term(0, ">=", 3.0),),
        (Term(1, "==", 0.0),),
    )
    assert [matching(columns, c).tolist() for c in (low, gap, high, zero)] == [[0, 1], [3], [2], [0, 1]]
    assert matching(columns, (*low, Term(0, ">=", 2.0))).tolist() == [1]
    assert isolated(sides, [low, gap]) == [(2, 2), (0, 2)]  # two records of one person isolate that person
    assert isolated(sides, [low, gap, low]) == [(2, 2), (0, 2)]  # and only once
    assert isolated(sides, [high, zero]) == [(0, 2), (0, 2)]  # someone on the other side meets it, too
    assert isolated(sides, [(Term(0, ">=", 4.0),), (Term(0, ">=", 99.0),)]) == [(0, 2), (1, 2)]


def test_conditions_are_dealt_over_the_columns():
    table = draw(5)
    table.values[:, 0] = np.arange(len(table.label))  # every value occurs once: alone it could give all guesses
    outcome = attempt("singling-out", table)["univariate"]
    assert 58 <= outcome.attack.guesses < 400  # a seventh of 400, and what the others have


def test_one_record_a_person_and_the_order_of_secrets():
    taken = one_a_client(draw(1, 40, 3), 25, np.random.default_rng(0))
    assert len(np.unique(taken.client)) == len(taken.label) == 25
    assert secrets(SCHEMA, 3) == [6, 5, 0]
