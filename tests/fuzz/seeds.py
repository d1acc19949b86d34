"""What real peers said, as where the fuzzing starts: excerpts of recorded conversations, and how to cut them."""

from __future__ import annotations

import base64
import json
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["FRAME_HEAD", "PREFACE", "Conversation", "conversations", "frames_of"]

_DATA = Path(__file__).parent.parent / "data"
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
#: Bytes of a frame before its payload.
FRAME_HEAD = 9


class Conversation(NamedTuple):
    """A daemon's half of a recorded connection.

    Attributes:
        calls: that our side had opened, where it was the client; 0 on a session.
        head: the daemon's answer to the upgrade; empty where there was none.
        said: the HTTP/2 bytes, whole frames behind the preface.
    """

    calls: int
    head: bytes
    said: bytes


@cache
def conversations() -> Mapping[str, Conversation]:
    """Return the excerpts by name; those of sessions are called ``session-...``."""
    recorded = json.loads((_DATA / "conversations.json").read_text("utf-8"))
    return {
        name: Conversation(entry["calls"], entry["head"].encode(), base64.b64decode(entry["said"]))
        for name, entry in recorded.items()
    }


def frames_of(said: bytes) -> list[bytes]:
    """Cut a conversation into its frames; the preface, and an incomplete rest, are pieces of their own."""
    position = len(PREFACE) if said.startswith(PREFACE) else 0
    pieces = [said[:position]] if position else []
    while position < len(said):
        end = position + FRAME_HEAD + int.from_bytes(said[position : position + 3], "big")
        pieces.append(said[position:end])
        position = end
    return pieces
