"""What a tree would send, and why: each entry in or out, by which pattern, and what it weighs.

The same patterns and the same walk as a transfer, but everything is looked at, what is left out included; only below a
directory that no pattern can take anything back from, sizes are added up and names are not kept.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

from mobysession import limits
from mobysession.errors import ContextError
from mobysession.filesync.dockerignore import ignore_file, long_line, parse_ignore_file, parses, unprintable_line
from mobysession.filesync.filters import Verdict, parse_filter
from mobysession.filesync.modes import DIRECTORY, TYPE
from mobysession.filesync.naming import cannot, quote
from mobysession.filesync.patterns import PatternList
from mobysession.filesync.source import keeping, opened

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from mobysession.filesync.dockerignore import IgnoreLine
    from mobysession.filesync.source import Entry, Source

__all__ = ["Explanation", "Reason", "Weight", "explain_context"]

#: Directories that hardly any build needs, by name, and what they are.
_SUSPECTS: Final[Mapping[str, str]] = {
    ".git": "the history",
    ".hg": "the history",
    ".svn": "the history",
    "node_modules": "installed packages",
    ".venv": "a virtual environment",
    "venv": "a virtual environment",
    "__pycache__": "compiled Python",
    ".mypy_cache": "a cache",
    ".pytest_cache": "a cache",
    ".ruff_cache": "a cache",
    ".tox": "test environments",
    ".terraform": "downloaded providers",
    "target": "build results",
}
#: Bytes and files from which a directory or a file is worth a hint. Ours.
_HEAVY: Final = 10_000_000
_HEAVY_FILE: Final = 100_000_000
_MANY: Final = 10_000
_NEVER_NEEDED: Final = (".env", "id_rsa", "id_ed25519", ".npmrc", ".pypirc", ".netrc")


@dataclass(frozen=True, slots=True)
class Reason:
    """Why an entry is in or out.

    Attributes:
        path: of the entry.
        offered: whether it would be sent; a directory also where only something in it is, which then decided.
        pattern: that decided, as written; empty where none did.
        line: where that is written, as ``.dockerignore:3``; empty where there is no file.
        size: bytes of the file; of all that is in it where a directory is left out as a whole.
        files: the same, files.
    """

    path: str
    offered: bool
    pattern: str = ""
    line: str = ""
    size: int = 0
    files: int = 0


@dataclass(slots=True)
class Weight:
    """What is in a directory, with all below it: offered, and left out."""

    files: int = 0
    size: int = 0
    files_out: int = 0
    size_out: int = 0

    def add(self, other: Weight) -> None:
        """Add what is in another one."""
        self.files += other.files
        self.size += other.size
        self.files_out += other.files_out
        self.size_out += other.size_out


@dataclass(slots=True)
class Explanation:
    """What a context would send.

    Attributes:
        ignore_file: the name of the file with the patterns; empty where there is none.
        reasons: for every entry that was looked at, in the order of a transfer.
        weights: by directory, ``""`` for the whole.
        unused: patterns that decided nothing, with their lines.
        hints: what might be left out, in words.
        requested: paths that an engine asked for; None where none was asked.
    """

    ignore_file: str = ""
    reasons: list[Reason] = field(default_factory=list)
    weights: dict[str, Weight] = field(default_factory=dict)
    unused: list[tuple[str, str]] = field(default_factory=list)
    hints: list[str] = field(default_factory=list)
    requested: list[str] | None = None

    @property
    def total(self) -> Weight:
        """The whole context."""
        return self.weights.get("", Weight())


def explain_context(
    source: Source, *, dockerfile: str = "Dockerfile", dockerfile_source: Source | None = None
) -> Explanation:
    """Explain what ``source`` would send as the context of a build; blocking.

    Args:
        source: the context.
        dockerfile: the Dockerfile's name, whose own ignore file counts where it has one.
        dockerfile_source: the tree that it is in; None is the context.

    Raises:
        ContextError: something cannot be read, or a pattern does not parse; the user must act.
    """
    source.check()
    with opened(source), keeping(source):
        name, data = ignore_file(source, dockerfile_source or source, dockerfile) or ("", b"")
        return _Explainer(source, name, data).run()


class _Explainer:
    def __init__(self, source: Source, name: str, data: bytes) -> None:
        self._source = source
        self._data = data
        if (number := long_line(data)) is not None:
            raise ContextError(
                f"{name}:{number}: a line longer than {limits.MAX_IGNORE_LINE} bytes, which engines do not read",
                hint=f"break up the line in {name}:{number}",
            )
        lines = list(parse_ignore_file(data))
        try:
            self._filter = parse_filter((), [line.pattern for line in lines])
        except ContextError as error:
            place = next((f"{name}:{line.number}" for line in lines if not parses(line)), name)
            raise ContextError(f"{place}: {error.message}", hint=f"correct the pattern in {place}") from error
        self._single = [_Single(line, f"{name}:{line.number}") for line in lines]
        self._used: set[int] = set()
        self._result = Explanation(ignore_file=name)

    def run(self) -> Explanation:
        self._walk()
        result = self._result
        result.unused = [
            (single.line.written, single.place)
            for index, single in enumerate(self._single)
            if index not in self._used and not single.negated
        ]
        result.hints = [*_hints(result), *self._warnings()]
        return result

    def _walk(self) -> None:
        # Not recursive: a tree may be deeper than Python's stack.
        stack = [self._open("", None, None, _Match(()))]
        while stack:
            here = stack[-1]
            entry = next(here.entries, None)
            if entry is not None:
                inner = self._entry(here, entry)
                stack += [inner] if inner is not None else []
                continue
            stack.pop()
            if stack:
                self._leave(here, stack[-1])

    def _open(self, path: str, index: int | None, info: tuple[bool, ...] | None, match: _Match) -> _Open:
        weight = self._result.weights[path] = Weight()
        opened = _Open(path, index, info, match, weight)
        opened.entries = self._entries(opened)
        return opened

    def _leave(self, here: _Open, outer: _Open) -> None:
        """Add up what was in a directory; it is sent after all where something in it is."""
        reasons = self._result.reasons
        outer.weight.add(here.weight)
        if here.first is None or here.index is None:
            return
        if not reasons[here.index].offered:
            first = reasons[here.first]
            reasons[here.index] = replace(reasons[here.index], offered=True, pattern=first.pattern, line=first.line)
        if outer.first is None:
            outer.first = here.index

    def _entry(self, here: _Open, entry: Entry) -> _Open | None:
        """Note the reason of an entry; return it opened if it is a directory to look into."""
        path = f"{here.path}/{_text(entry.name)}" if here.path else _text(entry.name)
        is_directory = entry.mode & DIRECTORY != 0
        verdict, below = Verdict.SEND, here.info
        if self._filter is not None:
            verdict, _, below = self._filter.judge(path, is_directory, None, here.info)
        match = here.match.match(self._single, path)
        offered = verdict is Verdict.SEND
        pattern, place = "", ""
        if match.decided is not None:
            self._used.add(match.decided)
            pattern, place = self._single[match.decided].line.written, self._single[match.decided].place
        index = len(self._result.reasons)
        size = 0 if entry.mode & TYPE else max(entry.size, 0)
        files = int(not entry.mode & TYPE)
        if verdict is Verdict.PRUNE and is_directory:
            files, size = self._weigh(path)
        self._result.reasons.append(Reason(path, offered, pattern, place, size, files))
        if offered and here.first is None:
            here.first = index
        if is_directory and verdict is not Verdict.PRUNE:
            return self._open(path, index, below, match)
        if offered:
            here.weight.add(Weight(files, size))
        else:
            here.weight.add(Weight(0, 0, files, size))
        return None

    def _warnings(self) -> Iterator[str]:
        number = unprintable_line(self._data)
        if number is not None:
            yield (
                f"{self._result.ignore_file}:{number}: the pattern has a control character, which engines such as "
                "28.5 refuse; write ? for it"
            )

    def _weigh(self, path: str) -> tuple[int, int]:
        """Count what is below a directory that is left out; what cannot be read there does not matter."""
        files = size = 0
        waiting = [path]
        while waiting:
            directory = waiting.pop()
            try:
                for entry in self._source.entries(_bytes(directory)):
                    if entry.mode & DIRECTORY:
                        waiting.append(f"{directory}/{_text(entry.name)}")
                    elif not entry.mode & TYPE:
                        files += 1
                        size += max(entry.size, 0)
            except OSError:
                continue
        return files, size

    def _entries(self, here: _Open) -> Iterator[Entry]:
        try:
            yield from self._source.entries(_bytes(here.path))
        except OSError as error:
            if isinstance(error, (PermissionError, FileNotFoundError)) and self._is_out(here):
                # Looked into only because of an exception, and a transfer goes on.
                return
            raise cannot("list", _bytes(here.path), error) from error

    def _is_out(self, here: _Open) -> bool:
        return here.index is not None and here.first is None and not self._result.reasons[here.index].offered


class _Open:
    """A directory that is being looked into.

    ``index`` is its reason's, ``first`` that of the first thing in it that is offered.
    """

    def __init__(
        self, path: str, index: int | None, info: tuple[bool, ...] | None, match: _Match, weight: Weight
    ) -> None:
        self.path = path
        self.index = index
        self.info = info
        self.match = match
        self.weight = weight
        self.first: int | None = None
        self.entries: Iterator[Entry] = iter(())


class _Single:
    """One pattern, alone."""

    def __init__(self, line: IgnoreLine, place: str) -> None:
        patterns = PatternList([line.pattern])
        self.line = line
        self.place = place
        self.negated = bool(patterns.negated)
        #: A negated pattern alone would never match: what is matched is its text.
        self.test = [pattern.test() for pattern in patterns.patterns]


class _Match:
    """Which patterns have matched a path or what leads to it, and which of them decides."""

    def __init__(self, hits: tuple[bool, ...], decided: int | None = None) -> None:
        self.hits = hits
        self.decided = decided

    def match(self, patterns: Sequence[_Single], path: str) -> _Match:
        """Match an entry below this one; as `PatternList.match`, pattern by pattern."""
        matched, hits, decided = False, [], None
        for index, single in enumerate(patterns):
            hit = bool(self.hits) and self.hits[index]
            if not hit and single.negated is matched:
                hit = any(test(path) for test in single.test)
            if hit:
                matched, decided = not single.negated, index
            hits.append(hit)
        return _Match(tuple(hits), decided)


def _hints(result: Explanation) -> Iterator[str]:
    total = result.total
    for path, weight in result.weights.items():
        name = path.rpartition("/")[2]
        what = _SUSPECTS.get(name)
        if what and (weight.size >= _HEAVY or weight.files >= _MANY):
            yield f"{quote(path)}, {what}, is {_amount(weight)}; add it to .dockerignore unless the build needs it"
    for reason in result.reasons:
        if not reason.offered:
            continue
        if reason.size >= _HEAVY_FILE:
            yield f"{quote(reason.path)} alone is {reason.size / 10**6:.0f} MB"
        if reason.files and reason.path.rpartition("/")[2] in _NEVER_NEEDED:
            yield f"{quote(reason.path)} may hold credentials; whatever COPY . takes with it is in the image"
    if not result.ignore_file and (total.size >= _HEAVY or total.files >= _MANY):
        yield f"there is no .dockerignore, and the context is {_amount(total)}"
    for written, place in result.unused:
        yield f"{place}: {quote(written.strip())} leaves nothing out"


def _amount(weight: Weight) -> str:
    return f"{weight.size / 10**6:.0f} MB in {weight.files} {'file' if weight.files == 1 else 'files'}"


def _text(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")


def _bytes(path: str) -> bytes:
    return path.encode("utf-8", "surrogateescape")
