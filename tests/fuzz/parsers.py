"""The smaller parsers of what others wrote: each function takes bytes, and lets through only what is a bug."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from contextlib import suppress
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from google.protobuf.message import DecodeError

from mobysession import dockerconfig
from mobysession._pb import fsutil_pb2
from mobysession.build import classic_driver
from mobysession.build.progress import BuildProgress
from mobysession.errors import (
    BuildFailed,
    ContextError,
    CredentialError,
    EndpointError,
    HandshakeError,
    RpcError,
    TransportError,
)
from mobysession.filesync.filters import parse_filter
from mobysession.filesync.packets import decode_requests
from mobysession.limits import KIB, MAX_STATUS_MESSAGE
from mobysession.protocol.framing import PREFIX_SIZE, MessageReader
from mobysession.protocol.handshake import UpgradeHandshake
from mobysession.protocol.headers import content_length, is_malformed, refuse_request
from mobysession.protocol.metadata import decode_metadata, encoded_values
from mobysession.protocol.status import decode_message, encode_message, parse_status
from mobysession.protocol.timeouts import parse_timeout
from tests.fuzz.mutations import cut

if TYPE_CHECKING:
    from random import Random

__all__ = ["read_config", "read_framing", "read_handshake", "read_metadata", "read_packets", "read_patterns"]
__all__ += ["read_status", "read_trace"]

#: Bytes of one message that the framing accepts here, so that its bound is met within a few bytes.
_LIMIT = 64 * KIB
_PATHS = ("a", "a/b", "a/b/c.txt", "node_modules/x/y", ".git", "sub/blob", "keep.log", "ä\udcff", "*", "[", "\\")


def read_handshake(data: bytes, chance: Random) -> None:
    """The answer to an upgrade: a result or one of our errors, the same whole and in pieces."""
    pieces = [*cut(data, chance), b""]
    outcomes = [_upgrade(pieces), _upgrade([data, b""])]
    assert outcomes[0] == outcomes[1]


def _upgrade(pieces: list[bytes]) -> object:
    handshake = UpgradeHandshake("/session")
    handshake.data_to_send()
    for number, piece in enumerate(pieces):
        try:
            upgraded = handshake.receive_data(piece)
        except TransportError as error:
            return type(error)
        if upgraded is not None:
            return upgraded.status_line, upgraded.headers, upgraded.leftover + b"".join(pieces[number + 1 :])
    return handshake.timed_out(1.0).message


def read_framing(data: bytes, chance: Random) -> None:
    """Messages, or a status; never more held back than a message."""
    encoding = chance.choice(("identity", "gzip", "gzip"))
    heard = [_messages(MessageReader(encoding, limit=_LIMIT), pieces) for pieces in ([data], cut(data, chance))]
    # What inflates is bounded by the read as well, and depends on the cut then.
    if not any(isinstance(outcome, str) and "at once" in outcome for outcome in heard):
        assert heard[0] == heard[1]


def _messages(reader: MessageReader, pieces: list[bytes]) -> object:
    found: list[bytes] = []
    try:
        for piece in pieces:
            found += reader.receive_data(piece)
            assert reader.buffered <= _LIMIT + PREFIX_SIZE
        reader.finish()
    except RpcError as error:
        return error.message
    return found


def _headers(data: bytes) -> list[tuple[bytes, bytes]]:
    """Return header fields as a seed writes them: a line each, name and value parted by a space."""
    return [(name, value) for name, _, value in (line.partition(b" ") for line in data.split(b"\n"))]


def read_metadata(data: bytes, _chance: Random) -> None:
    """The headers of a request, through the same gates as in the server."""
    headers = _headers(data)
    if is_malformed(headers, "request"):
        return
    fields = dict(headers)
    content_length(fields)
    if refuse_request(fields) is not None:
        return
    with suppress(RpcError):
        metadata = decode_metadata(headers)
        for key in ("followpaths", "exclude-patterns", "dir-name"):
            encoded_values(metadata, key)
    with suppress(RpcError):
        assert parse_timeout(fields.get(b"grpc-timeout", b"1S").decode("ascii", "replace")) >= 0


def read_status(data: bytes, _chance: Random) -> None:
    """The trailers of a call: always a status, or none."""
    headers = _headers(data)
    if is_malformed(headers, "trailers"):
        return
    status = parse_status(dict(headers))
    assert (status is None) == (b"grpc-status" not in dict(headers))
    text = decode_message(data)
    if len(text) * 9 <= MAX_STATUS_MESSAGE:
        assert decode_message(encode_message(text)) == text


def read_packets(data: bytes, _chance: Random) -> None:
    """The packets of DiffCopy that a sender takes, framed as gRPC frames them."""
    with suppress(RpcError, DecodeError):
        for _kind, number, _text in decode_requests(MessageReader(limit=_LIMIT).receive_data(data)):
            assert number >= 0
    with suppress(DecodeError):
        fsutil_pb2.Packet.FromString(data)


def read_patterns(data: bytes, _chance: Random) -> None:
    """The lines of an ignore file: a filter that judges every path, or an error that says which line."""
    lines = data.decode("utf-8", "surrogateescape").splitlines()
    wanted = [line for line in lines if len(line) % 2]
    try:
        found = parse_filter(wanted, lines)
    except ContextError:
        return
    if found is None:
        return
    for path in (*_PATHS, "a/" * 100 + "b", "a" * 500):
        included = excluded = None
        ends = [index for index, character in enumerate(path) if character == "/"]
        for _, end in pairwise((0, *ends, len(path))):
            _, included, excluded = found.judge(path[:end], end < len(path), included, excluded)


def read_trace(data: bytes, _chance: Random) -> None:
    """The lines of the classic build's answer."""
    progress = BuildProgress()
    with suppress(HandshakeError, BuildFailed):
        for line in data.split(b"\n"):
            classic_driver._take(classic_driver._parse(line), {}, progress)
    progress.finish()


def read_config(data: bytes, _chance: Random) -> None:
    """The docker CLI's configuration, and what is asked of it."""
    folder = _folder()
    (folder / "config.json").write_bytes(data)
    # What environments hold has no NUL.
    text = data.replace(b"\0", b"").decode("utf-8", "surrogateescape")
    with suppress(EndpointError, CredentialError):
        config = dockerconfig.load(folder, environ={})
        repr(config)
        config.proxy_arguments("unix:///var/run/docker.sock")
        for host in ("docker.io", "registry.example:5000"):
            config.helper_for(host)
            config.auth_entry(host)
    with suppress(EndpointError, CredentialError):
        environ = {"DOCKER_AUTH_CONFIG": text, "DOCKER_CUSTOM_HEADERS": text}
        dockerconfig.load(folder / "missing", environ=environ).auth_entry("docker.io")


@cache
def _folder() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="mobysession-fuzz-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder
