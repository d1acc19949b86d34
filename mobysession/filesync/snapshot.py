"""What a tree looked like when it was offered, to tell at the end whether it still does.

A transfer takes a while, and what was read at its end need not fit what was read at its beginning. For who must know,
each entry leaves eight bytes here, and before the transfer is declared complete everything is looked at once more.

That finds whatever shows in an attribute. Directories change with what is put into them or taken away, so new and
removed names are found too. Not found is what comes and goes again, or happens within one tick of the file system's
clock (some milliseconds).
"""

from __future__ import annotations

import time
from array import array
from typing import TYPE_CHECKING, Final

from mobysession.filesync.naming import cannot, changed
from mobysession.filesync.source import keeping

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mobysession.filesync.offers import Offers
    from mobysession.filesync.source import Entry, Source

__all__ = ["Snapshot"]

#: Seconds for which one hop into a worker thread compares, and entries between two looks at the clock.
_SECONDS: Final = 0.02
_CLOCK_EVERY: Final = 64


class Snapshot:
    """The attributes of everything that was offered in one transfer.

    Args:
        source: the tree; its root is looked at at once.
    """

    def __init__(self, source: Source) -> None:
        self._source = source
        self._root = _mark(source.lookup(b""))
        self._marks = array("q")

    def add(self, entry: Entry) -> None:
        """Add the entry that is offered next."""
        self._marks.append(hash(entry))

    def compare(self, offers: Offers) -> Iterator[None]:
        """Look at everything again; yield now and then.

        Raises:
            ContextError: something is not any more what it was; the user must act.
        """
        if _mark(self._look(b"")) != self._root:
            raise changed(b"", "changed")
        deadline = time.monotonic() + _SECONDS
        for entry_id, mark in enumerate(self._marks):
            path = offers.path(entry_id)
            found = self._look(path)
            if found is None:
                raise changed(path, "vanished")
            if hash(found) != mark:
                raise changed(path, "changed")
            if entry_id % _CLOCK_EVERY == 0 and time.monotonic() > deadline:
                yield
                deadline = time.monotonic() + _SECONDS

    def compare_on(self, comparison: Iterator[None]) -> bool:
        """Go on with a comparison for a moment, in a worker thread; return whether there is more to look at."""
        with keeping(self._source):
            return next(comparison, self) is None

    def _look(self, path: bytes) -> Entry | None:
        try:
            return self._source.lookup(path)
        except OSError as error:
            raise cannot("look at", path, error) from error


def _mark(entry: Entry | None) -> int | None:
    return None if entry is None else hash(entry)
