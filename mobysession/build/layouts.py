"""Images in directories of this machine as named contexts: ``oci-layout://PATH[:TAG][@DIGEST]``.

The engine is not told the directory: it gets an address with the name of a store of the session and the digest of the
image, which is looked up here.

Source: docker/buildx util/ocilayout/parse.go, build/opt.go.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Final, NamedTuple

from mobysession.errors import ContextError, RpcError, UnsupportedByEngine
from mobysession.identity import new_id
from mobysession.services.oci_layout import OciLayout
from mobysession.services.oci_layout_index import find_descriptor

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mobysession.transport.endpoint import Endpoint

__all__ = ["LAYOUT_SCHEME", "LayoutAddress", "find_layout", "refuse_layouts"]

LAYOUT_SCHEME: Final = "oci-layout://"
#: How the daemon calls a store, before the name that its address has (BuildKit source/containerimage/ocilayout.go).
_STORE: Final = "oci:"
_DIGEST: Final = r"[A-Za-z][A-Za-z0-9]*(?:[-_+.][A-Za-z][A-Za-z0-9]*)*:[0-9a-fA-F]{32,}"
_TAG: Final = r"\w[\w.-]{0,127}"


class LayoutAddress(NamedTuple):
    """An address, taken apart; tag and digest may be empty."""

    path: str
    tag: str
    digest: str

    @classmethod
    def parse(cls, text: str) -> LayoutAddress:
        """Read an address; what has neither tag nor digest has the tag ``latest``."""
        path = text.removeprefix(LAYOUT_SCHEME)
        tag = digest = ""
        if found := re.fullmatch(f"(.*)@({_DIGEST})", path, re.DOTALL):
            path, digest = found.groups()
        if found := re.fullmatch(f"(.*):({_TAG})", path, re.DOTALL | re.ASCII):
            path, tag = found.groups()
        return cls(path, tag if tag or digest else "latest", digest)


def find_layout(name: str, text: str) -> tuple[str, OciLayout, str]:
    """Return the ID of a store for a named context, the store, and the address for the engine; blocking.

    Raises:
        ContextError: there is no such layout, or no such image in it; the user must change it.
    """
    address = LayoutAddress.parse(text)
    layout = OciLayout(os.path.abspath(address.path))
    try:
        digest = address.digest or _digest(layout, address)
        layout.info(digest)
    except RpcError as error:
        raise ContextError(f"the context {name!r} cannot be read from {layout.path!r}: {error.message}") from None
    store = new_id()
    tag = f":{address.tag}" if address.tag else ""
    return _STORE + store, layout, f"{LAYOUT_SCHEME}{store}{tag}@{digest}"


async def refuse_layouts(endpoint: Endpoint, contexts: Mapping[str, object]) -> None:
    """Refuse contexts in OCI layouts where the engine cannot read them.

    Raises:
        UnsupportedByEngine: it keeps its images in a graph driver.
        TransportError, ApiError: it cannot be asked.
    """
    wanted = [name for name, given in contexts.items() if isinstance(given, str) and given.startswith(LAYOUT_SCHEME)]
    if not wanted or endpoint.is_buildkitd:
        return
    from mobysession.build.exports import has_containerd_store
    from mobysession.transport.api import EngineApi

    if not has_containerd_store(await EngineApi(endpoint).get_json("/info")):
        raise UnsupportedByEngine(
            f"this engine keeps images in a graph driver, and cannot read the context {wanted[0]!r} from an OCI layout",
            hint="Load the image with docker load and name it as docker-image://NAME; or enable the containerd image "
            "store in the engine's configuration (Docker 24 and later).",
        )


def _digest(layout: OciLayout, address: LayoutAddress) -> str:
    descriptor = find_descriptor(layout, address.tag, or_only=True)
    if descriptor is None:
        raise ContextError(
            f"the OCI layout {layout.path!r} has no image {address.tag!r}",
            hint="Name one of its tags with oci-layout://PATH:TAG, or a digest with oci-layout://PATH@DIGEST.",
        )
    return descriptor.digest
