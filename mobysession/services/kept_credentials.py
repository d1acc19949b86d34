"""Logins that several builds ask for: each is looked up once for all of them.

A credential helper takes a while, and a function of the user's may ask somebody. What was found is used again for
`limits.CREDENTIAL_CACHE` seconds, also that there is nothing; a failure is not kept.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import trio

from mobysession import dockerconfig, limits

if TYPE_CHECKING:
    from mobysession.services.credentials import Credentials, CredentialSource

__all__ = ["KeptCredentials"]


class KeptCredentials:
    """A source that asks another one once a registry.

    Args:
        source: who knows.
    """

    def __init__(self, source: CredentialSource) -> None:
        self._source = source
        self._found: dict[str, tuple[float, Credentials]] = {}
        self._turn = trio.Lock()

    def __repr__(self) -> str:
        return f"KeptCredentials({self._source!r})"

    async def lookup(self, host: str) -> Credentials:
        """Return the credentials for a registry, as `mobysession.services.credentials.CredentialSource.lookup`.

        Raises:
            CredentialError: there may be some, and they cannot be had; the user must act.

        Cancel: as with the source.
        """
        key = dockerconfig.config_key(host)
        async with self._turn:
            expiry, found = self._found.get(key, (0.0, None))
            if found is None or time.monotonic() >= expiry:
                found = await self._source.lookup(host)
                self._found.pop(key, None)
                while len(self._found) >= limits.CREDENTIAL_CACHE_HOSTS:
                    del self._found[next(iter(self._found))]
                self._found[key] = time.monotonic() + limits.CREDENTIAL_CACHE, found
        return found
