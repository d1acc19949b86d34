"""The file of a recording: read a piece at a time, and replaced as a whole where it is written."""

from __future__ import annotations

import json
import zlib
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

from mobysession import limits
from mobysession.errors import RecordingError, RecordingTooNew
from mobysession.recording.records import (
    VERSION,
    CallBegan,
    CallOver,
    End,
    decode_header,
    decode_record,
    encode_record,
)

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterable, Iterator
    from typing import BinaryIO

    from mobysession.recording.records import Header, Record

__all__ = ["MethodSummary", "Recording", "read_recording", "write_recording"]

_GZIP: Final = b"\x1f\x8b"
_PIECE: Final = 256 * limits.KIB


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
    """Write a recording; see `Recording.write`. A file of that name is replaced once the new one is whole.

    A link stays one: what it leads to is replaced. A device or a pipe is written to.
    """
    import os

    name = os.fspath(path)
    try:
        if os.path.exists(name) and not os.path.isfile(name):
            with open(os.open(name, os.O_WRONLY), "wb") as raw:
                _write(raw, name, header, records)
        else:
            _replace(os.path.realpath(name), name, header, records)
    except OSError as error:
        raise RecordingError(f"the recording {name} cannot be written: {error.strerror}") from error


def _replace(target: str, name: str, header: Header, records: Iterable[Record]) -> None:
    import os

    beside = f"{target}.{os.getpid()}.part"
    try:
        with open(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as raw:
            _write(raw, name, header, records)
        os.replace(beside, target)
    finally:
        if os.path.lexists(beside):
            os.unlink(beside)


def _write(raw: BinaryIO, name: str, header: Header, records: Iterable[Record]) -> None:
    import gzip

    if not name.endswith(".gz"):
        _write_lines(raw.write, header, records)
        return
    with gzip.GzipFile("", "wb", fileobj=raw, mtime=0) as packed:
        _write_lines(packed.write, header, records)


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
        version, header = decode_header(line)
    except ValueError:
        raise RecordingError(f"{name} is no recording of mobysession") from None
    if header is None:
        hint = "Read it with the version of mobysession that wrote it, or a newer one."
        raise RecordingTooNew(f"{name} is a recording of version {version}, and {VERSION} is known here", hint=hint)
    return header


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
