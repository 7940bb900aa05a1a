"""LiRA and RMIA on scores whose best test is known: power, guessing under no effect, and nobody in the fit that attacks it."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats
from sklearn.metrics import roc_auc_score

from fedjax_health.attacks.lira import lira, lira_offline
from fedjax_health.attacks.rmia import rmia
from fedjax_health.evaluation.detection import rate_at_fpr

ATTACKS = {
    "lira": lira,
    "lira-own-variance": lambda f, m: lira(f, m, pooled=False),
    "lira-offline": lira_offline,
    "rmia": lambda f, m: rmia(f, m, population(f), 1.0),
}


def population(f):
    return np.random.default_rng(9).normal(0, 3, 500)[None, :] + np.random.default_rng(8).normal(size=(len(f), 500))


def draw(shadows, targets, effect, seed=0, spread=3.0):
    """Scores N(own mean + effect, 1) in and N(own mean, 1) out, own means N(0, spread^2): without comparison they drown it."""
    r = np.random.default_rng(seed)
    member = r.random((shadows, targets)) < 0.5
    score = r.normal(0, spread, targets) + effect * member + r.normal(size=(shadows, targets))
    return score, member


def auc(score, member):
    return roc_auc_score(member.ravel(), score.ravel())


@pytest.mark.parametrize("name", ATTACKS)
@pytest.mark.parametrize("effect", [0.5, 2.0])
def test_power_is_that_of_the_best_test(name, effect):
    f, member = draw(128, 400, effect)
    best = scipy.stats.norm.cdf(effect / np.sqrt(2))
    found = auc(ATTACKS[name](f, member), member)
    less = (
        0.025 if name == "lira-own-variance" else 0.012
    )  # 128 shadows know a mean to 1/8 of a deviation, a variance less
    assert found == pytest.approx(best, abs=less + 0.005)
    assert auc(f, member) < found - 0.07  # a threshold for all targets cannot


def test_rate_at_few_false_positives_is_that_of_the_best_test():
    f, member = draw(128, 1000, 2.0)
    found = rate_at_fpr(member.ravel(), lira(f, member).ravel(), 0.01)
    assert found == pytest.approx(scipy.stats.norm.cdf(scipy.stats.norm.ppf(0.01) + 2.0), abs=0.02)


@pytest.mark.parametrize("name", ATTACKS)
@pytest.mark.parametrize("shadows", [5, 16])
def test_without_an_effect_they_guess_and_with_the_attacked_shadow_in_the_fit_they_would_not(name, shadows):
    f, member = draw(shadows, 4000, 0.0)
    attack = ATTACKS[name]
    assert auc(attack(f, member), member) == pytest.approx(0.5, abs=0.016)
    twice, again = np.concatenate([f, f]), np.concatenate([member, member])  # a copy of each shadow is among the others
    if name == "lira-offline":  # draws scores to 0 then, from both sides
        assert auc(np.abs(attack(f, member)), member) == pytest.approx(0.5, abs=0.012)
        assert auc(np.abs(attack(twice, again)), again) > 0.515
    elif name != "rmia":  # of which another test shows who is left out
        assert auc(attack(twice, again), again) > 0.55


@pytest.mark.parametrize("pooled", [True, False])
def test_equals_fits_made_one_by_one(pooled):
    f, member = draw(9, 40, 1.0, spread=0.5)
    f = f * np.linspace(0.2, 3, 40) + 1e4
    got, offline = lira(f, member, pooled), lira_offline(f, member, pooled)
    for s in range(9):
        rest = np.arange(9) != s
        sides = [[f[rest, m][member[rest, m] == side] for m in range(40)] for side in (True, False)]
        shared = [
            sum(np.sum((x - x.mean()) ** 2) for x in side if len(x)) / sum(max(len(x) - 1, 0) for x in side)
            for side in sides
        ]
        for m in range(40):
            own = [side[m] for side in sides]
            if min(map(len, own)) == 0:
                continue
            var = [x.var(ddof=1) if not pooled and len(x) > 1 else v for x, v in zip(own, shared, strict=True)]
            scale = [np.sqrt(v * (1 + 1 / len(x))) for v, x in zip(var, own, strict=True)]
            logs = [scipy.stats.norm.logpdf(f[s, m], x.mean(), w) for x, w in zip(own, scale, strict=True)]
            assert got[s, m] == pytest.approx(logs[0] - logs[1], rel=1e-5, abs=1e-5)
            assert offline[s, m] == pytest.approx((f[s, m] - own[1].mean()) / scale[1], rel=1e-5, abs=1e-5)


def test_few_shadows_want_a_pooled_variance():
    f, member = draw(10, 4000, 2.0)
    pooled, own = (rate_at_fpr(member.ravel(), lira(f, member, p).ravel(), 0.01) for p in (True, False))
    assert pooled > own + 0.1


def test_a_target_that_no_other_shadow_holds_is_scored_by_the_usual_distance():
    f, member = draw(6, 300, 2.0)
    member[:, 0], member[:, 1] = False, True
    member[0, 0], member[0, 1] = True, False
    for attack in (lira, lira_offline):
        assert np.isfinite(attack(f, member)).all()
    assert np.isfinite(lira(np.zeros((6, 300)), member)).all()  # scores that never move


def test_rmia_leaves_out_the_attacked_shadow_and_those_with_the_target():
    f, member = draw(7, 30, 1.0)
    z = population(f)
    got = rmia(f, member, z)
    for s in range(7):
        rest = np.arange(7) != s
        for m in range(30):
            outside = rest & ~member[:, m]
            outside = outside if outside.any() else rest
            typical = np.log(0.5 * (1.3 * np.exp(f[outside, m]).mean() + 0.7))
            of_z = z[s] - np.log(0.5 * (1.3 * np.exp(z[rest]).mean(0) + 0.7))
            assert got[s, m] == pytest.approx(np.mean(f[s, m] - typical >= of_z), abs=1.1e-6)
