"""Our server: `serve_listener` on a TCP port."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import trio

from integration.bench_rpc.service import DOWN, ECHO, ORDER, TOTAL, UP, announce
from mobysession.rpc.listener import serve_listener
from mobysession.rpc.registrar import Cardinality, Registrar, receive_one

if TYPE_CHECKING:
    from mobysession.rpc.server import ServerCall


async def echo(call: ServerCall) -> None:
    await call.send(await receive_one(call, bytes))


async def down(call: ServerCall) -> None:
    count, size = ORDER.unpack(await receive_one(call, bytes))
    message = bytes(size)
    for _ in range(count):
        await call.send(message)


async def up(call: ServerCall) -> None:
    total = 0
    while (message := await call.receive()) is not None:
        total += len(message)
    await call.send(TOTAL.pack(total))


async def main() -> None:
    registrar = Registrar()
    registrar.stream(ECHO, echo, Cardinality.UNARY_UNARY)
    registrar.stream(DOWN, down, Cardinality.UNARY_STREAM)
    registrar.stream(UP, up, Cardinality.STREAM_UNARY)
    async with trio.open_nursery() as nursery:
        listening = await nursery.start(functools.partial(serve_listener, "tcp://127.0.0.1:0", registrar))
        port = int(listening.addresses[0].rpartition(":")[2])
        await trio.to_thread.run_sync(announce, port)
        listening.stop()


if __name__ == "__main__":
    trio.run(main)
