"""Bytes that a compiled program moves, and kernels that it starts, loops multiplied by how often they run.

Read from the text of the program that XLA made, after fusion: what happens inside a fusion stays in registers, so each
instruction costs its operands and its result. A slice of an array costs the slice, not the array.
"""

from __future__ import annotations

import math
import re
from typing import NamedTuple

from fedjax_health.ahead.trips import Trips

BITS = {"pred": 8, "token": 0}  # of the others the digits in their names
# fmt: off
FREE = frozenset((
    "after-all", "bitcast", "constant", "get-tuple-element", "iota", "opt-barrier", "parameter", "partition-id", "replica-id",
    "tuple",
))
# fmt: on
SLICES = frozenset(("dynamic-slice", "gather", "slice"))
_SHAPE = re.compile(r"\b([a-z]+\d*[a-z0-9]*)\[([\d,]*)\]")
_HEAD = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\) -> .* \{$")
_LINE = re.compile(r"^\s+(ROOT )?%?([\w.\-]+) = (.*)$")
_CALLED = re.compile(r"(?:calls|to_apply|body)=%?([\w.\-]+)")
_BRANCHES = re.compile(r"branch_computations=\{([^}]*)\}|(?:true|false)_computation=%?([\w.\-]+)")
_TRIPS = re.compile(r'known_trip_count":\{"n":"(\d+)"')


class Traffic(NamedTuple):
    """Of one device.

    Attributes:
      bytes: read and written.
      kernels: instructions that run.
    """

    bytes: float
    kernels: float

    def __add__(self, other: Traffic) -> Traffic:  # pyright: ignore[reportIncompatibleMethodOverride]
        return Traffic(self.bytes + other.bytes, self.kernels + other.kernels)


class Instruction(NamedTuple):
    """A line of a program: its name, type, operation, names of its operands (a parameter's: its number), what follows."""

    name: str
    type: str
    operation: str
    operands: tuple[str, ...]
    rest: str


def count_traffic(text: str, trips: Trips) -> Traffic:
    """Bytes and kernels of a program on one device.

    Args:
      text: `compiled.as_text()`.
      trips: of the loops over clients and steps, which the program does not know.
    """
    computations, entry = parse(text)
    return _computation(computations, entry, trips, 0)


def parse(text: str) -> tuple[dict[str, list[Instruction]], str]:
    """Computations by name, the last instruction of each its root, and the name of the first to run."""
    computations: dict[str, list[Instruction]] = {}
    current, entry = "", ""
    for line in text.splitlines():
        if head := _HEAD.match(line):
            current = head[2]
            computations[current] = []
            entry = current if head[1] else entry
        elif current and (found := _LINE.match(line)):
            computations[current].append(_instruction(found[2], found[3]))
    return computations, entry


def _instruction(name: str, text: str) -> Instruction:
    end = _closing(text, 0) + 1 if text.startswith("(") else text.index(" ")
    operation, _, tail = text[end:].strip().partition("(")
    stop = _closing("(" + tail, 0) - 1
    inner = tail[:stop]
    operands = (inner,) if operation == "parameter" else tuple(re.findall(r"%([\w.\-]+)", inner))
    return Instruction(name, text[:end], operation, operands, tail[stop:])


def _closing(text: str, start: int) -> int:
    depth = 0
    for i in range(start, len(text)):
        depth += (text[i] == "(") - (text[i] == ")")
        if depth == 0:
            return i
    raise ValueError(f"no end of {text[:80]!r}")


def size_of(shape: str) -> int:
    """Bytes of a type such as "f32[64,64]{1,0}" or a tuple of such."""
    total = 0
    for kind, dims in _SHAPE.findall(shape):
        bits = BITS.get(kind) if kind in BITS else int(re.findall(r"\d+", kind)[0])
        total += (bits or 0) * math.prod(int(d) for d in dims.split(",") if d)
    return total // 8


def _computation(computations: dict[str, list[Instruction]], name: str, trips: Trips, depth: int) -> Traffic:
    total = Traffic(0.0, 0.0)
    types = {i.name: i.type for i in computations[name]}
    for one in computations[name]:
        if one.operation in FREE:
            continue
        if one.operation == "while":
            known = _TRIPS.search(one.rest)
            # as in `flops`: a loop of unknown length over floats, inside the clients' work, is one over chunks or steps
            dealt = known is None and "shard_map" in one.rest and "f32[" in one.type and depth < 2
            times = int(known[1]) if known else (trips.chunks, trips.steps)[depth] if dealt else 1
            body = _computation(computations, _CALLED.findall(one.rest)[0], trips, depth + dealt)
            total += Traffic(body.bytes * times, body.kernels * times)
        elif one.operation == "conditional":
            branches = [
                n for pair in _BRANCHES.findall(one.rest) for part in pair for n in re.findall(r"[\w.\-]+", part)
            ]
            total += max(_computation(computations, branch, trips, depth) for branch in branches)
        elif one.operation == "call":
            total += _computation(computations, _CALLED.findall(one.rest)[0], trips, depth)
        else:
            total += Traffic(_moved(computations, one, types), 1.0)
    return total


def _moved(computations: dict[str, list[Instruction]], one: Instruction, types: dict[str, str]) -> float:
    """Bytes of one instruction."""
    operands = [size_of(types.get(name, "")) for name in one.operands]
    if one.operation in SLICES:
        return 2 * size_of(one.type)
    if one.operation in ("dynamic-update-slice", "scatter"):
        return 2 * operands[1 if one.operation == "dynamic-update-slice" else 2]
    if one.operation != "fusion":
        return sum(operands) + size_of(one.type)
    inside = computations[_CALLED.findall(one.rest)[0]]
    own = {i.name: i for i in inside}
    result = size_of(one.type)
    written, updated = inside[-1], ""
    if written.operation == "dynamic-update-slice":
        result, updated = size_of(own[written.operands[1]].type), written.operands[0]
    for name in (i.name for i in inside if i.operation == "parameter"):
        place = int(own[name].operands[0])
        users = [i for i in inside if name in i.operands]
        if name == updated and len(users) == 1:
            operands[place] = 0
        elif users and all(i.operation in SLICES and i.operands[0] == name for i in users):
            operands[place] = sum(size_of(i.type) for i in users)
    return sum(operands) + result
