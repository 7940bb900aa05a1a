"""The stage between training and evaluation: synthetic tables of every model and seed, and what is published of the first."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from fedjax_health import build, one_shot, rng
from fedjax_health.config import Config
from fedjax_health.data.representation import layout_of
from fedjax_health.evaluation import suite
from fedjax_health.models.base import Generative, GenerativeModel
from fedjax_health.prepared import Prepared
from fedjax_health.results import white_box
from fedjax_health.synthesis.calibrate import calibrated_by
from fedjax_health.synthesis.generator_file import Nothing, Sizes, save_generator, sizes
from fedjax_health.synthesis.publish import publish
from fedjax_health.synthesis.sample import Published, decoder_of, make_sampler
from fedjax_health.train.stage import Trained, federation_keys
from fedjax_health.types import Table

MOST_SYNTHETIC_ROWS = 50_000


class Drawn(NamedTuple):
    """What the rows of a model are drawn from.

    Attributes:
      model: gives `sample` and `score`.
      network: of each seed, what is released beside the representation.
      params: what its `score` reads, leading axis N.
      sizes: of the network, for its file.
    """

    model: Generative
    network: list[Any]
    params: Any
    sizes: Sizes


def drawn_from(config: Config, p: Prepared, name: str, trained: dict[str, Trained]) -> Drawn:
    """A model of a run once its trainings are done.

    Args:
      config: the run.
      p: the domain.
      name: of the model.
      trained: stage to training.
    """
    if name in p.one_shots:
        released = one_shot.released_of(p)
        stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *released)
        return Drawn(p.one_shots[name], released, stacked, Nothing())
    model, state = p.parts[name].model, trained[f"{p.domain.name}/{name}"].state
    assert isinstance(model, GenerativeModel)
    networks = [jax.tree.map(lambda leaf, s=s: leaf[s], state.average) for s in range(config.seeds)]
    return Drawn(model, networks, state.params, sizes(build.model_config(name, config)))


def synthesise(config: Config, p: Prepared, trained: dict[str, Trained], path: str | None) -> list[suite.Subject]:
    """Synthetic tables of every model and seed; the table and the generator of the first seed are published.

    Args:
      config: the run.
      p: the domain.
      trained: stage to training.
      path: the run's folder; None = nothing is published.
    """
    subjects, folder, domain = [], os.path.join(path or "", "synthetic"), p.domain.name
    for name in config.models:
        drawn, kind = drawn_from(config, p, name, trained), config.representation
        model, learns = drawn.model, isinstance(drawn.model, GenerativeModel)
        sample = make_sampler(model, decoder_of(p.domain.schema, kind))
        draw, missing = jax.jit(model.sample), layout_of(p.domain.schema, kind).missing
        keys = federation_keys(rng.named_seed(config.seed, f"{domain}/{name}", "synthesis"), config.seeds)
        total = len(p.domain.train.label)
        wanted = config.evaluation.synthetic_rows or min(total, MOST_SYNTHETIC_ROWS)
        tables, every = [], []
        for s, network in enumerate(drawn.network):
            fitted = p.fitted[s] if p.fitted else ()
            if p.fitted and learns:  # a copula's own margins are the data's
                fitted = calibrated_by(draw, network, p.shares[s], keys[s], kind, missing, p.fitted[s])
            released = Published(network, fitted)
            every.append(released)
            table = sample(released, p.shares[s], keys[s], max(total, wanted))
            if s == 0 and path is not None:
                published = Table(*(column[:wanted] for column in table))
                publish(folder, f"{domain}_{name}", published, p.domain.schema)
                save_generator(folder, domain, name, drawn.sizes, kind, released, p.shares[s], p.domain.schema)
            tables.append(Table(*(column[:total] for column in table)))
        score = white_box(model, p, kind, drawn.params, keys)
        more = rng.named_seed(config.seed, f"{domain}/{name}", "augmentation")
        again = functools.partial(draw_more, sample, every, more)
        subjects.append(suite.Subject(name, tables, min(wanted, total), score, again))
    return subjects


def draw_more(
    sample: Callable[[Published, np.ndarray, jax.Array, int], Table],
    released: Sequence[Published],
    seed: int,
    s: int,
    shares: np.ndarray,
    rows: int,
) -> Table:
    """Rows of a generator beside those of its table.

    Args:
      sample: of `make_sampler`.
      released: the generator of each seed.
      seed: address of their randomness, not that of the tables.
      s: number of the federation.
      shares: f32[L], class shares.
      rows: how many.
    """
    return sample(released[s], shares, federation_keys(seed, len(released))[s], rows)
