"""Black-box evasion: a generator of changes, trained against a critic that learns from the detector's answers alone (IDSGAN)."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import optax

from fedjax_health.attacks.evasion import Evader, Flows, LogBenign, Target, alarm, bounds
from fedjax_health.attacks.evasion_flows import FlowSpace
from fedjax_health.data.encode import Encoder
from fedjax_health.models.base import Mlp, apply, masked_mean
from fedjax_health.types import Array, Params

NOISE = 4  # inputs of the generator beside the flow


def make_generator(
    space: FlowSpace,
    log_benign: LogBenign,
    encoder: Encoder,
    budget: float,
    *,
    iterations: int = 300,
    batch: int = 128,
    hidden: tuple[int, ...] = (64, 64),
    rate: float = 1e-3,
    critic_steps: int = 3,
    clip: float = 0.1,
) -> Evader:
    """Change d = bound tanh(G(flow, class, noise)); critic C learns which flows raise an alarm, G to make C call its own benign.

    Every iteration asks the detector about `batch` evasive and `batch` benign flows of the attacker's own. With a = 1 where it
    raised an alarm: C minimises E[C | a = 1] - E[C | a = 0], weights clipped (Wasserstein); G maximises E[C(evasive)]; RMSprop.
    Afterwards the flows of others are changed without a question.

    Args:
      space: of the flows.
      log_benign: of the detector; asked for alarms only.
      encoder: of the records; the critic sees model space.
      budget: in public scales.
      iterations, batch: their product, twice, is the number of queries.
      hidden: of both networks.
      rate: of RMSprop.
      critic_steps: steps of the critic an iteration, on the same answers.
      clip: of the critic's weights.

    Source: Lin, Shi and Xue 2022, arXiv 1809.02077; the critic is that of Arjovsky et al. 2017, arXiv 1701.07875.
    """
    generator, critic = Mlp(hidden, len(space.names)), Mlp(hidden, 1)
    classes = space.functional.shape[0]
    optimizer = optax.rmsprop(rate)

    def evasive(made_by: Params, values: Array, label: Array, key: Array) -> Array:
        free = jax.vmap(space.apart)(values)
        noise = jax.random.normal(key, (values.shape[0], NOISE))
        inputs = jnp.concatenate([encoder.encode(values), jax.nn.one_hot(label, classes), noise], -1)
        change = bounds(space, label, budget) * jnp.tanh(apply(generator, made_by, inputs))
        return jax.vmap(space.join)(free, change, values)

    def judged(by: Params, values: Array) -> Array:
        return apply(critic, by, encoder.encode(values))[:, 0]

    def critic_loss(by: Params, values: Array, alarmed: Array) -> Array:
        score = judged(by, values)
        return masked_mean(score, alarmed) - masked_mean(score, ~alarmed)

    def generator_loss(made_by: Params, by: Params, values: Array, label: Array, key: Array) -> Array:
        return -jnp.mean(judged(by, evasive(made_by, values, label, key)))

    def clipped(tree: Params) -> Params:
        return jax.tree.map(lambda leaf: jnp.clip(leaf, -clip, clip), tree)

    def learn(target: Target, own: Flows, key: Array) -> Params:
        keys = jax.random.split(key, 3)
        there = jnp.arange(own.label.shape[0]) < own.count
        attack, benign = (jnp.where(there & kind, 0.0, -jnp.inf) for kind in (own.label > 0, own.label == 0))
        width = own.values.shape[1]
        dim = encoder.layout.dim
        made_by = generator.init(keys[0], jnp.zeros((1, dim + classes + NOISE), jnp.float32))
        by = clipped(critic.init(keys[1], encoder.encode(jnp.zeros((1, width), jnp.float32))))

        def iterate(carry, key_i):
            made_by, by, of_maker, of_critic = carry
            key_a, key_b, key_q, key_g = jax.random.split(key_i, 4)
            rows = jax.random.categorical(key_a, attack, shape=(batch,))
            others = jax.random.categorical(key_b, benign, shape=(batch,))
            values, label = own.values[rows], own.label[rows]
            asked = jnp.concatenate([evasive(made_by, values, label, key_q), own.values[others]])
            alarmed = alarm(log_benign, target, asked)

            def study(carry, _):
                by, state = carry
                update, state = optimizer.update(jax.grad(critic_loss)(by, asked, alarmed), state)
                return (clipped(optax.apply_updates(by, update)), state), None

            (by, of_critic), _ = jax.lax.scan(study, (by, of_critic), None, length=critic_steps)
            update, of_maker = optimizer.update(jax.grad(generator_loss)(made_by, by, values, label, key_g), of_maker)
            return (optax.apply_updates(made_by, update), by, of_maker, of_critic), None

        start = made_by, by, optimizer.init(made_by), optimizer.init(by)
        return jax.lax.scan(iterate, start, jax.random.split(keys[2], iterations))[0][0]

    def craft(target: Target, own: Flows, values: Array, label: Array, key: Array) -> Array:
        key_l, key_c = jax.random.split(key)
        return evasive(learn(target, own, key_l), values, label, key_c)

    asked = 2 * batch * iterations
    return Evader("generator", f"flows of its own, alarm or none for {asked:,} of them beforehand", (asked, 0), craft)
