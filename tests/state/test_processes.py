"""Several processes on one store, some of which are killed in the middle of a write.

The processes are real ones, and do what they read from their stdin, a line each; nothing here depends on time.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
import trio

from mobysession.state.inbox import InboxStorage
from mobysession.state.processes import is_gone, process_token
from mobysession.state.sessions import SessionAnnouncement, SessionDirectory
from mobysession.state.state import State
from mobysession.state.store import open_store

if TYPE_CHECKING:
    from collections.abc import Iterator

PROGRAM = """
import os, sys, trio
from mobysession.state.inbox import InboxStorage
from mobysession.state.processes import process_token
from mobysession.state.sessions import SessionAnnouncement, SessionDirectory
from mobysession.state.store import open_store

async def main():
    async with open_store() as store, store.state("shared") as state:
        print("ready", flush=True)
        for line in sys.stdin:
            command, _, argument = line.strip().partition(" ")
            if command == "add":
                for _ in range(int(argument)):
                    state.set(lambda values: {"n": values.get("n", 0) + 1})
                await state.flush()
            elif command == "set":
                state.set({argument: os.getpid()})
                await state.flush()
            elif command == "get":
                await state.flush()
                print(state.get().get(argument), flush=True)
            elif command == "wait":
                told = trio.Event()
                end = state.key(argument).on(lambda value: told.set())
                print("waiting", flush=True)
                await told.wait()
            elif command == "unflushed":
                state.set({argument: "never written"})
            elif command == "middle":
                def write(connection):
                    connection.execute("INSERT INTO state_values VALUES ('shared', 'half', '1')")
                    connection.execute("UPDATE state_values SET value = '-1'")
                    print("middle", flush=True)
                    sys.stdin.read()
                await store.run(write)
            elif command == "put":
                await InboxStorage(store).put("parent", argument)
            elif command == "announce":
                SessionDirectory(store).announce(SessionAnnouncement(
                    session_id=argument, endpoint="unix:///x", created=1.0, socket="/nowhere.sock",
                    pid=os.getpid(), process=process_token(),
                ))
                await store.flush()
            print("done", flush=True)

trio.run(main)
"""


class Child:
    """A process that does what it is told."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def say(self, command: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(command + "\n")
        self.process.stdin.flush()

    def hear(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def do(self, command: str) -> str:
        """Say a command and return what is printed before it is done."""
        self.say(command)
        heard = self.hear()
        if heard == "done":
            return ""
        assert self.hear() == "done"
        return heard

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def close(self) -> None:
        for stream in (self.process.stdin, self.process.stdout):
            assert stream is not None
            stream.close()


@contextmanager
def children(count: int) -> Iterator[list[Child]]:
    """Start processes; in the end they are gone."""
    started = [Child() for _ in range(count)]
    try:
        assert [child.hear() for child in started] == ["ready"] * count
        yield started
    finally:
        for child in started:
            child.kill()
            child.close()


async def stored():
    async with State("shared") as state:
        return state.get()


@pytest.mark.slow
async def test_two_processes_see_each_others_changes():
    """What one has flushed the other has after its own flush, and hears of while it only waits."""
    with children(2) as (one, two):
        one.do("set a")
        assert two.do("get a") == str(one.process.pid)
        two.say("wait b")
        assert two.hear() == "waiting"
        one.do("set b")
        assert two.hear() == "done"


@pytest.mark.slow
async def test_a_process_killed_in_the_middle_of_a_write():
    """What it had flushed is there, nothing of the transaction that it was in, and others write on at once."""
    with children(2) as (victim, other):
        victim.do("add 5")
        victim.do("set kept")
        victim.say("middle")
        assert victim.hear() == "middle"
        other.say("add 3")
        victim.kill()
        assert other.hear() == "done"
    assert await stored() == {"n": 8, "kept": victim.process.pid}


@pytest.mark.slow
async def test_twenty_processes_some_of_them_killed(database_path):
    """They begin at once and find one database; each step that was flushed counts once, whoever is killed meanwhile."""
    with children(20) as started:
        for child in started:
            child.say(f"set k{child.process.pid}")
            for _ in range(4):
                child.say("add 2")
        acknowledged = 0
        for number, child in enumerate(started):
            assert child.hear() == "done"
            # Of every second one a single answer is awaited; then it is killed, wherever it is.
            acknowledged += 2 * sum(child.hear() == "done" for _ in range(1 if number % 2 else 4))
            if number % 2:
                child.kill()
                # What it had said before it died counts too.
                assert child.process.stdout is not None
                acknowledged += 2 * child.process.stdout.read().count("done")
        values = await stored()
    counted = values.pop("n")
    assert values == {f"k{child.process.pid}": child.process.pid for child in started}
    assert acknowledged <= counted <= acknowledged + 2 * 10
    assert counted % 2 == 0
    await stored()
    assert os.listdir(database_path.parent) == ["memory.db"]


@pytest.mark.slow
async def test_an_inbox_survives_both_processes():
    """What a child process put is there when it has been killed, and for a parent that comes later."""
    with children(1) as (child,):
        child.do("put hello")
        child.kill()
    async with open_store() as store:
        inbox = InboxStorage(store)
        (message,) = await inbox.wait("parent")
        assert message.message == "hello"
        await inbox.mark(message.id)
    async with open_store() as store:
        assert await InboxStorage(store).pending("parent") == []


@pytest.mark.slow
async def test_an_inbox_is_watched_across_processes():
    """A parent that waits hears of what another process puts."""
    async with open_store() as store, trio.open_nursery() as nursery:
        heard = []

        async def wait():
            heard.extend(await InboxStorage(store).wait("parent"))

        nursery.start_soon(wait)
        with children(1) as (child,):
            await trio.to_thread.run_sync(child.do, "put hello")
    assert [message.message for message in heard] == ["hello"]


@pytest.mark.slow
async def test_sessions_of_a_killed_process_are_swept():
    """A session is listed while its process lives; one of a killed process is not, and its row is taken away."""
    with children(2) as (one, two):
        one.do("announce first")
        two.do("announce second")
        async with open_store() as store:
            directory = SessionDirectory(store)
            assert [found.session_id for found in await directory.list()] == ["first", "second"]
            one.kill()
            assert [found.session_id for found in await directory.list()] == ["second"]
            assert await directory.find("first") is None
            rows = await store.run(lambda connection: connection.execute("SELECT session_id FROM sessions").fetchall())
            assert rows == [("second",)]


def test_a_process_ID_that_is_used_again_is_told_apart():
    """The same ID with another start or another boot is another process; in another namespace nobody can tell."""
    token = process_token()
    boot, namespace, started = token.split(" ")
    mine = os.getpid()
    assert not is_gone(mine, token)
    assert is_gone(mine, f"{boot} {namespace} {int(started) - 1}")
    assert is_gone(mine, f"00000000-0000-0000-0000-000000000000 {namespace} {started}")
    assert not is_gone(mine, f"{boot} pid:[1] {started}")


def test_a_process_that_has_ended_is_gone():
    """Also while nobody has asked for its status, when its ID is still taken."""
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    token = process_token(process.pid)
    assert token
    assert not is_gone(process.pid, token)
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert is_gone(process.pid, token)
    process.communicate()
    assert (is_gone(process.pid, token), process_token(process.pid)) == (True, "")


async def test_a_dead_processes_socket_is_removed(tmp_path):
    """The socket that it left goes with its row; a file that is no socket stays."""
    import socket

    left = socket.socket(socket.AF_UNIX)
    left.bind(str(tmp_path / "left.sock"))
    left.close()
    (tmp_path / "file").write_text("precious")
    boot, namespace, started = process_token().split(" ")
    async with open_store() as store:
        directory = SessionDirectory(store)
        for name in ("left.sock", "file"):
            directory.announce(
                SessionAnnouncement(
                    session_id=name,
                    endpoint="e",
                    created=1.0,
                    socket=str(tmp_path / name),
                    pid=os.getpid(),
                    process=f"{boot} {namespace} {int(started) - 1}",
                )
            )
        assert await directory.list() == []
    assert os.listdir(tmp_path) == ["file"]


async def test_withdrawing_takes_back_ones_own_only():
    """An announcement that another process has replaced stays when the first one is taken back."""
    first = SessionAnnouncement(
        session_id="s", endpoint="e", created=1.0, socket="/a", pid=os.getpid(), process=process_token()
    )
    second = SessionAnnouncement(
        session_id="s", endpoint="e", created=2.0, socket="/b", pid=os.getppid(), process=process_token(os.getppid())
    )
    async with open_store() as store:
        directory = SessionDirectory(store)
        directory.announce(first)
        assert await directory.find("s") == first
        directory.announce(second)
        directory.withdraw(first)
        assert await directory.list() == [second]
        directory.withdraw(second)
        assert await directory.list() == []
