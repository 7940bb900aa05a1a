"""Norms and clipped sums of single records equal those of per-record gradients."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy

from fedjax_health import tree
from fedjax_health.config import DiffusionConfig
from fedjax_health.models import record
from fedjax_health.models.classifier import make_classifier
from fedjax_health.models.diffusion import make_diffusion
from fedjax_health.models.vae import make_vae
from fedjax_health.types import Batch

pytestmark = pytest.mark.quick_compile

B = 9
HYPER = {"kl_weight": jnp.float32(0.7)}


def case(name):
    """(record loss, params.client, batch) of a real model."""
    domain = toy.domain()
    schema = domain.schema
    if name.startswith("vae"):
        decoder = "causal" if name == "vae-causal" else "independent"
        section = dataclasses.replace(toy.vae_config(), hidden=(12, 8), decoder=decoder)
        model = make_vae(domain.encoder.layout, schema.num_classes, section)
    elif name == "diffusion":
        section = DiffusionConfig((12, 8), "auto", 10, toy.train_config())
        model = make_diffusion(domain.encoder.layout, schema.num_classes, section)
    else:
        changes = {"input_bound": 1.0, "input_dropout": 0.3} if name == "classifier-thinned" else {}
        model = make_classifier(domain.encoder.layout.dim, schema.num_classes, (12, 8), **changes)
    rng = np.random.default_rng(0)
    rows = rng.integers(0, len(domain.train.label), B)
    x = jax.jit(domain.encoder.encode)(jnp.asarray(domain.train.values[rows], jnp.float32))
    batch = Batch(x, jnp.asarray(domain.train.label[rows], jnp.int32), jnp.asarray(rng.random(B) < 0.8))
    params = jax.tree.map(lambda leaf: leaf + 0.1, model.init(jax.random.key(1)).client)  # no bias is 0

    record_loss = model.record_loss
    assert record_loss is not None

    def loss(client, batch, key, ops):
        return record_loss(client, batch, HYPER, key, ops)

    return model, loss, params, batch


def own_gradients(loss, params, batch, key):
    """Every record's gradient, from a whole pass for each: the randomness of a record is its row of the batch's."""
    losses = jax.jacrev(lambda p: loss(p, batch, key, record.PLAIN))
    return losses(params)


def norms(gradients):
    return jax.vmap(tree.global_norm)(gradients)


@pytest.mark.parametrize("name", ["vae", "vae-causal", "diffusion", "classifier", "classifier-thinned"])
def test_norms_and_sums_equal_those_of_each_record(name):
    _, loss, params, batch = case(name)
    key = jax.random.key(3)
    each = jax.jit(lambda: own_gradients(loss, params, batch, key))()
    expected = np.asarray(norms(each))
    square = jax.jit(lambda: record.square_norms(record.taps_of(loss, params, batch, key)[0]))()
    np.testing.assert_allclose(np.sqrt(square), expected, rtol=1e-5)
    bound = float(np.median(expected))
    total, factor, _ = jax.jit(lambda: record.clipped_sum(loss, params, batch, key, jnp.float32(bound)))()
    wanted = np.where(batch.mask, np.minimum(1.0, bound / expected), 0.0)
    assert 0 < np.sum(wanted == 1) < B and 0 < np.sum(wanted == 0) < B
    np.testing.assert_allclose(factor, wanted, rtol=1e-5)
    for ours, leaf in zip(jax.tree.leaves(total), jax.tree.leaves(each), strict=True):
        np.testing.assert_allclose(ours, np.tensordot(wanted, np.asarray(leaf), 1), rtol=1e-4, atol=1e-5)
    # leaving a parameter out of the norms would be seen
    assert np.max(np.abs(np.sqrt(square - 1e-2 * square) / expected - 1)) > 1e-3


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e30])
def test_no_record_moves_the_sum_by_more_than_the_bound(bad):
    _, loss, params, batch = case("vae")
    key, bound = jax.random.key(4), jnp.float32(0.5)
    sums = jax.jit(lambda b: record.clipped_sum(loss, params, b, key, bound)[0])
    there = batch._replace(mask=jnp.ones((B,), bool))
    hostile = there._replace(x=there.x.at[2].set(bad))
    without = there._replace(mask=there.mask.at[2].set(False))
    moved = tree.global_norm(tree.subtract(sums(hostile), sums(without)))
    assert np.isfinite(moved) and moved <= 0.5 * (1 + 1e-4)
    ordinary = tree.global_norm(tree.subtract(sums(there), sums(without)))
    assert 0.4 < ordinary <= 0.5 * (1 + 1e-4)


def test_mapped_form_gives_the_same_sum():
    model, loss, params, batch = case("classifier")  # has no randomness, so that both forms see the same loss
    bound = jnp.float32(0.3)

    def field(client, one, key):
        return jax.grad(lambda p: jnp.sum(loss(p, one, key, record.PLAIN)))(client)

    ghost, factor, _ = jax.jit(lambda: record.clipped_sum(loss, params, batch, jax.random.key(0), bound))()
    mapped, other = jax.jit(lambda: record.clipped_sum_mapped(field, params, batch, jax.random.key(0), bound))()
    np.testing.assert_allclose(factor, other, rtol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), ghost, mapped)
    assert model.record_loss is not None


@pytest.mark.parametrize("name", ["vae", pytest.param("vae-causal", marks=pytest.mark.long), "diffusion"])
def test_field_is_the_masked_mean_of_the_records(name):
    model, loss, params, batch = case(name)
    key = jax.random.key(5)
    whole = model.field(model.init(jax.random.key(1))._replace(client=params), batch, HYPER, key)[0]
    total, _, _ = record.clipped_sum(loss, params, batch, key, jnp.float32(1e9))
    scaled = tree.scale(1.0 / jnp.sum(batch.mask).astype(jnp.float32), total)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), whole, scaled)
