"""Traces on the control connection: spans of ours for the engine's build history.

BuildKit collects the spans of every build, and takes those of its clients by OpenTelemetry's own service beside the
Control API. An engine without that service, or one that does not collect, says so; nothing depends on it.

Source: moby/buildkit control/control.go (Export), util/tracing/transform.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

import trio

from mobysession import limits
from mobysession.errors import RpcError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from opentelemetry.sdk.trace import ReadableSpan

    from mobysession.buildkit.control import Control

__all__ = ["EXPORT", "hand_over"]

EXPORT: Final = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
_log = logging.getLogger("mobysession.buildkit")


async def hand_over(control: Control, spans: Sequence[ReadableSpan]) -> bool:
    """Give spans that have ended to the engine; tell whether it took them, which is of no other consequence.

    Cancel: the engine may have taken them.
    """
    if not spans:
        return False
    try:
        # With the exporter; a provider without it is a program's own, and its spans stay there.
        from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
    except ImportError:
        return False
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

    with trio.move_on_after(limits.TRACE_HANDOVER):
        try:
            await control.channel.unary(EXPORT, encode_spans(spans), ExportTraceServiceResponse)
        except RpcError as error:
            _log.info("the engine does not take our spans: %s", error.message)
        else:
            return True
    return False
