"""The engines that the tests run against, and with them the ``docker`` command for comparisons and a registry.

Four engines cover the two API generations and the two image stores. Each is named after the Debian it comes from; which
version that is, is asked, not assumed::

    debian-bookworm             the oldest one supported
    debian-trixie
    debian-forky                the newest one, images in a graph driver
    debian-forky-containerd     the same one, images in containerd

``MOBYSESSION_ENGINES=name=unix:///run/docker.sock,...`` names running engines to be used instead.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from integration.prepare import HINT, engine_root, missing_root, packaged_version
from mobysession.errors import EngineError
from mobysession.testing.base_image import import_base_image
from mobysession.testing.engine import PrivateEngine, can_start_engine
from mobysession.testing.engine_api import engine_request
from mobysession.testing.packages import SYSTEM_PATH, run_command

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["Buildx", "Engine", "EngineSpec", "Engines", "Registry", "Response", "engine_specs", "registry_missing"]

REGISTRY_TIMEOUT = 20.0
"""Seconds for docker-registry to listen, which takes it less than a tenth of one."""


@dataclass(frozen=True, kw_only=True)
class EngineSpec:
    """An engine that could be used.

    Attributes:
        id: its name in test ids and reports.
        suite: the Debian it comes from; empty if it runs already.
        host: its endpoint if it runs already.
    """

    id: str
    suite: str = ""
    containerd_image_store: bool = False
    host: str = ""

    def missing(self) -> str | None:
        """Why it cannot be used on this machine, or None."""
        return None if self.host else can_start_engine() or missing_root(self.suite)

    def describe(self) -> str:
        """One line for the head of a report: what would be used, or why not."""
        what = self.host or f"docker.io {packaged_version(self.suite, 'docker.io')}"
        return f"{self.id}: {self.missing() or what}"

    def private_engine(self, **options: Any) -> PrivateEngine:
        """A new engine of this kind, not started; ``options`` as for ``PrivateEngine``. Raises EngineError (user)."""
        if reason := self.missing():
            raise EngineError(f"{self.id}: {reason}")
        if self.host:
            raise EngineError(f"{self.id} is not ours to start")
        return PrivateEngine(
            root=engine_root(self.suite), containerd_image_store=self.containerd_image_store, **options
        )


OWN_ENGINES = (
    EngineSpec(id="debian-bookworm", suite="bookworm"),
    EngineSpec(id="debian-trixie", suite="trixie"),
    EngineSpec(id="debian-forky", suite="forky"),
    EngineSpec(id="debian-forky-containerd", suite="forky", containerd_image_store=True),
)


def engine_specs() -> tuple[EngineSpec, ...]:
    """What to test against: the engines that ``MOBYSESSION_ENGINES`` names, or our own four."""
    named = [part.partition("=") for part in os.environ.get("MOBYSESSION_ENGINES", "").split(",") if part.strip()]
    return tuple(EngineSpec(id=name.strip(), host=host.strip()) for name, _, host in named) or OWN_ENGINES


@dataclass(frozen=True, kw_only=True)
class Engine:
    """An engine that answers and has the base image.

    Attributes:
        host: its endpoint, as for ``DOCKER_HOST``.
        version: as it reports it, such as ``20.10.24+dfsg1``; ``api_version`` likewise, such as ``1.41``.
        private: the engine if it is ours, and can be looked into, paused or killed; else None.
    """

    id: str
    host: str
    version: str
    api_version: str
    containerd_image_store: bool
    private: PrivateEngine | None

    @property
    def major(self) -> int:
        """The first number of its version: 20, 26, 28."""
        return int(self.version.split(".")[0])

    @property
    def api(self) -> tuple[int, int]:
        """The newest API version it speaks, for comparisons: ``engine.api >= (1, 44)``."""
        major, _, minor = self.api_version.partition(".")
        return int(major), int(minor)

    @property
    def socket(self) -> Path:
        """The unix socket of ``host``."""
        return Path(self.host.removeprefix("unix://"))

    def get(self, path: str) -> Any:
        """What the Engine API answers to a GET, parsed. Raises EngineError (peer) for any error status."""
        return json.loads(engine_request(self.host, "GET", path))


class Engines:
    """All engines of a test run: started when first asked for, kept, and ended together by ``close()``."""

    def __init__(self) -> None:
        self.specs = {spec.id: spec for spec in engine_specs()}
        self.used: dict[str, Engine] = {}
        self._running = contextlib.ExitStack()

    def get(self, name: str) -> Engine:
        """The engine of that id, answering and with the base image. Raises EngineError (user) if it cannot be had."""
        if name not in self.used:
            self.used[name] = self._start(self.specs[name])
        return self.used[name]

    def close(self) -> None:
        """End every engine that was started here."""
        self._running.close()

    def _start(self, spec: EngineSpec) -> Engine:
        private = None if spec.host else self._start_private(spec)
        host = private.host if private else spec.host
        version = json.loads(engine_request(host, "GET", "/version"))
        import_base_image(host)
        return Engine(
            id=spec.id,
            host=host,
            version=version["Version"],
            api_version=version["ApiVersion"],
            containerd_image_store=_keeps_images_in_containerd(host),
            private=private,
        )

    def _start_private(self, spec: EngineSpec) -> PrivateEngine:
        try:
            return self._running.enter_context(spec.private_engine())
        except EngineError:
            # On a machine with much else to do dockerd gives its containerd up after 15 s.
            return self._running.enter_context(spec.private_engine())


def _keeps_images_in_containerd(host: str) -> bool:
    status = json.loads(engine_request(host, "GET", "/info")).get("DriverStatus") or []
    return ["driver-type", "io.containerd.snapshotter.v1"] in status


@dataclass(frozen=True, kw_only=True)
class Buildx:
    """Docker's own client, for comparisons: ``docker buildx`` out of the folder of the newest Debian.

    Both binaries need only libc and run outside of their folder. ``docker`` finds the plugin through its configuration.
    """

    docker: Path
    plugins: Path

    @classmethod
    def find(cls) -> Buildx:
        """The one in the forky folder. Raises EngineError (user) when that is missing."""
        root = engine_root("forky") or Path("/")
        docker, plugins = root / "usr/bin/docker", root / "usr/libexec/docker/cli-plugins"
        if not docker.exists() or not (plugins / "docker-buildx").exists():
            raise EngineError(f"there is no docker buildx in {root}", hint=HINT)
        return cls(docker=docker, plugins=plugins)

    def environment(self, host: str, config_dir: Path) -> dict[str, str]:
        """Variables that point ``docker`` at an engine; ``config_dir`` is made if missing, and keeps buildx's state."""
        config_dir.mkdir(parents=True, exist_ok=True)
        config_file = config_dir / "config.json"
        config = json.loads(config_file.read_text(encoding="utf-8")) if config_file.exists() else {}
        config["cliPluginsExtraDirs"] = [str(self.plugins)]
        config_file.write_text(json.dumps(config), encoding="utf-8")
        return {"PATH": SYSTEM_PATH, "HOME": str(config_dir), "DOCKER_HOST": host, "DOCKER_CONFIG": str(config_dir)}

    def run(
        self,
        host: str,
        *arguments: str | Path,
        config_dir: Path,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
        stdin: bytes = b"",
        timeout: float = 120.0,
    ) -> subprocess.CompletedProcess[bytes]:
        """Run ``docker buildx <arguments>`` to its end; never raises for its exit status. ``timeout`` in seconds."""
        return subprocess.run(
            [self.docker, "buildx", *arguments],
            env={**self.environment(host, config_dir), **(env or {})},
            cwd=cwd,
            input=stdin,
            capture_output=True,
            timeout=timeout,
            check=False,
        )

    def version(self) -> str:
        """buildx's version, such as ``0.29.1+ds1``."""
        words = run_command([str(self.plugins / "docker-buildx"), "version"], hint=HINT).split()
        return words[1] if len(words) > 1 else ""


@dataclass(frozen=True, kw_only=True)
class Response:
    """What the registry answered: status, headers by lower-case name, body."""

    status: int
    headers: dict[str, str]
    body: bytes


class Registry:
    """An image registry in an engine's network, alive inside of ``with``: pushes and pulls without leaving the machine.

    Args:
        engine: a private engine that runs.
        users: names and passwords; None means anybody may do anything.
        auth: the registry's own ``auth`` section instead, for example ``{"token": {...}}``.
        port: where it listens, on the engine's loopback, to which engines talk plain HTTP.
    """

    def __init__(
        self,
        engine: PrivateEngine,
        *,
        users: Mapping[str, str] | None = None,
        auth: Mapping[str, Any] | None = None,
        port: int = 5000,
    ) -> None:
        self._engine = engine
        self._users = users
        self._auth = auth
        self.address = f"127.0.0.1:{port}"
        self._process: subprocess.Popen[bytes] | None = None
        self._cleanup = contextlib.ExitStack()

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start it and return when it listens. Raises EngineError (user) with the end of its log."""
        folder = Path(self._cleanup.enter_context(tempfile.TemporaryDirectory(prefix="mobysession-registry-")))
        (folder / "config.yml").write_text(json.dumps(self._config(folder)), encoding="utf-8")
        # The kernel ends it with us: the engine's lifeline does not reach a process that only shares its network.
        argv = self._inside("setpriv", "--pdeathsig", "KILL", "docker-registry", "serve", str(folder / "config.yml"))
        with (folder / "log").open("wb") as log:
            self._process = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={"PATH": SYSTEM_PATH, "OTEL_TRACES_EXPORTER": "none"},
            )
        self._wait_until_listening(self._process, folder / "log")

    def stop(self) -> None:
        """End it and remove its storage. May be called twice."""
        process, self._process = self._process, None
        if process is not None:
            # It has nothing worth saving, and a polite end would wait for idle connections.
            process.send_signal(signal.SIGKILL)
            process.wait()
        self._cleanup.close()

    def request(self, path: str, *, method: str = "GET", headers: Mapping[str, str] | None = None) -> Response:
        """Ask it over HTTP from inside the engine's network, for example ``/v2/_catalog``."""
        question = json.dumps([f"http://{self.address}{path}", method, dict(headers or {})])
        answer = run_command(self._inside(sys.executable, "-I", "-c", _ASK, question), hint="is the registry running?")
        status, received, body = json.loads(answer)
        return Response(status=status, headers=received, body=bytes.fromhex(body))

    def _inside(self, *argv: str) -> Sequence[str]:
        return ["nsenter", "-t", str(self._engine.pid), "-n", "--", *argv]

    def _config(self, folder: Path) -> dict[str, Any]:
        config: dict[str, Any] = {
            "version": 0.1,
            "log": {"level": "info"},
            "storage": {"filesystem": {"rootdirectory": str(folder / "storage")}, "delete": {"enabled": True}},
            "http": {"addr": self.address},
        }
        if self._users is not None:
            config["auth"] = {"htpasswd": {"realm": "mobysession", "path": str(self._write_htpasswd(folder))}}
        if self._auth is not None:
            config["auth"] = dict(self._auth)
        return config

    def _write_htpasswd(self, folder: Path) -> Path:
        path = folder / "htpasswd"
        hint = "it is in Debian's apache2-utils"
        users = self._users or {}
        # -B: the registry accepts no other hash than bcrypt.
        path.write_text(
            "".join(run_command(["htpasswd", "-nbB", *user], hint=hint).strip() + "\n" for user in users.items())
        )
        return path

    def _wait_until_listening(self, process: subprocess.Popen[bytes], log: Path) -> None:
        deadline = time.monotonic() + REGISTRY_TIMEOUT
        while "listening on" not in (text := log.read_text(encoding="utf-8", errors="replace")):
            if process.poll() is not None or time.monotonic() > deadline:
                raise EngineError("docker-registry did not start", hint=text[-1000:])
            time.sleep(0.01)  # between two looks at its log, which is all it says


_ASK = """
import json, sys, urllib.error, urllib.request
url, method, headers = json.loads(sys.argv[1])
opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
try:
    answer = opener.open(urllib.request.Request(url, method=method, headers=headers), timeout=30)
except urllib.error.HTTPError as error:
    answer = error
received = {name.lower(): value for name, value in answer.headers.items()}
print(json.dumps([answer.status, received, answer.read().hex()]))
"""


def registry_missing() -> str | None:
    """Why no registry can be started on this machine, or None."""
    absent = [
        name
        for name in ("docker-registry", "htpasswd", "nsenter", "setpriv")
        if not shutil.which(name, path=SYSTEM_PATH)
    ]
    return f"{', '.join(absent)} not installed: {HINT}" if absent else None
