"""What a receiver refuses of a listing."""

from __future__ import annotations

import pytest

from mobysession.errors import RemoteProtocolError
from mobysession.filesync.validator import Validator

D, L = 0x800001ED, 0x080001FF


def check(*entries: str) -> None:
    """Check a listing: ``a/`` is a directory, ``a>b`` a hard link to b, ``a~`` a symbolic link."""
    validator = Validator()
    for entry in entries:
        path, _, link = entry.partition(">")
        if entry.endswith("/") and entry != "/":
            validator.check(entry[:-1].encode(), D, b"")
        elif entry.endswith("~"):
            validator.check(entry[:-1].encode(), L, b"anywhere")
        else:
            validator.check(path.encode(), 0o644, link.encode())


@pytest.mark.parametrize(
    "listing",
    [
        ["a/", "a/b", "a/c", "a-b", "a.txt", "ab"],
        ["a/", "a/b/", "a/b/c", "b"],
        ["..a", "a..b", "b/", "b/..c"],
        ["a", "b>a", "c>a"],
        ["a~", "b~"],
    ],
)
def test_good_listings_pass(listing: list[str]) -> None:
    """Order by components, names with dots and links to earlier files are fine."""
    check(*listing)


@pytest.mark.parametrize(
    ("listing", "message"),
    [
        (["a//b"], "unclean path"),
        (["./a"], "unclean path"),
        (["a/", "a/../b"], "unclean path"),
        ([""], "unclean path"),
        (["a\0b"], "unclean path"),
        (["//a"], "unclean path"),
        (["/a"], "absolute path"),
        (["/"], "absolute path"),
        ([".."], "escape check"),
        (["../x"], "escape check"),
        (["."], "escape check"),
        (["b", "a"], 'changes out of order: "a" "b"'),
        (["a", "a"], 'changes out of order: "a" "a"'),
        (["a/", "a-b", "a/b"], 'changes out of order: "a/b" "a-b"'),
        (["a", "a/b"], 'changes out of order: "a/b" "a"'),
        (["a~", "a/b"], 'changes out of order: "a/b" "a"'),
        (["a/b"], 'changes out of order: "a/b" ""'),
        (["a/", "a/c", "a/b"], 'changes out of order: "a/b" "a/c"'),
        (["a/", "b/", "a/x"], 'changes out of order: "a/x" "b"'),
        (["b>a"], 'invalid link b to unknown path: "a"'),
        (["a~", "b>a"], 'invalid link b to unknown path: "a"'),
        (["a/", "b>a"], 'invalid link b to unknown path: "a"'),
        (["a", "b>a", "c>b"], 'invalid link c to unknown path: "b"'),
        (["a>a"], 'invalid link a to unknown path: "a"'),
    ],
)
def test_bad_listings_are_refused(listing: list[str], message: str) -> None:
    """The last entry breaks a rule, and the error says which; those before it are fine."""
    check(*listing[:-1])
    with pytest.raises(RemoteProtocolError) as caught:
        check(*listing)
    assert message in caught.value.message
