"""A relay that lets every byte wait: ``python relay.py LISTEN ENGINE SECONDS``, until stdin ends.

Bandwidth is what the machine has; only the way takes its time, half of the round trip in each direction. It is a
process of its own, with threads, so that neither client pays for it.
"""

import os
import queue
import socket
import sys
import threading
import time

CHUNK = 1024 * 1024
ON_THE_WAY = 512
"""Chunks that may be on the way in one direction: more than the fastest client sends in the longest delay."""


def main(argv: list[str]) -> None:
    """Listen, relay, end with stdin."""
    listen, engine, delay = argv[0], argv[1], float(argv[2])
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(listen)
        listener.listen()
        threading.Thread(target=accept, args=(listener, engine, delay), daemon=True).start()
        print("ready", flush=True)
        sys.stdin.read()
        os._exit(0)


def accept(listener: socket.socket, engine: str, delay: float) -> None:
    """Relay each connection in four threads."""
    while True:
        client, _ = listener.accept()
        server = socket.socket(socket.AF_UNIX)
        server.connect(engine)
        for source, sink in ((client, server), (server, client)):
            way: queue.Queue[tuple[float, bytes]] = queue.Queue(ON_THE_WAY)
            threading.Thread(target=take, args=(source, way, delay), daemon=True).start()
            threading.Thread(target=give, args=(way, sink), daemon=True).start()


def take(source: socket.socket, way: "queue.Queue[tuple[float, bytes]]", delay: float) -> None:
    """Put what arrives on the way."""
    while True:
        try:
            data = source.recv(CHUNK)
        except OSError:
            data = b""
        way.put((time.monotonic() + delay, data))
        if not data:
            return


def give(way: "queue.Queue[tuple[float, bytes]]", sink: socket.socket) -> None:
    """Hand on what has been on the way for long enough."""
    while True:
        due, data = way.get()
        if (left := due - time.monotonic()) > 0:
            time.sleep(left)
        try:
            if not data:
                sink.shutdown(socket.SHUT_WR)
                return
            sink.sendall(data)
        except OSError:
            return


if __name__ == "__main__":
    main(sys.argv[1:])
