"""grpcio's server interceptors and codecs of a hosted servicer, held against grpcio's own servers."""

from __future__ import annotations

import contextvars
import functools
import threading
from typing import TYPE_CHECKING, Any

import grpc
import pytest
import trio

from mobysession import Codec, GrpcioServicer, Registrar, RpcError, Session, StatusCode, UsageError, serve_listener
from mobysession.testing import FakeDaemon
from tests.rpc.genuine import SERVERS

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SERVICE = "/tests.echo.Echo/"
TRACE: contextvars.ContextVar[tuple[str, ...]] = contextvars.ContextVar("TRACE", default=())


class Plain(grpc.ServerInterceptor):
    """Notes what it sees; ``act`` does what it is for."""

    def __init__(self, name: str, log: list[Any], act: Callable[..., Any] | None = None) -> None:
        self.name, self.log, self.act = name, log, act

    def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:
        self.log.append((self.name, handler_call_details.method, _own(handler_call_details.invocation_metadata)))
        TRACE.set((*TRACE.get(), self.name))
        act = self.act or (lambda continuation, details: continuation(details))
        handler = act(continuation, handler_call_details)
        self.log.append((self.name, "done"))
        return handler


class Async(grpc.aio.ServerInterceptor):
    """The same for grpc.aio; ``act`` answers at once, or with something to await."""

    def __init__(self, name: str, log: list[Any], act: Callable[..., Any] | None = None) -> None:
        self.name, self.log, self.act = name, log, act

    async def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:
        self.log.append((self.name, handler_call_details.method, _own(handler_call_details.invocation_metadata)))
        TRACE.set((*TRACE.get(), self.name))
        act = self.act or (lambda continuation, details: continuation(details))
        handler = act(continuation, handler_call_details)
        if hasattr(handler, "__await__"):
            handler = await handler
        self.log.append((self.name, "done"))
        return handler


def _own(metadata: Any) -> list[tuple[str, Any]]:
    return [(key, value) for key, value in metadata if key == "color"]


def plain_servicer(pb: Any, service: Any) -> Any:
    """Return a servicer that answers with what the interceptors left in the context."""
    base: Any = service.EchoServicer

    class Echo(base):  # type: ignore[misc]  # made at run time
        def One(self, request: Any, context: Any) -> Any:
            return pb.Note(text=f"{request.text} {' '.join(TRACE.get())}")

        def Down(self, request: Any, context: Any) -> Any:
            yield pb.Note(text=f"{request.text} {' '.join(TRACE.get())}")

    return Echo()


def async_servicer(pb: Any, service: Any) -> Any:
    """Return the same with coroutines."""
    base: Any = service.EchoServicer

    class Echo(base):  # type: ignore[misc]  # made at run time
        async def One(self, request: Any, context: Any) -> Any:
            return pb.Note(text=f"{request.text} {' '.join(TRACE.get())}")

        async def Down(self, request: Any, context: Any) -> Any:
            yield pb.Note(text=f"{request.text} {' '.join(TRACE.get())}")

    return Echo()


KINDS: dict[str, tuple[Any, Callable[..., Any]]] = {"plain": (Plain, plain_servicer), "async": (Async, async_servicer)}


def deny(continuation: Any, details: Any) -> Any:
    """Serve the call by a function that refuses it."""

    def refuse(request: Any, context: Any) -> Any:
        context.set_code(grpc.StatusCode.UNAUTHENTICATED)
        context.set_details("no ticket")

    return grpc.unary_unary_rpc_method_handler(refuse)


def nothing(continuation: Any, details: Any) -> Any:
    """Have no handler."""
    return None


#: Lists of what each interceptor of a servicer does.
SCENES: dict[str, tuple[Callable[..., Any] | None, ...]] = {
    "none": (),
    "order": (None, None, None),
    "deny": (None, deny, None),
    "nothing": (None, nothing),
}


def chain(kind: str, scene: str, log: list[Any]) -> list[Any]:
    make = KINDS[kind][0]
    return [make(f"i{number}", log, act) for number, act in enumerate(SCENES[scene])]


def ask(pb: Any, path: Path) -> tuple[Any, Any]:
    """Call One; return status and answer."""
    with grpc.insecure_channel(f"unix:{path}") as channel:
        method = channel.unary_unary(SERVICE + "One", pb.Note.SerializeToString, pb.Note.FromString)
        call = method.future(pb.Note(text="hello"), metadata=(("color", "red"),), timeout=20)
        code = call.code()
        return code, call.result().text if code is grpc.StatusCode.OK else None


@pytest.mark.parametrize("scene", sorted(SCENES))
@pytest.mark.parametrize("kind", sorted(KINDS))
def test_as_in_grpcio(kind: str, scene: str, echo: Any, tmp_path: Path) -> None:
    """The interceptors of a servicer are asked in grpcio's order, may replace handlers, and share context variables."""
    pb, service = echo
    theirs: list[Any] = []
    add = functools.partial(service.add_EchoServicer_to_server, KINDS[kind][1](pb, service))
    with SERVERS[kind](tmp_path / "theirs", add, chain(kind, scene, theirs)):
        expected = ask(pb, tmp_path / "theirs")
    ours: list[Any] = []
    hosted = GrpcioServicer(
        KINDS[kind][1](pb, service), service.add_EchoServicer_to_server, interceptors=chain(kind, scene, ours)
    )

    async def serve() -> tuple[Any, Any]:
        async with trio.open_nursery() as nursery:
            await nursery.start(serve_listener, f"unix://{tmp_path / 'ours'}", hosted)
            answer = await trio.to_thread.run_sync(ask, pb, tmp_path / "ours")
            nursery.cancel_scope.cancel()
        return answer

    assert trio.run(serve) == expected
    assert ours == theirs


@pytest.mark.parametrize("servicer", sorted(KINDS))
@pytest.mark.parametrize("kind", sorted(KINDS))
async def test_either_kind_before_either_style(kind: str, servicer: str, echo: Any, open_pair: Any) -> None:
    """Interceptors of one kind stand before functions of the other as well; what they set in the context arrives."""
    pb, service = echo
    registrar = Registrar()
    hosted = GrpcioServicer(
        KINDS[servicer][1](pb, service), service.add_EchoServicer_to_server, interceptors=chain(kind, "order", [])
    )
    hosted.register(registrar)
    async with open_pair(registrar) as (channel, _):
        answer = await channel.unary(SERVICE + "One", pb.Note(text="hello"), pb.Note)
        again = [one.text async for one in channel.unary_stream(SERVICE + "Down", pb.Note(text="hi"), pb.Note)]
    # And stays in its call.
    assert (answer.text, again) == ("hello i0 i1 i2", ["hi i0 i1 i2"])
    assert TRACE.get() == ()


@pytest.mark.parametrize("kind", sorted(KINDS))
async def test_diverted_calls(kind: str, echo: Any, open_pair: Any) -> None:
    """What stands behind the last interceptor is the method that it names; grpcio's plain server ignores the name."""
    pb, service = echo
    base: Any = service.EchoServicer

    class Two(base):  # type: ignore[misc]  # made at run time
        def One(self, request: Any, context: Any) -> Any:
            return pb.Note(text="one")

        async def Down(self, request: Any, context: Any) -> Any:
            yield pb.Note(text="down")

    async def answer(name: str) -> str:
        def divert(continuation: Any, details: Any) -> Any:
            return continuation(details._replace(method=SERVICE + name))

        registrar = Registrar()
        interceptors = [KINDS[kind][0]("i", [], divert)]
        GrpcioServicer(Two(), service.add_EchoServicer_to_server, interceptors=interceptors).register(registrar)
        async with open_pair(registrar) as (channel, _):
            return str((await channel.unary(SERVICE + "One", pb.Note(), pb.Note)).text)

    assert await answer("One") == "one"
    assert await answer("Down") == "down"
    with pytest.raises(RpcError) as caught:
        await answer("Missing")
    assert caught.value.code is StatusCode.UNIMPLEMENTED


@pytest.mark.parametrize("kind", sorted(KINDS))
async def test_failing_interceptor(kind: str, echo: Any, open_pair: Any) -> None:
    """What a stranger's interceptor raises ends the call without its text; an RpcError is the answer."""
    pb, service = echo

    def broken(continuation: Any, details: Any) -> Any:
        raise ValueError("hunter2")

    def typed(continuation: Any, details: Any) -> Any:
        raise RpcError(StatusCode.PERMISSION_DENIED, "not you")

    for act, code, text in (
        (broken, StatusCode.UNKNOWN, f"the handler of {SERVICE}One failed with ValueError"),
        (typed, StatusCode.PERMISSION_DENIED, "not you"),
    ):
        registrar = Registrar()
        hosted = GrpcioServicer(
            KINDS[kind][1](pb, service),
            service.add_EchoServicer_to_server,
            interceptors=[KINDS[kind][0]("i", [], act)],
        )
        hosted.register(registrar)
        async with open_pair(registrar) as (channel, _):
            with pytest.raises(RpcError) as caught:
                await channel.unary(SERVICE + "One", pb.Note(), pb.Note)
        assert (caught.value.code, caught.value.message) == (code, text)


async def test_cancelled_in_an_interceptor(echo: Any, open_pair: Any, ended: Any) -> None:
    """A call that is cancelled while its plain interceptor blocks is over at once; the thread is left behind."""
    pb, service = echo
    entered, release = threading.Event(), threading.Event()

    def block(continuation: Any, details: Any) -> Any:
        entered.set()
        release.wait(20)

    registrar = Registrar()
    servicer = plain_servicer(pb, service)
    hosted = GrpcioServicer(servicer, service.add_EchoServicer_to_server, interceptors=[Plain("i", [], block)])
    hosted.register(registrar)
    with trio.fail_after(10):
        async with open_pair(registrar) as (channel, _), channel.open_call(SERVICE + "One") as call:
            await call.end(b"")
            await trio.to_thread.run_sync(entered.wait, 10)
    release.set()
    assert [how[1] for how in ended] == [StatusCode.CANCELLED]


async def test_both_kinds_share_a_session(echo: Any) -> None:
    """Servicers of both styles, each with interceptors of its kind, are hosted by one session's public surface."""
    pb, service = echo
    log: list[Any] = []

    def renamed(servicer: Any, server: Any) -> None:
        """Add the servicer under another service's name."""

        class Renaming:
            def add_generic_rpc_handlers(self, handlers: Any) -> None:
                pass

            def add_registered_method_handlers(self, name: str, handlers: Any) -> None:
                server.add_registered_method_handlers("tests.echo.Other", handlers)

        service.add_EchoServicer_to_server(servicer, Renaming())

    async with FakeDaemon() as daemon:
        session = Session(daemon.dialer)
        session.serve(
            plain_servicer(pb, service), service.add_EchoServicer_to_server, interceptors=[Plain("plain", log)]
        )
        session.serve(async_servicer(pb, service), renamed, interceptors=[Async("async", log)])
        async with session.attach():
            channel = (await daemon.wait_session(session.id)).channel
            first = await channel.unary(SERVICE + "One", pb.Note(text="a"), pb.Note)
            second = await channel.unary("/tests.echo.Other/One", pb.Note(text="b"), pb.Note)
    assert (first.text, second.text) == ("a plain", "b async")
    assert [entry[0] for entry in log] == ["plain", "plain", "async", "async"]


def test_what_is_no_chain(echo: Any) -> None:
    """What is no interceptor, and both kinds in one list, are refused when the servicer is hosted."""
    pb, service = echo
    servicer = plain_servicer(pb, service)
    for interceptors, text in (
        ([object()], "object is no interceptor"),
        ([Plain("a", []), Async("b", [])], "one list"),
    ):
        with pytest.raises(UsageError, match=text):
            GrpcioServicer(servicer, service.add_EchoServicer_to_server, interceptors=interceptors).register(
                Registrar()
            )


# -- codecs ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", sorted(KINDS))
async def test_codec_of_a_method(kind: str, echo: Any, open_pair: Any) -> None:
    """One method may carry two types of messages: its codec is chosen when it is hosted, or call by call."""
    pb, service = echo
    base: Any = service.EchoServicer

    class PlainUpper(base):  # type: ignore[misc]  # made at run time
        def One(self, request: Any, context: Any) -> Any:
            return request.upper() if isinstance(request, bytes) else pb.Note(text=request.text.upper())

    class AsyncUpper(base):  # type: ignore[misc]  # made at run time
        async def One(self, request: Any, context: Any) -> Any:
            return request.upper() if isinstance(request, bytes) else pb.Note(text=request.text.upper())

    servicer = PlainUpper() if kind == "plain" else AsyncUpper()
    notes = Codec(pb.Note.FromString, pb.Note.SerializeToString)

    def choose(metadata: Any) -> Codec:
        return Codec() if ("form", "raw") in [(key, value) for key, value in metadata] else notes

    async def answer(codec: Any, message: bytes, metadata: Any = ()) -> Any:
        registrar = Registrar()
        hosted = GrpcioServicer(servicer, service.add_EchoServicer_to_server, codecs={SERVICE + "One": codec})
        hosted.register(registrar)
        async with open_pair(registrar) as (channel, _), channel.open_call(SERVICE + "One", metadata=metadata) as call:
            await call.end(message)
            return await call.receive()

    note = pb.Note(text="a").SerializeToString()
    assert await answer(Codec(), b"raw") == b"RAW"
    assert await answer(choose, b"raw", [("form", "raw")]) == b"RAW"
    assert pb.Note.FromString(await answer(choose, note)) == pb.Note(text="A")


def test_codec_for_no_method(echo: Any) -> None:
    """A codec for a method that the servicer has not is refused, and the error names those that it has."""
    pb, service = echo
    hosted = GrpcioServicer(
        plain_servicer(pb, service), service.add_EchoServicer_to_server, codecs={SERVICE + "Other": Codec()}
    )
    with pytest.raises(UsageError, match=r"codec for /tests\.echo\.Echo/Other") as caught:
        hosted.register(Registrar())
    assert caught.value.hint is not None
    assert SERVICE + "One" in caught.value.hint
