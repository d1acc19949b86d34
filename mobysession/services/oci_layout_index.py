"""``index.json`` of an OCI layout: which of its blobs it is about, each by a descriptor with annotations.

A name is in two annotations, the whole of it and the tag alone; a tag without a name is in one. A new descriptor takes
the place of those that have both the same. Writers lock each other out with a file beside the index, and do not wait.
All of this blocks.

Source: moby/buildkit client/ociindex; opencontainers/image-spec image-layout.md.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import re
import secrets
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from mobysession import limits
from mobysession.errors import ContextError, OutputError, RpcError
from mobysession.jsontext import parse_json
from mobysession.services.oci_layout import cannot_store, parse_digest

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from mobysession.services.oci_layout import OciLayout

__all__ = ["Descriptor", "descriptors", "find_descriptor", "parse_descriptor", "put_descriptor"]

IMAGE_NAME: Final = "io.containerd.image.name"
REF_NAME: Final = "org.opencontainers.image.ref.name"
_INDEX: Final = "index.json"
_LOCK: Final = "index.json.lock"
_LAYOUT: Final = "oci-layout"
_VERSION: Final = '{"imageLayoutVersion":"1.0.0"}'
_INDEX_TYPE: Final = "application/vnd.oci.image.index.v1+json"
_READ: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
_CREATE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_LOCKING: Final = os.O_RDONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK


class Descriptor(NamedTuple):
    """What an index has on a blob: its digest, its bytes, and all of its JSON."""

    digest: str
    size: int
    content: Mapping[str, Any]

    def annotation(self, key: str) -> str:
        """Return one annotation; empty where there is none."""
        return str((self.content.get("annotations") or {}).get(key, ""))


def parse_descriptor(document: object) -> Descriptor:
    """Read a descriptor from what JSON makes of it.

    Raises:
        ValueError: it is none.
    """
    fields = document if isinstance(document, dict) else {}
    digest, size = fields.get("digest"), fields.get("size")
    annotations = fields.get("annotations") or {}
    if not isinstance(digest, str) or not isinstance(size, int) or isinstance(size, bool) or size < 0:
        raise ValueError("a descriptor has a digest and a size")
    if not isinstance(annotations, dict) or not all(isinstance(value, str) for value in annotations.values()):
        raise ValueError("annotations are texts")
    try:
        parse_digest(digest)
    except RpcError as error:
        raise ValueError(error.message) from None
    return Descriptor(digest, size, fields)


def descriptors(layout: OciLayout) -> list[Descriptor]:
    """Return all that the index of a layout has.

    Raises:
        ContextError: it is missing or cannot be read.
    """
    try:
        with layout.folder() as folder:
            content = _content(folder, _INDEX)
    except FileNotFoundError:
        content = None
    except OSError as error:
        reason = "a link is not followed" if error.errno == errno.ELOOP else (error.strerror or "").lower()
        raise ContextError(f"{layout.path!r} cannot be read as an OCI layout: {reason}") from error
    if content is None:
        raise ContextError(f"{layout.path!r} is no OCI layout: it has no index.json")
    index = _parse(layout, content)
    try:
        return [parse_descriptor(given) for given in index.get("manifests") or []]
    except ValueError as error:
        raise ContextError(f"index.json of {layout.path!r}: {error}") from None


def find_descriptor(layout: OciLayout, tag: str, *, or_only: bool = False) -> Descriptor | None:
    """Return the descriptor of a name or a tag; None where the index has none.

    Args:
        layout: where to look.
        tag: what its name is, or else its tag.
        or_only: take the only one of the index, whatever it is called.

    Raises:
        ContextError: the index is missing or cannot be read.
    """
    found = descriptors(layout)
    for key in (IMAGE_NAME, REF_NAME):
        for descriptor in found:
            if descriptor.annotation(key) == tag:
                return descriptor
    return found[0] if or_only and len(found) == 1 else None


def put_descriptor(layout: OciLayout, descriptor: Descriptor, *, tag: str = "", name: str = "") -> None:
    """Add a descriptor under a tag, or else under a name, in place of those that have it.

    Raises:
        OutputError: the index cannot be written, is none, or somebody else is writing it.
    """
    image, ref = ("", tag) if tag else (name, _tag_of(name))
    annotations = dict(descriptor.content.get("annotations") or {})
    if image:
        annotations[IMAGE_NAME] = image
    annotations[REF_NAME] = ref
    try:
        with layout.folder(make=True) as folder, _locked(folder, layout.path):
            _replace(folder, _LAYOUT, _VERSION)
            index = _parse(layout, _content(folder, _INDEX))
            kept = [
                given
                for given in index.get("manifests") or []
                if _names(given) != (image, ref) or not isinstance(given, dict)
            ]
            index["manifests"] = [*kept, {**descriptor.content, "annotations": annotations}]
            _replace(folder, _INDEX, json.dumps(index, separators=(",", ":")))
    except ContextError as error:
        raise OutputError(error.message, path=layout.path) from error
    except OSError as error:
        raise cannot_store(layout.path, error) from error


def _parse(layout: OciLayout, content: bytes | None) -> dict[str, Any]:
    index: object = {}
    if content:
        try:
            index = parse_json(content)
        except ValueError as error:
            raise ContextError(f"index.json of {layout.path!r} is no JSON: {error}") from None
    if not isinstance(index, dict) or not isinstance(index.get("manifests") or [], list):
        raise ContextError(f"index.json of {layout.path!r} is no index of images")
    index["schemaVersion"] = index.get("schemaVersion") or 2
    index["mediaType"] = index.get("mediaType") or _INDEX_TYPE
    return index


def _names(given: object) -> tuple[str, str]:
    annotations = given.get("annotations") if isinstance(given, dict) else None
    if not isinstance(annotations, dict):
        return "", ""
    return str(annotations.get(IMAGE_NAME, "")), str(annotations.get(REF_NAME, ""))


def _tag_of(name: str) -> str:
    """Return what stands behind the repository in a name with a host; the whole of any other name."""
    host, _, path = name.partition("/")
    if not host or not path:
        return name
    found = re.search("[:@].*", path, re.DOTALL)
    return found[0].removeprefix(":") if found else ""


def _content(folder: int, name: str) -> bytes | None:
    """Return the content of a file, None where there is none; OSError."""
    try:
        descriptor = os.open(name, _READ, dir_fd=folder)
    except FileNotFoundError:
        return None
    with open(descriptor, "rb") as file:
        content = file.read(limits.MAX_LAYOUT_INDEX + 1)
    if len(content) > limits.MAX_LAYOUT_INDEX:
        raise OSError(errno.EFBIG, f"{name} has over {limits.MAX_LAYOUT_INDEX} bytes")
    return content


def _replace(folder: int, name: str, text: str) -> None:
    """Write a file so that readers see the old content or the new."""
    scratch = f".{name}.tmp-{secrets.token_hex(6)}"
    descriptor = os.open(scratch, _CREATE, 0o644, dir_fd=folder)
    try:
        with open(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
        os.rename(scratch, name, src_dir_fd=folder, dst_dir_fd=folder)
    except BaseException:
        with suppress(OSError):
            os.unlink(scratch, dir_fd=folder)
        raise


@contextmanager
def _locked(folder: int, path: str) -> Iterator[None]:
    descriptor = os.open(_LOCK, _LOCKING, 0o600, dir_fd=folder)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise OutputError(
                f"{path!r} cannot be written: somebody else is writing its index.json", path=path, hint="Try again."
            ) from None
        yield
        with suppress(OSError):
            os.unlink(_LOCK, dir_fd=folder)
    finally:
        os.close(descriptor)
