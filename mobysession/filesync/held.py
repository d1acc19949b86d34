"""Something that is opened when it is first needed and closed when nobody holds it any more."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from mobysession.filesync.source import Content

__all__ = ["Held", "Holding"]


class _Closable(Protocol):
    def close(self) -> None: ...


T = TypeVar("T", bound=_Closable)


class Held(Generic[T]):
    """A resource that several threads and transfers share.

    Args:
        make: opens it.
    """

    def __init__(self, make: Callable[[], T]) -> None:
        self._make = make
        self._lock = threading.Lock()
        self._value: T | None = None
        self._holders = 0

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep it open once it was opened, until the end of the block."""
        self._hold()
        try:
            yield
        finally:
            self.release()

    def acquire(self) -> T:
        """Return it open; `release` gives it back."""
        with self._lock:
            if self._value is None:
                self._value = self._make()
            self._holders += 1
            return self._value

    def release(self) -> None:
        """Undo one `acquire`."""
        with self._lock:
            self._holders -= 1
            value = None
            if not self._holders:
                value, self._value = self._value, None
        if value is not None:
            value.close()

    def _hold(self) -> None:
        with self._lock:
            self._holders += 1


class Holding(Generic[T]):
    """A content that is read from something held, which it gives back when it is closed."""

    __slots__ = ("_content", "_held")

    def __init__(self, content: Content, held: Held[T]) -> None:
        self._content = content
        self._held: Held[T] | None = held

    def readinto(self, buffer: memoryview, /) -> int | None:
        """Fill ``buffer`` and return how many bytes that were."""
        return self._content.readinto(buffer)

    def close(self) -> None:
        """Close the content and give back what it came from; more than once does no harm."""
        held, self._held = self._held, None
        if held is not None:
            try:
                self._content.close()
            finally:
                held.release()
