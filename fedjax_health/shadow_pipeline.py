"""One shadow from end to end, inside a compiled program: generator -> records -> diagnostic models -> scores of the targets."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fedjax_health import rng
from fedjax_health.data.encode import Encoder
from fedjax_health.evaluation.mixtures import Spans
from fedjax_health.federated.federation import Data, Parts, State, init_state
from fedjax_health.models.base import Classifier, Generative
from fedjax_health.synthesis.sample import CHUNK, Decode, make_draw
from fedjax_health.synthesis.sample import Published as Released
from fedjax_health.types import Array, Hyper

NEAREST, OWN = "nearest", "own"  # signals beside the classifier's views
BLOCK = 1024  # records whose distances to all rows are held at a time


class Shadow(NamedTuple):
    """What is one shadow's own, a function of its number and its mask.

    Attributes:
      key: typed root key.
      include: bool[K].
      shares: f32[L], class shares as its clients were asked for them.
      fitted: `Fitted` of its representation, () with public scaling.
      x: f32[M, D], training records as its representation encodes them, () with public scaling.
      records: f32[R, D], the records that are scored, encoded likewise, () with public scaling.
      statistics: what a one-shot model releases, () for one that is trained.
    """

    key: Array
    include: Array
    shares: Array
    fitted: Any = ()
    x: Any = ()
    records: Any = ()
    statistics: Any = ()


class Common(NamedTuple):
    """What all shadows share; traced, never a constant of the program.

    Attributes:
      population: what the generator's population reads; its `x` is replaced where a shadow has its own.
      hyper, classifier: traced numbers of both trainings, f32 each.
      real: f32[M, D], training records encoded by public scaling, and label i32[M].
      first, count: i32[k], where each stored client's records stand.
      values, labels: f32[R, F] in units and i32[R], the records that are scored.
      key: typed key of everything that is the same in all shadows (common random numbers).
    """

    population: Any
    hyper: Hyper
    classifier: Hyper
    real: Array
    label: Array
    first: Array
    count: Array
    values: Array
    labels: Array
    key: Array


class Plan(NamedTuple):
    """The static side of a pipeline.

    Attributes:
      generator: federation of the generator, watched or not, for a mesh of one device; None for a one-shot model.
      rounds: that the generator trains.
      model: of the generator.
      decode: from model space to units.
      calibrate: (network, shares, key, Fitted) -> Fitted, see `synthesis.calibrate`; the identity with public scaling.
      encoder: public scaling.
      classifier: federation of the diagnostic model, for a mesh of one device, over `mixtures.spans_population`.
      classifier_rounds: that it trains.
      views: of `downstream.VIEWS`, on which a diagnostic model is trained.
    """

    generator: Parts | None
    rounds: int
    model: Generative
    decode: Decode
    calibrate: Callable[[Any, Array, Array, Any], Any]
    encoder: Encoder
    classifier: Parts
    classifier_rounds: int
    views: Sequence[str]


def train(parts: Parts, rounds: int, key: Array, hyper: Hyper, data: Data) -> State:
    """A whole training as one scan, without its metrics.

    Args:
      parts: the federation.
      rounds: T.
      key: typed root key.
      hyper: traced numbers.
      data: population and include bool[K].
    """
    round_fn = parts.scheme.make_round(parts)
    return jax.lax.scan(lambda s, _: (round_fn(s, hyper, data)[0], None), init_state(parts, key), None, rounds)[0]


def space(encoder: Encoder, values: Array, label: Array, num_classes: int) -> Array:
    """The public space in which attackers measure distance, as `attacks.base.public_space`: f32[n, F], i32[n] -> f32[n, D + L].

    Args:
      encoder: public scaling of the schema.
      values: inside the public ranges.
      label: of each row.
      num_classes: L.
    """
    x, layout = encoder.encode(values), encoder.layout
    blocks = layout.numeric + layout.bits
    # two different categories are one unit apart, like two values one public scale apart
    root = jnp.float32(0.5**0.5)
    return jnp.concatenate([x[:, :blocks], root * x[:, blocks:], root * jax.nn.one_hot(label, num_classes)], -1)


def distance(points: Array, rows: Array) -> Array:
    """Euclidean distance of each point to the nearest row, f32[n]; memory of one block of points.

    Args:
      points: f32[n, D].
      rows: f32[m, D].
    """
    norms = jnp.sum(jnp.square(rows), 1)

    def of_block(block: Array) -> Array:
        nearest = jnp.argmin(norms[None, :] - 2.0 * block @ rows.T, 1)
        return jnp.sqrt(jnp.sum(jnp.square(block - rows[nearest]), 1))  # exact for the winner: a copy is at 0

    spare = -points.shape[0] % BLOCK
    blocks = jnp.pad(points, ((0, spare), (0, 0))).reshape(-1, BLOCK, points.shape[1])
    return jax.lax.map(of_block, blocks).reshape(-1)[: points.shape[0]]


def log_odds(log_p: Array, label: Array) -> Array:
    """log p_y - log(1 - p_y) without losing what a p near 1 leaves: f32[n, L], i32[n] -> f32[n].

    Carlini et al. (2022): near-normal over trainings, where the probability and the loss are not.
    """
    own = jax.nn.one_hot(label, log_p.shape[1], dtype=jnp.bool_)
    rest = jax.nn.logsumexp(jnp.where(own, -jnp.inf, log_p), -1)
    return jnp.sum(jnp.where(own, log_p, 0.0), -1) - rest


def make_pipeline(plan: Plan, num_classes: int) -> Callable[[Shadow, Common], dict[str, Array]]:
    """The whole pipeline of one shadow as a pure function.

    Generator, synthetic rows and the models on them read the shadow's mask only through what a run releases; the synthetic
    records are dealt to all clients, in or out, so that the model on them is post-processing of the release and nothing else.

    Args:
      plan: static side.
      num_classes: L.

    Returns:
      pipeline(shadow, common) -> f32[R] a signal, higher = more likely a member: a view's name = log-odds of the true label
      under the diagnostic model on it; "own" = the generator's own score; "nearest" = minus the distance to the nearest of
      4,096 synthetic rows, drawn with random numbers common to all shadows; and f32[n] what a watched generator's State.audit
      holds (`attacks.updates`).
    """
    draw = make_draw(plan.model, plan.decode)

    def pipeline(shadow: Shadow, common: Common) -> dict[str, Array]:
        signals: dict[str, Array] = {}
        if plan.generator is None:
            network = params = shadow.statistics
        else:
            population = common.population if isinstance(shadow.x, tuple) else common.population._replace(x=shadow.x)
            data = Data(population, shadow.include)
            hyper = {**common.hyper, "class_prior": shadow.shares}
            state = train(plan.generator, plan.rounds, shadow.key, hyper, data)
            network, params = state.average, state.params
            if plan.generator.watch is not None:
                signals |= state.audit
        fitted = plan.calibrate(network, shadow.shares, shadow.key, shadow.fitted)
        encoded = plan.encoder.encode(common.values) if isinstance(shadow.records, tuple) else shadow.records
        signals[OWN] = plan.model.score(params, encoded, common.labels, common.key)
        released = Released(network, fitted)
        values, label = draw(released, shadow.shares, rng.stream_key(common.key, 0, rng.Stream.SYNTHESIS))
        rows = space(plan.encoder, values, label, num_classes)
        signals[NEAREST] = -distance(space(plan.encoder, common.values, common.labels, num_classes), rows)
        made, labels = _table(draw, released, shadow, len(common.label))
        x = jnp.concatenate([common.real, plan.encoder.encode(made)])
        y = jnp.concatenate([common.label, labels])
        return signals | _diagnose(plan, x, y, shadow, common)

    return pipeline


def _table(draw: Any, released: Released, shadow: Shadow, rows: int) -> tuple[Array, Array]:
    """As many synthetic records as there are real ones, f32[M, F] and i32[M], by the shadow's own randomness."""

    def chunk(i: Array) -> tuple[Array, Array]:
        return draw(released, shadow.shares, rng.stream_key(shadow.key, i, rng.Stream.SYNTHESIS))

    values, label = jax.lax.map(chunk, jnp.arange(-(-rows // CHUNK), dtype=jnp.uint32))
    return values.reshape(-1, values.shape[-1])[:rows], label.reshape(-1)[:rows]


def _diagnose(plan: Plan, x: Array, y: Array, shadow: Shadow, common: Common) -> dict[str, Array]:
    """Log-odds of the scored records under the diagnostic model of each view; one training in the program serves all."""
    model, total = plan.classifier.model, len(common.label)
    assert isinstance(model, Classifier)
    held = shadow.include[: common.count.shape[0]]
    of_real = jnp.asarray([view != "synthetic" for view in plan.views])
    of_made = jnp.asarray([view != "real" for view in plan.views])

    def of_view(number: Array) -> Array:
        real, made = (jnp.where(is_of[number], common.count, 0) for is_of in (of_real, of_made))
        spans = Spans(x, y, common.first, real, common.first + total, made)
        there = held | ~of_real[number]
        key = rng.stream_key(shadow.key, number, rng.Stream.EVALUATE)
        state = train(plan.classifier, plan.classifier_rounds, key, common.classifier, Data(spans, there))
        return log_odds(model.predict(state.average, plan.encoder.encode(common.values)), common.labels)

    found = jax.lax.map(of_view, jnp.arange(len(plan.views), dtype=jnp.int32))
    return dict(zip(plan.views, found, strict=True))


def no_calibration(network: Any, shares: Array, key: Array, fitted: Any) -> Any:
    """With public scaling, and for one-shot models, nothing is taken out."""
    del network, shares, key
    return fitted
