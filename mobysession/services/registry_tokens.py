"""Tokens of a registry, fetched on this side so that the login itself never reaches the engine.

The engine was refused by the registry with a challenge, and hands over what the challenge says: a *realm*, the address
that gives tokens, and the scopes. We go there with the user's login and pass the token on. The realm is the engine's
word only, and a login must not go wherever an engine points: it goes to the realm that the registry itself names, asked
by us, or that the user allowed, and not along a redirect to another host.

Source: containerd core/remotes/docker/auth (fetch.go, parse.go), moby/buildkit session/auth/authprovider;
distribution/distribution docs/content/spec/auth (token.md, oauth.md).
"""

from __future__ import annotations

import datetime
import json
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias

import httpx
import trio

from mobysession import dockerconfig, limits
from mobysession.errors import CredentialError, RpcError, StatusCode, UsageError
from mobysession.services.registry_certificates import tls_context
from mobysession.services.registry_http import challenges, is_loopback, make_client

if TYPE_CHECKING:
    import ssl
    from collections.abc import Collection, Mapping, Sequence

    from mobysession.services.credentials import Credentials

__all__ = ["Realms", "Token", "TokenFetcher", "TokenRequest"]

#: Addresses of token servers by the registry whose login they may get; one login never goes to another one's realm.
Realms: TypeAlias = "Mapping[str, str | Collection[str]]"

_CLIENT_ID: Final = "buildkit-client"
_LIFETIME: Final = 60
#: What a registry answers a POST with that knows GET only.
_ASK_AGAIN: Final = frozenset((401, 404, 405))
_REDIRECTS: Final = frozenset((301, 302, 303, 307, 308))
#: The host that answers for Docker Hub, whatever its login is kept under.
_DOCKER_HUB: Final = "registry-1.docker.io"


class TokenRequest(NamedTuple):
    """What the engine asks for: the fields of the registry's challenge."""

    host: str
    realm: str
    service: str = ""
    scopes: Sequence[str] = ()


class Token(NamedTuple):
    """A token, the seconds it lives, and when it was issued in seconds since the epoch; 0 where nobody said."""

    value: str
    expires_in: int = _LIFETIME
    issued_at: int = 0

    def __repr__(self) -> str:
        return f"Token(expires_in={self.expires_in}, issued_at={self.issued_at})"


class _Answer(NamedTuple):
    """An HTTP response, read in bounds."""

    method: str
    url: httpx.URL
    status: int
    reason: str
    headers: httpx.Headers
    body: bytes


class TokenFetcher:
    """Fetch tokens with the user's logins.

    Args:
        allowed_realms: realms that get a host's login although it cannot be asked from here, or names another.
        timeout: seconds that one request may take.

    Raises:
        UsageError: one of the realms is no address.
    """

    def __init__(self, *, allowed_realms: Realms | None = None, timeout: float = limits.TOKEN_TIMEOUT) -> None:
        self._allowed = {
            dockerconfig.config_key(host): frozenset(map(_address, [realms] if isinstance(realms, str) else realms))
            for host, realms in (allowed_realms or {}).items()
        }
        self._timeout = timeout
        #: The realm of each host, as the host says; None where it says none.
        self._named: dict[str, httpx.URL | None] = {}
        #: What TLS is checked with, by the hosts whose certificates count.
        self._trust: dict[tuple[str, ...], ssl.SSLContext] = {}

    async def can_fetch(self, host: str) -> bool:
        """Tell whether there is a realm that may get the login for a registry."""
        return dockerconfig.config_key(host) in self._allowed or await self.realm_of(host) is not None

    async def realm_of(self, host: str) -> httpx.URL | None:
        """Return the realm that a registry's own challenge names; None where it names none or cannot be asked.

        Asked once a host. A registry on this machine's loopback may speak plain HTTP; others must speak TLS.
        """
        if dockerconfig.config_key(host) == dockerconfig.DOCKER_HUB_KEY:
            host = _DOCKER_HUB
        if host not in self._named:
            self._named[host] = await self._ask_realm(host)
            while len(self._named) > limits.CREDENTIAL_CACHE_HOSTS:
                del self._named[next(iter(self._named))]
        return self._named[host]

    async def fetch(self, request: TokenRequest, login: Credentials) -> Token:
        """Return a token for what is asked, with ``login`` if it has a secret, else anonymously.

        Raises:
            RpcError: PERMISSION_DENIED where the realm is not the registry's.
            CredentialError: the realm cannot be reached, refuses, or answers with no token.

        Cancel: the request is dropped; a token may have been issued.
        """
        realm = await self._checked_realm(request)
        async with await self._client(realm, request.host) as client:
            try:
                if not login.secret:
                    return await self._get(client, realm, request, None, "anonymous")
                answer = await self._ask(client, "POST", realm, data=_form(request, login))
                if answer.status in _ASK_AGAIN and (login.username or answer.status != 405):
                    return await self._get(client, realm, request, login, "oauth")
                return _parse(answer, ("access_token",), "oauth")
            except (httpx.HTTPError, httpx.InvalidURL) as error:
                raise CredentialError(
                    f"{realm.host} did not give a token for {request.host}: {_reason(error)}",
                    hint="Is it reachable from this machine? The engine asks it through this client.",
                ) from error

    async def _get(
        self, client: httpx.AsyncClient, realm: httpx.URL, request: TokenRequest, login: Credentials | None, kind: str
    ) -> Token:
        url = realm
        if request.service:
            url = url.copy_merge_params({"service": request.service})
        for scope in request.scopes:
            url = url.copy_add_param("scope", scope)
        auth = None if login is None else httpx.BasicAuth(login.username, login.secret)
        for _ in range(limits.TOKEN_REDIRECTS):
            answer = await self._ask(client, "GET", url, auth=auth)
            if answer.status not in _REDIRECTS or "location" not in answer.headers:
                return _parse(answer, ("access_token", "token"), kind)
            target = url.join(answer.headers["location"])
            if not _same_origin(url, target):
                raise CredentialError(
                    f"{url.host} sends the request for a token of {request.host} on to {target.host}",
                    hint="Tokens are asked of the registry's own realm only; allow the other one if it is yours.",
                )
            url = target
        raise CredentialError(f"{url.host} sends the request for a token of {request.host} round in circles")

    async def _checked_realm(self, request: TokenRequest) -> httpx.URL:
        try:
            realm = httpx.URL(request.realm)
        except (httpx.InvalidURL, ValueError):
            realm = httpx.URL("")
        if realm.scheme not in ("http", "https") or not realm.host or realm.userinfo:
            raise RpcError(StatusCode.INVALID_ARGUMENT, f"{request.realm[:200]!r} is no address that gives tokens")
        if realm in self._allowed.get(dockerconfig.config_key(request.host), ()):
            return realm
        named = await self.realm_of(request.host)
        if named is None:
            raise RpcError(
                StatusCode.PERMISSION_DENIED,
                f"{request.host} does not say where its tokens come from; the login for it is not sent to {realm.host}",
                hint=f"If {realm} is right, allow it as a realm.",
            )
        if named != realm:
            raise RpcError(
                StatusCode.PERMISSION_DENIED,
                f"{request.host} has its tokens from {named}; its login is not sent to {realm.host}",
                hint="The engine named another address: do not trust it before you know why.",
            )
        return realm

    async def _ask_realm(self, host: str) -> httpx.URL | None:
        try:
            url = httpx.URL(f"https://{host}/v2/")
        except (httpx.InvalidURL, ValueError):
            return None
        async with await self._client(url, host) as client:
            for scheme in ("https", "http") if _is_loopback(url) else ("https",):
                try:
                    answer = await self._ask(client, "GET", url.copy_with(scheme=scheme))
                except (httpx.HTTPError, CredentialError):
                    continue
                return _realm(answer, plain=_is_loopback(url))
        return None

    async def _client(self, url: httpx.URL, host: str) -> httpx.AsyncClient:
        """Return a client for ``url``, which believes the authorities of the registry ``host`` and of the URL's own.

        Raises:
            CredentialError: a certificate of theirs cannot be used.
        """
        hosts = (host, url.netloc.decode("ascii"))
        if hosts not in self._trust:
            self._trust[hosts] = await trio.to_thread.run_sync(tls_context, hosts)
            while len(self._trust) > limits.CREDENTIAL_CACHE_HOSTS:
                del self._trust[next(iter(self._trust))]
        return make_client(hosts[1], self._trust[hosts], self._timeout)

    async def _ask(self, client: httpx.AsyncClient, method: str, url: httpx.URL, **given: Any) -> _Answer:
        try:
            # httpx's own timeout begins anew with each byte.
            with trio.fail_after(self._timeout):
                return await _ask(client, method, url, **given)
        except trio.TooSlowError as error:
            raise httpx.ReadTimeout("") from error


async def _ask(client: httpx.AsyncClient, method: str, url: httpx.URL, **given: Any) -> _Answer:
    body = bytearray()
    async with client.stream(method, url, **given) as response:
        try:
            async for chunk in response.aiter_raw():
                body += chunk
                if len(body) > limits.TOKEN_ANSWER:
                    # Closed and read on, not left: httpx's generators end only where their stream does.
                    await response.aclose()
        except httpx.HTTPError:
            if len(body) <= limits.TOKEN_ANSWER:
                raise
    if len(body) > limits.TOKEN_ANSWER:
        raise CredentialError(f"{url.host} answers with more than {limits.TOKEN_ANSWER} bytes, which is no token")
    return _Answer(method, url, response.status_code, response.reason_phrase, response.headers, bytes(body))


def _realm(answer: _Answer, *, plain: bool) -> httpx.URL | None:
    bearers = (said.parameters for said in challenges(answer.headers) if said.scheme == "bearer")
    named = next((parameters["realm"] for parameters in bearers if "realm" in parameters), None)
    if named is None:
        return None
    try:
        realm = httpx.URL(named)
    except httpx.InvalidURL:
        return None
    # A realm without TLS would carry the login in the clear, but within this machine.
    within = plain and realm.scheme == "http" and _is_loopback(realm)
    return realm if realm.scheme == "https" or within else None


def _form(request: TokenRequest, login: Credentials) -> dict[str, str]:
    form = {"client_id": _CLIENT_ID, "service": request.service}
    if request.scopes:
        form["scope"] = " ".join(request.scopes)
    if login.username:
        return form | {"grant_type": "password", "username": login.username, "password": login.secret}
    return form | {"grant_type": "refresh_token", "refresh_token": login.secret}


def _parse(answer: _Answer, fields: tuple[str, ...], kind: str) -> Token:
    where = answer.url.copy_with(query=None)
    if not 200 <= answer.status < 400 or answer.status in _REDIRECTS:
        raise CredentialError(
            f"failed to fetch {kind} token: unexpected status from {answer.method} request to {where}: "
            f"{answer.status} {answer.reason}{_details(answer)}"
        )
    found = _json(answer)
    value = next((found[field] for field in fields if isinstance(found.get(field), str) and found[field]), "")
    if not value:
        raise CredentialError(f"failed to fetch {kind} token: {where} answered without a token")
    lifetime = found.get("expires_in")
    if not isinstance(lifetime, int) or lifetime <= 0:
        lifetime = _LIFETIME
    return Token(value, min(lifetime, limits.TOKEN_LIFETIME), _issued(found))


def _issued(found: dict[str, Any]) -> int:
    try:
        return max(0, int(datetime.datetime.fromisoformat(found["issued_at"]).timestamp()))
    except (KeyError, TypeError, ValueError, OverflowError):
        return 0


def _details(answer: _Answer) -> str:
    """Return what the registry says of its refusal, in bounds."""
    errors = _json(answer).get("errors")
    if isinstance(errors, list) and errors and isinstance(errors[0], dict):
        return f": {str(errors[0].get('code', ''))[:64]}: {str(errors[0].get('message', ''))[:256]}"
    return ""


def _json(answer: _Answer) -> dict[str, Any]:
    try:
        found = json.loads(answer.body)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _address(realm: str) -> httpx.URL:
    try:
        url = httpx.URL(realm)
    except (httpx.InvalidURL, TypeError) as error:
        raise UsageError(f"{realm!r} is no address that gives tokens") from error
    if url.scheme not in ("http", "https") or not url.host:
        raise UsageError(f"{realm!r} is no address that gives tokens", hint="Write https://HOST/PATH.")
    return url


def _is_loopback(url: httpx.URL) -> bool:
    return is_loopback(url.netloc.decode("ascii"))


def _same_origin(one: httpx.URL, other: httpx.URL) -> bool:
    return (one.scheme, one.host, _port(one)) == (other.scheme, other.host, _port(other))


def _port(url: httpx.URL) -> int:
    return url.port or (443 if url.scheme == "https" else 80)


def _reason(error: Exception) -> str:
    return "it took too long" if isinstance(error, httpx.TimeoutException) else str(error) or type(error).__name__
