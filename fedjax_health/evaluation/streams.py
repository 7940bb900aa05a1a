"""How close synthetic windows are to real ones: memory, lagged relations of channels, marginals, and what trees can tell."""

from __future__ import annotations

import numpy as np
import scipy.stats

from fedjax_health.data.schema import Column, Schema
from fedjax_health.data.stream_schema import StreamSchema
from fedjax_health.evaluation.rows import Figures
from fedjax_health.evaluation.similarity import ROW, c2st_auc
from fedjax_health.types import Table, UserError


def autocorrelation(windows: np.ndarray, lags: int) -> np.ndarray:
    """Autocorrelation within windows: acf(l) = sum_{w,t} d[w,t] d[w,t+l] / sum_{w,t} d[w,t]^2 * T / (T - l), d = x - mean of w.

    Each window is centred by itself, so that differences between patients do not pass for memory. That makes a white noise
    read about -1/T and a slow drift fall below 0, in real and synthetic windows alike: for comparing, not for fitting.

    Args:
      windows: f32 or f64[M, T, C], M >= 1.
      lags: L < T.

    Returns:
      f64[L, C], lags 1 to L; 0 for a channel that is constant within every window.
    """
    total = windows.shape[1]
    d = windows.astype(np.float64) - windows.mean(1, keepdims=True, dtype=np.float64)
    power = np.square(d).sum((0, 1)) / total
    products = [(d[:, lag:] * d[:, : total - lag]).sum((0, 1)) / (total - lag) for lag in range(1, lags + 1)]
    return np.divide(np.stack(products), power[None], out=np.zeros((lags, len(power))), where=power[None] > 0)


def cross_correlation(windows: np.ndarray, lags: int) -> np.ndarray:
    """Correlation within windows of channel a at t with channel b at t + l, pooled over windows as in `autocorrelation`.

    Args:
      windows: f32 or f64[M, T, C].
      lags: L < T.

    Returns:
      f64[2 L + 1, pairs], lags -L to L, pairs a < b in order; 0 where a channel of the pair is constant.
    """
    total, channels = windows.shape[1:]
    d = windows.astype(np.float64) - windows.mean(1, keepdims=True, dtype=np.float64)
    spread = np.sqrt(np.square(d).sum((0, 1)) / total)
    out = []
    for lag in range(-lags, lags + 1):
        early, late = (d[:, : total - lag], d[:, lag:]) if lag >= 0 else (d[:, -lag:], d[:, : total + lag])
        out.append(np.einsum("wta,wtb->ab", early, late) / (total - abs(lag)))
    scale = np.outer(spread, spread)[None]
    rho = np.divide(np.stack(out), scale, out=np.zeros((2 * lags + 1, channels, channels)), where=scale > 0)
    return rho[:, *np.triu_indices(channels, 1)]


def window_features(windows: np.ndarray) -> np.ndarray:
    """What a look at a window sees beside its cells: of every channel mean, SD, lowest, highest, rise from the first to the
    second half, mean absolute step and its largest, lag-1 autocorrelation; and the correlation of every pair of channels.

    Args:
      windows: f32 or f64[M, T, C], T >= 2.

    Returns:
      f64[M, 8 C + C (C - 1) / 2]; a correlation is 0 where a channel is constant.
    """
    x, half = windows.astype(np.float64), windows.shape[1] // 2
    step, d = np.abs(np.diff(x, axis=1)), x - x.mean(1, keepdims=True)
    power = np.square(d).mean(1)
    lagged = (d[:, 1:] * d[:, :-1]).mean(1)
    memory = np.divide(lagged, power, out=np.zeros_like(power), where=power > 1e-12)
    rise = x[:, half:].mean(1) - x[:, :half].mean(1)
    own = [x.mean(1), np.sqrt(power), x.min(1), x.max(1), rise, step.mean(1), step.max(1), memory]
    product = np.einsum("wta,wtb->wab", d, d) / x.shape[1]
    scale = np.sqrt(power[:, :, None] * power[:, None, :])
    rho = np.divide(product, scale, out=np.zeros_like(product), where=scale > 1e-12)
    return np.concatenate([*own, rho[:, *np.triu_indices(x.shape[2], 1)]], axis=1)


def with_features(table: Table, schema: StreamSchema) -> Table:
    """Cells of each window and its features side by side, as trees read them: values f32[M, T * C + features].

    Args:
      table: windows.
      schema: theirs.
    """
    features = window_features(schema.windows(table.values)).astype(np.float32)
    return table._replace(values=np.concatenate([table.values, features], axis=1))


def tree_schema(size: int, label: Column) -> Schema:
    """Schema of so many numbers without names, for what only asks which columns are numeric."""
    return Schema("features", (*(Column(name=f"x{i}", low=-1e9, high=1e9) for i in range(size)), label))


def stream_figures(
    real: Table, synthetic: Table, schema: StreamSchema, rng: np.random.Generator, max_rows: int = 3_000
) -> Figures:
    """All figures of one seed.

    Args:
      real: windows of held-out clients.
      synthetic: windows; at least one.
      schema: of both.
      rng: host generator.
      max_rows: windows of each side that the two-sample test looks at.

    Returns:
      Of each channel under its name: acf_error, the mean over lags 1 to T/2 of |acf_R - acf_S|; ks_complement over all steps;
      within_sd_ratio, the SD within windows over the real one. Under "synthetic": means of these over channels;
      cross_correlation_error, the mean over pairs and lags -T/4 to T/4 of the absolute difference; c2st_auc by boosted trees
      on cells and features (see `similarity.c2st_auc`); label_rate_difference.

    Raises:
      UserError: a table has no windows.
    """
    for name, table in (("real", real), ("synthetic", synthetic)):
        if not len(table.label):
            raise UserError(f"streams of {schema.name!r}: the {name} table has no windows; give it at least one")
    pair = schema.windows(real.values), schema.windows(synthetic.values)
    acf = [autocorrelation(w, schema.steps // 2) for w in pair]
    ccf = [cross_correlation(w, schema.steps // 4) for w in pair]
    errors = np.abs(acf[0] - acf[1]).mean(0)
    within = [np.sqrt(np.square(w - w.mean(1, keepdims=True)).mean((0, 1), dtype=np.float64)) for w in pair]
    figures: Figures = {}
    for c, channel in enumerate(schema.channels):
        ks = scipy.stats.ks_2samp(pair[0][..., c].ravel(), pair[1][..., c].ravel(), method="asymp")
        figures[channel.name, "acf_error"] = float(errors[c])
        figures[channel.name, "ks_complement"] = 1.0 - float(np.asarray(ks)[0])
        figures[channel.name, "within_sd_ratio"] = float(within[1][c] / within[0][c]) if within[0][c] else float("nan")
    for metric in ("acf_error", "ks_complement"):
        figures[ROW, metric] = float(np.mean([figures[c.name, metric] for c in schema.channels]))
    figures[ROW, "acf_error_max"] = float(errors.max())
    figures[ROW, "cross_correlation_error"] = float(np.abs(ccf[0] - ccf[1]).mean()) if ccf[0].size else 0.0
    n = min(len(real.label), len(synthetic.label), max_rows)
    seen = [rng.permutation(len(table.label))[:n] for table in (real, synthetic)]
    few = [
        with_features(Table(t.values[rows], t.label[rows], t.client[rows]), schema)
        for t, rows in zip((real, synthetic), seen, strict=True)
    ]
    numbers = tree_schema(few[0].values.shape[1], schema.label)
    figures[ROW, "c2st_auc"] = c2st_auc(few[0], few[1], numbers, rng)
    figures[ROW, "label_rate_difference"] = float(np.mean(synthetic.label != 0) - np.mean(real.label != 0))
    return figures
