"""What this user's client remembers: who the user is, which daemons there are, and which of them is in use.

It is a state (`mobysession.state.state`) like any other, called ``client``, so that all processes see the same and can
observe it. A reference is found by its address, however it is spelled. Its password is elsewhere; see
`mobysession.state.passwords`.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import trio

from mobysession import limits
from mobysession.errors import EndpointError, UsageError
from mobysession.identity import node_id
from mobysession.state.passwords import find_passwords, passwords_named
from mobysession.state.references import CLIENT_STATE, VIEWS, DaemonReference, active_in, reference_of
from mobysession.state.state import State
from mobysession.transport.endpoint import Endpoint

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType
    from typing import Self

    from mobysession.state.store import Store

__all__ = ["ClientState", "DaemonReference", "User", "find_address"]


@dataclass(frozen=True, kw_only=True)
class User:
    """Who builds.

    Attributes:
        node_id: BuildKit's node ID of this user; see `mobysession.identity.node_id`.
        name: to be shown.
        created: when this client first remembered anything; seconds since the epoch.
    """

    node_id: str
    name: str
    created: float


class ClientState:
    """What is remembered of the user and of daemons.

    ::

        async with ClientState() as client:
            await client.register_reference("ssh://me@box", view="plain")
            client.set_active("ssh://me@box")

    Args:
        persistence_name: of the state; None: the one that the command line and the default endpoint look at.
        store: where it is; None: one of its own.
    """

    def __init__(self, persistence_name: str | None = None, *, store: Store | None = None) -> None:
        #: What is below: to observe, and to flush.
        self.state = State(persistence_name or CLIENT_STATE, store=store)
        self._node_id = ""

    async def __aenter__(self) -> Self:
        """Read what is remembered; StateError where that is impossible."""
        self._node_id, name = await trio.to_thread.run_sync(_who)
        await self.state.__aenter__()
        if "user" not in self.state.keys:
            user = {"name": name, "created": time.time()}
            # Of two processes that start at once the first one is right.
            self.state.set(lambda values: {} if "user" in values else {"user": user})
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        """Write what is not written yet."""
        return await self.state.__aexit__(kind, error, traceback)

    @property
    def user(self) -> User:
        """Who builds."""
        stored = self.state.key("user").value
        return User(node_id=self._node_id, name=stored["name"], created=stored["created"])

    @property
    def daemons(self) -> tuple[DaemonReference, ...]:
        """The references, the one that was accessed last first; without their passwords."""
        references = [reference_of(address, entry) for address, entry in self._entries().items()]
        return tuple(sorted(references, key=lambda reference: -reference.last_accessed))

    @property
    def active(self) -> DaemonReference | None:
        """The reference that is in use; None where none is."""
        return active_in(self.state.get())

    def find(self, address: str) -> DaemonReference | None:
        """Return a reference without its password, and without counting that as an access; None where there is none."""
        known = self._known(address)
        return None if known is None else reference_of(known, self._entries()[known])

    async def register_reference(
        self, address: str, *, view: str | None = None, password: str | None = None
    ) -> DaemonReference:
        """Remember a daemon; where it is remembered already, what is given replaces what was.

        Args:
            address: ``unix://``, ``tcp://``, ``https://`` or ``ssh://``.
            view: how progress is to be shown, as for ``--progress``.
            password: a passphrase or token, kept in the key ring or by a docker credential helper.

        Returns: the reference, with the password.

        Raises:
            EndpointError: the address is malformed.
            UsageError: there is no such view; or the password is empty, or larger than `limits.MAX_PASSWORD`.
            CredentialError: a password is given, and there is nothing to keep it in, or that failed; nothing changes.
        """
        if view is not None and view not in VIEWS:
            raise UsageError(f"there is no view {view!r}", hint=f"Choose one of {', '.join(VIEWS)}.")
        address = self._known(address) or Endpoint(address).url.strip()
        entry: dict[str, Any] = {"last_accessed": time.time()}
        if view is not None:
            entry["view"] = view
        if password is not None:
            entry["password_in"] = await _keep(address, password)
        self._update(address, entry)
        return await self.get_reference(address)

    async def get_reference(self, address: str) -> DaemonReference:
        """Return a reference with its password, and remember the time.

        Raises:
            UsageError: it is not remembered.
            CredentialError: what keeps its password failed; the user must act.
        """
        address = self._existing(address)
        self._update(address, {"last_accessed": time.time()})
        reference = reference_of(address, self._entries()[address])
        if reference.password_in is None:
            return reference
        return replace(reference, password=await passwords_named(reference.password_in).get(address))

    async def remove_reference(self, address: str) -> None:
        """Forget a daemon and its password; where it was active, none is.

        Raises:
            UsageError: it is not remembered.
            CredentialError: what keeps its password failed; it is not forgotten.
        """
        address = self._existing(address)
        if (keeper := self._entries()[address].get("password_in")) is not None:
            await passwords_named(keeper).erase(address)

        def remove(values: dict[str, Any]) -> dict[str, Any]:
            left = {name: entry for name, entry in values.get("daemons", {}).items() if name != address}
            return {"daemons": left, "active": None if values.get("active") == address else values.get("active")}

        self.state.set(remove)

    def set_active(self, address: str | None) -> None:
        """Use a daemon that is remembered where nobody names another; None: the docker CLI's default again.

        Raises:
            UsageError: it is not remembered.
        """
        if address is None:
            self.state.set({"active": None})
            return
        address = self._existing(address)
        self._update(address, {"last_accessed": time.time()})
        self.state.set({"active": address})

    def is_active(self, address: str) -> bool:
        """Say whether a daemon is the one in use; False also for one that is not remembered."""
        active = self.active
        return active is not None and self._known(address) == active.address

    def _entries(self) -> dict[str, dict[str, Any]]:
        return self.state.get().get("daemons") or {}

    def _known(self, address: str) -> str | None:
        return find_address(self._entries(), address)

    def _existing(self, address: str) -> str:
        known = self._known(address)
        if known is None:
            raise UsageError(f"no daemon is remembered at {address}", hint="See which: mobysession daemons ls")
        return known

    def _update(self, address: str, changed: Mapping[str, Any]) -> None:
        def update(values: dict[str, Any]) -> dict[str, Any]:
            daemons = values.get("daemons") or {}
            return {"daemons": {**daemons, address: {**daemons.get(address, {}), **changed}}}

        self.state.set(update)


def find_address(entries: Mapping[str, object], address: str) -> str | None:
    """Return the spelling under which a daemon is remembered; None where it is not."""
    if address in entries:
        return address
    try:
        wanted = Endpoint(address).address
    except EndpointError:
        return None
    return next((known for known in entries if Endpoint(known).address == wanted), None)


async def _keep(address: str, password: str) -> str:
    if not password or len(password.encode("utf-8", "surrogateescape")) > limits.MAX_PASSWORD:
        raise UsageError(f"a password has 1 to {limits.MAX_PASSWORD} bytes")
    keeper = await find_passwords()
    await keeper.put(address, password)
    return keeper.name


def _who() -> tuple[str, str]:
    import getpass

    try:
        name = getpass.getuser()
    except (OSError, KeyError):  # a user ID without a name, as in many containers
        name = ""
    return node_id(), name
