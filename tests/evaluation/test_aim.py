"""AIM: its sensitivity, its noise, its accounting and its choices, by known answers and independent formulas."""

from __future__ import annotations

import itertools

import dp_accounting
import numpy as np
import pytest
from dp_accounting import dp_event

from fedjax_health.data.schema import Column, Schema
from fedjax_health.evaluation import aim as module
from fedjax_health.evaluation.aim import aim, budget, choose, marginal, release, spent
from fedjax_health.evaluation.graphical import draw, fitted, library, model_marginals
from fedjax_health.privacy.fit import client_weights
from fedjax_health.types import Table, UserError

SIZES = (4, 4, 3)
SCHEMA = Schema(
    "toy",
    (
        Column(name="a", low=-4, high=4, center=0, scale=1, nullable=True),
        Column(name="c", kind="categorical", categories=("x", "y", "z")),
        Column(name="t", kind="binary", role="label"),
    ),
)


def codes_of(m: int, seed: int = 0) -> np.ndarray:
    """Columns 0 and 1 nearly equal, column 2 of its own."""
    r = np.random.default_rng(seed)
    a = r.integers(0, 4, m)
    b = np.where(r.random(m) < 0.9, a, r.integers(0, 4, m))
    return np.column_stack([a, b, r.integers(0, 3, m)])


def test_one_client_moves_every_marginal_and_every_score_by_at_most_one():
    r, cliques = np.random.default_rng(0), [(0,), (2,), (0, 1), (1, 2), (0, 1, 2)]
    tightest = 0.0
    for _ in range(200):
        count = r.integers(1, 12, size=r.integers(2, 8))
        client, gone = np.repeat(np.arange(len(count)), count), r.integers(len(count))
        codes = np.column_stack([r.integers(0, n, len(client)) for n in SIZES])
        less = client != gone
        for clique in cliques:
            whole = marginal(codes, client_weights(client), SIZES, clique)
            without = marginal(codes[less], client_weights(client[less]), SIZES, clique)
            assert whole.sum() == pytest.approx(len(count)) and (whole >= without - 1e-12).all()
            assert np.abs(whole - without).sum() == pytest.approx(1.0)
            assert np.linalg.norm(whole - without) <= 1.0 + 1e-12
            model = 3.0 * r.random(len(whole))
            scores = [0.5 * min(len(clique), 2) * np.abs(m - model).sum() for m in (whole, without)]
            assert abs(scores[0] - scores[1]) <= 1.0 + 1e-12
            tightest = max(tightest, np.linalg.norm(whole - without))
    assert tightest == pytest.approx(1.0)  # a client with one record reaches the bound


def test_a_marginal_counts_by_hand():
    codes, weight = np.array([[0, 1, 2], [3, 1, 0], [0, 1, 2]]), np.array([0.5, 1.0, 0.5])
    found = marginal(codes, weight, SIZES, (0, 2)).reshape(4, 3)
    assert found[0, 2] == 1.0 and found[3, 0] == 1.0 and found.sum() == 2.0


@pytest.mark.parametrize(("epsilon", "delta"), [(8.0, 1e-4), (1.0, 1e-5), (0.1, 1e-6)])
def test_the_budget_is_the_closed_form_of_zcdp_never_more(epsilon, delta):
    rho = budget(epsilon, delta)
    gauss = dp_event.GaussianDpEvent(1.0 / np.sqrt(2.0 * rho))
    assert spent([gauss], delta) == pytest.approx(epsilon, rel=1e-4) and spent([gauss], delta) <= epsilon
    a = np.concatenate([1 + np.arange(1, 100) / 10, np.arange(11, 64), [128, 256, 512, 1024]])
    by_hand = np.min(rho * a + np.log1p(-1 / a) - np.log(a * delta) / (a - 1))
    assert spent([gauss], delta) == pytest.approx(by_hand, rel=1e-6)
    assert by_hand <= rho + 2 * np.sqrt(rho * np.log(1 / delta))  # Bun & Steinke's is looser


def test_choices_follow_the_exponential_mechanism():
    scores, epsilon = np.array([0.0, 1.0, 2.0, -5.0]), 1.5
    share = np.exp(epsilon * scores / 2)
    share /= share.sum()
    r = np.random.default_rng(0)
    found = np.bincount([choose(scores, epsilon, r) for _ in range(20_000)], minlength=4) / 20_000
    np.testing.assert_allclose(found, share, atol=4 * np.sqrt(0.25 / 20_000))
    # the least loss of privacy that its bound promises: epsilon of pure privacy between neighbours
    moved = np.exp(epsilon * (scores + np.array([1, -1, 1, -1])) / 2)
    assert np.abs(np.log(moved / moved.sum() / share)).max() <= epsilon


class Stop(Exception):
    pass


def test_the_first_answers_carry_the_noise_that_is_accounted_for(monkeypatch):
    """The library is stopped before it fits, which leaves it with what was measured."""
    codes, weight, errors, deviation = codes_of(50), np.ones(50), [], set()

    def stop(mbi, domain, known, start, iterations):
        errors.extend(np.concatenate([y - marginal(codes, weight, SIZES, r) for r, (y, _) in known.items()]))
        deviation.update(float(np.sqrt(v)) for _, v in known.values())
        raise Stop

    monkeypatch.setattr(module, "fitted", stop)
    for seed in range(200):
        with pytest.raises(Stop):
            release(codes, weight, SIZES, 2.0, 1e-5, np.random.default_rng(seed))
    (sigma,) = deviation
    rounds = module.ROUNDS_A_COLUMN * len(SIZES)
    assert sigma == pytest.approx(np.sqrt(rounds / (2 * 0.9 * budget(2.0, 1e-5))))
    assert np.std(errors) == pytest.approx(sigma, rel=0.06) and abs(np.mean(errors)) < 4 * sigma / np.sqrt(len(errors))


@pytest.fixture(scope="module")
def toy():
    codes = codes_of(4000)
    return codes, release(codes, np.ones(4000), SIZES, 20.0, 1e-5, np.random.default_rng(0))


def test_the_dependent_pair_is_chosen_first_and_comes_out_close(toy):
    codes, released = toy
    measured = [r for r, _ in released.measured]
    assert measured[:4] == [(0,), (1,), (2,), (0, 1)]
    made = draw(released.model, 4000, np.random.default_rng(1))
    for clique in itertools.combinations(range(3), 2):
        real, fake = (marginal(c, np.ones(4000), SIZES, clique) / 4000 for c in (codes, made))
        assert np.abs(real - fake).sum() < 0.06
    independent = np.outer(*(np.bincount(codes[:, j]) / 4000 for j in (0, 1)))
    assert np.abs(marginal(codes, np.ones(4000), SIZES, (0, 1)).reshape(4, 4) / 4000 - independent).sum() > 1


def test_all_that_is_published_is_accounted_for(toy):
    _, released = toy
    gauss = [e for e in released.events if isinstance(e, dp_event.GaussianDpEvent)]
    chosen = [e for e in released.events if isinstance(e, dp_event.ZCDpEvent)]
    assert [e.noise_multiplier for e in gauss] == [s for _, s in released.measured]
    assert len(gauss) + len(chosen) == len(released.events) and len(chosen) == len(gauss) - len(SIZES)
    rho = sum(0.5 / e.noise_multiplier**2 for e in gauss) + sum(e.rho for e in chosen)
    assert rho == pytest.approx(budget(20.0, 1e-5), rel=1e-9)
    one = dp_accounting.rdp.RdpAccountant().compose(dp_event.ZCDpEvent(rho)).get_epsilon(1e-5)
    assert released.epsilon == pytest.approx(one, rel=1e-9) and 19.99 < released.epsilon <= 20.0
    # a second accountant, of the Gaussian part alone, never says more
    tight = dp_accounting.pld.PLDAccountant().compose(dp_event.ComposedDpEvent(gauss)).get_epsilon(1e-5)
    assert 0.8 * released.epsilon < tight < released.epsilon


def test_marginals_along_the_tree_are_those_of_the_whole_distribution():
    r, sizes = np.random.default_rng(0), (2, 3, 4, 2, 3)
    known = {q: (50 * r.random(int(np.prod([sizes[j] for j in q]))) + 1, 1.0) for q in ((0, 1), (1, 2), (0, 3))}
    with library() as mbi:
        model = fitted(mbi, mbi.Domain(range(5), sizes), known, None, 100)
        found = model_marginals(mbi, model, sizes)
        joint = np.asarray(model.project(tuple(range(5))).values)
    for clique, values in found.items():
        rest = tuple(j for j in range(5) if j not in clique)
        np.testing.assert_allclose(values, joint.sum(rest).ravel(), rtol=1e-6, atol=1e-9)
    assert len(found) == 5 + 10


def table(m: int = 1500) -> Table:
    r = np.random.default_rng(0)
    label = (r.random(m) < 0.3).astype(np.int32)
    a = r.normal(size=m) + 2 * label
    a[r.random(m) < 0.3] = np.nan
    c = np.where(label == 1, 2, r.integers(0, 3, m))
    return Table(np.column_stack([np.clip(a, -4, 4), c]).astype(np.float32), label, np.sort(r.integers(0, 600, m)))


def test_a_table_comes_back_in_range_with_gaps_and_the_seed_decides():
    real, before = table(), np.random.get_state()[1].copy()  # noqa: NPY002
    made = aim(real, SCHEMA, 2000, np.random.default_rng(3), 30.0, 1e-4)
    np.testing.assert_array_equal(np.random.get_state()[1], before)  # noqa: NPY002
    a, c = made.values.T
    assert made.values.shape == (2000, 2) and set(np.unique(c)) == {0.0, 1.0, 2.0} and set(made.label) == {0, 1}
    assert np.nanmin(a) >= -4 and np.nanmax(a) <= 4
    assert np.isnan(a).mean() == pytest.approx(0.3, abs=0.06) and made.label.mean() == pytest.approx(0.3, abs=0.06)
    assert np.nanmean(a[made.label == 1]) - np.nanmean(a[made.label == 0]) == pytest.approx(2.0, abs=0.4)
    again = aim(real, SCHEMA, 2000, np.random.default_rng(3), 30.0, 1e-4)
    np.testing.assert_array_equal(again.values, made.values)


def test_each_client_of_a_table_has_mass_one_and_the_target_is_passed_on(monkeypatch):
    seen = []

    def stop(codes, weight, sizes, epsilon, delta, rng):
        seen.append((weight, sizes, epsilon, delta))
        raise Stop

    monkeypatch.setattr(module, "release", stop)
    real = table()
    with pytest.raises(Stop):
        aim(real, SCHEMA, 10, np.random.default_rng(0), 3.0, 1e-5)
    ((weight, sizes, *target),) = seen
    np.testing.assert_allclose(np.bincount(real.client, weights=weight)[np.unique(real.client)], 1.0)
    assert sizes == (17, 3, 2) and target == [3.0, 1e-5]  # sixteen cells and "missing"


def test_little_budget_gives_noise_in_the_same_form():
    made = aim(table(300), SCHEMA, 100, np.random.default_rng(0), 0.05, 1e-6)
    assert made.values.shape == (100, 2) and np.isin(made.values[:, 1], [0, 1, 2]).all()


@pytest.mark.parametrize(
    ("epsilon", "delta", "message"),
    [
        (0.0, 1e-5, "epsilon=0 of AIM must be positive and finite"),
        (float("inf"), 1e-5, "epsilon=inf of AIM must be positive and finite"),
        (1.0, 0.0, "delta=0 of AIM must be between 0 and 1"),
        (1e-6, 1e-9, "epsilon=1e-06 of AIM is too small for delta=1e-09"),
    ],
)
def test_targets_out_of_range_are_refused(epsilon, delta, message):
    with pytest.raises(UserError, match=message):
        aim(table(50), SCHEMA, 10, np.random.default_rng(0), epsilon, delta)


def test_no_records_are_refused():
    with pytest.raises(UserError, match="AIM needs records"):
        aim(Table(*(column[:0] for column in table(5))), SCHEMA, 10, np.random.default_rng(0), 1.0, 1e-5)
