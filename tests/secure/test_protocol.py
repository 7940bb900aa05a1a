"""The protocol with honest parties: the ring's sum through drop-outs at every stage, in the bytes that the formula gives."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

from fedjax_health.secure import protocol_messages as messages
from fedjax_health.secure.protocol import STAGES, losing, run_round
from fedjax_health.secure.protocol_client import Setup, check_setup, make_identity
from fedjax_health.secure.protocol_errors import MalformedMessage, ReplayedMessage, TooFewSurvivors
from fedjax_health.secure.ring import ring_sum
from fedjax_health.types import UserError

CLIENTS, DEGREE, THRESHOLD, D = 50, 24, 13, 200
IDENTITIES = {7 * i: make_identity(7 * i) for i in range(CLIENTS)}
REGISTRY = {c: identity.verifying_key() for c, identity in IDENTITIES.items()}
UPDATES = {c: np.random.default_rng(c).integers(-5000, 5000, D).astype(np.int32).view(np.uint32) for c in IDENTITIES}
ROUNDS = iter(range(1, 10_000))


def setup(**changes):
    return Setup(next(ROUNDS), DEGREE, THRESHOLD, D, REGISTRY)._replace(**changes)


def ideal(survivors):
    rows = jnp.asarray(np.stack([UPDATES[c] for c in IDENTITIES]))
    return np.asarray(ring_sum(rows, jnp.asarray([c in survivors for c in IDENTITIES])))


@pytest.mark.parametrize("stage", [None, *STAGES, "all"])
def test_sum_is_that_of_the_ring_whenever_clients_drop_out(stage):
    ids = np.random.default_rng(5).permutation(list(IDENTITIES)).tolist()
    lost = {} if stage is None else {s: ids[2 * i : 2 * i + 2] for i, s in enumerate(STAGES)}
    lost = lost if stage in (None, "all") else {stage: ids[:5]}
    found = run_round(setup(), IDENTITIES, UPDATES, losing(lost))
    gone = {c for s in STAGES[:3] for c in lost.get(s, ())}
    assert found.survivors == tuple(c for c in IDENTITIES if c not in gone)
    assert found.finished == tuple(c for c in IDENTITIES if not any(c in row for row in lost.values()))
    np.testing.assert_array_equal(found.total, ideal(found.survivors))
    assert len(found.survivors) == CLIENTS or np.mean(found.total == ideal(IDENTITIES)) < 0.1


def test_what_the_server_sees_of_one_client_tells_nothing_of_its_update():
    seen = {}

    def network(stage, up, client, message):
        if up and stage == "masked":
            seen[client] = np.frombuffer(message[-4 * D :], "<u4")
        return message

    run_round(setup(), IDENTITIES, UPDATES, network)
    rows = np.stack([seen[c] for c in IDENTITIES])
    plain = np.stack([UPDATES[c] for c in IDENTITIES])
    assert np.mean(rows == plain) < 1e-3

    def chi2(words):
        counts = np.bincount(np.ascontiguousarray(words).view(np.uint8).ravel(), minlength=256)
        return ((counts - counts.mean()) ** 2 / counts.mean()).sum()

    assert chi2(rows) < 400 < 10_000 < chi2(plain)  # 255 degrees of freedom: above 400 with probability 1e-8


@pytest.mark.parametrize(
    ("lost", "message"),
    [
        ({"keys": list(IDENTITIES)[:26]}, "24 clients advertise keys"),
        ({"shares": list(IDENTITIES)[:40]}, "shares of"),
        ({"masked": list(IDENTITIES)[:40]}, "hold a share"),
        ({"masked": list(IDENTITIES)}, "nobody is left"),
        ({"signed": list(IDENTITIES)[:40]}, "hold a share"),
        ({"revealed": list(IDENTITIES)[:40]}, "hold a share"),
    ],
)
def test_too_few_survivors_abort_at_every_stage(lost, message):
    with pytest.raises(TooFewSurvivors, match=message):
        run_round(setup(), IDENTITIES, UPDATES, losing(lost))


def test_bytes_are_those_of_the_formula_exactly():
    found = run_round(setup(), IDENTITIES, UPDATES)
    expected = messages.message_bytes(D, DEGREE, DEGREE, DEGREE, CLIENTS)
    assert set(found.bytes_up.values()) == {expected["up"]} and set(found.bytes_down.values()) == {expected["down"]}
    assert messages.message_bytes(D + 1, DEGREE, DEGREE, DEGREE, CLIENTS)["up"] == expected["up"] + 4
    ids = list(IDENTITIES)
    found = run_round(setup(), IDENTITIES, UPDATES, losing({"shares": ids[:5], "masked": ids[5:9]}))
    stay = [c for c in ids if c in found.finished]
    exact = [messages.message_bytes(D, DEGREE, s, 0, 41)["up"] for s in range(DEGREE + 1)]
    assert {found.bytes_up[c] for c in stay} <= set(exact) and max(found.bytes_up.values()) <= expected["up"]


def test_messages_come_back_and_of_a_wrong_length_kind_round_or_client_are_refused():
    sealed = (messages.Sealed(1, bytes(94)), messages.Sealed(2, b"x" * 94))
    rows = (
        messages.Advertise(3, 4, b"a" * 32, b"b" * 32, b"c" * 64),
        messages.Neighbours(3, 4, (messages.Neighbour(9, b"a" * 32, b"b" * 32, b"c" * 64),)),
        messages.Shares(3, 4, sealed),
        messages.Inbox(3, 4, sealed),
        messages.Masked(3, 4, b"h" * 32, b"w" * 20),
        messages.Survivors(3, 4, (1, 2, 2**32 - 1)),
        messages.Signed(3, 4, b"s" * 64),
        messages.Request(3, 4, (1, 2), (5,), ((1, b"s" * 64),)),
        messages.Revealed(3, 4, ((1, b"s" * 33),), ((5, b"t" * 33), (6, b"u" * 33))),
    )
    for row in rows:
        data = messages.encode(row)
        assert messages.decode(data, type(row), 3, 4, 5) == row
        for wrong in (data[:-1], data + b"\0", data[:12], b""):
            with pytest.raises(MalformedMessage):
                messages.decode(wrong, type(row), 3, 4, 5)
        with pytest.raises(MalformedMessage, match="client 4"):
            messages.decode(data, type(row), 3, 5, 5)
        with pytest.raises(ReplayedMessage, match="round 3"):
            messages.decode(data, type(row), 2, 4, 5)
        other = messages.Signed if type(row) is not messages.Signed else messages.Masked
        with pytest.raises(MalformedMessage, match="kind"):
            messages.decode(data, other, 3, 4, 5)


def test_setup_is_checked():
    check_setup(setup())
    for changes, message in (
        ({"threshold": 12}, "more than 12"),
        ({"degree": 23}, "degree 23"),
        ({"degree": 50, "threshold": 30}, "degree 50"),
        ({"registry": {**REGISTRY, -1: b""}}, "renumber"),
        ({"round": -1}, "round -1"),
    ):
        with pytest.raises(UserError, match=message):
            check_setup(setup(**changes))
