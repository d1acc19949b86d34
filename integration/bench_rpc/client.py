"""The client of the streams, and of the check before anything is measured: grpcio's own, as a program.

``python -m integration.bench_rpc.client PORT check`` or ``... down|up SIZE COUNT``; prints the seconds it took.
"""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

import grpc

from integration.bench_rpc.service import DOWN, ECHO, ORDER, TOTAL, UP

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


def down(channel: grpc.Channel, size: int, count: int) -> None:
    call: grpc.UnaryStreamMultiCallable[bytes, bytes] = channel.unary_stream(DOWN)
    got = sum(map(len, call(ORDER.pack(count, size), timeout=60)))
    assert got == size * count, got


def up(channel: grpc.Channel, size: int, count: int) -> None:
    message = bytes(size)

    def messages() -> Iterator[bytes]:
        for _ in range(count):
            yield message

    call: grpc.StreamUnaryMultiCallable[bytes, bytes] = channel.stream_unary(UP)
    (got,) = TOTAL.unpack(call(messages(), timeout=60))
    assert got == size * count, got


def check(channel: grpc.Channel) -> None:
    """Ask everything once. grpcio raises unless the status is 0."""
    call: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(ECHO)
    for message in (b"", b"hello", bytes(range(256)) * 64):
        assert call(message, timeout=20) == message
    for size, count in ((1, 3), (100_000, 20), (3_000_000, 3)):
        down(channel, size, count)
        up(channel, size, count)


def main(arguments: Sequence[str]) -> None:
    port, verb, *numbers = arguments
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        grpc.channel_ready_future(channel).result(20)
        started = time.perf_counter()
        if verb == "check":
            check(channel)
        else:
            {"down": down, "up": up}[verb](channel, *map(int, numbers))
        print(time.perf_counter() - started)


if __name__ == "__main__":
    main(sys.argv[1:])
