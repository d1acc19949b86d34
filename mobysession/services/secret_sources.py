"""Where a secret may come from besides bytes and functions: a file, a variable, a command, a key ring; kept or not.

Sources are values that say where to look. They are read when the daemon asks, each time, unless they are `Cached`.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Self

import trio

from mobysession import limits
from mobysession.errors import SecretError, UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from mobysession.services.secrets import SecretSource

__all__ = [
    "SecretCache",
    "SecretCommand",
    "SecretEnv",
    "SecretFile",
    "SecretKeyring",
    "SecretRequest",
    "read_command",
    "read_keyring",
]


class _Value:
    """What says where to look: equal to another of its class that says the same, and shown without what may be secret.

    Not a dataclass, because to make five of them takes longer than a small secret.
    """

    __slots__: tuple[str, ...] = ()
    #: The fields that may be shown.
    _shown: tuple[str, ...] = ()

    def __eq__(self, other: object) -> bool:
        if type(self) is not type(other):
            return NotImplemented
        return all(getattr(self, name) == getattr(other, name) for name in self.__slots__)

    def __hash__(self) -> int:
        return hash((type(self), *(getattr(self, name) for name in self._shown)))

    def __repr__(self) -> str:
        fields = ", ".join(f"{name}={getattr(self, name)!r}" for name in self._shown)
        return f"{type(self).__name__}({fields})"


class SecretFile(_Value):
    """A secret that is the content of a file, read at each request."""

    __slots__ = ("path",)
    _shown = ("path",)

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = path


class SecretEnv(_Value):
    """A secret that is the value of an environment variable at each request; empty while the variable is not set."""

    __slots__ = ("name",)
    _shown = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name


class SecretCommand(_Value):
    """A secret that a command prints, run at each request.

    It reads nothing, and what it says on stderr is dropped, because it may hold the secret. The ends of line behind
    its output are not part of the secret, as with a shell's ``$(...)``.

    Args:
        argv: the program and its arguments; no shell reads them, and an error shows the program only.
        timeout: seconds that it may take; then it is killed, with what it started.
        environment: its variables; None: our own.

    Raises:
        UsageError: there is no program, or one text instead of a list.
    """

    __slots__ = ("argv", "environment", "timeout")
    _shown = ("timeout",)

    def __init__(
        self,
        argv: Sequence[str | os.PathLike[str]],
        timeout: float = limits.SECRET_COMMAND_TIMEOUT,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        if isinstance(argv, str | bytes) or not argv:
            raise UsageError(
                "SecretCommand takes a program and its arguments as a list",
                hint='Write SecretCommand(["pass", "show", "npm"]), or ["sh", "-c", "..."] for a shell.',
            )
        self.argv = tuple(argv)
        self.timeout = timeout
        self.environment = environment

    @property
    def program(self) -> str:
        """The program alone: arguments may hold a secret."""
        return os.fspath(self.argv[0])


class SecretKeyring(_Value):
    """A secret that the user's key ring holds as a password, through the package keyring.

    Args:
        service: what it belongs to, as in ``keyring set SERVICE USER``.
        username: whose it is there.
    """

    __slots__ = ("service", "username")
    _shown = ("service", "username")

    def __init__(self, service: str, username: str) -> None:
        self.service = service
        self.username = username


class SecretCache(_Value):
    """A secret that is asked for once and then used again for a while. A failure, or that there is none, is not kept.

    Args:
        source: where it comes from.
        seconds: for which it is used again.

    Raises:
        UsageError: ``seconds`` is not above 0, or ``source`` keeps a secret already.
    """

    __slots__ = ("seconds", "source")
    _shown = ("seconds",)

    def __init__(self, source: SecretSource, seconds: float) -> None:
        if isinstance(source, SecretCache):
            raise UsageError("a SecretCache cannot keep what another one keeps")
        if not seconds > 0:
            raise UsageError("a secret is kept for more than 0 seconds, or not in a SecretCache")
        self.source = source
        self.seconds = seconds


class SecretRequest(str):
    """What a function for a secret is called with: the ID that is asked for, a text, and who asks.

    Attributes:
        session_id: of the session on which it was asked for; empty where there is none.
        build: what the build is called, by its context; empty outside of builds.
    """

    __slots__ = ("build", "session_id")

    session_id: str
    build: str

    def __new__(cls, secret_id: str, *, session_id: str = "", build: str = "") -> Self:
        """Make a request for ``secret_id``."""
        request = super().__new__(cls, secret_id)
        request.session_id = session_id
        request.build = build
        return request

    @property
    def id(self) -> str:
        """The ID alone."""
        return str(self)


async def read_command(secret_id: str, source: SecretCommand) -> bytes:
    """Run a command and return what it printed.

    Raises:
        SecretError: it cannot be started, failed, took too long or printed too much; the user must mend it.

    Cancel: it is killed.
    """
    from mobysession.program import TooMuchOutput, run_program  # only for who has a command: start-up

    def failure(reason: str) -> SecretError:
        return SecretError(
            f"secret {secret_id!r}: the command {source.program} {reason}", hint="Run it yourself to see what it says."
        )

    try:
        with trio.fail_after(source.timeout):
            # With room for the ends of line that do not count.
            limit = limits.MAX_SECRET + 2
            status, output = await run_program(source.argv, limit=limit, environment=source.environment)
    except FileNotFoundError:
        raise failure("is not installed") from None
    except OSError as error:
        raise failure(f"cannot be started: {error.strerror}") from error
    except ValueError as error:
        raise failure("cannot be started: its arguments are no text without NUL") from error
    except trio.TooSlowError:
        raise failure(f"did not end within {source.timeout:g} s") from None
    except TooMuchOutput:
        raise failure(f"printed more than {limits.MAX_SECRET} bytes, which is no secret") from None
    if status != 0:
        raise failure(f"failed with {f'exit status {status}' if status > 0 else f'signal {-status}'}")
    return output.rstrip(b"\r\n")


def read_keyring(secret_id: str, source: SecretKeyring) -> bytes | None:
    """Return a password out of the key ring, None where it has none; blocking, may ask the user to unlock it.

    Raises:
        SecretError: there is no key ring, it is locked, or the package is not installed; the user must act.
    """
    try:
        import keyring
    except ImportError as error:
        raise SecretError(
            f"secret {secret_id!r}: key rings take the package keyring", hint="Install mobysession[keyring]."
        ) from error
    try:
        password = keyring.get_password(source.service, source.username)
    except Exception as error:  # of any kind: each system has its own, and a plugin may have more
        raise SecretError(
            f"secret {secret_id!r}: the key ring failed with {type(error).__name__}",
            hint=f"See what it says with: keyring get {source.service} {source.username}",
        ) from error
    return None if password is None else str(password).encode("utf-8", "surrogateescape")
