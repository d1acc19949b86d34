"""Builds that cannot be: on real engines, each failure is of the type that says who must act, and names the place."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
import trio

from integration.contexts import make_context
from integration.images import BUILD_TIMEOUT, build_image
from integration.relays import open_relay
from mobysession import limits
from mobysession.build import build
from mobysession.errors import (
    BuildFailed,
    ConnectError,
    ContextError,
    MobysessionError,
    SecretError,
    SessionIdInUse,
    StatusCode,
    UpgradeRefused,
)
from mobysession.filesync import Directory
from mobysession.services.secrets import SecretFile
from mobysession.session import Session
from mobysession.transport.endpoint import Endpoint

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from integration.engines import Engine
    from mobysession.filesync.source import Content


@pytest.fixture(params=["control", "classic"])
def driver(request: pytest.FixtureRequest) -> str:
    """Each way of asking the engine."""
    name: str = request.param
    return name


def _failure(engine: Engine, context: Path, **options: Any) -> BuildFailed:
    with pytest.raises(BuildFailed) as caught:
        build_image(engine, context, **options)
    return caught.value


# -- the Dockerfile ----------------------------------------------------------------------------------------------------


def test_a_failing_run(engine: Engine, tmp_path: Path, driver: str) -> None:
    """The error has the step, the exit code, the end of what it wrote, and the lines of the Dockerfile."""
    dockerfile = """\
FROM mobysession-base
COPY Dockerfile /
RUN for n in $(seq 100); do echo line $n; done >&2; \\
    echo gone wrong >&2; exit 42
RUN never
"""
    failed = _failure(engine, make_context(tmp_path / "context", dockerfile), driver=driver, no_cache=True)
    assert failed.step is not None
    assert "[3/4] RUN for n in" in failed.step
    assert failed.exit_code == 42
    assert "exit code: 42" in failed.message
    assert failed.log[-2:] == ("line 100", "gone wrong")
    assert failed.lines == (3, 4)
    assert failed.dockerfile == "Dockerfile"
    assert "   3 | >>> RUN for n in" in failed.excerpt
    assert "   5 |     RUN never" in failed.excerpt
    assert failed.code is StatusCode.UNKNOWN


def test_a_failing_run_on_the_command_line(engine: Engine, tmp_path: Path) -> None:
    """The command line shows the log, the excerpt and one line that names the failure, and exits with 1."""
    context = make_context(tmp_path / "context", "FROM mobysession-base\nRUN echo about to fail; exit 3\n")
    argv = [sys.executable, "-m", "mobysession", "-H", engine.host, "build", "--progress=plain", "--no-cache"]
    done = subprocess.run([*argv, context], capture_output=True, text=True, timeout=BUILD_TIMEOUT, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert "about to fail" in done.stderr
    assert ">>> RUN echo about to fail" in done.stderr
    assert "Traceback" not in done.stderr
    errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR: ")]
    assert len(errors) == 1
    assert "exit code: 3" in errors[0]


def test_a_parse_error(engine: Engine, tmp_path: Path, driver: str) -> None:
    """The place in the Dockerfile is named, although no step failed."""
    context = make_context(tmp_path / "context", "FROM mobysession-base\n\nCOPPY a b\n")
    failed = _failure(engine, context, driver=driver)
    assert "unknown instruction: COPPY" in failed.message
    assert failed.step is None or "COPPY" not in failed.step
    assert failed.lines == (3, 3)
    assert ">>> COPPY a b" in failed.excerpt


def test_a_missing_copy_source(engine: Engine, tmp_path: Path, driver: str) -> None:
    """The file is named with its place in the Dockerfile, and the hint speaks of the context."""
    context = make_context(tmp_path / "context", "FROM mobysession-base\nCOPY no/such /\n")
    failed = _failure(engine, context, driver=driver)
    assert "no/such" in f"{failed.message} {failed.step}"
    assert failed.lines == (2, 2)
    assert ">>> COPY no/such /" in failed.excerpt
    assert "not in the build context" in (failed.hint or "")


def test_an_ignored_copy_source(engine: Engine, tmp_path: Path, driver: str) -> None:
    """A file that .dockerignore leaves out is missing in the same way, although it is there."""
    files = {"there": "x", ".dockerignore": "there\n"}
    failed = _failure(engine, make_context(tmp_path / "context", "FROM scratch\nCOPY there /\n", files), driver=driver)
    assert "/there" in failed.message
    assert ".dockerignore" in (failed.hint or "")


@pytest.mark.parametrize("tree", ["base", "mobysession-base"])
def test_a_copy_source_that_is_missing_in_a_stage_or_an_image(
    engine: Engine, tmp_path: Path, driver: str, tree: str
) -> None:
    """The hint names what was looked into, and not the context."""
    dockerfile = f"""\
FROM mobysession-base AS base
RUN echo stage > /stage
FROM mobysession-base AS last
COPY --from={tree} /nowhere /
"""
    failed = _failure(engine, make_context(tmp_path / "context", dockerfile), driver=driver)
    assert (failed.hint or "").startswith(f"/nowhere is not in {tree}: check the path")
    assert (failed.stage, failed.lines) == ("last", (4, 4))


def test_the_name_of_an_only_stage(engine: Engine, tmp_path: Path, driver: str) -> None:
    """No engine says it in the step's name, and it is the one in the Dockerfile."""
    context = make_context(tmp_path / "context", "FROM mobysession-base AS Only\nRUN exit 3\n")
    assert _failure(engine, context, driver=driver).stage == "only"


def test_an_unknown_target(engine: Engine, tmp_path: Path, driver: str) -> None:
    """The stage is named."""
    context = make_context(tmp_path / "context", "FROM mobysession-base AS one\n")
    assert "target stage" in _failure(engine, context, target="seven", driver=driver).message
    assert "seven" in _failure(engine, context, target="seven", driver=driver).message


def test_an_unknown_base_image(engine: Engine, tmp_path: Path, driver: str) -> None:
    """An image that neither engine nor registry has is named."""
    context = make_context(tmp_path / "context", "FROM 127.0.0.1:9/no/such:7\n")
    failed = _failure(engine, context, driver=driver)
    assert "127.0.0.1:9" in failed.message
    assert "The engine, not this machine" in (failed.hint or "")


# -- secrets -----------------------------------------------------------------------------------------------------------

NEEDS_TOKEN = "FROM mobysession-base\nRUN --mount=type=secret,id=token,required=true cat /run/secrets/token\n"


@pytest.mark.parametrize("secrets", [{}, {"other": b"x"}, {"token": lambda: None}])
def test_an_unknown_secret(engine: Engine, tmp_path: Path, driver: str, secrets: dict[str, Any]) -> None:
    """The ID is named, and the hint is the option that passes it."""
    failed = _failure(engine, make_context(tmp_path / "context", NEEDS_TOKEN), secrets=secrets, driver=driver)
    assert "token" in failed.message
    assert "not found" in failed.message
    assert 'secrets={"token": ...} (--secret id=token,' in (failed.hint or "")


@pytest.mark.parametrize("kind", ["bytes", "file"])
def test_a_secret_that_is_too_large(engine: Engine, tmp_path: Path, kind: str) -> None:
    """A secret of more bytes than the engine takes is refused before the build, naming it and its size."""
    content = b"x" * (limits.MAX_SECRET + 1)
    (tmp_path / "token").write_bytes(content)
    context = make_context(tmp_path / "context", NEEDS_TOKEN)
    with pytest.raises(SecretError, match=f"'token' has {len(content)} bytes"):
        build_image(engine, context, secrets={"token": content if kind == "bytes" else SecretFile(tmp_path / "token")})


def test_a_secret_that_turns_out_too_large(engine: Engine, tmp_path: Path, driver: str) -> None:
    """What a function returns is only known during the build, which fails then for that reason."""
    context = make_context(tmp_path / "context", NEEDS_TOKEN)
    secrets = {"token": lambda: b"x" * (limits.MAX_SECRET + 1)}
    failed = _failure(engine, context, secrets=secrets, driver=driver)
    assert "invalid secret size" in failed.message
    assert isinstance(failed.__cause__, MobysessionError)
    chain = [failed.__cause__, failed.__cause__.__cause__]
    assert any("'token' has 512001 bytes" in str(error) for error in chain)


def test_the_largest_secret(engine: Engine, tmp_path: Path, driver: str) -> None:
    """A secret of just as many bytes as the engine takes arrives."""
    context = make_context(
        tmp_path / "context",
        "FROM mobysession-base\nRUN --mount=type=secret,id=a wc -c < /run/secrets/a | grep 512000\n",
    )
    build_image(engine, context, secrets={"a": b"x" * limits.MAX_SECRET}, driver=driver)


def test_a_function_that_fails(engine: Engine, tmp_path: Path, driver: str) -> None:
    """The error has the secret's ID and the type of the failure, whose text may hold the secret and stays here."""

    def fail() -> bytes:
        raise RuntimeError("hunter2 was wrong")

    failed = _failure(engine, make_context(tmp_path / "context", NEEDS_TOKEN), secrets={"token": fail}, driver=driver)
    assert "the function for secret 'token' failed with RuntimeError" in failed.message
    assert "hunter2" not in f"{failed} {failed.hint} {failed.log} {failed.excerpt}"
    assert isinstance(failed.__cause__, SecretError)
    assert str(failed.__cause__.__cause__) == "hunter2 was wrong"


def test_a_secret_file_that_is_missing(engine: Engine, tmp_path: Path) -> None:
    """A file that is not there is seen before the build."""
    context = make_context(tmp_path / "context", NEEDS_TOKEN)
    with pytest.raises(SecretError, match=r"'token': .*/missing cannot be read: No such file"):
        build_image(engine, context, secrets={"token": tmp_path / "missing"})


# -- the context -------------------------------------------------------------------------------------------------------


def test_a_context_that_cannot_be_one(engine: Engine, tmp_path: Path) -> None:
    """A missing directory, a file in its place, and a directory without a Dockerfile are told apart."""
    (tmp_path / "file").write_text("FROM scratch")
    (tmp_path / "empty").mkdir()
    for name, words in (
        ("missing", "missing does not exist"),
        ("file", "file is not a directory"),
        ("empty", "no Dockerfile in"),
    ):
        with pytest.raises(ContextError, match=words):
            build_image(engine, tmp_path / name)
    with pytest.raises(ContextError, match=r"no Dockerfile .*/empty/Missing"):
        build_image(engine, tmp_path / "empty", file=tmp_path / "empty/Missing")


def _vanish(path: Path) -> None:
    path.unlink()


def _become_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _become_link(path: Path) -> None:
    path.unlink()
    path.symlink_to("/etc/passwd")


def _become_fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def _refuse(path: Path) -> None:
    raise PermissionError(13, "Permission denied", str(path))


@pytest.mark.parametrize("happening", [_vanish, _become_directory, _become_link, _become_fifo, _refuse])
def test_a_file_that_changes_while_it_is_sent(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, driver: str, happening: Callable[[Path], None]
) -> None:
    """A file that was offered and cannot be read when the engine asks for it fails the build; the error names it."""
    files = {"sub/fickle": "x" * 1000, "other": "y"}
    context = make_context(tmp_path / "context", "FROM scratch\nCOPY . /\n", files)

    # A build takes a path and no source, and only from inside is it known when a file is asked for.
    class Fickle(Directory):
        def fetch(self, path: bytes, offered: int) -> Content | bytes:
            if path == b"sub/fickle":
                happening(context / "sub/fickle")
            return super().fetch(path, offered)

    monkeypatch.setattr("mobysession.services.filesync.Directory", Fickle)
    failed = _failure(engine, context, driver=driver)
    assert "sub/fickle" in failed.message
    assert isinstance(failed.__cause__, ContextError)
    assert "sub/fickle" in failed.__cause__.message


def test_a_file_that_shrinks_is_sent_as_it_is(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, driver: str
) -> None:
    """A file that is shorter than it was offered does not fail the build."""
    context = make_context(tmp_path / "context", "FROM scratch\nCOPY fickle /\n", {"fickle": f"{driver}:" + "x" * 1000})

    # As above: there is no other way to know the moment.
    class Fickle(Directory):
        def fetch(self, path: bytes, offered: int) -> Content | bytes:
            (context / "fickle").write_text(f"{driver}")
            return super().fetch(path, offered)

    monkeypatch.setattr("mobysession.services.filesync.Directory", Fickle)
    assert build_image(engine, context, driver=driver).image_id


# -- sessions and ways to the engine ----------------------------------------------------------------------------------


def test_a_session_id_in_use(engine: Engine) -> None:
    """A second session of one ID is refused, with the daemon's words."""

    async def attach_twice() -> None:
        first = Session(Endpoint.parse(engine.host))
        async with first.attach():
            with pytest.raises(SessionIdInUse) as caught:
                async with Session(Endpoint.parse(engine.host), session_id=first.id).attach():
                    pass
            assert first.id in caught.value.reason
            assert "already exists" in caught.value.reason
            assert await first.ping() > 0

    trio.run(attach_twice)


def _through_relay(engine: Engine, context: Path, refuse: list[str], **options: Any) -> Any:
    async def run() -> Any:
        with trio.fail_after(BUILD_TIMEOUT):
            async with open_relay(engine.socket, refuse=refuse) as port:
                return await build(context, endpoint=Endpoint.parse(f"tcp://127.0.0.1:{port}"), **options)

    return trio.run(run)


@pytest.mark.parametrize("driver", ["auto", "control", "classic"])
def test_a_proxy_that_refuses_sessions(engine: Engine, tmp_path: Path, driver: str) -> None:
    """A build through something that lets no session pass fails with the proxy's status and words."""
    context = make_context(tmp_path / "context", "FROM scratch\nCOPY Dockerfile /\n")
    with pytest.raises(UpgradeRefused) as caught:
        _through_relay(engine, context, ["/session"], driver=driver)
    assert caught.value.status == 403
    assert "does not let upgrades through" in caught.value.reason


def test_a_proxy_that_refuses_the_control_api(engine: Engine, tmp_path: Path) -> None:
    """Where only ``/grpc`` is refused, the classic endpoint builds; the control driver, if asked for, says why not."""
    context = make_context(tmp_path / "context", "FROM scratch\nCOPY Dockerfile /\n")
    assert _through_relay(engine, context, ["/grpc"]).driver == "classic"
    with pytest.raises(UpgradeRefused):
        _through_relay(engine, context, ["/grpc"], driver="control")


def test_no_engine(tmp_path: Path) -> None:
    """Where nothing listens, the error names the address."""
    context = make_context(tmp_path / "context", "FROM scratch\nCOPY Dockerfile /\n")
    with pytest.raises(ConnectError, match=r"nobody\.sock"):
        trio.run(lambda: build(context, endpoint=Endpoint.parse(f"unix://{tmp_path}/nobody.sock")))
