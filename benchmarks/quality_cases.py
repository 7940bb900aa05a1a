"""What `benchmarks.quality` compares: data sets x {central, IID, by patient} x epsilon, with marks, floors, rivals, models."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

import jax
import numpy as np
import pandas as pd

from benchmarks.quality_data import DataSet, dealt, one_a_patient
from benchmarks.quality_figures import judge
from benchmarks.quality_peers import PEERS, fit_peer
from fedjax_health.data.cells import variables
from fedjax_health.data.encode import make_encoder
from fedjax_health.data.representation import make_decode, normal_knots
from fedjax_health.data.schema import Schema
from fedjax_health.evaluation.aim import aim
from fedjax_health.evaluation.baselines import gaussian_copula, independent_marginals
from fedjax_health.synthesizer import Preset, Synthesizer, preset
from fedjax_health.types import Table

ROWS = 20_000
WHERE = ("central", "iid", "federated")
EPSILONS = (math.inf, 8.0, 3.0, 1.0)
QUICK_ROUNDS = 500
MODELS: dict[str, Callable[..., Synthesizer]] = {
    "vae": Synthesizer
}  # name -> maker by schema, epsilon, seed and preset
FLOORS = {"independent-marginals": independent_marginals, "gaussian-copula": gaussian_copula}

Figures = dict[str, float]
Wanted = Callable[[str], bool]


class Case(NamedTuple):
    """One training: where records are, and what is promised.

    Attributes:
      where: "central", "iid" (rows dealt to as many clients at random) or "federated" (by patient).
      epsilon: of the whole; infinite = no guarantee. It hides a client, or a row of a central table.
    """

    where: str
    epsilon: float

    @property
    def private(self) -> bool:
        """Whether there is a guarantee."""
        return math.isfinite(self.epsilon)

    @property
    def name(self) -> str:
        """Of rows that depend on the budget, such as "federated", "epsilon 8" (by patient), "iid epsilon 8"."""
        if not self.private:
            return self.where
        budget = f"epsilon {self.epsilon:g}"
        return budget if self.where == "federated" else f"{self.where} {budget}"

    @property
    def marks(self) -> str:
        """Of rows that do not, such as "federated", "private", "iid private"."""
        if not self.private:
            return self.where
        return "private" if self.where == "federated" else f"{self.where} private"


class Setting(NamedTuple):
    """What a case trains on and is judged by.

    Attributes:
      frame: records for training, with the client's column.
      schema: of training; without a client for central cases.
      real: reference table: the training records, or one drawn from each patient in turn under a guarantee by patient.
      held: training records as a curator holds them: coded, with the clients that a guarantee hides.
      judged: schema of the figures.
    """

    frame: pd.DataFrame
    schema: Schema
    real: Table
    held: Table
    judged: Schema


def cases(quick: bool) -> list[Case]:
    """All cases in order.

    Args:
      quick: two of them.
    """
    if quick:
        return [Case("central", math.inf), Case("federated", 8.0)]
    return [Case(where, epsilon) for epsilon in EPSILONS for where in WHERE]


def rows_of(case: Case, marked: bool, peers: bool, quick: bool) -> list[str]:
    """Names of a case's rows: marks, models, one-shot and AIM under a guarantee, peers of central training.

    Args:
      case: of `cases`.
      marked: whether the marks have been measured already in another case.
      peers: whether peers are asked for.
      quick: AIM takes too long for it.
    """
    names = [] if marked else [f"{case.marks}/{mark}" for mark in ("real", *FLOORS)]
    names += [f"{case.name}/{model}" for model in MODELS]
    if case.private:
        names += [f"{case.name}/one-shot"] + ([] if quick else [f"{case.name}/aim"])
    elif case.where == "central" and peers:
        names += [f"{case.name}/{peer}" for peer in PEERS]
    return names


def setting_of(data: DataSet, case: Case) -> Setting:
    """What a case trains on and is judged by.

    Args:
      data: the data set.
      case: of `cases`.
    """
    frame = data.train
    if case.where == "central":
        frame = frame.sample(min(ROWS, len(frame)), random_state=0)
    elif case.where == "iid":
        frame = dealt(frame, data.client, 0)
    table = data.coded(frame, case.private)
    own = case.where != "central"
    held = table if own else table._replace(client=np.arange(len(table.label), dtype=np.int32))
    # a patient counts the same whatever its records; a row does where rows, or equal numbers of them, are the clients
    real = one_a_patient(table, ROWS, 1) if case.private and case.where == "federated" else table
    return Setting(frame, data.schema(case.private, own), real, held, data.schema(case.private))


def measure(
    data: DataSet, case: Case, seed: int, wanted: Wanted, marked: bool, peer_epochs: int, quick: bool
) -> Iterator[tuple[str, Figures]]:
    """Rows of a case that are wanted, one after the other.

    Args:
      data: the data set.
      case: of `cases`.
      seed: of generators, marks and judges.
      wanted: whether a row is, by its full name.
      marked: whether the marks have been measured already.
      peer_epochs: of CTGAN and TVAE; 0 leaves them out.
      quick: few rounds.

    Yields:
      (full name, figures); generators with fit_seconds, private ones with the epsilon spent.
    """
    names = [n for n in rows_of(case, marked, peer_epochs > 0, quick) if wanted(f"{data.name}/{n}")]
    if not names:
        return
    on = setting_of(data, case)

    def judged(table: Table, **more: float) -> Figures:
        return {**judge(on.real, table, on.judged, seed, data.means), **more}

    for name in names:
        full, kind = f"{data.name}/{name}", name.rsplit("/", 1)[1]
        if kind == "real":
            other = data.coded(data.test, case.private)
            by_patient = case.private and case.where == "federated"
            yield full, judged(one_a_patient(other, ROWS, seed) if by_patient else other)
        elif kind in FLOORS:
            yield full, judged(FLOORS[kind](on.real, on.judged, ROWS, np.random.default_rng(seed)))
        elif kind == "aim":
            began, delta = time.perf_counter(), len(np.unique(on.held.client)) ** -1.1
            made = aim(on.held, on.judged, ROWS, np.random.default_rng(seed), case.epsilon, delta)
            yield full, judged(made, fit_seconds=time.perf_counter() - began)
        elif kind in PEERS:
            columns = [c for c in on.schema.columns if c.role != "client"]
            frame = data.rounded(on.frame.filter(items=[c.name for c in columns]), False)
            discrete = [c.name for c in columns if c.kind != "numeric"]
            made, seconds = fit_peer(kind, frame, discrete, ROWS, seed, peer_epochs)
            yield full, judged(data.coded_rows(made, False), fit_seconds=seconds)
    for model, make in MODELS.items():
        ours, start = f"{case.name}/{model}", f"{case.name}/one-shot"
        one_shot = start in names and model == "vae"
        if ours not in names and not one_shot:
            continue
        short = _short(data, case, on) if quick and not case.private else None
        frame = data.rounded(on.frame, True) if case.private else on.frame
        fitted = make(schema=on.schema, epsilon=case.epsilon, seed=seed, preset=short).fit(frame)
        if ours in names:
            spent = {"epsilon": float(fitted.ledger["epsilon_total"])} if case.private else {}
            made = data.coded_rows(fitted.sample(ROWS), case.private)
            yield f"{data.name}/{ours}", judged(made, fit_seconds=fitted.seconds, **spent)
        if one_shot:
            yield f"{data.name}/{start}", judged(start_of(fitted, data, case.private, ROWS, seed))


def _short(data: DataSet, case: Case, on: Setting) -> Preset:
    """The preset with few rounds."""
    usual = preset(np.bincount(pd.factorize(on.frame[data.client])[0]), case.epsilon, case.where != "central")
    return dataclasses.replace(usual, train=dataclasses.replace(usual.train, rounds=QUICK_ROUNDS))


def start_of(fitted: Synthesizer, data: DataSet, private: bool, rows: int, seed: int) -> Table:
    """The one-shot copula behind a generator: standard normal scores, whose classes have their own rates.

    Codes and gaps are the generator's own rows', independent of the scores: the copula's statistics do not hold them.

    Args:
      fitted: a synthesizer with representation "copula".
      data, private: whose schema it has.
      rows: how many.
      seed: of the draw.
    """
    assert fitted._published is not None
    published, shares, _, _ = fitted._published
    schema = data.schema(private, False)
    generator = np.random.default_rng(seed)
    made, encoder, count = (
        data.coded_rows(fitted.sample(rows, seed=seed), private),
        make_encoder(schema),
        len(variables(schema)),
    )
    x = generator.standard_normal((rows, encoder.layout.dim)).astype(np.float32)
    x[:, count:] = np.asarray(jax.jit(encoder.encode)(made.values))[:, count:]
    plain = published.fitted._replace(own=np.tile(normal_knots(), (schema.num_classes, count, 1)).astype(np.float32))
    below = np.cumsum(shares[::-1])[:-1]  # the last class first
    label = (len(shares) - 1 - np.searchsorted(below, generator.random(rows), side="right")).astype(np.int32)
    values = np.asarray(jax.jit(make_decode(schema))(x, label, plain))
    return Table(values, label, np.arange(rows, dtype=np.int32))
