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
        (["a", "b>/a"], 'invalid link b to unknown path: "/a"'),
        (["a", "b>../a"], 'invalid link b to unknown path: "../a"'),
        (["d/", "d/a", "e>d//a"], 'invalid link e to unknown path: "d//a"'),
        (["d/", "d/.."], "unclean path"),
        (["d/", "d/."], "unclean path"),
        (["../../x"], "escape check"),
        (["a/", "/a/b"], "absolute path"),
    ],
)
def test_bad_listings_are_refused(listing: list[str], message: str) -> None:
    """The last entry breaks a rule, and the error says which; those before it are fine."""
    check(*listing[:-1])
    with pytest.raises(RemoteProtocolError) as caught:
        check(*listing)
    assert message in caught.value.message


def test_a_hard_link_is_told_the_number_of_its_file() -> None:
    """Every entry counts, directories and links too, for numbers are positions."""
    validator = Validator()
    entries = [(b"a", D, b""), (b"a/f", 0o644, b""), (b"b", L, b"x"), (b"c", 0o644, b""), (b"d", 0o644, b"a/f")]
    assert [validator.check(*entry) for entry in entries] == [None, None, None, None, 1]
    assert (validator.find(b"c"), validator.find(b"d"), validator.count) == (3, None, 5)


def test_every_file_of_a_large_directory_is_found() -> None:
    """Names are looked up among thousands, and those between them are not there."""
    validator = Validator()
    names = [b"%05d" % number for number in range(0, 20_000, 2)]
    for name in names:
        validator.check(name, 0o644, b"")
    assert [validator.find(name) for name in names] == list(range(10_000))
    assert validator.find(b"00001") is validator.find(b"99999") is validator.find(b"") is None


@pytest.mark.parametrize(
    "mode",
    [
        0x0100_01ED,  # a socket
        0x0008_01ED,  # irregular
        D | L,
        D | 0x0400_0000,
        0x0020_01ED,  # the bit of a character device without that of a device
        0x0600_01ED,  # device and pipe
    ],
)
def test_what_no_file_system_holds_is_refused(mode: int) -> None:
    """A mode of no kind, or of two, is not guessed at."""
    with pytest.raises(RemoteProtocolError, match="of no kind that can be made"):
        Validator().check(b"x", mode, b"")
