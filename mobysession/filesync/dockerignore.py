"""``.dockerignore`` files: which lines are patterns, and which line a pattern comes from.

The engine reads these files itself and sends the patterns; here they are read to say where a pattern is written, and
to know without an engine what would be left out.

Source: moby/patternmatcher ignorefile/ignorefile.go.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Final, NamedTuple

from mobysession import limits
from mobysession.errors import ContextError
from mobysession.filesync.gopath import clean, trim_space
from mobysession.filesync.naming import cannot

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from mobysession.filesync.source import Source

__all__ = [
    "IgnoreLine",
    "asked_ignore_files",
    "find_bad_pattern",
    "find_pattern",
    "ignore_file",
    "parse_ignore_file",
    "parses",
    "read_file",
]

_NAME: Final = ".dockerignore"


class IgnoreLine(NamedTuple):
    """One pattern of an ignore file.

    Attributes:
        number: of its line, from 1.
        pattern: as the engine sends it.
        written: as it stands there.
    """

    number: int
    pattern: str
    written: str


def parse_ignore_file(data: bytes) -> Iterator[IgnoreLine]:
    """Yield the patterns of an ignore file; comments and empty lines are left out."""
    text = data.removeprefix(b"\xef\xbb\xbf").decode("utf-8", "surrogateescape")
    for number, line in enumerate(text.split("\n"), 1):
        written = line.removesuffix("\r")
        if written.startswith("#"):
            continue
        pattern = trim_space(written)
        if not pattern:
            continue
        negated = pattern.startswith("!")
        if negated:
            pattern = trim_space(pattern[1:])
        if pattern:
            pattern = clean(pattern)
            if len(pattern) > 1 and pattern.startswith("/"):
                pattern = pattern[1:]
        yield IgnoreLine(number, "!" * negated + pattern, written)


def asked_ignore_files(paths: Sequence[str]) -> list[str]:
    """Return those of the ``paths`` that a frontend asks for which it reads patterns from.

    These are ``.dockerignore``, and ``<Dockerfile>.dockerignore`` with the Dockerfile itself beside it.
    """
    return [path for path in paths if path == _NAME or (path.endswith(_NAME) and path.removesuffix(_NAME) in paths)]


def find_pattern(files: Iterable[tuple[Source, str]], pattern: str) -> str | None:
    """Return where ``pattern``, as the engine sent it, is written first in ``files``; None where it is not.

    Args:
        files: ignore files, each by the source that it is in and its path there; those that are not there are left out.
    """
    for source, path in files:
        for line in _lines(source, path):
            if trim_space(line.pattern) == trim_space(pattern):
                return f"{path}:{line.number}"
    return None


def find_bad_pattern(files: Iterable[tuple[Source, str]]) -> str | None:
    """Return where the first pattern is that does not parse, in the first of ``files`` with any; None for nowhere."""
    for source, path in files:
        if lines := _lines(source, path):
            return next((f"{path}:{line.number}" for line in lines if not parses(line)), None)
    return None


def parses(line: IgnoreLine) -> bool:
    """Tell whether the engine will take the pattern of a line."""
    from mobysession.filesync.patterns import BadPattern, PatternList  # needed for errors alone

    try:
        PatternList([line.pattern])
    except BadPattern:
        return False
    return True


def _lines(source: Source, path: str) -> list[IgnoreLine]:
    """Return the patterns of an ignore file; none where it cannot be read, as this only makes an error better."""
    with suppress(OSError, ContextError):
        return list(parse_ignore_file(_read_there(source, path) or b""))
    return []


def ignore_file(source: Source, dockerfile: Source, name: str) -> tuple[str, bytes] | None:
    """Return name and content of the ignore file that a build of ``source`` uses; None where there is none.

    Args:
        dockerfile: the source that the Dockerfile is in, with ``name``; its own ignore file is preferred.

    Raises:
        ContextError: it cannot be read; the user must act.

    Source: moby/buildkit frontend/dockerui/config.go, ReadEntrypoint and dockerIgnorePatterns.
    """
    for place, path in ((dockerfile, name + _NAME), (source, _NAME)):
        try:
            content = _read_there(place, path)
        except OSError as error:
            raise cannot("read", path.encode("utf-8", "surrogateescape"), error) from error
        if content is not None:
            return path, content
    return None


def _read_there(source: Source, path: str) -> bytes | None:
    """Return the content of an ignore file, links followed; None where there is no file, which the engine passes over.

    Raises:
        OSError, ContextError: it is there and cannot be read.
    """
    from mobysession.filesync.followpaths import find_file  # most builds read no ignore file here

    found = find_file(source, path)
    return None if found is None else read_file(source, found)


def read_file(source: Source, path: bytes) -> bytes:
    """Return the content of a file, up to `limits.MAX_IGNORE_FILE` bytes; raise OSError when it cannot be read."""
    content = source.fetch(path, 0)
    if isinstance(content, bytes):
        return content
    try:
        whole = bytearray()
        buffer = memoryview(bytearray(64 * limits.KIB))
        while len(whole) < limits.MAX_IGNORE_FILE and (count := content.readinto(buffer)):
            whole += buffer[:count]
        return bytes(whole)
    finally:
        content.close()
