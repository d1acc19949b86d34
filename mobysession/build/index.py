"""Images of several platforms made into one: an index over what each node has pushed.

A node pushes either one image or an index of its own, with attestations beside the images; the new index names
everything that is in these, once. It is OCI's, unless all it names are docker's manifests and nobody wants annotations,
which docker's manifest lists do not have.

Source: docker/buildx util/imagetools/create.go (Combine); opencontainers/image-spec image-index.md.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from mobysession.errors import RemoteProtocolError
from mobysession.jsontext import parse_json

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from mobysession.services.image_name import ImageName
    from mobysession.services.registry import Manifest, Registry

__all__ = ["merge_manifests", "push_index"]

_OCI_INDEX: Final = "application/vnd.oci.image.index.v1+json"
_DOCKER_LIST: Final = "application/vnd.docker.distribution.manifest.list.v2+json"
_DOCKER_IMAGE: Final = "application/vnd.docker.distribution.manifest.v2+json"
#: What a platform is told by in the configuration of an image.
_PLATFORM: Final = ("architecture", "os", "os.version", "os.features", "variant")


async def push_index(
    registry: Registry, name: ImageName, digests: Sequence[str], annotations: Mapping[str, str]
) -> tuple[str, str, int]:
    """Write an index over what is in a repository under its name, and return its media type, digest and size.

    Args:
        registry: where it is.
        name: the repository and the tag.
        digests: of the images or indexes to put together, all in that repository.
        annotations: of the index.

    Raises:
        ApiError, ConnectError, CredentialError, RemoteProtocolError: as `mobysession.services.registry.Registry`.
    """
    found = []
    for digest in digests:
        manifest = await registry.manifest(name, digest)
        document = _document(manifest)
        platform = None
        if "manifests" not in document:
            config = document.get("config")
            config_digest = str(config.get("digest", "")) if isinstance(config, dict) else ""
            platform = _platform(await registry.blob(name, config_digest))
        found.append((manifest, document, platform))
    media_type, body = merge_manifests(found, annotations)
    return media_type, await registry.put_manifest(name, media_type, body), len(body)


def merge_manifests(
    found: Sequence[tuple[Manifest, Mapping[str, Any], Mapping[str, Any] | None]], annotations: Mapping[str, str]
) -> tuple[str, bytes]:
    """Return the media type and the bytes of the index over some manifests.

    Args:
        found: each manifest, its JSON, and its platform where it is an image.
        annotations: of the index.
    """
    descriptors: dict[str, dict[str, Any]] = {}
    for manifest, document, platform in found:
        for descriptor in _descriptors(manifest, document, platform):
            # What two nodes both made stands there once, with all that is known of it.
            known = descriptors.setdefault(str(descriptor["digest"]), {})
            known.update({key: value for key, value in descriptor.items() if key not in known})
    only_docker = not annotations and all(one.get("mediaType") == _DOCKER_IMAGE for one in descriptors.values())
    media_type = _DOCKER_LIST if only_docker else _OCI_INDEX
    index: dict[str, Any] = {"schemaVersion": 2, "mediaType": media_type, "manifests": list(descriptors.values())}
    if annotations:
        index["annotations"] = dict(annotations)
    return media_type, json.dumps(index, indent=2).encode()


def _descriptors(
    manifest: Manifest, document: Mapping[str, Any], platform: Mapping[str, Any] | None
) -> list[dict[str, Any]]:
    inner = document.get("manifests")
    if inner is None:
        known = {"platform": dict(platform)} if platform else {}
        return [{"mediaType": manifest.media_type, "digest": manifest.digest, "size": len(manifest.body), **known}]
    if not isinstance(inner, list) or not all(isinstance(one, dict) and "digest" in one for one in inner):
        raise RemoteProtocolError(f"{manifest.digest} is no index: its manifests are no list of descriptors")
    return [dict(one) for one in inner]


def _document(manifest: Manifest) -> dict[str, Any]:
    try:
        document = parse_json(manifest.body)
    except ValueError as error:
        raise RemoteProtocolError(f"{manifest.digest} is no manifest: {error}") from error
    if not isinstance(document, dict):
        raise RemoteProtocolError(f"{manifest.digest} is no manifest: it is no object")
    return document


def _platform(config: bytes) -> dict[str, Any]:
    try:
        document = parse_json(config)
    except ValueError as error:
        raise RemoteProtocolError(f"the configuration of an image is no JSON: {error}") from error
    return {key: document[key] for key in _PLATFORM if document.get(key)} if isinstance(document, dict) else {}
