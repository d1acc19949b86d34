"""Attestations and annotations: what is asked for is in the image, and what an engine cannot hold is refused first."""

from __future__ import annotations

import json
import tarfile
from typing import TYPE_CHECKING, Any

import pytest

from integration.contexts import make_context
from integration.images import build_image
from mobysession.errors import UnsupportedByEngine

if TYPE_CHECKING:
    from pathlib import Path

    from integration.engines import Engine


@pytest.fixture
def context(tmp_path: Path) -> Path:
    """Give a small context."""
    return make_context(tmp_path / "context", "FROM mobysession-base\nCOPY Dockerfile /\n")


def _layout(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the index of an image in an OCI layout, and its blobs that are JSON, by digest."""
    index: dict[str, Any] = {}
    blobs: dict[str, Any] = {}
    with tarfile.open(path) as tar:
        for member in tar:
            content = tar.extractfile(member)
            if content is None:
                continue
            if member.name == "index.json":
                index = json.load(content)
            elif member.name.startswith("blobs/") and (data := content.read()).startswith(b"{"):
                blobs["sha256:" + member.name.rpartition("/")[2]] = json.loads(data)
    return index, blobs


@pytest.mark.parametrize(
    "options",
    [{"provenance": True}, {"sbom": True}, {"attests": ["type=provenance,mode=max"]}, {"annotations": {"a": "b"}}],
)
def test_a_graph_driver_holds_none(engine: Engine, context: Path, options: dict[str, Any]) -> None:
    """Refused before the build, with what would hold them."""
    if engine.containerd_image_store:
        return
    with pytest.raises(UnsupportedByEngine, match="graph driver") as caught:
        build_image(engine, context, **options)
    assert "containerd image store" in (caught.value.hint or "")


def test_annotations_are_where_they_were_asked_for(containerd_engine: Engine, context: Path, tmp_path: Path) -> None:
    """On the manifest, on the index, and on the descriptors of both."""
    annotations = {"plain": "1", "index:of.index": "2", "manifest-descriptor[linux/amd64]:of.descriptor": "3"}
    build_image(
        containerd_engine,
        context,
        outputs=[f"type=oci,dest={tmp_path}/image.tar"],
        annotations={**annotations, "index-descriptor:of.index.descriptor": "4"},
        provenance="mode=min",
    )
    outer, blobs = _layout(tmp_path / "image.tar")
    (descriptor,) = outer["manifests"]
    index = blobs[descriptor["digest"]]
    image = next(one for one in index["manifests"] if one["platform"]["architecture"] == "amd64")
    assert blobs[image["digest"]]["annotations"]["plain"] == "1"
    assert index["annotations"]["of.index"] == "2"
    assert image["annotations"]["of.descriptor"] == "3"
    assert descriptor["annotations"]["of.index.descriptor"] == "4"


def test_a_provenance_is_in_the_image_and_in_the_result(
    containerd_engine: Engine, context: Path, tmp_path: Path
) -> None:
    """As an attestation of the image's index; and as values."""
    options: dict[str, Any] = {"outputs": [f"type=oci,dest={tmp_path}/image.tar"], "metadata_file": tmp_path / "meta"}
    result = build_image(containerd_engine, context, provenance="mode=max", **options)
    _, blobs = _layout(tmp_path / "image.tar")
    statements = [blob for blob in blobs.values() if "predicateType" in blob]
    assert [one["predicateType"] for one in statements] == ["https://slsa.dev/provenance/v0.2"]
    (provenance,) = result.provenance.values()
    assert provenance["invocation"]["parameters"]["frontend"] == "dockerfile.v0"
    assert "buildx.build.provenance" in json.loads((tmp_path / "meta").read_text())
    result = build_image(containerd_engine, context, provenance=False, **options)
    assert not any("predicateType" in blob for blob in _layout(tmp_path / "image.tar")[1].values())
