"""What outlives one message: replayed rounds, keys that are not what they seem, and lists that differ between clients."""

from __future__ import annotations

import numpy as np
import pytest
from parties import CLIENTS, DEGREE, DOWN, UP, UPDATES, VICTIM, D, make_parties

from fedjax_health.secure import protocol_crypto as crypto
from fedjax_health.secure import protocol_messages as messages
from fedjax_health.secure.protocol import losing, run_round
from fedjax_health.secure.protocol_client import make_identity
from fedjax_health.secure.protocol_errors import (
    BadSignature,
    MalformedMessage,
    ReplayedMessage,
    TamperedShare,
    WrongKey,
)
from fedjax_health.secure.protocol_server import Server


@pytest.mark.parametrize(
    ("stage", "up"), [(s, d) for s in ("shares", "masked", "signed", "revealed") for d in (UP, DOWN)] + [("keys", UP)]
)
def test_a_message_of_an_earlier_round_is_refused_at_every_stage(stage, up):
    setup, identities = make_parties(round_id=5)
    old = {}

    def record(at, going_up, client, message):
        old[at, going_up, client] = message
        return message

    def replay(at, going_up, client, message):
        return old[at, going_up, client] if (at, going_up, client) == (stage, up, VICTIM) else message

    honest = run_round(setup, identities, UPDATES, record)
    np.testing.assert_array_equal(honest.total, sum(range(CLIENTS)))
    with pytest.raises(ReplayedMessage, match="round 5 came in round 6"):
        run_round(setup._replace(round=6), identities, UPDATES, replay)


def test_a_whole_round_is_not_served_twice_nor_a_stage():
    setup, identities = make_parties(round_id=5)
    run_round(setup, identities, UPDATES)
    for round_id in (4, 5):
        with pytest.raises(ReplayedMessage, match="has joined round 5"):
            run_round(setup._replace(round=round_id), identities, UPDATES)
    client = identities[0].join(setup._replace(round=6))
    client.advertise()
    with pytest.raises(ReplayedMessage, match="stage 1 is due"):
        client.advertise()
    with pytest.raises(MalformedMessage):
        client.share(b"")
    with pytest.raises(ReplayedMessage, match="refused to go on"):
        client.share(b"")


def test_a_share_of_an_earlier_round_does_not_open_under_a_new_header():
    setup, identities = make_parties(round_id=5)
    old = {}

    def record(at, up, client, message):
        if (at, up, client) == ("masked", DOWN, VICTIM):
            old.update({b.client: b for b in messages.decode(message, messages.Inbox, 5, VICTIM, D).sealed})
        return message

    def replay(at, up, client, message):
        if (at, up, client) != ("masked", DOWN, VICTIM):
            return message
        inbox = messages.decode(message, messages.Inbox, 6, VICTIM, D)
        return messages.encode(inbox._replace(sealed=tuple(old.get(b.client, b) for b in inbox.sealed)))

    run_round(setup, identities, UPDATES, record)
    with pytest.raises(TamperedShare):
        run_round(setup._replace(round=6), identities, UPDATES, replay)


def test_the_server_does_not_take_a_mask_key_that_was_not_advertised():
    def spoil(message):
        (client, share), *rest = message.mask_keys
        return {"mask_keys": ((client, share[:-1] + bytes([share[-1] ^ 1])), *rest)}

    setup, identities = make_parties()
    drop, spoiled = losing({"masked": [0]}), []

    def network(at, up, client, message):
        if at == "revealed" and up:
            revealed = messages.decode(message, messages.Revealed, setup.round, client, D)
            if revealed.mask_keys:
                spoiled.append(client)
                return messages.encode(revealed._replace(**spoil(revealed)))
        return drop(at, up, client, message)

    with pytest.raises(WrongKey, match="client 0's mask key"):
        run_round(setup, identities, UPDATES, network)
    assert len(spoiled) == DEGREE


def test_a_weak_key_that_its_owner_signed_is_refused_before_shares_are_sent():
    setup, identities = make_parties()

    def network(at, up, client, message):
        if (at, up, client) != ("keys", UP, VICTIM):
            return message
        keys = (messages.decode(message, messages.Advertise, setup.round, client, D).mask_key, bytes(32))
        signature = crypto.sign(identities[VICTIM].signing_key, crypto.keys_context(setup.round, client, *keys))
        return messages.encode(messages.Advertise(setup.round, client, *keys, signature))

    with pytest.raises(WrongKey, match="small order"):
        run_round(setup, identities, UPDATES, network)


def test_a_key_that_is_not_registered_cannot_join():
    setup, identities = make_parties()
    with pytest.raises(WrongKey, match="client 0"):
        make_identity(0).join(setup)
    server_side = {**identities, 0: make_identity(0)}
    with pytest.raises(WrongKey):
        run_round(setup, server_side, UPDATES)


def test_lists_that_differ_between_clients_do_not_find_enough_signatures():
    setup, identities = make_parties()

    # the victim alone is told that 0 has dropped out
    def network(at, up, client, message):
        if (at, up, client) == ("signed", DOWN, VICTIM):
            told = messages.decode(message, messages.Survivors, setup.round, client, D)
            return messages.encode(told._replace(survivors=told.survivors[1:]))
        return message

    with pytest.raises(BadSignature, match=f"client {VICTIM} on the list"):
        run_round(setup, identities, UPDATES, network)  # here the server is honest and notices

    clients = {c: identities[c].join(setup._replace(round=9)) for c in identities}
    truth, lie = (tuple(c for c in range(CLIENTS) if c != left_out) for left_out in (None, 0))
    now = setup._replace(round=9)
    server = Server(now)
    out = server.introduce({c: client.advertise() for c, client in clients.items()})
    out = server.route({c: clients[c].share(out[c]) for c in clients})
    server.announce({c: clients[c].mask(out[c], UPDATES[c]) for c in clients})
    victim = next(c for c in clients if 0 in server._neighbours[c])
    signed = {
        c: messages.decode(
            clients[c].confirm(messages.encode(messages.Survivors(9, c, lie if c == victim else truth))),
            messages.Signed,
            9,
            c,
            D,
        )
        for c in clients
    }
    near = server._neighbours[victim]
    alive = tuple(c for c in near if c != 0)
    request = messages.Request(9, victim, alive, (0,), tuple((c, signed[c].signature) for c in alive))
    with pytest.raises(BadSignature, match="on the list of survivors"):
        clients[victim].reveal(messages.encode(request))


def test_an_update_of_another_shape_is_refused():
    setup, identities = make_parties()
    for wrong in (np.zeros(D - 1, np.uint32), np.zeros(D, np.int32)):
        with pytest.raises(ValueError, match="the update is"):
            run_round(setup, identities, dict.fromkeys(UPDATES, wrong))
        setup = setup._replace(round=setup.round + 1)
