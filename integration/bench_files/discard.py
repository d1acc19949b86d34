"""``python -m integration.bench_files.discard SOCKET``: a daemon that asks for everything and keeps nothing.

It listens for one connection, calls DiffCopy on it, requests every file, and prints the bytes of the packets. A process
of its own: what it costs is not the sender's.
"""

from __future__ import annotations

import sys
from typing import Final

import trio

from mobysession._pb import fsutil_pb2
from mobysession.filesync.packet_fields import request_packet, split_data
from mobysession.filesync.packets import FIN_PACKET
from mobysession.rpc.client import open_channel
from mobysession.services.filesync import DIFF_COPY

_TYPE: Final = 0x8F280000


async def receive(stream: trio.abc.Stream) -> int:
    """Play the receiver; return the bytes of the packets."""
    size = asked = ended = entry_id = 0
    listed = False
    async with (
        open_channel(stream) as channel,
        channel.open_call(DIFF_COPY, metadata=[("dir-name", "context")]) as call,
    ):
        while messages := await call.receive_batch():
            answers = []
            for message in messages:
                size += len(message)
                if data := split_data(message):
                    ended += data[1] == len(message)
                    continue
                packet = fsutil_pb2.Packet.FromString(message)
                if packet.type != fsutil_pb2.Packet.PACKET_STAT:
                    continue
                if not packet.HasField("stat"):
                    listed = True
                elif not packet.stat.mode & _TYPE and not packet.stat.linkname:
                    answers.append(request_packet(entry_id))
                    asked += 1
                entry_id += packet.HasField("stat")
            if listed and ended >= asked:
                answers.append(FIN_PACKET)
                listed = False
            if answers:
                await call.send_batch(answers)
    return size


async def main(path: str) -> None:
    """Accept one connection and receive."""
    listener = trio.socket.socket(trio.socket.AF_UNIX)
    await listener.bind(path)
    listener.listen()
    print("ready", flush=True)
    connection, _ = await listener.accept()
    print(await receive(trio.SocketStream(connection)), flush=True)


if __name__ == "__main__":
    trio.run(main, sys.argv[1])
