"""Names of swappable parts; an unknown name says the nearest known one."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import TypeVar

from fedjax_health.types import UserError

T = TypeVar("T")


def lookup(kind: str, name: str, known: Mapping[str, T]) -> T:
    """The part of that name.

    Args:
      kind: what is looked up, for the message ("model", "algorithm").
      name: as written in the config.
      known: names to factories.

    Raises:
      UserError: unknown name, with the nearest known one and the whole list.
    """
    if name in known:
        return known[name]
    near = difflib.get_close_matches(name, known, 1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    raise UserError(f"unknown {kind} {name!r}; {hint}known: {', '.join(sorted(known))}")
