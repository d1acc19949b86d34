"""TLS: what is offered, what is demanded, and what is said when the sides do not agree."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
import trio

from mobysession import errors
from mobysession.transport.api import EngineApi
from mobysession.transport.dial import dial
from mobysession.transport.hijack import hijack
from mobysession.transport.tls import TLSConfig
from tests.transport.conftest import Certificates, Daemon, Serve, alerting

if TYPE_CHECKING:
    from pathlib import Path

    from mobysession.transport.endpoint import Endpoint

ACCEPTED = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n"
PING = b"HTTP/1.1 200 OK\r\nApi-Version: 1.51\r\nContent-Length: 0\r\n\r\n"


async def test_a_hijack_with_client_certificate(serve_tcp: Serve, daemon: Daemon, certificates: Certificates) -> None:
    """Both sides prove who they are, and the upgraded stream carries bytes both ways."""

    async def echo(stream: trio.abc.Stream) -> None:
        await daemon.head(stream)
        await stream.send_all(ACCEPTED + b"first")
        await stream.send_all(bytes(await stream.receive_some()))

    server = certificates.server(demand=True)
    async with (
        serve_tcp(echo, tls=certificates.client(), server=server) as endpoint,
        await hijack(endpoint, "/session") as stream,
    ):
        assert await stream.receive_some() == b"first"
        await stream.send_all(b"ping")
        assert await stream.receive_some() == b"ping"
        assert not isinstance(stream, trio.abc.HalfCloseableStream)


@pytest.mark.parametrize(("alpn", "chosen"), [((), "http/1.1"), (("h2",), "h2")])
async def test_only_http_1_is_offered_unless_asked_otherwise(
    serve_tcp: Serve, daemon: Daemon, certificates: Certificates, alpn: tuple[str, ...], chosen: str
) -> None:
    """An engine that has both gets http/1.1, for nothing can be hijacked on h2."""
    server = certificates.server(alpn=("h2", "http/1.1"))
    async with (
        serve_tcp(daemon.answer(), tls=certificates.client(), server=server) as endpoint,
        await (dial(endpoint, alpn=alpn) if alpn else dial(endpoint)) as stream,
    ):
        assert isinstance(stream, trio.SSLStream)
        assert stream.selected_alpn_protocol() == chosen


async def refused(endpoint: Endpoint, words: str) -> errors.TLSError:
    """Hijack and ask; both must fail in the same words."""
    with pytest.raises(errors.TLSError) as of_request:
        await EngineApi(endpoint).ping()
    with pytest.raises(errors.TLSError) as caught:
        await hijack(endpoint, "/session")
    for failure in (of_request.value, caught.value):
        assert words in str(failure)
        assert endpoint.url in str(failure)
    return caught.value


async def test_an_unknown_ca_is_told(
    serve_tcp: Serve, daemon: Daemon, certificates: Certificates, other_certificates: Certificates
) -> None:
    """A daemon of another CA is not trusted, and the hint says which file to give."""
    async with serve_tcp(daemon.answer(), tls=other_certificates.client(), server=certificates.server()) as endpoint:
        assert "ca.pem" in str((await refused(endpoint, "is not trusted")).hint)


async def test_a_wrong_name_is_told(serve_tcp: Serve, daemon: Daemon, certificates: Certificates) -> None:
    """A certificate for another host is not trusted, and the hint says why."""
    server = certificates.server("other.example.com")
    async with serve_tcp(daemon.answer(), tls=certificates.client(), server=server) as endpoint:
        assert "in the certificate" in str((await refused(endpoint, "is not trusted")).hint)


async def test_another_name_can_be_expected(serve_tcp: Serve, daemon: Daemon, certificates: Certificates) -> None:
    """server_name says what the certificate must be for."""
    tls = TLSConfig(ca=certificates.client().ca, server_name="other.example.com")
    server = certificates.server("other.example.com")
    async with serve_tcp(daemon.answer(PING), tls=tls, server=server) as endpoint:
        assert (await EngineApi(endpoint).ping()).api == (1, 51)


async def test_verification_can_be_switched_off(serve_tcp: Serve, daemon: Daemon, certificates: Certificates) -> None:
    """Without verification any certificate will do."""
    server = certificates.server("other.example.com")
    async with serve_tcp(daemon.answer(PING), tls=TLSConfig(verify=False), server=server) as endpoint:
        assert (await EngineApi(endpoint).ping()).api == (1, 51)


async def test_a_missing_client_certificate_is_told(serve_tcp: Serve, certificates: Certificates) -> None:
    """The daemon tells it by an alert, in TLS 1.3 after the handshake; it is understood all the same."""
    tls = certificates.client(with_certificate=False)
    async with serve_tcp(alerting(certificates.server(demand=True)), tls=tls) as endpoint:
        assert "cert.pem" in str((await refused(endpoint, "demands a client certificate")).hint)


async def test_a_client_certificate_of_another_ca_is_told(
    serve_tcp: Serve, certificates: Certificates, other_certificates: Certificates
) -> None:
    """The daemon does not accept it, and says so by an alert."""
    foreign = other_certificates.client()
    tls = TLSConfig(ca=certificates.client().ca, cert=foreign.cert, key=foreign.key)
    async with serve_tcp(alerting(certificates.server(demand=True)), tls=tls) as endpoint:
        await refused(endpoint, "client certificate")


async def test_tls_to_a_plain_server_is_told(serve_tcp: Serve, certificates: Certificates) -> None:
    """A daemon without TLS answers TLS in plain text."""

    async def plain(stream: trio.abc.Stream) -> None:
        await stream.receive_some()
        await stream.send_all(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n400 Bad Request")

    async with serve_tcp(plain, tls=certificates.client()) as endpoint:
        assert "DOCKER_TLS_VERIFY" in str((await refused(endpoint, "answered in plain text")).hint)


async def test_a_server_that_hangs_up_on_tls_is_told(serve_tcp: Serve, certificates: Certificates) -> None:
    """A server that closes in the handshake may be one without TLS."""

    async def hang_up(stream: trio.abc.Stream) -> None:
        await stream.receive_some()

    async with serve_tcp(hang_up, tls=certificates.client()) as endpoint:
        await refused(endpoint, "closed the connection in the TLS handshake")


async def test_a_server_that_never_shakes_hands_is_given_up(
    serve_tcp: Serve, daemon: Daemon, certificates: Certificates
) -> None:
    """The time limit of dialling counts for TLS as well."""
    async with serve_tcp(daemon.answer(close=False), tls=certificates.client()) as endpoint:
        with pytest.raises(errors.ConnectError, match=r"within 0\.05 seconds"):
            await dial(endpoint, timeout=0.05)


@pytest.mark.parametrize(
    "answer",
    [
        b"\x15\x03\x01\x00\x02\x02\x46",
        b"HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n",
    ],
    ids=["alert", "engine"],
)
async def test_plain_text_to_a_tls_server_is_told(serve_tcp: Serve, daemon: Daemon, answer: bytes) -> None:
    """TLS servers answer plain text with an alert, Go's with a sentence; the hint says how to ask for TLS."""
    async with serve_tcp(daemon.answer(answer)) as endpoint:
        assert "DOCKER_TLS_VERIFY" in str((await refused(endpoint, "speaks TLS")).hint)


@pytest.mark.parametrize("broken", ["ca.pem", "cert.pem", "key.pem"])
@pytest.mark.parametrize("content", ["", "nonsense", None])
def test_an_unusable_file_is_told(tmp_path: Path, certificates: Certificates, broken: str, content: str | None) -> None:
    """An empty, a wrong and a vanished file are errors that name the file; nothing asks for a password."""
    directory = tmp_path / "certs"
    directory.mkdir()
    for path in certificates.directory.iterdir():
        (directory / path.name).write_bytes(path.read_bytes())
    config = TLSConfig.from_directory(directory)
    if content is None:
        (directory / broken).unlink()
    else:
        (directory / broken).write_text(content)
    with pytest.raises(errors.EndpointError) as caught:
        config.context()
    assert str(directory) in str(caught.value)
    assert "PEM" in str(caught.value.hint)


def on_a_terminal(argv: list[str]) -> str:
    """Run a program that has a terminal which never answers; return what it shows there."""
    leader, follower = os.openpty()
    with subprocess.Popen(
        argv,
        stdin=follower,
        stdout=follower,
        stderr=follower,
        start_new_session=True,
    ) as process:
        os.close(follower)
        try:
            process.wait(10)
        finally:
            process.kill()
    shown = os.read(leader, 4096).decode()
    os.close(leader)
    return shown


def test_an_encrypted_key_is_an_error_and_no_question(tmp_path: Path, certificates: Certificates) -> None:
    """OpenSSL would ask on the terminal; nobody might be there to answer."""
    key = tmp_path / "key.pem"
    subprocess.run(
        ["openssl", "pkey", "-in", certificates.directory / "key.pem", "-aes256", "-passout", "pass:x", "-out", key],
        check=True,
    )
    code = f"""
import fcntl, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
from pathlib import Path
from mobysession import errors
from mobysession.transport.tls import TLSConfig
try:
    TLSConfig(cert=Path({str(certificates.client().cert)!r}), key=Path({str(key)!r}), verify=False).context()
except errors.EndpointError as error:
    print(error.hint)
"""
    assert "must not be encrypted" in on_a_terminal([sys.executable, "-c", code])


def test_the_room_loads_no_ssl_of_its_own() -> None:
    """Who uses a unix socket does not pay for TLS beyond what trio loads anyway."""
    code = "import sys, mobysession.transport.tls; print('ssl' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
