"""The auth service: the daemon pulls or pushes an image and needs the registry's credentials.

There are two ways. With ``Credentials`` the login itself goes to the daemon, which then talks to the registry. With the
other three methods it stays here: the daemon gets a public key from ``GetTokenAuthority`` and, instead of the login,
tokens from ``FetchToken``, which it keeps under that key; ``VerifyTokenAuthority`` proves the key to it. The daemon
prefers the second way wherever it is offered. It is offered for hosts with a login whose registry tells this machine
where its tokens come from. Having no credentials is an OK with two empty fields, not a failure.

The daemon's word for the registry is taken only where it is a bare ``host[:port]``, or docker's key of Docker Hub: a
path or a scheme could lead to the login of another registry, or of another part of it. Such a request gets no login.

Source: moby/buildkit session/auth, util/resolver/authorizer.go.
"""

from __future__ import annotations

import logging
import os
import time
from typing import TYPE_CHECKING, Final

import trio

from mobysession import limits
from mobysession._pb.auth_pb2 import (
    CredentialsRequest,
    CredentialsResponse,
    FetchTokenRequest,
    FetchTokenResponse,
    GetTokenAuthorityRequest,
    GetTokenAuthorityResponse,
    VerifyTokenAuthorityRequest,
    VerifyTokenAuthorityResponse,
)
from mobysession.dockerconfig import DOCKER_HUB_KEY
from mobysession.errors import CredentialError, RpcError, StatusCode
from mobysession.redaction import Redactor
from mobysession.services.credentials import ANONYMOUS, Credentials, CredentialsFrom, credential_source

if TYPE_CHECKING:
    from mobysession.rpc.registrar import Registrar
    from mobysession.rpc.server import ServerCall
    from mobysession.services.registry_tokens import Realms, TokenFetcher
    from mobysession.services.token_authority import TokenSeeds

__all__ = ["Auth"]

_SERVICE: Final = "/moby.filesync.v1.Auth/"
#: The variable by which BuildKit's own client is told to hand over logins instead of tokens.
_NO_TOKENS: Final = "BUILDKIT_NO_CLIENT_TOKEN"
#: Seconds for which the daemon may use a registry token of the configuration, of which nobody knows how long it lives
#: (moby/buildkit session/auth/authprovider).
_REGISTRY_TOKEN_LIFETIME: Final = 60
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
        tokens: fetch tokens here where that is possible, so that the login stays here. False: the login goes to the
            daemon; so it does where ``BUILDKIT_NO_CLIENT_TOKEN`` is set.
        allowed_realms: addresses of token servers, by the host whose login they may get although it does not name them.
        config_dir: where the seeds of the keys are kept; None: the directory of the docker configuration.

    Raises:
        UsageError: ``source`` is none of these; the caller must change it.
    """

    def __init__(
        self,
        source: CredentialsFrom | None = None,
        *,
        redactor: Redactor | None = None,
        tokens: bool = True,
        allowed_realms: Realms | None = None,
        config_dir: str | os.PathLike[str] | None = None,
    ) -> None:
        self.redactor = redactor if redactor is not None else Redactor()
        self._source = credential_source(source)
        self._tokens = tokens
        self._allowed_realms = dict(allowed_realms or {})
        self._config_dir = config_dir
        self._fetcher: TokenFetcher | None = None
        self._seeds: TokenSeeds | None = None
        #: Logins that were looked up to offer tokens, until the request that follows; by host, with their end.
        self._offered: dict[str, tuple[float, Credentials]] = {}

    def register(self, registrar: Registrar) -> None:
        """Add the four methods."""
        registrar.unary_unary(_SERVICE + "Credentials", self._credentials, CredentialsRequest)
        registrar.unary_unary(_SERVICE + "FetchToken", self._fetch_token, FetchTokenRequest)
        registrar.unary_unary(_SERVICE + "GetTokenAuthority", self._get_authority, GetTokenAuthorityRequest)
        registrar.unary_unary(_SERVICE + "VerifyTokenAuthority", self._verify_authority, VerifyTokenAuthorityRequest)

    async def _credentials(self, request: CredentialsRequest, _call: ServerCall) -> CredentialsResponse:
        found = await self._login(request.Host)
        return CredentialsResponse(Username=found.username, Secret=found.secret)

    async def _fetch_token(self, request: FetchTokenRequest, _call: ServerCall) -> FetchTokenResponse:
        if not _is_bare(request.Host):
            raise RpcError(StatusCode.INVALID_ARGUMENT, f"{request.Host[:_LONGEST_HOST]!r} is no registry")
        login = await self._login(request.Host)
        if login.registry_token:
            return FetchTokenResponse(Token=login.registry_token, ExpiresIn=_REGISTRY_TOKEN_LIFETIME)
        from mobysession.services.registry_tokens import TokenRequest  # loads httpx

        wanted = TokenRequest(request.Host, request.Realm, request.Service, tuple(request.Scopes))
        try:
            token = await self._token_fetcher().fetch(wanted, login)
        except CredentialError as error:
            # It quotes the registry, which may quote the login.
            raise CredentialError(self.redactor.redact(error.message), hint=error.hint) from error.__cause__
        self.redactor.add(token.value)
        return FetchTokenResponse(Token=token.value, ExpiresIn=token.expires_in, IssuedAt=token.issued_at)

    async def _get_authority(self, request: GetTokenAuthorityRequest, _call: ServerCall) -> GetTokenAuthorityResponse:
        seed = await self._authority_seed(request.Host)
        return GetTokenAuthorityResponse(PublicKey=await _in_thread("public_key", request.Salt, seed))

    async def _verify_authority(
        self, request: VerifyTokenAuthorityRequest, _call: ServerCall
    ) -> VerifyTokenAuthorityResponse:
        seed = await self._authority_seed(request.Host)
        return VerifyTokenAuthorityResponse(Signed=await _in_thread("sign", request.Salt, seed, request.Payload))

    async def _authority_seed(self, host: str) -> bytes:
        """Return the seed of a host for which tokens are fetched here.

        Raises:
            RpcError: UNAVAILABLE for all others, at which the daemon takes the other way.
        """
        if not self._tokens or os.environ.get(_NO_TOKENS, "").lower() in ("1", "t", "true"):
            raise RpcError(StatusCode.UNAVAILABLE, "client side tokens disabled")
        expiry, _ = self._offered.get(host, (0.0, ANONYMOUS))
        login = await self._login(host)
        if time.monotonic() >= expiry:
            expiry = time.monotonic() + limits.CREDENTIAL_CACHE
        while len(self._offered) >= limits.CREDENTIAL_CACHE_HOSTS:
            del self._offered[next(iter(self._offered))]
        # As old as it is, or else a daemon that keeps asking would keep it alive.
        self._offered[host] = expiry, login
        # Without a login the daemon needs nobody to fetch a token; with one that nobody can check it gets the login.
        if not _is_bare(host) or not (login.registry_token or (login.secret and await self._can_fetch(host))):
            raise RpcError(StatusCode.UNAVAILABLE, f"no client side tokens for {host}")
        if self._seeds is None:
            from mobysession.services.token_authority import TokenSeeds

            self._seeds = TokenSeeds(self._config_dir)
        return await trio.to_thread.run_sync(self._seeds.seed, host)

    async def _can_fetch(self, host: str) -> bool:
        return await self._token_fetcher().can_fetch(host)

    def _token_fetcher(self) -> TokenFetcher:
        if self._fetcher is None:
            from mobysession.services.registry_tokens import TokenFetcher  # loads httpx

            self._fetcher = TokenFetcher(allowed_realms=self._allowed_realms)
        return self._fetcher

    async def _login(self, host: str) -> Credentials:
        if not host or len(host) > _LONGEST_HOST or not host.isprintable() or " " in host:
            raise CredentialError(f"the engine asked for credentials of {host[:_LONGEST_HOST]!r}, which is no registry")
        if not _is_bare(host):
            _log.warning("the engine asked for the login of %s, which is no bare host: it gets none", host)
            return ANONYMOUS
        # A function of the user's is called once for each time that the daemon needs a login, not once a question.
        expiry, found = self._offered.pop(host, (0.0, ANONYMOUS))
        if time.monotonic() >= expiry:
            found = await self._source.lookup(host)
            self.redactor.add(found.secret)
            self.redactor.add(found.registry_token)
        return found


def _is_bare(host: str) -> bool:
    return host == DOCKER_HUB_KEY or _NO_HOST.isdisjoint(host)


async def _in_thread(function: str, *arguments: bytes) -> bytes:
    from mobysession.services import token_authority

    # Its first use loads cryptography, which takes a while.
    found: bytes = await trio.to_thread.run_sync(getattr(token_authority, function), *arguments)
    return found
