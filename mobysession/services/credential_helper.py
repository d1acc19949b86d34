"""Asking a credential helper: a program ``docker-credential-NAME`` that keeps registry logins for the docker CLI.

``docker-credential-NAME get`` reads a registry's key on stdin and prints ``{"ServerURL":…,"Username":…,"Secret":…}``,
or fails and prints why on stdout; one sentence among these, `NOT_FOUND`, only says that there is no login. A helper is
a program of the user's and may be missing, hang, or print anything. It gets a time and a size, and when either is over
it is killed together with what it started. What it prints appears in an error only where it is the reason of a failure.

Source: docker/docker-credential-helpers client/client.go, credentials/credentials.go.
"""

from __future__ import annotations

import os
import signal
import subprocess
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import trio

from mobysession import limits
from mobysession.concurrency import open_nursery
from mobysession.errors import CredentialError

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["NOT_FOUND", "HelperAnswer", "ask_helper"]

#: What a helper prints when it works and has no login for the registry.
NOT_FOUND: Final = b"credentials not found in native keychain"


@dataclass(frozen=True)
class HelperAnswer:
    """What a helper printed on success."""

    username: str
    secret: str = field(repr=False)


class _TooMuchOutput(Exception):
    pass


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
            status, output = await _run([program, "get"], key.encode())
    except FileNotFoundError:
        raise failure("is not installed", "Install it, or take it out of the configuration.") from None
    except (OSError, ValueError) as error:
        raise failure(f"cannot be started: {error}") from error
    except trio.TooSlowError:
        raise failure(f"did not answer within {seconds:g} s", "It may be waiting for a password.") from None
    except _TooMuchOutput:
        raise failure(f"printed more than {limits.CREDENTIAL_HELPER_OUTPUT} bytes") from None
    if status == 0:
        answer = _parse(output)
        if answer is None:
            raise failure("did not print credentials")
        return answer
    if output.strip() == NOT_FOUND:
        return None
    raise failure(f"failed with {_ending(status)}: {_words(output)}")


async def _run(command: list[str], question: bytes) -> tuple[int, bytes]:
    # A session of its own, so that whatever the helper starts can be killed with it.
    process = await trio.lowlevel.open_process(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        async with open_nursery() as nursery:
            nursery.start_soon(_tell, process, question)
            output = await _listen(process)
        return await process.wait(), output
    finally:
        await _end(process)


async def _tell(process: trio.Process, question: bytes) -> None:
    assert process.stdin is not None  # asked for above
    with suppress(trio.BrokenResourceError):  # it did not want to know
        await process.stdin.send_all(question)
    await process.stdin.aclose()


async def _listen(process: trio.Process) -> bytes:
    assert process.stdout is not None  # asked for above
    output = bytearray()
    async for chunk in process.stdout:
        output += chunk
        if len(output) > limits.CREDENTIAL_HELPER_OUTPUT:
            raise _TooMuchOutput
    return bytes(output)


async def _end(process: trio.Process) -> None:
    with trio.CancelScope(shield=True):
        if process.returncode is None:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                await stream.aclose()


def _parse(output: bytes) -> HelperAnswer | None:
    import json  # only for who has a helper: start-up

    try:
        fields = json.loads(output)
        username, secret = fields["Username"], fields["Secret"]
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    if not isinstance(username, str) or not isinstance(secret, str):
        return None
    return HelperAnswer(username, secret)


def _words(output: bytes) -> str:
    text = " ".join(output.decode("utf-8", "replace").split())
    if '"Secret"' in text:
        return "what it printed may hold credentials and is not shown"
    text = "".join(character if character.isprintable() else "?" for character in text)
    limit = limits.CREDENTIAL_HELPER_WORDS
    return (text if len(text) <= limit else f"{text[:limit]}…") or "it gave no reason"


def _ending(status: int) -> str:
    return f"exit status {status}" if status > 0 else f"signal {-status}"
