"""Short texts of options: ``key=value`` fields with commas between, quoted as in CSV, as docker's CLI reads them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mobysession.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = ["join_fields", "join_pairs", "parse_bool", "split_fields", "split_pairs"]

_TRUE = frozenset(("1", "t", "T", "true", "TRUE", "True"))
_FALSE = frozenset(("0", "f", "F", "false", "FALSE", "False"))


def parse_bool(text: str) -> bool | None:
    """Return what Go's ParseBool reads in ``text``; None where it reads nothing."""
    return True if text in _TRUE else False if text in _FALSE else None


def split_fields(what: str, text: str) -> list[str]:
    """Return the fields of ``text``; UsageError, which names ``what`` it is, where its quotes are wrong."""
    if '"' not in text:
        return text.split(",")
    import csv  # only for who quotes: start-up

    try:
        return [field for row in csv.reader([text], strict=True) for field in row]
    except csv.Error as error:
        raise UsageError(f"{what} {text!r}: not comma-separated fields: {error}") from None


def split_pairs(what: str, text: str) -> dict[str, str]:
    """Return the pairs of ``text``; UsageError where a field is no pair."""
    pairs = {}
    for given in split_fields(what, text):
        key, separator, value = given.partition("=")
        if not separator:
            raise UsageError(f"{what} {text!r}: {given!r} is not key=value")
        pairs[key.strip()] = value
    return pairs


def join_fields(fields: Iterable[str]) -> str:
    """Return fields as one text, those quoted that need it."""
    return ",".join(_quoted(field) if "," in field or '"' in field else field for field in fields)


def _quoted(field: str) -> str:
    return '"' + field.replace('"', '""') + '"'


def join_pairs(pairs: Mapping[str, str]) -> str:
    """Return pairs as one text, in the order of their keys."""
    return join_fields(f"{key}={value}" for key, value in sorted(pairs.items()))
