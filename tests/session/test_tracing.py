"""Traces: the spans of callbacks, the build that they belong to, and where they go."""

from __future__ import annotations

import http.server
import json
import logging
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry import trace
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from mobysession.build import build
from mobysession.errors import BuildFailed, RpcError, StatusCode, UsageError
from mobysession.services.secrets import Secrets
from mobysession.session import Session
from mobysession.session.tracing import Tracing, tracing_from_env
from mobysession.testing import FakeDaemon, FakeSolve
from mobysession.transport.endpoint import Endpoint

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

TRACE = "0af7651916cd43dd8448eb211c80319c"
PLACE = "b7ad6b7169203331"
TRACEPARENT = f"00-{TRACE}-{PLACE}-01"
GET_SECRET = "moby.buildkit.secrets.v1.Secrets/GetSecret"
DIFF_COPY = "moby.filesync.v1.FileSync/DiffCopy"


@pytest.fixture
def spans() -> InMemorySpanExporter:
    """Collect what `tracing` exports."""
    return InMemorySpanExporter()


@pytest.fixture
def provider(spans: InMemorySpanExporter) -> TracerProvider:
    """Give a program's own provider."""
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(spans))
    return provider


@pytest.fixture
def context(tmp_path: Path) -> Path:
    """Give a directory to build."""
    (tmp_path / "Dockerfile").write_text("FROM scratch\nCOPY Dockerfile /\n")
    return tmp_path


def named(spans: InMemorySpanExporter, name: str) -> list[Any]:
    """Return the spans of a name."""
    return [span for span in spans.get_finished_spans() if span.name == name]


def hexed(span: Any) -> tuple[str, str]:
    """Return the trace and the span that a span belongs to."""
    return f"{span.context.trace_id:032x}", f"{span.parent.span_id:016x}" if span.parent else ""


async def call_secret(daemon: FakeDaemon, session: Session, *metadata: tuple[str, str]) -> None:
    """Ask for the secret as an engine that traces does; whatever comes of it."""
    caller = await daemon.wait_session(session.id)
    async with caller.channel.open_call(f"/{GET_SECRET}", metadata=metadata) as call:
        await call.send(b"\x0a\x05token")
        await call.end()
        while await call.receive() is not None:
            pass


async def test_a_callback_is_a_span_where_the_engine_says(
    provider: TracerProvider, spans: InMemorySpanExporter
) -> None:
    """It is a child of the place in its traceparent, says what it was about, and a health check is none."""
    async with FakeDaemon() as daemon:
        session = Session(daemon.dialer, tracing=Tracing(provider))
        session.allow(Secrets({"token": "hush"}))
        async with session.attach():
            await call_secret(daemon, session, ("traceparent", TRACEPARENT))
            await (await daemon.wait_session(session.id)).health()
    [span] = named(spans, GET_SECRET)
    assert hexed(span) == (TRACE, PLACE)
    assert span.kind is trace.SpanKind.SERVER
    assert span.attributes["mobysession.kind"] == "secret"
    assert span.attributes["mobysession.subject"] == "token"
    assert span.attributes["rpc.grpc.status_code"] == 0
    assert span.attributes["rpc.message.sent_bytes"] > 0
    assert "hush" not in span.to_json()
    assert {span.name for span in spans.get_finished_spans()} == {GET_SECRET, "session"}


async def test_what_a_callback_does_belongs_to_it(provider: TracerProvider, spans: InMemorySpanExporter) -> None:
    """A user's function that opens spans of its own, in its thread, opens them inside the span of the call."""

    def fetch() -> str:
        with provider.get_tracer("user").start_as_current_span("vault"):
            return "hush"

    async with FakeDaemon() as daemon:
        session = Session(daemon.dialer, tracing=Tracing(provider))
        session.allow(Secrets({"token": fetch}))
        async with session.attach():
            await call_secret(daemon, session, ("traceparent", TRACEPARENT))
    [call] = named(spans, GET_SECRET)
    [inner] = named(spans, "vault")
    assert hexed(inner) == (TRACE, f"{call.context.span_id:016x}")
    assert not trace.get_current_span().get_span_context().is_valid


@pytest.mark.parametrize("traceparent", [None, "", "00-zz-01", "00-" + "0" * 32 + "-" + "0" * 16 + "-01", "x" * 5000])
async def test_a_callback_without_a_place_belongs_to_the_session(
    provider: TracerProvider, spans: InMemorySpanExporter, traceparent: str | None
) -> None:
    """Whatever an engine sends instead of a traceparent."""
    async with FakeDaemon() as daemon:
        session = Session(daemon.dialer, tracing=Tracing(provider))
        session.allow(Secrets({"token": "hush"}))
        async with session.attach():
            await call_secret(daemon, session, *([] if traceparent is None else [("traceparent", traceparent)]))
    [call] = named(spans, GET_SECRET)
    [whole] = named(spans, "session")
    assert hexed(call) == (f"{whole.context.trace_id:032x}", f"{whole.context.span_id:016x}")


async def test_a_call_that_fails_is_marked(provider: TracerProvider, spans: InMemorySpanExporter) -> None:
    """With its status and its message, which are what the engine is told."""
    async with FakeDaemon() as daemon:
        session = Session(daemon.dialer, tracing=Tracing(provider))
        session.allow(Secrets({}))
        async with session.attach():
            with pytest.raises(RpcError):
                await call_secret(daemon, session)
    [span] = named(spans, GET_SECRET)
    assert span.attributes["rpc.grpc.status_code"] == 5
    assert (span.status.status_code, span.status.description[:10]) == (trace.StatusCode.ERROR, "NOT_FOUND:")


@pytest.mark.parametrize("given", [5, True, "otlp"])
def test_what_makes_no_spans_is_refused(given: Any) -> None:
    """When the session is made, and not in the midst of its first call."""
    with pytest.raises(UsageError, match="tracing takes a Tracing, None or False"):
        Session(Endpoint.parse("unix:///nowhere.sock"), tracing=given)


async def test_a_build_is_one_trace(provider: TracerProvider, spans: InMemorySpanExporter, context: Path) -> None:
    """The engine is told of the build's span when it is asked for the solve, and gets the spans for its history."""
    seen: list[FakeSolve] = []

    async def script(solve: FakeSolve) -> dict[str, str]:
        seen.append(solve)
        async with solve.vertex("load") as step:
            await solve.receive(step, "dockerfile")
        return {"containerimage.digest": "sha256:" + "0" * 64}

    async with FakeDaemon.listen(script=script) as daemon:
        with provider.get_tracer("user").start_as_current_span("release") as outer:
            result = await build(context, endpoint=daemon.endpoint, tags=["a:b"], tracing=Tracing(provider))
        [handed] = daemon.solver.spans
    [whole] = named(spans, "build")
    own = f"{whole.context.trace_id:032x}", f"{whole.context.span_id:016x}"
    assert dict(seen[0].metadata)["traceparent"] == f"00-{own[0]}-{own[1]}-03"
    assert hexed(whole)[1] == f"{outer.get_span_context().span_id:016x}"
    assert hexed(named(spans, DIFF_COPY)[0]) == own
    assert (whole.attributes["mobysession.ref"], whole.attributes["mobysession.tags"]) == (result.ref, "a:b")
    request = ExportTraceServiceRequest.FromString(handed)
    [resource] = request.resource_spans
    assert {span.name for scope in resource.scope_spans for span in scope.spans} == {"build", DIFF_COPY}
    assert not named(spans, "session")


async def test_a_build_that_fails_is_traced_too(
    provider: TracerProvider, spans: InMemorySpanExporter, context: Path
) -> None:
    """Its span says so, and the engine gets it; a TRACEPARENT of the environment is where it belongs."""

    async def script(solve: FakeSolve) -> dict[str, str]:
        raise RpcError(StatusCode.UNKNOWN, "it broke")

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRACEPARENT", TRACEPARENT)
        async with FakeDaemon.listen(script=script) as daemon:
            with pytest.raises(BuildFailed):
                await build(context, endpoint=daemon.endpoint, tracing=Tracing(provider))
            assert len(daemon.solver.spans) == 1
    [whole] = named(spans, "build")
    assert hexed(whole) == (TRACE, PLACE)
    assert (whole.status.status_code, whole.status.description) == (trace.StatusCode.ERROR, "RpcError")


async def test_the_classic_driver_tells_of_the_trace_too(
    provider: TracerProvider, spans: InMemorySpanExporter, context: Path
) -> None:
    """In a header line of POST /build; there is no connection on which spans could be handed over."""
    seen: list[FakeSolve] = []

    async def script(solve: FakeSolve) -> dict[str, str]:
        seen.append(solve)
        return {"containerimage.digest": "sha256:" + "0" * 64}

    async with FakeDaemon.listen(script=script) as daemon:
        await build(context, endpoint=daemon.endpoint, driver="classic", tracing=Tracing(provider))
        assert daemon.solver.spans == []
    [whole] = named(spans, "build")
    assert f"-{whole.context.span_id:016x}-" in dict(seen[0].metadata)["traceparent"]


async def test_an_engine_without_a_collector_costs_nothing(context: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Engines before 23 know no trace service: the build is the same."""
    caplog.set_level(logging.INFO, logger="mobysession.buildkit")
    async with FakeDaemon.listen() as daemon:
        daemon.solver.refuses_spans = True
        assert (await build(context, endpoint=daemon.endpoint, tracing=Tracing())).image_id
    assert "the engine does not take our spans: trace collector not configured" in caplog.messages


async def test_spans_that_nobody_samples_are_not_handed_over(context: Path) -> None:
    """What a sampler leaves out is recorded nowhere, and the build is told so in its traceparent."""
    from opentelemetry.sdk.trace.sampling import ALWAYS_OFF

    async with FakeDaemon.listen() as daemon:
        off = TracerProvider(sampler=ALWAYS_OFF, shutdown_on_exit=False)
        await build(context, endpoint=daemon.endpoint, tracing=Tracing(off))
        [solve] = daemon.solver.solves.values()
        assert daemon.solver.spans == []
    assert str(dict(solve.metadata)["traceparent"])[-2:] in ("00", "02")


# -- what is configured ------------------------------------------------------------------------------------------------


def test_nothing_is_traced_that_nobody_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a provider and without an endpoint, with the SDK disabled, and with another exporter."""
    assert tracing_from_env() is None
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    assert tracing_from_env() is None
    monkeypatch.delenv("OTEL_SDK_DISABLED")
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "none")
    assert tracing_from_env() is None


@pytest.mark.parametrize("protocol", ["carrier-pigeon", "http/json"])
def test_a_protocol_that_nobody_knows_is_a_warning(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, protocol: str
) -> None:
    """A build does not fail over it."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", protocol)
    assert tracing_from_env() is None
    assert "nothing is traced" in caplog.text


@pytest.mark.parametrize(
    ("protocol", "package"),
    [("http/protobuf", "'mobysession[otel]'"), ("grpc", "opentelemetry-exporter-otlp-proto-grpc")],
)
def test_an_exporter_that_is_not_installed_is_a_warning(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, protocol: str, package: str
) -> None:
    """It says what is to be installed, which for gRPC is no extra of ours."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", protocol)
    # None in the table of modules: an import fails as if it were not there.
    kind = protocol.partition("/")[0]
    monkeypatch.setitem(sys.modules, f"opentelemetry.exporter.otlp.proto.{kind}.trace_exporter", None)
    assert tracing_from_env() is None
    assert f"is missing; pip install {package}" in caplog.text


class Collector(http.server.BaseHTTPRequestHandler):
    """What OTEL_EXPORTER_OTLP_ENDPOINT points to."""

    received: list[bytes]

    def do_POST(self) -> None:
        self.received.append(self.rfile.read(int(self.headers["content-length"])))
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def collector() -> Iterator[tuple[str, list[bytes]]]:
    """Give the address of a collector, and what it received."""
    Collector.received = []
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Collector) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}", Collector.received
        server.shutdown()
        thread.join()


async def test_spans_go_where_the_environment_says(
    monkeypatch: pytest.MonkeyPatch, collector: tuple[str, list[bytes]], context: Path
) -> None:
    """By OTLP, and they are there when the build has returned; the service is called mobysession."""
    url, received = collector
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", url)
    async with FakeDaemon.listen() as daemon:
        await build(context, endpoint=daemon.endpoint)
    requests = [ExportTraceServiceRequest.FromString(body) for body in received]
    resources = [resource for request in requests for resource in request.resource_spans]
    assert {span.name for one in resources for scope in one.scope_spans for span in scope.spans} >= {"build", DIFF_COPY}
    names = {
        item.value.string_value for one in resources for item in one.resource.attributes if "service.name" in item.key
    }
    assert names == {"mobysession"}


def test_the_command_line_traces_too(collector: tuple[str, list[bytes]], context: Path) -> None:
    """A build of the program is exported before it ends, although it ends in a hurry."""
    url, received = collector
    code = (
        "import os, sys\nfrom mobysession.testing import BlockingFakeDaemon\nfrom mobysession.cli import main\n"
        "with BlockingFakeDaemon() as daemon:\n"
        "    status = main(['-H', daemon.host, 'build', '-q', sys.argv[1]])\n"
        "os._exit(status)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(context)],
        env={"PATH": "", "HOME": str(context), "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": f"{url}/v1/traces"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert received


def test_a_build_that_nobody_traces_loads_nothing(context: Path) -> None:
    """Neither OpenTelemetry nor what speaks to it, also where it is installed."""
    code = (
        "import json, sys, trio\nfrom mobysession.testing import FakeDaemon\nfrom mobysession.build import build\n"
        "async def main():\n"
        "    async with FakeDaemon.listen() as daemon:\n"
        "        await build(sys.argv[1], endpoint=daemon.endpoint)\n"
        "trio.run(main)\n"
        "print(json.dumps([name for name in sys.modules if 'trac' in name or name.startswith('opentel')]))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(context)],
        env={"PATH": "", "HOME": str(context)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    loaded = json.loads(done.stdout)
    assert not [name for name in loaded if name.startswith(("opentelemetry", "mobysession"))]
