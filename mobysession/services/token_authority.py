"""The proof by which an engine knows a client that fetches registry tokens itself.

An engine that may let this client fetch tokens keeps them under a public key, so that they are used again by whoever
has the same login, and by nobody else. The key pair is derived from a salt of the engine's and a seed of ours, one a
host, which lies beside the docker configuration and is the same for every docker client of the user. Without a login
there is nothing to protect: the seed is empty then, and all who ask anonymously share.

Source: moby/buildkit session/auth/authprovider (authprovider.go, tokenseed.go).
"""

from __future__ import annotations

import base64
import contextlib
import hmac
import json
import os
import secrets
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from mobysession import dockerconfig, limits

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["TokenSeeds", "public_key", "sign"]

_FILE: Final = ".token_seed"
_SEED_SIZE: Final = 16
#: Seconds between two looks at a lock that somebody else holds.
_LOCK_PAUSE: Final = 0.01
#: Bytes of the seed file that are read: far more than any user has hosts.
_MAX_FILE: Final = 1024 * 1024


class TokenSeeds:
    """The seeds of this user's hosts, in the file that every docker client shares. Its methods block.

    Where the file can be neither read nor written the seeds live as long as this object.

    Args:
        directory: that of ``config.json``; None: ``$DOCKER_CONFIG``, else ``~/.docker``.
    """

    def __init__(self, directory: str | os.PathLike[str] | None = None) -> None:
        self._directory = Path(directory) if directory is not None else dockerconfig.config_dir()
        self._known: dict[str, bytes] = {}

    def seed(self, host: str) -> bytes:
        """Return the 16 bytes for a host, made on first use."""
        if host not in self._known:
            self._known[host] = self._from_file(host)
        return self._known[host]

    def _from_file(self, host: str) -> bytes:
        fresh = secrets.token_bytes(_SEED_SIZE)
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
            with _locked(self._directory / f"{_FILE}.lock"):
                return self._read_or_add(host, fresh)
        except OSError:
            # A read-only home is no reason not to build.
            return fresh

    def _read_or_add(self, host: str, fresh: bytes) -> bytes:
        path = self._directory / _FILE
        entries = _entries(path)
        entry = entries.get(host)
        try:
            seed = base64.b64decode(entry["Seed"], validate=True) if isinstance(entry, dict) else b""
        except (KeyError, TypeError, ValueError):
            seed = b""
        if seed:
            return seed
        entries[host] = {"Seed": base64.b64encode(fresh).decode("ascii")}
        scratch = path.with_name(f"{_FILE}.{secrets.token_hex(4)}")
        descriptor = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with open(descriptor, "w", encoding="utf-8") as file:
                json.dump(entries, file, indent=2)
            scratch.replace(path)
        except BaseException:
            scratch.unlink(missing_ok=True)
            raise
        return fresh


def public_key(salt: bytes, seed: bytes) -> bytes:
    """Return the 32 bytes by which an engine with ``salt`` knows whoever has ``seed``; empty for no login."""
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    return _private_key(salt, seed).public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)  # type: ignore[no-any-return]  # of a key typed Any


def sign(salt: bytes, seed: bytes, payload: bytes) -> bytes:
    """Return the signature of ``payload``, 64 bytes, and behind it the payload, as NaCl signs."""
    signature: bytes = _private_key(salt, seed).sign(payload)
    return signature + payload


def _private_key(salt: bytes, seed: bytes) -> Any:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    return Ed25519PrivateKey.from_private_bytes(hmac.digest(salt, seed, "sha256"))


def _entries(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            found = json.loads(file.read(_MAX_FILE))
    except (FileNotFoundError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold the lock that other docker clients hold while they touch the seeds; OSError where it is not to be had.

    Whoever can read the lock can hold it for ever, so it is not waited for without an end.
    """
    with open(os.open(path, os.O_RDWR | os.O_CREAT, 0o600), "ab") as file:
        try:
            import fcntl
        except ImportError:  # Windows, where the docker CLI's lock is of another kind; the file is replaced whole
            yield
            return
        deadline = time.monotonic() + limits.SEED_LOCK_TIMEOUT
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    raise
            time.sleep(_LOCK_PAUSE)
        yield
