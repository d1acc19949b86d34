"""Traces: each callback of the daemon as a span of OpenTelemetry, in the trace of the build that caused it.

BuildKit calls back with a ``traceparent``, the place in its trace from which the call came. The span of the callback is
made a child of that place, so that one trace has the engine's steps and what this side did for them. A build names its
own span to the engine when it asks for the solve, and hands its spans over in the end, for the engine's build history.
On a session that was hijacked an engine only says from where it calls if it exports traces itself (seen with 28.5.2);
a callback that comes without a place belongs to the build.

Where they go besides is OpenTelemetry's matter: to the tracer provider of the program that we are part of, else to
where OpenTelemetry's variables point (``OTEL_EXPORTER_OTLP_ENDPOINT`` and the like). Where nothing of that is there,
`tracing_from_env` is not even called, and nothing is loaded.

Source: W3C Trace Context; OpenTelemetry's specification of its environment variables; moby/buildkit util/tracing.
"""

from __future__ import annotations

import functools
import importlib
import logging
import os
import sys
from collections import deque
from typing import TYPE_CHECKING, Any, Final

import trio

from mobysession import limits
from mobysession._version import __version__
from mobysession.errors import StatusCode, UsageError
from mobysession.session.session import TRACED_BY

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from opentelemetry.context import Context
    from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
    from opentelemetry.trace import Span, Tracer

    from mobysession.rpc.server import ServerCall

__all__ = ["CallSpans", "Tracing", "tracing_from_env"]

_HEALTH: Final = "/grpc.health.v1.health/"
_EXPORTERS: Final = {
    "http/protobuf": "opentelemetry.exporter.otlp.proto.http.trace_exporter",
    "grpc": "opentelemetry.exporter.otlp.proto.grpc.trace_exporter",
}
_EXTRA: Final = "'mobysession[otel]'"
_log = logging.getLogger("mobysession.session")


class Tracing:
    """Spans for what happens on sessions; to be given to `Session` or `build`, and to as many of them as one likes.

    Args:
        provider: who makes the spans and exports them; None: one that only keeps them for the engine's build history.

    Raises:
        UsageError: OpenTelemetry's SDK is not installed.
    """

    def __init__(self, provider: TracerProvider | None = None) -> None:
        if provider is None:
            try:
                from opentelemetry.sdk.trace import TracerProvider
            except ImportError:
                raise UsageError("tracing needs OpenTelemetry", hint=f"pip install {_EXTRA}") from None
            provider = TracerProvider(resource=_resource(), shutdown_on_exit=False)
        self._provider = provider
        #: Nobody else waits for its exporter.
        self.is_ours = False

    @property
    def tracer(self) -> Tracer:
        """What makes the spans."""
        return self._provider.get_tracer("mobysession", __version__)

    async def flush(self) -> None:
        """Let a provider of ours export what it has; a program sees to its own.

        It takes `limits.TRACE_FLUSH` seconds at most.

        Cancel: a thread may go on exporting for that long.
        """
        if not self.is_ours:
            return
        flush = functools.partial(self._provider.force_flush, int(limits.TRACE_FLUSH * 1000))
        with trio.move_on_after(limits.TRACE_FLUSH) as scope:
            await trio.to_thread.run_sync(flush, abandon_on_cancel=True)
        if scope.cancelled_caught:
            _log.warning("the spans were not exported within %g s", limits.TRACE_FLUSH)


class CallSpans:
    """The spans of one session: of each call, and of what the program does meanwhile."""

    def __init__(self, tracing: Tracing) -> None:
        self.tracing = tracing
        self._running: dict[int, Span] = {}
        #: The span of what the session is there for; what calls belong to that came without a place in a trace.
        self._own: Span | None = None
        self._parent: Context | None = None
        #: Ended and not taken; of too many the oldest are forgotten, for the engine as for us.
        self._ended: deque[ReadableSpan] = deque(maxlen=limits.KEPT_SPANS)

    def begin(self, call: ServerCall) -> None:
        """Start the span of a call; of a health check there is none."""
        if call.method.lower().startswith(_HEALTH):
            return
        from opentelemetry.trace import SpanKind

        _, _, name = call.method.partition("/")
        service, _, method = name.partition("/")
        self._running[call.number] = self.tracing.tracer.start_span(
            name,
            context=_context_of(call) or self._parent,
            kind=SpanKind.SERVER,
            attributes={
                "rpc.system": "grpc",
                "rpc.service": service,
                "rpc.method": method,
                "mobysession.session_id": call.session_id,
            },
        )

    def enter(self, call: ServerCall, **attributes: str) -> None:
        """Make the span of a call the current one for the rest of its handler, which runs in a context of its own.

        Args:
            attributes: what the call is about; those that are empty are left out.
        """
        span = self._running.get(call.number)
        if span is None:
            return
        from opentelemetry import context, trace

        span.set_attributes({f"mobysession.{name}": value for name, value in attributes.items() if value})
        context.attach(trace.set_span_in_context(span))

    def end(self, call: ServerCall, code: StatusCode, message: str) -> None:
        """End the span of a call with its status and the bytes of its messages."""
        span = self._running.pop(call.number, None)
        if span is None:
            return
        span.set_attributes(
            {
                "rpc.grpc.status_code": code.value,
                "rpc.message.received_bytes": call.bytes_received,
                "rpc.message.sent_bytes": call.bytes_sent,
            }
        )
        if code is not StatusCode.OK:
            _mark_failed(span, f"{code.name}: {message}")
        self._close(span)

    def open(self, name: str, attributes: Mapping[str, str]) -> None:
        """Start the span that calls without a place of their own belong to, unless there is one; `close` ends it.

        It belongs to the span that is current, else to that of ``TRACEPARENT``.
        """
        if self._own is not None:
            return
        from opentelemetry import trace

        self._own = self.tracing.tracer.start_span(name, context=_outer_context(), kind=trace.SpanKind.CLIENT)
        self._parent = trace.set_span_in_context(self._own)
        self.note(attributes)

    def note(self, attributes: Mapping[str, str]) -> None:
        """Add to the open span what is not empty."""
        if self._own is not None:
            self._own.set_attributes({f"mobysession.{key}": value for key, value in attributes.items() if value})

    def introduction(self) -> list[tuple[str, str]]:
        """Return the header fields that tell a daemon of the open span; empty without one."""
        if self._parent is None:
            return []
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        carrier: dict[str, str] = {}
        TraceContextTextMapPropagator().inject(carrier, self._parent)
        return list(carrier.items())

    def close(self, error: BaseException | None = None) -> None:
        """End the open span, if there is one, with what failed."""
        span, self._own, self._parent = self._own, None, None
        if span is None:
            return
        if error is not None:
            # Its text may be long, and a stranger's: what failed is in the engine's own spans.
            _mark_failed(span, type(error).__name__)
        self._close(span)

    def take(self) -> Sequence[ReadableSpan]:
        """Return the spans that have ended since the last time."""
        ended = list(self._ended)
        self._ended.clear()
        return ended

    def _close(self, span: Span) -> None:
        from opentelemetry.sdk.trace import ReadableSpan

        span.end()
        # One that is not recorded has nothing to tell.
        if isinstance(span, ReadableSpan):
            self._ended.append(span)


def tracing_from_env() -> Tracing | None:
    """Return the tracing that the program or its environment has set up; None where there is none.

    Cancel: not waiting, but OpenTelemetry is loaded here, which takes a tenth of a second.
    """
    environ = os.environ
    if environ.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return None
    if "opentelemetry.sdk.trace" in sys.modules:
        from opentelemetry import trace
        from opentelemetry.sdk.trace import TracerProvider

        current = trace.get_tracer_provider()
        if isinstance(current, TracerProvider):
            return Tracing(current)
    if environ.get("OTEL_TRACES_EXPORTER", "otlp") != "otlp" or not any(map(environ.get, TRACED_BY)):
        return None
    settings = tuple(sorted(item for item in environ.items() if item[0].startswith("OTEL_")))
    provider = _exporting_provider(settings)
    if provider is None:
        return None
    tracing = Tracing(provider)
    tracing.is_ours = True
    return tracing


@functools.lru_cache(maxsize=1)
def _exporting_provider(settings: tuple[tuple[str, str], ...]) -> TracerProvider | None:
    """Return a provider as OpenTelemetry's variables have it; ``settings`` are these."""
    given = dict(settings)
    protocol = given.get("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL") or given.get("OTEL_EXPORTER_OTLP_PROTOCOL")
    try:
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        home: Any = importlib.import_module(_EXPORTERS[protocol or "http/protobuf"])
        processor = BatchSpanProcessor(home.OTLPSpanExporter())
    except ImportError as error:
        package = _EXTRA if protocol != "grpc" else "opentelemetry-exporter-otlp-proto-grpc"
        _log.warning("nothing is traced: %s is missing; pip install %s", error.name, package)
        return None
    except (KeyError, ValueError) as error:
        _log.warning("nothing is traced: OpenTelemetry's settings are not understood: %s", error)
        return None
    provider = TracerProvider(resource=_resource())
    provider.add_span_processor(processor)
    return provider


def _resource() -> Any:
    from opentelemetry.sdk.resources import Resource

    named = os.environ.get("OTEL_SERVICE_NAME") or "service.name=" in os.environ.get("OTEL_RESOURCE_ATTRIBUTES", "")
    return Resource.create({} if named else {"service.name": "mobysession"})


def _context_of(call: ServerCall) -> Context | None:
    """Return the place in a trace that a call came from; None where it says none that makes sense."""
    carrier = {key: call.values(key)[0] for key in ("traceparent", "tracestate") if call.values(key)}
    return _extracted(carrier)


def _outer_context() -> Context | None:
    from opentelemetry import trace

    if trace.get_current_span().get_span_context().is_valid:
        return None
    return _extracted(
        {key: os.environ[key.upper()] for key in ("traceparent", "tracestate") if key.upper() in os.environ}
    )


def _extracted(carrier: Mapping[str, str]) -> Context | None:
    if "traceparent" not in carrier:
        return None
    from opentelemetry import trace
    from opentelemetry.context import Context
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    found = TraceContextTextMapPropagator().extract(carrier, Context())
    return found if trace.get_current_span(found).get_span_context().is_valid else None


def _mark_failed(span: Span, words: str) -> None:
    from opentelemetry.trace import Status
    from opentelemetry.trace import StatusCode as SpanStatus

    span.set_status(Status(SpanStatus.ERROR, words))
