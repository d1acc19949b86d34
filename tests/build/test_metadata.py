"""What ``--metadata-file`` holds, and the provenance in it."""

from __future__ import annotations

import base64
import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

from mobysession._pb import content_pb2, control_pb2
from mobysession.build.metadata import metadata_of
from mobysession.build.options import BuildOptions
from mobysession.build.provenance import is_wanted, metadata_provenance, read_provenance
from mobysession.build.result import BuildResult
from mobysession.buildkit.control import Control
from mobysession.buildkit.source import Source
from mobysession.buildkit.vertex import VertexWarning
from mobysession.rpc.client import open_channel
from mobysession.rpc.registrar import Registrar
from mobysession.rpc.server import open_server

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from mobysession.rpc.server import ServerCall

SLSA02 = {
    "builder": {"id": ""},
    "buildType": "https://mobyproject.org/buildkit@v1",
    "materials": [{"uri": "pkg:docker/a@1", "digest": {"sha256": "1"}}],
    "invocation": {
        "configSource": {"entryPoint": "Dockerfile"},
        "parameters": {"frontend": "dockerfile.v0"},
        "environment": {"platform": "linux/amd64"},
    },
    "buildConfig": {"llbDefinition": []},
    "metadata": {
        "buildInvocationID": "i",
        "buildStartedOn": "s",
        "buildFinishedOn": "f",
        "completeness": {"parameters": True, "environment": True, "materials": False},
        "reproducible": False,
        "https://mobyproject.org/buildkit@v1#metadata": {"vcs": {"revision": "r"}},
    },
}
SLSA1 = {
    "buildDefinition": {
        "buildType": "https://github.com/moby/buildkit/blob/master/docs/attestations/slsa-definitions.md",
        "externalParameters": {
            "configSource": {"path": "Dockerfile"},
            "request": {"frontend": "dockerfile.v0"},
        },
        "internalParameters": {"builderPlatform": "linux/amd64", "buildConfig": {"llbDefinition": []}},
        "resolvedDependencies": [{"uri": "pkg:docker/a@1", "digest": {"sha256": "1"}}],
    },
    "runDetails": {
        "builder": {"id": ""},
        "metadata": {
            "invocationID": "i",
            "startedOn": "s",
            "finishedOn": "f",
            "buildkit_metadata": {"vcs": {"revision": "r"}},
            "buildkit_completeness": {"request": True, "resolvedDependencies": False},
        },
    },
}


class History:
    """A BuildKit that has recorded one solve, and keeps its provenance."""

    def __init__(self, results: dict[str, Any], blobs: dict[str, bytes]) -> None:
        self._results = results
        self._blobs = blobs

    @asynccontextmanager
    async def control(self, *, known: bool = True) -> AsyncIterator[Control]:
        registrar = Registrar()
        if known:
            path = "/moby.buildkit.v1.Control/ListenBuildHistory"
            registrar.unary_stream(path, self._listen, control_pb2.BuildHistoryRequest)
        read = "/containerd.services.content.v1.Content/Read"
        registrar.unary_stream(read, self._read, content_pb2.ReadContentRequest)
        ours, theirs = trio.testing.memory_stream_pair()
        async with open_server(theirs, registrar), open_channel(ours) as channel:
            yield Control(channel)

    async def _listen(self, request: control_pb2.BuildHistoryRequest, call: ServerCall) -> None:
        if not self._results:
            # Any question, for it has forgotten all builds.
            return
        assert (request.Ref, request.EarlyExit) == ("ref", True)
        record = control_pb2.BuildHistoryRecord(Ref="ref")
        for name, digest in self._results.items():
            info = record.Results[name] if name else record.Result
            attestation = info.Attestations.add(digest=digest, size=1)
            attestation.annotations["in-toto.io/predicate-type"] = "https://slsa.dev/provenance/v1"
        await call.send(control_pb2.BuildHistoryEvent(record=record).SerializeToString())

    async def _read(self, request: content_pb2.ReadContentRequest, call: ServerCall) -> None:
        blob = self._blobs[request.digest]
        for start in range(0, len(blob), 40):
            part = content_pb2.ReadContentResponse(offset=start, data=blob[start : start + 40])
            await call.send(part.SerializeToString())


async def test_the_provenance_is_read_from_the_engines_record() -> None:
    """By platform, in pieces; what is no JSON is left out; an engine without history or without the record has none."""
    blobs = {"one": json.dumps(SLSA02).encode(), "two": json.dumps(SLSA1).encode(), "bad": b"{"}
    history = History({"linux/amd64": "one", "linux/arm64": "two", "linux/386": "bad"}, blobs)
    async with history.control() as control:
        assert await read_provenance(control, "ref") == {"linux/amd64": SLSA02, "linux/arm64": SLSA1}
    async with History({"linux/amd64": "one", "linux/arm64": "one"}, blobs).control() as control:
        assert await read_provenance(control, "ref") == {"linux/amd64": SLSA02, "linux/arm64": SLSA02}
    async with History({"": "one"}, blobs).control() as control:
        assert await read_provenance(control, "ref") == {"": SLSA02}
    async with History({}, blobs).control() as control:
        assert await read_provenance(control, "ref") == {}
    async with history.control(known=False) as control:
        assert await read_provenance(control, "ref") == {}


@pytest.mark.parametrize("document", [SLSA02, SLSA1])
def test_the_file_has_it_in_the_words_of_slsa_02(document: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Whichever version the engine writes; without steps and times unless they are asked for."""
    short = {key: value for key, value in SLSA02.items() if key not in ("buildConfig", "metadata")}
    assert metadata_provenance({"": document}) == {"buildx.build.provenance": short}
    monkeypatch.setenv("BUILDX_METADATA_PROVENANCE", "max")
    assert metadata_provenance({"linux/amd64": document}) == {"buildx.build.provenance/linux/amd64": SLSA02}


def test_it_is_read_only_for_who_looks_at_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """For the file, unless a variable keeps it out, and where a provenance was asked for."""
    assert not is_wanted(BuildOptions())
    assert is_wanted(BuildOptions(metadata_file="x"))
    assert is_wanted(BuildOptions(provenance="mode=max"))
    assert not is_wanted(BuildOptions(provenance=False))
    monkeypatch.setenv("BUILDX_METADATA_PROVENANCE", "disabled")
    assert not is_wanted(BuildOptions(metadata_file="x"))


def test_the_file_tells_what_buildx_tells(monkeypatch: pytest.MonkeyPatch) -> None:
    """Descriptors as objects, the reference, the provenance; warnings where a variable asks for them."""
    descriptor = base64.b64encode(b'{"size": 1}').decode()
    warning = VertexWarning("v", 1, "short", ("detail",), "url", Source("Dockerfile", "FROM x", ((1, 1),)))
    result = BuildResult(
        image_id="sha256:1",
        digest="sha256:1",
        tags=("a",),
        ref="ref",
        response={"containerimage.digest": "sha256:1", "containerimage.descriptor": descriptor, "odd": "%"},
        provenance={"": SLSA02},
        warnings=(warning,),
    )
    expected = {
        "containerimage.digest": "sha256:1",
        "containerimage.descriptor": {"size": 1},
        "odd": "%",
        "image.name": "a",
        "buildx.build.ref": "default/default/ref",
        **metadata_provenance({"": SLSA02}),
    }
    assert metadata_of(result) == expected
    monkeypatch.setenv("BUILDX_METADATA_WARNINGS", "true")
    told = {
        "vertex": "v",
        "level": 1,
        "short": base64.b64encode(b"short").decode(),
        "detail": [base64.b64encode(b"detail").decode()],
        "url": "url",
        "sourceInfo": {"filename": "Dockerfile", "data": base64.b64encode(b"FROM x").decode()},
        "range": [{"start": {"line": 1}, "end": {"line": 1}}],
    }
    assert metadata_of(result) == {**expected, "buildx.build.warnings": [told]}
