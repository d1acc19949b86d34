"""How long a small call waits while eight streams saturate the connection and the client reads slowly.

The client is bare h2 on a blocking socket whose receive buffer is small, so that what is measured is the server's
order and not the kernel's stock. It reads a little, rests a little, and asks now and then; the time from the asking to
the end of the answer is what counts, and the bytes of the saturating streams that came in between.
"""

from __future__ import annotations

import socket
import sys
import time
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING

import h2.config
import h2.connection
import h2.events
import h2.settings

from integration.bench_rpc.process import serving
from integration.bench_rpc.service import DOWN, ECHO, ORDER, framed

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Latency", "health_latency_under_load"]

KIB = 1024
_WINDOW = 2**31 - 1
_STREAMS = 8
_MESSAGE = 64 * KIB
_BUFFER = 64 * KIB
_READ = 16 * KIB
_REST = 0.0002
_WARM = 4 * KIB * KIB
_TIMEOUT = 30.0


@dataclass(frozen=True, kw_only=True)
class Latency:
    """What the small calls of one run took.

    Attributes:
        typical: seconds, the median.
        worst: seconds.
        between: bytes of other streams that came between a call and its answer, at most.
        speed: bytes a second of the saturating streams meanwhile.
    """

    typical: float
    worst: float
    between: int
    speed: float


def health_latency_under_load(port: int, *, calls: int = 100) -> Latency:
    """Measure ``calls`` small calls, one after the other, on one connection to 127.0.0.1:``port`` under load."""
    with socket.socket() as stream:
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
        stream.settimeout(_TIMEOUT)
        stream.connect(("127.0.0.1", port))
        stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        client = _Client(stream)
        client.saturate()
        started, before = time.perf_counter(), client.received
        taken = [client.ask() for _ in range(calls)]
        speed = (client.received - before) / (time.perf_counter() - started)
    times = [seconds for seconds, _ in taken]
    return Latency(typical=median(times), worst=max(times), between=max(between for _, between in taken), speed=speed)


class _Client:
    """An HTTP/2 client by hand."""

    def __init__(self, stream: socket.socket) -> None:
        self.received = 0
        self._stream = stream
        self._h2 = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding=None))
        self._h2.local_settings = h2.settings.Settings(
            client=True, initial_values={h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: _WINDOW}
        )
        self._h2.initiate_connection()
        self._h2.increment_flow_control_window(_WINDOW - 65_535)
        self._next = 1

    def saturate(self) -> None:
        """Open the streams and read until all of them flow."""
        for _ in range(_STREAMS):
            self._open(DOWN, ORDER.pack(2**31, _MESSAGE))
        while self.received < _WARM:
            self._read()

    def ask(self) -> tuple[float, int]:
        """Make one small call; return its seconds, and the bytes of other streams that came before its end."""
        for _ in range(16):
            self._read()
        before, started = self.received, time.perf_counter()
        stream_id = self._open(ECHO, b"are you there")
        while not any(isinstance(e, h2.events.StreamEnded) and e.stream_id == stream_id for e in self._read()):
            if time.perf_counter() - started > _TIMEOUT:
                raise TimeoutError("a small call was not answered")
        return time.perf_counter() - started, self.received - before

    def _open(self, method: str, message: bytes) -> int:
        stream_id, self._next = self._next, self._next + 2
        fields = {":method": "POST", ":scheme": "http", ":path": method, ":authority": "localhost"}
        self._h2.send_headers(stream_id, [*fields.items(), ("content-type", "application/grpc"), ("te", "trailers")])
        self._h2.send_data(stream_id, framed(message), end_stream=True)
        self._stream.sendall(self._h2.data_to_send())
        return stream_id

    def _read(self) -> Sequence[h2.events.Event]:
        time.sleep(_REST)
        data = self._stream.recv(_READ)
        if not data:
            raise ConnectionError("the server hung up")
        happened = self._h2.receive_data(data)
        for event in happened:
            if isinstance(event, h2.events.DataReceived):
                self.received += len(event.data)
                self._h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        if answer := self._h2.data_to_send():
            self._stream.sendall(answer)
        return happened


def main(names: Sequence[str]) -> int:
    """Measure the servers of these modules of ``integration.bench_rpc.servers`` and print a line for each."""
    print("a small call beside eight saturating streams and a slow reader: median, worst, KiB between at most, MB/s")
    for name in names or ("ours", "grpcio_sync", "grpcio_aio", "grpclib"):
        with serving(name) as server:
            found = health_latency_under_load(server.port)
        times = f"{found.typical * 1e3:8.2f} ms {found.worst * 1e3:8.2f} ms"
        print(f"{name:12} {times} {found.between / KIB:8.0f} KiB {found.speed / 1e6:8.1f} MB/s", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
