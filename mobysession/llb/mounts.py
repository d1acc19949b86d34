"""What a command sees besides its root: other file systems, caches, secrets, agents."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from mobysession._pb import ops_pb2
from mobysession.errors import UsageError
from mobysession.llb.vertex import check_state, check_texts

if TYPE_CHECKING:
    from mobysession.llb.state import State
    from mobysession.llb.vertex import Output

__all__ = ["EMPTY", "NO_OUTPUT", "Mount", "bind", "cache", "secret", "ssh", "tmpfs"]

#: As the input of a mount: none, it is empty at first. As its output: what becomes of it is no result.
EMPTY = NO_OUTPUT = -1
_SHARING = {
    "shared": ops_pb2.CacheSharingOpt.SHARED,
    "private": ops_pb2.CacheSharingOpt.PRIVATE,
    "locked": ops_pb2.CacheSharingOpt.LOCKED,
}


class Mount(NamedTuple):
    """One mount: the message but for its input and output, what it starts from, and whether it leads to a result."""

    message: ops_pb2.Mount
    source: Output | None = None
    has_output: bool = False
    caps: tuple[str, ...] = ()


def bind(source: State, target: str, *, path: str = "/", readonly: bool = False) -> Mount:
    """Mount a file system, or a directory of it.

    What a command writes there is a state of its own, `Run.mount`, unless it is ``readonly``.

    Args:
        source: what is mounted; `scratch` is an empty directory.
        target: where.
        path: what of it.
        readonly: nothing can be written.
    """
    check_state("bind", source)
    message = ops_pb2.Mount(dest=_absolute(target), readonly=readonly)
    caps = ["exec.mount.bind"] if source.output is not None else []
    if path.strip("/"):
        message.selector = path
        caps.append("exec.mount.selector")
    return Mount(message, source.output, not readonly, tuple(caps))


def cache(target: str, *, cache_id: str = "", sharing: str = "shared", base: State | None = None) -> Mount:
    """Mount a directory that is kept between builds.

    Args:
        target: where.
        cache_id: mounts of one ID are the same directory; empty is ``target``.
        sharing: what happens where two use it at once: ``shared``, ``private`` (another one) or ``locked`` (they wait).
        base: what it starts with.

    Raises:
        UsageError: there is no such sharing.
    """
    if sharing not in _SHARING:
        raise UsageError(f"a cache cannot be {sharing!r}", hint="Choose shared, private or locked.")
    option = ops_pb2.CacheOpt(ID=cache_id or _absolute(target), sharing=_SHARING[sharing])
    message = ops_pb2.Mount(dest=_absolute(target), mountType=ops_pb2.CACHE, cacheOpt=option)
    caps = ("exec.mount.cache", "exec.mount.cache.sharing")
    return Mount(message, base.output if base is not None else None, False, caps)


def tmpfs(target: str, *, size: int = 0) -> Mount:
    """Mount an empty directory in memory, of ``size`` bytes at most; 0 is the engine's own bound."""
    message = ops_pb2.Mount(dest=_absolute(target), mountType=ops_pb2.TMPFS, TmpfsOpt=ops_pb2.TmpfsOpt(size=size))
    return Mount(message, caps=("exec.mount.tmpfs", *(("exec.mount.tmpfs.size",) if size else ())))


def secret(
    secret_id: str, target: str = "", *, mode: int = 0o400, owner: tuple[int, int] = (0, 0), required: bool = False
) -> Mount:
    """Mount a secret as a file; empty ``target`` is ``/run/secrets/ID``. Without ``required`` it may be missing."""
    check_texts(secret_id=secret_id)
    option = ops_pb2.SecretOpt(ID=secret_id, uid=owner[0], gid=owner[1], mode=mode, optional=not required)
    message = ops_pb2.Mount(
        dest=_absolute(target or f"/run/secrets/{secret_id}"), mountType=ops_pb2.SECRET, secretOpt=option
    )
    return Mount(message, caps=("exec.mount.secret",))


def ssh(
    agent_id: str = "default",
    target: str = "",
    *,
    mode: int = 0o600,
    owner: tuple[int, int] = (0, 0),
    required: bool = False,
) -> Mount:
    """Mount the socket of an SSH agent, on a path of its own without ``target``; SSH_AUTH_SOCK names the first."""
    check_texts(agent_id=agent_id)
    option = ops_pb2.SSHOpt(ID=agent_id, uid=owner[0], gid=owner[1], mode=mode, optional=not required)
    message = ops_pb2.Mount(dest=target and _absolute(target), mountType=ops_pb2.SSH, SSHOpt=option)
    return Mount(message, caps=("exec.mount.ssh",))


def _absolute(target: str) -> str:
    check_texts(target=target)
    if not target.startswith("/"):
        raise UsageError(f"{target!r} is no absolute path, and nothing else can be mounted on")
    return target
