"""Registry credentials: the places they are looked up in.

A build asks for credentials of one registry at a time. `DockerCredentials` finds what the docker CLI would find: a
login in ``config.json``, in plain text or with a credential helper. A mapping or a function of the user's can stand in
for it. Nothing found is an answer like any other, `ANONYMOUS`: the registry is then asked without credentials.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Protocol, TypeAlias, runtime_checkable

import trio

from mobysession import dockerconfig, limits
from mobysession.errors import CredentialError, EndpointError, UsageError
from mobysession.services.provider import Provider

if TYPE_CHECKING:
    import os

    from mobysession.services.credential_helper import HelperAnswer

__all__ = [
    *("ANONYMOUS", "CredentialSource", "Credentials", "CredentialsFrom", "DockerCredentials", "Lookups"),
    "credential_source",
]

#: The user name by which a helper says that the secret is an identity token.
_NO_USER: Final = "<token>"
#: Helpers of keychains that may hang when they are asked twice at once.
_ONE_AT_A_TIME: Final = frozenset(("osxkeychain",))


@dataclass(frozen=True)
class Credentials:
    """A user name and a password; an identity token is a secret without a user name.

    ``registry_token`` is a token that the registry takes as it is, and for which nobody has to be asked.
    """

    username: str
    secret: str = field(repr=False)
    registry_token: str = field(default="", repr=False)


ANONYMOUS: Final = Credentials("", "")


@runtime_checkable
class CredentialSource(Protocol):
    """What looks up credentials."""

    async def lookup(self, host: str) -> Credentials:
        """Return the credentials for a registry, `ANONYMOUS` when there are none.

        Args:
            host: ``host[:port]`` as the engine dials it: ``registry-1.docker.io`` for Docker Hub.

        Raises:
            CredentialError: there may be some, and they cannot be had; the user must act.
        """
        ...


_Login: TypeAlias = Credentials | tuple[str, str]
#: Whatever credentials can be taken from. A mapping has hosts as keys, ``docker.io`` for Docker Hub; their case, a
#: scheme and a path do not matter, as for the keys of docker's configuration. A function is called with the host at
#: each request, in a worker thread unless it is a coroutine function; None means anonymous.
CredentialsFrom: TypeAlias = (
    CredentialSource | Mapping[str, _Login] | Callable[[str], _Login | Awaitable[_Login | None] | None]
)


def credential_source(source: CredentialsFrom | None) -> CredentialSource:
    """Make a source of a mapping, a function, another source, or None: the user's docker configuration.

    Raises:
        UsageError: ``source`` is none of these; the caller must change it.
    """
    if source is None:
        return DockerCredentials()
    if isinstance(source, Mapping):
        return _MappedCredentials(source)
    if isinstance(source, CredentialSource):
        return source
    if callable(source):
        return _ProvidedCredentials(source)
    raise UsageError(
        f"credentials cannot come from an object of type {type(source).__name__}",
        hint="Give a mapping of hosts to (user, password), or a function that returns such a pair.",
    )


class Lookups(ABC):
    """Keeps what `_find` finds for ``cache_for`` seconds, also that there is nothing; a failure is not kept."""

    def __init__(self, cache_for: float = limits.CREDENTIAL_CACHE) -> None:
        self._cache_for = cache_for
        self._cache: dict[str, tuple[float, Credentials]] = {}
        # Of several steps that ask for one registry at once only the first should cost a helper. Different registries
        # do not wait for each other, but where a keychain may hang when it is asked twice (docker/cli#1862).
        self._turns: dict[str, trio.Lock] = {}

    async def lookup(self, host: str) -> Credentials:
        """Return the credentials for a registry, as `CredentialSource.lookup` says.

        Raises:
            CredentialError: there may be some, and they cannot be had; the user must mend what the message names, such
                as a configuration or a helper.

        Cancel: a running helper is killed, and gone when this returns.
        """
        key = dockerconfig.config_key(host)
        async with self._turn(key):
            expiry, found = self._cache.get(key, (0.0, ANONYMOUS))
            # Not the loop's clock: a source may outlive a loop.
            if time.monotonic() < expiry:
                return found
            found = await self._find(host, key)
            self._remember(key, found)
        return found

    @asynccontextmanager
    async def _turn(self, name: str) -> AsyncIterator[None]:
        """Hold the lock of a name, which is forgotten with the last who wants it."""
        lock = self._turns.setdefault(name, trio.Lock())
        try:
            async with lock:
                yield
        finally:
            if not lock.locked() and not lock.statistics().tasks_waiting:
                self._turns.pop(name, None)

    def _remember(self, key: str, found: Credentials) -> None:
        self._cache.pop(key, None)
        if len(self._cache) >= limits.CREDENTIAL_CACHE_HOSTS:
            del self._cache[next(iter(self._cache))]
        self._cache[key] = (time.monotonic() + self._cache_for, found)

    @abstractmethod
    async def _find(self, host: str, key: str) -> Credentials:
        """Look up the credentials for a registry, whose key in a configuration is ``key``."""


class DockerCredentials(Lookups):
    """Look credentials up where the docker CLI keeps them; never changes anything there.

    What was found is used again for ``cache_for`` seconds, also that there is nothing; a failure is not kept.

    Args:
        config_dir: the directory of ``config.json``; None: ``$DOCKER_CONFIG``, else ``~/.docker``, at each lookup.
        timeout: seconds that a credential helper may take.
        cache_for: seconds for which a result is used again.
    """

    def __init__(
        self,
        config_dir: str | os.PathLike[str] | None = None,
        *,
        timeout: float = limits.CREDENTIAL_HELPER_TIMEOUT,
        cache_for: float = limits.CREDENTIAL_CACHE,
    ) -> None:
        super().__init__(cache_for)
        self._config_dir = config_dir
        self._timeout = timeout

    def __repr__(self) -> str:
        return f"DockerCredentials({str(self._config_dir)!r})" if self._config_dir else "DockerCredentials()"

    async def _find(self, host: str, key: str) -> Credentials:
        config, helper = await trio.to_thread.run_sync(self._configuration, key)
        # A helper's answer takes the place of a login, and not of a registry token: docker/cli's native store.
        entry = config.auth_entry(key)
        token = entry.registry_token if entry is not None else ""
        if helper is not None:
            from mobysession.services.credential_helper import ask_helper  # few have one, and it takes a while to load

            async with self._turn(helper if helper in _ONE_AT_A_TIME else f"{helper} {key}"):
                answer = await ask_helper(helper, key, config=config.path, seconds=self._timeout)
            return _from_helper(answer, token)
        if entry is None:
            return ANONYMOUS
        if entry.identity_token:
            return Credentials("", entry.identity_token, token)
        return Credentials(entry.username, entry.password, token)

    def _configuration(self, key: str) -> tuple[dockerconfig.DockerConfig, str | None]:
        try:
            config = dockerconfig.load(self._config_dir)
        except EndpointError as error:
            raise CredentialError(error.message, hint=error.hint) from error
        return config, config.helper_for(key)


def _from_helper(answer: HelperAnswer | None, token: str) -> Credentials:
    if answer is None:
        return Credentials("", "", token) if token else ANONYMOUS
    return Credentials("" if answer.username == _NO_USER else answer.username, answer.secret, token)


class _MappedCredentials:
    def __init__(self, logins: Mapping[str, _Login]) -> None:
        self._logins: dict[str, Credentials] = {}
        for name, login in logins.items():
            host = dockerconfig.hostname(name)
            if not host:
                raise UsageError(f"{name!r} is no registry", hint="Name it as images do: ghcr.io, or localhost:5000.")
            credentials = _credentials(login)
            if credentials is None:
                raise UsageError(f"the credentials for {host} are not a pair of user name and password")
            # As in a configuration, a name with a scheme or a path counts for its host, where that has none of its own.
            key = dockerconfig.config_key(host.lower())
            if name == host or key not in self._logins:
                self._logins[key] = credentials

    async def lookup(self, host: str) -> Credentials:
        return self._logins.get(dockerconfig.config_key(host.lower()), ANONYMOUS)


class _ProvidedCredentials:
    def __init__(self, function: Callable[[str], object]) -> None:
        try:
            self._provider = Provider(function)
        except TypeError:
            raise UsageError("the function for credentials takes more than the host") from None

    async def lookup(self, host: str) -> Credentials:
        try:
            login = await self._provider.call(host)
        except Exception as error:  # of any kind: the function is not ours
            # The text of the failure may hold a password, so only its type is told.
            raise CredentialError(
                f"the function for credentials of {host} failed with {type(error).__name__}"
            ) from error
        if login is None:
            return ANONYMOUS
        credentials = _credentials(login)
        if credentials is None:
            raise CredentialError(
                f"the function for credentials of {host} returned an object of type {type(login).__name__}",
                hint="It must return a pair of user name and password, or None.",
            )
        return credentials


def _credentials(login: object) -> Credentials | None:
    if isinstance(login, Credentials):
        return login
    if isinstance(login, tuple | list) and len(login) == 2 and all(isinstance(part, str) for part in login):
        return Credentials(*login)
    return None
