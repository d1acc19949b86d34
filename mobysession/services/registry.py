"""A registry's HTTP API, as far as an index is made with it: manifests are read and written, small blobs read.

A request goes out bare. What refuses it says how to prove who one is: with the login itself, or with a token that the
login buys at the registry's realm; that is kept for the requests that follow. A registry on this machine's loopback may
speak plain HTTP; all others must speak TLS.

Source: opencontainers/distribution-spec spec.md; distribution/distribution docs/content/spec/auth.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Final, NamedTuple

import httpx
import trio

from mobysession import limits
from mobysession.errors import ApiError, ConnectError, CredentialError, RemoteProtocolError
from mobysession.redaction import Redactor
from mobysession.services.registry_certificates import tls_context
from mobysession.services.registry_http import challenges, is_loopback, make_client
from mobysession.services.registry_tokens import TokenFetcher, TokenRequest

if TYPE_CHECKING:
    import ssl
    from collections.abc import Sequence

    from mobysession.services.credentials import CredentialSource
    from mobysession.services.image_name import ImageName

__all__ = ["MANIFEST_TYPES", "Manifest", "Registry"]

#: What a manifest can be, in the order in which it is asked for.
MANIFEST_TYPES: Final = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
)
#: Characters of a registry's own words that an error repeats.
_LONGEST_ANSWER: Final = 500


class Manifest(NamedTuple):
    """A manifest as the registry has it, to the byte."""

    media_type: str
    digest: str
    body: bytes


class Registry:
    """Reads and writes manifests.

    Args:
        source: who has the logins.
        redactor: is told of every secret before it is sent.
        timeout: seconds that one request may take.
    """

    def __init__(
        self, source: CredentialSource, *, redactor: Redactor | None = None, timeout: float = limits.REGISTRY_TIMEOUT
    ) -> None:
        self._source = source
        self._redactor = redactor if redactor is not None else Redactor()
        self._timeout = timeout
        self._fetcher = TokenFetcher()
        #: By host: how it is spoken to, and what TLS is checked with; by repository: how it is told who asks.
        self._schemes: dict[str, str] = {}
        self._trust: dict[str, ssl.SSLContext] = {}
        self._logins: dict[tuple[str, str], str] = {}

    async def manifest(self, name: ImageName, digest: str) -> Manifest:
        """Return the manifest of this digest.

        Raises:
            ApiError: the registry refused, or has none; ConnectError where it cannot be reached.
            CredentialError: the login cannot be had, or is none there.
            RemoteProtocolError: what it sent is not what was asked for.
        """
        answer = await self._ask(
            "GET", name, f"manifests/{digest}", headers=[("accept", kind) for kind in MANIFEST_TYPES]
        )
        kind = answer.headers.get("content-type", "").partition(";")[0].strip()
        return Manifest(kind, digest, _checked(name, digest, answer.content))

    async def blob(self, name: ImageName, digest: str) -> bytes:
        """Return a small blob, such as the configuration of an image; errors as of `manifest`."""
        return _checked(name, digest, (await self._ask("GET", name, f"blobs/{digest}")).content)

    async def put_manifest(self, name: ImageName, media_type: str, body: bytes) -> str:
        """Write a manifest under the name's tag and return its digest; errors as of `manifest`.

        Cancel: it may have been written.
        """
        await self._ask("PUT", name, f"manifests/{name.tag}", headers=[("content-type", media_type)], content=body)
        return _digest(body)

    async def _ask(
        self,
        method: str,
        name: ImageName,
        what: str,
        *,
        headers: Sequence[tuple[str, str]] = (),
        content: bytes | None = None,
    ) -> httpx.Response:
        answer = await self._send(method, name, what, headers, content)
        if answer.status_code == httpx.codes.UNAUTHORIZED:
            self._logins[name.host, name.repository] = await self._authorize(name, answer)
            answer = await self._send(method, name, what, headers, content)
        if answer.status_code >= httpx.codes.BAD_REQUEST:
            said = self._redactor.redact(answer.text[:_LONGEST_ANSWER].strip())
            message = f"{name.host} refuses {method} {what} of {name.repository}: {answer.status_code} {said}"
            if answer.status_code in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
                raise CredentialError(message, hint=f"Log in to {name.host} (docker login) as who may push there.")
            raise ApiError(message, status=answer.status_code)
        return answer

    async def _send(
        self, method: str, name: ImageName, what: str, headers: Sequence[tuple[str, str]], content: bytes | None
    ) -> httpx.Response:
        login = self._logins.get((name.host, name.repository))
        sent = [*headers, *([("authorization", login)] if login else ())]
        if name.host in self._schemes:
            schemes: tuple[str, ...] = (self._schemes[name.host],)
        else:
            schemes = ("https", "http") if is_loopback(name.host) else ("https",)
        async with await self._client(name.host) as client:
            failure: Exception | None = None
            for scheme in schemes:
                url = f"{scheme}://{name.host}/v2/{name.repository}/{what}"
                try:
                    with trio.fail_after(self._timeout):
                        answer = await _bounded(
                            client, client.build_request(method, url, headers=sent, content=content)
                        )
                except (httpx.HTTPError, httpx.InvalidURL, trio.TooSlowError) as error:
                    failure = failure or error
                    continue
                self._schemes[name.host] = scheme
                return answer
        why = "it took too long" if isinstance(failure, (trio.TooSlowError, httpx.TimeoutException)) else str(failure)
        raise ConnectError(
            f"the registry {name.host} cannot be reached: {why}",
            hint="An index is written from this machine, which must reach the registry as the engines do.",
        ) from failure

    async def _authorize(self, name: ImageName, answer: httpx.Response) -> str:
        """Return what to say to a registry that asks who we are."""
        login = await self._source.lookup(name.host)
        self._redactor.add(login.secret)
        self._redactor.add(login.registry_token)
        if login.registry_token:
            return f"Bearer {login.registry_token}"
        for scheme, said in challenges(answer.headers):
            if scheme == "bearer":
                scopes = (f"repository:{name.repository}:pull,push",)
                wanted = TokenRequest(name.host, said.get("realm", ""), said.get("service", ""), scopes)
                token = await self._fetcher.fetch(wanted, login)
                self._redactor.add(token.value)
                return f"Bearer {token.value}"
            if scheme == "basic" and login.username:
                import base64

                return "Basic " + base64.b64encode(f"{login.username}:{login.secret}".encode()).decode()
        raise CredentialError(
            f"{name.host} wants a login, and there is none", hint=f"Log in to {name.host} (docker login)."
        )

    async def _client(self, host: str) -> httpx.AsyncClient:
        if host not in self._trust:
            self._trust[host] = await trio.to_thread.run_sync(tls_context, (host,))
        return make_client(host, self._trust[host], self._timeout)


async def _bounded(client: httpx.AsyncClient, request: httpx.Request) -> httpx.Response:
    """Send a request and return the answer, with its body; RemoteProtocolError where that is too long."""
    # A blob may be kept elsewhere; httpx takes the login along to its own host only.
    answer = await client.send(request, stream=True, follow_redirects=request.method == "GET")
    body = bytearray()
    try:
        async for chunk in answer.aiter_raw():
            body += chunk
            if len(body) > limits.MANIFEST_SIZE:
                # Closed and read on, not left: httpx's generators end only where their stream does.
                await answer.aclose()
    except httpx.HTTPError:
        if len(body) <= limits.MANIFEST_SIZE:
            raise
    finally:
        with trio.CancelScope(shield=True):
            await answer.aclose()
    if len(body) > limits.MANIFEST_SIZE:
        raise RemoteProtocolError(f"{request.url.host} answers with more than a manifest can have")
    return httpx.Response(answer.status_code, headers=answer.headers, content=bytes(body), request=request)


def _checked(name: ImageName, digest: str, body: bytes) -> bytes:
    if _digest(body) != digest:
        raise RemoteProtocolError(f"what {name.host} sends as {digest} of {name.repository} has another digest")
    return body


def _digest(body: bytes) -> str:
    return "sha256:" + hashlib.sha256(body).hexdigest()
