"""Error feedback: nothing is lost for good, it mends a biased compressor, and it refuses what would break it."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedjax_health import tree
from fedjax_health.federation_config import CompressionConfig
from fedjax_health.transforms.base import Keys, chain, full_wire
from fedjax_health.transforms.compress import make_compression
from fedjax_health.transforms.error_feedback import make_error_feedback
from fedjax_health.transforms.quantize import make_quantize, quantize_coder
from fedjax_health.transforms.rotate import make_rotate
from fedjax_health.transforms.sign import make_sign
from fedjax_health.transforms.sparsify import make_rand_k, make_top_k
from fedjax_health.types import UserError

pytestmark = pytest.mark.quick_compile


def update(seed=0):
    rng = np.random.default_rng(seed)
    return {
        "w": jnp.asarray(rng.normal(size=(9, 10)), jnp.float32),
        "b": jnp.asarray(rng.normal(size=(10,)), jnp.float32),
    }


def flat(t):
    return np.concatenate([np.asarray(leaf, np.float64).ravel() for leaf in jax.tree.leaves(t)])


def keys(number):
    return Keys(jax.random.fold_in(jax.random.key(0), number), jax.random.fold_in(jax.random.key(1), number))


INNERS = {
    "sign": make_sign(),
    "top_k": make_top_k(0.1),
    "rand_k": make_rand_k(0.1, False),
    "top_k of 4 bits": make_top_k(0.1, quantize_coder(4)),
    "8 bits": make_quantize(8),
    "rotated sign": chain(make_rotate(update()), make_sign()),
    "rotated 4 bits": chain(make_rotate(update()), make_quantize(4)),
}


@pytest.mark.parametrize("inner", INNERS.values(), ids=INNERS)
def test_what_arrives_in_all_is_what_was_sent_in_all_less_the_memory(inner):
    """sum of decoded = sum of updates - memory, with other keys, so another rotation, in every round."""
    feedback = make_error_feedback(inner)
    client, server = jax.jit(feedback.client), jax.jit(feedback.server)
    memory = feedback.memory(update())
    assert jax.tree.map(lambda x: x.shape, memory) == jax.tree.map(lambda x: x.shape, update())
    assert not flat(memory).any()
    arrived, wanted, largest = np.zeros(100), np.zeros(100), 0.0
    for number in range(60):
        u = update(number)
        sent, memory, metrics = client(u, memory, {}, keys(number))
        arrived += flat(server(sent, {}, keys(number))[0])
        wanted += flat(u)
        largest = max(largest, float(metrics["sim/feedback_norm"]))
        np.testing.assert_allclose(arrived, wanted - flat(memory), atol=2e-4)
        assert float(metrics["sim/feedback_norm"]) == pytest.approx(np.linalg.norm(flat(memory)), rel=1e-5)
    assert largest < 40 * np.sqrt(100)  # bounded: without loss it is 0, and sums of 60 updates alone would reach 77


@pytest.mark.parametrize("name", ["sign", "top_k"])
def test_it_mends_a_biased_compressor(name):
    """f_i = |x - c_i|^2 / 2, two clients: with feedback the error vanishes with the step, without it it stays."""
    target = np.stack([flat(update(1)), flat(update(2))])
    target[0, 0], target[1, 0] = 10.0, -7.0  # one large disagreement hides the small coordinates from the compressor
    centre = jnp.asarray(target, jnp.float32)

    def distance(transform, rate):
        def round_step(number, state):
            x, memory = state

            def client(c, m):
                return transform.client(x - c, m, {}, keys(number))[:2]

            sent, memory = jax.vmap(client)(centre, memory)
            total, _ = transform.server(jnp.sum(sent, 0), {}, keys(number))
            return x - jnp.float32(rate) * total / 2, memory

        memory = jax.vmap(transform.memory)(centre)
        x, _ = jax.jit(lambda: jax.lax.fori_loop(0, 4000, round_step, (jnp.zeros(100), memory)))()
        return np.linalg.norm(np.asarray(x) - target.mean(0))

    plain = [distance(INNERS[name], rate) for rate in (0.02, 0.005)]
    mended = [distance(make_error_feedback(INNERS[name]), rate) for rate in (0.02, 0.005)]
    assert mended[1] < 0.4 * mended[0] and plain[1] > 0.8 * plain[0]
    assert mended[1] < 0.1 * plain[1]


def test_a_compressor_that_loses_more_than_it_gets_is_why_few_bits_are_refused():
    def largest(bits):
        feedback = make_error_feedback(make_quantize(bits))
        memory = feedback.memory(update())
        for number in range(60):
            _, memory, _ = jax.jit(feedback.client)(update(number), memory, {}, keys(number))
        return np.linalg.norm(flat(memory))

    assert largest(1) > 1e6 and largest(4) < 20


def test_an_update_that_is_not_finite_is_sent_so_and_leaves_the_memory():
    feedback = make_error_feedback(make_top_k(0.1))
    _, memory, _ = feedback.client(update(), feedback.memory(update()), {}, keys(0))
    bad = {**update(1), "b": update(1)["b"].at[0].set(jnp.nan)}
    sent, after, metrics = feedback.client(bad, memory, {}, keys(1))
    assert not np.isfinite(flat(sent)).all()
    np.testing.assert_array_equal(flat(after), flat(memory))
    assert np.isfinite(float(metrics["sim/feedback_norm"]))


def test_without_loss_it_does_nothing():
    feedback = make_error_feedback(chain())
    sent, memory, _ = feedback.client(update(), feedback.memory(update()), {}, keys(0))
    np.testing.assert_array_equal(flat(sent), flat(update()))
    assert not flat(memory).any()


def test_jit_and_vmap_equal_a_loop():
    feedback = make_error_feedback(make_top_k(0.2, quantize_coder(6)))
    many = jax.tree.map(lambda *x: jnp.stack(x), *[update(s) for s in range(3)])
    memories = tree.scale(jnp.float32(0.3), jax.tree.map(lambda x: x[::-1], many))
    own = jax.random.split(jax.random.key(1), 3)

    def client(u, m, key):
        return feedback.client(u, m, {}, Keys(key, jax.random.key(4)))

    out = jax.jit(jax.vmap(client))(many, memories, own)
    for s in range(3):
        u, m, expected = jax.tree.map(lambda x, s=s: x[s], (many, memories, out))
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), client(u, m, own[s]), expected
        )


def test_memory_inside_memory_is_refused():
    twice = make_error_feedback(chain(make_error_feedback(make_sign())))
    with pytest.raises(UserError, match="memory of their own"):
        twice.memory(update())


def test_bound_and_wire():
    feedback = make_error_feedback(make_top_k(0.1))
    assert feedback.l2_bound(jnp.float32(1.0), {}) is None
    assert feedback.wire(full_wire(update())) == make_top_k(0.1).wire(full_wire(update()))


FEEDBACK = {
    "rotate": False, "sparsify": "none", "keep_fraction": 0.1, "error_feedback": True, "bits": 0, "sign": False,
    "down_bits": 0,
}  # fmt: skip


@pytest.mark.parametrize(
    "changes", [{"bits": 4}, {"rotate": True, "bits": 3}, {"sparsify": "top_k", "bits": 3}, {"sign": True}]
)
@pytest.mark.parametrize("kind", ["even", "spike"])
def test_the_memory_of_every_accepted_feedback_stays_bounded(changes, kind):
    """The worst case for a grid without a zero is a spike: its error is spread over all the zeros."""
    transform = make_compression(CompressionConfig(**{**FEEDBACK, **changes}), update())
    spike = {**jax.tree.map(jnp.zeros_like, update()), "b": jnp.zeros(10).at[0].set(10.0)}

    def step(memory, number):
        u = spike if kind == "spike" else jax.tree.map(lambda x: jax.random.normal(jax.random.key(3), x.shape), spike)
        k = Keys(jax.random.fold_in(jax.random.key(0), number), jax.random.fold_in(jax.random.key(1), number))
        _, memory, metrics = transform.client(u, memory, {}, k)
        return memory, metrics["sim/feedback_norm"]

    _, norm = jax.jit(lambda: jax.lax.scan(step, transform.memory(spike), jnp.arange(2000, dtype=jnp.uint32)))()
    norm = np.asarray(norm)
    assert norm.max() < 1000 and norm[1000:].mean() < 2 * norm[500:1000].mean() + 1
