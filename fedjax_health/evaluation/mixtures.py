"""What each client's classifier reads: real records of a client and synthetic rows beside them, as two spans of rows."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from fedjax_health.data.population import Population
from fedjax_health.types import Array, Batch, Table


class Mixture(NamedTuple):
    """Training set of one seed: client k reads real[first : first + count] and then made[first : first + count].

    Attributes:
      made: synthetic rows, at most as many as the real table has.
      real_first, real_count: i32[K], span in the real table.
      made_first, made_count: i32[K], span in `made`; together a client reads at most twice the most records of any client.
      order: i64[M], the real table's rows as `real_first` and `real_count` have them; () = as they stand.
    """

    made: Table
    real_first: np.ndarray
    real_count: np.ndarray
    made_first: np.ndarray
    made_count: np.ndarray
    order: np.ndarray | tuple[()] = ()


class Spans(NamedTuple):
    """A mixture on the device: f32[2M, D] and i32[2M], the real rows first, and the spans i32[K] into all 2M rows."""

    x: Array
    y: Array
    real_first: Array
    real_count: Array
    made_first: Array
    made_count: Array


class Held(NamedTuple):
    """Where the real records of each client stand.

    Attributes:
      first: i64[K], first row of a client.
      count: i64[K], rows of a client.
    """

    first: np.ndarray
    count: np.ndarray

    @property
    def most(self) -> int:
        """Most records of any client."""
        return int(self.count.max())


def held(train: Table, num_clients: int) -> Held:
    """Where each client's records stand.

    Args:
      train: real records, client-major.
      num_clients: K; clients without rows get count 0.
    """
    count = np.bincount(train.client, minlength=num_clients).astype(np.int64)
    return Held(np.cumsum(count) - count, count)


def kept(table: Table, at: Held, keep: np.ndarray) -> tuple[np.ndarray, Held]:
    """Where the records stand that are kept, once each client's come first: clients lose records, and none its place.

    Args:
      table: real records, client-major.
      at: where they stand.
      keep: bool[M].

    Returns:
      (order i64[M] for `Mixture.order`, where the kept records of each client then stand).
    """
    order = np.lexsort((~keep, table.client))
    return order, Held(at.first, np.bincount(table.client[keep], minlength=len(at.count)).astype(np.int64))


def spans_population(size: int, most: int) -> Population:
    """Population over `Spans`, which are passed as data: one program serves every mixture.

    Args:
      size: K.
      most: most records of any client, real and synthetic ones together.
    """

    def count(data: Spans, client: Array) -> Array:
        return data.real_count[client] + data.made_count[client]

    def batch(data: Spans, client: Array, index: Array) -> Batch:
        real = data.real_count[client]
        mask = (index >= 0) & (index < real + data.made_count[client])
        row = jnp.where(index < real, data.real_first[client] + index, data.made_first[client] + index - real)
        row = jnp.where(mask, row, 0)  # an empty slot must not read a neighbour's record
        return Batch(jnp.where(mask[:, None], data.x[row], 0.0), jnp.where(mask, data.y[row], 0), mask)

    return Population(size, most, 0, True, count, batch)


def make_spans(mixtures: list[Mixture], real: np.ndarray, label: np.ndarray, encode: Any) -> Spans:
    """Mixtures of N seeds side by side, in shapes that depend on the real table alone.

    Args:
      mixtures: one a seed.
      real: f32[M, D], encoded real records.
      label: i32[M], theirs.
      encode: f32[M, F] -> f32[M, D].

    Returns:
      Spans with a leading axis N on every leaf; rows that no span covers are zeros before encoding.
    """
    total, xs, ys = len(label), [], []
    for mixture in mixtures:
        values = np.zeros((total, mixture.made.values.shape[1]), np.float32)
        labels = np.zeros(total, np.int32)
        values[: len(mixture.made.label)], labels[: len(mixture.made.label)] = mixture.made.values, mixture.made.label
        order = mixture.order if len(mixture.order) else slice(None)
        xs.append(np.concatenate([real[order], np.asarray(encode(values))]))
        ys.append(np.concatenate([label[order], labels]).astype(np.int32))

    def each(name: str, shift: int = 0) -> Array:
        return jnp.asarray(np.stack([getattr(m, name) + shift for m in mixtures]).astype(np.int32))

    made = each("made_first", total), each("made_count")
    return Spans(jnp.asarray(np.stack(xs)), jnp.asarray(np.stack(ys)), each("real_first"), each("real_count"), *made)


def view_mixture(view: str, made: Table, at: Held) -> Mixture:
    """One of the three views: a client's own records, as many synthetic ones, or both.

    Args:
      view: "real", "synthetic" or "real+synthetic".
      made: as many synthetic rows as the real table has.
      at: where the real records stand.
    """
    none = np.zeros_like(at.count)
    real, synthetic = view != "synthetic", view != "real"
    return Mixture(made, at.first, at.count if real else none, at.first, at.count if synthetic else none)


def fraction_mixture(
    made: Table, at: Held, include: np.ndarray, fraction: float, add: bool, generator: np.random.Generator
) -> Mixture:
    """Real records of a share of the clients only, with or without synthetic rows; training does as much work as with all.

    The clients that are kept stand in for the others, in turn and as equally often as can be, so that cohorts, steps and
    batches stay what they are and only the number of different real records falls. With synthetic rows, a client reads as many
    as it reads real ones, and different clients different ones, so that the whole synthetic table is used: rows of a generator
    cost nothing, real ones do.

    Args:
      made: as many synthetic rows as the real table has.
      at: where the real records stand.
      include: bool[K], clients of this seed.
      fraction: share of these clients to keep, in (0, 1]; at least one is.
      add: whether synthetic rows are added.
      generator: chooses the clients; the same generator gives the smaller share as a part of the larger one.
    """
    there = np.flatnonzero(include & (at.count > 0))
    kept = generator.permutation(there)[: max(1, round(fraction * len(there)))]
    source = kept[np.arange(len(there)) % len(kept)]
    first, count, beside = at.first.copy(), at.count.copy(), np.zeros_like(at.count)
    first[there], count[there] = at.first[source], at.count[source]
    if add:
        beside = count
    # where a stand-in has more records than the client it stands for, its synthetic span runs on into the next client's
    made_first = np.minimum(at.first, len(made.label) - beside)
    return Mixture(made, first, count, made_first, beside)


def dealt_mixture(
    pool: Table, amounts: np.ndarray, at: Held, include: np.ndarray, generator: np.random.Generator
) -> Mixture:
    """All real records of a seed's clients, and synthetic rows of each class, dealt to them by their share of the records.

    Args:
      pool: synthetic rows to choose from, in any order; those of a class are taken from the top, and again from there where
        the pool has fewer than are asked for. Of a class that it lacks none is added.
      amounts: i64[L], rows of each class; in all at most as many as the clients have real ones.
      at: where the real records stand.
      include: bool[K], clients of this seed; the others are dealt nothing.
      generator: shuffles what is dealt.
    """
    picked = [np.resize(rows, n) for c, n in enumerate(amounts) if len(rows := np.flatnonzero(pool.label == c))]
    rows = generator.permutation(np.concatenate([np.zeros(0, np.int64), *picked]))
    bounds = np.concatenate([[0], np.cumsum(at.count * include)])
    edges = bounds * len(rows) // max(int(bounds[-1]), 1)
    made = Table(pool.values[rows], pool.label[rows], np.arange(len(rows), dtype=np.int32))
    return Mixture(made, at.first, at.count, edges[:-1], np.diff(edges))
