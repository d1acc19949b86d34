"""Which entries pass include and exclude patterns, and which directories are looked into."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mobysession.errors import ContextError
from mobysession.filesync.filters import Verdict, parse_filter
from mobysession.filesync.offers import Offers
from mobysession.filesync.source import Entry
from mobysession.filesync.walk import Walk
from tests.filesync import reference

if TYPE_CHECKING:
    from collections.abc import Container, Iterator, Mapping, Sequence


_DIRECTORY = 0x800001ED


class Names:
    """A source of nothing but names: a nested mapping, None for a file."""

    def __init__(self, tree: Mapping[str, object]) -> None:
        self.tree = tree
        self.listed: list[str] = []
        self.looked_at = 0

    def check(self) -> None:
        """There is nothing to check."""

    def entries(self, directory: bytes) -> Iterator[Entry]:
        here: object = self.tree
        for part in directory.decode().split("/") if directory else ():
            assert isinstance(here, dict)
            here = here[part]
        assert isinstance(here, dict)
        self.listed.append(directory.decode())
        for name in sorted(here, key=str.encode):
            yield Entry(name.encode(), 0o644 if here[name] is None else _DIRECTORY)

    def entries_named(self, directory: bytes, names: Container[bytes]) -> Iterator[Entry]:
        named = [entry for entry in self.entries(directory) if entry.name in names]
        self.looked_at += len(named)
        yield from named

    def readlink(self, path: bytes) -> bytes:
        raise AssertionError(path)

    def xattrs(self, path: bytes) -> Mapping[str, bytes]:
        return {}

    def lookup(self, path: bytes) -> Entry | None:
        raise AssertionError(path)

    def fetch(self, path: bytes, offered: int) -> bytes:
        raise AssertionError(path)


def walk(source: Names, includes: Sequence[str], excludes: Sequence[str]) -> list[str]:
    """Return the paths that are sent, in order."""
    offers = Offers()
    for _ in Walk(source, parse_filter(includes, excludes), offers, reset_owner=True).batches():
        pass
    return [offers.path(entry_id).decode() for entry_id in range(len(offers))]


TREE = {
    ".git": {"config": None},
    "a": {"b": {"c": None, "keep": None}, "x.pyc": None},
    "build": {"out": {"x": None}},
    "docs": {"index.md": None, "sub": {"page.md": None}},
    "main.py": None,
}


GIT = ".git .git/config"
A = "a a/b a/b/c a/b/keep a/x.pyc"
BUILD = "build build/out build/out/x"
DOCS = "docs docs/index.md docs/sub docs/sub/page.md"


@pytest.mark.parametrize(
    ("includes", "excludes", "sent", "not_listed"),
    [
        ([], [], f"{GIT} {A} {BUILD} {DOCS} main.py", ""),
        ([], [".git", "build"], f"{A} {DOCS} main.py", ".git build build/out"),
        ([], ["*", "!a/b/keep"], "a a/b a/b/keep", ".git build docs"),
        ([], ["*", "!**/keep"], "a a/b a/b/keep", ""),
        ([], ["*", "!a/b/**"], "a a/b a/b/c a/b/keep", ".git build docs"),
        ([], ["docs/*", "!docs/sub/*"], f"{GIT} {A} {BUILD} docs docs/sub docs/sub/page.md main.py", ""),
        ([], ["**/*.pyc", "docs", "build", ".git"], "a a/b a/b/c a/b/keep main.py", "docs"),
        (["a/b"], [], "a a/b a/b/c a/b/keep", ".git build docs"),
        (["a/b/c", "main.py"], [], "a a/b a/b/c main.py", ".git build docs"),
        (["**/*.md"], [], DOCS, ""),
        (["a"], ["a/b"], "a a/x.pyc", "a/b docs"),
        (["a/b"], ["**/c"], "a a/b a/b/keep", "docs"),
        (["docs/*"], ["docs/index.md"], "docs docs/sub docs/sub/page.md", "a"),
        (["nothing"], [], "", ".git a build docs"),
        (["*", "!docs"], [], f"{GIT} {A} {BUILD} main.py", ""),
    ],
)
def test_what_is_sent(includes: list[str], excludes: list[str], sent: str, not_listed: str) -> None:
    """Entries that are included and not excluded are sent with the directories above them, and no directory in vain."""
    source = Names(TREE)
    assert walk(source, includes, excludes) == sent.split()
    assert set(source.listed).isdisjoint(not_listed.split())


@pytest.mark.parametrize(
    ("includes", "excludes", "looked_at"),
    [
        (["main.py", "Dockerfile"], [], 1),
        (["main.py", "!docs"], ["*.md"], 1),
        # In what is included everything is looked at, as where a wildcard may match it.
        (["docs"], [], 1),
        (["docs/sub/page.md"], [], 3),
        (["docs/sub/page.md", "*.py"], [], 0),
        # No path at all, and none in here.
        (["../main.py", "/main.py", "\ud800"], [], 0),
    ],
)
def test_by_their_names_only_what_is_named_is_looked_at(
    includes: list[str], excludes: list[str], looked_at: int
) -> None:
    """Where includes are names, as for a single file, its neighbours are not looked at, and the same is sent."""
    source = Names(TREE)
    assert walk(source, includes, excludes) == reference.walk(TREE, includes, excludes).sent
    assert source.looked_at == looked_at


def test_an_excluded_directory_is_announced_only_with_something_in_it() -> None:
    """An exception that matches nothing below an excluded directory leaves no empty directory behind."""
    source = Names({"a": {"b": {"c": None}}, "d": {"keep": None}})
    assert walk(source, [], ["*", "!**/keep"]) == ["d", "d/keep"]
    assert "a/b" in source.listed


def test_the_receivers_own_file_is_never_sent() -> None:
    """A name that the receiver reserves at the root would shift every later id; elsewhere it is a file as any other."""
    source = Names({".fsutil-metadata": None, "a": {".fsutil-metadata": None}})
    assert walk(source, [], []) == ["a", "a/.fsutil-metadata"]


@pytest.mark.parametrize(
    ("includes", "excludes", "message"),
    [
        (["a["], [], 'invalid includepatterns: ["a["]: syntax error in pattern'),
        ([], ["ok", "!"], 'invalid excludepatterns: ["!"]: illegal exclusion pattern: "!"'),
    ],
)
def test_a_bad_pattern_is_named(includes: list[str], excludes: list[str], message: str) -> None:
    """The error says which list and which pattern, for its user to correct."""
    with pytest.raises(ContextError) as caught:
        parse_filter(includes, excludes)
    assert caught.value.message == message


def test_a_directory_is_pruned_or_only_skipped() -> None:
    """The verdicts tell a directory not worth a look from one that is."""
    chosen = parse_filter([], ["*", "!a/b"])
    assert chosen is not None
    assert chosen.judge("a", True, None, None)[0] is Verdict.SKIP
    assert chosen.judge("c", True, None, None)[0] is Verdict.PRUNE
    assert chosen.judge("c", False, None, None)[0] is Verdict.SKIP


_names = st.sampled_from(["a", "b", "ab", "a.b", "a-b", "c", "é"])
_trees = st.recursive(
    st.none(), lambda inner: st.dictionaries(_names, inner, max_size=4), max_leaves=25
).filter(lambda tree: isinstance(tree, dict))  # fmt: skip
_pieces = st.sampled_from(["a", "b", "ab", "*", "**", "?", "[ab]", "a.b", "c", "*b"])
_patterns = st.builds(
    lambda negated, parts: "!" * negated + "/".join(parts), st.booleans(), st.lists(_pieces, min_size=1, max_size=3)
)


@settings(deadline=None, max_examples=150)
@given(_trees, st.lists(_patterns, max_size=4), st.lists(_patterns, max_size=5))
def test_a_walk_is_that_of_the_reference(tree: dict[str, object], includes: list[str], excludes: list[str]) -> None:
    """What is sent, and its order, are the reference's; and we look into no directory that it does not look into."""
    source = Names(tree)
    try:
        sent = walk(source, includes, excludes)
    except ContextError:
        return
    expected = reference.walk(tree, includes, excludes)
    assert sent == expected.sent
    assert set(source.listed) <= expected.listed


@settings(deadline=None, max_examples=150)
@given(_trees, st.lists(_patterns, max_size=4), st.lists(_patterns, max_size=5))
def test_no_directory_is_looked_into_for_patterns_that_end_above_it(
    tree: dict[str, object], includes: list[str], excludes: list[str]
) -> None:
    """With patterns of names, ``*`` and ``?`` alone, a directory is listed only if some pattern has more names than it.

    Or if it is sent itself; then all of it may be.
    """
    if any("**" in pattern or "[" in pattern for pattern in (*includes, *excludes)):
        return
    source = Names(tree)
    sent = walk(source, includes, excludes)
    depth = max((pattern.count("/") + 1 for pattern in (*includes, *excludes)), default=0)
    assert {path for path in source.listed if path.count("/") + 1 > depth} <= {*sent, ""}


@pytest.mark.parametrize(
    ("excludes", "sent", "listed"),
    [
        # A later pattern than any exception: nothing can come back.
        (["!**/keep", "*"], "", ""),
        # But a pattern that is not needed to leave a directory out is not remembered for what is in it.
        (["*", "!**/keep", "a"], "a a/b a/b/keep", "a a/b build build/out docs docs/sub .git"),
        # Exceptions with wildcards that reach only where their names allow.
        (["*", "!docs/*.md"], "docs docs/index.md", "docs"),
        (["*", "!?ocs/s*/*.md"], "docs docs/sub docs/sub/page.md", "docs docs/sub"),
        (["*", "!docs/**/page.md"], "docs docs/sub docs/sub/page.md", "docs docs/sub"),
        (["*", "!main.p[xy]"], "main.py", ".git a a/b build build/out docs docs/sub"),
        (["*", "!a?b**"], "", ".git a a/b build build/out docs docs/sub"),
        # The reference's own rule, though an exception matches below.
        (["a/b", "build", "docs", ".git", "main.py", "!a/*/**"], "a a/x.pyc", "a"),
    ],
)
def test_what_is_looked_into(excludes: list[str], sent: str, listed: str) -> None:
    """A directory that is left out is looked into only where an exception behind what excluded it can match in it."""
    source = Names(TREE)
    found = walk(source, [], excludes)
    assert found == sent.split()
    assert found == reference.walk(TREE, [], excludes).sent
    assert set(source.listed) <= {"", *listed.split()}
