"""``python -m integration.bench_files.floor HOST CONTEXT``: build with a stream that was encoded before.

Prints the seconds of the build as JSON. What the tree would make anyone do, listing, reading, encoding, is done before
the clock starts, so the rest is the engine, and our HTTP/2 on the way to it: the floor for any sender of this tree.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import trio

import mobysession.filesync
from mobysession.build import build
from mobysession.filesync import Directory, TransferProgress, TransferReport
from mobysession.filesync.contents import Contents
from mobysession.filesync.filters import parse_filter
from mobysession.filesync.offers import Offers
from mobysession.filesync.packets import END_OF_LISTING, FIN, FIN_PACKET, REQ, decode_requests
from mobysession.filesync.walk import Walk
from mobysession.transport.endpoint import Endpoint

if TYPE_CHECKING:
    from collections.abc import Sequence

_BATCH = 256


class Recording:
    """The packets of one tree."""

    def __init__(self, context: str, excludes: Sequence[str]) -> None:
        source = Directory(context)
        source.check()
        offers = Offers()
        walk = Walk(source, parse_filter((), excludes), offers, reset_owner=True)
        self.listing = [batch.messages for batch in walk.batches()]
        self.contents: dict[int, list[Any]] = {}
        for entry_id in range(len(offers)):
            try:
                offers.request(entry_id)
            except Exception:  # no file
                continue
            one = Contents(source, offers)
            one.ask([entry_id])
            self.contents[entry_id] = []
            while not one.idle:
                self.contents[entry_id] += one.read().messages

    async def replay(self, stream: Any) -> TransferReport:
        """Play the sender."""
        send, receive = trio.open_memory_channel[int](1_000_000)
        lock = trio.Lock()

        async def put(messages: Sequence[Any]) -> None:
            async with lock:
                await stream.send_batch(messages)

        async def listing() -> None:
            for batch in self.listing:
                await put(batch)
            await put([END_OF_LISTING])

        async def contents() -> None:
            async for entry_id in receive:
                messages = list(self.contents[entry_id])
                while len(messages) < _BATCH:
                    try:
                        messages += self.contents[receive.receive_nowait()]
                    except trio.WouldBlock:
                        break
                for start in range(0, len(messages), _BATCH):
                    await put(messages[start : start + _BATCH])

        async with trio.open_nursery() as nursery:
            nursery.start_soon(listing)
            nursery.start_soon(contents)
            done = False
            while not done and (messages := await stream.receive_batch()):
                for kind, entry_id, _ in decode_requests(messages):
                    if kind == REQ:
                        send.send_nowait(entry_id)
                    done = done or kind == FIN
            nursery.cancel_scope.cancel()
        await stream.send_batch([FIN_PACKET])
        return TransferReport(progress=TransferProgress())


def _record(context: str) -> Recording:
    ignored = Path(context, ".dockerignore")
    return Recording(context, ignored.read_text("utf-8").splitlines() if ignored.exists() else ())


async def main(host: str, context: str) -> None:  # nothing else runs yet
    """Encode, then build and print."""
    recording = _record(context)
    original = mobysession.filesync.send_tree

    async def send_tree(stream: Any, source: Any, **options: Any) -> TransferReport:
        if options.get("follow_paths"):
            return await original(stream, source, **options)
        return await recording.replay(stream)

    # There is no other way in: a build reads its context with this, and no user should be able to replace it.
    mobysession.filesync.send_tree = send_tree
    started = time.perf_counter()
    await build(context, endpoint=Endpoint.parse(host))
    print(json.dumps(time.perf_counter() - started))


if __name__ == "__main__":
    trio.run(main, sys.argv[1], sys.argv[2])
