"""Equations as text, such as "bytes_in + bytes_out": parsed once, evaluated on arrays; nothing else can be written in them."""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from fedjax_health.types import UserError

OPERATORS: dict[type, Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}
FUNCTIONS = {"floor": 1, "ceil": 1, "round": 1, "sqrt": 1, "min": 2, "max": 2}  # and their numbers of arguments
LONGEST = 1000  # characters


class Expression(NamedTuple):
    """A parsed equation.

    Attributes:
      names: columns that it reads, in the order of their first mention.
      evaluate: (name -> array, library: numpy or jax.numpy) -> array; arithmetic is the arrays' own, 0 / 0 gives NaN.
    """

    names: tuple[str, ...]
    evaluate: Callable[[Mapping[str, Any], Any], Any]


def parse(text: str, where: str) -> Expression:
    """Reads +, -, *, /, parentheses, numbers, column names, floor, ceil, round, sqrt, min(a, b) and max(a, b).

    Args:
      text: at most 1,000 characters; a column's name must be an identifier.
      where: for messages, such as "schema column 'load'".

    Raises:
      UserError: anything else in the text, or no column in it.
    """

    def refuse(why: str) -> UserError:
        return UserError(
            f"{where}: equation {text[:80]!r} {why}; use column names, numbers, + - * /, {', '.join(FUNCTIONS)} and parentheses"
        )

    try:
        if len(text) > LONGEST:
            raise refuse(f"is longer than {LONGEST:,} characters")
        tree = ast.parse(text, mode="eval").body
    except (SyntaxError, ValueError) as error:
        raise (error if isinstance(error, UserError) else refuse("cannot be read")) from error
    names: dict[str, None] = {}

    def build(node: ast.expr) -> Callable[[Mapping[str, Any], Any], Any]:
        if isinstance(node, ast.Constant) and isinstance(node.value, (int, float)) and not isinstance(node.value, bool):
            value = float(node.value)
            return lambda env, xp: value
        if isinstance(node, ast.Name):
            names[node.id] = None
            return lambda env, xp, name=node.id: env[name]
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
            inner = build(node.operand)
            return lambda env, xp: -inner(env, xp)
        if isinstance(node, ast.BinOp) and type(node.op) in OPERATORS:
            apply, left, right = OPERATORS[type(node.op)], build(node.left), build(node.right)
            return lambda env, xp: apply(left(env, xp), right(env, xp))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and not node.keywords:
            name = node.func.id
            if FUNCTIONS.get(name) == len(node.args):
                of = {"min": "minimum", "max": "maximum"}.get(name, name)
                parts = [build(argument) for argument in node.args]
                return lambda env, xp: getattr(xp, of)(*(part(env, xp) for part in parts))
        raise refuse(f"holds {ast.unparse(node)[:40]!r}, which is not allowed")

    evaluate = build(tree)
    if not names:
        raise refuse("names no column")
    return Expression(tuple(names), evaluate)
