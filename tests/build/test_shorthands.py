"""What short options, build arguments and variables add to a build."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from mobysession._pb import sourcepolicy_pb2
from mobysession.build.exports import Output
from mobysession.build.options import BuildOptions
from mobysession.build.request import frontend_attributes, solve_request
from mobysession.build.shorthands import with_environment
from mobysession.errors import ContextError, UsageError

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("given", "outputs"),
    [
        ({"push": True}, [Output("registry")]),
        ({"load": True}, [Output("docker")]),
        ({"push": True, "load": True}, [Output("registry"), Output("docker")]),
        ({"push": True, "outputs": ["type=image,name=a"]}, [Output("image", attrs={"name": "a", "push": "true"})]),
        ({"push": True, "outputs": ["type=local,dest=a"]}, [Output("local", "a"), Output("registry")]),
        ({"load": True, "outputs": ["type=docker"]}, [Output("docker")]),
        ({"load": True, "outputs": ["type=docker,dest=a"]}, [Output("docker", "a"), Output("docker")]),
    ],
)
def test_push_and_load_are_outputs(given: dict[str, Any], outputs: list[Output]) -> None:
    """Each adds an output, unless there is one that it can be."""
    assert BuildOptions(**given).exports() == outputs


def test_variables_add_to_a_build(monkeypatch: pytest.MonkeyPatch) -> None:
    """But not over what is given."""
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "100")
    monkeypatch.setenv("DOCKER_DEFAULT_PLATFORM", "linux/arm64,linux/amd64")
    added = with_environment(BuildOptions())
    assert (added.build_args, added.built_for()) == ({"SOURCE_DATE_EPOCH": "100"}, ["linux/arm64", "linux/amd64"])
    given = BuildOptions(build_args={"SOURCE_DATE_EPOCH": "1"}, platforms=["linux/386"])
    assert with_environment(given) == given


def test_an_inline_cache_may_be_an_argument() -> None:
    """``BUILDKIT_INLINE_CACHE=1`` writes one, once."""
    options = BuildOptions(build_args={"BUILDKIT_INLINE_CACHE": "1"})
    assert [entry.type for entry in with_environment(options).exported_caches()] == ["inline"]
    both = BuildOptions(build_args={"BUILDKIT_INLINE_CACHE": "1"}, cache_to=["type=inline"])
    assert [entry.type for entry in with_environment(both).exported_caches()] == ["inline"]
    off = BuildOptions(build_args={"BUILDKIT_INLINE_CACHE": "0"})
    assert with_environment(off).exported_caches() == []


def test_a_frontend_may_be_an_argument() -> None:
    """``BUILDKIT_SYNTAX`` names one, as ``# syntax=`` does, and goes to the gateway."""
    options = BuildOptions(build_args={"BUILDKIT_SYNTAX": "a/b:1 x", "BUILDKIT_MULTI_PLATFORM": "1"})
    request = solve_request(options, ref="r", session_id="s", dockerfile="Dockerfile")
    assert request.Frontend == "gateway.v0"
    assert dict(request.FrontendAttrs) == {
        "filename": "Dockerfile",
        "image-resolve-mode": "local",
        "source": "a/b:1",
        "cmdline": "a/b:1 x",
        "multi-platform": "true",
        "build-arg:BUILDKIT_SYNTAX": "a/b:1 x",
        "build-arg:BUILDKIT_MULTI_PLATFORM": "1",
    }
    with pytest.raises(UsageError, match="BUILDKIT_SYNTAX is empty"):
        frontend_attributes(BuildOptions(build_args={"BUILDKIT_SYNTAX": " "}), dockerfile="D")


POLICY = {"rules": [{"action": "DENY", "selector": {"identifier": "docker-image://a"}}]}


def test_a_source_policy_is_json_or_a_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Given as a mapping, in a file, in the file of the variable, as JSON or as protobuf: it is the same policy."""
    expected = sourcepolicy_pb2.Policy(
        rules=[
            sourcepolicy_pb2.Rule(
                action=sourcepolicy_pb2.DENY, selector=sourcepolicy_pb2.Selector(identifier="docker-image://a")
            )
        ]
    )
    (tmp_path / "json").write_text(json.dumps(POLICY))
    (tmp_path / "protobuf").write_bytes(expected.SerializeToString())
    for given in (POLICY, tmp_path / "json", str(tmp_path / "protobuf")):
        options = with_environment(BuildOptions(source_policy=given))
        assert solve_request(options, ref="r", session_id="s", dockerfile="D").SourcePolicy == expected
    monkeypatch.setenv("EXPERIMENTAL_BUILDKIT_SOURCE_POLICY", str(tmp_path / "json"))
    assert with_environment(BuildOptions()).source_policy == POLICY


@pytest.mark.parametrize(
    ("content", "error"),
    [('{"rules": [{"action": "FORBID"}]}', UsageError), ('{"rule": []}', UsageError), ("[]", UsageError)],
)
def test_a_policy_with_a_slip_is_refused(tmp_path: Path, content: str, error: type[Exception]) -> None:
    """It would hold nothing up."""
    (tmp_path / "policy").write_text(content)
    with pytest.raises(error):
        with_environment(BuildOptions(source_policy=tmp_path / "policy"))
    with pytest.raises(ContextError, match="cannot be read"):
        with_environment(BuildOptions(source_policy=tmp_path / "none"))


def test_further_attributes_win() -> None:
    """What BuildKit knows and no option says can be said, and counts."""
    options = BuildOptions(target="a", frontend_attrs={"target": "b", "hostname": "h"})
    found = frontend_attributes(options, dockerfile="D")
    assert (found["target"], found["hostname"]) == ("b", "h")
