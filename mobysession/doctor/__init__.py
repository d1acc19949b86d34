"""The doctor: whether builds can work from here, and what to do where not.

It looks at this side (docker's configuration, its credential helpers, the SSH agent, the node ID) and at the engine
(which one, whether it answers, which BuildKit it has, by which ways a session attaches, whether its callbacks arrive,
its clock), and says of each what it found. Nothing is changed, and nothing that it finds is raised::

    diagnosis = await examine()
    for finding in diagnosis.findings:
        print(finding.level, finding.subject, finding.message, finding.fix)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mobysession.concurrency import open_nursery
from mobysession.doctor.engine import examine_engine
from mobysession.doctor.finding import Diagnosis, Finding
from mobysession.doctor.here import examine_config, examine_helpers, examine_node_id, examine_ssh_agent
from mobysession.errors import EndpointError
from mobysession.transport.endpoint import Endpoint

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

__all__ = ["Diagnosis", "Finding", "examine"]


async def examine(endpoint: Endpoint | Callable[[], Endpoint] | None = None, *, attach: str = "auto") -> Diagnosis:
    """Look at this side and at the engine, all at once; it takes some seconds, until the engine has called back.

    Args:
        endpoint: the engine or buildkitd; or what finds it, whose failure is a finding; None: `Endpoint.from_env`.
        attach: the way by which a session is attached to see callbacks; see `mobysession.session.attach`.

    Returns: what was found, in a fixed order: this side first, then the engine from the outside in.

    Cancel: what is being tried is ended.
    """
    parts = (
        examine_config,
        examine_helpers,
        examine_ssh_agent,
        examine_node_id,
        lambda: _examine_endpoint(endpoint if endpoint is not None else Endpoint.from_env, attach),
    )
    found: dict[int, list[Finding]] = {}

    async def run(place: int, part: Callable[[], Awaitable[list[Finding]]]) -> None:
        found[place] = await part()

    async with open_nursery() as nursery:
        for place, part in enumerate(parts):
            nursery.start_soon(run, place, part)
    return Diagnosis(tuple(finding for place in sorted(found) for finding in found[place]))


async def _examine_endpoint(given: Endpoint | Callable[[], Endpoint], attach: str) -> list[Finding]:
    if not isinstance(given, Endpoint):
        try:
            given = given()
        except EndpointError as error:
            return [Finding.of_error("endpoint", error)]
    return [Finding("endpoint", "ok", f"{given.url} ({given.source})"), *await examine_engine(given, attach)]
