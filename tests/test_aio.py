"""The front door for asyncio: the same builds and sessions, and what is carried across to trio and back."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from typing import TYPE_CHECKING

import pytest
import trio

from mobysession import aio
from mobysession.errors import BuildFailed, ConnectError, SessionLost, SessionNotReady, UpgradeRefused, UsageError
from mobysession.services.secrets import Secrets
from mobysession.session import Session, hijack_dialer
from mobysession.testing import BlockingFakeDaemon, FakeSolve, Faults, Refusal
from mobysession.transport.endpoint import Endpoint

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from mobysession.session.managed import ManagedSession

VARIABLE = contextvars.ContextVar("VARIABLE", default="unset")


@pytest.fixture
def context(tmp_path: Path) -> Path:
    directory = tmp_path / "context"
    directory.mkdir()
    (directory / "Dockerfile").write_text("FROM scratch\nCOPY hello.txt /\n")
    (directory / "hello.txt").write_text("hello")
    return directory


@pytest.fixture(autouse=True)
def no_threads() -> Iterator[None]:
    """Fail where the worker thread is left."""
    yield
    assert [thread.name for thread in threading.enumerate() if thread.name == "mobysession aio"] == []


def test_a_build_returns_what_the_other_build_returns(fake_docker_host: BlockingFakeDaemon, context: Path) -> None:
    """The engine is found by DOCKER_HOST, options are passed on, the status arrives."""
    seen: list[object] = []
    result = asyncio.run(aio.build(context, tags=["a:1"], on_status=seen.append))
    assert result.image_id.startswith("sha256:")
    assert result.tags == ("a:1",)
    assert seen


def test_a_failed_build_raises_what_the_other_build_raises(context: Path) -> None:
    """One typed exception, no group."""

    async def script(solve: FakeSolve) -> dict[str, str]:
        solve.fail("no")

    with BlockingFakeDaemon(script=script) as daemon, pytest.raises(BuildFailed, match="failed to solve: no"):
        asyncio.run(aio.build(context, endpoint=daemon.endpoint))


def test_builds_side_by_side_share_the_worker_thread(context: Path) -> None:
    """As many as are gathered, in one thread."""
    both = trio.Event()
    arrived: list[str] = []
    workers: list[threading.Thread] = []

    async def script(solve: FakeSolve) -> dict[str, str]:
        arrived.append(solve.ref)
        if len(arrived) == 2:
            workers.extend(thread for thread in threading.enumerate() if thread.name == "mobysession aio")
            both.set()
        await both.wait()
        return {}

    async def main(endpoint: Endpoint) -> None:
        await asyncio.gather(*(aio.build(context, endpoint=endpoint) for _ in range(2)))

    with BlockingFakeDaemon(script=script) as daemon:
        asyncio.run(main(daemon.endpoint))
    assert len(workers) == 1


def test_a_cancelled_task_cancels_the_build_on_the_engine_first(context: Path) -> None:
    """When CancelledError arrives, nothing of the build is left here, and the engine was told."""
    begun, ended = threading.Event(), threading.Event()

    async def script(solve: FakeSolve) -> dict[str, str]:
        begun.set()
        try:
            await trio.sleep_forever()
        finally:
            ended.set()
        return {}

    async def main(endpoint: Endpoint) -> None:
        task = asyncio.create_task(aio.build(context, endpoint=endpoint))
        await asyncio.to_thread(begun.wait, 5)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not [thread for thread in threading.enumerate() if thread.name == "mobysession aio"]

    with BlockingFakeDaemon(script=script) as daemon:
        asyncio.run(main(daemon.endpoint))
        assert ended.wait(5)


def test_a_timeout_of_asyncio_ends_a_build(context: Path) -> None:
    """The loop stays free meanwhile, or its clock could not strike."""

    async def script(solve: FakeSolve) -> dict[str, str]:
        await trio.sleep_forever()
        return {}

    async def main(endpoint: Endpoint) -> None:
        async with asyncio.timeout(0.2):
            await aio.build(context, endpoint=endpoint)

    with BlockingFakeDaemon(script=script) as daemon, pytest.raises(TimeoutError):
        asyncio.run(main(daemon.endpoint))


def test_a_secret_comes_from_a_coroutine_in_the_callers_loop(context: Path) -> None:
    """Where it may await what belongs to that loop, and sees the context variables of the task that built."""
    secrets = []

    async def script(solve: FakeSolve) -> dict[str, str]:
        secrets.append(await (await solve.session()).get_secret("token"))
        return {}

    async def main(endpoint: Endpoint) -> None:
        loop = asyncio.get_running_loop()
        VARIABLE.set("of the task")

        async def fetch() -> bytes:
            assert asyncio.get_running_loop() is loop
            await asyncio.sleep(0)
            return VARIABLE.get().encode()

        await aio.build(context, endpoint=endpoint, secrets={"token": fetch})

    with BlockingFakeDaemon(script=script) as daemon:
        asyncio.run(main(daemon.endpoint))
    assert secrets == [b"of the task"]


def test_a_coroutine_of_a_cancelled_build_is_cancelled(context: Path) -> None:
    """And has ended when the build has."""
    trace = []

    async def script(solve: FakeSolve) -> dict[str, str]:
        await (await solve.session()).get_secret("token")
        return {}

    async def main(endpoint: Endpoint) -> None:
        asked = asyncio.Event()

        async def fetch() -> bytes:
            asked.set()
            try:
                await asyncio.sleep(3600)
            finally:
                trace.append("ended")
            return b""

        task = asyncio.create_task(aio.build(context, endpoint=endpoint, secrets={"token": fetch}))
        await asked.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert trace == ["ended"]

    with BlockingFakeDaemon(script=script) as daemon:
        asyncio.run(main(daemon.endpoint))


def test_a_coroutine_that_is_cancelled_in_its_loop_fails_the_secret_only(context: Path) -> None:
    """asyncio's cancellation does not get into trio."""

    async def script(solve: FakeSolve) -> dict[str, str]:
        with pytest.raises(Exception, match="token"):
            await (await solve.session()).get_secret("token")
        return {}

    async def fetch() -> bytes:
        raise asyncio.CancelledError

    with BlockingFakeDaemon(script=script) as daemon:
        asyncio.run(aio.build(context, endpoint=daemon.endpoint, secrets={"token": fetch}))


def test_outside_of_a_running_loop_it_says_where_to_go() -> None:
    """A trio task is told of the other build."""

    async def main() -> None:
        with pytest.raises(UsageError, match="inside a running asyncio loop"):
            await aio.build(".")
        with pytest.raises(UsageError, match="inside a running asyncio loop"):
            async with aio.open_session():
                pytest.fail("the block was run")

    trio.run(main)


def test_a_session_is_ready_on_entry(fake_daemon: BlockingFakeDaemon) -> None:
    """It has its ID and its methods, the daemon's settings are known, pings are answered and callbacks served."""

    async def main() -> None:
        async with aio.open_session(
            fake_daemon.endpoint, Secrets({"token": b"abc"}), session_id="mine", name="label", shared_key="key"
        ) as session:
            assert session.id == "mine"
            assert "/moby.buildkit.secrets.v1.Secrets/GetSecret" in session.methods
            assert session.settings
            assert 0 <= await session.ping() < 5
            assert (await session.inspect()).round_trip is not None
            caller = fake_daemon.call(fake_daemon.daemon.wait_session, "mine")
            assert (caller.name, caller.shared_key) == ("label", "key")
            assert fake_daemon.call(caller.get_secret, "token") == b"abc"
        with pytest.raises(SessionLost, match="has ended"):
            await session.ping()
        with pytest.raises(SessionLost, match="has ended"):
            await session.inspect()

    asyncio.run(main())


@pytest.mark.parametrize(
    ("faults", "kind"),
    [
        (Faults(refusal=Refusal(500, "no more sessions")), UpgradeRefused),
        (Faults(close_after_101=True), SessionNotReady),
    ],
)
def test_what_fails_on_entry_is_raised_there(faults: Faults, kind: type[Exception]) -> None:
    """Typed, and the block is not run."""

    async def main(endpoint: Endpoint) -> None:
        async with aio.open_session(endpoint):
            pytest.fail("the block was run")

    with BlockingFakeDaemon(faults=faults) as daemon, pytest.raises(kind):
        asyncio.run(main(daemon.endpoint))


def test_no_daemon_is_raised_on_entry(tmp_path: Path) -> None:
    """As the error of connecting that it is."""

    async def main() -> None:
        async with aio.open_session(Endpoint.parse(f"unix://{tmp_path}/none.sock")):
            pytest.fail("the block was run")

    with pytest.raises(ConnectError, match="there is no socket"):
        asyncio.run(main())


def test_a_lost_session_cancels_the_block_and_is_raised_in_its_place(fake_daemon: BlockingFakeDaemon) -> None:
    """As a session of trio does; the task itself is not left cancelled."""

    async def kill() -> None:
        fake_daemon.daemon.kill()

    async def use() -> None:
        async with aio.open_session(hijack_dialer(fake_daemon.endpoint)):
            fake_daemon.call(kill)
            await asyncio.sleep(3600)

    async def main() -> None:
        with pytest.raises(SessionLost, match="was lost"):
            await use()
        task = asyncio.current_task()
        assert task is not None
        assert task.cancelling() == 0
        await asyncio.sleep(0)

    asyncio.run(main())


def test_what_the_block_raises_comes_first(fake_daemon: BlockingFakeDaemon) -> None:
    """Also where the loss of the session interrupted it."""

    async def kill() -> None:
        fake_daemon.daemon.kill()

    async def main() -> None:
        async with aio.open_session(fake_daemon.endpoint):
            fake_daemon.call(kill)
            try:
                await asyncio.sleep(3600)
            except asyncio.CancelledError:
                raise LookupError("mine") from None

    with pytest.raises(LookupError, match="mine"):
        asyncio.run(main())


def test_a_task_that_others_cancel_too_stays_cancelled(fake_daemon: BlockingFakeDaemon) -> None:
    """The loss of the session does not hide it."""

    async def kill() -> None:
        fake_daemon.daemon.kill()

    async def block() -> None:
        async with aio.open_session(fake_daemon.endpoint):
            fake_daemon.call(kill)
            try:
                await asyncio.sleep(3600)
            except asyncio.CancelledError:
                task = asyncio.current_task()
                assert task is not None
                task.cancel()
                raise

    async def main() -> None:
        with pytest.raises(asyncio.CancelledError):
            await asyncio.create_task(block())

    asyncio.run(main())


def test_cancelling_while_a_session_is_being_opened_ends_that() -> None:
    """A daemon that does not answer is not waited for any longer."""

    async def use(endpoint: Endpoint) -> None:
        async with aio.open_session(endpoint):
            pytest.fail("the block was run")

    async def main(endpoint: Endpoint) -> None:
        async with asyncio.timeout(0.2):
            await use(endpoint)

    with BlockingFakeDaemon(faults=Faults(never_answer=True)) as daemon, pytest.raises(TimeoutError):
        asyncio.run(main(daemon.endpoint))


def test_cancelling_the_block_closes_the_connection(fake_daemon: BlockingFakeDaemon) -> None:
    """The daemon sees the session end, and the task is cancelled as anything else."""
    callers = []

    async def use() -> None:
        async with aio.open_session(fake_daemon.endpoint) as session:
            callers.append(fake_daemon.call(fake_daemon.daemon.wait_session, session.id))
            await asyncio.sleep(3600)

    async def main() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await use()

    asyncio.run(main())
    fake_daemon.call(callers[0].channel.closed.wait)


def test_run_once_is_a_session_without_trio_to_see(fake_docker_host: BlockingFakeDaemon) -> None:
    """One request, its result; the request runs on trio."""

    async def number(session: ManagedSession) -> str:
        trio.lowlevel.current_trio_token()
        await session.mount()
        return session.id or ""

    assert asyncio.run(aio.run_once(number, []))
    with pytest.raises(UsageError, match="no services were chosen"):
        asyncio.run(aio.run_once(number))


def test_both_front_doors_have_the_same_names_and_arguments() -> None:
    """What is learned at one is right at the other."""
    import inspect

    from mobysession import sync

    for name in ("build", "open_build", "open_session", "run_once"):
        ours = inspect.signature(getattr(aio, name)).parameters
        assert list(ours) == list(inspect.signature(getattr(sync, name)).parameters)
    sessions = (aio.AsyncioSession, sync.BlockingSession)
    faces = [{name for name in dir(session) if not name.startswith("_")} for session in sessions]
    assert faces[0] == faces[1]
    assert faces[0] <= set(dir(Session)) | {"id"}
