"""Attacks on the protocol, each refused by its named error, and by the party that would have been harmed."""

from __future__ import annotations

import pytest
from parties import DEGREE, DOWN, THRESHOLD, UP, UPDATES, VICTIM, make_parties

from fedjax_health.secure import protocol_crypto as crypto
from fedjax_health.secure import protocol_messages as messages
from fedjax_health.secure.protocol import losing, run_round
from fedjax_health.secure.protocol_errors import (
    BadSignature,
    InconsistentLists,
    MalformedMessage,
    OverlappingLists,
    ProtocolError,
    TamperedShare,
    TooFewSurvivors,
    WrongKey,
)


def attack(stage, up, change, lost=None):
    """Runs a round whose network hands the victim's message of a stage to `change`; gives the messages that it sent after."""
    setup, identities = make_parties()
    drop, sent = losing(lost or {}), []

    def network(at, going_up, client, message):
        if (at, going_up, client) == (stage, up, VICTIM):
            sent.clear()
            return change(message, setup)
        if going_up and client == VICTIM:
            sent.append(at)
        return drop(at, going_up, client, message)

    try:
        return run_round(setup, identities, UPDATES, network)
    except ProtocolError as error:
        error.sent_after = sent  # type: ignore[attr-defined]
        raise


def change_fields(kind, change):
    """A change of a message's fields in place of its bytes."""

    def apply(data, setup):
        message = messages.decode(data, kind, setup.round, VICTIM, setup.words)
        return messages.encode(message._replace(**change(message)))

    return apply


def flip(position):
    def apply(data, setup):
        changed = bytearray(data)
        changed[position] ^= 1
        return bytes(changed)

    return apply


def first_neighbour(**changes):
    return change_fields(
        messages.Neighbours, lambda m: {"neighbours": (m.neighbours[0]._replace(**changes), *m.neighbours[1:])}
    )


def move(message):
    """One survivor listed as dropped as well."""
    return {"dropped": (*message.dropped, message.alive[0])}


REFUSALS = {
    # the server puts its own key in a neighbour's place
    "mask key of a neighbour": (BadSignature, "shares", DOWN, first_neighbour(mask_key=crypto.public_bytes(b"1" * 32))),
    "share key of a neighbour": (BadSignature, "shares", DOWN, first_neighbour(share_key=b"2" * 32)),
    "one flipped bit of keys": (BadSignature, "shares", DOWN, flip(13 + 4)),
    "an invented neighbour": (WrongKey, "shares", DOWN, first_neighbour(client=999)),
    "itself as a neighbour": (WrongKey, "shares", DOWN, first_neighbour(client=VICTIM)),
    "a neighbour twice": (
        WrongKey,
        "shares",
        DOWN,
        change_fields(messages.Neighbours, lambda m: {"neighbours": (m.neighbours[1], *m.neighbours[1:])}),
    ),
    "fewer neighbours": (
        TooFewSurvivors,
        "shares",
        DOWN,
        change_fields(messages.Neighbours, lambda m: {"neighbours": m.neighbours[1:]}),
    ),
    "one flipped bit of a share": (TamperedShare, "masked", DOWN, flip(-1)),
    "shares of two senders swapped": (
        TamperedShare,
        "masked",
        DOWN,
        change_fields(
            messages.Inbox,
            lambda m: {"sealed": (m.sealed[0]._replace(box=m.sealed[1].box), *m.sealed[1:])},
        ),
    ),
    "shares of a stranger": (
        WrongKey,
        "masked",
        DOWN,
        change_fields(messages.Inbox, lambda m: {"sealed": (m.sealed[0]._replace(client=998), *m.sealed[1:])}),
    ),
    "few shares": (TooFewSurvivors, "masked", DOWN, change_fields(messages.Inbox, lambda m: {"sealed": m.sealed[:3]})),
    "survivors without itself": (
        InconsistentLists,
        "signed",
        DOWN,
        change_fields(messages.Survivors, lambda m: {"survivors": tuple(c for c in m.survivors if c != VICTIM)}),
    ),
    "survivors twice": (
        InconsistentLists,
        "signed",
        DOWN,
        change_fields(messages.Survivors, lambda m: {"survivors": (m.survivors[0], *m.survivors)}),
    ),
    "invented survivors": (
        InconsistentLists,
        "signed",
        DOWN,
        change_fields(messages.Survivors, lambda m: {"survivors": (*m.survivors, 999)}),
    ),
    "no other survivors": (
        TooFewSurvivors,
        "signed",
        DOWN,
        change_fields(messages.Survivors, lambda m: {"survivors": (VICTIM,)}),
    ),
    # both secrets of one client
    "a client in both lists": (OverlappingLists, "revealed", DOWN, change_fields(messages.Request, move)),
    "a survivor listed as dropped": (
        InconsistentLists,
        "revealed",
        DOWN,
        change_fields(messages.Request, lambda m: {"dropped": m.alive[:1], "alive": m.alive[1:]}),
    ),
    "few signatures": (
        TooFewSurvivors,
        "revealed",
        DOWN,
        change_fields(messages.Request, lambda m: {"signatures": m.signatures[: THRESHOLD - 1]}),
    ),
    "one signature many times": (
        MalformedMessage,
        "revealed",
        DOWN,
        change_fields(messages.Request, lambda m: {"signatures": m.signatures[:1] * DEGREE}),
    ),
    "one flipped bit of a signature": (BadSignature, "revealed", DOWN, flip(-1)),
    "a signature of no neighbour": (
        BadSignature,
        "revealed",
        DOWN,
        change_fields(messages.Request, lambda m: {"signatures": (*m.signatures, (VICTIM, bytes(64)))}),
    ),
    # what a client, or someone on its way, does to the server
    "advertised keys changed": (BadSignature, "keys", UP, flip(-1)),
    "shares for another than a neighbour": (
        MalformedMessage,
        "shares",
        UP,
        change_fields(messages.Shares, lambda m: {"sealed": (m.sealed[0]._replace(client=VICTIM), *m.sealed[1:])}),
    ),
    "a signature on something else": (BadSignature, "signed", UP, flip(-1)),
    "a short update": (MalformedMessage, "masked", UP, lambda data, setup: data[:-4]),
    "other shares than asked for": (
        InconsistentLists,
        "revealed",
        UP,
        change_fields(messages.Revealed, lambda m: {"seeds": m.seeds[1:]}),
    ),
    "a seed as a mask key": (
        InconsistentLists,
        "revealed",
        UP,
        change_fields(messages.Revealed, lambda m: {"seeds": m.seeds[1:], "mask_keys": m.seeds[:1]}),
    ),
    "another commitment": (TamperedShare, "masked", UP, flip(13)),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_each_attack_is_refused_with_its_error_and_nothing_is_sent_after_it(name):
    error, stage, up, change = REFUSALS[name]
    with pytest.raises(error) as caught:
        attack(stage, up, change)
    assert type(caught.value) is error
    assert up or caught.value.sent_after == []
