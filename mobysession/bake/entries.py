"""The attributes of a target that are lists of records: caches, outputs, secrets, SSH agents and attestations.

Each may be written as the short text of the command line or as a table of texts, and becomes a plain dictionary, with
its keys in the order in which it is printed. What a later definition adds to an earlier one, and which of two equal
entries stays, is the record's own business.

Source: docker/buildx util/buildflags.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mobysession.bake.values import as_text
from mobysession.build.fields import parse_bool, split_fields
from mobysession.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

__all__ = ["ENTRIES", "Entry", "merge_entries", "read_entries", "without_duplicates"]

#: One record; the values are texts, but for ``paths`` of an SSH agent and ``disabled`` of an attestation.
Entry = dict[str, Any]


def read_entries(kind: str, given: object) -> list[Entry]:
    """Return the records of one attribute, of which ``given`` is the list; UsageError where one is none."""
    parse, convert = ENTRIES[kind]
    if not isinstance(given, list):
        raise UsageError(f"{kind} takes a list")
    found: list[Entry] = []
    for item in given:
        if item == "":
            continue
        found += parse(item) if isinstance(item, str) else [convert(_table(kind, item))]
    return found


def merge_entries(kind: str, first: list[Entry] | None, second: list[Entry]) -> list[Entry]:
    """Return the entries of two definitions, the later one ``second``."""
    return without_duplicates(kind, [*(first or ()), *second])


def without_duplicates(kind: str, entries: Iterable[Entry]) -> list[Entry]:
    """Return the entries, each once: by name where they have one, where the later one stands for both."""
    key = _KEYS.get(kind)
    if key is None:
        return _exchanged(list(entries))
    named: dict[str, Entry] = {}
    for entry in entries:
        named[entry.get(key, "")] = entry
    return list(named.values())


def _exchanged(entries: list[Entry]) -> list[Entry]:
    """Drop equal entries in the way of buildx, which puts the last one into the gap: the order is part of the result.

    Source: docker/buildx util/buildflags/utils.go, removeDupes.
    """
    for at in range(len(entries) - 2, -1, -1):
        for other in range(at + 1, len(entries)):
            if entries[at] == entries[other]:
                entries[other] = entries[-1]
                entries.pop()
                break
    return entries


def _table(kind: str, item: object) -> dict[str, Any]:
    if not isinstance(item, dict):
        raise UsageError(f"an entry of {kind} is a text or a table, not {item!r}")
    return {key: value for key, value in item.items() if value is not None}


def _texts(kind: str, table: dict[str, Any]) -> dict[str, str]:
    return {key: as_text(value, f"{kind}.{key}") for key, value in table.items()}


def _pairs(kind: str, text: str) -> Iterator[tuple[str, str]]:
    """Yield the pairs of a short text as they are written, for not all records read their keys in the same way."""
    for field in split_fields(kind, text):
        key, separator, value = field.partition("=")
        if not separator:
            raise UsageError(f"{kind} {text!r}: {field!r} is not KEY=VALUE")
        yield key, value


def _parse_cache(text: str) -> list[Entry]:
    if "=" not in text:
        return [{"ref": field, "type": "registry"} for field in split_fields("cache", text)]
    return [_cache({key.lower(): value for key, value in _pairs("cache", text)})]


def _cache(table: dict[str, Any]) -> Entry:
    entry = _texts("cache", table)
    if not entry.get("type"):
        raise UsageError(f"a cache has no type: {table!r}")
    return dict(sorted(entry.items()))


def _parse_output(text: str) -> list[Entry]:
    if split_fields("output", text) == [text] and not text.startswith("type="):
        return [{"dest": text, "type": "tar" if text == "-" else "local"}]
    return [_output({key.strip().lower(): value for key, value in _pairs("output", text)})]


def _output(table: dict[str, Any]) -> Entry:
    entry = _texts("output", table)
    if not entry.get("type"):
        raise UsageError(f"an output has no type: {table!r}")
    if not entry.get("dest"):
        entry.pop("dest", None)
    return dict(sorted(entry.items()))


def _parse_secret(text: str) -> list[Entry]:
    entry: dict[str, str] = {}
    kind = ""
    for key, value in _pairs("secret", text):
        match key.lower():
            case "type" if value in ("file", "env"):
                kind = value
            case "id" | "env" as name:
                entry[name] = value
            case "source" | "src":
                entry["src"] = value
            case _:
                raise UsageError(f"secret {text!r}: unexpected {f'{key}={value}'!r}")
    if kind == "env" and "env" not in entry and "src" in entry:
        entry["env"] = entry.pop("src")
    return [_secret(dict(entry))]


def _secret(table: dict[str, Any]) -> Entry:
    _only("secret", table, ("id", "src", "env"))
    entry = _texts("secret", table)
    return {key: entry[key] for key in ("id", "src", "env") if entry.get(key)}


def _parse_ssh(text: str) -> list[Entry]:
    agent, separator, paths = text.partition("=")
    entry: Entry = {"id": agent} if agent else {}
    return [{**entry, "paths": paths.split(",")} if separator else entry]


def _ssh(table: dict[str, Any]) -> Entry:
    _only("ssh", table, ("id", "paths"))
    entry: Entry = {"id": as_text(table["id"], "ssh.id")} if table.get("id") else {}
    if paths := table.get("paths"):
        entry["paths"] = [as_text(path, "ssh.paths") for path in paths]
    return entry


def _parse_attest(text: str) -> list[Entry]:
    pairs: dict[str, Any] = {}
    for key, value in _pairs("attest", text):
        lower = key.strip().lower()
        pairs[lower if lower in ("type", "disabled") else key] = value
    return [_attest(pairs)]


def _attest(table: dict[str, Any]) -> Entry:
    entry: Entry = dict(_texts("attest", {key: value for key, value in table.items() if key != "disabled"}))
    disabled = table.get("disabled", False)
    if isinstance(disabled, str):
        disabled = parse_bool(disabled)
    if not isinstance(disabled, bool):
        raise UsageError(f"disabled of an attestation is true or false, not {table['disabled']!r}")
    if disabled:
        entry["disabled"] = True
    if not entry.get("type"):
        raise UsageError(f"an attestation has no type: {table!r}")
    return dict(sorted(entry.items()))


def _only(kind: str, table: dict[str, Any], known: tuple[str, ...]) -> None:
    for key in table:
        if key not in known:
            raise UsageError(f"an entry of {kind} has no {key!r}", hint=f"It has {', '.join(known)}.")


#: Each kind's short text and table.
ENTRIES: dict[str, tuple[Callable[[str], list[Entry]], Callable[[dict[str, Any]], Entry]]] = {
    "attest": (_parse_attest, _attest),
    "cache-from": (_parse_cache, _cache),
    "cache-to": (_parse_cache, _cache),
    "output": (_parse_output, _output),
    "secret": (_parse_secret, _secret),
    "ssh": (_parse_ssh, _ssh),
}
#: What names a record, where something does.
_KEYS = {"attest": "type", "secret": "id", "ssh": "id"}
