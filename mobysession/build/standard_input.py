"""Building from standard input: ``-`` as the context, which is a tar or a Dockerfile alone, or as the Dockerfile.

A context is not read here. It is uploaded as the engine pulls it, and the engine sees from its first bytes what it is.
Only where a Dockerfile is named besides are they looked at: a Dockerfile alone has no place for another.

Source: docker/buildx build/opt.go, loadInputs; moby/buildkit frontend/dockerui/context.go.
"""

from __future__ import annotations

import os
import sys
import tarfile
from dataclasses import replace
from typing import TYPE_CHECKING, BinaryIO

from mobysession import limits
from mobysession.build.contexts import Contexts, SourceFile, local_sources
from mobysession.build.remote import is_remote_context, remote_contexts
from mobysession.errors import ContextError, UsageError
from mobysession.filesync.sources import as_source
from mobysession.identity import new_id, shared_key
from mobysession.services.upload import Upload

if TYPE_CHECKING:
    from mobysession.build.options import BuildOptions
    from mobysession.services.upload import Readable

__all__ = ["dockerfile_from_stdin", "upload_stdin"]

#: How bzip2, gzip and xz begin, which an engine unpacks.
_COMPRESSED = (b"BZh", b"\x1f\x8b\x08", b"\xfd7zXZ\x00")


def upload_stdin(options: BuildOptions) -> tuple[BuildOptions, Contexts, Upload]:
    """Return what a build of standard input is asked for, what it reads besides, and the upload that it pulls.

    Raises:
        UsageError: the options do not go together with it, or a Dockerfile is named and it is one itself.
        ContextError: standard input is a terminal.
    """
    if options.file == "-":
        raise UsageError("the context and the Dockerfile cannot both come from stdin")
    upload = Upload()
    url = upload.add(_stdin() if options.file is None else _archive(_stdin()))
    name = os.fspath(options.file) if options.file is not None else "Dockerfile"
    contexts = Contexts(local_sources(options), "stdin", new_id(), SourceFile(name, as_source({})))
    return replace(options, context=url), contexts, upload


class _Begun:
    """A stream of which some was read already."""

    def __init__(self, beginning: bytes, rest: BinaryIO) -> None:
        self._beginning = beginning
        self._read = getattr(rest, "read1", rest.read)

    def read(self, size: int, /) -> bytes:
        piece, self._beginning = self._beginning, b""
        return piece or bytes(self._read(size))


def _archive(stream: BinaryIO) -> Readable:
    try:
        beginning = stream.read(tarfile.BLOCKSIZE)
    except OSError as error:
        raise ContextError(f"the context on stdin cannot be read: {(error.strerror or 'failed').lower()}") from error
    if not beginning.startswith(_COMPRESSED):
        try:
            tarfile.TarInfo.frombuf(beginning, "utf-8", "surrogateescape")
        except tarfile.TarError:
            raise UsageError(
                "what comes from stdin is no archive but a Dockerfile, and another one is named",
                hint="Leave file= (--file) out, or send a tar that holds it.",
            ) from None
    return _Begun(beginning, stream)


def dockerfile_from_stdin(options: BuildOptions) -> Contexts:
    """Return what a build reads whose Dockerfile is standard input, which is read to its end; blocking.

    Raises:
        ContextError: it cannot be read, is too large, or the context is no directory.
    """
    if is_remote_context(options.context):
        return remote_contexts(options, {"Dockerfile": _dockerfile()})
    context = options.directory()
    source = as_source({"Dockerfile": _dockerfile()})
    sources = {"context": as_source(context), "dockerfile": source, **local_sources(options)}
    return Contexts(sources, context.resolve().name, shared_key(context), SourceFile("Dockerfile", source))


def _dockerfile() -> bytes:
    try:
        content = _stdin().read(limits.MAX_DOCKERFILE + 1)
    except OSError as error:
        raise ContextError(f"the Dockerfile on stdin cannot be read: {(error.strerror or 'failed').lower()}") from error
    if len(content) > limits.MAX_DOCKERFILE:
        raise ContextError(f"the Dockerfile on stdin has more than {limits.MAX_DOCKERFILE} bytes")
    return content


def _stdin() -> BinaryIO:
    if sys.stdin is None or sys.stdin.isatty():
        raise ContextError("stdin is a terminal", hint="Send a tar or a Dockerfile to it, as with < or a pipe.")
    return sys.stdin.buffer
