"""Contexts that the engine fetches by itself: repositories, archives and Dockerfiles behind an address.

What is the path of a directory here is that directory, whatever else it looks like. The Dockerfile is looked for in
what was fetched, unless its path is absolute or it comes from stdin.

Source: docker/buildx build/opt.go, loadInputs; moby/buildkit frontend/dockerfile/dfgitutil/git_ref.go.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Final

from mobysession.build.contexts import Contexts, SourceFile, local_sources
from mobysession.errors import ContextError, UsageError
from mobysession.filesync.sources import as_source
from mobysession.identity import new_id

if TYPE_CHECKING:
    from mobysession.build.options import BuildOptions
    from mobysession.filesync.sources import SourceLike

__all__ = ["context_attributes", "is_git_ssh", "is_remote_context", "remote_contexts"]

_SCHEMES: Final = r"(?:https?|git|ssh)://"
#: ``user@host:path``, which ssh and git take for an address.
_SCP: Final = r"[a-zA-Z0-9-_]+@[a-zA-Z0-9-.]+:(?!//).+"
#: What a frontend must be able to where a repository is named with a query, as ``?ref=main``.
_QUERY: Final = "moby.buildkit.frontend.gitquerystring"
#: Where a Dockerfile is read from that does not come with the context.
_HERE: Final = "dockerfile"


def is_remote_context(context: object) -> bool:
    """Tell whether a context is for the engine to fetch; looks at the disk."""
    if not isinstance(context, str) or re.match(f"{_SCHEMES}|{_SCP}|github\\.com/", context) is None:
        return False
    return not os.path.isdir(context)


def is_git_ssh(context: str) -> bool:
    """Tell whether it is a repository that is fetched through ssh."""
    return context.startswith("ssh://") or re.match(_SCP, context) is not None


def remote_contexts(options: BuildOptions, dockerfile: SourceLike | None = None) -> Contexts:
    """Return what a build reads of this machine whose context is elsewhere; looks at the disk.

    Args:
        options: the build.
        dockerfile: a tree with a ``Dockerfile``, where that does not come with the context.

    Raises:
        ContextError: a Dockerfile that is named by an absolute path is not there.
    """
    sources: dict[str, SourceLike] = {**local_sources(options)}
    name = os.fspath(options.file) if options.file is not None else "Dockerfile"
    file: Path | SourceFile = SourceFile(name, as_source({}))
    if dockerfile is not None:
        source = as_source(dockerfile)
        file, sources[_HERE] = SourceFile("Dockerfile", source), source
    elif re.match("https?://", name):
        raise UsageError(f"the Dockerfile {name!r} cannot be an address", hint="Fetch it, and name the file.")
    elif os.path.isabs(name):
        file = Path(name)
        if not file.is_file():
            raise ContextError(f"there is no Dockerfile {name}")
        sources[_HERE] = file.parent
    return Contexts(sources, "remote", new_id(), file)


def context_attributes(options: BuildOptions, *, local_dockerfile: bool) -> dict[str, str]:
    """Return what the frontend is told of contexts besides their files: an address, and what it must be able to.

    Args:
        options: the build.
        local_dockerfile: whether the Dockerfile is read from here.
    """
    attributes = {}
    remote = is_remote_context(options.context)
    if remote:
        attributes["context"] = str(options.context)
    if options.file == "-" or (remote and local_dockerfile):
        attributes["dockerfilekey"] = _HERE
    caps = {"moby.buildkit.frontend.contexts+forward"} if options.build_contexts else set()
    if remote and _has_git_query(str(options.context)):
        caps.add(_QUERY)
    if any(isinstance(given, str) and _has_git_query(given) for given in options.build_contexts.values()):
        caps.add(f"{_QUERY}+forward")
    if caps:
        attributes["frontend.caps"] = ",".join(sorted(caps))
    return attributes


def _has_git_query(address: str) -> bool:
    found = re.match(rf"{_SCHEMES}[^?#]*\?[^#]+", address)
    return found is not None and (not address.startswith("http") or ".git?" in address)
