"""What sessions of a program have in common: where the daemon is, how to attach, who decides; and nothing else.

Services are no part of it. What is exposed is chosen for each session, so that no default, and no variable of an
environment that somebody else wrote, gives away a directory or a secret.

All of it can come from variables, by default those that begin with ``MOBYSESSION_``; see `VARIABLES`.
"""

from __future__ import annotations

import math
import os
from dataclasses import InitVar, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, NoReturn, get_args

from mobysession import limits
from mobysession.errors import ConfigError, EndpointError, UsageError
from mobysession.session.attach import ATTACH_WAYS
from mobysession.transport.endpoint import Endpoint
from mobysession.transport.tls import TLSConfig

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mobysession.session.attach import Dialer

__all__ = ["VARIABLES", "ApprovalMode", "SessionConfig"]

#: Who decides on requests for credentials: nobody, so that what is offered is granted; whoever sits at the terminal;
#: whoever listens to the session's channel ``approvals``; or they are all refused.
ApprovalMode = Literal["granted", "terminal", "channel", "refused"]

#: The variables that `SessionConfig.from_env` reads, without their prefix, and what each has.
VARIABLES: Final = {
    "HOST": "the daemon, as DOCKER_HOST has it",
    "TLS": "whether TLS is spoken: true or false",
    "TLS_VERIFY": "whether the daemon's certificate is checked",
    "TLS_CA": "file of the CA certificates",
    "TLS_CERT": "file of the client certificate",
    "TLS_KEY": "file of its private key",
    "ATTACH": "the way to attach: auto, hijack, tunnel, native, buildkitd",
    "READY_TIMEOUT": "seconds that the daemon has to speak HTTP/2 on a session that it accepted",
    "RESUME_TIMEOUT": "seconds for which an ID that the daemon still has is asked for again",
    "APPROVAL": "who decides on requests for credentials: granted, terminal, channel, refused",
    "APPROVAL_TIMEOUT": "seconds that an approval may take",
    "ALLOWED_METHODS": "globs of the methods that are allowed",
    "DENIED_METHODS": "globs of the methods that are denied",
    "DIAL_COMMAND": "a program that connects its stdin and stdout to the daemon, instead of HOST",
    "DIAL_ARGS": "its arguments",
    "DIAL_ENV": "variables for it, as NAME=VALUE, besides those of this process",
    "REGISTRY_CREDENTIALS": "logins, as docker's DOCKER_AUTH_CONFIG has them",
}
_NO_SERVICES: Final = "services are chosen for each session, so that no default exposes a directory or a secret"
_SERVICES_HINT: Final = "Give them to SessionManager.create(services=[...])."
_TRUE: Final = frozenset({"1", "true", "yes", "on"})
_FALSE: Final = frozenset({"0", "false", "no", "off"})


@dataclass(frozen=True, kw_only=True)
class SessionConfig:
    """Defaults for sessions; each can be overridden when a session is made.

    Attributes:
        endpoint: the daemon; None: what the environment says when a session is made.
        tls: how to speak TLS to it, in place of what the endpoint has.
        attach: by which way; see `mobysession.session.attach`.
        dialer: gets each session its stream, in place of all of these.
        ready_timeout: seconds that the daemon has to speak HTTP/2 on a session that it accepted; reaching it, and
            its answer, have times of their own.
        resume_timeout: seconds for which an ID that the daemon still has is asked for again.
        approval: who decides on requests for credentials; see `ApprovalMode`.
        approval_timeout: seconds that this may take; then the request is refused.
        allow: globs of the methods that are allowed; ``deny``: of those that are denied all the same.
        dial_command: a program whose stdin and stdout lead to the daemon's socket, ``dial_args`` its arguments,
            ``dial_env`` variables for it besides those of this process. It takes the place of the endpoint.
        credentials: registry logins, host to (user, password), for builds that have none of their own.

    Raises:
        UsageError: a value makes no sense, or services are given.
    """

    endpoint: Endpoint | None = None
    tls: TLSConfig | None = None
    attach: str = "auto"
    dialer: Dialer | None = field(default=None, compare=False)
    ready_timeout: float = limits.READY_TIMEOUT
    resume_timeout: float = limits.RESUME_PATIENCE
    approval: ApprovalMode = "granted"
    approval_timeout: float = limits.APPROVAL_TIMEOUT
    allow: tuple[str, ...] = ("*",)
    deny: tuple[str, ...] = ()
    dial_command: str | None = None
    dial_args: tuple[str, ...] = ()
    dial_env: Mapping[str, str] = field(default_factory=dict, repr=False)
    credentials: Mapping[str, tuple[str, str]] = field(default_factory=dict, repr=False)
    services: InitVar[object] = None

    def __post_init__(self, services: object) -> None:
        # `replace` gives the default, which as a class attribute is what a look for the field finds.
        if services is not None:
            raise UsageError(f"a SessionConfig cannot carry services: {_NO_SERVICES}", hint=_SERVICES_HINT)
        if self.endpoint is not None and not isinstance(self.endpoint, Endpoint):
            raise UsageError(
                f"endpoint takes an Endpoint, and no {type(self.endpoint).__name__}",
                hint='Make one of an address with Endpoint.parse("unix:///run/docker.sock").',
            )
        if self.attach not in ATTACH_WAYS:
            raise UsageError(
                f"there is no way {self.attach!r} to attach", hint=f"Choose one of {', '.join(ATTACH_WAYS)}."
            )
        if self.approval not in get_args(ApprovalMode):
            raise UsageError(
                f"there is no approval {self.approval!r}", hint=f"Choose one of {', '.join(get_args(ApprovalMode))}."
            )
        for name in ("allow", "deny", "dial_args"):
            if isinstance(getattr(self, name), str):
                raise UsageError(f"{name} takes a list, not one text")
            object.__setattr__(self, name, tuple(getattr(self, name)))
        for name in ("ready_timeout", "resume_timeout", "approval_timeout"):
            if not 0 < getattr(self, name) < math.inf:
                raise UsageError(f"{name} takes a number of seconds above 0")
        if self.dial_command is None and (self.dial_args or self.dial_env):
            raise UsageError("dial_args and dial_env go with a dial_command")

    def with_overrides(self, overrides: Mapping[str, Any]) -> SessionConfig:
        """Return a copy in which some fields are others.

        Raises:
            UsageError: there is no such field, or its value makes no sense.
        """
        if not overrides:
            return self
        for name in overrides:
            if name not in self.__dataclass_fields__:
                known = ", ".join(sorted(set(self.__dataclass_fields__) - {"services"}))
                raise UsageError(f"a session has no option {name!r}", hint=f"It has {known}.")
        return replace(self, **{"services": None, **overrides})

    @classmethod
    def from_env(cls, prefix: str = "MOBYSESSION_", environ: Mapping[str, str] | None = None) -> SessionConfig:
        """Read the variables of `VARIABLES`, each behind ``prefix``; lists are separated by commas.

        Raises:
            ConfigError: the value of one makes no sense; the user must mend it. ``variable`` is its name.
        """
        return _Variables(prefix, os.environ if environ is None else environ).config()


class _Variables:
    """The variables behind a prefix, each read as what it is."""

    def __init__(self, prefix: str, environ: Mapping[str, str]) -> None:
        self._prefix = prefix
        self._environ = environ

    def config(self) -> SessionConfig:
        if "SERVICES" in self:
            raise ConfigError(
                f"{self._prefix}SERVICES: {_NO_SERVICES}", variable=f"{self._prefix}SERVICES", hint=_SERVICES_HINT
            )
        found: dict[str, Any] = {"endpoint": self._endpoint(), "tls": self._tls()}
        if "ATTACH" in self:
            found["attach"] = self._one_of("ATTACH", ATTACH_WAYS)
        if "APPROVAL" in self:
            found["approval"] = self._one_of("APPROVAL", get_args(ApprovalMode))
        for name in ("READY_TIMEOUT", "RESUME_TIMEOUT", "APPROVAL_TIMEOUT"):
            if name in self:
                found[name.lower()] = self._seconds(name)
        for name, key in (("ALLOWED_METHODS", "allow"), ("DENIED_METHODS", "deny"), ("DIAL_ARGS", "dial_args")):
            if name in self:
                found[key] = self._list(name)
        found["dial_command"] = self._text("DIAL_COMMAND")
        found["dial_env"] = self._assignments("DIAL_ENV")
        found["credentials"] = self._credentials("REGISTRY_CREDENTIALS")
        for name in ("DIAL_ARGS", "DIAL_ENV"):
            if name in self and found["dial_command"] is None:
                self._refuse(name, f"goes with {self._prefix}DIAL_COMMAND, which is not set")
        return SessionConfig(**found)

    def __contains__(self, name: str) -> bool:
        return self._text(name) is not None

    def _text(self, name: str) -> str | None:
        # An empty variable is one that is not set, as with docker's.
        return self._environ.get(self._prefix + name) or None

    def _refuse(self, name: str, why: str, *, hint: str | None = None) -> NoReturn:
        raise ConfigError(f"{self._prefix}{name} {why}", variable=self._prefix + name, hint=hint)

    def _endpoint(self) -> Endpoint | None:
        host = self._text("HOST")
        try:
            return None if host is None else Endpoint.parse(host, source=f"{self._prefix}HOST")
        except EndpointError as error:
            raise ConfigError(
                f"{self._prefix}HOST: {error.message}", variable=f"{self._prefix}HOST", hint=error.hint
            ) from error

    def _tls(self) -> TLSConfig | None:
        files = {key: self._text(f"TLS_{key.upper()}") for key in ("ca", "cert", "key")}
        verify = self._flag("TLS_VERIFY")
        wanted = self._flag("TLS")
        if wanted is False or (wanted is None and verify is None and not any(files.values())):
            return None
        for present, missing in (("cert", "key"), ("key", "cert")):
            if files[present] and not files[missing]:
                self._refuse(f"TLS_{present.upper()}", f"goes with {self._prefix}TLS_{missing.upper()}")
        paths = {key: Path(value) if value else None for key, value in files.items()}
        return TLSConfig(ca=paths["ca"], cert=paths["cert"], key=paths["key"], verify=verify is not False)

    def _flag(self, name: str) -> bool | None:
        text = self._text(name)
        if text is None:
            return None
        if text.lower() not in _TRUE | _FALSE:
            self._refuse(name, f"is {text!r}, which is neither true nor false")
        return text.lower() in _TRUE

    def _one_of(self, name: str, choices: tuple[str, ...]) -> str:
        text = self._text(name)
        if text not in choices:
            self._refuse(name, f"is {text!r}", hint=f"Choose one of {', '.join(choices)}.")
        return text

    def _seconds(self, name: str) -> float:
        text = self._text(name) or ""
        try:
            seconds = float(text)
        except ValueError:
            seconds = math.nan
        if not 0 < seconds < math.inf:
            self._refuse(name, f"is {text!r}, which is no number of seconds above 0")
        return seconds

    def _list(self, name: str) -> tuple[str, ...]:
        return tuple(part.strip() for part in (self._text(name) or "").split(",") if part.strip())

    def _assignments(self, name: str) -> dict[str, str]:
        found = {}
        for part in self._list(name):
            key, equals, value = part.partition("=")
            if not key or not equals:
                # Not the part: it may be a secret that lost its name.
                self._refuse(name, "has a part that is not NAME=VALUE")
            found[key] = value
        return found

    def _credentials(self, name: str) -> dict[str, tuple[str, str]]:
        text = self._text(name)
        if text is None:
            return {}
        from mobysession.session.managed.credentials import parse_credentials  # only for who has them: start-up

        try:
            return parse_credentials(text)
        except ValueError as error:
            # From nothing: the cause quotes what may be a password.
            raise ConfigError(f"{self._prefix}{name} {error}", variable=self._prefix + name) from None
