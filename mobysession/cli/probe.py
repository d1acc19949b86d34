"""``mobysession probe``: open a session, wait until the daemon was seen, serve health for a while, and report."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, TypeVar

from mobysession.cli.app import run_async
from mobysession.cli.parser import add_attach
from mobysession.cli.tables import print_json

if TYPE_CHECKING:
    import argparse
    from collections.abc import Awaitable, Callable, Iterable

    from mobysession.cli.app import Target
    from mobysession.cli.parser import Parser
    from mobysession.events import SessionEvent
    from mobysession.session.session import Session
    from mobysession.transport.endpoint import Endpoint

__all__ = ["SYNOPSIS", "add_options", "run"]

T = TypeVar("T")


SYNOPSIS = ""


def add_options(parser: Parser) -> None:
    """Add what `run` takes."""
    parser.add_argument("--json", action="store_true", help="Print the report as JSON.")
    hold = "Keep it open, list the callbacks."
    add_attach(parser)
    parser.add_argument("--hold", type=_seconds, default=0.0, metavar="SECONDS", help=hold)


def _seconds(text: str) -> float:
    import argparse

    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    # Not "seconds < 0": nan compares with no bound.
    if not seconds >= 0:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds")
    return seconds


def run(target: Target, options: argparse.Namespace) -> int:
    """Open a session on the daemon and report what it says and does."""
    report = run_async(_probe, target.endpoint(options.attach), options.attach, options.hold)
    if options.json:
        print_json(report)
    else:
        from mobysession.buildkit.printable import printable

        print(printable(_render(report), newlines=True), flush=True)
    return 0


async def _probe(endpoint: Endpoint, attach: str, hold: float) -> dict[str, Any]:
    import time

    import trio

    from mobysession.session.attach import EndpointDialer
    from mobysession.session.session import Session
    from mobysession.session.ways import find_ways

    dialer = EndpointDialer(endpoint, attach)
    endpoint = dialer.endpoint
    engine = None if endpoint.is_buildkitd else await _engine(endpoint)
    callbacks: list[dict[str, Any]] = []
    session = Session(dialer, name="probe")
    began = time.monotonic()
    session.listen(lambda event: _note(event, callbacks, began))
    async with session.attach():
        ready = time.monotonic() - began
        report: dict[str, Any] = {
            "endpoint": _endpoint_report(endpoint),
            "session": _session_report(session, ready, await _in_time("a PING", session.ping)),
            "engine": engine,
            "ways": [
                {"way": way.way, "offered": way.is_offered, "ready_seconds": way.seconds, "reason": way.reason}
                for way in await find_ways(endpoint)
            ],
            "buildkit": await _in_time("BuildKit's Info and ListWorkers", _buildkit, endpoint),
        }
        if hold:
            print(f"holding the session for {hold:g} s", file=sys.stderr)
            await trio.sleep(hold)
    report["callbacks"] = callbacks
    return report


def _endpoint_report(endpoint: Endpoint) -> dict[str, Any]:
    proxy = None
    if endpoint.proxy is not None:
        from mobysession.transport.proxy import parse_proxy

        # Without its login.
        proxy = str(parse_proxy(endpoint.proxy))
    return {
        "url": endpoint.url,
        "source": endpoint.source,
        "daemon": endpoint.daemon,
        "proxy": proxy,
        "pinned_api_version": endpoint.api_version,
    }


async def _engine(endpoint: Endpoint) -> dict[str, Any]:
    from mobysession.transport.api import EngineApi

    api = EngineApi(endpoint)
    ping = await api.ping()
    version = await api.version()
    return {
        "version": version.get("Version"),
        "api_version": ping.api_version,
        "min_api_version": version.get("MinAPIVersion"),
        "os": version.get("Os"),
        "arch": version.get("Arch"),
        "kernel": version.get("KernelVersion"),
        "server": ping.server,
    }


async def _in_time(what: str, ask: Callable[..., Awaitable[T]], *arguments: Any) -> T:
    import trio

    from mobysession import limits
    from mobysession.errors import HandshakeTimeout

    # Connecting and upgrading have bounds of their own, which say more: this one is for the answers.
    seconds = limits.CONNECT_TIMEOUT + limits.HANDSHAKE_TIMEOUT + limits.READY_TIMEOUT
    with trio.move_on_after(seconds):
        return await ask(*arguments)
    raise HandshakeTimeout(f"the daemon did not answer {what} within {seconds:g} s", hint="It may be stuck.")


def _session_report(session: Session, ready: float, round_trip: float) -> dict[str, Any]:
    attachment = session.attachment
    if attachment is None:
        return {}
    headers = [list(field) for field in attachment.headers]
    status = attachment.status_line.split(" ", 2)
    return {
        "id": session.id,
        "attach": attachment.way,
        "status_line": attachment.status_line,
        "status": int(status[1]) if len(status) > 1 else None,
        "upgrade": next((value for name, value in attachment.headers if name.lower() == "upgrade"), None),
        "headers": headers,
        "settings": session.settings,
        "ready_seconds": round(ready, 6),
        "round_trip_seconds": round(round_trip, 6),
        "methods": list(session.methods),
        "services": _services(session.methods),
    }


def _services(methods: Iterable[str]) -> dict[str, list[str]]:
    services: dict[str, list[str]] = {}
    for method in methods:
        _, service, name = method.split("/")
        services.setdefault(service, []).append(name)
    return services


async def _buildkit(endpoint: Endpoint) -> dict[str, Any]:
    from mobysession.buildkit.control import open_control
    from mobysession.errors import UpgradeRefused

    try:
        async with open_control(endpoint) as control:
            version = await control.info()
            workers = await control.list_workers()
    except UpgradeRefused as error:
        return {"refused": error.message}
    return {
        "version": (version.version if version is not None else "") or None,
        "workers": [
            {
                "id": worker.id,
                "platforms": list(worker.platforms),
                "labels": worker.labels,
            }
            for worker in workers
        ],
    }


def _note(event: SessionEvent, callbacks: list[dict[str, Any]], began: float) -> None:
    import time

    from mobysession.events import CallEnded

    if isinstance(event, CallEnded):
        callbacks.append(
            {
                "method": event.method,
                "status": event.code.name,
                "at_seconds": round(time.monotonic() - began, 3),
                "duration_seconds": round(event.duration, 6),
            }
        )


def _verdict(way: dict[str, Any]) -> str:
    return f"ready in {way['ready_seconds'] * 1e3:.1f} ms" if way["offered"] else f"no: {way['reason']}"


def _render(report: dict[str, Any]) -> str:
    session, engine, buildkit = report["session"], report["engine"], report["buildkit"]
    lines = [
        f"endpoint    {report['endpoint']['url']} ({report['endpoint']['source']})",
        *([f"proxy       {report['endpoint']['proxy']}"] if report["endpoint"]["proxy"] else []),
        *([f"pinned      API {pinned}"] if (pinned := report["endpoint"]["pinned_api_version"]) else []),
        f"engine      {engine['version']}, API {engine['api_version']}, {engine['os']}/{engine['arch']}"
        if engine
        else "engine      none: a buildkitd",
        f"attach      {session['attach']}: {session['status_line']}, upgrade {session['upgrade']}"
        if session["status_line"]
        else f"attach      {session['attach']}: gRPC at once",
        f"ready       {session['ready_seconds'] * 1e3:.1f} ms, round trip {session['round_trip_seconds'] * 1e3:.2f} ms",
        "settings    " + ", ".join(f"{name} {value}" for name, value in session["settings"].items()),
    ]
    if "refused" in buildkit:
        lines.append(f"buildkit    {buildkit['refused']}")
    else:
        lines.append(f"buildkit    {buildkit['version'] or 'does not tell its version (before 0.11)'}")
        lines += [f"worker      {worker['id']}: {', '.join(worker['platforms'])}" for worker in buildkit["workers"]]
    lines += [f"way         {way['way']}: {_verdict(way)}" for way in report["ways"]]
    lines += [f"service     {name}: {', '.join(methods)}" for name, methods in session["services"].items()]
    lines += [
        f"callback    {call['at_seconds']:.3f} s {call['method']} {call['status']}" for call in report["callbacks"]
    ]
    return "\n".join(lines)
