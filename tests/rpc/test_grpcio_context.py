"""The contexts of servicers, held against grpcio's own: the same servicer on both servers sees and answers the same.

Each difference that is meant is in `DIFFERENT`, with its reason.
"""

from __future__ import annotations

import functools
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

import grpc
import pytest
import trio

from mobysession.rpc.grpcio import GrpcioServicer
from mobysession.rpc.listener import serve_listener
from tests.rpc.genuine import SERVERS

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

METADATA = (("color", "red"), ("color", "blue"), ("raw-bin", b"\x00\x80"))


class Seen(NamedTuple):
    """What a client sees of a call."""

    code: Any
    details: Any
    trailing: Any
    initial: Any
    answers: Any


class Status:
    """What grpcio-status makes of a ``google.rpc.Status``."""

    code = grpc.StatusCode.FAILED_PRECONDITION
    details = "rich"
    trailing_metadata = (("grpc-status-details-bin", b"\x08\x09\x12\x04rich"), ("more", "text"))


def attempt(function: Callable[..., Any], *args: Any) -> Any:
    """Return what ``function`` returns, or the class of what it raises."""
    try:
        return function(*args)
    except Exception as error:
        return type(error)


def probe(context: Any) -> dict[str, Any]:
    """Ask a context everything that needs no waiting, before and after something was set."""
    first, last = METADATA[0][0], METADATA[-1][0]
    said: dict[str, Any] = {
        "metadata": [(key, value) for key, value in context.invocation_metadata() if first <= key <= last],
        "agent": [value.split("/")[0] for key, value in context.invocation_metadata() if key == "user-agent"],
        "entries": {type(context.invocation_metadata()), *map(len, context.invocation_metadata())},
        "identities": (context.peer_identities(), context.peer_identity_key(), dict(context.auth_context())),
        "peer": context.peer().partition(":")[0],
        "remaining": 0 < context.time_remaining() <= 30,
        "unset": (context.code(), context.details(), context.trailing_metadata()),
        "returned": (
            context.set_code(grpc.StatusCode.OK),
            context.set_details("fine"),
            context.set_trailing_metadata((("a", "1"),)),
            context.set_trailing_metadata((("b", "2"), ("c-bin", b"\xff"))),
            context.disable_next_message_compression(),
        ),
    }
    said["set"] = (context.code(), context.details(), tuple(map(tuple, context.trailing_metadata())))
    return said


# -- plain functions ---------------------------------------------------------------------------------------------------


def plain(pb: Any, service: Any, kept: dict[str, Any]) -> Any:
    """Return a servicer of plain functions, which does what its request names."""
    base: Any = service.EchoServicer
    note = pb.Note

    class Echo(base):  # type: ignore[misc]  # made at run time
        def One(self, request: Any, context: Any) -> Any:
            return getattr(self, request.text)(context)

        def Down(self, request: Any, context: Any) -> Any:
            return getattr(self, request.text)(context)

        def probe(self, context: Any) -> Any:
            kept["said"] = probe(context)
            kept["active"] = (context.is_active(), context.add_callback(list))
            kept["begun"] = attempt(context.send_initial_metadata, (("i", "1"), ("j-bin", b"\x00")))
            kept["begun twice"] = attempt(context.send_initial_metadata, ())
            kept["late compression"] = attempt(context.set_compression, grpc.Compression.Gzip)
            kept["names"] = {name for name in dir(context) if not name.startswith("_")}
            return note(text="done")

        def abort(self, context: Any) -> None:
            context.set_trailing_metadata((("a", "1"),))
            context.abort(grpc.StatusCode.NOT_FOUND, "no such thing: ä%\n")

        def abort_ok(self, context: Any) -> None:
            context.abort(grpc.StatusCode.OK, "no success")

        def abort_with_status(self, context: Any) -> None:
            context.set_details("overruled")
            context.abort_with_status(Status())

        def abort_swallowed(self, context: Any) -> Any:
            attempt(context.abort, grpc.StatusCode.ABORTED, "once")
            return note()

        def abort_replaced(self, context: Any) -> Any:
            attempt(context.abort, grpc.StatusCode.ABORTED, "once")
            raise KeyError

        def code_and_answer(self, context: Any) -> Any:
            context.set_code(grpc.StatusCode.DATA_LOSS)
            context.set_details("lost")
            return note()

        def code_and_raise(self, context: Any) -> Any:
            context.set_code(grpc.StatusCode.DATA_LOSS)
            context.set_details("lost")
            raise KeyError

        def details_alone(self, context: Any) -> Any:
            context.set_details("fine")
            return note()

        def no_answer(self, context: Any) -> Any:
            return None

        def wrong_answer(self, context: Any) -> Any:
            return "text"

        def failure(self, context: Any) -> Any:
            raise KeyError

        def cancel(self, context: Any) -> Any:
            context.cancel()
            while context.is_active():
                pass
            return note()

        def listed(self, context: Any) -> Any:
            return iter([note(count=1), note(count=2)])

        def ended_by_none(self, context: Any) -> Any:
            yield note(count=1)
            yield None

        def abort_between(self, context: Any) -> Any:
            yield note(count=1)
            context.abort(grpc.StatusCode.OUT_OF_RANGE, "enough")

        def failure_between(self, context: Any) -> Any:
            yield note(count=1)
            raise KeyError

        def metadata_behind(self, context: Any) -> Any:
            yield note(count=1)
            kept["late"] = attempt(context.send_initial_metadata, (("i", "1"),))

        def code_behind(self, context: Any) -> Any:
            yield note(count=1)
            context.set_code(grpc.StatusCode.RESOURCE_EXHAUSTED)
            context.set_trailing_metadata((("a", "1"),))

    return Echo()


# -- async def ---------------------------------------------------------------------------------------------------------


def asynchronous(pb: Any, service: Any, kept: dict[str, Any]) -> Any:
    """Return a servicer of coroutines and asynchronous generators, which does what its request names."""
    base: Any = service.EchoServicer
    note = pb.Note

    class Echo(base):  # type: ignore[misc]  # made at run time
        async def One(self, request: Any, context: Any) -> Any:
            return await getattr(self, request.text)(context)

        async def Down(self, request: Any, context: Any) -> Any:
            async for answer in getattr(self, request.text)(context):
                yield answer

        async def Both(self, requests: Any, context: Any) -> Any:
            kept["read"] = [await context.read(), await context.read(), await context.read()]
            await context.write(note(count=1))
            await context.abort(grpc.StatusCode.OUT_OF_RANGE, "enough")

        async def probe(self, context: Any) -> Any:
            kept["said"] = probe(context)
            kept["active"] = (context.done(), context.cancelled(), context.add_done_callback(lambda _context: None))
            kept["begun"] = await self._attempt(context.send_initial_metadata, (("i", "1"), ("j-bin", b"\x00")))
            kept["begun twice"] = await self._attempt(context.send_initial_metadata, ())
            kept["late compression"] = attempt(context.set_compression, grpc.Compression.Gzip)
            kept["names"] = {name for name in dir(context) if not name.startswith("_")}
            return note(text="done")

        async def _attempt(self, function: Callable[..., Any], *args: Any) -> Any:
            try:
                return await function(*args)
            except Exception as error:
                return type(error).__mro__[-4:]

        async def abort(self, context: Any) -> None:
            context.set_trailing_metadata((("a", "1"),))
            await context.abort(grpc.StatusCode.NOT_FOUND, "no such thing: ä%\n")

        async def abort_with_metadata(self, context: Any) -> None:
            context.set_details("kept")
            await context.abort(grpc.StatusCode.NOT_FOUND, trailing_metadata=(("b", "2"), ("c-bin", b"\xff")))

        async def abort_with_status(self, context: Any) -> None:
            await context.abort_with_status(Status())

        async def abort_twice(self, context: Any) -> Any:
            await self._attempt(context.abort, grpc.StatusCode.ABORTED, "once")
            kept["twice"] = await self._attempt(context.abort, grpc.StatusCode.NOT_FOUND, "twice")
            return note()

        async def abort_swallowed(self, context: Any) -> Any:
            await self._attempt(context.abort, grpc.StatusCode.ABORTED, "once")
            kept["afterwards"] = await self._attempt(context.write, note())
            return note()

        async def code_and_answer(self, context: Any) -> Any:
            context.set_code(grpc.StatusCode.DATA_LOSS)
            context.set_details("lost")
            return note()

        async def details_alone(self, context: Any) -> Any:
            context.set_details("fine")
            return note()

        async def failure(self, context: Any) -> Any:
            raise KeyError

        async def metadata_class(self, context: Any) -> Any:
            context.set_trailing_metadata(grpc.aio.Metadata(("a", "1"), ("a", "2")))
            return note()

        async def abort_between(self, context: Any) -> Any:
            yield note(count=1)
            await context.abort(grpc.StatusCode.OUT_OF_RANGE, "enough")

        async def failure_between(self, context: Any) -> Any:
            yield note(count=1)
            raise KeyError

        async def metadata_behind(self, context: Any) -> Any:
            yield note(count=1)
            kept["late"] = await self._attempt(context.send_initial_metadata, (("i", "1"),))

        async def code_behind(self, context: Any) -> Any:
            yield note(count=1)
            context.set_code(grpc.StatusCode.RESOURCE_EXHAUSTED)
            context.set_trailing_metadata((("a", "1"),))

    return Echo()


UNARY = {
    "plain": (
        *("abort", "abort_ok", "abort_with_status", "abort_swallowed", "abort_replaced", "code_and_answer"),
        *("code_and_raise", "details_alone", "no_answer", "wrong_answer", "failure", "cancel", "probe"),
    ),
    "async": (
        *("abort", "abort_with_metadata", "abort_with_status", "abort_twice", "abort_swallowed", "code_and_answer"),
        *("details_alone", "failure", "metadata_class", "probe"),
    ),
}
STREAMED = {
    "plain": ("listed", "ended_by_none", "abort_between", "failure_between", "code_behind", "metadata_behind"),
    "async": ("abort_between", "failure_between", "code_behind", "metadata_behind"),
}
FACTORIES: dict[str, Callable[..., Any]] = {"plain": plain, "async": asynchronous}

#: What differs from grpcio on purpose.
DIFFERENT = {
    "failure": "grpcio tells the peer the text of the exception; it may quote a secret",
    "failure_between": "as failure",
    "no_answer": "our text names the method",
    "wrong_answer": "as no_answer",
    "cancel": "our text says who cancelled",
}


def ask(pb: Any, service: Any, style: str, path: Path) -> dict[str, Seen]:
    """Ask for every behaviour of a style, with grpcio's client; return what was seen of each."""
    with grpc.insecure_channel(f"unix:{path}") as channel:
        stub = service.EchoStub(channel)
        seen = {}
        for name in UNARY[style]:
            call = stub.One.future(pb.Note(text=name), metadata=METADATA, timeout=20)
            answers = [call.result().text] if call.code() is grpc.StatusCode.OK else []
            seen[name] = see(call, answers)
        for name in STREAMED[style]:
            call = stub.Down(pb.Note(text=name), metadata=METADATA, timeout=20)
            seen[name] = see(call, drain(call))
        if style == "async":
            call = stub.Both(iter([pb.Note(count=1), pb.Note(count=2)]), metadata=METADATA, timeout=20)
            seen["Both"] = see(call, drain(call))
    return seen


def drain(call: Any) -> list[int]:
    """Return the answers of a stream, up to its end."""
    counts: list[int] = []
    with suppress(grpc.RpcError):
        counts.extend(answer.count for answer in call)
    return counts


def see(call: Any, answers: list[Any]) -> Seen:
    """Return what is to be seen of a call that is over."""
    return Seen(
        call.code(), call.details(), list(map(tuple, call.trailing_metadata())), _own(call.initial_metadata()), answers
    )


def _own(metadata: Any) -> list[tuple[str, Any]]:
    return [(key, value) for key, value in metadata if not key.startswith(("grpc-", "accept-", "content-"))]


@pytest.fixture(scope="module", params=sorted(FACTORIES))
def both(
    request: pytest.FixtureRequest, echo: Any, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, dict[str, Seen], dict[str, Any], dict[str, Seen], dict[str, Any]]:
    """Ask the same servicer on both servers; give what the client and the servicer saw, theirs and ours."""
    pb, service = echo
    style = request.param
    folder = tmp_path_factory.mktemp("context")
    theirs_kept: dict[str, Any] = {}
    servicer = FACTORIES[style](pb, service, theirs_kept)
    with SERVERS[style](folder / "theirs.sock", functools.partial(service.add_EchoServicer_to_server, servicer)):
        theirs = ask(pb, service, style, folder / "theirs.sock")
    ours_kept: dict[str, Any] = {}
    hosted = GrpcioServicer(FACTORIES[style](pb, service, ours_kept), service.add_EchoServicer_to_server)

    async def serve() -> dict[str, Seen]:
        async with trio.open_nursery() as nursery:
            await nursery.start(serve_listener, f"unix://{folder / 'ours.sock'}", hosted)
            seen = await trio.to_thread.run_sync(ask, pb, service, style, folder / "ours.sock")
            nursery.cancel_scope.cancel()
        return seen

    return style, theirs, theirs_kept, trio.run(serve), ours_kept


def test_behaviour(both: Any) -> None:
    """Every way to end a call looks the same to its client, in status, text, metadata and messages."""
    style, theirs, _, ours, _ = both
    assert list(theirs) == list(ours)
    for name, seen in ours.items():
        if name in DIFFERENT:
            assert seen._replace(details="") == theirs[name]._replace(details=""), (style, name)
            assert seen.details != theirs[name].details, (style, name)
        else:
            assert seen == theirs[name], (style, name)


def test_what_the_servicer_sees(both: Any) -> None:
    """A context answers what grpcio's answers: values, what is unset, and the kinds of what it raises."""
    style, _, theirs, _, ours = both
    assert theirs.pop("names") <= ours.pop("names"), style
    assert ours == theirs
