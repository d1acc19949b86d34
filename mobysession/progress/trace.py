"""A recorded build as a trace: the JSON that Chrome's ``about:tracing``, Perfetto and speedscope read.

Three processes: the steps, by stage; their transfers; the engine's callbacks. Events of one thread must lie within each
other or apart, and steps of a stage do neither, so that a stage has as many threads as it needs.

Source: Google's "Trace Event Format", complete events (``ph`` X, times in microseconds) and metadata (M).
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mobysession.progress.timeline import Call, Moved, Recorded, Step

__all__ = ["render_trace"]

_STEPS, _PARTS, _CALLS = 1, 2, 3
_PROCESSES = {_STEPS: "steps", _PARTS: "transfers", _CALLS: "callbacks"}
#: Threads of one stage; what does not fit is put into the last. Ours: nobody reads more, and each costs a look.
_MOST_LANES = 100


def render_trace(recorded: Recorded) -> str:
    """Return the text of a trace file."""
    lanes = _Lanes()
    events: list[dict[str, Any]] = []
    for step in recorded.steps:
        for start, end in step.runs:
            thread = lanes.thread(_STEPS, step.stage, start, end)
            events.append(_event(_STEPS, thread, step.name, step.state, start, end, _about_step(step)))
        for part in step.parts:
            thread = lanes.thread(_PARTS, step.stage, part.start, part.end)
            events.append(_event(_PARTS, thread, part.name, "transfer", part.start, part.end, _about_part(step, part)))
    for call in recorded.calls:
        thread = lanes.thread(_CALLS, call.kind, call.start, call.end)
        name = f"{call.kind} {call.subject}".strip()
        events.append(_event(_CALLS, thread, name, call.kind, call.start, call.end, _about_call(call)))
    about = {"title": recorded.title, "outcome": recorded.outcome, "error": recorded.error, "begun": recorded.begun}
    trace = {"traceEvents": [*lanes.metadata(), *events], "displayTimeUnit": "ms", "otherData": about}
    return json.dumps(trace, separators=(",", ":")) + "\n"


class _Lanes:
    """The threads, and until when each is taken."""

    def __init__(self) -> None:
        self._lanes: dict[tuple[int, str], list[tuple[int, float]]] = {}
        self._names: list[tuple[int, int, str]] = []

    def thread(self, process: int, name: str, start: float, end: float) -> int:
        """Return the number of a thread of this name that is free from ``start`` on, and take it until ``end``."""
        lanes = self._lanes.setdefault((process, name), [])
        for at, (number, taken) in enumerate(lanes):
            if taken <= start or at + 1 == _MOST_LANES:
                lanes[at] = (number, max(taken, end))
                return number
        number = len(self._names) + 1
        lanes.append((number, end))
        self._names.append((process, number, name if len(lanes) == 1 else f"{name} ({len(lanes)})"))
        return number

    def metadata(self) -> Iterator[dict[str, Any]]:
        """Yield what names the processes and threads."""
        for process, name in _PROCESSES.items():
            yield {"ph": "M", "name": "process_name", "pid": process, "args": {"name": name}}
        for process, number, name in self._names:
            yield {"ph": "M", "name": "thread_name", "pid": process, "tid": number, "args": {"name": name}}
            yield {
                "ph": "M",
                "name": "thread_sort_index",
                "pid": process,
                "tid": number,
                "args": {"sort_index": number},
            }


def _event(
    process: int, thread: int, name: str, category: str, start: float, end: float, about: dict[str, Any]
) -> dict[str, Any]:
    return {
        "ph": "X",
        "name": name,
        "cat": category,
        "pid": process,
        "tid": thread,
        "ts": round(start * 1e6, 3),
        "dur": round((end - start) * 1e6, 3),
        "args": about,
    }


def _about_step(step: Step) -> dict[str, Any]:
    about: dict[str, Any] = {"step": step.number, "state": step.state, "critical": step.critical}
    if step.error:
        about["error"] = step.error
    if step.warnings:
        about["warnings"] = list(step.warnings)
    if step.log:
        about["log"] = "\n".join(text for _, _, text in step.log)
    return about


def _about_part(step: Step, part: Moved) -> dict[str, Any]:
    return {"step": step.number, "current": part.current, "total": part.total}


def _about_call(call: Call) -> dict[str, Any]:
    about = {"method": call.method, "sent": call.sent, "received": call.received, "code": call.code}
    return {**about, "message": call.message} if call.message else about
