"""Make a machine ready for the integration tests: packages, and folders with other Debians that bring other engines.

``python -m integration.prepare`` does everything that is still missing and says on stderr what it does and how long it
takes. Needs root and Debian. Packages come from where this machine's apt gets them: mirror, keyring and proxies are
read from its configuration. What is kept lies outside of the checkout, in ``$MOBYSESSION_ENGINE_CACHE`` or
/var/cache/mobysession::

    roots/trixie/                   a Debian with Docker in it, never written to once it is complete
    roots/trixie/.mobysession.json  written last: which packages were asked for
    roots/trixie.lock               held while the folder is made

A folder is built under another name and renamed when it is complete, so an interrupted run leaves no half of one.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import shutil
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mobysession.errors import EngineError, MobysessionError
from mobysession.testing.engine import can_start_engine
from mobysession.testing.packages import SYSTEM_PATH, install_debian_packages, run_command

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

__all__ = [
    "HOST_PACKAGES",
    "ROOT_PACKAGES",
    "engine_root",
    "host_suite",
    "missing_root",
    "packaged_version",
    "prepare",
    "prepare_root",
]

COMMON_PACKAGES = ("docker.io", "iptables", "ca-certificates", "git")

ROOT_PACKAGES = {
    "bookworm": COMMON_PACKAGES,
    "trixie": (*COMMON_PACKAGES, "docker-cli"),
    "forky": (*COMMON_PACKAGES, "docker-cli", "docker-buildx"),
}
"""What each folder holds besides a minimal Debian. A suite that is this machine's own needs no folder."""

HOST_PACKAGES = {
    "busybox": "busybox-static",
    "debootstrap": "debootstrap",
    "docker-registry": "docker-registry",
    "htpasswd": "apache2-utils",
    "sshd": "openssh-server",
    "ssh-add": "openssh-client",
    "ip": "iproute2",
}
"""Commands that the tests need on every machine, and the packages that bring them."""

MARKER = ".mobysession.json"

DEFAULT_KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")

HINT = "run `python -m integration.prepare` as root, on a Debian machine that reaches its package mirror"


@dataclass(frozen=True, kw_only=True)
class Mirror:
    """Where this machine gets Debian from, and how."""

    url: str
    keyring: Path
    proxies: dict[str, str]
    """Environment variables for wget, such as ``http_proxy``."""


def engine_root(suite: str) -> Path | None:
    """The folder of a suite, complete or not; None for the suite that this machine itself runs."""
    if suite == host_suite():
        return None
    return Path(os.environ.get("MOBYSESSION_ENGINE_CACHE", "/var/cache/mobysession")) / "roots" / suite


def host_suite() -> str:
    """This machine's Debian, such as ``bookworm``; empty on anything else."""
    try:
        release = Path("/etc/os-release").read_text(encoding="utf-8")
    except OSError:
        return ""
    fields = dict(re.findall(r'^(\w+)="?([^"\n]*)"?$', release, re.MULTILINE))
    return fields.get("VERSION_CODENAME", "") if fields.get("ID") == "debian" else ""


def missing_root(suite: str) -> str | None:
    """Why the engine of a suite is not ready, or None when it is."""
    root = engine_root(suite)
    if root is None:
        return None if shutil.which("dockerd", path=SYSTEM_PATH) else f"dockerd is not installed: {HINT}"
    return None if _is_complete(root, suite) else f"{root} is missing: {HINT}"


def packaged_version(suite: str, package: str) -> str:
    """The version of a package in a suite's folder or on this machine, such as ``28.5.2+dfsg4-2``; empty when it has
    none."""
    status = (engine_root(suite) or Path("/")) / "var/lib/dpkg/status"
    try:
        entries = status.read_text(encoding="utf-8", errors="replace").split("\n\n")
    except OSError:
        return ""
    wanted = f"Package: {package}\nStatus: install ok installed\n"
    fields = next((entry for entry in entries if entry.startswith(wanted)), "")
    found = re.search(r"^Version: (\S+)$", fields, re.MULTILINE)
    return found[1] if found else ""


def prepare(say: Callable[[str], None]) -> None:
    """Install and build whatever is missing. Raises EngineError (user) when something cannot be had."""
    if reason := can_start_engine():
        raise EngineError(f"engines cannot run here: {reason}")
    if missing := _missing_packages():
        with _timed(say, "packages"):
            install_debian_packages(missing, say)
    for suite in ROOT_PACKAGES:
        if engine_root(suite) is not None:
            prepare_root(suite, say)
        say(f"{suite}: docker.io {packaged_version(suite, 'docker.io')} is ready")


def _missing_packages() -> list[str]:
    missing = [package for command, package in HOST_PACKAGES.items() if shutil.which(command, path=SYSTEM_PATH) is None]
    suite = host_suite()
    # Whoever has Docker's own packages must not lose them to Debian's, which conflict with them.
    if shutil.which("dockerd", path=SYSTEM_PATH) and not packaged_version(suite, "docker.io"):
        return missing
    return missing + [package for package in ROOT_PACKAGES.get(suite, ()) if not packaged_version(suite, package)]


def prepare_root(suite: str, say: Callable[[str], None]) -> Path:
    """Make the folder of a suite, if it is not there yet; if somebody else is making it, wait for that.

    Returns: the folder.
    Raises: EngineError (user): it is this machine's own suite, or debootstrap failed.
    """
    root = engine_root(suite)
    if root is None:
        raise EngineError(f"{suite} is this machine's own Debian and needs no folder")
    root.parent.mkdir(parents=True, exist_ok=True)
    with root.with_name(f"{suite}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not _is_complete(root, suite):
            with _timed(say, f"{suite}: a folder in {root}"):
                _build_root(root, suite)
    return root


def _is_complete(root: Path, suite: str) -> bool:
    try:
        marker = json.loads((root / MARKER).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return bool(marker.get("packages") == list(ROOT_PACKAGES[suite]))


def _build_root(root: Path, suite: str) -> None:
    with tempfile.TemporaryDirectory(prefix=f"{suite}.", dir=root.parent, ignore_cleanup_errors=True) as temporary:
        target = Path(temporary) / "root"
        _debootstrap(target, suite, find_mirror())
        for archive in (target / "var/cache/apt/archives").glob("*.deb"):
            archive.unlink()
        (target / MARKER).write_text(json.dumps({"packages": ROOT_PACKAGES[suite]}), encoding="utf-8")
        if root.exists():
            root.rename(Path(temporary) / "outdated")
        target.rename(root)


def _debootstrap(target: Path, suite: str, mirror: Mirror) -> None:
    argv = [
        "debootstrap",
        "--variant=minbase",
        f"--keyring={mirror.keyring}",
        f"--include={','.join(ROOT_PACKAGES[suite])}",
    ]
    # An older debootstrap has no script for a newer suite. They are all the same one, which is called sid.
    scripts = Path("/usr/share/debootstrap/scripts")
    script = scripts / suite if (scripts / suite).exists() else scripts / "sid"
    run_command([*argv, suite, str(target), mirror.url, str(script)], hint=HINT, env={**os.environ, **mirror.proxies})


def find_mirror() -> Mirror:
    """Ask apt where Debian comes from. Raises EngineError (user) when it knows no Debian mirror."""
    url = _mirror_url() or _mirror_url(update=True)
    if url is None:
        raise EngineError("apt has no Debian mirror on this machine", hint=HINT)
    return Mirror(url=url, keyring=_keyring(url), proxies=_proxies())


def _mirror_url(*, update: bool = False) -> str | None:
    if update:
        run_command(["apt-get", "-q", "update"], hint=HINT)
    targets = run_command(
        ["apt-get", "indextargets", "--format", "$(ORIGIN) $(LABEL) $(COMPONENT) $(REPO_URI)", "Created-By: Packages"],
        hint=HINT,
    )
    return next((line.split()[3] for line in targets.splitlines() if line.startswith("Debian Debian main ")), None)


def _keyring(url: str) -> Path:
    """The keys that apt trusts for a mirror, from the entry that names it."""
    folder = Path("/etc/apt")
    for source in [folder / "sources.list", *sorted((folder / "sources.list.d").glob("*"))]:
        text = source.read_text(encoding="utf-8") if source.is_file() else ""
        for entry in text.split("\n\n" if source.suffix == ".sources" else "\n"):
            signed_by = re.search(r"signed-by\s*[:=]\s*(/[^\s\],]+)", entry, re.IGNORECASE)
            if signed_by and url.rstrip("/") in entry:
                return Path(signed_by[1])
    return DEFAULT_KEYRING


def _proxies() -> dict[str, str]:
    argv = ["apt-config", "shell", "http_proxy", "Acquire::http::Proxy", "https_proxy", "Acquire::https::Proxy"]
    found = re.findall(r"^(\w+)='(.+)'$", run_command(argv, hint=HINT), re.MULTILINE)
    return {name: value for name, value in found if value != "DIRECT"}


@contextlib.contextmanager
def _timed(say: Callable[[str], None], what: str) -> Iterator[None]:
    say(f"{what} ...")
    start = time.monotonic()
    yield
    say(f"{what}: {time.monotonic() - start:.1f} s")


def main(arguments: Sequence[str]) -> int:
    """Prepare everything; the exit status is 0, or 1 with the reason on stderr."""
    if arguments:
        print("usage: python -m integration.prepare", file=sys.stderr)
        return 2
    try:
        prepare(lambda line: print(f"prepare: {line}", file=sys.stderr, flush=True))
    except MobysessionError as error:
        print(f"prepare: {error}\n\nhint: {error.hint}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
