"""Playing a recording: the daemon's half of it is said again to a session, and what is answered is compared.

::

    recording = read_recording("build.recording")
    async with FakeDaemon() as daemon, open_session(daemon.dialer, FileSync({"context": "."})) as session:
        report = await replay(recording, await daemon.wait_session(session.id))
    assert report.is_equal, report.render()

A call begins when those have ended that had ended before it was recorded, and each of its messages is said when as many
answers have come as had come then. What cannot be said again is skipped, and the report says why: requests that were a
secret, calls of which the recording has no bodies, tokens, for which a registry would be asked, and health checks,
which a daemon makes on its own account. `ReplayDaemon` does the same for every session that is opened on it.
"""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Literal

import trio

from mobysession import limits
from mobysession.concurrency import open_nursery
from mobysession.errors import RpcError, StatusCode
from mobysession.recording import CLIENT, CallBegan, CallOver, DaemonDone, Message
from mobysession.testing.answers import Said, difference, text_differs
from mobysession.testing.fake_daemon import FakeDaemon

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from mobysession.recording import Recording
    from mobysession.testing.caller import FakeCaller
    from mobysession.testing.peer_call import PeerCall
    from mobysession.testing.script import FakeSolve

__all__ = ["ReplayDaemon", "ReplayReport", "ReplayedCall", "replay"]

Outcome = Literal["equal", "different", "skipped"]

_HEALTH: Final = "/grpc.health.v1.health/"
_FETCH_TOKEN: Final = "/moby.filesync.v1.auth/fetchtoken"  # a method's name
#: How calls end that somebody gave up: not by what they answered.
_GIVEN_UP: Final = frozenset(("CANCELLED", "UNAVAILABLE", "DEADLINE_EXCEEDED"))


@dataclass(frozen=True, kw_only=True)
class ReplayedCall:
    """What became of one call: its number in the recording, and how its answer differs or why it was skipped."""

    call: int
    method: str
    outcome: Outcome
    why: str = ""


@dataclass(frozen=True)
class ReplayReport:
    """What became of the calls of a recording, in their order."""

    calls: tuple[ReplayedCall, ...]

    @property
    def is_equal(self) -> bool:
        """True where no answer differs and something was played."""
        outcomes = [call.outcome for call in self.calls]
        return "different" not in outcomes and "equal" in outcomes

    def render(self) -> str:
        """Return a line for each call, and one for all."""
        lines = [f"{call.outcome:9}  {call.method}{call.why and f': {call.why}'}" for call in self.calls]
        counts = {outcome: sum(call.outcome == outcome for call in self.calls) for outcome in ("equal", "different")}
        skipped = len(self.calls) - sum(counts.values())
        lines.append(f"{counts['equal']} equal, {counts['different']} different, {skipped} skipped")
        return "".join(f"{line}\n" for line in lines)

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return {"is_equal": self.is_equal, "calls": [asdict(call) for call in self.calls]}


@dataclass
class _Part:
    """One call, as it is to be played."""

    began: CallBegan
    #: What the daemon said, None where it had said all, and how many answers had come by then.
    said: list[tuple[bytes | None, int]] = field(default_factory=list)
    answers: list[Said] = field(default_factory=list)
    over: CallOver | None = None
    #: Calls that had ended when this one began.
    after: frozenset[int] = frozenset()
    has_secret_request: bool = False

    def take(self, record: Message) -> None:
        """Take a message of either side."""
        if record.sender == CLIENT:
            self.answers.append(Said(record.body, record.hidden))
        elif record.body is None and record.size:
            self.has_secret_request = True
        else:
            self.said.append((record.body or b"", len(self.answers)))

    def skipped(self, skip: Iterable[str]) -> str | None:
        """Return why it cannot be played, or need not be; None where it is."""
        method = self.began.method.lower()
        if method.startswith(_HEALTH):
            return "a daemon asks for it itself"
        if any(method.startswith(one.lower()) for one in skip):
            return "it is left out"
        if self.over is None:
            return "its end is not recorded"
        if self.has_secret_request:
            return "its request is a secret"
        if not self.over.whole:
            return "what was said is not recorded"
        return "a registry would be asked" if method == _FETCH_TOKEN else None


def _parts(recording: Recording) -> dict[int, list[_Part]]:
    """Return the calls by connection."""
    parts: dict[int, _Part] = {}
    found: dict[int, list[_Part]] = defaultdict(list)
    ended: set[int] = set()
    for record in recording:
        if isinstance(record, CallBegan):
            part = parts[record.call] = _Part(record, after=frozenset(ended))
            found[record.connection].append(part)
        elif isinstance(record, (Message, DaemonDone, CallOver)) and (known := parts.get(record.call)) is not None:
            if isinstance(record, Message):
                known.take(record)
            elif isinstance(record, DaemonDone):
                known.said.append((None, len(known.answers)))
            else:
                known.over = record
                ended.add(record.call)
    return dict(found)


async def replay(
    recording: Recording,
    caller: FakeCaller,
    *,
    connection: int | None = None,
    skip: Iterable[str] = (),
    patience: float = limits.REPLAY_PATIENCE,
) -> ReplayReport:
    """Say to a session what the daemon said in a recording, and compare the answers.

    All of what is compared is in memory meanwhile.

    Args:
        recording: what to play.
        caller: the session.
        connection: the only one of the recording's to be played; None: all, one after the other.
        skip: how methods begin that are not played.
        patience: seconds to wait for an answer that the recording has; what follows is said then all the same.

    Raises:
        RecordingError: the file is damaged.
    """
    parts = await trio.to_thread.run_sync(_parts, recording)
    calls: list[ReplayedCall] = []
    for number, several in sorted(parts.items()):
        if connection in (None, number):
            calls += await _Play(caller, tuple(skip), patience).all_of(several)
    return ReplayReport(tuple(sorted(calls, key=lambda call: call.call)))


class _Play:
    """The calls of one connection."""

    def __init__(self, caller: FakeCaller, skip: Sequence[str], patience: float) -> None:
        self._caller = caller
        self._skip = skip
        self._patience = patience
        self._calls: list[ReplayedCall] = []

    async def all_of(self, parts: Sequence[_Part]) -> list[ReplayedCall]:
        """Play calls, as far as they did not wait for each other at the same time."""
        over = {part.began.call: trio.Event() for part in parts}
        async with open_nursery() as nursery:
            for part in parts:
                nursery.start_soon(self._one, part, over)
        return self._calls

    async def _one(self, part: _Part, over: Mapping[int, trio.Event]) -> None:
        try:
            for call in part.after:
                if call in over:
                    await over[call].wait()
            why = part.skipped(self._skip)
            outcome: Outcome = "skipped"
            if why is None:
                why = await self._compare(part)
                outcome = "equal" if why is None else "different"
            self._calls.append(
                ReplayedCall(call=part.began.call, method=part.began.method, outcome=outcome, why=why or "")
            )
        finally:
            over[part.began.call].set()

    async def _compare(self, part: _Part) -> str | None:
        assert part.over is not None  # it would have been skipped
        if part.over.code == "OK" and not self._caller.supports(part.began.method):
            return "it is not hosted"
        given_up = part.over.code in _GIVEN_UP
        answers, status = await self._say(part, given_up)
        if not given_up:
            if status.code is not part.over.status:
                return f"{status.code.name} instead of {part.over.code}: {status.message}"
            if text_differs(part.over.message, status.message):
                return f"{part.over.code} for another reason: {status.message}"
        return difference(part.began.method, part.answers, answers, partly=given_up)

    async def _say(self, part: _Part, given_up: bool) -> tuple[list[bytes], RpcError]:
        answers = _Answers()
        try:
            async with (
                self._caller.channel.open_call(part.began.method, metadata=part.began.metadata) as call,
                open_nursery() as nursery,
            ):
                nursery.start_soon(answers.take, call)
                await self._say_all(part, call, answers)
                if given_up:
                    await answers.wait(len(part.answers), self._patience)
                else:
                    await answers.wait(math.inf, self._patience)
                nursery.cancel_scope.cancel()
        except RpcError as error:
            return answers.messages, error
        return answers.messages, call.status or RpcError(StatusCode.DEADLINE_EXCEEDED, "the answer does not end")

    async def _say_all(self, part: _Part, call: PeerCall, answers: _Answers) -> None:
        for message, heard in part.said:
            await answers.wait(heard, self._patience)
            if answers.over.is_set():
                return
            if message is None:
                await call.end()
            else:
                await call.send(message)


class _Answers:
    """What a call is answered."""

    def __init__(self) -> None:
        self.messages: list[bytes] = []
        self.over = trio.Event()
        self._changed = trio.lowlevel.ParkingLot()

    async def take(self, call: PeerCall) -> None:
        """Take the messages of a call until its end."""
        try:
            while batch := await call.receive_batch():
                self.messages += batch
                self._changed.unpark_all()
        except RpcError:
            pass  # the call has it as its status
        finally:
            self.over.set()
            self._changed.unpark_all()

    async def wait(self, count: float, patience: float) -> None:
        """Wait for some messages, or for the end, as long as any come in time."""
        while len(self.messages) < count and not self.over.is_set():
            with trio.move_on_after(patience) as scope:
                await self._changed.park()
            if scope.cancelled_caught:
                return


class ReplayDaemon(FakeDaemon):
    """A daemon that plays a recording to every session which is opened on it.

    The first session is told what the first connection of the recording was, the next what the next was, and so on in
    a circle. A build on it succeeds, without any result, when all was said.

    Args:
        path, recording, skip, patience: as `FakeDaemon` and `replay`.
        on_report: is told what became of it at each session.
    """

    def __init__(
        self,
        path: Any = None,
        *,
        recording: Recording,
        skip: Iterable[str] = (),
        patience: float = limits.REPLAY_PATIENCE,
        on_report: Callable[[ReplayReport], None] = lambda report: None,
        **options: Any,
    ) -> None:
        super().__init__(path, script=self._build, **options)
        self.reports: list[ReplayReport] = []
        self._recording = recording
        self._play = partial(replay, recording, skip=tuple(skip), patience=patience)
        self._on_report = on_report
        self._played: dict[str, trio.Event] = {}

    def register(self, caller: FakeCaller) -> None:
        """Take a new session, and begin to play."""
        super().register(caller)
        assert self._nursery is not None
        number = len(self._played)
        self._played[caller.id] = trio.Event()
        self._nursery.start_soon(self._play_to, caller, number)

    async def _play_to(self, caller: FakeCaller, number: int) -> None:
        try:
            await caller.channel.ready.wait()
            connections = await trio.to_thread.run_sync(self._connections_with_calls)
            connection = connections[number % len(connections)] if connections else None
            report = await self._play(caller, connection=connection)
            self.reports.append(report)
            self._on_report(report)
        finally:
            self._played[caller.id].set()

    def _connections_with_calls(self) -> list[int]:
        return sorted({record.connection for record in self._recording if isinstance(record, CallBegan)})

    async def _build(self, solve: FakeSolve) -> dict[str, str]:
        caller = await solve.session()
        async with solve.vertex("play the recording"):
            await self._played[caller.id].wait()
        return {}
