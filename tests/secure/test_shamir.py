"""Shamir's sharing: any t shares tell the secret, t - 1 tell nothing, wrong ones are not the secret."""

from __future__ import annotations

import itertools
import secrets

import numpy as np
import pytest
import scipy.stats

from fedjax_health.secure.shamir import PRIME, combine, split


def probably_prime(n):
    odd, twos = n - 1, 0
    while odd % 2 == 0:
        odd, twos = odd // 2, twos + 1
    for base in range(2, 60):
        x = pow(base, odd, n)
        if x not in (1, n - 1) and not any((x := x * x % n) == n - 1 for _ in range(twos - 1)):
            return False
    return True


def test_the_field_is_one_and_the_least_that_holds_32_bytes():
    assert probably_prime(PRIME)
    assert not any(probably_prime(n) for n in range(2**256, PRIME))


@pytest.mark.parametrize("secret", [bytes(32), b"\xff" * 32, bytes(range(7, 39))], ids=["zeros", "ones", "mixed"])
def test_any_threshold_of_shares_tells_the_secret(secret):
    shares = split(secret, 3, [1, 5, 9, 2**32])
    assert all(len(share) == 33 for share in shares.values())
    for chosen in itertools.combinations(shares, 3):
        assert combine({point: shares[point] for point in chosen}, 3) == secret
    assert combine(split(secret, 1, [4]), 1) == secret


def test_fewer_shares_are_uniform_whatever_the_secret_and_the_secret_itself_is_not():
    low = [int.from_bytes(split(bytes(32), 2, [1, 2])[1], "big") * 16 // PRIME for _ in range(3000)]
    assert scipy.stats.chisquare(np.bincount(low, minlength=16)).pvalue > 1e-6
    plain = [int.from_bytes(split(bytes(32), 1, [1])[1], "big") * 16 // PRIME for _ in range(3000)]
    assert scipy.stats.chisquare(np.bincount(plain, minlength=16)).pvalue < 1e-100


def test_a_wrong_share_does_not_tell_the_secret():
    secret = secrets.token_bytes(32)
    shares = split(secret, 2, [1, 2])
    wrong = shares | {2: (int.from_bytes(shares[2], "big") ^ 1).to_bytes(33, "big")}
    assert combine(wrong, 2) != secret


def test_refusals():
    with pytest.raises(ValueError, match="31 bytes"):
        split(bytes(31), 1, [1])
    for threshold in (0, 3):
        with pytest.raises(ValueError, match="threshold"):
            split(bytes(32), threshold, [1, 2])
    for points in ([1, 1], [0, 1], [1, PRIME]):
        with pytest.raises(ValueError, match="distinct"):
            split(bytes(32), 1, points)
    shares = split(bytes(32), 2, [1, 2])
    with pytest.raises(ValueError, match="1 shares"):
        combine({1: shares[1]}, 2)
    with pytest.raises(ValueError, match="no element"):
        combine({1: shares[1], 2: b"\xff" * 33}, 2)
    with pytest.raises(ValueError, match="no element"):
        combine({1: shares[1], 2: bytes(32)}, 2)
    big = (PRIME - 1).to_bytes(33, "big")
    with pytest.raises(ValueError, match="no 32-byte secret"):
        combine({1: big, 2: big}, 2)
