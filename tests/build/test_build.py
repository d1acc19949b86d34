"""`build` as a whole on the fake daemon: what it returns, shows, writes, refuses, and how it ends when things break."""

from __future__ import annotations

import base64
import json
import logging
import os
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from mobysession import limits
from mobysession._pb.ssh_pb2 import CheckAgentRequest, CheckAgentResponse
from mobysession.build import build
from mobysession.errors import (
    BuildFailed,
    ContextError,
    HandshakeError,
    HandshakeTimeout,
    MobysessionError,
    ProviderError,
    RpcError,
    SecretError,
    SessionLost,
    SessionNotReady,
    SshError,
    UnsupportedByEngine,
    UpgradeRefused,
    UsageError,
)
from mobysession.services.agent_frames import encode_frame, parse_identities
from mobysession.services.bytes_message import decode_bytes_message, encode_bytes_message
from mobysession.services.ssh_agents import SshAgent, SshKeys
from mobysession.session.access import Access, AccessRequest
from mobysession.testing import FakeDaemon, FakeSolve, Faults, Refusal

if TYPE_CHECKING:
    from pathlib import Path

    from mobysession.build.options import Driver
    from mobysession.buildkit.status import BuildStatus, Changes
    from mobysession.testing.caller import FakeCaller

DRIVERS = pytest.mark.parametrize("driver", ["control", "classic"])
NO_GRPC = Faults(refusal=Refusal(404, "page not found"))
SECRET = b"hunter2-hunter2"


class OwnView:
    """A view that remembers what it was told."""

    interval = 0.01

    def __init__(self) -> None:
        self.names: list[str] = []
        self.closed: list[BaseException | None] = []

    def update(self, status: BuildStatus, changes: Changes) -> None:
        self.names += [vertex.name for vertex in changes.vertices.values()]

    def tick(self) -> None:
        pass

    def close(self, error: BaseException | None = None) -> None:
        self.closed.append(error)


async def fail(solve: FakeSolve) -> dict[str, str]:
    """Fail in a step, as a process does that ends with 2."""
    async with solve.vertex("[internal] load build definition from Dockerfile") as vertex:
        solve.dockerfile = ((await solve.receive(vertex, "dockerfile")).root / "Dockerfile").read_text()
    async with solve.vertex("[2/2] RUN make") as step:
        step.log("make: no rule\n", stream=2)
        words = 'process "/bin/sh -c make" did not complete successfully: exit code: 2'
        solve.fail(words, exit_code=2, line=3, vertex=step)


# -- success -----------------------------------------------------------------------------------------------------------


@DRIVERS
async def test_a_build_returns_what_it_came_to(context: Path, driver: Driver) -> None:
    """ID, tags, driver, steps, what was transferred: the same from either driver."""
    async with FakeDaemon.listen() as daemon:
        result = await build(
            context, endpoint=daemon.endpoint, tags=["a:1", "b"], secrets={"token": SECRET}, driver=driver
        )
        caller = daemon.sessions[result.session_id]
    assert result.image_id == result.digest
    assert result.image_id.startswith("sha256:")
    assert (result.tags, result.driver) == (("a:1", "b"), driver)
    assert bool(result.ref) == (driver == "control")
    assert "[stage-0 1/2] COPY hello.txt /hello.txt" in [step.name for step in result.steps]
    assert {transfer.directory for transfer in result.transfers} == {"context", "dockerfile"}
    assert sum(transfer.bytes_sent for transfer in result.transfers) >= len("hello")
    assert caller.name == "context"
    assert len(caller.shared_key) == 64


@DRIVERS
async def test_a_build_writes_its_files(context: Path, tmp_path: Path, driver: Driver) -> None:
    """The ID alone, without a newline, and the response as JSON."""
    async with FakeDaemon.listen() as daemon:
        result = await build(
            context,
            endpoint=daemon.endpoint,
            driver=driver,
            tags=["a:1"],
            iidfile=tmp_path / "iid",
            metadata_file=str(tmp_path / "meta.json"),
        )
    assert (tmp_path / "iid").read_text() == result.image_id
    metadata = json.loads((tmp_path / "meta.json").read_text())
    assert metadata == result.metadata()
    assert metadata["containerimage.digest"] == result.image_id


async def test_warnings_are_in_the_result(context: Path) -> None:
    """What the engine warns of is told as it came."""

    async def script(solve: FakeSolve) -> dict[str, str]:
        async with solve.vertex("[1/1] RUN x") as step:
            step.warn("do not do this", detail=["because"])
        return {"containerimage.digest": "sha256:1"}

    async with FakeDaemon.listen(script=script) as daemon:
        result = await build(context, endpoint=daemon.endpoint)
    (warning,) = result.warnings
    assert warning.short == "do not do this"


@DRIVERS
async def test_a_view_and_a_listener_follow_the_build(context: Path, driver: Driver) -> None:
    """A view of the caller's own is fed and closed once, without an error; ``on_status`` sees the model."""
    view, seen = OwnView(), list[int]()
    async with FakeDaemon.listen() as daemon:
        await build(
            context,
            endpoint=daemon.endpoint,
            progress=view,
            driver=driver,
            on_status=lambda status: seen.append(len(status.vertices)),
        )
    assert "exporting to image" in view.names
    assert view.closed == [None]
    assert seen == sorted(seen)
    assert seen[-1] >= 5


@pytest.mark.parametrize("kind", ["plain", "auto", "tty", "quiet", "none"])
async def test_a_view_by_name_writes_to_stderr(context: Path, kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Only there, the quiet one not at all, and ``none`` neither."""
    async with FakeDaemon.listen() as daemon:
        await build(context, endpoint=daemon.endpoint, progress=kind)
    printed = capsys.readouterr()
    assert printed.out == ""
    assert ("hello.txt" in printed.err) == (kind not in ("quiet", "none"))


# -- which driver ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [400, 403, 404, 500])
async def test_an_engine_that_refuses_grpc_is_asked_the_classic_way(
    context: Path, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    """Without a word to the caller but in the log."""
    caplog.set_level(logging.INFO, "mobysession")
    async with FakeDaemon.listen(grpc_faults=Faults(refusal=Refusal(status, "not here"))) as daemon:
        result = await build(context, endpoint=daemon.endpoint)
        assert ("POST", "/build") in daemon.requests
    assert result.driver == "classic"
    assert "not here; asking with POST /build" in caplog.text


@pytest.mark.parametrize("driver", ["auto", "classic"])
async def test_attributes_for_the_frontend_are_not_dropped_on_the_classic_way(context: Path, driver: Driver) -> None:
    """What cannot be asked for is refused, whether the way was chosen or taken; what git knows is no such thing."""
    (context / ".git").mkdir()
    (context / ".git" / "HEAD").write_text("0" * 40)
    async with FakeDaemon.listen(grpc_faults=NO_GRPC) as daemon:
        assert (await build(context, endpoint=daemon.endpoint, driver=driver)).driver == "classic"
        with pytest.raises(UnsupportedByEngine, match="no frontend_attrs"):
            await build(context, endpoint=daemon.endpoint, driver=driver, frontend_attrs={"build-arg:X": "a"})
        assert daemon.requests.count(("POST", "/build")) == 1


@pytest.mark.parametrize("given", ["target:other", "input:other"])
async def test_a_context_that_is_another_target_is_refused(context: Path, given: str) -> None:
    """Only bake has other targets; the engine would tell only where the Dockerfile uses it."""
    async with FakeDaemon.listen() as daemon:
        with pytest.raises(UsageError, match="no other target in a build"):
            await build(context, endpoint=daemon.endpoint, build_contexts={"x": given})
        assert daemon.requests == []


async def test_a_driver_that_was_chosen_is_not_exchanged(context: Path) -> None:
    """``driver="control"`` on an engine that refuses ``/grpc`` is an error with a way out."""
    async with FakeDaemon.listen(grpc_faults=NO_GRPC) as daemon:
        with pytest.raises(UpgradeRefused, match="status 404: page not found") as caught:
            await build(context, endpoint=daemon.endpoint, driver="control")
        assert ("POST", "/build") not in daemon.requests
    assert "--driver auto" in (caught.value.hint or "")


async def test_the_classic_driver_does_not_ask_for_grpc(context: Path) -> None:
    """What is not used is not dialled."""
    async with FakeDaemon.listen() as daemon:
        await build(context, endpoint=daemon.endpoint, driver="classic")
        assert ("POST", "/grpc") not in daemon.requests


# -- failure -----------------------------------------------------------------------------------------------------------


@DRIVERS
async def test_a_failed_step_is_told_with_its_place(context: Path, driver: Driver) -> None:
    """Step, exit code, log, lines and excerpt, whether the engine's error is typed or only text."""
    view = OwnView()
    async with FakeDaemon.listen(script=fail) as daemon:
        with pytest.raises(BuildFailed) as caught:
            await build(context, endpoint=daemon.endpoint, driver=driver, progress=view)
    error = caught.value
    assert error.message.startswith('failed to solve: process "/bin/sh -c make" did not complete')
    assert (error.step, error.exit_code, error.log) == ("[2/2] RUN make", 2, ("make: no rule",))
    if driver == "control":
        assert (error.dockerfile, error.lines) == ("Dockerfile", (3, 3))
        assert ">>> RUN --mount" in error.excerpt
    assert view.closed == [error]


@DRIVERS
async def test_a_missing_secret_is_hinted_at(context: Path, driver: Driver) -> None:
    """The engine's words, the line that asks for it, and what to pass."""
    (context / "Dockerfile").write_text("FROM scratch\nRUN --mount=type=secret,id=npm,required=true true\n")
    async with FakeDaemon.listen() as daemon:
        with pytest.raises(BuildFailed, match="secret npm: not found") as caught:
            await build(context, endpoint=daemon.endpoint, driver=driver)
    assert 'secrets={"npm": ...} (--secret id=npm,' in (caught.value.hint or "")


@DRIVERS
async def test_the_failure_of_a_function_of_ours_is_the_cause(context: Path, driver: Driver) -> None:
    """The engine only quotes it; the chain leads to the exception, whose text the engine never sees."""

    def broken() -> bytes:
        raise LookupError(SECRET.decode())

    async with FakeDaemon.listen() as daemon:
        with pytest.raises(BuildFailed, match="the function for secret 'token' failed with LookupError") as caught:
            await build(context, endpoint=daemon.endpoint, driver=driver, secrets={"token": broken})
    assert isinstance(caught.value.__cause__, SecretError)
    assert isinstance(caught.value.__cause__.__cause__, LookupError)
    assert SECRET.decode() not in str(caught.value)


@DRIVERS
async def test_a_secret_that_turns_out_too_large_is_named(context: Path, driver: Driver) -> None:
    """The engine says a size; the cause says which secret, and the hint what to do."""
    large = {"token": lambda: bytes(limits.MAX_SECRET + 1)}
    async with FakeDaemon.listen() as daemon:
        with pytest.raises(BuildFailed, match="invalid secret size") as caught:
            await build(context, endpoint=daemon.endpoint, driver=driver, secrets=large)
    assert isinstance(caught.value.__cause__, SecretError)
    assert "'token'" in caught.value.__cause__.message
    assert caught.value.hint == caught.value.__cause__.hint


@DRIVERS
@pytest.mark.parametrize("moment", ["before the session is called", "in a step"])
async def test_an_engine_that_dies_is_a_lost_session(context: Path, driver: Driver, moment: str) -> None:
    """One exception, at once, of a type that says so; the view gets it too."""
    view = OwnView()

    async def die(solve: FakeSolve) -> dict[str, str]:
        if moment == "in a step":
            async with solve.vertex("[1/1] RUN x") as step:
                await solve.receive(step, "context")
        daemon.kill()
        await trio.sleep_forever()
        return {}

    async with FakeDaemon.listen(script=die) as daemon:
        with trio.fail_after(5), pytest.raises(SessionLost) as caught:
            await build(context, endpoint=daemon.endpoint, driver=driver, progress=view)
    assert view.closed == [caught.value]


async def test_a_control_connection_that_breaks_is_a_lost_engine(context: Path) -> None:
    """Although the session's own connection still stands."""
    async with FakeDaemon.listen(grpc_faults=Faults(cut_after=700)) as daemon:
        with pytest.raises(SessionLost, match="went away during the build"):
            await build(context, endpoint=daemon.endpoint)


async def test_what_was_in_flight_when_the_control_connection_broke_is_told(
    context: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error names the calls on the session, and which connection was lost first."""
    control: list[trio.abc.Stream] = []

    async def script(solve: FakeSolve) -> dict[str, str]:
        # Not by the solve, which takes its calls with it when it is cancelled.
        nursery.start_soon(ask, await solve.session())
        await trio.sleep_forever()
        return {}

    async def ask(caller: FakeCaller) -> None:
        with suppress(RpcError):
            await caller.get_secret("slow")

    async def slow() -> bytes:
        await trio.aclose_forcefully(control[0])
        await trio.sleep_forever()
        return b""

    async with FakeDaemon.listen(script=script) as daemon:
        serve = daemon.solver.serve

        async def remember(stream: trio.abc.Stream) -> None:
            control.append(stream)
            await serve(stream)

        monkeypatch.setattr(daemon.solver, "serve", remember)
        async with trio.open_nursery() as nursery:
            with trio.fail_after(5), pytest.raises(SessionLost, match="in flight: /moby") as caught:
                await build(context, endpoint=daemon.endpoint, secrets={"slow": slow})
            nursery.cancel_scope.cancel()
    assert caught.value.in_flight == ("/moby.buildkit.secrets.v1.Secrets/GetSecret",)
    assert caught.value.first == "control"


async def test_a_session_that_the_daemon_gives_up_ends_the_build(context: Path) -> None:
    """A GOAWAY on the session is not waited out."""

    async def script(solve: FakeSolve) -> dict[str, str]:
        await trio.sleep_forever()
        return {}

    async with FakeDaemon.listen(script=script, faults=Faults(goaway_after=0.05)) as daemon:
        with trio.fail_after(5), pytest.raises(SessionLost, match="was lost"):
            await build(context, endpoint=daemon.endpoint)


SESSION_FAULTS = {
    "refused": (Faults(refusal=Refusal(500, "no more sessions")), UpgradeRefused, "no more sessions"),
    "forbidden": (Faults(refusal=Refusal(403, "authorization denied by plugin")), UpgradeRefused, "denied by plugin"),
    "something else": (Faults(upgraded_to="websocket"), UpgradeRefused, "not for h2c"),
    "mute": (Faults(mute=True), SessionNotReady, "said nothing for 20 s"),
    "closing": (Faults(close_after_101=True), SessionNotReady, "did not open HTTP/2"),
    "garbage": (Faults(garbage=b"SSH-2.0-OpenSSH_9.2p1\r\n" * 4), SessionNotReady, "broke HTTP/2"),
    "unanswered": (Faults(never_answer=True), HandshakeTimeout, "did not answer POST /session within 20 seconds"),
}


@DRIVERS
@pytest.mark.parametrize("name", SESSION_FAULTS)
async def test_a_session_that_cannot_be_opened_is_the_error(
    context: Path, driver: Driver, name: str, autojump_clock: trio.testing.MockClock
) -> None:
    """It comes out typed and within its time limit, with the control connection already open beside it."""
    faults, kind, words = SESSION_FAULTS[name]
    async with FakeDaemon.listen(faults=faults) as daemon:
        began = trio.current_time()
        with pytest.raises(kind, match=words):
            await build(context, endpoint=daemon.endpoint, driver=driver)
        assert trio.current_time() - began < 25


@pytest.mark.parametrize(
    ("faults", "kind"),
    [
        (Faults(mute=True), HandshakeTimeout),
        (Faults(close_after_101=True), HandshakeError),
        (Faults(garbage=b"SSH-2.0-OpenSSH_9.2p1\r\n" * 4), HandshakeError),
        (Faults(never_answer=True), HandshakeTimeout),
    ],
)
async def test_a_control_connection_that_cannot_be_used_is_the_error(
    context: Path, faults: Faults, kind: type[MobysessionError], autojump_clock: trio.testing.MockClock
) -> None:
    """An engine that upgrades ``/grpc`` and then does not speak is not waited for without end."""
    async with FakeDaemon.listen(grpc_faults=faults) as daemon:
        began = trio.current_time()
        with pytest.raises(kind, match=r"POST /grpc"):
            await build(context, endpoint=daemon.endpoint)
        assert trio.current_time() - began < 25


async def test_what_a_listener_raises_comes_out_as_itself(context: Path) -> None:
    """No group around it, and the build is cancelled."""

    def listener(status: BuildStatus) -> None:
        raise LookupError("mine")

    async with FakeDaemon.listen() as daemon:
        with pytest.raises(LookupError, match="mine"):
            await build(context, endpoint=daemon.endpoint, on_status=listener)


# -- refused before anything is asked ----------------------------------------------------------------------------------


async def test_an_unknown_option_is_named_beside_those_there_are(context: Path) -> None:
    """A slip in a keyword is a UsageError that lists what could have been meant."""
    slip: dict[str, Any] = {"tag": "a:1"}
    with pytest.raises(UsageError, match="has no option 'tag'") as caught:
        await build(context, **slip)
    assert "tags" in (caught.value.hint or "")
    assert "metadata_file" in (caught.value.hint or "")


async def test_an_unknown_progress_is_refused_before_the_engine_is_asked(context: Path) -> None:
    """No connection is made for it."""
    async with FakeDaemon.listen() as daemon:
        with pytest.raises(UsageError, match="unknown progress 'fancy'"):
            await build(context, endpoint=daemon.endpoint, progress="fancy", shm_size="64m")
        assert daemon.requests == []


@pytest.mark.parametrize("option", ["iidfile", "metadata_file"])
@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda folder: folder / "missing" / "file", "there is no directory"),
        (lambda folder: folder, "it is a directory"),
        (lambda folder: "", "its name is empty"),
    ],
)
async def test_an_output_file_that_cannot_be_is_refused_before_the_build(
    context: Path, tmp_path: Path, option: str, make, words: str
) -> None:
    """Minutes of building are not spent on what cannot be written down."""
    async with FakeDaemon.listen() as daemon:
        with pytest.raises(ProviderError, match=words):
            await build(context, endpoint=daemon.endpoint, **{option: make(tmp_path)})
        assert daemon.requests == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
async def test_an_output_folder_that_may_not_be_written_is_refused(context: Path, tmp_path: Path) -> None:
    """Permission is asked for first."""
    (tmp_path / "closed").mkdir(mode=0o555)
    with pytest.raises(ProviderError, match="permission denied"):
        await build(context, iidfile=tmp_path / "closed" / "iid")


async def test_an_output_file_that_fails_after_the_build_tells_the_image(context: Path, tmp_path: Path) -> None:
    """The image is there: its ID is in the error, and the name is the one that was given."""
    folder = tmp_path / "out"
    folder.mkdir()

    async def script(solve: FakeSolve) -> dict[str, str]:
        folder.rmdir()
        return {"containerimage.digest": "sha256:1"}

    async with FakeDaemon.listen(script=script) as daemon:
        with pytest.raises(ProviderError, match=r"the image sha256:1 was built, but '.*/out/iid' cannot be written"):
            await build(context, endpoint=daemon.endpoint, iidfile=folder / "iid")


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda context: context / "missing", "does not exist"),
        (lambda context: context / "hello.txt", "is not a directory"),
        (lambda context: context / "hello.txt" / "below", "cannot be used: Not a directory"),
        (lambda context: "x" * 5000, "cannot be used: File name too long"),
        (lambda context: "nul\0", "cannot be used: embedded null byte"),
    ],
)
async def test_a_context_that_is_none_is_refused(context: Path, make, words: str) -> None:
    """Whatever is wrong with the path, in one typed line, before the engine is asked."""
    async with FakeDaemon.listen() as daemon:
        with pytest.raises(ContextError, match=words):
            await build(make(context), endpoint=daemon.endpoint)
        assert daemon.requests == []


async def test_a_missing_dockerfile_is_refused(context: Path) -> None:
    """With the option that names another one."""
    (context / "Dockerfile").unlink()
    with pytest.raises(ContextError, match="there is no Dockerfile in") as caught:
        await build(context)
    assert "-f" in (caught.value.hint or "")


@pytest.mark.parametrize(
    ("make", "words"),
    [(os.mkfifo, "Dockerfile is not a regular file"), (os.mkdir, "Dockerfile is a directory, not a Dockerfile")],
)
@pytest.mark.parametrize("named", [False, True])
async def test_a_dockerfile_that_is_no_file_is_refused(context: Path, make, words: str, named: bool) -> None:
    """An engine waits for ever for what a pipe says, and docker buildx with it."""
    path = context / "Dockerfile"
    path.unlink()
    make(path)
    async with FakeDaemon.listen() as daemon:
        with pytest.raises(ContextError, match=words):
            await build(context, endpoint=daemon.endpoint, file=path if named else None)
        assert daemon.requests == []


async def test_an_id_can_be_written_of_an_image_only(context: Path, tmp_path: Path) -> None:
    """A directory has none; beside it an image may have one."""
    with pytest.raises(UsageError, match="no output is an image"):
        await build(context, outputs=[f"type=local,dest={tmp_path}/out"], iidfile=tmp_path / "iid")


async def test_a_source_policy_that_an_engine_would_ignore_is_refused(context: Path) -> None:
    """It would hold nothing up."""
    async with FakeDaemon.listen(api_version="1.42") as daemon:
        with pytest.raises(UnsupportedByEngine, match="source_policy would be ignored") as caught:
            await build(context, endpoint=daemon.endpoint, source_policy={"rules": []})
        assert ("POST", "/session") not in daemon.requests
    assert "Docker 24" in (caught.value.hint or "")


@pytest.mark.parametrize("options", [{"shm_size": "64m"}, {"ulimits": ["nofile=1:2"]}, {"cgroup_parent": "/x"}])
async def test_what_an_old_engine_would_ignore_is_refused(context: Path, options: dict[str, Any]) -> None:
    """API 1.41 takes the option and does nothing with it; 1.42 has it."""
    async with FakeDaemon.listen(api_version="1.41") as daemon:
        with pytest.raises(UnsupportedByEngine, match=r"would be ignored by this engine \(API 1.41\)") as caught:
            await build(context, endpoint=daemon.endpoint, **options)
        assert ("POST", "/session") not in daemon.requests
    assert "Docker 23" in (caught.value.hint or "")
    async with FakeDaemon.listen(api_version="1.42") as daemon:
        await build(context, endpoint=daemon.endpoint, **options)


async def test_a_size_of_nothing_is_nothing_to_ignore(context: Path) -> None:
    """An old engine builds with 0, which asks for nothing."""
    async with FakeDaemon.listen(api_version="1.41") as daemon:
        await build(context, endpoint=daemon.endpoint, shm_size="0")


async def test_several_platforms_on_a_graph_driver_are_refused(context: Path) -> None:
    """The worker has no snapshotter, so its store holds images of one platform."""
    async with FakeDaemon.listen() as daemon:
        with pytest.raises(UnsupportedByEngine, match="several platforms"):
            await build(context, endpoint=daemon.endpoint, platforms=["linux/amd64", "linux/arm64"])


async def test_host_gateway_reaches_the_engine_as_an_address(context: Path) -> None:
    """The frontend does not know the word; the worker's label has the address."""
    asked = list[str]()

    async def script(solve: FakeSolve) -> dict[str, str]:
        asked.append(solve.request.FrontendAttrs["add-hosts"])
        return {"containerimage.digest": "sha256:1"}

    async with FakeDaemon.listen(script=script) as daemon:
        await build(context, endpoint=daemon.endpoint, add_hosts=["me:host-gateway"])
    assert asked == ["me=172.17.0.1"]


async def test_proxies_of_the_docker_configuration_are_build_arguments(context: Path, docker_config: Path) -> None:
    """In capitals, except where the user said something in either case; a daemon's own proxies go before the rest."""
    asked = list[dict[str, str]]()

    async def script(solve: FakeSolve) -> dict[str, str]:
        asked.append({k: v for k, v in solve.request.FrontendAttrs.items() if k.startswith("build-arg:")})
        return {"containerimage.digest": "sha256:1"}

    async with FakeDaemon.listen(script=script) as daemon:
        for proxies in (
            {"default": {"httpProxy": "http://p", "noProxy": "a,b", "ftpProxy": ""}},
            {"default": {"httpProxy": "http://p"}, daemon.endpoint.url: {"allProxy": "http://q"}},
        ):
            (docker_config / "config.json").write_text(json.dumps({"proxies": proxies}))
            await build(context, endpoint=daemon.endpoint, build_args={"http_proxy": "mine", "NO_PROXY": None})
    assert asked == [
        {"build-arg:http_proxy": "mine"},
        {"build-arg:http_proxy": "mine", "build-arg:ALL_PROXY": "http://q"},
    ]


async def test_a_broken_docker_configuration_costs_its_proxies(
    context: Path, docker_config: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A build that needs nothing else of the file goes on, with a warning."""
    (docker_config / "config.json").write_text("{")
    async with FakeDaemon.listen() as daemon:
        await build(context, endpoint=daemon.endpoint, secrets={"token": SECRET})
    assert "building without its proxies" in caplog.text


# -- cancelling --------------------------------------------------------------------------------------------------------


@DRIVERS
async def test_a_cancel_ends_the_build_on_the_engine(context: Path, driver: Driver) -> None:
    """The script sees it, the session is over, and the view was closed."""
    running, ended, view = trio.Event(), trio.Event(), OwnView()

    async def script(solve: FakeSolve) -> dict[str, str]:
        running.set()
        try:
            await trio.sleep_forever()
        finally:
            ended.set()
        return {}

    async with FakeDaemon.listen(script=script) as daemon:
        async with trio.open_nursery() as nursery:

            async def run() -> None:
                await build(context, endpoint=daemon.endpoint, driver=driver, progress=view)

            nursery.start_soon(run)
            await running.wait()
            nursery.cancel_scope.cancel()
        (caller,) = daemon.sessions.values()
        with trio.fail_after(5):
            await ended.wait()
            await caller.channel.closed.wait()
    assert len(view.closed) == 1


class CancelAfter(trio.abc.Instrument):
    """Cancels a scope after so many steps of tasks."""

    def __init__(self, scope: trio.CancelScope, steps: int) -> None:
        self._scope = scope
        self._left = steps

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self._left -= 1
        if self._left == 0:
            self._scope.cancel()


@DRIVERS
async def test_a_cancel_at_any_moment_leaves_nothing_behind(context: Path, driver: Driver) -> None:
    """Whichever step of whichever task it meets: no task stays, no other exception comes out; descriptors are
    looked at by a fixture.
    """
    async with FakeDaemon.listen() as daemon:
        await trio.testing.wait_all_tasks_blocked()
        before = trio.lowlevel.current_statistics().tasks_living
        completed = False
        steps = 1
        while not completed:
            with trio.CancelScope() as scope:
                instrument = CancelAfter(scope, steps)
                trio.lowlevel.add_instrument(instrument)
                try:
                    await build(context, endpoint=daemon.endpoint, driver=driver, secrets={"token": SECRET})
                    completed = True
                finally:
                    trio.lowlevel.remove_instrument(instrument)
            daemon.kill()
            with trio.fail_after(5):
                while trio.lowlevel.current_statistics().tasks_living > before:
                    await trio.lowlevel.checkpoint()
            steps += 1 + steps // 8
    assert steps > 50


# -- secrets -----------------------------------------------------------------------------------------------------------


@DRIVERS
async def test_a_secret_that_a_step_prints_is_hidden(
    context: Path, driver: Driver, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    """Wherever the engine repeats it, view, listener, log and error have stars instead."""
    statuses: list[BuildStatus] = []

    async def leak(solve: FakeSolve) -> dict[str, str]:
        value = (await (await solve.session()).get_secret("token")).decode()
        async with solve.vertex(f"[1/2] RUN echo {value}") as echo:
            echo.warn(f"{value} is shown", detail=[f"by {value}"])
        async with solve.vertex("[2/2] RUN cat") as step:
            step.log(f"before\n{value}\n{base64.b64encode(value.encode()).decode()}\nafter\n")
            logging.getLogger("mobysession.build").warning("got %s", value)
            solve.fail(f"process cat {value} did not complete: exit code: 2", exit_code=2, line=3, vertex=step)
        return {}

    (context / "Dockerfile").write_text(f"FROM scratch\nRUN echo {SECRET.decode()}\nRUN cat {SECRET.decode()}\n")
    async with FakeDaemon.listen(script=leak) as daemon:
        with pytest.raises(BuildFailed) as caught:
            await build(
                context,
                endpoint=daemon.endpoint,
                driver=driver,
                progress="plain",
                on_status=statuses.append,
                secrets={"token": SECRET},
            )
    printed = capsys.readouterr()
    error = caught.value
    told = [vertex.name + vertex.error for vertex in statuses[-1].vertices], statuses[-1].warnings
    shown = f"{printed} {caplog.text} {told} {vars(error)} {error.args} {error}"
    assert SECRET.decode() not in shown
    assert base64.b64encode(SECRET).decode() not in shown
    assert error.log == ("before", "***", "***", "after")
    assert "process cat *** did not complete" in error.message
    assert "got ***" in caplog.text
    assert "***" in printed.err


async def test_the_log_is_left_as_it_was(context: Path) -> None:
    """After a build, failed or not, no handler has a filter of ours."""
    before = [(handler, list(handler.filters)) for handler in logging.getLogger().handlers]
    async with FakeDaemon.listen(script=fail) as daemon:
        with pytest.raises(BuildFailed):
            await build(context, endpoint=daemon.endpoint, secrets={"token": SECRET})
    assert [(handler, handler.filters) for handler in logging.getLogger().handlers] == before


@DRIVERS
async def test_no_secret_is_shown_or_logged(
    context: Path, driver: Driver, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    """Neither with everything logged nor in the result."""
    caplog.set_level(logging.DEBUG)
    async with FakeDaemon.listen() as daemon:
        result = await build(
            context, endpoint=daemon.endpoint, driver=driver, progress="plain", secrets={"token": SECRET}
        )
    printed = capsys.readouterr()
    assert SECRET.decode() not in caplog.text + printed.out + printed.err + repr(result)


@DRIVERS
async def test_a_secret_where_it_does_not_belong_is_a_warning(context: Path, driver: Driver) -> None:
    """In a build argument, a label or a step's log: each is told once, by its name and never by its value."""
    value = SECRET.decode()

    async def leak(solve: FakeSolve) -> dict[str, str]:
        caller = await solve.session()
        async with solve.vertex("[1/1] RUN env") as step:
            for name in ("token", "late", "late"):
                await caller.get_secret(name)
            step.log(f"TOKEN={value}\n")
            step.log(f"again {value}\n")
        return {"containerimage.digest": "sha256:" + "0" * 64}

    async with FakeDaemon.listen(script=leak) as daemon:
        result = await build(
            context,
            endpoint=daemon.endpoint,
            driver=driver,
            secrets={"token": SECRET, "late": lambda: "another-secret", "short": "1", "unused": "innocent"},
            build_args={"TOKEN": value, "VERSION": "1", "KIND": "innocent-ish"},
            labels={"late": "see another-secret here", "fine": "nothing"},
        )
    texts = [warning.short for warning in result.warnings]
    assert [text.partition(", and")[0].partition(";")[0] for text in texts] == [
        "SecretInBuild: build argument TOKEN holds the value of secret 'token'",
        "SecretInBuild: build argument KIND holds the value of secret 'unused'",
        "SecretInBuild: label late holds the value of secret 'late'",
        "SecretInLog: a step printed the value of a secret",
    ]
    assert value not in repr(texts)


async def test_the_status_has_the_transfers(context: Path, fake_daemon: FakeDaemon) -> None:
    """How far the reading of each directory is, is in the model, and the callback hears of it."""
    heard: dict[str, list[int]] = {}

    def on_status(status: BuildStatus) -> None:
        for name, transfer in status.transfers.items():
            heard.setdefault(name, []).append(transfer.sent_bytes)

    await build(context, endpoint=fake_daemon.endpoint, secrets={"token": SECRET}, on_status=on_status)
    assert heard["context"][-1] == 5
    assert heard["context"] == sorted(heard["context"])
    assert heard["dockerfile"][-1] == len((context / "Dockerfile").read_bytes())


# -- agents and access -------------------------------------------------------------------------------------------------


@DRIVERS
async def test_the_agents_of_a_build_are_those_given(context: Path, tmp_path: Path, driver: Driver) -> None:
    """The engine finds the keys under the ID, and no other agent."""
    key = tmp_path / "key"
    private = Ed25519PrivateKey.generate()
    key.write_bytes(private.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()))
    listed: list[bytes] = []

    async def connect(solve: FakeSolve) -> dict[str, str]:
        caller = await solve.session()
        metadata = [("buildkit.ssh.id", "work")]
        async with caller.channel.open_call("/moby.sshforward.v1.SSH/ForwardAgent", metadata=metadata) as call:
            await call.send(encode_bytes_message(encode_frame(11)))
            listed.append(bytes(decode_bytes_message(await call.receive() or b"")))
        with pytest.raises(RpcError, match="unset ssh forward key default"):
            await caller.unary("/moby.sshforward.v1.SSH/CheckAgent", CheckAgentRequest(), CheckAgentResponse)
        return {"containerimage.digest": "sha256:" + "0" * 64}

    async with FakeDaemon.listen(script=connect) as daemon:
        for ssh in ([f"work={key}"], {"work": SshKeys(key)}):
            await build(context, endpoint=daemon.endpoint, driver=driver, ssh=ssh)
    (one,) = parse_identities(listed[0][4:])
    assert one.blob.endswith(private.public_key().public_bytes_raw())
    assert listed[0] == listed[1]


async def test_an_agent_that_cannot_be_used_ends_a_build_at_once(context: Path, tmp_path: Path) -> None:
    """Before the engine is asked for anything, with the ID and what is wrong."""
    async with FakeDaemon.listen() as daemon:
        with pytest.raises(SshError, match=r"SSH agent 'work': no SSH agent at .*none"):
            await build(context, endpoint=daemon.endpoint, ssh={"work": SshAgent(tmp_path / "none")})
        with pytest.raises(UsageError, match="work is given twice"):
            await build(context, endpoint=daemon.endpoint, ssh=["work", "work"])
        assert not daemon.sessions


@DRIVERS
async def test_access_is_decided_for_each_request_of_a_build(context: Path, driver: Driver) -> None:
    """What the function refuses fails the build in its words; it hears the name of the build's context."""
    asked: list[AccessRequest] = []

    def approve(request: AccessRequest) -> bool:
        asked.append(request)
        return False

    async with FakeDaemon.listen() as daemon:
        with pytest.raises(BuildFailed, match="secret token is refused by the client: refused"):
            await build(
                context,
                endpoint=daemon.endpoint,
                driver=driver,
                secrets={"token": SECRET},
                access=Access(approve=approve),
            )
    assert [(str(request), request.session_name) for request in asked] == [("secret token", "context")]
