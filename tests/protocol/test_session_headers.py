"""The header fields that expose a session."""

from __future__ import annotations

import pytest

from mobysession.errors import UsageError
from mobysession.protocol.session_headers import SessionHeaders


def test_fields() -> None:
    """Every method is a line of its own; the shared key is sent even when empty, the name only when there is one."""
    headers = SessionHeaders(session_id="abc", methods=("/a.B/C", "/a.B/D"))
    assert headers.fields() == [
        ("X-Docker-Expose-Session-Uuid", "abc"),
        ("X-Docker-Expose-Session-Sharedkey", ""),
        ("X-Docker-Expose-Session-Grpc-Method", "/a.B/C"),
        ("X-Docker-Expose-Session-Grpc-Method", "/a.B/D"),
    ]
    named = SessionHeaders(session_id="abc", name="my build", shared_key="key")
    assert named.fields() == [
        ("X-Docker-Expose-Session-Uuid", "abc"),
        ("X-Docker-Expose-Session-Name", "my build"),
        ("X-Docker-Expose-Session-Sharedkey", "key"),
    ]


def test_round_trip() -> None:
    """What is sent is read back, methods in lower case as the daemon does."""
    headers = SessionHeaders(session_id="abc", name="n", shared_key="k", methods=("/a.B/C",))
    lowered = [(key.lower(), value) for key, value in headers.fields()]
    expected = SessionHeaders(session_id="abc", name="n", shared_key="k", methods=("/a.b/c",))
    assert SessionHeaders.parse(headers.fields()) == SessionHeaders.parse(lowered) == expected


def test_first_value_wins() -> None:
    """A repeated single header counts once, the first time; strangers are ignored."""
    fields = [("x-docker-expose-session-uuid", "a"), ("X-DOCKER-EXPOSE-SESSION-UUID", "b"), ("Host", "h")]
    assert SessionHeaders.parse(fields) == SessionHeaders(session_id="a")


@pytest.mark.parametrize("session_id", ["", "a:b", ":"])
def test_bad_ids(session_id: str) -> None:
    """An empty ID would be registered as such, and a colon separates a prefix: both are refused."""
    with pytest.raises(UsageError, match="cannot be a session ID"):
        SessionHeaders(session_id=session_id)
    with pytest.raises(UsageError):
        SessionHeaders.parse([("X-Docker-Expose-Session-Uuid", session_id)])


@pytest.mark.parametrize(
    "values",
    [
        {"session_id": "ä"},
        {"session_id": "a", "name": "a\r\nHost: b"},
        {"session_id": "a", "shared_key": "ü"},
        {"session_id": "a", "methods": ("/a.B/C\n",)},
    ],
)
def test_values_that_headers_cannot_carry(values: dict[str, object]) -> None:
    """Characters outside printable ASCII are refused, line ends above all."""
    with pytest.raises(UsageError, match="characters that a header cannot carry"):
        SessionHeaders(**values)  # type: ignore[arg-type]  # a table of cases
