"""FLOPs of a program against counts by hand: products, convolutions, loops, loops whose length only the data know, devices."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from fedjax_health.ahead.flops import count_flops
from fedjax_health.ahead.trips import Trips
from fedjax_health.federated import sharding

TRIPS = Trips(chunks=3.0, steps=5.0, live=0.0)
X = jax.ShapeDtypeStruct((8, 8), jnp.float32)
PRODUCT = 2 * 8**3


def counted(call, *shapes):
    return count_flops(jax.jit(call).trace(*shapes).jaxpr, TRIPS)


def test_leaves_by_hand():
    a, b = jax.ShapeDtypeStruct((3, 4, 5), jnp.float32), jax.ShapeDtypeStruct((3, 5, 6), jnp.float32)
    assert counted(jnp.matmul, a, b).everywhere == 2 * 3 * 4 * 6 * 5
    image, kernel = jax.ShapeDtypeStruct((2, 3, 10), jnp.float32), jax.ShapeDtypeStruct((7, 3, 5), jnp.float32)
    conv = counted(lambda x, k: jax.lax.conv_general_dilated(x, k, (1,), "VALID"), image, kernel)
    assert conv.everywhere == 2 * (2 * 7 * 6) * 3 * 5
    assert counted(lambda x: jnp.sum(jnp.tanh(x) * x), X).everywhere == 3 * 64
    assert counted(lambda x: x.T.reshape(-1)[::2], X).everywhere == 0
    assert counted(lambda n: n * n + n, jax.ShapeDtypeStruct((9,), jnp.int32)).everywhere == 0


@pytest.mark.parametrize("length", [1, 7])
def test_a_scan_counts_as_often_as_it_runs_and_xla_counts_it_once(length):
    def call(x):
        return jax.lax.scan(lambda c, _: (c @ x, None), x, None, length=length)[0]

    assert counted(call, X).everywhere == length * PRODUCT
    assert jax.jit(call).lower(X).cost_analysis()["flops"] < 2 * PRODUCT


def test_loops_over_chunks_and_steps_take_their_expected_lengths_on_every_device():
    mesh = sharding.make_mesh()

    def call(x, n):
        def work(x, n):
            def step(i, c):
                return c @ x

            def chunk(i, c):
                return jax.lax.fori_loop(0, n, step, c) @ x

            return jax.lax.psum(jax.lax.fori_loop(0, n, chunk, sharding.varying(x)), sharding.AXIS)

        inside = jax.shard_map(work, mesh=mesh, in_specs=(PartitionSpec(),) * 2, out_specs=PartitionSpec())
        return inside(x, n) @ x

    found = counted(call, X, jax.ShapeDtypeStruct((), jnp.int32))
    assert found.everywhere == PRODUCT and found.once == 0
    assert found.split == 3 * (5 * PRODUCT + PRODUCT) + 64  # and the sum over devices


def test_other_loops_of_unknown_length_are_counted_once_and_named():
    def call(x, n):
        return jax.lax.while_loop(lambda c: c[0] < n, lambda c: (c[0] + 1, c[1] @ x), (jnp.int32(0), x))[1]

    found = counted(call, X, jax.ShapeDtypeStruct((), jnp.int32))
    assert (found.everywhere, found.once) == (PRODUCT, 1)


def test_a_branch_counts_as_the_dearest_and_a_gradient_as_its_products():
    def branches(p, x):
        return jax.lax.cond(p, lambda: x @ x, lambda: x)

    assert counted(branches, jax.ShapeDtypeStruct((), jnp.bool_), X).everywhere == PRODUCT

    def loss(w, x):
        return jnp.sum(x @ w)

    w = jnp.ones((8, 8))
    step = counted(jax.grad(loss), w, X).everywhere
    np.testing.assert_allclose(step, 2 * PRODUCT + 64)  # forwards, for the weights, and the sum
