"""Fixtures with real engines. None is skipped silently: a run says first which are there, and last which it used.

With ``MOBYSESSION_REQUIRE_ENGINES`` set, what is missing fails the tests that ask for it.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import pytest

from integration.engines import Buildx, Engine, Engines, EngineSpec, engine_specs, registry_missing
from integration.images import Witness
from mobysession.errors import EngineError
from tests.interrupts import heed_interrupts

if TYPE_CHECKING:
    from collections.abc import Iterator

_ENGINES = pytest.StashKey[Engines]()
_USED = pytest.StashKey[set[str]]()


def _give_up(reason: str) -> NoReturn:
    if os.environ.get("MOBYSESSION_REQUIRE_ENGINES"):
        pytest.fail(f"MOBYSESSION_REQUIRE_ENGINES is set, but: {reason}", pytrace=False)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def engines(pytestconfig: pytest.Config) -> Iterator[Engines]:
    """All engines by id, each started when first asked for and ended with the run."""
    pool = pytestconfig.stash[_ENGINES] = Engines()
    yield pool
    pool.close()


@pytest.fixture(scope="session", params=[spec.id for spec in engine_specs()])
def engine(request: pytest.FixtureRequest, engines: Engines) -> Engine:
    """Each engine in turn: answering, and with the base image."""
    if reason := engines.specs[request.param].missing():
        _give_up(f"{request.param}: {reason}")
    try:
        return engines.get(request.param)
    except EngineError as error:
        pytest.fail(f"{request.param} is there but does not start: {error}\n{error.hint}", pytrace=False)


@pytest.fixture(scope="session")
def containerd_engine(engines: Engines) -> Engine:
    """An engine that keeps its images in containerd, which exporting cache and images needs."""
    for spec in engines.specs.values():
        if spec.missing() is None and (spec.containerd_image_store or spec.host):
            engine = engines.get(spec.id)
            if engine.containerd_image_store:
                return engine
    _give_up("no engine here keeps its images in containerd")


@pytest.fixture
def witness(engine: Engine) -> Iterator[Witness]:
    """docker-py's view of each engine."""
    with Witness(engine.host) as witness:
        yield witness


@pytest.fixture(autouse=True)
def _nobodys_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No test sees the docker configuration of whoever runs it, nor what their client remembers."""
    for name in list(os.environ):
        if name.startswith(("DOCKER_", "BUILDKIT_", "BUILDX_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker-config"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


@pytest.fixture(params=[spec for spec in engine_specs() if not spec.host], ids=lambda spec: spec.id)
def engine_spec(request: pytest.FixtureRequest) -> EngineSpec:
    """Each kind of engine that a test can start for itself, to pause it, to kill it or to see what it leaves."""
    spec: EngineSpec = request.param
    if reason := spec.missing():
        _give_up(f"{spec.id}: {reason}")
    return spec


@pytest.fixture
def newest_engine_spec() -> EngineSpec:
    """The newest engine that a test can start for itself, for what one of them is enough."""
    for spec in reversed(engine_specs()):
        if not spec.host and not spec.containerd_image_store and spec.missing() is None:
            return spec
    _give_up("no engine can be started here")


@pytest.fixture
def short_path() -> Iterator[Path]:
    """A directory for unix sockets, whose paths may have some hundred bytes: pytest's own is too long for them."""
    with tempfile.TemporaryDirectory(prefix="mobysession-test-") as folder:
        yield Path(folder)


@pytest.fixture(scope="session")
def buildx() -> Buildx:
    """Docker's own client, for comparisons."""
    try:
        return Buildx.find()
    except EngineError as error:
        _give_up(f"{error}: {error.hint}")


@pytest.fixture(scope="session")
def registry_installed() -> None:
    """A test that asks for this may start a ``Registry``."""
    if reason := registry_missing():
        _give_up(reason)


def pytest_configure() -> None:
    """See that interrupts arrive."""
    heed_interrupts()


def pytest_report_header() -> list[str]:
    """Say which engines could be used."""
    return [f"engine {spec.describe()}" for spec in engine_specs()]


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Tell which engines were used; one of several processes tells the one that reports."""
    pool = session.config.stash.get(_ENGINES, None)
    lines = {_described(engine) for engine in pool.used.values()} if pool else set()
    if (output := getattr(session.config, "workeroutput", None)) is not None:
        output["engines"] = sorted(lines)
    else:
        session.config.stash.setdefault(_USED, set()).update(lines)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Take what another process tells at its end; one that crashed tells nothing."""
    node.config.stash.setdefault(_USED, set()).update(getattr(node, "workeroutput", {}).get("engines", ()))


def _described(engine: Engine) -> str:
    store = "containerd" if engine.containerd_image_store else "graph driver"
    return f"{engine.id}: {engine.version}, API {engine.api_version}, images in {store}"


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Say which engines were used."""
    terminalreporter.section("engines used")
    for line in sorted(config.stash.get(_USED, ())) or ["none"]:
        terminalreporter.line(line)
