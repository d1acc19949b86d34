"""The second way of asking: ``POST /build?version=2`` of the Engine API, for engines behind something that refuses
``/grpc``.

The engine answers with JSON objects, one after the other: BuildKit's status messages as base64 protobuf under the ID
``moby.buildkit.trace``, the image's ID, and at most one error, which is text only. A base64 line may be megabytes long.
"""

from __future__ import annotations

import base64
import json
import math
from types import MappingProxyType
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from google.protobuf.message import DecodeError

from mobysession._pb import control_pb2
from mobysession.build.request import UPLOADED, build_query
from mobysession.errors import BuildFailed, HandshakeError, UnsupportedByEngine
from mobysession.identity import new_id
from mobysession.limits import MAX_TRACE_LINE
from mobysession.transport.api import EngineApi

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from mobysession.build.options import BuildOptions
    from mobysession.build.progress import BuildProgress
    from mobysession.transport.endpoint import Endpoint

__all__ = ["build_classic"]

_IMAGE_ID = "containerimage.digest"
#: Options that ``POST /build`` has no parameter for. What git knows of a context is left out, as nothing depends on it.
_ONLY_CONTROL = ("annotations", "attests", "provenance", "sbom", "allow", "cgroup_parent", "call", "source_policy")


async def build_classic(
    endpoint: Endpoint,
    options: BuildOptions,
    *,
    session_id: str,
    dockerfile: str,
    progress: BuildProgress,
    given_attrs: Mapping[str, str] = MappingProxyType({}),
    headers: Sequence[tuple[str, str]] = (),
) -> Mapping[str, str]:
    """Run the build and return a response with the keys that the other driver's has, as far as the engine tells.

    ``given_attrs`` are those of ``options.frontend_attrs`` that somebody gave; the others were found, and what the
    build depends on of these can be asked for. ``headers`` are lines besides those of the request itself.

    Raises:
        ClassicBuildError: the engine said that the build failed, in text.
        ApiError: it refused the request.
        HandshakeError: its answer is not what an engine answers, or ends without an image.
        ConnectionLost: the connection broke.
        UnsupportedByEngine: the options ask for what this endpoint cannot be asked.

    Cancel: the connection is closed, which cancels the build.
    """
    if given_attrs:
        raise UnsupportedByEngine("POST /build has no frontend_attrs", hint="Use an engine with /grpc.")
    _refuse_unaskable(options)
    query = build_query(options, build_id=new_id(), session_id=session_id, dockerfile=dockerfile)
    response: dict[str, str] = {}
    request = EngineApi(endpoint).request(
        "POST",
        "/build?" + urlencode(query),
        headers=[("Content-Type", "application/x-tar"), *headers],
        patience=math.inf,
    )
    try:
        async with request as answer:
            if answer.status >= 300:
                raise await answer.error("POST /build")
            async for line in answer.lines(MAX_TRACE_LINE):
                if line.strip():
                    _take(_parse(line), response, progress)
    finally:
        progress.finish()
    if not response.get(_IMAGE_ID) and not options.outputs:
        raise HandshakeError(
            "the engine ended its answer to POST /build without an image and without an error",
            hint="Its log says more. A proxy in between must pass the whole answer through.",
        )
    return response


class ClassicBuildError(BuildFailed):
    """What the engine's error object says, before the status of the build is consulted."""


def _refuse_unaskable(options: BuildOptions) -> None:
    if options.no_cache_filter:
        raise UnsupportedByEngine(
            "POST /build cannot leave out the cache of single stages", hint="Use no_cache, or an engine with /grpc."
        )
    if len(options.platforms) > 1:
        raise UnsupportedByEngine("POST /build makes images of one platform only", hint="Build one platform at a time.")
    if options.build_contexts:
        raise UnsupportedByEngine("POST /build has no named contexts", hint="Use an engine with /grpc.")
    if "dockerfilekey" in options.frontend_attrs and "context" in options.frontend_attrs:
        raise UnsupportedByEngine(
            "POST /build cannot take a Dockerfile from here for a context that is elsewhere",
            hint="Use an engine with /grpc.",
        )
    for name in _ONLY_CONTROL:
        if getattr(options, name):
            raise UnsupportedByEngine(f"POST /build has no {name}", hint="Use an engine with /grpc.")
    if options.outputs:
        _refuse_outputs(options)
    if options.services:
        from mobysession.build.callbacks import refuse_callbacks

        refuse_callbacks(options)
    if isinstance(options.context, str) and options.context.startswith(UPLOADED):
        raise UnsupportedByEngine(
            "POST /build cannot take a context from stdin", hint="Unpack it, or use an engine with /grpc."
        )


def _refuse_outputs(options: BuildOptions) -> None:
    if len(options.outputs) > 1:
        raise UnsupportedByEngine("POST /build has one output only", hint="Build once for each output.")
    if any(output.is_layout for output in options.exports()):
        raise UnsupportedByEngine(
            "POST /build does not tell which image an output with tar=false has",
            hint="Leave tar=false out and unpack the tar, or use an engine with /grpc.",
        )
    if any(output.annotations for output in options.exports()):
        raise UnsupportedByEngine("POST /build has no annotations", hint="Use an engine with /grpc.")
    if any(output.type == "cacheonly" for output in options.exports()):
        # Docker 20.10 takes it, and later ones look for an exporter without a name.
        raise UnsupportedByEngine(
            "POST /build cannot leave a result in the cache only",
            hint="Leave the output out, or use an engine with /grpc.",
        )


def _take(item: dict[str, Any], response: dict[str, str], progress: BuildProgress) -> None:
    if "error" in item or "errorDetail" in item:
        detail = item.get("errorDetail")
        words = detail.get("message") if isinstance(detail, dict) else None
        raise ClassicBuildError(str(words or item.get("error") or "the engine gave no reason"))
    kind, aux = item.get("id"), item.get("aux")
    if kind == "moby.buildkit.trace" and isinstance(aux, str):
        progress.apply(_decode(aux))
    elif kind == "moby.image.id" and isinstance(aux, dict):
        response[_IMAGE_ID] = str(aux.get("ID", ""))


def _decode(aux: str) -> control_pb2.StatusResponse:
    try:
        return control_pb2.StatusResponse.FromString(base64.b64decode(aux))
    except (DecodeError, ValueError) as error:  # ValueError: no base64
        raise HandshakeError("the engine's build progress cannot be decoded") from error


def _parse(line: bytes) -> dict[str, Any]:
    try:
        item = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise HandshakeError("the answer to POST /build is not the JSON stream of a Docker engine") from error
    return item if isinstance(item, dict) else {}
