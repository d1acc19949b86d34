"""Server reflection, asked by grpcio's client and by grpcio-reflection's client library."""

# ruff: noqa: PT012 - a call fails where its block ends

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc
import pytest
import trio
import trio.testing
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from mobysession._pb import reflection_pb2 as pb
from mobysession.errors import RpcError, StatusCode
from mobysession.rpc.client import open_channel
from mobysession.rpc.listener import serve_listener
from mobysession.rpc.registrar import Registrar
from mobysession.rpc.server import open_server
from mobysession.services.health import Health
from mobysession.services.reflection import Reflection
from mobysession.services.secrets import Secrets

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

V1 = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"
HEALTH, SECRETS = "grpc.health.v1.Health", "moby.buildkit.secrets.v1.Secrets"
OWN = ["grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection"]


def made_pool() -> Any:
    """Return a pool with a service whose request imports another file and is extended by a third."""
    pool = descriptor_pool.DescriptorPool()
    label, text = descriptor_pb2.FieldDescriptorProto.LABEL_OPTIONAL, descriptor_pb2.FieldDescriptorProto.TYPE_STRING
    base = descriptor_pb2.FileDescriptorProto(name="base.proto", package="made", syntax="proto2")
    base.message_type.add(name="Base").extension_range.add(start=100, end=200)
    pool.Add(base)
    made = descriptor_pb2.FileDescriptorProto(
        name="made.proto", package="made", syntax="proto2", dependency=["base.proto"]
    )
    ask = made.message_type.add(name="Ask")
    ask.field.add(
        name="base",
        number=1,
        label=label,
        type=descriptor_pb2.FieldDescriptorProto.TYPE_MESSAGE,
        type_name=".made.Base",
    )
    made.service.add(name="Maker").method.add(name="Make", input_type=".made.Ask", output_type=".made.Base")
    pool.Add(made)
    more = descriptor_pb2.FileDescriptorProto(
        name="more.proto", package="made", syntax="proto2", dependency=["base.proto"]
    )
    for name, number in (("second", 101), ("first", 100)):
        more.extension.add(name=name, number=number, label=label, type=text, extendee=".made.Base")
    pool.Add(more)
    return pool


async def unused(call: Any) -> None:
    """Serve nothing."""


@pytest.fixture
def registrar() -> Registrar:
    """Give a registrar with services of several kinds and reflection, which was added before some of them."""
    registrar = Registrar()
    Health().register(registrar)
    Reflection().register(registrar)
    Secrets({"token": b"value"}).register(registrar)
    pool = made_pool()
    ask = message_factory.GetMessageClass(pool.FindMessageTypeByName("made.Ask"))
    registrar.stream("/made.Maker/Make", unused, request=ask)
    registrar.stream("/raw.Bytes/Copy", unused)
    return registrar


async def conversation(registrar: Registrar, *requests: dict[str, Any]) -> list[Any]:
    """Ask in one stream; return the responses."""
    ours, theirs = trio.testing.memory_stream_pair()
    async with open_server(ours, registrar), open_channel(theirs) as channel, channel.open_call(V1) as call:
        responses = []
        for request in requests:
            await call.send(pb.ServerReflectionRequest(host="here", **request).SerializeToString())
            responses.append(pb.ServerReflectionResponse.FromString(await call.receive() or b""))
        await call.end()
        assert await call.receive() is None
    assert [response.original_request for response in responses] == [
        pb.ServerReflectionRequest(host="here", **request) for request in requests
    ]
    assert {response.valid_host for response in responses} == {"here"}
    return responses


def files(response: Any) -> list[str]:
    """Return the names of the files in a response."""
    return [
        descriptor_pb2.FileDescriptorProto.FromString(one).name
        for one in response.file_descriptor_response.file_descriptor_proto
    ]


async def test_list_services(registrar: Registrar) -> None:
    """Every hosted service is listed once, also those that cannot be described and those added later."""
    (response,) = await conversation(registrar, {"list_services": "*"})
    names = [service.name for service in response.list_services_response.service]
    assert names == sorted([HEALTH, SECRETS, "made.Maker", "raw.Bytes", *OWN])


@pytest.mark.parametrize(
    "question",
    [
        {"file_by_filename": "made.proto"},
        {"file_containing_symbol": "made.Maker"},
        {"file_containing_symbol": "made.Maker.Make"},
        {"file_containing_symbol": "made.Ask"},
        {"file_containing_symbol": "made.Ask.base"},
    ],
)
async def test_files(registrar: Registrar, question: dict[str, Any]) -> None:
    """A file comes with its imports; what was sent on a stream is not sent again, but for what is asked for by name."""
    first, again = await conversation(registrar, question, question)
    assert files(first) == ["made.proto", "base.proto"]
    assert files(again) == ["made.proto"]


async def test_extensions(registrar: Registrar) -> None:
    """Extensions are found by type and number, and listed by type."""
    extension = pb.ExtensionRequest(containing_type="made.Base", extension_number=101)
    found, numbers, symbol = await conversation(
        registrar,
        {"file_containing_extension": extension},
        {"all_extension_numbers_of_type": "made.Base"},
        {"file_containing_symbol": "made.first"},
    )
    assert files(found) == ["more.proto", "base.proto"]
    assert numbers.all_extension_numbers_response.base_type_name == "made.Base"
    assert list(numbers.all_extension_numbers_response.extension_number) == [100, 101]
    assert files(symbol) == ["more.proto"]


@pytest.mark.parametrize(
    ("question", "code", "text"),
    [
        ({"file_by_filename": "none.proto"}, StatusCode.NOT_FOUND, "file 'none.proto'"),
        ({"file_containing_symbol": "raw.Bytes"}, StatusCode.NOT_FOUND, "symbol 'raw.Bytes'"),
        ({"file_containing_symbol": "made.Maker.None"}, StatusCode.NOT_FOUND, "symbol 'made.Maker.None'"),
        ({"file_containing_symbol": ""}, StatusCode.NOT_FOUND, "symbol ''"),
        (
            {"file_containing_extension": pb.ExtensionRequest(containing_type="made.Base", extension_number=150)},
            StatusCode.NOT_FOUND,
            "extension 150 of 'made.Base'",
        ),
        (
            {"file_containing_extension": pb.ExtensionRequest(containing_type="None", extension_number=1)},
            StatusCode.NOT_FOUND,
            "extension 1 of 'None'",
        ),
        ({"all_extension_numbers_of_type": "None"}, StatusCode.NOT_FOUND, "type 'None'"),
        ({}, StatusCode.INVALID_ARGUMENT, "asks for nothing"),
    ],
)
async def test_errors(registrar: Registrar, question: dict[str, Any], code: StatusCode, text: str) -> None:
    """What is not there is an error within the stream, which goes on."""
    failed, then = await conversation(registrar, question, {"file_by_filename": "base.proto"})
    assert failed.error_response.error_code == code
    assert text in failed.error_response.error_message
    assert files(then) == ["base.proto"]


async def test_a_pool_besides(registrar: Registrar) -> None:
    """A service of raw messages is described where its pool is given."""
    alone = Registrar()
    alone.stream("/made.Maker/Make", unused)
    Reflection(made_pool()).register(alone)
    (response,) = await conversation(alone, {"file_containing_symbol": "made.Maker"})
    assert files(response) == ["made.proto", "base.proto"]


async def test_broken_request(registrar: Registrar) -> None:
    """A request that is none ends the stream with INTERNAL."""
    ours, theirs = trio.testing.memory_stream_pair()
    async with open_server(ours, registrar), open_channel(theirs) as channel:
        with pytest.raises(RpcError) as caught:
            async with channel.open_call(V1) as call:
                await call.end(b"\xff\xff")
                await call.receive()
    assert caught.value.code is StatusCode.INTERNAL


async def _with_grpcio(registrar: Registrar, path: Path, ask: Callable[[grpc.Channel], None]) -> None:
    async with trio.open_nursery() as nursery:
        await nursery.start(serve_listener, f"unix://{path}", registrar)
        with grpc.insecure_channel(f"unix:{path}") as channel:
            await trio.to_thread.run_sync(ask, channel)
        nursery.cancel_scope.cancel()


async def test_library_of_grpcio_reflection(registrar: Registrar, tmp_path: Path) -> None:
    """grpcio-reflection's client finds services, methods and types over v1alpha, and builds messages of them."""

    def ask(channel: grpc.Channel) -> None:
        database = ProtoReflectionDescriptorDatabase(channel)
        assert set(database.get_services()) == {HEALTH, SECRETS, "made.Maker", "raw.Bytes", *OWN}
        pool = descriptor_pool.DescriptorPool(database)
        check = pool.FindServiceByName(HEALTH).methods_by_name["Check"]
        request = message_factory.GetMessageClass(check.input_type)
        response = message_factory.GetMessageClass(check.output_type)
        method: Any = channel.unary_unary(f"/{HEALTH}/Check", request.SerializeToString, response.FromString)
        assert method(request(service="")).status == 1
        assert pool.FindServiceByName("made.Maker").methods_by_name["Make"].input_type.full_name == "made.Ask"
        for version in OWN:
            assert list(pool.FindServiceByName(version).methods_by_name) == ["ServerReflectionInfo"]
        with pytest.raises(KeyError):
            pool.FindMessageTypeByName("made.None")

    await _with_grpcio(registrar, tmp_path / "s", ask)


async def test_v1_with_grpcio(registrar: Registrar, tmp_path: Path) -> None:
    """grpcio's client is answered over v1, one response for each request."""

    def ask(channel: grpc.Channel) -> None:
        method = channel.stream_stream(
            V1, pb.ServerReflectionRequest.SerializeToString, pb.ServerReflectionResponse.FromString
        )
        requests = [
            pb.ServerReflectionRequest(file_containing_symbol=HEALTH),
            pb.ServerReflectionRequest(file_by_filename="none"),
        ]
        described, missing = method(iter(requests))
        assert files(described) == ["mobysession/_pb/health.proto"]
        assert missing.error_response.error_code == grpc.StatusCode.NOT_FOUND.value[0]

    await _with_grpcio(registrar, tmp_path / "s", ask)
