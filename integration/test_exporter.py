"""Exporters that are named when the result is known, and policies, on real engines."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import pytest

from integration.contexts import make_context
from integration.images import build_image
from mobysession import BuildFailed, UnsupportedByEngine
from mobysession.services.exporter import BuiltResult, Exporter, FoundExporter
from mobysession.services.filesend import DirectoryTarget, FileTarget
from mobysession.services.policy import Policy

if TYPE_CHECKING:
    from pathlib import Path

    from integration.engines import Engine

#: The Engine API of Docker 28.1.
EXPORTER_SINCE = (1, 49)


@pytest.fixture
def context(tmp_path: Path) -> Path:
    return make_context(tmp_path / "context", "FROM scratch\nCOPY a /a\nLABEL team=greetings\n", {"a": "content"})


def test_a_function_decides_where_the_result_goes(engine: Engine, context: Path, tmp_path: Path) -> None:
    """It sees the image's configuration; what it names is sent after what the build itself asked for."""
    seen: list[BuiltResult] = []
    held, own = io.BytesIO(), tmp_path / "own"

    def find(result: BuiltResult) -> list[FoundExporter]:
        seen.append(result)
        target = DirectoryTarget(path=tmp_path / "found")
        return [FoundExporter("local", target=target), FoundExporter("tar", target=FileTarget(held))]

    if engine.api < EXPORTER_SINCE:
        with pytest.raises(UnsupportedByEngine, match=r"does not ask for exporters; Docker 28\.1"):
            build_image(engine, context, services=[Exporter(find)])
        assert not seen
        return
    result = build_image(engine, context, services=[Exporter(find)], outputs=[f"type=local,dest={own}"])
    (found,) = seen
    assert found.image_config is not None
    assert found.image_config["config"]["Labels"] == {"team": "greetings"}
    assert len(found.refs) == 1
    assert (own / "a").read_text() == (tmp_path / "found" / "a").read_text() == "content"
    assert held.getvalue()
    assert sorted(output.exporter for output in result.outputs) == [0, 1, 2]


def test_a_function_that_fails_fails_the_build(engine: Engine, context: Path) -> None:
    """The engine repeats our words."""
    if engine.api < EXPORTER_SINCE:
        pytest.skip("this engine does not ask for exporters")

    def find(result: BuiltResult) -> list[FoundExporter]:
        raise KeyError("nobody sees this")

    with pytest.raises(BuildFailed, match="the exporter function failed with KeyError"):
        build_image(engine, context, services=[Exporter(find)])


def test_a_policy_that_would_not_be_asked_is_told_so(engine: Engine, context: Path) -> None:
    """No engine before 29.1 asks one; a build that goes on without would be worse than none."""
    if engine.api >= (1, 52):
        pytest.skip("this engine may ask")
    with pytest.raises(UnsupportedByEngine, match=r"asks no policy on sources; Docker 29\.1"):
        build_image(engine, context, services=[Policy(lambda source: False)])
