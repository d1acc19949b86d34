"""The files that a build leaves beside the image: the image's ID, and the engine's response."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING

from mobysession.errors import ProviderError

if TYPE_CHECKING:
    from mobysession.build.options import BuildOptions
    from mobysession.build.result import BuildResult

__all__ = ["check_outputs", "told_id", "write_atomically", "write_outputs"]


def check_outputs(options: BuildOptions) -> None:
    """Refuse output files that cannot be written before the build, not after it; blocking. Raises ProviderError."""
    for path in (options.iidfile, options.metadata_file, options.timeline):
        if path is None or _descriptor(path) is not None:
            continue
        folder = os.path.dirname(os.path.realpath(path))
        reason = None
        if not os.fspath(path):
            reason = "its name is empty"
        elif os.path.isdir(path):
            reason = "it is a directory"
        elif os.path.exists(path) and not os.path.isfile(path):
            reason = None if os.access(path, os.W_OK) else "permission denied"
        elif not os.path.isdir(folder):
            reason = f"there is no directory {folder}"
        elif not os.access(folder, os.W_OK):
            reason = "permission denied"
        if reason is not None:
            raise ProviderError(f"{os.fspath(path)!r} cannot be written: {reason}")
    if options.iidfile is not None and _descriptor(options.iidfile) is None and os.path.isfile(options.iidfile):
        # As with docker: who reads it after a failed build must not take an older image for the new one.
        os.unlink(os.path.realpath(options.iidfile))


def told_id(result: BuildResult) -> str:
    """Return the ID that scripts are given: the engine's, and of an image that is elsewhere its configuration's digest.

    Source: docker/buildx commands/build.go, getImageID.
    """
    return result.image_id or result.response.get("containerimage.config.digest") or result.digest


def write_outputs(options: BuildOptions, result: BuildResult) -> None:
    """Write the files that ``options`` ask for; blocking. Raises ProviderError, which tells the image's ID."""
    if options.iidfile is not None:
        _write_output(options.iidfile, told_id(result), result)
    if options.metadata_file is not None:
        import json

        _write_output(options.metadata_file, json.dumps(result.metadata(), indent=2) + "\n", result)


def _write_output(path: str | os.PathLike[str], text: str, result: BuildResult) -> None:
    try:
        write_atomically(path, text)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise ProviderError(
            f"the image {told_id(result)} was built, but {os.fspath(path)!r} cannot be written: {reason}"
        ) from error


def write_atomically(path: str | os.PathLike[str], text: str) -> None:
    """Write ``text`` to ``path`` so that a reader sees the old content or the new, never a part; blocking.

    A link stays one: what it leads to is replaced. A device or a pipe is written to, and so is what is open here
    already, as ``/dev/stderr``: were a log replaced, all that is written to it would be lost.
    """
    target = os.path.realpath(path)
    descriptor = _descriptor(path)
    if descriptor is not None:
        with open(os.dup(descriptor), "w", encoding="utf-8", errors="surrogateescape") as file:
            file.write(text)
        return
    if os.path.exists(path) and not os.path.isfile(path):
        with open(path, "w", encoding="utf-8", errors="surrogateescape") as file:
            file.write(text)
        return
    scratch = f"{target}.tmp-{os.getpid()}"
    try:
        with open(scratch, "w", encoding="utf-8", errors="surrogateescape") as file:
            file.write(text)
        os.replace(scratch, target)
    except BaseException:
        with suppress(OSError):
            os.unlink(scratch)
        raise


def _descriptor(path: str | os.PathLike[str]) -> int | None:
    """Return the open descriptor that a path names, or the standard stream that writes where it leads; else None."""
    folder, name = os.path.split(os.fspath(path))
    if folder in ("/dev/fd", "/proc/self/fd") and name.isdecimal():
        return int(name)
    with suppress(OSError):
        found = os.stat(path)
        for standard in (1, 2):
            with suppress(OSError):
                if os.path.samestat(os.fstat(standard), found):
                    return standard
    return None
