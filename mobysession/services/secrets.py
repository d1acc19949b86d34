"""The secrets service: a build step or a source of the daemon asks for a secret by its ID and gets its bytes.

``moby.buildkit.secrets.v1.Secrets/GetSecret`` is asked for the IDs that the Dockerfile mounts, and also for IDs that
nobody wrote anywhere: for every git or http source the daemon probes names like ``GIT_AUTH_TOKEN``. NOT_FOUND is
therefore an everyday answer; any other failure ends the build. Only the IDs given to `Secrets` are ever answered. What
they stand for is read when it is asked for, so that a file or a variable may change while the session lives.

Source: moby/buildkit session/secrets.
"""

from __future__ import annotations

import errno
import logging
import math
import os
import stat
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeAlias

import trio

from mobysession import limits
from mobysession._pb.secrets_pb2 import GetSecretRequest, GetSecretResponse
from mobysession.errors import RpcError, SecretError, StatusCode, UsageError
from mobysession.redaction import Redactor
from mobysession.services.provider import Provider
from mobysession.services.secret_sources import (
    SecretCache,
    SecretCommand,
    SecretEnv,
    SecretFile,
    SecretKeyring,
    SecretRequest,
    read_command,
    read_keyring,
)

if TYPE_CHECKING:
    from mobysession.rpc.registrar import Registrar
    from mobysession.rpc.server import ServerCall

__all__ = [
    "SecretCache",
    "SecretCommand",
    "SecretEnv",
    "SecretFile",
    "SecretKeyring",
    "SecretRequest",
    "SecretSource",
    "SecretValue",
    "Secrets",
    "parse_secret_spec",
]

_log = logging.getLogger("mobysession.services")

SecretValue: TypeAlias = bytes | str
#: Where a secret comes from. Text counts as its UTF-8; a path object is a `SecretFile`. A function is called at each
#: request, in a worker thread unless it is a coroutine function, without arguments or, where it demands one, with the
#: ID, a `SecretRequest`; None as its result means that there is no such secret.
SecretSource: TypeAlias = (
    SecretValue
    | SecretFile
    | SecretEnv
    | SecretCommand
    | SecretKeyring
    | SecretCache
    | os.PathLike[str]
    | Callable[[], SecretValue | Awaitable[SecretValue | None] | None]
    | Callable[[SecretRequest], SecretValue | Awaitable[SecretValue | None] | None]
    | Callable[[str], SecretValue | Awaitable[SecretValue | None] | None]
)
#: A source as it is kept here.
_Source: TypeAlias = "bytes | SecretFile | SecretEnv | SecretCommand | SecretKeyring | Provider | _Kept"

_METHOD: Final = "/moby.buildkit.secrets.v1.Secrets/GetSecret"


class Secrets:
    """Give the daemon these secrets, and no others.

    Args:
        sources: what each ID stands for. The mapping is copied.
        redactor: is told of every value before it is given away; None: a new one, as ``redactor``.
        build: what the build is called, for functions that ask.
        on_value: is called with the ID and the value before it is given away; must not wait.

    Raises:
        UsageError: an ID is empty, or a source is of a kind that cannot give a secret; the caller must change it.
    """

    def __init__(
        self,
        sources: Mapping[str, SecretSource],
        *,
        redactor: Redactor | None = None,
        build: str = "",
        on_value: Callable[[str, bytes], None] | None = None,
    ) -> None:
        self.redactor = redactor if redactor is not None else Redactor()
        self._build = build
        self._on_value = on_value
        self._sources = {secret_id: _normalized(secret_id, source) for secret_id, source in sources.items()}
        for source in self._sources.values():
            if isinstance(source, bytes):
                self.redactor.add(source)

    def __repr__(self) -> str:
        return f"Secrets({', '.join(sorted(self._sources))})"

    @property
    def ids(self) -> tuple[str, ...]:
        """The IDs that are answered, in the order given."""
        return tuple(self._sources)

    def offers(self, subject: str) -> bool:
        """Tell whether an ID is answered."""
        return subject in self._sources

    def check(self) -> None:
        """Look whether every file is there and no secret is too large, before a build starts; blocking.

        Raises:
            SecretError: one is not; the user must mend it. Functions, variables, commands and key rings are not asked.
        """
        for secret_id, kept in self._sources.items():
            source = kept.source if isinstance(kept, _Kept) else kept
            if isinstance(source, SecretFile):
                size = _file_size(secret_id, source)
            elif isinstance(source, bytes):
                size = len(source)
            else:
                continue
            if size > limits.MAX_SECRET:
                raise _too_large(secret_id, size)

    def watch_known(self) -> None:
        """Call ``on_value`` with every value that is known without asking anybody."""
        if self._on_value is not None:
            for secret_id, source in self._sources.items():
                if isinstance(source, bytes):
                    self._on_value(secret_id, source)

    def register(self, registrar: Registrar) -> None:
        """Add GetSecret."""
        registrar.unary_unary(_METHOD, self._get_secret, GetSecretRequest)

    async def _get_secret(self, request: GetSecretRequest, call: ServerCall) -> GetSecretResponse:
        return GetSecretResponse(data=await self.get(request.ID, session_id=call.session_id))

    async def get(self, secret_id: str, *, session_id: str = "") -> bytes:
        """Return the value of a secret, as the daemon would get it.

        Args:
            session_id: of the session that is asked, for functions that want to know.

        Raises:
            RpcError: NOT_FOUND when there is no such secret, UNKNOWN when it is larger than ``limits.MAX_SECRET``, with
                the SecretError that names it as the cause.
            SecretError: its file cannot be read, or its function or command failed, the former as the cause.

        Cancel: safe; a function that runs in a thread is left to end there.
        """
        source = self._sources.get(secret_id)
        asked = SecretRequest(secret_id, session_id=session_id, build=self._build)
        value = None if source is None else await _read(asked, source)
        if value is None:
            raise RpcError(StatusCode.NOT_FOUND, "not found")
        if len(value) > limits.MAX_SECRET:
            raise _refusal(secret_id, len(value))
        self.redactor.add(value)
        if self._on_value is not None:
            self._on_value(secret_id, value)
        return value


def parse_secret_spec(spec: str) -> tuple[str, SecretFile | SecretEnv]:
    """Read a secret as ``docker buildx build --secret`` takes it.

    Comma-separated ``key=value``, quoted as in CSV: ``id``, ``src`` (or ``source``), ``env``, ``type`` (``file`` or
    ``env``), keys in any case. With ``type=env`` alone, ``src`` names the variable; a variable wins over a file; with
    neither, the ID is the name of a variable if there is one of that name now, else of a file. Of several specs with
    one ID the last one counts: ``dict(map(parse_secret_spec, specs))``.

    Raises:
        UsageError: the spec is wrong; the message names the field, and never a value that may be a secret by mistake.

    Source: docker/buildx util/buildflags/secrets.go, moby/buildkit session/secrets/secretsprovider/file.go.
    """
    fields = _spec_fields(spec)
    kind = fields.get("type", "")
    if kind not in ("", "file", "env"):
        raise UsageError(f"secret: type is file or env, not {kind!r}")
    secret_id, path, variable = fields.get("id", ""), fields.get("src", ""), fields.get("env", "")
    if not secret_id:
        raise UsageError("secret missing ID", hint="Write id=NAME,src=FILE or id=NAME,env=VARIABLE.")
    if kind == "env" and not variable:
        path, variable = "", path
    if not path and not variable:
        path, variable = ("", secret_id) if secret_id in os.environ else (secret_id, "")
    return secret_id, SecretEnv(variable) if variable else SecretFile(path)


def _spec_fields(spec: str) -> dict[str, str]:
    import csv  # only for who parses specs: start-up

    try:
        rows = list(csv.reader([spec], strict=True))
    except csv.Error as error:
        raise UsageError(f"secret: not comma-separated fields: {error}") from None
    fields = {}
    for number, field in enumerate((field for row in rows for field in row), start=1):
        key, separator, value = field.partition("=")
        name = key.lower()
        if not separator:
            raise UsageError(
                f"secret: field {number} is not key=value",
                hint="Write id=NAME,src=FILE or id=NAME,env=VARIABLE; quote a field that holds a comma.",
            )
        if name not in ("id", "src", "source", "env", "type"):
            raise UsageError(f"secret: unknown key {key!r} in field {number}", hint="Keys are id, src, env and type.")
        fields["src" if name == "source" else name] = value
    return fields


def _normalized(secret_id: object, source: object) -> _Source:
    if not isinstance(secret_id, str) or not secret_id:
        raise UsageError("a secret ID is a text that is not empty")
    if isinstance(source, bytes | SecretFile | SecretEnv | SecretCommand | SecretKeyring):
        return source
    if isinstance(source, SecretCache):
        return _Kept(_normalized(secret_id, source.source), source.seconds)
    if isinstance(source, str):
        return _encoded(source)
    if isinstance(source, os.PathLike):
        return SecretFile(source)
    if callable(source):
        try:
            return Provider(source)
        except TypeError:
            raise UsageError(f"the function for secret {secret_id!r} takes more than the ID") from None
    raise UsageError(
        f"secret {secret_id!r} cannot come from {_kind(source)}",
        hint="Give bytes, text, a SecretFile, SecretEnv, SecretCommand or SecretKeyring, or a function that returns "
        "bytes or text.",
    )


class _Kept:
    """A source that is read once and then not again for a while."""

    def __init__(self, source: _Source, seconds: float) -> None:
        self.source = source
        self._seconds = seconds
        self._expiry = -math.inf
        self._value: bytes | None = None
        # Of several steps that ask at once only the first should cost a call.
        self._turn = trio.Lock()

    async def read(self, asked: SecretRequest) -> bytes | None:
        async with self._turn:
            # Not the loop's clock: a source may outlive a loop.
            if self._value is None or time.monotonic() >= self._expiry:
                self._value = await _read(asked, self.source)
                self._expiry = time.monotonic() + self._seconds
            return self._value


async def _read(asked: SecretRequest, source: _Source) -> bytes | None:
    secret_id = asked.id
    if isinstance(source, _Kept):
        return await source.read(asked)
    if isinstance(source, SecretCommand):
        return await read_command(secret_id, source)
    if isinstance(source, SecretKeyring):
        # A key ring may ask the user to unlock it: the thread is left alone then, the build is not.
        return await trio.to_thread.run_sync(read_keyring, secret_id, source, abandon_on_cancel=True)
    if isinstance(source, SecretFile):
        # A named pipe may never have a writer: the thread is left alone then, the build is not.
        return await trio.to_thread.run_sync(_read_file, secret_id, source, abandon_on_cancel=True)
    if isinstance(source, SecretEnv):
        return _read_variable(secret_id, source.name)
    if isinstance(source, Provider):
        return await _ask(asked, source)
    return source


def _read_variable(secret_id: str, name: str) -> bytes:
    if name not in os.environ:
        # As with buildx it is no error; but a step that needs the secret would fail far from the reason.
        _log.warning("secret %r is empty: the environment variable %s is not set", secret_id, name)
    return os.fsencode(os.environ.get(name, ""))


async def _ask(asked: SecretRequest, provider: Provider) -> bytes | None:
    secret_id = asked.id
    try:
        found = await provider.call(asked)
    except Exception as error:  # of any kind: the function is not ours
        # The text of the failure may hold the secret, so only its type is told to the daemon.
        raise SecretError(f"the function for secret {secret_id!r} failed with {type(error).__name__}") from error
    if isinstance(found, str):
        return _encoded(found)
    if found is None or isinstance(found, bytes):
        return found
    raise SecretError(
        f"the function for secret {secret_id!r} returned {_kind(found)}",
        hint="It must return bytes or text, or None when there is no such secret.",
    )


def _read_file(secret_id: str, source: SecretFile) -> bytes:
    try:
        with Path(source.path).open("rb") as file:
            content = file.read(limits.MAX_SECRET + 1)
            size = os.fstat(file.fileno()).st_size
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        raise _unreadable(secret_id, source, error) from error
    if len(content) > limits.MAX_SECRET:
        raise _refusal(secret_id, max(size, len(content)))
    return content


def _file_size(secret_id: str, source: SecretFile) -> int:
    try:
        # Not opened, for that would wait for the writer of a named pipe, and take what it has to say.
        status = Path(source.path).stat()
        if stat.S_ISDIR(status.st_mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        if not os.access(source.path, os.R_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except (OSError, ValueError) as error:
        raise _unreadable(secret_id, source, error) from error
    return status.st_size


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _kind(value: object) -> str:
    return f"an object of type {type(value).__name__}"


def _unreadable(secret_id: str, source: SecretFile, error: Exception) -> SecretError:
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return SecretError(f"secret {secret_id!r}: {os.fspath(source.path)} cannot be read: {reason}")


def _refusal(secret_id: str, size: int) -> RpcError:
    """Make the answer to a request for what is too large: the engine's words, caused by ours, which name the secret."""
    answer = RpcError(StatusCode.UNKNOWN, f"invalid secret size {size}")
    answer.__cause__ = _too_large(secret_id, size)
    return answer


def _too_large(secret_id: str, size: int) -> SecretError:
    return SecretError(
        f"secret {secret_id!r} has {size} bytes; the engine takes at most {limits.MAX_SECRET}",
        hint="A secret is for a password, a token or a key; larger things belong into the build context.",
    )
