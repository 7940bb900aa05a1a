"""What scaling measures: cases, records that are not copied, and the fit."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from benchmarks import case, engine, scaling
from benchmarks.case import Case
from fedjax_health.data.simulator import population_key, simulate_clients


def test_proportionality_of_a_line():
    cohorts = np.asarray([100.0, 300.0, 1000.0])
    base, slope, worst = scaling.proportionality(cohorts, 2e-5 * cohorts)
    assert base == pytest.approx(0, abs=1e-9) and slope == pytest.approx(2e-5) and worst < 1e-9
    base, slope, worst = scaling.proportionality(cohorts, 1e-3 + 1e-5 * cohorts)
    assert base == pytest.approx(1e-3) and slope == pytest.approx(1e-5)
    assert worst == pytest.approx((2e-5 - 1.1e-5) / (2e-5 + 1.1e-5))  # 2e-5 a client at 100, 1.1e-5 at 1,000


def test_aligned_records_are_used_where_they_lie():
    values = case.aligned_normal((1001, 16, 10))
    assert values.ctypes.data % case.LINE == 0 and values.dtype == np.float32
    assert abs(values.mean()) < 0.02 and abs(values.std() - 1) < 0.02
    store = engine.make_equal_store(values, values[:, :, 0] > 0)
    assert np.shares_memory(store.x, values) and store.offset.tolist() == list(range(0, 16016, 16))
    everywhere = jax.sharding.NamedSharding(jax.make_mesh((4,), ("c",)), jax.sharding.PartitionSpec())
    placed = jax.device_put(store.x, everywhere)
    assert {s.data.unsafe_buffer_pointer() for s in placed.addressable_shards} == {values.ctypes.data}


def test_the_cheap_simulator_labels_by_the_sign_of_the_sum():
    table = simulate_clients(case.cheap_simulator(), np.arange(50), population_key(0))
    assert table.values.shape == (50 * case.ROWS, case.FEATURES)
    np.testing.assert_array_equal(table.label, table.values.sum(1) > 0)
    assert 0.4 < table.label.mean() < 0.6


@pytest.mark.parametrize(
    "population", [*(pytest.param(p, marks=pytest.mark.long) for p in ("procedural", "stored")), "table"]
)
def test_a_case_is_timed_at_each_repeat(population):
    found = case.measure([Case(population, 300, 20, "poisson"), Case(population, 300, 40)], 2, 2)
    assert [len(values) for values in found.seconds] == [2, 2] and min(min(found.seconds)) > 0
    assert found.memory_mb > 100 and found.devices == 4


def test_a_process_of_its_own_has_the_devices_asked_for_and_says_why_it_fails():
    found = scaling.child([], 3, 1)
    assert found.devices == 3 and found.seconds == [] and found.kind == "cpu"
    with pytest.raises(RuntimeError, match="cohort=20 is larger than the 10 training clients"):
        scaling.child([Case("stored", 10, 20)], 1, 1)
