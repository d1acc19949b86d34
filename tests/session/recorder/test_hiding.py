"""No value that is known to be secret is in what is read of a recording, wherever it stood and however it was cut."""

from __future__ import annotations

import base64
import itertools
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobysession._pb import control_pb2, fsutil_pb2
from mobysession.recording import (
    AnswerBegan,
    CallBegan,
    CallOver,
    ConnectionBegan,
    Frame,
    Header,
    Message,
    Record,
    RunChanged,
    encode_record,
)
from mobysession.redaction import Redactor
from mobysession.session.recorder.hiding import Hiding, hidden_records, is_secret, masked, merged

if TYPE_CHECKING:
    from collections.abc import Sequence

DIFF_COPY = "/moby.filesync.v1.FileSync/DiffCopy"
SECRET = b"hunter2 is Grendel"


def hide(records: Sequence[Record], *values: bytes) -> list[Any]:
    """Return records as they are read once ``values`` are known."""
    redactor = Redactor()
    for value in values or (SECRET,):
        redactor.add(value)
    return list(hidden_records(lambda: records, redactor.forms))


def call(*bodies: bytes, method: str = "/a.B/C", sender: str = "client") -> list[Record]:
    """Return a call with messages."""
    return [
        CallBegan(at=0, call=1, connection=1, stream=1, method=method),
        *(Message(at=0, call=1, sender=sender, size=len(body), body=body) for body in bodies),
        CallOver(at=0, call=1, code="OK"),
    ]


def bodies(records: Sequence[Record]) -> list[bytes]:
    """Return the bodies of messages."""
    return [record.body for record in records if isinstance(record, Message) and record.body is not None]


def cut(data: bytes, places: Sequence[int]) -> list[bytes]:
    """Return the pieces between places in ``data``."""
    edges = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[start:end] for start, end in itertools.pairwise(edges)]


values = st.binary(min_size=3, max_size=30).filter(lambda value: len(value.strip()) >= 3 and b"*" not in value)
#: Such as do not look like what stands around them in a packet.
letters = st.text("ABCDEFxyz", min_size=3, max_size=30).map(str.encode)
places = st.lists(st.integers(0, 200), max_size=6)
ENCODINGS = [
    bytes,
    lambda value: base64.b64encode(b"user:" + value),
    lambda value: value.hex().encode(),
    lambda value: quote(value).encode(),
]


@given(value=values, before=st.binary(max_size=40), after=st.binary(max_size=40), places=places)
def test_a_value_in_messages_cut_anywhere(value: bytes, before: bytes, after: bytes, places: list[int]) -> None:
    """A value in the messages of one side is hidden, also where it goes over the ends of several."""
    pieces = cut(before + value + after, places)
    found = hide(call(*pieces), value)
    said = b"".join(bodies(found))
    assert value.strip() not in said
    assert [len(body) for body in bodies(found)] == [len(piece) for piece in pieces]
    start = len(before) + value.find(value.strip())
    assert said[start : start + len(value.strip())] == b"*" * len(value.strip())


@given(value=st.binary(min_size=12, max_size=30), places=places)
@pytest.mark.parametrize("encode", ENCODINGS)
def test_a_value_in_another_form(encode: Any, value: bytes, places: list[int]) -> None:
    """The forms in which programs write a value are hidden like the value."""
    if len(value.strip()) < 12:
        return
    text = encode(value)
    said = b"".join(bodies(hide(call(*cut(b"<" + text + b">", places)), value)))
    assert text.strip() not in said
    assert b"****" in said


@given(value=letters, places=places, order=st.randoms())
def test_a_value_in_a_file_that_is_sent(value: bytes, places: list[int], order: Any) -> None:
    """In packets of DiffCopy a value is found over the packets of its file, whatever is sent between them."""
    pieces = [piece for piece in cut(b"aa" + value + b"bb", places) if piece]
    first = [fsutil_pb2.Packet(type="PACKET_DATA", ID=7, data=piece).SerializeToString() for piece in pieces]
    second = [fsutil_pb2.Packet(type="PACKET_DATA", ID=300, data=b"-").SerializeToString() for _ in range(5)]
    mixed = [*itertools.repeat(7, len(first)), *itertools.repeat(300, len(second))]
    order.shuffle(mixed)
    sources = {7: iter(first), 300: iter(second)}
    found = hide(call(*(next(sources[entry]) for entry in mixed), method=DIFF_COPY), value)
    packets = [fsutil_pb2.Packet.FromString(body) for body in bodies(found)]
    content = b"".join(packet.data for packet in packets if packet.ID == 7)
    assert value.strip() not in content
    assert len(content) == len(value) + 4
    assert [packet.ID for packet in packets] == mixed


@given(value=letters, places=places)
def test_a_value_in_a_stream_of_bytes(value: bytes, places: list[int]) -> None:
    """Messages that are pieces of one file are looked at without what stands around the pieces."""
    pieces = [piece for piece in cut(b"aa" + value + b"bb", places) if piece]
    messages = [control_pb2.BytesMessage(data=piece).SerializeToString() for piece in pieces]
    found = [control_pb2.BytesMessage.FromString(body).data for body in bodies(hide(call(*messages), value))]
    assert value.strip() not in b"".join(found)


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=5)


@given(before=texts, after=texts, value=st.text('abcdefgh"\\\u00fc', min_size=12, max_size=20))
def test_a_value_in_any_text(before: str, after: str, value: str) -> None:
    """Metadata, names, methods, messages of a status and commands lose it, in every kind of record."""
    text = before + value + after
    several: list[Record] = [
        ConnectionBegan(at=0, connection=1, session_id=text, name=text, methods=(text,)),
        CallBegan(at=0, call=1, connection=1, stream=1, method=text, metadata=((text, text), ("b", text.encode()))),
        AnswerBegan(at=0, call=1, metadata=((text, text),)),
        CallOver(at=0, call=1, code="ABORTED", message=text, details=text.encode(), trailers=((text, text),)),
    ]
    redactor = Redactor()
    redactor.add(value)
    hiding = Hiding(redactor.forms)
    for record in (*hide(several, value.encode()), hiding.texts_of(Header(command=(text,)))):
        shown = encode_record(record)
        assert value not in repr(record)
        assert value.encode() not in shown
        assert base64.b64encode(text.encode()) not in shown


def test_metadata_that_is_secret_by_its_key() -> None:
    """Logins in metadata are hidden although nobody knows them; a place in a trace is not."""
    metadata = (("Authorization", "Bearer x"), ("traceparent", "00-1"), ("cookie", b"crumb"))
    (began,) = hide([CallBegan(at=0, call=1, connection=1, stream=1, method="/a.B/C", metadata=metadata)])
    assert began.metadata == (("Authorization", "***"), ("traceparent", "00-1"), ("cookie", "***"))


def test_what_is_hidden_is_said() -> None:
    """A message has the places where something was, the others are as they were."""
    one, other = (record for record in hide(call(b"a" + SECRET + b"b", b"quiet")) if isinstance(record, Message))
    assert one.hidden == ((1, 1 + len(SECRET)),)
    assert (other.body, other.hidden) == (b"quiet", ())


def test_two_sides_and_two_calls_are_no_stream() -> None:
    """Halves of a value that different sides or calls say are not one."""
    first, second = SECRET[:9], SECRET[9:]
    records = call(first)
    records[2:2] = [
        Message(at=0, call=1, sender="daemon", size=len(second), body=second),
        Message(at=0, call=2, sender="client", size=len(second), body=second),
    ]
    assert hide(records) == records


def frames(*kinds: tuple[int, str, bytes], stream: int = 1) -> list[Record]:
    """Return frames of a stream: type, sender, payload."""
    return [
        Frame(
            at=0, connection=1, sender=sender, kind=kind, flags=0, stream=stream, length=len(payload), payload=payload
        )
        for kind, sender, payload in kinds
    ]


def shown(records: Sequence[Record]) -> list[bool]:
    """Tell of each frame whether its payload is there."""
    return [record.payload is not None for record in records if isinstance(record, Frame)]


def test_frames_are_shown_where_nothing_is_hidden() -> None:
    """Those of a call of which all is known, and nothing was secret, are kept as they are."""
    wire = bytes(5) + b"quiet"
    records = [*frames((1, "daemon", b"h"), (0, "client", wire), (1, "client", b"t")), *call(b"quiet")]
    assert hide(records) == records


@given(pieces=st.lists(st.binary(max_size=9), min_size=1, max_size=6), places=places, at=st.integers(0, 5))
def test_frames_are_hidden_no_more_than_they_must(pieces: list[bytes], places: list[int], at: int) -> None:
    """Of a side that said a value, those frames are shown that hold no byte of it, and no others."""
    pieces.insert(at, b"ab" + SECRET + b"cd")
    wire = b"".join(bytes(1) + len(piece).to_bytes(4, "big") + piece for piece in pieces)
    records = [*frames(*((0, "client", part) for part in cut(wire, places))), *call(*pieces)]
    found = hide(records)
    start = wire.index(SECRET)
    offset = 0
    for frame in found:
        if isinstance(frame, Frame):
            touches = offset < start + len(SECRET) and offset + frame.length > start
            assert (frame.payload is None) is bool(touches and frame.length)
            offset += frame.length


def test_frames_of_which_one_is_compressed() -> None:
    """From the first message on that does not stand on the wire as it was said, nothing is shown."""
    bodies_said = (b"quiet", SECRET, b"quiet")
    parts = [bytes(1) + len(body).to_bytes(4, "big") + body for body in bodies_said]
    parts[0] = b"\1" + parts[0][1:]
    records = [*frames(*((0, "client", part) for part in parts)), *call(*bodies_said)]
    assert shown(hide(records)) == [False, False, False]


@pytest.mark.parametrize(
    ("records", "expected"),
    [
        # The value itself; and a frame of the same side without it.
        ([*frames((0, "client", bytes(5) + SECRET), (0, "daemon", b"")), *call(SECRET)], [False, True]),
        # Compressed: what is on the wire is not what was said.
        ([*frames((0, "client", b"zip")), *call(b"quiet")], [False]),
        # Bodies that were never recorded.
        ([*frames((0, "client", b"?")), *call()], [False]),
        # A stream that is no call's.
        ([*frames((0, "client", b"?"), (1, "client", b"?"), stream=9), *call()], [False, False]),
        # A call that has not ended: its trailers are not known.
        ([*frames((1, "client", b"?")), *call()[:1]], [False]),
        # Headers that held it.
        ([*frames((1, "daemon", b"?"), (9, "daemon", b"?")), *call(method=f"/{SECRET.decode()}/C")], [False, False]),
        # A goodbye that quotes it, and one that does not.
        ([*frames((7, "daemon", b"why: " + SECRET), (7, "daemon", b"why"), stream=0)], [False, True]),
    ],
)
def test_frames_that_could_hold_a_value(records: list[Record], expected: list[bool]) -> None:
    """The payload of a frame is left out wherever it is not certain that it holds nothing."""
    assert shown(hide(records)) == expected


def test_messages_that_are_never_recorded() -> None:
    """The methods that hand out secrets are known, whatever their case."""
    assert is_secret("/MOBY.buildkit.secrets.v1.Secrets/GetSecret", "client")
    assert not is_secret("/moby.buildkit.secrets.v1.Secrets/GetSecret", "daemon")
    for name in ("Credentials", "FetchToken", "GetTokenAuthority", "VerifyTokenAuthority"):
        assert is_secret(f"/moby.filesync.v1.Auth/{name}", "client")
    assert all(is_secret("/moby.sshforward.v1.SSH/ForwardAgent", side) for side in ("client", "daemon"))
    assert not is_secret("/moby.sshforward.v1.SSH/CheckAgent", "client")


@given(data=st.binary(max_size=60), values=st.lists(st.binary(min_size=3, max_size=6), max_size=3))
def test_places_are_those_of_the_values(data: bytes, values: list[bytes]) -> None:
    """Each byte that belongs to an occurrence of a value is in a place, and no other is."""
    wanted = {
        at + offset
        for value in values
        for at in range(len(data))
        if data.startswith(value, at)
        for offset in range(len(value))
    }
    spans = Hiding(values).spans(data)
    assert {at for start, end in spans for at in range(start, end)} == wanted
    assert spans == merged(spans)
    assert masked(data, spans) == bytes(ord("*") if at in wanted else byte for at, byte in enumerate(data))


def test_what_comes_while_it_is_read_comes_later() -> None:
    """A record that was not looked at the first time is not shown the second time."""
    growing = call(b"quiet")

    def source() -> list[Record]:
        growing.append(RunChanged(at=0, run=len(growing), state="began"))
        return list(growing)

    assert len(list(hidden_records(source, [SECRET]))) == 4
