"""What a client of docker-py knows of its daemon: where it is, and the logins for registries.

docker-py keeps both in attributes that it does not document: an adapter of requests that the URL is mounted on, and a
store of the logins of config.json and of ``client.login()``.

Source: docker/docker-py docker/api/client.py, docker/auth.py, docker/transport/.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from docker import auth
from docker.errors import DockerException

from mobysession.services.credentials import ANONYMOUS, Credentials
from mobysession.transport.endpoint import Endpoint
from mobysession.transport.tls import TLSConfig

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["credentials_of", "endpoint_of"]

_SOURCE = "the docker client"
#: Names by which engines and docker-py know Docker Hub.
_DOCKER_HUB = ("registry-1.docker.io", "index.docker.io", "docker.io")


def endpoint_of(api: Any) -> Endpoint:
    """Return the daemon that an ``APIClient`` speaks to.

    Raises:
        DockerException: its transport is one that a session cannot use.
    """
    headers = tuple((api._general_configs.get("HttpHeaders") or {}).items())
    url: str = api.base_url
    if not url.startswith("http+docker://"):
        return Endpoint(url, _SOURCE, _tls_of(api) if url.startswith("https://") else None, headers)
    adapter = api._custom_adapter
    if (socket := getattr(adapter, "socket_path", None)) is not None:
        return Endpoint(f"unix://{socket}", _SOURCE, None, headers)
    if (host := getattr(adapter, "ssh_host", None)) is not None:
        return Endpoint(f"ssh://{host}", _SOURCE, None, headers)
    if (pipe := getattr(adapter, "npipe_path", None)) is not None:
        return Endpoint(f"npipe://{pipe}", _SOURCE, None, headers)
    raise DockerException(f"mobysession cannot tell where the docker client's daemon is: {url}")


def _tls_of(api: Any) -> TLSConfig:
    ca = Path(api.verify) if isinstance(api.verify, str) else None
    cert, key = api.cert if isinstance(api.cert, tuple) else (api.cert, None)
    return TLSConfig(ca=ca, cert=_path(cert), key=_path(key), verify=bool(api.verify))


def _path(name: str | None) -> Path | None:
    return Path(name) if name is not None else None


def credentials_of(api: Any) -> Callable[[str], Credentials]:
    """Return a function that looks a registry's login up where the client does."""

    def lookup(host: str) -> Credentials:
        if not api._auth_configs or api._auth_configs.is_empty:
            api._auth_configs = auth.load_config(credstore_env=api.credstore_env)
        names = _DOCKER_HUB if host in _DOCKER_HUB else (host,)
        found = next(filter(None, map(api._auth_configs.resolve_authconfig, names)), None)
        if found is None:
            return ANONYMOUS
        entry = {key.lower(): value for key, value in found.items()}
        if token := entry.get("identitytoken"):
            return Credentials("", token)
        return Credentials(entry.get("username") or "", entry.get("password") or "")

    return lookup
