"""The values of bake files: texts, numbers, truth values, null, lists and tables, and how one becomes another.

HCL converts between the first three wherever a text, a number or a truth value is wanted, and never guesses further.
"""

from __future__ import annotations

import math
from typing import Any

from mobysession.build.fields import parse_bool
from mobysession.errors import UsageError

__all__ = ["Value", "as_bool", "as_number", "as_text", "equal", "number_text", "parse_flag", "type_name"]

#: What an expression comes to: None, bool, int, float, str, list and dict of these.
Value = Any


def as_text(value: Value, what: str = "this") -> str:
    """Return a value as a text; UsageError where it is a list, a table or null."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return number_text(value)
    raise UsageError(f"{what} needs a text, not {type_name(value)}")


def as_number(value: Value, what: str = "this") -> int | float:
    """Return a value as a number; UsageError where it is none."""
    if isinstance(value, str):
        try:
            value = float(value) if any(letter in value for letter in ".eE") else int(value)
        except ValueError:
            raise UsageError(f"{what} needs a number, not {value!r}") from None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise UsageError(f"{what} needs a number, not {type_name(value)}")
    return _whole(value)


def as_bool(value: Value, what: str = "this") -> bool:
    """Return a value as true or false; UsageError where it is neither."""
    if isinstance(value, str):
        value = {"true": True, "false": False, "1": True, "0": False}.get(value, value)
    if not isinstance(value, bool):
        raise UsageError(f"{what} needs true or false, not {value!r}")
    return value


def parse_flag(text: str, what: str) -> bool:
    """Return a truth value as the command line and variables write it, ``1`` or ``yes`` not among them."""
    flag = parse_bool(text)
    if flag is None:
        raise UsageError(f"{what} needs true or false, not {text!r}")
    return flag


def number_text(number: float) -> str:
    """Return a number as HCL writes it: without an exponent, and without a fraction that is nothing."""
    number = _whole(number)
    if isinstance(number, int):
        return str(number)
    text = repr(number)
    return format(number, "f").rstrip("0") if "e" in text else text


def equal(left: Value, right: Value) -> bool:
    """Return whether two values are the same, a truth value being no number."""
    if isinstance(left, bool) is not isinstance(right, bool):
        return False
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(equal, left, right))
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(equal(left[key], right[key]) for key in left)
    return bool(left == right)


def type_name(value: Value) -> str:
    """Return what kind of value this is, with an article."""
    if value is None:
        return "null"
    kinds = ((bool, "a truth value"), (str, "a text"), ((int, float), "a number"), (list, "a list"), (dict, "a table"))
    return next((name for kind, name in kinds if isinstance(value, kind)), "something else")


def _whole(number: float) -> int | float:
    if math.isfinite(number) and float(number).is_integer():
        return int(number)
    return number
