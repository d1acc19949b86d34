"""HTTP proxies in front of a daemon's port: which one is taken, and the tunnel through it."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING

import pytest
import trio

from mobysession import errors
from mobysession.transport.address import TCPAddress, parse_address
from mobysession.transport.api import EngineApi
from mobysession.transport.dial import dial
from mobysession.transport.endpoint import Endpoint
from mobysession.transport.hijack import hijack
from mobysession.transport.proxy import Proxy, parse_proxy, proxy_of

if TYPE_CHECKING:
    from pathlib import Path

    from tests.transport.conftest import Certificates, Daemon, Handler, Serve

ACCEPTED = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n"
PONG = b"HTTP/1.1 200 OK\r\nApi-Version: 1.51\r\nContent-Length: 2\r\n\r\nOK"


@pytest.mark.parametrize(
    ("text", "proxy"),
    [
        ("http://box:3128", Proxy("http", "box", 3128)),
        ("box:3128", Proxy("http", "box", 3128)),
        ("box", Proxy("http", "box", 80)),
        ("https://box/", Proxy("https", "box", 443)),
        ("http://[::1]:1", Proxy("http", "::1", 1)),
        ("http://me:sword%40fish@box:1", Proxy("http", "box", 1, "me:sword@fish")),
        ("http://me@box:1", Proxy("http", "box", 1, "me:")),
    ],
)
def test_the_address_of_a_proxy(text: str, proxy: Proxy) -> None:
    """A scheme may be missing, a login may be there, and neither str() nor repr() shows it."""
    assert parse_proxy(text) == proxy
    assert "sword" not in f"{proxy} {proxy!r}"


@pytest.mark.parametrize(
    "text", ["http://", "http://me:swordfish@", "http://me:swordfish@box:x", "socks5://me:swordfish@b"]
)
def test_a_proxy_that_cannot_be_used_is_told(text: str) -> None:
    """The error has a hint and repeats no password."""
    with pytest.raises(errors.EndpointError) as caught:
        parse_proxy(text)
    assert caught.value.hint
    assert "swordfish" not in f"{caught.value} {caught.value.hint}"


def taken(url: str, environ: dict[str, str], *, tls: bool = False) -> str | None:
    address = parse_address(url)
    assert isinstance(address, TCPAddress)
    return proxy_of(address, tls=tls, environ=environ)


def test_which_variable_counts() -> None:
    """HTTPS_PROXY with TLS, else HTTP_PROXY; capitals first; none for this machine, and none in a CGI program."""
    both = {"HTTP_PROXY": "plain:1", "HTTPS_PROXY": "secure:1"}
    assert taken("tcp://box:1", both) == "plain:1"
    assert taken("tcp://box:1", both, tls=True) == "secure:1"
    assert taken("tcp://box:1", {"http_proxy": "small:1"}) == "small:1"
    assert taken("tcp://box:1", {"HTTP_PROXY": "", "http_proxy": "small:1"}) == "small:1"
    assert taken("tcp://box:1", {"http_proxy": "small:1", "HTTP_PROXY": "large:1"}) == "large:1"
    assert taken("tcp://box:1", {"HTTPS_PROXY": "secure:1"}) is None
    for here in ("localhost", "127.0.0.1", "127.9.9.9", "[::1]"):
        assert taken(f"tcp://{here}:1", both) is None
    assert taken("tcp://box:1", {"REQUEST_METHOD": "GET", **both}) is None
    assert taken("tcp://box:1", {"REQUEST_METHOD": "GET", **both}, tls=True) == "secure:1"


@pytest.mark.parametrize(
    ("excluded", "url", "direct"),
    [
        ("*", "tcp://box:1", True),
        ("other, box", "tcp://box:1", True),
        ("BOX", "tcp://box:1", True),
        ("box:1", "tcp://box:1", True),
        ("box:2", "tcp://box:1", False),
        ("example.com", "tcp://a.example.com:1", True),
        ("example.com", "tcp://badexample.com:1", False),
        (".example.com", "tcp://a.example.com:1", True),
        (".example.com", "tcp://example.com:1", False),
        ("*.example.com", "tcp://a.example.com:1", True),
        ("10.0.0.0/8", "tcp://10.1.2.3:1", True),
        ("10.0.0.0/8", "tcp://11.1.2.3:1", False),
        ("10.0.0.0/8", "tcp://box:1", False),
        ("10.1.2.3", "tcp://10.1.2.3:1", True),
        ("10.1.2.3:2", "tcp://10.1.2.3:1", False),
        ("fd00::/8", "tcp://[fd00::1]:1", True),
        ("fd00::1", "tcp://[fd00::1]:1", True),
        ("[fd00::1]:1", "tcp://[fd00::1]:1", True),
        ("[fd00::1]:2", "tcp://[fd00::1]:1", False),
        ("not/a/network,,:1", "tcp://box:1", False),
    ],
)
def test_what_no_proxy_lists_is_reached_directly(excluded: str, url: str, direct: bool) -> None:
    """Names with what is below them, suffixes, addresses and networks, as Go's clients read the list."""
    for name in ("NO_PROXY", "no_proxy"):
        found = taken(url, {"HTTP_PROXY": "proxy:1", name: excluded})
        assert (found is None) is direct


def test_the_environment_gives_the_proxy(tmp_path: Path) -> None:
    """What is found by the environment goes through its proxy; what is parsed does not, unless it is given one."""
    environ = {"DOCKER_HOST": "tcp://box:2375", "HTTP_PROXY": "http://me:swordfish@proxy:3128"}
    found = Endpoint.from_env(environ, config_dir=tmp_path)
    assert found.proxy == "http://me:swordfish@proxy:3128"
    assert "swordfish" not in f"{found} {found!r}"
    assert Endpoint.from_env({**environ, "DOCKER_HOST": "unix:///x"}, config_dir=tmp_path).proxy is None
    assert Endpoint.from_env({**environ, "NO_PROXY": "box"}, config_dir=tmp_path).proxy is None
    tls = {**environ, "DOCKER_TLS": "1", "HTTPS_PROXY": "secure:1"}
    assert Endpoint.from_env(tls, config_dir=tmp_path).proxy == "secure:1"
    assert Endpoint.parse("tcp://box:2375").proxy is None
    assert Endpoint.parse("tcp://box:2375", proxy="proxy:1").proxy == "proxy:1"
    assert Endpoint.parse("unix:///x", proxy="proxy:1").proxy is None


class Forwarder:
    """A proxy: what it was asked for, and where it leads instead of there."""

    def __init__(self, port: int = 0, *, together: bytes = b"") -> None:
        self.asked = b""
        self._port = port
        self._together = together

    async def __call__(self, stream: trio.abc.Stream) -> None:
        self.asked = b""
        while not self.asked.endswith(b"\r\n\r\n"):
            self.asked += bytes(await stream.receive_some(1))
        async with await trio.open_tcp_stream("127.0.0.1", self._port) as onward, trio.open_nursery() as nursery:
            await stream.send_all(b"HTTP/1.1 200 Connection established\r\nVia: x\r\n\r\n" + self._together)
            nursery.start_soon(self._pump, stream, onward)
            await self._pump(onward, stream)
            nursery.cancel_scope.cancel()

    async def _pump(self, source: trio.abc.ReceiveStream, sink: trio.abc.SendStream) -> None:
        async for data in source:
            await sink.send_all(data)


def through(proxy: Endpoint, url: str, login: str = "", **options: object) -> Endpoint:
    address = proxy.address
    assert isinstance(address, TCPAddress)
    return Endpoint.parse(url, proxy=f"http://{login}{address.host}:{address.port}", **options)  # type: ignore[arg-type]  # of one test or the other


def port_of(endpoint: Endpoint) -> int:
    assert isinstance(endpoint.address, TCPAddress)
    return endpoint.address.port


@pytest.mark.parametrize("login", ["", "me:sword%40fish@"])
async def test_requests_and_upgrades_go_through_a_tunnel(serve_tcp: Serve, daemon: Daemon, login: str) -> None:
    """The proxy is asked for a tunnel to the daemon's own name, with a login where there is one."""
    async with serve_tcp(daemon.answer(ACCEPTED + b"first", close=False)) as plain:
        forwarder = Forwarder(port_of(plain))
        async with serve_tcp(forwarder) as proxy:
            endpoint = through(proxy, "tcp://builder.invalid:4243/prefix", login)
            async with await hijack(endpoint, "/session") as stream:
                assert await stream.receive_some() == b"first"
                assert isinstance(stream, trio.abc.HalfCloseableStream)
                assert stream.plain_socket is not None
    lines = forwarder.asked.decode().split("\r\n")
    assert lines[:2] == ["CONNECT builder.invalid:4243 HTTP/1.1", "Host: builder.invalid:4243"]
    credentials = base64.b64encode(b"me:sword@fish").decode()
    assert lines[2:] == ([f"Proxy-Authorization: Basic {credentials}"] if login else []) + ["", ""]
    assert daemon.heard.startswith(b"POST /prefix/session HTTP/1.1\r\nHost: builder.invalid:4243\r\n")
    assert b"Proxy-Authorization" not in daemon.heard


async def test_a_daemon_that_speaks_first_is_not_cut_off(serve_tcp: Serve, daemon: Daemon) -> None:
    """A buildkitd's SETTINGS may come in one read with the proxy's answer: they are the first bytes of the stream."""
    first = b"\0\0\0\4\0\0\0\0\0"
    async with (
        serve_tcp(daemon.answer()) as plain,
        serve_tcp(Forwarder(port_of(plain), together=first)) as proxy,
        await dial(through(proxy, "tcp://box.invalid:1")) as stream,
    ):
        assert await stream.receive_some() == first


async def test_tls_inside_of_the_tunnel(serve_tcp: Serve, daemon: Daemon, certificates: Certificates) -> None:
    """The daemon's certificate is checked against the daemon's name, not the proxy's."""
    server = certificates.server("builder.invalid", demand=True)
    async with (
        serve_tcp(daemon.answer(PONG), server=server) as plain,
        serve_tcp(Forwarder(port_of(plain))) as proxy,
    ):
        good = through(proxy, "tcp://builder.invalid:1", tls=certificates.client())
        assert (await EngineApi(good).ping()).api == (1, 51)
        with pytest.raises(errors.TLSError, match="not trusted"):
            await EngineApi(through(proxy, "tcp://other.invalid:1", tls=certificates.client())).ping()


@pytest.mark.parametrize(
    ("answer", "status", "words", "hint"),
    [
        (b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n", 407, "Authentication Required", "USER:PASSWORD"),
        (b"HTTP/1.1 403 Forbidden by rule\r\n\r\n", 403, "Forbidden by rule", "NO_PROXY"),
        (b"HTTP/1.0 405\r\n\r\n", 405, "no reason given", "CONNECT"),
        (b"HTTP/1.1 503 Busy\r\n\r\n", 503, "Busy", "NO_PROXY"),
        (b"220 mail.example.com\r\n\r\n", 0, "it answered '220 mail.example.com'", "NO_PROXY"),
        (b"", 0, "it closed the connection", "NO_PROXY"),
        (b"HTTP/1.1 200 cut", 0, "it answered", "NO_PROXY"),
    ],
)
async def test_a_refusal_is_typed(
    serve_tcp: Serve, daemon: Daemon, answer: bytes, status: int, words: str, hint: str
) -> None:
    """Status and words are the proxy's, the endpoint and the proxy are named, the login is not."""
    async with serve_tcp(daemon.answer(answer)) as proxy:
        with pytest.raises(errors.ProxyRefused) as caught:
            await dial(through(proxy, "tcp://box.invalid:1", "me:swordfish@"))
    assert caught.value.status == status
    assert words in str(caught.value)
    assert "tcp://box.invalid:1 (--host)" in str(caught.value)
    assert hint in (caught.value.hint or "")
    assert "swordfish" not in f"{caught.value} {caught.value.hint}"


async def test_a_proxy_that_is_not_there_is_told() -> None:
    """The error says that it is the proxy which cannot be reached."""
    with pytest.raises(errors.ConnectError, match=r"the proxy http://127\.0\.0\.1:1 cannot be reached") as caught:
        await dial(Endpoint.parse("tcp://box.invalid:1", proxy="127.0.0.1:1"))
    assert "NO_PROXY" in (caught.value.hint or "")


async def test_a_proxy_with_a_name_that_no_host_can_have_is_told() -> None:
    """A label that is empty makes it a proxy that cannot be reached."""
    with pytest.raises(errors.ConnectError, match=r"the proxy http://a\.\.b:1 cannot be reached"):
        await dial(Endpoint.parse("tcp://box.invalid:1", proxy="a..b:1"))


async def test_tls_to_a_name_that_no_host_can_have_is_told(
    serve_tcp: Serve, daemon: Daemon, certificates: Certificates
) -> None:
    """A proxy may lead to such a daemon; no certificate can."""
    async with serve_tcp(daemon.answer(PONG)) as plain, serve_tcp(Forwarder(port_of(plain))) as proxy:
        with pytest.raises(errors.ConnectError, match="no certificate"):
            await dial(through(proxy, "tcp://.b:1", tls=certificates.client()))


async def test_an_endless_answer_of_a_proxy_is_left(serve_tcp: Serve) -> None:
    """More than a head can have is not read."""

    async def babble(stream: trio.abc.Stream) -> None:
        while True:
            await stream.send_all(b"x" * 4096)

    handler: Handler = babble
    async with serve_tcp(handler) as proxy:
        with pytest.raises(errors.ProxyRefused):
            await dial(through(proxy, "tcp://box.invalid:1"))


async def test_a_silent_proxy_is_given_up(serve_tcp: Serve, daemon: Daemon) -> None:
    """The time limit of dialling counts for the proxy's answer too."""

    async def wait(stream: trio.abc.Stream) -> None:
        await trio.sleep_forever()

    async with serve_tcp(wait) as proxy:
        with pytest.raises(errors.ConnectError, match=r"within 0\.05 seconds"):
            await dial(through(proxy, "tcp://box.invalid:1"), timeout=0.05)
