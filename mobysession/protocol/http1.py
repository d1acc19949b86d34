"""What HTTP/1.1 answers have in common, whether they are upgrades or not (RFC 9112).

A daemon explains an error in a body of ``{"message": "..."}``. What is no daemon at all gives itself away in its first
bytes: TLS servers send an alert, HTTP/2 servers their SETTINGS, SSH servers a banner, and Go's TLS servers answer a
plain request with a sentence of their own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mobysession import limits
from mobysession.errors import HandshakeError, TLSError, TransportError, UsageError
from mobysession.jsontext import parse_json

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import NoReturn

__all__ = [
    *("AnswerStart", "encode_fields", "error_message", "invalid_answer", "not_http", "one_line", "refusal_hint"),
    *("stranger_hint", "version_hint"),
]

_STATUS_LINE_START = b"HTTP/1."
_TLS_RECORDS = (b"\x15\x03", b"\x16\x03")
_HTTP2_SETTINGS_TYPE = b"\x04"
_FRAME_HEADER = 9
_SHOWN = 60
_MESSAGE_LENGTH = 2000
_TLS_HINT = (
    "The endpoint wants TLS: set DOCKER_TLS_VERIFY=1 and DOCKER_CERT_PATH, or use a docker context that has them."
)

_REFUSALS = {
    400: "What stands between here and the daemon may have dropped the lines Connection and Upgrade; or see its log.",
    401: "Something in front of the daemon wants a login: HttpHeaders of config.json can carry one.",
    403: "An authorization plugin, or a proxy in front of the daemon, forbids this.",
    404: "Sessions need a Docker daemon with BuildKit: 18.09 or newer, or 19.03 for its gRPC API.",
    500: "The daemon's log says more.",
    502: "A proxy in front of the daemon cannot reach it.",
    503: "The daemon, or a proxy in front of it, is not ready; try again.",
    504: "A proxy in front of the daemon waited for it in vain.",
}
#: What a proxy may answer in the place of a daemon that is there.
_IN_BETWEEN = frozenset({401, 403, 407, 429, 502, 503, 504})

# Ours to set: a second line of any of these would make the request ambiguous (RFC 9112 section 11.2).
_FRAMING = frozenset({"connection", "content-length", "host", "keep-alive", "te", "transfer-encoding", "upgrade"})


def encode_fields(fields: Iterable[tuple[str, str]]) -> list[tuple[bytes, bytes]]:
    """Encode header lines for h11, without those that frame the message, which are the connection's own business.

    Raises:
        UsageError: a line cannot be sent; names the field, never its value.
    """
    encoded = []
    for name, value in fields:
        if name.lower() in _FRAMING:
            continue
        if (
            not name
            or not name.isascii()
            or not name.isprintable()
            or any(mark in name for mark in ' ":;,()<>@/[]?={}\\')
        ):
            raise UsageError(f"{name!r} cannot be the name of an HTTP header")
        value = value.strip(" \t")
        if any(character in value for character in "\r\n\0\v\f"):
            raise UsageError(f"the value of the HTTP header {name} has characters that cannot be sent")
        encoded.append((name.encode("ascii"), value.encode("utf-8", "surrogateescape")))
    return encoded


class AnswerStart:
    """The beginning of an answer, held back until it is certain to be HTTP/1.x.

    h11 would only say that the first line is illegal; what it is instead can be told from nine bytes.

    Args:
        peer: who answers, for messages.
    """

    def __init__(self, peer: str) -> None:
        self._peer = peer
        self._held = b""
        self._is_http = False
        #: Whether anything was answered at all.
        self.heard = False

    def feed(self, data: bytes) -> list[bytes]:
        """Take what was read, empty bytes at its end; return what to give to h11, in this order.

        Raises:
            TLSError: it is TLS; the user must ask for TLS.
            HandshakeError: it is something else; the message shows its beginning.
        """
        self.heard = self.heard or bool(data)
        if self._is_http:
            return [data]
        self._held += data
        if self._held[: len(_STATUS_LINE_START)] == _STATUS_LINE_START:
            self._is_http = True
            return [self._held]
        if not data:
            return [self._held, b""] if _STATUS_LINE_START.startswith(self._held) else self._refuse()
        if len(self._held) >= _FRAME_HEADER:
            self._refuse()
        return []

    def failure(self) -> TransportError | None:
        """Return what is wrong when nothing more comes; None when it is HTTP as far as it goes."""
        if self._is_http or _STATUS_LINE_START.startswith(self._held):
            return None
        return not_http(self._held, peer=self._peer)

    def _refuse(self) -> NoReturn:
        raise not_http(self._held, peer=self._peer)


def not_http(data: bytes, *, peer: str) -> TransportError:
    """Say what an answer is that is not HTTP/1.x, by its beginning."""
    if data.startswith(_TLS_RECORDS):
        return _spoken_plain(peer)
    if len(data) >= _FRAME_HEADER and data[3:4] == _HTTP2_SETTINGS_TYPE and data[5:9] == bytes(4):
        return HandshakeError(
            f"{peer} speaks HTTP/2 from the start, as a buildkitd does and a Docker daemon does not",
            hint="Attach to a buildkitd as to a buildkitd; its address is no address of a Docker daemon.",
        )
    return HandshakeError(
        f"{peer} does not speak HTTP: it answered {bytes(data[:_SHOWN])!r}",
        hint="Check that a Docker daemon listens at this address.",
    )


def _spoken_plain(peer: str) -> TLSError:
    return TLSError(f"{peer} speaks TLS and was spoken to in plain text", hint=_TLS_HINT)


def invalid_answer(peer: str, request: str) -> HandshakeError:
    """Return the error for an answer that begins like HTTP/1.x and is none; what is wrong with it is its cause."""
    return HandshakeError(
        f"the answer of {peer} to {request} is not valid HTTP/1.1",
        hint="Check that a Docker daemon listens at this address, and what stands between here and it.",
    )


def refusal_hint(status: int, headers: Iterable[tuple[str, str]]) -> str:
    """Return what may help against a refusal, by whose it seems to be; the names of ``headers`` are in lower case."""
    return stranger_hint(status, headers) or _REFUSALS.get(status, _REFUSALS[500 if status >= 500 else 400])


def stranger_hint(status: int, headers: Iterable[tuple[str, str]]) -> str | None:
    """Say so where nothing in an answer is a Docker daemon's, nor a proxy's before it; None elsewhere."""
    values = dict(headers)
    server = one_line(values.get("server", ""))
    # An engine says its version with whatever it answers, except that it does not know a path.
    is_docker = "api-version" in values or server.startswith("Docker") or "json" in values.get("content-type", "")
    if is_docker or status in _IN_BETWEEN:
        return None
    who = f"It says that it is {server}, and nothing" if server else "Nothing"
    return f"{who} in its answer tells of a Docker daemon: check the address."


def error_message(body: bytes, content_type: str, *, peer: str) -> str:
    """Return an error body's own words, in one line; empty when it has none for human eyes.

    Raises:
        TLSError: they are those of a Go TLS server that got a plain request.
    """
    text = body.decode("utf-8", "replace").strip()
    if text.startswith("Client sent an HTTP request to an HTTPS server"):
        raise _spoken_plain(peer)
    if text.startswith("{"):
        return one_line(_json_message(text))
    return "" if "html" in content_type or text.startswith("<") else one_line(text)


def _json_message(text: str) -> str:
    try:
        document = parse_json(text)
    except ValueError:
        return text
    message = document.get("message") if isinstance(document, dict) else None
    return message if isinstance(message, str) else text


def version_hint(reason: str) -> str | None:
    """Say what to do where an engine refuses the version in the path, which only a pinned one is; None elsewhere."""
    if "client version" in reason and ("too new" in reason or "too old" in reason):
        return "DOCKER_API_VERSION pins the version that is spoken: unset it, or set it to one that this engine has."
    return None


def one_line(text: str) -> str:
    """Make a peer's text safe to print: one line, no control characters, of bounded length."""
    words = " ".join(text[: limits.MAX_REFUSAL_BODY].split())
    return "".join(character for character in words if character.isprintable())[:_MESSAGE_LENGTH]
