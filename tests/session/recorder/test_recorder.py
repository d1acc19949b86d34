"""What is recorded of a session, and what never is."""

from __future__ import annotations

import logging
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
import trio

from mobysession import limits
from mobysession._pb.auth_pb2 import CredentialsRequest, CredentialsResponse, FetchTokenResponse
from mobysession._pb.secrets_pb2 import GetSecretResponse
from mobysession.errors import RpcError, SessionOver, StatusCode, UsageError
from mobysession.recording import (
    CallBegan,
    CallOver,
    ConnectionBegan,
    DaemonDone,
    Frame,
    Message,
    RunChanged,
    encode_record,
    read_recording,
)
from mobysession.services.auth import Auth
from mobysession.services.filesync import FileSync
from mobysession.services.secrets import Secrets
from mobysession.session.managed import SessionConfig, SessionManager
from mobysession.session.recorder.recorder import Recorder, record_session, record_sessions
from mobysession.session.recorder.spool import Spool
from mobysession.session.session import Session, open_session
from mobysession.testing import FakeDaemon

if TYPE_CHECKING:
    from pathlib import Path

    from google.protobuf.message import Message as Message_

    from mobysession.recording import Record, Recording
    from mobysession.rpc.registrar import Registrar
    from mobysession.rpc.server import ServerCall

SECRET = b"correct horse battery"


class Echo:
    """Answers what it is asked, and leaks what it was given."""

    def __init__(self, leak: bytes = b"") -> None:
        self.leak = leak

    def register(self, registrar: Registrar) -> None:
        """Add the method."""
        registrar.stream("/test.Echo/Say", self._say)

    async def _say(self, call: ServerCall) -> None:
        await call.send_initial_metadata([("early", self.leak.decode())])
        while (message := await call.receive()) is not None:
            await call.send(message + self.leak)
        raise RpcError(StatusCode.ABORTED, f"no more{self.leak.decode()}", details=self.leak)


async def say(caller: Any, *messages: bytes) -> None:
    """Call the echo."""
    async with caller.channel.open_call("/test.Echo/Say", metadata=[("k", "v")]) as call:
        for message in messages:
            await call.send(message)
            assert await call.receive()
        await call.end()
        with pytest.raises(RpcError):
            await call.receive()


def of(recording: Recording, *kinds: type) -> list[Any]:
    """Return the records of some kinds that are no health check's."""
    health = {record.call for record in recording if isinstance(record, CallBegan) and "Health" in record.method}
    return [record for record in recording if isinstance(record, kinds) and getattr(record, "call", 0) not in health]


def everything(recording: Recording) -> bytes:
    """Return all bytes that a recording holds."""
    found = [encode_record(record) for record in recording]
    found += [bytes(getattr(record, name, None) or b"") for record in recording for name in ("body", "payload")]
    return b"\n".join(found)


async def test_a_call_with_all_that_was_said() -> None:
    """Method, metadata, messages of both sides in order, end and status are there, with numbers and times."""
    async with FakeDaemon() as daemon, open_session(daemon.dialer, Echo()) as session:
        caller = await daemon.wait_session(session.id)
        async with record_session(session) as recorder:
            await say(caller, b"one", b"two")
        await say(caller, b"afterwards")
    recording = recorder.recording
    connection, began, *said, over = of(recording, ConnectionBegan, CallBegan, Message, DaemonDone, CallOver)
    assert (connection.session_id, "/test.echo/say" in connection.methods) == (session.id, True)
    assert (began.method, began.metadata, began.connection) == ("/test.Echo/Say", (("k", "v"),), 1)
    assert [(one.sender, one.body) for one in said if isinstance(one, Message)] == [
        ("daemon", b"one"),
        ("client", b"one"),
        ("daemon", b"two"),
        ("client", b"two"),
    ]
    assert any(isinstance(one, DaemonDone) for one in said)
    assert (over.code, over.message, over.whole) == ("ABORTED", "no more", True)
    assert (over.received, over.sent, over.messages_received, over.messages_sent) == (6, 6, 2, 2)
    assert began.at <= said[0].at <= over.at
    method = recording.summary()["/test.Echo/Say"]
    assert (method.calls, method.failed, method.received, method.sent) == (1, 1, 6, 6)


async def test_a_secret_is_hidden_wherever_it_passes(tmp_path: Path) -> None:
    """A value is hidden in its own answer, and in what was said before anybody knew it, in every form, in the file."""
    asked = 0

    def secret() -> bytes:
        nonlocal asked
        asked += 1
        return SECRET

    (tmp_path / "context").mkdir()
    (tmp_path / "context" / "leak").write_bytes(b"x" * 70_000 + SECRET + b"y" * 70_000)
    services = (Secrets({"token": secret}), Echo(SECRET), FileSync({"context": tmp_path / "context"}))
    async with FakeDaemon() as daemon:
        session = Session(daemon.dialer)
        session.allow(*services)
        async with record_session(session, frames=True) as recorder, session.attach():
            caller = await daemon.wait_session(session.id)
            await say(caller, SECRET)
            await caller.diffcopy("context", tmp_path / "copy")
            assert await caller.get_secret("token") == SECRET
    await recorder.recording.save(tmp_path / "file")
    recording = read_recording(tmp_path / "file")
    assert asked == 1
    assert SECRET not in (tmp_path / "file").read_bytes()
    assert SECRET not in everything(recording)
    assert b"x" * 1000 in everything(recording)
    calls = {record.call: record.method.rpartition("/")[2] for record in of(recording, CallBegan)}
    answers = [record for record in of(recording, Message) if calls[record.call] == "GetSecret"]
    assert [(record.sender, record.body is None) for record in answers] == [("daemon", False), ("client", True)]
    assert answers[1].hidden == ((0, answers[1].size),)
    assert of(recording, Frame)


async def test_credentials_are_hidden() -> None:
    """What a registry's login is, is in no recording; neither is it where another service says it, encoded."""
    import base64

    leak = base64.b64encode(b"ada:" + SECRET)
    services = (Auth({"registry.test": ("ada", SECRET.decode())}), Echo(leak))
    async with FakeDaemon() as daemon, open_session(daemon.dialer, *services) as session:
        caller = await daemon.wait_session(session.id)
        async with record_session(session) as recorder:
            await say(caller, b"hello")
            method = "/moby.filesync.v1.Auth/Credentials"
            answer = await caller.unary(method, CredentialsRequest(Host="registry.test"), CredentialsResponse)
            assert answer.Secret == SECRET.decode()
    found = everything(recorder.recording)
    assert SECRET not in found
    assert leak not in found
    assert b"hello" in found


@pytest.mark.parametrize(
    ("method", "answer"),
    [
        ("/moby.buildkit.secrets.v1.Secrets/GetSecret", GetSecretResponse(data=SECRET)),
        ("/moby.filesync.v1.Auth/Credentials", CredentialsResponse(Username="ada", Secret=SECRET.decode())),
        ("/moby.filesync.v1.Auth/FetchToken", FetchTokenResponse(Token=SECRET.decode())),
    ],
)
async def test_a_secret_of_a_service_that_nobody_knows(method: str, answer: Message_) -> None:
    """What passes by the methods that hand out secrets is learned, in any mode, whoever wrote the service."""

    class Own:
        def register(self, registrar: Registrar) -> None:
            async def hand_out(call: ServerCall) -> None:
                await call.receive()
                await call.send(answer.SerializeToString())

            registrar.stream(method, hand_out)

    async with FakeDaemon() as daemon, open_session(daemon.dialer, Own(), Echo(SECRET)) as session:
        caller = await daemon.wait_session(session.id)
        async with record_session(session) as recorder:
            await say(caller, b"hello")
            recorder.mode = "lightweight"
            assert await caller.unary(method, CredentialsRequest(), type(answer)) == answer
    found = everything(recorder.recording)
    assert SECRET not in found
    assert b"hello" in found


async def test_a_value_of_a_service_that_was_never_asked_for() -> None:
    """What a service knows to be secret is hidden although the daemon has not asked for it."""
    services = (Secrets({"token": SECRET}), Echo(SECRET))
    async with (
        FakeDaemon() as daemon,
        open_session(daemon.dialer, *services) as session,
        record_session(session) as recorder,
    ):
        await say(await daemon.wait_session(session.id), b"hello")
    assert SECRET not in everything(recorder.recording)


async def test_lightweight_has_no_bodies_and_the_mode_may_change() -> None:
    """Lightweight has calls, sizes and times; a call during which the mode changes is not whole."""
    async with FakeDaemon() as daemon, open_session(daemon.dialer, Echo()) as session:
        caller = await daemon.wait_session(session.id)
        async with record_session(session, "lightweight") as recorder:
            await say(caller, b"first")
            async with caller.channel.open_call("/test.Echo/Say") as call:
                await call.send(b"second")
                await call.receive()
                recorder.mode = "full"
                await call.send(b"third")
                await call.receive()
                await call.end()
                with pytest.raises(RpcError):
                    await call.receive()
            await say(caller, b"fourth")
            with pytest.raises(UsageError, match="not 'heavy'"):
                recorder.mode = "heavy"  # type: ignore[assignment]  # that is the question
    recording = recorder.recording
    assert [one.body for one in of(recording, Message)] == [b"third", b"third", b"fourth", b"fourth"]
    assert [(one.received, one.whole) for one in of(recording, CallOver)] == [(5, False), (11, False), (6, True)]


async def test_frames_are_kept_on_demand() -> None:
    """With frames, those of both sides are there from the first byte on; without, none."""
    async with FakeDaemon() as daemon:
        for frames in (True, False):
            session = Session(daemon.dialer)
            session.allow(Echo())
            async with record_session(session, frames=frames) as recorder, session.attach():
                await say(await daemon.wait_session(session.id), b"hello")
            kinds = {(one.sender, one.kind) for one in of(recorder.recording, Frame)}
            assert (kinds >= {(sender, kind) for sender in ("daemon", "client") for kind in (0, 1, 4)}) is frames
            assert bool(kinds) is frames


async def test_frames_that_came_in_one_read_with_their_call() -> None:
    """Payloads of a call with nothing to hide are there, on both sides."""
    async with FakeDaemon() as daemon:
        session = Session(daemon.dialer)
        session.allow(Echo())
        async with record_session(session, frames=True) as recorder, session.attach():
            await say(await daemon.wait_session(session.id), b"hello")
        streams = {record.stream for record in of(recorder.recording, CallBegan)}
        data = [one for one in of(recorder.recording, Frame) if one.kind == 0 and one.length and one.stream in streams]
    assert {one.payload and one.payload[5:] for one in data} == {b"hello"}
    assert {one.sender for one in data} == {"daemon", "client"}


async def test_new_sessions_are_recorded_by_the_innermost() -> None:
    """Each session made inside of a block is recorded, by the innermost recorder, and none behind it."""
    async with FakeDaemon() as daemon:
        async with record_sessions() as outer:
            async with record_sessions() as inner:
                first = Session(daemon.dialer)
            second = Session(daemon.dialer)
            for session in (first, second):
                session.allow(Echo())
                async with session.attach():
                    await say(await daemon.wait_session(session.id), b"hello")
        assert Session(daemon.dialer).observe is None
    assert of(inner.recording, CallBegan) == []
    assert [one.session_id for one in of(outer.recording, ConnectionBegan)] == [second.id]


async def test_one_recorder_a_session() -> None:
    """A session that is recorded is refused to another recorder, and free again afterwards."""
    session = Session(FakeDaemon().dialer)
    async with record_session(session):
        with pytest.raises(UsageError, match="recorded already"):
            Recorder().watch(session)
    Recorder().watch(session)


async def test_an_observer_that_comes_late_does_no_harm() -> None:
    """A recording that begins and ends in the middle of calls has what was in between, and the calls go on."""
    async with FakeDaemon() as daemon, open_session(daemon.dialer, Echo()) as session:
        caller = await daemon.wait_session(session.id)
        async with caller.channel.open_call("/test.Echo/Say") as call:
            await call.send(b"before")
            await call.receive()
            async with (
                record_session(session, frames=True) as recorder,
                caller.channel.open_call("/test.Echo/Say") as inner,
            ):
                await inner.send(b"within")
                await inner.receive()
                await call.send(b"still")
                await call.receive()
            await call.send(b"behind")
            assert await call.receive() == b"behind"
    assert [one.body for one in of(recorder.recording, Message)] == [b"within", b"within"]
    assert of(recorder.recording, Frame) == []


async def test_too_many_secrets_cost_the_bodies(caplog: pytest.LogCaptureFixture) -> None:
    """Where a redactor may have forgotten a value, no body is kept, and a warning says so."""
    names = {f"id{number}": f"value number {number}" for number in range(limits.REDACTED_VALUES)}
    services = (Secrets(names), Echo())
    async with (
        FakeDaemon() as daemon,
        open_session(daemon.dialer, *services) as session,
        record_session(session) as recorder,
    ):
        await say(await daemon.wait_session(session.id), b"value number 0")
    assert [one.body for one in of(recorder.recording, Message)] == [None, None]
    assert "no bodies" in caplog.text
    assert of(recorder.recording, CallOver)[0].sent == 14


# -- the spool ---------------------------------------------------------------------------------------------------------


def message(number: int, size: int) -> Message:
    """Return a message of its own."""
    return Message(at=0, call=number, sender="client", size=size, body=bytes([number % 256]) * size)


async def test_memory_is_bounded_by_a_file() -> None:
    """What is too much goes into a file, in order; a reader sees all of it, whenever it looks."""
    spool = Spool(memory=10_000)
    expected: list[Record] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(spool.keep_writing)
        for number in range(200):
            expected.append(message(number, 1000))
            assert spool.add(expected[-1])
            await trio.lowlevel.checkpoint()
            if number % 40 == 0:
                assert list(spool) == expected
        with trio.fail_after(10):
            while spool.in_memory > 10_000:
                await trio.lowlevel.checkpoint()
        spool.finish()
    assert list(spool) == expected
    assert list(spool) == expected


async def test_a_file_that_is_too_slow_costs_bodies() -> None:
    """Over the bound bodies are left out, and it is told; up to it they are not."""
    spool = Spool(memory=0, behind=3000)
    bounds = [spool.add(message(1, 1000)), spool.add(message(2, 2000 - 512)), spool.add(message(3, 1))]
    assert bounds == [True, True, False]
    assert [isinstance(one, Message) and one.body is None for one in spool] == [False, False, True]


async def test_a_full_disk_ends_the_recording(monkeypatch: pytest.MonkeyPatch, caplog: Any) -> None:
    """Where the file cannot be written the session goes on, a warning is logged, and what was kept stays."""

    def full(**_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tempfile.TemporaryFile", full)
    spool = Spool(memory=10)
    spool.add(message(1, 100))
    with caplog.at_level(logging.WARNING, "mobysession"):
        await spool.keep_writing()
    assert not spool.add(message(2, 1))
    assert list(spool) == [message(1, 100)]
    assert "No space left" in caplog.text


# -- managed sessions --------------------------------------------------------------------------------------------------


async def test_a_managed_session() -> None:
    """It is recorded from the start to the stop, by run; snapshots are of the ends of its runs; None before."""
    async with FakeDaemon() as daemon:
        manager = SessionManager(SessionConfig(dialer=daemon.dialer))
        async with manager.create([Echo()]) as session:

            async def request(managed: Any) -> None:
                await say(await daemon.wait_session(managed.id), b"hello")

            assert session.recording is None
            assert session.snapshot_at(1) is None
            session.stop_recording()
            await (await session.send(request)).result()
            session.start_recording("lightweight")
            await (await session.send(request)).result()
            session.start_recording("full")
            await (await session.send(request)).result()
            session.stop_recording()
            await (await session.send(request)).result()
            recording = session.recording
            session.start_recording()
            assert session.recording is not None
            assert of(session.recording, CallBegan) == []
        with pytest.raises(SessionOver):
            session.start_recording()
    assert recording is not None
    assert [one.run for one in of(recording, CallBegan)] == [2, 3]
    assert [one.body for one in of(recording, Message)] == [b"hello", b"hello"]
    runs = [(one.run, one.state) for one in of(recording, RunChanged)]
    assert runs == [(2, "began"), (2, "ended"), (3, "began"), (3, "ended")]


async def test_snapshots_of_a_managed_session() -> None:
    """A snapshot of a run's end is that of the session then; there is none of a run that was not recorded."""

    async def nothing(managed: Any) -> None:
        await trio.lowlevel.checkpoint()

    async with FakeDaemon() as daemon:
        manager = SessionManager(SessionConfig(dialer=daemon.dialer))
        async with manager.create([]) as session:
            await (await session.send(nothing)).result()
            session.start_recording()
            await (await session.send(nothing)).result()
            await (await session.send(nothing)).result()
            found = [session.snapshot_at(run) for run in range(5)]
            assert [snapshot and snapshot.runs for snapshot in found] == [None, None, 2, 3, None]
            assert found[3] is not None
            assert found[3].session_id == session.id


def test_nothing_is_loaded_without_a_recording() -> None:
    """Neither a session, nor a managed one, nor a build loads what records."""
    code = (
        "import sys, mobysession.build, mobysession.build.build, mobysession.session.managed.manager\n"
        "from mobysession import Session, SessionManager\n"
        "print([name for name in sys.modules if 'record' in name and name.startswith('mobysession')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
