"""RFC 7541: header blocks that cannot be decoded end the connection with COMPRESSION_ERROR (RFC 9113 section 4.3)."""

from __future__ import annotations

import logging
import time

import h2.exceptions
import hpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobysession.protocol import events
from mobysession.protocol.hpack import TOO_LARGE, HeaderDecoder, HeaderEncoder
from tests.protocol.wire import (
    END_HEADERS,
    FINE,
    REQUEST,
    Case,
    Code,
    Talk,
    Type,
    block,
    case,
    connection_error,
    frame,
    literal,
    over,
    stream_error,
    try_core,
)

BROKEN = connection_error(Code.COMPRESSION_ERROR)
#: Bytes of a header list, more than any here has.
LIMIT = 65_536
#: What Huffman's code makes of "www.example.com" (section C.4.1).
EXAMPLE = bytes.fromhex("f1e3c2e5f23a6ba0ab90f4ff")


def broken(section: str, rule: str, octets: bytes) -> Case:
    """Return the case of a block that is well so far, and then has ``octets``."""
    return case(section, rule, frame(Type.HEADERS, 1, block(*REQUEST) + octets, END_HEADERS), verdict=BROKEN)


def taken(section: str, rule: str, octets: bytes, *, before: bytes = b"") -> Case:
    """Return the case of a block that is well throughout."""
    octets = before + block(*REQUEST) + octets
    return case(section, rule, frame(Type.HEADERS, 1, octets, END_HEADERS), verdict=FINE)


CASES = [
    broken("2.3.3", "no entry has the index 0", b"\x80"),
    broken("2.3.3", "no entry is behind the tables", b"\xbe"),
    broken("2.3.3", "nor far behind them", b"\xff\x80\x80\x04"),
    broken("2.3.3", "no name is behind the tables", b"\x7e\1a"),
    broken("2.3.3", "no name that is not remembered either", b"\x0f\x2f\1a"),
    taken("2.3.3", "the last entry of the static table", b"\xbd"),
    taken("2.3.3", "the first behind it", b"\x40\1a\1b\xbe"),
    broken("2.3.3", "the second behind it", b"\x40\1a\1b\xbf"),
    broken("5.1", "an integer that does not end", b"\xff"),
    broken("5.1", "nor after some octets", b"\xff\x80\x80"),
    broken("5.1", "an integer of too many octets", b"\xff" + b"\x80" * 6 + b"\x00"),
    broken("5.1", "an integer of very many octets", b"\xff" + b"\x80" * 5000 + b"\x01"),
    taken("5.1", "zeros may waste a few octets", literal(b"a", b"b" * 127).replace(b"\x7f\0", b"\x7f\x80\x80\0")),
    broken("5.2", "a string longer than its block", b"\x00\x05abc"),
    broken("5.2", "a value longer than its block", b"\x00\x01a\x05abc"),
    broken("5.2", "a string far longer than any block", b"\x00\x7f\xff\xff\xff\x0f"),
    broken("5.2", "a block that ends before the name", b"\x00"),
    broken("5.2", "a block that ends before the value", b"\x00\x01a"),
    taken("5.2", "Huffman's code", b"\x00\x01a" + bytes((0x80 | len(EXAMPLE),)) + EXAMPLE),
    broken("5.2", "padding of more than 7 bits", b"\x00\x01a\x82\x1f\xff"),
    broken("5.2", "padding that is not of ones", b"\x00\x01a\x81\x18"),
    broken("5.2", "the symbol that ends a string", b"\x00\x01a\x84\xff\xff\xff\xff"),
    broken("5.2", "a symbol that is cut off", b"\x00\x01a\x81\xff"),
    taken("6.2.3", "fields that are never indexed", b"\x10\1a\1b"),
    taken("6.3", "the table's size may change before all fields", b"", before=b"\x20"),
    taken("4.2", "also twice", b"", before=b"\x20\x3f\xe1\x1f"),
    broken("6.3", "but not between them", b"\x20"),
    case("6.3", "nor over the limit", frame(1, 1, b"\x3f\xe2\x1f" + block(*REQUEST), END_HEADERS), verdict=BROKEN),
    case("6.3", "nor far over it", frame(1, 1, b"\x3f\xff\xff\xff\x0f", END_HEADERS), verdict=BROKEN),
    case(
        "4.3",
        "a smaller table has forgotten",
        frame(1, 1, block(*REQUEST) + b"\x40\1a\1b", END_HEADERS),
        frame(1, 3, b"\x20" + block(*REQUEST) + b"\xbe", END_HEADERS),
        verdict=BROKEN,
    ),
    case(
        "4.4",
        "an entry larger than the table empties it",
        frame(1, 1, block(*REQUEST) + b"\x40\1a\1b\x40\1a\x7f\x81\x1f" + bytes(4096).replace(b"\0", b"y"), END_HEADERS),
        frame(1, 3, block(*REQUEST) + b"\xbe", END_HEADERS),
        verdict=BROKEN,
    ),
    case(
        "2.2",
        "trailers count as a block too",
        frame(1, 1, block(*REQUEST), END_HEADERS) + frame(1, 1, b"\xbe", 5),
        verdict=BROKEN,
    ),
    case("2.2", "and so does what is ignored", frame(1, 1, b"", END_HEADERS) + frame(1, 1, b"\xbe", 5), verdict=BROKEN),
    case("2.2", "an empty block is no request", frame(1, 1, b"", END_HEADERS), verdict=stream_error(1, Code(1))),
]


@over(CASES)
@pytest.mark.parametrize("bytewise", [False, True], ids=["whole", "bytewise"])
def test_rule(case: Case, bytewise: bool) -> None:
    """A server answers what the rule is about as the rule says."""
    try_core(case, bytewise=bytewise)


FIELDS = st.lists(st.tuples(st.binary(max_size=20), st.binary(max_size=300)), max_size=20)


@given(st.lists(FIELDS, max_size=6), st.booleans())
def test_what_an_encoder_says(lists: list[list[tuple[bytes, bytes]]], huffman: bool) -> None:
    """What hpack's encoder makes of any lists is those lists again, with one table throughout."""
    encoder, decoder = hpack.Encoder(), HeaderDecoder(LIMIT)
    for number, fields in enumerate(lists):
        encoder.header_table_size = (4096, 0, 100)[number % 3]
        assert decoder.decode(encoder.encode(fields, huffman=huffman)) == fields


@given(st.binary(max_size=200))
def test_any_octets(octets: bytes) -> None:
    """Any octets are a list or an error of the connection, and the library's own decoder says the same."""
    try:
        expected = [(bytes(name), bytes(value)) for name, value in hpack.Decoder().decode(octets, raw=True)]
    except (hpack.HPACKError, IndexError):
        with pytest.raises(h2.exceptions.ProtocolError) as caught:
            HeaderDecoder(LIMIT).decode(octets)
        assert int(caught.value.error_code) == Code.COMPRESSION_ERROR
    else:
        assert HeaderDecoder(LIMIT).decode(octets) == expected


def test_a_list_that_is_too_large() -> None:
    """What is over the limit is left out and marked, and the table is as if it had been taken."""
    decoder = HeaderDecoder(100)
    fields = [(b"a", b"b"), (b"c", b"d" * 50), (b"e", b"f")]
    encoder = hpack.Encoder()
    assert decoder.decode(encoder.encode(fields)) == [(b"a", b"b"), TOO_LARGE]
    assert decoder.decode(encoder.encode(fields[2:])) == fields[2:]
    with pytest.raises(h2.exceptions.DenialOfServiceError):
        decoder.decode(encoder.encode(fields * 3))


def test_a_block_is_read_once() -> None:
    """A block of many fields before a long one takes time in proportion to its length, not to its square."""
    decoder = HeaderDecoder(2**20)
    long = literal(b"b", b"x" * 524_288)
    started = time.process_time()
    assert len(decoder.decode(b"\0\1a\0" * 15_000 + long)) == 15_001
    assert time.process_time() - started < 1


def test_a_long_value_is_written_at_once() -> None:
    """A value as long as a list may be takes time in proportion to its length, and short ones are still compressed."""
    fields = [(b"a", b"short" * 10), (b"b", b"x" * 2**20), (b"c", b"short" * 9)]
    started = time.process_time()
    whole = HeaderEncoder().encode(fields)
    assert time.process_time() - started < 1
    assert HeaderDecoder(2**21).decode(whole) == fields
    assert len(whole) < 2**20 + 90


def test_values_are_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    """Whoever has everything logged does not find what may be a token, neither as text nor as its octets."""
    encoder, decoder = HeaderEncoder(), HeaderDecoder(LIMIT)
    with caplog.at_level(logging.DEBUG):
        logging.getLogger("tests").debug("this is")
        # The second pushes the first out of the table, which the library has something to say about as well.
        for value in (b"hunter2" * 300, b"hunter3" * 300):
            decoder.decode(encoder.encode([(b"authorization", value)]))
    assert [record.getMessage() for record in caplog.records] == ["this is"]


def test_the_call_behind_it() -> None:
    """A block that uses all representations is the call it says."""
    talk = Talk.with_server()
    fields = [*REQUEST, (b"a", b"b"), (b"secret", b"c")]
    talk.hear(frame(Type.HEADERS, 1, b"\x83\x86\x44\x06/a.B/C" + block(*REQUEST[3:], *fields[6:]), END_HEADERS))
    (received,) = talk.events
    assert isinstance(received, events.CallReceived)
    assert (received.method, received.metadata) == ("/a.B/C", [("a", "b"), ("secret", "c")])
