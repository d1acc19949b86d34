"""`build`: the session, the driver, the progress and the result of one image build, put together."""

from __future__ import annotations

import logging
import sys
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any

import trio

from mobysession.build.options import BuildOptions, check_listener
from mobysession.build.prepare import Prepared, prepare, refuse_unsupported
from mobysession.build.progress import BuildProgress
from mobysession.buildkit.control import speak_control
from mobysession.concurrency import open_nursery
from mobysession.errors import (
    BuildFailed,
    MobysessionError,
    RpcError,
    UpgradeRefused,
    UsageError,
)
from mobysession.redaction import redacted_logs
from mobysession.session.attach import EndpointDialer
from mobysession.session.session import Session

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Unpack

    from mobysession.build.control_driver import Ask
    from mobysession.build.keywords import BuildKeywords
    from mobysession.build.result import BuildResult
    from mobysession.buildkit.control import Control
    from mobysession.buildkit.status import BuildStatus
    from mobysession.filesync.sources import SourceLike
    from mobysession.llb import Definition, State
    from mobysession.progress.view import View
    from mobysession.session.access import Access
    from mobysession.transport.endpoint import Endpoint

__all__ = ["BuildOn", "build", "build_with", "make_options", "view_of"]

_log = logging.getLogger("mobysession.build")


async def build(
    context: SourceLike | State | Definition = ".",
    *,
    endpoint: Endpoint | None = None,
    progress: str | View | None = None,
    on_status: Callable[[BuildStatus], None] | None = None,
    **options: Unpack[BuildKeywords],
) -> BuildResult:
    """Build a directory in the engine's BuildKit, and put the result into its image store or where ``outputs`` say.

    Args:
        context: the directory that COPY and ADD read, or another tree; see `BuildOptions`. In its place a graph of LLB,
            for a build without a Dockerfile; see `mobysession.llb`.
        endpoint: the engine; None is `mobysession.state.active.find_endpoint`, or with ``attach="buildkitd"``
            `Endpoint.buildkitd`.
        progress: ``auto``, ``plain``, ``tty``, ``quiet`` or ``rawjson``, shown on stderr; ``notebook``; a view of your
            own; None and ``none`` show nothing.
        on_status: called with the status model after each message of the engine, and when the transfer of a directory
            or an output has come on (``status.transfers``, ``status.arrivals``); must not wait.
        **options: the fields of `BuildOptions`.

    Raises:
        UsageError: the options make no sense.
        ProviderError: the context, a secret or the credentials cannot be used.
        OutputError: an output cannot be written here.
        TransportError, SessionError: the engine cannot be reached or went away.
        UnsupportedByEngine: the engine does not have what was asked for.
        BuildFailed: the engine could not build.

    Cancel: the engine cancels the build; nothing of it runs on.
    """
    check_listener(on_status)
    return await build_with(make_options(context, options), endpoint=endpoint, progress=progress, on_status=on_status)


def make_options(context: SourceLike | State | Definition, options: Mapping[str, Any]) -> BuildOptions:
    """Return `BuildOptions` from keywords; UsageError names one that does not exist."""
    known = {field.name for field in fields(BuildOptions)}
    for name in options:
        if name not in known:
            raise UsageError(f"build() has no option {name!r}", hint=f"It has {', '.join(sorted(known))}.")
    return BuildOptions(context=context, **options)


async def build_with(
    options: BuildOptions,
    *,
    endpoint: Endpoint | None = None,
    progress: str | View | None = None,
    on_status: Callable[[BuildStatus], None] | None = None,
    on: BuildOn | None = None,
) -> BuildResult:
    """Build what ``options`` say, on a session that is there where ``on`` is given; otherwise as `build`."""
    on = on or BuildOn(endpoint, options)
    view = view_of(progress)
    if view is not None and on.access is not None and getattr(on.access, "asks_on_terminal", False):
        view = _held(view, on.access)
    prepared = await on.prepare(options)
    with redacted_logs(prepared.redactor):
        shown = BuildProgress(view, on_status, prepared.redactor, prepared.leaks)
        prepared.files.on_progress = shown.transfer
        if prepared.outputs is not None:
            prepared.outputs.on_progress = shown.arrival
        if options.timeline is None:
            return await _build_prepared(on, prepared, shown)
        from mobysession.build.timeline import recording

        async with recording(options, prepared.redactor.redact) as shown.timeline:
            return await _build_prepared(on, prepared, shown)


class BuildOn:
    """What a build runs on: here a session of its own, to ``endpoint``."""

    #: Runs the solve in a way of its own, see `mobysession.build.control_driver.solve`.
    ask: Ask | None = None

    def __init__(self, endpoint: Endpoint | None, options: BuildOptions) -> None:
        self.dialer = EndpointDialer(endpoint, options.attach)
        #: Who decides on what the engine asks for.
        self.access = options.access
        if self.access is None and options.timeline is not None:
            from mobysession.session.access import Access

            # It allows everything, and its decisions are the events that say what was asked for.
            self.access = Access()

    async def prepare(self, options: BuildOptions) -> Prepared:
        """Do what is done before the engine is asked; errors as of `mobysession.build.prepare.prepare`."""
        if options.build_contexts and self.ask is None:
            from mobysession.build.contexts import refuse_inner

            refuse_inner(options.build_contexts)
        return await trio.to_thread.run_sync(prepare, options, self.dialer.endpoint.url)

    def session(self, prepared: Prepared) -> Session:
        """Return the session, not attached."""
        options = prepared.options
        session = Session(
            self.dialer,
            name=prepared.name,
            shared_key=prepared.shared_key,
            access=self.access,
            tracing=options.tracing,
        )
        session.allow(*prepared.services)
        return session


async def _build_prepared(on: BuildOn, prepared: Prepared, shown: BuildProgress) -> BuildResult:
    options, dialer = prepared.options, on.dialer
    await refuse_unsupported(dialer.endpoint, options)
    session = on.session(prepared)
    if shown.timeline is not None:
        session.listen(shown.timeline.event)
    if options.services:
        from mobysession.build.callbacks import refuse_unasked

        await refuse_unasked(dialer.endpoint, _methods(prepared))
    error: BaseException | None = None
    try:
        async with open_nursery() as nursery:
            if shown.view is not None:
                from mobysession.progress.view import keep_ticking

                nursery.start_soon(keep_ticking, shown.view)
            try:
                result = await _run(on, session, prepared, shown)
                result = await _pushed(dialer, options, result, shown)
            except BuildFailed as failure:
                failure.hint = failure.hint or await trio.to_thread.run_sync(prepared.files.hint_for, failure.message)
                raise
            nursery.cancel_scope.cancel()
    except BaseException as failure:
        error = failure
        raise
    finally:
        if shown.view is not None:
            shown.view.close(error)
    from mobysession.build.outputs import write_outputs
    from mobysession.build.result import context_transfer

    result = replace(result, transfers=tuple(map(context_transfer, prepared.files.transfers)))
    if (call := options.called()) is not None:
        from mobysession.build.calls import make_answer

        result = replace(result, answer=make_answer(call, result.response))
    if prepared.outputs is not None:
        from mobysession.build.exports import check_received

        check_received(prepared.outputs)
        result = replace(result, outputs=tuple(prepared.outputs.received))
    if prepared.stores is not None:
        await trio.to_thread.run_sync(prepared.stores.write_indexes, result.response)
        if prepared.stores.output is not None:
            written = await trio.to_thread.run_sync(prepared.stores.output.complete, result.response)
            result = replace(result, outputs=(*result.outputs, written))
    await trio.to_thread.run_sync(write_outputs, options, result)
    return result


async def _pushed(
    dialer: EndpointDialer, options: BuildOptions, result: BuildResult, shown: BuildProgress
) -> BuildResult:
    """Push the image where the engine's BuildKit did not, which then has another digest than ID."""
    if dialer.way == "buildkitd" or not any(output.type in ("image", "registry") for output in options.exports()):
        return result
    from mobysession.build.push import push_images

    digest = await push_images(dialer.endpoint, options, shown)
    if digest is None:
        return result
    response = {"containerimage.config.digest": result.digest, **result.response, "containerimage.digest": digest}
    from mobysession.build.result import steps_of

    return replace(result, digest=digest, response=response, steps=steps_of(shown.status))


def _methods(prepared: Prepared) -> tuple[str, ...]:
    from mobysession.rpc.registrar import Registrar

    registrar = Registrar()
    for service in prepared.services:
        service.register(registrar)
    return registrar.methods


async def _run(on: BuildOn, session: Session, prepared: Prepared, progress: BuildProgress) -> BuildResult:
    """Attach the session and dial the control connection side by side; build on them by the driver that there is."""
    dialer, options, dockerfile = on.dialer, prepared.options, prepared.dockerfile
    control_stream = _Pending()
    in_flight: tuple[str, ...] = ()
    if session.spans is not None:
        session.spans.open("build", {"tags": ",".join(options.tags), "target": options.target or ""})
    try:
        async with open_nursery() as nursery:
            if options.driver != "classic":
                nursery.start_soon(control_stream.dial, dialer)
            async with session.attach():
                try:
                    result = await _drive(dialer, prepared, session, progress, control_stream, on.ask)
                except RpcError:
                    in_flight = session.in_flight
                    raise
            nursery.cancel_scope.cancel()
        return result
    except (RpcError, BuildFailed) as error:
        from mobysession.build.explain import explain, read_if_there

        source = await trio.to_thread.run_sync(read_if_there, dockerfile)
        explained = explain(error, session, progress.status, source, progress.redactor, in_flight=in_flight)
        raise explained from explained.__cause__
    finally:
        await control_stream.close()


class _Pending:
    """A control connection that is being dialled while the session attaches."""

    def __init__(self) -> None:
        self._done = trio.Event()
        self._stream: trio.abc.Stream | None = None
        self._refused: MobysessionError | None = None

    async def dial(self, dialer: EndpointDialer) -> None:
        try:
            self._stream = await dialer.dial_grpc()
        except MobysessionError as error:
            self._refused = error
        self._done.set()

    async def take(self) -> trio.abc.Stream:
        """Return the stream, or raise why there is none; the caller owns it then."""
        await self._done.wait()
        if self._refused is not None:
            raise self._refused
        stream, self._stream = self._stream, None
        if stream is None:
            raise UsageError("the control connection was taken already")
        return stream

    async def close(self) -> None:
        if self._stream is not None:
            # A checkpoint of a cancelled caller would take the place of the error that is on its way.
            with trio.CancelScope(shield=True):
                await trio.aclose_forcefully(self._stream)


async def _drive(
    dialer: EndpointDialer,
    prepared: Prepared,
    session: Session,
    progress: BuildProgress,
    control_stream: _Pending,
    ask: Ask | None,
) -> BuildResult:
    options, dockerfile = prepared.options, prepared.dockerfile.name
    tags = tuple(options.tags)
    if options.driver != "classic":
        try:
            stream = await control_stream.take()
        except UpgradeRefused as error:
            if options.driver == "control":
                error.hint = "Use driver='auto' (--driver auto), which asks with POST /build then."
                raise
            _log.info("%s; asking with POST /build", error.message)
        else:
            from mobysession.build.control_driver import solve

            async with speak_control(stream) as control:
                session.control = control.channel
                ref, response = await solve(
                    control,
                    options,
                    session_id=session.id,
                    dockerfile=dockerfile,
                    progress=progress,
                    methods=session.methods,
                    has_store=dialer.way != "buildkitd",
                    spans=session.spans,
                    ask=ask,
                )
                provenance = await _provenance(control, options, ref)
            from mobysession.build.result import make_result

            return make_result(
                response,
                progress.status,
                session,
                tags=tags,
                driver="control",
                ref=ref,
                provenance=provenance,
                outputs=options.exports(),
                has_store=dialer.way != "buildkitd",
            )
    from mobysession.build.classic_driver import build_classic
    from mobysession.build.result import make_result

    response = await build_classic(
        dialer.endpoint,
        options,
        session_id=session.id,
        dockerfile=dockerfile,
        progress=progress,
        given_attrs=prepared.given_attrs,
        headers=session.spans.introduction() if session.spans is not None else (),
    )
    return make_result(response, progress.status, session, tags=tags, driver="classic", outputs=options.exports())


async def _provenance(control: Control, options: BuildOptions, ref: str) -> dict[str, Any]:
    if options.call is not None or (options.metadata_file is None and not options.attests and not options.provenance):
        return {}
    from mobysession.build.provenance import is_wanted, read_provenance  # only for who asks: start-up

    return await read_provenance(control, ref) if is_wanted(options) else {}


def _held(view: View, access: Access) -> View:
    from mobysession.progress.held import HeldView

    held = HeldView(view)
    held.on_close = access.watch(held.hold)
    return held


def view_of(progress: str | View | None) -> View | None:
    """Return the view that ``progress`` stands for, on stderr; UsageError where there is none of that name."""
    if not isinstance(progress, str):
        if progress is not None and not hasattr(progress, "update"):
            raise UsageError(f"progress takes a name or a view, not an object of type {type(progress).__name__}")
        return progress
    from mobysession.progress.view import open_view

    return open_view(progress, sys.stderr)  # type: ignore[arg-type]  # open_view itself refuses what is no kind
