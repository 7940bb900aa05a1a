"""Why a party of secure aggregation refuses to go on; it raises before it sends, so that a refusal reveals nothing."""

from __future__ import annotations


class ProtocolError(Exception):
    """A round that must not go on: one sentence that names the round's party and what is wrong."""


class MalformedMessage(ProtocolError):
    """Bytes of a wrong length, kind, order or addressee."""


class BadSignature(ProtocolError):
    """A signature that the registered key does not verify on these keys or this list of survivors."""


class TamperedShare(ProtocolError):
    """A share that does not decrypt or authenticate, or shares that do not tell the secret that was committed to."""


class ReplayedMessage(ProtocolError):
    """A message of another round, or a second one of a stage that is over."""


class OverlappingLists(ProtocolError):
    """A client listed as surviving and as dropped: both of its secrets would be revealed."""


class InconsistentLists(ProtocolError):
    """A list that contradicts what this client has seen or signed."""


class WrongKey(ProtocolError):
    """A public key that is unknown, weak, or not the one that a reconstructed private key belongs to."""


class TooFewSurvivors(ProtocolError):
    """Fewer clients, or fewer signatures on one list, than the threshold or the graph needs."""
