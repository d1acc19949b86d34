"""Hiding secret values in text, bytes and events.

Whatever hands out a secret adds the value to a `Redactor`; whatever shows something to a person or writes it down asks
the same `Redactor` first. A value is found as it is and in the forms in which programs like to print it: without the
newline at its end, line by line, base64 in both alphabets and at any offset (as inside ``user:password``), hex,
percent-encoded, and escaped as by JSON, Go and Python. Each find is replaced by ``***``.

Two limits keep this useful and cheap. Values shorter than `SHORTEST` are not hidden: they stand in every second word by
chance, and would hide the log rather than the secret. Of values longer than `LONGEST_ENCODED` bytes only the plain form
is looked for. There is no list for the whole process: a `Redactor` knows the values that it was given, no others.
"""

from __future__ import annotations

import base64
import dataclasses
import logging
import operator
import threading
import traceback
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast
from urllib.parse import quote_from_bytes, quote_plus

from mobysession import limits
from mobysession.errors import MobysessionError

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["HIDDEN", "RedactingFilter", "Redactor"]

#: What stands where a value stood.
HIDDEN: Final = "***"
#: Characters (of UTF-8: bytes) from which on a value is hidden. Our decision.
SHORTEST: Final = 3
#: Bytes up to which the encoded forms of a value, and its lines, are looked for as well. Our decision: longer than any
#: token or key, and short enough that a dozen forms of it cost nothing.
LONGEST_ENCODED: Final = 16 * limits.KIB
#: Bytes from which on a part of a value (a line, its base64 inside something else) is hidden. Shorter ones hit by
#: chance.
_SHORTEST_PART: Final = 8

_Text = TypeVar("_Text", str, bytes)
_Value = TypeVar("_Value")


class Redactor:
    """Replace the secret values that it was told of. Safe to use from several threads at once."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._values: dict[bytes, frozenset[bytes]] = {}
        # Longest first, so that a value that holds another one disappears as a whole. Replaced, never changed.
        self._needles: tuple[tuple[bytes, str], ...] = ()

    def __repr__(self) -> str:
        return f"<Redactor of {len(self._values)} values>"

    def add(self, value: str | bytes) -> None:
        """Hide this value from now on.

        Adding a value again is cheap. Beyond ``limits.REDACTED_VALUES`` values the one added or used longest ago is
        forgotten, so that a session that hands out a fresh token every minute does not grow.

        Args:
            value: the secret; text counts as its UTF-8. Shorter than `SHORTEST`, or white space only: ignored.
        """
        data = value.encode("utf-8", "surrogateescape") if isinstance(value, str) else bytes(value)
        if len(data.strip()) < SHORTEST:
            return
        with self._lock:
            forms = self._values.pop(data, None)
            known = forms is not None
            self._values[data] = forms if forms is not None else frozenset(_forms(data))
            if known:
                return
            if len(self._values) > limits.REDACTED_VALUES:
                del self._values[next(iter(self._values))]
            needles = sorted(set().union(*self._values.values()), key=lambda form: (-len(form), form))
            self._needles = tuple((needle, needle.decode("utf-8", "surrogateescape")) for needle in needles)

    def redact(self, text: _Text) -> _Text:
        """Return ``text``, or the bytes, with ``***`` for every value; the same object where there was none.

        A value that is cut in two by the end of ``text`` is not found: redact whole lines or whole messages.
        """
        if isinstance(text, str):
            for _, needle in self._needles:
                if needle in text:
                    text = text.replace(needle, HIDDEN)
        else:
            for raw, _ in self._needles:
                if raw in text:
                    text = text.replace(raw, HIDDEN.encode())
        return text

    def redact_value(self, value: _Value) -> _Value:
        """Return ``value`` without secrets: an event, or anything made of dataclasses, mappings, lists and exceptions.

        Strings and bytes are redacted wherever they stand, also as keys. An exception that shows a secret, itself or
        through what it was raised from, is replaced by another one of its class. Anything else, and whatever has
        nothing to hide, is returned as the same object.
        """
        return cast("_Value", self._redact_any(value, ()))

    def _redact_any(self, value: Any, within: tuple[int, ...]) -> Any:
        if type(value) is str:
            return self.redact(value)
        if type(value) is bytes:
            return self.redact(value)
        if isinstance(value, BaseException):
            return self._redact_exception(value, within)
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            fields = {field.name: getattr(value, field.name) for field in dataclasses.fields(value) if field.init}
            hidden = self._redact_any(fields, within)
            return value if hidden is fields else dataclasses.replace(value, **hidden)
        if type(value) is dict:
            items = list(value.items())
            hidden = self._redact_any(items, within)
            return value if hidden is items else dict(hidden)
        if type(value) in (list, tuple, set, frozenset):
            hidden = [self._redact_any(item, within) for item in value]
            return value if all(map(operator.is_, value, hidden)) else type(value)(hidden)
        return value

    def _redact_exception(self, error: BaseException, within: tuple[int, ...]) -> BaseException:
        if id(error) in within:  # an exception can be, through others, its own cause
            return error
        old = (error.args, vars(error), error.__cause__, error.__context__)
        new = self._redact_any(old, (*within, id(error)))
        if new is old:
            return error
        arguments, attributes, cause, context = new
        try:
            clone: BaseException = type(error).__new__(type(error), *arguments)
        except TypeError:  # a class with a constructor of its own
            return MobysessionError(self.redact(f"{type(error).__name__}: {error}"))
        clone.args, clone.__cause__, clone.__context__ = arguments, cause, context
        clone.__suppress_context__ = error.__suppress_context__
        clone.__dict__.update(attributes)
        return clone.with_traceback(error.__traceback__)


def _forms(value: bytes) -> Iterator[bytes]:
    stripped = value.strip()
    yield value
    yield stripped
    if len(value) > LONGEST_ENCODED:
        return
    yield from _lines(stripped)
    for form in {value, stripped}:
        yield from _encodings(form)


def _lines(value: bytes) -> Iterator[bytes]:
    for line in value.splitlines():
        if len(line.strip()) >= _SHORTEST_PART:
            yield line.strip()


def _encodings(value: bytes) -> Iterator[bytes]:
    import json

    yield from _base64_forms(value)
    yield value.hex().encode()
    yield value.hex().upper().encode()
    yield quote_from_bytes(value, safe="").encode()
    yield quote_plus(value).encode()
    yield quote_from_bytes(value).encode()
    text = value.decode("utf-8", "replace")
    for escaped in (json.dumps(text), json.dumps(text, ensure_ascii=False), repr(text), repr(value)[1:]):
        yield escaped[1:-1].encode("utf-8", "replace")


def _base64_forms(value: bytes) -> Iterator[bytes]:
    """Yield what of ``value`` stays the same in base64, whatever precedes and follows it."""
    for before in range(3):
        start = (0, 2, 3)[before]
        encoded = base64.b64encode(bytes(before) + value).rstrip(b"=")
        # The last character also holds bits of what follows, unless the groups of three end just here.
        end = len(encoded) if (before + len(value)) % 3 == 0 else len(encoded) - 1
        part = encoded[start:end]
        if len(part) >= _SHORTEST_PART:
            yield part
            yield part.translate(bytes.maketrans(b"+/", b"-_"))
    yield base64.b64encode(value)
    yield base64.urlsafe_b64encode(value)


class RedactingFilter(logging.Filter):
    """Hide secret values in log records: message, arguments, traceback and stack.

    Add it to a *handler*: a filter of a logger does not see the records of the loggers below it. Records are changed in
    place, so handlers that come later get the redacted text too.
    """

    def __init__(self, redactor: Redactor) -> None:
        super().__init__()
        self._redactor = redactor

    def filter(self, record: logging.LogRecord) -> bool:
        """Redact the record; always let it pass."""
        self._hide_message(record)
        if record.exc_info and record.exc_info[0] is not None and not record.exc_text:
            shown = "".join(traceback.format_exception(*record.exc_info)).rstrip("\n")
            if self._redactor.redact(shown) != shown:
                record.exc_text = shown
        if record.exc_text:
            record.exc_text = self._redactor.redact(record.exc_text)
        if record.stack_info:
            record.stack_info = self._redactor.redact(record.stack_info)
        return True

    def _hide_message(self, record: logging.LogRecord) -> None:
        try:
            message = record.getMessage()
        except Exception:  # the handler will report that it cannot be formatted, and show the parts
            record.msg = self._redactor.redact_value(record.msg)
            record.args = self._redactor.redact_value(record.args)
            return
        hidden = self._redactor.redact(message)
        if hidden != message:
            record.msg, record.args = hidden, None
