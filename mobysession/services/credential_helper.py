"""Asking a credential helper: a program ``docker-credential-NAME`` that keeps registry logins for the docker CLI.

``docker-credential-NAME get`` reads a registry's key on stdin and prints ``{"ServerURL":…,"Username":…,"Secret":…}``,
or fails and prints why on stdout; one sentence among these, `NOT_FOUND`, only says that there is no login. A helper is
a program of the user's and may be missing, hang, or print anything. It gets a time and a size, and when either is over
it is killed together with what it started. What it prints on failure is quoted only where it reads as a plain sentence,
as "no credentials server URL" does; anything else may hold a credential.

Source: docker/docker-credential-helpers client/client.go, credentials/credentials.go.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import trio

from mobysession import dockerconfig, limits
from mobysession.errors import CredentialError
from mobysession.jsontext import parse_json
from mobysession.program import TooMuchOutput, run_program

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["NOT_FOUND", "HelperAnswer", "ask_helper"]

#: What a helper prints when it works and has no login for the registry.
NOT_FOUND: Final = b"credentials not found in native keychain"
#: A word as in a sentence: ``the``, ``URL``, ``it's``, ``vault.example.com``, ``127``.
_PLAIN: Final = r"(?:[A-Z]?[a-z]+|[A-Z]+)(?:[.'/-](?:[A-Z]?[a-z]+|[A-Z]+))*|[0-9]{1,3}|-?"
_TELLING: Final = r"pass(?:word|wd|phrase)|secret|token"
_LONGEST_WORD: Final = 30


@dataclass(frozen=True)
class HelperAnswer:
    """What a helper printed on success; ``server`` is empty where it did not say whose login it is."""

    username: str
    secret: str = field(repr=False)
    server: str = ""


async def ask_helper(name: str, key: str, *, config: Path, seconds: float) -> HelperAnswer | None:
    """Ask a helper for one login.

    Args:
        name: what follows ``docker-credential-``.
        key: the registry's key in the configuration.
        config: the file that names the helper, for error messages.
        seconds: the time after which it is killed.

    Returns: its answer; None when it has no login for the registry.

    Raises:
        CredentialError: it is missing, failed, was too slow or did not print what a helper prints; the user must mend
            the helper, or take it out of the configuration.

    Cancel: the helper is killed, and gone when this returns.
    """
    program = f"docker-credential-{name}"

    def failure(reason: str, hint: str | None = None) -> CredentialError:
        return CredentialError(f"{program}, named for {key} in {config}, {reason}", hint=hint)

    try:
        with trio.fail_after(seconds):
            status, output = await run_program([program, "get"], key.encode(), limit=limits.CREDENTIAL_HELPER_OUTPUT)
    except FileNotFoundError:
        raise failure("is not installed", "Install it, or take it out of the configuration.") from None
    except (OSError, ValueError) as error:
        raise failure(f"cannot be started: {error}") from error
    except trio.TooSlowError:
        raise failure(f"did not answer within {seconds:g} s", "It may be waiting for a password.") from None
    except TooMuchOutput:
        raise failure(f"printed more than {limits.CREDENTIAL_HELPER_OUTPUT} bytes") from None
    if status == 0:
        answer = _parse(output)
        if answer is None:
            raise failure("did not print credentials")
        if answer.server and _host(answer.server) != _host(key):
            raise failure("answered with the login of another registry")
        return answer
    if output.strip() == NOT_FOUND:
        return None
    words = _words(output)
    if words is None:
        reason = "what it printed may hold credentials and is not shown"
        raise failure(f"failed with {_ending(status)}: {reason}", f"Run {program} get yourself to see it.")
    if not words:
        hint = f"What it says on stderr is not read: run {program} get yourself to see it."
        raise failure(f"failed with {_ending(status)}: it printed no reason", hint)
    raise failure(f"failed with {_ending(status)}: {words}")


def _parse(output: bytes) -> HelperAnswer | None:
    try:
        fields = parse_json(output)
    except ValueError:
        return None
    if not isinstance(fields, dict):
        return None
    username, secret, server = fields.get("Username"), fields.get("Secret"), fields.get("ServerURL") or ""
    if not isinstance(username, str) or not isinstance(secret, str) or not isinstance(server, str):
        return None
    return HelperAnswer(username, secret, server)


def _host(server: str) -> str:
    """Return the host of a key or a ServerURL, without its port, which helpers leave out or add."""
    host = dockerconfig.hostname(dockerconfig.config_key(dockerconfig.hostname(server.casefold())))
    return re.sub(r":[0-9]+$", "", host)


def _words(output: bytes) -> str | None:
    """Return the first line of what a helper printed where it is a plain sentence; None where it is not.

    Plain: some words of letters, in one case each, and numbers of at most three digits; none that names a credential.
    """
    line = output.decode("utf-8", "replace").strip().partition("\n")[0].strip()
    if not line:
        return ""
    tokens = [token.strip("\"'`().,;:!?") for token in line.split()]
    plain = len(tokens) > 1 and all(re.fullmatch(_PLAIN, token) and len(token) <= _LONGEST_WORD for token in tokens)
    if not plain or re.search(_TELLING, line, re.IGNORECASE):
        return None
    limit = limits.CREDENTIAL_HELPER_WORDS
    return line if len(line) <= limit else f"{line[:limit]}…"


def _ending(status: int) -> str:
    return f"exit status {status}" if status > 0 else f"signal {-status}"
