"""References to daemons, as they are stored in a client's state; loaded by every build that has an active one."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["CLIENT_STATE", "VIEWS", "DaemonReference", "active_in", "reference_of"]

#: The state that the command line, and `Endpoint`'s default, look at.
CLIENT_STATE: Final = "client"
#: Of the kinds of ``--progress``, those that somebody may want of every build on a daemon.
VIEWS: Final = ("auto", "plain", "tty", "quiet", "none", "rawjson")


@dataclass(frozen=True, kw_only=True)
class DaemonReference:
    """A daemon that is remembered.

    Attributes:
        address: as ``--host`` takes it.
        view: how progress is to be shown where nobody says; None: no preference.
        last_accessed: seconds since the epoch.
        password_in: what keeps its password, ``keyring`` or ``docker-credential-...``; None: it has none.
        password: only in what `ClientState.get_reference` and `ClientState.register_reference` return.
    """

    address: str
    view: str | None = None
    last_accessed: float
    password_in: str | None = None
    password: str | None = field(default=None, repr=False)


def active_in(values: Mapping[str, Any]) -> DaemonReference | None:
    """Return the active reference that the values of a client's state name."""
    address, daemons = values.get("active"), values.get("daemons") or {}
    return reference_of(address, daemons[address]) if address is not None and address in daemons else None


def reference_of(address: str, entry: Mapping[str, Any]) -> DaemonReference:
    """Return the reference that is stored as ``entry``."""
    return DaemonReference(
        address=address,
        view=entry.get("view"),
        last_accessed=entry["last_accessed"],
        password_in=entry.get("password_in"),
    )
