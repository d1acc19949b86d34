"""``mobysession bake``: what is printed, and what the options are short for."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import pytest

from mobysession.build.calls import Call, CallAnswer
from mobysession.cli.build import print_answer

if TYPE_CHECKING:
    from pathlib import Path

    from mobysession.testing import BlockingFakeDaemon
    from tests.cli.conftest import Cli

HCL = """\
variable "TAG" {
  default     = "1"
  description = "Of all images."
}
variable "NUMBERS" {
  type    = list(number)
  default = [1, 2]
}
group "default" {
  targets = ["a", "b"]
}
target "a" {
  description       = "The first."
  dockerfile-inline = "FROM scratch"
  tags              = ["a:${TAG}"]
}
target "b" {
  dockerfile-inline = "FROM scratch"
}
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work where there is a bake file."""
    (tmp_path / "docker-bake.hcl").write_text(HCL)
    monkeypatch.chdir(tmp_path)


def test_a_bake_talks_on_stderr(cli: Cli, fake_docker_host: BlockingFakeDaemon) -> None:
    """Steps with the names of their targets, and the IDs of images without a name; stdout stays empty."""
    ran = cli("bake", "--progress", "plain")
    assert (ran.status, ran.out) == (0, "")
    # A step that two targets share has the name of the one that came first.
    assert re.search(r"\[[ab] internal\] load build definition", ran.err)
    assert "b: sha256:" in ran.err


def test_a_quiet_bake_prints_ids(cli: Cli, fake_docker_host: BlockingFakeDaemon) -> None:
    """One a line."""
    ran = cli("bake", "--progress", "quiet", "--metadata-file", "metadata.json")
    assert (ran.status, ran.err, ran.out.count("sha256:")) == (0, "", 2)
    with open("metadata.json", encoding="utf-8") as file:
        assert sorted(json.load(file)) == ["a", "b"]


def test_print_shows_what_would_be_built(cli: Cli) -> None:
    """With overrides, variables and shorthands in it, and without an engine."""
    options = ("--push", "--no-cache", "--pull", "--provenance=mode=max", "--sbom=false", "--var", "TAG=2")
    ran = cli("bake", "--print", "--set", "*.args.X=1", *options, "a")
    assert ran.status == 0, ran.err
    shown = json.loads(ran.out)
    assert shown["group"] == {"default": {"targets": ["a"]}}
    assert shown["target"]["a"]["tags"] == ["a:2"]
    assert shown["target"]["a"]["args"] == {"X": "1"}
    assert shown["target"]["a"]["output"] == [{"push": "true", "type": "image"}]
    assert (shown["target"]["a"]["no-cache"], shown["target"]["a"]["pull"]) == (True, True)
    attests = [{"disabled": True, "type": "sbom"}, {"mode": "max", "type": "provenance"}]
    assert shown["target"]["a"]["attest"] == attests
    for option in ("--check", "--call=check"):
        assert json.loads(cli("bake", "--print", option, "a").out)["target"]["a"]["call"] == "check"


@pytest.mark.parametrize(
    ("call", "error", "status", "out", "err"),
    [
        ("check", "", 1, "a\n\nCheck complete, 1 warning has been found!\n", ""),
        ("check,ignorestatus=true", "", 0, "a\n\nCheck complete, 1 warning", ""),
        ("check,format=json", "", 1, '{"warnings": [{}]}\n', ""),
        ("check", "no such line", 1, "a\n\nCheck complete", "ERROR: a: no such line\n"),
    ],
)
def test_answers_are_printed_by_target(
    capsys: pytest.CaptureFixture[str], call: str, error: str, status: int, out: str, err: str
) -> None:
    """Text below the name, JSON as it is; what ends the command is the status, and a check that came to no end."""
    data = {"warnings": [{}], "buildError": {"message": error}}
    answer = CallAnswer(name="check", data=data, json='{"warnings": [{}]}', status=0 if error else 1, error=error)
    asked = Call.parse(call)
    assert asked is not None
    assert print_answer(answer, asked, "Dockerfile", target="a") == status
    printed = capsys.readouterr()
    assert printed.out.startswith(out)
    assert printed.err.startswith(err)
    assert bool(printed.err) == bool(err)


def test_list_shows_what_there_is(cli: Cli) -> None:
    """As a table, or as JSON."""
    assert cli("bake", "--list", "targets").out == ("TARGET   DESCRIPTION\ndefault  a, b\na        The first.\nb\n")
    assert cli("bake", "--list=variables").out == (
        "VARIABLE  TYPE          VALUE   DESCRIPTION\nNUMBERS   list(number)  [1, 2]\n"
        "TAG                     1       Of all images.\n"
    )
    listed = json.loads(cli("bake", "--list", "targets,format=json").out)
    assert listed[0] == {"name": "default", "targets": ["a", "b"], "group": True}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("nope",), "there is no target 'nope'"),
        (("--set", "a"), "--set 'a' is not TARGET.KEY=VALUE"),
        (("--var", "a"), "--var 'a' is not NAME=VALUE"),
        (("--list", "all"), "--list 'all' is unknown"),
        (("--print", "--list", "targets"), "--print and --list exclude each other"),
        (("-f", "missing.hcl"), "missing.hcl: cannot be read"),
        (("--set", "a.network=host"), "the definition needs what was not allowed: network.host (target a)"),
    ],
)
def test_what_makes_no_sense_ends_with_status_2(cli: Cli, arguments: tuple[str, ...], message: str) -> None:
    """And one line that says what."""
    ran = cli("bake", *arguments)
    assert (ran.status, ran.out) == (2, "")
    assert f"ERROR: {message}" in ran.err
