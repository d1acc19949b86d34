"""Hiding secret values in text and bytes.

Whatever hands out a secret adds the value to a `Redactor`; whatever shows something to a person or writes it down asks
the same `Redactor` first: a build has one for its progress, its failure and, by `redacted_logs`, the log. A value is
found as it is and in the forms in which programs like to print it: without the white space around it, line by line,
base64 in both alphabets and at any offset (as inside ``user:password``), hex, percent-encoded, and escaped as by JSON,
Go and Python. Each find is replaced by ``***``.

Two limits keep this useful and cheap. Values shorter than `SHORTEST` are not hidden: they stand in every second word by
chance, and would hide the log rather than the secret. Of values longer than `LONGEST_ENCODED` bytes only the plain form
is looked for. There is no list for the whole process: a `Redactor` knows the values that it was given, no others.
"""

from __future__ import annotations

import base64
import logging
import threading
import traceback
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, TypeVar
from urllib.parse import quote_from_bytes, quote_plus

from mobysession import limits

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["HIDDEN", "RedactingFilter", "Redactor", "redacted_logs"]

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


class Redactor:
    """Replace the secret values that it was told of. Safe to use from several threads at once."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._values: dict[bytes, frozenset[bytes]] = {}
        # Longest first, so that a value that holds another one disappears as a whole. Replaced, never changed.
        self._needles: tuple[tuple[bytes, str], ...] = ()

    def __repr__(self) -> str:
        return f"<Redactor of {len(self._values)} values>"

    def __bool__(self) -> bool:
        """Whether there is anything to hide."""
        return bool(self._needles)

    def __len__(self) -> int:
        """How many values there are."""
        return len(self._values)

    @property
    def forms(self) -> tuple[bytes, ...]:
        """What is looked for, longest first: for whoever hides it in another way. Secret."""
        return tuple(raw for raw, _ in self._needles)

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

        A value that is cut in two by the end of ``text`` is not found: redact whole lines or whole messages, or hold
        back what `unfinished` says.
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

    def unfinished(self, data: bytes) -> int:
        """Return how many bytes at the end of ``data`` may be the beginning of a value that is not whole yet.

        A value never goes on behind a newline here: of one with several lines each is looked for by itself.
        """
        line = data[data.rfind(b"\n") + 1 :]
        longest = 0
        for needle, _ in self._needles if line else ():
            start = line.find(needle[:1], max(0, len(line) - len(needle) + 1))
            while 0 <= start < len(line) - longest:
                if needle.startswith(line[start:]):
                    longest = len(line) - start
                start = line.find(needle[:1], start + 1)
        return longest


def _forms(value: bytes) -> Iterator[bytes]:
    stripped = value.strip()
    # Not with the white space around it: the newline at the end of a file ends a line of the log, too.
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
        if not self._redactor:
            return True
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
        except Exception:  # it cannot be formatted, and the handler would show the parts
            record.msg, record.args = self._redactor.redact(f"{record.msg} {record.args}"), None
            return
        hidden = self._redactor.redact(message)
        if hidden != message:
            record.msg, record.args = hidden, None


@contextmanager
def redacted_logs(redactor: Redactor) -> Iterator[None]:
    """Hide the values, for the length of the block, in what the handlers write that get our log records.

    These are those of the logger ``mobysession`` and of the loggers above it, as they are when the block is entered.
    """
    hiding = RedactingFilter(redactor)
    handlers = _handlers()
    for handler in handlers:
        handler.addFilter(hiding)
    try:
        yield
    finally:
        for handler in handlers:
            handler.removeFilter(hiding)


def _handlers() -> list[logging.Handler]:
    handlers: list[logging.Handler] = []
    logger: logging.Logger | None = logging.getLogger("mobysession")
    while logger is not None:
        handlers += logger.handlers
        logger = logger.parent if logger.propagate else None
    return handlers or ([logging.lastResort] if logging.lastResort is not None else [])
