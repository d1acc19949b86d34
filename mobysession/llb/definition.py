"""A graph as it is sent: every operation as bytes, those it works on before it, and the last one naming the result.

An operation is known by the digest of its bytes, so that equal ones are one.

Source: moby/buildkit solver/pb/ops.proto, client/llb/marshal.go.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mobysession import limits
from mobysession._pb import ops_pb2
from mobysession.errors import UsageError
from mobysession.llb.vertex import Output, Vertex, parse_platform

if TYPE_CHECKING:
    from collections.abc import MutableSequence

    from mobysession.llb.vertex import Location

__all__ = ["Definition"]

_CUSTOM_NAME = "llb.customname"


@dataclass(frozen=True)
class Definition:
    """What a solve is asked for.

    Attributes:
        message: as the Control API takes it.
    """

    message: ops_pb2.Definition

    @classmethod
    def of(cls, output: Output, *, platform: str = "", with_sources: bool = False) -> Definition:
        """Return the graph that leads to ``output``; see `State.definition`."""
        return cls(_Marshal(platform, with_sources).definition(output))

    @classmethod
    def parse(cls, data: bytes) -> Definition:
        """Read what `to_bytes` wrote, or BuildKit's own tools.

        Raises:
            UsageError: it is something else.
        """
        from google.protobuf.message import DecodeError

        try:
            definition = cls(ops_pb2.Definition.FromString(data))
            operations = definition.operations
        except DecodeError as error:
            raise UsageError("this is no definition of a build") from error
        if len(operations) < 2:
            raise UsageError("this is no definition of a build: it has no operation")
        return definition

    def definition(self, *, platform: str = "", with_sources: bool = False) -> Definition:
        """Return itself, so that it stands where a `State` does; its operations have their platforms already."""
        return self

    def to_bytes(self) -> bytes:
        """Return the graph as bytes, equal for equal graphs."""
        return self.message.SerializeToString(deterministic=True)

    @property
    def operations(self) -> dict[str, ops_pb2.Op]:
        """Every operation by its digest, in the order in which they are sent; the last one only names the result."""
        return {_digest(data): ops_pb2.Op.FromString(data) for data in _encoded(self.message)}

    @property
    def locals(self) -> tuple[str, ...]:
        """The names of the trees that this side has to send."""
        found = (op.source.identifier for op in self.operations.values())
        return tuple(dict.fromkeys(text.removeprefix("local://") for text in found if text.startswith("local://")))

    def as_json(self) -> list[dict[str, Any]]:
        """Return every operation as JSON has it: its digest, itself, and what is said about it."""
        from google.protobuf.json_format import MessageToDict

        return [
            {
                "Digest": digest,
                "Op": MessageToDict(op, preserving_proto_field_name=True),
                "OpMetadata": MessageToDict(self.message.metadata[digest], preserving_proto_field_name=True)
                if digest in self.message.metadata
                else {},
            }
            for digest, op in self.operations.items()
        ]

    def as_dot(self) -> str:
        """Return the graph in the language of Graphviz."""
        lines = ["digraph {"]
        for digest, op in self.operations.items():
            kind = op.WhichOneof("op")
            if kind is not None:
                name = self.message.metadata[digest].description.get(_CUSTOM_NAME, "") or _label(op)
                shape = "ellipse" if kind == "source" else "box"
                lines.append(f"  {_quoted(digest)} [label={_quoted(name)} shape={_quoted(shape)}];")
            else:
                lines.append(f'  {_quoted(digest)} [label="result" shape="plaintext"];')
            lines.extend(
                f"  {_quoted(each.digest)} -> {_quoted(digest)} [label={_quoted(str(each.index or ''))}];"
                for each in op.inputs
            )
        return "\n".join([*lines, "}", ""])


class _Marshal:
    """One walk over a graph."""

    def __init__(self, platform: str, with_sources: bool) -> None:
        self._platform = parse_platform(platform) if platform else None
        self._message = ops_pb2.Definition()
        #: By vertex, and those of all operations that are in the message.
        self._digests: dict[int, str] = {}
        self._sent: set[str] = set()
        self._files: dict[str, int | None] = {}
        self._with_sources = with_sources

    def definition(self, output: Output) -> ops_pb2.Definition:
        # Not by recursion: a long build would be deeper than Python goes.
        stack = [output.vertex]
        while stack:
            vertex = stack[-1]
            missing = [each.vertex for each in vertex.inputs if id(each.vertex) not in self._digests]
            if missing:
                stack.extend(missing)
                continue
            stack.pop()
            if id(vertex) not in self._digests:
                self._digests[id(vertex)] = self._add(vertex)
        last = ops_pb2.Op(inputs=[ops_pb2.Input(digest=self._digests[id(output.vertex)], index=output.number)])
        self._append(last)
        return self._message

    def _add(self, vertex: Vertex) -> str:
        op = ops_pb2.Op()
        op.CopyFrom(vertex.op)
        for each in vertex.inputs:
            op.inputs.add(digest=self._digests[id(each.vertex)], index=each.number)
        caps = set(vertex.caps)
        if vertex.takes_platform:
            if self._platform is not None and not op.HasField("platform"):
                op.platform.CopyFrom(self._platform)
            if op.HasField("platform"):
                caps.add("platform")
        digest = self._append(op)
        metadata = self._message.metadata[digest]
        if vertex.name:
            metadata.description[_CUSTOM_NAME] = vertex.name
            caps.add("meta.description")
        if vertex.ignore_cache:
            metadata.ignore_cache = True
            caps.add("meta.ignorecache")
        for cap in caps:
            metadata.caps[cap] = True
        if self._with_sources and vertex.location is not None:
            self._locate(digest, vertex.location)
        return digest

    def _append(self, op: ops_pb2.Op) -> str:
        data = op.SerializeToString(deterministic=True)
        digest = _digest(data)
        if digest not in self._sent:
            self._sent.add(digest)
            _encoded(self._message).append(data)
        return digest

    def _locate(self, digest: str, location: Location) -> None:
        if location.file not in self._files:
            self._files[location.file] = self._add_file(location.file)
        index = self._files[location.file]
        if index is not None:
            place = self._message.Source.locations[digest].locations.add(sourceIndex=index)
            place.ranges.add(start={"line": location.line}, end={"line": location.line})

    def _add_file(self, name: str) -> int | None:
        try:
            data = Path(name).read_bytes()
        except OSError:
            # Code from a notebook or from a prompt is in no file.
            return None
        if len(data) > limits.MAX_DOCKERFILE:
            return None
        self._message.Source.infos.add(filename=Path(name).name, data=data, language="Python")
        return len(self._message.Source.infos) - 1


def _encoded(message: ops_pb2.Definition) -> MutableSequence[bytes]:
    # The field's name is a word of Python's.
    encoded: MutableSequence[bytes] = getattr(message, "def")
    return encoded


def _digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _label(op: ops_pb2.Op) -> str:
    kind = op.WhichOneof("op")
    if kind == "source":
        return op.source.identifier
    if kind == "exec":
        return " ".join(op.exec.meta.args)
    if kind == "file":
        return ", ".join(str(action.WhichOneof("action")) for action in op.file.actions)
    return str(kind)
