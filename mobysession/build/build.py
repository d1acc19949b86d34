"""`build`: the session, the driver, the progress and the result of one image build, put together."""

from __future__ import annotations

import logging
import os
import sys
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any

import trio

from mobysession.build.options import BuildOptions
from mobysession.build.progress import BuildProgress
from mobysession.buildkit.control import speak_control
from mobysession.concurrency import open_nursery
from mobysession.errors import (
    BuildFailed,
    ConnectionLost,
    MobysessionError,
    ProtocolError,
    ProviderError,
    RpcError,
    SessionLost,
    StatusCode,
    UnsupportedByEngine,
    UpgradeRefused,
    UsageError,
)
from mobysession.identity import shared_key
from mobysession.session.session import Session
from mobysession.transport.endpoint import Endpoint
from mobysession.transport.hijack import hijack

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from mobysession.build.result import BuildResult
    from mobysession.buildkit.status import BuildStatus
    from mobysession.progress.view import View
    from mobysession.rpc.registrar import Attachable
    from mobysession.services.filesync import FileSync

__all__ = ["build"]

_log = logging.getLogger("mobysession.build")

#: The Engine API version since which the frontend knows shm-size and ulimits (Docker 23); older ones ignore them
#: silently.
_RESOURCES_SINCE = (1, 42)


async def build(
    context: str | os.PathLike[str] = ".",
    *,
    endpoint: Endpoint | None = None,
    progress: str | View | None = None,
    on_status: Callable[[BuildStatus], None] | None = None,
    **options: Any,
) -> BuildResult:
    """Build an image from a directory, in the engine's BuildKit, and keep it in the engine's image store.

    Args:
        context: the directory that COPY and ADD read.
        endpoint: the engine; None is `Endpoint.from_env`.
        progress: ``auto``, ``plain``, ``tty`` or ``quiet``, shown on stderr; a view of your own; None shows nothing.
        on_status: called with the status model after each message of the engine; must not wait.
        **options: the fields of `BuildOptions`.

    Raises:
        UsageError: the options make no sense.
        ProviderError: the context, a secret or the credentials cannot be used.
        TransportError, SessionError: the engine cannot be reached or went away.
        UnsupportedByEngine: the engine does not have what was asked for.
        BuildFailed: the engine could not build.

    Cancel: the engine cancels the build; nothing of it runs on.
    """
    return await build_with(make_options(context, options), endpoint=endpoint, progress=progress, on_status=on_status)


def make_options(context: str | os.PathLike[str], options: Mapping[str, Any]) -> BuildOptions:
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
) -> BuildResult:
    """Build what ``options`` say; otherwise as `build`."""
    endpoint = Endpoint.from_env() if endpoint is None else endpoint
    shown = BuildProgress(_view(progress), on_status)
    context, directory, dockerfile = await trio.to_thread.run_sync(options.directories)
    files, services = await trio.to_thread.run_sync(_services, options, context, directory)
    await files.check()
    await trio.to_thread.run_sync(_check_outputs, options)
    await _refuse_unsupported(endpoint, options)
    name, key = await trio.to_thread.run_sync(lambda: (context.resolve().name, shared_key(context)))
    session = Session(endpoint, name=name, shared_key=key)
    session.allow(*services)
    error: BaseException | None = None
    try:
        async with open_nursery() as nursery:
            if shown.view is not None:
                from mobysession.progress.view import keep_ticking

                nursery.start_soon(keep_ticking, shown.view)
            result = await _run(endpoint, options, session, directory / dockerfile, shown)
            nursery.cancel_scope.cancel()
    except BaseException as failure:
        error = failure
        raise
    finally:
        if shown.view is not None:
            shown.view.close(error)
    from mobysession.build.result import context_transfer

    result = replace(result, transfers=tuple(map(context_transfer, files.transfers)))
    await trio.to_thread.run_sync(_write_outputs, options, result)
    return result


async def _run(
    endpoint: Endpoint, options: BuildOptions, session: Session, dockerfile: Path, progress: BuildProgress
) -> BuildResult:
    """Attach the session and dial the control connection side by side; build on them by the driver that there is."""
    control_stream = _Pending()
    try:
        async with open_nursery() as nursery:
            if options.driver != "classic":
                nursery.start_soon(control_stream.dial, endpoint)
            async with session.attach():
                result = await _drive(endpoint, options, session, dockerfile.name, progress, control_stream)
            nursery.cancel_scope.cancel()
        return result
    except (RpcError, BuildFailed) as error:
        source = await trio.to_thread.run_sync(_read_if_there, dockerfile)
        explained = _explain(error, session, progress.status, source)
        raise explained from explained.__cause__
    finally:
        await control_stream.close()


class _Pending:
    """A control connection that is being dialled while the session attaches."""

    def __init__(self) -> None:
        self._done = trio.Event()
        self._stream: trio.abc.Stream | None = None
        self._refused: MobysessionError | None = None

    async def dial(self, endpoint: Endpoint) -> None:
        try:
            self._stream = await hijack(endpoint, "/grpc", ())
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
    endpoint: Endpoint,
    options: BuildOptions,
    session: Session,
    dockerfile: str,
    progress: BuildProgress,
    control_stream: _Pending,
) -> BuildResult:
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
                ref, response = await solve(
                    control, options, session_id=session.id, dockerfile=dockerfile, progress=progress
                )
            from mobysession.build.result import make_result

            return make_result(response, progress.status, session, tags=tags, driver="control", ref=ref)
    from mobysession.build.classic_driver import build_classic
    from mobysession.build.result import make_result

    response = await build_classic(endpoint, options, session_id=session.id, dockerfile=dockerfile, progress=progress)
    return make_result(response, progress.status, session, tags=tags, driver="classic")


def _explain(
    error: RpcError | BuildFailed, session: Session, status: BuildStatus, dockerfile: bytes | None
) -> MobysessionError:
    """Return the error to raise for a failed build: the engine's words, and behind them what failed on our side."""
    from mobysession.buildkit.solve_errors import build_failed

    if isinstance(error, RpcError) and isinstance(error.__cause__, (ConnectionLost, ProtocolError)):
        # It may have finished the image just before: what is known is only that its answer will not come.
        lost = SessionLost(f"the engine went away during the build: {error.message}", hint="Its log says why.")
        lost.__cause__ = error.__cause__
        return lost
    explained = build_failed(error if isinstance(error, RpcError) else error.message, status, dockerfile=dockerfile)
    cause = _local_cause(session, explained.message)
    if isinstance(cause, MobysessionError) and cause.hint:
        explained.hint = cause.hint
    explained.__cause__ = cause or error.__cause__
    return explained


def _read_if_there(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except OSError:
        return None


def _local_cause(session: Session, message: str) -> BaseException | None:
    """Return the latest failure of a callback of ours that the engine's words quote; others were not what failed it."""
    for failure in reversed(session.failures):
        quoted = failure.message and failure.message in message
        if failure.error is not None and failure.code is not StatusCode.CANCELLED and quoted:
            return failure.error
    return None


def _services(options: BuildOptions, context: Path, directory: Path) -> tuple[FileSync, list[Attachable]]:
    from mobysession.services.auth import Auth
    from mobysession.services.filesync import FileSync

    files = FileSync({"context": context, "dockerfile": directory})
    services: list[Attachable] = [files, Auth(options.credentials)]
    if options.secrets:
        from mobysession.services.secrets import Secrets

        secrets = Secrets(options.secrets)
        secrets.check()
        services.append(secrets)
    return files, [*services, *options.services]


async def _refuse_unsupported(endpoint: Endpoint, options: BuildOptions) -> None:
    wanted = [name for name, given in (("shm_size", options.shm_size), ("ulimits", options.ulimits)) if given]
    if not wanted:
        return
    from mobysession.transport.api import EngineApi

    ping = await EngineApi(endpoint).ping()
    if ping.api < _RESOURCES_SINCE:
        raise UnsupportedByEngine(
            f"{' and '.join(wanted)} would be ignored by this engine (API {ping.api_version})",
            hint="Docker 23 and later have it.",
        )


def _view(progress: str | View | None) -> View | None:
    if not isinstance(progress, str):
        return progress
    from mobysession.progress.view import open_view

    return open_view(progress, sys.stderr)  # type: ignore[arg-type]  # open_view itself refuses what is no kind


def _check_outputs(options: BuildOptions) -> None:
    """Refuse output files that cannot be written before the build, not after it."""
    for path in (options.iidfile, options.metadata_file):
        if path is None:
            continue
        folder = os.path.dirname(os.path.realpath(path))
        reason = None
        if not os.fspath(path):
            reason = "its name is empty"
        elif os.path.isdir(path):
            reason = "it is a directory"
        elif os.path.exists(path) and not os.path.isfile(path):
            reason = None if os.access(path, os.W_OK) else "permission denied"
        elif not os.path.isdir(folder):
            reason = f"there is no directory {folder}"
        elif not os.access(folder, os.W_OK):
            reason = "permission denied"
        if reason is not None:
            raise ProviderError(f"{os.fspath(path)!r} cannot be written: {reason}")
    if options.iidfile is not None and os.path.isfile(options.iidfile):
        # As with docker: who reads it after a failed build must not take an older image for the new one.
        os.unlink(os.path.realpath(options.iidfile))


def _write_outputs(options: BuildOptions, result: BuildResult) -> None:
    if options.iidfile is not None:
        _write_output(options.iidfile, result.image_id, result)
    if options.metadata_file is not None:
        import json

        _write_output(options.metadata_file, json.dumps(result.metadata(), indent=2) + "\n", result)


def _write_output(path: str | os.PathLike[str], text: str, result: BuildResult) -> None:
    from mobysession.build.result import write_atomically

    try:
        write_atomically(path, text)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise ProviderError(
            f"the image {result.image_id} was built, but {os.fspath(path)!r} cannot be written: {reason}"
        ) from error
