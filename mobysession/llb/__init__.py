"""LLB, in which BuildKit thinks: a build as a graph of operations, written in Python instead of a Dockerfile.

::

    from mobysession import llb

    base = llb.image("busybox")
    built = base.run("echo hello > /greeting", mounts=[llb.cache("/var/cache")])
    result = llb.scratch().copy(built, "/greeting", "/")
    definition = result.definition()

A `State` is a file system that operations lead to, with what the next command would run in. States never change: each
method returns another. Nothing is asked of an engine before the definition of one is solved, with
``mobysession.build.build(result)``.

Source: moby/buildkit solver/pb/ops.proto, client/llb/.
"""

from mobysession.llb.definition import Definition
from mobysession.llb.files import FileAction, copy, mkdir, mkfile, rm, symlink
from mobysession.llb.mounts import Mount, bind, cache, secret, ssh, tmpfs
from mobysession.llb.sources import git, http, image, local
from mobysession.llb.state import Run, State, diff, merge, scratch

__all__ = [
    "Definition",
    "FileAction",
    "Mount",
    "Run",
    "State",
    "bind",
    "cache",
    "copy",
    "diff",
    "git",
    "http",
    "image",
    "local",
    "merge",
    "mkdir",
    "mkfile",
    "rm",
    "scratch",
    "secret",
    "ssh",
    "symlink",
    "tmpfs",
]
