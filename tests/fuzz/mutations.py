"""How a conversation is damaged: by the byte, by the frame, by the piece. All from one source of chance."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.fuzz.seeds import FRAME_HEAD, PREFACE, frames_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from random import Random

__all__ = ["cut", "damage_bytes", "damage_frames"]

_TELLING = (0, 1, 0x7F, 0x80, 0xFF, 0x20, 0x25, 0x2D, 0x3A, 0x0A, 0x0D, 0x22, 0x5C, 0x7B, 0x21, 0x2A, 0x5B)
_LENGTHS = (0, 1, 4, 5, 6, 8, 9, 16384, 16385, 2**20, 2**20 + 1, 2**24 - 1)
_STREAMS = (0, 1, 2, 3, 5, 7, 9, 25, 501, 2**31 - 1, 2**31, 2**32 - 1)
_NUMBERS = (0, 1, 2, 65535, 2**24, 2**31 - 1, 2**31, 2**32 - 1)


def damage_bytes(data: bytes, chance: Random) -> bytes:
    """Return ``data`` with one to six places changed, dropped, doubled, moved or filled with anything."""
    damaged = bytearray(data)
    for _ in range(chance.choice((1, 1, 1, 2, 3, 6))):
        chance.choice(_ON_BYTES)(damaged, chance)
    return bytes(damaged)


def _flip(data: bytearray, chance: Random) -> None:
    if data:
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)


def _set(data: bytearray, chance: Random) -> None:
    if data:
        data[chance.randrange(len(data))] = chance.choice(_TELLING)


def _drop(data: bytearray, chance: Random) -> None:
    start, end = _span(data, chance)
    del data[start:end]


def _double(data: bytearray, chance: Random) -> None:
    start, end = _span(data, chance)
    data[end:end] = data[start:end] * chance.choice((1, 1, 2, 50))


def _move(data: bytearray, chance: Random) -> None:
    start, end = _span(data, chance)
    piece = data[start:end]
    del data[start:end]
    place = chance.randint(0, len(data))
    data[place:place] = piece


def _fill(data: bytearray, chance: Random) -> None:
    place = chance.randint(0, len(data))
    data[place:place] = chance.randbytes(chance.choice((1, 2, 4, 9, 30)))


def _number(data: bytearray, chance: Random) -> None:
    place = chance.randint(0, len(data))
    data[place : place + 4] = chance.choice(_NUMBERS).to_bytes(4, "big")


def _truncate(data: bytearray, chance: Random) -> None:
    del data[chance.randint(0, len(data)) :]


_ON_BYTES: tuple[Callable[[bytearray, Random], None], ...] = (
    _flip,
    _flip,
    _set,
    _set,
    _drop,
    _double,
    _move,
    _fill,
    _number,
    _truncate,
)


def _span(data: bytearray, chance: Random) -> tuple[int, int]:
    start = chance.randint(0, len(data))
    return start, min(len(data), start + chance.choice((1, 2, 5, 9, 17, 100)))


def damage_frames(said: bytes, chance: Random) -> bytes:
    """Return a conversation with one to six frames changed, dropped, doubled, moved or made up; framing stays valid."""
    frames = frames_of(said)
    for _ in range(chance.choice((1, 1, 2, 3, 6))):
        chance.choice(_ON_FRAMES)(frames, chance)
    return b"".join(frames)


def _place(frames: list[bytes], chance: Random) -> int:
    # Behind the preface: without it nothing else would be heard.
    return chance.randrange(1 if frames and frames[0] == PREFACE else 0, max(2, len(frames)))


def _change_head(frames: list[bytes], chance: Random) -> None:
    place = _place(frames, chance)
    for frame in frames[place : place + 1]:
        head, body = bytearray(frame[:FRAME_HEAD]), frame[FRAME_HEAD:]
        if len(head) < FRAME_HEAD:
            return
        match chance.randrange(4):
            case 0:
                head[3] = chance.randrange(12)
            case 1:
                head[4] = chance.choice((0, 1, 4, 5, 8, 9, 0x20, 0x25, 0x2D, 0xFF))
            case 2:
                head[5:9] = chance.choice(_STREAMS).to_bytes(4, "big")
            case _:
                # Not a length that fits: what follows becomes part of this frame, or this one becomes several.
                head[:3] = chance.choice(_LENGTHS).to_bytes(3, "big")
        frames[place] = bytes(head) + body


def _change_body(frames: list[bytes], chance: Random) -> None:
    place = _place(frames, chance)
    for frame in frames[place : place + 1]:
        if len(frame) >= FRAME_HEAD:
            body = damage_bytes(frame[FRAME_HEAD:], chance)
            frames[place] = len(body).to_bytes(3, "big") + frame[3:FRAME_HEAD] + body


def _drop_frame(frames: list[bytes], chance: Random) -> None:
    place = _place(frames, chance)
    del frames[place : place + chance.choice((1, 1, 3))]


def _double_frame(frames: list[bytes], chance: Random) -> None:
    place = _place(frames, chance)
    frames[place:place] = frames[place : place + 1] * chance.choice((1, 1, 2, 100))


def _move_frame(frames: list[bytes], chance: Random) -> None:
    place = _place(frames, chance)
    moved = frames[place : place + 1]
    del frames[place : place + 1]
    place = _place(frames, chance)
    frames[place:place] = moved


def _make_frame(frames: list[bytes], chance: Random) -> None:
    kind = chance.choice((0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 10, 200))
    size = {2: 5, 3: 4, 4: 6, 6: 8, 7: 8, 8: 4}.get(kind, chance.choice((0, 1, 5, 40)))
    body = chance.choice((bytes(size), chance.randbytes(size), chance.choice(_NUMBERS).to_bytes(4, "big") * 3))
    if chance.random() < 0.8:
        body = body[:size]
    flags = chance.choice((0, 0, 1, 4, 5, 8))
    stream_id = chance.choice(_STREAMS)
    place = _place(frames, chance)
    frames[place:place] = [len(body).to_bytes(3, "big") + bytes((kind, flags)) + stream_id.to_bytes(4, "big") + body]


_ON_FRAMES: tuple[Callable[[list[bytes], Random], None], ...] = (
    _change_head,
    _change_head,
    _change_body,
    _change_body,
    _drop_frame,
    _double_frame,
    _move_frame,
    _make_frame,
    _make_frame,
)


def cut(data: bytes, chance: Random) -> list[bytes]:
    """Return ``data`` in pieces, as a network might deliver it: mostly few, at times single bytes."""
    if not data or chance.random() < 0.3:
        return [data]
    largest = chance.choice((1, 10, 100, 1000, 20_000)) if len(data) < 5000 else chance.choice((1000, 20_000))
    pieces = []
    position = 0
    while position < len(data):
        end = position + chance.randint(1, largest)
        pieces.append(data[position:end])
        position = end
    return pieces
