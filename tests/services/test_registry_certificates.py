"""A registry's own certificates: which are looked at, and that tokens are fetched over TLS which they vouch for."""

from __future__ import annotations

import contextlib
import http.server
import json
import ssl
import threading
from typing import TYPE_CHECKING

import pytest
import trustme

from mobysession.errors import CredentialError, RpcError
from mobysession.services.credentials import Credentials
from mobysession.services.registry_certificates import certificate_folders, tls_context
from mobysession.services.registry_tokens import Token, TokenFetcher, TokenRequest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class Registry(http.server.BaseHTTPRequestHandler):
    """A registry and its realm at one address: a challenge, and tokens for whoever asks."""

    def do_GET(self) -> None:
        host = self.headers["host"]
        if self.path == "/v2/":
            self.send_response(401)
            self.send_header("WWW-Authenticate", f'Bearer realm="https://{host}/token",service="registry"')
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        content = json.dumps({"access_token": "given"}).encode()
        self.rfile.read(int(self.headers.get("content-length") or 0))
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_POST = do_GET  # noqa: N815 - http.server's name

    def log_message(self, *_arguments: object) -> None:
        """Stay silent."""


@contextlib.contextmanager
def serve(context: ssl.SSLContext) -> Iterator[str]:
    """Serve the registry over TLS; give its host."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Registry) as server:
        server.handle_error = lambda *_: None  # type: ignore[method-assign]  # refused handshakes are expected
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    """Give an authority that nobody knows."""
    return trustme.CA()


@pytest.fixture
def context(authority: trustme.CA) -> ssl.SSLContext:
    """Give the server's side of TLS."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    return context


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give the rootless folder of certificates, which is there and empty."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    folder = tmp_path / "docker" / "certs.d"
    folder.mkdir(parents=True)
    return folder


async def fetch(host: str) -> Token:
    """Fetch a token with a login."""
    request = TokenRequest(host, f"https://{host}/token", "registry")
    return await TokenFetcher().fetch(request, Credentials("user", "pass"))


async def test_a_registry_s_own_authority_is_believed(
    authority: trustme.CA, context: ssl.SSLContext, folder: Path
) -> None:
    """With its ca.crt a login goes to its realm; without, or with that of another registry, it goes nowhere."""
    with serve(context) as host:
        with pytest.raises(RpcError, match="does not say where its tokens come from"):
            await fetch(host)
        (folder / "other.example").mkdir()
        authority.cert_pem.write_to_path(str(folder / "other.example" / "ca.crt"))
        with pytest.raises(RpcError, match="does not say where its tokens come from"):
            await fetch(host)
        (folder / host).mkdir()
        authority.cert_pem.write_to_path(str(folder / host / "ca.crt"))
        assert (await fetch(host)).value == "given"


async def test_a_registry_that_wants_a_certificate_gets_the_one_of_its_folder(
    authority: trustme.CA, context: ssl.SSLContext, folder: Path
) -> None:
    """client.cert with client.key, as the engine has them."""
    context.verify_mode = ssl.CERT_REQUIRED
    authority.configure_trust(context)
    with serve(context) as host:
        own = folder / host
        own.mkdir()
        authority.cert_pem.write_to_path(str(own / "ca.crt"))
        with pytest.raises(RpcError, match="does not say where its tokens come from"):
            await fetch(host)
        client = authority.issue_cert("client")
        client.cert_chain_pems[0].write_to_path(str(own / "client.cert"))
        client.private_key_pem.write_to_path(str(own / "client.key"))
        assert (await fetch(host)).value == "given"


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("ca.crt", "no certificate", "ca.crt cannot be used"),
        ("client.cert", "no certificate", "client.cert cannot be used"),
    ],
)
def test_a_file_that_is_none_is_named(tmp_path: Path, name: str, content: str, words: str) -> None:
    """The user has put it there and believes that it counts."""
    (tmp_path / "r.example").mkdir()
    (tmp_path / "r.example" / name).write_text(content)
    with pytest.raises(CredentialError, match=words):
        tls_context(["r.example"], [tmp_path])
    tls_context(["other.example"], [tmp_path])


@pytest.mark.parametrize("host", ["..", ".", "", "../outside", "/etc", "a/../outside", ".hidden"])
def test_a_host_never_leads_out_of_the_folder(tmp_path: Path, host: str) -> None:
    """The engine's word for a registry is not a path: what lies beside the folders is not read."""
    for place in (tmp_path, tmp_path / "outside", tmp_path / "certs.d", tmp_path / "certs.d" / ".hidden"):
        place.mkdir(exist_ok=True)
        (place / "ca.crt").write_text("no certificate")
    tls_context([host], [tmp_path / "certs.d"])


def test_the_folders_are_the_engines(monkeypatch: pytest.MonkeyPatch) -> None:
    """The system's, and the user's as a rootless engine has it."""
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    monkeypatch.setenv("HOME", "/home/me")
    assert [str(folder) for folder in certificate_folders()] == [
        "/etc/docker/certs.d",
        "/home/me/.config/docker/certs.d",
    ]
