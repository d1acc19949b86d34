"""Frames as bytes, made by hand, and the table in which a rule of RFC 9113 stands beside what breaks it.

Nothing here comes from the library that is under test: frames are packed with `struct`, header blocks are literals.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, NamedTuple

import pytest

from mobysession.errors import RemoteProtocolError
from mobysession.protocol.client import ClientConnection
from mobysession.protocol.server import ServerConnection

if TYPE_CHECKING:
    from collections.abc import Iterable

    from mobysession.protocol.events import Event

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
END_STREAM, END_HEADERS, PADDED, PRIORITY, ACK = 0x1, 0x4, 0x8, 0x20, 0x1
MAX_WINDOW = 2**31 - 1
#: Bytes that a frame may have unless the other side allows more.
FRAME = 2**14
REQUEST: tuple[tuple[bytes, bytes], ...] = (
    (b":method", b"POST"),
    (b":scheme", b"http"),
    (b":path", b"/a.B/C"),
    (b":authority", b"localhost"),
    (b"content-type", b"application/grpc"),
    (b"te", b"trailers"),
)
RESPONSE = ((b":status", b"200"), (b"content-type", b"application/grpc"))


class Type(IntEnum):
    """The frame types, by their numbers."""

    DATA = 0
    HEADERS = 1
    PRIORITY = 2
    RST_STREAM = 3
    SETTINGS = 4
    PUSH_PROMISE = 5
    PING = 6
    GOAWAY = 7
    WINDOW_UPDATE = 8
    CONTINUATION = 9
    UNKNOWN = 0xBE


class Code(IntEnum):
    """The error codes, by their numbers (section 7)."""

    NO_ERROR = 0
    PROTOCOL_ERROR = 1
    INTERNAL_ERROR = 2
    FLOW_CONTROL_ERROR = 3
    SETTINGS_TIMEOUT = 4
    STREAM_CLOSED = 5
    FRAME_SIZE_ERROR = 6
    REFUSED_STREAM = 7
    CANCEL = 8
    COMPRESSION_ERROR = 9
    ENHANCE_YOUR_CALM = 11


class Seen(NamedTuple):
    """A frame that was read."""

    type: int
    flags: int
    stream_id: int
    payload: bytes


def frame(kind: int, stream_id: int = 0, payload: bytes = b"", flags: int = 0) -> bytes:
    """Return one frame; the reserved bit may be set through ``stream_id``."""
    return struct.pack(">HBBBL", len(payload) >> 8, len(payload) & 0xFF, kind, flags, stream_id) + payload


def literal(name: bytes, value: bytes) -> bytes:
    """Return a field that is neither compressed nor remembered; both strings short."""
    return b"\0" + _integer(len(name)) + name + _integer(len(value)) + value


def _integer(value: int) -> bytes:
    if value < 127:
        return bytes((value,))
    value -= 127
    octets = bytearray((127,))
    while value >= 128:
        octets.append(value & 127 | 128)
        value >>= 7
    octets.append(value)
    return bytes(octets)


def block(*fields: tuple[bytes, bytes]) -> bytes:
    """Return a header block."""
    return b"".join(literal(name, value) for name, value in fields)


def headers(stream_id: int, *fields: tuple[bytes, bytes], end: bool = False, flags: int = END_HEADERS) -> bytes:
    """Return a HEADERS frame, and the CONTINUATION frames that a block over the frame size takes."""
    first, *rest = _pieces(block(*fields))
    kept = flags | (END_STREAM if end else 0)
    if not rest:
        return frame(Type.HEADERS, stream_id, first, kept)
    frames = [frame(Type.HEADERS, stream_id, first, kept & ~END_HEADERS)]
    frames += [frame(Type.CONTINUATION, stream_id, piece) for piece in rest[:-1]]
    return b"".join(frames) + frame(Type.CONTINUATION, stream_id, rest[-1], flags & END_HEADERS)


def _pieces(payload: bytes) -> list[bytes]:
    return [payload[start : start + FRAME] for start in range(0, len(payload), FRAME)] or [b""]


def request(stream_id: int = 1, *extra: tuple[bytes, bytes], end: bool = False) -> bytes:
    """Return the HEADERS of a gRPC call."""
    return headers(stream_id, *REQUEST, *extra, end=end)


def data(stream_id: int = 1, payload: bytes = b"\0\0\0\0\1x", *, end: bool = False) -> bytes:
    """Return a DATA frame, with one small message, or as many frames as a larger payload takes."""
    *first, last = _pieces(payload)
    frames = [frame(Type.DATA, stream_id, piece) for piece in first]
    return b"".join(frames) + frame(Type.DATA, stream_id, last, END_STREAM if end else 0)


def settings(*pairs: tuple[int, int], flags: int = 0) -> bytes:
    """Return a SETTINGS frame."""
    return frame(Type.SETTINGS, 0, b"".join(struct.pack(">HL", *pair) for pair in pairs), flags)


def window_update(stream_id: int, increment: int) -> bytes:
    """Return a WINDOW_UPDATE frame."""
    return frame(Type.WINDOW_UPDATE, stream_id, struct.pack(">L", increment))


def rst_stream(stream_id: int, code: int = Code.CANCEL) -> bytes:
    """Return a RST_STREAM frame."""
    return frame(Type.RST_STREAM, stream_id, struct.pack(">L", code))


def priority(stream_id: int, depends_on: int = 0) -> bytes:
    """Return a PRIORITY frame."""
    return frame(Type.PRIORITY, stream_id, struct.pack(">LB", depends_on, 7))


def ping(payload: bytes = b"12345678", flags: int = 0) -> bytes:
    """Return a PING frame."""
    return frame(Type.PING, 0, payload, flags)


def goaway(last_stream_id: int = 0, code: int = 0, debug_data: bytes = b"") -> bytes:
    """Return a GOAWAY frame."""
    return frame(Type.GOAWAY, 0, struct.pack(">LL", last_stream_id, code) + debug_data)


def read_frames(said: bytes) -> list[Seen]:
    """Return the whole frames in ``said``."""
    said = said.removeprefix(PREFACE)
    seen = []
    while len(said) >= 9:
        high, low, kind, flags, stream_id = struct.unpack_from(">HBBBL", said)
        end = 9 + (high << 8 | low)
        if len(said) < end:
            break
        seen.append(Seen(kind, flags, stream_id, said[9:end]))
        said = said[end:]
    return seen


# -- the table ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Verdict:
    """What a server has to answer: an error of the connection, one of a stream, or none."""

    code: Code | None = None
    stream_id: int = 0


def connection_error(code: Code) -> Verdict:
    """Expect a GOAWAY."""
    return Verdict(code)


def stream_error(stream_id: int, code: Code) -> Verdict:
    """Expect a RST_STREAM on a connection that goes on."""
    return Verdict(code, stream_id)


#: Expect neither, and a connection that goes on.
FINE = Verdict()


@dataclass(frozen=True)
class Case:
    """One rule: its section, its sentence, the bytes that a client says, and the verdict.

    The server has time to answer between two of ``parts``. ``bare``: the bytes stand at the beginning of the
    connection, instead of behind the client's preface.
    """

    section: str
    rule: str
    parts: tuple[bytes, ...]
    verdict: Verdict
    bare: bool = False

    def __str__(self) -> str:
        return f"{self.section} {self.rule}"


def case(section: str, rule: str, *parts: bytes, verdict: Verdict, bare: bool = False) -> Case:
    """Return one row of the table."""
    return Case(section, rule, parts, verdict, bare)


def over(cases: Iterable[Case]) -> pytest.MarkDecorator:
    """Run a test with each case, named by section and rule."""
    return pytest.mark.parametrize("case", [pytest.param(case, id=str(case)) for case in cases])


LAST_WORD = b"last one"


def judge(case: Case, said: bytes) -> None:
    """Hold what a server said after its own SETTINGS, and then to a PING with `LAST_WORD`, against the verdict."""
    seen = read_frames(said)
    verdict = case.verdict
    goaways = [struct.unpack(">LL", frame.payload[:8])[1] for frame in seen if frame.type == Type.GOAWAY]
    resets = [(frame.stream_id, *struct.unpack(">L", frame.payload)) for frame in seen if frame.type == Type.RST_STREAM]
    alive = Seen(Type.PING, ACK, 0, LAST_WORD) in seen
    if verdict.code is not None and not verdict.stream_id:
        assert (goaways, alive) == ([verdict.code], False)
        assert seen[-1].type == Type.GOAWAY
    else:
        assert (goaways, alive) == ([], True)
        # An answer that comes before the request has ended asks for no more of it; that is no error.
        errors = [reset for reset in resets if reset[1] != Code.NO_ERROR]
        assert errors == ([(verdict.stream_id, verdict.code)] if verdict.stream_id else [])


class Talk:
    """A core of ours, and what was said to and by it."""

    def __init__(self, core: ServerConnection | ClientConnection) -> None:
        self.core = core
        self.events: list[Event] = []
        self.said = b""
        self.error: RemoteProtocolError | None = None

    @classmethod
    def with_server(cls, *pairs: tuple[int, int]) -> Talk:
        """Return a server that has heard a preface with some settings."""
        talk = cls(ServerConnection())
        talk.hear(PREFACE + settings(*pairs))
        talk.clear()
        return talk

    @classmethod
    def with_client(cls) -> Talk:
        """Return a client that has heard a preface and has opened a call on stream 1."""
        core = ClientConnection()
        talk = cls(core)
        talk.hear(settings())
        core.start_call("/a.B/C")
        talk.flush()
        talk.clear()
        return talk

    def hear(self, *parts: bytes) -> list[Seen]:
        """Let the core hear ``parts``, and answer after each; return all that it said."""
        before = len(self.said)
        for part in parts:
            try:
                self.events += self.core.receive_data(part)
            except RemoteProtocolError as error:
                self.error = error
            self.flush()
        return read_frames(self.said[before:])

    def flush(self) -> None:
        """Let the core say what it has to say."""
        while data := self.core.data_to_send():
            self.said += data

    def clear(self) -> None:
        """Forget what was said so far."""
        self.events, self.said = [], b""

    @property
    def frames(self) -> list[Seen]:
        """The frames that the core has said."""
        return read_frames(self.said)


def try_core(case: Case, *, bytewise: bool = False) -> None:
    """Put ``case`` to a server's core; ``bytewise``: one byte at a time."""
    talk = Talk(ServerConnection()) if case.bare else Talk.with_server()
    if case.bare:
        talk.flush()
        talk.clear()
    for part in (*case.parts, ping(LAST_WORD)):
        if bytewise:
            talk.hear(*(part[i : i + 1] for i in range(len(part))))
        else:
            talk.hear(part)
    judge(case, talk.said)
    if case.verdict.code is not None and not case.verdict.stream_id:
        assert talk.error is not None
        assert talk.error.error_code == case.verdict.code
