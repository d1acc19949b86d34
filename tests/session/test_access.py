"""What a daemon may ask for: rules, offers and approvals, and what is told of each decision."""

from __future__ import annotations

import os
import pty
import termios
from typing import TYPE_CHECKING, Any

import pytest
import trio

from mobysession._pb import auth_pb2, ssh_pb2
from mobysession.errors import RpcError, StatusCode, UsageError
from mobysession.events import AccessDecided
from mobysession.services.auth import Auth
from mobysession.services.filesync import FileSync
from mobysession.services.secrets import Secrets
from mobysession.services.ssh import Ssh
from mobysession.services.ssh_agents import SshAgent
from mobysession.session import Session
from mobysession.session.access import Access, AccessRequest
from mobysession.session.terminal import TerminalApproval
from mobysession.testing import FakeDaemon

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

SECRETS = "/moby.buildkit.secrets.v1.Secrets/GetSecret"
CREDENTIALS = "/moby.filesync.v1.Auth/Credentials"
CHECK = "/moby.sshforward.v1.SSH/CheckAgent"
FORWARD = "/moby.sshforward.v1.SSH/ForwardAgent"
DIFF_COPY = "/moby.filesync.v1.FileSync/DiffCopy"


def request(
    kind: str = "secret", subject: str = "token", *, method: str = SECRETS, session: str = "id"
) -> AccessRequest:
    """Make a request."""
    return AccessRequest(session, "shop", 1, SECRETS, kind, subject)


class Asked:
    """An approval that notes what it was asked and answers by subject."""

    def __init__(self, *granted: str) -> None:
        self.requests: list[AccessRequest] = []
        self._granted = granted

    def __call__(self, request: AccessRequest) -> bool:
        self.requests.append(request)
        return request.subject in self._granted


async def status(call: Callable[[], Any]) -> StatusCode:
    """Make a call and return what it ended with."""
    try:
        await call()
    except RpcError as error:
        return error.code
    return StatusCode.OK


@pytest.mark.parametrize(
    ("rules", "refused"),
    [
        ({}, []),
        ({"deny": ["*Secrets/*"]}, [SECRETS]),
        ({"deny": ["/MOBY.sshforward.v1.ssh/*"]}, [CHECK, FORWARD]),
        ({"allow": ["/moby.filesync.v1.Auth/*"]}, [SECRETS, CHECK, FORWARD]),
        ({"allow": ["*"], "deny": ["*"]}, [SECRETS, CREDENTIALS, CHECK, FORWARD]),
        ({"allow": []}, [SECRETS, CREDENTIALS, CHECK, FORWARD]),
    ],
)
def test_rules_are_globs(rules: Any, refused: list[str]) -> None:
    """deny wins over allow, case does not count, and health is never refused."""
    access = Access(**rules)
    assert [name for name in (SECRETS, CREDENTIALS, CHECK, FORWARD) if access.refusal(name)] == refused
    assert access.refusal("/grpc.health.v1.Health/Check") is None


async def test_what_a_rule_denies_is_neither_advertised_nor_served(heard: list[Any]) -> None:
    """The daemon is not told of it; one that asks all the same, in any case of letters, is refused and recorded."""
    async with FakeDaemon() as daemon:
        session = Session(daemon.dialer, access=Access(deny=["*Secrets/*"]))
        session.allow(Secrets({"token": b"value"}), Auth({}))
        session.listen(heard.append)
        assert SECRETS not in session.methods
        async with session.attach():
            caller = await daemon.wait_session(session.id)
            assert SECRETS not in caller.methods
            for name in (SECRETS, SECRETS.lower()):
                with pytest.raises(RpcError, match="secret token is refused by the client: denied by") as denied:
                    await caller.unary(name, auth_pb2.CredentialsRequest(Host="token"), auth_pb2.CredentialsResponse)
                assert denied.value.code is StatusCode.PERMISSION_DENIED
            host = auth_pb2.CredentialsRequest(Host="r.example")
            await caller.unary(CREDENTIALS, host, auth_pb2.CredentialsResponse)
    decided = [event for event in heard if isinstance(event, AccessDecided)]
    assert [(event.method, event.kind, event.subject, event.allowed, event.by) for event in decided] == [
        (SECRETS, "secret", "token", False, "rule"),
        (SECRETS, "secret", "token", False, "rule"),
        (CREDENTIALS, "registry login", "r.example", True, "rule"),
    ]
    assert {event.session_id for event in decided} == {session.id}


async def test_each_request_is_approved_by_itself(heard: list[Any], tmp_path: Path) -> None:
    """A function hears what is asked, by which session, for which ID or host; what it does not grant is refused."""
    asked = Asked("token", "default", "r.example")
    async with FakeDaemon() as daemon:
        session = Session(daemon.dialer, name="shop", access=Access(approve=asked))
        agents = {"default": SshAgent(tmp_path / "none"), "work": SshAgent(tmp_path / "none")}
        session.allow(Secrets({"token": b"value", "other": b"x"}), Auth({}), Ssh(agents))
        session.listen(heard.append)
        async with session.attach():
            caller = await daemon.wait_session(session.id)

            async def login(host: str) -> None:
                await caller.unary(CREDENTIALS, auth_pb2.CredentialsRequest(Host=host), auth_pb2.CredentialsResponse)

            async def check(agent: str) -> None:
                await caller.unary(CHECK, ssh_pb2.CheckAgentRequest(ID=agent), ssh_pb2.CheckAgentResponse)

            async def forward() -> None:
                async with caller.channel.open_call(FORWARD, metadata=[("buildkit.ssh.id", "work")]) as call:
                    await call.receive()

            results = [
                await status(lambda: caller.get_secret("token")),
                await status(lambda: caller.get_secret("other")),
                await status(lambda: login("r.example")),
                await status(lambda: login("evil.example")),
                await status(lambda: check("")),
                await status(lambda: check("work")),
                await status(forward),
            ]
    yes, no = StatusCode.OK, StatusCode.PERMISSION_DENIED
    assert results == [yes, no, yes, no, yes, no, no]
    assert [(request.method, str(request)) for request in asked.requests] == [
        (SECRETS, "secret token"),
        (SECRETS, "secret other"),
        (CREDENTIALS, "registry login r.example"),
        (CREDENTIALS, "registry login evil.example"),
        (CHECK, "SSH agent default"),
        (CHECK, "SSH agent work"),
        (FORWARD, "SSH agent work"),
    ]
    assert {(request.session_id, request.session_name) for request in asked.requests} == {(session.id, "shop")}
    decided = [event for event in heard if isinstance(event, AccessDecided) and event.by == "approval"]
    assert [event.allowed for event in decided] == [result is yes for result in results]
    assert [event.call_id for event in decided] == [request.call_id for request in asked.requests]


@pytest.mark.parametrize(
    ("method", "metadata", "subject"),
    [
        (FORWARD, [("buildkit.ssh.id", "100%"), ("buildkit.ssh.id-encoded", "1")], "100%"),
        (FORWARD, [("buildkit.ssh.id", "a+b"), ("buildkit.ssh.id-encoded", "1")], "a+b"),
        (FORWARD, [("buildkit.ssh.id", "a+b"), ("buildkit.ssh.id", "default")], "a+b"),
        (CHECK, [("buildkit.ssh.id", "a+b")], "default"),
        (DIFF_COPY, [("dir-name", "b%61r"), ("dir-name-encoded", "1")], "bar"),
    ],
)
async def test_what_is_approved_is_what_is_given(
    method: str, metadata: list[tuple[str, str]], subject: str, tmp_path: Path
) -> None:
    """An ID that can be read in two ways is read as the service reads it, or a yes for one thing would give another."""
    asked = Asked()
    agent = SshAgent(tmp_path / "none")
    async with FakeDaemon() as daemon:
        session = Session(daemon.dialer, access=Access(approve=asked, ask=["*"]))
        session.allow(Ssh({"default": agent, "100%": agent, "a+b": agent}), FileSync({"bar": tmp_path}))
        async with session.attach():
            caller = await daemon.wait_session(session.id)

            async def demand() -> None:
                async with caller.channel.open_call(method, metadata=metadata) as call:
                    await call.send(b"")
                    await call.end()
                    await call.receive()

            assert await status(demand) is StatusCode.PERMISSION_DENIED
    assert [request.subject for request in asked.requests] == [subject]


async def test_nobody_is_bothered_with_what_was_not_offered(heard: list[Any]) -> None:
    """IDs that a session does not have are refused in the engine's words, unasked, and recorded."""
    asked = Asked()
    async with FakeDaemon() as daemon:
        session = Session(daemon.dialer, access=Access(approve=asked))
        session.allow(Secrets({}), Ssh({}))
        session.listen(heard.append)
        async with session.attach():
            caller = await daemon.wait_session(session.id)
            assert await status(lambda: caller.get_secret("GIT_AUTH_TOKEN")) is StatusCode.NOT_FOUND
            with pytest.raises(RpcError, match="unset ssh forward key default"):
                await caller.unary(CHECK, ssh_pb2.CheckAgentRequest(), ssh_pb2.CheckAgentResponse)
    assert asked.requests == []
    decided = [(event.subject, event.by, event.allowed) for event in heard if isinstance(event, AccessDecided)]
    assert decided == [("GIT_AUTH_TOKEN", "offer", False), ("default", "offer", False)]


async def test_a_streaming_method_of_ones_own_is_judged_too() -> None:
    """Whatever a service is, its methods are asked for by name."""

    class Own:
        def register(self, registrar: Any) -> None:
            registrar.stream("/test.Own/Both", self._both)

        async def _both(self, call: Any) -> None:
            await call.send(b"served")

    asked = Asked("")
    async with FakeDaemon() as daemon:
        session = Session(daemon.dialer, access=Access(approve=asked, ask=["/test.own/*"]))
        session.allow(Own())
        async with session.attach():
            caller = await daemon.wait_session(session.id)
            async with caller.channel.open_call("/test.Own/Both") as call:
                assert await call.receive() == b"served"
    assert [(request.kind, request.subject) for request in asked.requests] == [("/test.Own/Both", "")]


@pytest.mark.parametrize("answer", [False, None, 1, "yes", ValueError("hunter2")])
async def test_only_true_grants(answer: Any, caplog: pytest.LogCaptureFixture) -> None:
    """Anything else, and an exception, refuses; the exception's words are nowhere."""

    async def approve(_request: AccessRequest) -> Any:
        if isinstance(answer, Exception):
            raise answer
        return answer

    decision = await Access(approve=approve).decide(request())
    assert not decision.allowed
    assert decision.by == "approval"
    assert "hunter2" not in decision.reason + caplog.text


async def test_an_approval_has_its_time(autojump_clock: trio.testing.MockClock) -> None:
    """Where nobody answers the request is refused."""

    async def approve(_request: AccessRequest) -> bool:
        await trio.sleep(100)
        return True

    decision = await Access(approve=approve, timeout=3).decide(request())
    assert decision.reason == "nobody answered within 3 s"
    assert trio.current_time() == 3


def test_what_is_no_access() -> None:
    """One text for a list, and a function that takes no request, are refused at once."""
    several: Any = ({"allow": "*"}, {"deny": "*"}, {"ask": "*"}, {"approve": lambda one, two: True})
    for wrong in several:
        with pytest.raises(UsageError):
            Access(**wrong)


# -- the terminal ------------------------------------------------------------------------------------------------------


@pytest.fixture
def terminal() -> Iterator[tuple[int, str]]:
    """Give the person's end of a terminal, and the path of the other end."""
    person, program = pty.openpty()
    settings = termios.tcgetattr(program)
    settings[3] &= ~termios.ECHO
    termios.tcsetattr(program, termios.TCSANOW, settings)
    yield person, os.ttyname(program)
    os.close(person)
    os.close(program)


async def ask(approval: TerminalApproval, person: int, request: AccessRequest, answer: str) -> tuple[bool, str]:
    """Have a request approved by somebody who types ``answer``; return the decision and the question."""
    granted: list[bool] = []

    async def run() -> None:
        granted.append(await approval(request))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run)
        await trio.lowlevel.wait_readable(person)
        question = os.read(person, 4096).decode()
        os.write(person, answer.encode())
    return granted[0], question


@pytest.mark.parametrize(
    ("answer", "granted"),
    [("y", True), ("YES", True), ("a", True), ("n", False), ("", False), ("v", False), ("yep", False), ("\x04", False)],
)
async def test_a_person_decides(terminal: tuple[int, str], answer: str, granted: bool) -> None:
    """The question says what is asked for and by which session; only a clear yes grants it."""
    person, path = terminal
    end = "" if answer == "\x04" else "\n"
    decided, question = await ask(TerminalApproval(path), person, request(), answer + end)
    assert decided is granted
    assert question.startswith("The engine asks for secret token, session shop (id). Allow? ")


@pytest.mark.parametrize(("answer", "granted"), [("a", True), ("v", False)])
async def test_always_and_never_are_remembered(terminal: tuple[int, str], answer: str, granted: bool) -> None:
    """For the same thing on the same session nobody is asked again; for another one somebody is."""
    person, path = terminal
    approval = TerminalApproval(path)
    await ask(approval, person, request(), f"{answer}\n")
    assert await approval(request()) is granted
    assert (await ask(approval, person, request(subject="other"), "y\n"))[0]
    assert (await ask(approval, person, request(session="two"), "y\n"))[0]


async def test_what_the_daemon_says_cannot_speak_to_the_terminal(terminal: tuple[int, str]) -> None:
    """Control characters in an ID are shown as what they are."""
    person, path = terminal
    _, question = await ask(TerminalApproval(path), person, request(subject="a\x1b[2J\nb"), "\n")
    assert "secret a\\x1b[2J\\nb," in question
    assert "\x1b" not in question


async def test_what_was_typed_before_is_no_answer(terminal: tuple[int, str]) -> None:
    """A line that waits in the terminal does not grant anything."""
    person, path = terminal
    os.write(person, b"y\n")
    decided, _ = await ask(TerminalApproval(path), person, request(), "n\n")
    assert not decided


async def test_without_a_terminal_all_is_refused(tmp_path: Path) -> None:
    """No terminal is no yes, and that there is none is said."""
    path = tmp_path / "none"
    decision = await Access(approve=TerminalApproval(path)).decide(request())
    assert decision == (False, "approval", f"there is no terminal to ask on: {path}: No such file or directory")


async def test_a_question_can_be_cancelled(terminal: tuple[int, str]) -> None:
    """A daemon that loses interest takes its question with it, and the next one is asked."""
    person, path = terminal
    approval = TerminalApproval(path)
    before = len(os.listdir("/proc/self/fd"))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(approval, request())
        await trio.lowlevel.wait_readable(person)
        os.read(person, 4096)
        nursery.cancel_scope.cancel()
    # What comes next begins on a line of its own.
    assert os.read(person, 4096) == b"\r\n"
    assert len(os.listdir("/proc/self/fd")) == before
    assert (await ask(approval, person, request(), "y\n"))[0]
