"""Logins that several builds ask for: each is looked up once for all of them.

A credential helper takes a while, and a function of the user's may ask somebody. What was found is used again for
`limits.CREDENTIAL_CACHE` seconds, also that there is nothing; a failure is not kept.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mobysession.services.credentials import Lookups

if TYPE_CHECKING:
    from mobysession.services.credentials import Credentials, CredentialSource

__all__ = ["KeptCredentials"]


class KeptCredentials(Lookups):
    """A source that asks another one once a registry.

    Args:
        source: who knows.
    """

    def __init__(self, source: CredentialSource) -> None:
        super().__init__()
        self._source = source

    def __repr__(self) -> str:
        return f"KeptCredentials({self._source!r})"

    async def _find(self, host: str, key: str) -> Credentials:
        return await self._source.lookup(host)
