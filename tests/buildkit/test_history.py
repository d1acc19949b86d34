"""The records of builds: asked for, filtered, read, changed, and exported as buildx exports them."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, BinaryIO, cast

import pytest
import trio
import trio.testing

from mobysession import limits
from mobysession._pb import control_pb2
from mobysession.buildkit.control import Control
from mobysession.buildkit.history_archive import export_records
from mobysession.buildkit.history_filters import HistoryFilters
from mobysession.errors import ApiError, OutputError, RpcError, StatusCode, UnsupportedByEngine, UsageError
from mobysession.rpc.client import open_channel
from mobysession.rpc.registrar import Registrar
from mobysession.rpc.server import open_server
from mobysession.testing.records import Records

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from mobysession.buildkit.history import BuildRecord, History


@asynccontextmanager
async def served(records: Records | None) -> AsyncIterator[History]:
    """Give the history of a BuildKit that has ``records``; None: of one that keeps none."""
    ours, theirs = trio.testing.memory_stream_pair()
    registrar = Registrar()
    if records is not None:
        records.register(registrar)
    async with open_server(theirs, registrar), open_channel(ours) as channel:
        yield Control(channel).history


def add(records: Records, ref: str, at: int, **fields: Any) -> control_pb2.BuildHistoryRecord:
    """Record a build that began ``at`` and took two seconds."""
    record = control_pb2.BuildHistoryRecord(Ref=ref, Frontend="dockerfile.v0", **fields)
    record.CreatedAt.FromSeconds(at)
    record.CompletedAt.FromSeconds(at + 2)
    records.builds[ref] = record
    return record


async def record_of(**fields: Any) -> BuildRecord:
    """Return what a record with these fields becomes."""
    records = Records()
    add(records, "r", 100, **fields)
    async with served(records) as history:
        return await history.get("r")


async def test_the_newest_come_first() -> None:
    """As many as are asked for; those that run as well, or alone."""
    records = Records()
    for at, ref in enumerate(("old", "new", "running")):
        add(records, ref, at * 10)
    records.builds["running"].ClearField("CompletedAt")
    async with served(records) as history:
        assert [record.ref for record in await history.list()] == ["running", "new", "old"]
        assert [record.ref for record in await history.list(limit=2)] == ["running", "new"]
        assert [record.ref for record in await history.list(active=True)] == ["running"]


async def test_one_is_found_by_its_id_its_beginning_or_its_age() -> None:
    """What is not there, or not one, is said."""
    records = Records()
    for at, ref in enumerate(("abc", "abd", "xyz")):
        add(records, ref, at * 10)
    async with served(records) as history:
        for name, ref in (("abc", "abc"), ("x", "xyz"), ("", "xyz"), ("^0", "xyz"), ("^2", "abc")):
            assert (await history.get(name)).ref == ref
        with pytest.raises(ApiError, match="several builds"):
            await history.get("ab")
        with pytest.raises(ApiError, match="no record of a build 'nosuch'"):
            await history.get("nosuch")
        with pytest.raises(ApiError, match="records of 3 builds only"):
            await history.get("^3")
        with pytest.raises(UsageError, match="names no build"):
            await history.get("^x")


@pytest.mark.parametrize(
    ("attributes", "name"),
    [
        ({}, ""),
        ({"build-arg:BUILDKIT_BUILD_NAME": "given", "target": "t"}, "given"),
        ({"context": "https://h.test/a.git", "target": "t"}, "https://h.test/a.git (t)"),
        ({"filename": "Other"}, "Other"),
        ({"vcs:localdir:context": "sub", "vcs:source": "https://h.test/a.git"}, "sub"),
        ({"vcs:source": "https://h.test/a.git"}, "a"),
        ({"vcs:localdir:dockerfile": "docker", "filename": "D"}, "docker/D"),
        ({"target": "t"}, "t"),
    ],
)
async def test_a_build_is_called_by_what_it_was_made_of(attributes: dict[str, str], name: str) -> None:
    """Unless it has a name of its own."""
    assert (await record_of(FrontendAttrs=attributes)).name == name


async def test_how_it_ended_is_told() -> None:
    """A failure has its text and its code; a cancelled build is none."""
    assert (await record_of()).status == "completed"
    assert (await record_of()).duration == 2.0
    failed = await record_of(error={"code": 2, "message": "no"})
    assert (failed.status, failed.error, failed.code) == ("error", "no", StatusCode.UNKNOWN)
    assert (await record_of(error={"code": 1, "message": "no"})).status == "canceled"
    assert (await record_of(error={"code": 2, "message": "x: context canceled"})).status == "canceled"
    assert (await record_of(error={"code": 99, "message": "no"})).code is StatusCode.UNKNOWN


async def test_its_files_are_told_with_their_kind_and_platform() -> None:
    """Results and attestations, each once."""
    image = control_pb2.Descriptor(digest="sha256:i", media_type="image", size=1)
    proof = control_pb2.Descriptor(
        digest="sha256:p", media_type="in-toto", annotations={"in-toto.io/predicate-type": "provenance"}
    )
    result = control_pb2.BuildResultInfo(Results={0: image}, Attestations=[proof])
    record = await record_of(Result=result, Results={"linux/arm64": result})
    assert [(blob.digest, blob.kind, blob.platform) for blob in record.blobs] == [
        ("sha256:i", "", ""),
        ("sha256:p", "provenance", ""),
    ]
    (first, _) = (await record_of(Results={"linux/arm64": result})).blobs
    assert first.platform == "linux/arm64"


async def test_records_are_changed() -> None:
    """Pinned, unpinned, finalized, forgotten; what is not there is an error of the engine's."""
    records = Records()
    add(records, "r", 1)
    async with served(records) as history:
        await history.pin("r")
        assert (await history.get("r")).pinned
        await history.pin("r", pinned=False)
        assert not (await history.get("r")).pinned
        await history.finalize("r")
        assert (await history.get("r")).trace is not None
        await history.remove("r")
        assert await history.list() == []
        with pytest.raises(RpcError, match="not found"):
            await history.remove("r")


async def test_a_file_is_read_in_pieces() -> None:
    """Whole and in order; one that is gone is an error of the engine's."""
    records = Records()
    content = bytes(range(256)) * 500
    digest = records.add_blob("x", content).digest
    async with served(records) as history:
        assert b"".join([piece async for piece in history.read(digest)]) == content
        with pytest.raises(RpcError, match="not found"):
            [piece async for piece in history.read("sha256:" + "0" * 64)]


async def test_an_engine_that_keeps_no_records_is_told_of() -> None:
    """With the version that does."""
    async with served(None) as history:
        with pytest.raises(UnsupportedByEngine, match="keeps no records") as caught:
            await history.list()
        assert caught.value.hint == "Docker 23 and later do."
        with pytest.raises(UnsupportedByEngine):
            await history.remove("r")


@pytest.mark.parametrize(
    ("texts", "matched"),
    [
        ([], True),
        (["status=completed"], True),
        (["status!=completed"], False),
        (["ref=r", "status=error"], False),
        (["repository=h.test"], True),
        (["repository!=h.test"], True),
        (["duration>1s"], True),
        (["duration>=3s"], False),
        (["startedAt<24h"], True),
        (["completedAt>=24h"], False),
        (["startedAt<=1970-01-01T00:01:40Z"], True),
        (["startedAt<1970-01-01T00:01:40"], False),
    ],
)
async def test_a_filter_means_what_it_means_to_buildx(texts: list[str], matched: bool) -> None:
    """Texts are found within, states and what follows != are compared; all filters hold."""
    record = await record_of(FrontendAttrs={"vcs:source": "https://h.test/a.git"})
    assert HistoryFilters(texts).match(record) is matched


@pytest.mark.parametrize(
    "text", ["status", "nosuch=1", "status>1", "duration=1s", "duration>x", "startedAt>yesterday", ""]
)
def test_a_filter_that_makes_no_sense_is_refused(text: str) -> None:
    """Before an engine is asked."""
    with pytest.raises(UsageError):
        HistoryFilters([text])


def unpacked(archive: bytes) -> dict[str, bytes]:
    with gzip.GzipFile(fileobj=io.BytesIO(archive)) as packed, tarfile.open(fileobj=packed) as tar:
        return {member.name: tar.extractfile(member).read() for member in tar}  # type: ignore[union-attr]  # all files


def blob(files: dict[str, bytes], descriptor: dict[str, Any]) -> Any:
    return json.loads(files[f"blobs/{descriptor['digest'].replace(':', '/')}"])


async def test_an_archive_has_the_record_and_its_files() -> None:
    """As a manifest in an OCI layout: numbers and times as Go writes them, results not to be followed."""
    records = Records()
    image = records.add_blob("application/image", b'{"image": 1}')
    record = add(records, "r", 100, numTotalSteps=3, Result={"Results": {0: image}})
    record.logs.CopyFrom(records.add_blob("log", b'"log"'))
    async with served(records) as history:
        to = io.BytesIO()
        await export_records(history, [await history.get("r")], to, platform="linux/amd64")
    files = unpacked(to.getvalue())
    assert json.loads(files["oci-layout"]) == {"imageLayoutVersion": "1.0.0"}
    (top,) = json.loads(files["index.json"])["manifests"]
    manifest = blob(files, top)
    assert [(layer["mediaType"], layer.get("annotations")) for layer in manifest["layers"]] == [
        ("log", None),
        ("application/json", {"vnd.export-build.descriptor.mediatype": "application/image"}),
    ]
    config = blob(files, manifest["config"])
    assert (config["Ref"], config["numTotalSteps"], config["DefaultPlatform"]) == ("r", 3, "linux/amd64")
    assert config["CreatedAt"] == {"seconds": 100}
    assert config["Result"]["Results"]["0"]["size"] == len(b'{"image": 1}')


async def test_several_records_have_an_index() -> None:
    """Which says which is which; the same records make the same bytes."""
    records = Records()
    for ref in ("a", "b"):
        add(records, ref, 1)
    async with served(records) as history:
        found = [await history.get(ref) for ref in ("a", "b")]
        first, second = io.BytesIO(), io.BytesIO()
        await export_records(history, found, first)
        await history.export(found, second)
    assert first.getvalue() == second.getvalue()
    files = unpacked(first.getvalue())
    index = blob(files, json.loads(files["index.json"])["manifests"][0])
    assert [each["annotations"]["vnd.buildkit.history.reference"] for each in index["manifests"]] == ["a", "b"]


async def test_what_gives_access_is_left_out_of_an_archive() -> None:
    """Tokens of caches, in the record and in the trace; what cannot be read is left out whole."""
    records = Records()
    imports = json.dumps([{"Type": "gha", "Attrs": {"scope": "s", "token": "s3cr3t"}}])
    record = add(records, "r", 1, FrontendAttrs={"cache-imports": imports})
    trace = b'{"Value": "--cache-to type=gha,token=s3cr3t,mode=max ghs_' + b"a" * 36 + b'"}'
    record.trace.CopyFrom(records.add_blob("trace", trace))
    add(records, "odd", 2, FrontendAttrs={"cache-imports": "s3cr3t"})
    async with served(records) as history:
        to = io.BytesIO()
        await export_records(history, [await history.get("r"), await history.get("odd")], to)
    files = unpacked(to.getvalue())
    assert not any(b"s3cr3t" in content or b"ghs_" in content for content in files.values())
    assert any(b"token=xxxxx,mode=max xxxxx" in content for content in files.values())
    assert any(b'\\"scope\\": \\"s\\"' in content for content in files.values())


async def test_a_file_that_is_too_large_or_another_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A daemon may say anything of its files."""
    records = Records()
    record = add(records, "r", 1)
    record.logs.CopyFrom(records.add_blob("log", b"log"))
    async with served(records) as history:
        found = await history.get("r")
        records.blobs[record.logs.digest] = b"another"
        with pytest.raises(ApiError, match="what the engine sent is not sha256:"):
            await export_records(history, [found], io.BytesIO())
        monkeypatch.setattr(limits, "MAX_HISTORY_BLOB", 2)
        with pytest.raises(ApiError, match="too many to be exported"):
            await export_records(history, [found], io.BytesIO())


async def test_a_full_disk_is_an_error_of_the_output() -> None:
    """With the system's reason."""
    records = Records()
    add(records, "r", 1)
    async with served(records) as history:
        found = await history.get("r")
        full = cast("BinaryIO", await trio.to_thread.run_sync(partial(open, "/dev/full", "wb", buffering=0)))
        with full, pytest.raises(OutputError, match="no space left"):
            await export_records(history, [found], full)
