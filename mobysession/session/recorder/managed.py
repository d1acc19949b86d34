"""Recording a managed session: its own connections, those of its builds, and where its runs begin and end."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

from mobysession import limits
from mobysession.session.recorder.recorder import Recorder

if TYPE_CHECKING:
    from mobysession.session.managed.feed import ManagedEvent
    from mobysession.session.managed.lifecycle import SessionSnapshot
    from mobysession.session.managed.session import ManagedSession
    from mobysession.session.recorder.recorder import RecordingMode

__all__ = ["ManagedRecorder", "start_recording"]


class ManagedRecorder(Recorder):
    """A recorder of a managed session. Made by `start_recording`."""

    def __init__(self, session: ManagedSession, mode: RecordingMode, *, frames: bool) -> None:
        super().__init__(mode, frames=frames)
        #: Of the ends of the latest runs, by number.
        self.snapshots: OrderedDict[int, SessionSnapshot] = OrderedDict()
        self._session = session
        self._leave = [session.on("run_started", self._run_began), session.on("run_ended", self._run_ended)]
        if session.runs.current is not None:
            self.run = session.runs.number

    def stop(self) -> None:
        """Record no more; what there is, is kept."""
        super().stop()
        while self._leave:
            self._leave.pop()()

    def _run_began(self, event: ManagedEvent) -> None:
        self.run_changed(event.run, "began")

    def _run_ended(self, event: ManagedEvent) -> None:
        self.run_changed(event.run, "ended")
        self.snapshots[event.run] = self._session.snapshot()
        if len(self.snapshots) > limits.KEPT_SNAPSHOTS:
            self.snapshots.popitem(last=False)


def start_recording(session: ManagedSession, mode: RecordingMode, *, frames: bool) -> ManagedRecorder:
    """Record a session, or change the mode of the recorder that does."""
    recorder = session.recorder
    if recorder is not None and not recorder.is_stopped:
        recorder.mode = mode
        recorder.frames = frames or recorder.frames
        return recorder
    recorder = ManagedRecorder(session, mode, frames=frames)
    for bare in (session.bare, *session.companions):
        recorder.watch(bare)
    session.nursery.start_soon(recorder.keep_writing)
    return recorder
