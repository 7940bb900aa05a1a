"""Events as structured values in a ledger, and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import dp_accounting
from dp_accounting import dp_event

from fedjax_health.privacy.revealed import RevealedSampledDpEvent
from fedjax_health.types import UserError

_KNOWN = {
    kind.__name__: kind
    for kind in (
        dp_event.NoOpDpEvent,
        dp_event.GaussianDpEvent,
        dp_event.PoissonSampledDpEvent,
        dp_event.TruncatedSubsampledGaussianDpEvent,
        RevealedSampledDpEvent,
        dp_event.ZCDpEvent,
        dp_event.SelfComposedDpEvent,
        dp_event.ComposedDpEvent,
    )
}


def event_fields(event: dp_accounting.DpEvent) -> dict[str, Any]:
    """The event as JSON-ready values: {"type": class name, field: number, event or list of events}.

    Args:
      event: of a class that the accountant covers.

    Raises:
      UserError: another class.
    """
    name = type(event).__name__
    if name not in _KNOWN:
        raise UserError(f"a ledger cannot hold {name}; it can hold {', '.join(_KNOWN)}")

    def value(field: Any) -> Any:
        if isinstance(field, dp_accounting.DpEvent):
            return event_fields(field)
        return [event_fields(part) for part in field] if isinstance(field, list) else field

    names = [field for field in event.to_named_tuple()._fields if field not in ("module_name", "class_name")]
    return {"type": name, **{field: value(getattr(event, field)) for field in names}}


def event_of(fields: Any) -> dp_accounting.DpEvent:
    """The event that `event_fields` wrote.

    Args:
      fields: as read from JSON.

    Raises:
      UserError: not such values: an unknown class, a field that is missing, unknown, or no number.
    """
    kind = fields.get("type") if isinstance(fields, Mapping) else None
    if kind not in _KNOWN:
        raise UserError(f"event_fields {str(fields)[:200]} name no event that is known here: {', '.join(_KNOWN)}")

    def value(field: Any) -> Any:
        if isinstance(field, Mapping):
            return event_of(field)
        if isinstance(field, list):
            return [event_of(part) for part in field]
        if isinstance(field, bool) or not isinstance(field, (int, float)):
            raise UserError(f"event_fields of {kind} hold {field!r}, which is no number; restore the ledger as written")
        return field

    try:
        return _KNOWN[kind](**{name: value(field) for name, field in fields.items() if name != "type"})
    except TypeError as error:
        raise UserError(f"event_fields {str(fields)[:200]} do not fit {kind}; restore the ledger as written") from error
