"""Stores for tests of the Content service, and how a daemon calls it."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

from mobysession._pb import content_pb2
from mobysession.services.content import SERVICE, STORE_ID

if TYPE_CHECKING:
    from pathlib import Path

    from mobysession.rpc.client import Channel, ClientCall
    from mobysession.testing.peer import Peer
    from mobysession.testing.peer_call import PeerCall

__all__ = ["STORE", "digest_of", "put_blob", "read", "send", "tree_of", "unary", "write_all"]

STORE = [(STORE_ID, "local:cache")]


def digest_of(content: bytes) -> str:
    """Return the digest under which a store has ``content``."""
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def put_blob(folder: Path, content: bytes) -> str:
    """Put a blob into an OCI layout as another program would; return its digest."""
    digest = digest_of(content)
    path = folder / "blobs" / digest.replace(":", "/")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return digest


def tree_of(folder: Path) -> set[str]:
    """Return every file below a directory."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir() or path.is_symlink()}


async def unary(channel: Channel, method: str, request: Any, response: Any, metadata: Any = STORE) -> Any:
    """Call a method with one message each way."""
    return await channel.unary(SERVICE + method, request, response, metadata=metadata)


async def read(
    channel: Channel, digest: str, offset: int = 0, size: int = 0, metadata: Any = STORE
) -> list[content_pb2.ReadContentResponse]:
    """Return the messages of one Read."""
    found: list[content_pb2.ReadContentResponse] = []
    async with channel.open_call(SERVICE + "Read", metadata=metadata) as call:
        await call.end(content_pb2.ReadContentRequest(digest=digest, offset=offset, size=size).SerializeToString())
        while messages := await call.receive_batch():
            found += map(content_pb2.ReadContentResponse.FromString, messages)
    return found


async def send(call: ClientCall | PeerCall, action: int, **fields: Any) -> content_pb2.WriteContentResponse:
    """Send one message of a Write and return its answer, in step as a daemon's writer does it."""
    request = content_pb2.WriteContentRequest(action=action, **fields)  # type: ignore[arg-type]  # a number will do
    await call.send(request.SerializeToString())
    answer = await call.receive()
    assert answer is not None, "the call ended without an answer"
    return content_pb2.WriteContentResponse.FromString(answer)


async def write_all(
    channel: Channel | Peer, ref: str, content: bytes, *, expected: str = "", piece: int = 1000, metadata: Any = STORE
) -> str:
    """Write a blob as a daemon does: STAT, WRITE with offsets, COMMIT; return the digest it is told."""
    async with channel.open_call(SERVICE + "Write", metadata=metadata) as call:
        await send(call, content_pb2.STAT, ref=ref, total=len(content), expected=expected)
        for start in range(0, len(content), piece):
            await send(call, content_pb2.WRITE, offset=start, data=content[start : start + piece])
        answer = await send(
            call, content_pb2.COMMIT, total=len(content), offset=len(content), expected=expected, labels={"a": "b"}
        )
        assert await call.receive() is None
    return answer.digest
