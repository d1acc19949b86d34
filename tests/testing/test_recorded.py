"""The fake against recordings: what it sends is what engines were seen to send."""

from __future__ import annotations

import h2.events
import pytest
import trio

from mobysession.errors import RpcError, StatusCode
from mobysession.testing import ENGINE_20_10, FakeDaemon

ENGINES = ("engine-20.10.24", "engine-28.5.2", "engine-api1.56")


@pytest.mark.parametrize("engine", ENGINES)
async def test_the_opening_is_that_of_an_engine_to_the_byte(engine, recordings):
    """From the status line to the end of the empty SETTINGS, the fake answers buildx's own request as engines do."""
    recording = recordings[engine]
    async with FakeDaemon() as daemon:
        stream = await daemon.dial()
        await stream.send_all(recording.request)
        received = b""
        while len(received) < len(recording.opening):
            received += await stream.receive_some()
        assert received == recording.opening


async def test_calls_have_the_header_fields_of_an_engine_in_its_order(recordings, bare_server, tmp_path):
    """The fields of DiffCopy and GetSecret are those that 28.5.2 sent for the same requests, user agent included."""
    recording = recordings["engine-28.5.2"]
    dockerfile, ignore_file, context, secret = recording.calls
    async with FakeDaemon() as daemon:
        client = bare_server(await daemon.dial())
        await client.stream.send_all(recording.request)
        await client.until(h2.events.SettingsAcknowledged)
        caller = await daemon.wait_session(recording.session_id())
        for filters, expected in (
            ({"dir_name": "dockerfile", "follow_paths": _values(dockerfile, "followpaths")}, dockerfile),
            ({"dir_name": "context", "follow_paths": [".dockerignore"]}, ignore_file),
            ({"dir_name": "context", "exclude": _values(context, "exclude-patterns")}, context),
        ):
            assert await _call_fields(client, _receive(caller, tmp_path, filters)) == _sorted_metadata(expected)
        assert await _call_fields(client, _get_secret(caller)) == secret


def _values(fields, key):
    return [value for name, value in fields if name == key]


def _sorted_metadata(fields):
    """Return the fields with the order of BuildKit's own keys undone: Go's maps have none."""
    own = [field for field in fields if field[0] in ("dir-name", "followpaths", "exclude-patterns")]
    return [field for field in fields if field not in own] + sorted(own, key=lambda field: field[0])


def _receive(caller, tmp_path, filters):
    async def receive():
        with pytest.raises(RpcError):
            await caller.diffcopy(filters.pop("dir_name"), tmp_path, **filters)

    return receive


def _get_secret(caller):
    async def get_secret():
        with pytest.raises(RpcError):
            await caller.get_secret("tok")

    return get_secret


async def _call_fields(client, call):
    count = sum(isinstance(event, h2.events.RequestReceived) for event in client.events) + 1
    async with trio.open_nursery() as nursery:
        nursery.start_soon(call)
        event = await client.until(h2.events.RequestReceived, count)
        await client.answer(event.stream_id, status="2")
    return [(str(name), str(value)) for name, value in event.headers]


async def test_a_health_check_of_20_10_has_its_fields(recordings, bare_server, autojump_clock):
    """On the schedule of 20.10 the check comes a second in, with a timeout of ten seconds in the unit grpc-go chose."""
    recording = recordings["engine-20.10.24"]
    async with FakeDaemon(health=ENGINE_20_10) as daemon:
        client = bare_server(await daemon.dial())
        await client.stream.send_all(recording.request)
        started = trio.current_time()
        event = await client.until(h2.events.RequestReceived)
        assert trio.current_time() - started == pytest.approx(1.0)
        seen = dict(event.headers)
        expected = dict(recording.health)
        # Grpc-go's agent and compressor are those of 28.5.2 here, and its clock had lost 86 microseconds already.
        del seen["user-agent"], seen["grpc-accept-encoding"], expected["user-agent"]
        assert (seen.pop("grpc-timeout"), expected.pop("grpc-timeout")) == ("10000000u", "9999914u")
        assert seen == expected


async def test_data_is_followed_by_a_window_update_and_a_probe(recordings, bare_server):
    """The first bytes of an answer are given back at once, and grpc-go's PING goes out to measure the line."""
    recording = recordings["engine-28.5.2"]
    async with FakeDaemon() as daemon, trio.open_nursery() as nursery:
        client = bare_server(await daemon.dial())
        await client.stream.send_all(recording.request)
        await client.until(h2.events.SettingsAcknowledged)
        caller = await daemon.wait_session(recording.session_id())
        nursery.start_soon(caller.get_secret, "tok")
        event = await client.until(h2.events.RequestReceived)
        before = len(client.received)
        await client.answer(event.stream_id, b"\x0a\x06s3cr3t")
        await client.until(h2.events.PingReceived)
        window_update = bytes((0, 0, 4, 8, 0, 0, 0, 0, 0, 0, 0, 0, 13))
        probe = bytes((0, 0, 8, 6, 0, 0, 0, 0, 0, 2, 4, 16, 16, 9, 14, 7, 7))
        tail = bytes(client.received[before:])
        assert tail.endswith(window_update + probe)


async def test_the_goodbye_is_that_of_grpc_go(recordings, bare_server):
    """A daemon that gives a session up says so with the words and the error code that were seen."""
    recording = recordings["engine-28.5.2"]
    async with FakeDaemon() as daemon:
        client = bare_server(await daemon.dial())
        await client.stream.send_all(recording.request)
        await client.until(h2.events.SettingsAcknowledged)
        caller = await daemon.wait_session()
        caller.channel.say_goodbye()
        event = await client.until(h2.events.ConnectionTerminated)
        frame = recording.goaway
        assert event.additional_data == frame[17:]
        assert event.error_code == int.from_bytes(frame[13:17], "big") == 0


async def test_a_ping_answers_with_the_fields_of_an_engine_in_order(recordings):
    """HEAD /_ping differs from that of 28.5.2 in nothing but the date and the packager's suffix of the version."""
    async with FakeDaemon() as daemon:
        stream = await daemon.dial()
        await stream.send_all(b"HEAD /_ping HTTP/1.1\r\nHost: d\r\n\r\n")
        seen = (await stream.receive_some()).decode().split("\r\n")
    expected = recordings["engine-28.5.2"].ping.replace("+dfsg4", "").split("\r\n")
    assert [_undated(line) for line in seen if line] == [_undated(line) for line in expected if line]


def _undated(line: str) -> str:
    return "Date" if line.startswith("Date: ") else line


async def test_a_missing_status_is_no_success(recordings, bare_server):
    """A session that ends a call without trailers gets what grpc-go makes of it: INTERNAL, not OK."""
    recording = recordings["engine-28.5.2"]
    async with FakeDaemon() as daemon, trio.open_nursery() as nursery:
        client = bare_server(await daemon.dial())
        await client.stream.send_all(recording.request)
        await client.until(h2.events.SettingsAcknowledged)
        caller = await daemon.wait_session()
        outcome: list[RpcError] = []

        async def call() -> None:
            with pytest.raises(RpcError) as caught:
                await caller.get_secret("tok")
            outcome.append(caught.value)

        nursery.start_soon(call)
        event = await client.until(h2.events.RequestReceived)
        client.h2.send_headers(event.stream_id, [(":status", "200"), ("content-type", "application/grpc")])
        client.h2.send_data(event.stream_id, b"", end_stream=True)
        await client.flush()
    assert outcome[0].code is StatusCode.INTERNAL
