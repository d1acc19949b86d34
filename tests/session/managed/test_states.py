"""Any order of operations ends in a legal state: a model of the session against the session."""

from __future__ import annotations

import math
from contextlib import suppress
from typing import Any

import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from mobysession.errors import LocalProtocolError, RunInterrupted, SessionError, SessionOver
from mobysession.session.managed import SessionConfig, SessionManager
from mobysession.session.managed.lifecycle import TERMINAL, TRANSITIONS, Lifecycle
from mobysession.testing import FakeDaemon

NAMES = ("queue", "send", "send failing", "run", "interrupt", "interrupt with", "clear", "finish", "close")
OPERATIONS = st.lists(st.sampled_from(NAMES), max_size=10)


class Model:
    """What a session should be, in the simplest words.

    A queue of requests, each of which fails at once, waits, or returns at once because its gate is open; whether one of
    them is worked on; aborted; closed.
    """

    def __init__(self):
        self.queue = []
        self.running = False
        self.aborted = False
        self.closed = False

    def add(self, kind):
        self.queue.append(kind)

    def work(self):
        """Work off what is queued as far as it goes."""
        self.running = False
        while self.queue:
            kind = self.queue.pop(0)
            if kind == "fails":
                return
            if kind == "waits":
                self.running = True
                return

    def begin(self):
        if not self.running:
            self.work()

    def open_gates(self):
        self.queue = ["returns" if kind == "waits" else kind for kind in self.queue]
        if self.running:
            self.work()


class Driver:
    """Does to the session and to the model what an operation's name says."""

    def __init__(self, session):
        self.session, self.model, self.gates, self.handles = session, Model(), [], []

    def request(self):
        gate = trio.Event()
        self.gates.append(gate)

        async def waiting(session):
            await gate.wait()

        return waiting

    async def failing(self, session):
        raise ValueError("as it should")

    async def do(self, name):
        model, over = self.model, self.model.closed
        refused = over or (name in ("send", "send failing", "run") and model.aborted and not model.running)
        # These are never refused, nor is a run of nothing while the session lives.
        always = name in ("clear", "close", "finish") or (name == "run" and not model.queue and not over)
        if refused and not always:
            with pytest.raises(SessionOver if over else SessionError):
                await self.act(name)
        else:
            await self.act(name)
            self.account(name)
        await trio.testing.wait_all_tasks_blocked()
        self.check()

    async def act(self, name):
        session = self.session
        match name:
            case "queue":
                await session.queue(self.request())
            case "send":
                self.handles.append(await session.send(self.request()))
            case "send failing":
                self.handles.append(await session.send(self.failing))
            case "run":
                self.handles.append(await session.run())
            case "interrupt":
                await session.interrupt()
            case "interrupt with":
                await session.interrupt(self.request())
            case "clear":
                session.clear_abort()
            case "finish":
                for gate in self.gates:
                    gate.set()
            case "close":
                for gate in self.gates:
                    gate.set()
                await session.close()

    def account(self, name):
        model = self.model
        match name:
            case "queue":
                model.add("waits")
            case "send" | "send failing":
                model.add("fails" if name == "send failing" else "waits")
                model.begin()
            case "run":
                model.begin()
            case "interrupt" | "interrupt with":
                model.aborted = model.aborted or model.running
                model.running = False
                if name == "interrupt with":
                    model.add("waits")
            case "clear":
                model.aborted = False
            case "finish":
                model.open_gates()
            case "close":
                model.closed, model.running, model.queue = True, False, []

    def check(self):
        session, model = self.session, self.model
        state = session.scheduler_state
        assert (state.state == "running") == model.running
        assert state.queued == len(session.queued) == len(model.queue)
        assert session.is_aborted == model.aborted
        assert session.is_terminal == model.closed
        assert session.status == ("closed" if model.closed else session.status)
        if model.running:
            assert session.status == "streaming"


@settings(max_examples=150, deadline=None)
@given(OPERATIONS)
def test_any_order_ends_in_a_legal_state(operations):
    """Queue, send, run, interrupt, clear, finish and close in any order: what the model says is what the session is,
    only the table's changes of status happen, every handle settles, and the block ends.
    """
    changes = []

    async def drive():
        async with FakeDaemon() as daemon:
            manager = SessionManager(SessionConfig(dialer=daemon.dialer))
            async with manager.create([]) as session:
                before = [session.status]

                def note(event):
                    changes.append((before.pop(), event.data))
                    before.append(event.data)

                session.on("status", note)
                driver = Driver(session)
                for name in operations:
                    await driver.do(name)
                for gate in driver.gates:
                    gate.set()
            assert session.status == "closed"
            for handle in driver.handles:
                with trio.fail_after(1):
                    with suppress(RunInterrupted, ValueError):
                        await handle.result()
            assert manager.counters.active == 0

    trio.run(drive, clock=trio.testing.MockClock(autojump_threshold=math.inf))
    assert all(now in TRANSITIONS[before] for before, now in changes)


def test_the_table_is_the_law():
    """What the table does not have cannot be done; the same status again is no change; ends are ends."""
    told = []
    table: Any = TRANSITIONS
    for before, allowed in table.items():
        for now in table:
            lifecycle = Lifecycle(lambda *change: told.append(change))
            lifecycle.status = before
            if now in allowed:
                lifecycle.move(now)
                assert told.pop() == (before, now)
            elif now != before:
                with pytest.raises(LocalProtocolError, match=f"{before} cannot become {now}"):
                    lifecycle.move(now)
            else:
                lifecycle.move(now)
    assert told == []
    assert {status for status, following in TRANSITIONS.items() if not following} == TERMINAL
