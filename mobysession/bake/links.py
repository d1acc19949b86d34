"""Targets as contexts of others: what comes out of one build is put into the next, without leaving the engine.

The build of a target that others need is played from here: its frontend is asked, and what that answers with is the
graph of the result. The others get this graph as an input of their frontends, under the name of the context. Nothing is
built twice, and nothing has to be exported first. The graph reads our directories through the session of the build it
came from, so that this build stays until those are done that have it as a context.

Source: docker/buildx build/build.go, waitContextDeps; moby/buildkit frontend/dockerui/namedcontext.go.
"""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Any

import trio

from mobysession.bake.definition import linked_names
from mobysession.buildkit.gateway import frontend_request, play_frontend
from mobysession.errors import UnsupportedByEngine

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from mobysession._pb import control_pb2, gateway_pb2
    from mobysession.bake.target import Target
    from mobysession.buildkit.control import Control
    from mobysession.buildkit.gateway import Bridge

__all__ = ["Links"]

_CONTEXT = "context:"
_TARGET = "target:"
#: What a frontend says of an image, which the next one has to know to build on it.
_CONFIG = "containerimage.config"


class Links:
    """Who waits for whom among the targets of one bake."""

    def __init__(self, targets: Mapping[str, Target]) -> None:
        self._needs = {name: linked_names(target) for name, target in targets.items()}
        self._users = {name: [other for other in targets if name in self._needs[other]] for name in targets}
        self._done = {name: trio.Event() for name in targets}
        self._told = {name: trio.Event() for name in targets}
        self._results: dict[str, gateway_pb2.Result] = {}

    def is_linked(self, name: str) -> bool:
        """Return whether a target has others as contexts, or is one."""
        return bool(self._needs[name] or self._users[name])

    def components(self) -> list[list[str]]:
        """Return the targets in groups of which none waits for another group."""
        left = dict.fromkeys(self._needs)
        groups = []
        while left:
            group: dict[str, None] = {}
            reached = [next(iter(left))]
            while reached:
                name = reached.pop()
                if name in left:
                    del left[name]
                    group[name] = None
                    reached += [*self._needs[name], *self._users[name]]
            groups.append(list(group))
        return groups

    async def ask(
        self,
        name: str,
        control: Control,
        request: control_pb2.SolveRequest,
        *,
        metadata: Sequence[tuple[str, str]] = (),
    ) -> control_pb2.SolveResponse:
        """Run the solve of a target, once those are there that it needs, and stay until those are done that need it."""
        for other in self._needs[name]:
            await self._told[other].wait()
        self._put_in(name, request)
        try:
            if not self._users[name]:
                return await control.solve(request, metadata=metadata)
            return await self._play(name, control, request, metadata)
        finally:
            self._done[name].set()

    def give_up(self, name: str) -> None:
        """Take the news that a target was built in another way than `ask`; those that need it cannot be built."""
        if self._users[name] and not self._told[name].is_set():
            raise _unsupported(name)

    def _put_in(self, name: str, request: control_pb2.SolveRequest) -> None:
        asked = {key: value for key, value in request.FrontendAttrs.items() if key.startswith(_CONTEXT)}
        for key, value in asked.items():
            if not value.startswith(_TARGET):
                continue
            result = self._results[value.removeprefix(_TARGET)]
            del request.FrontendAttrs[key]
            for platform, graph in _graphs(result):
                at = f"::{platform}" if platform else ""
                request.FrontendInputs[f"{key}{at}"].CopyFrom(graph)
                request.FrontendAttrs[f"{key}{at}"] = f"input:{key}{at}"
                config = result.metadata.get(f"{_CONFIG}/{platform}" if platform else _CONFIG)
                if config is not None:
                    written = {_CONFIG: base64.b64encode(config).decode()}
                    request.FrontendAttrs[f"input-metadata:{key}{at}"] = json.dumps(written)

    async def _play(
        self, name: str, control: Control, request: control_pb2.SolveRequest, metadata: Sequence[tuple[str, str]]
    ) -> control_pb2.SolveResponse:
        attributes = dict(request.FrontendAttrs)
        inputs = dict(request.FrontendInputs)
        frontend = request.Frontend
        request.Frontend = ""
        request.FrontendInputs.clear()

        async def evaluate(bridge: Bridge) -> gateway_pb2.Result:
            asked = frontend_request(frontend, attributes)
            for key, graph in inputs.items():
                asked.FrontendInputs[key].CopyFrom(graph)
            result = await bridge.solve(asked)
            if not any(graph.ByteSize() for _, graph in _graphs(result)):
                raise _unsupported(name)
            self._results[name] = result
            self._told[name].set()
            for other in self._users[name]:
                await self._done[other].wait()
            return result

        return (await play_frontend(control, request, evaluate, metadata=metadata)).response


def _graphs(result: gateway_pb2.Result) -> Iterator[tuple[str, Any]]:
    """Yield the graphs of a result by platform, an empty one where there is only one result."""
    kind = result.WhichOneof("result")
    if kind == "ref":
        yield "", getattr(result.ref, "def")
    elif kind == "refs":
        for platform, ref in result.refs.refs.items():
            yield platform, getattr(ref, "def")


def _unsupported(name: str) -> UnsupportedByEngine:
    return UnsupportedByEngine(
        f"this engine does not say what target {name!r} is made of, which another one has as a context",
        hint="Docker 23 and later do. Build the target first, and name its image in contexts: docker-image://NAME.",
    )
