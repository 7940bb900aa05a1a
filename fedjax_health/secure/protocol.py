"""A round of secure aggregation between real parties: Bonawitz et al. 2017 on the ring graph of Bell et al. 2020.

Bonawitz et al. 2017, "Practical secure aggregation for privacy-preserving machine learning", CCS, eprint 2017/281, with the
consistency check of its section 6; the graph of Bell et al. 2020, eprint 2020/704. Stages: advertise keys, share secrets,
send the masked update, sign the list of survivors, reveal one share a neighbour.

What it assumes: clients know each other's signing keys beforehand and reach the server over authenticated channels; the
server draws the ring honestly (it may lie in everything else: semi-malicious); in every neighbourhood fewer than 2t - k
clients collude with it. A malicious client can stop a round or falsify its own update, and is named where it shows.
"""

from __future__ import annotations

import collections
import time
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

import numpy as np

from fedjax_health.secure.protocol_client import Client, Identity, Setup
from fedjax_health.secure.protocol_server import Server

STAGES = ("keys", "shares", "masked", "signed", "revealed")
Network = Callable[[str, bool, int, bytes], bytes | None]


def perfect(stage: str, up: bool, client: int, message: bytes) -> bytes | None:
    """A network that delivers everything unchanged."""
    del stage, up, client
    return message


def losing(lost: Mapping[str, Iterable[int]]) -> Network:
    """A network that loses what these clients send up at a stage; losing it is dropping out just before that stage.

    Args:
      lost: name in STAGES -> clients.
    """
    sets = {stage: frozenset(clients) for stage, clients in lost.items()}

    def network(stage: str, up: bool, client: int, message: bytes) -> bytes | None:
        return None if up and client in sets.get(stage, ()) else message

    return network


class Round(NamedTuple):
    """What a round gave and cost.

    Attributes:
      total: u32[d], sum of the survivors' updates modulo 2^32.
      survivors: ids of those in the sum, ascending.
      finished: ids of those that stayed to the end, ascending.
      bytes_up, bytes_down: client -> bytes sent and received.
      client_seconds: client -> seconds of its own work.
      server_seconds: of the server's work.
    """

    total: np.ndarray
    survivors: tuple[int, ...]
    finished: tuple[int, ...]
    bytes_up: dict[int, int]
    bytes_down: dict[int, int]
    client_seconds: dict[int, float]
    server_seconds: float


def run_round(
    setup: Setup, identities: Mapping[int, Identity], updates: Mapping[int, np.ndarray], network: Network = perfect
) -> Round:
    """Runs all parties in this process, with every message through the network as bytes.

    Args:
      setup: of the round.
      identities: client -> identity, of those who are asked; each joins.
      updates: client -> u32[d].
      network: (stage, up, client, message) -> message as it arrives; None loses it, and the client has dropped out.

    Raises:
      ProtocolError: a party refused to go on; there is no sum.
    """
    up, down = collections.Counter(), collections.Counter()
    seconds: dict[int, float] = collections.defaultdict(float)
    server, server_seconds = Server(setup), 0.0
    clients: dict[int, Client] = {}

    def answers(stage: str, act: Callable[[int], bytes], asked: Iterable[int]) -> dict[int, bytes]:
        arrived = {}
        for client in asked:
            start = time.perf_counter()
            message = act(client)
            seconds[client] += time.perf_counter() - start
            up[client] += len(message)
            if (delivered := network(stage, True, client, message)) is not None:
                arrived[client] = delivered
        return arrived

    def ask(stage: str, out: Mapping[int, bytes]) -> dict[int, bytes]:
        arrived = {}
        for client, message in out.items():
            down[client] += len(message)
            if (delivered := network(stage, False, client, message)) is not None:
                arrived[client] = delivered
        return arrived

    def first(client: int) -> bytes:
        clients[client] = identities[client].join(setup)
        return clients[client].advertise()

    steps = (
        (server.introduce, lambda c, data: clients[c].share(data)),
        (server.route, lambda c, data: clients[c].mask(data, updates[c])),
        (server.announce, lambda c, data: clients[c].confirm(data)),
        (server.request, lambda c, data: clients[c].reveal(data)),
    )
    arrived = answers(STAGES[0], first, identities)
    survivors: tuple[int, ...] = ()
    for stage, (serve, act) in zip(STAGES[1:], steps, strict=True):
        start = time.perf_counter()
        out = serve(arrived)
        server_seconds += time.perf_counter() - start
        mail = ask(stage, out)
        arrived = answers(stage, lambda c, act=act, mail=mail: act(c, mail[c]), mail)
        if stage == "masked":
            survivors = tuple(sorted(arrived))
    start = time.perf_counter()
    total = server.finish(arrived)
    server_seconds += time.perf_counter() - start
    return Round(total, survivors, tuple(sorted(arrived)), dict(up), dict(down), dict(seconds), server_seconds)
