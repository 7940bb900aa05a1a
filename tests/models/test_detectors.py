"""Focal loss, class weights and the anomaly detector: known values, and that attacks are never learnt from."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import toy

from fedjax_health.evaluation.anomaly import fit_anomaly
from fedjax_health.evaluation.downstream import make_programs, make_trainer
from fedjax_health.evaluation.mixtures import held, spans_population
from fedjax_health.models.anomaly import make_anomaly
from fedjax_health.models.classifier import balanced_weights, focal, make_classifier
from fedjax_health.types import Batch, UserError

pytestmark = pytest.mark.quick_compile

LOGITS = jnp.asarray([[2.0, 0.0, -1.0], [0.0, 0.0, 0.0], [-40.0, 40.0, 0.0]], jnp.float32)
LABEL = jnp.asarray([0, 2, 1], jnp.int32)


def test_focal_loss_known_values():
    p = np.exp(np.asarray(LOGITS, np.float64))
    p = (p / p.sum(1, keepdims=True))[np.arange(3), np.asarray(LABEL)]
    np.testing.assert_allclose(focal(LOGITS, LABEL, 2.0), -((1 - p) ** 2) * np.log(p), rtol=1e-5, atol=1e-7)
    plain = optax.softmax_cross_entropy_with_integer_labels(LOGITS, LABEL)
    np.testing.assert_array_equal(focal(LOGITS, LABEL, 0.0), plain)


@pytest.mark.parametrize("gamma", [1.0, 2.0])
def test_a_record_that_is_certain_has_a_finite_slope(gamma):
    slope = jax.grad(lambda logits: focal(logits, LABEL, gamma).sum())(LOGITS)
    assert np.isfinite(slope).all() and not np.asarray(slope)[2].any()


def test_balanced_weights_give_each_class_the_same_part_and_refuse_what_they_do_not_know():
    shares = np.array([[0.9, 0.08, 0.02], [0.2, 0.3, 0.5]], np.float32)
    weights = balanced_weights(shares)
    np.testing.assert_allclose(weights * shares, 1 / 3, rtol=1e-6)  # their sum, the mean weight of a record, is 1
    for bad in (0.0, np.nan, -0.1):
        with pytest.raises(UserError, match="class_weights"):
            balanced_weights(np.array([0.5, bad]))


def test_class_weights_scale_a_records_gradient_by_its_class():
    model = make_classifier(2, 3, ())
    params = model.init(toy.keys(0)[0])
    x = jnp.asarray([[1.0, -2.0], [0.5, 0.3]], jnp.float32)

    def kernel(label: list[int], hyper: dict) -> np.ndarray:
        batch = Batch(x, jnp.asarray(label, jnp.int32), jnp.ones(2, bool))
        return np.asarray(jax.tree.leaves(model.field(params, batch, hyper, toy.keys(0)[0])[0])[-1])

    weights = {"class_weights": jnp.asarray([1.0, 5.0, 0.0], jnp.float32)}
    np.testing.assert_allclose(kernel([1, 1], weights), 5 * kernel([1, 1], {}), rtol=1e-5)
    np.testing.assert_allclose(kernel([2, 2], weights), 0.0, atol=1e-7)
    assert np.abs(kernel([0, 1], weights) - kernel([0, 1], {})).max() > 0.1


def test_beyond_the_bound_nothing_changes_and_within_it_nothing_is_lost():
    bounded, free = make_classifier(2, 3, (4,), input_bound=2.0), make_classifier(2, 3, (4,))
    params = bounded.init(toy.keys(0)[0]).client
    x = jnp.asarray([[0.5, -1.9], [2.0, -2.0], [30.0, -9.0]], jnp.float32)
    p, q = (np.asarray(model.predict(params, x)) for model in (bounded, free))
    np.testing.assert_array_equal(p[:2], q[:2])
    np.testing.assert_array_equal(p[2], p[1])
    assert np.abs(q[2] - q[1]).max() > 0.5


def test_a_dimension_that_is_dropped_teaches_nothing_and_predictions_see_all():
    thinned, whole = make_classifier(40, 3, (), input_dropout=0.3), make_classifier(40, 3, ())
    params, key = whole.init(toy.keys(0)[0]), toy.keys(0)[0]
    x = jnp.asarray(np.random.default_rng(0).normal(size=(1, 40)) + 3, jnp.float32)
    batch = Batch(x, jnp.asarray([1], jnp.int32), jnp.ones(1, bool))
    step = jax.jit(thinned.field)

    def taught(key) -> np.ndarray:
        return np.abs(step(params, batch, {}, key)[0]["params"]["Dense_0"]["kernel"]).sum(1) > 0

    shares = np.array([taught(k) for k in jax.random.split(key, 100)])
    assert shares.mean() == pytest.approx(0.7, abs=5 * np.sqrt(0.3 * 0.7 / shares.size))  # wrong: .3, or 1
    assert (shares.min(0) < shares.max(0)).all()  # every dimension is dropped in some steps and not in others
    np.testing.assert_array_equal(thinned.predict(params.client, x), whole.predict(params.client, x))


def test_the_anomaly_detector_reads_benign_records_only_and_finds_strange_what_is_unlike_them():
    domain, seeds = toy.domain(), 2
    train, clients = domain.train, domain.population.size
    config = toy.vae_config(
        rounds=40, rounds_per_chunk=20, cohort=12, local_steps=1, client_learning_rate=1.0, l2_clip_norm=100.0,
        server_optimizer="adam", server_learning_rate=0.02,
    )  # fmt: skip
    anomaly = make_anomaly(domain.encoder.layout, config)
    population = spans_population(clients, 2 * held(train, clients).most)
    parts = toy.make_parts(anomaly.model, config.train, private=False, population=population)
    include = np.ones((seeds, clients), bool)

    def fit(table):
        programs = make_programs(parts, config.train, domain.encoder)
        trainer = make_trainer(programs, config.train, table, domain.encoder, include, toy.keys(0, 1))
        return fit_anomaly(trainer, anomaly, table, domain.encoder, 1.0, "toy/anomaly", seeds)

    sick = train.label != 0
    values = train.values.copy()
    values[sick, 1] = 250.0
    alarm = fit(train)
    changed = fit(train._replace(values=values))
    odd = domain.test.values.copy()
    odd[:, 1], odd[:, 2] = 255.0, 40.0
    for s in range(seeds):
        p = alarm(domain.test, s)
        np.testing.assert_array_equal(p, changed(domain.test, s))  # nothing of an attack record reaches the detector
        assert np.isfinite(p).all() and (p.sum(1) == pytest.approx(1.0))
        benign = domain.test.label == 0
        strange = alarm(domain.test._replace(values=odd), s)
        assert np.median(strange[benign, 1]) > np.quantile(p[benign, 1], 0.9)
    assert np.abs(alarm(domain.test, 0) - alarm(domain.test, 1)).max() > 1e-3
    with pytest.raises(UserError, match="benign"):
        fit(train._replace(label=np.ones_like(train.label)))
