"""What every test gets: a trio loop for ``async def``, an environment of nobody's, and a check of open descriptors.

* A coroutine test runs in ``trio.run``. One that asks for ``autojump_clock`` runs on a clock that jumps to the next
  deadline whenever all tasks wait, so that time limits are tested without waiting. Exception groups stay strict inside;
  a group with a single cause is shown as that cause.
* No test sees the home directory, the docker configuration, the agent or the proxies of whoever runs it.
* A test that passes and leaves a descriptor open fails.
"""

from __future__ import annotations

import functools
import gc
import inspect
import itertools
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

from tests.interrupts import heed_interrupts

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

_FOREIGN_PREFIXES = (
    "BUILDKIT_",
    "BUILDX_",
    "DOCKER_",
    "GIT_AUTH_",
    "HTTP_AUTH_",
    "MOBYSESSION_",
    "OTEL_",
    "SSH_",
    "XDG_",
)
_FOREIGN_NAMES = {
    "ALL_PROXY",
    "CLICOLOR",
    "FORCE_COLOR",
    "FTP_PROXY",
    "HTTPS_PROXY",
    "HTTP_PROXY",
    "NO_COLOR",
    "NO_PROXY",
    "TRACEPARENT",
    "TRACESTATE",
}
_DESCRIPTORS = Path("/proc/self/fd")

_failed = pytest.StashKey[bool]()
_numbers = itertools.count()


def pytest_configure() -> None:
    """See that interrupts arrive."""
    heed_interrupts()


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run a coroutine test in a trio loop of its own; leave the others to pytest."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    names = pyfuncitem._fixtureinfo.argnames
    arguments = {name: pyfuncitem.funcargs[name] for name in names}
    clock = next((value for value in pyfuncitem.funcargs.values() if isinstance(value, trio.abc.Clock)), None)
    cause: BaseException | None = None
    try:
        trio.run(functools.partial(pyfuncitem.obj, **arguments), clock=clock)
    except BaseExceptionGroup as group:
        cause = _single_cause(group)
    if cause is not None:  # raised out here, so that it keeps its own context and not the group as one
        raise cause
    return True


def _single_cause(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Any, Any]:
    """Remember which tests failed: their tracebacks keep frames, and with them sockets, alive."""
    report = yield
    if report.failed or report.outcome == "skipped":
        item.stash[_failed] = True
    return report


@pytest.fixture
def autojump_clock() -> trio.testing.MockClock:
    """Give a clock that jumps to the next deadline whenever every task waits."""
    return trio.testing.MockClock(autojump_threshold=0)


@pytest.fixture
def mock_clock() -> trio.testing.MockClock:
    """Give a clock that only moves when the test says ``jump``."""
    return trio.testing.MockClock()


@pytest.fixture(scope="session")
def _homes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("homes")


@pytest.fixture(autouse=True)
def isolated_environment(monkeypatch: pytest.MonkeyPatch, _homes: Path) -> Path:
    """Hide the user's environment; return the home directory of this test, which does not exist yet."""
    for name in list(os.environ):
        if name.startswith(_FOREIGN_PREFIXES) or name.upper() in _FOREIGN_NAMES:
            monkeypatch.delenv(name)
    home = _homes / str(next(_numbers))
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("DOCKER_CONFIG", str(home / ".docker"))
    return home


@pytest.fixture
def docker_config(isolated_environment: Path) -> Path:
    """Give the directory that DOCKER_CONFIG names, made and empty."""
    directory = isolated_environment / ".docker"
    directory.mkdir(parents=True)
    return directory


@pytest.fixture(autouse=True)
def no_leaks(request: pytest.FixtureRequest, isolated_environment: Path) -> Iterator[None]:
    """Fail a test that passed and left a descriptor open; say what the descriptor leads to."""
    before = _open_descriptors()
    yield
    if request.node.stash.get(_failed, False) or not _open_descriptors() - before:
        return
    gc.collect()
    leaked = sorted(f"{number} -> {target}" for number, target in _open_descriptors() - before)
    assert not leaked, f"left open: {', '.join(leaked)}"


def _open_descriptors() -> set[tuple[int, str]]:
    if not _DESCRIPTORS.is_dir():
        return set()
    found = set()
    for name in os.listdir(_DESCRIPTORS):
        try:
            found.add((int(name), os.readlink(_DESCRIPTORS / name)))
        except FileNotFoundError:  # the descriptor that listed the directory
            continue
    return found
