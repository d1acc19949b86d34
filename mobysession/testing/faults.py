"""What can go wrong with a daemon, as values: each is a deviation from the good daemon, and ``|`` puts them together.

::

    FakeDaemon(faults=Faults(cut_after=200) | Faults(pieces=1))

Only those of the first group concern what the daemon says; the second group concerns the connection below it, the third
the time after the session was opened.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, fields, replace

import trio
import trio.testing

from mobysession.testing.memory import MemoryStream

__all__ = ["FaultyStream", "Faults", "Refusal"]


@dataclass(frozen=True)
class Refusal:
    """An answer other than 101: ``status`` and either the text of the usual JSON or a whole body of another type."""

    status: int
    message: str = ""
    body: bytes | None = None
    content_type: str = "application/json"

    def content(self) -> bytes:
        """Return the body."""
        if self.body is not None:
            return self.body
        return json.dumps({"message": self.message}, separators=(",", ":")).encode() + b"\n"


@dataclass(frozen=True, kw_only=True)
class Faults:
    """Deviations of one connection.

    Attributes:
        refusal: answer the upgrade with this.
        id_taken: refuse every session's ID as registered already.
        upgraded_to: what the 101 says it upgrades to.
        never_answer: read the request and say nothing.
        mute: say nothing after the 101.
        close_after_101: close right behind it.
        garbage: send this after the 101, in place of HTTP/2.
        pieces: bytes handed out at once; 0: whatever was written.
        cut_after: bytes that are sent before the connection is closed.
        cut_after_received: bytes that are read before the connection is closed.
        stall_after: bytes that are sent before nothing more is.
        reset: a cut shows as a broken connection, not as an orderly end; only in memory.
        goaway_after: seconds after the opening until the daemon says GOAWAY and hangs up.
        slow_reader: never give flow-control windows back: 64 KiB is all that can be sent.
        fail_health: behave from the first health check on as if it had failed.
    """

    refusal: Refusal | None = None
    id_taken: bool = False
    upgraded_to: str = "h2c"
    never_answer: bool = False
    mute: bool = False
    close_after_101: bool = False
    garbage: bytes = b""

    pieces: int = 0
    cut_after: int | None = None
    cut_after_received: int | None = None
    stall_after: int | None = None
    reset: bool = False

    goaway_after: float | None = None
    slow_reader: bool = False
    fail_health: bool = False

    def __or__(self, other: Faults) -> Faults:
        """Return both together; where both speak, ``other`` wins."""
        changed = {
            field.name: value for field in fields(other) if (value := getattr(other, field.name)) != field.default
        }
        return replace(self, **changed)


class FaultyStream(trio.abc.Stream):
    """A connection that gets cut, stalls or hands out its bytes in pieces, as `Faults` say."""

    def __init__(self, stream: trio.abc.Stream, faults: Faults) -> None:
        self._stream = stream
        self._faults = faults
        self._sent = 0
        self._received = 0

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send as far as the faults let it."""
        faults = self._faults
        limit = min((n for n in (faults.cut_after, faults.stall_after) if n is not None), default=None)
        allowed = data if limit is None else memoryview(data)[: max(0, limit - self._sent)]
        await self._send_pieces(allowed)
        self._sent += len(allowed)
        if limit is None or self._sent < limit:
            return
        if faults.cut_after == limit:
            await self._cut()
        await trio.sleep_forever()

    async def _send_pieces(self, data: bytes | bytearray | memoryview) -> None:
        size = self._faults.pieces or max(1, len(data))
        for start in range(0, len(data), size):
            await self._stream.send_all(data[start : start + size])
            # The other side reads each piece on its own.
            await trio.testing.wait_all_tasks_blocked() if self._faults.pieces else None

    async def wait_send_all_might_not_block(self) -> None:
        """Wait for the stream below."""
        await self._stream.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Read as far as the faults let it."""
        data = bytes(await self._stream.receive_some(max_bytes))
        self._received += len(data)
        limit = self._faults.cut_after_received
        if limit is not None and self._received >= limit:
            await self._cut()
        return data

    async def _cut(self) -> None:
        if self._faults.reset and isinstance(self._stream, MemoryStream):
            await self._stream.reset()
        else:
            await trio.aclose_forcefully(self._stream)
        raise trio.BrokenResourceError("cut, as the faults say")

    async def aclose(self) -> None:
        """Close the stream below."""
        await self._stream.aclose()
