"""The file of a recording: what is written is read, cut or damaged or not, and what is newer is refused."""

from __future__ import annotations

import gzip
import json
import os
import stat
from typing import TYPE_CHECKING, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobysession import limits
from mobysession.errors import RecordingError, RecordingTooNew, StatusCode
from mobysession.recording import (
    AnswerBegan,
    CallBegan,
    CallOver,
    ConnectionBegan,
    DaemonDone,
    End,
    Frame,
    Header,
    Message,
    Record,
    Recording,
    RunChanged,
    decode_record,
    encode_record,
    read_recording,
)

if TYPE_CHECKING:
    from pathlib import Path

numbers = st.integers(0, 2**40)
times = st.floats(0, 1e9, allow_nan=False)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
metadata = st.lists(st.tuples(texts, texts | st.binary(max_size=9)), max_size=3).map(tuple)
senders = st.sampled_from(["daemon", "client"])


@st.composite
def messages(draw: st.DrawFn) -> Message:
    """Make a message, with places in it that are hidden, or without its body."""
    body = draw(st.none() | st.binary(max_size=50))
    size = draw(numbers) if body is None else len(body)
    edges = sorted(draw(st.lists(st.integers(0, size), max_size=6, unique=True)))
    hidden = tuple(zip(edges[::2], edges[1::2], strict=False))
    at, call, sender = draw(times), draw(numbers), draw(senders)
    return Message(at=at, call=call, sender=sender, size=size, body=body, hidden=hidden)


records = st.one_of(
    messages(),
    st.builds(
        ConnectionBegan,
        at=times,
        connection=numbers,
        session_id=texts,
        name=texts,
        methods=st.lists(texts, max_size=3).map(tuple),
    ),
    st.builds(
        CallBegan,
        at=times,
        call=numbers,
        connection=numbers,
        stream=numbers,
        method=texts,
        metadata=metadata,
        run=numbers,
    ),
    st.builds(AnswerBegan, at=times, call=numbers, metadata=metadata),
    st.builds(DaemonDone, at=times, call=numbers),
    st.builds(
        CallOver,
        at=times,
        call=numbers,
        code=st.sampled_from([code.name for code in StatusCode]),
        message=texts,
        details=st.binary(max_size=9),
        trailers=metadata,
        received=numbers,
        sent=numbers,
        messages_received=numbers,
        messages_sent=numbers,
        whole=st.booleans(),
    ),
    st.builds(
        Frame,
        at=times,
        connection=numbers,
        sender=senders,
        kind=st.integers(0, 9),
        flags=st.integers(0, 255),
        stream=numbers,
        length=numbers,
        payload=st.none() | st.binary(max_size=9),
    ),
    st.builds(RunChanged, at=times, run=numbers, state=st.sampled_from(["began", "ended"])),
)

SOME: list[Record] = [
    ConnectionBegan(at=0, connection=1, session_id="abc", methods=("/a.B/C",)),
    CallBegan(at=0.5, call=1, connection=1, stream=1, method="/a.B/C", metadata=(("k", "v"), ("k-bin", b"\0"))),
    Message(at=0.5, call=1, sender="daemon", size=4, body=b"ping"),
    DaemonDone(at=0.5, call=1),
    Message(at=0.75, call=1, sender="client", size=7, body=b"p***ong", hidden=((1, 4),)),
    CallOver(at=1, call=1, code="OK", received=4, sent=7, messages_received=1, messages_sent=1, whole=True),
    CallBegan(at=1, call=2, connection=1, stream=3, method="/a.B/C"),
    CallOver(at=3, call=2, code="ABORTED", message="no"),
]


@pytest.fixture
def written(tmp_path: Path) -> Path:
    """Give the file of a recording with `SOME` records."""
    path = tmp_path / "some.recording"
    Recording(Header(created=1.5, mode="full"), lambda: [*SOME, End(at=3)]).write(path)
    return path


@given(record=records)
def test_a_record_is_its_line(record: Record) -> None:
    """A line says all of a record, is one line, and is JSON."""
    line = encode_record(record)
    assert line.count(b"\n") == 1
    assert decode_record(line) == record
    assert json.loads(line)["type"]


def test_every_kind_of_record_is_tried() -> None:
    """The strategy above makes all kinds, but the end, which has nothing to say."""
    kinds = {type(record) for record in SOME} | {AnswerBegan, Frame, RunChanged, End}
    assert kinds == set(get_args(Record))


def test_what_is_written_is_read(written: Path) -> None:
    """A file gives back header, records and summary; it is its owner's alone."""
    recording = read_recording(written)
    assert recording.header == Header(created=1.5, mode="full")
    assert list(recording) == SOME
    assert recording.is_complete
    method = recording.summary()["/a.B/C"]
    assert (method.calls, method.failed, method.received, method.sent, method.seconds) == (2, 1, 4, 7, 2.5)
    assert stat.S_IMODE(written.stat().st_mode) == 0o600
    assert [path.name for path in written.parent.iterdir()] == ["some.recording"]


def test_compressed(tmp_path: Path) -> None:
    """A name that ends with .gz is compressed, and read whatever it is called then."""
    path = tmp_path / "some.gz"
    Recording(Header(), lambda: [*SOME, End(at=3)]).write(path)
    assert path.read_bytes()[:2] == b"\x1f\x8b"
    other = path.rename(tmp_path / "renamed")
    assert list(read_recording(other)) == SOME


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_a_file_that_was_cut_is_good_up_to_there(written: Path, pack) -> None:
    """Wherever it was cut, the records before are read, it is told, and nothing else comes."""
    data, found = pack(written.read_bytes()), list[Record]()
    for size in range(0, len(data), 7):
        written.write_bytes(data[:size])
        try:
            recording = read_recording(written)
        except RecordingError:
            continue
        found = list(recording)
        assert found == SOME[: len(found)]
        # Of a compressed file the checksum may be missing, and nothing else.
        assert not recording.is_complete or found == SOME
    assert found, "the last cuts leave some"


@given(data=st.data())
@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_a_damaged_file_gives_records_or_an_error(tmp_path_factory, data, pack) -> None:
    """Whatever is changed in a file, reading ends with records or a `RecordingError`, nothing else."""
    path = tmp_path_factory.mktemp("damaged") / "file"
    Recording(Header(), lambda: [*SOME, End(at=3)]).write(path)
    content = bytearray(pack(path.read_bytes()))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(content) - 1))
        content[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=4))
    path.write_bytes(content)
    try:
        for record in read_recording(path):
            assert isinstance(record, get_args(Record))
    except RecordingError:
        pass


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('{"type": "message", "at": 0, "call": 1, "sender": "me", "size": 0}', "nobody"),
        ('{"type": "message", "at": 0, "call": 1, "sender": "client", "size": 2, "body": "QUFB"}', "another size"),
        ('{"type": "message", "at": 0, "call": 1, "sender": "client", "size": 2, "hidden": [[1, 3]]}', "hidden"),
        ('{"type": "call_over", "at": 0, "call": 1, "code": "FINE"}', "FINE"),
        ('{"type": "daemon_done", "at": NaN, "call": 1}', "at: "),
        ('{"type": "daemon_done", "at": 1, "call": true}', "call: "),
        ('{"type": "daemon_done", "at": 1}', "missing"),
        ("[]", "object"),
        ('{"type": 1}', "text"),
        ("[" * 100_000, "nested"),
    ],
)
def test_a_line_that_makes_no_sense_is_named(written: Path, line: str, words: str) -> None:
    """The error has the file, the number of the line, and what is wrong with it; what came before was read."""
    first, *rest = written.read_bytes().splitlines()
    written.write_bytes(b"\n".join([first, rest[0], line.encode(), *rest[1:], b""]))
    reading = iter(read_recording(written))
    assert next(reading) == SOME[0]
    with pytest.raises(RecordingError, match=f"line 3: .*{words}"):
        next(reading)


def test_what_is_not_known_is_passed_over(written: Path) -> None:
    """Types and fields that a later writer of the same version adds do no harm."""
    first, *rest = written.read_bytes().splitlines()
    more = json.dumps({**json.loads(rest[0]), "mood": "good"}).encode()
    written.write_bytes(b"\n".join([first, b'{"type": "weather", "at": 1}', more, *rest[1:], b""]))
    assert list(read_recording(written)) == SOME


def test_what_is_newer_is_refused(written: Path) -> None:
    """A higher version is an error of its own, which says what to do."""
    written.write_bytes(written.read_bytes().replace(b'"version":1', b'"version":2', 1))
    with pytest.raises(RecordingTooNew, match="version 2") as caught:
        read_recording(written)
    assert "newer" in (caught.value.hint or "")


@pytest.mark.parametrize("content", [b"", b"{}\n", b"nothing", b"\x7fELF\n", b'{"format": "mobysession-recording"}\n'])
def test_what_is_no_recording_is_refused(tmp_path: Path, content: bytes) -> None:
    """Another file is told from a recording at its first line."""
    path = tmp_path / "file"
    path.write_bytes(content)
    with pytest.raises(RecordingError, match="is no recording"):
        read_recording(path)


def test_a_line_without_end_is_not_read_to_its_end(written: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A line is bounded: one byte more than the bound is an error, the bound itself is not."""
    lines = written.read_bytes().splitlines(keepends=True)[:-1]
    longest = max(map(len, lines))
    monkeypatch.setattr(limits, "MAX_RECORDING_LINE", longest)
    written.write_bytes(b"".join(lines) + b"x" * longest)
    assert list(read_recording(written)) == SOME
    written.write_bytes(b"".join(lines) + b"x" * (longest + 1))
    with pytest.raises(RecordingError, match="too long"):
        list(read_recording(written))


def test_what_cannot_be_read_or_written_is_told(tmp_path: Path) -> None:
    """The operating system's words arrive in an error of ours."""
    with pytest.raises(RecordingError, match="No such file"):
        read_recording(tmp_path / "none")
    with pytest.raises(RecordingError, match="cannot be written: No such file"):
        Recording(Header(), list).write(tmp_path / "none" / "file")


def test_a_failure_leaves_the_old_file(written: Path) -> None:
    """A recording that cannot be read to its end replaces nothing."""
    before = written.read_bytes()

    def broken():
        yield SOME[0]
        raise RecordingError("no more")

    with pytest.raises(RecordingError, match="no more"):
        Recording(Header(), broken).write(written)
    assert written.read_bytes() == before
    assert len(list(written.parent.iterdir())) == 1


@pytest.mark.parametrize("name", ["pipe", "pipe.gz"])
def test_a_pipe_is_written_to(tmp_path: Path, written: Path, name: str) -> None:
    """What is there and is no file, as a device, stays what it is."""
    pipe = tmp_path / name
    os.mkfifo(pipe)
    # Both ways, so that nobody waits for the other end.
    reader = os.open(pipe, os.O_RDWR)
    try:
        Recording(Header(), lambda: list(read_recording(written))).write(pipe)
        assert stat.S_ISFIFO(pipe.lstat().st_mode)
        content = os.read(reader, 60_000)
    finally:
        os.close(reader)
    (tmp_path / "copy").write_bytes(content)
    assert list(read_recording(tmp_path / "copy")) == list(read_recording(written))
    assert sorted(path.name for path in tmp_path.iterdir() if path != written) == sorted(["copy", name])


def test_a_link_stays_one(tmp_path: Path) -> None:
    """What it leads to is replaced, or made where that is not there yet; a directory is refused."""
    (tmp_path / "target").write_text("older")
    for name in ("target", "later"):
        link = tmp_path / f"link to {name}"
        link.symlink_to(name)
        Recording(Header(), lambda: SOME).write(link)
        assert link.is_symlink()
        assert list(read_recording(tmp_path / name)) == SOME
    with pytest.raises(RecordingError, match="Is a directory"):
        Recording(Header(), lambda: SOME).write(tmp_path)
