"""From a ConfigDict to frozen dataclasses by their type hints; a wrong key or type is named with the nearest known one."""

from __future__ import annotations

import dataclasses
import difflib
import typing
from typing import Any

from ml_collections import config_dict

from fedjax_health.types import UserError


def _convert(kind: Any, value: Any, path: str) -> Any:
    if dataclasses.is_dataclass(kind):
        return section(typing.cast(type, kind), value, path)
    if typing.get_origin(kind) is tuple:
        inner = typing.get_args(kind)[0]
        if isinstance(value, str) or not isinstance(value, (tuple, list)):
            raise UserError(f"config key {path!r} must be a list of {inner.__name__}, got {value!r}")
        return tuple(_convert(inner, item, path) for item in value)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise UserError(f"config key {path!r} must be {kind.__name__}, got {value!r} ({type(value).__name__})")
    return value


def section(kind: type, raw: Any, path: str) -> Any:
    """One section of a config as its frozen dataclass, sub-sections included.

    Args:
      kind: the dataclass; its type hints are the schema.
      raw: ConfigDict or dict with exactly its fields.
      path: dotted path of the section, for messages.

    Raises:
      UserError: unknown key (and the nearest known one), missing key, or wrong type.
    """
    if not isinstance(raw, (config_dict.ConfigDict, dict)):
        raise UserError(f"config key {path!r} must be a section, got {raw!r}")
    hints = typing.get_type_hints(kind)
    for key in raw:
        if key not in hints:
            near = difflib.get_close_matches(key, hints, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"known keys: {', '.join(hints)}"
            raise UserError(f"unknown config key {'.'.join(filter(None, (path, key)))!r}; {hint}")
    missing = [key for key in hints if key not in raw]
    if missing:
        raise UserError(f"config section {path or 'config'!r} lacks the key {missing[0]!r}; see configs/base.py")
    return kind(**{k: _convert(hints[k], raw[k], ".".join(filter(None, (path, k)))) for k in hints})


def first_difference(old: Any, new: Any, path: str = "") -> str | None:
    """Where two parsed configs differ: 'key: old value, now new value', or None.

    Args:
      old, new: parsed JSON.
      path: dotted path so far.
    """
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted(set(old) | set(new)):
            found = first_difference(old.get(key), new.get(key), f"{path}.{key}" if path else key)
            if found:
                return found
        return None
    return None if old == new else f"{path}: was {old!r}, now {new!r}"
