"""Hardware of clients: shares, medians and spread as configured, and the same device wherever a client stands."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from fedjax_health.devices.profile import CLASSES, PHONE_LTE, WEARABLE_BLE, describe, draw

SHARES = (0.4, 0.3, 0.2, 0.1)
WORLD = jax.random.key(3)
MANY = jnp.arange(20_000, dtype=jnp.int32)


def test_shares_are_respected():
    kind = np.asarray(describe(WORLD, MANY, SHARES).kind)
    counts = np.bincount(kind, minlength=4)
    assert scipy.stats.chisquare(counts, len(kind) * np.array(SHARES)).pvalue > 1e-4
    assert scipy.stats.chisquare(counts, len(kind) * np.array([0.42, 0.28, 0.2, 0.1])).pvalue < 1e-4  # it can tell
    assert (np.asarray(describe(WORLD, MANY, (0.0, 0.0, 1.0, 0.0)).kind) == 2).all()


def test_a_class_has_its_medians_and_its_spread():
    device = jax.tree.map(np.asarray, describe(WORLD, MANY, (0.0, 1.0, 0.0, 0.0)))
    speed = np.log(device.flops_per_second / PHONE_LTE.flops_per_second)
    link = np.log(device.up_bits_per_second / PHONE_LTE.up_bits_per_second)
    for sample in (speed, link):
        assert scipy.stats.kstest(sample, "norm", (0, PHONE_LTE.spread)).pvalue > 1e-3
        assert scipy.stats.kstest(sample, "norm", (0, 1.1 * PHONE_LTE.spread)).pvalue < 1e-3
    assert abs(np.corrcoef(speed, link)[0, 1]) < 0.03
    np.testing.assert_allclose(
        device.down_bits_per_second / device.up_bits_per_second,
        PHONE_LTE.down_bits_per_second / PHONE_LTE.up_bits_per_second,
        rtol=1e-5,
    )
    for name in ("memory_bytes", "latency_seconds", "joules_per_flop", "radio_watts", "tail_seconds", "luck"):
        np.testing.assert_array_equal(getattr(device, name), np.float32(getattr(PHONE_LTE, name)))


def test_the_device_belongs_to_the_client_and_the_world():
    whole = describe(WORLD, MANY[:50], SHARES)
    order = jnp.array([7, 49, 7, 0], jnp.int32)
    some = jax.jit(lambda c: describe(WORLD, c, SHARES))(order)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a[np.asarray(order)], b, rtol=1e-6), whole, some)
    other = describe(jax.random.key(4), MANY[:50], SHARES)
    assert (np.asarray(other.flops_per_second) != np.asarray(whole.flops_per_second)).all()


def test_worlds_can_be_vmapped():
    worlds = jax.random.split(WORLD, 3)
    together = jax.vmap(lambda w: describe(w, MANY[:9], SHARES))(worlds)
    for i in range(3):
        alone = describe(worlds[i], MANY[:9], SHARES)
        jax.tree.map(lambda a, b, i=i: np.testing.assert_allclose(a[i], b, rtol=1e-6), together, alone)


def test_draws_stay_off_zero_and_one():
    u = np.asarray(draw(WORLD, MANY, 8))
    assert u.min() > 0.0 and u.max() < 1.0
    assert scipy.stats.kstest(u.ravel(), "uniform").pvalue > 1e-3
    assert np.abs(np.corrcoef(u.T) - np.eye(8)).max() < 0.04


@pytest.mark.parametrize("kind", CLASSES, ids=lambda c: c.slug)
def test_shipped_classes_are_plausible(kind):
    watts = kind.flops_per_second * kind.joules_per_flop
    assert 1e-3 < watts < 50
    sending = kind.radio_watts + kind.up_bits_per_second / 8 * kind.joules_per_byte_up
    receiving = kind.radio_watts + kind.down_bits_per_second / 8 * kind.joules_per_byte_down
    assert 1e-3 < receiving <= 1.1 * sending < 6
    assert kind.up_bits_per_second <= kind.down_bits_per_second
    assert 0 < kind.latency_seconds < 1


def test_sources_numbers():
    # Huang et al. 2012: 1288 + 438 x 6 mW sending and 1288 + 52 x 13 mW receiving at the median rates
    send = PHONE_LTE.radio_watts + PHONE_LTE.up_bits_per_second / 8 * PHONE_LTE.joules_per_byte_up
    receive = PHONE_LTE.radio_watts + PHONE_LTE.down_bits_per_second / 8 * PHONE_LTE.joules_per_byte_down
    assert send == pytest.approx(1.288 + 0.438 * 6, rel=0.01)
    assert receive == pytest.approx(1.288 + 0.052 * 13, rel=0.01)
    # nRF52840: 4.8 mA and 4.6 mA at 3 V while the radio works, 3.3 mA for the CPU
    assert WEARABLE_BLE.joules_per_byte_up * 0.7e6 / 8 == pytest.approx(4.8e-3 * 3, rel=0.01)
    assert WEARABLE_BLE.joules_per_byte_down * 0.7e6 / 8 == pytest.approx(4.6e-3 * 3, rel=0.02)
    assert WEARABLE_BLE.joules_per_flop * WEARABLE_BLE.flops_per_second == pytest.approx(3.3e-3 * 3, rel=0.05)
    assert [c.slug for c in CLASSES] == ["wearable_ble", "phone_lte", "phone_wifi", "hospital_gateway"]
