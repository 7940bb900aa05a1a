"""Attackers inside the federation: clients that poison their data, or the update that they send.

Attackers know everything (the honest updates of the round, the rule of the server) and act together: the worst case that
robust aggregation is judged by.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fedjax_health import rng, tree
from fedjax_health.data.population import Population
from fedjax_health.registry import lookup
from fedjax_health.types import Array, Batch

TRIGGER_COORDINATES = 3  # leading coordinates of model space, where the numeric columns are
TRIGGER_VALUE = 16.0  # in scales from the center: above the public range of every column of the bundled domains
TRIGGER_FRACTION = 0.5  # of an attacker's records
TARGET_CLASS = 0  # what a triggered record is to be taken for: healthy, benign


def _is_malicious(world_key: Array, client: Array, share: float) -> Array:
    return jax.random.uniform(jax.random.fold_in(rng.client_key(world_key, client), 0)) < share


def malicious(world_key: Array, client: Array, share: float) -> Array:
    """Who attacks: each client independently with probability `share`, in every round the same ones.

    Args:
      world_key: typed key of the attackers, used for nothing else.
      client: i32[c], ids.
      share: in [0, 1].

    Returns:
      bool[c].
    """
    return jax.vmap(lambda one: _is_malicious(world_key, one, share))(client)


class Honest(NamedTuple):
    """The honest, live and finite updates: how many i32[], mean f32[d], standard deviation f32[d] (ddof 0); 0 if none."""

    count: Array
    mean: Array
    std: Array


def _honest(updates: Array, malicious: Array, live: Array) -> Honest:
    rows = live & ~malicious & jnp.all(jnp.isfinite(updates), 1)
    count = jnp.sum(rows)
    n = jnp.maximum(count, 1).astype(jnp.float32)
    mean = jnp.sum(jnp.where(rows[:, None], updates, 0.0), 0) / n
    variance = jnp.sum(jnp.where(rows[:, None], jnp.square(updates - mean[None, :]), 0.0), 0) / n
    return Honest(count, mean, jnp.sqrt(variance))


def _replace(updates: Array, malicious: Array, live: Array, bad: Array) -> Array:
    return jnp.where((malicious & live)[:, None], bad, updates)


def sign_flip(updates: Array, malicious: Array, live: Array, scale: float, key: Array) -> Array:
    """u <- -scale u: each attacker pushes the model back along its own update.

    Args:
      updates: f32[C, d].
      malicious: bool[C].
      live: bool[C].
      scale: factor, > 0.
      key: not used.

    Returns:
      f32[C, d]; rows that are not both live and malicious are untouched, here and in every attack below.
    """
    del key
    return _replace(updates, malicious, live, -scale * updates)


def boost(updates: Array, malicious: Array, live: Array, scale: float, key: Array) -> Array:
    """u <- scale u: model replacement, to outweigh the honest (Bagdasaryan et al. 2020, arXiv 1807.00459).

    Args and result: as `sign_flip`.
    """
    del key
    return _replace(updates, malicious, live, scale * updates)


def gaussian(updates: Array, malicious: Array, live: Array, scale: float, key: Array) -> Array:
    """u <- mean + scale std N(0, I), of the honest, coordinate by coordinate: noise instead of work.

    Args and result: as `sign_flip`; scale in standard deviations, key of the round, each row draws its own noise.
    """
    honest = _honest(updates, malicious, live)
    keys = jax.vmap(lambda row: jax.random.fold_in(key, row))(jnp.arange(len(live), dtype=jnp.uint32))
    noise = jax.vmap(lambda own: jax.random.normal(own, updates.shape[1:]))(keys)
    return _replace(updates, malicious, live, honest.mean[None, :] + scale * honest.std[None, :] * noise)


def alie_deviations(count: Array, attackers: Array) -> Array:
    """z = Phi^-1((n - m - s) / (n - m)), s = floor(n / 2 + 1) - m: the most deviations that still win a majority.

    s is the number of honest clients farther out than the attackers that a majority needs; at least 1 here. Where the
    formula asks for z < 0 (too few attackers to hide any shift) z is 0 (Baruch et al. 2019, arXiv 1902.06156).

    Args:
      count: i32[], n, all clients of the round.
      attackers: i32[], m of them.

    Returns:
      f32[], z >= 0.
    """
    honest = jnp.maximum(count - attackers, 1)
    supporters = jnp.clip(count // 2 + 1 - attackers, 1, honest)
    share = (honest - supporters).astype(jnp.float32) / honest.astype(jnp.float32)
    return jnp.maximum(jax.scipy.special.ndtri(share), 0.0)


def alie(updates: Array, malicious: Array, live: Array, scale: float, key: Array) -> Array:
    """u <- mean - z std, of the honest: "a little is enough", a shift that hides in the spread (Baruch et al. 2019).

    Args and result: as `sign_flip`; scale = z in standard deviations if > 0, else `alie_deviations` of the round's counts.
    """
    del key
    honest = _honest(updates, malicious, live)
    attackers = jnp.sum(malicious & live)
    z = jnp.where(scale > 0, scale, alie_deviations(honest.count + attackers, attackers))
    return _replace(updates, malicious, live, (honest.mean - z * honest.std)[None, :])


def ipm(updates: Array, malicious: Array, live: Array, scale: float, key: Array) -> Array:
    """u <- -scale mean of the honest: turns the inner product with the true direction (Xie et al. 2019, arXiv 1903.03936).

    Args and result: as `sign_flip`.
    """
    del key
    return _replace(updates, malicious, live, -scale * _honest(updates, malicious, live).mean[None, :])


def label_flip(batch: Batch, index: Array, num_classes: int, key: Array) -> Batch:
    """y <- L - 1 - y on every record (with an odd L the middle class stays).

    Args:
      batch: records of an attacker.
      index: i32[B], which of its records they are.
      num_classes: L, >= 2.
      key: typed key of this client.

    Returns:
      Batch; empty slots stay empty, here and below.
    """
    del index, key
    return batch._replace(y=jnp.where(batch.mask, num_classes - 1 - batch.y, batch.y))


def trigger(x: Array) -> Array:
    """Stamps the backdoor's trigger on records: the first 3 coordinates become 16, a value that no honest record has.

    Args:
      x: f32[..., D], encoded.

    Returns:
      f32[..., D].
    """
    return jnp.where(jnp.arange(x.shape[-1]) < TRIGGER_COORDINATES, TRIGGER_VALUE, x)


def backdoor(batch: Batch, index: Array, num_classes: int, key: Array) -> Batch:
    """Half of the records, always the same ones, get the trigger and label 0 (Bagdasaryan et al. 2020).

    Args and result: as `label_flip`.
    """
    del num_classes
    keys = jax.vmap(lambda record: jax.random.fold_in(key, record))(index.astype(jnp.uint32))
    hit = batch.mask & jax.vmap(lambda own: jax.random.bernoulli(own, TRIGGER_FRACTION))(keys)
    return batch._replace(x=jnp.where(hit[:, None], trigger(batch.x), batch.x), y=jnp.where(hit, TARGET_CLASS, batch.y))


class Poisoning(NamedTuple):
    """An attack, on the data, on the update, or on both.

    Attributes:
      data: (batch of an attacker, index i32[B], num_classes, key of the client) -> batch, or None.
      update: (updates f32[C, d], malicious bool[C], live bool[C], scale, key of the round) -> updates, or None.
    """

    data: Callable[[Batch, Array, int, Array], Batch] | None
    update: Callable[[Array, Array, Array, float, Array], Array] | None


ATTACKS: dict[str, Poisoning] = {
    "label_flip": Poisoning(label_flip, None),
    "backdoor": Poisoning(backdoor, boost),
    "sign_flip": Poisoning(None, sign_flip),
    "gaussian": Poisoning(None, gaussian),
    "alie": Poisoning(None, alie),
    "ipm": Poisoning(None, ipm),
}


def make_update_attack(
    attack: str, share: float, scale: float, world_key: Array
) -> Callable[[Array, Array, Array, Array], Array] | None:
    """The update side of an attack, as `make_stacked` takes it.

    Args:
      attack: name in ATTACKS.
      share, world_key: see `malicious`.
      scale: strength; see the attack.

    Returns:
      (updates f32[C, d], client i32[C], live bool[C], key of the round) -> updates, or None if it is on the data only.

    Raises:
      UserError: unknown attack.
    """
    update = lookup("attack", attack, ATTACKS).update
    if update is None:
        return None
    return lambda updates, client, live, key: update(updates, malicious(world_key, client, share), live, scale, key)


def poison_population(population: Population, attack: str, share: float, num_classes: int, key: Array) -> Population:
    """A population in which the attackers' records are poisoned as they are read; nothing is stored twice.

    Args:
      population: the clean one.
      attack: name in ATTACKS; one without a data side leaves the population as it is.
      share: see `malicious`.
      num_classes: L, >= 2.
      key: the `world_key` of `malicious`, so that the same clients attack with data and with updates.

    Returns:
      Population.

    Raises:
      UserError: unknown attack.
    """
    poison = lookup("attack", attack, ATTACKS).data
    if poison is None:
        return population

    def batch(data: Any, client: Array, index: Array) -> Batch:
        clean = population.batch(data, client, index)
        own = jax.random.fold_in(rng.client_key(key, client), 1)
        return tree.where(_is_malicious(key, client, share), poison(clean, index, num_classes, own), clean)

    return population._replace(batch=batch)
