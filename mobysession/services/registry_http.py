"""How registries, and where their tokens come from, are spoken to: the client, and what they say to one they know not.

Source: RFC 9110 section 11.6.1; distribution/distribution docs/content/spec/auth.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, NamedTuple

import httpx

from mobysession import limits
from mobysession._version import __version__

if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterator

__all__ = ["Challenge", "challenges", "is_loopback", "make_client"]

_LOOPBACK: Final = frozenset(("localhost", "127.0.0.1", "[::1]"))
_PARAMETER: Final = r'([a-zA-Z]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]+))'
_QUOTED: Final = r'"(?:[^"\\]|\\.)*"'
#: The beginning of a challenge: a word with a space or nothing behind it, where a parameter has its ``=``.
_SCHEME: Final = r"(?:^|,)\s*([a-zA-Z][\w-]*)(?:\s+(?=[a-zA-Z])|\s*(?=,|$))"


class Challenge(NamedTuple):
    """One way to prove who one is: its scheme and the names of its parameters are in lower case."""

    scheme: str
    parameters: dict[str, str]


def challenges(headers: httpx.Headers) -> Iterator[Challenge]:
    """Yield the challenges of an answer in their order; one ``WWW-Authenticate`` may hold several."""
    for header in headers.get_list("www-authenticate"):
        # What is quoted may look like anything.
        masked = re.sub(_QUOTED, lambda found: "_" * len(found[0]), header)
        schemes = list(re.finditer(_SCHEME, masked))
        ends = [*(scheme.start() for scheme in schemes[1:]), len(header)]
        for scheme, end in zip(schemes, ends, strict=False):
            parameters: dict[str, str] = {}
            for name, quoted, bare in re.findall(_PARAMETER, header[scheme.end() : end]):
                parameters.setdefault(name.lower(), re.sub(r"\\(.)", r"\1", quoted) or bare)
            yield Challenge(scheme[1].lower(), parameters)


def is_loopback(host: str) -> bool:
    """Tell whether ``host[:port]`` is this machine, to which plain HTTP may be spoken."""
    bare = host if host.endswith("]") else host.rpartition(":")[0] or host
    return bare in _LOOPBACK


def make_client(host: str, trust: ssl.SSLContext, timeout: float) -> httpx.AsyncClient:
    """Return a client for ``host[:port]``.

    Args:
        host: who is spoken to.
        trust: what TLS is checked with.
        timeout: seconds for each part of a request.
    """
    return httpx.AsyncClient(
        verify=trust,
        timeout=httpx.Timeout(timeout, connect=min(timeout, limits.TOKEN_CONNECT_TIMEOUT)),
        # Unpacked, a small answer could be a very large one.
        headers={"user-agent": f"mobysession/{__version__}", "accept-encoding": "identity"},
        # A proxy would get in the clear what is meant for this machine; Go's clients ask none for the loopback.
        trust_env=not is_loopback(host),
    )
