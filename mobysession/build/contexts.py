"""What a build reads besides a plain directory: a context from any source, and further contexts by name.

A named context is what ``FROM name`` and ``COPY --from=name`` refer to: a tree of this machine, which the engine reads
under that name, or something that the engine finds itself (``docker-image://alpine``, an address of git).
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from mobysession.errors import ContextError, UsageError
from mobysession.filesync.dockerignore import read_file
from mobysession.filesync.source import opened
from mobysession.filesync.sources import as_source
from mobysession.identity import new_id, shared_key

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mobysession.build.options import BuildOptions
    from mobysession.filesync import Source
    from mobysession.filesync.sources import SourceLike

__all__ = [
    "Contexts",
    "SourceFile",
    "context_name",
    "contexts_of",
    "is_remote",
    "key_of_sources",
    "local_name",
    "local_sources",
    "refuse_inner",
]

#: Values that the engine resolves: with a scheme, or as git addresses without one.
_REMOTE = r"(?:[a-z][a-z0-9+.-]*://|[\w-]+@[\w.-]+:|github\.com/|docker-image:|oci-layout:|target:|input:)"
#: Those among them that only bake has anything for: what another target is made of.
_INNER = ("target:", "input:")
_TAKEN = ("context", "dockerfile")


class Contexts(NamedTuple):
    """The trees of a build, by the names under which the engine asks for them, and where the Dockerfile is.

    Attributes:
        name: what the session is called.
        shared_key: the session's.
    """

    sources: Mapping[str, SourceLike]
    name: str
    shared_key: str
    dockerfile: Path | SourceFile


class SourceFile(NamedTuple):
    """A file of a source, with what is needed of `Path`."""

    name: str
    source: Source

    def read_bytes(self) -> bytes:
        """Return its content; raise OSError when it cannot be read; blocking."""
        with opened(self.source):
            return read_file(self.source, os.fsencode(self.name))


def contexts_of(options: BuildOptions) -> Contexts:
    """Return what a build reads; looks at the disk.

    Raises:
        ContextError: a tree or the Dockerfile is missing, or not what it must be.
    """
    named = local_sources(options)
    if isinstance(options.context, (str, os.PathLike)):
        context, directory, dockerfile = options.directories()
        sources: dict[str, SourceLike] = {"context": context, "dockerfile": directory, **named}
        key = key_of_sources(as_source(context), *named.values())
        return Contexts(sources, context.resolve().name, key, directory / dockerfile)
    source = as_source(options.tree())
    source.check()
    file, folder = _dockerfile(source, options.file)
    sources = {"context": source, "dockerfile": folder, **named}
    return Contexts(sources, "context", key_of_sources(source, *named.values()), file)


def local_sources(options: BuildOptions) -> dict[str, Source]:
    """Return the named contexts that are trees of this machine, by the names under which the engine reads them."""
    return {
        local_name(name): as_source(given)
        for name, given in options.build_contexts.items()
        if not (isinstance(given, str) and is_remote(given))
    }


def is_remote(value: str) -> bool:
    """Tell whether a named context is for the engine to find."""
    return re.match(_REMOTE, value) is not None


def refuse_inner(named: Mapping[str, SourceLike]) -> None:
    """Refuse contexts that mean the result of another build, where there is none.

    Raises:
        UsageError: one does. The engine would tell of it only where the Dockerfile uses the context.
    """
    for name, given in named.items():
        if isinstance(given, str) and given.startswith(_INNER):
            raise UsageError(
                f"the context {name!r} is {given!r}, and there is no other target in a build",
                hint="Build both with bake; or, if a directory is meant, write ./ in front of it.",
            )


def context_name(name: str) -> str:
    """Return a context's name as a frontend looks it up: like an image's, without what goes without saying.

    Source: docker/buildx util/buildflags/context.go; moby/buildkit frontend/dockerui/namedcontext.go.
    """
    return name.removeprefix("docker.io/").removeprefix("library/").removesuffix(":latest")


def local_name(name: str) -> str:
    """Return the name under which the engine reads a named context.

    Source: docker/buildx build/opt.go, loadInputs: two names have a meaning of their own.
    """
    name = context_name(name)
    return f"_{name}" if name in _TAKEN else name


def _dockerfile(source: Source, file: str | os.PathLike[str] | None) -> tuple[Path | SourceFile, SourceLike]:
    """Return the Dockerfile and the tree it is in: the context, where it has such a path, or else the disk."""
    with opened(source):
        for name in ("Dockerfile", "dockerfile") if file is None else (os.fspath(file),):
            if source.lookup(os.fsencode(name)) is not None:
                return SourceFile("Dockerfile" if file is None else name, source), source
    if file is None:
        raise ContextError(f"there is no Dockerfile in {source!r}", hint="Name it with file=.")
    path = Path(file)
    if not path.is_file():
        raise ContextError(f"there is no Dockerfile {os.fspath(file)!r} in {source!r}, and none on disk")
    return path, path.parent


def key_of_sources(*sources: Source) -> str:
    """Return the key under which the engine finds its earlier copies; a fresh one where they must not be found.

    A directory alone has the key of its path. Of what cannot be placed nobody knows whether equal times mean equal
    contents.
    """
    places = [getattr(source, "location", None) for source in sources]
    known = [place for place in places if place]
    if None in places or not known:
        return new_id()
    return shared_key(known[0]) if known[0].startswith("/") and len(known) == 1 else shared_key("/" + "\n".join(known))
