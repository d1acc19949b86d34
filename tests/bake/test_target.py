"""What targets come to: every rule of merging, inheritance, groups, links and overrides."""

from __future__ import annotations

import json
from typing import Any

import pytest

from mobysession import limits
from mobysession.bake.definition import Definition, platforms_of
from mobysession.bake.read import read_definition
from mobysession.errors import BakeError, UsageError

CACHE_A = {"ref": "a", "type": "registry"}
CACHE_B = {"ref": "b", "type": "registry"}


def resolved(targets: dict[str, Any], *names: str, sets: tuple[str, ...] = (), **groups: list[str]) -> dict[str, Any]:
    """Return the targets that a definition comes to."""
    return resolved_of(targets, groups, *names, sets=sets)


def resolved_of(
    targets: dict[str, Any], groups: dict[str, list[str]], *names: str, sets: tuple[str, ...] = ()
) -> dict[str, Any]:
    """Return the targets that a definition with groups comes to."""
    document = {"target": targets, "group": {name: {"targets": inner} for name, inner in groups.items()}}
    return read_definition([document]).select(names, sets).targets


@pytest.mark.parametrize(
    ("attribute", "parent", "child", "expected"),
    [
        ("context", "p", "c", "c"),
        ("dockerfile", "p", "c", "c"),
        ("dockerfile-inline", "FROM p", "FROM c", "FROM c"),
        ("description", "p", "", "p"),
        ("target", "p", "c", "c"),
        ("call", "check", "build", "build"),
        ("network", "none", "default", "default"),
        ("shm-size", "1m", "2m", "2m"),
        ("pull", True, False, False),
        ("no-cache", False, True, True),
        ("tags", ["p"], ["c"], ["c"]),
        ("tags", ["p"], [], []),
        ("tags", ["p"], None, ["p"]),
        ("platforms", ["linux/amd64"], ["linux/arm64"], ["linux/arm64"]),
        ("annotations", ["a=1"], ["b=2", "a=1"], ["a=1", "b=2"]),
        ("no-cache-filter", ["p"], ["c", "p"], ["p", "c"]),
        ("ulimits", ["nofile=1:1"], ["nproc=2:2"], ["nofile=1:1", "nproc=2:2"]),
        ("entitlements", ["ssh"], ["network.host"], ["ssh", "network.host"]),
        ("args", {"A": "p", "B": "p"}, {"A": "c", "B": None, "C": None}, {"A": "c", "B": "p"}),
        ("labels", {"A": "p"}, {"B": "c"}, {"A": "p", "B": "c"}),
        ("extra-hosts", {"a": "1.1.1.1"}, {"a": "2.2.2.2"}, {"a": "2.2.2.2"}),
        ("contexts", {"a": "p", "b": "p"}, {"a": "", "c": "c"}, {"b": "p", "c": "c"}),
        ("cache-from", ["a"], ["b"], [CACHE_A, CACHE_B]),
        ("cache-from", ["a"], ["a"], [CACHE_A]),
        ("cache-to", ["a"], ["b"], [CACHE_B]),
        ("output", ["type=docker"], ["type=image"], [{"type": "image"}]),
        ("secret", ["id=a,src=p", "id=p"], ["id=a,env=C", "id=c"], [{"id": "a", "env": "C"}, {"id": "p"}, {"id": "c"}]),
        ("ssh", ["default", "p"], ["default=k1,k2"], [{"id": "default", "paths": ["k1", "k2"]}, {"id": "p"}]),
        (
            "attest",
            ["type=sbom", "type=provenance"],
            ["type=sbom,disabled=true"],
            [{"disabled": True, "type": "sbom"}, {"type": "provenance"}],
        ),
    ],
)
def test_what_a_target_has_goes_over_what_it_inherits(attribute: str, parent: Any, child: Any, expected: Any) -> None:
    """Each attribute replaces or adds, as buildx has it."""
    targets = resolved({"p": {attribute: parent}, "c": {"inherits": ["p"], attribute: child}}, "c")
    assert targets["c"][attribute] == expected


def test_of_several_parents_the_last_counts() -> None:
    """Parents come in the order of ``inherits``, each with all that it inherits itself, also from the same one."""
    targets = {
        "root": {"args": {"X": "root", "Y": "root"}},
        "a": {"inherits": ["root"], "args": {"X": "a"}},
        "b": {"inherits": ["root"], "args": {"Y": "b"}},
        "c": {"inherits": ["a", "b"]},
    }
    assert resolved(targets, "c")["c"]["args"] == {"X": "root", "Y": "b"}


def test_several_files_say_more_of_one_target() -> None:
    """A later file adds to what an earlier one says, and a group of it takes the place of the earlier one's."""
    first = {"target": {"a": {"args": {"X": "1"}, "tags": ["t"]}}, "group": {"default": {"targets": ["a"]}}}
    second = {"target": {"a": {"args": {"Y": "2"}}, "b": {}}, "group": {"default": {"targets": ["b", "a"]}}}
    targets = read_definition([first, second]).select().targets
    assert targets["a"]["args"] == {"X": "1", "Y": "2"}
    assert targets["a"]["tags"] == ["t"]
    assert list(targets) == ["b", "a"]


def test_groups_stand_for_targets_and_groups() -> None:
    """Nested ones are expanded, each target once."""
    chosen = resolved({"a": {}, "b": {}, "c": {}}, "all", all=["a", "some"], some=["b", "a", "c"])
    assert list(chosen) == ["a", "b", "c"]


def test_within_a_group_its_name_is_that_of_a_target() -> None:
    """By itself, and where groups hold each other."""
    assert list(resolved({"default": {}}, default=["default"])) == ["default"]
    assert list(resolved({"a": {}, "b": {}}, "a", a=["a", "b"])) == ["a", "b"]
    assert list(resolved({"b": {}, "c": {}}, "b", a=["b"], b=["a", "c"])) == ["b", "c"]


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ({"x": ["x"]}, "there is no target 'x', only a group of that name"),
        ({"x": ["a", "x"]}, "there is no target 'x', only a group of that name"),
        ({"x": ["y"], "y": ["x"]}, "there is no target 'x', only a group of that name"),
        ({"x": ["a", "y"], "y": []}, "there is no target 'y', only a group of that name"),
        ({"x": []}, "the group 'x' has no targets"),
    ],
)
def test_a_group_that_comes_to_nothing_is_refused(groups: dict[str, list[str]], message: str) -> None:
    """Nobody takes for built what was not."""
    with pytest.raises(BakeError, match=message):
        resolved_of({"a": {}}, groups, "x")


def test_many_groups_within_groups_are_expanded_at_once_or_refused() -> None:
    """Each is looked at once, however many ways lead to it; what is too deep for a stack is refused as such."""
    levels = {f"g{n}": [f"g{n + 1}", f"h{n + 1}"] for n in range(50)}
    levels |= {f"h{n}": [f"g{n + 1}", f"h{n + 1}"] for n in range(1, 50)}
    assert list(resolved_of({"g50": {}, "h50": {}}, levels, "g0")) == ["g50", "h50"]
    with pytest.raises(BakeError, match="nested too deeply"):
        resolved_of({"t": {}}, {f"g{n}": [f"g{n + 1}"] for n in range(5000)}, "g0")


def test_patterns_choose_targets_and_groups() -> None:
    """A star stands for any letters; one that nothing matches is refused."""
    assert sorted(resolved({"app-1": {}, "app-2": {}, "web": {}}, "app-*")) == ["app-1", "app-2"]
    with pytest.raises(UsageError, match="no target matches 'x\\*'"):
        resolved({"a": {}}, "x*")


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        ({"a": {"inherits": ["b"]}, "b": {"inherits": ["a"]}}, "inherit from each other in a circle: a -> b -> a"),
        ({"a": {"inherits": ["nope"]}}, "there is no target 'nope', which 'a' inherits from"),
        ({"a": {"contexts": {"x": "target:a"}}}, "as contexts in a circle: a -> a"),
        ({"a": {"contexts": {"x": "target:b"}}, "b": {"contexts": {"x": "target:a"}}}, "circle: a -> b -> a"),
        ({"a": {"bogus": 1}}, "a target has no attribute 'bogus'"),
        ({"a": {"tags": "x"}}, "tags takes a list, not a text"),
        ({"a": {"args": ["x"]}}, "args takes a table, not a list"),
        ({"a": {"pull": "perhaps"}}, "pull needs true or false"),
        ({"a": {"output": [{"dest": "x"}]}}, "an output has no type"),
        ({"a": {"secret": [{"name": "x"}]}}, "an entry of secret has no 'name'"),
        ({"a b": {}}, "'a b' is no name of a target"),
        ({"a": {"name": "x"}}, "which only a matrix needs"),
        ({"b": {}}, "there is no target 'a'"),
    ],
)
def test_what_makes_no_sense_is_refused(targets: dict[str, Any], message: str) -> None:
    """The message names the thing."""
    with pytest.raises(BakeError, match=message):
        resolved(targets, "a")


def test_a_linked_target_is_built_with_the_one_that_needs_it() -> None:
    """It has no output of its own unless it was asked for too, and its entitlements are needed by both."""
    targets = {"a": {"contexts": {"x": "target:b"}}, "b": {"tags": ["b"], "network": "host"}}
    alone = resolved(targets, "a")
    assert alone["b"]["output"] == [{"type": "cacheonly"}]
    assert alone["a"]["entitlements"] == ["network.host"]
    assert "output" not in resolved(targets, "a", "b")["b"]


def test_a_linked_target_has_all_platforms() -> None:
    """One that lacks some is refused before anything is built."""
    several = ["linux/amd64", "linux/arm64"]
    targets = {"a": {"contexts": {"x": "target:b"}, "platforms": [*several, "linux/386"]}, "b": {"platforms": several}}
    with pytest.raises(BakeError, match="'b' is not built for all platforms of 'a'"):
        resolved(targets, "a")


def test_one_text_may_name_several_platforms() -> None:
    """Those of linked targets are compared one by one."""
    both = "linux/amd64,linux/arm64"
    targets = {"a": {"contexts": {"x": "target:b"}, "platforms": ["linux/arm64", "linux/amd64"]}, "b": {}}
    chosen = resolved(targets, "a", sets=(f"b.platform={both}",))
    assert platforms_of(chosen["b"]) == ["linux/amd64", "linux/arm64"]
    with pytest.raises(BakeError, match="'b' is not built for all platforms of 'a'"):
        resolved(targets, "a", sets=(f"b.platform={both}", "a.platform=linux/386,linux/amd64"))


@pytest.mark.parametrize(
    ("override", "attribute", "expected"),
    [
        ("a.tags=x", "tags", ["x"]),
        ("a.tags+=x", "tags", ["t", "x"]),
        ("*.args.N=v=w", "args", {"A": "1", "N": "v=w"}),
        ("a.args.HERE", "args", {"A": "1", "HERE": "there"}),
        ("a.args.NOT_THERE", "args", {"A": "1"}),
        ("a.contexts.c=dir", "contexts", {"c": "dir"}),
        ("a.platform=linux/386", "platforms", ["linux/386"]),
        ("a.no-cache=1", "no-cache", True),
        ("a.cache-from=b", "cache-from", [CACHE_B]),
        ("a.cache-from+=b", "cache-from", [CACHE_A, CACHE_B]),
        ("a.output=type=local,dest=o", "output", [{"dest": "o", "type": "local"}]),
        ("a.network=host", "entitlements", ["network.host"]),
        ("a.annotations=a=b", "annotations", ["a=b"]),
        ("a.secrets=id=x,src=f", "secret", [{"id": "x", "src": "f"}]),
        ("a.secret.x=env=E", "secret", [{"id": "x", "env": "E"}]),
        ("a.push=true", "output", [{"push": "true", "type": "image"}]),
        ("a.load=true", "output", [{"type": "docker"}]),
    ],
)
def test_an_override(monkeypatch: pytest.MonkeyPatch, override: str, attribute: str, expected: Any) -> None:
    """``=`` replaces, ``+=`` adds to a list, tables change by name, the environment fills in arguments."""
    monkeypatch.setenv("HERE", "there")
    monkeypatch.delenv("NOT_THERE", raising=False)
    target = {"tags": ["t"], "args": {"A": "1"}, "cache-from": ["a"]}
    assert resolved({"a": target}, "a", sets=(override,))["a"][attribute] == expected


def test_an_override_is_inherited() -> None:
    """Who inherits from a target inherits what was set in it."""
    targets = resolved({"a": {}, "b": {"inherits": ["a"]}}, "b", sets=("a.args.X=1",))
    assert targets["b"]["args"] == {"X": "1"}


@pytest.mark.parametrize(
    ("outputs", "override", "expected"),
    [
        (["type=registry", "type=image"], "push=false", [{"push": "false", "type": "image"}]),
        (["type=local,dest=o"], "push=true", [{"dest": "o", "type": "local"}]),
        (["type=docker"], "push=true", [{"type": "docker"}, {"push": "true", "type": "image"}]),
        (["type=docker"], "load=true", [{"type": "docker"}]),
        (["type=local,dest=o"], "load=true", [{"dest": "o", "type": "local"}]),
        (["type=registry"], "load=true", [{"type": "registry"}, {"type": "docker"}]),
    ],
)
def test_push_and_load_change_outputs(outputs: list[str], override: str, expected: Any) -> None:
    """They add what is missing, and leave alone what has nothing to do with images."""
    assert resolved({"a": {"output": outputs}}, "a", sets=(f"a.{override}",))["a"]["output"] == expected


@pytest.mark.parametrize("override", ["a", "a.tags", ".tags=x", "b.tags=x", "a.inherits=b", "a.args=x", "a.bogus=x"])
def test_an_override_that_says_nothing_is_refused(override: str) -> None:
    """As is one of no target."""
    with pytest.raises(UsageError, match="--set"):
        resolved({"a": {}}, "a", sets=(override,))


def test_the_epoch_of_the_environment_is_an_argument(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the target has none of its own."""
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "7")
    targets = resolved({"a": {}, "b": {"args": {"SOURCE_DATE_EPOCH": "1"}}}, "a", "b")
    assert [targets[name]["args"]["SOURCE_DATE_EPOCH"] for name in ("a", "b")] == ["7", "1"]


def test_the_json_says_what_was_asked_for_and_can_be_read_again() -> None:
    """What has a meaning in templates is escaped, and the group ``default`` has what was asked for."""
    document = {"target": {"a": {"args": {"X": "$${Y} <b>"}}}}
    shown = read_definition([document]).select(["a"]).as_json()
    assert "\\u003cb\\u003e" in shown
    assert json.loads(shown)["group"] == {"default": {"targets": ["a"]}}
    assert read_definition([json.loads(shown)]).select().as_json() == shown


def test_there_is_a_bound_of_targets() -> None:
    """On both sides of it."""
    definition = Definition()
    for number in range(limits.MAX_BAKE_TARGETS):
        definition.add(f"t{number}", {})
    with pytest.raises(BakeError, match="more than"):
        definition.add("one-more", {})
