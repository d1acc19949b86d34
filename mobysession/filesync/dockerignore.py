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
from mobysession.filesync.modes import NAMED_PIPE
from mobysession.filesync.naming import cannot, quote
from mobysession.filesync.source import content_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from mobysession.filesync.source import Source

__all__ = [
    "IgnoreLine",
    "asked_ignore_files",
    "bad_line",
    "find_line",
    "find_pattern",
    "ignore_file",
    "long_line",
    "parse_ignore_file",
    "parses",
    "read_file",
    "refuse_pipe",
    "unprintable_line",
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


def find_line(files: Iterable[tuple[Source, str]], fault: Callable[[bytes], int | None]) -> str | None:
    """Return where ``fault`` finds a line in the first of ``files`` that is not empty; None for nowhere."""
    for source, path in files:
        if content := _content(source, path):
            number = fault(content)
            return None if number is None else f"{path}:{number}"
    return None


def bad_line(content: bytes) -> int | None:
    """Return the number of the first line whose pattern does not parse."""
    return next((line.number for line in parse_ignore_file(content) if not parses(line)), None)


def long_line(content: bytes) -> int | None:
    """Return the number of the first line that is too long for engines to read, a comment or not."""
    lines = enumerate(content.split(b"\n"), 1)
    return next((number for number, line in lines if len(line) > limits.MAX_IGNORE_LINE), None)


def unprintable_line(content: bytes) -> int | None:
    """Return the number of the first line with a control character that engines cannot pass on.

    They put patterns into headers, encoded only where one of them is not ASCII; newer ones then look at the characters.

    Source: moby/buildkit session/filesync/filesync.go, encodeOpts; grpc/grpc-go internal/metadata, ValidatePair.
    """
    lines = list(parse_ignore_file(content))
    if not all(line.pattern.isascii() for line in lines):
        return None
    return next((line.number for line in lines if not line.pattern.isprintable()), None)


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
    return list(parse_ignore_file(_content(source, path)))


def _content(source: Source, path: str) -> bytes:
    with suppress(OSError, ContextError):
        return _read_there(source, path) or b""
    return b""


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

    refuse_pipe(source, path)
    found = find_file(source, path)
    return None if found is None else read_file(source, found)


def refuse_pipe(source: Source, path: str) -> None:
    """Raise `ContextError` where ``path`` leads to a named pipe, from which an engine would wait to read for ever."""
    from mobysession.filesync.followpaths import lead  # most builds read no ignore file here

    found = lead(source, path)
    if found is not None and found[1].mode & NAMED_PIPE:
        raise ContextError(
            f"{quote(path)} is a named pipe, which engines wait to read from for ever",
            hint="write its content to a file",
        )


def read_file(source: Source, path: bytes) -> bytes:
    """Return the content of a file, up to `limits.MAX_IGNORE_FILE` bytes; raise OSError when it cannot be read."""
    content = content_of(source.fetch(path, 0), path)
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
