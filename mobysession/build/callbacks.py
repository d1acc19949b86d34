"""Services that an engine asks only when the request says so: exporters for a known result, a policy on sources.

Whether the session hosts them is seen in its methods, so that servicers written against generated code count too. An
engine that is too old ignores the wish silently, and a policy that nobody asks is worse than none: so its version is
asked first.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from mobysession.buildkit.version import parse_version
from mobysession.errors import UnsupportedByEngine
from mobysession.services.exporter import FIND_EXPORTERS, Exporter
from mobysession.services.filesend import FileSend
from mobysession.services.policy import CHECK_POLICY, Policy

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mobysession._pb import control_pb2
    from mobysession.build.options import BuildOptions
    from mobysession.buildkit.control import Control
    from mobysession.transport.endpoint import Endpoint

__all__ = ["enable_callbacks", "receive_found", "refuse_callbacks", "refuse_unasked"]


def receive_found(options: BuildOptions, outputs: FileSend | None) -> FileSend | None:
    """Let the exporters that are named later deliver to the build's outputs; return the service that takes them."""
    found = [service for service in options.services if isinstance(service, Exporter)]
    if not found:
        return outputs
    outputs = FileSend({}) if outputs is None else outputs
    for service in found:
        service.deliver_to(outputs)
    return outputs


async def refuse_unasked(endpoint: Endpoint, methods: Sequence[str]) -> None:
    """Ask a Docker engine whether it knows the services of a session that it has to be told of.

    Raises:
        UnsupportedByEngine: it does not; the message names the version that does.
        TransportError, ApiError: it cannot be asked.
    """
    if endpoint.is_buildkitd or not {FIND_EXPORTERS, CHECK_POLICY} & set(methods):
        return
    from mobysession.transport.api import EngineApi

    found = await EngineApi(endpoint).version()
    # Not BuildKit's own version: engines that were built from a distribution's sources do not know it.
    _check(methods, parse_version(str(found.get("Version", ""))), _DOCKER)


async def enable_callbacks(
    control: Control,
    request: control_pb2.SolveRequest,
    options: BuildOptions,
    methods: Sequence[str],
    *,
    is_docker: bool,
) -> None:
    """Say in ``request`` what the session wants to be asked.

    Raises:
        UnsupportedByEngine: this buildkitd would not ask.
    """
    if not {FIND_EXPORTERS, CHECK_POLICY} & set(methods):
        return
    if not is_docker:
        found = await control.info()
        _check(methods, parse_version(found.version if found else ""), _BUILDKIT)
    if FIND_EXPORTERS in methods:
        request.EnableSessionExporter = True
        for service in options.services:
            if isinstance(service, Exporter):
                service.first = len(request.Exporters)
    if CHECK_POLICY in methods:
        request.SourcePolicySession = request.Session


def refuse_callbacks(options: BuildOptions) -> None:
    """Refuse what ``POST /build`` cannot ask for; UnsupportedByEngine."""
    for service in options.services:
        if isinstance(service, (Exporter, Policy)):
            raise UnsupportedByEngine(
                f"POST /build does not ask a {type(service).__name__}", hint="Use an engine with /grpc."
            )


class _Since(NamedTuple):
    """The versions of a daemon since which it asks for exporters, and for decisions."""

    name: str
    exporter: tuple[int, int]
    policy: tuple[int, int]


_DOCKER: Final = _Since("Docker", (28, 1), (29, 1))
_BUILDKIT: Final = _Since("BuildKit", (0, 21), (0, 26))


def _check(methods: Sequence[str], version: tuple[int, int], since: _Since) -> None:
    if FIND_EXPORTERS in methods and version < since.exporter:
        raise UnsupportedByEngine(
            "this engine does not ask for exporters; "
            f"{since.name} {since.exporter[0]}.{since.exporter[1]} and later do",
            hint="Name the outputs when the build starts.",
        )
    if CHECK_POLICY in methods and version < since.policy:
        raise UnsupportedByEngine(
            f"this engine asks no policy on sources; {since.name} {since.policy[0]}.{since.policy[1]} and later do",
            hint="Without being asked the policy would hold nothing up.",
        )
