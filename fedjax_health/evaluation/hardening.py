"""Federated detectors of N worlds side by side, and their hardening by evasive flows that each device makes of its own attacks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fedjax_health.attacks.evasion import Evader, Flows, Target
from fedjax_health.data.domain import Domain
from fedjax_health.evaluation.detection import detection_threshold
from fedjax_health.evaluation.mixtures import Spans, held
from fedjax_health.federated.federation import Data, Parts
from fedjax_health.federation_config import TrainConfig
from fedjax_health.models.base import Classifier
from fedjax_health.train.loop import make_hyper, make_train, run_rounds
from fedjax_health.types import Array, Params, Table


def padded(tables: Sequence[Table], rows: int = 0) -> Flows:
    """Tables of N worlds as arrays with a leading axis N, zeros at the end.

    Args:
      tables: one a world.
      rows: n; 0 = the most that a table has.
    """
    n = max(rows, *(len(t.label) for t in tables))
    values = np.zeros((len(tables), n, tables[0].values.shape[1]), np.float32)
    label = np.zeros((len(tables), n), np.int32)
    for s, table in enumerate(tables):
        values[s, : len(table.label)], label[s, : len(table.label)] = table.values, table.label
    count = np.array([len(t.label) for t in tables], np.int32)
    return Flows(*map(jnp.asarray, (values, label, count)))


def attacks_of(table: Table) -> Table:
    """The attack flows of a table."""
    return Table(*(column[table.label > 0] for column in table))


def sent_instead(
    evader: Evader, target: Target, own: Sequence[Table], attacks: Sequence[Table], keys: Array
) -> list[Table]:
    """What the attacker sends, in N worlds at once: one compiled program.

    Args:
      evader: the attacker.
      target: detectors, leading axis N.
      own: what the attacker has, one a world.
      attacks: flows to be sent, label > 0.
      keys: typed keys [N].
    """
    flows = padded(attacks)
    label = jnp.maximum(flows.label, 1)  # what pads is no flow, and is cut off below
    made = jax.device_get(jax.jit(jax.vmap(evader.craft))(target, padded(own), flows.values, label, keys))
    return [t._replace(values=m[: len(t.label)]) for t, m in zip(attacks, made, strict=True)]


class Arena(NamedTuple):
    """Where detectors of N worlds are trained and judged.

    Attributes:
      fit: (rows beside each device's own: one client-major table a world, stage name) -> released parameters [N].
      scores: (released, one table a world) -> f64[M, L] each, class probabilities.
      target: released -> Target [N], thresholds chosen on each world's validation devices.
      traces: how often the training was traced.
    """

    fit: Callable[[Sequence[Table], str], Params]
    scores: Callable[[Params, Sequence[Table]], list[np.ndarray]]
    target: Callable[[Params], Target]
    traces: Callable[[], int]


def make_arena(
    parts: Parts,
    classifier: Classifier,
    config: TrainConfig,
    worlds: Sequence[Domain],
    room: int,
    max_fpr: float,
    keys: Array,
) -> Arena:
    """Prepares the training. Nothing is published and nothing private: evaluation only.

    Args:
      parts: federation over `spans_population(K, most)`; `most` bounds a device's own rows and those beside them.
      classifier: the model in `parts`.
      config: how it trains.
      worlds: one a seed, K training clients each, of one schema.
      room: most rows that are ever beside the real ones.
      max_fpr: of the operating point, on validation devices.
      keys: typed keys [N].
    """
    encoder, clients = worlds[0].encoder, parts.population.size
    real = padded([w.train for w in worlds])
    x = jax.jit(encoder.encode)(real.values)
    program = make_train(parts, config, shared_population=False)
    predict = jax.jit(jax.vmap(lambda released, values: classifier.predict(released, encoder.encode(values))))
    total = real.label.shape[1]
    spans = [held(w.train, clients) for w in worlds]

    def fit(beside: Sequence[Table], stage: str) -> Params:
        made = padded(beside, room)
        others = [held(t, clients) for t in beside]
        where = [np.stack([s.first for s in spans]), np.stack([s.count for s in spans])]
        where += [np.stack([s.first for s in others]) + total, np.stack([s.count for s in others])]
        data = Spans(
            jnp.concatenate([x, jax.jit(encoder.encode)(made.values)], 1),
            jnp.concatenate([real.label, made.label], 1),
            *(jnp.asarray(w.astype(np.int32)) for w in where),
        )
        numbers = ("client_learning_rate", "server_learning_rate", "l2_clip_norm", "proximal_weight")
        hyper = make_hyper({name: getattr(config, name) for name in numbers}, len(worlds))
        everyone = jnp.ones((len(worlds), clients), bool)
        outcome = run_rounds(
            program, config, program.init(keys), hyper, Data(data, everyone), stage=stage, round_limit=config.rounds,
            limit_reason="round limit", on_chunk=lambda *_: None, norms=np.empty((len(worlds), 0)),
        )  # fmt: skip
        return jax.device_get(outcome.state.average)

    def scores(released: Params, tables: Sequence[Table]) -> list[np.ndarray]:
        found = np.exp(np.asarray(predict(released, padded(tables).values), np.float64))
        return [p[: len(t.label)] for p, t in zip(found, tables, strict=True)]

    def target(released: Params) -> Target:
        validation = [w.validation for w in worlds]
        found = zip(validation, scores(released, validation), strict=True)
        thresholds = [detection_threshold(t.label, p, max_fpr) for t, p in found]
        return Target(released, jnp.asarray(thresholds, jnp.float32))

    return Arena(fit, scores, target, program.traces)


def log_benign_of(classifier: Classifier, encode: Any) -> Callable[[Params, Array], Array]:
    """Log p(benign) of a classifier, in the units of the records: (released, f32[n, F]) -> f32[n].

    Args:
      classifier: class 0 is benign.
      encode: f32[n, F] -> f32[n, D].
    """
    return lambda released, values: classifier.predict(released, encode(values))[:, 0]


def beside_own(generations: Sequence[Sequence[Table]]) -> list[Table]:
    """Evasive flows of all generations together, device by device: what each device trains on beside its own records.

    Args:
      generations: of each, one client-major table a world.
    """
    made = []
    for tables in zip(*generations, strict=True):
        whole = Table(*(np.concatenate(columns) for columns in zip(*tables, strict=True)))
        order = np.argsort(whole.client, kind="stable")
        made.append(Table(*(column[order] for column in whole)))
    return made


def harden(arena: Arena, evader: Evader, worlds: Sequence[Domain], keys: Array, rounds: int) -> tuple[Target, Target]:
    """Adversarial training in rounds: attack the detector with the training attacks, train anew on what it let the attacker make.

    Every device makes the evasive flows of its own attacks, from the model that it was sent, and keeps those of all rounds; no
    validation or test flow is used but for the thresholds, which benign validation flows set. As many steps as before.

    Args:
      arena: trains.
      evader: the attacker to be hardened against, one that needs no flows of its own.
      worlds: of the arena.
      keys: typed keys [N].
      rounds: >= 1.

    Returns:
      (detectors before, detectors after), thresholds of their own.

    Source: Madry et al. 2018, arXiv 1706.06083; in rounds, as in Tramèr et al. 2018, arXiv 1705.07204.
    """
    attacks = [attacks_of(w.train) for w in worlds]
    nothing = [Table(*(column[:0] for column in w.train)) for w in worlds]
    before = target = arena.target(arena.fit(nothing, "detector"))
    generations = []
    for r in range(rounds):
        round_keys = jax.vmap(lambda k, r=r: jax.random.fold_in(k, r))(keys)
        generations.append(sent_instead(evader, target, attacks, attacks, round_keys))
        target = arena.target(arena.fit(beside_own(generations), f"hardened {r + 1}"))
    return before, target
