"""grpcio's server with plain functions, which run in threads."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import grpc

from integration.bench_rpc.service import ORDER, SERVICE, TOTAL, announce

if TYPE_CHECKING:
    from collections.abc import Iterator

THREADS = 10
"""As in grpcio's own examples and benchmarks."""


def echo(request: bytes, _context: grpc.ServicerContext) -> bytes:
    return request


def down(request: bytes, _context: grpc.ServicerContext) -> Iterator[bytes]:
    count, size = ORDER.unpack(request)
    message = bytes(size)
    for _ in range(count):
        yield message


def up(requests: Iterator[bytes], _context: grpc.ServicerContext) -> bytes:
    return TOTAL.pack(sum(map(len, requests)))


def main() -> None:
    server = grpc.server(ThreadPoolExecutor(THREADS))
    handlers: dict[str, grpc.RpcMethodHandler[bytes, bytes]] = {
        "Echo": grpc.unary_unary_rpc_method_handler(echo),
        "Down": grpc.unary_stream_rpc_method_handler(down),
        "Up": grpc.stream_unary_rpc_method_handler(up),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    announce(port, lambda: server.stop(None).wait())


if __name__ == "__main__":
    main()
