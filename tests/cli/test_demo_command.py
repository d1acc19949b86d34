"""``mobysession demo``: on an engine that answers, on the fake daemon, and when the one that was named does not."""

from __future__ import annotations

import os
import signal
import tempfile
from typing import TYPE_CHECKING

import trio

from mobysession import testing
from mobysession.testing.fake_daemon import FakeDaemon

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

    from tests.cli.conftest import Cli


def test_the_fake_demo_says_that_it_is_fake(cli: Cli) -> None:
    """The report on stdout claims no more than what happened; the progress is on stderr."""
    status, out, err = cli("demo", "--fake")
    assert status == 0
    first, second = out.splitlines()
    assert first.startswith("fake    no engine was used")
    assert second == "secret  was asked of this process 1 time; nothing was executed"
    assert "COPY message.txt" in err


def test_a_named_engine_that_does_not_answer_is_an_error(cli: Cli, tmp_path: Path) -> None:
    """No other one is looked for when the user has chosen."""
    status, out, err = cli("-H", f"unix://{tmp_path}/none", "demo")
    assert (status, out) == (1, "")
    assert err.startswith("ERROR: there is no socket")


def test_without_an_engine_it_falls_back_and_says_so(cli: Cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Where none answers and none may be started the fake daemon steps in."""
    from mobysession.testing import engine

    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none")
    monkeypatch.setattr(engine, "can_start_engine", lambda: "not here")
    status, out, err = cli("demo", "--progress", "quiet")
    assert status == 0
    assert out.startswith("fake    ")
    assert [line.partition(":")[0] for line in err.splitlines()][:1] == ["no engine answers"]
    assert "cannot be started here (not here)" in err


def test_ctrl_c_ends_the_demo(cli: Cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """At once, with 130, without a traceback, and its temporary directory is gone."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    class Interrupting(FakeDaemon):
        @classmethod
        def listen(cls, *arguments, **options):
            async def script(solve: object) -> dict[str, str]:
                os.kill(os.getpid(), signal.SIGINT)
                await trio.sleep_forever()
                return {}

            return super().listen(*arguments, script=script, **options)

    monkeypatch.setattr(testing, "FakeDaemon", Interrupting, raising=False)
    status, out, err = cli("demo", "--fake")
    assert (status, out) == (130, "")
    assert "Traceback" not in err
    assert list(tmp_path.iterdir()) == []
