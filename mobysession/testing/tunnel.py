"""The daemon's end of ``Control.Session``: a byte stream inside a call that a client has opened.

The first message holds the 24 bytes of HTTP/2's preface and nothing else, as with real engines.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import trio

from mobysession._pb import control_pb2
from mobysession.errors import RpcError

if TYPE_CHECKING:
    from mobysession.rpc.server import ServerCall

__all__ = ["TunnelEnd"]

_PREFACE: Final = 24
#: Bytes of one message: what Go's http2 writes at once.
_CHUNK: Final = 32 * 1024


class TunnelEnd(trio.abc.Stream):
    """The stream; its end is the end of the call, which the handler of the call sees to."""

    def __init__(self, call: ServerCall) -> None:
        self._call = call
        self._received = b""
        self._chunk = _PREFACE
        self._closed = False
        #: What the reader waits in.
        self._reading = trio.CancelScope()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Read what has come; empty once the client has half-closed."""
        while not self._received:
            self._check()
            messages = None
            with trio.CancelScope() as self._reading:
                try:
                    messages = await self._call.receive_batch()
                except RpcError as error:
                    raise trio.BrokenResourceError(str(error)) from error
            if messages is None:
                raise trio.ClosedResourceError("the tunnel was closed")
            if not messages:
                return b""
            self._received = b"".join(control_pb2.BytesMessage.FromString(message).data for message in messages)
        data, self._received = self._received[:max_bytes], self._received[max_bytes or len(self._received) :]
        return data

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Write all of it."""
        rest = memoryview(data)
        while rest:
            self._check()
            message = control_pb2.BytesMessage(data=bytes(rest[: self._chunk]))
            try:
                await self._call.send(message.SerializeToString())
            except RpcError as error:
                raise trio.BrokenResourceError(str(error)) from error
            rest, self._chunk = rest[self._chunk :], _CHUNK

    async def wait_send_all_might_not_block(self) -> None:
        """Never block."""
        await trio.lowlevel.checkpoint()

    async def aclose(self) -> None:
        """Refuse to be used from now on."""
        self._closed = True
        self._reading.cancel()
        await trio.lowlevel.checkpoint()

    def _check(self) -> None:
        if self._closed:
            raise trio.ClosedResourceError("the tunnel was closed")
