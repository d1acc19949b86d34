"""Images in directories of this machine as named contexts, on real engines."""

from __future__ import annotations

import io
import os
import tarfile
from typing import TYPE_CHECKING

import pytest

from integration.contexts import make_context
from integration.images import build_image
from mobysession import UnsupportedByEngine
from mobysession.build.exports import Output

if TYPE_CHECKING:
    from pathlib import Path

    from integration.engines import Engine


def test_an_image_in_a_directory_is_a_base(containerd_engine: Engine, engine: Engine, tmp_path: Path) -> None:
    """By its tag, by its digest, and to copy from; an engine that cannot read it says so before it builds."""
    seed = os.urandom(100).hex()
    made = make_context(tmp_path / "made", "FROM scratch\nCOPY seed /\n", {"seed": seed})
    held = io.BytesIO()
    image = build_image(containerd_engine, made, outputs=[Output("oci", held)], tags=["mobysession-test/layout:one"])
    layout = tmp_path / "layout"
    with tarfile.open(fileobj=io.BytesIO(held.getvalue())) as archive:
        archive.extractall(layout, filter="data")
    before = {path: path.stat().st_mtime_ns for path in layout.rglob("*")}
    context = make_context(tmp_path / "context", "FROM base\nCOPY --from=base /seed /again\n")
    for address in (str(layout), f"{layout}:one", f"{layout}@{image.digest}"):
        out = tmp_path / f"out{len(address)}"
        options = {"build_contexts": {"base": f"oci-layout://{address}"}, "outputs": [f"type=local,dest={out}"]}
        if not engine.containerd_image_store:
            with pytest.raises(UnsupportedByEngine, match="cannot read the context 'base' from an OCI layout"):
                build_image(engine, context, **options)
            continue
        build_image(engine, context, **options)
        assert [(out / name).read_text() for name in ("seed", "again")] == [seed, seed]
    assert {path: path.stat().st_mtime_ns for path in layout.rglob("*")} == before
