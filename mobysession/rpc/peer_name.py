"""What the other end of a stream is called, in gRPC's words: ``ipv4:127.0.0.1:50051``, ``unix:/run/docker.sock``."""

from __future__ import annotations

import socket
from typing import Any

import trio

__all__ = ["NAMELESS", "peer_name"]

#: What gRPC calls a peer that has no address: one at the end of a pipe, of a command, of a tunnel.
NAMELESS = "unix:"


def peer_name(stream: trio.abc.Stream) -> str:
    """Return the name of the other end, as gRPC's C core spells it; `NAMELESS` where it has none.

    What stands upon another stream, as TLS does and a hijacked connection, has it as ``transport_stream``, and the name
    is that stream's.

    Source: grpc/grpc src/core/lib/address_utils/sockaddr_utils.cc (grpc_sockaddr_to_uri).
    """
    while (below := getattr(stream, "transport_stream", None)) is not None:
        stream = below
    if not isinstance(stream, trio.SocketStream):
        return NAMELESS
    try:
        name: Any = stream.socket.getpeername()
    except OSError:
        # It has hung up already.
        return NAMELESS
    match stream.socket.family:
        case socket.AF_INET:
            return f"ipv4:{name[0]}:{name[1]}"
        case socket.AF_INET6:
            return f"ipv6:%5B{name[0]}%5D:{name[1]}"
        case _:
            return f"unix:{name}" if isinstance(name, str) else NAMELESS
