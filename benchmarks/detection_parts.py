"""What `benchmarks.detection` measures: Table 4 of a data set, few attack records, and attacks that training never saw."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from benchmarks import detection_data
from benchmarks.detection_data import World
from benchmarks.detection_world import FOCAL, MIXED, ROWS, VIEWS, Fits, Learners, fit
from benchmarks.quality_figures import mean_of
from fedjax_health.evaluation import controls, paired
from fedjax_health.evaluation.augmentation import gains
from fedjax_health.evaluation.controls import SMOTED
from fedjax_health.evaluation.detection import detection_figures, detection_threshold
from fedjax_health.evaluation.rows import Figures
from fedjax_health.evaluation.utility import positive_score

MAX_FPR = 0.05  # on validation records: the operating point
SHARES = (0.1, 0.01)  # of the attack records; all of them are Table 4
LOW = tuple(row for row in ROWS if row not in (FOCAL, controls.ANOMALY, controls.JOINED, controls.TREES))
UNKNOWN = ("real", "real+synthetic", "real+balanced", SMOTED, controls.ANOMALY, controls.JOINED)
FORMED = ("real+synthetic", *MIXED)  # rows of whom SMOTE is a mark
GAINING = (*FORMED, controls.JOINED)  # rows whose gains are told
NEVER = "unknown"


class Options(NamedTuple):
    """How a part is measured.

    Attributes:
      quick: 2 seeds, few rounds, one data set, fewer rows.
      data: folder of the data sets.
      seeds: N.
      wanted: whether a row is, by its full name such as "threats@10%/real+synthetic".
    """

    quick: bool
    data: str
    seeds: int
    wanted: Callable[[str], bool]


class Judged(NamedTuple):
    """One detector: figures of each seed, and its alarms on the test records at its threshold."""

    figures: list[Figures]
    alarm: list[np.ndarray]
    point: list[float]


Result = dict[str, Any]


def judge(world: World, row: str, predict: controls.Predict, groups: Sequence[Mapping[str, np.ndarray]]) -> Judged:
    """Judges a detector on each seed's test records, at the threshold that allows 5 % false alarms on its validation records.

    Args:
      world: the data set.
      row: where its figures stand.
      predict: the detector.
      groups: of each seed, test records that are reported apart.
    """
    judged = Judged([], [], [])
    for s in range(world.seeds):
        validation, test = world.validation[s], world.test[s]
        point = detection_threshold(validation.label, predict(validation, s), MAX_FPR)
        p = predict(test, s)
        judged.figures.append(detection_figures(row, world.schema, test.label, p, point, groups[s]))
        judged.alarm.append(positive_score(p))
        judged.point.append(point)
    return judged


class Devices(NamedTuple):
    """The devices (or blocks) of all test sets, drawn again for all seeds at once: f64[1 + B, devices], by `ids`."""

    ids: np.ndarray
    drawn: np.ndarray


def devices_of(world: World) -> Devices:
    """Draws of a data set's test devices.

    Args:
      world: the data set.
    """
    ids = np.unique(np.concatenate([t.client for t in world.test]))
    return Devices(ids, paired.client_draws(ids, np.random.default_rng(0)))


def by_device(world: World, judged: Judged, devices: Devices) -> dict[str, np.ndarray]:
    """Figures of a detector in every draw of the devices, means over seeds.

    Args:
      world: the data set.
      judged: the detector.
      devices: of `devices_of`.
    """
    each = []
    for s, test in enumerate(world.test):
        draws = devices.drawn[:, np.searchsorted(devices.ids, test.client)]
        each.append(paired.drawn_figures(test.label != 0, judged.alarm[s], judged.point[s], draws))
    return paired.mean_figures(each)


def results(
    world: World, name: str, fits: Fits, groups: Sequence[Mapping[str, np.ndarray]], metrics: str = ""
) -> Iterator[Result]:
    """Figures of all detectors of one variant, and what each gains over real records and over SMOTE.

    Args:
      world: the data set.
      name: of data set and variant, such as "threats@10%".
      fits: the detectors.
      groups: of each seed, test records that are reported apart.
      metrics: "" for all, or the end that a metric's name must have.
    """
    judged = {row: judge(world, row, predict, groups) for row, predict in fits.rows.items()}
    devices, drawn = devices_of(world), {}
    if not metrics and {"real", SMOTED} <= set(judged):
        drawn = {r: by_device(world, j, devices) for r, j in judged.items() if r in (*GAINING, "real")}
    for row, mine in judged.items():
        at = f"detection/{name}/{row}"
        yield from _means(at, row, mine.figures, metrics)
        if row in fits.seconds:
            yield mean_of(f"{at}: fit_seconds", [fits.seconds[row]], "s")
        for base, over in (("real", ""), (SMOTED, SMOTED)):
            if row not in GAINING or base not in judged or base == row:
                continue
            side = judged[base]
            gained = [
                gains(row, a, b, base, over) | _gains_by_group(row, a, b, base, over)
                for a, b in zip(mine.figures, side.figures, strict=True)
            ]
            yield from _means(at, row, gained, metrics and f"{metrics}_gain")
            if not drawn:
                continue
            mark = f"over {over}, by device" if over else "by device"
            for metric, d in paired.differences(drawn[row], drawn[base], len(devices.ids)).items():
                if np.isfinite(d[:3]).all():
                    ends = {"low": min(d.low, d.value), "high": max(d.high, d.value)}
                    yield {"name": f"{at}: {metric}_gain[{mark}]", "value": d.value, **ends, "n": d.n, "unit": "figure"}
    if "generator" in fits.seconds:
        yield mean_of(f"detection/{name}/generator: fit_seconds", [fits.seconds["generator"]], "s")


def _means(at: str, row: str, figures: Sequence[Figures], end: str) -> Iterator[Result]:
    for key in figures[0]:
        values = [f[key] for f in figures]
        if key[0] == row and key[1].split("[over")[0].endswith(end) and np.isfinite(values).all():
            yield mean_of(f"{at}: {key[1]}", values, "figure")


def _gains_by_group(row: str, mine: Figures, others: Figures, base: str, over: str) -> Figures:
    mark = f"[over {over}]" if over else ""
    return {
        (row, f"{metric}_gain{mark}"): value - others[base, metric]
        for (_, metric), value in mine.items()
        if metric.endswith("]") and (base, metric) in others
    }


def _everything(world: World) -> np.ndarray:
    return np.ones((world.seeds, len(world.table.label)), bool)


def _measure(options: Options, learners: Learners, name: str, keep: np.ndarray, rows: Sequence[str]) -> Fits | None:
    """Fits the rows that are wanted; what they are compared with comes along."""
    asked = {row for row in rows if options.wanted(f"{name}/{row}")}
    if not asked:
        return None
    beside = {"real", SMOTED} & set(rows) if asked & set(FORMED) else set()
    return fit(learners, keep, (asked | beside).__contains__)


def table4(options: Options) -> Iterator[Result]:
    """Table 4 in both forms, on every data set, with all controls."""
    for name in detection_data.NAMES[:1] if options.quick else detection_data.NAMES:
        rows = [row for row in ROWS if not options.quick or row in (*VIEWS, SMOTED)]
        if name in ("wustl-biometrics", "wustl-all"):
            rows.remove(FOCAL)  # another compilation, for data sets beside the main one
        if not any(options.wanted(f"{name}/{row}") for row in rows):
            continue
        world = detection_data.load(name, options.data, options.seeds)
        fits = _measure(options, Learners(world, options.quick), name, _everything(world), rows)
        if fits:
            yield from results(world, name, fits, world.groups)


def keep_share(world: World, share: float) -> np.ndarray:
    """bool[N, M], all benign records and a share of the attack records of each seed's training clients, at random.

    Args:
      world: the data set.
      share: of attack records; the smaller share is a part of the larger, and of every type one record at least is kept.
    """
    keep = _everything(world)
    for s in range(world.seeds):
        generator = np.random.default_rng([1, s])
        order = generator.permutation(len(world.table.label))
        for c in range(1, world.schema.num_classes):
            mine = order[(world.table.label[order] == c) & world.include[s][world.table.client[order]]]
            keep[s, mine[max(1, round(share * len(mine))) :]] = False
    return keep


def low_data(options: Options) -> Iterator[Result]:
    """Ten and one percent of the attack records, benign ones whole; generator and controls have no more either."""
    for world_name in ("threats",) if options.quick else ("threats", "nsl_kdd"):
        names = {share: f"{world_name}@{100 * share:g}%" for share in (SHARES[-1:] if options.quick else SHARES)}
        rows = [row for row in LOW if not options.quick or row in ("real", "real+balanced", SMOTED)]
        if not any(options.wanted(f"{name}/{row}") for name in names.values() for row in rows):
            continue
        world = detection_data.load(world_name, options.data, options.seeds)
        learners = Learners(world, options.quick)
        for share, name in names.items():
            fits = _measure(options, learners, name, keep_share(world, share), rows)
            if fits:
                yield from results(world, name, fits, world.groups)


def unknown(options: Options) -> Iterator[Result]:
    """One type of attack left out of all training, of generator and SMOTE, too: how much of it is found all the same."""
    for world_name in ("threats",) if options.quick else ("threats", "nsl_kdd"):
        world = None
        categories = detection_data.types(world_name)
        for c, left_out in list(enumerate(categories))[1 : 2 if options.quick else None]:
            name = f"{world_name} without {left_out}"
            rows = [row for row in UNKNOWN if not options.quick or row in ("real", "real+balanced")]
            if not any(options.wanted(f"{name}/{row}") for row in rows):
                continue
            if world is None:
                world = detection_data.load(world_name, options.data, options.seeds)
                learners = Learners(world, options.quick)
            keep = _everything(world) & (world.table.label != c)
            fits = _measure(options, learners, name, keep, rows)
            if fits:
                groups = [{NEVER: np.isin(t.label, (0, c))} for t in world.test]
                yield from results(world, name, fits, groups, f"[{NEVER}]")
