"""What a detector costs a device: counted by hand, by XLA, and measured."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy

from fedjax_health.devices.profile import GATEWAY, WEARABLE_BLE
from fedjax_health.evaluation import on_device
from fedjax_health.models.classifier import make_classifier
from fedjax_health.threefry import root_key

PARAMS = {
    "a": {"kernel": jnp.arange(6.0).reshape(2, 3), "bias": jnp.zeros(3)},
    "b": {"kernel": jnp.ones((3, 1)), "bias": jnp.ones(1)},
}


def test_sizes_and_operations_by_hand():
    assert on_device.size_of(PARAMS) == (13, 52, (6 + 12) + 12 + (3 + 4) + 4)
    assert on_device.dense_flops(PARAMS) == 2 * 6 + 3 + 2 * 3 + 1


def test_int8_moves_a_weight_by_half_a_step_at_most_and_is_an_integer_grid():
    w = jax.random.normal(jax.random.key(0), (50, 7)) * jnp.arange(1.0, 8.0)[None, :]
    small = on_device.quantised({"kernel": w, "bias": w[0]})
    step = np.abs(np.asarray(w)).max(0) / 127
    off = np.abs(np.asarray(small["kernel"]) - np.asarray(w)) / step
    assert off.max() <= 0.5 + 1e-3 and off.mean() > 0.1
    levels = np.asarray(small["kernel"]) / step
    assert np.allclose(levels, np.round(levels), atol=1e-3) and np.abs(levels).max() <= 127.001
    np.testing.assert_array_equal(small["bias"], w[0])


def test_the_interval_of_a_median_holds_it_as_often_as_it_says():
    r = np.random.default_rng(0)
    found = np.array([on_device.median_interval(r.exponential(size=40)) for _ in range(400)])
    holds = (found[:, 1] <= np.log(2)) & (np.log(2) <= found[:, 2])
    assert 0.93 <= holds.mean() <= 0.995 and np.all(found[:, 1] <= found[:, 0]) and np.all(found[:, 0] <= found[:, 2])


def test_rows_agree_with_one_another_and_with_the_count_by_hand():
    encoder = toy.encoder()
    classifier = make_classifier(encoder.layout.dim, 2, (32, 16))
    released = classifier.release(classifier.init(root_key(0)))
    flows = np.ones((300, len(toy.SCHEMA.inputs)), np.float32)
    rows = on_device.device_rows("toy", classifier, released, encoder, flows, 10, (WEARABLE_BLE, GATEWAY))
    found = {(r.row, r.metric): r.value for r in rows}
    hand = found["detector", "FLOPs a flow, dense layers by hand"]
    assert hand == 2 * (encoder.layout.dim * 32 + 32 * 16 + 16 * 2) + 32 + 16 + 2
    for batch in (1, 256):  # beside the layers: the encoding, the activations, the softmax
        assert hand <= found["detector", f"FLOPs a flow, batch {batch}"] <= 1.3 * hand
        assert found["machine", f"µs a flow, batch {batch}"] > 0
    flops = found["detector", "FLOPs a flow, batch 1"]
    assert found["wearable on BLE", "predicted µs a flow"] == pytest.approx(1e6 * flops / 32e6)
    assert found["hospital gateway", "predicted µJ a flow"] == pytest.approx(1e6 * flops * 1e-9)
    assert found["wearable on BLE", "share of memory, f32"] == pytest.approx(
        found["detector", "bytes, f32"] / (192 * 2**10)
    )
