"""One target as a definition has it: which attributes there are, of what kind, and how two definitions become one.

A target is a plain dictionary of what was given, by the names of the file format; what nobody gave is not in it. The
kind of an attribute says what its value may be, and its rule what happens where two definitions both have it: the
later one replaces the earlier, or is added to it.

Source: docker/buildx bake/bake.go, Target, Merge and normalize.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

from mobysession.bake.entries import ENTRIES, merge_entries, read_entries, without_duplicates
from mobysession.bake.values import Value, as_bool, as_text, type_name
from mobysession.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["ATTRIBUTES", "Target", "convert_attribute", "merge_targets", "normalize"]

#: The attributes of a target, by name.
Target = dict[str, Any]

Kind = Literal["text", "flag", "list", "map", "entries"]


class Attribute(NamedTuple):
    """What an attribute holds, and what becomes of two: the later one alone, or both."""

    kind: Kind
    added: bool = False


#: All attributes, in the order in which they are printed.
ATTRIBUTES: Final[Mapping[str, Attribute]] = {
    "description": Attribute("text"),
    "inherits": Attribute("list", added=True),
    "annotations": Attribute("list", added=True),
    "attest": Attribute("entries", added=True),
    "context": Attribute("text"),
    "contexts": Attribute("map", added=True),
    "dockerfile": Attribute("text"),
    "dockerfile-inline": Attribute("text"),
    "args": Attribute("map", added=True),
    "labels": Attribute("map", added=True),
    "tags": Attribute("list"),
    "cache-from": Attribute("entries", added=True),
    "cache-to": Attribute("entries"),
    "target": Attribute("text"),
    "secret": Attribute("entries", added=True),
    "ssh": Attribute("entries", added=True),
    "platforms": Attribute("list"),
    "output": Attribute("entries"),
    "pull": Attribute("flag"),
    "no-cache": Attribute("flag"),
    "network": Attribute("text"),
    "no-cache-filter": Attribute("list", added=True),
    "shm-size": Attribute("text"),
    "ulimits": Attribute("list", added=True),
    "call": Attribute("text"),
    "entitlements": Attribute("list", added=True),
    "extra-hosts": Attribute("map", added=True),
}
#: Lists in which nothing stands twice, and nothing is empty.
_DISTINCT: Final = ("annotations", "tags", "platforms", "no-cache-filter", "ulimits", "entitlements")


def convert_attribute(name: str, value: Value) -> Any:
    """Return the value of an attribute as a target holds it; None where it is null, which is as if it were not given.

    Raises:
        UsageError: the value is of another kind.
    """
    if value is None:
        return None
    match ATTRIBUTES[name].kind:
        case "text":
            return as_text(value, name)
        case "flag":
            return as_bool(value, name)
        case "list":
            return _texts(name, value)
        case "map":
            return _map(name, value)
        case "entries":
            return read_entries(name, value)


def _texts(name: str, value: Value) -> list[str]:
    if not isinstance(value, list):
        raise UsageError(f"{name} takes a list, not {type_name(value)}")
    return [as_text(item, name) for item in value]


def _map(name: str, value: Value) -> dict[str, str | None]:
    if not isinstance(value, dict):
        raise UsageError(f"{name} takes a table, not {type_name(value)}")
    return {key: None if item is None else as_text(item, f"{name}.{key}") for key, item in value.items()}


def merge_targets(first: Target, second: Target) -> Target:
    """Return what two definitions of a target are together, ``second`` being the later one; neither is changed."""
    merged = dict(first)
    for name, value in second.items():
        attribute = ATTRIBUTES[name]
        if attribute.kind == "map":
            given = {key: text for key, text in value.items() if text is not None}
            if merged.get(name) or given:
                merged[name] = {**merged.get(name, {}), **given}
        elif name in ENTRIES:
            merged[name] = merge_entries(name, merged.get(name) if attribute.added else None, value)
        elif attribute.added:
            merged[name] = [*merged.get(name, ()), *value]
        elif name != "description" or value:
            merged[name] = value
    return merged


def normalize(target: Target) -> Target:
    """Return a target without duplicates, and with the entitlement that its network needs."""
    normal = dict(target)
    if normal.get("network") == "host":
        normal["entitlements"] = [*normal.get("entitlements", ()), "network.host"]
    for name in _DISTINCT:
        if name in normal:
            normal[name] = [text for text in dict.fromkeys(normal[name]) if text]
    for name in ENTRIES:
        if name in normal:
            normal[name] = without_duplicates(name, normal[name])
    if "contexts" in normal:
        normal["contexts"] = {key: value for key, value in normal["contexts"].items() if value}
    return normal
