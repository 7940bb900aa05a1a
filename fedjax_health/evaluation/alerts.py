"""A detector on a stream: alerts a device and day at its operating point, and how long campaigns of attacks go on unseen.

Simulated logs have an order but no clock. Flows of a device are taken to begin at equal distances, `FLOWS_PER_DAY` of its
kind: public assumptions (a glucose sensor reports every five minutes), not measurements; figures by flow are beside those by
day. A flow is judged when it has ended.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from fedjax_health.data.schema import Schema
from fedjax_health.evaluation.bootstrap import client_intervals
from fedjax_health.evaluation.rows import Figures
from fedjax_health.types import Row, Table

FLOWS_PER_DAY: Mapping[str, float] = {
    "wearable": 96.0,  # a synchronisation every quarter of an hour
    "infusion_pump": 288.0,  # status every five minutes
    "patient_monitor": 1440.0,  # a flow a minute
    "glucose_implant": 288.0,  # continuous glucose monitors report every five minutes
    "gateway": 1440.0,
}
DAY_SECONDS = 86_400.0
NEVER = 1e300  # stands for infinity where quantiles are interpolated
LONGEST_PAUSE = 5  # benign flows inside a campaign; one of five is benign, so that more are 0.03 %


FIGURES = (
    "alerts_per_day",
    "false_alerts_per_day",
    "false_alerts_per_1000_benign",
    "campaigns_seen",
    "seen_at_once",
    "flows_to_alert_median",
    "flows_to_alert_p90",
    "seconds_to_alert_median",
    "seconds_to_alert_p90",
)  # a row may add "[<kind of device or attack>]"


def is_stream(schema: Schema) -> bool:
    """Whether a domain's flows stand in time order and say what kind of device they are of, as simulated logs do."""
    names = {c.name: c for c in schema.inputs}
    kinds = names["device_class"].categories if "device_class" in names else ()
    return "duration" in names and bool(kinds) and set(kinds) <= set(FLOWS_PER_DAY)


class Campaigns(NamedTuple):
    """Attacks of one type over a run of flows of one device, C of them.

    Attributes:
      client: i32[C].
      kind: i32[C], label class > 0.
      flows: f64[C], attack flows until the first alert, that one included; inf where none came (right-censored).
      seconds: f64[C], from the start of the first attack flow to the end of the first that raised an alert; inf likewise.
    """

    client: np.ndarray
    kind: np.ndarray
    flows: np.ndarray
    seconds: np.ndarray


def alerts_of(alarm: np.ndarray, client: np.ndarray, need: int = 1, window: int = 1) -> np.ndarray:
    """Where an operator is alerted: at an alarm, if `need` of the device's last `window` flows raised one; bool[M].

    Args:
      alarm: bool[M], in time order of each device.
      client: i32[M], rows of a client contiguous.
      need, window: 1 <= need <= window; 1 of 1 is every alarm.
    """
    recent = alarm.astype(np.int64)
    for back in range(1, window):
        same = client[back:] == client[:-back]
        recent[back:] += alarm[:-back] & same
    return alarm & (recent >= need)


def start_seconds(table: Table, schema: Schema, per_day: Mapping[str, float] = FLOWS_PER_DAY) -> np.ndarray:
    """When each flow begins, s since the device's first: f64[M].

    Args:
      table: rows in time order of each device.
      schema: has device_class.
      per_day: flows a day, by its categories.
    """
    kinds = schema.inputs[schema.index("device_class")].categories
    spacing = np.array([DAY_SECONDS / per_day[k] for k in kinds])[
        table.values[:, schema.index("device_class")].astype(int)
    ]
    _, first = np.unique(table.client, return_index=True)
    position = np.arange(len(table.client)) - np.repeat(first, np.diff(np.append(first, len(table.client))))
    return position * spacing


def campaigns_of(table: Table, schema: Schema, alert: np.ndarray, start: np.ndarray) -> Campaigns:
    """Campaigns of held-out devices, and when each was first seen; an alert counts where it falls on one of its attack flows.

    Args:
      table: rows in time order of each device.
      schema: has duration, s.
      alert: bool[M].
      start: f64[M], s.
    """
    end = start + table.values[:, schema.index("duration")].astype(np.float64)
    found: list[tuple[int, int, float, float]] = []
    attacks = np.flatnonzero(table.label > 0)
    # of one device, flows of one type whose pauses are short belong together, whatever lies between
    order = attacks[np.lexsort((attacks, table.label[attacks], table.client[attacks]))]
    for rows in np.split(order, _breaks(table, order)):
        if not len(rows):
            continue
        seen = np.flatnonzero(alert[rows])
        count, seconds = np.inf, np.inf
        if len(seen):
            count, seconds = float(seen[0] + 1), float(end[rows[seen[0]]] - start[rows[0]])
        found.append((int(table.client[rows[0]]), int(table.label[rows[0]]), count, seconds))
    client, kind, flows, seconds = np.array(found, np.float64).reshape(-1, 4).T
    return Campaigns(client.astype(np.int32), kind.astype(np.int32), flows, seconds)


def _breaks(table: Table, order: np.ndarray) -> np.ndarray:
    """Positions in `order` at which another campaign begins."""
    before, after = order[:-1], order[1:]
    other = (table.client[before] != table.client[after]) | (table.label[before] != table.label[after])
    benign = np.concatenate([[0], np.cumsum(table.label == 0)])
    pause = benign[after] - benign[before]  # benign flows between the two; flows of another campaign are no pause
    return np.flatnonzero(other | (pause > LONGEST_PAUSE)) + 1


def time_figures(row: str, schema: Schema, some: Campaigns) -> Figures:
    """Share of campaigns that are seen at all, and median and 90th percentile of flows and seconds until then, by type as well.

    Args:
      row: where the figures stand.
      schema: its label categories name the attacks.
      some: campaigns, repeats allowed; one never seen counts as later than all others, and a quantile among those is inf.
    """
    figures: Figures = {}
    for c, name in enumerate(schema.label.categories):
        mine = some.kind == c if c else np.ones(len(some.kind), bool)
        suffix = f"[{name}]" if c else ""
        if not mine.any():
            continue
        flows, seconds = some.flows[mine], some.seconds[mine]
        figures[row, f"campaigns_seen{suffix}"] = float(np.isfinite(flows).mean())
        for metric, values in (("flows_to_alert", flows), ("seconds_to_alert", seconds)):
            for q, word in ((0.5, "median"), (0.9, "p90")):
                figures[row, f"{metric}_{word}{suffix}"] = float(np.quantile(values, q, method="inverted_cdf"))
        figures[row, f"seen_at_once{suffix}"] = float((flows == 1).mean())
    return figures


def alert_rows(
    domain: str,
    row: str,
    schema: Schema,
    table: Table,
    alarm: np.ndarray,
    rng: np.random.Generator,
    need: int = 1,
    window: int = 1,
    per_day: Mapping[str, float] = FLOWS_PER_DAY,
) -> list[Row]:
    """Alerts a device and day, false ones among them, and time to detection; intervals by a bootstrap over devices.

    A day has `per_day` flows: of the device's own mix for alerts_per_day (simulated devices are attacked far more than real
    ones), benign ones alone for false_alerts_per_day. Figures by day are means over devices; n = devices, and for campaigns
    those that were attacked.

    Args:
      domain, row: where the rows stand.
      schema: columns device_class and duration; attacks by label.
      table: flows of held-out devices, in time order of each.
      alarm: bool[M], the detector's at its operating point.
      rng: host generator.
      need, window: as in `alerts_of`.
      per_day: as in `start_seconds`.
    """
    alert = alerts_of(alarm, table.client, need, window)
    start = start_seconds(table, schema, per_day)
    campaigns = campaigns_of(table, schema, alert, start)
    ids, first, index = np.unique(table.client, return_index=True, return_inverse=True)
    flows = np.bincount(index)
    kinds = schema.inputs[schema.index("device_class")].categories
    kind = table.values[first, schema.index("device_class")].astype(int)
    daily = np.array([per_day[k] for k in kinds])[kind]
    benign = np.bincount(index, weights=table.label == 0)
    everything = np.bincount(index, weights=alert)
    false = np.bincount(index, weights=alert & (table.label == 0))
    calm = np.where(benign > 0, false * daily / np.maximum(benign, 1), np.nan)

    def by_device(some: np.ndarray) -> Figures:
        figures: Figures = {
            (row, "alerts_per_day"): float((everything * daily / flows)[some].mean()),
            (row, "false_alerts_per_day"): float(np.nanmean(calm[some])),
            (row, "false_alerts_per_1000_benign"): 1000.0 * float(false[some].sum() / benign[some].sum()),
        }
        for k, name in enumerate(kinds):
            if benign[mine := some[kind[some] == k]].any():
                figures[row, f"false_alerts_per_day[{name}]"] = float(np.nanmean(calm[mine]))
        return figures

    def by_campaign(some: np.ndarray) -> Figures:
        figures = time_figures(row, schema, Campaigns(*(column[some] for column in campaigns)))
        return {key: min(x, NEVER) for key, x in figures.items()}

    def back(x: float) -> float:
        return np.inf if x > NEVER * 1e-6 else x

    rows = [
        Row(domain, "-", *key, by_device(np.arange(len(ids)))[key], *at)
        for key, at in client_intervals(by_device, ids, rng).items()
    ]
    if len(campaigns.client):
        exact = time_figures(row, schema, campaigns)
        names = {f"{name}]": c for c, name in enumerate(schema.label.categories)}
        attacked = {end: len(np.unique(campaigns.client[campaigns.kind == c])) for end, c in names.items()}
        attacked[""] = len(np.unique(campaigns.client))
        for key, at in client_intervals(by_campaign, campaigns.client, rng).items():
            rows.append(
                Row(domain, "-", *key, exact[key], back(at.low), back(at.high), attacked[key[1].partition("[")[2]])
            )
    return rows
