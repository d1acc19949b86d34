"""Exporter: once a build has its result, the daemon asks where that goes, besides where the request said.

The request says that it shall ask (``EnableSessionExporter``, BuildKit 0.21). It then calls ``FindExporters`` with what
the frontend says of the result, such as the image's configuration, and runs the exporters that are named in the answer.
What they send comes through FileSend, under the numbers that follow those of the request's own exporters. BuildKit from
0.32 on tells in the end what all exporters answered.

Source: moby/buildkit session/exporter, solver/llbsolver/export.go.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from mobysession._pb import exporter_pb2
from mobysession.errors import MobysessionError, RpcError, StatusCode, UsageError
from mobysession.jsontext import parse_json
from mobysession.services.provider import Provider

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from mobysession.rpc.registrar import Registrar
    from mobysession.rpc.server import ServerCall
    from mobysession.services.filesend import FileSend, Target

__all__ = ["FINALIZE_EXPORT", "FIND_EXPORTERS", "BuiltResult", "Exporter", "FoundExporter"]

_logger = logging.getLogger("mobysession.services")

FIND_EXPORTERS: Final = "/moby.exporter.v1.Exporter/FindExporters"
FINALIZE_EXPORT: Final = "/moby.exporter.v1.Exporter/FinalizeExport"
_IMAGE_CONFIG: Final = "containerimage.config"


@dataclass(frozen=True)
class BuiltResult:
    """What a build came to, before it is exported.

    Attributes:
        metadata: what the frontend says of it, such as ``containerimage.config``; JSON for the most part.
        refs: the daemon's IDs of its parts, one for each platform; empty for a result without files.
    """

    metadata: Mapping[str, bytes]
    refs: Sequence[str]

    @property
    def image_config(self) -> dict[str, Any] | None:
        """The configuration of the image, where there is a single one and it is JSON."""
        try:
            config = parse_json(self.metadata.get(_IMAGE_CONFIG, b""))
        except ValueError:
            return None
        return config if isinstance(config, dict) else None


@dataclass(frozen=True)
class FoundExporter:
    """One exporter that the daemon is to run.

    Args:
        type: as in a request: ``local``, ``tar``, ``oci``, ``docker``, ``image``, ``moby``.
        attrs: what it takes.
        target: where what it sends goes; None for one that sends nothing.
    """

    type: str
    attrs: Mapping[str, str] = field(default_factory=dict)
    target: Target | None = None


class Exporter:
    """Let a function decide, when the result is known, where it goes.

    Args:
        find: is called with a `BuiltResult` and returns `FoundExporter` objects, none of them for nothing more. A plain
            function runs in a worker thread, a coroutine function in the loop. What it raises fails the build.
        finalize: is called with what all exporters answered, a mapping of texts, by daemons that tell.
        outputs: takes what the exporters send. None: a build gives its own; outside of a build nothing can be taken.
        first: the number of the first exporter: how many the request has itself. A build sets it.
    """

    def __init__(
        self,
        find: Callable[..., Sequence[FoundExporter] | Awaitable[Sequence[FoundExporter]]],
        *,
        finalize: Callable[..., object] | None = None,
        outputs: FileSend | None = None,
        first: int = 0,
    ) -> None:
        self._find = _provider(find)
        self._finalize = _provider(finalize) if finalize is not None else None
        self._outputs = outputs
        self.first = first

    def deliver_to(self, outputs: FileSend) -> None:
        """Give what the exporters send to ``outputs``."""
        self._outputs = outputs

    def register(self, registrar: Registrar) -> None:
        """Host the service; its second method only where there is a function for it."""
        registrar.unary_unary(FIND_EXPORTERS, self._find_exporters, exporter_pb2.FindExportersRequest)
        if self._finalize is not None:
            registrar.unary_unary(FINALIZE_EXPORT, self._finalize_export, exporter_pb2.FinalizeExportRequest)

    async def _find_exporters(
        self, request: exporter_pb2.FindExportersRequest, call: ServerCall
    ) -> exporter_pb2.FindExportersResponse:
        found = await _ask(self._find, BuiltResult(dict(request.metadata), tuple(request.refs)))
        exporters = _checked(found)
        for number, exporter in enumerate(exporters, self.first):
            if exporter.target is None:
                continue
            if self._outputs is None:
                raise UsageError(f"exporter {exporter.type!r} has a target, and nothing takes outputs on this session")
            self._outputs.add(number, exporter.target)
        _logger.debug("%d exporters were named for a result", len(exporters))
        return exporter_pb2.FindExportersResponse(
            exporters=[exporter_pb2.ExporterRequest(Type=exporter.type, Attrs=exporter.attrs) for exporter in exporters]
        )

    async def _finalize_export(
        self, request: exporter_pb2.FinalizeExportRequest, call: ServerCall
    ) -> exporter_pb2.FinalizeExportResponse:
        if self._finalize is not None:
            await _ask(self._finalize, dict(request.exporter_response))
        return exporter_pb2.FinalizeExportResponse()


def _provider(function: Callable[..., object]) -> Provider:
    try:
        return Provider(function)
    except TypeError:
        raise UsageError("a function of an Exporter takes one argument, or none") from None


async def _ask(provider: Provider, subject: object) -> object:
    try:
        return await provider.call(subject)
    except MobysessionError:
        raise
    except Exception as error:  # of any kind: the function is not ours
        # Its words may hold anything; they are in the cause.
        answer = RpcError(StatusCode.UNKNOWN, f"the exporter function failed with {type(error).__name__}")
        raise answer from error


def _checked(found: object) -> list[FoundExporter]:
    if found is None:
        return []
    if not isinstance(found, Sequence) or not all(isinstance(exporter, FoundExporter) for exporter in found):
        raise UsageError("the function for exporters returns a list of FoundExporter")
    for exporter in found:
        attrs: object = exporter.attrs
        if not isinstance(attrs, Mapping) or not all(isinstance(text, str) for text in attrs.values()):
            raise UsageError("attrs of an exporter is a mapping of names to texts")
    return list(found)
