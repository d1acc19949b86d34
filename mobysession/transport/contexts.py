"""The docker CLI's contexts on disk (docker/cli cli/context/store).

::

    contexts/meta/<hex SHA-256 of the name>/meta.json     {"Name": ..., "Endpoints": {"docker": {"Host": ...}}}
    contexts/tls/<the same>/docker/ca.pem, cert.pem, key.pem

``default`` is no context: it stands for the environment.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mobysession.dockerconfig import JsonFile
from mobysession.errors import EndpointError
from mobysession.transport.tls import TLSConfig

if TYPE_CHECKING:
    import os

__all__ = ["DockerContext", "context_id", "load_context"]

_ENDPOINT = "docker"


@dataclass(frozen=True, kw_only=True)
class DockerContext:
    """What a context says about its daemon. ``tls`` is None when it has no TLS files and does not skip verification."""

    name: str
    host: str
    tls: TLSConfig | None = None


def context_id(name: str) -> str:
    """Return the name of a context's directories."""
    return hashlib.sha256(name.encode()).hexdigest()


def load_context(name: str, config_dir: str | os.PathLike[str]) -> DockerContext:
    """Read a context; blocking.

    Raises:
        EndpointError: there is none of this name, its file is broken, or it has no Docker daemon.
    """
    path = Path(config_dir, "contexts", "meta", context_id(name), "meta.json")
    meta = JsonFile.read(path)
    if meta is None:
        raise EndpointError(f"there is no docker context {name!r}", hint=_known_contexts(path.parent.parent))
    endpoint = meta.child("Endpoints").child(_ENDPOINT)
    host = endpoint.text("Host")
    if not host:
        raise EndpointError(f"the docker context {name!r} names no Docker daemon ({path})")
    tls_dir = Path(config_dir, "contexts", "tls", context_id(name), _ENDPOINT)
    tls = TLSConfig.from_directory(tls_dir, verify=not endpoint.flag("SkipTLSVerify"))
    has_tls = tls.ca is not None or tls.cert is not None or not tls.verify
    return DockerContext(name=name, host=host, tls=tls if has_tls else None)


def _known_contexts(meta_dir: Path) -> str:
    names = []
    for path in meta_dir.glob("*/meta.json"):
        try:
            meta = JsonFile.read(path)
            names.append(meta.text("Name") if meta else "")
        except EndpointError:  # the broken one is not what was asked for
            continue
    return f"There are: {', '.join(['default', *sorted(filter(None, names))])}"
