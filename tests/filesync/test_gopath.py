"""Go's path functions."""

import pytest

from mobysession.filesync.gopath import BadPattern, check_glob, clean, has_wildcard, join, match_name, trim_space


@pytest.mark.parametrize(
    ("path", "cleaned"),
    [
        ("", "."),
        (".", "."),
        ("./a/", "a"),
        ("a//b", "a/b"),
        ("a/../b", "b"),
        ("/a", "/a"),
        ("//a", "/a"),
        ("/..", "/"),
        ("/../a", "/a"),
        ("../../a", "../../a"),
        ("a/../../b", "../b"),
        ("a/..", "."),
        ("!a/../b", "b"),
        ("!./a", "!./a"),
        ("!/a/", "!/a"),
        ("a/./b/.", "a/b"),
    ],
)
def test_clean(path: str, cleaned: str) -> None:
    """Paths are shortened by their letters alone, as filepath.Clean does."""
    assert clean(path) == cleaned


@pytest.mark.parametrize(
    ("elements", "joined"),
    [((".", "/a"), "a"), (("", "a"), "a"), (("/", "../x"), "/x"), (("", ""), ""), (("a", "..", "b"), "b")],
)
def test_join(elements: tuple[str, ...], joined: str) -> None:
    """Empty elements do not count, and the result is clean."""
    assert join(*elements) == joined


@pytest.mark.parametrize(
    ("pattern", "name", "matches"),
    [
        ("abc", "abc", True),
        ("*", "abc", True),
        ("*c", "abc", True),
        ("a*", "a", True),
        ("a*", "ab/c", False),
        ("a*b*c*d*e*", "axbxcxdxexxx", True),
        ("a?b", "a☺b", True),
        ("a[^a]b", "a☺b", True),
        ("a[!a]b", "a!b", True),
        ("a[!a]b", "abb", False),
        ("[a-c]x", "bx", True),
        ("[c-a]x", "bx", False),
        ("[^c-a]x", "bx", True),
        (r"[\]a]", "]", True),
        (r"[\-]", "-", True),
        (r"[x\-]", "z", False),
        (r"a\*b", "a*b", True),
        (r"a\*b", "axb", False),
        ("a\nb*", "a\nbc\n", True),
        ("[a&&b]", "&", True),
        ("[[]", "[", True),
    ],
)
def test_match(pattern: str, name: str, matches: bool) -> None:
    """Names are matched as filepath.Match does, on characters."""
    assert match_name(pattern, name) is matches


@pytest.mark.parametrize(
    "pattern", ["[", "[a", "[]a]", "[-]", "[x-]", "[-x]", "[a-b-c]", "a\\", "[\\", "[^]", "a[", "[]", "*["]
)
def test_bad_patterns_are_refused(pattern: str) -> None:
    """A pattern that filepath.Match cannot parse is an error to check, and matches nothing."""
    with pytest.raises(BadPattern):
        check_glob(pattern)
    assert not match_name(pattern, "a")


@pytest.mark.parametrize(
    ("name", "has"),
    [("a", False), ("a*", True), (r"a\*", False), (r"a\\*", True), ("[", True), (r"\?", False), ("?", True)],
)
def test_wildcards_are_seen_unless_escaped(name: str, has: bool) -> None:
    """A backslash takes the meaning from the character behind it."""
    assert has_wildcard(name) is has


def test_white_space_is_what_unicode_says() -> None:
    """No-break and ideographic spaces are trimmed, Python's ASCII separators are not."""
    assert trim_space("\u3000\xa0 a\x1c\t") == "a\x1c"
