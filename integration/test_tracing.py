"""Traces on real engines: the engine's spans and ours are one trace, and the engine keeps it with the build."""

from __future__ import annotations

import json
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

import trio
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from integration.contexts import make_context
from integration.images import build_image
from mobysession import Endpoint, open_control
from mobysession._pb import content_pb2, control_pb2
from mobysession.session.tracing import Tracing

if TYPE_CHECKING:
    from pathlib import Path

    from integration.engines import Engine
    from mobysession import Control

DOCKERFILE = """\
FROM mobysession-base
COPY file /file
RUN --mount=type=secret,id=token cat /run/secrets/token /file >/both
"""
CONTROL = "/moby.buildkit.v1.Control/"
READ = "/containerd.services.content.v1.Content/Read"
SOLVE = "moby.buildkit.v1.Control/Solve"
#: Seconds within which an engine writes down what it knows of a build.
PATIENCE = 20.0


def _traced(engine: Engine, context: Path, **options: Any) -> tuple[str, InMemorySpanExporter]:
    spans = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(spans))
    secrets = {"token": "hush"}
    result = build_image(engine, context, secrets=secrets, no_cache=True, tracing=Tracing(provider), **options)
    return result.ref or "", spans


async def _trace_of(control: Control, ref: str) -> list[dict[str, Any]]:
    """Return the spans that an engine keeps with a build, once it does."""
    finalize = control_pb2.UpdateBuildHistoryRequest(Ref=ref, Finalize=True)
    await control.channel.unary(CONTROL + "UpdateBuildHistory", finalize, control_pb2.UpdateBuildHistoryResponse)
    digest = ""
    while not digest:
        asked = control_pb2.BuildHistoryRequest(Ref=ref, EarlyExit=True)
        events = control.channel.unary_stream(CONTROL + "ListenBuildHistory", asked, control_pb2.BuildHistoryEvent)
        async with aclosing(events):
            async for event in events:
                digest = event.record.trace.digest
        await trio.sleep(0.1)
    blob = content_pb2.ReadContentRequest(digest=digest)
    parts = control.channel.unary_stream(READ, blob, content_pb2.ReadContentResponse)
    async with aclosing(parts):
        text = b"".join([part.data async for part in parts]).decode().strip()
    found, decoder = [], json.JSONDecoder()
    while text:
        span, end = decoder.raw_decode(text)
        found.append(span)
        text = text[end:].lstrip()
    return found


def test_the_history_of_a_build_has_our_spans(engine: Engine, tmp_path: Path) -> None:
    """The engine's solve is a child of our build, and its record of the build has what this side did for it.

    Engines before 23 have no trace service, and 26 keeps in its record what it did itself: there the build is as
    without, and our own spans are all the same.
    """
    context = make_context(tmp_path / "traced", DOCKERFILE, {"file": "content"})
    ref, spans = _traced(engine, context)
    ours = {span.name for span in spans.get_finished_spans()}
    assert ours == {"build", "moby.filesync.v1.FileSync/DiffCopy", "moby.buildkit.secrets.v1.Secrets/GetSecret"}
    if engine.major < 28:
        return

    async def read() -> list[dict[str, Any]]:
        with trio.fail_after(PATIENCE):
            async with open_control(Endpoint.parse(engine.host)) as control:
                return await _trace_of(control, ref)

    kept = trio.run(read)
    assert ours <= {span["Name"] for span in kept}
    by_name = {span["Name"]: span for span in kept}
    assert by_name[SOLVE]["Parent"]["SpanID"] == by_name["build"]["SpanContext"]["SpanID"]
    assert len({span["SpanContext"]["TraceID"] for span in kept}) == 1
    assert "hush" not in json.dumps(kept)


def test_an_engine_says_from_where_it_calls(engine: Engine, tmp_path: Path) -> None:
    """In a tunnel the callbacks carry the place in the trace, and are children of the engine's own spans."""
    if engine.major < 28:
        return  # they send no traceparent of ours on any way in: the test above has what is left
    context = make_context(tmp_path / "traced", DOCKERFILE, {"file": "content"})
    _, spans = _traced(engine, context, attach="tunnel")
    [build] = [span for span in spans.get_finished_spans() if span.name == "build"]
    calls = [span for span in spans.get_finished_spans() if span.name != "build"]
    assert calls
    assert {span.context.trace_id for span in calls} == {build.context.trace_id}
    parents = {span.parent.span_id for span in calls if span.parent is not None}
    assert build.context.span_id not in parents
    assert all(span.parent is not None and span.parent.is_remote for span in calls)
