"""What registries say to one they know not, and which of them are this machine."""

from __future__ import annotations

import httpx
import pytest

from mobysession.services.registry_http import challenges, is_loopback

BEARER = ("bearer", {"realm": "https://t/", "service": "s"})


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        (['Bearer realm="https://t/",service="s"'], [BEARER]),
        (['Basic realm="a, b=c", BEARER Realm=https://t/ , service="s"'], [("basic", {"realm": "a, b=c"}), BEARER]),
        (["Negotiate", 'Bearer realm="https://t/",service="s"'], [("negotiate", {}), BEARER]),
        (['Basic , Bearer realm="https://t/",service="s"'], [("basic", {}), BEARER]),
        (['Basic realm="say \\"a\\"",realm="b"'], [("basic", {"realm": 'say "a"'})]),
        ([""], []),
    ],
)
def test_each_challenge_is_found(headers: list[str], expected: list[tuple[str, dict[str, str]]]) -> None:
    """In headers of their own or together, in order; of a parameter that comes twice the first one counts."""
    assert list(challenges(httpx.Headers([("www-authenticate", header) for header in headers]))) == expected


@pytest.mark.parametrize("host", ["localhost", "localhost:5000", "127.0.0.1:1", "[::1]", "[::1]:5000"])
def test_the_loopback_is_this_machine(host: str) -> None:
    """With a port and without; a name that only begins in the same way is another machine."""
    assert is_loopback(host)
    assert not is_loopback(f"x.{host}")
    assert not is_loopback("localhost.example:5000")
