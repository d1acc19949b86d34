"""Which files are read, of what kind they are, and the leave that they need."""

from __future__ import annotations

import io
import sys
from typing import TYPE_CHECKING, Any

import pytest

from mobysession import limits
from mobysession.bake.definition import Selection
from mobysession.bake.grants import refuse_ungranted
from mobysession.bake.plan import options_of
from mobysession.bake.read import read_definition
from mobysession.build.attests import Attest
from mobysession.build.cache import CacheEntry
from mobysession.build.exports import Output
from mobysession.errors import BakeError, UsageError
from mobysession.services.secrets import SecretEnv, SecretFile

if TYPE_CHECKING:
    from pathlib import Path


def test_the_usual_files_are_read_in_order(folder: Path) -> None:
    """Compose's first, overrides last, each adding to those before."""
    (folder / "docker-bake.override.hcl").write_text('target "a" {\n  args = { X = "override" }\n}\n')
    (folder / "docker-bake.json").write_text('{"target": {"a": {"args": {"X": "json", "Y": "json"}}}}')
    (folder / "docker-bake.hcl").write_text('target "a" {\n  args = { Y = "hcl" }\n}\n')
    (folder / "compose.yml").write_text("services: {a: {build: {args: {X: c, Y: c, Z: c}}}}")
    assert read_definition().select(["a"]).targets["a"]["args"] == {"X": "override", "Y": "hcl", "Z": "c"}


def test_no_file_is_an_error() -> None:
    """Which says what to write."""
    with pytest.raises(BakeError, match="there is no bake file in") as caught:
        read_definition()
    assert "docker-bake.hcl" in (caught.value.hint or "")


def test_the_environment_names_files(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the caller names none."""
    (folder / "x.json").write_text('{"target": {"x": {}}}')
    (folder / "y.json").write_text('{"target": {"y": {}}}')
    monkeypatch.setenv("BUILDX_BAKE_FILE", "x.json:y.json")
    assert read_definition().names == ["x", "y"]
    assert read_definition(["y.json"]).names == ["y"]
    monkeypatch.setenv("BUILDX_BAKE_FILE", "y.json,x.json")
    monkeypatch.setenv("BUILDX_BAKE_PATH_SEPARATOR", ",")
    assert read_definition().names == ["y", "x"]


def test_the_environment_may_be_shut_out(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Variables keep their defaults then, unless the caller gives them."""
    (folder / "x.json").write_text('{"variable": {"V": {"default": "d"}}, "target": {"t": {"tags": ["${V}"]}}}')
    monkeypatch.setenv("V", "e")
    assert read_definition(["x.json"]).select(["t"]).targets["t"]["tags"] == ["e"]
    monkeypatch.setenv("BUILDX_BAKE_DISABLE_VARS_ENV_LOOKUP", "1")
    assert read_definition(["x.json"]).select(["t"]).targets["t"]["tags"] == ["d"]
    assert read_definition(["x.json"], variables={"V": "c"}).select(["t"]).targets["t"]["tags"] == ["c"]


@pytest.mark.parametrize(
    "text", ['{"target": {"t": {}}}', 'target "t" {\n}\n', "services: {t: {build: .}}"], ids=["json", "hcl", "yaml"]
)
def test_stdin_is_of_any_kind(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """It has no ending that would tell."""
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
    assert "t" in read_definition(["-"]).targets


def test_texts_in_json_are_templates(folder: Path) -> None:
    """In all places, names of tables too; what else stands in JSON is itself."""
    (folder / "b.json").write_text(
        '{"variable": {"V": {"default": "v"}}, "target": {"t": {"labels": {"${V}": "${upper(\\"a\\")}$${V}"},'
        ' "args": {"N": 1.50, "T": true, "Q": "\\"${V}\\""}}}}'
    )
    read = read_definition(["b.json"]).select(["t"]).targets["t"]
    assert read["labels"] == {"v": "A${V}"}
    assert read["args"] == {"N": "1.5", "T": "true", "Q": '"v"'}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", "b.json:1: this is no JSON"),
        (b"[]", "a bake file is a table"),
        (b'{"target": 1}', "target is a table"),
        (b"\xff", "is not UTF-8"),
        (b'{"target": {"t": {"tags": ["1"], "tags": ["2"]}}}', "'tags' is there twice in one table"),
        (b'{"target": {"t": {"args": {"X": "${"}}}}', "an expression has no end"),
        (b'{"target": {"t": {"args": {"X": "${1 +}"}}}}', "this is no expression"),
        (b" " * (limits.MAX_BAKE_FILE + 1), "is larger than"),
        (b"[" * 100_000, "nested too deeply"),
    ],
    ids=range(9),
)
def test_what_cannot_be_read_is_refused(folder: Path, content: bytes, message: str) -> None:
    """With the file's name."""
    (folder / "b.json").write_bytes(content)
    with pytest.raises(BakeError, match=message) as caught:
        read_definition(["b.json"])
    assert caught.value.file == "b.json"


def test_a_target_is_a_build(folder: Path) -> None:
    """Every attribute is the option of a build that means the same."""
    given = {
        "context": "ctx",
        "dockerfile": "D",
        "contexts": {"a": "cwd://x", "b": "target:y"},
        "args": {"A": "1"},
        "labels": {"l": "m"},
        "tags": ["t"],
        "target": "stage",
        "platforms": ["linux/amd64,linux/arm64", "linux/amd64"],
        "no-cache": True,
        "no-cache-filter": ["s"],
        "pull": True,
        "network": "host",
        "shm-size": "1m",
        "ulimits": ["nofile=1:2"],
        "extra-hosts": {"h": "1.1.1.1,2.2.2.2"},
        "secret": ["id=f,src=file", "id=e,env=E"],
        "ssh": ["default", "k=a,b"],
        "cache-from": ["ref"],
        "cache-to": ["type=inline"],
        "output": ["type=local,dest=o", "type=image,push=true"],
        "annotations": ["a=b"],
        "attest": ["type=sbom,generator=g"],
        "entitlements": ["security.insecure"],
    }
    target = read_definition([{"target": {"t": given, "y": {}}}]).select(["t"]).targets["t"]
    options = options_of("t", target, str(folder), {"strict": True})
    assert (options.context, options.file, options.target) == ("ctx", "ctx/D", "stage")
    assert options.build_contexts == {"a": "x", "b": "target:y"}
    assert (options.build_args, options.labels, options.tags) == ({"A": "1"}, {"l": "m"}, ["t"])
    assert (options.platforms, options.no_cache, options.no_cache_filter) == (
        ["linux/amd64", "linux/arm64"],
        True,
        (),
    )
    assert (options.pull, options.network, options.shm_size) == (True, "host", "1m")
    assert (options.ulimits, options.add_hosts) == (["nofile=1:2"], ["h=1.1.1.1", "h=2.2.2.2"])
    assert options.secrets == {"f": SecretFile("file"), "e": SecretEnv("E")}
    assert options.ssh == ["default", "k=a,b"]
    assert options.cache_from == [CacheEntry("registry", {"ref": "ref"})]
    assert options.cache_to == [CacheEntry("inline")]
    assert options.outputs == [Output("local", "o"), Output("image", attrs={"push": "true"})]
    assert options.annotations == ["a=b"]
    assert options.attests == [Attest("sbom", {"generator": "g"})]
    assert (options.allow, options.strict) == (["security.insecure"], True)


def test_a_dockerfile_in_the_definition_is_written(folder: Path) -> None:
    """To a place of ours, and never into the context."""
    target = {"context": "ctx", "dockerfile": "Dockerfile", "dockerfile-inline": "FROM x\n"}
    file = options_of("t", target, str(folder), {}).file
    assert file == str(folder / "t" / "Dockerfile")
    assert (folder / "t" / "Dockerfile").read_text() == "FROM x\n"


def test_what_is_called_for_a_target_has_no_outputs(folder: Path) -> None:
    """An answer goes nowhere, and an empty image would take the name of the real one."""
    target = {"context": ".", "dockerfile": "Dockerfile", "output": [{"type": "image", "push": "true"}]}
    assert options_of("t", {**target, "call": "check"}, str(folder), {}).outputs == ()
    assert options_of("t", {**target, "call": "build"}, str(folder), {}).outputs == [
        Output("image", attrs={"push": "true"})
    ]


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ({"tags": ["UPPER"]}, "target 't': invalid tag 'UPPER'"),
        ({"context": "-"}, "target 't': a target cannot be read from stdin"),
        ({"contexts": {"x": "target:y"}, "call": "check"}, "can be built, but not asked"),
    ],
)
def test_a_target_that_is_no_build_is_refused(folder: Path, target: dict[str, Any], message: str) -> None:
    """By its name."""
    with pytest.raises(BakeError, match=message):
        options_of("t", {"context": ".", "dockerfile": "Dockerfile", **target}, str(folder), {})


NEEDS: list[tuple[dict[str, Any], str]] = [
    ({"entitlements": ["network.host"]}, "network.host"),
    ({"entitlements": ["security.insecure"]}, "security.insecure"),
    ({"entitlements": ["device=d"]}, "device=d"),
    ({"ssh": [{"id": "default"}]}, "ssh"),
    ({"ssh": [{"id": "k", "paths": ["/etc/key"]}]}, "fs.read=/etc/key"),
    ({"context": "/etc", "dockerfile-inline": "x"}, "fs.read=/etc"),
    ({"dockerfile": "../D"}, "fs.read=./../D"),
    ({"contexts": {"x": "../up"}}, "fs.read=../up"),
    ({"contexts": {"x": "oci-layout:///lay@sha256:" + 64 * "a"}}, "fs.read=/lay"),
    ({"secret": [{"id": "s", "src": "/etc/shadow"}]}, "fs.read=/etc/shadow"),
    ({"secret": [{"id": "/etc/shadow"}]}, "fs.read=/etc/shadow"),
    ({"cache-from": [{"type": "local", "src": "/c"}]}, "fs.read=/c"),
    ({"cache-to": [{"type": "local", "dest": "/c"}]}, "fs.write=/c"),
    ({"output": [{"type": "local", "dest": "/o"}]}, "fs.write=/o"),
]


def chosen(target: dict[str, Any], *sets: str, **others: dict[str, Any]) -> Selection:
    """Return a selection of the target ``t`` and others, with overrides."""
    return read_definition([{"target": {"t": target, **others}}]).select(["t", *others], sets)


@pytest.mark.parametrize(("target", "needed"), NEEDS)
def test_leave_is_needed(target: dict[str, Any], needed: str) -> None:
    """Without it the target is refused, with what to allow; with it nothing is said."""
    selection = chosen(target)
    with pytest.raises(UsageError, match="what was not allowed") as caught:
        refuse_ungranted(selection, [])
    assert f"allow={[needed]} (--allow={needed})" in (caught.value.hint or "")
    refuse_ungranted(selection, [needed])
    if needed.startswith("fs"):
        refuse_ungranted(selection, ["fs=*"])


SETS: list[tuple[str, dict[str, Any]]] = [
    ("t.context=/o", {}),
    ("t.context=cwd:///o", {}),
    ("t.dockerfile=../D", {"context": "sub"}),
    ("t.dockerfile=cwd:///o/D", {"context": "sub"}),
    ("t.contexts.x=/o", {}),
    ("t.contexts.x=oci-layout:///o:tag", {}),
    ("t.secret.s=src=/o", {"secret": [{"id": "s", "src": "/p"}]}),
    ("t.secrets=id=s,src=/o", {}),
    ("t.ssh=default=/o", {}),
    ("t.cache-from=type=local,src=/o", {}),
    ("t.cache-to=type=local,dest=/o", {}),
    ("t.output=type=tar,dest=/o", {}),
    ("t.output=/o", {"output": ["/p"]}),
    ("t.output=/o", {"output": ["/o"]}),
    ("t.entitlements=network.host", {}),
    ("*.output=/o", {}),
]


@pytest.mark.parametrize(("override", "target"), SETS)
def test_what_the_caller_named_is_allowed(override: str, target: dict[str, Any]) -> None:
    """In every form in which an override has a path or an entitlement; who inherits from the target inherits that."""
    refuse_ungranted(chosen(target, override), [])
    refuse_ungranted(chosen(target, override, u={"inherits": ["t"]}), [])


@pytest.mark.parametrize(
    ("override", "needed"),
    [
        ("t.labels.x=/o", {"output": ["/o"]}),
        ("t.args.x=/o", {"secret": [{"id": "s", "src": "/o"}]}),
        ("t.tags=/o", {"context": "/o", "dockerfile-inline": "x"}),
        ("t.secret.s=src=/o", {"output": ["/o"]}),
        ("t.cache-to=type=local,dest=/o", {"contexts": {"x": "/o"}}),
        ("u.output=/o", {"output": ["/o"]}),
        ("t.output+=/o/p", {"output": ["/o"]}),
        ("t.output+=*", {"output": ["/o"]}),
        ("t.dockerfile=D", {"context": "/o"}),
        ("t.context=/o", {"dockerfile": "../D"}),
        ("t.ssh+=default=key", {"ssh": ["other"]}),
        ("t.ssh=ssh", {}),
        ("t.context=git@example.com:a/b.git", {}),
    ],
)
def test_what_the_caller_named_for_something_else_is_no_leave(override: str, needed: dict[str, Any]) -> None:
    """It counts for that target alone, for reading or for writing, and only where it is an option of paths."""
    inline = {"dockerfile-inline": "FROM scratch"}
    with pytest.raises(UsageError, match=r"what was not allowed: (fs\.(read|write)=\.*/|ssh ).*\(target t\)"):
        refuse_ungranted(chosen(needed, override, u=inline), [])


@pytest.mark.parametrize(
    "target",
    [
        {"context": "sub", "dockerfile": "cwd://../D"},
        {"context": "https://example.com/a.git", "dockerfile": "cwd://../D"},
        {"context": "https://example.com/a.git", "dockerfile": "/etc/D"},
        {"context": "x://../..", "dockerfile-inline": "x"},
        {"context": "git@example.com:a/b.git"},
        {"contexts": {"x": "sub@/../.."}},
    ],
)
def test_leave_is_needed_for_what_looks_remote_or_inside(target: dict[str, Any]) -> None:
    """A Dockerfile of this machine beside a remote context, a directory called like an address, an agent for git."""
    with pytest.raises(UsageError, match="what was not allowed"):
        refuse_ungranted(chosen(target), [])


def test_the_environment_lifts_the_bound_of_paths(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of paths only."""
    monkeypatch.setenv("BUILDX_BAKE_ENTITLEMENTS_FS", "false")
    refuse_ungranted(chosen({"context": "/etc", "dockerfile": "D"}), [])
    with pytest.raises(UsageError, match="ssh"):
        refuse_ungranted(chosen({"ssh": ["default"]}), [])


def test_no_leave_is_needed_below_the_working_directory(folder: Path) -> None:
    """A link that leads out of it is judged by where it leads."""
    (folder / "in").mkdir()
    (folder / "out").symlink_to("/etc")
    inside = {"context": "in", "dockerfile": "D", "output": [{"type": "local", "dest": "o/p"}]}
    refuse_ungranted(chosen(inside), [])
    with pytest.raises(UsageError, match=r"fs\.read=out"):
        refuse_ungranted(chosen({**inside, "context": "out"}), [])


@pytest.mark.parametrize("allow", ["nothing", "fs.read", "fs.read="])
def test_a_leave_for_nothing_is_refused(allow: str) -> None:
    """As a misspelt one would be taken for given."""
    with pytest.raises(UsageError):
        refuse_ungranted(Selection(), [allow])
