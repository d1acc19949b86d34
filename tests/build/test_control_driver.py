"""Solve and Status side by side: who is waited for, what is asked first, what is refused, what a cancel reaches."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

from mobysession import limits
from mobysession._pb import control_pb2, worker_pb2
from mobysession.build.control_driver import solve
from mobysession.build.options import BuildOptions
from mobysession.build.progress import BuildProgress
from mobysession.buildkit.control import Control, open_control, speak_control
from mobysession.errors import HandshakeError, HandshakeTimeout, RpcError, StatusCode, UnsupportedByEngine
from mobysession.rpc.client import open_channel
from mobysession.rpc.registrar import Registrar
from mobysession.rpc.server import open_server
from mobysession.testing import FakeDaemon, FakeSolve, Faults
from mobysession.transport.hijack import hijack

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from mobysession.rpc.server import ServerCall

SERVICE = "/moby.buildkit.v1.Control/"
LABEL = "org.mobyproject.buildkit.worker."


async def run(control: Control, options: BuildOptions | None = None, progress: BuildProgress | None = None):
    return await solve(
        control,
        options or BuildOptions(),
        session_id="none",
        dockerfile="Dockerfile",
        progress=progress or BuildProgress(),
    )


@asynccontextmanager
async def control_of(daemon: FakeDaemon) -> AsyncIterator[Control]:
    stream = await hijack(await daemon.dial(), "/grpc")
    async with speak_control(stream) as control:
        yield control


class Engine:
    """A Control API of handlers of the test's own."""

    def __init__(
        self,
        solve: Callable[[control_pb2.SolveRequest], Awaitable[dict[str, str]]],
        status: Callable[[ServerCall], Awaitable[None]],
        labels: dict[str, str] | None = None,
    ) -> None:
        self.requests: list[control_pb2.SolveRequest] = []
        self._solve_with = solve
        self._status_with = status
        self._labels = labels or {}

    @asynccontextmanager
    async def control(self) -> AsyncIterator[Control]:
        registrar = Registrar()
        registrar.unary_unary(SERVICE + "Solve", self._solve, control_pb2.SolveRequest)
        registrar.unary_stream(SERVICE + "Status", self._status, control_pb2.StatusRequest)
        registrar.unary_unary(SERVICE + "ListWorkers", self._workers, control_pb2.ListWorkersRequest)
        ours, theirs = trio.testing.memory_stream_pair()
        async with open_server(theirs, registrar), open_channel(ours) as channel:
            yield Control(channel)

    async def _solve(self, request: control_pb2.SolveRequest, call: ServerCall) -> control_pb2.SolveResponse:
        self.requests.append(request)
        return control_pb2.SolveResponse(ExporterResponse=await self._solve_with(request))

    async def _status(self, request: control_pb2.StatusRequest, call: ServerCall) -> None:
        await self._status_with(call)

    async def _workers(self, request: object, call: ServerCall) -> control_pb2.ListWorkersResponse:
        return control_pb2.ListWorkersResponse(record=[worker_pb2.WorkerRecord(ID="w", Labels=self._labels)])


async def done(request: object) -> dict[str, str]:
    return {"containerimage.digest": "sha256:1"}


async def at_once(call: ServerCall) -> None:
    """End the status without a word."""


def vertex(name: str) -> bytes:
    message = control_pb2.StatusResponse(vertexes=[control_pb2.Vertex(digest=name, name=name)])
    message.vertexes[0].started.FromSeconds(1)
    return bytes(message.SerializeToString())


async def test_a_solve_returns_its_ref_and_the_response() -> None:
    """The ref is the one that the engine was asked with; the response is the exporter's, as a dict."""

    async def script(solve: FakeSolve) -> dict[str, str]:
        return {"ref": solve.ref}

    async with FakeDaemon(script=script) as daemon, control_of(daemon) as control:
        ref, response = await run(control)
    assert response == {"ref": ref}


async def test_the_status_is_heard_to_its_end() -> None:
    """What is told after the solve has answered is applied all the same."""
    heard = trio.Event()

    async def status(call: ServerCall) -> None:
        await call.send(vertex("early"))
        await trio.testing.wait_all_tasks_blocked()
        await call.send(vertex("late"))
        heard.set()

    progress = BuildProgress()
    async with Engine(done, status).control() as control:
        await run(control, progress=progress)
    assert heard.is_set()
    assert [step.name for step in progress.status.steps] == ["early", "late"]


async def test_a_status_that_falls_silent_is_not_waited_for(autojump_clock: trio.testing.MockClock) -> None:
    """The build ends `limits.STATUS_SILENCE` seconds after the last word, when the status stream does not end."""

    async def status(call: ServerCall) -> None:
        await call.send(vertex("one"))
        await trio.sleep(3)
        await call.send(vertex("two"))
        await trio.sleep_forever()

    progress = BuildProgress()
    began = trio.current_time()
    async with Engine(done, status).control() as control:
        await run(control, progress=progress)
    assert trio.current_time() - began == pytest.approx(3 + limits.STATUS_SILENCE, abs=0.1)
    assert len(progress.status.steps) == 2


async def refuse(request: object) -> dict[str, str]:
    raise RpcError(StatusCode.UNKNOWN, "security.insecure is not allowed")


async def test_the_status_of_a_solve_that_is_refused_is_waited_for_shortly(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """An engine that refuses before anything is done has nothing to tell, and holds the question for its status."""

    async def status(call: ServerCall) -> None:
        await trio.sleep_forever()

    began = trio.current_time()
    async with Engine(refuse, status).control() as control:
        with pytest.raises(RpcError, match="not allowed"):
            await run(control)
    assert trio.current_time() - began == pytest.approx(limits.STATUS_AFTER_REFUSAL, abs=0.1)


async def test_a_status_that_comes_after_the_refusal_is_heard_on(autojump_clock: trio.testing.MockClock) -> None:
    """Once a failed solve has told anything, it may be silent as long as any other."""

    async def status(call: ServerCall) -> None:
        await trio.sleep(limits.STATUS_AFTER_REFUSAL / 2)  # on the virtual clock: in time to be waited for
        await call.send(vertex("one"))
        await trio.sleep(limits.STATUS_SILENCE - 1)  # as above: longer than a refusal that has said nothing gets
        await call.send(vertex("two"))

    progress = BuildProgress()
    async with Engine(refuse, status).control() as control:
        with pytest.raises(RpcError, match="not allowed"):
            await run(control, progress=progress)
    assert [step.name for step in progress.status.steps] == ["one", "two"]


@pytest.mark.parametrize("code", [StatusCode.NOT_FOUND, StatusCode.UNAVAILABLE, StatusCode.CANCELLED])
async def test_a_status_that_is_not_to_be_had_does_not_fail_the_build(code: StatusCode) -> None:
    """A solve that the engine has forgotten by the time its status is asked for still has its result."""

    async def status(call: ServerCall) -> None:
        raise RpcError(code, "no such job")

    async with Engine(done, status).control() as control:
        _, response = await run(control)
    assert response == {"containerimage.digest": "sha256:1"}


async def test_the_solves_own_error_is_raised_when_the_status_is_gone_too() -> None:
    """Of a solve that fails at once and a status that is not found, the solve says why."""

    async def fail(request: object) -> dict[str, str]:
        raise RpcError(StatusCode.UNKNOWN, "the frontend failed", details=b"typed")

    async def status(call: ServerCall) -> None:
        raise RpcError(StatusCode.NOT_FOUND, "no such job")

    async with Engine(fail, status).control() as control:
        with pytest.raises(RpcError, match="the frontend failed") as caught:
            await run(control)
    assert caught.value.details == b"typed"


async def test_a_status_that_fails_otherwise_is_told() -> None:
    """Any other end of the status is a fault of the engine that is not kept from the caller; the solve is given up."""
    cancelled = trio.Event()

    async def wait(request: object) -> dict[str, str]:
        try:
            await trio.sleep_forever()
        finally:
            cancelled.set()
        return {}

    async def status(call: ServerCall) -> None:
        raise RpcError(StatusCode.DATA_LOSS, "broken")

    async with Engine(wait, status).control() as control:
        with pytest.raises(RpcError, match="broken"):
            await run(control)
        with trio.fail_after(2):
            await cancelled.wait()


async def test_a_cancel_reaches_the_engine() -> None:
    """Cancelling the build cancels the solve on the daemon's side."""
    running, ended = trio.Event(), trio.Event()

    async def script(solve: FakeSolve) -> dict[str, str]:
        running.set()
        try:
            await trio.sleep_forever()
        finally:
            ended.set()
        return {}

    async with FakeDaemon(script=script) as daemon, control_of(daemon) as control:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run, control)
            await running.wait()
            nursery.cancel_scope.cancel()
        with trio.fail_after(2):
            await ended.wait()


async def test_lines_that_were_begun_are_told_when_the_solve_fails() -> None:
    """Output without its newline reaches the model although the build ended in an error."""

    async def script(solve: FakeSolve) -> dict[str, str]:
        async with solve.vertex("[1/1] RUN x") as step:
            step.log("half a line")
            solve.fail("no", vertex=step)

    progress = BuildProgress()
    async with FakeDaemon(script=script) as daemon, control_of(daemon) as control:
        with pytest.raises(RpcError, match="no"):
            await run(control, progress=progress)
    (step,) = progress.status.steps
    assert [line.text for line in step.log.last(5)] == ["half a line"]


async def test_a_listener_that_raises_ends_the_build_with_its_own_exception() -> None:
    """What ``on_status`` raises is the caller's, and comes out as itself."""

    def listener(status: object) -> None:
        raise LookupError("mine")

    async def status(call: ServerCall) -> None:
        await call.send(vertex("one"))

    async with Engine(done, status).control() as control:
        with pytest.raises(LookupError, match="mine"):
            await run(control, progress=BuildProgress(listener=listener))


async def test_host_gateway_is_what_the_worker_says() -> None:
    """The address comes from the worker's label; the workers are asked only where it is needed."""
    engine = Engine(done, at_once, {LABEL + "moby.host-gateway-ip": "172.17.0.1"})
    async with engine.control() as control:
        await run(control, BuildOptions(add_hosts=["gw:host-gateway", "db:10.0.0.1"]))
    assert engine.requests[0].FrontendAttrs["add-hosts"] == "gw=172.17.0.1,db=10.0.0.1"


async def test_host_gateway_is_refused_where_the_worker_does_not_say() -> None:
    """Before a solve is asked for, with a way out in the hint."""
    engine = Engine(done, at_once)
    async with engine.control() as control:
        with pytest.raises(UnsupportedByEngine, match="gateway address") as caught:
            await run(control, BuildOptions(add_hosts=["gw:host-gateway"]))
    assert "--driver classic" in (caught.value.hint or "")
    assert engine.requests == []


async def test_several_platforms_are_refused_by_a_store_that_holds_one() -> None:
    """Without the containerd image store there is no image of several platforms."""
    engine = Engine(done, at_once)
    async with engine.control() as control:
        with pytest.raises(UnsupportedByEngine, match="several platforms") as caught:
            await run(control, BuildOptions(platforms=["linux/amd64", "linux/arm64"]))
    assert "containerd image store" in (caught.value.hint or "")
    assert engine.requests == []


@pytest.mark.parametrize(
    "options",
    [
        {"annotations": {"a": "b"}},
        {"annotations": {"a": "b"}, "outputs": ["type=local,dest=x", "type=image"]},
        {"outputs": ["type=image,annotation.a=b"]},
        {"outputs": ["type=local,dest=x", "type=registry,name=n,annotation-index[linux/amd64].a=b"]},
    ],
)
async def test_annotations_are_refused_by_a_store_that_has_no_place_for_them(options: dict[str, Any]) -> None:
    """Those of the build and those of one output alike."""
    engine = Engine(done, at_once)
    async with engine.control() as control:
        with pytest.raises(UnsupportedByEngine, match="no annotations"):
            await run(control, BuildOptions(**options))
    assert engine.requests == []


@pytest.mark.parametrize(
    ("options", "labels"),
    [
        ({"outputs": ["type=local,dest=x,annotation.a=b"]}, {}),
        ({"annotations": {"a": "b"}, "outputs": ["type=tar,dest=x"]}, {}),
        ({"outputs": ["type=image,annotation.a=b"]}, {LABEL + "snapshotter": "overlayfs"}),
    ],
)
async def test_annotations_are_asked_for_where_no_image_of_the_store_has_them(
    options: dict[str, Any], labels: dict[str, str]
) -> None:
    """What is not kept in the store is not its matter, and containerd's store has them."""
    engine = Engine(done, at_once, labels)
    async with engine.control() as control:
        await run(control, BuildOptions(**options))
    assert len(engine.requests) == 1


async def test_several_platforms_are_asked_for_where_the_store_holds_them() -> None:
    """A worker with a snapshotter of containerd's can."""
    engine = Engine(done, at_once, {LABEL + "snapshotter": "overlayfs"})
    async with engine.control() as control:
        await run(control, BuildOptions(platforms=["linux/amd64", "linux/arm64"]))
    assert engine.requests[0].FrontendAttrs["platform"] == "linux/amd64,linux/arm64"


# -- a /grpc that is none ----------------------------------------------------------------------------------------------


async def test_a_control_connection_that_stays_mute_is_given_up(autojump_clock: trio.testing.MockClock) -> None:
    """A daemon that upgrades and then says nothing is waited for `limits.READY_TIMEOUT` seconds, no more."""
    async with FakeDaemon(grpc_faults=Faults(mute=True)) as daemon:
        began = trio.current_time()
        with pytest.raises(HandshakeTimeout, match="said nothing for 20 s"):
            async with control_of(daemon):
                pytest.fail("it was taken for ready")
        assert limits.READY_TIMEOUT <= trio.current_time() - began < limits.READY_TIMEOUT + 3


async def test_a_control_connection_that_closes_is_no_control_connection() -> None:
    """A daemon that upgrades and hangs up did not speak HTTP/2, and the error says so at once."""
    async with FakeDaemon.listen(grpc_faults=Faults(close_after_101=True)) as daemon:
        with pytest.raises(HandshakeError, match="did not speak HTTP/2: the other side closed"):
            async with open_control(daemon.endpoint):
                pytest.fail("it was taken for ready")
