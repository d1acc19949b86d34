"""h2 and nothing else: a state machine on a blocking socket, with just enough gRPC to be asked the same.

What a server on h2 can reach at most: no tasks, no fairness, no bounds, no cancellation, no metadata, no checks. h2 has
the configuration that ours has (no checks of headers), and windows and frames as wide.
"""

from __future__ import annotations

import socket
import threading
from contextlib import suppress

import h2.config
import h2.connection
import h2.events
import h2.settings

from integration.bench_rpc.service import DOWN, ECHO, ORDER, TOTAL, announce, framed

WINDOW = 16 * 1024**2
FRAME = 1024**2
READ = 256 * 1024
WRITE = 128 * 1024
BEGIN = [(b":status", b"200"), (b"content-type", b"application/grpc")]
END = [(b"grpc-status", b"0")]


class Connection:
    """One connection and the calls on it."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        config = h2.config.H2Configuration(
            client_side=False,
            header_encoding=None,
            validate_inbound_headers=False,
            validate_outbound_headers=False,
            normalize_outbound_headers=False,
        )
        self.h2 = h2.connection.H2Connection(config)
        self.paths: dict[int, bytes] = {}
        self.bodies: dict[int, bytearray] = {}
        self.totals: dict[int, int] = {}
        #: Stream, message, messages left, and the offset in the one that is being sent.
        self.downs: dict[int, tuple[memoryview, int, int]] = {}

    def run(self) -> None:
        codes = h2.settings.SettingCodes
        self.h2.local_settings = h2.settings.Settings(
            client=False, initial_values={codes.INITIAL_WINDOW_SIZE: WINDOW, codes.MAX_FRAME_SIZE: FRAME}
        )
        self.h2.max_inbound_frame_size = FRAME
        self.h2.initiate_connection()
        self.h2.increment_flow_control_window(WINDOW)
        self.flush()
        while data := self.sock.recv(READ):
            for event in self.h2.receive_data(data):
                self.handle(event)
            self.flush()
            while self.send_down():
                self.flush()

    def flush(self) -> None:
        if data := self.h2.data_to_send():
            self.sock.sendall(data)

    def handle(self, event: h2.events.Event) -> None:
        if isinstance(event, h2.events.RequestReceived):
            stream_id = event.stream_id
            self.paths[stream_id] = dict(event.headers)[b":path"]
            self.bodies[stream_id] = bytearray()
            self.totals[stream_id] = 0
        elif isinstance(event, h2.events.DataReceived):
            self.take(event.stream_id, event.data, event.flow_controlled_length)
        elif isinstance(event, h2.events.StreamEnded):
            self.answer(event.stream_id)

    def take(self, stream_id: int, data: bytes, length: int) -> None:
        body = self.bodies[stream_id]
        body += data
        offset = 0
        while len(body) - offset >= 5:
            size = 5 + int.from_bytes(body[offset + 1 : offset + 5], "big")
            if len(body) - offset < size:
                break
            if self.paths[stream_id].endswith(b"/Up"):
                # A handler gets a message, which is bytes of its own.
                self.totals[stream_id] += len(bytes(memoryview(body)[offset + 5 : offset + size]))
            else:
                self.downs[stream_id] = memoryview(bytes(body[offset : offset + size])), 1, 0
            offset += size
        del body[:offset]
        self.h2.acknowledge_received_data(length, stream_id)

    def answer(self, stream_id: int) -> None:
        path = self.paths.pop(stream_id).decode()
        del self.bodies[stream_id]
        self.h2.send_headers(stream_id, BEGIN)
        if path == ECHO:
            self.h2.send_data(stream_id, self.downs.pop(stream_id)[0])
            self.h2.send_headers(stream_id, END, end_stream=True)
        elif path == DOWN:
            count, size = ORDER.unpack(self.downs[stream_id][0][5:])
            self.downs[stream_id] = memoryview(framed(bytes(size))), count, 0
        else:
            self.h2.send_data(stream_id, framed(TOTAL.pack(self.totals[stream_id])))
            self.h2.send_headers(stream_id, END, end_stream=True)
        del self.totals[stream_id]

    def send_down(self) -> int:
        """Send what the windows allow, but not more than `WRITE`, of the stream of messages."""
        sent = 0
        for stream_id, (message, left, offset) in list(self.downs.items()):
            if stream_id in self.paths:
                continue
            while left and sent < WRITE:
                window = min(self.h2.local_flow_control_window(stream_id), self.h2.max_outbound_frame_size)
                if not window:
                    break
                piece = message[offset : offset + min(window, WRITE - sent)]
                self.h2.send_data(stream_id, piece)
                sent += len(piece)
                offset += len(piece)
                if offset == len(message):
                    left, offset = left - 1, 0
            self.downs[stream_id] = message, left, offset
            if not left:
                del self.downs[stream_id]
                self.h2.send_headers(stream_id, END, end_stream=True)
                sent += 1
        return sent


def serve(sock: socket.socket) -> None:
    with sock, suppress(ConnectionError):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        Connection(sock).run()


def accept(listener: socket.socket) -> None:
    while True:
        sock, _ = listener.accept()
        threading.Thread(target=serve, args=(sock,), daemon=True).start()


def main() -> None:
    listener = socket.create_server(("127.0.0.1", 0), backlog=256)
    threading.Thread(target=accept, args=(listener,), daemon=True).start()
    announce(listener.getsockname()[1])


if __name__ == "__main__":
    main()
