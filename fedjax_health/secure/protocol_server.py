"""The server of the protocol: it passes messages on, keeps the graph, and removes the masks that are left in the sum."""

from __future__ import annotations

import secrets
from collections.abc import Mapping

import numpy as np

from fedjax_health.secure import protocol_crypto as crypto
from fedjax_health.secure import protocol_messages as messages
from fedjax_health.secure import shamir
from fedjax_health.secure.protocol_client import Setup, check_setup
from fedjax_health.secure.protocol_errors import (
    InconsistentLists,
    MalformedMessage,
    ReplayedMessage,
    TamperedShare,
    TooFewSurvivors,
    WrongKey,
)

Mail = Mapping[int, bytes]


class Server:
    """The server of one round: each method takes what arrived of one stage and gives what goes down for the next.

    A client whose message is missing has dropped out; which ones have is known only by that. Every method raises
    `ProtocolError` subclasses, which end the round without a sum.
    """

    def __init__(self, setup: Setup):
        check_setup(setup)
        self._setup = setup
        self._stage = 0
        self._keys: dict[int, messages.Neighbour] = {}
        self._neighbours: dict[int, list[int]] = {}
        self._sharing: set[int] = set()
        self._masked: dict[int, messages.Masked] = {}
        self._signed: set[int] = set()

    def _open(self, stage: int, mail: Mail, kind: type[messages.Kind], due: set[int]) -> dict[int, messages.Kind]:
        if self._stage != stage:
            raise ReplayedMessage(f"the server is given stage {stage} when stage {self._stage} is due")
        if strange := set(mail) - due:
            raise MalformedMessage(f"client {min(strange)} answers a stage that it has no part in")
        opened = {}
        for client in sorted(mail):
            opened[client] = messages.decode(mail[client], kind, self._setup.round, client, self._setup.words)
        self._stage = stage + 1
        return opened

    def _circle(self, clients: list[int]) -> dict[int, list[int]]:
        order = list(clients)
        secrets.SystemRandom().shuffle(order)
        n, half = len(order), self._setup.degree // 2
        offsets = [offset for offset in range(-half, half + 1) if offset]
        return {client: [order[(i + offset) % n] for offset in offsets] for i, client in enumerate(order)}

    def introduce(self, mail: Mail) -> dict[int, bytes]:
        """After stage 0: draws the ring over those who advertised keys.

        Args:
          mail: client -> `Advertise`.

        Returns:
          client -> `Neighbours`.

        Raises:
          TooFewSurvivors: not more than k clients.
          BadSignature: a client's keys are not signed by its registered key.
        """
        setup = self._setup
        for client, row in self._open(0, mail, messages.Advertise, set(setup.registry)).items():
            signed = crypto.keys_context(setup.round, client, row.mask_key, row.share_key)
            crypto.verify(setup.registry[client], row.signature, signed, f"client {client}'s keys")
            self._keys[client] = messages.Neighbour(client, row.mask_key, row.share_key, row.signature)
        if len(self._keys) <= setup.degree:
            raise TooFewSurvivors(f"{len(self._keys)} clients advertise keys; {setup.degree} neighbours take more")
        self._neighbours = self._circle(list(self._keys))
        return {
            client: messages.encode(messages.Neighbours(setup.round, client, tuple(self._keys[v] for v in row)))
            for client, row in self._neighbours.items()
        }

    def route(self, mail: Mail) -> dict[int, bytes]:
        """After stage 1: passes each share on to its receiver, if that one shared as well.

        Args:
          mail: client -> `Shares`.

        Returns:
          client -> `Inbox`.

        Raises:
          MalformedMessage: shares that are not for exactly the sender's neighbours.
        """
        inbox: dict[int, list[messages.Sealed]] = {client: [] for client in mail}
        for sender, row in self._open(1, mail, messages.Shares, set(self._keys)).items():
            if sorted(box.client for box in row.sealed) != sorted(self._neighbours[sender]):
                raise MalformedMessage(f"client {sender} sends shares to others than its neighbours")
            for box in row.sealed:
                if box.client in inbox:
                    inbox[box.client].append(messages.Sealed(sender, box.box))
        self._sharing = set(mail)
        return {c: messages.encode(messages.Inbox(self._setup.round, c, tuple(row))) for c, row in inbox.items()}

    def announce(self, mail: Mail) -> dict[int, bytes]:
        """After stage 2: tells the survivors who they are.

        Args:
          mail: client -> `Masked`.

        Returns:
          client -> `Survivors`.

        Raises:
          TooFewSurvivors: a secret is needed that fewer than t surviving neighbours hold.
        """
        self._masked = self._open(2, mail, messages.Masked, self._sharing)
        self._check_quorum(set(self._masked))
        survivors = tuple(sorted(self._masked))
        return {c: messages.encode(messages.Survivors(self._setup.round, c, survivors)) for c in survivors}

    def _needed(self) -> set[int]:
        """Survivors, for their seeds, and those lost after sharing that a survivor has a mask with, for their mask keys."""
        lost = self._sharing - set(self._masked)
        return set(self._masked) | {v for v in lost if any(u in self._masked for u in self._neighbours[v])}

    def _check_quorum(self, present: set[int]) -> None:
        if not present:
            raise TooFewSurvivors("nobody is left")
        for client in sorted(self._needed()):
            holders = sum(v in present for v in self._neighbours[client])
            if holders < self._setup.threshold:
                raise TooFewSurvivors(
                    f"{holders} clients are left that hold a share of client {client}'s secret, not {self._setup.threshold}"
                )

    def request(self, mail: Mail) -> dict[int, bytes]:
        """After stage 3: asks those who signed for the shares that the sum takes.

        Args:
          mail: client -> `Signed`.

        Returns:
          client -> `Request`.

        Raises:
          BadSignature: a signature that is not on the list of survivors.
          TooFewSurvivors: as in `announce`, of those who signed.
        """
        setup, survivors = self._setup, tuple(sorted(self._masked))
        signed = self._open(3, mail, messages.Signed, set(survivors))
        for client, row in signed.items():
            payload = crypto.survivors_context(setup.round, survivors)
            crypto.verify(setup.registry[client], row.signature, payload, f"client {client} on the list of survivors")
        self._check_quorum(set(signed))
        self._signed = set(signed)
        out = {}
        for client in signed:
            shared = [v for v in self._neighbours[client] if v in self._sharing]
            alive = tuple(v for v in shared if v in self._masked)
            dropped = tuple(v for v in shared if v not in self._masked)
            signatures = tuple((v, signed[v].signature) for v in alive if v in signed)
            out[client] = messages.encode(messages.Request(setup.round, client, alive, dropped, signatures))
        return out

    def finish(self, mail: Mail) -> np.ndarray:
        """After stage 4: reconstructs the secrets that are needed, and takes their masks out of the sum.

        Args:
          mail: client -> `Revealed`.

        Returns:
          u32[d], the sum of the survivors' updates modulo 2^32.

        Raises:
          TooFewSurvivors: fewer than t shares of a secret.
          TamperedShare: shares that do not tell the seed that was committed to.
          WrongKey: shares that do not tell the private half of the advertised mask key.
          InconsistentLists: a client reveals other shares than it was asked for.
        """
        setup = self._setup
        opened = self._open(4, mail, messages.Revealed, self._signed)
        self._check_quorum(set(opened))
        found: dict[int, dict[int, bytes]] = {client: {} for client in self._needed()}
        for sender, row in opened.items():
            asked = sorted(v for v in self._neighbours[sender] if v in self._sharing)
            alive = sorted(v for v, _ in row.seeds)
            if sorted([*alive, *(v for v, _ in row.mask_keys)]) != asked or not set(alive) <= set(self._masked):
                raise InconsistentLists(f"client {sender} reveals other shares than it was asked for")
            if any(v in self._masked for v, _ in row.mask_keys):
                raise InconsistentLists(f"client {sender} reveals the mask key of a survivor")
            for client, share in row.seeds + row.mask_keys:
                found[client][sender + 1] = share
        total = np.zeros(setup.words, np.uint32)
        for client in sorted(self._masked):
            total += np.frombuffer(self._masked[client].words, "<u4")
            total -= crypto.self_mask(self._seed(client, found[client]), setup.round, client, setup.words)
        for client in sorted(set(found) - set(self._masked)):
            private = self._mask_key(client, found[client])
            for other in self._neighbours[client]:
                if other in self._masked:
                    # what the lost client would have added takes away what its survivor added
                    public = self._keys[other].mask_key
                    total += crypto.pair_mask(private, public, setup.round, client, other, setup.words)
        return total

    def _secret(self, client: int, shares: dict[int, bytes]) -> bytes:
        try:
            return shamir.combine(shares, self._setup.threshold)
        except ValueError as error:
            raise TamperedShare(f"the shares of client {client}'s secret do not combine: {error}") from error

    def _seed(self, client: int, shares: dict[int, bytes]) -> bytes:
        seed = self._secret(client, shares)
        if crypto.commitment(seed, self._setup.round, client) != self._masked[client].commitment:
            raise TamperedShare(f"the shares of client {client}'s seed tell another one than it committed to")
        return seed

    def _mask_key(self, client: int, shares: dict[int, bytes]) -> bytes:
        private = self._secret(client, shares)
        if crypto.public_bytes(private) != self._keys[client].mask_key:
            raise WrongKey(f"the shares of client {client}'s mask key tell another one than it advertised")
        return private
