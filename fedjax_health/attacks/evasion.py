"""Evasion: attack flows changed, within a budget and without ceasing to be the attack, until a detector takes them for benign.

Threat model. The attacker controls its own flows, not the device nor the detector's training. Functional features of the
attack, the protocol, encryption and the kind of device stay (`evasion_flows`). Every other free quantity z_j (in units of its
public scale) may move by at most the budget: |d_j| <= budget. Four attackers, from the weakest:

* `random`: one random point of the budget; asks nothing. The control: what it gains is slack of the detector, not skill.
* `random-search`: tries random points, asking the detector each time, and keeps the first that raises no alarm.
* `generator` (`evasion_generator`): asks the detector about flows of its own beforehand, and learns to make evasive ones.
* `white-box`: has the detector's parameters and follows its gradient.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from fedjax_health.attacks.evasion_flows import FlowSpace
from fedjax_health.types import Array, Params

LogBenign = Callable[[Params, Array], Array]  # (released, values f32[n, F] in units) -> f32[n], log p(benign)


class Target(NamedTuple):
    """A detector in operation.

    Attributes:
      released: its parameters, which only a white-box attacker reads.
      threshold: f32[], alarm where 1 - p(benign) is at least this.
    """

    released: Params
    threshold: Array


class Flows(NamedTuple):
    """Flows that an attacker has, padded at the end.

    Attributes:
      values: f32[n, F] in units.
      label: i32[n].
      count: i32[], how many are flows.
    """

    values: Array
    label: Array
    count: Array


class Evader(NamedTuple):
    """An attacker; pure, so that seeds are a vmap.

    Attributes:
      name: row in the tables.
      threat_model: what the attacker must have, in words.
      queries: the detector's answers (alarm or not) it takes beforehand, and at most for each flow.
      craft: (target, its own flows: benign ones and attacks, values f32[n, F], label i32[n] > 0, budget f32[], key) ->
        f32[n, F], the flows it sends instead.
    """

    name: str
    threat_model: str
    queries: tuple[int, int]
    craft: Callable[[Target, Flows, Array, Array, Array, Array], Array]


def alarm(log_benign: LogBenign, target: Target, values: Array) -> Array:
    """What the detector answers: bool[n].

    Args:
      log_benign: of the detector.
      target: the detector.
      values: f32[n, F].
    """
    return -jnp.expm1(log_benign(target.released, values)) >= target.threshold


def bounds(space: FlowSpace, label: Array, budget: Array) -> Array:
    """How far each free quantity of a flow may move, f32[n, J]: the budget, 0 for functional ones.

    Args:
      space: of the flows.
      label: i32[n].
      budget: f32[], in public scales, >= 0.
    """
    return budget * (~jnp.asarray(space.functional))[label].astype(jnp.float32)


def make_random(space: FlowSpace, log_benign: LogBenign, tries: int = 1) -> Evader:
    """Uniform points of the budget's box; with more than one try, the first of them that raises no alarm.

    Args:
      space: of the flows.
      log_benign: of the detector; not asked with one try.
      tries: points a flow. Where every one raises an alarm the last is sent.
    """

    def craft(target: Target, own: Flows, values: Array, label: Array, budget: Array, key: Array) -> Array:
        del own
        free, bound = jax.vmap(space.apart)(values), bounds(space, label, budget)

        def tried(sent: Array, key_t: Array) -> tuple[Array, None]:
            change = bound * jax.random.uniform(key_t, bound.shape, jnp.float32, -1.0, 1.0)
            made = jax.vmap(space.join)(free, change, values)
            if tries == 1:
                return made, None
            return jnp.where(alarm(log_benign, target, sent)[:, None], made, sent), None

        return jax.lax.scan(tried, values, jax.random.split(key, tries))[0]

    if tries == 1:
        return Evader("random", "nothing (the control)", (0, 0), craft)
    return Evader("random-search", f"alarm or none, {tries} times a flow", (0, tries), craft)


def make_white_box(space: FlowSpace, log_benign: LogBenign, steps: int = 30, rate: float = 0.15) -> Evader:
    """Projected gradient ascent on log p(benign): d = bound u, u <- clip(u + Adam(grad), -1, 1) from 0; the best point is kept.

    The detector is asked about the flow as it would be sent, rounded and with its relations; the gradient is that before
    rounding (straight through). Scores are never worse than those of the flow as it was.

    Args:
      space: of the flows.
      log_benign: of the detector, differentiable.
      steps: gradient steps.
      rate: of Adam, in budgets.

    Source: Madry et al. 2018, arXiv 1706.06083, with Adam for the sign.
    """
    optimizer = optax.adam(rate)

    def craft(target: Target, own: Flows, values: Array, label: Array, budget: Array, key: Array) -> Array:
        del own, key
        free, bound = jax.vmap(space.apart)(values), bounds(space, label, budget)

        def scores(part: Array) -> tuple[Array, Array]:
            made = jax.vmap(space.join)(free, part * bound, values)
            return log_benign(target.released, made), made

        def loss(part: Array) -> tuple[Array, tuple[Array, Array]]:
            score, made = scores(part)
            return -jnp.sum(score), (score, made)

        def better(best: tuple[Array, Array], score: Array, made: Array) -> tuple[Array, Array]:
            won = score > best[0]
            return jnp.where(won, score, best[0]), jnp.where(won[:, None], made, best[1])

        def step(carry, _):
            part, state, best = carry
            direction, (score, made) = jax.grad(loss, has_aux=True)(part)
            best = better(best, score, made)
            with jax.numpy_dtype_promotion("standard"):  # optax's bias correction is float ** int
                update, state = optimizer.update(direction, state, part)
            part = optax.projections.projection_box(optax.apply_updates(part, update), -1.0, 1.0)
            return (part, state, best), None

        still = jnp.zeros_like(free)
        (part, _, best), _ = jax.lax.scan(step, (still, optimizer.init(still), scores(still)), None, length=steps)
        return better(best, *scores(part))[1]

    return Evader("white-box", f"the detector's parameters; {steps} gradient steps a flow", (0, 0), craft)
