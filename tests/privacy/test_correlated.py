"""Correlated noise: the recurrence, its law, what it saves, what a client can move, and what is accounted for."""

from __future__ import annotations

import functools
import json

import dp_accounting
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
import scipy.stats
import toy
from dp_accounting.pld import PLDAccountant
from jax.flatten_util import ravel_pytree

from fedjax_health import tree
from fedjax_health.config import PrivacyConfig
from fedjax_health.federated.canaries import with_canaries
from fedjax_health.federated.cyclic import make_cyclic_poisson
from fedjax_health.federated.federation import Data, init_state
from fedjax_health.privacy import accounting, class_prior
from fedjax_health.privacy.budget import read_spent
from fedjax_health.privacy.correlated import coefficients, fichtenberger, make_correlated, prefix_error
from fedjax_health.privacy.plan import Release, make_plan, write_ledger
from fedjax_health.transforms.base import Keys
from fedjax_health.transforms.noise import make_gaussian_noise
from fedjax_health.types import UserError

MESSAGE = {"w": jnp.zeros((5, 7), jnp.float32), "b": jnp.zeros((3,), jnp.float32)}


def dense(c, rounds):
    """C as a matrix, f64[T, T]."""
    column = np.zeros(rounds)
    column[: len(c)] = np.asarray(c, np.float64)[:rounds]
    return scipy.linalg.toeplitz(column, np.zeros(rounds))


def noises(rounds, bands, deviation, message=None, used=None):
    """(w, z), each f64[used, d], of the program; z drawn once more from the same keys."""
    message = MESSAGE if message is None else message
    made = make_correlated(rounds, bands)
    keys = jax.random.split(jax.random.key(bands), used or rounds)

    def step(state, key):
        noise, state = made.step(state, message, jnp.float32(deviation), key)
        return state, ravel_pytree(noise)[0]

    _, w = jax.jit(lambda state: jax.lax.scan(step, state, keys))(made.start(message))
    z = [ravel_pytree(tree.normal_like(key, message))[0] for key in keys]
    return np.asarray(w, np.float64), deviation * np.asarray(z, np.float64)


@pytest.mark.parametrize(
    ("rounds", "bands", "used"), [(40, 1, 40), (40, 2, 40), (40, 5, 40), (12, 12, 12), (8, 4, 200)]
)
def test_the_recurrence_is_the_inverse_of_the_dense_matrix(rounds, bands, used):
    w, z = noises(rounds, bands, 1.3, used=used)
    expected = scipy.linalg.solve_triangular(dense(coefficients(rounds, bands), used), z, lower=True)
    assert np.abs(w - expected).max() < 1e-5 * np.abs(expected).max()
    assert bands == 1 or np.abs(w - z).max() > 0.1  # it is not the plain noise


def test_one_band_is_plain_gaussian_noise_bit_for_bit():
    key, deviation = jax.random.key(3), jnp.float32(0.7)
    plain = make_gaussian_noise(lambda hyper: hyper["l2_clip_norm"])
    hyper = {"noise_multiplier": jnp.float32(1.4), "l2_clip_norm": jnp.float32(0.5)}
    expected, metrics = plain.server(MESSAGE, hyper, Keys(key, key))
    ours, _ = make_correlated(30, 1).step(make_correlated(30, 1).start(MESSAGE), MESSAGE, deviation, key)
    assert float(metrics["public/noise_std"]) == float(deviation)
    assert all(np.array_equal(a, b) for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(expected), strict=True))


def test_covariance_over_rounds():
    rounds, bands, size, deviation = 8, 3, 40_000, 2.0
    w, _ = noises(rounds, bands, deviation, jnp.zeros((size,), jnp.float32))
    inverse = np.linalg.inv(dense(coefficients(rounds, bands), rounds))
    sigma, found = deviation**2 * inverse @ inverse.T, w @ w.T / size
    error = np.sqrt((np.outer(np.diag(sigma), np.diag(sigma)) + sigma**2) / size)
    assert np.abs((found - sigma) / error).max() < 4.5
    assert np.abs((found - deviation**2 * np.eye(rounds)) / error).max() > 50


@pytest.mark.parametrize(("rounds", "bands"), [(10, 2), (50, 4), (64, 64), (200, 16), (600, 4)])
def test_the_coefficients_are_the_best_that_a_dense_computation_finds(rounds, bands):
    c = coefficients(rounds, bands)
    assert np.linalg.norm(c) == pytest.approx(1.0, abs=1e-12)
    assert np.all(np.diff(c) < 0) and c[-1] > 0  # falling: the recurrence forgets rounding

    def error(first):
        product = np.tril(np.ones((rounds, rounds))) @ np.linalg.inv(dense(first, rounds))
        return np.sum(product**2) * np.sum(first**2) / rounds

    assert prefix_error(c, rounds) == pytest.approx(error(c), rel=1e-9)
    assert prefix_error(c, rounds) < error(fichtenberger(bands)) < error(np.ones(1)) == pytest.approx((rounds + 1) / 2)
    generator = np.random.default_rng(rounds)
    for _ in range(20):  # a minimum: every way out is uphill
        assert error(c + 0.01 * c * generator.standard_normal(bands)) > error(c)


def test_the_closed_form_is_the_square_root_of_the_prefix_sums():
    c = dense(fichtenberger(30), 30)
    assert np.allclose(c @ c, np.tril(np.ones((30, 30))), atol=1e-12)
    # its bound for all rounds in one band: ||c||^2 <= 1 + log(T) / pi, and the error likewise
    assert prefix_error(coefficients(30, 30), 30) < prefix_error(fichtenberger(30), 30) <= (1 + np.log(30) / np.pi) ** 2


def test_the_same_draws_add_up_to_less():
    w, z = noises(200, 8, 1.0, jnp.zeros((500,), jnp.float32))
    ours, plain = (np.mean(np.cumsum(n, 0) ** 2) for n in (w, z))
    assert ours == pytest.approx(prefix_error(coefficients(200, 8), 200), rel=0.2)
    assert plain == pytest.approx(100.5, rel=0.2) and ours < 0.25 * plain


@pytest.mark.parametrize("bands", [1, 2, 5, 8])
def test_a_client_moves_the_factored_sums_by_its_turns_at_most(bands):
    rounds, bound, generator = 60, 0.5, np.random.default_rng(bands)
    c, worst = dense(coefficients(rounds, bands), rounds), 0.0
    for _ in range(200):
        turns, t = [], int(generator.integers(bands))
        while t < rounds:
            if generator.random() < 0.8:
                turns.append(t)
            t += bands + int(generator.integers(2) * generator.integers(4))  # gaps of b and more, not only of a cycle
        x = np.zeros((rounds, 3))
        for t in turns:
            u = generator.standard_normal(3)
            x[t] = bound * u / np.linalg.norm(u)
        moved, most = np.linalg.norm(c @ x), np.sqrt(len(turns)) * bound
        assert moved <= most * (1 + 1e-12)
        worst = max(worst, moved / most if turns else 0.0)
    assert worst > 0.97  # and it is reached
    if bands > 1:  # what the sampler's gap is for
        x = np.zeros((rounds, 1))
        x[:2] = bound
        assert np.linalg.norm(c @ x) > 1.1 * np.sqrt(2) * bound


@pytest.mark.parametrize(("rounds", "bands"), [(5, 0), (5, 6), (0, 1)])
def test_bands_that_no_training_has(rounds, bands):
    with pytest.raises(UserError, match=f"noise_bands={bands} must be between 1 and the {rounds} rounds"):
        make_correlated(rounds, bands)


# the training


@functools.lru_cache
def parts_of(rotate=False, bands=3, rounds=12):
    return toy.make_parts(
        toy.linear(), toy.train_config(cohort=5, rounds=rounds, compression={"rotate": rotate}), bands=bands
    )


@functools.lru_cache
def compiled(parts, rounds):
    one = parts.scheme.make_round(parts)
    data = Data(toy.domain().data, jnp.ones((parts.population.size,), bool))

    def step(hyper, state, _):
        state, metrics = one(state, hyper, data)
        return state, (ravel_pytree(state.params.client)[0], metrics)

    return jax.jit(lambda state, hyper: jax.lax.scan(functools.partial(step, hyper), state, None, length=rounds))


def trained(parts, rounds, chunks=1, **numbers):
    """(params after every round, metrics, last state) of seed 0, in `chunks` programs one after the other."""
    state, path, metrics = init_state(parts, toy.keys(0)[0]), [], []
    start = np.asarray(ravel_pytree(state.params.client)[0])
    for _ in range(chunks):
        state, (params, own) = compiled(parts, rounds // chunks)(state, toy.hyper(None, **numbers))
        path.append(np.asarray(params))
        metrics.append(jax.device_get(own))
    metrics = {name: np.concatenate([m[name] for m in metrics]) for name in metrics[0]}
    return np.concatenate([start[None], *path]), metrics, jax.device_get(state)


@pytest.mark.parametrize("rotate", [False, True])
def test_what_is_published_is_white_once_factored(rotate):
    """Clients that learn nothing send zeros, so that every step of the model is its noise."""
    rounds, noise, bound = 12, 1.7, 0.5
    parts = parts_of(rotate)
    path, metrics, _ = trained(parts, rounds, client_learning_rate=0.0, noise_multiplier=noise, l2_clip_norm=bound)
    w = -np.diff(path.astype(np.float64), axis=0) * 5.0  # the public expected cohort
    white = dense(coefficients(rounds, 3), rounds) @ w / (noise * bound)
    assert white.size > 150
    assert scipy.stats.kstest(white.ravel(), "norm").pvalue > 1e-3
    assert np.allclose(metrics["public/noise_std"], noise * bound)
    pairs = np.asarray(np.corrcoef(white))[np.triu_indices(rounds, 1)] * np.sqrt(white.shape[1])
    assert np.abs(pairs).max() < 4.5
    # a round takes back some of the last
    assert np.asarray(np.corrcoef(w))[np.arange(1, rounds), np.arange(rounds - 1)].mean() < -0.2


def test_without_noise_it_is_the_same_federation_without_any():
    parts = parts_of()
    silent, _, _ = trained(parts, 6, noise_multiplier=0.0)
    without, metrics, state = trained(parts._replace(correlated=None), 6)
    noisy, _, _ = trained(parts, 6)
    assert np.abs(silent - without).max() < 1e-6 and "public/noise_std" not in metrics and state.noise == ()
    assert np.abs(noisy[1] - without[1]).max() > 0.01


def test_chunks_and_resuming_change_nothing():
    parts = parts_of()
    whole, _, last = trained(parts, 12)
    single, _, end = trained(parts, 12, chunks=12)
    assert np.array_equal(whole, single)
    assert all(
        np.array_equal(a, b)
        for a, b in zip(map(_raw, jax.tree.leaves(last)), map(_raw, jax.tree.leaves(end)), strict=True)
    )
    assert last.noise.shape == (2, whole.shape[1])
    # a state without its memory goes on otherwise: the memory is part of what is resumed
    half = init_state(parts, toy.keys(0)[0])
    half, _ = compiled(parts, 6)(half, toy.hyper(None))
    forgotten = half._replace(noise=jnp.zeros_like(half.noise))
    ahead = [np.asarray(compiled(parts, 6)(s, toy.hyper(None))[1][0])[-1] for s in (half, forgotten)]
    assert np.array_equal(ahead[0], whole[-1]) and not np.allclose(ahead[1], whole[-1])


def _raw(leaf):
    return np.asarray(jax.random.key_data(leaf) if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) else leaf)


def test_what_its_noise_does_not_cover_is_refused():
    parts = parts_of()
    with pytest.raises(UserError, match="noise that is independent from round to round"):
        with_canaries(parts, 8, toy.keys(1)[0])
    plain = toy.make_parts(toy.linear(), toy.train_config(cohort=5))
    with pytest.raises(UserError, match="a client at most once in 3 rounds; this sampler keeps 1 apart"):
        parts.scheme.make_round(parts._replace(sampler=plain.sampler))


# the accounting

K, T, BANDS, DELTA = 1001, 30, 4, 1e-4
SAMPLER = make_cyclic_poisson(K, 200.0, BANDS, 8)  # p = 0.8: rounds hold nearly a whole group, and none overflows
CONFIG = PrivacyConfig("correlated_gaussian", 8.0, DELTA, 3.0, 20.0, noise_bands=BANDS)


@functools.lru_cache
def plan():
    return make_plan(CONFIG, K, [Release("toy/vae", "toy", SAMPLER, T, 0.5)])


def independent(turns):
    """epsilon of the same composition by dp-accounting's own accountant."""
    event = dp_accounting.PoissonSampledDpEvent(BANDS * 200.0 / K, dp_accounting.GaussianDpEvent(3.0))
    accountant = PLDAccountant(value_discretization_interval=1e-3)
    accountant.compose(class_prior.event(20.0))
    if turns:
        accountant.compose(event, turns)
    return accountant.get_epsilon(DELTA)


def test_the_ledger_is_what_dp_accounting_says_of_the_turns(tmp_path):
    ran = {"toy/vae": 30}
    ledger = plan().ledger(ran)
    assert ledger["epsilon_total"] == pytest.approx(independent(8), rel=1e-3)
    assert (ledger["unit"], ledger["relation"]) == ("client", "add_or_remove_one")
    trained_ = ledger["events"][-1]
    assert (trained_["rounds"], trained_["times"]) == (30, 8)
    assert trained_["sampling_probability"] == pytest.approx(BANDS * 200 / K)
    # with as many rounds of the plain mechanism at a fourth of the probability it would be another figure
    assert ledger["epsilon_total"] != pytest.approx(independent(30), rel=0.1)
    path = tmp_path / "privacy_ledger.json"
    write_ledger(str(path), ledger)
    spent = read_spent(str(path))
    assert accounting.merged(spent.events) == accounting.merged(plan().spent(ran))
    old = json.loads(path.read_text())
    del old["events"][-1]["times"]
    path.write_text(json.dumps(old))
    assert accounting.epsilon_of(read_spent(str(path)).events, DELTA) > ledger["epsilon_total"]


def test_every_number_of_rounds_is_bounded():
    table = plan().epsilon_table(plan().releases[0], {})
    assert table.shape == (T + 1,) and np.all(np.diff(table) >= 0)
    for t in range(T + 1):
        assert table[t] >= independent(-(-t // BANDS)) - 1e-6, t
        assert table[t] >= accounting.epsilon_of(plan().spent({"toy/vae": t}), DELTA) - 1e-9
    assert table[1] == table[4] < table[5] == table[8]
    assert table[-1] == pytest.approx(plan().ledger({"toy/vae": T})["epsilon_total"])
