"""Reading the requested files and cutting them into DATA packets.

One hop into a worker thread reads many small files, or a few chunks of a large one, and comes back with messages that
are ready to be sent. What is read is what is sent: a file that shrank or grew since it was offered arrives as it was
found, with a warning, or, where the caller is strict, fails the transfer. A file that is gone, unreadable or something
else now is a failure, never silently an empty file.
"""

from __future__ import annotations

import time
from collections import deque
from io import BytesIO
from typing import TYPE_CHECKING, Final

from mobysession import limits
from mobysession.errors import ContextError, MobysessionError
from mobysession.filesync.naming import cannot, changed, quote
from mobysession.filesync.packets import data_header, end_of_file, whole_file
from mobysession.filesync.source import content_of, keeping

if TYPE_CHECKING:
    from collections.abc import Iterable

    from mobysession.filesync.offers import Offers
    from mobysession.filesync.source import Content, Source

__all__ = ["Contents", "Reading"]

#: Bytes read in one hop. With those being sent, twice as many are held.
_READING_BYTES: Final = 2 * limits.MIB
_READING_SECONDS: Final = 0.02
_MAX_HEADER: Final = 16


class Reading:
    """What one hop brought: DATA packets, and what they add up to."""

    __slots__ = ("content", "files", "messages", "warnings")

    def __init__(self) -> None:
        self.messages: list[bytes | bytearray | memoryview] = []
        self.files = 0
        self.content = 0
        self.warnings: list[str] = []


class Contents:
    """The requested files, read in the order of the requests.

    Args:
        source: the tree.
        offers: what was offered of it.
        strict: fail over a file that is not as large as it was offered.
    """

    def __init__(self, source: Source, offers: Offers, *, strict: bool = False) -> None:
        self._strict = strict
        self._source = source
        self._offers = offers
        self._waiting: deque[int] = deque()
        self._open: Content | None = None
        self._entry_id = 0
        self._sent = 0

    @property
    def idle(self) -> bool:
        """Whether everything asked for was read."""
        return self._open is None and not self._waiting

    def ask(self, entry_ids: Iterable[int]) -> None:
        """Add requested files; not to be called while `read` runs."""
        self._waiting.extend(entry_ids)

    def read(self) -> Reading:
        """Read on, for a few milliseconds or some MiB.

        Raises:
            ContextError: a file is gone, unreadable, no file any more or, when strict, not the same; the user must act.
        """
        reading = Reading()
        deadline = time.monotonic() + _READING_SECONDS
        with keeping(self._source):
            while reading.content < _READING_BYTES and time.monotonic() < deadline:
                if self._open is not None:
                    self._continue(self._open, reading)
                elif self._waiting:
                    self._begin(self._waiting.popleft(), reading)
                else:
                    break
        return reading

    def close(self) -> None:
        """Close the file that is being read, if there is one."""
        content, self._open = self._open, None
        if content is not None:
            content.close()

    def _begin(self, entry_id: int, reading: Reading) -> None:
        path, offered = self._offers.path(entry_id), self._offers.size(entry_id)
        try:
            content = self._source.fetch(path, offered)
        except OSError as error:
            raise cannot("read", path, error) from error
        except MobysessionError:
            raise
        except Exception as error:
            raise _failed(path, error) from error
        if not isinstance(content, bytes):
            content = content_of(content, path)
        if isinstance(content, bytes) and len(content) <= limits.DATA_CHUNK:
            size = len(content)
            if content:
                reading.messages += whole_file(entry_id, content)
            else:
                reading.messages.append(end_of_file(entry_id))
            reading.files += 1
            reading.content += size
            if size != offered:
                self._compare(entry_id, size, offered, reading)
            return
        self._entry_id, self._sent = entry_id, 0
        self._open = BytesIO(content) if isinstance(content, bytes) else content

    def _continue(self, content: Content, reading: Reading) -> None:
        # The header goes in front of where the content is read to, so that a chunk is not copied to be joined to it.
        chunk = bytearray(_MAX_HEADER + limits.DATA_CHUNK)
        view = memoryview(chunk)
        try:
            count = content.readinto(view[_MAX_HEADER:])
        except OSError as error:
            raise cannot("read", self._offers.path(self._entry_id), error) from error
        except MobysessionError:
            raise
        except Exception as error:
            raise _failed(self._offers.path(self._entry_id), error) from error
        if not isinstance(count, int) or not 0 <= count <= limits.DATA_CHUNK:
            path = quote(self._offers.path(self._entry_id))
            raise ContextError(f"{path} cannot be read: its readinto returned {count!r}, not how many bytes it read")
        if not count:
            self.close()
            reading.messages.append(end_of_file(self._entry_id))
            reading.files += 1
            self._compare(self._entry_id, self._sent, self._offers.size(self._entry_id), reading)
            return
        header = data_header(self._entry_id, count)
        start = _MAX_HEADER - len(header)
        view[start:_MAX_HEADER] = header
        reading.messages.append(view[start : _MAX_HEADER + count])
        reading.content += count
        self._sent += count

    def _compare(self, entry_id: int, sent: int, offered: int, reading: Reading) -> None:
        """Say so where a file is not as large as it was offered."""
        if sent == offered or offered < 0:
            return
        how = f"{'shrank' if sent < offered else 'grew'} from {offered} to {sent} bytes"
        path = self._offers.path(entry_id)
        if self._strict:
            raise changed(path, how)
        reading.warnings.append(f"{quote(path)} {how} while the directory was being sent; it is sent as it was read")


def _failed(path: bytes, error: Exception) -> ContextError:
    """Return the error of a file over which a source of the caller's failed in a way of its own."""
    return ContextError(f"{quote(path)} cannot be read: {type(error).__name__}: {error}")
