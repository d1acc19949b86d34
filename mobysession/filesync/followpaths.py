"""followpaths: the files a Dockerfile names, together with what their symbolic links lead to.

``COPY link/file`` needs the link and the file behind it. Each path is walked component by component; where a component
is a link, or a wildcard that matches links, the component itself is recorded and the walk goes on at the target.
Targets are taken from the root of the tree and cannot leave it.

Source: tonistiigi/fsutil followlinks.go.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from mobysession.filesync.gopath import clean, has_wildcard, join, match_name
from mobysession.filesync.modes import SYMLINK, TYPE
from mobysession.filesync.naming import cannot

if TYPE_CHECKING:
    from collections.abc import Iterable

    from mobysession.filesync.source import Entry, Source

__all__ = ["find_file", "follow_links", "lead", "merge_includes"]

#: Links on the way to one file; containerd/continuity fs/path.go, by which the engine reads a file, follows as many.
_MOST_LINKS: Final = 255


def follow_links(source: Source, paths: Iterable[str]) -> list[str] | None:
    """Return what to include for ``paths``, sorted and without entries below others; None for the whole tree.

    Raises:
        ContextError: a directory or link on the way cannot be read; the user must act.
    """
    found: set[str] = set()
    waiting = [_inside(path) for path in paths][::-1]
    while waiting:
        # The targets of a link come before the paths still waiting, as in the recursion of the reference: which of two
        # paths through one link is recorded depends on it.
        waiting += reversed(_follow(source, waiting.pop(), found))
    return _without_nested(sorted(found, key=_bytes))


def find_file(source: Source, path: str) -> bytes | None:
    """Return where the regular file is that ``path`` leads to, links followed; None where it leads to none.

    Raises:
        ContextError: a link on the way cannot be read; the user must act.
    """
    found = lead(source, path)
    return None if found is None or found[1].mode & TYPE else found[0]


def lead(source: Source, path: str) -> tuple[bytes, Entry] | None:
    """Return what ``path`` leads to, links followed, with where it is; raises as `find_file`."""
    current, rest, links = "", _inside(path), 0
    while rest and links <= _MOST_LINKS:
        name, _, rest = rest.partition("/")
        current = join(current, name)
        target = _target(source, current)
        if target is not None:
            current, rest, links = "", _inside(join(target, rest)), links + 1
    entry = None if rest else source.lookup(_bytes(current))
    return None if entry is None else (_bytes(current), entry)


def merge_includes(includes: Iterable[str], followed: Iterable[str]) -> list[str]:
    """Return include patterns and followed paths as one list, in this order; empty for no filter.

    Source: tonistiigi/fsutil filter.go, dedupePaths.
    """
    return _without_nested([*includes, *followed]) or []


def _without_nested(paths: Iterable[str]) -> list[str] | None:
    kept: list[str] = []
    last = ""
    for path in paths:
        if path == ".":
            return None
        if not path.startswith(last + "/"):
            kept.append(path)
            last = path
    return kept


def _follow(source: Source, path: str, found: set[str]) -> list[str]:
    """Record the part of ``path`` up to its first link; return the paths that its targets make of it."""
    current, rest = "", path
    while True:
        name, _, rest = rest.partition("/")
        current = join(current, name)
        targets = _targets(source, current)
        if targets or not rest:
            if current in found:
                return []
            found.add(current)
            return [_inside(join(target, rest)) for target in targets]


def _targets(source: Source, path: str) -> list[str]:
    directory, _, name = path.rpartition("/")
    if not has_wildcard(name):
        target = _target(source, path)
        return [] if target is None else [target]
    matching = [entry for entry in _names(source, directory) if match_name(name, entry)]
    targets = (_target(source, join(directory, entry)) for entry in matching)
    return [target for target in targets if target is not None]


def _names(source: Source, directory: str) -> list[str]:
    """Return the names of the links in ``directory``."""
    try:
        return [_text(entry.name) for entry in source.entries(_bytes(directory)) if entry.mode & SYMLINK]
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise cannot("list", _bytes(directory), error) from error


def _target(source: Source, path: str) -> str | None:
    """Return where the link at ``path`` leads, seen from the root; None when it is no link."""
    try:
        entry = source.lookup(_bytes(path))
        if entry is None or not entry.mode & SYMLINK:
            return None
        link = _text(source.readlink(_bytes(path)))
    except OSError as error:
        raise cannot("look at", _bytes(path), error) from error
    return link if link.startswith("/") else join("/", path.rpartition("/")[0], link)


def _inside(path: str) -> str:
    """Return ``path`` relative to the root of the tree, which ``..`` does not leave; ``.`` for the root."""
    return clean("/" + path)[1:] or "."


def _text(path: bytes) -> str:
    return path.decode("utf-8", "surrogateescape")


def _bytes(path: str) -> bytes:
    return path.encode("utf-8", "surrogateescape")
