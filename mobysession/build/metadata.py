"""What ``--metadata-file`` holds: what the engine said of a build, and what is known of it besides.

Source: docker/buildx commands/build.go (decodeExporterResponse, runBuild) and build/build.go.
"""

from __future__ import annotations

import base64
import os
from typing import TYPE_CHECKING, Any, Final

from mobysession.build.fields import parse_bool
from mobysession.jsontext import parse_json

if TYPE_CHECKING:
    from mobysession.build.result import BuildResult
    from mobysession.buildkit.status import VertexWarning

__all__ = ["metadata_of"]

#: An answer to ``--call``, which is JSON as it is; all else that is JSON comes in base64.
_PLAIN_JSON: Final = "result.json"


def metadata_of(result: BuildResult) -> dict[str, Any]:
    """Return the content of the file."""
    metadata: dict[str, Any] = {key: _decoded(key, value) for key, value in result.response.items()}
    if result.image_id:
        metadata.setdefault("containerimage.digest", result.image_id)
    if result.tags and result.answer is None:
        metadata.setdefault("image.name", ",".join(result.tags))
    if result.ref and result.answer is None:
        # A builder and a node come first; an engine alone is called so.
        metadata["buildx.build.ref"] = f"default/default/{result.ref}"
    if result.provenance and result.answer is None:
        from mobysession.build.provenance import metadata_provenance

        metadata |= metadata_provenance(result.provenance)
    if result.warnings and parse_bool(os.environ.get("BUILDX_METADATA_WARNINGS", "")):
        metadata["buildx.build.warnings"] = [_warning(warning) for warning in result.warnings]
    return metadata


def _decoded(key: str, value: str) -> Any:
    """Return the object that a value is; the value itself where it is none."""
    try:
        document = parse_json(value if key == _PLAIN_JSON else base64.b64decode(value, validate=True))
    except ValueError:
        return value
    return document if document and isinstance(document, (dict, list)) else value


def _warning(warning: VertexWarning) -> dict[str, Any]:
    ranges = [{"start": {"line": first}, "end": {"line": last}} for first, last in warning.source.ranges]
    source = {"filename": warning.source.filename, "data": _base64(warning.source.text)}
    described = {
        "vertex": warning.vertex,
        "level": warning.level,
        "short": _base64(warning.short),
        "detail": [_base64(line) for line in warning.detail],
        "url": warning.url,
        "sourceInfo": source if source["filename"] else None,
        "range": ranges,
    }
    return {key: value for key, value in described.items() if value}


def _base64(text: str) -> str:
    return base64.b64encode(text.encode("utf-8", "surrogateescape")).decode()
