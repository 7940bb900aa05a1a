"""Black-box evasion: a generator of changes, trained against a surrogate that learns from the detector's answers alone."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import optax

from fedjax_health.attacks.evasion import Evader, Flows, LogBenign, Target, alarm, bounds
from fedjax_health.attacks.evasion_flows import FlowSpace
from fedjax_health.data.encode import Encoder
from fedjax_health.models.base import Mlp, apply
from fedjax_health.types import Array, Params

NOISE = 4  # inputs of the generator beside the flow


def make_generator(
    space: FlowSpace,
    log_benign: LogBenign,
    encoder: Encoder,
    *,
    iterations: int = 300,
    batch: int = 128,
    hidden: tuple[int, ...] = (64, 64),
    rate: float = 1e-3,
    surrogate_steps: int = 3,
) -> Evader:
    """Change d = bound tanh(G(flow, class, noise)); S learns which flows raise an alarm, G to make S call its own benign.

    Every iteration asks the detector about `batch` evasive and `batch` benign flows of the attacker's own. With a = 1 where it
    raised an alarm: S minimises E[softplus(S (1 - 2 a))], G minimises E[S(evasive)], both by RMSprop. Then other flows are
    changed without a question. IDSGAN's S is a Wasserstein critic with clipped weights, which learnt less from as many answers:
    a is what a function says, no sample of two distributions, and cross-entropy learns functions.

    Args:
      space: of the flows.
      log_benign: of the detector; asked for alarms only.
      encoder: of the records; the surrogate sees model space.
      iterations, batch: their product, twice, is the number of queries.
      hidden: of both networks.
      rate: of RMSprop.
      surrogate_steps: steps of the surrogate an iteration, on the same answers.

    Source: after Lin, Shi and Xue 2022 (IDSGAN), arXiv 1809.02077; learning from answers alone: Papernot et al. 2017, arXiv
      1602.02697.
    """
    generator, surrogate = Mlp(hidden, len(space.names)), Mlp(hidden, 1)
    classes = space.functional.shape[0]
    optimizer = optax.rmsprop(rate)

    def evasive(made_by: Params, values: Array, label: Array, budget: Array, key: Array) -> Array:
        free = jax.vmap(space.apart)(values)
        noise = jax.random.normal(key, (values.shape[0], NOISE))
        inputs = jnp.concatenate([encoder.encode(values), jax.nn.one_hot(label, classes), noise], -1)
        change = bounds(space, label, budget) * jnp.tanh(apply(generator, made_by, inputs))
        return jax.vmap(space.join)(free, change, values)

    def judged(by: Params, values: Array) -> Array:
        return apply(surrogate, by, encoder.encode(values))[:, 0]

    def surrogate_loss(by: Params, values: Array, alarmed: Array) -> Array:
        score = judged(by, values)
        return jnp.mean(jax.nn.softplus(jnp.where(alarmed, -score, score)))

    def generator_loss(made_by: Params, by: Params, values: Array, label: Array, budget: Array, key: Array) -> Array:
        return jnp.mean(judged(by, evasive(made_by, values, label, budget, key)))

    def learn(target: Target, own: Flows, budget: Array, key: Array) -> Params:
        keys = jax.random.split(key, 3)
        there = jnp.arange(own.label.shape[0]) < own.count
        kinds = there & (own.label > 0), there & (own.label == 0)
        of_kind = [(jnp.argsort(~kind, stable=True), jnp.sum(kind.astype(jnp.int32))) for kind in kinds]
        dim = encoder.layout.dim
        made_by = generator.init(keys[0], jnp.zeros((1, dim + classes + NOISE), jnp.float32))
        by = surrogate.init(keys[1], jnp.zeros((1, dim), jnp.float32))

        def iterate(carry, key_i):
            made_by, by, of_maker, of_surrogate = carry
            key_a, key_b, key_q, key_g = jax.random.split(key_i, 4)
            rows, others = (
                order[jax.random.randint(k, (batch,), 0, count)]
                for (order, count), k in zip(of_kind, (key_a, key_b), strict=True)
            )
            values, label = own.values[rows], own.label[rows]
            asked = jnp.concatenate([evasive(made_by, values, label, budget, key_q), own.values[others]])
            alarmed = alarm(log_benign, target, asked)

            def study(carry, _):
                by, state = carry
                update, state = optimizer.update(jax.grad(surrogate_loss)(by, asked, alarmed), state)
                return (optax.apply_updates(by, update), state), None

            (by, of_surrogate), _ = jax.lax.scan(study, (by, of_surrogate), None, length=surrogate_steps)
            update, of_maker = optimizer.update(
                jax.grad(generator_loss)(made_by, by, values, label, budget, key_g), of_maker
            )
            return (optax.apply_updates(made_by, update), by, of_maker, of_surrogate), None

        start = made_by, by, optimizer.init(made_by), optimizer.init(by)
        return jax.lax.scan(iterate, start, jax.random.split(keys[2], iterations))[0][0]

    def craft(target: Target, own: Flows, values: Array, label: Array, budget: Array, key: Array) -> Array:
        key_l, key_c = jax.random.split(key)
        return evasive(learn(target, own, budget, key_l), values, label, budget, key_c)

    asked = 2 * batch * iterations
    return Evader("generator", f"flows of its own, alarm or none for {asked:,} of them beforehand", (asked, 0), craft)
