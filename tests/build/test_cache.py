"""Caches and OCI layouts of a build: how they are written down, looked at, asked for, and refused."""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING, Any

import pytest

from mobysession.build import build
from mobysession.build.cache import CacheEntry, parse_entries, plain_registries, refuse_impossible
from mobysession.build.cache_stores import open_stores
from mobysession.build.callbacks import refuse_callbacks
from mobysession.build.layouts import LayoutAddress
from mobysession.build.options import BuildOptions
from mobysession.build.request import build_query, solve_request
from mobysession.errors import BuildFailed, ContextError, OutputError, UnsupportedByEngine, UsageError
from mobysession.redaction import Redactor
from mobysession.services.content import SERVICE, STORE_ID
from mobysession.services.exporter import Exporter
from mobysession.services.oci_layout import OciLayout
from mobysession.services.oci_layout_index import parse_descriptor, put_descriptor
from mobysession.services.policy import CHECK_POLICY, Allow, Convert, Deny, Policy, Source
from mobysession.testing import FakeDaemon, FakeSolve
from mobysession.transport.endpoint import Endpoint
from tests.services.stores import digest_of, put_blob

if TYPE_CHECKING:
    from pathlib import Path

DIGEST = digest_of(b"manifest")


def layout(folder: Path, **names: str) -> Path:
    """Make an OCI layout with one manifest."""
    put_blob(folder, b"manifest")
    put_descriptor(OciLayout(folder), parse_descriptor({"digest": DIGEST, "size": 8}), **(names or {"tag": "latest"}))
    return folder


# -- how they are written ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("alpine", [CacheEntry("registry", {"ref": "alpine"})]),
        ("a:1,b:2", [CacheEntry("registry", {"ref": "a:1"}), CacheEntry("registry", {"ref": "b:2"})]),
        ("type=local,src=a b", [CacheEntry("local", {"src": "a b"})]),
        ('type=local,"src=a,b",Tag=x', [CacheEntry("local", {"src": "a,b", "tag": "x"})]),
        (
            "type=registry,ref=a,registry.insecure=true",
            [CacheEntry("registry", {"ref": "a", "registry.insecure": "true"})],
        ),
    ],
)
def test_a_cache_is_read_as_buildx_reads_it(text: str, expected: list[CacheEntry]) -> None:
    """Names alone are images; otherwise key=value as in CSV."""
    assert parse_entries([text], exported=False) == expected
    assert parse_entries([text, text, *expected], exported=False) == expected


@pytest.mark.parametrize(
    ("field", "text", "words"),
    [
        ("cache_from", "src=a", "has no type"),
        ("cache_from", "type=local,a", "'a' is not key=value"),
        ("cache_from", "type=disk,src=a", "no cache of type 'disk'"),
        ("cache_from", 'type=local,"src=a', "not comma-separated"),
        ("cache_from", "type=local", "type local needs src="),
        ("cache_to", "type=local,src=a", "type local needs dest="),
        ("cache_to", "type=registry", "type registry needs ref="),
        ("cache_from", "type=inline", "read from the image it is in"),
        ("cache_to", "type=local,dest=a,mode=most", "no mode 'most'"),
        ("cache_from", "type=local,src=a,tag=", "tag of a local cache is empty"),
    ],
)
def test_what_makes_no_sense_is_refused(field: str, text: str, words: str) -> None:
    """When the options are made, with a sentence."""
    listed: dict[str, Any] = {field: [text]}
    with pytest.raises(UsageError, match=words):
        BuildOptions(**listed)
    single: dict[str, Any] = {field: text}
    with pytest.raises(UsageError, match="takes a list"):
        BuildOptions(**single)
    with pytest.raises(UsageError, match="mapping of names to texts"):
        CacheEntry("local", {"src": 1})  # type: ignore[dict-item]  # that is the point


def test_tokens_are_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither in repr nor, once the build is prepared, in its log; GitHub's come from its variables."""
    monkeypatch.setenv("ACTIONS_RUNTIME_TOKEN", "hunter2hunter2")
    monkeypatch.setenv("ACTIONS_RESULTS_URL", "https://results")
    monkeypatch.setenv("ACTIONS_CACHE_SERVICE_V2", "true")
    redactor = Redactor()
    options = open_stores(BuildOptions(cache_from=["type=gha,scope=x"]), redactor).options
    (entry,) = options.imported_caches()
    assert entry.attrs == {
        "scope": "x",
        "token": "hunter2hunter2",
        "url": "https://results",
        "url_v2": "https://results",
    }
    assert "hunter2" not in repr(entry)
    assert "hunter2" not in repr(options)
    assert redactor.redact("hunter2hunter2") == "***"


def test_credentials_of_aws_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """For a cache in S3 that has none of its own; they are not shown either."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key-of-the-environment")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hunter2hunter2")
    redactor = Redactor()
    own = "type=s3,bucket=b,access_key_id=own,secret_access_key=own-secret"
    options = open_stores(BuildOptions(cache_from=["type=s3,bucket=b"], cache_to=[own]), redactor).options
    (found,), (kept,) = options.imported_caches(), options.exported_caches()
    assert found.attrs == {
        "bucket": "b",
        "access_key_id": "key-of-the-environment",
        "secret_access_key": "hunter2hunter2",
    }
    assert kept.attrs == {"bucket": "b", "access_key_id": "own", "secret_access_key": "own-secret"}
    assert redactor.redact("hunter2hunter2") == "***"


@pytest.mark.parametrize("variables", [{}, {"ACTIONS_RUNTIME_TOKEN": "t"}, {"ACTIONS_RESULTS_URL": "u"}])
def test_a_cache_of_github_is_left_out_elsewhere(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, variables: dict[str, str]
) -> None:
    """With a warning: the same command line works on a runner and off it."""
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    given = BuildOptions(cache_from=["type=gha"], cache_to=["type=gha", "type=inline"])
    options = open_stores(given, Redactor()).options
    assert options.imported_caches() == []
    assert [entry.type for entry in options.exported_caches()] == ["inline"]
    assert "no runner of GitHub's" in caplog.text


# -- directories -------------------------------------------------------------------------------------------------------


def test_a_local_cache_is_found_by_its_tag(tmp_path: Path) -> None:
    """The daemon gets its digest; the directory becomes a store that is only read."""
    source = layout(tmp_path / "cache", tag="main")
    found = open_stores(BuildOptions(cache_from=[f"type=local,src={source},tag=main"]), Redactor())
    (entry,) = found.options.imported_caches()
    assert entry.attrs == {"src": str(source), "tag": "main", "digest": DIGEST}
    assert list(found.stores) == [f"local:{source}"]
    assert not found.stores[f"local:{source}"].writable


@pytest.mark.parametrize("case", ["no directory", "no tag", "no blob", "bad digest", "no index"])
def test_a_cache_that_is_not_there_is_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture, case: str) -> None:
    """With a warning that says why, as buildx does: the first build of a series has none."""
    source = layout(tmp_path / "cache", tag="main")
    more = ",tag=main"
    if case == "no directory":
        source = tmp_path / "nowhere"
    elif case == "no tag":
        more = ""
    elif case == "no blob":
        (source / "blobs" / DIGEST.replace(":", "/")).unlink()
    elif case == "bad digest":
        more = ",digest=sha256:../../x"
    else:
        (source / "index.json").unlink()
    with caplog.at_level(logging.WARNING):
        found = open_stores(BuildOptions(cache_from=[f"type=local,src={source}{more}"]), Redactor())
    assert not found.options.cache_from
    assert not found.stores
    assert f"the cache in '{source}' is left out" in caplog.text


def test_one_directory_is_read_and_written(tmp_path: Path) -> None:
    """By one store, which is written; two exports to it are refused."""
    folder = layout(tmp_path / "cache")
    options = BuildOptions(cache_from=[f"type=local,src={folder}"], cache_to=[f"type=local,dest={folder},mode=max"])
    found = open_stores(options, Redactor())
    assert {key: store.writable for key, store in found.stores.items()} == {f"local:{folder}": True}
    twice = BuildOptions(cache_to=[f"type=local,dest={folder}", f"type=local,dest={folder},mode=max"])
    with pytest.raises(UsageError, match="two caches are written to"):
        open_stores(twice, Redactor())


def test_a_place_that_cannot_be_written_is_told_first(tmp_path: Path) -> None:
    """Before the engine is asked."""
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="file/below' cannot be written"):
        open_stores(BuildOptions(cache_to=[f"type=local,dest={tmp_path}/file/below"]), Redactor())


def test_the_index_is_written_after_the_build(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """With what the engine says it exported, under the tag; what is not there is an error, unless those are ignored."""
    folder = tmp_path / "cache"
    found = open_stores(BuildOptions(cache_to=[f"type=local,dest={folder},tag=x,reset=true"]), Redactor())
    digest, old = put_blob(folder, b"manifest"), put_blob(folder, b"old")
    found.write_indexes({"cache.manifest": json.dumps({"digest": digest, "size": 8, "mediaType": "m"})})
    (written,) = json.loads((folder / "index.json").read_text())["manifests"]
    assert (written["digest"], written["annotations"]) == (digest, {"org.opencontainers.image.ref.name": "x"})
    assert not OciLayout(folder).has(old)
    for response in ({}, {"cache.manifest": "{"}, {"cache.manifest": json.dumps({"digest": old, "size": 3})}):
        with pytest.raises(OutputError, match="not exported its cache to"):
            found.write_indexes(response)
    ignoring = open_stores(BuildOptions(cache_to=[f"type=local,dest={folder},ignore-error=true"]), Redactor())
    ignoring.write_indexes({})
    assert "not exported its cache" in caplog.text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("oci-layout://dir", ("dir", "latest", "")),
        ("oci-layout:///a/b:1.2", ("/a/b", "1.2", "")),
        (f"oci-layout://a:1@{DIGEST}", ("a", "1", DIGEST)),
        (f"oci-layout://a@{DIGEST}", ("a", "", DIGEST)),
        ("oci-layout://a@b", ("a@b", "latest", "")),
        ("oci-layout://a:b/c", ("a:b/c", "latest", "")),
    ],
)
def test_an_address_of_a_layout(text: str, expected: tuple[str, str, str]) -> None:
    """Directory, tag and digest; without either of these the tag is latest."""
    assert LayoutAddress.parse(text) == expected


def test_the_engine_is_not_told_the_directory(tmp_path: Path) -> None:
    """It gets a store's name and the digest; the store is only read."""
    folder = layout(tmp_path / "images", name="docker.io/library/a:1")
    found = open_stores(
        BuildOptions(build_contexts={"base": f"oci-layout://{folder}:1", "x": "docker-image://y"}), Redactor()
    )
    ((store_id, store),) = found.stores.items()
    name = store_id.removeprefix("oci:")
    assert found.options.build_contexts == {"base": f"oci-layout://{name}:1@{DIGEST}", "x": "docker-image://y"}
    assert (store.path, store.writable) == (str(folder), False)
    assert str(folder) not in str(solve_request(found.options, ref="r", session_id="s", dockerfile="d"))


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("nowhere", "is no OCI layout"),
        ("images:2", "has no image '2'"),
        (f"images@{digest_of(b'other')}", "not found"),
        ("images@sha256:" + "a" * 40, "invalid checksum digest length"),
    ],
)
def test_a_layout_without_the_image(tmp_path: Path, address: str, words: str) -> None:
    """It is named before the engine is asked."""
    layout(tmp_path / "images", tag="1")
    put_blob(tmp_path / "images", b"second")
    put_descriptor(
        OciLayout(tmp_path / "images"), parse_descriptor({"digest": digest_of(b"second"), "size": 6}), tag="3"
    )
    with pytest.raises(ContextError, match=words):
        open_stores(BuildOptions(build_contexts={"base": f"oci-layout://{tmp_path}/{address}"}), Redactor())


# -- what is asked for -------------------------------------------------------------------------------------------------


def test_a_solve_names_caches_twice(tmp_path: Path) -> None:
    """In its cache options, and imports to the frontend too, which decides on them."""
    options = BuildOptions(
        cache_from=["a", "type=registry,ref=b"], cache_to=["type=inline", "type=registry,ref=c,mode=max"]
    )
    request = solve_request(options, ref="r", session_id="s", dockerfile="d")
    assert [(one.Type, dict(one.Attrs)) for one in request.Cache.Exports] == [
        ("inline", {}),
        ("registry", {"ref": "c", "mode": "max"}),
    ]
    assert [dict(one.Attrs) for one in request.Cache.Imports] == [{"ref": "a"}, {"ref": "b"}]
    assert json.loads(request.FrontendAttrs["cache-imports"]) == [
        {"Type": "registry", "Attrs": {"ref": "a"}},
        {"Type": "registry", "Attrs": {"ref": "b"}},
    ]
    plain = solve_request(BuildOptions(), ref="r", session_id="s", dockerfile="d")
    assert plain.HasField("Cache")
    assert "cache-imports" not in plain.FrontendAttrs


def test_the_classic_endpoint_reads_from_images_only() -> None:
    """By their names; everything else is refused with what would do it."""
    options = BuildOptions(cache_from=["a", "b"])
    assert ("cachefrom", '["a", "b"]') in build_query(options, build_id="b", session_id="s", dockerfile="d")
    refused: list[dict[str, Any]] = [{"cache_to": ["type=inline"]}, {"cache_from": ["type=local,src=x"]}]
    for fields in refused:
        with pytest.raises(UnsupportedByEngine, match="POST /build"):
            plain_registries(BuildOptions(**fields))
    for service in (Exporter(list), Policy(lambda source: True)):
        with pytest.raises(UnsupportedByEngine, match="POST /build does not ask"):
            refuse_callbacks(BuildOptions(services=[service]))


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"cache_to": ["type=local,dest=x"]}, "graph driver, and cannot export cache of type local"),
        ({"cache_to": ["type=registry,ref=x"]}, "graph driver, and cannot export cache of type registry"),
        ({"cache_from": ["type=gha"]}, "graph driver, and cannot read cache of type gha"),
        ({"cache_to": ["type=s3,bucket=x"]}, "a Docker engine has no cache of type s3; a buildkitd has"),
        ({"cache_from": ["type=azblob"]}, "a Docker engine has no cache of type azblob"),
    ],
)
async def test_what_an_engine_cannot_is_refused_first(fields: dict[str, Any], words: str) -> None:
    """With the engine's image store, and what would do it; what it can is not asked about."""
    async with FakeDaemon.listen() as daemon:
        endpoint = Endpoint.parse(daemon.host)
        with pytest.raises(UnsupportedByEngine, match=words) as caught:
            await refuse_impossible(endpoint, BuildOptions(**fields))
        assert caught.value.hint
        before = len(daemon.requests)
        await refuse_impossible(endpoint, BuildOptions(cache_from=["a", "type=local,src=x"], cache_to=["type=inline"]))
        assert len(daemon.requests) == before


async def test_an_engine_reads_a_cache_through_the_session(context: Path, tmp_path: Path) -> None:
    """A build serves the store whose ID the request names, and no other."""
    from mobysession._pb import content_pb2

    source = layout(tmp_path / "cache")
    found: list[int] = []

    async def script(solve: FakeSolve) -> dict[str, str]:
        (entry,) = solve.request.Cache.Imports
        caller = await solve.session()
        request = content_pb2.InfoRequest(digest=entry.Attrs["digest"])
        metadata = [(STORE_ID, f"local:{entry.Attrs['src']}")]
        answer = await caller.channel.unary(SERVICE + "Info", request, content_pb2.InfoResponse, metadata=metadata)
        found.append(answer.info.size)
        return {}

    async with FakeDaemon.listen(script=script) as daemon:
        await build(context, endpoint=Endpoint.parse(daemon.host), cache_from=[f"type=local,src={source}"])
    assert found == [8]


# -- policies and exporters in a build ---------------------------------------------------------------------------------


async def ask_policy(solve: FakeSolve, identifier: str) -> dict[str, str]:
    """Do what BuildKit from 0.26 on does with each source (solver/llbsolver/policy.go), as far as decisions go."""
    from mobysession._pb import ops_pb2, policysession_pb2, sourcemeta_pb2, sourcepolicy_pb2

    assert solve.request.SourcePolicySession == solve.request.Session
    caller = await solve.session()
    for _ in range(10):
        source = ops_pb2.SourceOp(identifier=identifier)
        request = policysession_pb2.CheckPolicyRequest(Source=sourcemeta_pb2.ResolveSourceMetaResponse(Source=source))
        answer = (await caller.unary(CHECK_POLICY, request, policysession_pb2.CheckPolicyResponse)).decision
        if answer.action == sourcepolicy_pb2.CONVERT:
            identifier = answer.update.identifier
            continue
        if answer.action != sourcepolicy_pb2.ALLOW:
            words = "; ".join(message.message for message in answer.denyMessages)
            solve.fail(f'source "{identifier}" not allowed by policy: action DENY: {words}')
        return {"containerimage.digest": DIGEST, "image.name": identifier}
    return solve.fail("too many policy requests")


async def test_a_policy_fails_a_build_with_its_own_words(context: Path) -> None:
    """The daemon asks because the request names the session; what is converted is asked about again."""

    def decide(source: Source) -> Allow | Deny | Convert:
        if source.identifier.endswith(":latest"):
            return Convert(source.identifier.replace(":latest", ":3.20"))
        return Allow() if "alpine" in source.identifier else Deny("only alpine is allowed here")

    identifiers = iter(["docker-image://docker.io/library/alpine:latest", "docker-image://docker.io/evil/image:1"])

    async def script(solve: FakeSolve) -> dict[str, str]:
        return await ask_policy(solve, next(identifiers))

    async with FakeDaemon.listen(script=script, api_version="1.53") as daemon:
        endpoint = Endpoint.parse(daemon.host)
        result = await build(context, endpoint=endpoint, services=[Policy(decide)])
        assert result.response["image.name"].endswith("alpine:3.20")
        with pytest.raises(BuildFailed, match=r"evil/image:1.*not allowed by policy.*only alpine is allowed here"):
            await build(context, endpoint=endpoint, services=[Policy(decide)])


async def test_an_engine_that_asks_nobody_is_refused(context: Path) -> None:
    """A policy that would not be asked holds nothing up, so the build is not begun; likewise for exporters."""
    for api_version, service, words in (
        ("1.51", Policy(lambda source: False), "asks no policy on sources; Docker 29.1"),
        ("1.41", Exporter(list), "does not ask for exporters; Docker 28.1"),
    ):
        async with FakeDaemon.listen(api_version=api_version) as daemon:
            with pytest.raises(UnsupportedByEngine, match=words):
                await build(context, endpoint=Endpoint.parse(daemon.host), services=[service])
            assert ("POST", "/grpc") not in daemon.requests
