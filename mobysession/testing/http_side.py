"""The daemon's HTTP/1.1: what ``dockerd`` answers on its socket, to the byte where a client could care.

A connection serves one request after the other until one of them takes it over: ``POST /session`` and ``POST /grpc``
end in a 101 and belong to HTTP/2 from then on. As with the real one, whatever a client sent behind such a request
before it had read the 101 is lost.

Source: moby/moby daemon/server; moby/buildkit session/manager.go, HandleHTTPRequest; recordings of engines.
"""

from __future__ import annotations

import json
import re
from email.utils import formatdate
from http import HTTPStatus
from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qs, urlsplit

import h11
import trio

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

__all__ = ["compact_json", "HttpSide", "Refused", "Request"]

_VERSIONED: Final = re.compile(r"^/v([0-9]+)\.([0-9]+)(?=/)")
_READ: Final = 64 * 1024


class Refused(Exception):
    """An answer other than a good one: ``status`` and the daemon's words."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


class Request:
    """A request whose head has arrived: ``method``, ``path`` without its version, ``query``, ``headers`` in order."""

    def __init__(self, event: h11.Request) -> None:
        url = urlsplit(event.target.decode("ascii", "replace"))
        self.method = event.method.decode("ascii")
        self.query = parse_qs(url.query, keep_blank_values=True)
        self.headers = [(name.decode("ascii"), value.decode("latin-1")) for name, value in event.headers]
        version = _VERSIONED.match(url.path)
        self.version = (int(version[1]), int(version[2])) if version else None
        self.path = url.path[version.end() :] if version else url.path

    def header(self, name: str) -> str | None:
        """Return the first value of a header line; None where there is none."""
        return next((value for key, value in self.headers if key == name.lower()), None)

    def argument(self, name: str) -> str:
        """Return the first value of a query parameter; empty where there is none."""
        return self.query.get(name, [""])[0]


class HttpSide:
    """One connection while it is HTTP/1.1."""

    def __init__(self, stream: trio.abc.Stream, *, api_version: str, server: str) -> None:
        self.stream = stream
        self._h11 = h11.Connection(h11.SERVER)
        self._api_version = api_version
        self._server = server
        self._head_only = False

    async def requests(self) -> AsyncIterator[Request]:
        """Yield request after request, until the client closes or the connection was taken over."""
        while True:
            event = await self._next_event()
            if not isinstance(event, h11.Request):
                return
            self._head_only = event.method == b"HEAD"
            yield Request(event)
            if self._h11.our_state is not h11.DONE:
                return
            while self._h11.their_state is h11.SEND_BODY:
                await self._next_event()
            if self._h11.their_state is not h11.DONE:
                return
            self._h11.start_next_cycle()

    async def body(self) -> bytes:
        """Return the request's body."""
        whole = bytearray()
        while isinstance(event := await self._next_event(), h11.Data):
            whole += event.data
        return bytes(whole)

    async def switch(self, protocol: str = "h2c") -> None:
        """Send the 101; what was read behind the request is dropped."""
        head = f"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: {protocol}\r\n\r\n"
        await self.stream.send_all(head.encode("ascii"))

    async def answer(self, status: int, body: bytes, content_type: str) -> None:
        """Send a whole answer."""
        await self._send_whole([*self._identity(), ("Content-Type", content_type)], status, body)

    async def answer_json(self, document: object, *, status: int = 200) -> None:
        """Send a document as dockerd does, a newline behind it."""
        await self.answer(status, compact_json(document) + b"\n", "application/json")

    async def refuse(self, refused: Refused) -> None:
        """Send an error in dockerd's form."""
        body = compact_json({"message": refused.message}) + b"\n"
        fields = [("Content-Type", "application/json")]
        # What is no route at all never reaches the part that says who answers.
        await self._send_whole(fields if refused.status == 404 else [*fields, *self._identity()], refused.status, body)

    async def start_stream(self) -> None:
        """Begin an answer of chunks."""
        await self._send_head(
            200, [*self._identity(), ("Content-Type", "application/json")], ("Transfer-Encoding", "chunked")
        )

    async def send_chunk(self, data: bytes) -> None:
        """Send a piece of it."""
        await self.stream.send_all(self._h11.send(h11.Data(data=data)) or b"")

    async def end_stream(self) -> None:
        """End it."""
        await self.stream.send_all(self._h11.send(h11.EndOfMessage()) or b"")

    async def ping(self) -> None:
        """Answer ``/_ping``, by which clients learn the API version."""
        fields = [
            *self._identity(),
            ("Builder-Version", "2"),
            ("Cache-Control", "no-cache, no-store, must-revalidate"),
            ("Content-Type", "text/plain; charset=utf-8"),
            ("Pragma", "no-cache"),
            ("Swarm", "inactive"),
        ]
        await self._send_whole(fields, 200, b"OK")

    def _identity(self) -> list[tuple[str, str]]:
        return [
            ("Api-Version", self._api_version),
            ("Docker-Experimental", "false"),
            ("Ostype", "linux"),
            ("Server", self._server),
        ]

    async def _send_whole(self, fields: list[tuple[str, str]], status: int, body: bytes) -> None:
        if self._head_only:
            await self._send_head(status, [*fields, ("Content-Length", "0")])
            data: bytes | None = None
        else:
            await self._send_head(status, fields, ("Content-Length", str(len(body))))
            data = self._h11.send(h11.Data(data=body))
        await self.stream.send_all((data or b"") + (self._h11.send(h11.EndOfMessage()) or b""))

    async def _send_head(self, status: int, fields: list[tuple[str, str]], *framing: tuple[str, str]) -> None:
        """Send the head of an answer in the order of Go's server: by name, then the date and what frames the body."""
        ordered = [*sorted(fields), ("Date", formatdate(usegmt=True)), *framing]
        response = h11.Response(status_code=status, reason=_reason(status), headers=ordered)
        await self.stream.send_all(self._h11.send(response) or b"")

    async def _next_event(self) -> h11.Event | type[h11.PAUSED] | None:
        while True:
            try:
                event = self._h11.next_event()
            except h11.RemoteProtocolError:
                return None
            if event is h11.NEED_DATA:
                try:
                    self._h11.receive_data(bytes(await self.stream.receive_some(_READ)))
                except trio.BrokenResourceError:
                    return None
            else:
                return event  # type: ignore[return-value]  # the other sentinel is PAUSED


def compact_json(document: object) -> bytes:
    """Return a document as Go's encoder writes it, without spaces."""
    return json.dumps(document, separators=(",", ":")).encode()


def _reason(status: int) -> bytes:
    """Return the phrase that Go's server puts behind a status."""
    try:
        return HTTPStatus(status).phrase.encode("ascii")
    except ValueError:
        return b"status code " + str(status).encode("ascii")
