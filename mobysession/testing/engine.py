"""A private Docker engine for a demo or a test: started in a second, always ended, nothing left behind.

The engine lives in namespaces of its own, made by ``unshare``: processes, mounts and network. That is what makes its
end certain. Its first process is a small shell script; when that one ends, the kernel ends every other process of the
engine (dockerd, containerd, shims, containers) and drops its mounts and its network with them::

    this process --pipe--> unshare -> sh (first process of the namespace) -> dockerd -> containerd -> shims ...

The pipe is the lifeline. Closing it asks dockerd to stop (SIGTERM, then SIGKILL), and the kernel closes it for us if
this process dies in whatever way.

With ``root`` the engine runs inside of a folder that holds another Debian (made by debootstrap). The folder itself is
never written to: it is the lower layer of an overlay whose upper layer is in memory, so several engines may share it.
A chroot would not do, because runc refuses to work when ``/`` is not a mount: hence ``pivot_root``. Paths for the
socket and the data are bound at the same place, and mean the same inside and outside.

The engine has no route to the outside, only a loopback and its own bridge. Needs Linux and root.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Self

from mobysession.errors import ApiError, EngineError, TransportError
from mobysession.testing.engine_api import engine_request
from mobysession.testing.packages import SYSTEM_PATH

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType

__all__ = [
    "PrivateEngine",
    "cached_data_root",
    "can_start_engine",
]

logger = logging.getLogger(__name__)

POLL_INTERVAL = 0.01
"""Seconds between two looks at a starting engine, which takes 0.5 to 1.5 s to answer."""

PING_TIMEOUT = 1.0
"""Seconds for one answer; a starting engine listens before it serves."""

SHUTDOWN_TIMEOUT = 5
"""Seconds that dockerd gives its containers before it kills them. Its own default, 15, suits services, not tests."""

KILL_TIMEOUT = 10.0
"""Seconds for the kernel to take a killed process down: it has to, so this only bounds a broken machine."""

SOCKET_PATH_MAX = 104
"""Bytes of a unix socket's path: what containerd accepts ("unix socket path too long (> 104)"); Linux has 107."""

LOG_TAIL_LINES = 12

# --fork with --pid makes sh the first process of the new namespace; --kill-child ends it when unshare is killed.
_LAUNCHER_ARGV = ("unshare", "--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc", "--", "sh", "-c")

_LOOPBACK_UP = """
import fcntl, socket, struct
SIOCSIFFLAGS, IFF_UP_RUNNING = 0x8914, 0x41
fcntl.ioctl(socket.socket(), SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", IFF_UP_RUNNING))
"""

# The grace is in seconds, and what follows it is dockerd with its arguments. Standard input is the lifeline.
# What a tmpfs hides would tie the engine to the machine's own: a containerd that runs there, its key, its plugins.
_LAUNCH = """
set -eu
state=$1 data=$2 root=$3 python=$4 loopback_up=$5 grace=$6
shift 6
exec 3<&0 </dev/null
"$python" -I -S -c "$loopback_up"
if [ -n "$root" ]; then
    mount -t tmpfs tmpfs "$state/root"
    new=$state/root/merged
    mkdir "$state/root/upper" "$state/root/work" "$new"
    mount -t overlay overlay -o "lowerdir=$root,upperdir=$state/root/upper,workdir=$state/root/work" "$new"
    mount --rbind /sys "$new/sys"
    mount --rbind /dev "$new/dev"
    mount -t proc proc "$new/proc"
    mount -t tmpfs tmpfs "$new/run"
    mount -t tmpfs tmpfs "$new/tmp"
    mkdir -p "$new$state" "$new$data"
    mount --bind "$state" "$new$state"
    mount --bind "$data" "$new$data"
    cd "$new"
    pivot_root . mnt
    cd /
    umount -l /mnt
else
    for dir in /run/containerd /run/docker /etc/docker; do
        mkdir -p "$dir"
        mount -t tmpfs tmpfs "$dir"
    done
fi
"$@" 3<&- &
daemon=$!
{ read -r _ <&3 || :; kill -TERM "$daemon"; sleep "$grace"; kill -KILL "$daemon"; } 2>/dev/null &
status=0
wait "$daemon" || status=$?
exit "$status"
"""


class PrivateEngine:
    """A dockerd of our own, alive inside of ``with``.

    Args:
        dockerd: name or path of the binary; looked up inside of ``root`` if that is given.
        root: folder with a Debian that has Docker installed, to run the engine in; it stays as it is. None: no folder.
        state_dir: folder for socket, log, pid file and runtime state, made if missing. None: a temporary one.
        data_root: folder for images and build cache, kept at the end; may be on a tmpfs. A lock file, ``<name>.lock``,
            is made beside it. None: inside of ``state_dir``.
        containerd_image_store: keep images in containerd (engine 24 or later) instead of a graph driver.
        storage_driver: overlay2, vfs, ...; None: the engine chooses.
        config: further keys of daemon.json, such as ``{"registry-mirrors": [...]}``.
        start_timeout: seconds from the start to the first answer.
        stop_timeout: seconds from the polite request to end to the kill.

    Raises: EngineError from ``start()`` (user): the machine cannot, another engine uses the folder, or dockerd gave up;
        the hint then has the end of its log.
    """

    def __init__(
        self,
        *,
        dockerd: str = "dockerd",
        root: Path | None = None,
        state_dir: Path | None = None,
        data_root: Path | None = None,
        containerd_image_store: bool = False,
        storage_driver: str | None = None,
        config: Mapping[str, object] | None = None,
        start_timeout: float = 60.0,
        stop_timeout: float = 20.0,
    ) -> None:
        self._dockerd = dockerd
        self._root = root.resolve() if root else None
        self._wanted_state_dir = state_dir
        self._wanted_data_root = data_root
        self._config = _daemon_config(containerd_image_store, storage_driver, config or {})
        self._start_timeout = start_timeout
        self._stop_timeout = stop_timeout
        self._state_dir: Path | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._cleanup = contextlib.ExitStack()
        self._version: Mapping[str, str] = {}
        self._pid: int | None = None

    def __repr__(self) -> str:
        where = self._state_dir / "docker.sock" if self._state_dir else "stopped"
        return f"<PrivateEngine {self._version.get('Version', '')} {where}>"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def state_dir(self) -> Path:
        """The folder of everything that belongs to this run. Raises EngineError (caller) before the start."""
        if self._state_dir is None:
            raise EngineError("the engine is not started", hint="use it inside of `with PrivateEngine(...) as engine:`")
        return self._state_dir

    @property
    def socket(self) -> Path:
        """The Engine API's unix socket."""
        return self.state_dir / "docker.sock"

    @property
    def host(self) -> str:
        """The endpoint, as ``DOCKER_HOST`` wants it: ``unix:///...``."""
        return f"unix://{self.socket}"

    @property
    def log_path(self) -> Path:
        """What dockerd and containerd say, as a text file."""
        return self.state_dir / "dockerd.log"

    @property
    def version(self) -> str:
        """The engine's version as it reports it, such as ``28.5.2+dfsg4``. Empty before the start."""
        return self._version.get("Version", "")

    @property
    def api_version(self) -> str:
        """The newest Engine API version it speaks, such as ``1.51``. Empty before the start."""
        return self._version.get("ApiVersion", "")

    @property
    def pid(self) -> int:
        """Dockerd's process ID on this machine; ``nsenter -t PID -n`` enters the engine's network."""
        if self._pid is None:
            raise EngineError("the engine is not started", hint="use it inside of `with PrivateEngine(...) as engine:`")
        return self._pid

    def start(self) -> None:
        """Start dockerd and return when it answers. If it does not, nothing of it is left when the error is raised."""
        if self._process is not None:
            raise EngineError("the engine is started already")
        if reason := can_start_engine():
            raise EngineError(f"a private engine cannot be started here: {reason}")
        try:
            self._launch()
            self._wait_until_ready()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End the engine and every process of it, and remove what is temporary. Bounded; may be called twice."""
        process, self._process = self._process, None
        try:
            if process is not None:
                _end_namespace(process, self._stop_timeout)
        finally:
            self._pid = None
            self._cleanup.close()
            self._state_dir = None

    def _launch(self) -> None:
        dockerd = self._find_dockerd()
        state = self._make_state_dir()
        data = (self._wanted_data_root or state / "data").absolute()
        data.mkdir(parents=True, exist_ok=True)
        locks = [
            _lock(data.with_name(data.name + ".lock"), data, self._cleanup),
            _lock(state / "lock", state, self._cleanup),
        ]
        self._clear_runtime_state()
        (state / "root").mkdir(exist_ok=True)
        (state / "daemon.json").write_text(json.dumps(self._config), encoding="utf-8")
        argv = [*_LAUNCHER_ARGV, _LAUNCH, "engine", str(state), str(data), _overlay_path(self._root)]
        argv += [sys.executable, _LOOPBACK_UP, str(SHUTDOWN_TIMEOUT * 3), *_dockerd_argv(dockerd, state, data)]
        with self.log_path.open("wb") as log:
            self._process = subprocess.Popen(
                argv,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={"PATH": SYSTEM_PATH, "HOME": "/root", "LANG": "C.UTF-8"},
                cwd="/",
                # Held by the engine too: should we die, the lock lasts until the last of its processes has ended.
                pass_fds=locks,
                # Ctrl-C in a terminal is for us: the engine is needed until the work that was interrupted is wound up.
                start_new_session=True,
            )

    def _find_dockerd(self) -> str:
        if self._root is not None:
            return self._dockerd
        found = shutil.which(self._dockerd, path=f"{os.environ.get('PATH', '')}:{SYSTEM_PATH}")
        if found is None:
            raise EngineError(
                f"{self._dockerd} is not installed", hint="install Docker's engine (Debian: apt-get install docker.io)"
            )
        return os.path.abspath(found)

    def _make_state_dir(self) -> Path:
        if self._wanted_state_dir is None:
            state = Path(self._cleanup.enter_context(tempfile.TemporaryDirectory(prefix="mobysession-")))
        else:
            state = self._wanted_state_dir.absolute()
            state.mkdir(parents=True, exist_ok=True)
        self._state_dir = state
        longest = state / "exec/containerd/containerd-debug.sock"
        if len(os.fsencode(longest)) > SOCKET_PATH_MAX:
            raise EngineError(f"the path {state} is too long for unix sockets", hint="give a shorter state_dir")
        return state

    def _clear_runtime_state(self) -> None:
        """Remove what a killed engine left in a state dir that is used again: its process IDs would mislead dockerd."""
        shutil.rmtree(self.state_dir / "exec", ignore_errors=True)
        for name in ("docker.sock", "docker.pid"):
            (self.state_dir / name).unlink(missing_ok=True)
        self._cleanup.callback(shutil.rmtree, self.state_dir / "exec", ignore_errors=True)

    def _wait_until_ready(self) -> None:
        assert self._process is not None
        deadline = time.monotonic() + self._start_timeout
        while not self._answers():
            status = self._process.poll()
            if status is not None:
                raise EngineError(f"dockerd ended with status {status} before it answered", hint=self._log_tail())
            if time.monotonic() > deadline:
                raise EngineError(f"dockerd did not answer within {self._start_timeout:g} s", hint=self._log_tail())
            time.sleep(POLL_INTERVAL)
        self._version = json.loads(engine_request(self.host, "GET", "/version"))
        self._pid = _listener_pid(self.socket)
        logger.info("engine %s (API %s) answers at %s", self.version, self.api_version, self.host)

    def _answers(self) -> bool:
        try:
            return engine_request(self.host, "GET", "/_ping", timeout=PING_TIMEOUT) == b"OK"
        except (TransportError, ApiError):
            return False

    def _log_tail(self) -> str:
        lines = self.log_path.read_text(encoding="utf-8", errors="replace").splitlines()
        return "\n".join(["the end of its log:", *lines[-LOG_TAIL_LINES:]])


def _daemon_config(
    containerd_image_store: bool, storage_driver: str | None, more: Mapping[str, object]
) -> dict[str, object]:
    config = {"shutdown-timeout": SHUTDOWN_TIMEOUT, **more}
    if containerd_image_store:
        features = config.get("features")
        config["features"] = {**(features if isinstance(features, dict) else {}), "containerd-snapshotter": True}
    if storage_driver:
        config["storage-driver"] = storage_driver
    return config


def _dockerd_argv(dockerd: str, state: Path, data: Path) -> list[str]:
    return [
        dockerd,
        f"--host=unix://{state}/docker.sock",
        f"--data-root={data}",
        f"--exec-root={state}/exec",
        f"--pidfile={state}/docker.pid",
        f"--config-file={state}/daemon.json",
    ]


def _overlay_path(root: Path | None) -> str:
    """The folder for ``lowerdir=``, or an empty string. Raises EngineError for what mount would split."""
    if root is None:
        return ""
    if not root.is_dir() or set(str(root)) & set(":,\\"):
        raise EngineError(
            f"{root} cannot be an engine's root folder", hint="it must exist, without : , or \\ in its path"
        )
    return str(root)


def _lock(path: Path, what: Path, cleanup: contextlib.ExitStack) -> int:
    """Take an exclusive lock until ``cleanup`` closes. Raises EngineError when another process has it."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    cleanup.callback(os.close, descriptor)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        hint = "wait until it has ended, or give this one another folder"
        raise EngineError(f"another engine is using {what}", hint=hint) from None
    return descriptor


def _end_namespace(process: subprocess.Popen[bytes], timeout: float) -> None:
    """Close the lifeline, wait, and kill what has not ended. When this returns no process of the engine is left.

    unshare ends after the first process of the namespace, and that one only when the kernel has ended all others.
    """
    assert process.stdin is not None
    process.stdin.close()
    try:
        process.wait(timeout)
    except subprocess.TimeoutExpired:
        logger.warning("the engine did not end within %g s and is killed", timeout)
        for pid in _children(process.pid) or [process.pid]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.wait(KILL_TIMEOUT)


def _children(pid: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()]
    except OSError:
        return []


def _listener_pid(path: Path) -> int:
    """Ask the kernel who listens on a unix socket; it translates the process ID from the engine's namespace to ours."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as peer:
        peer.connect(str(path))
        credentials = peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    pid: int = struct.unpack("3i", credentials)[0]
    return pid


def cached_data_root(name: str = "demo-engine", *, cache_dir: Path | None = None) -> Path:
    """Where an engine's data may stay between runs: ``$XDG_CACHE_HOME/mobysession/<name>``, or below ``~/.cache``."""
    default = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return (cache_dir or default / "mobysession") / name


def can_start_engine() -> str | None:
    """Why this process cannot start a private engine, in a few words for the user, or None when it can.

    Whether Docker is installed is another question: ``debian_docker_installed``.
    """
    if sys.platform != "linux":
        return f"it needs Linux, and this is {sys.platform}"
    if os.geteuid() != 0:
        return "it needs root, for namespaces and mounts"
    if shutil.which("unshare", path=SYSTEM_PATH) is None:
        return "it needs unshare, from util-linux"
    trial = subprocess.run(
        [*_LAUNCHER_ARGV, ":"], env={"PATH": SYSTEM_PATH}, capture_output=True, text=True, check=False
    )
    if trial.returncode != 0:
        return f"namespaces are not permitted ({trial.stderr.strip()})"
    return None
