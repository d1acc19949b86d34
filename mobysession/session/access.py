"""Who may ask for what on a session: rules, offers, and somebody's word.

The daemon is a peer and not a friend. Each call is judged before its handler sees it, in this order:

1. *Rules*: globs over the names of methods. What ``deny`` matches, or ``allow`` does not, is refused, and not even
   advertised.
2. *Offers*: an ID that a service was not given (of a secret, an SSH agent) is refused by the service itself, in the
   words that the engine knows, and nobody is bothered with it: engines probe for secrets that nobody ever named.
3. *Approval*: for what ``ask`` matches, a function or a person is asked, with what is wanted and by which session.

Every decision is an `AccessDecided` event. Health is always answered: a daemon hangs up on a session without it.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Final, Literal, NamedTuple, TypeAlias

import trio

from mobysession import limits
from mobysession.errors import MobysessionError, UsageError
from mobysession.services.provider import Provider

if TYPE_CHECKING:
    from collections.abc import Sequence

    from google.protobuf.message import Message

    from mobysession.rpc.server import ServerCall

__all__ = ["CREDENTIALS", "Access", "AccessRequest", "Approve", "Decision", "request_of"]

#: What gives away something that is secret: secrets, registry logins, the use of a private key.
CREDENTIALS: Final = (
    "/moby.buildkit.secrets.v1.Secrets/*",
    "/moby.sshforward.v1.SSH/*",
    "/moby.filesync.v1.Auth/*",
)
_HEALTH: Final = "/grpc.health.v1.health/"
#: The only key whose values may be escaped.
_DIRECTORY: Final = "dir-name"
#: What a call is about, by its method: in words, the field of its message or the key of its metadata that names it.
_SUBJECTS: Final = {
    "/moby.buildkit.secrets.v1.secrets/": ("secret", "ID", ""),
    "/moby.sshforward.v1.ssh/": ("SSH agent", "ID", "buildkit.ssh.id"),
    "/moby.filesync.v1.auth/": ("registry login", "Host", ""),
    "/moby.filesync.v1.filesync/": ("directory", "", _DIRECTORY),
    "/moby.filesync.v1.filesend/": ("output", "", "buildkit-attachable-exporter-id"),
    "/moby.upload.v1.upload/": ("upload", "", "urlpath"),
    "/containerd.services.content.v1.content/": ("store", "", "buildkit-attachable-store-id"),
}
_log = logging.getLogger("mobysession.session")


class AccessRequest(NamedTuple):
    """What is asked for.

    Attributes:
        session_id: on which session; ``session_name`` is its label, for a build the name of the context.
        call_id: the number of the call on the session.
        method: ``/package.Service/Method``.
        kind: what it is about in words, e.g. ``secret``; the method again where that is not known.
        subject: which: the ID of a secret or an SSH agent, the host of a registry, the name of a directory; empty where
            the request names none.
    """

    session_id: str
    session_name: str
    call_id: int
    method: str
    kind: str
    subject: str

    def __str__(self) -> str:
        what = f"{self.kind} {self.subject}" if self.subject else self.kind
        # The daemon chose the words, which may be shown on a terminal.
        return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in what)


#: A function that decides: plain, and then called in a thread, or asynchronous.
Approve: TypeAlias = Callable[[AccessRequest], bool | Awaitable[bool]]


class Decision(NamedTuple):
    """What became of a request, by what, and why in a few words."""

    allowed: bool
    by: Literal["rule", "offer", "approval"]
    reason: str = ""


class Access:
    """What a session lets the daemon do.

    Args:
        allow: globs of methods, in any case, e.g. ``/moby.buildkit.secrets.v1.Secrets/*`` or ``*Secrets/GetSecret``.
        deny: globs of methods that are refused although ``allow`` matches them.
        approve: is asked for each request that ``ask`` matches and that is offered. False, and an exception, refuse.
        ask: globs of the methods for which it is asked.
        timeout: seconds that ``approve`` may take; then the request is refused.

    Raises:
        UsageError: one text where a list belongs, or an ``approve`` that cannot be called with a request.
    """

    def __init__(
        self,
        *,
        allow: Sequence[str] = ("*",),
        deny: Sequence[str] = (),
        approve: Approve | None = None,
        ask: Sequence[str] = CREDENTIALS,
        timeout: float = limits.APPROVAL_TIMEOUT,
    ) -> None:
        for name, globs in (("allow", allow), ("deny", deny), ("ask", ask)):
            if isinstance(globs, str):
                raise UsageError(f"{name} takes a list of globs, not one text")
        self._allow, self._deny, self._ask = map(_lowered, (allow, deny, ask))
        self._timeout = timeout
        #: Somebody is asked on the terminal, where nobody else should write meanwhile.
        self.asks_on_terminal = bool(getattr(approve, "asks_on_terminal", False))
        self._watchers: list[Callable[[bool], None]] = []
        try:
            self._approve = None if approve is None else Provider(approve)
        except TypeError:
            raise UsageError("approve is a function that takes an AccessRequest") from None

    def watch(self, watcher: Callable[[bool], None]) -> Callable[[], None]:
        """Call ``watcher`` with True before each approval is asked for and with False after it.

        Returns: what ends that; calling it again does nothing.
        """
        self._watchers.append(watcher)

        def end() -> None:
            with suppress(ValueError):
                self._watchers.remove(watcher)

        return end

    def refusal(self, method: str) -> str | None:
        """Return the rule that refuses a method, in words; None where none does."""
        name = method.lower()
        if name.startswith(_HEALTH):
            return None
        if (rule := _match(name, self._deny)) is not None:
            return f"denied by {rule}"
        return None if _match(name, self._allow) is not None else "not among what is allowed"

    async def decide(self, request: AccessRequest, *, offered: bool = True) -> Decision:
        """Return whether a request is granted; it never raises but for a cancellation.

        Args:
            offered: the service has what is asked for.

        Cancel: a plain ``approve`` is left to end in its thread.
        """
        if (reason := self.refusal(request.method)) is not None:
            return Decision(False, "rule", reason)
        if not offered:
            return Decision(False, "offer", "not offered")
        name = request.method.lower()
        if self._approve is None or name.startswith(_HEALTH) or _match(name, self._ask) is None:
            return Decision(True, "rule")
        return await self._approved(self._approve, request)

    async def _approved(self, approve: Provider, request: AccessRequest) -> Decision:
        watchers = tuple(self._watchers)
        for watcher in watchers:
            watcher(True)
        try:
            with trio.fail_after(self._timeout):
                granted = await approve.call(request)
        except trio.TooSlowError:
            return Decision(False, "approval", f"nobody answered within {self._timeout:g} s")
        except MobysessionError as error:
            return Decision(False, "approval", error.message)
        except Exception as error:  # of any kind: the function is not ours, and its words may be secret
            _log.warning("%s is refused: the approval failed with %s", request, type(error).__name__)
            return Decision(False, "approval", f"the approval failed with {type(error).__name__}")
        finally:
            for watcher in watchers:
                watcher(False)
        # Nothing but True, so that a function which forgets to return grants nothing.
        return Decision(True, "approval") if granted is True else Decision(False, "approval", "refused")


def request_of(call: ServerCall, method: str, message: Message | None, *, session_name: str) -> AccessRequest:
    """Return what a call asks for, as far as its method is known.

    Args:
        method: as it is hosted; the daemon may spell it in another case.
        message: the request, where there is one message.
    """
    kind, field, key = next(
        (found for prefix, found in _SUBJECTS.items() if method.lower().startswith(prefix)), (method, "", "")
    )
    # As the service reads it, or else one thing would be approved of and another one given.
    if message is not None and field:
        subject = str(getattr(message, field, ""))
    elif key:
        values = call.encoded_values(key) if key == _DIRECTORY else call.values(key)
        subject = next(iter(values), "")
    else:
        subject = ""
    if kind == "SSH agent":
        subject = subject or "default"
    return AccessRequest(call.session_id, session_name, call.number, method, kind, subject)


def _lowered(globs: Sequence[str]) -> tuple[str, ...]:
    return tuple(glob.lower() for glob in globs)


def _match(name: str, globs: Sequence[str]) -> str | None:
    return next((glob for glob in globs if fnmatchcase(name, glob)), None)
