"""Evasive flows are flows of the same attack: relations, ranges and functional features hold; attackers find what there is."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedjax_health.attacks import evasion
from fedjax_health.attacks.evasion import Flows, Target, bounds, make_random, make_white_box
from fedjax_health.attacks.evasion_flows import FUNCTIONAL, column_space, functional_mask, threat_space
from fedjax_health.attacks.evasion_generator import make_generator
from fedjax_health.data.encode import make_encoder
from fedjax_health.data.schema import Column, Schema
from fedjax_health.data.simulator import simulate_table
from fedjax_health.data.threats import THREATS, make_threats
from fedjax_health.evaluation.evasion_rows import make_check
from fedjax_health.types import Table, UserError

pytestmark = pytest.mark.quick_compile

SPACE = threat_space()
CHECK = make_check(SPACE, THREATS)
BUDGET = jnp.float32(0.5)
NOTHING = Flows(jnp.zeros((1, 15)), jnp.zeros(1, jnp.int32), jnp.int32(0))
TARGET = Target((), jnp.float32(0.5))


@pytest.fixture(scope="module")
def attacks() -> Table:
    table = simulate_table(make_threats(), 200, seed=3, batch_size=200)
    return Table(*(column[table.label > 0] for column in table))


def column(values: np.ndarray, name: str) -> np.ndarray:
    return np.asarray(values)[:, THREATS.index(name)].astype(np.float64)


def free(values: np.ndarray, name: str) -> np.ndarray:
    return np.asarray(jax.vmap(SPACE.apart)(jnp.asarray(values)))[:, SPACE.names.index(name)]


def sent(evader: evasion.Evader, table: Table, target: Target = TARGET, budget: jax.Array = BUDGET) -> np.ndarray:
    craft = jax.jit(evader.craft)
    return np.asarray(
        craft(target, NOTHING, jnp.asarray(table.values), jnp.asarray(table.label), budget, jax.random.key(1))
    )


def towards(name: str, sign: float):
    """A detector that reads one free quantity of a flow: the more of it (times sign), the more benign."""
    j = SPACE.names.index(name)
    return lambda released, values: jax.nn.log_sigmoid(sign * jax.vmap(SPACE.apart)(values)[:, j])


def test_a_flow_that_nothing_changes_is_itself_bit_for_bit(attacks):
    values = jnp.asarray(attacks.values)
    z = jax.vmap(SPACE.apart)(values)
    same = jax.jit(jax.vmap(SPACE.join))(z, jnp.zeros_like(z), values)
    np.testing.assert_array_equal(same, attacks.values)


def test_evasive_flows_could_exist_and_are_still_the_attack(attacks):
    made = sent(make_random(SPACE, towards("jitter", 1.0)), attacks)
    assert (made != attacks.values).any(1).mean() > 0.99
    out, back, duration = (column(made, n) for n in ("packets_out", "packets_in", "duration"))
    for total, packets in ((column(made, "bytes_out"), out), (column(made, "bytes_in"), back)):
        assert packets.min() >= 1
        assert np.all(total >= 40 * packets) and np.all(total <= 1500 * packets * (1 + 1e-6))
    size = (column(made, "bytes_out") + column(made, "bytes_in")) / (out + back)
    assert np.all(np.abs(column(made, "mean_packet_size") - size) <= 0.0501 + 1e-6 * size)
    gap = 1000.0 * duration / (out + back)
    moved = duration != column(attacks.values, "duration")  # then the gap follows from the published duration
    assert np.all(np.abs(column(made, "mean_interarrival") - gap)[moved] <= 0.0501 + 1e-6 * gap[moved])
    for c, inputs in enumerate(THREATS.inputs):
        x = made[:, c].astype(np.float64)
        if inputs.kind == "numeric":
            assert x.min() >= inputs.low and x.max() <= inputs.high
            assert np.allclose(x, np.round(x, inputs.decimals), rtol=1e-6, atol=1e-4)
        else:
            np.testing.assert_array_equal(x, attacks.values[:, c])
    for kind, names in FUNCTIONAL.items():
        mine = attacks.label == THREATS.label.categories.index(kind)
        assert mine.any()
        for name in names:
            if name == "size_out":  # of a whole number of bytes
                was = column(attacks.values, "bytes_out") / column(attacks.values, "packets_out")
                assert np.all(np.abs(column(made, "bytes_out") / out - was)[mine] <= 0.5 / out[mine] + 1e-3)
            else:
                np.testing.assert_array_equal(column(made, name)[mine], column(attacks.values, name)[mine])
    assert CHECK(attacks, attacks._replace(values=made), 0.5) == 1.0


def test_flows_that_break_the_threat_model_are_found(attacks):
    names = ["duration", "distinct_ports", "protocol", "jitter"]
    few = Table(*(c[: 4 * 50] for c in attacks))
    made = few.values.copy()
    for i, name in enumerate(names):
        j = THREATS.index(name)
        made[50 * i : 50 * (i + 1), j] += 1.0 if name == "protocol" else 40.0 * attacks.values[:, j].max()
    assert CHECK(few, few._replace(values=made), 0.5) == 0.0
    assert CHECK(few, few, 0.0) == 1.0
    edge, j = few.values.copy(), THREATS.index("payload_entropy")
    edge[:, j] = np.clip(edge[:, j] - 0.9, 0.0, 8.0)  # 0.6 of its scale, where 0.5 is allowed
    assert CHECK(few, few._replace(values=edge), 0.5) < 0.05
    assert CHECK(few, few._replace(values=edge), 0.61) > 0.5  # but of replays


def test_the_white_box_goes_to_the_edge_of_the_budget_where_it_may(attacks):
    made = sent(make_white_box(SPACE, towards("packets_in", -1.0)), attacks)
    step = free(attacks.values, "packets_in") - free(made, "packets_in")
    inside = column(attacks.values, "packets_in") > 20  # rounding is small there
    assert inside.sum() > 20 and np.all(np.abs(step[inside] - 0.5) < 0.05)


def test_what_an_attack_needs_cannot_be_evaded(attacks):
    made = sent(make_white_box(SPACE, towards("payload_deviation", -1.0), 10), attacks)
    less = column(made, "payload_deviation") < column(attacks.values, "payload_deviation")
    needed = SPACE.functional[attacks.label, SPACE.names.index("payload_deviation")]
    assert needed.any() and not less[needed].any() and less[~needed].mean() > 0.95


def test_the_white_box_is_never_worse_than_no_attack_and_better_than_chance(attacks):
    encoder = make_encoder(THREATS)
    weight = jax.random.normal(jax.random.key(5), (encoder.layout.dim,)) / 3.0
    log_benign = lambda released, values: jax.nn.log_sigmoid(jnp.sin(encoder.encode(values)) @ weight)  # noqa: E731

    def score(values: np.ndarray) -> np.ndarray:
        return np.asarray(jax.jit(log_benign)((), jnp.asarray(values)))

    clean, found = score(attacks.values), score(sent(make_white_box(SPACE, log_benign), attacks))
    assert np.all(found >= clean - 1e-5) and found.mean() > clean.mean() + 0.05
    assert found.mean() > score(sent(make_random(SPACE, log_benign), attacks)).mean() + 0.05


def test_random_asks_nothing_and_search_keeps_what_passes(attacks):
    def refuses(released, values):
        raise AssertionError("asked")

    sent(make_random(SPACE, refuses), attacks)
    log_benign = towards("jitter", 1.0)
    target = Target((), jnp.float32(0.5))
    before = np.asarray(evasion.alarm(log_benign, target, jnp.asarray(attacks.values)))
    made = sent(make_random(SPACE, log_benign, 20), attacks, target)
    after = np.asarray(evasion.alarm(log_benign, target, jnp.asarray(made)))
    assert before.mean() > 0.1 and not (after & ~before).any()  # what passes is sent as it is
    np.testing.assert_array_equal(made[~before], attacks.values[~before])
    one = np.asarray(evasion.alarm(log_benign, target, jnp.asarray(sent(make_random(SPACE, log_benign), attacks))))
    assert after.sum() < one.sum()


def test_the_generator_learns_from_answers_alone(attacks):
    log_benign, encoder = towards("jitter", 1.0), make_encoder(THREATS)
    table = simulate_table(make_threats(), 60, seed=4, batch_size=60)
    own = Flows(jnp.asarray(table.values), jnp.asarray(table.label), jnp.int32(len(table.label)))
    learns = make_generator(SPACE, log_benign, encoder, iterations=60, batch=64, hidden=(16,), rate=0.01)
    assert learns.queries == (60 * 2 * 64, 0)
    target = Target((), jnp.float32(0.5))
    args = jnp.asarray(attacks.values), jnp.asarray(attacks.label), BUDGET, jax.random.key(0)
    made = np.asarray(jax.jit(learns.craft)(target, own, *args))
    step = free(made, "jitter") - free(attacks.values, "jitter")
    assert step.mean() > 0.3  # of 0.5, towards benign, and it was never shown the score
    assert CHECK(attacks, attacks._replace(values=made), 0.5) == 1.0


def test_seeds_are_a_vmap(attacks):
    evader = make_white_box(
        SPACE, lambda released, values: jax.nn.log_sigmoid(jax.vmap(SPACE.apart)(values) @ released), 5
    )
    few = jnp.asarray(attacks.values[:20]), jnp.asarray(attacks.label[:20]), BUDGET, jax.random.key(0)
    weights = jax.random.normal(jax.random.key(2), (2, len(SPACE.names)))
    alone = jax.jit(lambda w: evader.craft(Target(w, jnp.float32(0.5)), NOTHING, *few))
    for made, w in zip(jax.jit(jax.vmap(alone))(weights), weights, strict=True):
        np.testing.assert_allclose(made, alone(w), rtol=1e-3, atol=0.11)


NET = Schema(
    "net",
    (
        Column(name="count", low=0, high=511, center=3.0, scale=2.0, transform="log1p", decimals=0),
        Column(name="same", low=0, high=1, center=0.3, scale=0.4, decimals=2),
        Column(name="most", low=0, high=511, decimals=0, at_most="count"),
        Column(name="load", low=0, high=9, nullable=True),
        Column(name="rest", low=0, high=511, decimals=1, equation="count - same"),
        Column(name="flag", kind="categorical", categories=("a", "b", "c")),
        Column(name="kind", kind="categorical", role="label", categories=("normal", "DoS", "Probe")),
    ),
)
NEEDS = {"dos": ("count", "flag"), "probe": ("same",)}


def test_logs_without_relations_move_column_by_column_and_missing_cells_stay_missing():
    space = column_space(NET, NEEDS)
    assert space.names == ("count", "same", "most", "load")
    assert space.functional.tolist() == [[True] * 4, [True, False, False, False], [False, True, False, False]]
    values = np.array([[100, 0.5, 100, 3.0, 0, 2], [100, 0.5, 30, np.nan, 0, 1]], np.float32)
    table = Table(values, np.array([1, 2], np.int32), np.zeros(2, np.int32))
    change = bounds(space, jnp.asarray(table.label), jnp.float32(1.0))
    join = jax.jit(
        lambda change: jax.vmap(space.join)(jax.vmap(space.apart)(jnp.asarray(values)), change, jnp.asarray(values))
    )
    made = np.asarray(join(change))
    assert made[0].tolist() == [100, np.float32(0.9), 100, 5.25, np.float32(99.1), 2]  # most may not pass count
    assert made[1, :3].tolist() == [511, 0.5, 158] and np.isnan(made[1, 3]) and made[1, 4:].tolist() == [510.5, 1]
    assert make_check(space, NET)(table, table._replace(values=made), 1.0) == 1.0
    np.testing.assert_array_equal(join(jnp.zeros((2, 4))), values)


def test_an_attack_whose_needs_are_unknown_is_a_clear_error():
    with pytest.raises(UserError, match=r"'Probe' needs is not known.*name its functional features"):
        functional_mask(NET, ("count",), {"dos": ("count",)})
