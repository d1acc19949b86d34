"""A build as the iterator of its output that ``client.api.build`` returns.

The build runs in a thread and is not held up by who reads: the engine's health checks must be answered, whatever the
program does between two chunks. What is not read is kept up to a bound; logs beyond it are left out, and that is said.
"""

from __future__ import annotations

import contextvars
import json
import threading
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import requests
import trio

from mobysession import limits
from mobysession.build.build import build
from mobysession.dockerpy.arguments import Arguments
from mobysession.dockerpy.client import credentials_of, endpoint_of
from mobysession.dockerpy.failures import as_docker_error, refused_status
from mobysession.dockerpy.messages import MessageView, failure, success
from mobysession.errors import BuildFailed, MobysessionError

if TYPE_CHECKING:
    from mobysession.build.calls import Call
    from mobysession.build.result import BuildResult
    from mobysession.dockerpy.messages import Chunk
    from mobysession.transport.endpoint import Endpoint

__all__ = ["BuildStream", "start_build"]


def start_build(api: Any, **arguments: Any) -> BuildStream:
    """Begin a build on the daemon of an ``APIClient`` and return its output.

    Args:
        api: the client.
        **arguments: of ``APIClient.build``, and the fields of `mobysession.BuildOptions`.

    Returns:
        An iterator of bytes, one message of JSON each, or with ``decode=True`` of dicts. A failed build ends in a
        message with ``error`` and ``errorDetail``. Closing or forgetting the iterator cancels the build.

    Raises:
        TypeError, DockerException: the arguments are wrong, or BuildKit has no such thing.
        APIError: the engine refused.
        requests.exceptions.ConnectionError: it cannot be reached.
    """
    endpoint = endpoint_of(api)
    try:
        given = Arguments(arguments, api._proxy_configs.get_environment())
    except MobysessionError as error:
        raise as_docker_error(error, endpoint.url) from error
    given.options.setdefault("credentials", credentials_of(api))
    run = _Run(endpoint, given)
    stream = BuildStream(run, given)
    run.wait_begun()
    return stream


class BuildStream:
    """The output of one build; made by `start_build`.

    Attributes:
        result: of the build, once its output has been read to the end; None where it failed.
        failure: what it failed with then; None where it did not.
    """

    def __init__(self, run: _Run, arguments: Arguments) -> None:
        self._run = run
        self._decode = arguments.decode
        self._timeout = arguments.timeout
        self.result: BuildResult | None = None
        self.failure: BuildFailed | None = None

    def __iter__(self) -> BuildStream:
        return self

    def __next__(self) -> Chunk | bytes:
        try:
            chunk = self._run.next(self._timeout)
        except BaseException:
            self._run.cancel()
            raise
        if chunk is None:
            self.result, self.failure = self._run.result, self._run.failure
            raise StopIteration
        return chunk if self._decode else json.dumps(chunk).encode() + b"\r\n"

    def close(self) -> None:
        """Cancel the build, if it still runs, and wait until the engine was told; nothing can be read any more."""
        self._run.cancel()
        self._run.join()

    def __del__(self) -> None:
        self._run.cancel()


class _Run:
    """The thread of a build, and what it has said and nobody has read."""

    def __init__(self, endpoint: Endpoint, arguments: Arguments) -> None:
        self.result: BuildResult | None = None
        self.failure: BuildFailed | None = None
        self._endpoint = endpoint
        self._arguments = arguments
        self._chunks: deque[Chunk] = deque()
        self._size = 0
        self._left_out = 0
        self._news = threading.Condition()
        self._ended = False
        self._error: Exception | None = None
        self._token: trio.lowlevel.TrioToken | None = None
        self._scope = trio.CancelScope()
        # Callbacks see the context variables of who called.
        context = contextvars.copy_context()
        self._thread = threading.Thread(target=context.run, args=(self._work,), name="mobysession build", daemon=True)
        self._thread.start()

    def wait_begun(self) -> None:
        """Return when there is something to read; raise what ended the build before that."""
        with self._news:
            self._news.wait_for(lambda: self._chunks or self._ended)
            if not self._chunks:
                self._raise()

    def next(self, timeout: float | None) -> Chunk | None:
        """Return the next chunk, None after the last; raise what went wrong, or that nothing came in time."""
        with self._news:
            if not self._news.wait_for(lambda: self._chunks or self._ended, timeout):
                raise requests.exceptions.ReadTimeout(f"the build said nothing for {timeout:g} s and was given up")
            if self._chunks:
                chunk = self._chunks.popleft()
                self._size -= _size(chunk)
                return chunk
            self._raise()
            return None

    def cancel(self) -> None:
        """Tell the build to end; it does so by itself."""
        with self._news:
            self._ended, token = True, self._token
            self._chunks.clear()
        if token is not None:
            with suppress(trio.RunFinishedError):
                token.run_sync_soon(self._scope.cancel)

    def join(self) -> None:
        """Wait until the build has ended."""
        self._thread.join()

    def _raise(self) -> None:
        if (error := self._error) is not None:
            self._error = None
            raise error

    def _work(self) -> None:
        try:
            trio.run(self._build)
        except BuildFailed as error:
            self._fail(error)
        except MobysessionError as error:
            self._error = as_docker_error(error, self._endpoint.url)
        except Exception as error:
            # Not one of those that are raised on purpose; whoever reads is to see it.
            self._error = error
        with self._news:
            self._ended = True
            self._news.notify_all()

    def _fail(self, error: BuildFailed) -> None:
        self.failure = error
        if not self._chunks and refused_status(error) is not None:
            self._error = as_docker_error(error, self._endpoint.url)
        else:
            self._push(failure(error), ending=True)

    async def _build(self) -> None:
        with self._news:
            self._token = trio.lowlevel.current_trio_token()
            if self._ended:
                return
        view = None if self._arguments.quiet else MessageView(self._push)
        with self._scope:
            self.result = await build(endpoint=self._endpoint, progress=view, **self._arguments.options)
            form = _form(self._arguments.options.get("call"))
            for chunk in success(self.result, quiet=self._arguments.quiet, form=form):
                self._push(chunk, ending=True)

    def _push(self, chunk: Chunk, *, ending: bool = False) -> None:
        with self._news:
            if self._ended:
                return
            if self._size > limits.MAX_UNREAD_OUTPUT and not ending:
                self._left_out += 1
                return
            if self._left_out:
                note = f"[{self._left_out} messages are left out: they were not read in time]\n"
                self._left_out = 0
                self._keep({"stream": note})
            self._keep(chunk)
            self._news.notify_all()

    def _keep(self, chunk: Chunk) -> None:
        self._chunks.append(chunk)
        self._size += _size(chunk)


def _form(call: str | Call | None) -> str:
    if call is None:
        return "text"
    from mobysession.build.calls import Call  # only for who calls: start-up

    called = Call.parse(call) if isinstance(call, str) else call
    return called.format if called is not None else "text"


def _size(chunk: Chunk) -> int:
    return len(chunk.get("stream", "")) + 256
