from __future__ import annotations

import functools
import os
import threading
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from mobysession import limits
from mobysession._pb.secrets_pb2 import GetSecretRequest, GetSecretResponse
from mobysession.errors import RpcError, SecretError, StatusCode, UsageError
from mobysession.redaction import Redactor
from mobysession.services.secrets import SecretEnv, SecretFile, Secrets, parse_secret_spec

GET_SECRET = "/moby.buildkit.secrets.v1.Secrets/GetSecret"


@pytest.fixture
def ask(open_service):
    """Ask a `Secrets` for one ID over the wire."""

    async def ask(secrets, secret_id):
        async with open_service(secrets) as channel:
            return (await channel.unary(GET_SECRET, GetSecretRequest(ID=secret_id), GetSecretResponse)).data

    return ask


async def _coroutine_function():
    await trio.lowlevel.checkpoint()
    return "from a coroutine"


@pytest.mark.parametrize(
    ("source", "value"),
    [
        (b"\x00raw\xff", b"\x00raw\xff"),
        ("gr\u00fcn", "gr\u00fcn".encode()),
        ("", b""),
        (lambda: b"from a function", b"from a function"),
        (lambda secret_id: f"for {secret_id}", b"for token"),
        (lambda default="unused": default, b"unused"),
        (_coroutine_function, b"from a coroutine"),
        (lambda: _coroutine_function(), b"from a coroutine"),
        (functools.partial(_coroutine_function), b"from a coroutine"),
    ],
)
async def test_what_a_secret_can_be(ask, source, value):
    """Bytes, text and functions of every shape give the bytes they stand for."""
    assert await ask(Secrets({"token": source}), "token") == value


async def test_unknown_ids_are_not_found(ask, ended):
    """An ID that was not given is NOT_FOUND, which the daemon's own probes rely on, and no failure of ours."""
    with pytest.raises(RpcError) as caught:
        await ask(Secrets({"token": "value"}), "GIT_AUTH_TOKEN")
    assert (caught.value.code, caught.value.message) == (StatusCode.NOT_FOUND, "not found")


async def test_a_function_that_returns_none_has_no_secret(ask):
    """None from a function is NOT_FOUND."""
    with pytest.raises(RpcError) as caught:
        await ask(Secrets({"token": lambda: None}), "token")
    assert caught.value.code is StatusCode.NOT_FOUND


async def test_a_file_is_read_at_each_request(ask, tmp_path):
    """The content at the time of the request counts, newline included, not that at the start."""
    path = tmp_path / "token"
    secrets = Secrets({"token": SecretFile(path), "same": path})
    path.write_bytes(b"first\n")
    assert await ask(secrets, "token") == b"first\n"
    path.write_bytes(b"second")
    assert await ask(secrets, "same") == b"second"


async def test_a_variable_is_read_at_each_request(ask, monkeypatch, caplog):
    """The value at the time of the request counts; an unset variable is empty data, as with buildx, and warned of."""
    secrets = Secrets({"token": SecretEnv("TOKEN_OF_TEST")})
    assert await ask(secrets, "token") == b""
    warnings = [record.getMessage() for record in caplog.records if record.name == "mobysession.services"]
    assert warnings == ["secret 'token' is empty: the environment variable TOKEN_OF_TEST is not set"]
    caplog.clear()
    for value in ("value", ""):
        monkeypatch.setenv("TOKEN_OF_TEST", value)
        assert await ask(secrets, "token") == value.encode()
    assert not [record for record in caplog.records if record.name == "mobysession.services"]


async def test_an_unreadable_file_says_why(ask, tmp_path):
    """A file that went away is UNKNOWN with the system's reason, and names ID and path."""
    path = tmp_path / "gone"
    with pytest.raises(RpcError) as caught:
        await ask(Secrets({"token": SecretFile(path)}), "token")
    assert caught.value.code is StatusCode.UNKNOWN
    assert caught.value.message == f"secret 'token': {path} cannot be read: No such file or directory"


@pytest.mark.parametrize("kind", ["bytes", "file", "function"])
async def test_the_largest_secret_is_given(ask, tmp_path, kind):
    """500 KiB pass, whatever they come from."""
    assert len(await ask(Secrets({"big": _sized(kind, limits.MAX_SECRET, tmp_path)}), "big")) == 500 * 1024


@pytest.mark.parametrize("kind", ["bytes", "file", "function"])
async def test_a_byte_more_is_refused(ask, ended, tmp_path, kind):
    """One byte more is UNKNOWN in the reference's words, and the session hears which secret it was."""
    with pytest.raises(RpcError) as caught:
        await ask(Secrets({"big": _sized(kind, limits.MAX_SECRET + 1, tmp_path)}), "big")
    assert (caught.value.code, caught.value.message) == (StatusCode.UNKNOWN, "invalid secret size 512001")
    assert isinstance(ended[0][2], SecretError)
    assert "'big' has 512001 bytes" in str(ended[0][2])


def _sized(kind: str, size: int, directory: Path):
    content = b"x" * size
    if kind == "function":
        return lambda: content
    if kind == "bytes":
        return content
    (directory / "big").write_bytes(content)
    return directory / "big"


async def test_an_endless_file_is_read_no_further_than_needed(ask):
    """A device without end is refused after 500 KiB and a byte."""
    with pytest.raises(RpcError, match="invalid secret size 512001"):
        await ask(Secrets({"zeros": SecretFile("/dev/zero")}), "zeros")


async def test_a_slow_function_does_not_stop_the_loop(open_service):
    """A function that blocks its thread leaves other requests alone."""
    blocked = threading.Event()

    def wait_for_the_other() -> str:
        assert blocked.wait(10)
        return "late"

    secrets = Secrets({"slow": wait_for_the_other, "quick": "now"})
    async with open_service(secrets) as channel, trio.open_nursery() as nursery:
        nursery.start_soon(channel.unary, GET_SECRET, GetSecretRequest(ID="slow"), GetSecretResponse)
        await trio.testing.wait_all_tasks_blocked()
        assert (await channel.unary(GET_SECRET, GetSecretRequest(ID="quick"), GetSecretResponse)).data == b"now"
        blocked.set()


async def test_cancelling_does_not_wait_for_a_blocked_function():
    """A cancelled request returns although its function still sits in its thread."""
    release = threading.Event()

    def wait() -> str:
        release.wait()
        return "late"

    async with trio.open_nursery() as nursery:
        nursery.start_soon(Secrets({"stuck": wait}).get, "stuck")
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert not release.is_set()
    release.set()


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_a_failing_function_is_named_and_not_quoted(ask, ended, asynchronous):
    """The daemon learns the ID and the kind of failure; its text, which may hold the secret, only this side sees."""
    failure = ValueError("hunter2 is wrong")

    def fail() -> bytes:
        raise failure

    async def fail_later() -> bytes:
        raise failure

    with pytest.raises(RpcError) as caught:
        await ask(Secrets({"token": fail_later if asynchronous else fail}), "token")
    assert caught.value.code is StatusCode.UNKNOWN
    assert caught.value.message == "the function for secret 'token' failed with ValueError"
    assert ended[0][2] is not None
    assert ended[0][2].__cause__ is failure


async def test_a_function_must_return_bytes_or_text(ask):
    """Another type is refused by its name."""

    def give_number() -> Any:
        return 7

    with pytest.raises(RpcError, match="the function for secret 'token' returned an object of type int"):
        await ask(Secrets({"token": give_number}), "token")


async def test_values_are_hidden_as_soon_as_they_are_known(ask, tmp_path):
    """The redactor knows given values from the start and fetched ones before they leave."""
    redactor = Redactor()
    secrets = Secrets({"given": "hunter2", "made": lambda: "correct horse"}, redactor=redactor)
    assert redactor.redact("hunter2, correct horse") == "***, correct horse"
    await ask(secrets, "made")
    assert redactor.redact("hunter2, correct horse") == "***, ***"


def test_repr_shows_ids_only():
    """Neither repr nor str of the service shows a value."""
    assert repr(Secrets({"b": "hunter2", "a": b"hunter2"})) == "Secrets(a, b)"


@pytest.mark.parametrize(
    ("sources", "reason"),
    [
        ({"token": 7}, "secret 'token' cannot come from an object of type int"),
        ({"token": None}, "secret 'token' cannot come from an object of type NoneType"),
        ({"": "value"}, "a secret ID is a text that is not empty"),
        ({7: "value"}, "a secret ID is a text that is not empty"),
        ({"token": lambda a, b: a}, "the function for secret 'token' takes more than the ID"),
    ],
)
def test_what_a_secret_cannot_be(sources, reason):
    """A source that can never work is refused where it is given."""
    with pytest.raises(UsageError) as caught:
        Secrets(sources)
    assert caught.value.message == reason


def test_check_accepts_what_is_there(tmp_path):
    """Files that exist pass, and functions and variables are not asked."""
    (tmp_path / "token").write_bytes(b"value")
    os.mkfifo(tmp_path / "pipe")
    Secrets(
        {
            "file": tmp_path / "token",
            "pipe": tmp_path / "pipe",
            "env": SecretEnv("NOT_SET"),
            "function": lambda: pytest.fail("the function was asked"),
            "value": "x" * limits.MAX_SECRET,
        }
    ).check()


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        (Path("missing"), "secret 'token': missing cannot be read: No such file or directory"),
        (Path("."), "secret 'token': . cannot be read: Is a directory"),
        (SecretFile("nul\0"), "secret 'token': nul\0 cannot be read: embedded null byte"),
        (Path("large"), "secret 'token' has 512001 bytes; the engine takes at most 512000"),
        (b"x" * 512001, "secret 'token' has 512001 bytes; the engine takes at most 512000"),
    ],
)
def test_check_refuses_before_the_build_starts(tmp_path, monkeypatch, source, reason):
    """What could not be given later is found by check, and named."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "large").write_bytes(b"x" * 512001)
    with pytest.raises(SecretError) as caught:
        Secrets({"token": source}).check()
    assert caught.value.message == reason


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("id=a,src=f", ("a", SecretFile("f"))),
        ("id=a,source=f", ("a", SecretFile("f"))),
        ("ID=a,Src=f,TYPE=file", ("a", SecretFile("f"))),
        ("type=file,src=/x=y,id=a", ("a", SecretFile("/x=y"))),
        ('id=a,"src=with,comma"', ("a", SecretFile("with,comma"))),
        ("id=a,env=VAR", ("a", SecretEnv("VAR"))),
        ("id=a,type=env,env=VAR", ("a", SecretEnv("VAR"))),
        ("id=a,type=env,src=VAR", ("a", SecretEnv("VAR"))),
        ("id=a,src=f,env=VAR", ("a", SecretEnv("VAR"))),
        ("id=PRESENT", ("PRESENT", SecretEnv("PRESENT"))),
        ("id=PRESENT,type=env", ("PRESENT", SecretEnv("PRESENT"))),
        ("id=absent", ("absent", SecretFile("absent"))),
        ("id=a,src=f,src=g", ("a", SecretFile("g"))),
    ],
)
def test_specs_as_buildx_reads_them(monkeypatch, spec, expected):
    """Every form of --secret that the reference takes means the same here."""
    monkeypatch.setenv("PRESENT", "x")
    assert parse_secret_spec(spec) == expected


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        ("", "secret missing ID"),
        ("src=f", "secret missing ID"),
        ("id=,src=f", "secret missing ID"),
        ("id=a,hunter2", "secret: field 2 is not key=value"),
        ("hunter2", "secret: field 1 is not key=value"),
        ("id=a,value=hunter2", "secret: unknown key 'value' in field 2"),
        ("id=a,src=f,type=vault", "secret: type is file or env, not 'vault'"),
        ('id=a,"src=hunter2', "secret: not comma-separated fields: unexpected end of data"),
        ("id=a,src=f\nx", None),
    ],
)
def test_broken_specs_name_the_field(spec, reason):
    """A spec that cannot be read says which field is wrong, and repeats no value."""
    with pytest.raises(UsageError) as caught:
        parse_secret_spec(spec)
    assert reason is None or caught.value.message == reason
    assert "hunter2" not in caught.value.message
