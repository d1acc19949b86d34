"""Several builds from one call on the fake daemon: results in order, what is shared, what is repeated, what cancels."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import trio

from mobysession import aio, sync
from mobysession.build.many import build_many, open_many
from mobysession.build.options import BuildOptions
from mobysession.build.result import BuildResult
from mobysession.errors import BuildFailed, ConnectError, SessionLost, UsageError
from mobysession.session.access import Access
from mobysession.testing import BlockingFakeDaemon, FakeDaemon, FakeSolve, dockerfile_build
from mobysession.transport.endpoint import Endpoint

if TYPE_CHECKING:
    from collections.abc import Callable

    from mobysession.buildkit.status import BuildStatus, Changes

TREE = """\
FROM scratch AS one
COPY . /one
FROM scratch AS two
COPY . /two
"""


class OwnView:
    """A view that remembers what it was told."""

    interval = 0.01

    def __init__(self) -> None:
        self.names: list[str] = []
        self.models: set[int] = set()
        self.closed: list[BaseException | None] = []

    def update(self, status: BuildStatus, changes: Changes) -> None:
        self.models.add(id(status))
        self.names += [vertex.name for vertex in changes.vertices.values() if vertex.name not in self.names]

    def tick(self) -> None:
        pass

    def close(self, error: BaseException | None = None) -> None:
        self.closed.append(error)


@pytest.fixture
def tree(tmp_path: Path, docker_config: object) -> Path:
    """Give a context with two stages and some directories."""
    folder = tmp_path / "tree"
    for name in ("a", "b", "c"):
        (folder / name).mkdir(parents=True)
        (folder / name / "file").write_text(name)
    (folder / "Dockerfile").write_text(TREE)
    return folder


@pytest.fixture
def listed(tree: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Give what is listed below the context."""
    found: list[str] = []
    real = os.listdir

    def listdir(path: Any) -> Any:
        # As a walk does. The root is also listed for its names alone, which is not shared.
        if isinstance(path, bytes) and path.startswith(b"/proc/self/fd/"):
            place = Path(os.fsdecode(os.readlink(path)))
            if place.parent == tree:
                found.append(place.name)
        return real(path)

    monkeypatch.setattr("mobysession.filesync.directory.os.listdir", listdir)
    return found


def together(builds: int) -> Callable[[FakeSolve], Any]:
    """Return a script that begins when so many builds are there, so that all run at once."""
    there = 0
    all_there = trio.Event()

    async def script(solve: FakeSolve) -> dict[str, str]:
        nonlocal there
        there += 1
        if there == builds:
            all_there.set()
        await all_there.wait()
        return await dockerfile_build(solve)

    return script


async def test_results_stand_in_the_order_of_the_builds(tree: Path) -> None:
    """The second may be done first; each has a session of its own, and its name in the one view that is closed once."""
    view = OwnView()
    first_done = trio.Event()

    async def second_first(solve: FakeSolve) -> dict[str, str]:
        if solve.request.FrontendAttrs["target"] == "one":
            await first_done.wait()
        result = await dockerfile_build(solve)
        first_done.set()
        return result

    async with FakeDaemon.listen(script=second_first) as daemon:
        results = await build_many(
            [{"context": tree, "target": "one", "tags": ["a"]}, BuildOptions(context=tree, target="two", tags=["b"])],
            endpoint=daemon.endpoint,
            progress=view,
        )
    assert [result.tags for result in results] == [("a",), ("b",)]
    assert len({result.session_id for result in results}) == 2
    assert any(name.startswith("[one internal] load") for name in view.names)
    assert any(name.startswith("[two internal] load") for name in view.names)
    assert "[one] exporting to image" in view.names
    assert view.closed == [None]
    assert len(view.models) == 1


async def test_the_first_failure_cancels_the_others(tree: Path) -> None:
    """It is raised as itself with the name of its build, and the view is told of it."""
    view = OwnView()
    ended = trio.Event()

    async def one_fails(solve: FakeSolve) -> dict[str, str]:
        if solve.request.FrontendAttrs["target"] == "one":
            async with solve.vertex("RUN make") as step:
                solve.fail("no rule", exit_code=2, vertex=step)
        try:
            await trio.sleep_forever()
        finally:
            ended.set()

    async with FakeDaemon.listen(script=one_fails) as daemon:
        with pytest.raises(BuildFailed, match="no rule") as failure:
            await build_many(
                [{"context": tree, "target": "one"}, {"context": tree, "target": "two"}],
                endpoint=daemon.endpoint,
                progress=view,
            )
        await ended.wait()
    assert failure.value.__notes__ == ["in the build one"]
    assert view.closed == [failure.value]


async def test_errors_can_be_returned_in_their_places(tree: Path) -> None:
    """The others go on, and a failure stands where its result would."""

    async def one_fails(solve: FakeSolve) -> dict[str, str]:
        if solve.request.FrontendAttrs["target"] == "one":
            solve.fail("no rule")
        return await dockerfile_build(solve)

    async with FakeDaemon.listen(script=one_fails) as daemon:
        failed, built = await build_many(
            [{"context": tree, "target": "one"}, {"context": tree, "target": "two"}],
            endpoint=daemon.endpoint,
            return_errors=True,
        )
    assert isinstance(failed, BuildFailed)
    assert isinstance(built, BuildResult)


async def test_no_more_run_at_once_than_allowed(tree: Path) -> None:
    """With ``at_once`` of 2 the third begins when one of the others has ended."""
    running, most = 0, 0
    two = trio.Event()

    async def counted(solve: FakeSolve) -> dict[str, str]:
        nonlocal running, most
        running += 1
        most = max(most, running)
        # Both have to have come before one of them goes.
        if most == 2:
            two.set()
        await two.wait()
        running -= 1
        return {}

    async with FakeDaemon.listen(script=counted) as daemon:
        await build_many([{"context": tree}] * 5, endpoint=daemon.endpoint, at_once=2)
    assert most == 2


async def test_builds_that_run_at_once_share_their_walks(tree: Path, listed: list[str]) -> None:
    """Three builds of one directory list each of its directories as often as a single one does."""
    async with FakeDaemon.listen() as daemon:
        await build_many([{"context": tree, "target": "two"}], endpoint=daemon.endpoint)
        assert listed == ["a", "b", "c"]
        listed.clear()
        daemon.script = together(3)
        results = await build_many([{"context": tree, "target": "two"}] * 3, endpoint=daemon.endpoint)
    assert listed == ["a", "b", "c"]
    assert len({result.transfers for result in results}) == 1
    assert len({result.digest for result in results}) == 1


async def test_a_later_build_lists_anew(tree: Path) -> None:
    """What was written after the first build is in the second, which begins when the first is over."""
    seen: list[bool] = []

    async def writes(solve: FakeSolve) -> dict[str, str]:
        response = await dockerfile_build(solve)
        seen.append((solve.trees["context"].root / "a" / "new").exists())
        (tree / "a" / "new").write_text("x" * 1000)
        return response

    async with FakeDaemon.listen(script=writes) as daemon:
        await build_many([{"context": tree, "target": "two"}] * 2, endpoint=daemon.endpoint, at_once=1)
    assert seen == [False, True]


async def test_a_function_for_logins_is_asked_once(tree: Path) -> None:
    """The builds share what it said."""
    asked: list[str] = []

    def login(host: str) -> tuple[str, str]:
        asked.append(host)
        return "robot", "password"

    async def asks(solve: FakeSolve) -> dict[str, str]:
        found = await (await solve.session()).credentials("registry.example.com")
        return {"user": found[0]}

    async with FakeDaemon.listen(script=asks) as daemon:
        results = await build_many([{"context": tree, "credentials": login}] * 3, endpoint=daemon.endpoint)
    assert [result.response["user"] for result in results] == ["robot"] * 3
    assert asked == ["registry.example.com"]


# -- one session -------------------------------------------------------------------------------------------------------


async def test_one_session_serves_several_solves(tree: Path) -> None:
    """The engine registers one session, which both builds name."""
    async with FakeDaemon.listen() as daemon:
        results = await build_many(
            [{"context": tree, "target": "one", "secrets": {"token": b"hunter2-hunter2"}}] * 2,
            endpoint=daemon.endpoint,
            one_session=True,
        )
        assert len({result.session_id for result in results}) == 1
        assert len(daemon.ended) + len(daemon.sessions) == 1
    assert [bool(result.digest) for result in results] == [True, True]
    assert len(results[0].transfers) >= 3
    assert results[1].transfers == ()


@pytest.mark.parametrize(
    ("other", "words"),
    [
        ({"secrets": {"a": b"1"}}, "they differ in secrets"),
        ({"outputs": ["type=local,dest=out"]}, "build 2 has an output that the engine sends over its session"),
        ({"cache_from": ["type=local,src=cache"]}, "build 2 has a local cache"),
        ({"file": "elsewhere/Dockerfile"}, "their Dockerfiles are in different directories"),
        ({"access": Access()}, "they differ in access"),
    ],
)
async def test_what_goes_over_one_session_must_be_the_same(tree: Path, other: dict[str, Any], words: str) -> None:
    """Anything else is refused by the name of what differs, before an engine is asked."""
    nowhere = Endpoint.parse("unix:///nowhere.sock")
    with pytest.raises(UsageError, match=words):
        await build_many([{"context": tree}, {"context": tree, **other}], endpoint=nowhere, one_session=True)


# -- again -------------------------------------------------------------------------------------------------------------


def dying(daemon: FakeDaemon, times: int, *, exporting: bool = False) -> Callable[[FakeSolve], Any]:
    """Return a script during which the daemon goes away so often."""
    left = times

    async def script(solve: FakeSolve) -> dict[str, str]:
        nonlocal left
        if left:
            left -= 1
            name = "exporting to image" if exporting else "[1/1] RUN make"
            async with solve.vertex(name) as step:
                step.log("begun\n")
                # What was told has to be on its way.
                await trio.sleep(0.05)
                daemon.kill()
                await trio.sleep_forever()
        return await dockerfile_build(solve)

    return script


async def test_a_build_whose_engine_went_away_is_asked_for_again(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Twice where two are allowed, each time on a new session."""
    monkeypatch.setattr("mobysession.limits.RETRY_WAIT", 0.01)
    async with FakeDaemon.listen() as daemon:
        daemon.script = dying(daemon, 2)
        (result,) = await build_many([{"context": tree}], endpoint=daemon.endpoint, retries=2)
        assert result.digest
        assert len(daemon.solver.solves) == 3
        assert len({solve.request.Session for solve in daemon.solver.solves.values()}) == 3


@pytest.mark.parametrize(("retries", "exporting"), [(0, False), (1, True)])
async def test_it_is_not_without_being_allowed_nor_after_an_export(tree: Path, retries: int, exporting: bool) -> None:
    """Without retries, and once the engine has told of an export, the loss is raised."""
    async with FakeDaemon.listen() as daemon:
        daemon.script = dying(daemon, 1, exporting=exporting)
        with pytest.raises(SessionLost):
            await build_many([{"context": tree}], endpoint=daemon.endpoint, retries=retries)
        assert len(daemon.solver.solves) == 1


async def test_an_engine_that_was_never_there_did_not_go_away(tree: Path) -> None:
    """It cannot be reached, and that is raised at once."""
    nowhere = Endpoint.parse("unix:///nowhere.sock")
    with pytest.raises(ConnectError):
        await build_many([{"context": tree}], endpoint=nowhere, retries=5)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"at_once": 0}, "at_once is the number"),
        ({"retries": -1}, "retries is a number, 0 or more"),
        ({"retries": 1, "one_session": True}, "cannot be repeated"),
        ({"names": ["a", "b"]}, "there are 1 builds and 2 names"),
        ({"names": "a"}, "names takes a list"),
    ],
)
async def test_what_makes_no_sense_is_refused(tree: Path, arguments: dict[str, Any], words: str) -> None:
    """Before anything is begun."""
    with pytest.raises(UsageError, match=words):
        await build_many([{"context": tree}], **arguments)


async def test_stdin_is_not_read_twice(docker_config: object) -> None:
    """A build of stdin cannot be repeated, and says so."""
    async with open_many(retries=1) as many:
        with pytest.raises(UsageError, match="stdin is read once"):
            await many.build(BuildOptions(context="-"))


# -- the other front doors, and what it costs not to use it ------------------------------------------------------------


def test_blocking_code_builds_many(tree: Path) -> None:
    """With the same arguments and results."""
    with BlockingFakeDaemon() as daemon:
        results = sync.build_many([{"context": tree, "target": "one", "tags": ["a"]}], endpoint=daemon.endpoint)
        assert [result.tags for result in results] == [("a",)]
        node = sync.build_on([daemon.endpoint], tree, platforms=["linux/amd64"], tags=["b"])
        assert node.tags == ("b",)


def test_asyncio_code_builds_many(tree: Path) -> None:
    """With the same arguments and results."""
    with BlockingFakeDaemon() as daemon:
        results = asyncio.run(aio.build_many([{"context": tree, "target": "one"}] * 2, endpoint=daemon.endpoint))
        assert len({result.session_id for result in results}) == 2
        node = asyncio.run(aio.build_on([daemon.endpoint], tree, platforms=["linux/amd64"], tags=["b"]))
        assert node.tags == ("b",)


def test_a_single_build_loads_nothing_of_it() -> None:
    """What is there for several builds or nodes is loaded with them."""
    rooms = ("build.many", "build.nodes", "build.index", "build.one_session", "build.retries", "filesync.shared")
    modules = [f"mobysession.{room}" for room in (*rooms, "progress.together", "services.kept_credentials")]
    imports = "import sys, mobysession.build.build, mobysession.build.control_driver, mobysession.cli.build"
    code = f"{imports}; print(*sys.modules.keys() & {set(modules)!r})"
    assert subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout == "\n"
