"""What may be given where a tree is wanted: a path, a mapping, or a source."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Union

from mobysession.errors import UsageError
from mobysession.filesync.directory import Directory
from mobysession.filesync.source import Source

if TYPE_CHECKING:
    from mobysession.filesync.files import FilesLike

__all__ = ["SourceLike", "as_source"]

#: A directory of this machine, a mapping of paths to contents (see `Files`), or any source.
SourceLike = Union[str, "os.PathLike[str]", "FilesLike", Source]


def as_source(given: SourceLike) -> Source:
    """Return the source that ``given`` stands for.

    Raises:
        UsageError: it stands for none.
    """
    if isinstance(given, (str, os.PathLike)):
        return Directory(given)
    if isinstance(given, Mapping):
        from mobysession.filesync.files import Files  # only for who gives one: start-up

        return Files(given)
    if not all(hasattr(given, name) for name in ("check", "entries", "readlink", "xattrs", "lookup", "fetch")):
        # Of its type only: what it is may be large, and secret.
        what = f"an object of type {type(given).__name__} is no directory, mapping or source"
        raise UsageError(what, hint=_hint(given))
    return given


def _hint(given: object) -> str:
    names = {kind.__name__ for kind in type(given).__mro__}
    if "ZipFile" in names:
        return "Give ZipArchive(file), of the path or the open file that it reads."
    if "TarFile" in names:
        return "Give TarArchive(file), of the path or the open file that it reads."
    if isinstance(given, (bytes, bytearray, memoryview)):
        return (
            'Give a Dockerfile as {"Dockerfile": content}, and an archive as TarArchive(io.BytesIO(content)) or'
            " ZipArchive(io.BytesIO(content))."
        )
    if hasattr(given, "read"):
        return "Give an archive as TarArchive(file) or ZipArchive(file)."
    return "A source has the methods of Source."
