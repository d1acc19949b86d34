"""A recording is played: the same answers are equal, others are told, and what cannot be played is said."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import pytest
import trio
from google.protobuf.empty_pb2 import Empty
from hypothesis import given
from hypothesis import strategies as st

from mobysession._pb import fsutil_pb2
from mobysession.build import build
from mobysession.errors import RpcError, StatusCode
from mobysession.recording import CallOver
from mobysession.services.filesync import FileSync
from mobysession.services.secrets import Secrets
from mobysession.session.recorder.recorder import record_session, record_sessions
from mobysession.session.session import open_session
from mobysession.testing import FakeDaemon, ReplayDaemon, replay
from mobysession.testing.answers import Said, difference, text_differs

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from mobysession.recording import Recording
    from mobysession.rpc.registrar import Attachable, Registrar
    from mobysession.rpc.server import ServerCall
    from mobysession.testing import FakeCaller, ReplayReport

SECRET = b"correct horse battery"
DIFF_COPY = "/moby.filesync.v1.FileSync/DiffCopy"


class Answering:
    """One method, answered by a function."""

    def __init__(self, answer: Callable[[ServerCall], Awaitable[None]]) -> None:
        self.answer = answer

    def register(self, registrar: Registrar) -> None:
        """Add the method."""
        registrar.stream("/test.Any/Call", self.answer)


def saying(*messages: bytes, code: StatusCode = StatusCode.OK, words: str = "", asked: int = 1) -> Answering:
    """Return a service that says this once it was asked so often."""

    async def answer(call: ServerCall) -> None:
        for _ in range(asked):
            await call.receive()
        await call.send_batch(messages)
        if code is not StatusCode.OK:
            raise RpcError(code, words)

    return Answering(answer)


async def ask(caller: FakeCaller) -> None:
    """Call the method with two messages, the second after the first answer."""
    async with caller.channel.open_call("/test.Any/Call", metadata=[("k", "v")]) as call:
        await call.send(b"one")
        try:
            await call.receive()
            await call.send(b"two")
            await call.end()
            while await call.receive() is not None:
                pass
        except RpcError:
            pass


async def recorded(service: Attachable, talk: Callable[[FakeCaller], Awaitable[Any]], **options: Any) -> Recording:
    """Return the recording of a session on which the daemon talks."""
    async with FakeDaemon() as daemon, open_session(daemon.dialer, service) as session:
        caller = await daemon.wait_session(session.id)
        async with record_session(session, **options) as recorder:
            await talk(caller)
    return recorder.recording


async def played(recording: Recording, *services: Attachable, **options: Any) -> ReplayReport:
    """Return what became of a recording that was played to services."""
    async with FakeDaemon() as daemon, open_session(daemon.dialer, *services) as session:
        return await replay(recording, await daemon.wait_session(session.id), **options)


def outcomes(report: ReplayReport) -> list[tuple[str, str]]:
    """Return what became of each call that is no health check."""
    return [(call.outcome, call.why) for call in report.calls if "Health" not in call.method]


async def test_the_same_service_answers_equally() -> None:
    """Metadata, messages in their order, and the end of what the daemon says arrive as they were recorded."""
    heard: list[Any] = []

    async def echo(call: ServerCall) -> None:
        heard.append(call.values("k"))
        while (message := await call.receive()) is not None:
            heard.append(message)
            await call.send(message)
        heard.append(None)

    recording = await recorded(Answering(echo), ask)
    report = await played(recording, Answering(echo))
    assert outcomes(report) == [("equal", "")]
    assert report.is_equal
    assert heard == [["v"], b"one", b"two", None] * 2


@pytest.mark.parametrize(
    ("service", "why"),
    [
        (saying(b"yes", b"other"), "message 2 differs"),
        (saying(b"yes"), "1 messages instead of 2"),
        (saying(b"yes", b"sir", b"!"), "3 messages instead of 2"),
        (saying(b"yes", b"sir", code=StatusCode.ABORTED, words="no"), "ABORTED instead of OK: no"),
    ],
)
async def test_another_answer_is_told(service: Answering, why: str, autojump_clock: object) -> None:
    """Which message differs, how many came, or which status, is said."""
    recording = await recorded(saying(b"yes", b"sir"), ask)
    report = await played(recording, service)
    assert outcomes(report) == [("different", why)]
    assert not report.is_equal
    assert report.render().splitlines()[-1].startswith("0 equal, 1 different, ")


async def test_a_failure_is_compared() -> None:
    """The same failure is equal; the same status for another reason is not."""
    failing = saying(code=StatusCode.NOT_FOUND, words="no such thing")
    recording = await recorded(failing, ask)
    assert outcomes(await played(recording, failing)) == [("equal", "")]
    other = await played(recording, saying(code=StatusCode.NOT_FOUND, words="out of order"))
    assert outcomes(other) == [("different", "NOT_FOUND for another reason: out of order")]


async def test_an_answer_that_does_not_come_is_waited_for_in_bounds(autojump_clock: object) -> None:
    """A service that says nothing where one did is not waited for longer than said."""

    async def deaf(call: ServerCall) -> None:
        await trio.sleep_forever()

    recording = await recorded(saying(b"yes"), ask)
    before = trio.current_time()
    (only,) = outcomes(await played(recording, Answering(deaf), patience=100))
    # No bound above: this clock jumps while threads work, too.
    assert trio.current_time() - before >= 100
    assert only == ("different", "DEADLINE_EXCEEDED instead of OK: the answer does not end")


async def test_a_call_that_was_given_up(autojump_clock: object) -> None:
    """Of a call that the daemon cancelled, what was said until then counts."""

    async def give_up(caller: FakeCaller) -> None:
        async with caller.channel.open_call("/test.Any/Call") as call:
            await call.send(b"one")
            await call.receive()
        await caller.health()

    async def endless(call: ServerCall) -> None:
        await call.send(await call.receive() or b"")
        await trio.sleep_forever()

    recording = await recorded(Answering(endless), give_up)
    assert outcomes(await played(recording, Answering(endless))) == [("equal", "")]
    assert outcomes(await played(recording, saying(b"other"))) == [("different", "message 1 differs")]


async def test_what_is_not_played_is_said() -> None:
    """Calls without bodies, with a secret as their request, left out, or without a host have their reasons."""
    light = await recorded(saying(b"yes"), ask, mode="lightweight")
    report = await played(light, saying(b"yes"))
    assert outcomes(report) == [("skipped", "what was said is not recorded")]
    assert not report.is_equal
    full = await recorded(saying(b"yes"), ask)
    assert outcomes(await played(full, saying(b"yes"), skip=["/test."])) == [("skipped", "it is left out")]
    assert outcomes(await played(full)) == [("different", "it is not hosted")]


async def test_tokens_and_what_has_no_end_are_not_played() -> None:
    """For a token a registry would be asked; of a call that the recording does not end nobody knows what is missing."""

    class Tokens(Answering):
        def register(self, registrar: Registrar) -> None:
            registrar.stream("/moby.filesync.v1.Auth/FetchToken", self.answer)

    async def fetch(caller: FakeCaller) -> None:
        await caller.channel.unary("/moby.filesync.v1.Auth/FetchToken", Empty(), Empty)

    async def answer(call: ServerCall) -> None:
        await call.receive()
        await call.send(b"")

    recording = await recorded(Tokens(answer), fetch)
    assert outcomes(await played(recording, Tokens(answer))) == [("skipped", "a registry would be asked")]
    begun = list(await recorded(saying(b"yes"), ask))
    without_end = [record for record in begun if not isinstance(record, CallOver)]
    report = await played(cast("Recording", without_end), saying(b"yes"))
    assert outcomes(report) == [("skipped", "its end is not recorded")]


async def test_directories_and_secrets(tmp_path: Path) -> None:
    """A directory in which a secret stands, and the secret, are answered equally; a changed file is told by its path.

    Another secret of the same length makes no difference: what is hidden may be anything.
    """
    context = tmp_path / "context"
    context.mkdir()
    (context / "hello.txt").write_bytes(b"x" * 70_000 + SECRET + b"y" * 70_000)
    (context / "other.txt").write_bytes(b"other")

    async def talk(caller: FakeCaller) -> None:
        await caller.diffcopy("context", tmp_path / "copy")
        await caller.get_secret("token")

    def services(secret: bytes) -> tuple[Attachable, Attachable]:
        return FileSync({"context": context}), Secrets({"token": secret})

    async with FakeDaemon() as daemon, open_session(daemon.dialer, *services(SECRET)) as session:
        caller = await daemon.wait_session(session.id)
        async with record_session(session) as recorder:
            await talk(caller)
    recording = recorder.recording
    for secret in (SECRET, b"another"):
        assert outcomes(await played(recording, *services(secret))) == [("equal", "")] * 2
    (context / "other.txt").write_bytes(b"OTHER, and longer")
    (first, why), second = outcomes(await played(recording, *services(SECRET)))
    assert (first, second) == ("different", ("equal", ""))
    assert why == "entry 1 of the listing differs: 'other.txt'"


async def test_a_daemon_that_plays(tmp_path: Path) -> None:
    """A build on it meets what was recorded, succeeds without a result, and its report is kept."""
    context = tmp_path / "context"
    context.mkdir()
    (context / "Dockerfile").write_text("FROM scratch\nCOPY hello.txt /\n")
    (context / "hello.txt").write_text("hello")
    async with FakeDaemon.listen() as daemon, record_sessions() as recorder:
        await build(context, endpoint=daemon.endpoint)
    seen: list[ReplayReport] = []
    async with ReplayDaemon.listen(recording=recorder.recording, on_report=seen.append) as player:
        for _ in range(2):
            result = await build(context, endpoint=player.endpoint)
            assert not result.image_id
    assert seen == player.reports
    assert [report.is_equal for report in seen] == [True, True]
    assert seen[0].to_json()["is_equal"]


# -- answers -----------------------------------------------------------------------------------------------------------


@given(data=st.data(), content=st.binary(min_size=1, max_size=40))
def test_packets_may_be_cut_otherwise(data: st.DataObject, content: bytes) -> None:
    """The same files in other pieces and another order are the same; another byte is another file."""

    def packets(body: bytes) -> list[bytes]:
        at = data.draw(st.integers(0, len(body)))
        return [
            fsutil_pb2.Packet(type="PACKET_DATA", ID=entry, data=piece).SerializeToString()
            for entry in data.draw(st.permutations((1, 2)))
            for piece in (body[:at], body[at:])
        ]

    expected = [Said(packet) for packet in packets(content)]
    assert difference(DIFF_COPY, expected, packets(content)) is None
    other = bytes([content[0] ^ 1]) + content[1:]
    assert difference(DIFF_COPY, expected, packets(other)) == "the content of entry 1 differs"


@pytest.mark.parametrize(
    ("said", "other", "like"),
    [
        (Said(b"abc"), b"abc", True),
        (Said(b"abc"), b"abd", False),
        (Said(None), b"anything", True),
        (Said(b"a***c", ((1, 4),)), b"aXYZc", True),
        (Said(b"a***c", ((1, 4),)), b"aXYZd", False),
        (Said(b"a***c", ((1, 4),)), b"bXYZc", False),
        (Said(b"a***c", ((1, 4),)), b"alongerc", True),
        (Said(b"a***c", ((1, 4),)), b"ac", True),
        (Said(b"a***c", ((1, 4),)), b"c", False),
        (Said(b"a***c", ((1, 4),)), b"alongerd", False),
    ],
)
def test_what_is_hidden_may_be_anything(said: Said, other: bytes, like: bool) -> None:
    """All but the hidden places has to be the same."""
    assert said.is_like(other) is like


@pytest.mark.parametrize(
    ("expected", "found", "differs"),
    [
        ("the same", "the same", False),
        ("the same", "another", True),
        ("no *** here", "no password here", False),
        ("no *** here", "no password there", True),
        ("*** and ***", "one and two", False),
        ("*** and *** or ***", "one and two", True),
        ("***", "anything", False),
        ("a***a", "a", True),
    ],
)
def test_hidden_words_may_be_any(expected: str, found: str, differs: bool) -> None:
    """In texts too."""
    assert text_differs(expected, found) is differs
