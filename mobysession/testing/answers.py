"""Whether two answers are the same, but for what a recording hides, and for what may differ between two equal ones.

Pieces of a file may be cut otherwise, and files that are sent at the same time may take turns otherwise. So of packets
(fsutil's DiffCopy) the listing is compared in its order, each file's content as a whole, and which files were asked
for; of everything else the messages one by one.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from google.protobuf.message import DecodeError

from mobysession._pb import fsutil_pb2
from mobysession.filesync.packet_fields import split_data
from mobysession.filesync.packets import DATA, ERR, REQ, STAT

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from mobysession.recording import Spans

__all__ = ["Said", "difference", "text_differs"]

_DIFF_COPY: Final = "/diffcopy"
_HIDDEN: Final = "***"


@dataclass
class Said:
    """Bytes that were said, and the places in them that are hidden; ``body`` is None where all of it is."""

    body: bytes | None
    hidden: Spans = ()

    def is_like(self, other: bytes) -> bool:
        """Tell whether ``other`` is the same but for what is hidden."""
        if self.body is None:
            return True
        if not self.hidden:
            return self.body == other
        if len(self.body) != len(other):
            # What is hidden may have another length elsewhere: then what stands before and behind it counts.
            return self._frames(other)
        at = 0
        for start, end in (*self.hidden, (len(other), len(other))):
            if self.body[at:start] != other[at:start]:
                return False
            at = end
        return True

    def _frames(self, other: bytes) -> bool:
        assert self.body is not None
        first, last = self.hidden[0][0], len(self.body) - self.hidden[-1][1]
        if len(other) < first + last:
            return False
        return self.body[:first] == other[:first] and self.body[len(self.body) - last :] == other[len(other) - last :]


@dataclass
class _Tree:
    """Packets, sorted."""

    listing: list[Said] = field(default_factory=list)
    wanted: set[int] = field(default_factory=set)
    contents: dict[int, list[Said]] = field(default_factory=dict)
    failures: list[Said] = field(default_factory=list)


def difference(method: str, expected: Sequence[Said], found: Sequence[bytes], *, partly: bool = False) -> str | None:
    """Return how the messages of an answer differ from the recorded ones, in words; None where they do not.

    Args:
        method: of the call.
        expected: what is recorded.
        found: what came.
        partly: the call was given up, and either may hold more than the other.
    """
    if method.lower().endswith(_DIFF_COPY):
        recorded, heard = _tree(expected), _tree([Said(message) for message in found])
        if recorded is not None and heard is not None:
            return None if partly else _trees_differ(recorded, heard)
    for number, (one, other) in enumerate(zip(expected, found, strict=False), 1):
        if not one.is_like(other):
            return f"message {number} differs"
    if len(expected) != len(found) and not partly:
        return f"{len(found)} messages instead of {len(expected)}"
    return None


def text_differs(expected: str, found: str) -> bool:
    """Tell whether a text is another one than recorded, where what is hidden may be anything."""
    first, *rest = expected.split(_HIDDEN)
    if not rest:
        return expected != found
    if not found.startswith(first):
        return True
    at = len(first)
    for part in rest[:-1]:
        at = found.find(part, at)
        if at < 0:
            return True
        at += len(part)
    return not (found.endswith(rest[-1]) and len(found) - len(rest[-1]) >= at)


def _tree(messages: Iterable[Said]) -> _Tree | None:
    tree = _Tree()
    for message in messages:
        if message.body is None:
            return None
        if (piece := split_data(message.body)) is not None:
            entry, start = piece
            spans = tuple((low - start, high - start) for low, high in message.hidden if low >= start)
            tree.contents.setdefault(entry, []).append(Said(message.body[start:], spans))
        elif not _sort(tree, message, message.body):
            return None
    return tree


def _sort(tree: _Tree, message: Said, body: bytes) -> bool:
    try:
        packet = fsutil_pb2.Packet.FromString(body)
    except DecodeError:
        return False
    if packet.type == STAT:
        tree.listing.append(message)
    elif packet.type == REQ:
        tree.wanted.add(packet.ID)
    elif packet.type == DATA:
        tree.contents.setdefault(packet.ID, []).append(Said(packet.data))
    elif packet.type == ERR:
        tree.failures.append(message)
    return True


def _trees_differ(expected: _Tree, found: _Tree) -> str | None:
    for number, (one, other) in enumerate(zip(expected.listing, found.listing, strict=False)):
        if other.body is not None and not one.is_like(other.body):
            return f"entry {number} of the listing differs: {_path(other.body)}"
    if len(expected.listing) != len(found.listing):
        return f"{len(found.listing)} entries are listed instead of {len(expected.listing)}"
    if expected.wanted != found.wanted:
        return f"{len(found.wanted)} files are asked for instead of {len(expected.wanted)}, or others"
    if len(expected.failures) != len(found.failures):
        return f"{len(found.failures)} failures instead of {len(expected.failures)}"
    for entry in sorted({*expected.contents, *found.contents}):
        if not _joined(expected.contents.get(entry, ())).is_like(_joined(found.contents.get(entry, ())).body or b""):
            return f"the content of entry {entry} differs"
    return None


def _joined(pieces: Iterable[Said]) -> Said:
    body, hidden, at = [], [], 0
    for piece in pieces:
        data = piece.body or b""
        body.append(data)
        hidden += [(at + low, at + high) for low, high in piece.hidden]
        at += len(data)
    return Said(b"".join(body), tuple(hidden))


def _path(packet: bytes) -> str:
    return repr(fsutil_pb2.Packet.FromString(packet).stat.path.decode("utf-8", "replace"))[:200]
