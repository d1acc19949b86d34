"""RFC 9113 section 3: how a connection begins."""

from __future__ import annotations

import pytest

from mobysession.protocol import events
from tests.protocol.wire import (
    ACK,
    FINE,
    PREFACE,
    Case,
    Code,
    Talk,
    Type,
    case,
    connection_error,
    goaway,
    over,
    ping,
    request,
    settings,
    try_core,
    window_update,
)

BROKEN = connection_error(Code.PROTOCOL_ERROR)

CASES = [
    case("3.4", "a preface may have empty SETTINGS", PREFACE + settings(), verdict=FINE, bare=True),
    case("3.4", "a client may go on at once", PREFACE + settings() + request(), verdict=FINE, bare=True),
    case("3.4", "a wrong preface is a connection error", b"GET / HTTP/1.1\r\n\r\n" * 2, verdict=BROKEN, bare=True),
    case("3.4", "a preface that begins well is no preface", PREFACE[:-1] + b"x", verdict=BROKEN, bare=True),
    *(
        case("3.4", f"{name} is not what a preface ends with", PREFACE + first + settings(), verdict=BROKEN, bare=True)
        for name, first in (
            ("HEADERS", request()),
            ("PING", ping()),
            ("WINDOW_UPDATE", window_update(0, 1)),
            ("GOAWAY", goaway()),
            ("an acknowledgement", settings(flags=ACK)),
        )
    ),
]


@over(CASES)
@pytest.mark.parametrize("bytewise", [False, True], ids=["whole", "bytewise"])
def test_rule(case: Case, bytewise: bool) -> None:
    """A server answers what the rule is about as the rule says."""
    try_core(case, bytewise=bytewise)


def test_the_first_thing_a_server_says() -> None:
    """Section 3.4: a server's preface is a SETTINGS frame, and it does not wait for the client's."""
    talk = Talk.with_server()
    fresh = Talk(talk.core.__class__())
    fresh.flush()
    assert [frame.type for frame in fresh.frames] == [Type.SETTINGS, Type.WINDOW_UPDATE]


def test_a_server_that_begins_otherwise() -> None:
    """Section 3.4: a client ends a connection whose server's preface is no SETTINGS."""
    talk = Talk.with_client()
    fresh = Talk(talk.core.__class__())
    fresh.hear(ping())
    assert fresh.error is not None
    assert fresh.error.error_code == Code.PROTOCOL_ERROR
    assert fresh.frames[-1].type == Type.GOAWAY
    assert not [event for event in fresh.events if isinstance(event, events.SettingsReceived)]
