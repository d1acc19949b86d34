"""A source that remembers which of its files were read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from mobysession.filesync.source import Content, Entry, Source

__all__ = ["Observed"]


class Observed:
    """Offer what another source offers.

    It has no place of its own: an engine does not find an earlier copy, and asks for all that it needs.

    Args:
        source: the other one.

    Attributes:
        read: the paths that were read, in that order; each once.
    """

    location = None

    def __init__(self, source: Source) -> None:
        self._source = source
        self.read: dict[str, None] = {}

    def __getattr__(self, name: str) -> Any:
        """Give what a source may have besides, where this one has it."""
        return getattr(self._source, name)

    def check(self) -> None:
        """As the other source."""
        self._source.check()

    def entries(self, directory: bytes) -> Iterator[Entry]:
        """As the other source."""
        return self._source.entries(directory)

    def readlink(self, path: bytes) -> bytes:
        """As the other source."""
        return self._source.readlink(path)

    def xattrs(self, path: bytes) -> Mapping[str, bytes]:
        """As the other source."""
        return self._source.xattrs(path)

    def lookup(self, path: bytes) -> Entry | None:
        """As the other source."""
        return self._source.lookup(path)

    def fetch(self, path: bytes, offered: int) -> bytes | Content:
        """As the other source; remember the path."""
        self.read[path.decode("utf-8", "surrogateescape")] = None
        return self._source.fetch(path, offered)
