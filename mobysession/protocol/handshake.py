"""The upgrade by which an HTTP/1.1 connection becomes a byte stream, as bytes in and bytes out.

::

    us      POST /session HTTP/1.1 ... Connection: Upgrade, Upgrade: h2c
    daemon  HTTP/1.1 101 Switching Protocols, Upgrade: h2c, blank line; what follows belongs to HTTP/2
    or      HTTP/1.1 400 Bad Request with a body of {"message": "why"}

The request must be alone on the wire until the 101 has been read to its end: when the daemon takes the socket from its
HTTP server it drops what that had buffered. This is not the upgrade of RFC 7540 section 3.2: there are no
``HTTP2-Settings``, and the request does not become stream 1. The reason phrase varies (``101 UPGRADED``) and means
nothing. The input and output of a process in a container are got in the same way, as ``tcp``, by a request with a body.
(moby/buildkit session/manager.go; moby/moby client/hijack.go)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mobysession import limits
from mobysession.errors import (
    ConnectionLost,
    HandshakeTimeout,
    SessionIdInUse,
    TransportError,
    UpgradeRefused,
    UsageError,
)
from mobysession.protocol.http1 import (
    AnswerStart,
    encode_fields,
    error_message,
    invalid_answer,
    one_line,
    refusal_hint,
    version_hint,
)
from mobysession.protocol.plain_head import is_unfinished, parse_answer, serialize_request

if TYPE_CHECKING:
    from collections.abc import Iterable

    import h11

__all__ = ["UpgradeHandshake", "Upgraded"]

_PROTOCOL = "h2c"


class Upgraded:
    """The daemon agreed.

    Attributes:
        status_line: e.g. ``HTTP/1.1 101 Switching Protocols``.
        headers: its header lines, names in lower case.
        leftover: the bytes that came with the head and belong to the new protocol; often its beginning, may be empty.
    """

    __slots__ = ("headers", "leftover", "status_line")

    def __init__(self, status_line: str, headers: tuple[tuple[str, str], ...], leftover: bytes) -> None:
        self.status_line = status_line
        self.headers = headers
        self.leftover = leftover


class UpgradeHandshake:
    """One request to become ``h2c``, or another protocol, and its answer.

    Send ``data_to_send()`` and nothing else; give all that is read to ``receive_data()`` until it returns something.

    Args:
        target: path of the request, e.g. ``/session``.
        fields: header lines to add.
        host: value of the Host line; the daemon ignores it, but it must be there and must not have a slash.
        peer: who is asked, for messages.
        protocol: what to become.
        body: of the request.

    Raises:
        UsageError: the target or a header line cannot be sent; the caller must change it.
    """

    def __init__(
        self,
        target: str,
        fields: Iterable[tuple[str, str]] = (),
        *,
        host: str = "docker",
        peer: str = "the daemon",
        protocol: str = _PROTOCOL,
        body: bytes = b"",
    ) -> None:
        self._target = target
        self._peer = peer
        self._protocol = protocol
        self._request_body = body
        self._start = AnswerStart(peer)
        self._refusal: h11.Response | None = None
        self._body = bytearray()
        self._h11: h11.Connection | None = None
        self._head = b""  # of the answer, until h11 judges it
        try:
            self._fields = [
                (b"Host", host.encode("ascii")),
                (b"Connection", b"Upgrade"),
                (b"Upgrade", protocol.encode("ascii")),
                *encode_fields(fields),
                (b"Content-Length", str(len(body)).encode("ascii")),
            ]
        except UnicodeEncodeError:
            raise self._unwritable(host) from None
        plain = serialize_request("POST", target, self._fields)
        self._request = self._by_h11(host) if plain is None else plain + body

    def data_to_send(self) -> bytes:
        """Return the request, the first time; nothing afterwards."""
        data, self._request = self._request, b""
        return data

    def receive_data(self, data: bytes) -> Upgraded | None:
        """Take what was read; empty bytes say that the daemon closed.

        Returns: None while the answer is incomplete.

        Raises:
            UpgradeRefused: the daemon said no; SessionIdInUse when that is why.
            ConnectionLost: it closed before it had answered.
            HandshakeError: it does not speak HTTP/1.1; TLSError when it speaks TLS.
        """
        for piece in self._start.feed(data):
            unheard = [piece]
            if self._h11 is None:
                self._head += piece
                if piece and is_unfinished(self._head):
                    continue
                answer = parse_answer(self._head)
                if answer is not None and answer.status == 101:
                    return self._upgraded(answer.status_line, answer.headers, answer.rest)
                self._by_h11()
                unheard = [self._head] if piece else [self._head, b""]
            assert self._h11 is not None
            for part in unheard:
                self._h11.receive_data(part)
        return self._advance(self._h11, closed=not data) if self._h11 is not None else None

    def timed_out(self, seconds: float) -> TransportError:
        """Return the error to raise when the answer was not complete in time."""
        if self._refusal is not None:
            return self._refused(self._refusal)
        heard = "did not end its answer to" if self._start.heard else "accepted the connection and did not answer"
        return self._start.failure() or HandshakeTimeout(
            f"{self._peer} {heard} POST {self._target} within {seconds:g} seconds",
            hint="Check that a Docker daemon listens at this address, and that it is not stuck.",
        )

    def _by_h11(self, host: str = "") -> bytes:
        """Let h11 write the request, and judge from now on what is answered."""
        import h11

        self._h11 = h11.Connection(h11.CLIENT, max_incomplete_event_size=limits.MAX_HEAD)
        try:
            request = h11.Request(method=b"POST", target=self._target.encode("ascii"), headers=self._fields)
            events = [request, h11.Data(data=self._request_body), h11.EndOfMessage()]
            return b"".join(self._h11.send(event) or b"" for event in events)
        except (h11.LocalProtocolError, UnicodeEncodeError):
            raise self._unwritable(host) from None

    def _unwritable(self, host: str) -> UsageError:
        return UsageError(f"an upgrade of {self._target!r} at host {host!r} cannot be written as HTTP/1.1")

    def _advance(self, connection: h11.Connection, *, closed: bool) -> Upgraded | None:
        import h11

        try:
            while True:
                event = connection.next_event()
                if event is h11.NEED_DATA:
                    return None
                if isinstance(event, h11.InformationalResponse):
                    if event.status_code == 101:
                        version, reason = event.http_version.decode("ascii"), event.reason.decode("latin-1")
                        status_line = f"HTTP/{version} 101 {reason}".rstrip()
                        return self._upgraded(status_line, _decoded(event.headers), connection.trailing_data[0])
                elif isinstance(event, h11.Response):
                    self._refusal = event
                    if 200 <= event.status_code < 300:
                        # Whatever follows may be endless, and is no explanation.
                        raise self._refused(event)
                elif isinstance(event, h11.Data):
                    self._body += event.data
                    if len(self._body) > limits.MAX_REFUSAL_BODY and self._refusal is not None:
                        raise self._refused(self._refusal)
                elif self._refusal is not None:
                    raise self._refused(self._refusal)
        except h11.RemoteProtocolError as error:
            raise self._broken(closed=closed) from error

    def _upgraded(self, status_line: str, headers: tuple[tuple[str, str], ...], leftover: bytes) -> Upgraded:
        answered = _value(headers, "upgrade")
        if answered.lower() != self._protocol:
            reason = f"it upgrades to {one_line(answered)!r}" if answered else "it does not say to what it upgrades"
            raise UpgradeRefused(
                f"{self._peer} answered POST {self._target} with 101, but not for {self._protocol}: {reason}",
                status=101,
                reason=reason,
                hint="Check what stands between here and the daemon: a proxy may have answered in its place.",
            )
        return Upgraded(status_line, headers, leftover)

    def _refused(self, response: h11.Response) -> TransportError:
        headers = _decoded(response.headers)
        reason = self._reason(headers) or one_line(response.reason.decode("latin-1")) or "no reason given"
        refusal = UpgradeRefused
        hint = version_hint(reason) or refusal_hint(response.status_code, headers)
        if reason.startswith("session ") and reason.endswith(" already exists"):
            refusal = SessionIdInUse
            hint = "Use a new session ID for every connection; an engine keeps a dead one for up to 10 seconds."
        message = f"{self._peer} refused POST {self._target} with status {response.status_code}: {reason}"
        return refusal(message, status=response.status_code, reason=reason, hint=hint)

    def _reason(self, headers: Iterable[tuple[str, str]]) -> str:
        return error_message(bytes(self._body), _value(headers, "content-type"), peer=self._peer)

    def _broken(self, *, closed: bool) -> TransportError:
        if self._refusal is not None:
            return self._refused(self._refusal)
        if closed:
            where = "in the middle of its answer" if self._start.heard else "without an answer"
            return ConnectionLost(
                f"{self._peer} closed the connection {where} to POST {self._target}",
                hint="Check that a Docker daemon listens at this address; if so, its log may say more.",
            )
        return invalid_answer(self._peer, f"POST {self._target}")


def _decoded(headers: Iterable[tuple[bytes, bytes]]) -> tuple[tuple[str, str], ...]:
    return tuple((name.decode("ascii"), value.decode("latin-1")) for name, value in headers)


def _value(headers: Iterable[tuple[str, str]], name: str) -> str:
    return next((value for key, value in headers if key == name), "")
