"""Every mechanism keeps the contracts of the noise and of the bound, for cohorts of 1 and 100, on one device and four."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import pytest
from privacy import mechanisms
from privacy.laws import ContractError
from privacy.mechanisms import MECHANISMS, build, noise, sensitivity

from fedjax_health import build_federation, tree
from fedjax_health.models import record
from fedjax_health.transforms import distributed, local
from fedjax_health.transforms.base import client_identity
from fedjax_health.transforms.clip import make_clip
from fedjax_health.types import UserError

SECURE = ("secure", "distributed")
SINGLE = [name for name in MECHANISMS if name not in SECURE]
CLIENTS = {1: 6, 100: 240}
FEW = 24  # federations of a hundred clients


@functools.lru_cache(maxsize=1)
def parts_of(name: str, cohort: int, devices: int = 1) -> Any:
    return build(MECHANISMS[name], cohort, CLIENTS[cohort], devices)


def check_noise(name: str, cohort: int, devices: int, seed: int, n: int) -> None:
    found = noise(MECHANISMS[name], parts_of(name, cohort, devices), seed, n)
    assert found["p of scale"] > 1e-3 and found["p of a wrong scale"] < 1e-6
    assert 0.95 < found["ratio"] < 1.05


def check_sensitivity(name: str, cohort: int, seed: int, n: int, moved: float) -> None:
    found = sensitivity(MECHANISMS[name], parts_of(name, cohort), seed, n)
    assert found["neighbours"] >= 1000 and found["moved"] > moved
    assert found["ratio"] > 0.99  # the bound is met, so that the contract is no empty promise


@pytest.mark.parametrize("name", SINGLE)
def test_one_client_a_round(name):
    check_noise(name, 1, 1, 0, mechanisms.N)
    check_sensitivity(name, 1, 0, mechanisms.N, 0.1)


@pytest.mark.parametrize("name", MECHANISMS)
def test_a_hundred_clients_a_round(name):
    check_noise(name, 100, 1, 0, FEW)


@pytest.mark.parametrize("name", SECURE)
def test_a_secure_sum_of_one_client_is_none(name):
    with pytest.raises(UserError, match="a ring graph of degree 8 over 6 clients"):
        parts_of(name, 1)


@pytest.mark.slow
@pytest.mark.parametrize("name", MECHANISMS)
@pytest.mark.parametrize("cohort", [1, 100])
def test_on_four_devices(name, cohort):
    if name not in SECURE or cohort > 1:
        check_noise(name, cohort, 4, 1, FEW if cohort > 1 else 150)


@pytest.mark.slow
@pytest.mark.parametrize("name", SECURE)
def test_neighbours_of_a_secure_sum(name):
    check_sensitivity(name, 100, 0, mechanisms.N, 0.3)


def half_the_noise(patch: pytest.MonkeyPatch) -> None:
    real = tree.normal_like
    patch.setattr(tree, "normal_like", lambda key, like: tree.scale(jnp.float32(0.5), real(key, like)))


def half_the_shares(patch: pytest.MonkeyPatch) -> None:
    real = distributed.discrete_gaussian
    patch.setattr(distributed, "discrete_gaussian", lambda key, size, deviation: real(key, size, deviation // 2))


def no_clip(patch: pytest.MonkeyPatch) -> None:
    open_ = make_clip()._replace(client=client_identity)
    for module in (build_federation, local):
        patch.setattr(module, "make_clip", lambda: open_)
    patch.setattr(record, "clip_factors", lambda square, bound, mask: jnp.where(mask, jnp.ones_like(square), 0.0))


def forgetful(patch: pytest.MonkeyPatch) -> None:
    real = build_federation.make_correlated

    def make(rounds: int, bands: int) -> Any:
        made = real(rounds, bands)
        return made._replace(step=lambda past, *rest: (made.step(jnp.zeros_like(past), *rest)[0], past))

    patch.setattr(build_federation, "make_correlated", make)


def bit_beside_the_update(patch: pytest.MonkeyPatch) -> None:
    """An update of the whole unit's length beside the bit, and no clip behind: longer than the unit together."""
    real = build_federation.with_clip_norm

    def longer(*given: Any) -> Any:
        made = real(*given)

        def final(*args: Any) -> Any:
            sent, slot = made.final(*args)
            return sent._replace(update=tree.scale(jnp.float32(mechanisms.SCALE), sent.update)), slot

        return made._replace(final=final)

    no_clip(patch)
    patch.setattr(build_federation, "with_clip_norm", longer)


BUGS: list[tuple[str, Callable[[pytest.MonkeyPatch], None], str]] = [
    *((name, half_the_noise, "noise") for name in SINGLE),
    *((name, no_clip, "sensitivity") for name in ("local", "record", "correlated")),
    ("distributed", half_the_shares, "noise"),
    ("distributed", no_clip, "sensitivity"),
    ("correlated", forgetful, "noise"),
    ("adaptive", bit_beside_the_update, "sensitivity"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "bug", "contract"), BUGS)
def test_a_bug_turns_its_contract_red(monkeypatch, name, bug, contract):
    bug(monkeypatch)
    mechanism, check = MECHANISMS[name], noise if contract == "noise" else sensitivity
    cohort = 100 if name in SECURE else 1
    with pytest.raises(ContractError) as error:
        check(mechanism, build(mechanism, cohort, CLIENTS[cohort]), 0, 100)
    assert error.value.contract == contract
