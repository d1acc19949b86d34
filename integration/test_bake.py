"""What targets come to: here and by ``docker buildx bake --print``, of the same files, letter for letter; and bakes.

The files are in `integration.bake_files`. A group that stands for a matrix of several lists has its targets in an order
that buildx takes from a map of Go, another one each time: there the orders are not compared.
"""

from __future__ import annotations

import json
import shutil
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import trio

from integration.images import BUILD_TIMEOUT
from mobysession.bake import bake, read_definition
from mobysession.errors import BuildFailed, UnsupportedByEngine
from mobysession.transport.endpoint import Endpoint

if TYPE_CHECKING:
    from integration.engines import Buildx, Engine
    from integration.images import Witness

FILES = Path(__file__).parent / "bake_files"
#: The first engine whose frontend takes contexts by name.
FIRST_WITH_CONTEXTS = 23
#: The first engine that keeps how its builds came about.
FIRST_WITH_HISTORY = 24


def _set(*overrides: str) -> list[str]:
    return ["-f", "full.json", *(word for override in overrides for word in ("--set", override))]


#: Arguments of both, and what the environment has besides.
CASES: dict[str, tuple[list[str], dict[str, str]]] = {
    "hcl": (["-f", "full.hcl", "default", "solo"], {}),
    "hcl-environment": (["-f", "full.hcl", "app"], {"TAG": "zz", "LIST": "p,q", "FLAG": "false", "N": "5"}),
    "hcl-json-variable": (["-f", "full.hcl", "app"], {"LIST_JSON": '["j"]', "SOURCE_DATE_EPOCH": "5"}),
    "hcl-more": (["-f", "more.hcl"], {}),
    "hcl-more-environment": (
        ["-f", "more.hcl"],
        {"NAMES": "x:1,y:2", "PORTS": "1,2", "NOTHING": "some", "plain": "no"},
    ),
    "inheritance": (["-f", "more.hcl", "diamond"], {}),
    "pattern": (["-f", "full.json", "mx*", "one"], {}),
    "json": (["-f", "full.json"], {}),
    "json-environment": (["-f", "full.json", "mx", "two"], {"V": "from-env", "NUM": "7"}),
    "merged": (["-f", "full.hcl", "-f", "full.json", "app", "one"], {}),
    "merged-otherwise": (["-f", "full.json", "-f", "more.hcl", "one"], {}),
    "set-lists": (
        _set("*.args.Z=1", "one.tags+=q", "one.tags+=r", "two.tags=only", "o*.platform=linux/arm64")
        + _set("two.output+=type=registry")[2:],
        {},
    ),
    "set-values": (
        _set("one.no-cache=1", "one.labels.x=y", "two.cache-from=a/b,c/d", "one.context=foo/../bar")
        + _set("one.annotations=index:a=b", "two.attest=type=sbom", "two.shm-size=1g", "two.target=t")[2:]
        + _set("two.extra-hosts.h=1.1.1.1", "two.call=check", "two.secrets=id=a,src=a.txt", "one.pull=true")[2:]
        + _set("two.contexts.c=docker-image://x", "two.dockerfile=D")[2:],
        {},
    ),
    "set-from-environment": (["-f", "full.json", "--set", "*.args.GIVEN", "--set", "*.args.MISSING"], {"GIVEN": "g"}),
    "set-inherited": (["-f", "full.json", "--set", "one.args.DEEP=1", "two"], {}),
    "push": (["-f", "full.json", "--set", "*.push=true", "one"], {}),
    "push-outputs": (["-f", "more.hcl", "--set", "*.push=true"], {}),
    "no-push": (["-f", "more.hcl", "--set", "*.push=false", "two"], {}),
    "load": (["-f", "full.json", "--set", "*.load=true", "one", "two"], {}),
    "compose": (["-f", "compose.yml"], {}),
    "compose-environment": (["-f", "compose.yml", "web.app"], {"TAG": "env", "X": "set", "NOPE": "given"}),
    "compose-merged": (["-f", "compose.yml", "-f", "over.yml"], {}),
    "compose-and-json": (["-f", "compose.yml", "-f", "full.json", "one", "lib", "web.app"], {}),
    "usual-names": ([], {}),
    "group-of-its-name": (["-f", "names.hcl"], {}),
    "groups-in-each-other": (["-f", "names.hcl", "one"], {}),
}
#: What both refuse.
REFUSED: dict[str, list[str]] = {
    "group-in-itself": ["-f", "names.hcl", "three"],
    "groups-in-each-other": ["-f", "names.hcl", "two"],
    "no-such-target": ["-f", "full.json", "nowhere"],
    "no-such-pattern": ["-f", "full.json", "no*"],
    "no-value": ["-f", "full.json", "--set", "one.tags"],
    "set-without-target": ["-f", "full.json", "--set", "nowhere.tags=x"],
    "set-unknown": ["-f", "full.json", "--set", "one.nothing=x"],
    "same-names": ["-f", "same.hcl"],
    "validation": ["-f", "invalid.hcl"],
    "circle-of-variables": ["-f", "circle.hcl"],
    "circle-of-contexts": ["-f", "links.hcl"],
    "no-syntax": ["-f", "syntax.hcl"],
}
BROKEN = {
    "same.hcl": 'target "default" {\n  matrix = { a = ["1", "2"] }\n}\n',
    "invalid.hcl": 'variable "V" {\n  validation {\n    condition = V != ""\n    error_message = "no"\n  }\n}\n'
    'target "default" {}\n',
    "circle.hcl": 'variable "A" {\n  default = B\n}\nvariable "B" {\n  default = A\n}\ntarget "default" {}\n',
    "links.hcl": 'target "default" {\n  contexts = { x = "target:b" }\n}\n'
    'target "b" {\n  contexts = { y = "target:default" }\n}\n',
    "syntax.hcl": 'target "default" {\n  args = [\n}\n',
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give a directory with all the files, as working directory."""
    directory = tmp_path / "files"
    shutil.copytree(FILES, directory)
    (directory / "env").rename(directory / ".env")
    (directory / "a.txt").write_text("a")
    for name, text in BROKEN.items():
        (directory / name).write_text(text)
    monkeypatch.chdir(directory)
    return directory


def _ours(arguments: list[str]) -> str:
    """Return what the same arguments print here."""
    files: list[str] = []
    sets: list[str] = []
    targets: list[str] = []
    rest = list(arguments)
    while rest:
        word = rest.pop(0)
        into = {"-f": files, "--set": sets}.get(word)
        (into if into is not None else targets).append(rest.pop(0) if into is not None else word)
    return read_definition(files).select(targets, sets).as_json()


def _sorted(shown: dict[str, Any]) -> dict[str, Any]:
    for group in shown["group"].values():
        group["targets"].sort()
    return shown


@pytest.mark.parametrize("case", CASES)
def test_targets_are_those_of_buildx(
    buildx: Buildx, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    """The JSON of ``--print`` is the same text, but for the order in groups of a matrix."""
    arguments, env = CASES[case]
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("HOME", str(tmp_path / "config"))
    config_dir = tmp_path / "config"
    ran = buildx.run("unix:///nowhere", "bake", "--print", *arguments, config_dir=config_dir, cwd=folder, env=env)
    assert ran.returncode == 0, ran.stderr.decode()
    theirs, ours = ran.stdout.decode(), _ours(arguments) + "\n"
    if theirs != ours:
        assert _sorted(json.loads(ours)) == _sorted(json.loads(theirs))
        assert len(ours) == len(theirs)


@pytest.mark.parametrize("case", REFUSED)
def test_what_buildx_refuses_is_refused(buildx: Buildx, folder: Path, tmp_path: Path, case: str) -> None:
    """Nothing that buildx finds wrong passes here, and each gets a message of one line."""
    config_dir = tmp_path / "config"
    ran = buildx.run("unix:///nowhere", "bake", "--print", *REFUSED[case], config_dir=config_dir, cwd=folder)
    assert ran.returncode != 0, ran.stdout.decode()
    with pytest.raises(ValueError, match=r"^[^\n]+$"):
        _ours(REFUSED[case])


DEFINITION: dict[str, Any] = {
    "group": {"default": {"targets": ["plain", "m"]}},
    "target": {
        "plain": {"dockerfile-inline": "FROM mobysession-base\nCOPY f /f\n", "tags": ["mobysession-bake:plain"]},
        "m": {
            "name": "m-${v}",
            "matrix": {"v": ["a", "b"]},
            "args": {"V": "${v}"},
            "dockerfile-inline": "FROM mobysession-base\nARG V\nRUN echo $V > /v\n",
            "tags": ["mobysession-bake:${v}"],
        },
        "linked": {
            "contexts": {"base": "target:plain"},
            "dockerfile-inline": "FROM base\nRUN cat /f > /g\nCOPY --from=base /f /h\n",
            "tags": ["mobysession-bake:linked"],
        },
        "each": {
            "platforms": ["linux/amd64", "linux/arm64"],
            "dockerfile-inline": "FROM scratch\nARG TARGETARCH\nCOPY f /f-$TARGETARCH\nENV FOR=$TARGETARCH\n",
        },
        "linked-each": {
            "contexts": {"base": "target:each"},
            "platforms": ["linux/amd64", "linux/arm64"],
            "dockerfile-inline": "FROM base\nARG TARGETARCH\nCOPY --from=base /f-$TARGETARCH /g-$TARGETARCH\n",
            "output": ["type=oci,dest=linked.tar"],
        },
        "broken": {"dockerfile-inline": "FROM mobysession-base\nRUN exit 3\n"},
        "slow": {"dockerfile-inline": "FROM mobysession-base\nRUN sleep 300\n", "no-cache": True},
    },
}


def _bake(engine: Engine, *targets: str, **options: Any) -> dict[str, Any]:
    async def run() -> dict[str, Any]:
        with trio.fail_after(BUILD_TIMEOUT):
            return await bake(targets, files=[DEFINITION], endpoint=Endpoint.parse(engine.host), **options)

    return trio.run(run)


@pytest.fixture
def context(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give a directory with a file in it, as working directory."""
    (tmp_path / "f").write_text("content")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_bake_builds_its_targets(engine: Engine, witness: Witness, context: Path) -> None:
    """Two targets and a matrix: each image has what its target says, and each result its name; the file has both."""
    results = _bake(engine, metadata_file=context / "metadata.json")
    assert sorted(results) == ["m-a", "m-b", "plain"]
    assert witness.text(results["m-a"].image_id, "/v") == "a\n"
    assert witness.text(results["m-b"].image_id, "/v") == "b\n"
    assert witness.text("mobysession-bake:plain", "/f") == "content"
    metadata = json.loads((context / "metadata.json").read_text())
    assert metadata == {name: result.metadata() for name, result in results.items()}
    recorded = engine.major >= FIRST_WITH_HISTORY
    assert all(("buildx.build.provenance" in of_target) is recorded for of_target in metadata.values())


def test_a_target_is_a_context_of_another(engine: Engine, witness: Witness, context: Path) -> None:
    """What comes out of one is what the other begins with, its directory included; old engines refuse it first."""
    if engine.major < FIRST_WITH_CONTEXTS:
        with pytest.raises(UnsupportedByEngine, match="target 'linked'"):
            _bake(engine, "linked")
        return
    (context / "f").write_text(str(context))
    results = _bake(engine, "linked")
    assert sorted(results) == ["linked", "plain"]
    assert witness.text(results["linked"].image_id, "/g") == str(context)
    assert witness.text(results["linked"].image_id, "/h") == str(context)
    assert not results["plain"].image_id


def test_a_target_of_several_platforms_is_a_context_of_another(
    containerd_engine: Engine, buildx: Buildx, context: Path, tmp_path: Path
) -> None:
    """For each platform what the first is there for it, files and configuration; the images are those of buildx."""
    assert sorted(_bake(containerd_engine, "linked-each")) == ["each", "linked-each"]
    ours = _images(context / "linked.tar")
    assert sorted(ours) == [("amd64", "FOR=amd64"), ("arm64", "FOR=arm64")]
    (context / "docker-bake.json").write_text(json.dumps(DEFINITION))
    ran = buildx.run(
        containerd_engine.host,
        "bake",
        "linked-each",
        config_dir=tmp_path / "config",
        cwd=context,
        timeout=BUILD_TIMEOUT,
    )
    assert ran.returncode == 0, ran.stderr.decode()
    assert _images(context / "linked.tar") == ours


def _images(path: Path) -> dict[tuple[str, str], str]:
    """Return the manifests' digests in an OCI archive, by architecture and last variable; attestations left out."""
    with tarfile.open(path) as archive:

        def read(name: str) -> dict[str, Any]:
            content = archive.extractfile(name)
            assert content is not None
            parsed: dict[str, Any] = json.load(content)
            return parsed

        def blob(digest: str) -> dict[str, Any]:
            return read(f"blobs/{digest.replace(':', '/')}")

        (index,) = read("index.json")["manifests"]
        found = {}
        for manifest in blob(index["digest"])["manifests"]:
            config = blob(blob(manifest["digest"])["config"]["digest"])
            if config["architecture"] != "unknown":
                found[config["architecture"], config["config"]["Env"][-1]] = manifest["digest"]
        return found


def test_the_first_failure_ends_all(engine: Engine, context: Path) -> None:
    """A target that would take minutes is cancelled, and the error names the one that failed."""
    with pytest.raises(BuildFailed, match="target 'broken'") as caught:
        _bake(engine, "slow", "broken")
    assert caught.value.exit_code == 3
