"""grpcio's server with coroutines, on asyncio."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio

from integration.bench_rpc.service import ORDER, SERVICE, TOTAL, announce

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


async def echo(request: bytes, _context: Any) -> bytes:
    return request


async def down(request: bytes, _context: Any) -> AsyncIterator[bytes]:
    count, size = ORDER.unpack(request)
    message = bytes(size)
    for _ in range(count):
        yield message


async def up(requests: AsyncIterator[bytes], _context: Any) -> bytes:
    total = 0
    async for message in requests:
        total += len(message)
    return TOTAL.pack(total)


async def main() -> None:
    server = grpc.aio.server()
    handlers: dict[str, grpc.RpcMethodHandler[bytes, bytes]] = {
        "Echo": grpc.unary_unary_rpc_method_handler(echo),
        "Down": grpc.unary_stream_rpc_method_handler(down),
        "Up": grpc.stream_unary_rpc_method_handler(up),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    await asyncio.to_thread(announce, port)
    await server.stop(None)


if __name__ == "__main__":
    asyncio.run(main())
