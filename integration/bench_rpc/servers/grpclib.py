"""grpclib's server: gRPC in plain Python on h2, as ours, on asyncio."""

from __future__ import annotations

import asyncio
from typing import Any

from grpclib.const import Cardinality, Handler
from grpclib.encoding.base import CodecBase
from grpclib.server import Server

from integration.bench_rpc.service import DOWN, ECHO, ORDER, TOTAL, UP, announce


class Plain(CodecBase):
    """Messages are bytes."""

    __content_subtype__ = "proto"

    def encode(self, message: Any, message_type: Any) -> bytes:
        return bytes(message)

    def decode(self, data: bytes, message_type: Any) -> Any:
        return data


async def echo(stream: Any) -> None:
    await stream.send_message(await stream.recv_message())


async def down(stream: Any) -> None:
    count, size = ORDER.unpack(await stream.recv_message())
    message = bytes(size)
    for _ in range(count):
        await stream.send_message(message)


async def up(stream: Any) -> None:
    total = 0
    async for message in stream:
        total += len(message)
    await stream.send_message(TOTAL.pack(total))


class Service:
    """What grpclib asks for the methods."""

    def __mapping__(self) -> dict[str, Handler]:
        return {
            ECHO: Handler(echo, Cardinality.UNARY_UNARY, bytes, bytes),
            DOWN: Handler(down, Cardinality.UNARY_STREAM, bytes, bytes),
            UP: Handler(up, Cardinality.STREAM_UNARY, bytes, bytes),
        }


async def main() -> None:
    server = Server([Service()], codec=Plain())
    await server.start("127.0.0.1", 0)
    listening: Any = server._server
    port = listening.sockets[0].getsockname()[1]
    await asyncio.to_thread(announce, port)
    server.close()
    await server.wait_closed()


if __name__ == "__main__":
    asyncio.run(main())
