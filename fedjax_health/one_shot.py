"""Generators that are not trained, at the end of a run: what is drawn from, and what it cost the clients."""

from __future__ import annotations

import numpy as np

from fedjax_health.data.cells import edges_of, variables
from fedjax_health.data.encode import Layout
from fedjax_health.data.representation import Fitted
from fedjax_health.data.schema import Schema
from fedjax_health.evaluation.efficiency import Traffic, statistics_rows
from fedjax_health.prepared import Prepared
from fedjax_health.privacy.fit import MOST_NOISY
from fedjax_health.types import Row

FLOAT_BYTES = 4


def released_of(p: Prepared) -> list[dict[str, np.ndarray]]:
    """What `models.copula` releases beside the representation, of each seed.

    Args:
      p: a domain that was asked for categories.
    """
    return [{"shares": shares} for shares in p.categories]


def traffic(schema: Schema, layout: Layout, fitted: Fitted, private: bool) -> Traffic:
    """What a client sends and receives for a copula, in uncompressed 32-bit numbers.

        up = 4 L (1 + sum_j cells_j + pairs + bits + sum of block sizes)
        pairs = (J + 1) (J + 2) / 2, twice if cells may be missing
        down = 4 (1 + L) sum_j edges_j: the cells' edges and F of each class there, without which no client can say its scores

    A client that has no record in a class sends its zeros all the same, since what it leaves out would tell.

    Args:
      schema: the columns.
      layout: meaning of the D axis.
      fitted: of one seed.
      private: whether cells are as coarse as under noise.
    """
    parts, inputs = variables(schema), schema.inputs
    cells = sum(len(edges_of(v, MOST_NOISY) if private else edges_of(v)) - 1 for v in parts)
    gaps = any(inputs[v.column].nullable or (v.other >= 0 and inputs[v.other].nullable) for v in parts)
    pairs = (len(parts) + 1) * (len(parts) + 2) // 2 * (2 if gaps else 1)
    numbers = schema.num_classes * (1 + cells + pairs + layout.bits + sum(layout.blocks))
    edges = sum(len(np.unique(row)) for row in fitted.edges)  # rows repeat their last edge
    return Traffic(FLOAT_BYTES * numbers, FLOAT_BYTES * (1 + schema.num_classes) * edges)


def cost_rows(p: Prepared, private: bool) -> list[Row]:
    """Efficiency rows of a domain's one-shot generators.

    Args:
      p: the domain.
      private: whether the run has a mechanism.
    """
    held = np.bincount(p.domain.train.client, minlength=p.include.shape[1]) > 0
    asked = [int(np.sum(there & held)) for there in p.include]
    costs = [traffic(p.domain.schema, p.domain.encoder.layout, fitted, private) for fitted in p.fitted]
    return [row for name in p.one_shots for row in statistics_rows(p.domain.name, name, costs, asked)]
