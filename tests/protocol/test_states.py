"""The short way around h2's states says what h2's own table says, for every state and every input."""

from __future__ import annotations

import h2.exceptions
import pytest
from h2.connection import ConnectionInputs, ConnectionState, H2ConnectionStateMachine
from h2.stream import H2StreamStateMachine, StreamInputs, StreamState

from mobysession.protocol.states import RECEIVING, SENDING, ConnectionStates


def outcome(machine: H2ConnectionStateMachine, input_: ConnectionInputs) -> object:
    """Return what ``machine`` makes of ``input_``, and where it is then."""
    try:
        result: object = machine.process_input(input_)
    except h2.exceptions.ProtocolError as error:
        result = type(error)
    return result, machine.state


@pytest.mark.parametrize("state", list(ConnectionState))
@pytest.mark.parametrize("input_", list(ConnectionInputs))
def test_a_connection_goes_where_it_goes_in_h2(state: ConnectionState, input_: ConnectionInputs) -> None:
    """Result, error and next state are h2's, also where the state was changed by somebody else before."""
    ours, theirs = ConnectionStates(), H2ConnectionStateMachine()
    ours.process_input(ConnectionInputs.RECV_HEADERS)
    ours.state = theirs.state = state
    assert outcome(ours, input_) == outcome(theirs, input_)
    assert outcome(ours, ConnectionInputs.SEND_DATA) == outcome(theirs, ConnectionInputs.SEND_DATA)


def stream_in(state: StreamState) -> H2StreamStateMachine:
    """Return a stream in ``state`` that has its headers behind it."""
    machine = H2StreamStateMachine(1)
    machine.state = state
    machine.headers_sent = machine.headers_received = True
    return machine


@pytest.mark.parametrize("state", list(StreamState))
@pytest.mark.parametrize(("input_", "states"), [(StreamInputs.SEND_DATA, SENDING), (StreamInputs.RECV_DATA, RECEIVING)])
def test_a_stream_stays_in_the_states_of_the_list(
    state: StreamState, input_: StreamInputs, states: tuple[StreamState, ...]
) -> None:
    """DATA leaves these states as they are; in all others h2 has something to say against it."""
    machine = stream_in(state)
    if state in states:
        machine.process_input(input_)
        assert machine.state is state
    else:
        with pytest.raises(h2.exceptions.ProtocolError):
            machine.process_input(input_)


def test_which_states_these_are() -> None:
    """They are those of RFC 9113 section 5.1 in which DATA may flow."""
    assert set(SENDING) == {StreamState.OPEN, StreamState.HALF_CLOSED_REMOTE}
    assert set(RECEIVING) == {StreamState.OPEN, StreamState.HALF_CLOSED_LOCAL}
