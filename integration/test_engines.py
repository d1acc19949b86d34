"""The engines themselves: they answer, they build, they end, and they leave nothing behind."""

from __future__ import annotations

import base64
import json
import os
import select
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from integration.engines import Buildx, Engine, Engines, EngineSpec, Registry
from integration.prepare import engine_root
from mobysession.errors import EngineError
from mobysession.testing.base_image import import_base_image
from mobysession.testing.engine_api import engine_request

if TYPE_CHECKING:
    from collections.abc import Iterator

END_TIMEOUT = 30
"""Seconds for an engine to end when its owner was killed; it takes about one."""


@pytest.fixture
def short_path() -> Iterator[Path]:
    """A directory whose path leaves room for an engine's sockets, which pytest's own does not after some runs."""
    with tempfile.TemporaryDirectory(prefix="engine-") as folder:
        yield Path(folder)


@pytest.fixture
def context(tmp_path: Path) -> Path:
    folder = tmp_path / "context"
    folder.mkdir()
    (folder / "greeting").write_text("hello\n")
    return folder


def _namespaces(pid: int) -> set[str]:
    return {os.readlink(f"/proc/{pid}/ns/{kind}") for kind in ("pid", "net", "mnt")}


def _processes_in(namespaces: set[str]) -> Iterator[int]:
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if _namespaces(int(process.name)) & namespaces:
                yield int(process.name)
        except (
            OSError
        ):  # it has ended in the meantime, or is out of reach even for root, which no process of an engine is
            continue


def _build(buildx: Buildx, host: str, context: Path, dockerfile: str, *options: str) -> None:
    (context / "Dockerfile").write_text(dockerfile)
    done = buildx.run(host, "build", "--progress=plain", *options, str(context), config_dir=context.parent / "config")
    assert done.returncode == 0, done.stderr.decode()


def test_engine_answers(engine: Engine) -> None:
    """It says OK to a ping, and its version is the one that the report shows."""
    assert engine_request(engine.host, "GET", "/_ping") == b"OK"
    assert engine.get("/version")["Version"] == engine.version
    assert engine.api >= (1, 41)


def test_engine_keeps_images_where_it_was_told(engine: Engine, engines: Engines) -> None:
    """An engine that was started with images in containerd has them there, and no other has."""
    spec = engines.specs[engine.id]
    if spec.host:
        pytest.skip("not our engine: it may keep its images as it likes")
    assert engine.containerd_image_store == spec.containerd_image_store


def test_buildx_builds_a_file_from_scratch(engine: Engine, buildx: Buildx, context: Path, tmp_path: Path) -> None:
    """Docker's own client gets a file through a build on it."""
    _build(buildx, engine.host, context, "FROM scratch\nCOPY greeting /\n", f"--output=type=local,dest={tmp_path}/out")
    assert (tmp_path / "out/greeting").read_text() == "hello\n"


def test_base_image_runs_commands(engine: Engine, buildx: Buildx, context: Path, tmp_path: Path) -> None:
    """``RUN`` works on the base image, as root, with busybox's applets."""
    dockerfile = (
        "FROM mobysession-base AS work\nRUN id -un | tr a-z A-Z > /user\nFROM scratch\nCOPY --from=work /user /\n"
    )
    _build(buildx, engine.host, context, dockerfile, f"--output=type=local,dest={tmp_path}/out")
    assert (tmp_path / "out/user").read_text() == "ROOT\n"


def test_base_image_is_imported_once(engine: Engine) -> None:
    """An engine that has the image is not given it again."""
    assert import_base_image(engine.host) is False


def test_nothing_is_left_after_stop(engine_spec: EngineSpec, buildx: Buildx, context: Path, tmp_path: Path) -> None:
    """After an engine that has worked there is no process, no namespace, no mount and no file of it."""
    with engine_spec.private_engine(data_root=tmp_path / "data") as engine:
        import_base_image(engine.host)
        _build(buildx, engine.host, context, "FROM mobysession-base\nRUN echo hello\n")
        state_dir = engine.state_dir
        namespaces = _namespaces(engine.pid)
        assert len(namespaces - _namespaces(os.getpid())) == len(namespaces)
    assert list(_processes_in(namespaces)) == []
    mounts = Path("/proc/self/mountinfo").read_text()
    assert [place for place in (state_dir, tmp_path) if str(place) in mounts] == []
    assert not state_dir.exists()


OWNER = """
import signal, sys
from pathlib import Path
from mobysession.testing.engine import PrivateEngine
root, state_dir = sys.argv[1:]
with PrivateEngine(root=Path(root) if root else None, state_dir=Path(state_dir)) as engine:
    print(engine.pid, flush=True)
    signal.pause()
"""


def test_engine_ends_with_a_killed_owner(engine_spec: EngineSpec, short_path: Path) -> None:
    """A process that is killed with SIGKILL cannot clean up; every process of its engine ends all the same."""
    root = str(engine_root(engine_spec.suite) or "")
    with subprocess.Popen([sys.executable, "-c", OWNER, root, short_path / "state"], stdout=subprocess.PIPE) as owner:
        assert owner.stdout is not None
        try:
            processes = list(_processes_in(_namespaces(int(owner.stdout.readline()))))
            ends = [os.pidfd_open(pid) for pid in processes]
        finally:
            owner.kill()
    for end in ends:
        assert select.select([end], [], [], END_TIMEOUT)[0] == [end]
        os.close(end)
    assert len(processes) >= len(("unshare", "sh", "dockerd", "containerd"))


def test_state_of_a_killed_engine_can_be_used_again(engine_spec: EngineSpec, short_path: Path) -> None:
    """Stale sockets and pid files do not stop the next start, and its images are still there."""
    with engine_spec.private_engine(state_dir=short_path / "state", stop_timeout=0) as engine:
        import_base_image(engine.host)
    with engine_spec.private_engine(state_dir=short_path / "state") as engine:
        assert import_base_image(engine.host) is False


def test_two_engines_cannot_share_data(engine_spec: EngineSpec, tmp_path: Path) -> None:
    """The second one says so and leaves the first one alone."""
    data = tmp_path / "data"
    with engine_spec.private_engine(data_root=data) as first:
        with pytest.raises(EngineError, match=f"another engine is using {data}"):
            engine_spec.private_engine(data_root=data).start()
        assert engine_request(first.host, "GET", "/_ping") == b"OK"


def test_failed_start_shows_the_log(engine_spec: EngineSpec) -> None:
    """When dockerd gives up, the error says so at once, and its hint has dockerd's own reason."""
    engine = engine_spec.private_engine(config={"papyrus": True})
    with pytest.raises(EngineError, match="ended with status 1 before it answered") as caught, engine:
        pass
    assert "papyrus" in (caught.value.hint or "")


@pytest.mark.usefixtures("registry_installed")
def test_registry_takes_and_gives_images(engine_spec: EngineSpec, buildx: Buildx, context: Path) -> None:
    """A pushed image is in the catalog, and can be built upon."""
    with engine_spec.private_engine() as engine, Registry(engine) as registry:
        name = f"{registry.address}/greeting:1"
        _build(
            buildx,
            engine.host,
            context,
            "FROM scratch\nCOPY greeting /\n",
            f"--output=type=image,name={name},push=true",
        )
        assert json.loads(registry.request("/v2/_catalog").body) == {"repositories": ["greeting"]}
        _build(buildx, engine.host, context, f"FROM {name}\nCOPY greeting /again\n", "--pull")


@pytest.mark.usefixtures("registry_installed")
def test_registry_asks_for_a_password(engine_spec: EngineSpec) -> None:
    """With users, it refuses strangers and wrong passwords, and accepts the right one."""
    with engine_spec.private_engine() as engine, Registry(engine, users={"ada": "engine"}) as registry:
        answers = [registry.request("/v2/", headers=_basic(password)).status for password in ("", "wrong", "engine")]
    assert answers == [401, 401, 200]


def _basic(password: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"ada:{password}".encode()).decode()} if password else {}
