"""The ``grpc-timeout`` header: at most eight digits and a unit (grpc/grpc doc/PROTOCOL-HTTP2.md)."""

from __future__ import annotations

import math

from mobysession.errors import LocalProtocolError, RpcError, StatusCode

__all__ = ["format_timeout", "parse_timeout"]

_UNITS = {"n": 1, "u": 10**3, "m": 10**6, "S": 10**9, "M": 60 * 10**9, "H": 3600 * 10**9}
_MAX_DIGITS = 8
#: Seconds; more than 11,000 years.
_LONGEST = 3600.0 * (10**_MAX_DIGITS - 1)


def format_timeout(seconds: float) -> str:
    """Return ``seconds`` in the finest unit that fits; nothing is rounded down to zero, negative time is none.

    What is longer than the header can say becomes the longest that it can.

    Raises:
        LocalProtocolError: it is no number.
    """
    if math.isnan(seconds):
        raise LocalProtocolError("the timeout is not a number of seconds")
    nanoseconds = max(1, round(min(max(seconds, 0.0), _LONGEST) * 10**9))
    for unit, size in _UNITS.items():
        count = -(-nanoseconds // size)
        if count < 10**_MAX_DIGITS:
            return f"{count}{unit}"
    return f"{10**_MAX_DIGITS - 1}H"


def parse_timeout(value: str) -> float:
    """Return the seconds that ``value`` names.

    Raises:
        RpcError: INTERNAL for anything the specification does not allow.
    """
    digits, unit = value[:-1], value[-1:]
    if unit not in _UNITS or not digits.isascii() or not digits.isdigit() or len(digits) > _MAX_DIGITS:
        raise RpcError(StatusCode.INTERNAL, f"malformed grpc-timeout {value[:32]!r}")
    return int(digits) * _UNITS[unit] / 10**9
