"""OCI layouts made by hand: an image of one file, and a build cache that knows of nothing."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

__all__ = ["make_cache_layout", "make_image_layout"]

_OCI = "application/vnd.oci.image."
_INDEX = _OCI + "index.v1+json"


def make_image_layout(folder: Path, files: Mapping[str, str]) -> None:
    """Make ``folder`` a layout with an image for linux/amd64 that holds ``files``, under the tag ``latest``."""
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as archive:
        for name, text in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(text)
            archive.addfile(member, io.BytesIO(text.encode()))
    held = _add(folder, _OCI + "layer.v1.tar", layer.getvalue())
    root = {"type": "layers", "diff_ids": [held["digest"]]}
    config = {"architecture": "amd64", "os": "linux", "config": {}, "rootfs": root}
    described = _add_json(folder, _OCI + "config.v1+json", config)
    _finish(folder, _add_document(folder, _OCI + "manifest.v1+json", {"config": described, "layers": [held]}))


def make_cache_layout(folder: Path) -> None:
    """Make ``folder`` a local cache without any steps, under the tag ``latest``."""
    config = _add_json(folder, "application/vnd.buildkit.cacheconfig.v0", {"layers": [], "records": []})
    _finish(folder, _add_document(folder, _INDEX, {"manifests": [config]}))


def _finish(folder: Path, image: dict[str, Any]) -> None:
    named = {**image, "annotations": {"org.opencontainers.image.ref.name": "latest"}}
    index = {"schemaVersion": 2, "mediaType": _INDEX, "manifests": [named]}
    (folder / "index.json").write_text(json.dumps(index))
    (folder / "oci-layout").write_text(json.dumps({"imageLayoutVersion": "1.0.0"}))


def _add_document(folder: Path, media_type: str, fields: Mapping[str, Any]) -> dict[str, Any]:
    return _add_json(folder, media_type, {"schemaVersion": 2, "mediaType": media_type, **fields})


def _add_json(folder: Path, media_type: str, value: object) -> dict[str, Any]:
    return _add(folder, media_type, json.dumps(value).encode())


def _add(folder: Path, media_type: str, content: bytes) -> dict[str, Any]:
    digest = hashlib.sha256(content).hexdigest()
    blobs = folder / "blobs/sha256"
    blobs.mkdir(parents=True, exist_ok=True)
    (blobs / digest).write_bytes(content)
    return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(content)}
