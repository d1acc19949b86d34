"""The packets that a receiver reads and writes by hand, against the generated messages."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobysession._pb.fsutil_pb2 import Packet, Stat
from mobysession.filesync.packet_fields import decode_varint, encode_varint, request_packet, split_data

DATA = Packet.PACKET_DATA
ids = st.one_of(st.integers(0, 300), st.integers(0, 2**32 - 1))


@given(ids, st.binary(max_size=300))
def test_data_is_split_as_the_generated_code_reads_it(entry_id: int, content: bytes) -> None:
    """Id and content of any DATA packet as senders write it; an empty one starts where it ends."""
    message = Packet(type=DATA, ID=entry_id, data=content).SerializeToString()
    found = split_data(message)
    assert found is not None
    assert (found[0], message[found[1] :]) == (entry_id, content)


@given(ids)
def test_a_request_is_what_the_generated_code_writes(entry_id: int) -> None:
    """Without a field for the id 0, which is proto3's default."""
    assert request_packet(entry_id) == Packet(type=Packet.PACKET_REQ, ID=entry_id).SerializeToString()


@given(st.binary(max_size=40))
def test_whatever_else_arrives_is_left_to_the_generated_code(message: bytes) -> None:
    """What is split is a DATA packet that the generated code reads to the same; nothing makes it fail."""
    for candidate in (message, b"\x08\x02" + message):
        found = split_data(candidate)
        if found is not None:
            packet = Packet.FromString(candidate)
            assert (packet.type, packet.ID, packet.data) == (DATA, found[0], candidate[found[1] :])


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"\x08\x01\x18\x05",
        Packet(stat=Stat(path=b"x")).SerializeToString(),
        b"\x08\x02\x18\x80",  # cut off
        b"\x08\x02\x18\xff\xff\xff\xff\xff\x01",  # more than 32 bits
        b"\x08\x02\x18\x01\x22\x05ab",  # less than it says
        b"\x08\x02\x18\x01\x22\x01ab",  # more than it says
        b"\x08\x02\x22\x01a\x18\x01",  # in another order
    ],
)
def test_what_is_no_plain_data_is_not_split(message: bytes) -> None:
    """Other packets, cut ones and unusual ones are for the generated code to judge."""
    assert split_data(message) is None


@given(st.integers(0, 2**32 - 1))
def test_numbers_survive(number: int) -> None:
    """What is encoded is decoded, with what is behind it left alone."""
    encoded = encode_varint(number)
    assert decode_varint(b"x" + encoded + b"\xff", 1) == (number, 1 + len(encoded))
