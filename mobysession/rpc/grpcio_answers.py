"""The answers of a plain generator, on their way from its thread to the loop.

A thread that waited for the loop after each answer would spend its time on waiting. So it may be ahead by a few
answers, the loop takes what there is in one go, and only a thread that is too far ahead waits.
"""

from __future__ import annotations

import itertools
import threading
from operator import itemgetter
from typing import TYPE_CHECKING

import trio

from mobysession import limits
from mobysession.errors import RpcError
from mobysession.rpc.grpcio_context import CallOver

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

__all__ = ["Answers"]


class Answers:
    """A queue from one thread to the loop, with a bound.

    Args:
        send: what the loop does with answers: some, in order, and whether they are to be compressed.
    """

    def __init__(self, send: Callable[[Sequence[bytes], bool], Awaitable[None]]) -> None:
        self._send = send
        self._token = trio.lowlevel.current_trio_token()
        self._more = trio.Event()
        self._changed = threading.Condition()
        self._waiting: list[tuple[bytes, bool]] = []
        #: Answers, and their bytes, that were put and not yet sent.
        self._count = 0
        self._size = 0
        self._failure: Exception | None = None

    # -- for the thread ------------------------------------------------------------------------------------------------

    def put(self, answer: bytes, *, compress: bool) -> None:
        """Queue an answer; waits while the loop is behind by more than `limits.SERVICER_AHEAD` bytes or messages.

        Raises:
            CallOver: the call is over.
        """
        with self._changed:
            while self._failure is None and self._is_full(len(answer)):
                self._changed.wait()
            self._check()
            wake = not self._waiting
            self._waiting.append((answer, compress))
            self._count += 1
            self._size += len(answer)
        if wake:
            try:
                self._token.run_sync_soon(self._wake_up)
            except trio.RunFinishedError:
                raise CallOver("the call is over") from None

    def flush(self) -> None:
        """Wait until all that was put is sent; raises as `put`."""
        with self._changed:
            while self._failure is None and self._count:
                self._changed.wait()
            self._check()

    def _is_full(self, size: int) -> bool:
        if not self._count:
            return False
        return self._count >= limits.SERVICER_AHEAD_MESSAGES or self._size + size > limits.SERVICER_AHEAD

    def _check(self) -> None:
        if self._failure is not None:
            raise self._failure

    # -- for the loop --------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Send what is put, until cancelled or until the call is over; then the thread learns of it."""
        failure: Exception = CallOver("the call is over")
        try:
            while True:
                await self._more.wait()
                self._more = trio.Event()
                await self._send_waiting()
        except RpcError as error:
            failure.__cause__ = error
        except Exception as error:
            failure = error
        finally:
            with self._changed:
                self._failure = failure
                self._changed.notify_all()

    async def _send_waiting(self) -> None:
        with self._changed:
            answers, self._waiting = self._waiting, []
        for compress, group in itertools.groupby(answers, key=itemgetter(1)):
            await self._send([answer for answer, _ in group], compress)
        with self._changed:
            self._count -= len(answers)
            self._size -= sum(len(answer) for answer, _ in answers)
            self._changed.notify_all()

    def _wake_up(self) -> None:
        self._more.set()
