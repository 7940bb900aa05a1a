"""A round on the devices: what no choice of slots, chunks or company may change, and its limits."""

from __future__ import annotations

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from exact_device import FLEET, MORNING, ROUND, WORLD, exact, plain_config, play, work_of

from fedjax_health.devices import clock
from fedjax_health.devices.profile import CLASSES
from fedjax_health.devices.round import (
    METRICS,
    make_devices,
    make_ideal,
)
from fedjax_health.types import UserError


@pytest.mark.parametrize("availability", ["always", "markov", "diurnal"])
def test_a_client_does_not_depend_on_the_others_where_it_is_promised(availability):
    config = dataclasses.replace(FLEET, availability=availability)
    for over, promised in ((1.0, True), (1.5, False)):
        layer = make_devices(dataclasses.replace(config, over_commitment=over), 20, True)
        assert layer.data_independent == promised
        alive, seconds, _ = play(layer, 100, work_of(100, 5e7, 1e5, 1e5))
        changed = False
        for gone in np.flatnonzero(alive)[:8]:
            rest, after, _ = play(layer, 100, work_of(100, 5e7, 1e5, 1e5), np.arange(100) != gone)
            changed |= bool((np.delete(rest, gone) != np.delete(alive, gone)).any())
            assert after == seconds  # so that the next round's hour is the same
        assert changed != promised


def test_everybody_is_counted_once_and_offline_is_availability():
    config = dataclasses.replace(FLEET, deadline_seconds=20.0)
    mask = np.arange(2000) % 5 > 0
    for over in (1.0, 1.3):
        layer = make_devices(dataclasses.replace(config, over_commitment=over), 300)
        work = work_of(2000, 5e10, 1e5, 1e5, 1e8)
        alive, _, m = play(layer, 2000, work, mask)
        on = np.asarray(layer.available(WORLD, jnp.arange(2000, dtype=jnp.int32), MORNING))
        parts = [m[f"sim/{name}"] for name in ("offline", "out_of_memory", "failed", "late")]
        assert all(p > 0 for p in parts)
        assert m["sim/offline"] == (mask & ~on).sum()
        assert sum(parts) + alive.sum() == mask.sum()
        assert not (alive & ~(mask & on)).any()
        assert sum(m[f"sim/alive_{c.slug}"] for c in CLASSES) == alive.sum()
        assert set(m) == set(METRICS)


def test_jit_slots_and_worlds_do_not_matter():
    layer = make_devices(dataclasses.replace(FLEET, availability="diurnal", over_commitment=1.2), 30)
    client = jnp.array(np.random.default_rng(0).integers(0, 10**9, 64), jnp.int32)
    mask, work = jnp.arange(64) % 7 > 0, work_of(64)._replace(flops=jnp.linspace(1e6, 1e8, 64))
    plain = layer.play(WORLD, client, mask, work, MORNING, ROUND)
    fast = jax.jit(layer.play)(WORLD, client, mask, work, MORNING, ROUND)
    back = jax.jit(layer.play)(WORLD, client[::-1], mask[::-1], work._replace(flops=work.flops[::-1]), MORNING, ROUND)
    np.testing.assert_array_equal(plain.alive, fast.alive)
    np.testing.assert_array_equal(plain.alive[::-1], back.alive)
    for name, value in plain.metrics.items():
        assert value.dtype == jnp.float32
        assert value.shape == ()
        np.testing.assert_allclose(fast.metrics[name], value, rtol=1e-5)
        np.testing.assert_allclose(back.metrics[name], value, rtol=1e-5)
    worlds = jax.random.split(WORLD, 3)
    together = jax.jit(jax.vmap(layer.play, (0, None, None, None, None, 0)))(
        worlds, client, mask, work, MORNING, worlds
    )
    for i in range(3):
        alone = layer.play(worlds[i], client, mask, work, MORNING, worlds[i])
        np.testing.assert_array_equal(together.alive[i], alone.alive)
        np.testing.assert_allclose(together.seconds[i], alone.seconds, rtol=1e-5)


def test_nothing_overflows():
    heavy = work_of(10_000, 1e15, 1e9, 1e9, 1e5)
    for over in (1.0, 1.5):
        layer = make_devices(plain_config(shares=(0.25,) * 4, over_commitment=over), 5000)
        _, seconds, m = play(layer, 10_000, heavy)
        assert all(math.isfinite(v) for v in (seconds, *m.values()))
    assert play(exact(), 10_000, work_of(10_000, 0.0, 1e9, 1e9))[2]["sim/bytes_up"] == np.float32(1e13)
    _, seconds, m = play(exact(), 5, work_of(5, 0.0, 0.0, 0.0))  # no work at all: only the latency
    assert seconds == 0.25
    assert m["sim/bytes_up"] == m["sim/flops"] == 0


def test_more_work_costs_more():
    layer = make_devices(plain_config(shares=(0.25,) * 4), 5)
    _, base_seconds, base = play(layer, 50)
    for more in ({"flops": 1e9}, {"up": 1e6}, {"down": 1e6}):
        _, seconds, m = play(layer, 50, work_of(50, **more))
        assert seconds > base_seconds
        assert m["sim/energy_joules"] > base["sim/energy_joules"]


def test_ideal_devices_are_not_in_the_program():
    ideal = make_ideal()
    client, mask = jnp.arange(4, dtype=jnp.int32), jnp.array([True, False, True, True])
    out = ideal.play(WORLD, client, mask, work_of(4), MORNING, ROUND)
    assert out.alive is mask
    assert (float(out.seconds), out.metrics, ideal.data_independent) == (0.0, {}, True)
    jaxpr = jax.make_jaxpr(ideal.play)(WORLD, client, mask, work_of(4), MORNING, ROUND)
    assert not jaxpr.eqns
    np.testing.assert_array_equal(ideal.seconds(WORLD, client, work_of(4), ROUND), 0.0)


def test_bad_input():
    with pytest.raises(UserError, match="deadline_seconds=0"):
        exact(timetable=True)
    with pytest.raises(UserError, match="did you mean 'markov'"):
        make_devices(plain_config(availability="markow"), 3)


def test_rounds_scan_inside_shard_map():
    """Replicated beside sharded clients, with the clock as carry: the way a compiled chunk of rounds uses it."""
    layer = make_devices(dataclasses.replace(FLEET, over_commitment=1.1), 10)
    client, work = jnp.arange(16, dtype=jnp.int32), work_of(16)

    def rounds(world: jax.Array, client: jax.Array) -> tuple[clock.Clock, jax.Array]:
        def one(now: clock.Clock, r: jax.Array):
            out = layer.play(world, client, jnp.ones(16, bool), work, now, jax.random.fold_in(ROUND, r))
            return clock.advance(now, out.seconds), out.alive

        return jax.lax.scan(one, clock.start(), jnp.arange(5))

    mesh = jax.sharding.Mesh(np.array(jax.devices()), ("clients",))
    whole, split = jax.sharding.PartitionSpec(), jax.sharding.PartitionSpec("clients")
    mapped = jax.jit(jax.shard_map(rounds, mesh=mesh, in_specs=whole, out_specs=whole))
    now, alive = mapped(WORLD, client)
    plain, expected = jax.jit(rounds)(WORLD, client)
    np.testing.assert_array_equal(alive, expected)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), now, plain)
    assert float(now.second) + float(now.fraction) > 0
    on = jax.shard_map(lambda c: layer.available(WORLD, c, MORNING), mesh=mesh, in_specs=split, out_specs=split)
    np.testing.assert_array_equal(jax.jit(on)(client), layer.available(WORLD, client, MORNING))
