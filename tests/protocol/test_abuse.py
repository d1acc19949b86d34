"""Floods, stalls and bombs: each ends with bounded memory and ENHANCE_YOUR_CALM, or costs what honest bytes cost.

Counted are frames, bytes and calls, never seconds: the clock of the accounts stands still until a test moves it.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import h2.events
import h2.settings
import hpack
import pytest

from mobysession import limits
from mobysession.errors import RemoteProtocolError, StatusCode
from mobysession.protocol import events
from mobysession.protocol.abuse import Abuse, Account
from mobysession.protocol.client import ClientConnection
from mobysession.protocol.framing import encode_messages
from mobysession.protocol.hpack import HeaderEncoder
from mobysession.protocol.server import ServerConnection
from tests.fuzz.seeds import PREFACE, conversations, frames_of
from tests.protocol.peers import REQUEST, Bare

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from mobysession.protocol.connection import GrpcConnection
    from mobysession.protocol.events import Event

CALM = 0xB
SETTINGS = b"\0\0\0\4\0\0\0\0\0"
#: The bounds as they are. Most tests have a tenth of them, which takes a tenth of the time.
REAL = {name: getattr(limits, name) for name in ("MAX_IDLE_FRAMES", "MAX_EARLY_ENDS")}
#: More frames than any flood may have before it is ended.
ENDLESS = 3 * REAL["MAX_IDLE_FRAMES"] // 10


@pytest.fixture(autouse=True)
def small_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make floods short."""
    for name, bound in REAL.items():
        monkeypatch.setattr(limits, name, bound // 10)


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        """Return the time."""
        return self.now


def frame(kind: int, flags: int, stream_id: int, body: bytes = b"") -> bytes:
    """Return one frame."""
    return len(body).to_bytes(3, "big") + bytes((kind, flags)) + stream_id.to_bytes(4, "big") + body


#: One block for every call, without the table: the same bytes can be sent on any stream.
_BLOCK = hpack.Encoder().encode([(*field, True) for field in REQUEST])


def opening(stream_id: int, *, end: bool = False) -> bytes:
    """Return the HEADERS that open a call."""
    return frame(1, 5 if end else 4, stream_id, _BLOCK)


def polite(core: GrpcConnection, clock: Clock | None = None) -> GrpcConnection:
    """Let a core hear a proper beginning; its clock stands still, or is ``clock``."""
    core._h2.abuse.__init__(clock or Clock())  # type: ignore[misc]  # the same object, which the frame reader holds too
    core.receive_data((b"" if core.client_side else PREFACE) + SETTINGS)
    core.data_to_send()
    return core


def server(clock: Clock | None = None) -> ServerConnection:
    """Return a server that has heard a proper beginning."""
    core = polite(ServerConnection(), clock)
    assert isinstance(core, ServerConnection)
    return core


def flood(core: GrpcConnection, frames: Iterator[bytes], handle: Callable[[Event], object] | None = None) -> int:
    """Send ``frames`` one by one, reading all answers, until the core has had enough; return how many it took.

    The core must say so with ENHANCE_YOUR_CALM, and the goodbye must be the last thing that it says.
    """
    for number, data in enumerate(itertools.islice(frames, ENDLESS)):
        try:
            heard = core.receive_data(data)
        except RemoteProtocolError as error:
            assert error.error_code == CALM  # noqa: PT017 - most of the frames must raise nothing
            goodbye = frames_of(core.data_to_send())[-1]
            assert (goodbye[3], goodbye[13:17]) == (7, CALM.to_bytes(4, "big"))
            assert core.terminated
            assert core.receive_data(data) == []
            return number
        for event in heard:
            if handle is not None:
                handle(event)
        core.data_to_send()
    return ENDLESS


# -- frames that carry nothing -----------------------------------------------------------------------------------------

IDLE = {
    "PING": frame(6, 0, 0, bytes(8)),
    "PING ACK": frame(6, 1, 0, bytes(8)),
    "SETTINGS": SETTINGS,
    "SETTINGS ACK": frame(4, 1, 0),
    "window setting": frame(4, 0, 0, b"\0\4\0\0\0\1"),
    "PRIORITY": frame(2, 0, 7, b"\0\0\0\1\0"),
    "PRIORITY of idle streams": frame(2, 0, 2**31 - 1, b"\0\0\0\0\0"),
    "WINDOW_UPDATE": frame(8, 0, 0, b"\0\0\0\1"),
    "WINDOW_UPDATE of a call": frame(8, 0, 1, b"\0\0\0\1"),
    "WINDOW_UPDATE of a closed call": frame(8, 0, 3, b"\0\0\0\1"),
    "RST_STREAM of a closed call": frame(3, 0, 3, b"\0\0\0\x08"),
    "unknown": frame(0xC8, 0xFF, 0, b"?"),
    "unknown and large": frame(0xC8, 0, 1, bytes(10_000)),
}


@pytest.mark.parametrize("kind", IDLE)
@pytest.mark.parametrize("client_side", [False, True])
def test_frames_that_carry_nothing(kind: str, client_side: bool) -> None:
    """A flood of them is ended after as many as the bound says, although the peer reads every answer."""
    core = polite(ClientConnection() if client_side else ServerConnection())
    if isinstance(core, ClientConnection):
        core.start_call("/a.B/C")
        core.reset(core.start_call("/a.B/C"))
    else:
        core.receive_data(opening(1) + opening(3))
        core.reset(3)
    assert abs(flood(core, itertools.repeat(IDLE[kind])) - limits.MAX_IDLE_FRAMES) < 10


def test_the_real_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten thousand PINGs, and a thousand calls taken back, are what a peer may have ahead of its honest work."""
    for name, bound in REAL.items():
        monkeypatch.setattr(limits, name, bound)
    assert flood(server(), itertools.repeat(IDLE["PING"] * 10)) == 1000 - 1
    assert flood(server(), wasting(WASTE["rapid reset"])) == 1000


def test_as_many_at_once_as_may_come_one_by_one() -> None:
    """It makes no difference how many frames are in one read."""
    core = server()
    # The SETTINGS of the beginning count too.
    assert flood(core, itertools.repeat(IDLE["PING"] * 100)) == limits.MAX_IDLE_FRAMES // 100 - 1


@pytest.mark.parametrize("over", [False, True])
def test_empty_data(over: bool) -> None:
    """DATA frames without a byte are ended too, on a call and behind its end; eight count as one other frame."""
    core = server()
    core.receive_data(opening(1))
    if over:
        core.reset(1)
    assert flood(core, itertools.repeat(frame(0, 0, 1) * 8)) in range(
        limits.MAX_IDLE_FRAMES - 10, limits.MAX_IDLE_FRAMES
    )


def test_empty_headers() -> None:
    """HEADERS without a field open calls that must be reset, and that only so often."""
    core = server()
    assert flood(core, (frame(1, 5, number, b"") for number in range(1, 2**31, 2))) == limits.MAX_EARLY_ENDS


def test_interim_answers() -> None:
    """A server that answers with 100 Continue for ever is left."""
    core = polite(ClientConnection())
    assert isinstance(core, ClientConnection)
    core.start_call("/a.B/C")
    interim = frame(1, 4, 1, hpack.Encoder().encode([(b":status", b"100", True)]))
    assert abs(flood(core, itertools.repeat(interim)) - limits.MAX_IDLE_FRAMES) < 10


def test_time_forgives() -> None:
    """A peer that sends no more of them than the rate is never ended: a connection may idle for days."""
    clock = Clock()
    core = server(clock)

    def pings() -> Iterator[bytes]:
        while True:
            clock.now += 1 / limits.IDLE_FRAME_RATE
            yield IDLE["PING"]

    assert flood(core, pings()) == ENDLESS


def test_work_forgives() -> None:
    """A peer that sends a message now and then may acknowledge it, and us, with a few frames each time."""
    core = server()
    core.receive_data(opening(1))
    turn = frame(0, 0, 1, encode_messages([b"x"])) + IDLE["WINDOW_UPDATE"] * 2 + IDLE["PING"]

    def handle(event: Event) -> None:
        if isinstance(event, events.MessagesReceived):
            core.consumed(event.stream_id, event.messages)

    flood(core, itertools.repeat(turn, limits.MAX_IDLE_FRAMES // 2), handle)
    assert not core.terminated


def test_a_reader_that_acknowledges_all_is_no_flood() -> None:
    """A peer that reads a large answer and opens both windows after each KiB goes on for ever."""
    core = server()
    core.receive_data(opening(1) + frame(8, 0, 0, (2**30).to_bytes(4, "big")))
    core.send_messages(1, [bytes(60 * limits.KIB)])
    core.data_to_send()

    def reading() -> Iterator[bytes]:
        for _ in range(limits.MAX_IDLE_FRAMES * 3 // 4):
            core.send_messages(1, [bytes(limits.KIB - 5)])
            yield frame(8, 0, 1, b"\0\0\4\0") + frame(8, 0, 0, b"\0\0\4\0")

    flood(core, reading())
    assert not core.terminated


def test_windows_of_single_bytes() -> None:
    """A peer that opens its window by one byte at a time gets its bytes so, but not for ever (CVE-2019-9511)."""
    core = polite(ServerConnection())
    core.receive_data(frame(4, 0, 0, b"\0\4\0\0\0\0") + opening(1))
    assert isinstance(core, ServerConnection)
    core.send_messages(1, [bytes(limits.MIB)])
    assert flood(core, itertools.repeat(IDLE["WINDOW_UPDATE of a call"])) <= 1.01 * limits.MAX_IDLE_FRAMES


# -- bytes one by one --------------------------------------------------------------------------------------------------


def test_a_message_in_single_bytes() -> None:
    """A message of some size may come byte by byte, as its sender pleases; it is put together and reported once."""
    core = server()
    core.receive_data(opening(1))
    message = bytes(range(256)) * (7 * limits.MAX_IDLE_FRAMES // 256)
    said = encode_messages([message])
    heard: list[Event] = []
    frames = [frame(0, 0, 1, said[place : place + 1]) for place in range(len(said))]
    for start in range(0, len(frames), 64):
        heard += core.receive_data(b"".join(frames[start : start + 64]))
    assert heard == [events.MessagesReceived(1, [message])]
    assert not core.terminated


def test_a_message_of_millions_of_single_bytes() -> None:
    """One that never ends that way is not waited for (CVE-2019-9518)."""
    core = server()
    core.receive_data(opening(1) + frame(0, 0, 1, b"\0\0\xf0\0\0"))
    taken = flood(core, itertools.repeat(frame(0, 0, 1, b"x") * 16))
    assert taken in range(limits.MAX_IDLE_FRAMES // 2 - 10, limits.MAX_IDLE_FRAMES // 2 + 1)


def test_single_bytes_cost_the_same_first_and_last(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was received of a message is not looked at again for each byte that follows."""
    core = server()
    core.receive_data(opening(1) + frame(0, 0, 1, b"\0\0\x0f\0\0"))
    reader = core._calls[1].reader
    copied = 0
    original = reader._cut

    def counting(*args: Any) -> object:
        nonlocal copied
        copied += 1
        return original(*args)

    monkeypatch.setattr(reader, "_cut", counting)
    for _ in range(5000):
        core.receive_data(frame(0, 0, 1, b"x"))
    assert reader.buffered == 5005
    assert copied == 0


# -- calls that are thrown away ----------------------------------------------------------------------------------------


def wasting(how: Callable[[int], bytes]) -> Iterator[bytes]:
    """Open a call after the other, each followed by what ends it."""
    for number in range(1, 2**31, 2):
        yield opening(number) + how(number)


WASTE: dict[str, Callable[[int], bytes]] = {
    "rapid reset": lambda number: frame(3, 0, number, b"\0\0\0\x08"),
    "window of nothing": lambda number: frame(8, 0, number, bytes(4)),
    "window over the top": lambda number: frame(8, 0, number, b"\x7f\xff\xff\xff"),
    "depends on itself": lambda number: frame(2, 0, number, number.to_bytes(4, "big") + b"\0"),
    "half a PRIORITY": lambda number: frame(2, 0, number, b"\0\0"),
    "behind its end": lambda number: frame(0, 1, number) + frame(0, 0, number, b"x"),
    "malformed trailers": lambda number: frame(1, 5, number, b"\x82"),
    "malformed message": lambda number: frame(0, 0, number, b"\7\0\0\0\0"),
    "half a message": lambda number: frame(0, 1, number, b"\0\0\0\0\5ab"),
}


@pytest.mark.parametrize("how", WASTE)
def test_calls_that_are_thrown_away(how: str) -> None:
    """Calls taken back before their answer, or lost by what we must reset, end the connection after as many as allowed.

    CVE-2023-44487 (rapid reset) and CVE-2025-8671 (made you reset).
    """
    core = server()
    assert flood(core, wasting(WASTE[how])) == limits.MAX_EARLY_ENDS
    assert core.open_calls == 0


#: The beginning of one, as long as an honest peer sends it at once.
TOO_LARGE = b"\0\xff\xff\xff\xff" + bytes(4 * limits.KIB)


def test_messages_that_are_too_large_are_no_abuse() -> None:
    """A peer that hears for each call that its message is too large may try for ever."""
    assert flood(server(), wasting(lambda number: frame(0, 0, number, TOO_LARGE))) == ENDLESS


def test_messages_that_are_too_large_at_once() -> None:
    """More of them than calls may be open, before the peer takes an answer, do count: their handlers run together."""
    core = server()
    number = limits.MAX_EARLY_ENDS + limits.MAX_CONCURRENT_STREAMS + 1
    calls = wasting(lambda stream_id: frame(0, 0, stream_id, TOO_LARGE))
    for said in itertools.islice(calls, number - 1):
        core.receive_data(said)
    with pytest.raises(RemoteProtocolError, match="reset before they were answered"):
        core.receive_data(next(calls))


@pytest.mark.parametrize(("timeout", "waited", "free"), [(b"1S", 1, True), (b"1S", 0.5, False), (b"1n", 0, False)])
def test_a_caller_whose_time_is_up(timeout: bytes, waited: float, free: bool) -> None:
    """A reset when the call's own timeout has passed is none of the early ones; no timeout is too short for that."""
    clock = Clock()
    core = server(clock)
    block = hpack.Encoder().encode([(*field, True) for field in [*REQUEST, (b"grpc-timeout", timeout)]])
    for number in range(1, 21, 2):
        core.receive_data(frame(1, 4, number, block))
        clock.now += waited
        core.receive_data(frame(3, 0, number, b"\0\0\0\x08"))
    assert core._h2.abuse._ends.spent == (0 if free else 10)


def test_all_in_one_read() -> None:
    """A thousand and one in one read start no call at all: nothing of it is reported."""
    core = server()
    said = b"".join(itertools.islice(wasting(WASTE["rapid reset"]), limits.MAX_EARLY_ENDS + 1))
    with pytest.raises(RemoteProtocolError, match="reset before they were answered"):
        core.receive_data(said)


def test_a_daemon_that_cancels_its_calls() -> None:
    """Five thousand calls, each reset once its answer has begun, are how engines end their DiffCopies; and no abuse."""
    core = server()

    def copying() -> Iterator[bytes]:
        for number in range(1, 10_001, 2):
            yield opening(number)
            yield frame(3, 0, number, b"\0\0\0\x08")

    def handle(event: Event) -> None:
        if isinstance(event, events.CallReceived):
            core.send_messages(event.stream_id, [b"stat"])

    assert flood(core, copying(), handle) == ENDLESS
    assert core.open_calls == 0


def test_answers_make_good_for_resets() -> None:
    """Calls that come to their end pay for as many that do not."""
    core = server()

    def half() -> Iterator[bytes]:
        for number in range(1, 12_001, 4):
            yield opening(number, end=True)
            yield opening(number + 2) + frame(3, 0, number + 2, b"\0\0\0\x08")

    def handle(event: Event) -> None:
        if isinstance(event, events.RequestEnded):
            core.send_trailers(event.stream_id, StatusCode.OK)

    assert flood(core, half(), handle) == ENDLESS


def test_a_client_is_not_harmed_by_resets() -> None:
    """A server may end each of our calls; they were our own, and no more than we opened."""
    core = polite(ClientConnection())
    assert isinstance(core, ClientConnection)
    for _ in range(2 * limits.MAX_EARLY_ENDS):
        stream_id = core.start_call("/a.B/C")
        core.data_to_send()
        (heard,) = core.receive_data(frame(3, 0, stream_id, b"\0\0\0\7"))
        assert isinstance(heard, events.CallReset)


# -- headers -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 1024, 16_384])
def test_headers_that_do_not_end(size: int) -> None:
    """CONTINUATION frames of any size are taken up to a bound of frames and bytes, then the connection is ended."""
    core = server()
    core.receive_data(frame(1, 0, 1, _BLOCK))
    taken = flood(core, itertools.repeat(frame(9, 0, 1, bytes(size))))
    assert taken * size <= 2 * limits.MAX_HEADER_LIST
    assert taken <= limits.MAX_CONTINUATIONS + 2 * limits.MAX_HEADER_LIST // limits.KIB


def bomb(core: ServerConnection, stream_id: int, size: int) -> list[Event]:
    """Send a small block whose list has ``size`` times 4 KiB: one large entry of the table, again and again."""
    entry = b"\x40\x01a" + b"\x7f" + bytes((0x80 | (3900 - 127) & 0x7F, (3900 - 127) >> 7)) + b"v" * 3900
    first = _BLOCK + (entry if stream_id == 1 else b"\xbe") + b"\xbe" * size
    return core.receive_data(frame(1, 5, stream_id, first))


def test_a_header_bomb() -> None:
    """A block that unfolds to more than twice what is allowed ends the connection."""
    core = server()
    with pytest.raises(RemoteProtocolError) as caught:
        bomb(core, 1, 2 * limits.MAX_HEADER_LIST // 3900 + 2)
    assert caught.value.error_code == CALM


def test_metadata_of_many_calls() -> None:
    """Header lists that are allowed each are not all at once; the calls over that get a status, and room comes back."""
    core = server()
    size = limits.MAX_HEADER_LIST // 3950
    taken = 0
    for number in range(1, 101, 2):
        taken += sum(isinstance(event, events.CallReceived) for event in bomb(core, number, size))
    assert taken == limits.MAX_HEADERS_HELD // limits.MAX_HEADER_LIST + 1
    assert core.open_calls == taken
    assert core._headers_held <= limits.MAX_HEADERS_HELD
    for number in range(1, 101, 2):
        core.reset(number)
    assert core._headers_held == 0
    assert isinstance(bomb(core, 101, size)[0], events.CallReceived)


def test_a_call_with_too_much_metadata_is_told() -> None:
    """The answer to such a call is RESOURCE_EXHAUSTED, with size and bound, and the calls before it go on."""
    bare = Bare(ServerConnection())
    bare.core._headers_held = limits.MAX_HEADERS_HELD
    bare.request(end=True)
    bare.run()
    (answer,) = bare.heard_of(h2.events.ResponseReceived)
    fields = dict(answer.headers)
    assert fields[b"grpc-status"] == b"8"
    assert b"vs. %d bytes" % limits.MAX_HEADERS_HELD in fields[b"grpc-message"]
    assert bare.events == []


def test_what_we_remember_of_our_own_headers() -> None:
    """A peer that offers a table of gigabytes does not make us keep all that we ever said, or search through it."""
    core = server()
    core.receive_data(frame(4, 0, 0, b"\0\1\xff\xff\xff\xff"))
    for number in range(1, 2001, 2):
        core.receive_data(opening(number, end=True))
        core.send_trailers(number, StatusCode.UNKNOWN, f"message {number}")
        core.data_to_send()
    assert len(core._h2.encoder.header_table.dynamic_entries) < limits.HEADER_TABLE / 32


@pytest.mark.parametrize("sizes", [[0, 0], [100, 100, 4096], [0, 4096], [4096, 0, 0, 200, 200], [50, 0, 2**31, 2**31]])
def test_a_table_that_is_resized_again_and_again(sizes: list[int]) -> None:
    """The next block says the smallest and the last size, whatever came between, and the peer understands it."""
    encoder, decoder = HeaderEncoder(), hpack.Decoder()
    decoder.decode(encoder.encode([(b"a", b"b")]))
    for size in sizes:
        encoder.header_table_size = size
    assert len(encoder.table_size_changes) <= 2
    decoder.max_allowed_table_size = min(sizes[-1], limits.HEADER_TABLE)
    for _ in range(2):
        assert decoder.decode(encoder.encode([(b"a", b"b"), (b"c", b"d")]), raw=True) == [(b"a", b"b"), (b"c", b"d")]


def test_settings_by_the_thousand() -> None:
    """A SETTINGS frame with more entries than anybody needs ends the connection (CVE-2020-11080)."""
    core = server()
    core.receive_data(frame(4, 0, 0, b"\0\4\0\0\0\1" * limits.MAX_SETTINGS))
    with pytest.raises(RemoteProtocolError) as caught:
        core.receive_data(frame(4, 0, 0, b"\0\4\0\0\0\1" * (limits.MAX_SETTINGS + 1)))
    assert caught.value.error_code == CALM


def test_settings_that_nobody_knows_are_not_kept() -> None:
    """However many numbers a peer makes up, nothing of them stays."""
    core = server()
    before = len(core._h2.remote_settings)
    for start in range(100, 5000, 30):
        body = b"".join(number.to_bytes(2, "big") + bytes(4) for number in range(start, start + 30))
        core.receive_data(frame(4, 0, 0, body))
    assert len(core._h2.remote_settings) == before


# -- calls that stand still --------------------------------------------------------------------------------------------


def test_thousands_of_idle_calls() -> None:
    """As many calls as we said are open, the others are refused one by one, and none of it adds up."""
    core = server()
    for number in range(1, 1801, 2):
        core.receive_data(opening(number))
        core.data_to_send()
    assert core.open_calls == limits.MAX_CONCURRENT_STREAMS
    assert len(core._h2.streams) <= limits.MAX_CONCURRENT_STREAMS + 1


def test_messages_without_their_ends() -> None:
    """Beginnings of large messages on many calls are kept up to a bound; the call over it gets a status."""
    core = server()
    heard: list[Event] = []
    part = bytes(limits.MIB - 100)
    for number in range(1, 301, 2):
        heard += core.receive_data(opening(number) + frame(0, 0, number, b"\0\0\xff\0\0"))
        for start in range(0, len(part), limits.MAX_FRAME):
            heard += core.receive_data(frame(0, 0, number, part[start : start + limits.MAX_FRAME]))
        assert core._inbox.incomplete <= limits.MAX_INCOMPLETE
        core.data_to_send()
    lost = [event for event in heard if isinstance(event, events.CallReset)]
    assert len(lost) == 150 - limits.MAX_INCOMPLETE // len(part)
    assert not core.terminated
    for number in range(1, 301, 2):
        core.reset(number)
    assert core._inbox.incomplete == 0


def test_a_window_that_never_opens() -> None:
    """What is queued for it waits where it is; other calls with a window are answered past it."""
    bare = Bare(ServerConnection(), settings={h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: 0})
    for number in (1, 3):
        bare.request(stream_id=number, end=True)
    bare.run()
    bare.core.send_messages(1, [bytes(100_000)])
    bare.core.send_messages(3, [b"health"])
    bare.run()
    assert bare.core.queued(1) == 100_005
    bare.peer.increment_flow_control_window(100, 3)
    bare.core.send_trailers(3)
    bare.run()
    assert bare.data(3) == encode_messages([b"health"])
    assert any(event.stream_id == 3 for event in bare.heard_of(h2.events.StreamEnded))
    assert bare.core.queued(1) == 100_005
    bare.core.reset(1)
    assert not bare.core.has_queued


def test_windows_that_never_open() -> None:
    """What many such calls have queued is bounded together, and a call with a small answer still has room."""
    bare = Bare(ServerConnection(), settings={h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: 0})
    for number in range(1, 201, 2):
        bare.request(stream_id=number, end=True)
    bare.run()
    for number in range(1, 199, 2):
        # What a handler does: it queues a message, and waits.
        while bare.core.has_room(number):
            bare.core.send_messages(number, [bytes(limits.MIB)])
    queued = sum(bare.core.queued(number) for number in range(1, 201, 2))
    assert limits.MAX_QUEUED < queued <= limits.MAX_QUEUED + 101 * (limits.MIB + 5)
    bare.core.send_messages(199, [b"health"])
    assert bare.core.has_room(199)
    assert not bare.core.has_room(197)
    for number in range(1, 191, 2):
        bare.core.reset(number)
    assert bare.core.has_room(197)


# -- honest peers ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(conversations()))
def test_real_engines_have_nothing_to_fear(name: str) -> None:
    """A whole recorded build leaves the accounts where they were, to within what a handful of calls may owe."""
    conversation = conversations()[name]
    core: GrpcConnection = ServerConnection() if name.startswith("session-") else ClientConnection()
    core._h2.abuse.__init__(Clock())  # type: ignore[misc]  # as in `polite`
    if isinstance(core, ClientConnection):
        for _ in range(conversation.calls):
            core.start_call("/a.B/C")
    for data in frames_of(conversation.said):
        for event in core.receive_data(data):
            # A daemon resets what was answered; the least that an answer does is begin.
            if isinstance(event, events.CallReceived) and isinstance(core, ServerConnection):
                core.send_initial_metadata(event.stream_id)
        core.data_to_send()
    assert core._h2.abuse._frames.spent < limits.MAX_IDLE_FRAMES / 50
    assert core._h2.abuse._ends.spent == 0


def test_an_account() -> None:
    """What is earned is not more than was spent, and time pays back only what it says."""
    clock = Clock()
    account = Account(10, 2, clock)
    account.earn(100)
    account.spent += 11
    assert account.is_over()
    clock.now += 0.5
    assert not account.is_over()
    account.spent += 4
    clock.now += 1
    assert account.is_over()
    assert account.spent == 12


def test_the_accounts_are_apart() -> None:
    """Frames do not count as calls, nor calls as frames."""
    abuse = Abuse(Clock())
    for _ in range(limits.MAX_IDLE_FRAMES):
        abuse.frame(6, 8)
    assert abuse.complaint() is None
    for _ in range(limits.MAX_EARLY_ENDS + 1):
        abuse.call_wasted()
    assert abuse.complaint() is not None
    abuse.call_ended()
    assert abuse.complaint() is None
