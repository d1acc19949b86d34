"""The examples of README.md and docs/ on real engines: those that only an engine can answer, and the README's others.

They build from ``busybox``, which comes from a registry; here the base image takes its place, in what the documents
show as in what is run. The output shown is that of an engine 28.5.2 with a graph driver. Engines before Docker 23 and
those that keep images in containerd use other words, so that only statuses are compared there.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from tests.docs_examples import DOCUMENTS, ON_ENGINE, Example, examples, files, normalised, run, write_files

if TYPE_CHECKING:
    from pathlib import Path

    from integration.engines import Engine

#: Those that the fake daemon can answer too, and that an engine must answer alike.
_ALSO = {
    "readme:trio",
    "readme:blocking",
    "readme:cli",
    "readme:secret",
    "readme:cli-secret",
    "readme:probe",
    "builds:result",
    "builds:secrets",
    "asks:ssh-key",
    "errors:cause",
    "errors:bad-build",
}
_NAMES = ON_ENGINE | _ALSO
#: The Docker version whose own frontend has what an example shows.
_SINCE = {"llb:graph": 28, "asks:heredoc": 23, "asks:check": 27, "asks:warnings": 27, "builds:check": 27}
_EXAMPLES = [(path, example) for path in DOCUMENTS for example in examples(path) if example.id in _NAMES]
#: What an engine may do in another order, from its cache, or with other sizes, because the base image has another name.
_LOOSE = (
    (re.compile(r"^#\d+ ", re.MULTILINE), "# "),
    (re.compile(r"^# CACHED$", re.MULTILINE), "# DONE TIME"),
    (re.compile(r"^(cached|done) ", re.MULTILINE), "STATE "),
    (re.compile(r"\b[\d.]+[kMG]?B\b"), "SIZE"),
    (re.compile(r"(SIZE) (?:TIME )?done|(layers) (?:TIME )?done|( docker\.io/\S+) (?:TIME )?done"), r"\1\2\3 done"),
)


@pytest.mark.parametrize(("path", "example"), _EXAMPLES, ids=[example.id for _, example in _EXAMPLES])
def test_an_example_does_the_same_on_an_engine(path: Path, example: Example, engine: Engine, tmp_path: Path) -> None:
    """An example of the documents runs on each engine; on those that have the words shown, it prints what is shown."""
    old = engine.api < (1, 42)
    if example.name == "old-engine" and not old:
        pytest.skip("it shows what this engine does have")
    if engine.major < _SINCE.get(example.id, 0):
        pytest.skip("it shows what this engine's frontend does not have")
    write_files(tmp_path, {name: _rebased(text) for name, text in files(path).items()})
    rebased = replace(example, code=_rebased(example.code), output=_rebased(example.output) if example.output else None)
    for ran in run(rebased, tmp_path, host=engine.host):
        assert ran.status == example.exits, f"{ran.what}: status {ran.status}\n{ran.printed}"
        if ran.promised is not None and (old == (example.name == "old-engine")) and not engine.containerd_image_store:
            missing = set(_loosely(ran.promised).splitlines()) - set(_loosely(ran.printed).splitlines())
            assert not missing, f"{ran.what} does not print this; it prints\n{ran.printed}"


def _rebased(text: str) -> str:
    return text.replace("busybox", "mobysession-base")


def _loosely(text: str) -> str:
    text = normalised(text)
    for pattern, word in _LOOSE:
        text = pattern.sub(word, text)
    return text


def test_every_engine_example_is_there() -> None:
    """No name in the lists of this test is stale."""
    assert {example.id for _, example in _EXAMPLES} == _NAMES
