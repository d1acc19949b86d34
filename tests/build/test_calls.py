"""Asking a frontend for something else than a build: what is asked, what is printed of it, who does not know it."""

from __future__ import annotations

import base64
import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

from mobysession._pb import control_pb2, gateway_pb2, rpcstatus_pb2
from mobysession.build.calls import Call, make_answer
from mobysession.build.control_driver import solve
from mobysession.build.options import BuildOptions
from mobysession.build.progress import BuildProgress
from mobysession.buildkit.control import Control
from mobysession.errors import RpcError, StatusCode, UnsupportedByEngine
from mobysession.rpc.client import open_channel
from mobysession.rpc.registrar import Registrar
from mobysession.rpc.server import open_server

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from mobysession.rpc.server import ServerCall

CONTROL = "/moby.buildkit.v1.Control/"
BRIDGE = "/moby.buildkit.v1.frontend.LLBBridge/"
DOCKERFILE = "FROM scratch\nMAINTAINER x\nENV a b\n"


def lint(*warnings: dict[str, Any], **more: Any) -> str:
    source = {"filename": "Dockerfile", "data": base64.b64encode(DOCKERFILE.encode()).decode()}
    return json.dumps({"warnings": list(warnings) or None, "sources": [source], **more})


def place(line: int) -> dict[str, Any]:
    return {"ranges": [{"start": {"line": line}, "end": {"line": line}}]}


class Frontend:
    """A BuildKit that waits for its client to play the frontend, and answers it with metadata or an error."""

    def __init__(self, answer: dict[str, str] | RpcError) -> None:
        self.outer: control_pb2.SolveRequest | None = None
        self.asked: gateway_pb2.SolveRequest | None = None
        self.returned: gateway_pb2.ReturnRequest | None = None
        self.refs: list[object] = []
        self._answer = answer
        self._ended = trio.Event()

    @asynccontextmanager
    async def control(self) -> AsyncIterator[Control]:
        registrar = Registrar()
        registrar.unary_unary(CONTROL + "Solve", self._outer_solve, control_pb2.SolveRequest)
        registrar.unary_stream(CONTROL + "Status", _no_status, control_pb2.StatusRequest)
        registrar.unary_unary(CONTROL + "ListWorkers", _no_workers, control_pb2.ListWorkersRequest)
        registrar.unary_unary(BRIDGE + "Solve", self._solve, gateway_pb2.SolveRequest)
        registrar.unary_unary(BRIDGE + "Return", self._return, gateway_pb2.ReturnRequest)
        ours, theirs = trio.testing.memory_stream_pair()
        async with open_server(theirs, registrar), open_channel(ours) as channel:
            yield Control(channel)

    async def _outer_solve(self, request: control_pb2.SolveRequest, call: ServerCall) -> control_pb2.SolveResponse:
        self.outer = request
        await self._ended.wait()
        if self.returned is not None and self.returned.HasField("error"):
            error = self.returned.error
            raise RpcError(StatusCode(error.code), error.message, details=error.SerializeToString())
        return control_pb2.SolveResponse(ExporterResponse={"of": "exporters"})

    async def _solve(self, request: gateway_pb2.SolveRequest, call: ServerCall) -> gateway_pb2.SolveResponse:
        self.asked = request
        self.refs += [value for key, value in call.metadata if key == "buildkit-controlapi-buildid"]
        if isinstance(self._answer, RpcError):
            raise self._answer
        metadata = {key: value.encode() for key, value in self._answer.items()}
        return gateway_pb2.SolveResponse(result=gateway_pb2.Result(metadata=metadata))

    async def _return(self, request: gateway_pb2.ReturnRequest, call: ServerCall) -> gateway_pb2.ReturnResponse:
        self.returned = request
        self._ended.set()
        return gateway_pb2.ReturnResponse()


async def _no_status(request: object, call: ServerCall) -> None:
    """End the status without a word."""


async def _no_workers(request: object, call: ServerCall) -> control_pb2.ListWorkersResponse:
    return control_pb2.ListWorkersResponse()


async def ask(frontend: Frontend, call: str, **options: Any) -> dict[str, str]:
    async with frontend.control() as control:
        _, response = await solve(
            control,
            BuildOptions(call=call, **options),
            session_id="session",
            dockerfile="Dockerfile",
            progress=BuildProgress(),
        )
    return dict(response)


async def test_the_answer_is_in_the_metadata_of_the_result() -> None:
    """The frontend is asked on the bridge, with a request ID; the outer solve is internal and exports nothing."""
    frontend = Frontend({"result.json": "{}", "result.txt": "text"})
    response = await ask(frontend, "outline", target="one")
    assert response == {"of": "exporters", "result.json": "{}", "result.txt": "text"}
    assert frontend.asked is not None
    assert frontend.outer is not None
    assert frontend.returned is not None
    assert frontend.asked.Frontend == "dockerfile.v0"
    assert dict(frontend.asked.FrontendOpt) == {
        "filename": "Dockerfile",
        "image-resolve-mode": "local",
        "target": "one",
        "requestid": "frontend.outline",
        "frontend.caps": "moby.buildkit.frontend.subrequests+forward",
    }
    assert (frontend.outer.Frontend, frontend.outer.Internal, list(frontend.outer.Exporters)) == ("", True, [])
    assert frontend.refs == [frontend.outer.Ref]
    assert frontend.returned.result.metadata["result.txt"] == b"text"


async def test_check_is_called_lint() -> None:
    """And the caps that other options need stay."""
    frontend = Frontend({})
    await ask(frontend, "check", frontend_attrs={"frontend.caps": "x"})
    assert frontend.asked is not None
    assert frontend.asked.FrontendOpt["requestid"] == "frontend.lint"
    assert frontend.asked.FrontendOpt["frontend.caps"] == "x,moby.buildkit.frontend.subrequests+forward"


@pytest.mark.parametrize(
    "details",
    [
        [("github.com/moby/buildkit/errdefs.Subrequest+json", {"name": "frontend.outline"})],
        [("github.com/moby/buildkit/errdefs.FrontendCap+json", {"name": "moby.buildkit.frontend.subrequests"})],
        [],
    ],
)
async def test_a_frontend_that_does_not_know_the_request(details: list[tuple[str, Any]]) -> None:
    """By its typed error, or by the words of one that has none, with the version that knows it."""
    status = rpcstatus_pb2.Status(code=2)
    for url, value in details:
        status.details.add(type_url=url, value=json.dumps(value).encode())
    message = "no" if details else "unsupported request frontend.outline"
    error = RpcError(StatusCode.UNKNOWN, message, details=status.SerializeToString() if details else b"")
    with pytest.raises(UnsupportedByEngine, match="Docker 24 and later") as caught:
        await ask(Frontend(error), "outline")
    assert "BUILDKIT_SYNTAX" in (caught.value.hint or "")


async def test_the_frontends_error_is_the_solves_error() -> None:
    """With its details, which went through the engine and back."""
    status = rpcstatus_pb2.Status(code=2, message="parse error")
    status.details.add(type_url="github.com/moby/buildkit/errdefs.Vertex+json", value=b'{"digest": "d"}')
    error = RpcError(StatusCode.UNKNOWN, "parse error", details=status.SerializeToString())
    with pytest.raises(RpcError, match="parse error") as caught:
        await ask(Frontend(error), "check")
    assert rpcstatus_pb2.Status.FromString(caught.value.details).details[0].value == b'{"digest": "d"}'


WARNINGS = (
    {"ruleName": "LegacyKeyValueFormat", "detail": "use ENV a=b", "location": place(3)},
    {"ruleName": "MaintainerDeprecated", "url": "https://x/", "detail": "use LABEL", "location": place(2)},
)
LINTED = """\
Check complete, 2 warnings have been found!

WARNING: MaintainerDeprecated - https://x/
use LABEL
sub/Dockerfile:2
--------------------
   1 |     FROM scratch
   2 | >>> MAINTAINER x
   3 |     ENV a b
   4 |     
--------------------

WARNING: LegacyKeyValueFormat
use ENV a=b
sub/Dockerfile:3
--------------------
   1 |     FROM scratch
   2 |     MAINTAINER x
   3 | >>> ENV a b
   4 |     
--------------------
"""  # noqa: W291  # so is it printed


@pytest.mark.parametrize(
    ("answer", "printed"),
    [
        (lint(*WARNINGS), LINTED),
        (lint(), "Check complete, no warnings found.\n"),
        (lint(buildError={"message": "broken"}), ""),
        (lint({"ruleName": "R", "detail": "d", "location": {"sourceIndex": 7}}), None),
        ("[]", "Check complete, no warnings found.\n"),
        ("{", "Check complete, no warnings found.\n"),
    ],
)
def test_a_check_is_printed_as_buildx_prints_it(answer: str, printed: str | None) -> None:
    """In the order of the lines, with the Dockerfile's name as it was given; an odd answer breaks nothing."""
    found = make_answer(Call("check"), {"result.json": answer})
    text = found.render(dockerfile="sub/Dockerfile")
    assert text == (printed if printed is not None else "Check complete, 1 warning has been found!\n\nWARNING: R\nd\n")


def test_an_error_of_a_check_has_its_place() -> None:
    """Behind the message, as of a build that failed."""
    error = {"message": "unknown instruction: X", "location": place(3)}
    found = make_answer(Call("check"), {"result.json": lint(buildError=error), "result.statuscode": "1"})
    assert (found.error, found.status) == ("unknown instruction: X", 1)
    assert found.render_error().startswith("unknown instruction: X\nDockerfile:3\n----")


def test_other_answers_are_printed_as_they_came() -> None:
    """As text or as JSON, and as values for programs."""
    found = make_answer(Call("targets"), {"result.json": '{"targets": []}', "result.txt": "TARGET\n"})
    assert found.render() == "TARGET\n"
    assert found.render("json") == '{"targets": []}\n'
    assert (found.data, found.status, found.error) == ({"targets": []}, 0, "")


def test_what_an_old_frontend_describes_is_put_into_words_here() -> None:
    """It has no text of its own; one that has is believed."""
    described = json.dumps([{"name": "frontend.subrequests.describe", "version": "1.0.0", "description": "List"}])
    call = Call.parse("subrequests.describe")
    assert call is not None
    answer = make_answer(call, {"result.json": described})
    assert answer.render() == "NAME                 VERSION DESCRIPTION\nsubrequests.describe 1.0.0   List\n"
    assert make_answer(call, {"result.json": described, "result.txt": "its own\n"}).render() == "its own\n"
