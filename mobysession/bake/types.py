"""The types of variables, and what the environment says of a variable, read by its type.

A variable without a type has that of its default. A list may come from the environment as ``a,b``, a table as
``key:value,key:value``, and both as JSON in the variable ``NAME_JSON``.

Source: docker/buildx bake/hclparser/hclparser.go, resolveValue and valueFromCSV; hashicorp/hcl ext/typeexpr.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from mobysession.bake.syntax import source_of
from mobysession.bake.values import Value, as_bool, as_number, as_text, parse_flag, type_name
from mobysession.build.fields import split_fields
from mobysession.errors import BakeError, UsageError
from mobysession.jsontext import parse_json

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from mobysession.bake.syntax import Expression

__all__ = ["constraint_of", "converted", "from_environment"]

_PRIMITIVES: Final = ("string", "number", "bool")
_JSON: Final = "_JSON"


def constraint_of(written: Expression | None) -> str:
    """Return a type as it is written, without spaces; empty where none is. BakeError where there is no such type."""
    if written is None or (written.tree is None and written.json is None):
        return ""
    text = re.sub(r"\s", "", str(written.json) if written.tree is None else source_of(written.tree))
    inner = "(?:string|number|bool|any)"
    if re.fullmatch(rf"{inner}|(?:list|set|map)\({inner}\)|tuple\(\[.*\]\)|object\(\{{.*\}}\)", text) is None:
        raise BakeError(f"the type {text!r} is not supported", file=written.file, line=written.line)
    if re.search(r"\boptional\((?:[^(),]|\((?:[^()]|\([^()]*\))*\))*,", text):
        message = f"optional() in {text!r} takes a type, and no default"
        raise BakeError(message, file=written.file, line=written.line)
    return text


def converted(value: Value, kind: str) -> Value:
    """Return a value as one of a type; UsageError where it cannot be."""
    if value is None or kind == "any" or kind.startswith(("tuple", "object")):
        return value
    if kind == "string":
        return as_text(value)
    if kind == "number":
        return as_number(value)
    if kind == "bool":
        return as_bool(value)
    outer, _, inner = kind.removesuffix(")").partition("(")
    if outer == "map":
        if not isinstance(value, dict):
            raise UsageError(f"it is a table, not {type_name(value)}")
        return {key: converted(item, inner) for key, item in value.items()}
    if not isinstance(value, list):
        raise UsageError(f"it is a list, not {type_name(value)}")
    items = [converted(item, inner) for item in value]
    if outer == "set":
        return sorted(dict.fromkeys(items), key=str) if inner == "string" else list(dict.fromkeys(items))
    return items


def from_environment(
    name: str, value: Value, kind: str, environment: Mapping[str, str], variables: Collection[str], has_default: bool
) -> Value:
    """Return what the environment says of a variable, ``value`` where it says nothing; UsageError for nonsense."""
    text = environment.get(name)
    as_json = f"{name}{_JSON}"
    if (text is None or kind) and as_json not in variables and as_json in environment:
        if not kind:
            return environment[as_json]
        try:
            return converted(parse_json(environment[as_json]), kind)
        except ValueError as error:
            raise UsageError(f"{as_json} of the environment is no JSON: {error}") from None
    if text is None:
        return value
    if kind in _PRIMITIVES:
        return _primitive(text, kind)
    if kind.startswith(("list(", "set(")):
        inner = kind.partition("(")[2].removesuffix(")")
        return converted([_primitive(field, inner) for field in split_fields(name, text)], kind)
    if kind.startswith("map("):
        return _table(name, text, kind.partition("(")[2].removesuffix(")"))
    if kind and kind != "any":
        raise UsageError(f"a text cannot become {kind}", hint=f"Set {as_json} to JSON instead.")
    if not has_default or value is None or isinstance(value, str):
        return text
    if isinstance(value, bool):
        return parse_flag(text, "it")
    if isinstance(value, int | float):
        return as_number(text, "it")
    raise UsageError("a list or table without a type cannot come from the environment", hint="Give it a type.")


def _primitive(text: str, kind: str) -> Value:
    if kind == "number":
        return as_number(text, "it")
    return parse_flag(text, "it") if kind == "bool" else text


def _table(name: str, text: str, inner: str) -> Value:
    table = {}
    for field in split_fields(name, text):
        key, separator, value = field.partition(":")
        if not separator:
            raise UsageError(f"{field!r} is not KEY:VALUE")
        table[key] = _primitive(value, inner)
    return table
