"""The docker CLI's ``config.json``: read, never written.

The directory is ``$DOCKER_CONFIG``, else ``~/.docker``; a missing file is an empty configuration, and keys are matched
as Go matches them: exactly, else in any case. Two environment variables lie over the file: ``DOCKER_AUTH_CONFIG`` adds
logins that win over it and over every helper, ``DOCKER_CUSTOM_HEADERS`` replaces ``HttpHeaders``. The rules are
docker/cli's ``cli/config/configfile/file.go`` and ``cli/config/credentials``.

A login is decoded when it is asked for, so that one broken entry harms only the build that needs it. No error and no
``repr`` shows what an entry holds.
"""

from __future__ import annotations

import binascii
import logging
import os
import shutil
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from mobysession.errors import CredentialError, EndpointError
from mobysession.jsontext import parse_json

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "DOCKER_HUB_KEY",
    "AuthEntry",
    "DockerConfig",
    "config_dir",
    "config_key",
    "custom_headers",
    "hostname",
    "load",
]

#: The key under which the docker CLI keeps the login of Docker Hub.
DOCKER_HUB_KEY = "https://index.docker.io/v1/"

_DOCKER_HUB_HOSTS = frozenset({"docker.io", "index.docker.io", "registry-1.docker.io"})
_HELPER_PREFIX = "docker-credential-"
_ENTRY_TEXTS = ("auth", "username", "password", "identitytoken", "registrytoken")
_logger = logging.getLogger("mobysession.dockerconfig")


@dataclass(frozen=True, kw_only=True)
class AuthEntry:
    """What ``auths`` holds for one registry; what is absent is empty."""

    username: str = ""
    password: str = field(default="", repr=False)
    identity_token: str = field(default="", repr=False)
    registry_token: str = field(default="", repr=False)


@dataclass(frozen=True, kw_only=True)
class DockerConfig:
    """A read configuration.

    Attributes:
        path: the file it was read from, which need not exist.
        creds_store: suffix of the helper for all registries, e.g. ``pass``; None without one.
        cred_helpers: suffixes of the helpers for single registries, by the keys of ``config_key``.
        http_headers: extra header lines for every request to the engine.
        current_context: name of the docker context in use; None without one.
        proxies: proxy settings by daemon URL or ``default``, as written: ``httpProxy``, ``httpsProxy``, ``ftpProxy``,
            ``noProxy``, ``allProxy``.
    """

    path: Path
    creds_store: str | None = None
    cred_helpers: Mapping[str, str] = field(default_factory=dict)
    http_headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    current_context: str | None = None
    proxies: Mapping[str, Mapping[str, str]] = field(default_factory=dict, repr=False)
    _auths: Mapping[str, object] = field(default_factory=dict, repr=False)
    _environment_auths: Mapping[str, object] = field(default_factory=dict, repr=False)

    @property
    def logins(self) -> tuple[str, ...]:
        """The keys of the plain logins, those of the environment first."""
        return tuple({**self._environment_auths, **self._auths})

    def auth_entry(self, host: str) -> AuthEntry | None:
        """Find the plain login for a registry.

        A key with a scheme or a path, as old logins and ``docker login HOST/PATH`` leave them, counts for its bare host
        where there is no key of just that host; of several the first. Docker's CLI does the same. What is asked for is
        never cut down.

        Args:
            host: ``host[:port]`` as in an image reference, the engine's ``registry-1.docker.io``, or a key of the file.

        Returns: the entry, also where a helper is configured, whose answer then replaces user, password and identity
            token; None when there is none.

        Raises:
            CredentialError: the entry is there and cannot be read; the user must log in again.
        """
        for auths in (self._environment_auths, self._auths):
            key = _matching_key(auths, host)
            if key is not None:
                return self._decode(key, auths[key])
        return None

    def helper_for(self, host: str) -> str | None:
        """Name the credential helper to ask about a registry: the ``x`` of ``docker-credential-x``.

        Returns: None when the plain entry counts: no helper is configured, or DOCKER_AUTH_CONFIG lists the registry.
            A configuration without any logins and helpers gets the platform's own store, where its helper is installed.
        """
        if _matching_key(self._environment_auths, host) is not None:
            return None
        key = config_key(host)
        if key in self.cred_helpers:
            return self.cred_helpers[key] or None
        if self.creds_store or self.cred_helpers or self._auths:
            return self.creds_store
        return _native_store()

    def proxy_arguments(self, url: str) -> dict[str, str]:
        """Return the build arguments that stand for the proxies of the daemon at ``url``: each name in both cases.

        Source: docker/cli cli/config/configfile/file.go, ParseProxyConfig.
        """
        settings = self.proxies.get(url, self.proxies.get("default", {}))
        given = {key.casefold(): value for key, value in settings.items() if value}
        arguments = {}
        for name in ("HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY", "ALL_PROXY"):
            value = given.get(name.replace("_", "").casefold())
            if value:
                arguments[name] = arguments[name.lower()] = value
        return arguments

    def _decode(self, key: str, entry: object) -> AuthEntry:
        try:
            return _decode_entry(entry)
        except ValueError as reason:
            raise CredentialError(
                f"the login for {key} in {self.path} cannot be read: {reason}",
                hint=f"Log in again: docker login {hostname(key)}",
            ) from None


def config_dir(environ: Mapping[str, str] | None = None) -> Path:
    """Return the directory of the docker CLI's configuration, which need not exist."""
    environ = os.environ if environ is None else environ
    named = environ.get("DOCKER_CONFIG")
    if named:
        return Path(named)
    home = environ.get("HOME") or os.path.expanduser("~")
    return Path(home, ".docker")


def config_key(host: str) -> str:
    """Return the key under which the docker CLI keeps what belongs to a registry: Docker Hub's three names have one."""
    return DOCKER_HUB_KEY if host in _DOCKER_HUB_HOSTS else host


def load(directory: str | os.PathLike[str] | None = None, *, environ: Mapping[str, str] | None = None) -> DockerConfig:
    """Read ``config.json``; blocking.

    Args:
        directory: where it is; None: ``config_dir(environ)``.
        environ: variables to read instead of the process's own; ``{}`` for the file alone.

    Raises:
        EndpointError: the file is there and cannot be read, or a key in it is of the wrong kind; the user must mend it.
    """
    environ = os.environ if environ is None else environ
    path = Path(directory if directory is not None else config_dir(environ), "config.json")
    fields = JsonFile.read(path) or JsonFile(path, {})
    return DockerConfig(
        path=path,
        creds_store=fields.text("credsStore") or None,
        cred_helpers=fields.texts("credHelpers"),
        http_headers=custom_headers(environ) or tuple(fields.texts("HttpHeaders").items()),
        current_context=fields.text("currentContext") or None,
        proxies={name: proxy.all_texts() for name, proxy in fields.children("proxies")},
        _auths=fields.child("auths").values,
        _environment_auths=_environment_auths(environ),
    )


class JsonFile:
    """An object in a JSON file of the docker CLI; its keys are found as Go finds them, and checked for their kinds.

    Args:
        path: the file, for error messages.
        values: the object.
        where: the keys that lead to it, for error messages.
    """

    def __init__(self, path: Path, values: Mapping[str, object], where: str = "") -> None:
        self.path = path
        self.values = values
        self._where = where

    @classmethod
    def read(cls, path: Path) -> JsonFile | None:
        """Read a file that holds one JSON object; None when there is no file. Raises EndpointError as ``load`` does."""
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise EndpointError(
                f"{path} cannot be read: {error.strerror}",
                hint="Make it readable for you, or point DOCKER_CONFIG elsewhere.",
            ) from error
        return cls(path, _parse_object(path, content))

    def text(self, key: str) -> str:
        """Return a string, empty when absent."""
        value = self._find(key)
        if not isinstance(value, str | None):
            raise self._wrong_kind(key, "a string")
        return value or ""

    def flag(self, key: str) -> bool:
        """Return a boolean, false when absent."""
        value = self._find(key)
        if not isinstance(value, bool | None):
            raise self._wrong_kind(key, "true or false")
        return bool(value)

    def child(self, key: str) -> JsonFile:
        """Return the object under a key, empty when absent."""
        value = self._find(key)
        if not isinstance(value, dict | None):
            raise self._wrong_kind(key, "an object")
        return JsonFile(self.path, value or {}, f"{self._where}{key}.")

    def children(self, key: str) -> list[tuple[str, JsonFile]]:
        """Return the named objects in the object under a key."""
        parent = self.child(key)
        return [(name, parent.child(name)) for name in parent.values]

    def texts(self, key: str) -> dict[str, str]:
        """Return the strings in the object under a key."""
        return self.child(key).all_texts()

    def all_texts(self) -> dict[str, str]:
        """Return this object, which must hold nothing but strings."""
        return {name: self.text(name) for name in self.values}

    def _find(self, key: str) -> object:
        if key in self.values:
            return self.values[key]
        folded = key.casefold()
        return next((value for name, value in self.values.items() if name.casefold() == folded), None)

    def _wrong_kind(self, key: str, kind: str) -> EndpointError:
        return EndpointError(f"{self._where}{key} in {self.path} is not {kind}", hint="Mend the file, or move it away.")


def _parse_object(path: Path, content: bytes) -> dict[str, object]:
    try:
        value = parse_json(content)
    except ValueError as error:
        line = getattr(error, "lineno", None)  # of a JSONDecodeError
        place = f", line {line}" if line else ""
        # Not chained: a JSONDecodeError carries the whole document, with all its logins.
        raise EndpointError(f"{path} is not JSON{place}", hint="Mend the file, or move it away.") from None
    if not isinstance(value, dict):
        raise EndpointError(f"{path} does not hold a JSON object", hint="Mend the file, or move it away.")
    return value


def _matching_key(auths: Mapping[str, object], host: str) -> str | None:
    key = config_key(host)
    if key in auths:
        return key
    bare = hostname(key) if key == DOCKER_HUB_KEY else key
    return next((name for name in auths if hostname(name) == bare), None)


def hostname(key: str) -> str:
    """Return the ``host[:port]`` of a key in the configuration, which may have a scheme and a path."""
    return key.removeprefix("http://").removeprefix("https://").partition("/")[0]


def _decode_entry(entry: object) -> AuthEntry:
    """Read one value of ``auths``; a ValueError says what is wrong without saying what is there."""
    if not isinstance(entry, dict):
        raise ValueError("it is not an object")  # noqa: TRY004 - one class for all that is wrong with an entry
    fields = {str(key).casefold(): value for key, value in entry.items()}
    texts = {key: fields.get(key) or "" for key in _ENTRY_TEXTS}
    if not all(isinstance(value, str) for value in texts.values()):
        raise ValueError("a value in it is not a string")
    username, password = texts["username"], texts["password"]
    if texts["auth"]:
        username, password = _decode_auth(texts["auth"])
    return AuthEntry(
        username=username,
        password=password,
        identity_token=texts["identitytoken"],
        registry_token=texts["registrytoken"],
    )


def _decode_auth(auth: str) -> tuple[str, str]:
    try:
        decoded = binascii.a2b_base64(auth.encode("ascii"), strict_mode=True).decode()
    except ValueError:
        raise ValueError("its auth is not base64 of user:password") from None
    username, colon, password = decoded.partition(":")
    if not colon or not username:
        raise ValueError("its auth is not base64 of user:password")
    return username, password.strip("\0")


def _environment_auths(environ: Mapping[str, str]) -> Mapping[str, object]:
    value = environ.get("DOCKER_AUTH_CONFIG")
    if not value:
        return {}
    try:
        document = parse_json(value)
        if (
            not isinstance(document, dict)
            or set(document) != {"auths"}
            or not all(entry["auth"] and set(entry) == {"auth"} for entry in document["auths"].values())
        ):
            raise ValueError
    except (ValueError, TypeError, KeyError, AttributeError):
        _logger.warning('DOCKER_AUTH_CONFIG is ignored: it is not {"auths": {HOST: {"auth": BASE64}}}')
        return {}
    auths: dict[str, object] = document["auths"]
    return auths


def custom_headers(environ: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """Return the header lines in ``DOCKER_CUSTOM_HEADERS``; EndpointError when it is malformed."""
    value = environ.get("DOCKER_CUSTOM_HEADERS")
    if not value:
        return ()
    import csv  # only for who sets it: start-up

    try:
        pairs = [item.partition("=") for row in csv.reader([value]) for item in row]
    except csv.Error:  # an end of line, or a field of more than 128 KiB
        pairs = [("", "", "")]
    if not all(name.strip() and separator for name, separator, _ in pairs):
        raise EndpointError("DOCKER_CUSTOM_HEADERS is not a comma-separated list of NAME=VALUE")
    return tuple((name.strip(), content) for name, _, content in pairs)


def _native_store() -> str | None:
    if sys.platform == "darwin":
        store = "osxkeychain"
    elif sys.platform == "win32":
        store = "wincred"
    else:
        store = "pass" if shutil.which("pass") else "secretservice"
    return store if shutil.which(_HELPER_PREFIX + store) else None
