"""What a program puts around the operations of a session: to log them, to change them, to refuse them.

::

    async def timed(operation, context, proceed):
        began = trio.current_time()
        try:
            return await proceed(operation)
        finally:
            print(operation.name, context.get("who"), trio.current_time() - began)

    session.use(timed)
    await session.send(request, context={"who": "ada"})

The first that was added is the outermost. Those given to one call are the innermost, and live as long as it does.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from mobysession.session.managed.session import ManagedSession

__all__ = ["Middleware", "Operation", "Proceed", "call_through"]


@dataclass(frozen=True, kw_only=True)
class Operation:
    """One call of an operation of a session.

    Attributes:
        name: ``queue``, ``send``, ``run``, ``spawn`` or ``dispatch``.
        session: on which it was called.
        request: the request; None where there is none.
        method: what is dispatched; empty for the others.
        options: the options that it was given.
    """

    name: str
    session: ManagedSession
    request: Any = None
    method: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)


#: The next step; what it returns is what the operation returns.
Proceed: TypeAlias = Callable[[Operation], Awaitable[Any]]
#: Gets the operation, its context values, and the next step, which it may call or not.
Middleware: TypeAlias = Callable[[Operation, Mapping[str, Any], Proceed], Awaitable[Any]]


async def call_through(
    middleware: Sequence[Middleware], operation: Operation, context: Mapping[str, Any], innermost: Proceed
) -> Any:
    """Carry an operation out through ``middleware``, the first one outermost."""
    if not middleware:
        return await innermost(operation)
    first, rest = middleware[0], middleware[1:]

    async def proceed(changed: Operation) -> Any:
        return await call_through(rest, changed, context, innermost)

    return await first(operation, context, proceed)
