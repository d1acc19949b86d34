"""Targets of compose files: what each word of a build becomes, interpolation, merging, and what is refused."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from mobysession.bake.interpolation import interpolated, with_env_file
from mobysession.bake.read import read_definition
from mobysession.bake.yamltext import parse_yaml
from mobysession.errors import BakeError, UsageError

if TYPE_CHECKING:
    from pathlib import Path


def target(folder: Path, build: str, more: str = "") -> dict[str, Any]:
    """Return the target that a service with these lines as its build is."""
    lines = "\n".join(f"      {line}" for line in build.splitlines())
    (folder / "compose.yaml").write_text(f"services:\n  app:\n    image: name\n    build:\n{lines}\n{more}")
    return read_definition().select(["app"]).targets["app"]


@pytest.mark.parametrize(
    ("build", "attribute", "expected"),
    [
        ("context: ./dir", "context", "dir"),
        ("dockerfile: D", "dockerfile", "D"),
        ("dockerfile_inline: FROM x", "dockerfile-inline", "FROM x"),
        ("args: [A=1, FROM_ENV, MISSING]", "args", {"A": "1", "FROM_ENV": "e"}),
        (
            "args: {A: 1, B: true, C: yes, D: 1.50, FROM_ENV: }",
            "args",
            {"A": "1", "B": "true", "C": "yes", "D": "1.5", "FROM_ENV": "e"},
        ),
        ("labels: [a=b, c]", "labels", {"a": "b", "c": ""}),
        ("context: .", "tags", ["name"]),
        ("tags: [a, b]", "tags", ["a", "b"]),
        (
            "cache_from: [a, 'type=local,src=d']",
            "cache-from",
            [{"ref": "a", "type": "registry"}, {"src": "d", "type": "local"}],
        ),
        ("cache_to: [type=inline]", "cache-to", [{"type": "inline"}]),
        ("additional_contexts: {l: ./d/, i: docker-image://x}", "contexts", {"l": "d", "i": "docker-image://x"}),
        ("secrets: [s]", "secret", [{"id": "s", "src": "f"}]),
        ("secrets: [{source: e}]", "secret", [{"id": "e", "env": "E"}]),
        ("ssh: [default, k=path]", "ssh", [{"id": "default"}, {"id": "k", "paths": ["path"]}]),
        ("shm_size: 1536m", "shm-size", "1.5GiB"),
        ("ulimits: {nproc: 5, nofile: {soft: 1, hard: 2}}", "ulimits", ["nofile=1:2", "nproc=5:5"]),
        ("extra_hosts: ['a=1.1.1.1', 'b:2.2.2.2']", "extra-hosts", {"a": "1.1.1.1", "b": "2.2.2.2"}),
        ("network: host", "entitlements", ["network.host"]),
        ("pull: true", "pull", True),
        ("no_cache: ${NO_CACHE}", "no-cache", True),
        ("platforms: [linux/amd64]", "platforms", ["linux/amd64"]),
        ("target: t", "target", "t"),
        ("provenance: mode=max", "attest", [{"mode": "max", "type": "provenance"}]),
        ("sbom: false", "attest", [{"disabled": True, "type": "sbom"}]),
        ("tags: [a]\nx-bake: {tags: [b, a]}", "tags", ["a", "b"]),
        ("x-bake: {platforms: linux/386 linux/arm64}", "platforms", ["linux/386", "linux/arm64"]),
        ("x-bake: {output: type=docker}", "output", [{"type": "docker"}]),
        ("x-bake: {no-cache: true}", "no-cache", True),
        ("x-bake: {contexts: {x: 'target:app.1'}}\ncontext: .", "contexts", {"x": "target:app_1"}),
    ],
)
def test_a_word_of_a_build(
    folder: Path, monkeypatch: pytest.MonkeyPatch, build: str, attribute: str, expected: Any
) -> None:
    """Each becomes the attribute of a target that means the same."""
    monkeypatch.setenv("FROM_ENV", "e")
    monkeypatch.setenv("NO_CACHE", "true")
    monkeypatch.delenv("MISSING", raising=False)
    more = "  app.1:\n    build: .\nsecrets:\n  s: {file: ./f}\n  e: {environment: E}\n"
    assert target(folder, build, more)[attribute] == expected


def test_services_are_targets_of_the_default_group(folder: Path) -> None:
    """Those without a build are none; a dot in a name becomes an underscore; ``service:`` is a link."""
    (folder / "compose.yaml").write_text(
        "services:\n  db: {image: x}\n  a.b:\n    build:\n      context: .\n"
        "      additional_contexts: {l: 'service:lib'}\n"
        "  lib: {build: lib}\n"
    )
    selection = read_definition().select()
    assert sorted(selection.targets) == ["a_b", "lib"]
    assert selection.targets["a_b"]["contexts"] == {"l": "target:lib"}
    assert read_definition().select(["a.b"]).targets.keys() == {"a_b", "lib"}


def test_files_are_merged_as_compose_does(folder: Path) -> None:
    """Tables by name, lists one behind the other, all else from the later file."""
    (folder / "1.yml").write_text("services: {a: {build: {context: x, args: [A=1, B=1], tags: [t]}}}")
    (folder / "2.yml").write_text("services: {a: {build: {context: y, args: {B: 2}, tags: [u, t]}}}")
    merged = read_definition(["1.yml", "2.yml"]).select().targets["a"]
    assert (merged["context"], merged["args"], merged["tags"]) == ("y", {"A": "1", "B": "2"}, ["t", "u"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("services: {a: {build: {bogus: 1}}}", "service 'a': build has no 'bogus'"),
        ("services: {a: {build: 1}}", "build of service 'a' is a directory or a table"),
        ("services: {a: {build: {secrets: [s]}}}", "there is no secret 's'"),
        ("services: {a: {build: ., extends: b}}", "extends is not supported"),
        ("include: [x]", "include is not supported"),
        ("services: {a: {build: {x-bake: {bogus: 1}}}}", "x-bake has no 'bogus'"),
        ("services: {a: {build: '${X:?is needed}'}}", "the variable X is required: is needed"),
        ("services: {a: {build: '${'}}", "a dollar that is no variable is written"),
        ("services:\n  a: [\n", "c.yml:3: this is no YAML"),
        ("a: !!python/object:os.system x", "this is no YAML"),
        ("[]", "this is no compose file"),
    ],
)
def test_what_makes_no_sense_is_refused(folder: Path, text: str, message: str) -> None:
    """The message names the file and the thing."""
    (folder / "c.yml").write_text(text)
    with pytest.raises(BakeError, match=message) as caught:
        read_definition(["c.yml"])
    assert str(caught.value).startswith("c.yml")


def test_aliases_cannot_make_too_much() -> None:
    """A small file that stands for millions of values is refused, and soon."""
    rows = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    rows += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 9)]
    with pytest.raises(BakeError, match="aliases make too much"):
        parse_yaml("\n".join(rows), "bomb.yml")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("$A-${A}", "1-1"),
        ("$$A", "$A"),
        ("${N}", ""),
        ("${N:-d}${E:-d}${E-d}${N-d}", "ddd"),
        ("${A:+r}${E:+r}${E+r}${N+r}", "rr"),
        ("${N:-${E:-${A}}}", "1"),
        ("${A:?no}", "1"),
    ],
)
def test_interpolation(text: str, expected: str) -> None:
    """Each form has the value that compose gives it."""
    assert interpolated(text, {"A": "1", "E": ""}) == expected


@pytest.mark.parametrize("text", ["${", "${A", "${1}", "$1", "${A b}", "${N:?}", "${N?x}"])
def test_interpolation_refuses(text: str) -> None:
    """What is no variable, and what is required and missing."""
    with pytest.raises(UsageError):
        interpolated(text, {"A": "1"})


def test_env_files(folder: Path) -> None:
    """Quotes, comments, references and exports; what is set already wins; a line that is none is refused."""
    (folder / ".env").write_text("# c\nA=1 # note\nexport B='$A'\nC=\"${A}\\n\"\n\nD=x#y\nSET=file\n")
    read = with_env_file({"SET": "env"})
    assert read == {"A": "1", "B": "$A", "C": "1\n", "D": "x#y", "SET": "env"}
    (folder / ".env").write_text("A=1\nnothing\n")
    with pytest.raises(BakeError, match=r"\.env:2: 'nothing' is not NAME=VALUE"):
        with_env_file({})
