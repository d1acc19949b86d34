"""The functions that expressions of bake files may call, by their names in HCL.

Those that a file would hardly miss are not here: ``bcrypt``, ``rsadecrypt``, the ``cidr`` and ``uuid`` families, and
``convert``, whose argument is a type.

Source: zclconf/go-cty function/stdlib; docker/buildx bake/hclparser/stdlib.go.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
import re
from itertools import product
from typing import TYPE_CHECKING, Final

from mobysession.bake.patterns import find_all, find_first, replace_all
from mobysession.bake.texts import format_list, format_text, jsonencode
from mobysession.bake.times import format_time, now_text, time_add
from mobysession.bake.values import Value, as_bool, as_number, as_text, equal, type_name
from mobysession.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

__all__ = ["FUNCTIONS"]

#: Elements of what ``range`` and ``setproduct`` make; cty's own bound for the first.
_MOST: Final = 1024


def _list(value: Value) -> list[Value]:
    if not isinstance(value, list):
        raise UsageError(f"it takes a list, not {type_name(value)}")
    return value


def _table(value: Value) -> dict[str, Value]:
    if not isinstance(value, dict):
        raise UsageError(f"it takes a table, not {type_name(value)}")
    return value


def _distinct(items: Iterable[Value]) -> list[Value]:
    found: list[Value] = []
    for item in items:
        if not any(equal(item, other) for other in found):
            found.append(item)
    return found


def _within(item: Value, items: Iterable[Value]) -> bool:
    return any(equal(item, other) for other in items)


def _in_order(items: list[Value]) -> list[Value]:
    """Return the elements of a set in the order in which cty goes over them."""
    if all(isinstance(item, str) for item in items):
        return sorted(items)
    if all(isinstance(item, int | float) and not isinstance(item, bool) for item in items):
        return sorted(items)
    return items


def _coalesce(*values: Value) -> Value:
    for value in values:
        if value is not None:
            return value
    raise UsageError("all of its arguments are null")


def _coalescelist(*values: Value) -> Value:
    for value in values:
        if value:
            return _list(value)
    raise UsageError("all of its lists are empty")


def _lookup(table: Value, key: Value, *default: Value) -> Value:
    name = as_text(key)
    if name in _table(table):
        return table[name]
    if not default:
        raise UsageError(f"there is no {name!r} in the table")
    return default[0]


def _length(value: Value) -> int:
    if not isinstance(value, list | dict):
        raise UsageError(f"it takes a list or a table, not {type_name(value)}", hint="Use strlen for a text.")
    return len(value)


def _flatten(value: Value) -> list[Value]:
    flat: list[Value] = []
    for item in _list(value):
        flat += _flatten(item) if isinstance(item, list) else [item]
    return flat


def _substr(text: Value, offset: Value, length: Value) -> str:
    whole, start, count = as_text(text), int(as_number(offset)), int(as_number(length))
    start = max(len(whole) + start, 0) if start < 0 else start
    return whole[start:] if count < 0 else whole[start : start + count]


def _jsondecode(text: Value) -> Value:
    return json.loads(as_text(text))


def _csvdecode(text: Value) -> list[Value]:
    import csv
    import io

    return [dict(row) for row in csv.DictReader(io.StringIO(as_text(text)), strict=True)]


def _range(*given: Value) -> list[Value]:
    numbers = [as_number(value) for value in given]
    start, end = (0, numbers[0]) if len(numbers) == 1 else (numbers[0], numbers[1])
    step = numbers[2] if len(numbers) > 2 else 1 if end >= start else -1
    if step == 0:
        raise UsageError("its step is nothing")
    made: list[Value] = []
    while (start < end) if step > 0 else (start > end):
        made.append(start)
        if len(made) > _MOST:
            raise UsageError(f"it makes more than {_MOST} numbers")
        start += step
    return made


def _setproduct(*lists: Value) -> list[Value]:
    if math.prod(len(_list(one)) for one in lists) > _MOST:
        raise UsageError(f"it makes more than {_MOST} lists")
    return [list(combination) for combination in product(*lists)]


def _indent(spaces: Value, text: Value) -> str:
    count = int(as_number(spaces))
    if not 0 <= count <= _MOST:
        raise UsageError(f"{count} is no number of spaces")
    return as_text(text).replace("\n", "\n" + " " * count)


def _slice(items: Value, start: Value, end: Value) -> list[Value]:
    first, last = int(as_number(start)), int(as_number(end))
    if not 0 <= first <= last <= len(_list(items)):
        raise UsageError(f"{first} to {last} is no part of a list of {len(items)}")
    return list(items[first:last])


def _element(items: Value, index: Value) -> Value:
    return _list(items)[int(as_number(index)) % len(items)]


def _indexof(items: Value, value: Value) -> int:
    for at, item in enumerate(_list(items)):
        if equal(item, value):
            return at
    raise UsageError("there is no such element")


def _chunklist(items: Value, size: Value) -> list[Value]:
    count = int(as_number(size))
    if count < 0:
        raise UsageError("a size cannot be negative")
    step = count or max(len(_list(items)), 1)
    return [items[at : at + step] for at in range(0, len(items), step)]


def _replace(text: Value, old: Value, new: Value) -> str:
    pattern = as_text(old)
    return as_text(text).replace(pattern, as_text(new))


def _parseint(text: Value, base: Value) -> int:
    return int(as_text(text), int(as_number(base)))


def _merge(*tables: Value) -> dict[str, Value]:
    merged: dict[str, Value] = {}
    for table in tables:
        merged.update({} if table is None else _table(table))
    return merged


def _has_index(value: Value, key: Value) -> bool:
    if isinstance(value, dict):
        return isinstance(key, str) and key in value
    return isinstance(key, int) and not isinstance(key, bool) and 0 <= key < len(_list(value))


def _path_base(path: Value) -> str:
    text = as_text(path).rstrip("/")
    return text.rpartition("/")[2] or ("/" if as_text(path) else ".")


def _path_dir(path: Value) -> str:
    import posixpath

    return posixpath.normpath(as_text(path).rpartition("/")[0] or ("/" if as_text(path).startswith("/") else "."))


def _upper(text: Value) -> str:
    """Change each letter by itself, as Go does: one that would become two stays, if it has no title case of its own."""
    return "".join(
        next((changed for changed in (letter.upper(), letter.title()) if len(changed) == 1), letter)
        for letter in as_text(text)
    )


def _lower(text: Value) -> str:
    """Change each letter by itself, whatever stands beside it; one alone becomes two, and is the first of these."""
    return "".join(letter.lower()[0] for letter in as_text(text))


def _title(text: Value) -> str:
    """Change the first letter of each word; of ASCII only letters, digits and _ are part of words."""
    return re.sub(
        r"(?<![^\x00-/:-@\[-^`{-\x7f\s]).",
        lambda found: changed if len(changed := found[0].title()) == 1 else found[0],
        as_text(text),
    )


def _split(separator: Value, text: Value) -> list[Value]:
    between = as_text(separator)
    return list(as_text(text).split(between) if between else as_text(text))


def _difference(first: Value, second: Value) -> list[Value]:
    return _in_order(_distinct(item for item in _list(first) if not _within(item, _list(second))))


def _hashed(name: str) -> Callable[[Value], str]:
    return lambda text: hashlib.new(name, as_text(text).encode(), usedforsecurity=False).hexdigest()


def _compared(compare: Callable[[float, float], bool]) -> Callable[[Value, Value], bool]:
    return lambda left, right: compare(as_number(left), as_number(right))


def _counted(count: Callable[[float, float], float]) -> Callable[[Value, Value], float]:
    return lambda left, right: as_number(count(as_number(left), as_number(right)))


def _power(base: float, exponent: float) -> float:
    if abs(exponent) > _MOST:
        raise UsageError("its exponent is too large")
    return float(base**exponent)


def _numbers(values: Iterable[Value]) -> list[float]:
    return [as_number(value) for value in values]


def _urlencode(text: Value) -> str:
    from urllib.parse import quote_plus

    return quote_plus(as_text(text))


def _homedir() -> str:
    import os

    return os.path.expanduser("~")


FUNCTIONS: Final[Mapping[str, Callable[..., Value]]] = {
    "absolute": lambda number: abs(as_number(number)),
    "add": _counted(lambda a, b: a + b),
    "and": lambda a, b: as_bool(a) and as_bool(b),
    "base64decode": lambda text: base64.b64decode(as_text(text), validate=True).decode(),
    "base64encode": lambda text: base64.b64encode(as_text(text).encode()).decode(),
    "basename": _path_base,
    "byteslen": lambda text: len(as_text(text).encode()),
    "ceil": lambda number: math.ceil(as_number(number)),
    "chomp": lambda text: as_text(text).rstrip("\r\n"),
    "chunklist": _chunklist,
    "coalesce": _coalesce,
    "coalescelist": _coalescelist,
    "compact": lambda items: [text for text in _list(items) if text],
    "concat": lambda *lists: [item for one in lists for item in _list(one)],
    "contains": lambda items, value: _within(value, _list(items)),
    "csvdecode": _csvdecode,
    "dirname": _path_dir,
    "distinct": lambda items: _distinct(_list(items)),
    "divide": _counted(lambda a, b: a / b),
    "element": _element,
    "equal": equal,
    "flatten": _flatten,
    "floor": lambda number: math.floor(as_number(number)),
    "format": format_text,
    "formatdate": format_time,
    "formatlist": format_list,
    "formattimestamp": format_time,
    "greaterthan": _compared(lambda a, b: a > b),
    "greaterthanorequalto": _compared(lambda a, b: a >= b),
    "hasindex": _has_index,
    "homedir": _homedir,
    "indent": _indent,
    "index": lambda value, key: value[key],
    "indexof": _indexof,
    "int": lambda number: math.trunc(as_number(number)),
    "join": lambda separator, *lists: as_text(separator).join(as_text(v) for one in lists for v in _list(one)),
    "jsondecode": _jsondecode,
    "jsonencode": jsonencode,
    "keys": lambda table: sorted(_table(table)),
    "length": _length,
    "lessthan": _compared(lambda a, b: a < b),
    "lessthanorequalto": _compared(lambda a, b: a <= b),
    "log": _counted(math.log),
    "lookup": _lookup,
    "lower": _lower,
    "max": lambda *numbers: max(_numbers(numbers)),
    "md5": _hashed("md5"),
    "merge": _merge,
    "min": lambda *numbers: min(_numbers(numbers)),
    "modulo": _counted(math.fmod),
    "multiply": _counted(lambda a, b: a * b),
    "negate": lambda number: -as_number(number),
    "not": lambda flag: not as_bool(flag),
    "notequal": lambda a, b: not equal(a, b),
    "or": lambda a, b: as_bool(a) or as_bool(b),
    "parseint": _parseint,
    "pow": _counted(_power),
    "range": _range,
    "regex": find_first,
    "regex_replace": replace_all,
    "regexall": find_all,
    "replace": _replace,
    "reverse": lambda text: as_text(text)[::-1],
    "reverselist": lambda items: _list(items)[::-1],
    "sanitize": lambda name: re.sub(r"[^a-zA-Z0-9_-]", "_", as_text(name)),
    "sethaselement": lambda items, value: _within(value, _list(items)),
    "setintersection": lambda first, *others: _in_order(
        _distinct(item for item in _list(first) if all(_within(item, _list(other)) for other in others))
    ),
    "setproduct": _setproduct,
    "setsubtract": _difference,
    "setsymmetricdifference": lambda a, b: _in_order(_distinct([*_difference(a, b), *_difference(b, a)])),
    "setunion": lambda *lists: _in_order(_distinct(item for one in lists for item in _list(one))),
    "sha1": _hashed("sha1"),
    "sha256": _hashed("sha256"),
    "sha512": _hashed("sha512"),
    "signum": lambda number: (as_number(number) > 0) - (as_number(number) < 0),
    "slice": _slice,
    "sort": lambda items: sorted(as_text(item) for item in _list(items)),
    "split": _split,
    "strlen": lambda text: len(as_text(text)),
    "substr": _substr,
    "subtract": _counted(lambda a, b: a - b),
    "timeadd": time_add,
    "timestamp": now_text,
    "title": _title,
    "trim": lambda text, letters: as_text(text).strip(as_text(letters)),
    "trimprefix": lambda text, prefix: as_text(text).removeprefix(as_text(prefix)),
    "trimspace": lambda text: as_text(text).strip(),
    "trimsuffix": lambda text, suffix: as_text(text).removesuffix(as_text(suffix)),
    "upper": _upper,
    "urlencode": _urlencode,
    "values": lambda table: [value for _, value in sorted(_table(table).items())],
    "zipmap": lambda keys, values: dict(zip(map(as_text, _list(keys)), _list(values), strict=True)),
}
