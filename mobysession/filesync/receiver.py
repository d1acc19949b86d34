"""The receiver of DiffCopy: a directory takes the shape of what the sender lists.

The sender lists its tree while files are asked for, arrive and are written. When the listing has ended and every file
is there, what is left to do is done, and FIN is exchanged. A sender that resets the call from then on has not failed:
a daemon that has answered FIN goes away as it pleases.

What arrives is applied in a worker thread, a batch of packets at a time; see `mobysession.filesync.landing`.

Source: tonistiigi/fsutil receive.go, moby/buildkit session/filesync/diffcopy.go.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

import trio

from mobysession.errors import OutputError, RemoteProtocolError
from mobysession.filesync.landing import Landing
from mobysession.filesync.packets import FIN_PACKET, error_packet
from mobysession.filesync.terms import Differ, ReceiveLimits, ReceiveReport

if TYPE_CHECKING:
    from collections.abc import Callable

    from mobysession.filesync.sender import PacketStream

__all__ = ["Differ", "ReceiveLimits", "ReceiveReport", "receive_tree"]

#: Seconds for the ERR packet to leave when receiving fails; the status of the call tells the rest.
_FAREWELL: Final = 2.0


async def receive_tree(
    stream: PacketStream,
    destination: str | os.PathLike[str],
    *,
    merge: bool = False,
    differ: Differ = Differ.METADATA,
    owner: tuple[int, int] | None = None,
    bounds: ReceiveLimits | None = None,
    progress: Callable[[ReceiveReport], None] | None = None,
    on_complete: Callable[[ReceiveReport], None] | None = None,
) -> ReceiveReport:
    """Receive a tree into ``destination``.

    Args:
        stream: the call; after the answering FIN nothing more is read from it.
        destination: an existing directory, which is written to and nothing outside of it.
        merge: keep what is there and is not listed.
        differ: when a file that is there need not be sent.
        owner: user and group ID for everything; None for the listing's, or for our own where we are not root.
        bounds: what is accepted; None: `ReceiveLimits`.
        progress: is called in the loop after each batch, and must not wait.
        on_complete: is called in the loop when everything is on disk, before the sender is told so; must not wait.

    Raises:
        RemoteProtocolError: the sender broke the protocol, or ended before the transfer was complete.
        RpcError: the sender failed; its words are in the message.
        OutputError: the destination cannot be written, or a limit is reached; the user must act.

        The sender was told, as with the first.

    Cancel: each file is complete or as it was before; no thread and no file stays open.
    """
    if owner is None and os.geteuid() != 0:
        owner = (os.geteuid(), os.getegid())
    landing = await trio.to_thread.run_sync(
        lambda: Landing(destination, merge=merge, differ=differ, owner=owner, bounds=bounds or ReceiveLimits())
    )
    try:
        return await _receive(stream, landing, progress, on_complete)
    except (RemoteProtocolError, OutputError) as error:
        with trio.move_on_after(_FAREWELL):
            await stream.send_batch([error_packet(error.message)])
        raise
    finally:
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(landing.close)


async def _receive(
    stream: PacketStream,
    landing: Landing,
    progress: Callable[[ReceiveReport], None] | None,
    on_complete: Callable[[ReceiveReport], None] | None,
) -> ReceiveReport:
    settled = False
    while messages := await stream.receive_batch():
        requests = await trio.to_thread.run_sync(landing.take, messages)
        if requests:
            await stream.send_batch(requests)
        if progress is not None and not settled:  # what ends the transfer is no progress of what is complete
            progress(landing.report())
        if landing.complete and not settled:
            settled = True
            await trio.to_thread.run_sync(landing.finish)
            if on_complete is not None:
                on_complete(landing.report())
            await stream.send_batch([FIN_PACKET])
        if landing.finished:
            break
    if not settled:
        raise RemoteProtocolError("the sender ended the transfer before it was complete")
    return landing.report()
