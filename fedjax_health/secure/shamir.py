"""Shamir's t-of-n sharing of a 32-byte secret over a prime field, in Python integers.

Shamir 1979, "How to share a secret", CACM 22(11). Not constant in time: it runs where the secret is known anyway.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence

SECRET_BYTES = 32
SHARE_BYTES = 33
PRIME = 2**256 + 297  # the least prime above 2^256, so that every 32-byte secret is an element


def split(secret: bytes, threshold: int, points: Sequence[int]) -> dict[int, bytes]:
    """Values at `points` of a random polynomial of degree t - 1 with f(0) = secret: any t tell it, t - 1 tell nothing.

    Args:
      secret: 32 bytes.
      threshold: t, in [1, len(points)].
      points: distinct, in [1, PRIME).

    Returns:
      point -> share of 33 bytes, big-endian.

    Raises:
      ValueError: an argument out of range.
    """
    if len(secret) != SECRET_BYTES:
        raise ValueError(f"a secret of {len(secret)} bytes cannot be shared: give {SECRET_BYTES}")
    if not 1 <= threshold <= len(points):
        raise ValueError(f"a threshold of {threshold} among {len(points)} points: give 1 to {len(points)}")
    if len(set(points)) < len(points) or not all(0 < point < PRIME for point in points):
        raise ValueError("the points of shares must be distinct and in [1, PRIME)")
    coefficients = [int.from_bytes(secret, "big"), *(secrets.randbelow(PRIME) for _ in range(threshold - 1))]
    shares = {}
    for point in points:
        value = 0
        for coefficient in reversed(coefficients):
            value = (value * point + coefficient) % PRIME
        shares[point] = value.to_bytes(SHARE_BYTES, "big")
    return shares


def combine(shares: Mapping[int, bytes], threshold: int) -> bytes:
    """f(0) by Lagrange's formula from the t shares with the least points.

    Args:
      shares: point -> share.
      threshold: t.

    Returns:
      32 bytes; wrong ones, not an error, where a share is wrong but in range: the caller compares with a commitment.

    Raises:
      ValueError: fewer than t shares, a share that is no element, or a secret that does not fit in 32 bytes.
    """
    if len(shares) < threshold:
        raise ValueError(f"{len(shares)} shares cannot tell a secret that takes {threshold}")
    points = sorted(shares)[:threshold]
    values = [int.from_bytes(shares[point], "big") for point in points]
    if any(len(shares[point]) != SHARE_BYTES for point in points) or max(values) >= PRIME:
        raise ValueError("a share is no element of the field")
    secret = 0
    for i, point in enumerate(points):
        top, bottom = 1, 1
        for other in points[:i] + points[i + 1 :]:
            top = top * other % PRIME
            bottom = bottom * (other - point) % PRIME
        secret = (secret + values[i] * top * pow(bottom, -1, PRIME)) % PRIME
    if secret >= 1 << (8 * SECRET_BYTES):
        raise ValueError("the shares tell no 32-byte secret: one of them is wrong")
    return secret.to_bytes(SECRET_BYTES, "big")
