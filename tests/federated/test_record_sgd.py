"""Record-level DP-SGD on the client: the noise it adds, what one record can move, and that it is FedAvg without either."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
import toy

from fedjax_health import tree
from fedjax_health.build_federation import build_federation
from fedjax_health.devices.round import make_ideal
from fedjax_health.federated import sharding
from fedjax_health.federated.record_sgd import make_direction
from fedjax_health.models.gan import make_gan
from fedjax_health.models.vae import make_vae
from fedjax_health.train.loop import make_train
from fedjax_health.types import Batch, UserError

pytestmark = pytest.mark.quick_compile

B = 4
CONFIG = toy.train_config(local="epochs", batch_size=B, l2_clip_norm=0.5, ema_decay=0.0)


def vae():
    domain = toy.domain()
    config = dataclasses.replace(toy.vae_config(), hidden=(16, 16))
    return make_vae(domain.encoder.layout, domain.schema.num_classes, config)


def gan():
    domain = toy.domain()
    return make_gan(domain.encoder.layout, domain.schema.num_classes, toy.gan_config())


def batch(rows=B):
    table = toy.domain().train
    x = jax.jit(toy.encoder().encode)(jnp.asarray(table.values[:B], jnp.float32))
    return Batch(x, jnp.asarray(table.label[:B], jnp.int32), jnp.arange(B) < rows)


def numbers(**changes):
    return toy.hyper(None, l2_clip_norm=0.5, **changes)


@pytest.mark.parametrize("make", [vae, gan])
def test_noise_has_the_scale_it_is_accounted_with(make):
    model = make()
    params = model.init(jax.random.key(0))
    direction = jax.jit(make_direction(model, B))
    hyper = numbers(noise_multiplier=1.7)
    drawn = [direction(params, batch(0), hyper, jax.random.key(i))[0] for i in range(40)]  # no record: noise alone
    noise = np.concatenate([np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(d)]) for d in drawn])
    scale = 1.7 * 0.5 / B
    assert scipy.stats.kstest(noise / scale, "norm").pvalue > 1e-3
    for wrong in (2 / 3, 3 / 2):
        assert scipy.stats.kstest(noise / (scale * wrong), "norm").pvalue < 1e-9
    each = noise.reshape(40, -1)
    assert np.abs(np.corrcoef(each)[np.triu_indices(40, 1)]).max() < 6 / np.sqrt(each.shape[1])  # no key twice


@pytest.mark.parametrize("make", [vae, gan])
@pytest.mark.parametrize("value", [0.0, 1e20, np.nan])
def test_one_record_moves_the_sum_by_at_most_the_bound(make, value):
    model = make()
    params = model.init(jax.random.key(0))
    direction = jax.jit(make_direction(model, B))
    key, hyper, whole = jax.random.key(1), numbers(noise_multiplier=0.0), batch()
    hostile = whole._replace(x=whole.x.at[1].set(value))
    without = whole._replace(mask=whole.mask.at[1].set(False))
    sums = [tree.scale(jnp.float32(B), direction(params, b, hyper, key)[0]) for b in (hostile, without)]
    assert float(tree.global_norm(tree.subtract(*sums))) <= 0.5 * (1 + 1e-4)
    assert all(np.isfinite(np.ravel(leaf)).all() for leaf in jax.tree.leaves(sums))


@pytest.mark.parametrize("make", [vae, gan])
def test_without_noise_and_bound_it_is_the_mean_direction(make):
    model = make()
    params = model.init(jax.random.key(0))
    hyper = {**numbers(noise_multiplier=0.0), "l2_clip_norm": jnp.float32(1e6)}
    ours, metrics = jax.jit(make_direction(model, B))(params, batch(), hyper, jax.random.key(2))
    if make is vae:  # the GAN's fakes are drawn for each record anew
        plain = model.field(params, batch(), hyper, jax.random.split(jax.random.key(2))[0])[0]
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), ours, plain)
    assert metrics["sim/clip_fraction"] == 0.0 and np.isfinite(metrics["sim/loss"])


def build(model, config=CONFIG):
    domain = toy.domain()
    dim = toy.encoder().layout.dim
    return build_federation(
        model,
        domain.population,
        dim,
        2,
        config,
        sharding.make_mesh(2),
        lambda cohort: make_ideal(),
        1.0,
        "record_gaussian",
    )


def test_a_federation_adds_noise_on_the_client_and_none_on_the_server():
    parts = build(vae())
    train = make_train(parts, CONFIG)
    data = toy.make_data(parts, seeds=2)
    seeds = toy.keys(1, 1)
    quiet, metrics = train.run_chunk(train.init(seeds), toy.hyper(2, noise_multiplier=0.0), data)
    loud, _ = train.run_chunk(train.init(seeds), toy.hyper(2, noise_multiplier=2.0), data)
    assert "public/noise_std" not in metrics and np.all(np.isfinite(metrics["sim/loss"]))
    assert 0 < metrics["sim/clip_fraction"].mean() <= 1
    a, b = (toy.flat(state.params.client) for state in (quiet, loud))
    np.testing.assert_array_equal(a[0], a[1])
    assert np.abs(a - b).max() > 1e-3


def test_a_second_pass_costs_flops_and_a_fixed_cohort_is_refused():
    model = vae()
    ghost = build(model).costs.flops_per_step
    plain = toy.make_parts(model, CONFIG, private=False).costs.flops_per_step
    noise = 60 * tree.size(jax.eval_shape(model.init, jax.random.key(0)).client)  # at most, of a normal number
    assert 1.3 * plain < ghost < 3 * plain + noise
    with pytest.raises(UserError, match="sampler='fixed' has no accountant"):
        build(model, dataclasses.replace(CONFIG, sampler="fixed"))
