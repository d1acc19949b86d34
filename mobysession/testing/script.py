"""What a build does on the fake daemon: any async callable that takes the solve and returns the exporter's response.

::

    async def broken_build(solve: FakeSolve) -> dict[str, str]:
        async with solve.vertex("[1/1] RUN make") as step:
            step.log("no rule to make target\\n", stream=2)
            solve.fail("process did not complete", exit_code=2, line=3)

    FakeDaemon(script=broken_build)
"""

from __future__ import annotations

import base64
import json
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final, NoReturn, TypeAlias

import trio

from mobysession._pb import rpcstatus_pb2
from mobysession.errors import MobysessionError, RpcError, StatusCode
from mobysession.testing.status_log import FakeVertex, StatusLog

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Sequence
    from pathlib import Path

    from mobysession._pb import control_pb2
    from mobysession.testing.caller import FakeCaller
    from mobysession.testing.fake_daemon import FakeDaemon
    from mobysession.testing.tree_receiver import ReceivedTree

__all__ = ["dockerfile_build", "FakeSolve", "Script"]

#: Seconds for which an engine looks for a session that is not there yet.
_SESSION_TIMEOUT: Final = 5.0
_TYPES: Final = "github.com/moby/buildkit/"


class FakeSolve:
    """One build that was asked for.

    Attributes:
        request: as the client sent it; made from the query for ``POST /build``.
        log: its status.
        directory: where this build may write.
        trees: what was received, by the name of the directory; the latest of a name.
        dockerfile: text of the Dockerfile, for `fail`; empty until it was read.
        filename: its name.
        metadata: what came with the request besides; the header lines of ``POST /build``.
    """

    def __init__(self, daemon: FakeDaemon, request: control_pb2.SolveRequest, directory: Path) -> None:
        self.request = request
        self.log = StatusLog()
        self.directory = directory
        self.trees: dict[str, ReceivedTree] = {}
        self.dockerfile = ""
        self.filename = request.FrontendAttrs.get("filename", "Dockerfile")
        self.metadata: Sequence[tuple[str, str | bytes]] = ()
        self._daemon = daemon
        self._received = 0

    @property
    def ref(self) -> str:
        """The client's ID of this build."""
        return self.request.Ref

    async def session(self) -> FakeCaller:
        """Return the build's session; like an engine, wait five seconds for it, then fail."""
        session_id = self.request.Session
        if not session_id:
            raise RpcError(StatusCode.UNKNOWN, "could not access local files without session")
        with trio.move_on_after(_SESSION_TIMEOUT):
            return await self._daemon.wait_session(session_id)
        raise RpcError(StatusCode.DEADLINE_EXCEEDED, f"no active session for {session_id}: context deadline exceeded")

    @asynccontextmanager
    async def vertex(
        self, name: str, *, inputs: Iterable[FakeVertex] = (), announced: FakeVertex | None = None
    ) -> AsyncIterator[FakeVertex]:
        """Tell a step: begun with the block, completed at its end, with the error that ends it where one does."""
        vertex = announced or FakeVertex(self.log, name, inputs)
        vertex.start()
        try:
            yield vertex
        except trio.Cancelled:
            vertex.complete(error="context canceled")
            raise
        except Exception as error:
            vertex.complete(error=error.message if isinstance(error, MobysessionError) else str(error))
            raise
        vertex.complete()

    async def receive(self, vertex: FakeVertex, dir_name: str, **filters: Any) -> ReceivedTree:
        """Receive a directory as an engine does, told as ``transferring <name>:``; filters as `FakeCaller.diffcopy`."""
        caller = await self.session()
        status = f"transferring {dir_name}:"
        vertex.status(status, name="transferring")
        self._received += 1
        tree = await caller.diffcopy(dir_name, self.directory / f"{self._received}-{dir_name}", **filters)
        vertex.status(status, name="transferring", current=tree.size, done=True)
        self.trees[dir_name] = tree
        return tree

    def fail(
        self,
        message: str,
        *,
        code: StatusCode = StatusCode.UNKNOWN,
        exit_code: int | None = None,
        line: int | None = None,
        last_line: int | None = None,
        vertex: FakeVertex | None = None,
    ) -> NoReturn:
        """Fail the build with BuildKit's typed details.

        Args:
            message: the engine's words, without "failed to solve".
            code: of gRPC; an ordinary failure is UNKNOWN.
            exit_code: of the process that failed.
            line, last_line: lines of `dockerfile` to blame, from 1.
            vertex: the step that failed, where it is not the one whose block this ends.
        """
        raise RpcError(code, message, details=self._details(message, code, exit_code, line, last_line, vertex))

    def _details(
        self,
        message: str,
        code: StatusCode,
        exit_code: int | None,
        line: int | None,
        last_line: int | None,
        vertex: FakeVertex | None,
    ) -> bytes:
        documents: list[tuple[str, object]] = []
        if line:
            source = {
                "info": {
                    "filename": self.filename,
                    "data": base64.b64encode(self.dockerfile.encode()).decode(),
                    "language": "Dockerfile",
                },
                "ranges": [{"start": {"line": line}, "end": {"line": last_line or line}}],
            }
            documents.append(("errdefs.Source+json", source))
        if vertex is not None:
            documents.append(("errdefs.Vertex+json", {"digest": vertex.digest}))
        if exit_code is not None:
            documents.append(("gatewayapi.ExitMessage+json", {"Code": exit_code}))
        status = rpcstatus_pb2.Status(code=code, message=message)
        for name, document in documents:
            status.details.add(type_url=_TYPES + name, value=json.dumps(document).encode())
        return status.SerializeToString()


#: A build: takes the solve, returns the exporter's response. An RpcError, which `FakeSolve.fail` raises, fails it; what
#: is no error of this package is a fault of the script and comes out of the daemon's own block.
Script: TypeAlias = Callable[[FakeSolve], Awaitable[dict[str, str]]]


async def dockerfile_build(solve: FakeSolve, *, ask_credentials: bool = False) -> dict[str, str]:
    """Do what an engine does for ``dockerfile.v0``, except that nothing is executed and no image is fetched.

    It fetches the Dockerfile, ``.dockerignore`` and the part of the context that is copied, asks for the secrets that
    are mounted, and tells all this as an engine does. The digest in the response is taken over all that was received.

    Args:
        solve: the build.
        ask_credentials: ask for the credentials of base images' registries, as for images that are not in the store.
    """
    from mobysession.testing.frontend import Frontend

    return await Frontend(solve, ask_credentials=ask_credentials).build()
