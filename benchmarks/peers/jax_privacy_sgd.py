"""Work B by jax-privacy's `clipped_grad`, at its default (all records at once) or in micro-batches of 64."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import jax_privacy  # pyright: ignore[reportMissingImports]
import optax

from benchmarks import work, work_b
from benchmarks.work_b import BATCH, EPOCHS, FEATURES, HIDDEN, LATENT, RATE, ROWS


def init(key: jax.Array, sizes: tuple[int, ...]) -> list[tuple[jax.Array, jax.Array]]:
    """Weights and biases of a perceptron.

    Args:
      key: typed key.
      sizes: of its layers.
    """
    keys = jax.random.split(key, len(sizes) - 1)
    pairs = zip(keys, sizes[:-1], sizes[1:], strict=True)
    return [(jax.random.normal(k, (a, b)) / a**0.5, jnp.zeros((b,))) for k, a, b in pairs]


def network(layers: list[tuple[jax.Array, jax.Array]], x: jax.Array) -> jax.Array:
    """Output of a perceptron with relu between its layers.

    Args:
      layers: of `init`.
      x: f32[B, in].
    """
    for w, b in layers[:-1]:
        x = jax.nn.relu(x @ w + b)
    return x @ layers[-1][0] + layers[-1][1]


def loss(params: dict, x: jax.Array, noise: jax.Array) -> jax.Array:
    """Mean negative evidence bound.

    Args:
      params: encoder and decoder.
      x: f32[B, 16].
      noise: f32[B, 8], standard normal.
    """
    mean, log_var = jnp.split(network(params["encoder"], x), 2, -1)
    out = network(params["decoder"], mean + jnp.exp(0.5 * log_var) * noise)
    kl = 0.5 * jnp.sum(mean**2 + jnp.exp(log_var) - 1 - log_var, -1)
    return jnp.mean(0.5 * jnp.sum((out - x) ** 2, -1) + kl)


def main() -> None:
    """Measures."""
    args = work_b.parse_arguments(__doc__, ("default", "microbatch"))
    clipped = jax_privacy.clipped_grad(
        loss, l2_clip_norm=work_b.CLIP, batch_argnums=(1, 2), microbatch_size=64 if args.mode == "microbatch" else None
    )
    x = jnp.asarray(work_b.make_rows())
    keys = jax.random.split(jax.random.key(0), 2)
    params = {
        "encoder": init(keys[0], (FEATURES, HIDDEN, HIDDEN, 2 * LATENT)),
        "decoder": init(keys[1], (LATENT, HIDDEN, HIDDEN, FEATURES)),
    }
    rule = optax.adam(RATE)

    def step(carry, inputs):
        now, state = carry
        rows, key = inputs
        key_loss, key_noise = jax.random.split(key)
        total = clipped(now, rows, jax.random.normal(key_loss, (BATCH, LATENT)))
        leaves, structure = jax.tree.flatten(total)
        noisy = [
            (leaf + work_b.NOISE * work_b.CLIP * jax.random.normal(k, leaf.shape)) / BATCH
            for leaf, k in zip(leaves, jax.random.split(key_noise, len(leaves)), strict=True)
        ]
        update, state = rule.update(jax.tree.unflatten(structure, noisy), state)
        return (optax.apply_updates(now, update), state), None

    def epoch(carry, key):
        order = jax.random.permutation(key, ROWS)
        inputs = x[order].reshape(-1, BATCH, FEATURES), jax.random.split(key, ROWS // BATCH)
        return jax.lax.scan(step, carry, inputs)[0], None

    train = jax.jit(lambda key: jax.lax.scan(epoch, (params, rule.init(params)), jax.random.split(key, EPOCHS))[0][0])
    rates = work_b.measure(lambda: jax.block_until_ready(train(jax.random.key(1))), args.repeats)
    work_b.print_rates(rates, work.versions("jax", "jax-privacy"))


if __name__ == "__main__":
    main()
