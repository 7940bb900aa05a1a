"""Work over a mesh gives what one device gives."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from fedjax_health.federated import sharding


def test_mesh_takes_the_devices_asked_for():
    assert sharding.make_mesh().size == 4
    assert sharding.make_mesh(2).size == 2
    assert sharding.make_mesh(2).axis_names == sharding.make_local_mesh().axis_names == (sharding.AXIS,)
    assert sharding.make_local_mesh().size == 4  # of one process they are all there are


def work(factor, rows):
    total = jax.lax.scan(lambda a, r: (a + r, None), sharding.varying(jnp.float32(0.0)), rows * factor)[0]
    return jax.lax.psum(total, sharding.AXIS)


def test_last_argument_is_split_and_merged():
    rows = jnp.arange(8, dtype=jnp.float32)
    for devices in (1, 2, 4):
        mapped = jax.jit(sharding.over_clients(sharding.make_mesh(devices), work))
        assert float(mapped(jnp.float32(3.0), rows)) == 84.0
    local = sharding.over_clients(sharding.make_mesh(4), lambda rows: jax.lax.psum(rows.shape[0], sharding.AXIS))
    assert int(jax.jit(local)(rows)) == 8


def test_varying_like_keeps_values_and_types():
    start = {"a": jnp.float32(1.5), "n": jnp.int32(7)}
    same = sharding.varying_like(start, jnp.array([[5, 6]], jnp.int32))
    assert jax.tree.map(lambda leaf: leaf.dtype, same) == jax.tree.map(lambda leaf: leaf.dtype, start)
    jax.tree.map(np.testing.assert_array_equal, same, start)


def test_varying_like_varies_where_its_model_does():
    """A loop inside the mapped work: a constant start beside sharded data would be refused by its types."""

    def count_up(rows):
        start = sharding.varying_like(jnp.float32(0.0), rows)
        assert sharding.varying_like(sharding.varying(start), rows) is not None  # twice is once
        total = jax.lax.fori_loop(0, 3, lambda i, acc: acc + jnp.sum(rows), start)
        return jax.lax.psum(total, sharding.AXIS)

    mapped = jax.jit(sharding.over_clients(sharding.make_mesh(4), count_up))
    assert float(mapped(jnp.arange(8, dtype=jnp.float32))) == 84.0
