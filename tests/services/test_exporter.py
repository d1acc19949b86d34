"""The Exporter service, called as a daemon calls it once a build has its result."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import pytest

from mobysession._pb import control_pb2, exporter_pb2
from mobysession.errors import RpcError, StatusCode, UsageError
from mobysession.services.bytes_message import encode_bytes_message
from mobysession.services.exporter import (
    FINALIZE_EXPORT,
    FIND_EXPORTERS,
    BuiltResult,
    Exporter,
    FoundExporter,
)
from mobysession.services.filesend import FILE_SEND, FileSend, FileTarget

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractAsyncContextManager

    from mobysession.rpc.client import Channel
    from mobysession.rpc.registrar import Registrar
    from tests.services.conftest import Ended

    OpenService = Callable[..., AbstractAsyncContextManager[Channel]]

ASKED = exporter_pb2.FindExportersRequest(metadata={"containerimage.config": b'{"os": "linux"}'}, refs=["r1", "r2"])


class Both:
    """Two services as one."""

    def __init__(self, *services: Any) -> None:
        self._services = services

    def register(self, registrar: Registrar) -> None:
        for service in self._services:
            service.register(registrar)


async def find(channel: Channel) -> exporter_pb2.FindExportersResponse:
    return await channel.unary(FIND_EXPORTERS, ASKED, exporter_pb2.FindExportersResponse)


@pytest.mark.parametrize("kind", ["plain", "coroutine"])
async def test_a_function_names_exporters(open_service: OpenService, kind: str) -> None:
    """It sees the result, and what it returns is what the daemon is told."""
    seen: list[BuiltResult] = []

    def plain(result: BuiltResult) -> list[FoundExporter]:
        seen.append(result)
        return [FoundExporter("image", {"name": "a:1"}), FoundExporter("moby")]

    async def coroutine(result: BuiltResult) -> list[FoundExporter]:
        return plain(result)

    async with open_service(Exporter(plain if kind == "plain" else coroutine)) as channel:
        answer = await find(channel)
    assert [(one.Type, dict(one.Attrs)) for one in answer.exporters] == [("image", {"name": "a:1"}), ("moby", {})]
    assert seen == [BuiltResult({"containerimage.config": b'{"os": "linux"}'}, ("r1", "r2"))]
    assert seen[0].image_config == {"os": "linux"}


@pytest.mark.parametrize("config", [b"", b"{", b"[]", b"[" * 100_000])
def test_a_configuration_that_is_none(config: bytes) -> None:
    """What is no JSON object is None, not an error."""
    assert BuiltResult({"containerimage.config": config}, ()).image_config is None
    assert BuiltResult({}, ()).image_config is None


async def test_what_they_send_is_received(open_service: OpenService) -> None:
    """Under the numbers that follow those of the request; an exporter without a target counts as well."""
    outputs, held = FileSend({}), io.BytesIO()
    exporter = Exporter(
        lambda: [FoundExporter("image"), FoundExporter("tar", target=FileTarget(held))], outputs=outputs, first=3
    )
    async with open_service(Both(exporter, outputs)) as channel:
        await find(channel)
        async with channel.open_call(FILE_SEND, metadata=[("buildkit-attachable-exporter-id", "4")]) as call:
            await call.end(encode_bytes_message(b"a tar"))
            assert await call.receive() is None
        with pytest.raises(RpcError, match="exporter 3 not found"):
            await channel.unary(
                FILE_SEND,
                control_pb2.BytesMessage(),
                control_pb2.BytesMessage,
                metadata=[("buildkit-attachable-exporter-id", "3")],
            )
    assert held.getvalue() == b"a tar"
    assert outputs.missing == []


async def test_none_are_none(open_service: OpenService) -> None:
    """None and an empty list both name nothing."""
    answers: list[Any] = [None, [], ()]
    for nothing in answers:
        async with open_service(Exporter(lambda given=nothing: given)) as channel:
            assert not (await find(channel)).exporters


@pytest.mark.parametrize(
    ("returned", "words"),
    [
        (["tar"], "returns a list of FoundExporter"),
        (FoundExporter("tar"), "returns a list of FoundExporter"),
        ([FoundExporter("tar", {"a": 1})], "attrs of an exporter"),  # type: ignore[dict-item]  # that is the point
        ([FoundExporter("tar", target=FileTarget(io.BytesIO()))], "nothing takes outputs"),
        ([FoundExporter("tar", target="x")], "nothing takes outputs"),  # type: ignore[arg-type]  # likewise
    ],
)
async def test_what_is_no_answer_fails_the_build(
    open_service: OpenService, ended: Ended, returned: object, words: str
) -> None:
    """The daemon is told so, and we have the error."""
    async with open_service(Exporter(lambda: returned)) as channel:  # type: ignore[arg-type,return-value]  # likewise
        with pytest.raises(RpcError, match=words) as caught:
            await find(channel)
    assert caught.value.code is StatusCode.UNKNOWN
    assert isinstance(ended[0][2], UsageError)


async def test_a_function_that_fails_fails_the_build(open_service: OpenService, ended: Ended) -> None:
    """Not with UNAVAILABLE or UNIMPLEMENTED, which the daemon would take for no answer; its words stay here."""

    def broken(result: BuiltResult) -> list[FoundExporter]:
        raise OSError("password=hunter2")

    async with open_service(Exporter(broken)) as channel:
        with pytest.raises(RpcError, match=r"the exporter function failed with OSError$") as caught:
            await find(channel)
    assert caught.value.code is StatusCode.UNKNOWN
    assert "hunter2" in str(ended[0][2])


async def test_the_end_is_told_where_it_is_wanted(open_service: OpenService) -> None:
    """With what the exporters answered; without a function the method is not hosted, which daemons tolerate."""
    told: list[dict[str, str]] = []
    request = exporter_pb2.FinalizeExportRequest(exporter_response={"image.name": "a"})
    async with open_service(Exporter(list, finalize=told.append)) as channel:
        await channel.unary(FINALIZE_EXPORT, request, exporter_pb2.FinalizeExportResponse)
    async with open_service(Exporter(list)) as channel:
        with pytest.raises(RpcError) as caught:
            await channel.unary(FINALIZE_EXPORT, request, exporter_pb2.FinalizeExportResponse)
    assert caught.value.code is StatusCode.UNIMPLEMENTED
    assert told == [{"image.name": "a"}]


def test_a_function_takes_one_argument() -> None:
    """The caller hears of another one, not the daemon."""
    with pytest.raises(UsageError, match="takes one argument, or none"):
        Exporter(lambda one, two: [])
    with pytest.raises(UsageError, match="takes one argument, or none"):
        Exporter(list, finalize=lambda one, two: None)
