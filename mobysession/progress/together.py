"""Several builds in one view: their steps stand in one list, each with the name of its build.

A view shows one status model. Here the messages of several builds are folded into one more, in which a step is named
``[app stage 1/2] RUN make`` where its build is called ``app``. An engine calls a step by what it does and does it once
for all builds that want it, telling each of them: such a step bears the name of the build that told of it first, whose
messages about it count. Two engines may use the same digest for two steps, and these are kept apart.

Source: docker/buildx util/progress/multiwriter.go, for the place of the name.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any, Final

from mobysession._pb import control_pb2
from mobysession.buildkit.status import BuildStatus
from mobysession.progress.held import HeldView

if TYPE_CHECKING:
    from collections.abc import Callable

    from mobysession.buildkit.status import Changes
    from mobysession.progress.view import View

__all__ = ["Together"]

#: Seconds between ticks of a part, which has nothing to do then.
_SELDOM: Final = 3600.0


class Together:
    """One view, shared by several builds.

    Args:
        view: what shows them; None shows nothing. Whoever owns this calls its `View.tick`, as for a build.
        listener: called with the status of all builds after each message; must not wait.

    Attributes:
        view: as given, and can be held while somebody is asked a question.
        status: the model of all builds.
    """

    def __init__(self, view: View | None, listener: Callable[[BuildStatus], None] | None = None) -> None:
        self.view = HeldView(view) if view is not None else None
        self.status = BuildStatus()
        self._listener = listener
        #: By digest, the part that told of a step first.
        self._owners: dict[str, _Part] = {}

    def part(self, name: str = "", *, engine: str = "") -> View:
        """Return the view for one build; its own end is not the end of the whole.

        Args:
            name: what its steps bear; empty for nothing.
            engine: tells apart the engines, where there are several.
        """
        return _Part(self, name, engine)

    def owner(self, digest: str, part: _Part) -> _Part:
        """Return whose a step is: it is the part's own, if nobody told of it before."""
        return self._owners.setdefault(digest, part)

    def give_up(self, part: _Part) -> None:
        """Let the steps of a part be those of whoever tells of them next."""
        self._owners = {digest: owner for digest, owner in self._owners.items() if owner is not part}

    def apply(self, message: control_pb2.StatusResponse) -> None:
        """Take a message of which the parts have made what is to be shown."""
        changes = self.status.apply(message)
        if self.view is not None:
            self.view.update(self.status, changes)
        if self._listener is not None:
            self._listener(self.status)

    def leave(self) -> None:
        """Take what is drawn away, where the view can."""
        if self.view is not None:
            self.view.leave()

    def close(self, error: BaseException | None = None) -> None:
        """Show what is still held back, and close the view; ``error`` is what ended the whole."""
        changes = self.status.finish()
        if self.view is not None:
            if changes:
                self.view.update(self.status, changes)
            self.view.close(error)


class _Part:
    """The view of one build."""

    interval = _SELDOM

    def __init__(self, together: Together, name: str, engine: str) -> None:
        self.name = name
        self._together = together
        self._engine = engine
        self._digests: dict[str, str] = {}

    def update(self, status: BuildStatus, changes: Changes) -> None:
        """Hand the message on; what no message brought, the whole brings by itself."""
        if changes.message is not None:
            self._together.apply(self._marked(changes.message))

    def tick(self) -> None:
        """Show nothing: the whole is ticked."""

    def leave(self) -> None:
        """Take what is drawn away."""
        self._together.leave()

    def close(self, error: BaseException | None = None) -> None:
        """Leave the steps to others, who may go on with them."""
        self._together.give_up(self)

    def _marked(self, message: control_pb2.StatusResponse) -> control_pb2.StatusResponse:
        marked = control_pb2.StatusResponse()
        marked.CopyFrom(message)
        for vertex in marked.vertexes:
            vertex.digest = self._digest(vertex.digest)
            vertex.inputs[:] = map(self._digest, vertex.inputs)
            name = self._together.owner(vertex.digest, self).name
            vertex.name = _named(vertex.name, name)
            if vertex.HasField("progressGroup"):
                vertex.progressGroup.id = self._digest(vertex.progressGroup.id)
                vertex.progressGroup.name = _named(vertex.progressGroup.name, name)
        told: list[Any] = [marked.statuses, marked.logs, marked.warnings]
        for messages in told:
            for one in messages:
                one.vertex = self._digest(one.vertex)
            own = [one for one in messages if self._together.owner(one.vertex, self) is self]
            if len(own) < len(messages):
                del messages[:]
                messages.extend(own)
        return marked

    def _digest(self, digest: str) -> str:
        if not digest or not self._engine:
            return digest
        found = self._digests.get(digest)
        if found is None:
            found = "sha256:" + hashlib.sha256(f"{self._engine} {digest}".encode()).hexdigest()
            self._digests[digest] = found
        return found


def _named(step: str, name: str) -> str:
    """Put the build's name where steps have their stage's."""
    if not name:
        return step
    return f"[{name} {step[1:]}" if step.startswith("[") else f"[{name}] {step}"
