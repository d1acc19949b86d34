"""Valid inputs of the smaller parsers, and one conversation that has what no recording has."""

from __future__ import annotations

import base64
import json

from mobysession._pb import control_pb2, fsutil_pb2
from mobysession.filesync.packets import FIN_PACKET, data_header, end_of_file, error_packet
from mobysession.protocol.framing import encode_messages
from tests.fuzz.seeds import PREFACE

__all__ = ["CONFIGS", "CONVERSATION", "IGNORE_FILES", "PACKETS", "REFUSALS", "REQUESTS", "TRACES", "TRAILERS"]


def _frame(kind: int, flags: int, stream_id: int, body: bytes = b"") -> bytes:
    return len(body).to_bytes(3, "big") + bytes((kind, flags)) + stream_id.to_bytes(4, "big") + body


_REQUEST = b"\x83\x86\x44\x06/a.B/C\x5f\x10application/grpc\x00\x0dgrpc-encoding\x04gzip"
_MESSAGES = encode_messages([b"one", b"two" * 100])

#: Padding, priority, CONTINUATION, trailers, a window that opens late, settings, an unknown frame, a goodbye.
CONVERSATION = b"".join(
    (
        PREFACE,
        _frame(4, 0, 0, b"\0\4\0\0\0\0" + b"\0\1\0\0\0\0"),
        _frame(4, 1, 0),
        _frame(1, 0x2C, 1, b"\2\0\0\0\0\x0f" + _REQUEST + bytes(2)),
        _frame(0, 8, 1, b"\3" + _MESSAGES + bytes(3)),
        _frame(1, 0, 3, _REQUEST[:5]),
        _frame(9, 0, 3, _REQUEST[5:20]),
        _frame(9, 4, 3, _REQUEST[20:]),
        _frame(0, 0, 3, _MESSAGES[:4]),
        _frame(8, 0, 1, b"\0\0\0\1"),
        _frame(8, 0, 0, b"\0\0\xff\xff"),
        _frame(0, 1, 3, _MESSAGES[4:]),
        _frame(4, 0, 0, b"\0\4\0\1\0\0" + b"\0\5\0\0\x40\0"),
        _frame(2, 0, 5, b"\0\0\0\1\x0f"),
        _frame(6, 0, 0, b"12345678"),
        _frame(0xC8, 0xFF, 7, b"unknown"),
        _frame(1, 5, 1, b"\x00\x01x\x01y"),
        _frame(1, 5, 5, _REQUEST),
        _frame(3, 0, 5, b"\0\0\0\x08"),
        _frame(7, 0, 0, b"\0\0\0\5\0\0\0\0bye"),
    )
)

REFUSALS = [
    b"HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n\0\0\0\4\0\0\0\0\0",
    b'HTTP/1.1 400 Bad Request\r\nContent-Type: application/json\r\nContent-Length: 23\r\n\r\n{"message": "no luck"}',
    b"HTTP/1.1 500 Oops\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX: y\r\n\r\n",
    b"HTTP/1.0 404 Not Found\r\n\r\npage not found",
    b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\n\r\n",
]

_REQUEST_HEAD = b":method POST\n:scheme http\n:path /moby.filesync.v1.FileSync/DiffCopy\n:authority localhost\n"
REQUESTS = [
    _REQUEST_HEAD + b"content-type application/grpc\nte trailers\ngrpc-timeout 9999914u\nx-bin AAEC,/w\nx-bin \n",
    _REQUEST_HEAD
    + b"content-type application/grpc+proto\ndir-name context\nfollowpaths a%20b+c\nfollowpaths-encoded true\n"
    + b"exclude-patterns *.log\nexclude-patterns  !keep.log\ncontent-length 12",
]

TRAILERS = [
    b"grpc-status 0",
    b"grpc-status 5\ngrpc-message secret %22a%22 not found%0A\ngrpc-status-details-bin CAUSBm5vIHdheQ",
    b"grpc-status 99\nx-y z",
]

PACKETS = [
    encode_messages(
        [
            fsutil_pb2.Packet(
                stat={"path": b"a/b", "mode": 0o644, "size": 9, "xattrs": {"user.x": b"1"}}
            ).SerializeToString(),
            b"",
            fsutil_pb2.Packet(type=fsutil_pb2.Packet.PACKET_REQ, ID=7).SerializeToString(),
            data_header(300, 3) + b"abc",
            end_of_file(300),
            error_packet("no"),
            FIN_PACKET,
        ]
    )
]

IGNORE_FILES = [
    b"*.log\n!keep.log\n",
    b"# comment\n**/node_modules\n.git\na/**/b\n!a/x/b\n  spaced  \n/abs/path\n../up\n",
    "[a-c]x\n[^a-c]\\*\n?b*c**d\nä*ö\na|b^c$\n{x,y}.{1,2}\n".encode(),
    b"**/a*b*c*d*e\n" + b"*" * 20 + b"x\n",
]

_STATUS = control_pb2.StatusResponse()
_STATUS.vertexes.add(digest="sha256:1", name="[1/2] FROM x", inputs=["sha256:0"], error="")
_STATUS.statuses.add(ID="extract", vertex="sha256:1", current=5, total=9)
_STATUS.logs.add(vertex="sha256:1", stream=1, msg=b"line\r\nline 2")
_STATUS.warnings.add(vertex="sha256:1", level=1, short=b"short", detail=[b"detail"], url="https://x")


def _line(**item: object) -> bytes:
    return json.dumps(item).encode()


TRACES = [
    b"\n".join(
        (
            _line(id="moby.buildkit.trace", aux=base64.b64encode(_STATUS.SerializeToString()).decode()),
            _line(stream="Step 1"),
            _line(id="moby.image.id", aux={"ID": "sha256:abc"}),
        )
    ),
    _line(id="moby.buildkit.trace", aux=base64.b64encode(_STATUS.SerializeToString() * 3).decode()),
    _line(errorDetail={"code": 1, "message": "process failed"}, error="process failed"),
]

CONFIGS = [
    json.dumps(
        {
            "auths": {
                "https://index.docker.io/v1/": {"auth": "dXNlcjpwYXNz"},
                "registry.example:5000": {"identitytoken": "t"},
            },
            "credsStore": "pass",
            "credHelpers": {"gcr.io": "gcloud"},
            "HttpHeaders": {"X-Meta": "1"},
            "currentContext": "remote",
            "proxies": {"default": {"httpProxy": "http://p:1", "noProxy": "x"}},
        }
    ).encode(),
    b'{"AUTHS": {"docker.io/x": {"Username": "u", "Password": "p"}}, "credHelpers": null}',
    b'{"auths": {"docker.io": {"auth": "dXNlcjpwYXNz"}}}',
    b'X-A=1,"X-B=2,3"',
]
