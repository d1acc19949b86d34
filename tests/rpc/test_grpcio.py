"""Servicers of grpcio's generated code, in both styles, asked by our client and by grpcio's own."""

# ruff: noqa: ASYNC110, PT012, SIM117 - threads set no trio events; a call fails where its block ends

from __future__ import annotations

import asyncio
import functools
import threading
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import grpc
import pytest
import trio
import trio.testing

from mobysession import limits
from mobysession.errors import LocalProtocolError, RpcError, StatusCode, UsageError
from mobysession.rpc.grpcio import GrpcioServicer
from mobysession.rpc.registrar import Registrar
from mobysession.rpc.server import open_server

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

SERVICE = "/tests.echo.Echo/"
MIB = 1024 * 1024


def plain_servicer(echo: Any) -> Any:
    """Return a servicer of plain functions."""
    messages, service = echo
    base: Any = service.EchoServicer

    class Echo(base):  # type: ignore[misc]  # its base is generated at run time
        def __init__(self) -> None:
            self.seen: list[Any] = []
            self.active: list[bool] = []
            self.begun = threading.Event()
            self.stopped = threading.Event()
            self.context: Any = None

        def One(self, request: Any, context: Any) -> Any:
            self.seen.append((context.invocation_metadata(), context.time_remaining()))
            match request.text:
                case "abort":
                    context.set_trailing_metadata((("why", "because"), ("raw-bin", b"\x00\xff")))
                    context.abort(grpc.StatusCode.NOT_FOUND, "no such thing: ä")
                case "raise":
                    raise ValueError("the password is hunter2")
                case "code and raise":
                    context.set_code(grpc.StatusCode.DATA_LOSS)
                    raise ValueError("the password is hunter2")
                case "code":
                    context.set_code(grpc.StatusCode.ALREADY_EXISTS)
                    context.set_details("twice")
                case "details":
                    context.set_details("all is well")
                case "initial":
                    context.send_initial_metadata((("first", "1"), ("raw-bin", b"\x01")))
                case "ours":
                    raise RpcError(StatusCode.OUT_OF_RANGE, "typed")
                case "cancel":
                    context.cancel()
                    self.stopped.wait(5)
                case "gzip":
                    context.set_compression(grpc.Compression.Gzip)
                case "wrong answer":
                    return "not a message"
                case "status":
                    context.abort_with_status(RichStatus())
                case "wait":
                    self.active.append(context.is_active())
                    context.add_callback(self.stopped.set)
                    self.stopped.wait(10)
                    self.active.append(context.is_active())
                    self.active.append(context.add_callback(print))
                    self.seen.append("back")
            return messages.Note(text=request.text, data=request.data)

        def Down(self, request: Any, context: Any) -> Any:
            try:
                for number in range(request.count):
                    yield messages.Note(count=number, data=request.data)
                context.set_trailing_metadata((("total", str(request.count)),))
            finally:
                self.seen.append("closed")

        def Up(self, requests: Any, context: Any) -> Any:
            count = size = 0
            try:
                for request in requests:
                    self.begun.set()
                    if request.text == "enough":
                        return messages.Note(text="early")
                    count += 1
                    size += len(request.data)
            except grpc.RpcError as error:
                self.seen.append((type(error).__name__, context.is_active()))
                self.stopped.set()
                raise
            return messages.Note(count=count, text=str(size))

        def Both(self, requests: Any, context: Any) -> Any:
            yield from requests

    return Echo()


def async_servicer(echo: Any) -> Any:
    """Return a servicer of coroutines and asynchronous generators."""
    messages, service = echo
    base: Any = service.EchoServicer

    class Echo(base):  # type: ignore[misc]  # its base is generated at run time
        def __init__(self) -> None:
            self.seen: list[Any] = []
            self.active: list[bool] = []
            self.stopped = threading.Event()

        async def One(self, request: Any, context: Any) -> Any:
            await trio.lowlevel.checkpoint()
            self.seen.append((context.invocation_metadata(), context.time_remaining()))
            match request.text:
                case "abort":
                    trailing = (("why", "because"), ("raw-bin", b"\x00\xff"))
                    await context.abort(grpc.StatusCode.NOT_FOUND, "no such thing: ä", trailing)
                case "raise":
                    raise ValueError("the password is hunter2")
                case "code and raise":
                    context.set_code(grpc.StatusCode.DATA_LOSS)
                    raise ValueError("the password is hunter2")
                case "code":
                    context.set_code(grpc.StatusCode.ALREADY_EXISTS.value[0])
                    context.set_details("twice")
                case "details":
                    context.set_details("all is well")
                case "initial":
                    await context.send_initial_metadata((("first", "1"), ("raw-bin", b"\x01")))
                case "ours":
                    raise RpcError(StatusCode.OUT_OF_RANGE, "typed")
                case "cancel":
                    context.cancel()
                    await trio.sleep_forever()
                case "gzip":
                    context.set_compression(grpc.Compression.Gzip)
                case "wrong answer":
                    return "not a message"
                case "status":
                    await context.abort_with_status(RichStatus())
                case "wait":
                    self.active.append(context.is_active())
                    context.add_done_callback(lambda context: self.active.append(context.cancelled()))
                    context.add_done_callback(lambda context: self.stopped.set())
                    await trio.sleep_forever()
            return messages.Note(text=request.text, data=request.data)

        async def Down(self, request: Any, context: Any) -> Any:
            try:
                for number in range(request.count):
                    yield messages.Note(count=number, data=request.data)
                context.set_trailing_metadata((("total", str(request.count)),))
            finally:
                self.seen.append("closed")

        async def Up(self, requests: Any, context: Any) -> Any:
            count = size = 0
            async for request in requests:
                if request.text == "enough":
                    return messages.Note(text="early")
                count += 1
                size += len(request.data)
            return messages.Note(count=count, text=str(size))

        async def Both(self, requests: Any, context: Any) -> None:
            while (request := await context.read()) is not grpc.aio.EOF:
                await context.write(request)

    return Echo()


class RichStatus:
    """What grpcio-status makes of a ``google.rpc.Status``."""

    code = grpc.StatusCode.FAILED_PRECONDITION
    details = "rich"
    trailing_metadata = (("grpc-status-details-bin", b"\x08\x09\x12\x04rich"), ("more", "text"))


STYLES = {"plain": plain_servicer, "async": async_servicer}


@pytest.fixture(params=sorted(STYLES))
def servicer(request: pytest.FixtureRequest, echo: Any) -> Any:
    """Give a servicer in each style in turn."""
    return STYLES[request.param](echo)


@pytest.fixture
def registrar(servicer: Any, echo: Any) -> Registrar:
    """Give a registrar that hosts ``servicer``."""
    registrar = Registrar()
    GrpcioServicer(servicer, echo[1].add_EchoServicer_to_server).register(registrar)
    return registrar


@asynccontextmanager
async def grpcio_client(tmp_path: Path, registrar: Registrar) -> AsyncIterator[Callable[..., Any]]:
    """Serve one connection of grpcio's own client; yield a function that runs another with a channel, in a thread."""
    path = tmp_path / "echo.sock"
    listener = trio.socket.socket(trio.socket.AF_UNIX, trio.socket.SOCK_STREAM)
    with listener:
        await listener.bind(str(path))
        listener.listen(1)
        options = [("grpc.max_receive_message_length", 16 * MIB), ("grpc.max_send_message_length", 16 * MIB)]
        channel = grpc.insecure_channel(f"unix:{path}", options=options)
        try:
            async with trio.open_nursery() as nursery:

                async def serve() -> None:
                    accepted, _ = await listener.accept()
                    async with open_server(trio.SocketStream(accepted), registrar) as server:
                        await server.closed.wait()

                nursery.start_soon(serve)

                async def ask(function: Callable[..., Any], *args: object) -> Any:
                    return await trio.to_thread.run_sync(functools.partial(function, channel, *args))

                with trio.fail_after(30):
                    yield ask
                channel.close()
                nursery.cancel_scope.cancel()
        finally:
            channel.close()


# -- our own client ----------------------------------------------------------------------------------------------------


async def test_all_cardinalities_with_our_client(registrar: Any, echo: Any, open_pair: Any, stream_pair: Any) -> None:
    """Each shape of method answers our client, over every kind of stream."""
    note = echo[0].Note
    async with open_pair(registrar, stream_pair) as (channel, _):
        assert await channel.unary(SERVICE + "One", note(text="x"), note) == note(text="x")
        answers = [answer.count async for answer in channel.unary_stream(SERVICE + "Down", note(count=3), note)]
        assert answers == [0, 1, 2]
        async with channel.open_call(SERVICE + "Up") as call:
            await call.send_batch([note(data=b"12").SerializeToString(), note(data=b"3").SerializeToString()])
            await call.end()
            assert note.FromString(await call.receive()) == note(count=2, text="3")
            assert await call.receive() is None
        async with channel.open_call(SERVICE + "Both") as call:
            for number in range(3):
                await call.send(note(count=number).SerializeToString())
                assert note.FromString(await call.receive()).count == number
            await call.end()
            assert await call.receive() is None


@pytest.mark.parametrize(
    ("text", "code", "message"),
    [
        ("abort", StatusCode.NOT_FOUND, "no such thing: ä"),
        ("raise", StatusCode.UNKNOWN, f"the handler of {SERVICE}One failed with ValueError"),
        ("code and raise", StatusCode.DATA_LOSS, f"the handler of {SERVICE}One failed with ValueError"),
        ("code", StatusCode.ALREADY_EXISTS, "twice"),
        ("ours", StatusCode.OUT_OF_RANGE, "typed"),
        ("cancel", StatusCode.CANCELLED, "the servicer cancelled the call"),
        ("wrong answer", StatusCode.INTERNAL, f"{SERVICE}One: the answer cannot be encoded"),
        ("status", StatusCode.FAILED_PRECONDITION, "rich"),
    ],
)
async def test_status_of_a_servicer(
    registrar: Any, servicer: Any, echo: Any, open_pair: Any, text: str, code: StatusCode, message: str
) -> None:
    """Every way of a servicer to fail gives its own status, and never the text of a stranger's exception."""
    note = echo[0].Note
    async with open_pair(registrar) as (channel, _):
        with pytest.raises(RpcError) as caught:
            await channel.unary(SERVICE + "One", note(text=text), note)
    servicer.stopped.set()
    assert (caught.value.code, caught.value.message) == (code, message)


async def test_trailers_and_details(registrar: Any, echo: Any, open_pair: Any) -> None:
    """Trailing metadata and the details of grpcio-status arrive, also the binary ones."""
    note = echo[0].Note
    async with open_pair(registrar) as (channel, _):
        with pytest.raises(RpcError) as caught:
            await channel.unary(SERVICE + "One", note(text="abort"), note)
        assert caught.value.trailers == (("why", "because"), ("raw-bin", b"\x00\xff"))
        with pytest.raises(RpcError) as caught:
            await channel.unary(SERVICE + "One", note(text="status"), note)
        assert caught.value.trailers == (("more", "text"),)
        assert caught.value.details == b"\x08\x09\x12\x04rich"


async def test_details_of_an_ok_status_are_no_failure(registrar: Any, echo: Any, open_pair: Any, ended: Any) -> None:
    """A servicer may explain a success; the call is answered and counts as no failure."""
    note = echo[0].Note
    async with open_pair(registrar) as (channel, _):
        assert (await channel.unary(SERVICE + "One", note(text="details"), note)).text == "details"
    assert ended == [(SERVICE + "One", StatusCode.OK, "all is well", None)]


@pytest.mark.parametrize("strange", [asyncio.CancelledError, GeneratorExit])
async def test_an_async_servicer_may_raise_what_is_no_exception(
    strange: type[BaseException], echo: Any, open_pair: Any
) -> None:
    """Another loop's cancellation fails the call; its context says that the function has ended, and others go on."""
    messages, service = echo
    note = messages.Note
    base: Any = service.EchoServicer
    cancelled: list[bool] = []

    class Echo(base):  # type: ignore[misc]  # its base is generated at run time
        async def One(self, request: Any, context: Any) -> Any:
            context.add_done_callback(lambda context: cancelled.append(context.cancelled()))
            if request.text == "strange":
                raise strange
            return request

    registrar = Registrar()
    GrpcioServicer(Echo(), service.add_EchoServicer_to_server).register(registrar)
    async with open_pair(registrar) as (channel, _):
        with pytest.raises(RpcError, match=f"failed with {strange.__name__}") as caught:
            await channel.unary(SERVICE + "One", note(text="strange"), note)
        assert caught.value.code is StatusCode.UNKNOWN
        assert await channel.unary(SERVICE + "One", note(text="x"), note) == note(text="x")
    assert cancelled == [False, False]


@pytest.mark.parametrize("plain", [False, True])
async def test_an_answer_without_a_serializer_must_be_bytes(plain: bool, open_pair: Any) -> None:
    """A number is not as many zeros; every kind of bytes is taken."""
    answers = {b"number": 7, b"list": [1, 2], b"bytes": b"ab", b"view": memoryview(b"cd"), b"array": bytearray(b"ef")}

    def answer(request: bytes, context: Any) -> Any:
        return answers[request]

    async def answer_async(request: bytes, context: Any) -> Any:
        return answers[request]

    def add(_servicer: object, server: Any) -> None:
        handler: Any = grpc.unary_unary_rpc_method_handler(answer if plain else answer_async)
        server.add_registered_method_handlers("t.S", {"M": handler})

    registrar = Registrar()
    GrpcioServicer(object(), add).register(registrar)
    got: dict[bytes, Any] = {}
    async with open_pair(registrar) as (channel, _):
        for request in answers:
            async with channel.open_call("/t.S/M") as call:
                await call.end(request)
                try:
                    got[request] = await call.receive()
                except RpcError as error:
                    got[request] = error.code
    bad = StatusCode.INTERNAL
    assert got == {b"number": bad, b"list": bad, b"bytes": b"ab", b"view": b"cd", b"array": b"ef"}


async def test_failing_in_a_nursery(echo: Any, open_pair: Any) -> None:
    """What an asynchronous function raises or aborts in a nursery of its own is the status, not the group around it."""
    messages, service = echo
    note = messages.Note
    base: Any = service.EchoServicer

    class Echo(base):  # type: ignore[misc]  # its base is generated at run time
        async def One(self, request: Any, context: Any) -> Any:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(trio.sleep_forever)
                if request.text == "abort":
                    await context.abort(grpc.StatusCode.ABORTED, "enough")
                raise RpcError(StatusCode.OUT_OF_RANGE, "typed")

    registrar = Registrar()
    GrpcioServicer(Echo(), service.add_EchoServicer_to_server).register(registrar)
    async with open_pair(registrar) as (channel, _):
        for text, code in (("abort", StatusCode.ABORTED), ("raise", StatusCode.OUT_OF_RANGE)):
            with pytest.raises(RpcError) as caught:
                await channel.unary(SERVICE + "One", note(text=text), note)
            assert caught.value.code is code


async def test_metadata_both_ways(registrar: Any, servicer: Any, echo: Any, open_pair: Any) -> None:
    """A servicer sees the request's metadata and deadline, and begins its response with metadata of its own."""
    note = echo[0].Note
    metadata = [("color", "red"), ("color", "blue"), ("raw-bin", b"\x00\x80")]
    async with open_pair(registrar) as (channel, _):
        async with channel.open_call(SERVICE + "One", metadata=metadata, timeout=60) as call:
            await call.end(note(text="initial").SerializeToString())
            assert await call.wait_initial_metadata() == [("first", "1"), ("raw-bin", b"\x01")]
            await call.receive()
            assert await call.receive() is None
    seen, remaining = servicer.seen[0]
    assert [(entry.key, entry.value) for entry in seen[:-1]] == metadata
    assert seen[-1].key == "user-agent"
    assert 0 < remaining <= 60


async def test_compression_is_honoured(registrar: Any, echo: Any, open_pair: Any) -> None:
    """A servicer that asks for gzip gets it on the wire."""
    note = echo[0].Note
    async with open_pair(registrar) as (channel, server):
        answer = await channel.unary(SERVICE + "One", note(text="gzip", data=bytes(MIB)), note)
        assert len(answer.data) == MIB
    assert server.calls == {}


async def test_broken_request(registrar: Any, open_pair: Any) -> None:
    """A request that the servicer's decoder refuses is INTERNAL, whatever the shape of the method."""
    async with open_pair(registrar) as (channel, _):
        for name in ("One", "Down", "Up", "Both"):
            with pytest.raises(RpcError, match="cannot be decoded") as caught:
                async with channel.open_call(SERVICE + name) as call:
                    await call.end(b"\xff\xff\xff")
                    while await call.receive() is not None:
                        pass
            assert caught.value.code is StatusCode.INTERNAL


async def test_cancelled_by_the_peer(registrar: Any, servicer: Any, echo: Any, open_pair: Any) -> None:
    """A cancelled call becomes inactive, runs its callbacks and lets its function end, before the call is forgotten."""
    note = echo[0].Note
    async with open_pair(registrar) as (channel, server):
        async with channel.open_call(SERVICE + "One") as call:
            await call.end(note(text="wait").SerializeToString())
            while not servicer.active:
                await trio.sleep(0.001)
        with trio.fail_after(5):
            while server.calls:
                await trio.sleep(0.001)
        assert servicer.stopped.is_set()
        assert servicer.active in ([True, False, False], [True, True])


async def test_blocked_request_iterator_raises(echo: Any, open_pair: Any) -> None:
    """A thread that waits for the next request learns by grpc.RpcError that there will be none."""
    servicer = plain_servicer(echo)
    registrar = Registrar()
    GrpcioServicer(servicer, echo[1].add_EchoServicer_to_server).register(registrar)
    note = echo[0].Note
    async with open_pair(registrar) as (channel, _):
        async with channel.open_call(SERVICE + "Up") as call:
            await call.send(note(text="a").SerializeToString())
            await trio.to_thread.run_sync(servicer.begun.wait, 5)
        with trio.fail_after(5):
            await trio.to_thread.run_sync(servicer.stopped.wait, 5)
    assert servicer.seen == [("CallOver", False)]


async def test_deadline(registrar: Any, servicer: Any, echo: Any, open_pair: Any, ended: Any) -> None:
    """A function that outlasts the deadline is stopped by it; the session hears DEADLINE_EXCEEDED."""
    note = echo[0].Note
    async with open_pair(registrar) as (channel, _):
        async with channel.open_call(SERVICE + "One", metadata=[], timeout=None) as call:
            del call
        call_id = channel.core.start_call(SERVICE + "One", timeout=0.05)
        channel.core.send_messages(call_id, [note(text="wait").SerializeToString()])
        channel.core.end_request(call_id)
        channel.writer.wake()
        with trio.fail_after(5):
            while not any(how[1] is StatusCode.DEADLINE_EXCEEDED for how in ended):
                await trio.sleep(0.001)
    assert servicer.stopped.is_set()


async def test_thread_that_does_not_come_back(
    echo: Any, open_pair: Any, monkeypatch: pytest.MonkeyPatch, ended: Any
) -> None:
    """A thread that ignores the end of its call is left behind; the session ends all the same."""
    monkeypatch.setattr(limits, "SERVICER_PATIENCE", 0.01)
    servicer = plain_servicer(echo)
    stubborn, entered = threading.Event(), threading.Event()

    def hang(request: Any, context: Any) -> Any:
        entered.set()
        stubborn.wait(30)
        context.send_initial_metadata(())

    servicer.One = hang
    registrar = Registrar()
    GrpcioServicer(servicer, echo[1].add_EchoServicer_to_server).register(registrar)
    with trio.fail_after(5):
        async with open_pair(registrar) as (channel, _), channel.open_call(SERVICE + "One") as call:
            await call.end(b"")
            await trio.to_thread.run_sync(entered.wait, 5)
    stubborn.set()
    assert [how[1] for how in ended] == [StatusCode.CANCELLED]


async def test_more_calls_than_threads_wait(echo: Any, open_pair: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Plain functions run in as many threads as `SERVICER_THREADS`; a call that finds none free is served later."""
    monkeypatch.setattr(limits, "SERVICER_THREADS", 2)
    servicer, note = plain_servicer(echo), echo[0].Note
    entered, go_on = threading.Semaphore(0), threading.Event()
    running: list[int] = []
    most: list[int] = []

    def hold(request: Any, context: Any) -> Any:
        running.append(1)
        most.append(len(running))
        entered.release()
        go_on.wait(10)
        running.pop()
        return request

    servicer.One = hold
    registrar = Registrar()
    GrpcioServicer(servicer, echo[1].add_EchoServicer_to_server).register(registrar)
    answers: list[str] = []

    async def ask(number: int) -> None:
        answers.append((await channel.unary(SERVICE + "One", note(text=str(number)), note)).text)

    with trio.fail_after(10):
        async with open_pair(registrar) as (channel, server), trio.open_nursery() as nursery:
            try:
                for number in range(3):
                    nursery.start_soon(ask, number)
                for _ in range(2):
                    await trio.to_thread.run_sync(entered.acquire)
                while len(server.calls) < 3:
                    await trio.sleep(0.001)
                await trio.testing.wait_all_tasks_blocked()
                assert not entered.acquire(timeout=0.05)
            finally:
                go_on.set()
    assert sorted(answers) == ["0", "1", "2"]
    assert max(most) == 2


async def test_backpressure_on_a_generator(registrar: Any, servicer: Any, echo: Any, open_pair: Any) -> None:
    """A generator is not asked for more than the bounds while nobody reads, and is closed when its call ends."""
    note = echo[0].Note
    async with open_pair(registrar) as (channel, server):
        async with channel.open_call(SERVICE + "Down") as call:
            await call.end(note(count=1000, data=bytes(256 * 1024)).SerializeToString())
            sent = -1
            while sent != (sent := sum(one.bytes_sent for one in server.calls.values())) or not sent:
                await trio.sleep(0.05)
            assert sent <= limits.SEND_QUEUE + limits.STREAM_WINDOW + 2 * MIB
            assert servicer.seen == []
        with trio.fail_after(5):
            while not servicer.seen:
                await trio.sleep(0.001)
    assert servicer.seen == ["closed"]


async def test_reader_thread_beside_a_generator(echo: Any, open_pair: Any) -> None:
    """A servicer may read its requests in a thread of its own while the generator answers."""
    messages, service = echo
    note = messages.Note
    base: Any = service.EchoServicer

    class Echo(base):  # type: ignore[misc]  # its base is generated at run time
        def Both(self, requests: Any, context: Any) -> Any:
            got: list[Any] = []
            reader = threading.Thread(target=lambda: got.extend(requests))
            reader.start()
            yield note(text="go on")
            reader.join()
            yield note(count=len(got))

    registrar = Registrar()
    GrpcioServicer(Echo(), service.add_EchoServicer_to_server).register(registrar)
    async with open_pair(registrar) as (channel, _), channel.open_call(SERVICE + "Both") as call:
        await call.send(b"")
        assert note.FromString(await call.receive()).text == "go on"
        await call.send(b"")
        await call.end()
        assert note.FromString(await call.receive()).count == 2
        assert await call.receive() is None


@pytest.mark.parametrize("style", sorted(STYLES))
async def test_rest_of_the_context(echo: Any, open_pair: Any, style: str, caplog: Any) -> None:
    """The smaller questions are answered, a failing callback harms nobody, and broken metadata raises at once."""
    messages, service = echo
    note = messages.Note
    said: list[Any] = []
    base: Any = service.EchoServicer

    def use(context: Any) -> None:
        said.append((context.peer(), context.peer_identities(), context.peer_identity_key()))
        said.append((context.code(), context.details(), context.time_remaining(), context.trailing_metadata()))
        context.set_details(b"bytes")
        context.set_code("nonsense")
        said.append((context.code(), context.details()))
        context.set_code(grpc.StatusCode.OK)
        context.set_details("")
        context.set_trailing_metadata((("a", b"text"), ("b-bin", "text")))
        said.append(context.trailing_metadata())
        with pytest.raises(LocalProtocolError):
            context.set_trailing_metadata((("Bad", "x"),))
        context.set_compression(grpc.Compression.Deflate)
        context.disable_next_message_compression()
        assert context.add_callback(lambda: 1 / 0)
        assert context.is_active()

    class Plain(base):  # type: ignore[misc]  # its base is generated at run time
        def One(self, request: Any, context: Any) -> Any:
            use(context)
            return note(text="done")

        def Down(self, request: Any, context: Any) -> Any:
            context.abort(grpc.StatusCode.OK, "no success")

    class Async(base):  # type: ignore[misc]  # its base is generated at run time
        async def One(self, request: Any, context: Any) -> Any:
            use(context)
            assert not context.done()
            return note(text="done")

        async def Down(self, request: Any, context: Any) -> Any:
            await context.abort(grpc.StatusCode.OK, "no success")

    registrar = Registrar()
    GrpcioServicer(Plain() if style == "plain" else Async(), service.add_EchoServicer_to_server).register(registrar)
    async with open_pair(registrar) as (channel, _):
        assert (await channel.unary(SERVICE + "One", note(), note)).text == "done"
        with pytest.raises(RpcError) as caught:
            async with channel.open_call(SERVICE + "Down") as call:
                await call.end(b"")
                await call.receive()
    assert (caught.value.code, caught.value.message) == (StatusCode.UNKNOWN, "")
    assert said == [
        ("unix:", None, None),
        (None, None, None, None) if style == "plain" else (None, "", None, ()),
        (grpc.StatusCode.UNKNOWN, b"bytes" if style == "plain" else "bytes"),
        (("a", "text"), ("b-bin", b"text")),
    ]
    assert "a callback at the end of " in caplog.text


def test_registration_of_older_code(servicer: Any, echo: Any) -> None:
    """Code generated before grpcio 1.65 only adds generic handlers; its methods are found all the same."""

    def add(target: Any, server: Any) -> None:
        class Older:
            add_generic_rpc_handlers = server.add_generic_rpc_handlers

            def add_registered_method_handlers(self, name: str, handlers: Any) -> None:
                pass

        echo[1].add_EchoServicer_to_server(target, Older())

    registrar = Registrar()
    GrpcioServicer(servicer, add).register(registrar)
    assert sorted(registrar.methods) == [SERVICE + name for name in ("Both", "Down", "One", "Up")]


def test_registration_without_methods(servicer: Any) -> None:
    """Handlers that cannot be named, or none at all, are refused: a session has to advertise methods."""

    class Anonymous(grpc.GenericRpcHandler):
        def service(self, handler_call_details: Any) -> None:
            return None

    with pytest.raises(UsageError, match="brings no gRPC methods"):
        GrpcioServicer(servicer, lambda target, server: None).register(Registrar())
    with pytest.raises(UsageError, match="does not name its service"):
        GrpcioServicer(servicer, lambda target, server: server.add_generic_rpc_handlers((Anonymous(),))).register(
            Registrar()
        )


# -- grpcio's client ---------------------------------------------------------------------------------------------------


async def test_all_cardinalities_with_grpcio(registrar: Any, echo: Any, tmp_path: Path) -> None:
    """Each shape of method answers grpcio's client, with metadata and messages of 8 MiB both ways."""
    messages, service = echo
    note = messages.Note
    big = bytes(range(256)) * (8 * MIB // 256)

    def ask(channel: Any) -> None:
        stub = service.EchoStub(channel)
        answer, call = stub.One.with_call(
            note(text="initial", data=big), metadata=(("color", "red"), ("raw-bin", b"\x00\x80")), timeout=20
        )
        assert answer == note(text="initial", data=big)
        assert ("first", "1") in [(entry.key, entry.value) for entry in call.initial_metadata()]
        assert ("raw-bin", b"\x01") in [(entry.key, entry.value) for entry in call.initial_metadata()]
        stream = stub.Down(note(count=5))
        assert [answer.count for answer in stream] == [0, 1, 2, 3, 4]
        assert ("total", "5") in [(entry.key, entry.value) for entry in stream.trailing_metadata()]
        assert stub.Up(iter([note(data=big), note(data=b"1")])) == note(count=2, text=str(len(big) + 1))
        assert [answer.text for answer in stub.Both(iter([note(text="a"), note(text="b", data=big)]))] == ["a", "b"]
        assert stub.One(note(text="gzip", data=big)).data == big

    async with grpcio_client(tmp_path, registrar) as client:
        await client(ask)


async def test_ways_to_end_with_grpcio(registrar: Any, servicer: Any, echo: Any, tmp_path: Path) -> None:
    """Status, details, deadline, cancellation, an unknown method and an early answer look to grpcio as its own do."""
    messages, service = echo
    note = messages.Note

    def fails(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        with pytest.raises(grpc.RpcError) as caught:
            function(*args, **kwargs)
        return caught.value

    def ask(channel: Any) -> None:
        stub = service.EchoStub(channel)
        error = fails(stub.One, note(text="abort"))
        assert (error.code(), error.details()) == (grpc.StatusCode.NOT_FOUND, "no such thing: ä")
        assert ("raw-bin", b"\x00\xff") in [(entry.key, entry.value) for entry in error.trailing_metadata()]
        error = fails(stub.One, note(text="status"))
        assert error.code() is grpc.StatusCode.FAILED_PRECONDITION
        assert dict(error.trailing_metadata())["grpc-status-details-bin"] == b"\x08\x09\x12\x04rich"
        error = fails(stub.One, note(text="raise"))
        assert "hunter2" not in error.details()
        error = fails(channel.unary_unary(SERVICE + "Missing"), b"")
        assert error.code() is grpc.StatusCode.UNIMPLEMENTED
        assert fails(stub.One, note(text="wait"), timeout=0.05).code() is grpc.StatusCode.DEADLINE_EXCEEDED
        servicer.stopped.wait(5)
        stream = stub.Down(note(count=1_000_000, data=bytes(1024)))
        next(stream)
        stream.cancel()
        assert fails(list, stream).code() is grpc.StatusCode.CANCELLED
        release = threading.Event()

        def requests() -> Any:
            yield note(text="enough")
            release.wait(10)

        assert stub.Up(requests()).text == "early"
        release.set()
        assert stub.One(note(text="alive")).text == "alive"

    async with grpcio_client(tmp_path, registrar) as client:
        await client(ask)
