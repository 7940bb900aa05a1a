"""Columns of a table: names, units, public ranges, roles. Units and ranges live here and nowhere else.

Everything a schema holds is public knowledge (a sensor's range, a clinical reference interval, a code book), so scaling
by it costs no privacy budget. Nothing here may be estimated from the data.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import os
from collections.abc import Sequence
from typing import Any

from fedjax_health.data.expression import parse
from fedjax_health.types import UserError

KINDS = ("numeric", "categorical", "binary")
ROLES = ("feature", "group", "label", "client")
TRANSFORMS = ("identity", "log1p")
REPRESENTATIONS = ("public", "scores", "copula")  # of records in a generator's model space, see `data.representation`


@dataclasses.dataclass(frozen=True, kw_only=True)
class Column:
    """One column.

    Attributes:
      name: unique name, as in the file.
      kind: "numeric", "categorical" (one of `categories`) or "binary" (two `categories`, ("0", "1") by default).
      role: "feature" (model input), "group" (model input that fairness is reported by), "label" or "client".
      unit: physical unit, for readers.
      low, high: public hard range of a numeric column, in the unit; values outside are clipped, counted and reported.
      center, scale: public location and spread of the column *after* `transform`, for scaling to about zero mean and
        unit variance; by default the middle and a quarter of the transformed range.
      transform: "identity" or "log1p" (heavy tails; needs low >= 0).
      decimals: published resolution (0 = integers); None = as generated.
      spikes: values of a numeric column that occur again and again between others that do not, such as an amount's 0; a space
        of normal scores gives them back exactly.
      categories: public code book, as strings. The first one of a label is the negative (healthy, benign) class.
      nullable: whether cells may be missing; a missingness variable is then modelled beside the value.
      at_most: name of a numeric column in the same unit that this one may never exceed (diastolic <= systolic).
      equation: what a numeric column follows from, such as "bytes_in + bytes_out"; "" = it is free. One that mentions its own
        column says how its generated values are settled (see `data.equations`; `data.expression` says what can be written).
    """

    name: str
    kind: str = "numeric"
    role: str = "feature"
    unit: str = ""
    low: float | None = None
    high: float | None = None
    center: float | None = None
    scale: float | None = None
    transform: str = "identity"
    decimals: int | None = None
    spikes: tuple[float, ...] = ()
    categories: tuple[str, ...] = ()
    nullable: bool = False
    at_most: str = ""
    equation: str = ""

    def __post_init__(self):
        if self.kind == "binary" and not self.categories:
            object.__setattr__(self, "categories", ("0", "1"))
        object.__setattr__(self, "categories", tuple(str(c) for c in self.categories))
        object.__setattr__(self, "spikes", tuple(sorted(float(v) for v in self.spikes)))
        _check_column(self)

    @property
    def derived(self) -> bool:
        """Whether other columns say what it is, so that no model generates it."""
        return bool(self.equation) and self.name not in parse(self.equation, self.name).names


def _check_column(c: Column) -> None:
    where = f"schema column {c.name!r}"
    for value, allowed, what in (
        (c.kind, KINDS, "kind"),
        (c.role, ROLES, "role"),
        (c.transform, TRANSFORMS, "transform"),
    ):
        if value not in allowed:
            raise UserError(f"{where}: {what} {value!r} is not one of {', '.join(allowed)}; correct the schema")
    if c.role == "client":
        return
    if c.kind == "numeric":
        if c.low is None or c.high is None or not c.low < c.high:
            raise UserError(
                f"{where}: needs a public range with low < high, got {c.low} to {c.high}; state it in the schema"
            )
        if c.transform == "log1p" and c.low < 0:
            raise UserError(f"{where}: transform log1p needs low >= 0, got {c.low}; use identity or another range")
        if c.scale is not None and c.scale <= 0:
            raise UserError(f"{where}: scale must be positive, got {c.scale}")
        if c.spikes and (c.at_most or c.equation):
            raise UserError(f"{where}: spikes cannot stand beside at_most or an equation; leave one of them out")
        if c.spikes and not c.low <= c.spikes[0] <= c.spikes[-1] <= c.high:
            raise UserError(f"{where}: a spike lies outside {c.low} to {c.high}; correct the range or the spikes")
        if c.role == "label":
            raise UserError(f"{where}: a label must be categorical or binary, not numeric; give its categories")
    elif len(c.categories) < 2 or len(set(c.categories)) != len(c.categories):
        raise UserError(
            f"{where}: needs two or more distinct categories, got {list(c.categories)}; state its code book"
        )
    elif c.kind == "binary" and len(c.categories) != 2:
        raise UserError(f"{where}: a binary column has two categories, got {list(c.categories)}; use categorical")


@dataclasses.dataclass(frozen=True)
class Schema:
    """A named list of columns, exactly one of them the label; at most one the client id.

    Attributes:
      name: domain name, such as "vitals".
      columns: in file order.
    """

    name: str
    columns: tuple[Column, ...]

    def __post_init__(self):
        names = [c.name for c in self.columns]
        twice = sorted({n for n in names if names.count(n) > 1})
        if twice:
            raise UserError(f"schema {self.name!r}: column {twice[0]!r} appears twice; names must be unique")
        if sum(c.role == "label" for c in self.columns) != 1:
            raise UserError(f"schema {self.name!r}: needs exactly one column with role 'label'; mark it in the schema")
        if sum(c.role == "client" for c in self.columns) > 1:
            raise UserError(f"schema {self.name!r}: at most one column may have role 'client'")
        numeric = {c.name for c in self.columns if c.kind == "numeric"}
        check_equations(self)
        for c in self.columns:
            if c.at_most and (c.at_most not in numeric or c.name not in numeric or c.at_most == c.name):
                raise UserError(
                    f"schema {self.name!r}: column {c.name!r} has at_most={c.at_most!r}; name a numeric column"
                )
        if not self.inputs:
            raise UserError(
                f"schema {self.name!r}: has no feature columns; give at least one column the role 'feature'"
            )

    @property
    def inputs(self) -> tuple[Column, ...]:
        """Columns the models see and generate (features and groups), in order: the F axis of `Table.values`."""
        return tuple(c for c in self.columns if c.role in ("feature", "group"))

    @property
    def label(self) -> Column:
        """The label column."""
        return next(c for c in self.columns if c.role == "label")

    @property
    def client(self) -> Column | None:
        """The client-id column, or None where every row is a client of its own or the adapter makes clients."""
        return next((c for c in self.columns if c.role == "client"), None)

    @property
    def groups(self) -> tuple[Column, ...]:
        """Columns that fairness is reported by."""
        return tuple(c for c in self.columns if c.role == "group")

    @property
    def num_classes(self) -> int:
        """L, the number of label classes."""
        return len(self.label.categories)

    def index(self, name: str) -> int:
        """Position of an input column on the F axis.

        Args:
          name: a column of `inputs`.

        Raises:
          UserError: unknown name; says the nearest known one.
        """
        names = [c.name for c in self.inputs]
        if name not in names:
            near = difflib.get_close_matches(name, names, 1)
            hint = f"; did you mean {near[0]!r}?" if near else f"; known: {', '.join(names)}"
            raise UserError(f"schema {self.name!r} has no input column {name!r}{hint}")
        return names.index(name)

    def to_json(self) -> str:
        """The schema as JSON, readable by `load_schema`."""
        columns = [{k: v for k, v in dataclasses.asdict(c).items() if v not in (None, "", ())} for c in self.columns]
        return json.dumps({"name": self.name, "columns": columns}, indent=2) + "\n"


def check_equations(schema: Schema) -> None:
    """Equations read numeric columns that are never missing, and go round in no circle.

    Args:
      schema: with unique column names.

    Raises:
      UserError: says the first column whose equation does not.
    """
    inputs = {c.name: c for c in schema.columns if c.role in ("feature", "group")}
    reads = {c.name: parse(c.equation, f"schema column {c.name!r}").names for c in schema.columns if c.equation}
    for name, names in reads.items():
        where = f"schema {schema.name!r}: the equation of column {name!r}"
        for read in (name, *names):
            if read not in inputs or inputs[read].kind != "numeric" or inputs[read].nullable:
                raise UserError(f"{where} involves {read!r}, which is no numeric column that is never missing")
        if inputs[name].at_most or any(c.at_most == name for c in inputs.values()):
            raise UserError(f"{where} cannot stand beside at_most; write min({name}, ...) instead")
    left = {name: set(names) & set(reads) - {name} for name, names in reads.items()}
    while left:
        ready = [name for name, names in left.items() if not names & set(left)]
        if not ready:
            raise UserError(
                f"schema {schema.name!r}: the equations of {', '.join(sorted(left))} need one another; leave one column free"
            )
        for name in ready:
            del left[name]


def schema_from_dict(raw: dict[str, Any], where: str) -> Schema:
    """Builds a schema from parsed JSON.

    Args:
      raw: {"name": ..., "columns": [{"name": ..., ...}, ...]}.
      where: file name, for messages.

    Raises:
      UserError: a missing or unknown key, or values that break a rule of `Column` or `Schema`.
    """
    known = [f.name for f in dataclasses.fields(Column)]
    columns: list[Column] = []
    entries: Sequence[dict[str, Any]] = raw.get("columns", ()) if isinstance(raw, dict) else ()
    if not entries:
        raise UserError(f"{where}: a schema needs a non-empty list 'columns'; see README, 'Your own table'")
    for number, entry in enumerate(entries):
        for key in entry:
            if key not in known:
                near = difflib.get_close_matches(key, known, 1)
                hint = f"did you mean {near[0]!r}?" if near else f"known keys: {', '.join(known)}"
                raise UserError(f"{where}: column {number} has the unknown key {key!r}; {hint}")
        if "name" not in entry:
            raise UserError(f"{where}: column {number} has no 'name'")
        columns.append(Column(**entry))
    return Schema(str(raw.get("name", "table")), tuple(columns))


def load_schema(path: str) -> Schema:
    """Reads a schema file (JSON).

    Args:
      path: file path.

    Raises:
      UserError: the file is missing, is not JSON, or breaks a rule.
    """
    if not os.path.isfile(path):
        raise UserError(f"schema file {path!r} does not exist; give its path with --config.data.schema=FILE")
    with open(path, encoding="utf-8") as file:
        try:
            raw = json.load(file)
        except json.JSONDecodeError as error:
            raise UserError(f"schema file {path!r} line {error.lineno} is not JSON: {error.msg}") from error
    return schema_from_dict(raw, path)
