"""Hardening of a federated detector: its devices train on evasive flows that they make of their own attacks.

Each device attacks, on itself, the model that it has; no flow leaves it, and no validation or test flow is used. Two ways:
`hardened` attacks the rows of every batch by a few gradient steps; `harden_in_rounds` attacks all training attacks at once,
trains a new detector on what was made beside the records as they were, and does so again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from fedjax_health.attacks.evasion import Evader, Flows, Target
from fedjax_health.data.domain import Domain
from fedjax_health.data.encode import Encoder
from fedjax_health.evaluation.arena import Arena, padded, rows_where
from fedjax_health.models.base import Classifier, ModelParams
from fedjax_health.types import Array, Batch, Hyper, Metrics, Table, Update

NOBODY = Flows(*np.zeros((3, 0), np.float32))  # pyright: ignore[reportArgumentType] - for attackers who need no flows of their own


def make_sender(evader: Evader) -> Callable[[Target, Sequence[Table], Sequence[Table], float, Array], list[Table]]:
    """What an attacker sends instead, in N worlds at once; one compiled program for all tables of a size.

    Args:
      evader: the attacker.

    Returns:
      (target with leading axis N, what the attacker has, attacks to be sent, budget, typed keys [N]) -> tables of what is sent.
    """
    craft = jax.jit(jax.vmap(evader.craft, (0, 0, 0, 0, None, 0)))

    def send(target: Target, own: Sequence[Table], attacks: Sequence[Table], budget: float, keys: Array) -> list[Table]:
        flows = padded(attacks)
        label = jnp.maximum(flows.label, 1)  # what pads is no flow, and is cut off below
        made = jax.device_get(craft(target, padded(own), flows.values, label, jnp.float32(budget), keys))
        return [t._replace(values=m[: len(t.label)]) for t, m in zip(attacks, made, strict=True)]

    return send


def hardened(classifier: Classifier, evader: Evader, encoder: Encoder, budget: float) -> Classifier:
    """A classifier that learns attacks as an attacker would send them: min E[-log p(y | x')], x' the attacked x where y > 0.

    Args:
      classifier: what is hardened; predicts as before.
      evader: a white-box attacker of few steps; one that reads no flows of its own and no threshold.
      encoder: of the records; attacked rows are decoded, changed and encoded again.
      budget: of the attacker, in public scales.

    Source: Madry et al. 2018, arXiv 1706.06083.
    """

    def field(params: ModelParams, batch: Batch, hyper: Hyper, key: Array) -> tuple[Update, Metrics]:
        key_a, key_f = jax.random.split(key)
        target = Target(classifier.release(params), jnp.float32(1.0))
        made = evader.craft(
            target, NOBODY, encoder.decode(batch.x), jnp.maximum(batch.y, 1), jnp.float32(budget), key_a
        )
        x = jnp.where((batch.y > 0)[:, None], encoder.encode(made), batch.x)
        return classifier.field(params, batch._replace(x=x), hyper, key_f)

    return classifier._replace(field=field, record_loss=None)


def beside_own(generations: Sequence[Sequence[Table]]) -> list[Table]:
    """Evasive flows of all generations together, device by device: what each device trains on beside its own records.

    Args:
      generations: of each, one client-major table a world.
    """
    made = []
    for tables in zip(*generations, strict=True):
        whole = Table(*(np.concatenate(columns) for columns in zip(*tables, strict=True)))
        made.append(rows_where(whole, np.argsort(whole.client, kind="stable")))
    return made


def harden_in_rounds(
    arena: Arena, evader: Evader, budget: float, worlds: Sequence[Domain], before: Target, keys: Array, rounds: int
) -> Target:
    """Attack the detector with the training attacks, train anew beside all that it let the attacker make, and again.

    Every training is as long as the first and starts where it started.

    Args:
      arena: trains; has room for `rounds` times the training attacks.
      evader: the attacker, one that needs no flows of its own.
      budget: of it, in public scales.
      worlds: of the arena.
      before: detectors that were trained without.
      keys: typed keys [N].
      rounds: >= 1.

    Source: in rounds as Tramèr et al. 2018, arXiv 1705.07204, have it for other models' flows.
    """
    attacks = [rows_where(w.train, w.train.label > 0) for w in worlds]
    send, target, generations = make_sender(evader), before, []
    for r in range(rounds):
        own_keys = jax.vmap(lambda key, r=r: jax.random.fold_in(key, r))(keys)
        generations.append(send(target, attacks, attacks, budget, own_keys))
        target = arena.target(arena.fit(beside_own(generations), f"hardened {r + 1}"))
    return target
