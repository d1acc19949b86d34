"""``.dockerignore`` files: which lines are patterns, and which line a pattern comes from.

The engine reads these files itself and sends the patterns; here they are read to say where a pattern is written, and
to know without an engine what would be left out.

Source: moby/patternmatcher ignorefile/ignorefile.go.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from mobysession import limits
from mobysession.filesync.gopath import clean, trim_space

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mobysession.filesync.source import Source

__all__ = ["IgnoreLine", "find_bad_pattern", "find_pattern", "ignore_file", "parse_ignore_file", "parses", "read_file"]

_SUFFIX: Final = b".dockerignore"


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


def find_pattern(source: Source, pattern: str) -> str | None:
    """Return where ``pattern``, as the engine sent it, is written in ``source``; None where it is not.

    Looked into are ``.dockerignore`` and every other file at the top whose name ends so, of which a build may use one.
    """
    try:
        for name, line in _lines(source):
            if trim_space(line.pattern) == trim_space(pattern):
                return f"{name}:{line.number}"
    except OSError:
        # This only makes an error message better.
        return None
    return None


def find_bad_pattern(source: Source) -> str | None:
    """Return where in the ignore files of ``source`` the first pattern is that does not parse; None for nowhere."""
    return next((f"{name}:{line.number}" for name, line in _lines(source) if not parses(line)), None)


def parses(line: IgnoreLine) -> bool:
    """Tell whether the engine will take the pattern of a line."""
    from mobysession.filesync.patterns import BadPattern, PatternList  # needed for errors alone

    try:
        PatternList([line.pattern])
    except BadPattern:
        return False
    return True


def _lines(source: Source) -> Iterator[tuple[str, IgnoreLine]]:
    """Yield the patterns of every ignore file at the top, ``.dockerignore`` first."""
    found = [entry.name for entry in source.entries(b"") if entry.name.endswith(_SUFFIX)]
    for name in sorted(found, key=lambda name: (name != _SUFFIX, name)):
        for line in parse_ignore_file(read_file(source, name)):
            yield name.decode("utf-8", "replace"), line


def ignore_file(source: Source, dockerfile: Source, name: str) -> tuple[str, bytes] | None:
    """Return name and content of the ignore file that a build of ``source`` uses; None where there is none.

    Args:
        dockerfile: the source that the Dockerfile is in, with ``name``; its own ignore file is preferred.

    Raises:
        OSError: it cannot be read.

    Source: moby/buildkit frontend/dockerui/config.go, MainContext and DockerIgnorePatterns.
    """
    own = name.encode("utf-8", "surrogateescape") + _SUFFIX
    if dockerfile.lookup(own) is not None:
        return name + ".dockerignore", read_file(dockerfile, own)
    if source.lookup(_SUFFIX) is not None:
        return ".dockerignore", read_file(source, _SUFFIX)
    return None


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
