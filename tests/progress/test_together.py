"""Several builds in one view: whose step is whose, and how it is named."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mobysession._pb import control_pb2
from mobysession.buildkit.status import BuildStatus
from mobysession.progress.together import Together

if TYPE_CHECKING:
    from mobysession.buildkit.status import Changes
    from mobysession.progress.view import View


class Seen:
    """A view that remembers."""

    interval = 0.1

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.closed: list[BaseException | None] = []

    def update(self, status: BuildStatus, changes: Changes) -> None:
        self.lines += [line.text for _, line in changes.logs]

    def tick(self) -> None:
        pass

    def close(self, error: BaseException | None = None) -> None:
        self.closed.append(error)


def tell(part: View, digest: str, name: str, log: bytes = b"") -> None:
    """Tell one message of a build through its part."""
    message = control_pb2.StatusResponse()
    vertex = message.vertexes.add(digest=digest, name=name)
    vertex.started.seconds = 1
    if log:
        message.logs.add(vertex=digest, stream=1, msg=log)
    status = BuildStatus()
    part.update(status, status.apply(message))


def names(together: Together) -> list[str]:
    """Return the steps as they are named."""
    return [vertex.name for vertex in together.status.vertices]


def test_steps_bear_the_names_of_their_builds() -> None:
    """Inside of the brackets where they have some; without a name they are as they were."""
    together = Together(Seen())
    tell(together.part("app"), "a", "[stage 1/2] RUN make")
    tell(together.part("db"), "b", "exporting to image")
    tell(together.part(), "c", "[internal] load")
    assert names(together) == ["[app stage 1/2] RUN make", "[db] exporting to image", "[internal] load"]


def test_what_an_engine_does_once_for_two_builds_is_one_step() -> None:
    """It is the first one's, and what is told to both is shown once; when that has ended, it is the other's."""
    seen = Seen()
    together = Together(seen)
    one, other = together.part("one"), together.part("other")
    for part in (one, other):
        tell(part, "a", "[1/1] RUN make", b"line\n")
    assert names(together) == ["[one 1/1] RUN make"]
    assert seen.lines == ["line"]
    one.close(None)
    tell(other, "a", "[1/1] RUN make", b"more\n")
    assert names(together) == ["[other 1/1] RUN make"]
    assert seen.lines == ["line", "more"]
    assert seen.closed == []


def test_what_two_engines_do_is_two_steps() -> None:
    """Although they call it by one digest."""
    together = Together(Seen())
    tell(together.part("one", engine="unix:///a"), "a", "[1/1] RUN make")
    tell(together.part("other", engine="unix:///b"), "a", "[1/1] RUN make")
    assert names(together) == ["[one 1/1] RUN make", "[other 1/1] RUN make"]


def test_all_keep_still_while_somebody_is_asked() -> None:
    """What happens meanwhile is shown afterwards; the end of the whole is told once."""
    seen = Seen()
    together = Together(seen)
    assert together.view is not None
    together.view.hold(True)
    tell(together.part("one"), "a", "[1/1] RUN make", b"line\n")
    assert seen.lines == []
    together.view.hold(False)
    assert seen.lines == ["line"]
    failure = ValueError()
    together.close(failure)
    assert seen.closed == [failure]


def test_without_a_view_a_listener_has_the_joint_status() -> None:
    """It is told after each message."""
    told: list[int] = []
    together = Together(None, lambda status: told.append(len(status.vertices)))
    tell(together.part("one"), "a", "one")
    tell(together.part("two"), "b", "two")
    together.close()
    assert told == [1, 2]
