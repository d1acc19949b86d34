"""Registry logins in a variable: JSON as docker's ``DOCKER_AUTH_CONFIG`` has it.

::

    {"auths": {"registry.example": {"auth": "base64 of user:password"}}}

An entry may have ``username`` and ``password`` instead. No error shows what an entry holds.

Source: docker/cli cli/config/configfile/file.go.
"""

from __future__ import annotations

import base64
import binascii

from mobysession.jsontext import parse_json

__all__ = ["parse_credentials"]


def parse_credentials(text: str) -> dict[str, tuple[str, str]]:
    """Return user and password by host.

    Raises:
        ValueError: it is something else; the message goes behind the name of a variable and quotes nothing.
    """
    try:
        value = parse_json(text)
    except ValueError:
        raise ValueError("is not JSON") from None
    auths = value.get("auths") if isinstance(value, dict) else None
    if not isinstance(auths, dict):
        raise ValueError('is not an object with "auths"')  # noqa: TRY004 - one class for all that is wrong with it
    return {str(host): _login(str(host), entry) for host, entry in auths.items()}


def _login(host: str, entry: object) -> tuple[str, str]:
    if isinstance(entry, dict):
        user, password = entry.get("username"), entry.get("password")
        if isinstance(user, str) and isinstance(password, str):
            return user, password
        if isinstance(encoded := entry.get("auth"), str):
            try:
                user, colon, password = base64.b64decode(encoded, validate=True).decode().partition(":")
            except (binascii.Error, UnicodeDecodeError):
                colon = ""
            if colon:
                return str(user), str(password)
    raise ValueError(f"has no login that can be read for {host}") from None
