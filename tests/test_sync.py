"""The blocking front door: the same builds, sessions for the length of a block, and loops that are running already."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from typing import TYPE_CHECKING, Any

import pytest
import trio

from mobysession import sync
from mobysession.errors import BuildFailed, ConnectError, SessionLost, SessionNotReady, UpgradeRefused, UsageError
from mobysession.services.secrets import Secrets
from mobysession.session import hijack_dialer
from mobysession.testing import BlockingFakeDaemon, FakeSolve, Faults, Refusal
from mobysession.transport.endpoint import Endpoint

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def context(tmp_path: Path) -> Path:
    directory = tmp_path / "context"
    directory.mkdir()
    (directory / "Dockerfile").write_text("FROM scratch\nCOPY hello.txt /\n")
    (directory / "hello.txt").write_text("hello")
    return directory


@pytest.fixture(autouse=True)
def no_threads() -> Iterator[None]:
    """Fail where a thread of a session is left."""
    yield
    assert [thread.name for thread in threading.enumerate() if thread.name.startswith("mobysession")] == []


def test_a_build_returns_what_the_other_build_returns(fake_docker_host: BlockingFakeDaemon, context: Path) -> None:
    """The engine is found by DOCKER_HOST, options are passed on."""
    result = sync.build(context, tags=["a:1"])
    assert result.image_id.startswith("sha256:")
    assert result.tags == ("a:1",)


def test_a_failed_build_raises_what_the_other_build_raises(context: Path) -> None:
    """One typed exception, no group."""

    async def script(solve: FakeSolve) -> dict[str, str]:
        solve.fail("no")

    with BlockingFakeDaemon(script=script) as daemon, pytest.raises(BuildFailed, match="failed to solve: no"):
        sync.build(context, endpoint=daemon.endpoint)


def test_an_unknown_option_is_refused() -> None:
    """As by the other build."""
    slip: dict[str, Any] = {"tag": "a"}
    with pytest.raises(UsageError, match="no option 'tag'"):
        sync.build(".", **slip)


def test_ctrl_c_cancels_the_build_on_the_engine(context: Path) -> None:
    """KeyboardInterrupt arrives here, once the engine was told."""
    ended = threading.Event()

    async def script(solve: FakeSolve) -> dict[str, str]:
        os.kill(os.getpid(), signal.SIGINT)
        try:
            await trio.sleep_forever()
        finally:
            ended.set()
        return {}

    with BlockingFakeDaemon(script=script) as daemon:
        with pytest.raises(KeyboardInterrupt):
            sync.build(context, endpoint=daemon.endpoint)
        assert ended.wait(5)


def test_a_session_is_ready_on_entry(fake_daemon: BlockingFakeDaemon) -> None:
    """It has its ID and its methods, the daemon's settings are known, pings are answered and callbacks served."""
    with sync.open_session(
        fake_daemon.endpoint, Secrets({"token": b"abc"}), session_id="mine", name="label", shared_key="key"
    ) as session:
        assert session.id == "mine"
        assert "/moby.buildkit.secrets.v1.Secrets/GetSecret" in session.methods
        assert session.settings
        assert 0 <= session.ping() < 5
        assert session.inspect().round_trip is not None
        caller = fake_daemon.call(fake_daemon.daemon.wait_session, "mine")
        assert (caller.name, caller.shared_key) == ("label", "key")
        assert fake_daemon.call(caller.get_secret, "token") == b"abc"


def test_a_session_takes_any_dialer(fake_daemon: BlockingFakeDaemon) -> None:
    """As the asynchronous session does."""
    with sync.open_session(hijack_dialer(fake_daemon.endpoint)) as session:
        assert session.ping() >= 0


def test_a_session_that_is_over_cannot_be_pinged(fake_daemon: BlockingFakeDaemon) -> None:
    """The answer is typed although the loop behind it is gone."""
    with sync.open_session(fake_daemon.endpoint) as session:
        pass
    with pytest.raises(SessionLost, match="has ended"):
        session.ping()
    with pytest.raises(SessionLost, match="has ended"):
        session.inspect()


@pytest.mark.parametrize(
    ("faults", "kind"),
    [
        (Faults(refusal=Refusal(500, "no more sessions")), UpgradeRefused),
        (Faults(close_after_101=True), SessionNotReady),
    ],
)
def test_what_fails_on_entry_is_raised_there(faults: Faults, kind: type[Exception]) -> None:
    """Typed, and the block is not run."""
    with BlockingFakeDaemon(faults=faults) as daemon, pytest.raises(kind), sync.open_session(daemon.endpoint):
        pytest.fail("the block was run")


def test_no_daemon_is_raised_on_entry(tmp_path: Path) -> None:
    """As the error of connecting that it is."""
    endpoint = Endpoint.parse(f"unix://{tmp_path}/none.sock")
    with pytest.raises(ConnectError, match="there is no socket"), sync.open_session(endpoint):
        pytest.fail("the block was run")


def test_a_lost_session_is_raised_at_the_end_of_the_block(fake_daemon: BlockingFakeDaemon) -> None:
    """The block itself is not interrupted; a ping in it says the same."""
    reached = False

    async def kill() -> None:
        fake_daemon.daemon.kill()

    def use() -> None:
        nonlocal reached
        with sync.open_session(fake_daemon.endpoint) as session:
            fake_daemon.call(kill)
            _wait_for_end_of("mobysession " + session.id)
            with pytest.raises(SessionLost, match="has ended"):
                session.ping()
            reached = True

    with pytest.raises(SessionLost, match="was lost"):
        use()
    assert reached


def _wait_for_end_of(name: str) -> None:
    for thread in threading.enumerate():
        if thread.name == name:
            thread.join(5)
            assert not thread.is_alive()


def test_an_exception_of_the_block_comes_out_as_itself(fake_daemon: BlockingFakeDaemon) -> None:
    """Also where the session was lost meanwhile."""

    async def kill() -> None:
        fake_daemon.daemon.kill()

    def use() -> None:
        with sync.open_session(fake_daemon.endpoint) as session:
            fake_daemon.call(kill)
            _wait_for_end_of("mobysession " + session.id)
            raise LookupError("mine")

    with pytest.raises(LookupError, match="mine"):
        use()


def test_ctrl_c_in_the_block_ends_it_and_the_session(fake_daemon: BlockingFakeDaemon) -> None:
    """The daemon sees the connection end."""
    callers = []

    def use() -> None:
        with sync.open_session(fake_daemon.endpoint) as session:
            callers.append(fake_daemon.call(fake_daemon.daemon.wait_session, session.id))
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        use()
    fake_daemon.call(callers[0].channel.closed.wait)


def test_ctrl_c_while_a_session_is_being_opened_ends_that() -> None:
    """A daemon that does not answer is not waited for any longer."""

    class Impatient(BlockingFakeDaemon):
        pass

    with Impatient(faults=Faults(never_answer=True)) as daemon:
        timer = threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT))
        timer.start()
        with pytest.raises(KeyboardInterrupt), sync.open_session(daemon.endpoint):
            pytest.fail("the block was run")
        timer.join()


def test_inside_trio_it_refuses_and_names_the_other_door(fake_daemon: BlockingFakeDaemon, context: Path) -> None:
    """A loop cannot run in a loop; the hint has what to await."""

    async def use() -> None:
        with pytest.raises(UsageError, match="inside a running trio loop") as caught:
            sync.build(context, endpoint=fake_daemon.endpoint)
        assert "mobysession.build.build" in (caught.value.hint or "")
        with pytest.raises(UsageError, match="running trio loop") as caught, sync.open_session(fake_daemon.endpoint):
            pytest.fail("the block was run")
        assert "mobysession.open_session" in (caught.value.hint or "")

    trio.run(use)


def test_in_a_worker_thread_of_trio_it_works(fake_daemon: BlockingFakeDaemon, context: Path) -> None:
    """Where blocking code belongs."""

    async def use() -> str:
        result = await trio.to_thread.run_sync(lambda: sync.build(context, endpoint=fake_daemon.endpoint))
        return result.image_id

    assert trio.run(use).startswith("sha256:")


def test_inside_asyncio_it_works(fake_daemon: BlockingFakeDaemon, context: Path) -> None:
    """It holds the loop up, as any blocking call does; notebooks run their cells there."""

    async def use() -> None:
        assert sync.build(context, endpoint=fake_daemon.endpoint).image_id
        with sync.open_session(fake_daemon.endpoint) as session:
            assert session.ping() >= 0

    asyncio.run(use())


def test_run_once_is_a_session_without_a_loop_to_see(fake_docker_host):
    """One request, its result; with the defaults that the environment has, or those that are given."""
    from mobysession.session.managed import SessionConfig

    async def number(session):
        await session.mount()
        return session.id, session.origin.config.approval

    session_id, approval = sync.run_once(number, [])
    assert approval == "granted"
    assert session_id
    assert sync.run_once(number, [], config=SessionConfig(approval="refused"))[1] == "refused"
    with pytest.raises(UsageError, match="no services were chosen"):
        sync.run_once(number)
