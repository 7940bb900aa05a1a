"""The stream table of a domain, with its ceiling and floors, and the curves behind its figures."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
from threadpoolctl import threadpool_limits

from fedjax_health import rng
from fedjax_health.data.stream_schema import StreamSchema
from fedjax_health.evaluation.baselines import gaussian_copula
from fedjax_health.evaluation.rows import Figures, seed_rows
from fedjax_health.evaluation.similarity import overall
from fedjax_health.evaluation.streams import autocorrelation, stream_figures
from fedjax_health.evaluation.suite import CEILING, COPULA, Setting, Subject, included, rows_of_clients
from fedjax_health.types import Row, Table

SHUFFLED = "shuffled-time"
QUANTILES = (5, 50, 95)


class StreamPoint(NamedTuple):
    """One point of a figure: `curve` is "acf" (x = lag) or "q05", "q50", "q95" of the windows at a step (x = time), seconds."""

    domain: str
    model: str
    channel: str
    curve: str
    x: float
    value: float


def shuffled_time(table: Table, steps: int, generator: np.random.Generator) -> Table:
    """Floor: real windows whose steps are put in another order, the same for all channels: every marginal and no time.

    Args:
      table: real windows.
      steps: T.
      generator: host randomness.
    """
    windows = table.values.reshape(len(table.label), steps, -1)
    order = generator.random(windows.shape[:2]).argsort(1)
    return table._replace(values=np.take_along_axis(windows, order[:, :, None], 1).reshape(table.values.shape))


def stream_rows(setting: Setting, subjects: Sequence[Subject]) -> list[Row]:
    """Figures of every generator against windows of held-out clients, beside what they are to be read by.

    Ceiling: windows of training clients ("real-vs-real"). Floors, both from these windows without any privacy: a Gaussian
    copula of the flat window for each class, which has all marginals and all linear relations in and between channels, and
    windows with shuffled time.

    Args:
      setting: a domain whose schema is a `StreamSchema`.
      subjects: generators.
    """
    domain, most, seeds = setting.domain, setting.config.max_rows, setting.include.shape[0]
    schema = domain.schema
    assert isinstance(schema, StreamSchema)

    def against(table: Table, *names: str) -> Figures:
        generator = setting.generator(rng.Stream.EVALUATE, "streams", *names)
        return stream_figures(domain.test, table, schema, generator, most)

    def real(s: int) -> Table:
        generator = setting.generator(rng.Stream.EVALUATE, "streams", "train", str(s))
        return rows_of_clients(domain.train, included(setting, s, True), most, generator)

    marks: dict[str, Callable[[Table, np.random.Generator], Table]] = {
        CEILING: lambda table, generator: table,
        COPULA: lambda table, generator: gaussian_copula(table, schema, most, generator),
        SHUFFLED: lambda table, generator: shuffled_time(table, schema.steps, generator),
    }

    def mark(name: str, s: int) -> Figures:
        made = marks[name](real(s), setting.generator(rng.Stream.EVALUATE, "streams", name, str(s)))
        return overall(against(made, name, str(s)), name)

    # one thread a judgement and as many judgements at once as there are cores: each is too small to share out
    with threadpool_limits(1, user_api="openmp"), ThreadPoolExecutor(os.cpu_count()) as pool:
        marked = [[pool.submit(mark, name, s) for s in range(seeds)] for name in marks]
        judged = {g.name: [pool.submit(against, t, g.name, str(s)) for s, t in enumerate(g.tables)] for g in subjects}
    rows = [row for results in marked for row in seed_rows(domain.name, "-", [r.result() for r in results])]
    for name, results in judged.items():
        rows += seed_rows(domain.name, name, [r.result() for r in results])
    return rows


def stream_points(setting: Setting, subjects: Sequence[Subject]) -> list[StreamPoint]:
    """Curves of held-out real windows ("real") and of each generator's first seed: aggregates, no single real window.

    Args:
      setting: a domain whose schema is a `StreamSchema`.
      subjects: generators.
    """
    schema = setting.domain.schema
    assert isinstance(schema, StreamSchema)
    points = []
    for model, table in {"real": setting.domain.test, **{g.name: g.tables[0] for g in subjects}}.items():
        windows = schema.windows(table.values)
        acf = autocorrelation(windows, schema.steps // 2)
        quantiles = np.percentile(windows, QUANTILES, axis=0)
        for c, channel in enumerate(schema.channels):
            curves = {"acf": (1, acf[:, c]), **{f"q{q:02}": (0, quantiles[i, :, c]) for i, q in enumerate(QUANTILES)}}
            for curve, (first, values) in curves.items():
                points += [
                    StreamPoint(setting.domain.name, model, channel.name, curve, schema.seconds * (first + i), float(v))
                    for i, v in enumerate(values)
                ]
    return points
