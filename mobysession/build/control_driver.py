"""The first way of asking: Solve and Status of BuildKit's Control API, side by side (docker/buildx does the same)."""

from __future__ import annotations

import importlib
import os
from contextlib import aclosing
from functools import partial
from typing import TYPE_CHECKING

import trio

from mobysession import limits
from mobysession.build.request import solve_request
from mobysession.concurrency import open_nursery
from mobysession.errors import RpcError, StatusCode, UnsupportedByEngine
from mobysession.identity import new_id

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from mobysession._pb import control_pb2
    from mobysession.build.options import BuildOptions
    from mobysession.build.progress import BuildProgress
    from mobysession.buildkit.control import Control
    from mobysession.session.tracing import CallSpans

    #: Runs a solve, to its end; takes ``metadata`` by its name.
    Ask = Callable[..., Awaitable[control_pb2.SolveResponse]]

__all__ = ["solve"]

_GATEWAY_LABEL = "org.mobyproject.buildkit.worker.moby.host-gateway-ip"
_SNAPSHOTTER_LABEL = "org.mobyproject.buildkit.worker.snapshotter"
#: Outputs that are an image.
_IMAGES = ("image", "registry", "docker", "oci")
#: Seconds in which the requests of a build surely leave, and those in which a small directory is sent: nothing depends
#: on them but who waits for an import, the engine or nobody.
_REQUESTS_LEAVE = 0.001
_FILES_LEAVE = 0.05


async def solve(
    control: Control,
    options: BuildOptions,
    *,
    session_id: str,
    dockerfile: str,
    progress: BuildProgress,
    methods: Sequence[str] = (),
    has_store: bool = True,
    spans: CallSpans | None = None,
    ask: Ask | None = None,
) -> tuple[str, Mapping[str, str]]:
    """Run the build and return its ref and the exporter's response.

    ``methods`` are those that the session hosts: where the engine asks for some only when the request says so, it does.
    ``has_store`` is False for a buildkitd, which has no image store: without an output the result stays in its cache.
    ``spans`` are those of the session, where the build is traced. ``ask`` runs the solve where the options leave open
    how that is done.

    Raises:
        RpcError: it failed; BuildKit's typed errors are in ``details``.
        UnsupportedByEngine: the options ask for what this engine does not have.

    Cancel: the engine cancels the solve.
    """
    if options.tags and not options.outputs and not has_store:
        raise UnsupportedByEngine(
            "a buildkitd has no image store in which an image could have a name",
            hint="Give an output, such as type=oci,dest=FILE or type=registry, or leave the tags out.",
        )
    if not has_store and any(output.type == "docker" and output.dest is None for output in options.exports()):
        raise UnsupportedByEngine(
            "a buildkitd has no image store into which an image could be loaded",
            hint="Give the output a dest, and load the file with docker load.",
        )
    gateway, attests = await _worker_facts(control, options, has_store=has_store)
    ref = new_id()
    request = solve_request(
        options,
        ref=ref,
        session_id=session_id,
        dockerfile=dockerfile,
        gateway=gateway,
        has_store=has_store,
        attests=attests,
    )
    if options.is_graph:
        from mobysession.build.graph import ask_for_graph  # only for who has one: start-up

        ask = await ask_for_graph(control, request, options)
    elif (call := options.called()) is not None:
        from mobysession.build.call_driver import call_frontend  # only for who calls: start-up

        ask = partial(call_frontend, call=call)
    if options.services:
        from mobysession.build.callbacks import enable_callbacks

        await enable_callbacks(control, request, options, methods, is_docker=has_store)
    try:
        if spans is None:
            return ref, await _solve(control, request, progress, ask=ask)
        from mobysession.build.traced import traced

        async with traced(spans, control, ref=ref) as metadata:
            return ref, await _solve(control, request, progress, metadata, ask=ask)
    finally:
        progress.finish()


async def _solve(
    control: Control,
    request: control_pb2.SolveRequest,
    progress: BuildProgress,
    metadata: Sequence[tuple[str, str]] = (),
    *,
    ask: Ask | None = None,
) -> Mapping[str, str]:
    response, failure = await _solve_and_follow(control, request, progress, metadata, ask)
    if failure is not None:
        raise failure
    return response


async def _solve_and_follow(
    control: Control,
    request: control_pb2.SolveRequest,
    progress: BuildProgress,
    metadata: Sequence[tuple[str, str]],
    ask: Ask | None,
) -> tuple[Mapping[str, str], RpcError | None]:
    """Return the response and the solve's failure, after the status has told all it has to tell."""
    response: Mapping[str, str] = {}
    failure: RpcError | None = None
    async with open_nursery() as nursery:
        followed = _Followed()
        nursery.start_soon(_follow, control, request.Ref, progress, followed)
        nursery.start_soon(_load_the_rest, followed)
        try:
            response = dict((await (ask or _ask)(control, request, metadata=metadata)).ExporterResponse)
        except RpcError as error:
            failure = error
        await followed.wait_quiet(failed=failure is not None)
        nursery.cancel_scope.cancel()
    return response, failure


async def _ask(
    control: Control, request: control_pb2.SolveRequest, *, metadata: Sequence[tuple[str, str]]
) -> control_pb2.SolveResponse:
    return await control.solve(request, metadata=metadata)


async def _load_the_rest(followed: _Followed) -> None:
    """Load, in the order of its use, what is needed from now on, while the engine works.

    Here and not in a thread: the engine asks for the Dockerfile within milliseconds, and a thread that imports gives
    the interpreter back every 5 ms only.
    """
    # Both requests are on their way first.
    await trio.sleep(_REQUESTS_LEAVE)
    for module in ("mobysession.filesync.sender", "mobysession.buildkit.status"):
        importlib.import_module(module)
        await trio.lowlevel.checkpoint()
    with trio.move_on_after(_FILES_LEAVE):
        # The engine answers the solve some time after it has told all of it.
        await followed.done.wait()
    importlib.import_module("mobysession.build.result")


class _Followed:
    """Whether the status stream still says something."""

    def __init__(self) -> None:
        self.done = trio.Event()
        self._last_message = trio.current_time()
        self._was_heard = False

    def hear(self) -> None:
        """Take note of a message."""
        self._last_message = trio.current_time()
        self._was_heard = True

    async def wait_quiet(self, *, failed: bool) -> None:
        """Wait for the end of the stream, but not longer than it is silent for `limits.STATUS_SILENCE` seconds.

        After a solve that ``failed`` without a message, `limits.STATUS_AFTER_REFUSAL` seconds are enough.
        """
        ended = trio.current_time()
        while not self.done.is_set():
            if failed and not self._was_heard:
                patient_until = ended + limits.STATUS_AFTER_REFUSAL
            else:
                patient_until = self._last_message + limits.STATUS_SILENCE
            remaining = patient_until - trio.current_time()
            if remaining <= 0:
                return
            with trio.move_on_after(remaining):
                await self.done.wait()


async def _follow(control: Control, ref: str, progress: BuildProgress, followed: _Followed) -> None:
    try:
        async with aclosing(control.status(ref)) as responses:
            async for response in responses:
                followed.hear()
                progress.apply(response)
    except RpcError as error:
        # A solve that fails at once is forgotten before its status can be asked for; the solve's own error says why.
        if error.code not in (StatusCode.NOT_FOUND, StatusCode.UNAVAILABLE, StatusCode.CANCELLED):
            raise
    finally:
        followed.done.set()


async def _worker_facts(control: Control, options: BuildOptions, *, has_store: bool) -> tuple[str, bool]:
    """Ask what the workers are like, where the build depends on it, and refuse what the image store cannot hold.

    Returns: the address for ``host-gateway``, where it was asked for; whether a provenance is to be asked for although
        nobody spoke of one.
    """
    wants_gateway = any(address == "host-gateway" for _, address in options.hosts())
    attested = options.attested()
    by_default = "provenance" not in attested and _attests_by_default()
    if not has_store and not wants_gateway:
        return "", by_default
    annotated = _is_annotated(options)
    special = attested or annotated or len(options.platforms) > 1
    if not wants_gateway and not special and not by_default:
        return "", False
    labels = await control.worker_labels()
    holds_more = not has_store or any(_SNAPSHOTTER_LABEL in label for label in labels)
    if special and not holds_more:
        _refuse_in_graph_driver(options, annotated=annotated)
    gateway = next((label[_GATEWAY_LABEL] for label in labels if _GATEWAY_LABEL in label), "")
    if wants_gateway and not gateway:
        raise UnsupportedByEngine(
            "this engine does not tell its gateway address, which host-gateway stands for; Docker 23 and later do",
            hint="Give the address itself, or use driver='classic' (--driver classic), where the engine fills it in.",
        )
    return gateway, by_default and holds_more


def _is_annotated(options: BuildOptions) -> bool:
    """Tell whether an image is to have annotations: those of the build, or of an output."""
    if not options.annotations and not options.outputs:
        return False
    images = [output for output in options.exports() if output.type in _IMAGES]
    if options.annotations and (images or not options.outputs):
        return True
    return any(output.annotations for output in images)


def _attests_by_default() -> bool:
    given = os.environ.get("BUILDX_NO_DEFAULT_ATTESTATIONS")
    if not given:
        return True
    from mobysession.build.fields import parse_bool  # only for who says so: start-up

    return not parse_bool(given)


def _refuse_in_graph_driver(options: BuildOptions, *, annotated: bool) -> None:
    """Refuse what an image in a graph driver has no place for."""
    store = "Enable the containerd image store in the engine's configuration (Docker 24 and later)"
    if len(options.platforms) > 1:
        raise UnsupportedByEngine(
            "this engine's image store cannot hold an image of several platforms",
            hint="Enable the containerd image store in the engine's configuration, or build one platform at a time.",
        )
    if any(not attest.disabled for attest in options.attested().values()):
        raise UnsupportedByEngine(
            "this engine keeps images in a graph driver, where they have no attestations",
            hint=f"{store}, or leave the attestations out (provenance=False, sbom=False).",
        )
    if annotated:
        raise UnsupportedByEngine(
            "this engine keeps images in a graph driver, where they have no annotations",
            hint=f"{store}, or use labels.",
        )
