"""Several trees as one: what is higher hides what is lower, and directories are merged.

::

    Overlay("project", {"Dockerfile": "FROM python\\nCOPY . /app\\n"})
"""

from __future__ import annotations

import errno
import heapq
import os
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from mobysession.errors import UsageError
from mobysession.filesync.modes import DIRECTORY
from mobysession.filesync.source import entries_of, keeping, opened
from mobysession.filesync.sources import as_source

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterator, Mapping

    from mobysession.filesync.source import Content, Entry, Source
    from mobysession.filesync.sources import SourceLike

__all__ = ["Overlay"]


class Overlay:
    """Offer several trees laid over one another.

    Args:
        layers: the lowest first; each a directory, a mapping or a source.

    Raises:
        UsageError: there is none, or one is none of these.
    """

    def __init__(self, *layers: SourceLike) -> None:
        if not layers:
            raise UsageError("an overlay needs at least one layer")
        #: The highest first.
        self._layers = tuple(enumerate(map(as_source, layers)))[::-1]

    def __repr__(self) -> str:
        return f"Overlay({', '.join(repr(layer) for _, layer in reversed(self._layers))})"

    @property
    def location(self) -> str | None:
        """The places of all layers; None where one has none."""
        places = [getattr(layer, "location", None) for _, layer in self._layers]
        known = [place for place in places if place is not None]
        return "\n".join(filter(None, known)) if len(known) == len(places) else None

    def check(self) -> None:
        """Check every layer; see `Source.check`."""
        for _, layer in self._layers:
            layer.check()

    @contextmanager
    def keeping(self) -> Iterator[None]:
        """Let every layer keep what this thread used last."""
        with ExitStack() as stack:
            for _, layer in self._layers:
                stack.enter_context(keeping(layer))
            yield

    @contextmanager
    def opened(self) -> Iterator[None]:
        """Hold every layer open."""
        with ExitStack() as stack:
            for _, layer in self._layers:
                stack.enter_context(opened(layer))
            yield

    def check_readable(self, path: bytes, entry: Entry) -> None:
        """Ask the layer that the file is from, where it can tell."""
        _, layer = self._owner(path)
        check: Callable[[bytes, Entry], None] | None = getattr(layer, "check_readable", None)
        if check is not None:
            check(path, entry)

    def entries(self, directory: bytes) -> Iterator[Entry]:
        """Yield what is in ``directory`` of any layer, in order."""
        return self._entries(directory, None)

    def entries_named(self, directory: bytes, names: Container[bytes]) -> Iterator[Entry]:
        """Yield those of `entries` with one of ``names``."""
        return self._entries(directory, names)

    def _entries(self, directory: bytes, names: Container[bytes] | None) -> Iterator[Entry]:
        layers = self._merged(directory)
        if not layers:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), directory)
        last = None
        # The order of the layers decides between equal names: merging is stable.
        for number, entry in heapq.merge(
            *(_numbered(number, entries_of(layer, directory, names)) for number, layer in layers),
            key=lambda pair: pair[1].name,
        ):
            if entry.name != last:
                last = entry.name
                yield _own(number, entry)

    def readlink(self, path: bytes) -> bytes:
        """Return where a symbolic link points."""
        return self._owner(path)[1].readlink(path)

    def xattrs(self, path: bytes) -> Mapping[str, bytes]:
        """Return the extended attributes of an entry."""
        return self._owner(path)[1].xattrs(path)

    def lookup(self, path: bytes) -> Entry | None:
        """Return the entry at ``path``, None when there is none."""
        found = self._look(path)
        return None if found is None else _own(found[0], found[2])

    def fetch(self, path: bytes, offered: int) -> bytes | Content:
        """Return the content of a file; see `Source.fetch`."""
        return self._owner(path)[1].fetch(path, offered)

    def _merged(self, directory: bytes) -> list[tuple[int, Source]]:
        """Return the layers whose ``directory`` is seen, the highest first."""
        layers = list(self._layers)
        path = b""
        for part in directory.split(b"/") if directory else ():
            path = path + b"/" + part if path else part
            layers = _seen(layers, path)
        return layers

    def _owner(self, path: bytes) -> tuple[int, Source]:
        layers = self._merged(path.rpartition(b"/")[0])
        if len(layers) == 1:
            return layers[0]
        for number, layer in layers:
            if layer.lookup(path) is not None:
                return number, layer
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)

    def _look(self, path: bytes) -> tuple[int, Source, Entry] | None:
        for number, layer in self._merged(path.rpartition(b"/")[0]):
            entry = layer.lookup(path)
            if entry is not None:
                return number, layer, entry
        return None


def _numbered(number: int, entries: Iterator[Entry]) -> Iterator[tuple[int, Entry]]:
    for entry in entries:
        yield number, entry


def _seen(layers: list[tuple[int, Source]], directory: bytes) -> list[tuple[int, Source]]:
    """Return those of ``layers`` that have ``directory``, down to the first that has something else in its place."""
    found = []
    for number, layer in layers:
        entry = layer.lookup(directory)
        if entry is None:
            continue
        if not entry.mode & DIRECTORY:
            break
        found.append((number, layer))
    return found


def _own(number: int, entry: Entry) -> Entry:
    """Keep the hard links of different layers apart."""
    return entry if entry.identity is None else entry._replace(identity=(number, entry.identity))
