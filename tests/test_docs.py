"""What README.md and docs/ show is true: every example runs, and prints what they say.

Examples are run against the fake daemon here; those whose output only an engine can give, in
`integration/test_docs.py`. None is left out: a block without a name, or one that neither table has, fails.
"""

from __future__ import annotations

import ast
import re
import sys
import textwrap
from collections import Counter
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import pytest
import trio

from mobysession import errors, limits
from mobysession.build.options import BuildOptions
from mobysession.cli.build import add_options
from mobysession.cli.parser import Parser
from mobysession.testing import FakeDaemon
from tests.docs_examples import (
    DOCUMENTS,
    ON_ENGINE,
    ROOT,
    Example,
    Ran,
    commands,
    examples,
    files,
    normalised,
    run,
    write_files,
)

if TYPE_CHECKING:
    import argparse
    from pathlib import Path


@dataclass(frozen=True)
class Fake:
    """How an example is run against the fake daemon.

    Attributes:
        as_test: it is a test module, for pytest.
        protoc: it needs what protoc makes of the document's greeter.proto.
        any_order: the engine's steps have no fixed order, and may come from its cache.
    """

    as_test: bool = False
    protoc: bool = False
    any_order: bool = False


#: Examples that the fake daemon can answer.
ON_FAKE = {
    "wire:listener": Fake(),
    "attaching:own-dialer": Fake(),
    "attaching:no-program": Fake(),
    "attaching:command": Fake(),
    "wire:inspect": Fake(),
    "readme:trio": Fake(),
    "readme:blocking": Fake(),
    "readme:cli": Fake(),
    "readme:completion": Fake(),
    "readme:secret": Fake(),
    "readme:cli-secret": Fake(),
    "readme:protoc": Fake(),
    "readme:own-servicer": Fake(protoc=True),
    "readme:probe": Fake(),
    "asks:blocking": Fake(),
    "asks:trio": Fake(),
    "asks:asyncio": Fake(),
    "asks:secret-value": Fake(),
    "asks:secret-sources": Fake(),
    "asks:secret-function": Fake(),
    "asks:cache-mount": Fake(),
    "asks:copy-link": Fake(),
    "asks:login-mapping": Fake(),
    "asks:login-function": Fake(),
    "asks:login-none": Fake(),
    "asks:ssh-optional": Fake(),
    "asks:ssh-missing": Fake(),
    "asks:ssh-key": Fake(),
    "asks:transfers": Fake(),
    "asks:explain": Fake(),
    "asks:ignored": Fake(),
    "asks:own-ignore": Fake(),
    "asks:why": Fake(),
    "bake:dictionary": Fake(),
    "bake:error": Fake(),
    "bake:list": Fake(),
    "bake:print": Fake(),
    "bake:python": Fake(),
    "builds:keywords": Fake(),
    "builds:result": Fake(any_order=True),
    "builds:secrets": Fake(),
    "docker-py:patch": Fake(),
    "keeping-house:cache": Fake(),
    "keeping-house:export": Fake(),
    "keeping-house:history": Fake(),
    "llb:dump": Fake(),
    "migrating:shell": Fake(),
    "errors:cause": Fake(),
    "errors:bad-build": Fake(),
    "errors:bad-options": Fake(),
    "errors:unknown-option": Fake(),
    "errors:bad-host": Fake(),
    "errors:two-addresses": Fake(),
    "files:explain": Fake(),
    "files:mapping": Fake(),
    "many:together": Fake(),
    "many:errors": Fake(),
    "many:order": Fake(),
    "many:no-node": Fake(),
    "memory:state": Fake(),
    "memory:store": Fake(),
    "memory:damaged": Fake(),
    "memory:daemons": Fake(),
    "memory:show": Fake(),
    "memory:client": Fake(),
    "memory:no-key-ring": Fake(),
    "memory:sessions-ls": Fake(),
    "memory:sessions-inspect": Fake(),
    "memory:sessions-abort": Fake(),
    "memory:inbox": Fake(),
    "progress:rawjson": Fake(),
    "progress:watch": Fake(),
    "progress:watch-blocking": Fake(),
    "progress:watch-asyncio": Fake(),
    "progress:own-view": Fake(),
    "progress:timeline": Fake(),
    "progress:trace": Fake(),
    "recording:record": Fake(),
    "recording:show": Fake(),
    "recording:program": Fake(),
    "recording:managed": Fake(),
    "recording:replay": Fake(),
    "recording:serve": Fake(),
    "recording:test": Fake(),
    "services:directories": Fake(),
    "services:outputs": Fake(),
    "services:upload": Fake(),
    "services:traces": Fake(),
    "services:doctor": Fake(),
    "services:own-service": Fake(protoc=True),
    "services:logins": Fake(),
    "services:secrets": Fake(),
    "services:ssh": Fake(),
    "services:no-ssh": Fake(),
    "services:content": Fake(),
    "services:exporter": Fake(),
    "services:policy": Fake(),
    "services:access": Fake(),
    "sessions:raw": Fake(),
    "sessions:dial": Fake(),
    "sessions:manager": Fake(),
    "sessions:config": Fake(),
    "sessions:runs": Fake(),
    "sessions:once": Fake(),
    "sessions:interrupt": Fake(),
    "sessions:events": Fake(),
    "sessions:registry": Fake(),
    "sessions:middleware": Fake(),
    "sessions:dispatch": Fake(),
    "sessions:approvals": Fake(),
    "sessions:children": Fake(),
    "sessions:inbox": Fake(),
    "sessions:resume": Fake(),
    "sessions:inspect": Fake(),
    "sessions:cli": Fake(),
    "testing:fixtures": Fake(as_test=True),
    "testing:caller": Fake(),
    "testing:script": Fake(as_test=True),
    "testing:faults": Fake(as_test=True),
}
#: Files that examples need and no document shows, by document.
MORE_FILES = {"testing": {"hello/greeting.txt": "Hello, NAME!\n"}}

ALL = [(path, example) for path in DOCUMENTS for example in examples(path)]
RUN_HERE = [(path, example) for path, example in ALL if example.id in ON_FAKE]


def promised(ran: Ran, example: Example, *, any_order: bool) -> None:
    """Fail where a command ended or printed otherwise than the document says."""
    where = f"{example.document}:{example.line}: {ran.what}"
    assert ran.status == example.exits, f"{where}: status {ran.status}\n{ran.printed}"
    if ran.promised is None:
        return
    printed, shown = normalised(ran.printed), normalised(ran.promised)
    if any_order:
        printed, shown = ("\n".join(sorted(_steps(text))) for text in (printed, shown))
    assert printed == shown, f"{where} prints something else"


def _steps(text: str) -> list[str]:
    return [re.sub(r"^(cached|done) ", "", line) for line in text.splitlines()]


@pytest.mark.slow
@pytest.mark.parametrize(("path", "example"), RUN_HERE, ids=[example.id for _, example in RUN_HERE])
async def test_an_example_does_what_the_document_shows(path: Path, example: Example, tmp_path: Path) -> None:
    """An example of the documents runs, ends with the status that is said, and prints what is shown."""
    setup = ON_FAKE[example.id]
    write_files(tmp_path, MORE_FILES.get(path.stem, {}) | files(path))
    if setup.protoc:
        options = [f"--{name}={tmp_path}" for name in ("proto_path", "python_out", "grpc_python_out")]
        await trio.run_process([sys.executable, "-m", "grpc_tools.protoc", *options, "greeter.proto"])
    async with FakeDaemon.listen() as daemon:
        results = await trio.to_thread.run_sync(
            lambda: list(run(example, tmp_path, host=daemon.host, as_test=setup.as_test))
        )
    assert results
    for ran in results:
        promised(ran, example, any_order=setup.any_order)


def test_every_example_is_run() -> None:
    """Each ``python`` and ``console`` block has a name of its own, and is run here or on engines; no name is stale."""
    unnamed = [f"{example.document}:{example.line}" for _, example in ALL if not example.name]
    assert unnamed == [], "put <!-- example: NAME --> before these, and NAME into a table"
    names = Counter(example.id for _, example in ALL)
    assert names == Counter([*ON_FAKE, *ON_ENGINE])


def test_the_builds_table_has_every_option() -> None:
    """docs/builds.md has one line for each option of `build()`, and each option of the command line is in it."""
    rows = re.findall(r"^\| `(\w+)` \| (.*?) \| .* \|$", (ROOT / "docs/builds.md").read_text("utf-8"), re.MULTILINE)
    keywords = {field.name for field in fields(BuildOptions)} | {"endpoint", "progress", "on_status"}
    assert Counter(name for name, _ in rows) == Counter(keywords)
    written = set(re.findall(r"--?[a-z][a-z-]*", " ".join(column for _, column in rows)))
    assert written - {"--host", "--context"} == _flags()


def _flags() -> set[str]:
    """Return the flags of ``mobysession build``, without the one that every verb has."""
    known: list[str] = []

    class Recorder(Parser):
        def add_argument(self, *names: str, **settings: Any) -> argparse.Action:
            known.extend(names)
            return super().add_argument(*names, **settings)

    add_options(Recorder(prog="mobysession build", description=None, synopsis=" PATH"))
    return {name for name in known if name.startswith("-")} - {"-h", "--help"}


def test_the_error_tree_is_the_real_one() -> None:
    """docs/errors.md shows the tree of mobysession/errors.py, with the classes and parents that there are."""
    tree = files(ROOT / "docs/errors.md")["error-tree.txt"]
    in_code = (errors.__doc__ or "").replace("``", "")
    assert textwrap.indent(tree, "    ") in in_code, "copy the tree into docs/errors.md"
    above: list[str] = []
    drawn = {}
    for line in tree.splitlines():
        depth, name = re.match(r"((?:[|+ ][ -]{3})*)(\w+)", line).groups()  # type: ignore[union-attr]  # fails if None
        above[len(depth) // 4 :] = [name]
        drawn[name] = above[-2] if len(above) > 1 else "Exception"
    real = {
        name: next(base.__name__ for base in value.__bases__)
        for name in errors.__all__
        if isinstance(value := getattr(errors, name), type) and issubclass(value, Exception)
    }
    assert drawn == real


def test_exit_statuses_are_those_of_the_table() -> None:
    """Only usage errors and LocalProtocolError end a command with another status than 1."""
    classes = [value for name in errors.__all__ if isinstance(value := getattr(errors, name), type)]
    statuses = {cls.__name__: cls.exit_status for cls in classes if issubclass(cls, errors.MobysessionError)}
    others = {name: status for name, status in statuses.items() if status != 1}
    assert others == {"UsageError": 2, "BakeError": 2, "LocalProtocolError": 70}


def test_variables_that_are_read_are_documented() -> None:
    """Every variable of docker, BuildKit, buildx and GitHub that this package knows by its name is in a document."""
    variable = re.compile(r"(?:BUILDX|BUILDKIT|DOCKER|ACTIONS|AWS|EXPERIMENTAL_BUILDKIT)_[A-Z0-9_]+")
    modules = [ast.parse(path.read_text("utf-8")) for path in (ROOT / "mobysession").rglob("*.py")]
    texts = {node.value for module in modules for node in ast.walk(module) if isinstance(node, ast.Constant)}
    known = {text for text in texts if isinstance(text, str) and variable.fullmatch(text)}
    documented = "".join(path.read_text("utf-8") for path in DOCUMENTS)
    # A name of Python's, in an __all__.
    assert [name for name in sorted(known - {"DOCKER_HUB_KEY"}) if name not in documented] == []


def test_links_between_documents_lead_somewhere() -> None:
    """A relative link in a document names a file that is there."""
    for path in DOCUMENTS:
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", path.read_text("utf-8")):
            assert (path.parent / target).is_file(), f"{path.name}: {target}"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("writing sha256:49b0c9d7181ef730 done", "writing DIGEST done"),
        ("#7 0.209 Hello", "#7 TIME Hello"),
        ("#1 DONE 0.0s", "#1 DONE TIME"),
        ("ready       3.3 ms, round trip 0.34 ms", "ready       TIME, round trip TIME"),
        ("engine      28.5.2+dfsg4, API 1.51", "engine      VERSION, VERSION"),
        ("x  process 4711     2026-11-21 09:00:00  y", "x  process PID DATE  y"),
        ("tcp://10.0.0.5:2375 refused 3 times", "tcp://10.0.0.5:2375 refused 3 times"),
    ],
)
def test_only_what_varies_is_replaced(text: str, expected: str) -> None:
    """IDs, times and versions are compared as words, all else as it stands."""
    assert normalised(text) == expected


def test_a_console_block_is_taken_apart() -> None:
    """Each command of a ``console`` block has its continuation lines, and the output behind it."""
    first, second = commands("$ one \\\n> --two\nout\n> put\n$ three\n")
    assert (first.line, first.output) == ("one \\\n--two", "out\n> put\n")
    assert (second.line, second.output) == ("three", "")


def test_blocks_are_found_with_their_markers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files, examples, outputs and unmarked blocks of a document are told apart."""
    monkeypatch.setattr("tests.docs_examples.ROOT", tmp_path)
    document = tmp_path / "doc.md"
    document.write_text(
        "<!-- file: a/b.txt -->\n```text\nfile\n```\n\n<!-- example: one exits: 3 -->\n```python\n1\n```\n\n"
        "<!-- output -->\n```text\nprinted\n```\n\n```console\n$ two\n```\n\n```sh\nnot run\n```\n"
    )
    assert files(document) == {"a/b.txt": "file\n"}
    one, two = examples(document)
    assert (one.name, one.language, one.code, one.output, one.exits) == ("one", "python", "1\n", "printed\n", 3)
    assert (two.id, two.language, two.output) == ("doc:17", "console", None)


def test_the_bounds_are_the_real_ones():
    """The table of bounds in docs/wire.md has the values of `mobysession.limits`."""
    rows = re.findall(r"^\| (`[A-Z_`, ]+`) \| ([^|]+) \|", (ROOT / "docs/wire.md").read_text(), re.MULTILINE)
    assert len(rows) > 30
    units = {"KiB": limits.KIB, "MiB": limits.MIB}
    for names, values in rows:
        told = [value.split() for value in values.split(", ")]
        assert [int(number) * units.get("".join(unit), 1) for number, *unit in told] == [
            getattr(limits, name.strip("`")) for name in names.split(", ")
        ], names
