"""Hard links of any tree under any filter, as the receiver judges them."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from hypothesis import given, settings
from hypothesis import strategies as st

from mobysession._pb import fsutil_pb2
from mobysession.errors import ContextError
from mobysession.filesync.filters import parse_filter
from mobysession.filesync.offers import Offers
from mobysession.filesync.source import Entry
from mobysession.filesync.validator import Validator
from mobysession.filesync.walk import Walk

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_DIRECTORY = 0x8000_01ED
_SYMLINK = 0x0800_01FF


class Linked:
    """A source in which a file is the number of its inode; a negative one is a symbolic link with several names."""

    def __init__(self, tree: dict[str, object]) -> None:
        self.tree = tree
        self.inodes: dict[bytes, int] = {}
        self._count(tree, "")
        self.names = Counter(self.inodes.values())

    def _count(self, here: dict[str, object], prefix: str) -> None:
        for name, below in here.items():
            if isinstance(below, dict):
                self._count(below, f"{prefix}{name}/")
            elif isinstance(below, int):
                self.inodes[f"{prefix}{name}".encode()] = below

    def check(self) -> None:
        """There is nothing to check."""

    def entries(self, directory: bytes) -> Iterator[Entry]:
        here: object = self.tree
        for part in directory.decode().split("/") if directory else ():
            assert isinstance(here, dict)
            here = here[part]
        assert isinstance(here, dict)
        for name in sorted(here):
            inode = here[name]
            if not isinstance(inode, int):
                yield Entry(name.encode(), _DIRECTORY)
                continue
            several = self.names[inode] > 1
            mode = 0o644 if inode >= 0 else _SYMLINK
            identity, links = (inode, self.names[inode]) if several else (None, 1)
            yield Entry(name.encode(), mode, 7, identity=identity, links=links)

    def readlink(self, path: bytes) -> bytes:
        return b"target"

    def xattrs(self, path: bytes) -> Mapping[str, bytes]:
        return {}

    def lookup(self, path: bytes) -> Entry | None:
        raise AssertionError(path)

    def fetch(self, path: bytes, offered: int) -> bytes:
        raise AssertionError(path)


_names = st.sampled_from(["a", "b", "ab", "a.b", "a-b", "c"])
_trees = st.recursive(
    st.integers(-1, 3), lambda inner: st.dictionaries(_names, inner, max_size=5), max_leaves=30
).filter(lambda tree: isinstance(tree, dict))  # fmt: skip
_pieces = st.sampled_from(["a", "b", "ab", "*", "**", "?", "a.b", "c"])
_patterns = st.builds(
    lambda negated, parts: "!" * negated + "/".join(parts), st.booleans(), st.lists(_pieces, min_size=1, max_size=3)
)


@settings(deadline=None, max_examples=200)
@given(_trees, st.lists(_patterns, max_size=3), st.lists(_patterns, max_size=4))
def test_the_first_name_sent_is_the_file_and_the_others_are_links_to_it(
    tree: dict[str, object], includes: list[str], excludes: list[str]
) -> None:
    """Whatever was left out: the receiver takes the listing, and each link leads to the first name of its file."""
    source = Linked(tree)
    try:
        chosen = parse_filter(includes, excludes)
    except ContextError:
        return
    validator, first = Validator(), dict[int, bytes]()
    for batch in Walk(source, chosen, Offers(), reset_owner=True).batches():
        for message in batch.messages:
            sent = fsutil_pb2.Packet.FromString(message).stat
            number = validator.check(sent.path, sent.mode, sent.linkname)
            inode = source.inodes.get(sent.path)
            if inode is None or inode < 0:
                assert sent.linkname == (b"target" if inode is not None else b"")
                continue
            known = first.setdefault(inode, sent.path)
            assert sent.linkname == (b"" if known == sent.path else known)
            assert (number is not None) == bool(sent.linkname)
            assert sent.size == 7
