"""What can be done to files without running a command: made, copied, removed, linked."""

from __future__ import annotations

import posixpath
from typing import TYPE_CHECKING, NamedTuple

from mobysession._pb import ops_pb2
from mobysession.errors import UsageError
from mobysession.llb.vertex import check_state, check_texts

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from mobysession.llb.state import State
    from mobysession.llb.vertex import Output

__all__ = ["FileAction", "Owner", "copy", "file_op", "mkdir", "mkfile", "rm", "symlink"]

#: ``"user:group"``, names or numbers, or two numbers. Names are looked up in the state that is changed.
Owner = str | tuple[int, int]
#: As an input: none. As an output: of no further use. As a mode or a time: not to be set.
_NONE = -1


class FileAction(NamedTuple):
    """One action: the message but for its inputs and output, what is copied from, and who is to own the result."""

    message: ops_pb2.FileAction
    source: Output | None = None
    owner: Owner | None = None
    caps: tuple[str, ...] = ()


def mkdir(
    path: str, *, mode: int = 0o755, parents: bool = False, owner: Owner | None = None, created: datetime | None = None
) -> FileAction:
    """Make a directory, and with ``parents`` those above it; it is no error then that it exists."""
    check_texts(path=path)
    action = ops_pb2.FileActionMkDir(path=path, mode=mode, makeParents=parents, timestamp=_time(created))
    return FileAction(ops_pb2.FileAction(mkdir=action), owner=owner)


def mkfile(
    path: str,
    content: bytes | str,
    *,
    mode: int = 0o644,
    owner: Owner | None = None,
    created: datetime | None = None,
) -> FileAction:
    """Write a file."""
    check_texts(path=path)
    if not isinstance(content, bytes | str):
        raise UsageError(f"content takes bytes or a text, not an object of type {type(content).__name__}")
    data = content.encode() if isinstance(content, str) else content
    action = ops_pb2.FileActionMkFile(path=path, mode=mode, data=data, timestamp=_time(created))
    return FileAction(ops_pb2.FileAction(mkfile=action), owner=owner)


def rm(path: str, *, missing_ok: bool = False, wildcard: bool = False) -> FileAction:
    """Remove a file or a directory with all that is in it; with ``wildcard`` all that ``path`` matches."""
    check_texts(path=path)
    action = ops_pb2.FileActionRm(path=path, allowNotFound=missing_ok, allowWildcard=wildcard)
    return FileAction(ops_pb2.FileAction(rm=action), caps=("file.rm.wildcard",) if wildcard else ())


def symlink(target: str, path: str, *, owner: Owner | None = None, created: datetime | None = None) -> FileAction:
    """Make ``path`` a link to ``target``."""
    check_texts(target=target, path=path)
    action = ops_pb2.FileActionSymlink(oldpath=target, newpath=path, timestamp=_time(created))
    return FileAction(ops_pb2.FileAction(symlink=action), owner=owner, caps=("file.symlink.create",))


def copy(
    source: State,
    src: str,
    dest: str,
    *,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    contents: bool = False,
    parents: bool = False,
    wildcard: bool = False,
    empty_ok: bool = False,
    follow: bool = False,
    unpack: bool = False,
    mode: int | str | None = None,
    owner: Owner | None = None,
    created: datetime | None = None,
) -> FileAction:
    """Copy from another state.

    Args:
        source: where it comes from.
        src: what of it.
        dest: where it goes; with a slash at its end it is a directory to copy into.
        include: patterns of what of a directory is wanted; ``exclude``: of what is not.
        contents: of a directory, copy what is in it rather than itself.
        parents: make the directories above ``dest``.
        wildcard: ``src`` is a pattern; with ``empty_ok`` it may match nothing.
        follow: copy what links lead to.
        unpack: unpack what is a tar archive, as ADD does.
        mode: permissions, as a number or in chmod's words (``u=rwX,go=rX``).
        owner: who is to own it.
        created: its time.

    Raises:
        UsageError: there is nothing to copy from.
    """
    check_state("copy", source)
    check_texts(src=src, dest=dest)
    if source.output is None:
        raise UsageError("nothing can be copied from scratch, which is empty")
    action = ops_pb2.FileActionCopy(
        src=_joined(source.cwd, src),
        dest=dest,
        mode=mode if isinstance(mode, int) else _NONE if mode is None else 0,
        modeStr=mode if isinstance(mode, str) else "",
        followSymlink=follow,
        dirCopyContents=contents,
        attemptUnpackDockerCompatibility=unpack,
        createDestPath=parents,
        allowWildcard=wildcard,
        allowEmptyWildcard=empty_ok,
        include_patterns=include,
        exclude_patterns=exclude,
        timestamp=_time(created),
    )
    caps = ["file.copy.includeexcludepatterns"] if include or exclude else []
    if isinstance(mode, str):
        caps.append("file.copy.modestring")
    return FileAction(ops_pb2.FileAction(copy=action), source.output, owner, tuple(caps))


def file_op(base: Output | None, cwd: str, actions: Sequence[FileAction]) -> tuple[ops_pb2.Op, list[Output], set[str]]:
    """Return one operation that does ``actions`` one after the other, its inputs, and what BuildKit must know.

    Raises:
        UsageError: an owner makes no sense.
    """
    inputs = [base] if base is not None else []
    sources: list[int] = []
    for action in actions:
        if action.source is not None and action.source not in inputs:
            inputs.append(action.source)
        sources.append(inputs.index(action.source) if action.source is not None else _NONE)
    op = ops_pb2.Op(file=ops_pb2.FileOp())
    for at, (action, source) in enumerate(zip(actions, sources, strict=True)):
        message = op.file.actions.add()
        message.CopyFrom(action.message)
        # What an action works on: the base at first, then what the one before it made, counted behind the inputs.
        message.input = len(inputs) + at - 1 if at else (0 if base is not None else _NONE)
        message.secondaryInput = source
        message.output = 0 if at == len(actions) - 1 else _NONE
        _complete(message, cwd, action.owner, has_base=base is not None)
    return op, inputs, {"file.base", *(cap for action in actions for cap in action.caps)}


def _complete(message: ops_pb2.FileAction, cwd: str, owner: Owner | None, *, has_base: bool) -> None:
    """Make the paths of an action absolute, and fill in who is to own what it makes."""
    kind = message.WhichOneof("action")
    if kind == "symlink":
        message.symlink.newpath = _joined(cwd, message.symlink.newpath)
    elif kind == "copy":
        message.copy.dest = _joined(cwd, message.copy.dest)
    elif kind is not None:
        action = getattr(message, kind)
        action.path = _joined(cwd, action.path)
    if owner is not None and kind is not None:
        getattr(message, kind).owner.CopyFrom(_owner(owner, has_base=has_base))


def _joined(cwd: str, path: str) -> str:
    # A slash at the end says that a directory is meant.
    end = "/" if path.endswith(("/", "/.")) and path.strip("/.") else ""
    return posixpath.normpath(posixpath.join("/", cwd, path)) + end


def _owner(owner: Owner, *, has_base: bool) -> ops_pb2.ChownOpt:
    if isinstance(owner, tuple):
        user, group = map(str, owner)
    else:
        user, _, group = owner.partition(":")
    option = ops_pb2.ChownOpt()
    for name, message in ((user, option.user), (group, option.group)):
        if name.isdecimal():
            message.byID = int(name)
        elif name and has_base:
            message.byName.name, message.byName.input = name, 0
        elif name:
            raise UsageError(f"{name!r} is not known in an empty file system", hint="Give the owner as numbers.")
    return option


def _time(moment: datetime | None) -> int:
    if moment is None:
        return _NONE
    seconds, microseconds = int(moment.replace(microsecond=0).timestamp()), moment.microsecond
    return seconds * 10**9 + microseconds * 1000
