"""Graphs of LLB on real engines: what comes out, and what is said where it does not."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from integration.images import build_image
from mobysession import llb
from mobysession.errors import BuildFailed

if TYPE_CHECKING:
    from integration.engines import Engine
    from integration.images import Witness

BASE = llb.image("mobysession-base", resolve_mode="local")


def test_a_graph_becomes_an_image(engine: Engine, witness: Witness) -> None:
    """Commands with mounts, a secret, files that are made and copied, the result of a mount, a configuration."""
    built = (
        BASE.dir("/work")
        .env(WHO="me")
        .run(
            "cat /src/a.txt /run/secrets/token > /greeting && echo $WHO $PWD >> /greeting && touch /out/made",
            mounts=[
                llb.bind(llb.local("src", include=["*.txt"]), "/src", readonly=True),
                llb.bind(llb.scratch(), "/out"),
                llb.cache("/cache"),
                llb.tmpfs("/tmp"),
                llb.secret("token", required=True),
            ],
            name="greet",
        )
    )
    result = (
        llb.scratch()
        .copy(built, "/greeting", "/")
        .file(
            llb.mkdir("/d", mode=0o700),
            llb.mkfile("/d/file", "text", owner=(1, 2)),
            llb.copy(built.mount("/out"), "/made", "/d/"),
            llb.mkfile("/gone", ""),
            llb.rm("/gone"),
        )
    )
    image = build_image(
        engine,
        result,
        build_contexts={"src": {"a.txt": b"A\n", "b.log": b""}},
        secrets={"token": b"s3cret\n"},
        image_config={"Cmd": ["/greeting"], "Env": ["A=b"]},
        labels={"team": "a"},
        no_cache=True,
    )
    assert [step.name for step in image.steps if step.name == "greet"] == ["greet"]
    assert witness.read(image.image_id, "/greeting") == b"A\ns3cret\nme /work\n"
    tree = witness.tree(image.image_id, "/d")
    assert sorted(tree) == ["", "file", "made"] or sorted(tree) == ["file", "made"]
    config = witness.config(image.image_id)
    assert (config["Cmd"], config["Env"], config["Labels"]) == (["/greeting"], ["A=b"], {"team": "a"})


def test_a_failure_shows_the_line_of_python(engine: Engine) -> None:
    """Where the file was sent along; engines before Docker 23 do not say where a failure comes from."""
    definition = BASE.run("exit 3").definition(with_sources=True)
    with pytest.raises(BuildFailed) as caught:
        build_image(engine, definition)
    assert caught.value.exit_code == 3
    if engine.major >= 23:
        assert 'BASE.run("exit 3")' in caught.value.excerpt
        assert caught.value.dockerfile == "test_llb.py"


def test_a_path_that_is_missing_in_a_state(engine: Engine) -> None:
    """The hint does not speak of a build context, which a graph need not have."""
    with pytest.raises(BuildFailed) as caught:
        build_image(engine, BASE.copy(BASE.file(llb.mkfile("/a", "1")), "/nowhere", "/"))
    assert (caught.value.hint or "").startswith("/nowhere is not in what the step copies from")


def test_merging_is_for_the_image_store_of_containerd(engine: Engine, witness: Witness) -> None:
    """Where the engine has it, what one state changed is in the other; elsewhere the engine says what is missing."""
    changed = BASE.file(llb.mkfile("/one", "1"))
    merged = llb.merge(BASE.file(llb.mkfile("/two", "2")), llb.diff(BASE, changed))
    if not engine.containerd_image_store:
        with pytest.raises(BuildFailed, match="mergeop") as caught:
            build_image(engine, merged)
        assert "containerd image store" in (caught.value.hint or "")
        return
    image = build_image(engine, merged, image_config={})
    assert witness.read(image.image_id, "/one") == b"1"
    assert witness.read(image.image_id, "/two") == b"2"
