"""grpcio's own servers on a unix socket, to compare with: what a servicer meets there it shall meet here."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import grpc

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path


@contextmanager
def plain_server(path: Path, add: Callable[[Any], None], interceptors: Sequence[Any] = ()) -> Iterator[None]:
    """Run grpcio's server, with threads; ``add`` adds the servicers."""
    with ThreadPoolExecutor(4) as threads:
        server = grpc.server(threads, interceptors=list(interceptors))
        add(server)
        server.add_insecure_port(f"unix:{path}")
        server.start()
        try:
            yield
        finally:
            server.stop(0).wait()


@contextmanager
def aio_server(path: Path, add: Callable[[Any], None], interceptors: Sequence[Any] = ()) -> Iterator[None]:
    """Run the server of grpc.aio, in a loop and a thread of its own; ``add`` adds the servicers."""
    ready = threading.Event()
    loops: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = []

    async def serve() -> None:
        server = grpc.aio.server(interceptors=list(interceptors))
        add(server)
        server.add_insecure_port(f"unix:{path}")
        await server.start()
        loops.append((asyncio.get_running_loop(), over := asyncio.Event()))
        ready.set()
        await over.wait()
        await server.stop(0)

    thread = threading.Thread(target=asyncio.run, args=(serve(),))
    thread.start()
    try:
        assert ready.wait(10)
        yield
    finally:
        loop, over = loops[0]
        loop.call_soon_threadsafe(over.set)
        thread.join()


SERVERS: dict[str, Callable[..., AbstractContextManager[None]]] = {"plain": plain_server, "async": aio_server}
