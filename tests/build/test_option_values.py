"""Options that are more than a text, as short texts: attestations, annotations, platforms, entitlements, calls."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest

from mobysession.bake import bake
from mobysession.build import build, build_many, build_on
from mobysession.build.annotations import Annotation, annotation_attributes, parse_annotations
from mobysession.build.attests import Attest, attest_attributes, parse_attests
from mobysession.build.calls import Call
from mobysession.build.entitlements import check_entitlements
from mobysession.build.fields import join_pairs, split_fields, split_pairs
from mobysession.build.options import BuildOptions
from mobysession.build.platforms import normal_platform
from mobysession.errors import UsageError
from mobysession.transport.endpoint import Endpoint


@pytest.mark.parametrize(
    ("given", "attributes"),
    [
        ({}, {}),
        ({"provenance": "true"}, {"attest:provenance": "type=provenance"}),
        ({"provenance": True}, {"attest:provenance": "type=provenance"}),
        ({"provenance": "mode=max,version=v1"}, {"attest:provenance": "type=provenance,mode=max,version=v1"}),
        ({"provenance": "false"}, {}),
        ({"provenance": ""}, {}),
        ({"sbom": "1"}, {"attest:sbom": "type=sbom"}),
        ({"sbom": "generator=a/b"}, {"attest:sbom": "type=sbom,generator=a/b"}),
        ({"attests": ["type=sbom,disabled=true"]}, {}),
        ({"attests": [Attest("sbom", {"generator": "x,y"})]}, {"attest:sbom": 'type=sbom,"generator=x,y"'}),
        (
            {"attests": ["type=provenance,mode=min"], "provenance": "mode=max"},
            {"attest:provenance": "type=provenance,mode=min"},
        ),
    ],
)
def test_attestations(given: dict[str, Any], attributes: dict[str, str]) -> None:
    """Long and short options come to the frontend's attributes; of one type the first that was given counts."""
    attests = parse_attests(given.get("attests", ()), given.get("provenance"), given.get("sbom"))
    assert attest_attributes(attests, default=False) == attributes


def test_a_small_provenance_is_the_default() -> None:
    """Where the image can hold it, and nobody has spoken of one."""
    default = {"attest:provenance": "mode=min,inline-only=true"}
    assert attest_attributes({}, default=True) == default
    assert attest_attributes(parse_attests((), None, True), default=True) == {"attest:sbom": "type=sbom", **default}
    assert attest_attributes(parse_attests((), False, None), default=True) == {}


@pytest.mark.parametrize(
    "given",
    ["type=x", "sbom", "generator=x", "type=sbom,disabled=maybe", "type=provenance,mode=most", 'type="sbom'],
)
def test_what_is_no_attestation_is_refused(given: str) -> None:
    """By the option's check, not by the engine."""
    with pytest.raises(UsageError):
        BuildOptions(attests=[given]).attested()


@pytest.mark.parametrize(
    ("given", "attributes"),
    [
        (["a=b=c"], {"annotation.a": "b=c"}),
        ({"a": "b"}, {"annotation.a": "b"}),
        (["index:org.x/y=z"], {"annotation-index.org.x/y": "z"}),
        ({"manifest[linux/amd64]:a": "b"}, {"annotation-manifest[linux/amd64].a": "b"}),
        (
            ["index,manifest-descriptor[linux/arm/v7]:a=b"],
            {"annotation-index.a": "b", "annotation-manifest-descriptor[linux/arm/v7].a": "b"},
        ),
        ([Annotation("a", "b", "index-descriptor")], {"annotation-index-descriptor.a": "b"}),
    ],
)
def test_annotations(given: Any, attributes: dict[str, str]) -> None:
    """Texts, a mapping and values come to an exporter's attributes."""
    assert annotation_attributes(parse_annotations(given)) == attributes


@pytest.mark.parametrize("given", [["a"], ["image:a=b"], ["index[:a=b"], ["index[a b]:a=b"], "a=b"])
def test_what_is_no_annotation_is_refused(given: Any) -> None:
    """Also a single text where a list is wanted."""
    with pytest.raises(UsageError):
        BuildOptions(annotations=given)


@pytest.mark.parametrize(
    ("given", "normal"),
    [
        ("linux/amd64", "linux/amd64"),
        ("Linux/X86_64", "linux/amd64"),
        ("linux/amd64/v1", "linux/amd64"),
        ("linux/amd64/v3", "linux/amd64/v3"),
        ("linux/aarch64", "linux/arm64"),
        ("linux/arm64/v8", "linux/arm64"),
        ("linux/arm", "linux/arm/v7"),
        ("linux/armel", "linux/arm/v6"),
        ("linux/arm/7", "linux/arm/v7"),
        ("arm64", "linux/arm64"),
        ("windows(10.0.17763)/amd64", "windows(10.0.17763)/amd64"),
        ("macos/arm64", "darwin/arm64"),
    ],
)
def test_platforms_have_one_name_each(given: str, normal: str) -> None:
    """However a platform is written, the engine gets the name that it knows."""
    assert normal_platform(given) == normal


@pytest.mark.parametrize("given", ["", "linux/", "a/b/c/d", "linux amd64", "nonsense"])
def test_what_is_no_platform_is_refused(given: str) -> None:
    """Before the engine is asked."""
    with pytest.raises(UsageError, match="no platform"):
        BuildOptions(platforms=[given])


def test_this_machine_is_a_platform() -> None:
    """``local`` and a system alone stand for this machine's architecture."""
    here = normal_platform("local")
    assert here.startswith("linux/")
    assert normal_platform("linux") == here


@pytest.mark.parametrize("given", ["network.host", "security.insecure", "device", "device=vendor/class=x"])
def test_entitlements_are_known(given: str) -> None:
    """What BuildKit knows is asked for as it is."""
    check_entitlements([given])


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("fs.read=/", "bake files only"),
        ("fs=*", "bake files only"),
        ("ssh", "bake files only"),
        ("network", "no entitlement"),
        ("network.host=x", "no entitlement"),
    ],
)
def test_other_entitlements_are_refused(given: str, words: str) -> None:
    """With what the difference is to those of bake."""
    with pytest.raises(UsageError, match=words):
        BuildOptions(allow=[given])


@pytest.mark.parametrize(
    ("given", "call"),
    [
        ("build", None),
        ("build,format=json", None),
        ("check", Call("check")),
        ("outline,format=json", Call("outline", "json")),
        ("format=json,targets,ignorestatus=true", Call("targets", "json", ignore_status=True)),
    ],
)
def test_calls(given: str, call: Call | None) -> None:
    """``build`` is no call; the rest is a name with a format."""
    options = BuildOptions(call=given)
    assert options.called() == call
    assert (options.call is None) is (call is None)


@pytest.mark.parametrize("given", ["", ",", "check,outline", "check,format=xml", "check,ignorestatus=maybe", "a,b=c"])
def test_what_is_no_call_is_refused(given: str) -> None:
    """Before the engine is asked."""
    with pytest.raises(UsageError):
        BuildOptions(call=given)


def test_fields_are_csv() -> None:
    """What is joined is split into the same; quotes as in CSV."""
    assert split_fields("x", 'a,"b,c","d""e"') == ["a", "b,c", 'd"e']
    pairs = {"a": "1", "b": "x,y", "c": 'q"q'}
    assert split_pairs("x", join_pairs(pairs)) == pairs
    with pytest.raises(UsageError, match="not comma-separated"):
        split_fields("x", '"a')
    with pytest.raises(UsageError, match="not key=value"):
        split_pairs("x", "a")


@pytest.mark.parametrize(
    ("name", "given", "words"),
    [
        ("tags", None, "tags takes a list, not None"),
        ("platforms", [3], "platforms takes texts, not an object of type int"),
        ("no_cache_filter", {"a": "b"}, "no_cache_filter takes a list"),
        ("add_hosts", [("a", "1.2.3.4")], "add_hosts takes texts"),
        ("allow", b"device", "allow takes a list"),
        ("ssh", [3], "ssh takes texts"),
        ("services", [3], "services takes services to host"),
        ("cache_from", {"type": "local"}, "cache_from takes a list"),
        ("cache_to", [{"type": "local"}], "cache_to takes texts or values of CacheEntry"),
        ("ulimits", [3], "ulimits takes texts or values of Ulimit"),
        ("outputs", [Path("out")], "outputs takes texts or values of Output, not an object of type PosixPath"),
        ("attests", [True], "attests takes texts or values of Attest"),
        ("annotations", [("a", "b")], "annotations takes texts or values of Annotation"),
        ("target", 3, "target takes a text"),
        ("cgroup_parent", 3, "cgroup_parent takes a text"),
        ("shm_size", 1.5, "shm_size takes a number of bytes or a text"),
        ("file", 3, "file takes a path"),
        ("iidfile", b"a", "iidfile takes a path"),
        ("metadata_file", 3, "metadata_file takes a path"),
        ("timeline", True, "timeline takes a path"),
        ("source_policy", [], "source_policy takes a path or a mapping"),
        ("call", 3, "call takes a text or a Call"),
        ("build_contexts", ["a=b"], "build_contexts takes a mapping"),
        ("secrets", ["id=a"], "secrets takes a mapping"),
        ("image_config", 3, "image_config takes a mapping"),
        ("build_args", ["A=B"], "build_args takes a mapping"),
        ("build_args", {"A": b"hunter2"}, "build_args: 'A' needs a text as its value, not an object of type bytes"),
        *((name, "false", f"{name} takes True or False") for name in ("no_cache", "pull", "push", "load", "strict")),
        ("pull", 1, "pull takes True or False, not an object of type int"),
        ("strict", None, "strict takes True or False, not None"),
        ("provenance", ["mode=max"], "provenance takes True, False or a text, not an object of type list"),
        ("sbom", 1.5, "sbom takes True, False or a text"),
        ("tracing", 5, "tracing takes a Tracing, None or False, not an object of type int"),
        ("tracing", True, "tracing takes a Tracing, None or False, not an object of type bool"),
    ],
)
def test_what_is_of_another_type_is_refused_by_name(name: str, given: object, words: str) -> None:
    """Before anything is asked, and not somewhere in the midst of it."""
    options: dict[str, Any] = {name: given}
    with pytest.raises(UsageError, match=words):
        BuildOptions(**options)


async def _tell(status: object) -> None:
    """Be told, if anybody waits for it."""


class _Teller:
    async def __call__(self, status: object) -> None:
        """Be told, if anybody waits for it."""


@pytest.mark.parametrize(
    ("listener", "words"),
    [(_tell, "not awaited"), (_Teller(), "not awaited"), (partial(_tell), "not awaited"), (3, "takes a function")],
)
async def test_a_listener_that_would_have_to_be_awaited_is_refused(tmp_path: Path, listener: Any, words: str) -> None:
    """At every front door, for it would be told nothing, in silence."""
    endpoint = Endpoint.parse(f"unix://{tmp_path}/none.sock")
    for call in (
        build(tmp_path, endpoint=endpoint, on_status=listener),
        build_many([{"context": tmp_path}], endpoint=endpoint, on_status=listener),
        build_on([endpoint], tmp_path, on_status=listener),
        bake(files={"target": {"default": {"context": str(tmp_path)}}}, endpoint=endpoint, on_status=listener),
    ):
        with pytest.raises(UsageError, match=words):
            await call


@pytest.mark.parametrize(
    ("options", "words"),
    [({"endpoint": "unix:///a"}, "an endpoint is no text"), ({"progress": 3}, "progress takes a name or a view")],
)
async def test_what_is_beside_the_options_is_refused_by_name(
    tmp_path: Path, options: dict[str, Any], words: str
) -> None:
    """As the options are."""
    with pytest.raises(UsageError, match=words):
        await build(tmp_path, **options)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"at_once": "2"}, "at_once is the number of builds that run at the same time, 1 or more"),
        ({"at_once": 0}, "at_once is the number of builds that run at the same time, 1 or more"),
        ({"retries": "1"}, "retries is a number, 0 or more"),
        ({"retries": -1}, "retries is a number, 0 or more"),
        ({"one_session": "false"}, "one_session takes True or False, not an object of type str"),
        ({"return_errors": "no"}, "return_errors takes True or False, not an object of type str"),
    ],
)
async def test_what_is_beside_several_builds_is_refused_by_name(options: dict[str, Any], words: str) -> None:
    """A text is no number and no switch, though Python would compare or believe it."""
    with pytest.raises(UsageError, match=words):
        await build_many([], **options)


async def test_a_text_is_no_number_of_targets(tmp_path: Path) -> None:
    """As with several builds."""
    with pytest.raises(UsageError, match="parallel is a number of targets, 1 or more"):
        await bake(files={"target": {"default": {"context": str(tmp_path)}}}, parallel="2")  # type: ignore[arg-type]  # a text is what it refuses


@pytest.mark.parametrize("builds", ["abc", {"context": "."}, BuildOptions(), None, [3], ["abc"]])
async def test_what_is_no_list_of_builds_is_refused(builds: Any) -> None:
    """One build is no list of builds."""
    with pytest.raises(UsageError, match=r"mappings? of (its|their) fields"):
        await build_many(builds)
