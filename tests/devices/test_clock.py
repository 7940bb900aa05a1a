"""The clock: against exact rational arithmetic, over years, with steps that a float32 second could not hold."""

from __future__ import annotations

from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedjax_health.devices.clock import Clock, advance, start


def _exact(clock: Clock) -> Fraction:
    return int(clock.day) * 86400 + Fraction(float(clock.second)) + Fraction(float(clock.fraction))


@pytest.mark.parametrize(
    "steps", [[0.25, 86399.5, 0.5], [86400.0] * 3, [1e6, 0.0, 12345.678], [86399.0, 1.0], [0.75] * 9]
)
def test_known_sums(steps):
    clock = start()
    for step in steps:
        clock = advance(clock, jnp.float32(step))
        assert 0 <= float(clock.second) < 86400 and 0 <= float(clock.fraction) < 1
    assert abs(_exact(clock) - sum(Fraction(float(np.float32(s))) for s in steps)) < Fraction(1, 10**6)


def test_midnight():
    clock = advance(advance(start(), jnp.float32(86399.75)), jnp.float32(0.25))
    assert (int(clock.day), float(clock.second), float(clock.fraction)) == (1, 0.0, 0.0)


@pytest.mark.parametrize("step", [0.003, 7.3, 611.1])
def test_years_of_rounds_do_not_drift(step):
    rounds = 200_000
    late = Clock(jnp.int32(3000), jnp.float32(80000.0), jnp.float32(0.0))  # where a float32 second has steps of 8 ms

    @jax.jit
    def run(clock: Clock) -> Clock:
        return jax.lax.scan(lambda c, _: (advance(c, jnp.float32(step)), None), clock, None, rounds)[0]

    drift = _exact(run(late)) - _exact(late) - rounds * Fraction(float(np.float32(step)))
    assert abs(drift) < Fraction(rounds * 6, 10**8)


def test_clocks_can_be_vmapped():
    clocks = Clock(jnp.array([0, 5], jnp.int32), jnp.array([10.0, 86399.0]), jnp.array([0.5, 0.5]))
    after = jax.vmap(advance)(clocks, jnp.array([0.5, 0.75]))
    np.testing.assert_array_equal(after.day, [0, 6])
    np.testing.assert_array_equal(after.second, [11.0, 0.0])
    np.testing.assert_array_equal(after.fraction, [0.0, 0.25])
    assert [x.dtype for x in after] == [jnp.int32, jnp.float32, jnp.float32]
