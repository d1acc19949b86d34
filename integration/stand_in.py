"""A container whose ``buildkitd`` and ``buildctl`` are shell scripts: what is said to it arrives here.

No image of BuildKit can be had for the tests. In its place stands the base image with two scripts. ``buildctl
dial-stdio`` makes two named pipes and puts its number into a queue, another named pipe; on this side one process in the
container reads the queue, and another for each number in it connects the pipes with a stream of ours. So any server of
ours, or of the engine's, can be the buildkitd behind ``docker-container://``, without a file system that both see.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from integration.images import build_image
from mobysession.concurrency import open_nursery
from mobysession.transport.container import open_exec
from mobysession.transport.endpoint import Endpoint

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    import trio

    from integration.engines import Engine

__all__ = ["IMAGE", "build_stand_in", "open_stand_in"]

IMAGE = "mobysession-test/stand-in:1"

DOCKERFILE = """\
FROM mobysession-base
COPY --chmod=755 buildctl buildkitd /bin/
ENTRYPOINT ["/bin/sh", "/bin/buildkitd"]
"""
#: Takes its time, so that who does not wait until it answers is found out.
BUILDKITD = """\
#!/bin/sh
echo "buildkitd $* in $PLACE"
case "$1" in --die) echo "no such flag: $1" >&2; exit 3;; esac
trap 'exit 0' TERM
sleep 0.5
mkdir -p /peer
mkfifo /peer/new
mv /peer/new /peer/queue
while :; do sleep 1000 & wait $!; done
"""
BUILDCTL = """\
#!/bin/sh
if [ "$1" = debug ]; then test -p /peer/queue || { echo "no buildkitd yet" >&2; exit 1; }; exit 0; fi
if [ "$1" = --addr ]; then echo "cannot reach $2" >&2; exit 1; fi
mkdir /peer/$$
mkfifo /peer/$$/up /peer/$$/down
echo $$ > /peer/queue
exec 3<&0
cat <&3 > /peer/$$/up &
exec cat /peer/$$/down
"""


def build_stand_in(engine: Engine) -> None:
    """Make the image."""
    files = {"Dockerfile": DOCKERFILE, "buildctl": BUILDCTL, "buildkitd": BUILDKITD}
    build_image(engine, {name: text.encode() for name, text in files.items()}, tags=[IMAGE])


@contextlib.asynccontextmanager
async def open_stand_in(
    host: str, container: str, serve: Callable[[trio.abc.Stream], Awaitable[None]]
) -> AsyncIterator[None]:
    """Be the buildkitd in a container that runs, for the length of the block; ``serve`` gets each connection."""
    engine = Endpoint.parse(host)

    async def connect(number: str) -> None:
        pipes = f"cat /peer/{number}/up & exec cat > /peer/{number}/down 2> /dev/null"
        async with await open_exec(engine, container, ["sh", "-c", pipes], name="the stand-in") as stream:
            await serve(stream)

    async def accept(queue: trio.abc.ReceiveStream) -> None:
        numbers = b""
        async for data in queue:
            numbers += data
            *complete, numbers = numbers.split(b"\n")
            for number in complete:
                nursery.start_soon(connect, number.decode())

    reading = ["sh", "-c", "while :; do cat /peer/queue; done"]
    async with await open_exec(engine, container, reading, name="the queue") as queue, open_nursery() as nursery:
        nursery.start_soon(accept, queue)
        yield
        nursery.cancel_scope.cancel()
