"""Secrets from commands and key rings, kept for a while, and functions that want to know who asks."""

from __future__ import annotations

import os
import sys
import time
from typing import TYPE_CHECKING, Any

import keyring
import keyring.backend
import keyring.errors
import pytest
import trio

from mobysession import limits
from mobysession._pb.secrets_pb2 import GetSecretRequest, GetSecretResponse
from mobysession.errors import RpcError, SecretError, StatusCode, UsageError
from mobysession.redaction import Redactor
from mobysession.services.secrets import (
    SecretCache,
    SecretCommand,
    SecretEnv,
    SecretFile,
    SecretKeyring,
    SecretRequest,
    Secrets,
)
from mobysession.session import open_session
from mobysession.testing import FakeDaemon

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    from mobysession.rpc.client import Channel
    from mobysession.services.secrets import SecretSource

    OpenService = Callable[..., AbstractAsyncContextManager[Channel]]

GET = "/moby.buildkit.secrets.v1.Secrets/GetSecret"


async def read(source: SecretSource) -> bytes:
    """Return what the daemon would get."""
    return await Secrets({"token": source}).get("token")


def python(code: str, *arguments: str) -> list[str]:
    """Return the command that runs ``code``."""
    return [sys.executable, "-ISsc", code, *arguments]


# -- commands ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("printed", "expected"),
    [("s3cret\\n", b"s3cret"), ("a\\nb\\r\\n", b"a\nb"), (" s ", b" s "), ("", b"")],
)
async def test_a_command_prints_a_secret(printed: str, expected: bytes) -> None:
    """What a command prints is the secret, without the ends of line behind it."""
    assert await read(SecretCommand(python(f"print('{printed}', end='')"))) == expected


async def test_a_command_is_run_each_time_with_its_variables(tmp_path: Path) -> None:
    """It is run at each request, reads nothing, and has the environment that was given."""
    notes = tmp_path / "notes"
    code = "import os, sys; open(sys.argv[1], 'a').write(sys.stdin.read() + 'x'); print(os.environ['WORD'])"
    secrets = Secrets({"token": SecretCommand(python(code, str(notes)), environment={"WORD": "w"})})
    assert [await secrets.get("token") for _ in range(2)] == [b"w", b"w"]
    assert notes.read_text() == "xx"


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        (python("print('hunter2'); raise SystemExit(3)", "hunter2"), "failed with exit status 3"),
        (python("import os; os.kill(os.getpid(), 9)"), "failed with signal 9"),
        (["/no/such/program", "hunter2"], "is not installed"),
        (["/", "hunter2"], "cannot be started"),
        ([sys.executable, "a\0b"], "cannot be started"),
        (python(f"print('hunter2' * {limits.MAX_SECRET})"), "printed more than"),
        (python("import time; time.sleep(100)"), "did not end within 0.3 s"),
    ],
    ids=["status", "signal", "missing", "directory", "nul", "endless", "slow"],
)
async def test_a_command_that_fails_is_named(command: list[str], reason: str) -> None:
    """The error has the ID, the program and what went wrong; never what it printed or was told."""
    with pytest.raises(SecretError, match=reason) as failed:
        await read(SecretCommand(command, timeout=0.3 if "slow" in reason or "within" in reason else 20))
    assert "'token'" in failed.value.message
    assert command[0] in failed.value.message
    assert "hunter2" not in f"{failed.value} {failed.value.hint}"


async def test_what_a_command_started_goes_with_it(tmp_path: Path) -> None:
    """A command that is cancelled takes a program with it that it has left behind, holding its output open."""
    pid, told = tmp_path / "pid", tmp_path / "told"
    os.mkfifo(told)
    script = f"sleep 1000 & echo $! > {pid}; echo > {told}"
    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(read, SecretCommand(["sh", "-c", script], timeout=1000))
            await trio.to_thread.run_sync(told.read_bytes)
            nursery.cancel_scope.cancel()
    deadline = time.monotonic() + 10
    while _runs(int(pid.read_text())):
        assert time.monotonic() < deadline


def _runs(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_command_is_a_list() -> None:
    """One text is refused, because no shell would read it; so is nothing."""
    several: tuple[Any, ...] = ("pass show npm", [])
    for wrong in several:
        with pytest.raises(UsageError, match="as a list"):
            SecretCommand(wrong)
    assert "hunter2" not in repr(SecretCommand(["x", "hunter2"], environment={"a": "hunter2"}))


# -- key rings ---------------------------------------------------------------------------------------------------------


class Ring(keyring.backend.KeyringBackend):
    """A key ring in memory."""

    priority = 1

    def __init__(self) -> None:
        super().__init__()
        self.failure: Exception | None = None

    def get_password(self, service: str, username: str) -> str | None:
        """Return the one password there is."""
        if self.failure is not None:
            raise self.failure
        return "hunter2" if (service, username) == ("npm", "ada") else None

    def set_password(self, service: str, username: str, password: str) -> None:
        """Refuse."""
        raise keyring.errors.PasswordSetError


@pytest.fixture
def ring() -> Iterator[Ring]:
    """Give the key ring that counts."""
    before = keyring.get_keyring()
    ring = Ring()
    keyring.set_keyring(ring)
    yield ring
    keyring.set_keyring(before)


async def test_a_key_ring_holds_a_secret(ring: Ring) -> None:
    """A password of the key ring is a secret; one that it has not is none."""
    assert await read(SecretKeyring("npm", "ada")) == b"hunter2"
    with pytest.raises(RpcError) as missing:
        await read(SecretKeyring("npm", "bob"))
    assert missing.value.code is StatusCode.NOT_FOUND


async def test_a_key_ring_that_fails_is_not_quoted(ring: Ring) -> None:
    """A locked key ring is an error with its type, and what to do."""
    ring.failure = keyring.errors.KeyringLocked("hunter2")
    with pytest.raises(SecretError, match="the key ring failed with KeyringLocked") as failed:
        await read(SecretKeyring("npm", "ada"))
    assert "keyring get npm ada" in (failed.value.hint or "")
    assert "hunter2" not in str(failed.value)


async def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the extra, the error says which one to install."""
    monkeypatch.setitem(sys.modules, "keyring", None)
    with pytest.raises(SecretError) as failed:
        await read(SecretKeyring("npm", "ada"))
    assert failed.value.hint == "Install mobysession[keyring]."


# -- time to live ------------------------------------------------------------------------------------------------------


async def test_a_secret_is_kept_for_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is asked for once, then again when its time is over; several at once cost one call."""
    now = 1000.0
    monkeypatch.setattr("mobysession.services.secrets.time.monotonic", lambda: now)
    asked = []

    async def ask() -> str:
        asked.append(now)
        await trio.lowlevel.checkpoint()
        return str(len(asked))

    secrets = Secrets({"token": SecretCache(ask, 60)})
    values: list[bytes] = []

    async def get() -> None:
        values.append(await secrets.get("token"))

    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(get)
    now += 59.9
    await get()
    assert values == [b"1"] * 4
    now += 0.1
    assert await secrets.get("token") == b"2"


async def test_failures_and_nothing_are_not_kept() -> None:
    """What could not be had is asked for again."""
    answers: list[Any] = [ValueError(), None, "value"]

    def ask() -> str | None:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        found: str | None = answer
        return found

    secrets = Secrets({"token": SecretCache(ask, 1000)})
    with pytest.raises(SecretError):
        await secrets.get("token")
    with pytest.raises(RpcError):
        await secrets.get("token")
    assert await secrets.get("token") == await secrets.get("token") == b"value"


def test_what_cannot_be_kept() -> None:
    """No time, a cache in a cache, and what is no source are refused at once."""
    number: Any = 7
    for make in (
        lambda: SecretCache("x", 0),
        lambda: SecretCache("x", float("nan")),
        lambda: SecretCache(SecretCache("x", 1), 1),
        lambda: Secrets({"token": SecretCache(number, 1)}),
    ):
        with pytest.raises(UsageError):
            make()
    assert "hunter2" not in repr(SecretCache("hunter2", 1))


def test_a_kept_file_is_checked(tmp_path: Path) -> None:
    """A source is checked before the build also where it is kept."""
    with pytest.raises(SecretError, match="cannot be read"):
        Secrets({"token": SecretCache(tmp_path / "gone", 1)}).check()


# -- who asks ----------------------------------------------------------------------------------------------------------


async def test_a_function_hears_who_asks() -> None:
    """It gets the ID as a text that also tells the session and the build."""
    heard: list[SecretRequest] = []

    def ask(request: SecretRequest) -> str:
        heard.append(request)
        return "value"

    async with FakeDaemon() as daemon:
        secrets = Secrets({"token": ask, "kept": SecretCache(ask, 1)}, build="shop")
        async with open_session(daemon.dialer, secrets) as session:
            caller = await daemon.wait_session(session.id)
            await caller.get_secret("token")
            await caller.get_secret("kept")
    assert heard == ["token", "kept"]
    assert [(request.id, request.session_id, request.build) for request in heard] == [
        ("token", session.id, "shop"),
        ("kept", session.id, "shop"),
    ]


async def test_a_value_is_told_before_it_leaves(open_service: OpenService) -> None:
    """Whoever watches for values hears each one, hidden already; of an ID without a value nothing."""
    redactor = Redactor()
    told: list[tuple[str, bytes, str]] = []

    def note(secret_id: str, value: bytes) -> None:
        told.append((secret_id, value, redactor.redact("hunter2")))

    secrets = Secrets({"token": lambda: "hunter2"}, redactor=redactor, on_value=note)
    async with open_service(secrets) as channel:
        await channel.unary(GET, GetSecretRequest(ID="token"), GetSecretResponse)
        with pytest.raises(RpcError):
            await channel.unary(GET, GetSecretRequest(ID="other"), GetSecretResponse)
    assert told == [("token", b"hunter2", "***")]


def test_sources_are_values() -> None:
    """Two that say the same are equal; one of another kind, or that says something else, is not."""
    assert SecretFile("a") == SecretFile("a")
    assert hash(SecretFile("a")) == hash(SecretFile("a"))
    assert SecretFile("a") != SecretEnv("a")
    assert SecretCommand(["x", "1"]) != SecretCommand(["x", "2"])
    assert repr(SecretKeyring("npm", "ada")) == "SecretKeyring(service='npm', username='ada')"
