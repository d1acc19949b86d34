"""Removing from an OCI layout the blobs that nothing in its index leads to. Blocks.

Source: moby/buildkit client/solve.go, resetCacheStore.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Final

from mobysession import limits
from mobysession.errors import ContextError, MobysessionError, RpcError
from mobysession.jsontext import parse_json
from mobysession.services.oci_layout_index import Descriptor, descriptors, parse_descriptor

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mobysession.services.oci_layout import OciLayout

__all__ = ["prune"]

_logger = logging.getLogger("mobysession.services")

#: What ends the media types of documents that lead to other blobs.
_DOCUMENTS: Final = ("manifest.v1+json", "index.v1+json", "manifest.v2+json", "manifest.list.v2+json")


def prune(layout: OciLayout) -> None:
    """Remove every blob that is not reached from the index; nothing, where it cannot be told which are.

    Raises:
        ContextError: the index or a document that it leads to cannot be read.
    """
    reached: set[str] = set()
    left = list(descriptors(layout))
    while left:
        descriptor = left.pop()
        if descriptor.digest in reached:
            continue
        reached.add(descriptor.digest)
        left.extend(_children(layout, descriptor))
    for blob in list(layout.walk()):
        if blob.digest not in reached:
            try:
                layout.delete(blob.digest)
            except MobysessionError as error:
                _logger.warning("%s: %s stays: %s", layout.path, blob.digest, error.message)


def _children(layout: OciLayout, descriptor: Descriptor) -> Iterator[Descriptor]:
    if not str(descriptor.content.get("mediaType", "")).endswith(_DOCUMENTS):
        return
    try:
        document: Any = parse_json(layout.read_all(descriptor.digest, limit=limits.MAX_LAYOUT_INDEX))
        given = [*(document.get("manifests") or []), *(document.get("layers") or [])]
        yield from map(parse_descriptor, [*given, *filter(None, [document.get("config")])])
    except (ValueError, TypeError, AttributeError) as error:
        raise ContextError(f"blob {descriptor.digest} of {layout.path!r} is no manifest: {error}") from None
    except RpcError as error:
        raise ContextError(f"the index of {layout.path!r} leads to what is not there: {error.message}") from None
