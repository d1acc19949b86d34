"""What git knows of a context: its commit, where it was cloned from, and the place of each directory in the repository.

It goes to the engine as attributes of the frontend, and from there into the provenance, or into labels of the image.
Git's own files are read, without a process: a build of a small context takes less time than git needs to start.

Source: docker/buildx build/git.go; git's gitrepository-layout(5), gitglossary(7) on packed-refs, git-config(1).
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from mobysession import limits
from mobysession.build.fields import parse_bool

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mobysession.build.contexts import SourceFile

__all__ = ["Repository", "find_repository", "vcs_attributes"]

_HASH: Final = r"[0-9a-f]{40}(?:[0-9a-f]{24})?"
#: A login in an address, behind what stands before it; ``git@host:path`` is no address, and its user is no secret.
_LOGIN: Final = re.compile(r"^((?:[A-Za-z][A-Za-z0-9+.:-]*:)?//)[^/?#]*@")


class Repository(NamedTuple):
    """A working tree, and the directories of git that belong to it: its own, and the one shared with other trees."""

    root: Path
    git: Path
    common: Path

    def commit(self) -> str:
        """Return the hash of HEAD; empty where there is none, or it cannot be found."""
        head = _read(self.git / "HEAD").strip()
        if not head.startswith("ref:"):
            return head if re.fullmatch(_HASH, head) else ""
        ref = head.removeprefix("ref:").strip()
        loose = _read(self.git / ref).strip() or _read(self.common / ref).strip()
        if re.fullmatch(_HASH, loose):
            return loose
        packed = re.search(rf"^({_HASH}) {re.escape(ref)}$", _read(self.common / "packed-refs"), re.MULTILINE)
        return packed[1] if packed else ""

    def remote(self) -> str:
        """Return where it was cloned from, without a login: of the branch, else of ``origin``, else ``upstream``."""
        config = _config(_read(self.common / "config"))
        branch = _read(self.git / "HEAD").strip().removeprefix("ref: refs/heads/")
        for name in (config.get(f"branch.{branch}.remote", ""), "origin", "upstream"):
            if name and (url := config.get(f"remote.{name}.url")):
                return _without_login(url)
        return ""

    def is_dirty(self) -> bool:
        """Ask git whether the tree differs from the commit; blocking."""
        import subprocess  # only for who wants to know: start-up

        argv = ["git", "-C", str(self.root), "status", "--porcelain", "--ignored"]
        try:
            done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, check=False)  # noqa: S603  # git
        except OSError:
            return True
        return done.returncode != 0 or bool(done.stdout.strip())


def find_repository(directory: Path) -> Repository | None:
    """Return the repository that a directory is in; None where it is in none."""
    start = directory.resolve()
    for root in (start, *start.parents):
        marker = root / ".git"
        if marker.is_dir():
            return Repository(root, marker, marker)
        if marker.is_file():
            git = root / _read(marker).strip().removeprefix("gitdir:").strip()
            shared = _read(git / "commondir").strip()
            return Repository(root, git, (git / shared) if shared else git)
    return None


def vcs_attributes(
    directories: Mapping[str, object], *, context: Path, dockerfile: Path | SourceFile
) -> dict[str, str]:
    """Return the attributes for a build; blocking.

    ``BUILDX_GIT_INFO=false`` leaves them out; ``BUILDX_GIT_LABELS=true`` makes labels of them;
    ``BUILDX_GIT_CHECK_DIRTY=true`` tells a commit with changes from one without.

    Args:
        directories: what the engine reads, by its names for them; others than directories are left out.
        context: the directory whose repository counts.
        dockerfile: the path of the Dockerfile.
    """
    informs = parse_bool(os.environ.get("BUILDX_GIT_INFO", "")) is not False
    labels = os.environ.get("BUILDX_GIT_LABELS", "")
    labelled = labels == "full" or parse_bool(labels) is True
    repository = find_repository(context) if informs or labelled else None
    if repository is None:
        return {}
    commit = repository.commit()
    if commit and parse_bool(os.environ.get("BUILDX_GIT_CHECK_DIRTY", "")) and repository.is_dirty():
        commit += "-dirty"
    entrypoint = _below(repository.root, dockerfile) if isinstance(dockerfile, Path) else ""
    found = {
        "vcs:revision": commit if informs else "",
        "vcs:source": repository.remote() if informs else "",
        "label:org.opencontainers.image.revision": commit if labelled else "",
        "label:org.opencontainers.image.source": repository.remote() if labelled else "",
        "label:com.docker.image.source.entrypoint": entrypoint if labelled else "",
    }
    if informs:
        places = {name: _path(source) for name, source in directories.items()}
        found |= {f"vcs:localdir:{name}": _below(repository.root, path) for name, path in places.items() if path}
    return {name: value for name, value in found.items() if value}


def _path(source: object) -> Path | None:
    if isinstance(source, (str, os.PathLike)):
        return Path(source)
    place = getattr(source, "location", None)
    return Path(place) if isinstance(place, str) and place.startswith("/") else None


def _below(root: Path, path: Path) -> str:
    path = path.resolve()
    return os.fspath(path.relative_to(root)) if path.is_relative_to(root) else ""


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return file.read(limits.MAX_GIT_FILE).decode("utf-8", "surrogateescape")
    except (OSError, ValueError):  # ValueError: a NUL in the path
        return ""


def _config(text: str) -> dict[str, str]:
    """Return git's configuration as ``section.subsection.key``; what is included from other files is not read."""
    values: dict[str, str] = {}
    section = ""
    for line in text.splitlines():
        line = line.strip()
        if header := re.fullmatch(r'\[([\w.-]+)(?:\s+"(.*)")?\].*', line):
            section = header[1].lower() + (f".{header[2]}" if header[2] is not None else "")
        elif pair := re.fullmatch(r'([\w-]+)\s*=\s*"?(.*?)"?', line):
            values.setdefault(f"{section}.{pair[1].lower()}", pair[2])
    return values


def _without_login(url: str) -> str:
    return _LOGIN.sub(r"\1", url)
