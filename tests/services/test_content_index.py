"""``index.json`` of an OCI layout: how it is found, read, changed, and who may at once; and what is pruned by it."""

from __future__ import annotations

import fcntl
import json
import os
from typing import TYPE_CHECKING, Any

import pytest

from mobysession import limits
from mobysession.errors import ContextError, OutputError
from mobysession.services.oci_layout import OciLayout
from mobysession.services.oci_layout_index import (
    Descriptor,
    descriptors,
    find_descriptor,
    parse_descriptor,
    put_descriptor,
)
from mobysession.services.oci_layout_prune import prune
from tests.services.stores import digest_of, put_blob, tree_of

if TYPE_CHECKING:
    from pathlib import Path

IMAGE, REF = "io.containerd.image.name", "org.opencontainers.image.ref.name"
ONE, TWO = digest_of(b"one"), digest_of(b"two")


def descriptor(digest: str = ONE, **more: Any) -> Descriptor:
    return parse_descriptor({"mediaType": "text/plain", "digest": digest, "size": 3, **more})


def index_of(folder: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((folder / "index.json").read_text())
    return document


def annotations_of(folder: Path) -> list[tuple[str, dict[str, str]]]:
    return [(one["digest"], one.get("annotations", {})) for one in index_of(folder)["manifests"]]


def test_a_layout_is_made(tmp_path: Path) -> None:
    """The directory, the marker and an index with its type; the lock is gone, and so is every scratch file."""
    put_descriptor(OciLayout(tmp_path / "a" / "b"), descriptor(annotations={"x": "y"}), tag="latest")
    folder = tmp_path / "a" / "b"
    assert tree_of(folder) == {"index.json", "oci-layout"}
    assert json.loads((folder / "oci-layout").read_text()) == {"imageLayoutVersion": "1.0.0"}
    assert index_of(folder) == {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [{"mediaType": "text/plain", "digest": ONE, "size": 3, "annotations": {"x": "y", REF: "latest"}}],
    }


def test_the_same_name_is_replaced(tmp_path: Path) -> None:
    """Only where both annotations are equal; everything else stays, also what nobody knows."""
    layout = OciLayout(tmp_path)
    put_descriptor(layout, descriptor(ONE), tag="1")
    put_descriptor(layout, descriptor(ONE), name="docker.io/library/a:1")
    index = index_of(tmp_path) | {"extra": [1], "annotations": {"k": "v"}}
    (tmp_path / "index.json").write_text(json.dumps(index))
    put_descriptor(layout, descriptor(TWO), tag="1")
    assert annotations_of(tmp_path) == [(ONE, {IMAGE: "docker.io/library/a:1", REF: "1"}), (TWO, {REF: "1"})]
    put_descriptor(layout, descriptor(TWO), name="docker.io/library/a:1")
    assert [digest for digest, _ in annotations_of(tmp_path)] == [TWO, TWO]
    assert index_of(tmp_path)["extra"] == [1]


@pytest.mark.parametrize(
    ("name", "ref"),
    [
        ("docker.io/library/a:1", "1"),
        ("localhost:5000/a:1", "1"),
        ("localhost:5000/a", ""),
        (f"host/a@{ONE}", f"@{ONE}"),
        (f"host/a:1@{ONE}", f"1@{ONE}"),
        ("a:1", "a:1"),
        ("/a:1", "/a:1"),
    ],
)
def test_the_tag_of_a_name(tmp_path: Path, name: str, ref: str) -> None:
    """What stands behind the repository; a name without a host is its own tag."""
    put_descriptor(OciLayout(tmp_path), descriptor(), name=name)
    assert annotations_of(tmp_path) == [(ONE, {IMAGE: name, REF: ref})]


def test_names_are_found_before_tags(tmp_path: Path) -> None:
    """A descriptor that is called so as a whole comes first; without one of either there is none, or the only one."""
    layout = OciLayout(tmp_path)
    put_descriptor(layout, descriptor(ONE), tag="x/a:1")
    only = find_descriptor(layout, "nothing", or_only=True)
    assert only is not None
    assert only.digest == ONE
    put_descriptor(layout, descriptor(TWO), name="x/a:1")
    found = find_descriptor(layout, "x/a:1")
    assert found is not None
    assert found.digest == TWO
    assert find_descriptor(layout, "nothing", or_only=True) is None
    assert find_descriptor(layout, "nothing") is None


def test_only_one_changes_an_index_at_a_time(tmp_path: Path) -> None:
    """While somebody has the lock, nobody waits and nothing is changed; afterwards it goes on."""
    layout = OciLayout(tmp_path)
    put_descriptor(layout, descriptor(), tag="1")
    before = (tmp_path / "index.json").read_bytes()
    with (tmp_path / "index.json.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(OutputError, match=r"somebody else is writing its index\.json"):
            put_descriptor(layout, descriptor(TWO), tag="2")
    assert (tmp_path / "index.json").read_bytes() == before
    put_descriptor(layout, descriptor(TWO), tag="2")
    assert len(descriptors(layout)) == 2


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "is no JSON"),
        ("[" * 100_000, "nested too deeply"),
        ("[]", "is no index of images"),
        ('{"manifests": 1}', "is no index of images"),
        ('{"manifests": [1]}', "a descriptor has a digest and a size"),
        ('{"manifests": [{"digest": "sha256:../x", "size": 1}]}', "invalid checksum digest"),
        (json.dumps({"manifests": [{"digest": ONE, "size": -1}]}), "a digest and a size"),
        (json.dumps({"manifests": [{"digest": ONE, "size": True}]}), "a digest and a size"),
        (json.dumps({"manifests": [{"digest": ONE, "size": 1, "annotations": {"a": 1}}]}), "annotations are texts"),
        (" " * (limits.MAX_LAYOUT_INDEX + 1), "cannot be read"),
        (None, "it has no index.json"),
    ],
)
def test_what_is_no_index_is_named(tmp_path: Path, text: str | None, words: str) -> None:
    """A sentence for each, as a ContextError; deep nesting and endless files too."""
    if text is not None:
        (tmp_path / "index.json").write_text(text)
    with pytest.raises(ContextError, match=words):
        find_descriptor(OciLayout(tmp_path), "latest")


@pytest.mark.parametrize("name", ["index.json", "index.json.lock", "oci-layout"])
def test_no_link_is_written_through(tmp_path: Path, name: str) -> None:
    """What a link in the layout leads to stays as it is."""
    outside = tmp_path / "outside"
    outside.write_text("{}")
    folder = tmp_path / "layout"
    folder.mkdir()
    (folder / name).symlink_to(outside)
    if name == "oci-layout":
        put_descriptor(OciLayout(folder), descriptor(), tag="1")
        assert not (folder / name).is_symlink()
    else:
        with pytest.raises(OutputError, match="cannot be written"):
            put_descriptor(OciLayout(folder), descriptor(), tag="1")
    assert outside.read_text() == "{}"
    assert not outside.is_symlink()


def test_a_broken_index_is_not_written_over(tmp_path: Path) -> None:
    """Somebody may be able to mend it."""
    (tmp_path / "index.json").write_text("{ my index")
    with pytest.raises(OutputError, match="is no JSON"):
        put_descriptor(OciLayout(tmp_path), descriptor(), tag="1")
    assert (tmp_path / "index.json").read_text() == "{ my index"


def _image(folder: Path, *layers: bytes) -> Descriptor:
    manifest = {
        "config": {"digest": put_blob(folder, b"config" + layers[0]), "size": 1},
        "layers": [{"digest": put_blob(folder, layer), "size": 1} for layer in layers],
    }
    content = json.dumps(manifest).encode()
    media_type = "application/vnd.oci.image.manifest.v1+json"
    return parse_descriptor({"mediaType": media_type, "digest": put_blob(folder, content), "size": len(content)})


def test_what_nothing_leads_to_is_pruned(tmp_path: Path) -> None:
    """Blobs of the index's images stay, also through an index in the index; those of a replaced one go."""
    layout = OciLayout(tmp_path)
    put_descriptor(layout, _image(tmp_path, b"old", b"shared"), tag="latest")
    before = {blob.digest for blob in layout.walk()}
    kept = _image(tmp_path, b"new", b"shared")
    inner = json.dumps({"manifests": [dict(kept.content)]}).encode()
    media_type = "application/vnd.oci.image.index.v1+json"
    outer = parse_descriptor({"mediaType": media_type, "digest": put_blob(tmp_path, inner), "size": len(inner)})
    put_descriptor(layout, outer, tag="latest")
    prune(layout)
    left = {blob.digest for blob in layout.walk()}
    assert left & before == {digest_of(b"shared")}
    assert left >= {outer.digest, kept.digest, digest_of(b"new")}
    assert len(left) == 5


@pytest.mark.parametrize("damage", ["gone", "changed", "no manifest"])
def test_nothing_is_pruned_in_doubt(tmp_path: Path, damage: str) -> None:
    """Where a manifest is missing, damaged or none, all blobs stay."""
    layout = OciLayout(tmp_path)
    image = _image(tmp_path, b"layer")
    path = tmp_path / "blobs" / image.digest.replace(":", "/")
    if damage == "no manifest":
        digest = put_blob(tmp_path, b"[]")
        image = parse_descriptor({**image.content, "digest": digest})
    elif damage == "changed":
        path.write_bytes(path.read_bytes() + b" ")
    else:
        os.unlink(path)
    put_descriptor(layout, image, tag="latest")
    stray = put_blob(tmp_path, b"stray")
    with pytest.raises(ContextError):
        prune(layout)
    assert layout.has(stray)
