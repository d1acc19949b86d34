"""The file of a build over time: when it is written, what is in it, and what becomes of one that cannot be written."""

from __future__ import annotations

import json
import logging
import re
from typing import TYPE_CHECKING, Any

import pytest
import trio

from mobysession.build import BuildOptions, build
from mobysession.errors import BuildFailed, ProviderError, UsageError
from mobysession.session.access import Access
from mobysession.testing import FakeDaemon, FakeSolve

if TYPE_CHECKING:
    from pathlib import Path

SECRET = "hunter2-hunter2"


def recorded(page: Path) -> dict[str, Any]:
    """Return the build that a page holds."""
    found = re.search(r'id="recorded">(.*?)</script>', page.read_text())
    assert found is not None
    value: dict[str, Any] = json.loads(found[1])
    return value


async def fail(solve: FakeSolve) -> dict[str, str]:
    """Fail in a step that prints the secret."""
    async with solve.vertex("[base 2/2] RUN make") as step:
        step.log(f"token {SECRET}\n")
        solve.fail("exit code: 2", exit_code=2, line=3, vertex=step)
    return {}


@pytest.mark.parametrize("driver", ["control", "classic"])
async def test_a_page_is_written(context: Path, tmp_path: Path, driver: Any) -> None:
    """Steps, and callbacks with what they were for; the secret itself is nowhere."""
    page = tmp_path / "out.html"
    async with FakeDaemon.listen() as daemon:
        await build(
            context,
            endpoint=daemon.endpoint,
            driver=driver,
            tags=["demo"],
            secrets={"token": SECRET},
            timeline=page,
        )
    value = recorded(page)
    assert (value["title"], value["outcome"]) == ("demo", "succeeded")
    assert any(step["name"].startswith("[internal] load build definition") for step in value["steps"])
    assert ("secret", "token", "OK") in {(call["kind"], call["subject"], call["code"]) for call in value["calls"]}
    assert ("files", "dockerfile", "OK") in {(call["kind"], call["subject"], call["code"]) for call in value["calls"]}
    assert SECRET not in page.read_text()


async def test_a_trace_is_written_by_its_suffix(context: Path, tmp_path: Path) -> None:
    """FILE.json is a trace."""
    async with FakeDaemon.listen() as daemon:
        await build(context, endpoint=daemon.endpoint, secrets={"token": SECRET}, timeline=tmp_path / "out.JSON")
    assert json.loads((tmp_path / "out.JSON").read_text())["otherData"]["outcome"] == "succeeded"


async def test_a_build_that_fails_has_a_page(context: Path, tmp_path: Path) -> None:
    """With the step that failed and its log, in which the secret is hidden."""
    page = tmp_path / "out.html"
    async with FakeDaemon.listen(script=fail) as daemon:
        with pytest.raises(BuildFailed):
            await build(context, endpoint=daemon.endpoint, secrets={"token": SECRET}, timeline=page)
    value = recorded(page)
    failed = next(step for step in value["steps"] if step["state"] == "failed")
    assert value["outcome"] == "failed"
    assert "exit code: 2" in value["error"]
    assert failed["log"][0][2] == "token ***"


async def test_a_build_that_is_cancelled_has_a_page(context: Path, tmp_path: Path) -> None:
    """Leaving a build writes what it was doing."""
    page = tmp_path / "out.html"

    async def hang(solve: FakeSolve) -> dict[str, str]:
        async with solve.vertex("[1/1] RUN sleep infinity"):
            await trio.sleep_forever()
        return {}

    async with FakeDaemon.listen(script=hang) as daemon:
        with trio.CancelScope() as scope:
            await build(
                context,
                endpoint=daemon.endpoint,
                timeline=page,
                on_status=lambda status: scope.cancel() if status.steps else None,
            )
    value = recorded(page)
    assert value["outcome"] == "cancelled"
    assert [step["state"] for step in value["steps"]] == ["running"]


async def test_a_file_that_cannot_be_written_is_refused_before_the_build(context: Path, tmp_path: Path) -> None:
    """As with the other files of a build; nothing is asked of the engine."""
    async with FakeDaemon.listen() as daemon:
        with pytest.raises(ProviderError, match="there is no directory"):
            await build(context, endpoint=daemon.endpoint, timeline=tmp_path / "no" / "out.html")
        assert not daemon.requests


async def test_a_file_that_cannot_be_written_any_more_hides_no_failure(
    context: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """After a build that failed it is a warning, after one that did not it is the error."""
    page = tmp_path / "out.html"

    async def take_away(solve: FakeSolve) -> dict[str, str]:
        page.mkdir()
        return await fail(solve)

    async def take_away_and_build(solve: FakeSolve) -> dict[str, str]:
        page.mkdir()
        return {}

    async with FakeDaemon.listen(script=take_away) as daemon:
        with pytest.raises(BuildFailed), caplog.at_level(logging.WARNING, "mobysession.build"):
            await build(context, endpoint=daemon.endpoint, timeline=page)
    assert "out.html' cannot be written" in caplog.text
    page.rmdir()
    async with FakeDaemon.listen(script=take_away_and_build) as daemon:
        with pytest.raises(ProviderError, match="the build is done, but"):
            await build(context, endpoint=daemon.endpoint, timeline=page)


async def test_somebody_elses_decisions_are_kept(context: Path, tmp_path: Path) -> None:
    """A timeline watches: what access refuses stays refused, and is shown."""
    page = tmp_path / "out.html"
    async with FakeDaemon.listen() as daemon:
        with pytest.raises(BuildFailed):
            await build(
                context,
                endpoint=daemon.endpoint,
                secrets={"token": SECRET},
                access=Access(deny=["*Secrets/GetSecret"]),
                timeline=page,
            )
    assert recorded(page)["outcome"] == "failed"


def test_a_name_must_say_what_the_file_is() -> None:
    """Neither a page nor a trace."""
    with pytest.raises(UsageError, match="neither that it is a page") as caught:
        BuildOptions(context=".", timeline="out.txt")
    assert "FILE.html" in (caught.value.hint or "")
