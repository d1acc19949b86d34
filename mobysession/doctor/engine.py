"""The engine: whether it answers, what it is, by which ways it can be attached to, whether its callbacks arrive."""

from __future__ import annotations

import datetime
import time
from typing import TYPE_CHECKING, Final

import trio

from mobysession import limits
from mobysession.buildkit.control import open_control
from mobysession.concurrency import open_nursery
from mobysession.doctor.finding import Finding
from mobysession.errors import ApiError, HandshakeTimeout, MobysessionError, StatusCode, UpgradeRefused
from mobysession.events import CallEnded
from mobysession.session.session import Session
from mobysession.session.ways import find_ways
from mobysession.transport.api import EngineApi

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from typing import TypeVar

    from mobysession.events import SessionEvent
    from mobysession.transport.endpoint import Endpoint

    T = TypeVar("T")

__all__ = ["examine_engine"]

#: The oldest that this is tested with, and its version.
_OLDEST_API: Final = (1, 41)
_OLDEST: Final = "20.10"
_HEALTH: Final = "/grpc.health.v1.health/check"
_UPGRADE: Final = f"Use an engine of {_OLDEST} or later."


async def examine_engine(endpoint: Endpoint, attach: str) -> list[Finding]:
    """Look at what is at ``endpoint``; where nothing answers, that is all there is to say.

    ``attach`` is the way by which a session is attached for its callbacks.
    """
    later: list[Callable[[Endpoint], Awaitable[Finding]]] = [
        _examine_ways,
        lambda endpoint: _examine_health(endpoint, attach),
    ]
    if endpoint.is_buildkitd:
        found = await _examine_buildkit(endpoint)
        if found.level == "fail":
            return [found._replace(subject="reach")]
    else:
        try:
            found = await _in_time(lambda: _reach(endpoint))
        except MobysessionError as error:
            return [Finding.of_error("reach", error)]
        later = [_examine_version, _examine_buildkit, *later, _examine_clock]
    findings: dict[int, Finding] = {}

    async def run(place: int, part: Callable[[Endpoint], Awaitable[Finding]]) -> None:
        findings[place] = await part(endpoint)

    async with open_nursery() as nursery:
        for place, part in enumerate(later):
            nursery.start_soon(run, place, part)
    return [found, *(findings[place] for place in sorted(findings))]


async def _reach(endpoint: Endpoint) -> Finding:
    began = trio.current_time()
    ping = await EngineApi(endpoint).ping()
    took = (trio.current_time() - began) * 1000
    return Finding("reach", "ok", f"{ping.server or 'the engine'} answers in {took:.1f} ms")


async def _examine_version(endpoint: Endpoint) -> Finding:
    api = EngineApi(endpoint)
    try:
        ping = await _in_time(api.ping)
        said = await _in_time(api.version)
    except MobysessionError as error:
        return Finding.of_error("engine", error)
    pinned = f" (pinned to {endpoint.api_version})" if endpoint.api_version is not None else ""
    words = f"{said.get('Version')}, API {ping.api_version}{pinned}, {said.get('Os')}/{said.get('Arch')}"
    if ping.api < _OLDEST_API:
        return Finding("engine", "warn", f"{words}, which is older than what this is tested with", _UPGRADE)
    return Finding("engine", "ok", words)


async def _examine_buildkit(endpoint: Endpoint) -> Finding:
    try:
        version, platforms = await _in_time(lambda: _ask_buildkit(endpoint))
    except UpgradeRefused as error:
        fix = "Builds use POST /build instead, which can do less; a proxy in front of the engine must pass on /grpc."
        if endpoint.api_version is not None and error.hint:
            fix = error.hint  # the version that is pinned may be all that is wrong
        return Finding("buildkit", "warn", error.message, fix)
    except MobysessionError as error:
        return Finding.of_error("buildkit", error)
    if not platforms:
        return Finding("buildkit", "fail", f"{version} has nothing that could build", "Its log says why.")
    return Finding("buildkit", "ok", f"{version}, builds for {', '.join(platforms)}")


async def _ask_buildkit(endpoint: Endpoint) -> tuple[str, list[str]]:
    async with open_control(endpoint) as control:
        version = await control.info()
        workers = await control.list_workers()
    platforms = dict.fromkeys(platform for worker in workers for platform in worker.platforms)
    return (version.version if version is not None else "") or "a BuildKit that does not tell its version", [*platforms]


async def _examine_ways(endpoint: Endpoint) -> Finding:
    ways = await find_ways(endpoint)
    offered = [f"{way.way} in {(way.seconds or 0) * 1000:.1f} ms" for way in ways if way.is_offered]
    if offered:
        return Finding("attach", "ok", ", ".join(offered))
    reasons = "; ".join(f"{way.way}: {way.reason}" for way in ways)
    # What refuses the tunnel refuses everything; of the other ways an engine may just be too old.
    fix = ways[-1].hint or "A proxy in between must pass on upgrades."
    return Finding("attach", "fail", f"a session cannot be attached: {reasons}", fix)


async def _examine_health(endpoint: Endpoint, attach: str) -> Finding:
    session = Session(endpoint, attach=attach, name="doctor", tracing=False)
    checked = trio.Event()
    statuses: list[StatusCode] = []

    def note(event: SessionEvent) -> None:
        if isinstance(event, CallEnded) and event.method.lower() == _HEALTH:
            statuses.append(event.code)
            checked.set()

    session.listen(note)
    began = trio.current_time()
    try:
        async with session.attach():
            trip = await _in_time(session.ping)
            with trio.move_on_after(limits.DOCTOR_HEALTH):
                await checked.wait()
    except MobysessionError as error:
        return Finding.of_error("callbacks", error)
    words = f"round trip {trip * 1000:.2f} ms"
    if not statuses:
        message = f"{words}, but the engine did not ask for the session's health in {limits.DOCTOR_HEALTH:g} s"
        return Finding("callbacks", "warn", message, "What lies between may hold small messages back.")
    return Finding(
        "callbacks", "ok", f"{words}, health asked for after {trio.current_time() - began:.1f} s and answered"
    )


async def _examine_clock(endpoint: Endpoint) -> Finding:
    began = time.time()
    try:
        theirs = await _in_time(lambda: _engine_time(EngineApi(endpoint)))
    except MobysessionError as error:
        return Finding.of_error("clock", error, level="warn", fix="Its clock is not known.")
    except (ValueError, TypeError):
        return Finding(
            "clock", "warn", "the engine does not tell its time", "Compare its clock with this one yourself."
        )
    took = time.time() - began
    # It looked at its clock somewhere within.
    apart = theirs - (began + took / 2)
    off = max(0.0, abs(apart) - took / 2)
    if off <= limits.CLOCK_SKEW:
        return Finding("clock", "ok", f"differs by less than {max(0.1, off + took):.1f} s")
    message = f"the engine's clock is {off:.0f} s {'ahead of' if apart > 0 else 'behind'} this machine's"
    fix = "Set both by NTP: registries' tokens, certificates and times of files are judged by them."
    return Finding("clock", "fail" if off > limits.CLOCK_WRONG else "warn", message, fix)


async def _engine_time(api: EngineApi) -> float:
    """Return the time of the engine's clock in seconds since the epoch; ValueError or TypeError where it tells none."""
    try:
        return datetime.datetime.fromisoformat(str((await api.get_json("/info"))["SystemTime"])).timestamp()
    except (ApiError, KeyError):
        # A proxy may let nothing through but what builds need; every answer has a date, to the second.
        from email.utils import parsedate_to_datetime

        async with api.request("GET", "/_ping") as response:
            return parsedate_to_datetime(response.header("date")).timestamp()


async def _in_time(ask: Callable[[], Awaitable[T]]) -> T:
    seconds = limits.CONNECT_TIMEOUT + limits.HANDSHAKE_TIMEOUT + limits.READY_TIMEOUT
    with trio.move_on_after(seconds):
        return await ask()
    raise HandshakeTimeout(f"the daemon did not answer within {seconds:g} s", hint="It may be stuck.")
