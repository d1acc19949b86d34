"""What a context would send, and why."""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mobysession.errors import ContextError
from mobysession.filesync import Directory, Files
from mobysession.filesync.dockerignore import IgnoreLine, parse_ignore_file
from mobysession.filesync.explain import Weight, explain_context
from mobysession.filesync.explain_text import as_value, render
from mobysession.filesync.observed import Observed
from tests.filesync import reference

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from mobysession.filesync import Entry

TREE: Any = {
    ".dockerignore": "# what nobody needs\n*.log\nbuild\n!build/keep\n/docs/*.md\n nothing \n",
    "a.log": "12345",
    "build": {"out": {"x": "1234"}, "keep": {"y": "1"}},
    "docs": {"index.md": "1", "page.txt": "12"},
    "main.py": "123456789",
}


def test_every_entry_has_its_reason() -> None:
    """In or out, by which pattern in which line; what is in a directory that is left out as a whole is added up."""
    explanation = explain_context(Files(TREE))
    assert [(reason.path, reason.offered, reason.line, reason.size) for reason in explanation.reasons] == [
        (".dockerignore", True, "", len(TREE[".dockerignore"])),
        ("a.log", False, ".dockerignore:2", 5),
        ("build", True, ".dockerignore:4", 0),
        ("build/keep", True, ".dockerignore:4", 0),
        ("build/keep/y", True, ".dockerignore:4", 1),
        ("build/out", False, ".dockerignore:3", 4),
        ("docs", True, "", 0),
        ("docs/index.md", False, ".dockerignore:5", 1),
        ("docs/page.txt", True, "", 2),
        ("main.py", True, "", 9),
    ]
    assert explanation.weights["build"] == Weight(1, 1, 1, 4)
    assert explanation.total == Weight(4, 12 + len(TREE[".dockerignore"]), 3, 10)
    assert explanation.unused == [(" nothing ", ".dockerignore:6")]
    assert explanation.hints == ['.dockerignore:6: "nothing" leaves nothing out']


def test_the_dockerfiles_own_ignore_file_counts() -> None:
    """``<Dockerfile>.dockerignore`` is taken in place of ``.dockerignore``, from where the Dockerfile is."""
    context = Files({".dockerignore": "a", "a": "", "b": ""})
    apart = Files({"Own": "", "Own.dockerignore": "b"})
    out = [
        reason.path
        for reason in explain_context(context, dockerfile="Own", dockerfile_source=apart).reasons
        if not reason.offered
    ]
    assert out == ["b"]
    assert explain_context(context, dockerfile="Other").ignore_file == ".dockerignore"
    assert explain_context(Files({"a": ""})).ignore_file == ""


@pytest.mark.parametrize(
    ("tree", "hint"),
    [
        ({".git": {"pack": bytes(12_000_000)}}, '".git", the history, is 12 MB in 1 file; add it to .dockerignore'),
        ({"a": bytes(10_000_001)}, "there is no .dockerignore, and the context is 10 MB in 1 file"),
        ({"big": bytes(100_000_000), ".dockerignore": "x"}, '"big" alone is 100 MB'),
        ({"sub": {".env": "TOKEN=1"}}, '"sub/.env" may hold credentials'),
    ],
    ids=["history", "no file", "large", "credentials"],
)  # fmt: skip
def test_hints(tree: Any, hint: str) -> None:
    """What is heavy, secret or in vain is pointed out."""
    assert any(found.startswith(hint) for found in explain_context(Files(tree)).hints)


def test_what_cannot_be_used_is_an_error(tmp_path: Path) -> None:
    """A bad pattern is named with its file and line, and so is a missing directory."""
    with pytest.raises(
        ContextError, match=r"^Dockerfile.dockerignore:2: invalid excludepatterns: \[\"a\[\"\]"
    ) as caught:
        explain_context(Files({"Dockerfile.dockerignore": "fine\na[\n", ".dockerignore": "["}))
    assert caught.value.hint == "correct the pattern in Dockerfile.dockerignore:2"
    with pytest.raises(ContextError, match="does not exist"):
        explain_context(Directory(tmp_path / "missing"))


def test_text_and_value() -> None:
    """The text has the sums, what patterns decided, the directories and the hints; the value everything."""
    explanation = explain_context(Files(TREE))
    explanation.requested = ["main.py"]
    text = render(explanation)
    assert "left out: 3 files, 10 B, by .dockerignore\n" in text
    assert '\n- build/out  .dockerignore:3 "build"\n' in text
    assert '\n+ build/keep  .dockerignore:4 "!build/keep"\n' in text
    assert "main.py\n" not in text.split("by directory")[0]
    assert "\n+ main.py\n" in render(explanation, every=True)
    assert "\nthe engine asked for 1 of 4 files:\n  main.py\n" in text
    assert text.endswith('\nhint: .dockerignore:6: "nothing" leaves nothing out\n')
    value = json.loads(json.dumps(as_value(explanation)))
    assert value["left_out"] == {"files": 3, "bytes": 10}
    assert value["entries"][1]["line"] == ".dockerignore:2"
    assert value["directories"]["build"]["offered"] == {"files": 1, "bytes": 1}


def test_an_observed_source_remembers_what_was_read() -> None:
    """Each path once, in the order of the reading; it is the source it observes in everything else."""
    observed = Observed(Files({"a": "1", "b": "2"}))
    for name in (b"b", b"a", b"b"):
        observed.fetch(name, 1)
    assert list(observed.read) == ["b", "a"]
    assert observed.location is None
    assert [entry.name for entry in observed.entries(b"")] == [b"a", b"b"]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"\xef\xbb\xbfa\n", [IgnoreLine(1, "a", "a")]),
        (b"#x\n #y\n\n", [IgnoreLine(2, "#y", " #y")]),
        (b"! /a/./b/ \r\n", [IgnoreLine(1, "!a/b", "! /a/./b/ ")]),
        (b"/\n//\n!\n", [IgnoreLine(1, "/", "/"), IgnoreLine(2, "/", "//"), IgnoreLine(3, "!", "!")]),
        (b"a/../../b\n", [IgnoreLine(1, "../b", "a/../../b")]),
    ],
)
def test_lines_of_an_ignore_file(content: bytes, expected: list[IgnoreLine]) -> None:
    """Comments, blanks, marks at the beginning, slashes and negation are treated as the engine treats them."""
    assert list(parse_ignore_file(content)) == expected


@pytest.mark.parametrize(
    ("links", "expected"),
    [
        ({".dockerignore": "d/patterns"}, "out"),
        ({".dockerignore": "/above/patterns", "above": "d"}, "out"),
        ({".dockerignore": "../../d/../d/patterns"}, "out"),
        ({".dockerignore": "missing"}, ""),
        ({".dockerignore": "d"}, ""),
        ({".dockerignore": ".dockerignore"}, ""),
        ({".dockerignore": ".dockerignore/more"}, ""),
        ({"Dockerfile.dockerignore": "missing", ".dockerignore": "d/patterns"}, "out"),
    ],
)
def test_an_ignore_file_may_be_a_link(tmp_path: Path, links: dict[str, str], expected: str) -> None:
    """It is read where the link leads to in the tree; what leads to no file is passed over, as by the engine."""
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "patterns").write_text("out\n")
    (tmp_path / "out").touch()
    for name, target in links.items():
        (tmp_path / name).symlink_to(target)
    explanation = explain_context(Directory(tmp_path))
    assert [reason.path for reason in explanation.reasons if not reason.offered] == [expected] * bool(expected)
    assert explanation.ignore_file == (".dockerignore" if expected else "")


def test_an_ignore_file_that_is_a_directory_is_passed_over() -> None:
    """It has no patterns, and is no fault of the tree."""
    files = Files({"Dockerfile.dockerignore": {"x": ""}, ".dockerignore": "out", "out": ""})
    assert explain_context(files).ignore_file == ".dockerignore"
    assert explain_context(Files({".dockerignore": {"x": ""}})).ignore_file == ""


def test_a_directory_sent_for_what_is_in_it() -> None:
    """It is offered, by the pattern that took back the first thing in it; one that stays empty is not."""
    tree: Any = {".dockerignore": "src\n!src/sub/y.py", "src": {"other": {"x": ""}, "sub": {"x.py": "", "y.py": ""}}}
    found = {reason.path: (reason.offered, reason.line) for reason in explain_context(Files(tree)).reasons[1:]}
    assert found == {
        "src": (True, ".dockerignore:2"),
        "src/other": (False, ".dockerignore:1"),
        "src/sub": (True, ".dockerignore:2"),
        "src/sub/x.py": (False, ".dockerignore:1"),
        "src/sub/y.py": (True, ".dockerignore:2"),
    }


class Locked(Files):
    """A mapping with directories that may not be listed."""

    def entries(self, directory: bytes) -> Iterator[Entry]:
        if directory.endswith(b"locked"):
            raise PermissionError(13, "Permission denied", directory)
        return super().entries(directory)


def test_a_directory_that_cannot_be_listed_matters_where_it_is_sent() -> None:
    """As in a build: left out and looked into for an exception alone, it is passed over; otherwise it is an error."""
    tree: Any = {".dockerignore": "locked\n!locked/x", "locked": {"x": ""}}
    assert [reason.offered for reason in explain_context(Locked(tree)).reasons] == [True, False]
    with pytest.raises(ContextError, match='cannot list "locked": permission denied'):
        explain_context(Locked({**tree, ".dockerignore": ""}))


def test_a_tree_deeper_than_the_stack() -> None:
    """It is explained as any other."""
    depth = 2 * sys.getrecursionlimit()
    explanation = explain_context(Files({"/".join("d" * depth): "1"}))
    assert explanation.total == Weight(1, 1)
    assert len(explanation.reasons) == depth


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (b"x\n" + b"a" * 65_535 + b"\n", None),
        (b"a" * 65_535, None),
        (b"x\n" + b"a" * 65_536 + b"\n", 2),
        (b"#" * 65_536, 1),
        (b"a" * 65_535 + b"\r\nb", 1),
    ],
)
def test_a_line_that_engines_do_not_read_is_named(content: bytes, line: int | None) -> None:
    """64 KiB with the line's end is the most, in a comment too; a build fails over more, and so does this."""
    if line is None:
        explain_context(Files({".dockerignore": content}))
        return
    with pytest.raises(ContextError, match=rf"^\.dockerignore:{line}: a line longer than 65535 bytes"):
        explain_context(Files({".dockerignore": content}))


@pytest.mark.parametrize(
    ("patterns", "warned"), [("a\n b\x01c", True), ("a\tb", True), ("a\x01\nä", False), ("a b", False)]
)
def test_a_control_character_in_a_pattern_is_pointed_out(patterns: str, warned: bool) -> None:
    """Engines that check their headers fail over it, unless a pattern outside ASCII makes them encode all."""
    hints = explain_context(Files({".dockerignore": patterns})).hints
    assert any("has a control character" in hint for hint in hints) is warned


@pytest.mark.parametrize("through", [".dockerignore", "there"])
def test_an_ignore_file_that_is_a_pipe_is_refused(tmp_path: Path, through: str) -> None:
    """An engine would wait for ever to read it, also behind a link."""
    os.mkfifo(tmp_path / through)
    if through != ".dockerignore":
        (tmp_path / ".dockerignore").symlink_to(through)
    with pytest.raises(ContextError, match=r'"\.dockerignore" is a named pipe'):
        explain_context(Directory(tmp_path))


_names = st.sampled_from(["a", "b", "ab", "c"])
_trees = st.recursive(
    st.none(), lambda inner: st.dictionaries(_names, inner, max_size=3), max_leaves=15
).filter(lambda tree: isinstance(tree, dict))  # fmt: skip
_patterns = st.builds(
    lambda negated, parts: "!" * negated + "/".join(parts),
    st.booleans(),
    st.lists(st.sampled_from(["a", "b", "*", "**", "a*", "?", "c"]), min_size=1, max_size=3),
)


def _files(tree: dict[str, Any]) -> dict[str, Any]:
    return {name: "1" if below is None else _files(below) for name, below in tree.items()}


@settings(deadline=None, max_examples=100)
@given(_trees, st.lists(_patterns, max_size=5))
def test_what_is_explained_is_what_is_sent(tree: dict[str, Any], patterns: list[str]) -> None:
    """Entries that are in are those of the reference, parents sent for their children included; sums add up."""
    explanation = explain_context(Files({**_files(tree), ".dockerignore": "\n".join(patterns)}))
    sent = reference.walk({**tree, ".dockerignore": None}, [], patterns).sent
    offered = {reason.path for reason in explanation.reasons if reason.offered}
    assert offered == set(sent)
    every = sum(1 for _ in _leaves(tree)) + 1
    assert explanation.total.files + explanation.total.files_out == every


def _leaves(tree: dict[str, Any]) -> list[str]:
    return [name for name, below in tree.items() for name in ([name] if below is None else _leaves(below))]
