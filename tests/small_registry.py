"""A registry small enough to be looked into: blobs and manifests in memory, behind a password or a token if wanted."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit


class SmallRegistry:
    """A registry on the loopback, alive inside of ``with``.

    Args:
        login: user and password that are wanted; None: anybody may do anything.
        tokens: want a token, which its own realm sells for the login, in place of the login.
    """

    def __init__(self, login: tuple[str, str] | None = None, *, tokens: bool = False) -> None:
        self.content: dict[str, tuple[str, bytes]] = {}
        self.asked: list[str] = []
        self.refuse_writes = False
        self._login = login
        self._tokens = tokens
        registry = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                registry.answer(self)

            do_PUT = do_POST = do_GET  # noqa: N815 - the names that http.server looks for

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def add(self, repository: str, document: dict[str, Any], media_type: str, *, kind: str = "manifests") -> str:
        """Put in a document and return its digest."""
        body = json.dumps(document).encode()
        digest = "sha256:" + hashlib.sha256(body).hexdigest()
        self.content[f"/v2/{repository}/{kind}/{digest}"] = media_type, body
        return digest

    def add_image(self, repository: str, platform: str) -> str:
        """Put in an image for a platform and return its digest."""
        system, architecture, *variant = platform.split("/")
        config = {"os": system, "architecture": architecture, **({"variant": variant[0]} if variant else {})}
        config_digest = self.add(repository, config, "application/octet-stream", kind="blobs")
        kind = "application/vnd.oci.image.manifest.v1+json"
        return self.add(repository, {"schemaVersion": 2, "mediaType": kind, "config": {"digest": config_digest}}, kind)

    def document(self, repository: str, reference: str) -> dict[str, Any]:
        """Return a manifest as JSON."""
        document: dict[str, Any] = json.loads(self.content[f"/v2/{repository}/manifests/{reference}"][1])
        return document

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        """Answer one request."""
        self.asked.append(f"{request.command} {request.path}")
        body = request.rfile.read(int(request.headers.get("content-length", 0)))
        if request.path.startswith("/token"):
            self._sell(request, body)
        elif not self._is_allowed(request.headers.get("authorization", "")):
            bearer = f'Bearer realm="http://{self.address}/token",service="small"'
            challenge = bearer if self._tokens else 'Basic realm="small"'
            _reply(request, 401, b"who are you?", {"www-authenticate": challenge})
        elif request.command == "PUT" and self.refuse_writes:
            _reply(request, 403, b"this is a museum", {})
        elif request.command == "PUT":
            self.content[request.path] = request.headers["content-type"], body
            _reply(request, 201, b"", {})
        elif request.path in self.content:
            kind, found = self.content[request.path]
            _reply(request, 200, found, {"content-type": kind})
        else:
            _reply(request, 404, b"there is none", {})

    def _is_allowed(self, authorization: str) -> bool:
        if self._login is None:
            return True
        return authorization == ("Bearer bought" if self._tokens else _basic(self._login))

    def _sell(self, request: BaseHTTPRequestHandler, body: bytes) -> None:
        form = parse_qs(body.decode()) or parse_qs(urlsplit(request.path).query)
        right = self._login is not None and form.get("password") == [self._login[1]]
        token = json.dumps({"access_token": "bought"}).encode()
        _reply(request, 200 if right else 401, token if right else b"no", {"content-type": "application/json"})


def _basic(login: tuple[str, str]) -> str:
    return "Basic " + base64.b64encode(":".join(login).encode()).decode()


def _reply(request: BaseHTTPRequestHandler, status: int, body: bytes, headers: dict[str, str]) -> None:
    request.send_response(status)
    for key, value in {**headers, "content-length": str(len(body))}.items():
        request.send_header(key, value)
    request.end_headers()
    request.wfile.write(body)
