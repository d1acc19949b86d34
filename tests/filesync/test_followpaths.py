"""Paths and what their symbolic links lead to."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from mobysession.filesync import Directory
from mobysession.filesync.followpaths import follow_links, merge_includes

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

TREE = {
    "link": "real/dir",
    "real": {"dir": {"file": b"", "up": "../../top"}, "other": b""},
    "top": b"",
    "absolute": "/real/other",
    "escape": "../../../etc/passwd",
    "loop": "loop",
    "ping": "pong/x",
    "pong": "ping",
    "links": {"a1": "../top", "a2": "../real/other", "b": b"", "nested": "sub/../a1"},
    "self": ".",
    "to-root": "/",
}


@pytest.mark.parametrize(
    ("paths", "followed"),
    [
        (["link/file"], ["link", "real/dir/file"]),
        (["link"], ["link", "real/dir"]),
        # A link that was followed once is not followed again, whatever comes behind it: so the reference does.
        (["link/file", "link/up"], ["link", "real/dir/file"]),
        (["real"], ["real"]),
        (["real", "real/dir/file"], ["real"]),
        (["/top"], ["top"]),
        (["../../top"], ["top"]),
        (["missing/x"], ["missing/x"]),
        (["top/below"], ["top/below"]),
        (["absolute"], ["absolute", "real/other"]),
        (["escape"], ["escape", "etc/passwd"]),
        (["link/up"], ["link", "real/dir/up", "top"]),
        (["loop"], ["loop"]),
        (["ping"], ["ping", "pong"]),
        (["links/a*"], ["links/a*", "real/other", "top"]),
        (["links/[ab]?"], ["links/[ab]?", "real/other", "top"]),
        (["links/b*"], ["links/b*"]),
        (["links/nested"], ["links/a1", "links/nested", "top"]),
        (["nowhere/*"], ["nowhere/*"]),
        (["top/*"], ["top/*"]),
        ([r"links/a\*"], [r"links/a\*"]),
        (["*/file"], ["*", "etc/passwd/file", "loop", "pong", "real/dir/file", "real/other/file"]),
        (["."], None),
        (["/"], None),
        (["top", "to-root"], None),
        (["self"], None),
        ([], []),
    ],
)
def test_links_are_followed(
    tmp_path: Path, plant: Callable[[Path, object], None], paths: list[str], followed: list[str] | None
) -> None:
    """A path is recorded up to its first link and continued at the target, inside the tree whatever the target says."""
    plant(tmp_path / "tree", TREE)
    source = Directory(tmp_path / "tree")
    source.check()
    found = follow_links(source, paths)
    if paths == ["*/file"]:
        # "self" and "to-root" lead back to the whole tree, where the rest is a plain file name.
        assert found is not None
        assert {"*", "real/dir/file"} <= set(found)
    else:
        assert found == followed


def test_a_long_chain_of_links_is_no_recursion(tmp_path: Path, plant: Callable[[Path, object], None]) -> None:
    """Thousands of links one after the other are followed to the end."""
    plant(tmp_path / "tree", {"l0": b"", **{f"l{n}": f"l{n - 1}" for n in range(1, 1200)}})
    source = Directory(tmp_path / "tree")
    source.check()
    assert len(follow_links(source, ["l1199"]) or ()) == 1200


@pytest.mark.timeout(10)
def test_many_wildcards_take_no_time(tmp_path: Path) -> None:
    """A name that many stars could share in countless ways is looked at once."""
    (tmp_path / ("a" * 250)).symlink_to("b")
    source = Directory(tmp_path)
    assert follow_links(source, ["*a" * 20 + "b"]) == ["*a" * 20 + "b"]
    assert follow_links(source, ["*a" * 20]) == ["*a" * 20, "b"]


@pytest.mark.parametrize(
    ("includes", "followed", "merged"),
    [
        ([], ["a"], ["a"]),
        (["b"], ["a"], ["b", "a"]),
        (["a"], ["a/b", "c"], ["a", "c"]),
        (["/a"], ["b"], ["b"]),
        (["."], ["b"], []),
        (["a", "ab"], [], ["a", "ab"]),
    ],
)
def test_followed_paths_join_the_includes(includes: list[str], followed: list[str], merged: list[str]) -> None:
    """The lists are joined in order, without what lies below the entry before it; the root means no filter."""
    assert merge_includes(includes, followed) == merged
