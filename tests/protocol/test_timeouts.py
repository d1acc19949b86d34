"""The grpc-timeout header."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobysession.errors import LocalProtocolError, RpcError, StatusCode
from mobysession.protocol.timeouts import format_timeout, parse_timeout


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("1H", 3600),
        ("2M", 120),
        ("3S", 3),
        ("4m", 0.004),
        ("5u", 5e-6),
        ("6n", 6e-9),
        ("0S", 0),
        ("99999999H", 359999996400),
    ],
)
def test_every_unit(value: str, seconds: float) -> None:
    """Each unit of the specification is understood."""
    assert parse_timeout(value) == seconds


@pytest.mark.parametrize(
    "value", ["", "S", "1", "1s", "123456789S", "-1S", "1.5S", " 1S", "1 S", "+1S", "1_0S", "٣S", "SS", "1h"]
)
def test_malformed(value: str) -> None:
    """Anything else is the peer's mistake."""
    with pytest.raises(RpcError, match="malformed grpc-timeout") as caught:
        parse_timeout(value)
    assert caught.value.code is StatusCode.INTERNAL


@pytest.mark.parametrize(
    ("seconds", "value"),
    [
        (0, "1n"),
        (-1, "1n"),
        (1e-12, "1n"),
        (1, "1000000u"),
        (30, "30000000u"),
        (3600, "3600000m"),
        (1e9, "16666667M"),
        (1e12, "99999999H"),
        (1e300, "99999999H"),
        (float("-inf"), "1n"),
    ],
)
def test_format(seconds: float, value: str) -> None:
    """The finest unit that fits is used; nothing becomes zero."""
    assert format_timeout(seconds) == value


def test_what_is_no_number_is_no_timeout() -> None:
    """NaN is our caller's mistake."""
    with pytest.raises(LocalProtocolError, match="not a number of seconds"):
        format_timeout(float("nan"))


@given(st.floats(min_value=1e-9, max_value=3.5e11))
def test_round_trip(seconds: float) -> None:
    """A timeout comes back as itself, at most one unit longer, never shorter by more than a rounding."""
    value = format_timeout(seconds)
    assert len(value) <= 9
    assert seconds * (1 - 1e-9) - 1e-9 <= parse_timeout(value) <= seconds * (1 + 1e-7) + 1e-9 + _unit(value)


def _unit(value: str) -> float:
    return {"n": 1e-9, "u": 1e-6, "m": 1e-3, "S": 1, "M": 60, "H": 3600}[value[-1]]
