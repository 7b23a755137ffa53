"""What a study says must hold: a comparison of numbers by name, as ``abs(upper - AP) <= 0.1``, and nothing else that Python can say."""

from __future__ import annotations

import ast
import functools
from collections.abc import Mapping
from types import CodeType
from typing import Any

_ALLOWED = (
    *(ast.Expression, ast.Compare, ast.BoolOp, ast.UnaryOp, ast.BinOp, ast.Call, ast.Name, ast.Constant, ast.Load),
    *(ast.boolop, ast.unaryop, ast.operator, ast.cmpop),
)
_FUNCTIONS = {"abs": abs, "min": min, "max": max}


@functools.cache
def compiled(claim: str) -> CodeType:
    """A comparison of numbers by name: arithmetic, comparisons, and, or, not, abs, min and max.

    Raises:
        ValueError: anything else.
    """
    try:
        tree = ast.parse(str(claim), mode="eval")
    except SyntaxError as error:
        raise ValueError(f"{claim!r} is no comparison: {error.msg}") from None
    for node in ast.walk(tree):
        called = isinstance(node, ast.Call) and not (isinstance(node.func, ast.Name) and node.func.id in _FUNCTIONS)
        if called or not isinstance(node, _ALLOWED):
            raise ValueError(f"{claim!r}: arithmetic, comparisons and {', '.join(_FUNCTIONS)} of numbers by name expected")
    return compile(tree, "<claim>", "eval")


def names_in(claim: str) -> set[str]:
    """The numbers that a comparison is about.

    Raises:
        ValueError: it is none, see :func:`compiled`.

    Example:
        >>> sorted(names_in("abs(upper - AP) <= 0.1"))
        ['AP', 'upper']
    """
    compiled(claim)
    return {node.id for node in ast.walk(ast.parse(claim, mode="eval")) if isinstance(node, ast.Name)} - _FUNCTIONS.keys()


def evaluate(claim: str, record: Mapping[str, Any]) -> Any:
    """An expression of numbers by name; None where one of them is undefined or it divides by 0.

    Example:
        >>> evaluate("a / b", {"a": 1, "b": 2}), evaluate("a / b", {"a": 1, "b": 0})
        (0.5, None)
    """
    values = {name: record.get(name) for name in names_in(claim)}
    if any(value is None for value in values.values()):
        return None
    try:
        return eval(compiled(claim), {"__builtins__": {}}, {**_FUNCTIONS, **values})
    except ZeroDivisionError:
        return None
