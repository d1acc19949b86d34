"""A build told in the Engine API's messages, in the words in which docker's older builder told it.

Programs look for these words: ``Step 2/3 : RUN make``, `` ---> Using cache``, ``Successfully built 0123456789ab``.
BuildKit runs steps side by side, so that what they write is interleaved here, and it has no step for what makes no
layer: a Dockerfile with an ENV has fewer steps than the older builder counted.

Source: moby/moby builder/dockerfile/dispatchers.go and api/server/router/build/build_routes.go.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from mobysession.buildkit.logs import STDERR

if TYPE_CHECKING:
    from collections.abc import Callable

    from mobysession.build.calls import CallAnswer
    from mobysession.build.result import BuildResult
    from mobysession.buildkit.status import BuildStatus, Changes, Vertex
    from mobysession.errors import BuildFailed

__all__ = ["Chunk", "MessageView", "failure", "success"]

#: One message of the stream: ``stream``, ``aux`` or ``error``.
Chunk = dict[str, Any]

_STEP = re.compile(r"\[(?:\S+ )*(\d+)/(\d+)\] (.*)", re.DOTALL)
#: The second is that of engines before 23.
_PROCESS = (
    re.compile(r'process "(.*)" did not complete successfully: exit code: \d+', re.DOTALL),
    re.compile(r"executor failed running \[(.*)\]: exit code: \d+", re.DOTALL),
)
_RED, _PLAIN = "\x1b[91m", "\x1b[0m"


class MessageView:
    """A view of a build that hands on chunks instead of writing.

    Args:
        push: called with each chunk; must not wait.
    """

    interval = 3600.0

    def __init__(self, push: Callable[[Chunk], None]) -> None:
        self._push = push
        self._told: set[str] = set()
        self._cached: set[str] = set()
        self._status: BuildStatus | None = None

    def update(self, status: BuildStatus, changes: Changes) -> None:
        """Hand on what one message of the engine changed."""
        self._status = status
        for vertex in changes.vertices.values():
            self._tell(vertex)
        self._tell_logs(changes)

    def tick(self) -> None:
        """Do nothing: there is nothing that goes on by itself."""

    def close(self, error: BaseException | None = None) -> None:
        """Hand on what was left of the logs."""
        status, self._status = self._status, None
        if status is not None:
            self._tell_logs(status.finish())

    def _tell(self, vertex: Vertex) -> None:
        step = _STEP.fullmatch(vertex.name)
        if step is None or not vertex.is_started or vertex.hidden:
            return
        if vertex.digest not in self._told:
            self._told.add(vertex.digest)
            number, of, instruction = step.groups()
            self._push({"stream": f"Step {number}/{of} : {instruction}\n"})
        if vertex.cached and vertex.is_completed and vertex.digest not in self._cached:
            self._cached.add(vertex.digest)
            self._push({"stream": " ---> Using cache\n"})

    def _tell_logs(self, changes: Changes) -> None:
        for _, line in changes.logs:
            text = f"{line.text}\n"
            self._push({"stream": f"{_RED}{text}{_PLAIN}" if line.stream == STDERR else text})


def success(result: BuildResult, *, quiet: bool, form: str = "text") -> list[Chunk]:
    """Return what a build ends with that went well; nothing where the engine's store has no image of it.

    Where the frontend was asked for something else, that is its answer, as ``form``, which is ``text`` or ``json``.
    """
    if result.answer is not None:
        return _answered(result.answer, form)
    if not result.image_id:
        return []
    if quiet:
        return [{"stream": f"{result.image_id}\n"}]
    return [
        {"aux": {"ID": result.image_id}},
        {"stream": f"Successfully built {result.image_id.removeprefix('sha256:')[:12]}\n"},
        *({"stream": f"Successfully tagged {tag if _has_tag(tag) else f'{tag}:latest'}\n"} for tag in result.tags),
    ]


def _answered(answer: CallAnswer, form: str) -> list[Chunk]:
    chunks: list[Chunk] = [{"stream": answer.render(form)}]
    if answer.error:
        chunks.append({"stream": f"{_RED}{answer.render_error()}{_PLAIN}"})
    return chunks


def _has_tag(name: str) -> bool:
    return ":" in name.rpartition("/")[2]


def failure(error: BuildFailed) -> Chunk:
    """Return what a build ends with that failed; a command's failure in the older builder's words."""
    message, code = error.message, error.exit_code
    process = next(filter(None, (pattern.search(message) for pattern in _PROCESS)), None)
    if code is not None and process is not None:
        message = f"The command '{process[1]}' returned a non-zero code: {code}"
    detail: dict[str, Any] = {"message": message}
    if code is not None:
        detail["code"] = code
    return {"errorDetail": detail, "error": message}
