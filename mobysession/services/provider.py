"""Calling a function of the user's that provides something while a build runs: a secret, or registry credentials.

Such a function may be synchronous, and then runs in a worker thread so that it can take its time, or asynchronous, and
then runs in the loop of who gave it: the session's own, or the asyncio loop that a front door was called in. It may
take what it is asked for, or nothing.
"""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable
from typing import Any

import trio

from mobysession.concurrency import CALLERS_LOOP

__all__ = ["Provider"]


class Provider:
    """A function of the user's, bound to a way of calling it.

    Args:
        function: synchronous or asynchronous. Where it can be called without arguments, it is; otherwise with what is
            asked for as its only one.

    Raises:
        TypeError: it can be called in neither way.
    """

    def __init__(self, function: Callable[..., object]) -> None:
        import inspect  # only for who provides a function: start-up

        self._function = function
        self._takes_subject = _takes_subject(function)
        call = getattr(function, "__call__", None)  # noqa: B004 - asks for the method, not whether there is one
        self._is_async = inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(call)

    async def call(self, subject: object) -> Any:
        """Return what the function returns for ``subject``; what it raises passes through.

        Cancel: a synchronous function is left to run to its end in its thread; what it returns is dropped.
        """
        bound = functools.partial(self._function, subject) if self._takes_subject else self._function
        if self._is_async:
            return await _in_callers_loop(bound)
        # In a tuple, for trio takes a returned awaitable for a mistake; here it may be what a lambda made.
        (found,) = await trio.to_thread.run_sync(lambda: (bound(),), abandon_on_cancel=True)
        return await _in_callers_loop(lambda: found) if isinstance(found, Awaitable) else found


async def _in_callers_loop(function: Callable[[], Any]) -> Any:
    carry = CALLERS_LOOP.get(None)
    return await (carry(function) if carry is not None else function())


def _takes_subject(function: Callable[..., object]) -> bool:
    import inspect  # as above

    try:
        signature = inspect.signature(function)
    except ValueError:  # a builtin that does not say
        return False
    try:
        signature.bind()
    except TypeError:
        signature.bind("")
        return True
    return False
