"""What a sweep is: axes, how their points are chosen, and what is made of the best one."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import scipy.stats.qmc

from fedjax_health.types import UserError

BATCHINGS = ("auto", "threads", "vmap")
DESIGNS = ("grid", "random", "sobol", "halton")
Settings = tuple[tuple[str, Any], ...]  # (dotted key of a config, value), in the order in which they are set


@dataclasses.dataclass(frozen=True)
class Axis:
    """One axis: listed values, or a range that a design other than the grid draws from.

    Attributes:
      key: dotted key of a config, such as "privacy.epsilon"; only a name where the values are sections of settings.
      values: of the key; or mappings of dotted keys, each of which sets several at once.
      low, high: ends of a range, where there are no values; whole numbers where the config's value is one.
      log: whether the range is drawn from on a logarithmic scale.
    """

    key: str
    values: tuple[Any, ...] = ()
    low: float = math.nan
    high: float = math.nan
    log: bool = False


@dataclasses.dataclass(frozen=True)
class Select:
    """How the best point is chosen, by the score of the published federation on validation clients (see `sweep.score`).

    Attributes:
      rounds: rounds of every training at each rung of successive halving; () = one rung, as the config has it.
      keep: share of the points that goes on to the next rung, in (0, 1); at least one does.
      noise_multiplier: of the Gaussian noise on each score, in units of one client's influence; > 0 where the runs are
        private, since validation clients are clients too.
      mean_trials: 0 = every point is run once, and all of them are accounted for; else the number of points is drawn anew
        from a geometric law of this mean, which costs less (design "random" alone, one rung, all points equally private).
    """

    rounds: tuple[int, ...] = ()
    keep: float = 1 / 3
    noise_multiplier: float = 5.0
    mean_trials: float = 0.0


@dataclasses.dataclass(frozen=True)
class Sweep:
    """A sweep; `get_config` of a file in configs/sweeps returns one.

    Attributes:
      name: of its folder.
      config: file of the runs' config, such as "configs/iot.py:smoke".
      settings: dotted keys that all runs have in common, and their values.
      axes: what differs.
      design: "grid" (all combinations), "random", "sobol" or "halton" (scipy.stats.qmc).
      points: how many, of a design other than the grid.
      seed: of such a design.
      points_per_piece: most points of one compiled program, and of one worker's job; 0 = all that differ in numbers alone.
      batching: how the runs of a piece share the machine: "threads", each by the program of one run alone, to which it is then
        equal to the last bit; "vmap", side by side in one call; "auto", threads on a CPU and vmap on accelerators.
      select: whether one point is chosen, and how; None = all are shown and none is.
    """

    name: str
    config: str
    settings: Mapping[str, Any]
    axes: tuple[Axis, ...]
    design: str = "grid"
    points: int = 0
    seed: int = 0
    points_per_piece: int = 0
    batching: str = "auto"
    select: Select | None = None


def check(sweep: Sweep) -> None:
    """Rules of a sweep; those of its runs are the configs' own.

    Args:
      sweep: the sweep.

    Raises:
      UserError: the first rule broken, with its value and the remedy.
    """

    def require(ok: bool, sentence: str) -> None:
        if not ok:
            raise UserError(f"sweep {sweep.name!r}: {sentence}")

    require(sweep.design in DESIGNS, f"design={sweep.design!r} is not one of {', '.join(DESIGNS)}; give one of them")
    require(bool(sweep.axes), "axes is empty; give at least one, or use launch.main for a single run")
    for axis in sweep.axes:
        ranged = not axis.values
        require(not ranged or axis.low < axis.high, f"axis {axis.key!r} has neither values nor low < high; give either")
        require(
            not (ranged and axis.log) or axis.low > 0,
            f"axis {axis.key!r} is logarithmic from {axis.low}; start above 0",
        )
        require(
            not ranged or sweep.design != "grid",
            f"axis {axis.key!r} is a range, which a grid cannot list; give values, or design='sobol'",
        )
    require(
        (sweep.points > 0) == (sweep.design != "grid"),
        f"points={sweep.points} with design={sweep.design!r}; a grid has as many as its axes make (points=0), others as many "
        "as you say",
    )
    require(
        sweep.design != "sobol" or sweep.points & (sweep.points - 1) == 0,
        f"points={sweep.points} of a Sobol design must be a power of 2, or it is not balanced; change it or take 'halton'",
    )
    require(
        sweep.batching in BATCHINGS,
        f"batching={sweep.batching!r} is not one of {', '.join(BATCHINGS)}; give one of them",
    )
    require(sweep.points_per_piece >= 0, f"points_per_piece={sweep.points_per_piece} must be 0 (all) or more")
    if sweep.select is not None:
        _check_select(sweep, sweep.select, require)


def _check_select(sweep: Sweep, s: Select, require: Callable[[bool, str], None]) -> None:
    require(0 < s.keep < 1, f"select.keep={s.keep} must be between 0 and 1, both excluded")
    rising = all(a < b for a, b in itertools.pairwise(s.rounds))
    require(rising and min(s.rounds, default=1) > 0, f"select.rounds={s.rounds} must be positive and rise")
    require(s.noise_multiplier >= 0, f"select.noise_multiplier={s.noise_multiplier} must be 0 or more")
    require(
        s.mean_trials == 0 or (s.mean_trials >= 1 and sweep.design == "random" and len(s.rounds) <= 1),
        f"select.mean_trials={s.mean_trials} must be 0, or 1 or more with design='random' and one rung: the law covers "
        "trials that are drawn independently; set it to 0",
    )


def draw_points(sweep: Sweep, whole: Callable[[str], bool]) -> list[Settings]:
    """The points of a design.

    A number u in [0, 1) on an axis is the value number floor(u n) of n, or low + u (high - low), or low (high / low)^u.

    Args:
      sweep: checked. With `mean_trials` as many points are drawn as a geometric number says, from the operating system's
        randomness unless the sweep's seed is given to someone else, see `number_of_trials`.
      whole: whether a key's value is a whole number.

    Returns:
      Settings of each point, those common to all first.
    """
    common = tuple(sweep.settings.items())
    if sweep.design == "grid":
        return [common + sum(chosen, ()) for chosen in itertools.product(*(_listed(axis) for axis in sweep.axes))]
    d, n = len(sweep.axes), sweep.points
    if sweep.design == "random":
        cube = np.random.default_rng(sweep.seed).random((n, d))
    elif sweep.design == "sobol":
        cube = scipy.stats.qmc.Sobol(d, rng=sweep.seed).random_base2(int(math.log2(n)))
    else:
        cube = scipy.stats.qmc.Halton(d, rng=sweep.seed).random(n)
    return [common + sum((_at(a, float(u), whole) for a, u in zip(sweep.axes, row, strict=True)), ()) for row in cube]


def _listed(axis: Axis) -> list[Settings]:
    return [tuple(value.items()) if isinstance(value, Mapping) else ((axis.key, value),) for value in axis.values]


def _at(axis: Axis, u: float, whole: Callable[[str], bool]) -> Settings:
    if axis.values:
        return _listed(axis)[int(u * len(axis.values))]
    value = axis.low * (axis.high / axis.low) ** u if axis.log else axis.low + u * (axis.high - axis.low)
    return ((axis.key, round(value) if whole(axis.key) else value),)
