"""The auth service: the daemon pulls or pushes an image and asks for the registry's credentials.

``moby.filesync.v1.Auth/Credentials`` hands the secret itself to the daemon, which then talks to the registry. The three
methods by which the secret could stay here (token authorities) are not served: the daemon gets UNIMPLEMENTED for them
and falls back to this one. Having no credentials is an OK with two empty fields, not a failure.

The daemon's word for the registry is taken only where it is a bare ``host[:port]``, or docker's key of Docker Hub: a
path or a scheme could lead to the login of another registry, or of another part of it. Such a request gets no login.

Source: moby/buildkit session/auth, util/resolver/authorizer.go.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from mobysession._pb.auth_pb2 import CredentialsRequest, CredentialsResponse
from mobysession.dockerconfig import DOCKER_HUB_KEY
from mobysession.errors import CredentialError
from mobysession.redaction import Redactor
from mobysession.services.credentials import CredentialsFrom, credential_source

if TYPE_CHECKING:
    from mobysession.rpc.registrar import Registrar
    from mobysession.rpc.server import ServerCall

__all__ = ["Auth"]

_METHOD: Final = "/moby.filesync.v1.Auth/Credentials"
#: Characters of a host that an error repeats: a DNS name of 253, a port.
_LONGEST_HOST: Final = 260
#: Characters that make a host more than a host for one parser or another.
_NO_HOST: Final = frozenset("/\\?#@")
_log = logging.getLogger("mobysession.services")


class Auth:
    """Give the daemon the registry credentials it asks for.

    Args:
        source: where they come from: a mapping of hosts to (user, password), a function that takes the host, a
            `CredentialSource`, or None for what the docker CLI would use.
        redactor: is told of every secret before it is given away; None: a new one, as ``redactor``.

    Raises:
        UsageError: ``source`` is none of these; the caller must change it.
    """

    def __init__(self, source: CredentialsFrom | None = None, *, redactor: Redactor | None = None) -> None:
        self.redactor = redactor if redactor is not None else Redactor()
        self._source = credential_source(source)

    def register(self, registrar: Registrar) -> None:
        """Add Credentials."""
        registrar.unary_unary(_METHOD, self._credentials, CredentialsRequest)

    async def _credentials(self, request: CredentialsRequest, call: ServerCall) -> CredentialsResponse:
        host = request.Host
        if not host or len(host) > _LONGEST_HOST or not host.isprintable() or " " in host:
            raise CredentialError(f"the engine asked for credentials of {host[:_LONGEST_HOST]!r}, which is no registry")
        if host != DOCKER_HUB_KEY and not _NO_HOST.isdisjoint(host):
            _log.warning("the engine asked for the login of %s, which is no bare host: it gets none", host)
            return CredentialsResponse()
        found = await self._source.lookup(host)
        self.redactor.add(found.secret)
        return CredentialsResponse(Username=found.username, Secret=found.secret)
