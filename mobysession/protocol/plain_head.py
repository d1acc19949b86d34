"""Heads of HTTP/1.1 messages that leave no question open, written and read without h11.

An engine's answers to an upgrade and to a ping are a few plain lines; to load h11 for them, and what it loads, was 14
of a small build's 200 ms. So a request and an answer that are plain in every respect are dealt with here: no line is
folded, no character is unusual, the head is there to its end. Whatever is not is None here, and h11's to judge, which
gets all of it from the beginning: nothing is understood here that it would refuse (RFC 9112).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mobysession import limits

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["PlainAnswer", "is_unfinished", "parse_answer", "serialize_request"]

_VERSION = b"HTTP/1.1 "
_END = b"\r\n\r\n"
_LENGTH_DIGITS = 20  # more is refused by h11


class PlainAnswer:
    """The head of an answer.

    Attributes:
        status: the HTTP status.
        status_line: as it was sent.
        headers: the header lines, names in lower case.
        rest: what came behind the head.
    """

    __slots__ = ("headers", "rest", "status", "status_line")

    def __init__(self, status: int, status_line: str, headers: tuple[tuple[str, str], ...], rest: bytes) -> None:
        self.status = status
        self.status_line = status_line
        self.headers = headers
        self.rest = rest

    def header(self, name: str) -> str:
        """Return the first value of a header line, by its name in lower case; empty where there is none."""
        return next((value for key, value in self.headers if key == name), "")

    def has(self, name: str) -> bool:
        """Return whether there is such a header line, by its name in lower case; it may be empty."""
        return any(key == name for key, _ in self.headers)


def serialize_request(method: str, target: str, fields: Iterable[tuple[bytes, bytes]]) -> bytes | None:
    """Return a request without a body, ``Host`` among its fields; None where anything about it is unusual."""
    text = method + target
    if not (text.isascii() and text.isprintable() and method.isalpha() and target[:1] == "/") or " " in target:
        return None
    lines = [f"{method} {target} HTTP/1.1".encode("ascii")]
    for name, value in fields:
        if not _is_name(name) or not _is_plain(value) or value != value.strip():
            return None
        lines.append(name + b": " + value)
    return b"\r\n".join(lines) + _END


def is_unfinished(data: bytes) -> bool:
    """Whether more of the head of an answer has yet to arrive, be it plain or not; h11 would say the same."""
    return len(data) <= limits.MAX_HEAD and b"\n\r\n" not in data and b"\n\n" not in data


def parse_answer(data: bytes) -> PlainAnswer | None:
    """Read an answer that has arrived at least to the end of its head; None where anything about it is unusual."""
    head, end, rest = data.partition(_END)
    if not end or len(head) > limits.MAX_HEAD or not head.startswith(_VERSION):
        return None
    first, *lines = head.split(b"\r\n")
    status, _, _ = first.removeprefix(_VERSION).partition(b" ")
    if len(status) != 3 or not status.isdigit() or not _is_plain(first):
        return None
    headers = []
    for line in lines:
        name, colon, value = line.partition(b":")
        value = value.strip(b" \t")
        if not colon or not _is_name(name) or not _is_plain(value):
            return None
        headers.append((name.decode("ascii").lower(), value.decode("ascii")))
    if not _is_framed_plainly(headers):
        return None
    return PlainAnswer(int(status), first.decode("ascii").rstrip(), tuple(headers), rest)


def _is_framed_plainly(headers: Iterable[tuple[str, str]]) -> bool:
    """Whether nothing but one plain length says how long the body is, which is where two readers come to differ."""
    lengths = [value for name, value in headers if name == "content-length"]
    plain = all(value.isdigit() and len(value) <= _LENGTH_DIGITS for value in lengths)
    return plain and len(lengths) <= 1 and all(name != "transfer-encoding" for name, _ in headers)


def _is_name(name: bytes) -> bool:
    return name.replace(b"-", b"").isalnum()


def _is_plain(text: bytes) -> bool:
    return text.isascii() and text.decode("ascii").isprintable()
