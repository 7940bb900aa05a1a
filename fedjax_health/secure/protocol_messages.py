"""The protocol's messages as bytes: a header (kind u8, round u64, client u32), then fields of fixed size, big-endian.

The client of the header is the sender of what goes up and the receiver of what comes down. Masked words are little-endian
u32. Everything is length-checked; nothing is interpreted before that.
"""

from __future__ import annotations

import struct
from typing import NamedTuple, TypeVar

from fedjax_health.secure.protocol_errors import MalformedMessage, ReplayedMessage
from fedjax_health.secure.shamir import SHARE_BYTES

HEADER = struct.Struct(">BQI")
KEY_BYTES, SIGNATURE_BYTES = 32, 64
SEALED_BYTES = 12 + 2 * SHARE_BYTES + 16  # nonce, two shares, tag
COMMITMENT_BYTES = 32


class Advertise(NamedTuple):
    """Up, stage 0: a client's two public keys of the round, signed with its registered key."""

    round: int
    client: int
    mask_key: bytes
    share_key: bytes
    signature: bytes


class Neighbour(NamedTuple):
    """A client's advertised keys, as the server passes them on."""

    client: int
    mask_key: bytes
    share_key: bytes
    signature: bytes


class Neighbours(NamedTuple):
    """Down, stage 1: the keys of a client's neighbours."""

    round: int
    client: int
    neighbours: tuple[Neighbour, ...]


class Sealed(NamedTuple):
    """Two shares, encrypted; `client` is the other end: the receiver on the way up, the sender on the way down."""

    client: int
    box: bytes


class Shares(NamedTuple):
    """Up, stage 1: for each neighbour its shares of the mask key and of the self mask's seed."""

    round: int
    client: int
    sealed: tuple[Sealed, ...]


class Inbox(NamedTuple):
    """Down, stage 2: the shares that neighbours sent to a client."""

    round: int
    client: int
    sealed: tuple[Sealed, ...]


class Masked(NamedTuple):
    """Up, stage 2: the masked update and a commitment to the self mask's seed."""

    round: int
    client: int
    commitment: bytes
    words: bytes


class Survivors(NamedTuple):
    """Down, stage 3: everyone whose masked update arrived, in ascending order."""

    round: int
    client: int
    survivors: tuple[int, ...]


class Signed(NamedTuple):
    """Up, stage 3: a signature on the list of survivors; also as passed on, with the signer as `client`."""

    round: int
    client: int
    signature: bytes


class Request(NamedTuple):
    """Down, stage 4: whose seeds and whose mask keys the server wants, and the neighbours' signatures on the list."""

    round: int
    client: int
    alive: tuple[int, ...]
    dropped: tuple[int, ...]
    signatures: tuple[tuple[int, bytes], ...]


class Revealed(NamedTuple):
    """Up, stage 4: shares of the alive neighbours' seeds and of the dropped neighbours' mask keys."""

    round: int
    client: int
    seeds: tuple[tuple[int, bytes], ...]
    mask_keys: tuple[tuple[int, bytes], ...]


Message = Advertise | Neighbours | Shares | Inbox | Masked | Survivors | Signed | Request | Revealed
Kind = TypeVar("Kind", Advertise, Neighbours, Shares, Inbox, Masked, Survivors, Signed, Request, Revealed)
_KINDS = (Advertise, Neighbours, Shares, Inbox, Masked, Survivors, Signed, Request, Revealed)

_KEYS = struct.Struct(f">{KEY_BYTES}s{KEY_BYTES}s{SIGNATURE_BYTES}s")
_NEIGHBOUR = struct.Struct(f">I{KEY_BYTES}s{KEY_BYTES}s{SIGNATURE_BYTES}s")
_SEALED = struct.Struct(f">I{SEALED_BYTES}s")
_ID = struct.Struct(">I")
_SIGNATURE = struct.Struct(f">I{SIGNATURE_BYTES}s")
_SHARE = struct.Struct(f">I{SHARE_BYTES}s")
_COUNTS = struct.Struct(">III")


def _pack(record: struct.Struct, rows: tuple) -> bytes:
    return b"".join(record.pack(*row) for row in rows)


def _ids(ids: tuple[int, ...]) -> bytes:
    return b"".join(map(_ID.pack, ids))


def encode(message: Message) -> bytes:
    """Bytes of a message; `decode` is its inverse."""
    head = HEADER.pack(_KINDS.index(type(message)), message.round, message.client)
    match message:
        case Advertise():
            return head + _KEYS.pack(*message[2:])
        case Neighbours():
            return head + _pack(_NEIGHBOUR, message.neighbours)
        case Shares() | Inbox():
            return head + _pack(_SEALED, message.sealed)
        case Masked():
            return head + message.commitment + message.words
        case Survivors():
            return head + _ids(message.survivors)
        case Signed():
            return head + message.signature
        case Request():
            counts = _COUNTS.pack(len(message.alive), len(message.dropped), len(message.signatures))
            return head + counts + _ids(message.alive + message.dropped) + _pack(_SIGNATURE, message.signatures)
        case Revealed():
            counts = _COUNTS.pack(len(message.seeds), len(message.mask_keys), 0)
            return head + counts + _pack(_SHARE, message.seeds + message.mask_keys)


def _rows(record: struct.Struct, body: bytes, count: int | None = None) -> list[tuple]:
    if len(body) % record.size or (count is not None and len(body) != count * record.size):
        raise MalformedMessage(f"a list of {len(body)} bytes holds no whole number of records of {record.size}")
    return list(record.iter_unpack(body))


def _exactly(body: bytes, size: int, what: str) -> bytes:
    if len(body) != size:
        raise MalformedMessage(f"{what} has {len(body)} bytes, not {size}")
    return body


def _counted(body: bytes) -> tuple[tuple[int, int, int], bytes]:
    if len(body) < _COUNTS.size:
        raise MalformedMessage(f"a body of {len(body)} bytes holds no counts")
    return _COUNTS.unpack_from(body), body[_COUNTS.size :]


def decode(data: bytes, kind: type[Kind], round_id: int, client: int, words: int) -> Kind:
    """Reads a message that must be of this kind, round and client.

    Args:
      data: as it arrived.
      kind: class of the message that is due.
      round_id: of the running round.
      client: that it must come from (up) or be for (down).
      words: d, length of a masked update.

    Raises:
      MalformedMessage: wrong length, kind or client.
      ReplayedMessage: another round's.
    """
    if len(data) < HEADER.size:
        raise MalformedMessage(f"a message of {len(data)} bytes has no header")
    found, of_round, party = HEADER.unpack_from(data)
    if found >= len(_KINDS) or _KINDS[found] is not kind:
        raise MalformedMessage(f"client {client} expected {kind.__name__}, not a message of kind {found}")
    if of_round != round_id:
        raise ReplayedMessage(f"a {kind.__name__} of round {of_round} came in round {round_id}")
    if party != client:
        raise MalformedMessage(f"a {kind.__name__} of client {party} came in place of client {client}'s")
    return kind(of_round, party, *_body(kind, data[HEADER.size :], words))


def _body(kind: type, body: bytes, words: int) -> tuple:
    if kind is Advertise:
        return _KEYS.unpack(_exactly(body, _KEYS.size, "Advertise"))
    if kind is Neighbours:
        return (tuple(Neighbour(*row) for row in _rows(_NEIGHBOUR, body)),)
    if kind in (Shares, Inbox):
        return (tuple(Sealed(*row) for row in _rows(_SEALED, body)),)
    if kind is Masked:
        _exactly(body, COMMITMENT_BYTES + 4 * words, "Masked")
        return body[:COMMITMENT_BYTES], body[COMMITMENT_BYTES:]
    if kind is Survivors:
        return (tuple(row[0] for row in _rows(_ID, body)),)
    if kind is Signed:
        return (_exactly(body, SIGNATURE_BYTES, "Signed"),)
    if kind is Request:
        (alive, dropped, signatures), rest = _counted(body)
        cut = _ID.size * (alive + dropped)
        ids = tuple(row[0] for row in _rows(_ID, rest[:cut], alive + dropped))
        return ids[:alive], ids[alive:], tuple(_rows(_SIGNATURE, rest[cut:], signatures))
    (seeds, keys, _), rest = _counted(body)
    shares = tuple(_rows(_SHARE, rest, seeds + keys))
    return shares[:seeds], shares[seeds:]


def message_bytes(d: int, degree: float, sharing: float, signed: float, survivors: float) -> dict[str, float]:
    """Bytes of a client that stays to the end, in closed form; expected ones where counts are means.

    up = 141 + (13 + 98 k) + (45 + 4 d) + 77 + (25 + 37 s), down = (13 + 132 k) + (13 + 98 s) + (13 + 4 n) + (25 + 4 s +
    68 c): linear in k and d, apart from 4 bytes a survivor.

    Args:
      d: words of an update.
      degree: k, neighbours whose keys came.
      sharing: s, of them those that sent shares.
      signed: c, of them those that signed the list.
      survivors: n, all clients whose masked update arrived.

    Returns:
      "up" and "down".
    """
    head, entry = HEADER.size, _ID.size
    up = (head + _KEYS.size) + (head + _SEALED.size * degree) + (head + COMMITMENT_BYTES + 4 * d)
    up += (head + SIGNATURE_BYTES) + (head + _COUNTS.size + _SHARE.size * sharing)
    down = (head + _NEIGHBOUR.size * degree) + (head + _SEALED.size * sharing) + (head + entry * survivors)
    down += head + _COUNTS.size + entry * sharing + _SIGNATURE.size * signed
    return {"up": up, "down": down}
