"""The file of a recording: what was said on a session, a line of JSON each, in the order in which it was said.

::

    {"format": "mobysession-recording", "version": 1, "created": 1790000000.0, "writer": "...", "mode": "full", ...}
    {"type": "connection", "at": 0.0, "connection": 1, "session_id": "...", "name": "...", "methods": [...]}
    {"type": "call", "at": 0.01, "call": 1, "connection": 1, "stream": 1, "method": "/a.B/C", "metadata": [], "run": 0}
    {"type": "message", "at": 0.01, "call": 1, "sender": "daemon", "size": 7, "body": "...", "hidden": []}
    {"type": "daemon_done", "at": 0.01, "call": 1}
    {"type": "answer", "at": 0.02, "call": 1, "metadata": [...]}
    {"type": "call_over", "at": 0.03, "call": 1, "code": "OK", ...}
    {"type": "end", "at": 9.5}

Bytes are base64, times seconds after ``created``. The file may be compressed with gzip. Where a secret stood, the bytes
of a body are asterisks, as many as there were, and ``hidden`` has their places; a body that is a secret as a whole, or
too much of one, is null. A file without an ``end`` was cut, and is good up to there. A reader passes over types and
fields that it does not know; what it could not pass over has a higher version.
"""

from __future__ import annotations

import base64
import json
import math
import zlib
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from mobysession import limits
from mobysession._version import __version__
from mobysession.errors import RecordingError, RecordingTooNew, StatusCode
from mobysession.jsontext import parse_json

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterable, Iterator
    from typing import BinaryIO

__all__ = [
    "CLIENT",
    "DAEMON",
    "AnswerBegan",
    "CallBegan",
    "CallOver",
    "ConnectionBegan",
    "DaemonDone",
    "End",
    "Frame",
    "Header",
    "Message",
    "MethodSummary",
    "Record",
    "Recording",
    "RunChanged",
    "decode_record",
    "encode_record",
    "read_recording",
    "write_recording",
]

FORMAT: Final = "mobysession-recording"
VERSION: Final = 1
#: Who said a message or a frame.
DAEMON: Final = "daemon"
CLIENT: Final = "client"
_GZIP: Final = b"\x1f\x8b"
_PIECE: Final = 256 * limits.KIB

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


# -- a line ------------------------------------------------------------------------------------------------------------


def encode_record(record: Record | Header) -> bytes:
    """Return the line of a record, with its end."""
    if isinstance(record, Header):
        document: dict[str, Any] = {"format": FORMAT, "version": VERSION}
    else:
        document = {"type": _NAMES[type(record)]}
    for field in fields(record):
        document[field.name] = _plain(getattr(record, field.name))
    return json.dumps(document, separators=(",", ":")).encode() + b"\n"


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


# -- a file ------------------------------------------------------------------------------------------------------------


@dataclass(kw_only=True)
class MethodSummary:
    """What the calls of one method came to: how many, how many failed, bytes from the daemon and to it, seconds."""

    calls: int = 0
    failed: int = 0
    received: int = 0
    sent: int = 0
    seconds: float = 0.0


class Recording:
    """What was recorded: iterate over its records. Each iteration reads them anew, and blocks.

    Attributes:
        header: how it was made.
        is_complete: False once an iteration has come to the end of a file that was cut.
    """

    def __init__(self, header: Header, source: Callable[[], Iterable[Record]]) -> None:
        self.header = header
        self.is_complete = True
        self._source = source

    def __repr__(self) -> str:
        return f"<Recording, {self.header.mode}, of {self.header.created:.0f}>"

    def __iter__(self) -> Iterator[Record]:
        """Yield the records in their order, without the end.

        Raises:
            RecordingError: the file is damaged, or cannot be read; the user must act.
        """
        self.is_complete = False
        for record in self._source():
            if isinstance(record, End):
                self.is_complete = True
                return
            yield record

    def summary(self) -> dict[str, MethodSummary]:
        """Return calls, bytes and time by method, of the calls that have ended; errors as iterating."""
        began: dict[int, CallBegan] = {}
        found: dict[str, MethodSummary] = {}
        for record in self:
            if isinstance(record, CallBegan):
                began[record.call] = record
            elif isinstance(record, CallOver) and (call := began.pop(record.call, None)) is not None:
                method = found.setdefault(call.method, MethodSummary())
                method.calls += 1
                method.failed += record.code != "OK"
                method.received += record.received
                method.sent += record.sent
                method.seconds += record.at - call.at
        return found

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write it into a file of one's own alone, compressed where its name ends with ``.gz``; blocks.

        Raises:
            RecordingError: that is impossible; the user must act.
        """
        write_recording(path, self.header, self)

    async def save(self, path: str | os.PathLike[str]) -> None:
        """As `write`, in a thread. Cancel: the thread is waited for."""
        import trio

        await trio.to_thread.run_sync(self.write, path)

    def to_json(self) -> dict[str, Any]:
        """Return header, records and summary as JSON values; blocks."""
        records = [json.loads(encode_record(record)) for record in self]
        summary = {name: asdict(method) for name, method in self.summary().items()}
        header = json.loads(encode_record(self.header))
        return {"header": header, "is_complete": self.is_complete, "records": records, "summary": summary}


def write_recording(path: str | os.PathLike[str], header: Header, records: Iterable[Record]) -> None:
    """Write a recording; see `Recording.write`. A file of that name is replaced once the new one is whole."""
    import gzip
    import os

    name = os.fspath(path)
    beside = f"{name}.{os.getpid()}.part"
    try:
        with open(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as raw:
            if name.endswith(".gz"):
                with gzip.GzipFile("", "wb", fileobj=raw, mtime=0) as packed:
                    _write_lines(packed.write, header, records)
            else:
                _write_lines(raw.write, header, records)
        os.replace(beside, name)
    except OSError as error:
        raise RecordingError(f"the recording {name} cannot be written: {error.strerror}") from error
    finally:
        if os.path.lexists(beside):
            os.unlink(beside)


def _write_lines(write: Callable[[bytes], object], header: Header, records: Iterable[Record]) -> None:
    write(encode_record(header))
    last = 0.0
    for record in records:
        last = record.at
        write(encode_record(record))
    write(encode_record(End(at=last)))


def read_recording(path: str | os.PathLike[str]) -> Recording:
    """Return the recording in a file, of which only the first line is read yet; blocks.

    Raises:
        RecordingTooNew: a newer version wrote it.
        RecordingError: it is none, or cannot be read.
    """
    import os

    name = os.fspath(path)
    first = next(_lines(name), None)
    if first is None:
        raise RecordingError(f"{name} is no recording of mobysession")
    return Recording(_header(name, first), lambda: _records(name))


def _header(name: str, line: bytes) -> Header:
    try:
        document = parse_json(line)
        if not isinstance(document, dict) or document.get("format") != FORMAT:
            raise ValueError
        version = _count(document.get("version"))
        if version <= VERSION:
            header: Header = _decode(Header, document)
            return header
    except ValueError:
        raise RecordingError(f"{name} is no recording of mobysession") from None
    hint = "Read it with the version of mobysession that wrote it, or a newer one."
    raise RecordingTooNew(f"{name} is a recording of version {version}, and {VERSION} is known here", hint=hint)


def _records(name: str) -> Iterator[Record]:
    lines = _lines(name)
    next(lines, None)
    for number, line in enumerate(lines, 2):
        try:
            record = decode_record(line)
        except (ValueError, TypeError) as error:
            raise RecordingError(f"{name} is damaged in line {number}: {error}") from None
        if record is not None:
            yield record


def _lines(name: str) -> Iterator[bytes]:
    """Yield the whole lines of a file; what is left behind the last of them was cut off."""
    try:
        with open(name, "rb") as file:
            rest = b""
            for piece in _pieces(file):
                *lines, rest = (rest + piece).split(b"\n")
                yield from lines
                if len(rest) > limits.MAX_RECORDING_LINE:
                    raise RecordingError(f"{name} is damaged: a line of it is too long")
    except OSError as error:
        raise RecordingError(f"the recording {name} cannot be read: {error.strerror}") from error
    except zlib.error as error:
        raise RecordingError(f"{name} is damaged: {error}") from error


def _pieces(file: BinaryIO) -> Iterator[bytes]:
    piece = file.read(_PIECE)
    if not piece.startswith(_GZIP):
        while piece:
            yield piece
            piece = file.read(_PIECE)
        return
    unpacker = zlib.decompressobj(16 + zlib.MAX_WBITS)
    while piece and not unpacker.eof:
        # In steps: a few bytes may stand for very many.
        yield unpacker.decompress(piece, _PIECE)
        piece = unpacker.unconsumed_tail or file.read(_PIECE)
