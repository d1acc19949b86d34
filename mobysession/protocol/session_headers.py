"""The header fields by which a client exposes a session (moby/buildkit session/manager.go).

On a hijacked ``POST /session`` they are HTTP/1.1 header lines, inside ``Control.Session`` the same keys in lower case.
Every method is a line of its own: the daemon takes a comma-joined value for one long method name.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from mobysession.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["SessionHeaders"]

_ID = "X-Docker-Expose-Session-Uuid"
_SHARED_KEY = "X-Docker-Expose-Session-Sharedkey"
_NAME = "X-Docker-Expose-Session-Name"
_METHOD = "X-Docker-Expose-Session-Grpc-Method"


@dataclass(frozen=True, kw_only=True)
class SessionHeaders:
    """What a session says of itself when it is attached.

    ``session_id`` must not be empty (a daemon would register the empty ID) nor hold a colon (it separates a prefix);
    ``name`` is a label that only engines up to BuildKit 0.15 look at.
    """

    session_id: str
    shared_key: str = ""
    name: str = ""
    methods: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.session_id or ":" in self.session_id:
            raise UsageError(f"{self.session_id!r} cannot be a session ID: it must not be empty nor contain a colon")
        for value in (self.session_id, self.shared_key, self.name, *self.methods):
            if not (value.isascii() and value.isprintable()):
                raise UsageError(f"{value!r} has characters that a header cannot carry")

    def fields(self) -> list[tuple[str, str]]:
        """Return the header lines, in a fixed order."""
        fields = [(_ID, self.session_id)]
        if self.name:
            fields.append((_NAME, self.name))
        fields.append((_SHARED_KEY, self.shared_key))
        fields.extend((_METHOD, method) for method in self.methods)
        return fields

    @classmethod
    def parse(cls, fields: Iterable[tuple[str, str]]) -> SessionHeaders:
        """Read header lines as a daemon does: keys in any case, the first value wins, methods in lower case."""
        single: dict[str, str] = {}
        methods = []
        for key, value in fields:
            lowered = key.lower()
            if lowered == _METHOD.lower():
                methods.append(value.lower())
            else:
                single.setdefault(lowered, value)
        return cls(
            session_id=single.get(_ID.lower(), ""),
            shared_key=single.get(_SHARED_KEY.lower(), ""),
            name=single.get(_NAME.lower(), ""),
            methods=tuple(methods),
        )
