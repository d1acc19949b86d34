"""The pattern matcher, rule by rule, and against a slow and obvious one."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mobysession.filesync.gopath import clean, trim_space
from mobysession.filesync.goregexp import to_python
from mobysession.filesync.patterns import BadPattern, Kind, Pattern, PatternList


@pytest.mark.parametrize(
    ("pattern", "kind", "expression"),
    [
        ("abc", Kind.EXACT, None),
        ("a.b+c(d)$e", Kind.EXACT, None),
        ("abc/**", Kind.PREFIX, None),
        ("abc**", Kind.PREFIX, None),
        ("**", Kind.SUFFIX, None),
        ("**/foo", Kind.SUFFIX, None),
        ("**foo.go", Kind.SUFFIX, None),
        ("**/foo/**", Kind.REGEXP, "^(.*/)?foo/.*$"),
        ("**/*.go", Kind.REGEXP, r"^(.*/)?[^/]*\.go$"),
        ("a**b", Kind.REGEXP, "^a(.*/)?b$"),
        ("a/**/b", Kind.REGEXP, "^a/(.*/)?b$"),
        ("*.txt", Kind.REGEXP, r"^[^/]*\.txt$"),
        ("a?", Kind.REGEXP, "^a[^/]$"),
        ("[a-z]", Kind.REGEXP, "^[a-z]$"),
        (r"a\*", Kind.REGEXP, r"^a\*$"),
        ("a|b*", Kind.REGEXP, "^a|b[^/]*$"),
        ("*/**", Kind.REGEXP, "^[^/]*/.*$"),
    ],
)
def test_a_pattern_is_compiled_into_a_kind(pattern: str, kind: Kind, expression: str | None) -> None:
    """The kind of test, and the regular expression letter by letter, are those of the reference."""
    compiled = Pattern(pattern)
    assert compiled.kind is kind
    if expression is not None:
        assert compiled.expression == expression


@pytest.mark.parametrize(
    ("pattern", "path", "matches"),
    [
        ("**", "a/b", True),
        ("**/foo", "foo", True),
        ("**/foo", "a/b/foo", True),
        ("**/foo", "afoo", False),
        ("**foo", "afoo", True),
        ("**foo", "x/afoo", True),
        ("abc/**", "abc", False),
        ("abc/**", "abc/x/y", True),
        ("abc**", "abcd/e", True),
        ("a**b", "ab", True),
        ("a**b", "ax/b", True),
        ("a**b", "axb", False),
        ("a/**/b", "a/b", True),
        ("a/**/b", "a/x/y/b", True),
        ("*.txt", "a.txt", True),
        ("*.txt", "d/a.txt", False),
        ("*.txt", "aXtxt", False),
        ("**/*.pyc", "x/y.pyc", True),
        ("**/*.pyc", ".pyc", True),
        ("a?c", "abc", True),
        ("a?c", "a/c", False),
        ("a?c", "a☺c", True),
        ("[^a]b", "cb", True),
        ("[!a]b", "cb", False),
        ("[!a]b", "!b", True),
        ("a^b", "a^b", True),
        ("a^b*", "a^bc", False),
        ("a|b*", "axx", True),
        ("a|b*", "xxb", True),
        ("a{2}*", "aa", True),
        ("a{2}*", "a{2}", False),
        ("ab{0}*", "ax", True),
        ("a{,2}*", "a{,2}x", True),
        (r"a\d*", "a5", True),
        (r"a\d*", "a\u0665", False),
        (r"\[a\]", "[a]", True),
        ("[[]*", "[x", True),
        ("[*]", "*", False),
        ("[*]", "[^]", True),
        ("[a&&b]", "&", True),
        ("a$*", "a$b", True),
        ("a(b)+*", "a(b)+c", True),
        ("a\n*", "a\nb", True),
        ("**/x/*", "a\nb/x/c", False),
        ("x*", "x\n", True),
        ("/a", "a", False),
        ("./a/", "a", True),
        ("\u3000a\t", "a", True),
    ],
)
def test_one_pattern_against_one_path(pattern: str, path: str, matches: bool) -> None:
    """Each rule of the matcher, including the ones that look like faults."""
    assert PatternList([pattern]).match(path, (False,)) == (matches, (matches,))


@pytest.mark.parametrize(
    "pattern", ["!", " ! ", "[", "a/[", "a\\", "[]a]", "[z-a]", r"a\é", r"\ya*", "{2}{3}*", "a{1001}*"]
)
def test_bad_patterns_are_refused_by_name(pattern: str) -> None:
    """A pattern that Go cannot parse, as a glob or as a regular expression, is an error that carries it."""
    with pytest.raises(BadPattern) as caught:
        PatternList(["good", pattern, "*.x"])
    assert caught.value.args[1] == pattern


@pytest.mark.timeout(10)
@pytest.mark.parametrize("pattern", ["*a" * 8 + "?b", "**/a" * 8 + "?b", "**/*a*a*a*a*a?b"])
@pytest.mark.parametrize("path", ["a" * 2000 + "/b", "a/" * 1000 + "c"])
def test_many_wildcards_take_no_time(pattern: str, path: str) -> None:
    """Stars that could share a long path in countless ways are tried all at once."""
    assert not PatternList([pattern]).match(path, (False,))[0]


@pytest.mark.parametrize("pattern", ["*a*a*a*a|b", "a{1}**/b/**/c", "x|a{0,9}a{0,9}a{0,9}b*", r"\d**/b/**/c"])
def test_costly_patterns_with_other_operators_are_refused(pattern: str) -> None:
    """Where only a backtracking engine will do, the number of wildcards is bounded, and the refusal says so."""
    with pytest.raises(BadPattern, match="syntax error in pattern: more than 3 wildcards") as caught:
        PatternList([pattern])
    assert caught.value.args[1] == pattern


def test_a_forgetful_automaton_agrees(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forgetting transitions, also in the middle of a path, changes no answer."""
    monkeypatch.setattr("mobysession.filesync.automaton._MAX_KEPT", 3)
    match = PatternList(["*a*b?c", "**/x[0-9]*/**/y"]).match
    for path, matches in [("aabc", False), ("zazbxc", True), ("a/x1/b/c/y", True), ("x/y", False), ("x5z/y", True)]:
        assert match(path, (False,))[0] is matches


def test_empty_patterns_are_skipped() -> None:
    """Blank lines match nothing."""
    assert PatternList(["", "  ", "\t"]).patterns == ()


def test_a_negation_may_be_cleaned_away() -> None:
    """A pattern is cleaned with its exclamation mark, which may go with the first component."""
    (pattern,) = PatternList(["!a/../b"]).patterns
    assert (pattern.text, pattern.negated) == ("b", False)


@pytest.mark.parametrize(
    ("patterns", "path", "matches"),
    [
        (["a"], "a/b/c", True),
        (["a", "!a/b"], "a/b", False),
        (["a", "!a/b"], "a/b/c", False),
        (["a", "!a/b"], "a/c", True),
        (["a", "!a/b", "a/b/c"], "a/b/c", True),
        (["!a", "a"], "a", True),
        (["*.md", "!README.md"], "README.md", False),
        (["*.md", "!README*.md", "README-secret.md"], "README-secret.md", True),
        (["*", "!src"], "src/x", False),
        (["**/x", "!y"], "y/x/z", False),
        ([], "a", False),
    ],
)
def test_later_patterns_override_earlier_ones(patterns: list[str], path: str, matches: bool) -> None:
    """The last pattern that matches a path or a directory leading to it decides."""
    assert PatternList(patterns).match(path, None)[0] is matches


def slow_match(patterns: list[str], path: str, parent: list[bool]) -> tuple[bool, list[bool]]:
    """The list matcher as the reference has it: pattern by pattern, nothing shared, nothing ruled out."""
    matched, info = False, []
    for index, written in enumerate(patterns):
        pattern = Pattern(clean(trim_space(written)))
        hit = parent[index] if parent else False
        if not hit and pattern.negated == matched:
            hit = slow_test(pattern, path)
        info.append(hit)
        if hit:
            matched = not pattern.negated
    return matched, info


def slow_test(pattern: Pattern, path: str) -> bool:
    if pattern.kind is Kind.EXACT:
        return path == pattern.text
    if pattern.kind is Kind.PREFIX:
        return path.startswith(pattern.text[:-2])
    if pattern.kind is Kind.SUFFIX:
        end = pattern.text[2:]
        return path.endswith(end) or (end[:1] == "/" and path == end[1:])
    return re.search(to_python(pattern.expression), path, re.ASCII) is not None


_pieces = st.sampled_from(
    [
        "a",
        "b",
        "ab",
        "*",
        "**",
        "?",
        "[ab]",
        "[^a]",
        "a|b",
        ".",
        "a.b",
        "a*",
        "^",
        "{2}",
        r"\.b",
        r"\w",
        "[*]",
        "[?b]",
        "***",
        "[[:alpha:]]",
    ]
)
_components = st.lists(_pieces, min_size=1, max_size=3).map("".join)
_patterns = st.builds(
    lambda negated, parts: "!" * negated + "/".join(parts), st.booleans(), st.lists(_components, min_size=1, max_size=3)
)
_paths = st.lists(st.sampled_from(["a", "b", "ab", "a.b", "aa", "^", "\n", "é"]), min_size=1, max_size=4)


@settings(deadline=None)
@given(st.lists(_patterns, max_size=6), _paths)
def test_the_matcher_agrees_with_a_slow_one(patterns: list[str], parts: list[str]) -> None:
    """Runs, prefilters and joined expressions change no answer on the way down a path."""
    try:
        compiled = PatternList(patterns)
    except BadPattern:
        return
    fast: tuple[bool, ...] | None = None
    slow: list[bool] = []
    for end in range(1, len(parts) + 1):
        path = "/".join(parts[:end])
        expected, slow = slow_match(patterns, path, slow)
        found, fast = compiled.match(path, fast)
        assert found is expected
