"""The client of the protocol: one method a stage; it raises before it sends anything that could be used against it.

Secrets of a round live in `Client`, which serves one round and each stage once; what outlives rounds is the `Identity`.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from fedjax_health.secure import protocol_crypto as crypto
from fedjax_health.secure import protocol_messages as messages
from fedjax_health.secure import shamir
from fedjax_health.secure.graph import check_degree
from fedjax_health.secure.protocol_errors import (
    BadSignature,
    InconsistentLists,
    MalformedMessage,
    OverlappingLists,
    ReplayedMessage,
    TooFewSurvivors,
    WrongKey,
)
from fedjax_health.types import UserError


class Setup(NamedTuple):
    """What all parties of a round know and trust beforehand.

    Attributes:
      round: number of the round, in [0, 2^64), greater than of any before.
      degree: k, neighbours of a client, even.
      threshold: t > k / 2: with fewer, a server that tells halves of a neighbourhood different things has both secrets.
      words: d, length of an update.
      registry: client id (u32) -> Ed25519 public key, 32 bytes.
    """

    round: int
    degree: int
    threshold: int
    words: int
    registry: Mapping[int, bytes]


def check_setup(setup: Setup) -> None:
    """Checks a setup.

    Raises:
      UserError: degree, threshold or round out of range, or an id that is no u32.
    """
    check_degree(setup.degree, setup.threshold, len(setup.registry))
    if not 2 * setup.threshold > setup.degree:
        raise UserError(
            f"a threshold of {setup.threshold} among {setup.degree} neighbours lets a lying server learn both secrets of a "
            f"client: give more than {setup.degree // 2}"
        )
    if not 0 <= setup.round < 2**64:
        raise UserError(f"secure aggregation in round {setup.round}: count rounds from 0 up to 2^64 - 1")
    if not all(0 <= client < 2**32 for client in setup.registry):
        raise UserError("client ids of secure aggregation must lie in [0, 2^32): renumber the clients")


class Identity:
    """What a client keeps between rounds: its id, its signing key, and the last round it joined."""

    def __init__(self, client: int, signing_key: bytes):
        self.client = client
        self.signing_key = signing_key
        self.last_round = -1

    def verifying_key(self) -> bytes:
        """Ed25519 public key for the registry, 32 bytes."""
        return crypto.verifying_bytes(self.signing_key)

    def join(self, setup: Setup) -> Client:
        """Starts a round.

        Raises:
          ReplayedMessage: a round that is not newer than the last one.
          WrongKey: the registry does not hold this client's key.
        """
        check_setup(setup)
        if setup.round <= self.last_round:
            raise ReplayedMessage(
                f"client {self.client} has joined round {self.last_round} and is asked for {setup.round}"
            )
        if setup.registry.get(self.client) != self.verifying_key():
            raise WrongKey(f"the registry does not hold the key of client {self.client}")
        self.last_round = setup.round
        return Client(setup, self.client, self.signing_key)


def make_identity(client: int) -> Identity:
    """An identity with a fresh signing key; its public half belongs in the registry."""
    return Identity(client, secrets.token_bytes(messages.KEY_BYTES))


class Client:
    """One client in one round; methods are called once each, in the order of the stages, with what the server sent.

    Every method raises `ProtocolError` subclasses, after which the client answers nothing more.
    """

    def __init__(self, setup: Setup, client: int, signing_key: bytes):
        self._setup, self._id, self._signing_key = setup, client, signing_key
        self._mask_key, self._share_key = (secrets.token_bytes(messages.KEY_BYTES) for _ in range(2))
        self._seed = secrets.token_bytes(shamir.SECRET_BYTES)
        self._stage = 0
        self._neighbours: dict[int, messages.Neighbour] = {}
        self._held: dict[int, tuple[bytes, bytes]] = {}
        self._survivors: tuple[int, ...] = ()

    def _enter(self, stage: int) -> None:
        if self._stage != stage:
            due = f"stage {self._stage} is due" if self._stage >= 0 else "it has refused to go on"
            raise ReplayedMessage(f"client {self._id} is asked for stage {stage} when {due}")
        # none until the stage has succeeded, so that a client that refused answers nothing more
        self._stage = -1

    def _read(self, data: bytes, kind: type[messages.Kind]) -> messages.Kind:
        return messages.decode(data, kind, self._setup.round, self._id, self._setup.words)

    def advertise(self) -> bytes:
        """Stage 0: two fresh public keys, signed. Returns an `Advertise`."""
        self._enter(0)
        mask_key, share_key = crypto.public_bytes(self._mask_key), crypto.public_bytes(self._share_key)
        signed = crypto.keys_context(self._setup.round, self._id, mask_key, share_key)
        signature = crypto.sign(self._signing_key, signed)
        self._stage = 1
        return messages.encode(messages.Advertise(self._setup.round, self._id, mask_key, share_key, signature))

    def share(self, data: bytes) -> bytes:
        """Stage 1: checks the neighbours' keys, shares both secrets among them.

        Args:
          data: `Neighbours`.

        Returns:
          `Shares`.

        Raises:
          TooFewSurvivors: not exactly k neighbours.
          WrongKey: a neighbour that is not registered, repeats, is this client, or has a weak key.
          BadSignature: keys that their owner did not sign for this round.
        """
        self._enter(1)
        setup, listed = self._setup, self._read(data, messages.Neighbours).neighbours
        if len(listed) != setup.degree:
            raise TooFewSurvivors(f"client {self._id} is given {len(listed)} neighbours, not {setup.degree}")
        for row in listed:
            if row.client not in setup.registry or row.client == self._id or row.client in self._neighbours:
                raise WrongKey(f"client {self._id} is given neighbour {row.client}: unknown, repeated, or itself")
            signed = crypto.keys_context(setup.round, row.client, row.mask_key, row.share_key)
            crypto.verify(setup.registry[row.client], row.signature, signed, f"client {row.client}'s keys")
            self._neighbours[row.client] = row
        points = [client + 1 for client in self._neighbours]
        keys = shamir.split(self._mask_key, setup.threshold, points)
        seeds = shamir.split(self._seed, setup.threshold, points)
        sealed = []
        for client, row in self._neighbours.items():
            # the context is the key's and the associated data: of this direction, in this round
            associated = crypto.context(b"share", setup.round, self._id, client)
            key = crypto.agree(self._share_key, row.share_key, associated)
            sealed.append(messages.Sealed(client, crypto.seal(key, keys[client + 1] + seeds[client + 1], associated)))
        self._stage = 2
        return messages.encode(messages.Shares(setup.round, self._id, tuple(sealed)))

    def mask(self, data: bytes, q: np.ndarray) -> bytes:
        """Stage 2: opens the neighbours' shares, masks the update with those that sent some.

        Args:
          data: `Inbox`.
          q: u32[d], the encoded update (see `ring.encode`).

        Returns:
          `Masked`.

        Raises:
          ValueError: q of another shape or dtype.
          TooFewSurvivors: fewer than t neighbours sent shares.
          WrongKey: shares of one that is no neighbour, or twice of one.
          TamperedShare: a share that does not authenticate.
        """
        setup = self._setup
        if q.shape != (setup.words,) or q.dtype != np.uint32:
            raise ValueError(f"the update is {q.dtype}[{q.shape}], not uint32[{setup.words}]")
        self._enter(2)
        for box in self._read(data, messages.Inbox).sealed:
            if box.client not in self._neighbours or box.client in self._held:
                raise WrongKey(f"client {self._id} is given shares of {box.client}: no neighbour, or a second time")
            associated = crypto.context(b"share", setup.round, box.client, self._id)
            key = crypto.agree(self._share_key, self._neighbours[box.client].share_key, associated)
            plain = crypto.unseal(key, box.box, associated)
            self._held[box.client] = plain[: shamir.SHARE_BYTES], plain[shamir.SHARE_BYTES :]
        if len(self._held) < setup.threshold:
            raise TooFewSurvivors(
                f"client {self._id} has shares of {len(self._held)} neighbours, not {setup.threshold}"
            )
        words = q + crypto.self_mask(self._seed, setup.round, self._id, setup.words)
        for client in self._held:
            public = self._neighbours[client].mask_key
            words += crypto.pair_mask(self._mask_key, public, setup.round, self._id, client, setup.words)
        committed = crypto.commitment(self._seed, setup.round, self._id)
        self._stage = 3
        return messages.encode(messages.Masked(setup.round, self._id, committed, words.astype("<u4").tobytes()))

    def confirm(self, data: bytes) -> bytes:
        """Stage 3: signs the one list of survivors that this client will act on.

        Args:
          data: `Survivors`.

        Returns:
          `Signed`.

        Raises:
          InconsistentLists: not ascending, without this client, or with one that is unknown or a neighbour that sent no
            shares.
          TooFewSurvivors: fewer than t neighbours survive.
        """
        self._enter(3)
        survivors = self._read(data, messages.Survivors).survivors
        listed = set(survivors)
        if list(survivors) != sorted(listed) or self._id not in listed or not listed <= set(self._setup.registry):
            raise InconsistentLists(
                f"client {self._id} is given a list of survivors that is unordered, strange or without it"
            )
        if silent := listed & (set(self._neighbours) - set(self._held)):
            raise InconsistentLists(f"client {self._id} is told that {min(silent)} survives, which shared nothing")
        if len(listed & set(self._held)) < self._setup.threshold:
            raise TooFewSurvivors(
                f"client {self._id} has too few surviving neighbours: {len(listed & set(self._held))}"
            )
        self._survivors = survivors
        signature = crypto.sign(self._signing_key, crypto.survivors_context(self._setup.round, survivors))
        self._stage = 4
        return messages.encode(messages.Signed(self._setup.round, self._id, signature))

    def reveal(self, data: bytes) -> bytes:
        """Stage 4: one share of each neighbour: of the seed if it survived, of the mask key if it was lost.

        Args:
          data: `Request`.

        Returns:
          `Revealed`.

        Raises:
          OverlappingLists: a client both alive and dropped.
          InconsistentLists: lists that are not those of the survivors that this client signed.
          TooFewSurvivors: fewer than t surviving neighbours' signatures.
          BadSignature: one that does not verify on that same list, or is of no surviving neighbour.
          MalformedMessage: two signatures of one client.
        """
        self._enter(4)
        setup, request = self._setup, self._read(data, messages.Request)
        if both := set(request.alive) & set(request.dropped):
            raise OverlappingLists(f"client {self._id} is asked for both secrets of client {min(both)}")
        alive = {client for client in self._held if client in self._survivors}
        dropped = set(self._held) - alive
        if sorted(request.alive) != sorted(alive) or sorted(request.dropped) != sorted(dropped):
            raise InconsistentLists(
                f"client {self._id} is asked for shares that its list of survivors does not call for"
            )
        signers = [client for client, _ in request.signatures]
        if len(set(signers)) < len(signers):
            raise MalformedMessage(f"client {self._id} is given two signatures of one client")
        if len(alive & set(signers)) < setup.threshold:
            raise TooFewSurvivors(
                f"client {self._id} is shown {len(alive & set(signers))} signatures, not {setup.threshold}"
            )
        signed = crypto.survivors_context(setup.round, self._survivors)
        for client, signature in request.signatures:
            if client not in alive:
                raise BadSignature(f"client {self._id} is shown a signature of {client}, no surviving neighbour")
            crypto.verify(setup.registry[client], signature, signed, f"client {client} on the list of survivors")
        seeds = tuple((client, self._held[client][1]) for client in request.alive)
        keys = tuple((client, self._held[client][0]) for client in request.dropped)
        self._stage = 5
        return messages.encode(messages.Revealed(setup.round, self._id, seeds, keys))
