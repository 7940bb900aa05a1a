"""The figures of a composition that a ledger shows: epsilon by two accountants, replace-one, and groups of clients."""

from __future__ import annotations

import math
from typing import Any

from fedjax_health.privacy import accounting, groups, second_opinion

GROUPS = (2, 5)  # clients of one household or ward, say


def published(events: accounting.Composition, delta: float) -> dict[str, Any]:
    """All figures of a composition, as JSON-ready values; what nothing is proven about is None.

    Args:
      events: everything that is published.
      delta: in (0, 1).

    Returns:
      {"epsilon_total", "epsilon_rdp", "epsilon_replace_one", "delta_replace_one", "replace_one_method", "groups"}; each of
      the groups is {"size", "epsilon", "delta", "method"}, for that many clients (or records) added or removed at once.

    Raises:
      UserError: the accountants contradict each other, or do not cover an event.
    """
    both = second_opinion.opinions(events, delta)
    replaced = groups.replace_one(events, delta)
    bounds = [(clients, groups.by_group_privacy(events, delta, clients)) for clients in GROUPS]
    return {
        "epsilon_total": both.pld,
        "epsilon_rdp": _finite(both.rdp),
        "epsilon_replace_one": replaced.epsilon,
        "delta_replace_one": replaced.delta,
        "replace_one_method": replaced.method,
        "groups": [
            {"size": g, "epsilon": _finite(bound.epsilon), "delta": bound.delta, "method": bound.method}
            for g, bound in bounds
        ],
    }


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
