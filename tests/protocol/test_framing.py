"""Length-prefixed messages: every case whole, cut at every byte, and with bytes behind it."""

from __future__ import annotations

import itertools
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobysession.errors import RpcError, StatusCode
from mobysession.limits import MAX_MESSAGE
from mobysession.protocol.framing import MessageReader, encode_chunks, encode_messages

CASES = [
    [],
    [b""],
    [b"", b""],
    [b"a"],
    [b"one", b"", b"three" * 100],
    [bytes(range(256)) * 40],
]


def gzipped(message: bytes) -> bytes:
    """Return ``message`` as one compressed message with its prefix."""
    body = zlib.compress(message, wbits=31)
    return b"\x01" + len(body).to_bytes(4, "big") + body


@pytest.mark.parametrize("messages", CASES)
@pytest.mark.parametrize("compress", [False, True])
def test_whole(messages: list[bytes], compress: bool) -> None:
    """What is encoded in one piece comes out as it went in, and nothing is left over."""
    reader = MessageReader("gzip")
    assert reader.receive_data(encode_messages(messages, compress=compress)) == messages
    assert reader.buffered == 0
    reader.finish()


@pytest.mark.parametrize("messages", CASES)
@pytest.mark.parametrize("compress", [False, True])
def test_split_at_every_byte(messages: list[bytes], compress: bool) -> None:
    """Where the stream is cut makes no difference."""
    data = encode_messages(messages, compress=compress)
    for cut in range(0, len(data) + 1, max(1, len(data) // 1000)):
        reader = MessageReader("gzip")
        assert reader.receive_data(data[:cut]) + reader.receive_data(data[cut:]) == messages
        reader.finish()
    reader = MessageReader("gzip")
    assert [m for index in range(len(data)) for m in reader.receive_data(data[index : index + 1])] == messages


@pytest.mark.parametrize("messages", CASES)
def test_with_bytes_behind(messages: list[bytes]) -> None:
    """The beginning of the next message waits for its end."""
    reader = MessageReader()
    assert reader.receive_data(encode_messages(messages) + b"\0\0\0\0\x05ab") == messages
    assert reader.buffered == 7
    assert reader.receive_data(b"cde\0\0") == [b"abcde"]
    assert reader.buffered == 2
    with pytest.raises(RpcError, match="ended 2 bytes into a message") as caught:
        reader.finish()
    assert caught.value.code is StatusCode.INTERNAL


@given(st.lists(st.binary(max_size=9000)), st.booleans())
def test_chunks_are_the_same_bytes(messages: list[bytes], compress: bool) -> None:
    """The pieces put together are the encoded messages, whatever their sizes."""
    assert b"".join(encode_chunks(messages, compress=compress)) == encode_messages(messages, compress=compress)


def test_chunks_pass_large_messages_on() -> None:
    """A large message is not copied, small ones share a piece."""
    large = bytes(10_000)
    chunks = encode_chunks([b"a", large, b"b", b"c"])
    assert [len(chunk) for chunk in chunks] == [11, 10_000, 12]
    assert chunks[1] is large


@pytest.mark.parametrize("buffer", [bytes, bytearray, memoryview])
def test_any_buffer(buffer: type) -> None:
    """Any kind of buffer is taken and messages are always bytes."""
    reader = MessageReader()
    data = encode_messages([buffer(b"abc")])
    assert reader.receive_data(buffer(data[:4])) == []
    assert reader.receive_data(buffer(data[4:])) == [b"abc"]
    assert type(reader.receive_data(buffer(data))[0]) is bytes


@pytest.mark.parametrize("pieces", [1, 2])
def test_limit(pieces: int) -> None:
    """A message of exactly the limit is taken, one byte more is refused as soon as its prefix says so."""
    reader = MessageReader(limit=10)
    data = encode_messages([b"x" * 10])
    got = [m for n in range(pieces) for m in reader.receive_data(data[n * 5 : None if n == pieces - 1 else 5])]
    assert got == [b"x" * 10]
    with pytest.raises(RpcError, match=r"larger than max \(11 vs. 10\)") as caught:
        reader.receive_data(b"\0\0\0\0\x0b")
    assert caught.value.code is StatusCode.RESOURCE_EXHAUSTED


def test_default_limit() -> None:
    """The limit is what BuildKit accepts, and a prefix that names one byte more is refused."""
    MessageReader().receive_data(b"\0" + MAX_MESSAGE.to_bytes(4, "big"))
    with pytest.raises(RpcError, match="larger than max"):
        MessageReader().receive_data(b"\0" + (MAX_MESSAGE + 1).to_bytes(4, "big"))


def test_lying_prefix_after_a_buffered_one() -> None:
    """A bad prefix is found also when the bytes before it were buffered."""
    reader = MessageReader(limit=10)
    assert reader.receive_data(b"\0\0\0") == []
    with pytest.raises(RpcError):
        reader.receive_data(b"\xff\xff")


@pytest.mark.parametrize("encoding", ["identity", "gzip"])
def test_bad_flag(encoding: str) -> None:
    """Only 0 and 1 say whether a message is compressed."""
    with pytest.raises(RpcError, match="invalid compressed flag 2") as caught:
        MessageReader(encoding).receive_data(b"\x02\0\0\0\0")
    assert caught.value.code is StatusCode.INTERNAL


def test_compressed_without_encoding() -> None:
    """A compressed message on a stream that named no encoding is an error of the peer."""
    with pytest.raises(RpcError, match="without grpc-encoding") as caught:
        MessageReader().receive_data(gzipped(b"x"))
    assert caught.value.code is StatusCode.INTERNAL


def test_plain_message_on_a_compressed_stream() -> None:
    """Each message says for itself whether it is compressed."""
    assert MessageReader("gzip").receive_data(encode_messages([b"a"]) + gzipped(b"b")) == [b"a", b"b"]


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"", "not one whole gzip member"),
        (b"garbage", "not valid gzip"),
        (zlib.compress(b"x", wbits=31)[:-1], "not one whole gzip member"),
        (zlib.compress(b"x", wbits=31) + b"more", "not one whole gzip member"),
        (zlib.compress(b"x"), "not valid gzip"),
    ],
)
def test_bad_gzip(body: bytes, text: str) -> None:
    """A compressed message is one whole gzip member and nothing else."""
    with pytest.raises(RpcError, match=text) as caught:
        MessageReader("gzip").receive_data(b"\x01" + len(body).to_bytes(4, "big") + body)
    assert caught.value.code is StatusCode.INTERNAL


def test_gzip_bomb() -> None:
    """A message may inflate to exactly the limit and not one byte further."""
    assert MessageReader("gzip", limit=10_000).receive_data(gzipped(bytes(10_000))) == [bytes(10_000)]
    with pytest.raises(RpcError, match="inflates to more than 10000 bytes") as caught:
        MessageReader("gzip", limit=10_000).receive_data(gzipped(bytes(10_001)))
    assert caught.value.code is StatusCode.RESOURCE_EXHAUSTED


def test_many_small_gzip_bombs() -> None:
    """Messages that arrive together may not inflate to many times the limit either."""
    bombs = gzipped(bytes(10_000))
    assert len(MessageReader("gzip", limit=10_000).receive_data(bombs * 2)) == 2
    with pytest.raises(RpcError, match=r"inflate to too much \(30000 vs. 20000 bytes\)") as caught:
        MessageReader("gzip", limit=10_000).receive_data(bombs * 3)
    assert caught.value.code is StatusCode.RESOURCE_EXHAUSTED


@given(st.binary(max_size=64), st.lists(st.integers(0, 64)), st.sampled_from(["identity", "gzip"]))
def test_garbage(data: bytes, cuts: list[int], encoding: str) -> None:
    """Garbage gives messages or an RpcError and nothing else, the same for every cut."""

    def read(pieces: list[bytes]) -> tuple[list[bytes], bool]:
        reader, messages = MessageReader(encoding, limit=1000), []
        try:
            for piece in pieces:
                messages += reader.receive_data(piece)
            reader.finish()
        except RpcError:
            return [], True
        return messages, False

    edges = [0, *sorted(cut for cut in cuts if cut <= len(data)), len(data)]
    pieces = [data[start:end] for start, end in itertools.pairwise(edges)]
    assert read(pieces) == read([data])
