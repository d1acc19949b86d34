"""h2's states, with a short way for what leaves them as they are.

Nearly every frame does, and to find that out h2 builds a key of two enumeration members and hashes both, each by a
Python function. The answers are the same: they are read off h2's own table.
"""

from __future__ import annotations

from typing import Any

from h2.connection import ConnectionInputs, ConnectionState, H2ConnectionStateMachine
from h2.stream import StreamInputs, StreamState, _transitions

__all__ = ["RECEIVING", "SENDING", "ConnectionStates"]

#: By state, the values of the inputs that do nothing in it.
_QUIET = {
    state: frozenset(
        input_.value
        for (before, input_), (action, after) in H2ConnectionStateMachine._transitions.items()
        if before is state and after is state and action is None
    )
    for state in ConnectionState
}

#: The states of a stream in which a frame of DATA may be sent, and which it leaves as they are.
SENDING = tuple(
    before
    for (before, input_), (action, after) in _transitions.items()
    if input_ is StreamInputs.SEND_DATA and action is None and before is after
)

#: The open states in which one may be received, and which it leaves as they are.
RECEIVING = tuple(
    before
    for (before, input_), (_, after) in _transitions.items()
    if input_ is StreamInputs.RECV_DATA and before is after and before is not StreamState.CLOSED
)


class ConnectionStates(H2ConnectionStateMachine):  # type: ignore[misc,unused-ignore]  # h2 is typed, its stubs vary
    """The states of one connection."""

    def __init__(self) -> None:
        super().__init__()
        #: A state, and the inputs that do nothing in it.
        self._looked_up = self.state
        self._quiet = _QUIET[self.state]

    def process_input(self, input_: ConnectionInputs) -> list[Any]:
        """Do as h2 does."""
        if self.state is not self._looked_up:
            self._looked_up = self.state
            self._quiet = _QUIET[self.state]
        if input_._value_ in self._quiet:
            return []
        return super().process_input(input_)
