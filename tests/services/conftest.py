"""A service of ours at one end of a pair of streams, and the caller that a daemon would be at the other."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
import trio.testing

from mobysession.rpc.client import open_channel
from mobysession.rpc.registrar import Registrar
from mobysession.rpc.server import open_server

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from contextlib import AbstractAsyncContextManager

    from mobysession.errors import StatusCode
    from mobysession.rpc.client import Channel
    from mobysession.rpc.registrar import Attachable

#: What a session hears of each call that ended: status, text for the daemon, local failure.
Ended = list[tuple["StatusCode", str, BaseException | None]]


@pytest.fixture
def ended() -> Ended:
    """Collect how the calls of ``open_service`` ended."""
    return []


@pytest.fixture
def open_service(ended: Ended) -> Callable[..., AbstractAsyncContextManager[Channel]]:
    """Give a context manager that serves one attachable and yields a channel to call it."""

    @asynccontextmanager
    async def open_service(service: Attachable) -> AsyncIterator[Channel]:
        registrar = Registrar()
        service.register(registrar)
        ours, theirs = trio.testing.memory_stream_pair()
        async with (
            open_server(ours, registrar, on_call_ended=lambda _call, *how: ended.append(how)),
            open_channel(theirs) as channel,
        ):
            yield channel

    return open_service
