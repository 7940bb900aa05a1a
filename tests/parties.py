"""Twelve clients of a small round of the protocol."""

from __future__ import annotations

import numpy as np

from fedjax_health.secure.protocol_client import Setup, make_identity

CLIENTS, DEGREE, THRESHOLD, D = 12, 6, 4, 20
VICTIM = 3
UPDATES = {c: np.full(D, c, np.uint32) for c in range(CLIENTS)}
UP, DOWN = True, False


def make_parties(round_id=5):
    identities = {c: make_identity(c) for c in range(CLIENTS)}
    registry = {c: identity.verifying_key() for c, identity in identities.items()}
    return Setup(round_id, DEGREE, THRESHOLD, D, registry), identities
