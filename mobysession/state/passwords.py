"""Where passphrases and tokens of daemons are kept: the system's key ring, or else a docker credential helper.

Never in our database, which anybody can read who can read the user's files. The key ring needs the package keyring (the
extra ``keyring``) and something behind it, as a Secret Service or a keychain; the helper is the ``credsStore`` of
config.json, or the platform's own where it is installed. It gets ``{"ServerURL", "Username", "Secret"}`` with
``store``, and our URL with ``get`` and ``erase``.

Source: docker/docker-credential-helpers credentials/credentials.go.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final, Protocol
from urllib.parse import quote

import trio

from mobysession import dockerconfig, limits
from mobysession.errors import CredentialError
from mobysession.jsontext import parse_json
from mobysession.program import TooMuchOutput, run_program

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["HelperPasswords", "KeyringPasswords", "Passwords", "find_passwords", "passwords_named"]

_SERVICE: Final = "mobysession"
_NOT_FOUND: Final = b"credentials not found"
_HINT: Final = (
    "Install mobysession[keyring] where there is a key ring, or a docker credential helper, and name it as credsStore"
    " in config.json."
)


class Passwords(Protocol):
    """Keeps a text for each address. Its methods raise CredentialError; the user must act."""

    @property
    def name(self) -> str:
        """What is written beside the reference, to find it again."""
        ...

    async def get(self, address: str) -> str | None:
        """Return the text; None where there is none."""
        ...

    async def put(self, address: str, password: str) -> None:
        """Keep a text, in place of one that was kept."""
        ...

    async def erase(self, address: str) -> None:
        """Forget the text; no error where there is none."""
        ...


async def find_passwords() -> Passwords:
    """Return where passwords can be kept on this system: the key ring where there is one, else the helper.

    Raises:
        CredentialError: there is neither; the user must set one up, or do without the password.
    """
    if await trio.to_thread.run_sync(_has_keyring):
        return KeyringPasswords()
    config = await trio.to_thread.run_sync(dockerconfig.load)
    if helper := config.helper_for(_url("")):
        return HelperPasswords(helper)
    raise CredentialError("there is nowhere to keep a password: no key ring and no credential helper", hint=_HINT)


def passwords_named(name: str) -> Passwords:
    """Return what `Passwords.name` says."""
    helper = name.removeprefix("docker-credential-")
    return KeyringPasswords() if helper == name else HelperPasswords(helper)


def _has_keyring() -> bool:
    try:
        import keyring
        from keyring.backends import fail, null
    except ImportError:
        return False
    backend = keyring.get_keyring()
    return not isinstance(backend, (fail.Keyring, null.Keyring)) and float(backend.priority) > 0


class KeyringPasswords:
    """The system's key ring, through the package keyring."""

    name = "keyring"

    async def get(self, address: str) -> str | None:
        """See `Passwords.get`."""
        found = await self._call(lambda keyring: keyring.get_password(_SERVICE, address))
        return None if found is None else str(found)

    async def put(self, address: str, password: str) -> None:
        """See `Passwords.put`."""
        await self._call(lambda keyring: keyring.set_password(_SERVICE, address, password))

    async def erase(self, address: str) -> None:
        """See `Passwords.erase`."""

        def erase(keyring: Any) -> None:
            if keyring.get_password(_SERVICE, address) is not None:
                keyring.delete_password(_SERVICE, address)

        await self._call(erase)

    async def _call(self, function: Callable[[Any], object]) -> object:
        def call() -> object:
            import keyring

            return function(keyring)

        try:
            # It may wait for somebody who unlocks it, for ever.
            with trio.fail_after(limits.KEYRING_TIMEOUT):
                return await trio.to_thread.run_sync(call, abandon_on_cancel=True)
        except ImportError as error:
            raise CredentialError("key rings take the package keyring", hint="Install mobysession[keyring].") from error
        except trio.TooSlowError:
            raise CredentialError(
                f"the key ring did not answer within {limits.KEYRING_TIMEOUT:g} s", hint="Unlock it, and try again."
            ) from None
        except Exception as error:  # of any kind: each system has its own
            # Not chained: nobody knows what a backend's error quotes.
            raise CredentialError(f"the key ring failed with {type(error).__name__}") from None


class HelperPasswords:
    """A docker credential helper."""

    def __init__(self, helper: str) -> None:
        self.name = f"docker-credential-{helper}"

    async def get(self, address: str) -> str | None:
        """See `Passwords.get`."""
        status, output = await self._run("get", _url(address))
        if status != 0:
            if _NOT_FOUND in output:
                return None
            raise self._failure(f"failed with exit status {status}")
        try:
            answer = parse_json(output)
        except ValueError:
            answer = None
        if not isinstance(answer, dict) or not isinstance(answer.get("Secret"), str):
            raise self._failure("did not print credentials")
        return str(answer["Secret"])

    async def put(self, address: str, password: str) -> None:
        """See `Passwords.put`."""
        entry = {"ServerURL": _url(address), "Username": _SERVICE, "Secret": password}
        status, _ = await self._run("store", json.dumps(entry))
        if status != 0:
            raise self._failure(f"failed with exit status {status}")

    async def erase(self, address: str) -> None:
        """See `Passwords.erase`."""
        status, output = await self._run("erase", _url(address))
        if status != 0 and _NOT_FOUND not in output:
            raise self._failure(f"failed with exit status {status}")

    async def _run(self, verb: str, question: str) -> tuple[int, bytes]:
        try:
            with trio.fail_after(limits.CREDENTIAL_HELPER_TIMEOUT):
                return await run_program([self.name, verb], question.encode(), limit=limits.CREDENTIAL_HELPER_OUTPUT)
        except (OSError, ValueError) as error:
            raise self._failure(f"cannot be started: {error}") from error
        except trio.TooSlowError:
            raise self._failure(f"did not answer within {limits.CREDENTIAL_HELPER_TIMEOUT:g} s") from None
        except TooMuchOutput:
            raise self._failure(f"printed more than {limits.CREDENTIAL_HELPER_OUTPUT} bytes") from None

    def _failure(self, reason: str) -> CredentialError:
        return CredentialError(
            f"{self.name} {reason}", hint="Mend it, or take it out of config.json; what it prints is not shown."
        )


def _url(address: str) -> str:
    # A URL, because some helpers take it apart; of a host that cannot exist (RFC 2606), so that no registry has it.
    return f"https://daemon.{_SERVICE}.invalid/{quote(address, safe='')}"
