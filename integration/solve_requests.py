"""What a client asks an engine for, read off the wire: the solve of ours, and that of ``docker buildx build``.

Both speak gRPC inside a hijacked ``POST /grpc``. Ours is one Control.Solve that names the frontend. buildx leaves the
frontend out of it and plays one itself: the same words are in the LLBBridge.Solve that follows. Here both come to one
`Asked`, in which what is drawn anew for each build (refs, sessions, stores, node ids) is a word that stands for it.
"""

from __future__ import annotations

import contextlib
import json
import re
import zlib
from dataclasses import dataclass, field
from struct import Struct
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import trio
from hpack import Decoder

from integration.relays import open_relay
from mobysession._pb import control_pb2, gateway_pb2

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from integration.engines import Engine

__all__ = ["Asked", "asked", "of_bridge", "of_control", "recorded"]

T = TypeVar("T")

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_HEAD = Struct(">HBBBL")
_PREFIX = Struct(">BL")
_DATA, _HEADERS, _CONTINUATION = 0, 1, 9
_END_HEADERS, _PADDED, _PRIORITY = 4, 8, 32
_CONTROL_SOLVE = "/moby.buildkit.v1.Control/Solve"
_BRIDGE_SOLVE = "/moby.buildkit.v1.frontend.LLBBridge/Solve"

#: What is different at each build, and the word that stands for it.
_IDS = (
    (re.compile(r"^(oci-layout://)[0-9a-z]{25}\b"), r"\1STORE"),
    (re.compile(r"^(http://buildkit-session/)\w+$"), r"\1UPLOAD"),
)


@dataclass
class Asked:
    """One solve, comparable.

    Attributes:
        attrs: of the frontend.
        exporters: type and attributes of each.
        first: the exporter for engines that know of one only.
        imports, exports: caches, by type and attributes.
        inputs: names of the definitions that the frontend gets.
    """

    frontend: str = ""
    attrs: dict[str, str] = field(default_factory=dict)
    exporters: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    first: tuple[str, dict[str, str]] = ("", {})
    imports: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    exports: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    entitlements: list[str] = field(default_factory=list)
    policy: dict[str, Any] = field(default_factory=dict)
    internal: bool = False
    inputs: list[str] = field(default_factory=list)

    def differences(self, other: Asked) -> list[str]:
        """Return where ``other`` differs, field by field, with both values."""
        mine, theirs = _flat(self), _flat(other)
        names = sorted(mine.keys() | theirs.keys())
        return [
            f"{name}: {mine.get(name)!r} != {theirs.get(name)!r}"
            for name in names
            if mine.get(name) != theirs.get(name)
        ]


def _flat(asked: Asked) -> dict[str, object]:
    flat: dict[str, object] = {f"attrs[{name}]": value for name, value in asked.attrs.items()}
    for group in ("exporters", "imports", "exports"):
        for number, (kind, attrs) in enumerate(getattr(asked, group)):
            flat[f"{group}[{number}]"] = kind
            flat |= {f"{group}[{number}][{name}]": value for name, value in attrs.items()}
    others = ("frontend", "first", "entitlements", "policy", "internal", "inputs")
    return flat | {name: getattr(asked, name) for name in others}


def recorded(engine: Engine, run: Callable[[str], T]) -> tuple[T, list[Asked]]:
    """Call ``run`` with the address of a relay to ``engine``; return its result and the solves it asked for."""
    sent: list[bytearray] = []

    async def main() -> T:
        async with open_relay(engine.socket, record=sent) as port:
            return await trio.to_thread.run_sync(run, f"tcp://127.0.0.1:{port}")

    return trio.run(main), asked(sent)


def asked(connections: list[bytearray]) -> list[Asked]:
    """Return the solves in what clients sent, in order."""
    solves: dict[str, Asked] = {}
    calls = [call for connection in connections for call in _calls(bytes(connection))]
    for call in calls:
        if call.path == _CONTROL_SOLVE:
            request = control_pb2.SolveRequest.FromString(call.message)
            solves[request.Ref] = of_control(request)
    for call in calls:
        if call.path == _BRIDGE_SOLVE:
            solve = solves[call.fields["buildkit-controlapi-buildid"]]
            of_bridge(solve, gateway_pb2.SolveRequest.FromString(call.message))
    return list(solves.values())


def of_control(request: control_pb2.SolveRequest) -> Asked:
    """Return what a solve says of itself; of buildx's, `of_bridge` has the rest."""
    return Asked(
        frontend=request.Frontend,
        attrs=_normal(request.FrontendAttrs),
        exporters=[(one.Type, _normal(one.Attrs)) for one in request.Exporters],
        first=(request.ExporterDeprecated, _normal(request.ExporterAttrsDeprecated)),
        imports=[(one.Type, _normal(one.Attrs)) for one in request.Cache.Imports],
        exports=[(one.Type, _normal(one.Attrs)) for one in request.Cache.Exports],
        entitlements=sorted(request.Entitlements),
        policy=_plain(request.SourcePolicy),
        internal=request.Internal,
        inputs=sorted(request.FrontendInputs),
    )


def of_bridge(solve: Asked, request: gateway_pb2.SolveRequest) -> None:
    """Add to a solve what its client says when it plays the frontend."""
    # A second one, as after a lint that the frontend does not know, is another matter.
    if not solve.frontend:
        solve.frontend = request.Frontend
        solve.attrs = _normal(request.FrontendOpt)
        solve.inputs = sorted(request.FrontendInputs)


def _plain(message: Any) -> dict[str, Any]:
    return {descriptor.name: str(value) for descriptor, value in message.ListFields()}


def _normal(attributes: Mapping[str, str]) -> dict[str, str]:
    normal = {}
    for name, value in attributes.items():
        for pattern, word in _IDS:
            value = pattern.sub(word, value)
        if name.startswith("sharedkey:localdir:"):
            value = "KEY"
        if name == "cache-imports":
            # Go and Python sort and space their JSON differently.
            value = json.dumps(json.loads(value), sort_keys=True)
        if name in ("frontend.caps", "add-hosts", "ulimit"):
            value = ",".join(sorted(value.split(",")))
        normal[name] = value
    return normal


class _Call(NamedTuple):
    path: str
    fields: Mapping[str, str]
    message: bytes


def _calls(sent: bytes) -> Iterator[_Call]:
    """Yield the first message of each call of a connection on which the client opens the calls."""
    before, preface, frames = sent.partition(_PREFACE)
    if not preface or b"POST /grpc" not in before[-2000:]:
        return
    fields: dict[int, dict[str, str]] = {}
    content: dict[int, bytearray] = {}
    decoder = Decoder(max_header_list_size=2**20)
    block = bytearray()
    for kind, flags, stream, payload in _frames(frames):
        if kind in (_HEADERS, _CONTINUATION):
            block += payload
            if flags & _END_HEADERS:
                fields[stream] = _texts(decoder.decode(bytes(block)))
                block.clear()
        elif kind == _DATA:
            content.setdefault(stream, bytearray()).extend(payload)
    for stream, body in content.items():
        with contextlib.suppress(KeyError):
            yield _Call(fields[stream][":path"], fields[stream], _message(bytes(body)))


def _texts(fields: Iterable[tuple[Any, Any]]) -> dict[str, str]:
    return {str(name): str(value) for name, value in fields}


def _frames(data: bytes) -> Iterator[tuple[int, int, int, bytes]]:
    at = 0
    while at + _HEAD.size <= len(data):
        high, low, kind, flags, stream = _HEAD.unpack_from(data, at)
        size = high << 8 | low
        payload = data[at + _HEAD.size : at + _HEAD.size + size]
        at += _HEAD.size + size
        if kind in (_DATA, _HEADERS) and flags & _PADDED:
            payload = payload[1 : len(payload) - payload[0]]
        if kind == _HEADERS and flags & _PRIORITY:
            payload = payload[5:]
        yield kind, flags, stream, payload


def _message(body: bytes) -> bytes:
    if len(body) < _PREFIX.size:
        return b""
    compressed, size = _PREFIX.unpack_from(body)
    message = body[_PREFIX.size : _PREFIX.size + size]
    return zlib.decompress(message, wbits=31) if compressed else message
