"""Designs, pieces and their names, commands, selection and what it costs: no training."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pandas as pd
import pytest

from fedjax_health.privacy.event_fields import event_fields
from fedjax_health.privacy.tuning import tuned_epsilon
from fedjax_health.sweep import account, design, pieces, select
from fedjax_health.sweep.design import Axis, Select, Sweep
from fedjax_health.sweep.results import Results, make_results
from fedjax_health.types import UserError

FILE = "configs/iot.py:smoke"
INF = math.inf
GRID = Sweep(
    "g", FILE, {"models": ("vae",)}, (Axis("seeds", (1, 2)), Axis("b", ({"privacy.epsilon": 1.0, "seed": 3},)))
)


def never(_: str) -> bool:
    return False


def test_a_grid_is_every_combination_and_sections_set_several_keys():
    points = design.draw_points(GRID, never)
    assert points == [
        (("models", ("vae",)), ("seeds", n), ("privacy.epsilon", 1.0), ("seed", 3)) for n in (1, 2)
    ]  # fmt: skip


@pytest.mark.parametrize("kind", ["random", "sobol", "halton"])
def test_designs_fill_ranges_as_asked(kind: str):
    axes = (Axis("a", low=1e-4, high=1.0, log=True), Axis("b", low=0.0, high=10.0), Axis("c", ("x", "y")))
    sweep = Sweep("s", FILE, {}, axes, kind, 64, seed=1)
    design.check(sweep)
    points = [dict(p) for p in design.draw_points(sweep, lambda key: key == "b")]
    again = [dict(p) for p in design.draw_points(sweep, lambda key: key == "b")]
    assert points == again and len(points) == 64
    logs = np.log10([p["a"] for p in points])
    assert logs.min() >= -4 and logs.max() <= 0
    share = np.mean(logs < -2)  # half of a logarithmic range, where a linear one has 1 %
    assert abs(share - 0.5) < (0.2 if kind == "random" else 0.05)
    assert all(isinstance(p["b"], int) and 0 <= p["b"] <= 10 for p in points)
    assert 15 < sum(p["c"] == "x" for p in points) < 49
    other = design.draw_points(dataclasses.replace(sweep, seed=2), never)
    assert dict(other[0])["a"] != points[0]["a"]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"design": "lattice"}, "not one of grid"),
        ({"axes": ()}, "axes is empty"),
        ({"axes": (Axis("a"),)}, "neither values nor low < high"),
        ({"axes": (Axis("a", low=1.0, high=2.0),)}, "a grid cannot list"),
        ({"points": 5}, "points=5"),
        ({"batching": "rows"}, "batching='rows' is not one of"),
        ({"design": "sobol", "points": 6}, "power of 2"),
        ({"axes": (Axis("a", low=0.0, high=2.0, log=True),), "design": "random", "points": 2}, "start above 0"),
        ({"select": Select(keep=1.0)}, "select.keep"),
        ({"select": Select(rounds=(20, 10))}, "select.rounds"),
        ({"select": Select(mean_trials=4.0)}, "mean_trials"),
    ],
)
def test_what_a_sweep_refuses(changes: dict, said: str):
    with pytest.raises(UserError, match=said):
        design.check(dataclasses.replace(GRID, **changes))


def test_numbers_share_a_piece_and_choices_do_not():
    def deal(key: str, *values: object) -> list[int]:
        points = [(("models", ("vae",)), (key, value)) for value in values]
        return [len(p.points) for p in pieces.make_pieces(FILE, points)]

    for key in ("privacy.epsilon", "privacy.noise_multiplier", "privacy.trial"):
        assert deal(key, 1, 2, 3) == [3], key
    for key in ("client_learning_rate", "server_learning_rate", "proximal_weight", "l2_clip_norm"):
        assert deal(f"vae.train.{key}", 0.1, 0.2) == [2], key
    assert deal("vae.kl_weight", 0.5, 1.0) == [2] and deal("vae.train.rounds", 10, 20) == [2]
    assert deal("data.audit_fraction", 0.2, 0.3) == [2]
    bounds = [
        (("privacy.mechanism", "none"), ("models", ("vae",)), ("vae.train.l2_clip_norm", b))
        for b in (0.1, 0.2, math.inf)
    ]
    assert [len(p.points) for p in pieces.make_pieces(FILE, bounds)] == [
        2,
        1,
    ]  # infinity is no bound, so another program
    for key, values in {
        "vae.hidden": ((8,), (16,)),
        "vae.train.cohort": (10, 20),
        "seeds": (1, 2),
        "seed": (0, 1),
    }.items():
        assert deal(key, *values) == [1, 1], key
    assert deal("privacy.epsilon", 1, 1, 2) == [2]  # the same point twice is one


def test_a_bound_that_is_built_into_the_grid_of_secure_sums_is_a_choice():
    secure = ("vae.train.aggregation.secure", "ideal")
    points = [
        (("models", ("vae",)), ("privacy.mechanism", "none"), secure, ("vae.train.l2_clip_norm", b)) for b in (0.1, 0.2)
    ]
    assert len(pieces.make_pieces(FILE, points)) == 2


def test_names_change_with_whatever_is_run():
    points = [(("models", ("vae",)), ("privacy.epsilon", e)) for e in (1.0, 2.0, 4.0, 8.0, 16.0)]
    (whole,) = pieces.make_pieces(FILE, points)
    assert whole == pieces.make_pieces(FILE, points)[0]
    names = {p.name for p in pieces.make_pieces(FILE, points, 2)}
    assert len(names) == 3 and whole.name not in names
    assert pieces.make_pieces(FILE, points, judged="score")[0].name != whole.name


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ((("privacy.epsilom", 1.0),), "unknown config key 'privacy.epsilom'"),
        ((("privacy", 1.0),), "'privacy' is a section, and a sweep"),
        ((("data.domains", ("vital_stream",)),), "tables, not of streams"),
        ((("privacy.randomness", "system"),), "'system'"),
        ((("privacy.epsilon", -1.0),), "epsilon"),
    ],
)
def test_what_a_point_refuses(settings: design.Settings, said: str):
    with pytest.raises(UserError, match=said):
        pieces.config_of(FILE, settings)


def test_missing_files_and_variants_are_said():
    with pytest.raises(UserError, match="does not exist"):
        pieces.load_file("configs/nothing.py")
    with pytest.raises(UserError, match="knows no variant"):
        pieces.load_file("configs/iot.py:smog")


def test_a_command_quotes_what_a_shell_would_change():
    text = pieces.command(FILE, (("models", ("vae", "gan")), ("privacy.epsilon", 0.5)), "runs/x")
    assert text == (
        "python -m launch.main --config=configs/iot.py:smoke --config.models=\"('vae', 'gan')\" "
        "--config.privacy.epsilon=0.5 --workdir=runs/x"
    )


def trial(noise: float, private: bool = True, relation: str = "add_or_remove_one") -> dict:
    from dp_accounting import GaussianDpEvent

    events = [{"event_fields": event_fields(GaussianDpEvent(noise)), "times": 1}]
    ledger = {"delta": 1e-5, "events": events, "not_covered": []}
    return {"point": "p", "private": private, "unit": "client", "relation": relation, "ledger": ledger}


def test_a_choice_costs_all_trials_or_those_of_repeated_selection():
    one = account.account([trial(10.0)], 1, 1e4, 0.0)["epsilon_total"]
    four = account.account([trial(10.0)] * 4, 4, 1e4, 0.0)
    again = account.account([trial(5.0)], 1, 1e4, 0.0)["epsilon_total"]  # four releases at 10 are one at 5
    assert one < four["epsilon_total"] == pytest.approx(again, rel=1e-3)
    assert four["epsilon_validation"] < one
    noisy = account.account([trial(10.0)] * 4, 4, 1.0, 0.0)
    assert noisy["epsilon_total"] == noisy["epsilon_validation"] > noisy["epsilon_training"]
    drawn = account.account([trial(10.0)] * 30, 30, 1e4, 20.0)
    events = account._events(trial(10.0))
    assert drawn["epsilon_training"] == pytest.approx(tuned_epsilon(events, 20.0, 1.0, 1e-5))
    assert drawn["epsilon_total"] < account.account([trial(10.0)] * 20, 20, 1e4, 0.0)["epsilon_total"]
    assert drawn["trials"] is None  # how many there were is a secret


def test_what_cannot_be_accounted_for_is_refused():
    assert account.account([trial(1.0, private=False)] * 2, 2, 0.0, 0.0)["epsilon_total"] is None
    with pytest.raises(UserError, match="with and without privacy"):
        account.account([trial(1.0), trial(1.0, private=False)], 2, 5.0, 0.0)
    with pytest.raises(UserError, match="a score without noise"):
        account.account([trial(1.0)], 1, 0.0, 0.0)
    with pytest.raises(UserError, match="promise different things"):
        account.account([trial(1.0), trial(1.0, relation="other")], 2, 5.0, 0.0)
    with pytest.raises(UserError, match="as private as one another"):
        account.account([trial(1.0), trial(2.0)], 2, 5.0, 8.0)


def results(values: list[float]) -> Results:
    rows = [
        (f"p{i}", 0, "-", "-", "validation", metric, value, math.nan, math.nan, 1)
        for i, v in enumerate(values)
        if math.isfinite(v)
        for metric, value in (("score", v), ("influence of one client", 0.01))
    ]
    names = ("point", "seed", "domain", "model", "row", "metric", "value", "low", "high", "n")
    return make_results(pd.DataFrame(rows, columns=names), [{"point": f"p{i}"} for i in range(len(values))])


def test_noise_on_scores_has_the_deviation_that_is_accounted_for():
    many = results([0.5] * 100)
    assert (select.noisy_scores(many, 0.0, 0, 0) == 0.5).all()
    noisy = select.noisy_scores(many, 5.0, 0, 0)
    assert abs(noisy.std() / 0.05 - 1) < 0.3 and abs(noisy.mean() - 0.5) < 0.02  # four standard errors
    assert (select.noisy_scores(many, 5.0, 0, 1) != noisy).all()  # each rung has noise of its own


def test_the_best_go_on_and_failures_never_do():
    scores = select.noisy_scores(results([0.1, math.nan, 0.9, 0.5, 0.7, 0.2]), 0.0, 0, 0)
    assert select.best(scores, 0.5).tolist() == [2, 4, 3] and select.best(scores, 0.0).tolist() == [2]
    assert select.best(np.asarray([-math.inf, 0.2, -math.inf]), 0.9).tolist() == [1]
    with pytest.raises(UserError, match="every training"):
        select.best(np.asarray([-math.inf]), 0.5)


def test_rungs_shorten_trainings_and_every_trial_has_noise_of_its_own():
    config = pieces.config_of(FILE, (("models", ("vae", "wgan_gp")),))
    points = [(("models", ("vae", "wgan_gp")), ("privacy.epsilon", e)) for e in (1.0, 2.0)]
    first = select.rung_points(points, config, 10, 1, False)
    assert dict(first[0])["vae.train.rounds"] == dict(first[0])["wgan_gp.train.rounds"] == 10
    assert dict(first[0])["seeds"] == 1 and [dict(p)["privacy.trial"] for p in first] == [1, 2]
    last = select.rung_points(first[:1], config, 20, 3, True)
    assert dict(last[0])["vae.train.rounds"] == 20 and dict(last[0])["privacy.trial"] == 3


def test_the_number_of_trials_is_drawn_once_a_folder(tmp_path):
    drawn = []
    for i in range(60):
        (tmp_path / str(i)).mkdir()
        drawn.append(select.number_of_trials(4.0, str(tmp_path / str(i))))
    assert drawn == [select.number_of_trials(4.0, str(tmp_path / str(i))) for i in range(60)]
    assert 1.8 < np.mean(drawn) < 6.2 and min(drawn) == 1  # mean 4, standard error 0.45: five of them


def test_noise_seeds_differ_by_trial_and_leave_trial_0_alone():
    from fedjax_health.randomness import noise_seed

    assert noise_seed(7, 0) == 7 and len({noise_seed(7, t) for t in range(100)}) == 100
