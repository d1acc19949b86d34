"""What a recording consists of, and each of it as a line of JSON, in the format of `mobysession.recording`."""

from __future__ import annotations

import base64
import json
import math
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from mobysession._version import __version__
from mobysession.errors import StatusCode
from mobysession.jsontext import parse_json

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "CLIENT",
    "DAEMON",
    "VERSION",
    "AnswerBegan",
    "CallBegan",
    "CallOver",
    "ConnectionBegan",
    "DaemonDone",
    "End",
    "Frame",
    "Header",
    "Message",
    "Metadata",
    "Record",
    "RunChanged",
    "Spans",
    "decode_header",
    "decode_record",
    "encode_record",
]

FORMAT: Final = "mobysession-recording"
VERSION: Final = 1
#: Who said a message or a frame.
DAEMON: Final = "daemon"
CLIENT: Final = "client"

Metadata: TypeAlias = "tuple[tuple[str, str | bytes], ...]"
Spans: TypeAlias = "tuple[tuple[int, int], ...]"
Texts: TypeAlias = "tuple[str, ...]"


@dataclass(frozen=True, kw_only=True)
class Header:
    """The first line: when it was made (seconds since the epoch) and by what; ``command`` is a build's, in words."""

    created: float = 0.0
    writer: str = f"mobysession {__version__}"
    mode: str = "full"
    frames: bool = False
    command: Texts = ()


@dataclass(frozen=True, kw_only=True)
class ConnectionBegan:
    """A session was attached, or had been when the recording began."""

    at: float
    connection: int
    session_id: str = ""
    name: str = ""
    methods: Texts = ()


@dataclass(frozen=True, kw_only=True)
class CallBegan:
    """The daemon calls; ``run`` is that of a managed session, 0 where there is none."""

    at: float
    call: int
    connection: int
    stream: int
    method: str
    metadata: Metadata = ()
    run: int = 0


@dataclass(frozen=True, kw_only=True)
class AnswerBegan:
    """The answer began with metadata."""

    at: float
    call: int
    metadata: Metadata = ()


@dataclass(frozen=True, kw_only=True)
class Message:
    """A message; ``hidden`` are the places, from and up to, where its body had something to hide."""

    at: float
    call: int
    sender: str
    size: int
    body: bytes | None = None
    hidden: Spans = ()


@dataclass(frozen=True, kw_only=True)
class DaemonDone:
    """The daemon sends no more messages on a call."""

    at: float
    call: int


@dataclass(frozen=True, kw_only=True)
class CallOver:
    """A call has ended: status, and bytes and messages from the daemon and to it. ``whole``: all were recorded."""

    at: float
    call: int
    code: str
    message: str = ""
    details: bytes = b""
    trailers: Metadata = ()
    received: int = 0
    sent: int = 0
    messages_received: int = 0
    messages_sent: int = 0
    whole: bool = False

    @property
    def status(self) -> StatusCode:
        """The code as a value."""
        return StatusCode[self.code]


@dataclass(frozen=True, kw_only=True)
class Frame:
    """A frame of HTTP/2 by the numbers of RFC 9113; ``payload`` is null where it could hold what is hidden."""

    at: float
    connection: int
    sender: str
    kind: int
    flags: int
    stream: int
    length: int
    payload: bytes | None = None


@dataclass(frozen=True, kw_only=True)
class RunChanged:
    """A run of a managed session began or ended."""

    at: float
    run: int
    state: str


@dataclass(frozen=True, kw_only=True)
class End:
    """The last line."""

    at: float


Record: TypeAlias = (
    ConnectionBegan | CallBegan | AnswerBegan | Message | DaemonDone | CallOver | Frame | RunChanged | End
)
_KINDS: Final[dict[str, type[Record]]] = {
    "connection": ConnectionBegan,
    "call": CallBegan,
    "answer": AnswerBegan,
    "message": Message,
    "daemon_done": DaemonDone,
    "call_over": CallOver,
    "frame": Frame,
    "run": RunChanged,
    "end": End,
}
_NAMES: Final = {kind: name for name, kind in _KINDS.items()}


def encode_record(record: Record | Header) -> bytes:
    """Return the line of a record, with its end."""
    if isinstance(record, Header):
        document: dict[str, Any] = {"format": FORMAT, "version": VERSION}
    else:
        document = {"type": _NAMES[type(record)]}
    for field in fields(record):
        document[field.name] = _plain(getattr(record, field.name))
    return json.dumps(document, separators=(",", ":")).encode() + b"\n"


def decode_header(line: bytes) -> tuple[int, Header | None]:
    """Return the version of a first line, and the header where that is known here; ValueError where it is none."""
    document = parse_json(line)
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise ValueError("not of this format")
    version = _count(document.get("version"))
    return version, _decode(Header, document) if version <= VERSION else None


def decode_record(line: bytes) -> Record | None:
    """Return the record of a line; None where its type is not known. ValueError, TypeError where it is none."""
    document = parse_json(line)
    if not isinstance(document, dict):
        raise TypeError("not an object")
    kind = _KINDS.get(_text(document.get("type")))
    return None if kind is None else _decode(kind, document)


def _decode(kind: Any, document: dict[str, Any]) -> Any:
    found = {}
    for field in fields(kind):
        if field.name in document:
            try:
                found[field.name] = _READERS[str(field.type)](document[field.name])
            except (TypeError, ValueError, LookupError) as error:
                raise ValueError(f"{field.name}: {error}") from error
    try:
        record = kind(**found)
    except TypeError:
        raise ValueError("a field is missing") from None
    if isinstance(record, (Message, Frame)) and record.sender not in (DAEMON, CLIENT):
        raise ValueError(f"nobody is called {record.sender!r}")
    if isinstance(record, Message):
        _check_message(record)
    if isinstance(record, CallOver) and record.code not in StatusCode.__members__:
        raise ValueError(f"there is no status {record.code!r}")
    return record


def _check_message(record: Message) -> None:
    if record.body is not None and len(record.body) != record.size:
        raise ValueError("the body has another size")
    ends = [0, *(place for span in record.hidden for place in span), record.size]
    if ends != sorted(ends):
        raise ValueError("what is hidden is not in the message")


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, tuple):
        # Of metadata: a value that is no text.
        return [{"base64": _plain(one)} if isinstance(one, bytes) else _plain(one) for one in value]
    return value


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError("not a text")
    return value


def _count(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ValueError("not a count")
    return value


def _seconds(value: object) -> float:
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not math.isfinite(value):
        raise ValueError("not a number of seconds")
    return float(value)


def _flag(value: object) -> bool:
    if not isinstance(value, bool):
        raise TypeError("neither true nor false")
    return value


def _bytes(value: object) -> bytes:
    return base64.b64decode(_text(value), validate=True)


def _list(value: object) -> list[Any]:
    if not isinstance(value, list):
        raise TypeError("not a list")
    return value


def _metadata(value: object) -> Metadata:
    return tuple(
        (_text(key), _bytes(one["base64"]) if isinstance(one, dict) else _text(one)) for key, one in _list(value)
    )


_READERS: Final[dict[str, Callable[[object], Any]]] = {
    "float": _seconds,
    "int": _count,
    "str": _text,
    "bool": _flag,
    "bytes": _bytes,
    "bytes | None": lambda value: None if value is None else _bytes(value),
    "Texts": lambda value: tuple(map(_text, _list(value))),
    "Metadata": _metadata,
    "Spans": lambda value: tuple((_count(start), _count(end)) for start, end in _list(value)),
}
