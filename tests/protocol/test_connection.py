"""gRPC over HTTP/2: both roles against each other, and each against a bare h2 object."""

from __future__ import annotations

import zlib
from typing import Any

import h2.errors
import h2.events
import h2.settings
import pytest
from h2.settings import SettingCodes

from mobysession import limits
from mobysession._version import __version__
from mobysession.errors import LocalProtocolError, RemoteProtocolError, RpcError, StatusCode
from mobysession.protocol import events
from mobysession.protocol.client import ClientConnection
from mobysession.protocol.framing import encode_messages
from mobysession.protocol.server import ServerConnection
from tests.protocol.peers import REQUEST, Bare, Pair

CANCEL = int(h2.errors.ErrorCodes.CANCEL)
RESPONSE = [(b":status", b"200"), (b"content-type", b"application/grpc")]
OK = [(b"grpc-status", b"0")]


# -- the two roles -----------------------------------------------------------------------------------------------------


def test_whole_call() -> None:
    """A call with everything in it arrives on both sides, and neither side keeps anything of it."""
    pair = Pair()
    metadata: list[tuple[str, str | bytes]] = [("color", "red"), ("color", "blue"), ("raw-bin", b"\x00")]
    stream_id = pair.call(metadata=metadata, timeout=5)
    (received,) = pair.to_server
    assert isinstance(received, events.CallReceived)
    assert received == (stream_id, "/a.B/C", metadata, 5.0, f"grpc-python-mobysession/{__version__}")
    pair.client.send_messages(stream_id, [b"one", b""])
    pair.client.end_request(stream_id)
    pair.client.end_request(stream_id)
    pair.run()
    assert pair.to_server[1:] == [events.MessagesReceived(stream_id, [b"one", b""]), events.RequestEnded(stream_id)]
    pair.server.consumed(stream_id, [b"one", b""])
    pair.server.send_initial_metadata(stream_id, [("first", "1")])
    pair.server.send_messages(stream_id, [b"two"])
    pair.server.send_messages(stream_id, [])
    pair.server.send_trailers(stream_id, StatusCode.OK, metadata=[("last", "9")])
    pair.run()
    assert pair.to_client == [
        events.InitialMetadata(stream_id, [("first", "1")]),
        events.MessagesReceived(stream_id, [b"two"]),
        events.CallEnded(stream_id, StatusCode.OK, "", b"", [("last", "9")]),
    ]
    assert (pair.client.open_calls, pair.server.open_calls) == (0, 0)


def test_failing_call_without_messages() -> None:
    """A status without messages is sent in one header list, with message, details and metadata."""
    pair = Pair()
    stream_id = pair.call()
    pair.server.send_trailers(stream_id, StatusCode.NOT_FOUND, "gone: ä", details=b"\x01", metadata=[("a", "b")])
    pair.run()
    metadata: list[tuple[str, str | bytes]] = [("a", "b")]
    assert pair.to_client == [events.CallEnded(stream_id, StatusCode.NOT_FOUND, "gone: ä", b"\x01", metadata)]


def test_settings_and_ping() -> None:
    """Each side hears the other's settings by name, and its own pings back."""
    pair = Pair()
    pair.client.ping(b"12345678")
    pair.run()
    assert pair.to_client == [events.PingAcknowledged(b"12345678")]
    fresh = ClientConnection()
    (settings, *_) = fresh.receive_data(ServerConnection().data_to_send())
    assert isinstance(settings, events.SettingsReceived)
    assert settings.settings["MAX_FRAME_SIZE"] == limits.MAX_FRAME
    assert settings.settings["INITIAL_WINDOW_SIZE"] == limits.STREAM_WINDOW
    assert settings.settings["MAX_HEADER_LIST_SIZE"] == limits.MAX_HEADER_LIST


def test_reset_by_either_side() -> None:
    """A reset ends the call on both sides, drops what was queued, and may be repeated."""
    pair = Pair()
    first, second = pair.call(), pair.call()
    pair.clear()
    pair.client.send_messages(first, [b"dropped"])
    pair.client.reset(first)
    pair.client.reset(first)
    pair.server.reset(second, 11)
    pair.run()
    assert pair.to_server == [events.CallReset(first, CANCEL)]
    assert pair.to_client == [events.CallReset(second, 11)]
    assert (pair.client.open_calls, pair.server.open_calls) == (0, 0)


def test_nothing_happens_on_a_call_that_is_over() -> None:
    """Whoever is late with a call that ended meanwhile does no harm."""
    pair = Pair()
    stream_id = pair.call()
    pair.client.reset(stream_id)
    pair.run()
    pair.server.send_initial_metadata(stream_id)
    pair.server.compress_answers(stream_id)
    pair.server.send_messages(stream_id, [b"x"])
    pair.server.send_trailers(stream_id)
    pair.server.reset(stream_id)
    pair.server.consumed(stream_id, [b"x"])
    pair.client.end_request(stream_id)
    assert pair.server.queued(stream_id) == 0
    assert pair.server.data_to_send() == b""


def test_misuse() -> None:
    """Messages behind the end, a second beginning and a second status are mistakes of the caller."""
    pair = Pair()
    stream_id = pair.call()
    pair.client.end_request(stream_id)
    with pytest.raises(LocalProtocolError, match="no message can follow"):
        pair.client.send_messages(stream_id, [b"x"])
    pair.run()
    with pytest.raises(LocalProtocolError, match="no message can follow"):
        pair.client.send_messages(stream_id, [b"x"])
    pair.server.send_initial_metadata(stream_id)
    with pytest.raises(LocalProtocolError, match="sent already"):
        pair.server.send_initial_metadata(stream_id)
    pair.server.send_trailers(stream_id)
    with pytest.raises(LocalProtocolError, match="has its status"):
        pair.server.send_trailers(stream_id)


def test_early_answer_stops_the_request() -> None:
    """A server that answers before the request has ended tells the client to stop, by NO_ERROR behind its trailers."""
    bare = Bare(ServerConnection())
    bare.request()
    bare.run()
    bare.core.send_trailers(1)
    bare.run()
    (trailers,) = bare.heard_of(h2.events.ResponseReceived)
    assert (b"grpc-status", b"0") in trailers.headers
    (reset,) = bare.heard_of(h2.events.StreamReset)
    assert reset.error_code == h2.errors.ErrorCodes.NO_ERROR
    assert bare.core.open_calls == 0


def test_early_answer_reaches_our_client() -> None:
    """Our client takes an early answer as the end of the call, whatever it had queued, and resets its side."""
    pair = Pair()
    stream_id = pair.call()
    pair.client.send_messages(stream_id, [bytes(8 * limits.MIB)] * 2)
    pair.run()
    assert pair.client.queued(stream_id) > 0
    pair.server.send_trailers(stream_id, StatusCode.ABORTED)
    pair.run()
    assert pair.to_client == [events.CallEnded(stream_id, StatusCode.ABORTED, "", b"", [])]
    assert pair.client.queued(stream_id) == 0
    assert not pair.client.has_queued


def test_compressed_answers() -> None:
    """Answers are compressed where it was asked for and the peer takes it; single ones can be left as they are."""
    pair = Pair()
    stream_id = pair.call()
    pair.server.compress_answers(stream_id)
    pair.server.send_messages(stream_id, [bytes(100_000)])
    assert pair.server.queued(stream_id) < 1000
    pair.server.send_messages(stream_id, [bytes(100)], compress=False)
    pair.server.send_trailers(stream_id)
    pair.run()
    got = [m for event in pair.to_client if isinstance(event, events.MessagesReceived) for m in event.messages]
    assert got == [bytes(100_000), bytes(100)]


def test_compression_needs_a_peer_that_takes_it() -> None:
    """A peer that did not say that it takes gzip gets none, nor does a call whose answer has begun."""
    bare = Bare(ServerConnection())
    bare.request()
    bare.request((b"grpc-accept-encoding", b"identity,gzip"), stream_id=3)
    bare.run()
    bare.core.compress_answers(1)
    bare.core.send_messages(1, [b"x"])
    bare.core.send_messages(3, [b"x"])
    bare.core.compress_answers(3)
    bare.core.send_messages(3, [b"y"])
    bare.run()
    assert bare.data(1) == encode_messages([b"x"])
    assert bare.data(3) == encode_messages([b"x", b"y"])
    assert all(b"grpc-encoding" not in dict(event.headers) for event in bare.heard_of(h2.events.ResponseReceived))


# -- requests of a strange peer ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "status"), [({b":method": b"GET"}, b"405"), ({b"content-type": b"text/plain"}, b"415")]
)
def test_requests_that_are_no_grpc(changes: dict[bytes, bytes], status: bytes) -> None:
    """What is no gRPC gets an HTTP answer and nobody hears of it; the connection goes on."""
    bare = Bare(ServerConnection())
    bare.peer.send_headers(1, [(name, changes.get(name, value)) for name, value in REQUEST], end_stream=True)
    bare.request(stream_id=3)
    bare.run()
    (response,) = bare.heard_of(h2.events.ResponseReceived)
    assert (b":status", status) in response.headers
    assert [event.stream_id for event in bare.events if isinstance(event, events.CallReceived)] == [3]
    assert bare.core.open_calls == 1


@pytest.mark.parametrize(
    ("extra", "code", "text"),
    [
        ((b"grpc-encoding", b"zstd"), b"12", b"'zstd' is not supported"),
        ((b"grpc-timeout", b"soon"), b"13", b"malformed grpc-timeout"),
        ((b"x-bin", b"!"), b"13", b"is not base64"),
    ],
)
def test_requests_with_broken_headers(extra: tuple[bytes, bytes], code: bytes, text: bytes) -> None:
    """A request that cannot be understood is answered with a status that says why and what is understood."""
    bare = Bare(ServerConnection())
    bare.request(extra, end=True)
    bare.run()
    (response,) = bare.heard_of(h2.events.ResponseReceived)
    fields = dict(response.headers)
    assert (fields[b":status"], fields[b"grpc-status"]) == (b"200", code)
    assert fields[b"grpc-accept-encoding"] == b"identity, gzip"
    assert text in fields[b"grpc-message"]
    assert bare.events == []
    assert bare.core.open_calls == 0


def test_malformed_request() -> None:
    """A malformed header list resets its stream and nothing else."""
    bare = Bare(ServerConnection())
    bare.request((b"connection", b"close"))
    bare.request(stream_id=3)
    bare.run()
    (reset,) = bare.heard_of(h2.events.StreamReset)
    assert (reset.stream_id, reset.error_code) == (1, h2.errors.ErrorCodes.PROTOCOL_ERROR)
    assert [event.stream_id for event in bare.events if isinstance(event, events.CallReceived)] == [3]


def test_spaces_around_a_value() -> None:
    """A file name that begins with a space arrives as it is and ends nothing."""
    bare = Bare(ServerConnection())
    bare.request((b"include-patterns", b" x "))
    bare.run()
    assert bare.events == [events.CallReceived(1, "/a.B/C", [("include-patterns", " x ")], None)]


@pytest.mark.parametrize("headers", [[], [(b"grpc-encoding", b"zstd")], [(b"connection", b"x")]])
def test_request_and_reset_in_the_same_bytes(headers: list[tuple[bytes, bytes]]) -> None:
    """A call that is over when we first hear of it is reported and over, or not at all; nothing is raised."""
    bare = Bare(ServerConnection())
    bare.request(*headers)
    bare.peer.send_data(1, encode_messages([bytes(100)]))
    bare.peer.reset_stream(1, CANCEL)
    bare.run()
    assert [type(event) for event in bare.events] in (
        [],
        [events.CallReceived, events.MessagesReceived, events.CallReset],
    )
    assert bare.core.open_calls == 0


def test_other_method_and_reset_in_the_same_bytes() -> None:
    """An HTTP request that was reset at once needs no answer."""
    bare = Bare(ServerConnection())
    bare.peer.send_headers(1, [(b":method", b"GET"), *REQUEST[1:]])
    bare.peer.reset_stream(1)
    bare.run()
    assert bare.events == []
    assert bare.core.open_calls == 0


def test_broken_message_and_reset_in_the_same_bytes() -> None:
    """A call that broke the rules and was reset behind it is over once."""
    bare = Bare(ServerConnection())
    bare.request()
    bare.peer.send_data(1, b"\x09\0\0\0\0")
    bare.peer.reset_stream(1)
    bare.run()
    assert [type(event) for event in bare.events] == [events.CallReceived, events.CallReset]


@pytest.mark.parametrize("begun", [False, True])
@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"\0" + (limits.MAX_MESSAGE + 1).to_bytes(4, "big"), b"8"),
        (b"\x02\0\0\0\0", b"13"),
        (b"\x01\0\0\0\x01x", b"13"),
    ],
)
def test_broken_messages(data: bytes, code: bytes, begun: bool) -> None:
    """A message that cannot be taken ends its call with a status, in headers of its own or in trailers."""
    bare = Bare(ServerConnection())
    bare.request()
    bare.run()
    if begun:
        bare.core.send_messages(1, [b"begun"])
    bare.run()
    bare.peer.send_data(1, data)
    bare.peer.send_data(1, bytes(10), end_stream=True)
    bare.run()
    (ending,) = bare.heard_of(h2.events.TrailersReceived if begun else h2.events.ResponseReceived)
    assert (b"grpc-status", code) in ending.headers
    assert bare.events[-1][:2] == (1, int(h2.errors.ErrorCodes.PROTOCOL_ERROR))
    assert bare.core.open_calls == 0


def test_request_that_ends_within_a_message() -> None:
    """Half a message at the end of a request is an error of the call."""
    bare = Bare(ServerConnection())
    bare.request()
    bare.peer.send_data(1, b"\0\0\0\0\x05abc", end_stream=True)
    bare.run()
    (response,) = bare.heard_of(h2.events.ResponseReceived)
    assert (b"grpc-status", b"13") in response.headers
    assert [type(event) for event in bare.events] == [events.CallReceived, events.CallReset]


def test_compressed_request() -> None:
    """A request may be compressed when it says so."""
    bare = Bare(ServerConnection())
    bare.request((b"grpc-encoding", b"gzip"))
    bare.peer.send_data(1, encode_messages([b"x" * 100], compress=True))
    bare.run()
    assert bare.events[-1] == events.MessagesReceived(1, [b"x" * 100])


def test_trailers_of_a_request() -> None:
    """A request may end in trailers, which say nothing; malformed ones are an error of the call."""
    bare = Bare(ServerConnection())
    bare.request()
    bare.request(stream_id=3)
    bare.peer.send_headers(1, [(b"a", b"b")], end_stream=True)
    bare.peer.send_headers(3, [(b"connection", b"b")], end_stream=True)
    bare.run()
    assert bare.events[-2] == events.RequestEnded(1)
    assert bare.events[-1][:2] == (3, 1)


def test_data_behind_the_answer_is_told_in_words() -> None:
    """The GOAWAY over DATA on a call that is long over says what was wrong, not only on which stream."""
    bare = Bare(ServerConnection())
    bare.request(end=True)
    bare.run()
    bare.core.send_trailers(1)
    bare.run()
    with pytest.raises(RemoteProtocolError, match="a frame on stream 1, which is closed") as caught:
        bare.core.receive_data(b"\0\0\x01\0\0\0\0\0\x01x")
    assert caught.value.error_code == h2.errors.ErrorCodes.STREAM_CLOSED
    assert bare.core.data_to_send().endswith(b"\0\0\0\x05a frame on stream 1, which is closed")


def test_data_behind_the_end() -> None:
    """A peer that goes on after its half-close loses the call and not the connection."""
    bare = Bare(ServerConnection())
    bare.request(end=True)
    bare.run()
    bare.events += bare.core.receive_data(b"\0\0\x01\0\0\0\0\0\x01x")
    assert [type(event) for event in bare.events] == [events.CallReceived, events.RequestEnded, events.CallReset]
    assert bare.core.open_calls == 0
    assert not bare.core.terminated


# -- answers of a strange peer -----------------------------------------------------------------------------------------


def answered(*frames: tuple[list[tuple[bytes, bytes]], bool], data: bytes | None = None) -> list[events.Event]:
    """Return what our client hears of a call that is answered with header lists, and with data behind the first."""
    bare = Bare(ClientConnection())
    stream_id = bare.core.start_call("/a.B/C")
    bare.run()
    for headers, end in frames:
        bare.peer.send_headers(stream_id, headers, end_stream=end)
        if data is not None and not end:
            bare.peer.send_data(stream_id, data, end_stream=len(frames) == 1)
            data = None
    bare.run()
    assert bare.core.open_calls == 0
    return bare.events


def test_trailers_only() -> None:
    """An answer of one header list is a status, and its metadata are trailers."""
    assert answered(([*RESPONSE, (b"grpc-status", b"5"), (b"a", b"b")], True)) == [
        events.CallEnded(1, StatusCode.NOT_FOUND, "", b"", [("a", "b")])
    ]


@pytest.mark.parametrize(
    ("status", "code"),
    [(b"404", StatusCode.UNIMPLEMENTED), (b"503", StatusCode.UNAVAILABLE), (b"abc", StatusCode.UNKNOWN)],
)
def test_http_answers(status: bytes, code: StatusCode) -> None:
    """An answer that is HTTP and not gRPC becomes the status that stands for it, and its body is not read."""
    headers = [(b":status", status), (b"content-type", b"text/html")]
    for got in (answered((headers, True)), answered((headers, False), data=b"\xff" * 100)):
        ended = got[-1]
        assert isinstance(ended, events.CallEnded)
        assert ended.code is code
        assert "not gRPC" in ended.message


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ([(b":status", b"200"), (b"content-type", b"text/html")], StatusCode.UNKNOWN),
        ([(b":status", b"200")], StatusCode.UNKNOWN),
        ([(b":status", b"503"), (b"content-type", b"application/grpc")], StatusCode.UNAVAILABLE),
    ],
)
def test_an_answer_that_is_no_grpc_does_not_end_well(headers: list[tuple[bytes, bytes]], code: StatusCode) -> None:
    """A grpc-status of 0 makes no success of an answer whose messages were not read; any other counts."""
    for frames in [((headers, False), (OK, True)), (([*headers, *OK], True),)]:
        ended = answered(*frames, data=None if len(frames) == 1 else b"\0\0\0\0\x02hi")[-1]
        assert isinstance(ended, events.CallEnded)
        assert ended.code is code
        assert ended.message.startswith("the answer is not gRPC")
    (began, ended) = answered((headers, False), ([(b"grpc-status", b"5")], True), data=b"\0\0\0\0\x02hi")
    assert isinstance(began, events.InitialMetadata)
    assert ended == events.CallEnded(1, StatusCode.NOT_FOUND, "", b"", [])


def test_other_content_type() -> None:
    """A 200 of something else is no gRPC either."""
    (ended,) = answered(([(b":status", b"200")], True))
    assert isinstance(ended, events.CallEnded)
    assert ended.code is StatusCode.UNKNOWN


def test_answer_without_a_status() -> None:
    """A gRPC answer that ends without trailers, or with trailers that say nothing, is UNKNOWN."""
    for got in (answered((RESPONSE, False), data=b""), answered((RESPONSE, False), ([(b"a", b"b")], True))):
        ended = got[-1]
        assert isinstance(ended, events.CallEnded)
        assert (ended.code, ended.message) == (StatusCode.UNKNOWN, "the call ended without a grpc-status")


def test_answer_that_ends_within_a_message() -> None:
    """Half a message before an OK is INTERNAL; before another status it does not matter."""
    ended = answered((RESPONSE, False), (OK, True), data=b"\0\0\0\0\x05abc")[-1]
    assert isinstance(ended, events.CallEnded)
    assert (ended.code, ended.message) == (StatusCode.INTERNAL, "the answer ended 8 bytes into a message")
    ended = answered((RESPONSE, False), ([(b"grpc-status", b"10")], True), data=b"\0\0\0\0\x05abc")[-1]
    assert isinstance(ended, events.CallEnded)
    assert ended.code is StatusCode.ABORTED


def test_broken_answers() -> None:
    """Messages and header lists that cannot be taken end the call INTERNAL."""
    cases = [
        answered((RESPONSE, False), data=b"\x02\0\0\0\0"),
        answered(([*RESPONSE, (b"connection", b"x")], False)),
        answered((RESPONSE, False), ([*OK, (b"Bad", b"x")], True)),
    ]
    for got in cases:
        ended = got[-1]
        assert isinstance(ended, events.CallEnded)
        assert ended.code is StatusCode.INTERNAL


def test_broken_metadata_hides_no_status() -> None:
    """Trailers with a bad binary value still say how the call ended."""
    got = answered(([*RESPONSE, (b"grpc-status", b"5"), (b"x-bin", b"!"), (b"a", b"b")], True))
    assert got == [events.CallEnded(1, StatusCode.NOT_FOUND, "", b"", [("a", "b")])]


def test_informational_answers() -> None:
    """A 1xx before the answer is passed over."""
    got = answered(([(b":status", b"103")], False), ([*RESPONSE, *OK], True))
    assert got == [events.CallEnded(1, StatusCode.OK, "", b"", [])]


@pytest.mark.parametrize("status", [b"2" * 5000, b"0200", b"99", b"x", b""])
def test_an_http_status_has_three_digits(status: bytes) -> None:
    """Any other, even one that Python refuses to read as a number, is that of an answer that is no gRPC."""
    (ended,) = answered(([(b":status", status), *RESPONSE[1:]], True))
    assert isinstance(ended, events.CallEnded)
    assert ended.code is StatusCode.UNKNOWN
    assert ended.message.startswith("the answer is not gRPC: HTTP status 0")


def test_compressed_answer() -> None:
    """An answer may be compressed when it says so."""
    got = answered(
        ([*RESPONSE, (b"grpc-encoding", b"gzip")], False), (OK, True), data=encode_messages([b"x"], compress=True)
    )
    assert got[1] == events.MessagesReceived(1, [b"x"])


def test_answer_behind_a_reset() -> None:
    """What was on its way when we reset a call is dropped, frame by frame."""
    bare = Bare(ClientConnection())
    stream_id = bare.core.start_call("/a.B/C")
    bare.run()
    bare.peer.send_headers(stream_id, RESPONSE)
    bare.peer.send_data(stream_id, encode_messages([b"x"]))
    bare.peer.send_headers(stream_id, OK, end_stream=True)
    late = bare.peer.data_to_send()
    bare.core.reset(stream_id)
    assert bare.core.receive_data(late) == []


def test_answer_and_reset_in_the_same_bytes() -> None:
    """A whole answer with a NO_ERROR reset behind it ends the call once, with its status."""
    bare = Bare(ClientConnection())
    stream_id = bare.core.start_call("/a.B/C")
    bare.run()
    bare.peer.send_headers(stream_id, [*RESPONSE, *OK], end_stream=True)
    bare.peer.reset_stream(stream_id, 0)
    bare.run()
    assert bare.events == [events.CallEnded(stream_id, StatusCode.OK, "", b"", [])]


def test_frames_behind_a_broken_answer() -> None:
    """Of several frames that arrive together only the first that breaks the rules counts."""
    bare = Bare(ClientConnection())
    stream_id = bare.core.start_call("/a.B/C")
    bare.run()
    bare.peer.send_headers(stream_id, [*RESPONSE, (b"connection", b"x")])
    bare.peer.send_data(stream_id, encode_messages([b"x"]))
    bare.peer.send_headers(stream_id, OK, end_stream=True)
    bare.run()
    assert [type(event) for event in bare.events] == [events.CallEnded]


# -- flow control ------------------------------------------------------------------------------------------------------


def flood(bare: Bare[Any], stream_id: int, message: bytes, total: int) -> int:
    """Let the peer send copies of ``message`` as far as the windows go; return how many bytes it got rid of."""
    data = encode_messages([message])
    sent = 0
    while sent < total:
        if bare.peer.local_flow_control_window(stream_id) < len(data):
            break
        size = bare.peer.max_outbound_frame_size
        for start in range(0, len(data), size):
            bare.peer.send_data(stream_id, data[start : start + size])
        sent += len(data)
        bare.run()
    return sent


def test_stream_window_waits_for_the_handler() -> None:
    """A peer fills the window of a call that nobody reads, then stops; reading lets it go on."""
    bare = Bare(ServerConnection())
    bare.request()
    bare.run()
    message = bytes(60_000)
    sent = flood(bare, 1, message, 100 * limits.MIB)
    assert limits.STREAM_WINDOW - 2 * len(message) < sent <= limits.STREAM_WINDOW
    for event in bare.events:
        if isinstance(event, events.MessagesReceived):
            bare.core.consumed(1, event.messages)
    bare.run()
    assert flood(bare, 1, message, limits.MIB) >= limits.MIB


def test_empty_messages_are_bounded_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Messages without a body cost their prefix: an endless row of them stops when nobody reads."""
    monkeypatch.setattr(limits, "STREAM_WINDOW", 256 * 1024)
    bare = Bare(ServerConnection())
    bare.request()
    bare.run()
    row = encode_messages([b""] * 10_000)
    sent = 0
    while bare.peer.local_flow_control_window(1) >= len(row):
        assert sent < 2 * limits.STREAM_WINDOW
        for start in range(0, len(row), 16_000):
            bare.peer.send_data(1, row[start : start + 16_000])
        sent += len(row)
        bare.run()
    assert sent <= limits.STREAM_WINDOW


def test_unread_calls_do_not_starve_the_others() -> None:
    """Calls that nobody reads fill their own windows; one that is read goes on, until memory sets a bound."""
    bare = Bare(ServerConnection())
    message = bytes(60_000)
    stuck = limits.MAX_UNREAD // limits.STREAM_WINDOW - 1
    for number in range(stuck):
        bare.request(stream_id=2 * number + 1)
        bare.run()
        assert flood(bare, 2 * number + 1, message, 100 * limits.MIB) > limits.STREAM_WINDOW - 2 * len(message)
    assert bare.core.send_window > 0
    bare.request(stream_id=999)
    bare.run()
    for _ in range(40):
        bare.events.clear()
        assert flood(bare, 999, message, limits.MIB) >= limits.MIB
        for event in bare.events:
            if isinstance(event, events.MessagesReceived):
                bare.core.consumed(999, event.messages)
        bare.run()


def test_unread_bytes_are_bounded() -> None:
    """Many calls that nobody reads shut the connection's window; the end of one opens it again."""
    bare = Bare(ServerConnection())
    message = bytes(60_000)
    stream_id = -1
    total = 0
    while bare.peer.outbound_flow_control_window > 2 * len(message):
        stream_id += 2
        bare.request(stream_id=stream_id)
        bare.run()
        total += flood(bare, stream_id, message, 100 * limits.MIB)
        assert total <= limits.MAX_UNREAD + limits.CONNECTION_WINDOW + limits.STREAM_WINDOW
    for number in range(1, stream_id + 1, 2):
        bare.core.reset(number)
    bare.run()
    assert bare.peer.outbound_flow_control_window > limits.CONNECTION_WINDOW // 2


def test_dead_calls_give_their_bytes_back() -> None:
    """What arrives for calls that are over, or that failed, does not shrink the connection's window for good."""
    bare = Bare(ServerConnection())
    message = encode_messages([bytes(16_000)])
    for number in range(300):
        stream_id = 2 * number + 1
        bare.request(stream_id=stream_id)
        bare.run()
        for _ in range(8):
            bare.peer.send_data(stream_id, message)
        late = bare.peer.data_to_send()
        bare.core.reset(stream_id)
        bare.core.receive_data(late)
        bare.run()
    assert bare.peer.outbound_flow_control_window >= limits.CONNECTION_WINDOW // 4


@pytest.mark.parametrize("client_side", [False, True])
def test_message_larger_than_the_window(client_side: bool) -> None:
    """A message of the largest size passes through the stream's window in several openings, in both directions."""
    pair = Pair()
    stream_id = pair.call()
    message = bytes(limits.MAX_MESSAGE)
    sender, heard = (pair.client, pair.to_server) if client_side else (pair.server, pair.to_client)
    sender.send_messages(stream_id, [message])
    pair.run()
    assert heard[-1] == events.MessagesReceived(stream_id, [message])


def test_windows_of_the_peer_are_kept() -> None:
    """No more is sent than the peer's window allows; opening it, or a new setting, lets the rest go."""
    bare = Bare(ServerConnection(), settings={SettingCodes.INITIAL_WINDOW_SIZE: 10})
    bare.request()
    bare.run()
    bare.core.send_messages(1, [bytes(95)])
    bare.core.send_trailers(1)
    bare.run()
    assert len(bare.data()) == 10
    assert bare.core.has_queued
    bare.peer.increment_flow_control_window(20, 1)
    bare.run()
    assert len(bare.data()) == 30
    bare.peer.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: 5})
    bare.run()
    bare.peer.increment_flow_control_window(4, 1)
    bare.run()
    assert len(bare.data()) == 30
    assert bare.core.queued(1) == 70
    bare.peer.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: 1000})
    bare.run()
    assert bare.data() == encode_messages([bytes(95)])
    assert len(bare.heard_of(h2.events.TrailersReceived)) == 1
    assert not bare.core.has_queued


def test_frames_are_no_larger_than_the_peer_takes() -> None:
    """The peer's largest frame is kept, also when it changes."""
    bare = Bare(ServerConnection(), settings={SettingCodes.INITIAL_WINDOW_SIZE: 1_000_000})
    bare.request()
    bare.run()
    bare.core.send_messages(1, [bytes(50_000)])
    bare.run()
    assert max(len(event.data) for event in bare.heard_of(h2.events.DataReceived)) == 16_384
    bare.peer.update_settings({SettingCodes.MAX_FRAME_SIZE: 20_000})
    bare.run()
    bare.heard.clear()
    bare.peer.increment_flow_control_window(1_000_000)
    bare.run()
    bare.core.send_messages(1, [bytes(50_000)])
    bare.run()
    assert max(len(event.data) for event in bare.heard_of(h2.events.DataReceived)) == 20_000


def test_window_updates_for_strangers() -> None:
    """A window that opens for a call with nothing to send changes nothing."""
    bare = Bare(ServerConnection())
    bare.request()
    bare.run()
    bare.peer.increment_flow_control_window(5, 1)
    bare.core.send_initial_metadata(1)
    bare.core.send_messages(1, [])
    bare.run()
    bare.peer.increment_flow_control_window(5, 1)
    bare.peer.increment_flow_control_window(5)
    bare.run()
    assert bare.data() == b""


# -- fairness ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("nearly_used_up", [False, True])
def test_small_answers_overtake_bulk(nearly_used_up: bool) -> None:
    """With eight saturating streams, at most 256 KiB of theirs come between a small call and its answer.

    Also when the connection's window is used up down to the reserve, which belongs to small answers.
    """
    window = 2**31 - 1
    bare = Bare(ServerConnection(), settings={SettingCodes.INITIAL_WINDOW_SIZE: window})
    if not nearly_used_up:
        bare.peer.increment_flow_control_window(window - 65_535)
    for number in range(8):
        bare.request(stream_id=2 * number + 1)
    bare.run()
    for number in range(8):
        bare.core.send_messages(2 * number + 1, [bytes(4 * limits.MIB)])
    for _ in range(4):
        bare.heard += bare.peer.receive_data(bare.core.data_to_send())
    if nearly_used_up:
        assert bare.core.data_to_send() == b""
        assert bare.core.send_window == limits.WINDOW_RESERVE
    bare.request(stream_id=101, end=True)
    bare.core.receive_data(bare.peer.data_to_send())
    bare.core.send_messages(101, [b"healthy"])
    bare.core.send_trailers(101)
    between = 0
    while True:
        data = bare.core.data_to_send()
        assert data
        heard = bare.peer.receive_data(data)
        between += sum(len(e.data) for e in heard if isinstance(e, h2.events.DataReceived) and e.stream_id != 101)
        if any(isinstance(event, h2.events.TrailersReceived) for event in heard):
            break
    assert between <= 256 * 1024


def test_bulk_streams_share() -> None:
    """Saturating streams get the socket in equal slices."""
    window = 2**31 - 1
    bare = Bare(ServerConnection(), settings={SettingCodes.INITIAL_WINDOW_SIZE: window})
    bare.peer.increment_flow_control_window(window - 65_535)
    for number in range(8):
        bare.request(stream_id=2 * number + 1)
    bare.run()
    for number in range(8):
        bare.core.send_messages(2 * number + 1, [bytes(4 * limits.MIB)])
    for _ in range(20):
        data = bare.core.data_to_send()
        assert len(data) < 2 * limits.WRITE_SIZE
        bare.heard += bare.peer.receive_data(data)
    got = [len(bare.data(2 * number + 1)) for number in range(8)]
    assert max(got) - min(got) <= limits.SLICE


# -- the end of a connection -------------------------------------------------------------------------------------------


def test_close() -> None:
    """A GOAWAY is the last thing that is said; what is queued is cut off, and nothing is heard any more."""
    pair = Pair()
    stream_id = pair.call()
    pair.server.send_messages(stream_id, [b"x"])
    pair.server.close(2, b"why")
    pair.server.close()
    pair.run()
    assert pair.server.terminated
    assert not pair.server.has_queued
    assert pair.to_client[-1] == events.GoAwayReceived(2, 1, b"why")
    pair.server.send_initial_metadata(stream_id)
    pair.server.send_messages(stream_id, [b"x"])
    pair.server.send_trailers(stream_id)
    pair.server.ping(b"12345678")
    pair.server.consumed(stream_id, [])
    pair.server.reset(stream_id)
    assert pair.server.data_to_send() == b""
    assert pair.server.receive_data(b"whatever") == []
    assert pair.client.terminated
    with pytest.raises(RpcError, match="ending the connection") as caught:
        pair.client.start_call("/a.B/C")
    assert caught.value.code is StatusCode.UNAVAILABLE


def test_gentle_goaway_lets_calls_end() -> None:
    """Behind a GOAWAY without an error no call is opened; those in flight end, later ones were never taken."""
    bare = Bare(ClientConnection())
    first, second = bare.core.start_call("/a.B/C"), bare.core.start_call("/a.B/D")
    bare.run()
    bare.core.send_messages(first, [b"not lost"])
    goaway = b"\0\0\x08\x07\0\0\0\0\0" + first.to_bytes(4, "big") + bytes(4)
    bare.peer.send_headers(second, RESPONSE)
    bare.events += bare.core.receive_data(goaway + bare.peer.data_to_send())
    assert bare.events == [events.GoAwayReceived(0, first, b""), events.CallReset(second, 7)]
    assert not bare.core.exhausted
    assert not bare.core.terminated
    with pytest.raises(RpcError):
        bare.core.start_call("/a.B/C")
    bare.run()
    assert bare.data(first) == encode_messages([b"not lost"])
    bare.peer.send_headers(first, [*RESPONSE, *OK], end_stream=True)
    bare.run()
    assert bare.events[-1] == events.CallEnded(first, StatusCode.OK, "", b"", [])
    assert bare.core.exhausted


def test_goaway_forgets_no_headers() -> None:
    """Headers that wait to be sent when a GOAWAY arrives are sent: without them the header tables would differ."""
    bare = Bare(ServerConnection())
    bare.request()
    bare.run()
    bare.core.send_initial_metadata(1, [("a", "b")])
    bare.core.receive_data(b"\0\0\x08\x07\0\0\0\0\0" + bytes(8))
    bare.core.send_trailers(1)
    bare.run()
    assert len(bare.heard_of(h2.events.ResponseReceived)) == 1
    assert len(bare.heard_of(h2.events.TrailersReceived)) == 1


def test_too_many_calls() -> None:
    """A peer that takes no more calls makes opening one UNAVAILABLE."""
    bare = Bare(ClientConnection(), settings={SettingCodes.MAX_CONCURRENT_STREAMS: 1})
    assert not bare.core.is_full
    bare.core.start_call("/a.B/C", timeout=float("inf"))
    assert bare.core.is_full
    with pytest.raises(RpcError, match="takes no more calls") as caught:
        bare.core.start_call("/a.B/C")
    assert (caught.value.code, caught.value.method) == (StatusCode.UNAVAILABLE, "/a.B/C")
    bare.run()
    (request,) = bare.heard_of(h2.events.RequestReceived)
    assert b"grpc-timeout" not in dict(request.headers)


def test_broken_http2() -> None:
    """A violation of HTTP/2 is a RemoteProtocolError with its code, leaves a GOAWAY to send, and is the last news."""
    core = ServerConnection()
    core.data_to_send()
    with pytest.raises(RemoteProtocolError, match="broke HTTP/2") as caught:
        core.receive_data(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    assert caught.value.error_code == 1
    assert core.terminated
    assert core.data_to_send()[3] == 7
    assert core.receive_data(b"more") == []


def test_large_header_lists() -> None:
    """A header list of nearly 1 MiB is taken, and one over the bound ends its call only."""
    bare = Bare(ServerConnection())
    patterns = [(b"exclude-patterns", b"x" * 4000)] * (limits.MAX_HEADER_LIST // 4048 - 1)
    bare.request(*patterns)
    bare.run()
    (received,) = bare.events
    assert isinstance(received, events.CallReceived)
    assert len(received.metadata) == len(patterns)
    bare.request(*patterns, *patterns[:2], stream_id=3)
    bare.run()
    (answer,) = bare.heard_of(h2.events.ResponseReceived)
    assert answer.stream_id == 3
    assert dict(answer.headers)[b"grpc-status"] == b"8"
    bare.request(stream_id=5)
    bare.run()
    assert bare.core.open_calls == 2


def test_closed_streams_are_forgotten() -> None:
    """Thousands of calls leave nothing behind in either core."""
    pair = Pair()
    for _ in range(300):
        stream_id = pair.call()
        pair.client.end_request(stream_id)
        pair.run()
        pair.server.send_trailers(stream_id)
        pair.run()
        pair.clear()
    for core in (pair.client, pair.server):
        assert core.open_calls == 0
        assert len(core._h2.streams) <= 2
        assert core._outbox.streams == {}
    assert (pair.client.unread, pair.server.unread) == (0, 0)


def test_inflated_messages_count() -> None:
    """What a call holds is counted as it lies in memory, inflated."""
    bare = Bare(ServerConnection())
    bare.request((b"grpc-encoding", b"gzip"))
    body = zlib.compress(bytes(limits.MIB), wbits=31)
    bare.peer.send_data(1, b"\x01" + len(body).to_bytes(4, "big") + body)
    bare.run()
    assert bare.core.unread == limits.MIB + 5
    bare.core.reset(1)
    assert bare.core.unread == 0


@pytest.mark.parametrize(("length", "end"), [(b"x", False), (b"2", False), (b"9", True)])
def test_bad_content_length_ends_its_call_only(length: bytes, end: bool) -> None:
    """A length that is malformed, or that DATA does not keep, resets the one stream; the others go on."""
    bare = Bare(ServerConnection())
    bare.peer.send_headers(1, [*REQUEST, (b"content-length", length)])
    bare.peer.send_data(1, encode_messages([b""]), end_stream=end)
    bare.request(stream_id=3)
    bare.run()
    assert [event.error_code for event in bare.heard_of(h2.events.StreamReset)] == [1]
    assert isinstance(bare.events[-1], events.CallReceived)
    assert bare.core.open_calls == 1
    assert not bare.core.terminated


def test_an_answer_shorter_than_it_said() -> None:
    """The call fails, the connection stays."""
    bare = Bare(ClientConnection())
    stream_id = bare.core.start_call("/a.B/C")
    bare.run()
    bare.peer.send_headers(stream_id, [*RESPONSE, (b"content-length", b"9")])
    bare.peer.send_data(stream_id, encode_messages([b""]))
    bare.peer.send_headers(stream_id, [(b"grpc-status", b"0")], end_stream=True)
    bare.run()
    assert bare.events[-1].code is StatusCode.INTERNAL  # type: ignore[union-attr]  # else the assertion fails too
    assert not bare.core.terminated


def test_pings_of_a_peer_that_does_not_read_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Answers that pile up end the connection with ENHANCE_YOUR_CALM, and take bounded memory until then."""
    # Else so many frames would end it before their answers do.
    monkeypatch.setattr(limits, "MAX_IDLE_FRAMES", 10**9)
    bare = Bare(ServerConnection())
    pings = (b"\0\0\x08\x06\0\0\0\0\0" + bytes(8)) * 10_000
    for _ in range(limits.MAX_PENDING_CONTROL // len(pings) + 1):
        bare.core.receive_data(pings)
    with pytest.raises(RemoteProtocolError) as caught:
        bare.core.receive_data(pings)
    assert caught.value.error_code == 11
    assert limits.MAX_PENDING_CONTROL < len(bare.core.data_to_send()) <= limits.MAX_PENDING_CONTROL + len(pings) + 200
    assert bare.core.terminated


def test_what_handlers_say_is_not_the_doing_of_the_peer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Responses with much metadata that wait for a busy writer are no flood of the peer's."""
    monkeypatch.setattr(limits, "MAX_PENDING_CONTROL", 1000)
    pair = Pair()
    calls = [pair.client.start_call("/a.B/C") for _ in range(10)]
    pair.run()
    for stream_id in calls:
        pair.server.send_initial_metadata(stream_id, [("large", "x" * limits.MAX_PENDING_CONTROL)])
    pair.client.ping(bytes(8))
    pair.server.receive_data(pair.client.data_to_send())
    pair.run()
    assert len([event for event in pair.to_client if isinstance(event, events.InitialMetadata)]) == len(calls)


def test_pings_of_a_peer_that_reads_are_answered() -> None:
    """What the peer takes in between does not count."""
    bare = Bare(ServerConnection())
    pings = (b"\0\0\x08\x06\0\0\0\0\0" + bytes(8)) * 400
    for _ in range(20):
        bare.core.receive_data(pings)
        assert len(bare.core.data_to_send()) == len(pings)


@pytest.mark.parametrize(
    "where",
    [
        {"method": "/ä"},
        {"method": "/a", "authority": "ä"},
        {"method": "/a\r\nb"},
        {"method": ""},
        {"method": "x"},
        {"method": "/a", "timeout": float("nan")},
    ],
)
def test_a_call_that_headers_cannot_carry(where: dict[str, Any]) -> None:
    """What is no method, no authority or no time is our caller's mistake, and harms nothing."""
    bare = Bare(ClientConnection())
    with pytest.raises(LocalProtocolError):
        bare.core.start_call(**where)
    assert bare.core.open_calls == 0


def test_messages_do_not_inflate_without_bound() -> None:
    """Compressed messages that nobody takes end their call where they would inflate beyond what may be unread."""
    bare = Bare(ServerConnection())
    data = encode_messages([bytes(limits.MAX_MESSAGE)], compress=True)
    size = bare.peer.max_outbound_frame_size
    for stream_id in range(1, 13, 2):
        bare.request((b"grpc-encoding", b"gzip"), stream_id=stream_id)
        for start in range(0, len(data), size):
            bare.peer.send_data(stream_id, data[start : start + size])
        bare.run()
        assert bare.core.unread <= limits.MAX_UNREAD
    held = [event for event in bare.events if isinstance(event, events.MessagesReceived)]
    lost = [event for event in bare.events if isinstance(event, events.CallReset)]
    assert (len(held), len(lost)) == (3, 3)
    answered = [dict(event.headers) for event in bare.heard_of(h2.events.ResponseReceived)]
    assert [answer[b"grpc-status"] for answer in answered] == [b"8"] * 3
    assert all(b"inflated" in answer[b"grpc-message"] for answer in answered)
