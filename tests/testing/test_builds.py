"""Builds on the fake: what is asked of the session, what is told, what comes out."""

from __future__ import annotations

import pytest
import trio

from mobysession._pb import control_pb2
from mobysession.build import build
from mobysession.buildkit.control import Control
from mobysession.errors import BuildFailed, RpcError, StatusCode
from mobysession.identity import new_id
from mobysession.rpc.client import open_channel
from mobysession.services.auth import Auth
from mobysession.services.filesync import FileSync
from mobysession.services.secrets import Secrets
from mobysession.session import open_session
from mobysession.testing import FakeDaemon, dockerfile_build
from mobysession.transport.hijack import hijack

DOCKERFILE = """\
FROM busybox:local AS base
COPY . /src
RUN --mount=type=secret,id=tok --network=none cat /run/secrets/tok > /dev/null && ls /src
FROM scratch
COPY --from=base /src /src
"""


@pytest.fixture
def context(tmp_path):
    """Give a directory with a Dockerfile, something to copy and something to leave out."""
    directory = tmp_path / "context"
    directory.mkdir()
    (directory / "Dockerfile").write_text(DOCKERFILE)
    (directory / ".dockerignore").write_text("*.log\n!keep.log\n")
    (directory / "a.txt").write_text("hello\n")
    (directory / "x.log").write_text("x\n")
    (directory / "keep.log").write_text("k\n")
    return directory


@pytest.mark.parametrize("driver", ["control", "classic"])
async def test_a_build_asks_for_what_an_engine_asks_for(context, driver):
    """Dockerfile, ignore file, context without what is ignored, then the secret, in this order, and told by steps."""
    async with FakeDaemon.listen() as daemon:
        result = await build(context, endpoint=daemon.endpoint, driver=driver, secrets={"tok": b"s3cr3t"}, tags=["a:1"])
        caller = daemon.sessions[result.session_id]
        assert [record.method.rpartition(".")[2] for record in caller.calls] == [
            *["FileSync/DiffCopy"] * 3,
            "Secrets/GetSecret",
        ]
        (solve,) = daemon.solver.solves.values()
        assert list(solve.trees["context"].entries) == [".dockerignore", "Dockerfile", "a.txt", "keep.log"]
    assert [step.name for step in result.steps] == [
        "[internal] load build definition from Dockerfile",
        "[internal] load metadata for docker.io/library/busybox:local",
        "[internal] load .dockerignore",
        "[internal] load build context",
        "[base 1/3] FROM docker.io/library/busybox:local",
        "[base 2/3] COPY . /src",
        "[base 3/3] " + DOCKERFILE.splitlines()[2],
        "[stage-1 1/1] COPY --from=base /src /src",
        "exporting to image",
    ]


@pytest.mark.parametrize("driver", ["control", "classic"])
async def test_the_digest_shows_that_bytes_arrived(context, driver):
    """The same context makes the same image; one byte of it, or of the secret, makes another."""

    async def image(secret=b"s3cr3t"):
        return (await build(context, endpoint=daemon.endpoint, driver=driver, secrets={"tok": secret})).image_id

    async with FakeDaemon.listen() as daemon:
        first = await image()
        assert await image() == first
        assert await image(b"other!") != first
        (context / "a.txt").write_text("hullo\n")
        assert await image() != first


async def test_transfers_are_counted_as_engines_count_them(context):
    """A Dockerfile of 169 bytes is shown as 208, which is what 28.5.2 showed for one: its packets count."""
    assert (context / "Dockerfile").stat().st_size == 169
    async with FakeDaemon.listen() as daemon:
        await build(context, endpoint=daemon.endpoint, secrets={"tok": b""})
        (solve,) = daemon.solver.solves.values()
        assert solve.trees["dockerfile"].size == 208


async def test_nothing_is_said_to_have_run(context):
    """The output of a RUN step says that it did not run."""
    async with FakeDaemon.listen() as daemon:
        await build(context, endpoint=daemon.endpoint, secrets={"tok": b""})
        (solve,) = daemon.solver.solves.values()
        told = b"".join([log.msg async for message in solve.log.follow() for log in message.logs])
    assert b"executes nothing" in told


@pytest.mark.parametrize(
    ("dockerfile", "message", "lines"),
    [
        ("FROM busybox\nCOPY nope /x\n", r'failed to compute cache key: .* "/nope": not found', (2, 2)),
        ("FROM busybox\nFOO x\n", "dockerfile parse error on line 2: unknown instruction: FOO", (2, 2)),
        ("", "the Dockerfile cannot be empty", None),
        ("RUN x\n", "no build stage in current context", (1, 1)),
        ("FROM busybox\nRUN --mount=type=secret,id=a,required=true \\\n  x\n", "secret a: not found", (2, 3)),
        ("FROM busybox AS one\n", 'target stage "two" could not be found', None),
    ],
)
async def test_failures_are_told_as_engines_tell_them(context, dockerfile, message, lines):
    """Messages and blamed lines are those that 28.5.2 gave for the same files."""
    (context / "Dockerfile").write_text(dockerfile)
    target = "two" if "two" in message else None
    async with FakeDaemon.listen() as daemon:
        with pytest.raises(BuildFailed, match=message) as caught:
            await build(context, endpoint=daemon.endpoint, target=target)
    assert caught.value.lines == lines


async def test_a_missing_dockerfile_has_the_recorded_words(context):
    """What 28.5.2 said of a Dockerfile that the client did not have."""
    solve = await _solve(context, {"filename": "Dockerfile.none"})
    assert solve.code is StatusCode.UNKNOWN
    assert solve.message == "failed to read dockerfile: open Dockerfile.none: no such file or directory"


async def _solve(context, attributes, *, script=None, session_id=None):
    """Return the failure of a solve, asked for by hand."""
    async with FakeDaemon.listen(script=script) as daemon:
        files = FileSync({"context": context, "dockerfile": context})
        async with (
            open_session(daemon.endpoint, files) as session,
            open_channel(await hijack(daemon.endpoint, "/grpc")) as channel,
        ):
            request = control_pb2.SolveRequest(
                Ref=new_id(),
                Session=session.id if session_id is None else session_id,
                Frontend="dockerfile.v0",
                FrontendAttrs=attributes,
            )
            with pytest.raises(RpcError) as caught:
                await Control(channel).solve(request)
    return caught.value


async def test_a_build_without_session_fails_at_its_first_need(context):
    """A solve that names no session is accepted, and fails when it needs one."""
    failure = await _solve(context, {}, session_id="")
    assert failure.message == "could not access local files without session"


async def test_an_unknown_session_is_waited_for(autojump_clock):
    """An engine looks for a session for five seconds, then says which one it missed."""
    async with FakeDaemon() as daemon, open_channel(await hijack(await daemon.dial(), "/grpc")) as channel:
        started = trio.current_time()
        with pytest.raises(RpcError, match="no active session for nobody: context deadline exceeded"):
            await Control(channel).solve(control_pb2.SolveRequest(Ref="r", Session="nobody"))
        assert trio.current_time() - started == pytest.approx(5)


async def test_a_script_of_ones_own(context):
    """A user's script tells steps, output, warnings, and fails with an exit code and a place."""

    async def script(solve):
        solve.dockerfile = "FROM x\nRUN make\n"
        async with solve.vertex("[1/1] RUN make") as step:
            step.log("no rule\n", stream=2)
            step.warn("careful")
            solve.fail("process did not complete: exit code: 2", exit_code=2, line=2, vertex=step)

    async with FakeDaemon.listen(script=script) as daemon:
        with pytest.raises(BuildFailed) as caught:
            await build(context, endpoint=daemon.endpoint)
    assert caught.value.step == "[1/1] RUN make"
    assert caught.value.exit_code == 2
    assert caught.value.lines == (2, 2)
    assert caught.value.log == ("no rule",)
    assert ">>> RUN make" in caught.value.excerpt


async def test_credentials_are_asked_for_only_when_told(context):
    """By default base images are taken to be there; told otherwise, the build asks for their registry's credentials."""
    (context / "Dockerfile").write_text("FROM registry.example/a/b:1\n")
    asked = []

    def credentials(host):
        asked.append(host)
        return ("ann", "pass")

    async def with_credentials(solve):
        return await dockerfile_build(solve, ask_credentials=True)

    async with FakeDaemon.listen() as daemon:
        await build(context, endpoint=daemon.endpoint, credentials=credentials)
        assert asked == []
        daemon.script = with_credentials
        result = await build(context, endpoint=daemon.endpoint, credentials=credentials)
    assert asked == ["registry.example"]
    assert "[auth] a/b:pull token for registry.example" in [step.name for step in result.steps]


async def test_cancelling_a_build_cancels_the_script(context):
    """A client that goes away ends the script where it waits, and its step is told as cancelled."""
    started = trio.Event()

    async def script(solve):
        async with solve.vertex("forever"):
            started.set()
            await trio.sleep_forever()

    async with FakeDaemon.listen(script=script) as daemon:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lambda: build(context, endpoint=daemon.endpoint))
            await started.wait()
            nursery.cancel_scope.cancel()
        (solve,) = daemon.solver.solves.values()
        errors = [vertex.error async for message in solve.log.follow() for vertex in message.vertexes]
    assert errors[-1] == "context canceled"


async def test_an_unknown_ref_has_no_status(autojump_clock):
    """Status of a build that nobody asked for is NOT_FOUND after six seconds."""
    async with FakeDaemon() as daemon, open_channel(await hijack(await daemon.dial(), "/grpc")) as channel:
        with pytest.raises(RpcError, match="no such job nothing") as caught:
            _ = [message async for message in Control(channel).status("nothing")]
    assert caught.value.code is StatusCode.NOT_FOUND


async def test_the_status_of_a_build_that_is_over_is_told_again(context):
    """Status replays from the first message, whenever it is asked for."""
    (context / "Dockerfile").write_text("FROM scratch\n")
    async with FakeDaemon.listen() as daemon:
        result = await build(context, endpoint=daemon.endpoint)
        async with open_channel(await hijack(daemon.endpoint, "/grpc")) as channel:
            names = [v.name async for message in Control(channel).status(result.ref) for v in message.vertexes]
    assert names[0] == "[internal] load build definition from Dockerfile"
    assert names[-1] == "exporting to image"


async def test_a_solve_without_cache_options_is_refused():
    """What would have ended some real daemons is refused here, so that a test shows it."""
    async with FakeDaemon() as daemon, open_channel(await hijack(await daemon.dial(), "/grpc")) as channel:
        request = control_pb2.SolveRequest(Ref="r")
        with pytest.raises(RpcError, match="Cache"):
            await channel.unary("/moby.buildkit.v1.Control/Solve", request, control_pb2.SolveResponse)


async def test_the_rest_of_control_answers():
    """Version, workers, disk usage and prune answer as an idle engine's."""
    async with FakeDaemon() as daemon, open_channel(await hijack(await daemon.dial(), "/grpc")) as channel:
        control = Control(channel)
        info = await control.info()
        assert info is not None
        assert info.version.startswith("v0.")
        (worker,) = await control.list_workers()
        assert worker.platforms == ("linux/amd64",)
        assert await control.disk_usage() == []
        assert [record async for record in control.prune()] == []


async def test_auth_and_secrets_are_not_asked_for_without_need(context):
    """A Dockerfile that mounts and copies nothing asks for itself and the ignore file only."""
    (context / "Dockerfile").write_text("FROM scratch\nLABEL a=b\n")
    async with FakeDaemon.listen() as daemon:
        files = FileSync({"context": context, "dockerfile": context})
        services = (files, Auth({}), Secrets({"tok": b"x"}))
        async with (
            open_session(daemon.endpoint, *services) as session,
            open_channel(await hijack(daemon.endpoint, "/grpc")) as channel,
        ):
            await Control(channel).solve(control_pb2.SolveRequest(Ref="r", Session=session.id))
            caller = await daemon.wait_session(session.id)
            assert [record.method.rpartition("/")[2] for record in caller.calls] == ["DiffCopy", "DiffCopy"]


@pytest.mark.parametrize("driver", ["control", "classic"])
async def test_a_broken_script_is_the_tests_fault(context, driver):
    """An error in a user's script comes out of the daemon's block as it is, and does not look like a failed build."""

    async def script(solve):
        raise KeyError("typo in the test")

    async def run_build():
        async with FakeDaemon.listen(script=script) as daemon:
            await build(context, endpoint=daemon.endpoint, driver=driver)

    with pytest.raises(KeyError, match="typo"):
        await run_build()
