"""Registry tokens: fetched on this side for the daemon, from a registry on the loopback that speaks real HTTP."""

from __future__ import annotations

import base64
import contextlib
import fcntl
import gzip
import http.server
import json
import stat
import threading
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from mobysession import limits
from mobysession._pb.auth_pb2 import (
    CredentialsRequest,
    CredentialsResponse,
    FetchTokenRequest,
    FetchTokenResponse,
    GetTokenAuthorityRequest,
    GetTokenAuthorityResponse,
    VerifyTokenAuthorityRequest,
    VerifyTokenAuthorityResponse,
)
from mobysession.errors import CredentialError, RpcError, StatusCode
from mobysession.services.auth import Auth
from mobysession.services.credentials import Credentials
from mobysession.services.registry_tokens import TokenFetcher, TokenRequest, _Answer, _realm
from mobysession.services.token_authority import TokenSeeds, public_key, sign

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    from mobysession.rpc.client import Channel

    OpenService = Callable[..., AbstractAsyncContextManager[Channel]]

SERVICE = "/moby.filesync.v1.Auth/"
SALT = bytes(range(32))
SEED = bytes(range(0xA0, 0xB0))
PAYLOAD = b"\xaa" * 32


class Registry:
    """A registry whose challenge names a realm, and the realm itself; both note what they were asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, dict[str, list[str]], str | None]] = []
        #: What /v2/ says; "" for no challenge. ``{host}`` is this registry.
        self.challenge = 'Bearer realm="http://{host}/token",service="registry"'
        #: Answers of the realm, by method: status, headers, body.
        self.answers: dict[str, tuple[int, dict[str, str], Any]] = {
            "POST": (200, {}, {"access_token": "posted", "expires_in": 300, "issued_at": "2026-01-02T03:04:05Z"}),
            "GET": (200, {}, {"token": "got"}),
        }
        self.host = ""

    @property
    def realm(self) -> str:
        """The address that gives tokens."""
        return f"http://{self.host}/token"

    def respond(self, handler: http.server.BaseHTTPRequestHandler) -> None:
        """Answer one request."""
        length = int(handler.headers.get("content-length") or 0)
        address = urlsplit(handler.path)
        fields = parse_qs(handler.rfile.read(length).decode() if length else address.query, keep_blank_values=True)
        if address.path == "/v2/":
            self.send(handler, 401, {"WWW-Authenticate": self.challenge.format(host=self.host)}, {})
            return
        self.asked.append((handler.command, address.path, fields, handler.headers.get("authorization")))
        self.send(handler, *self.answers[handler.command])

    def send(
        self, handler: http.server.BaseHTTPRequestHandler, status: int, headers: dict[str, str], body: Any
    ) -> None:
        """Send a response."""
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        handler.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            if value:
                handler.send_header(name, value)
        handler.end_headers()
        with contextlib.suppress(ConnectionError):
            handler.wfile.write(content)


@contextlib.contextmanager
def serve(registry: Registry) -> Iterator[None]:
    """Serve a registry on the loopback."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            registry.respond(self)

        do_POST = do_GET  # noqa: N815 - http.server's name

        def log_message(self, *_arguments: object) -> None:
            """Stay silent."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        registry.host = f"127.0.0.1:{server.server_port}"
        try:
            yield
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def registry() -> Iterator[Registry]:
    """Give a registry that is being served."""
    found = Registry()
    with serve(found):
        yield found


@pytest.fixture
def fetch(open_service: OpenService, registry: Registry, tmp_path: Path) -> Callable[..., Any]:
    """Fetch a token over the wire with an `Auth` that has one login for the registry."""

    async def fetch(
        login: tuple[str, str] | None = ("user", "pass"),
        *,
        realm: str = "",
        scopes: tuple[str, ...] = ("a", "b"),
        **more: Any,
    ) -> FetchTokenResponse:
        auth = Auth({registry.host: login} if login else {}, config_dir=tmp_path, **more)
        request = FetchTokenRequest(
            ClientID="x", Host=registry.host, Realm=realm or registry.realm, Service="registry", Scopes=scopes
        )
        async with open_service(auth) as channel:
            return await channel.unary(SERVICE + "FetchToken", request, FetchTokenResponse)

    return fetch


async def test_a_password_is_posted(fetch: Any, registry: Registry) -> None:
    """User and password go to the realm as a form; the token comes back with its life and its date."""
    token = await fetch()
    assert (token.Token, token.ExpiresIn, token.IssuedAt) == ("posted", 300, 1767323045)
    form = {
        "client_id": ["buildkit-client"],
        "grant_type": ["password"],
        "password": ["pass"],
        "scope": ["a b"],
        "service": ["registry"],
        "username": ["user"],
    }
    assert registry.asked == [("POST", "/token", form, None)]


async def test_an_identity_token_is_refreshed(fetch: Any, registry: Registry) -> None:
    """A secret without a user is a refresh token; no scope is asked for where none is needed."""
    await fetch(("", "identity"), scopes=())
    form = registry.asked[0][2]
    assert form["grant_type"] == ["refresh_token"]
    assert form["refresh_token"] == ["identity"]
    assert "scope" not in form
    assert "username" not in form


@pytest.mark.parametrize("status", [401, 404, 405])
async def test_a_realm_without_post_is_asked_by_get(fetch: Any, registry: Registry, status: int) -> None:
    """Where POST is not known the same is asked with Basic auth, one scope parameter for each scope."""
    registry.answers["POST"] = status, {}, {}
    token = await fetch()
    assert (token.Token, token.ExpiresIn, token.IssuedAt) == ("got", 60, 0)
    basic = "Basic " + base64.b64encode(b"user:pass").decode()
    assert registry.asked[1] == ("GET", "/token", {"service": ["registry"], "scope": ["a", "b"]}, basic)


async def test_without_a_login_it_is_asked_anonymously(fetch: Any, registry: Registry) -> None:
    """No login: one GET without authorization."""
    assert (await fetch(None)).Token == "got"
    assert registry.asked == [("GET", "/token", {"service": ["registry"], "scope": ["a", "b"]}, None)]


async def test_access_token_wins_over_token(fetch: Any, registry: Registry) -> None:
    """An answer with both names counts by access_token; nonsense in the other fields falls back."""
    answer = {"token": "t", "access_token": "a", "expires_in": "soon", "issued_at": "yesterday"}
    registry.answers["GET"] = 200, {}, answer
    token = await fetch(None)
    assert (token.Token, token.ExpiresIn, token.IssuedAt) == ("a", 60, 0)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ((403, {}, {"errors": [{"code": "DENIED", "message": "no such user"}]}), "403 Forbidden: DENIED: no such user"),
        ((500, {}, b"<html>"), "500 Internal Server Error"),
        ((200, {}, {"access_token": ""}), "answered without a token"),
        ((200, {}, b"[1]"), "answered without a token"),
        ((200, {}, b" " * (limits.TOKEN_ANSWER + 1)), "which is no token"),
    ],
    ids=["denied", "broken", "empty", "no-object", "endless"],
)
async def test_a_refusal_is_told(fetch: Any, registry: Registry, answer: Any, words: str) -> None:
    """The daemon hears what the realm said; never the login."""
    registry.answers["POST"] = answer
    with pytest.raises(RpcError, match=words) as failed:
        await fetch()
    assert failed.value.code is StatusCode.UNKNOWN
    assert "pass" not in failed.value.message


async def test_a_login_goes_only_to_the_realm_that_the_registry_names(fetch: Any, registry: Registry) -> None:
    """A realm of the daemon's own gets nothing, whatever it looks like, unless the user allowed it."""
    elsewhere = Registry()
    with serve(elsewhere):
        for realm in (elsewhere.realm, registry.realm + "2", f"http://user@{registry.host}/token", "file:///etc", "x"):
            with pytest.raises(RpcError, match=r"not sent to|no address") as refused:
                await fetch(realm=realm)
            assert refused.value.code in (StatusCode.PERMISSION_DENIED, StatusCode.INVALID_ARGUMENT)
        assert elsewhere.asked == registry.asked == []
        with pytest.raises(RpcError, match="not sent to"):
            await fetch(realm=elsewhere.realm, allowed_realms={"other.example": elsewhere.realm})
        assert elsewhere.asked == []
        assert (await fetch(realm=elsewhere.realm, allowed_realms={registry.host: elsewhere.realm})).Token == "posted"
        assert len(elsewhere.asked) == 1


@pytest.mark.parametrize(
    ("header", "realm"),
    [
        ('Bearer realm="https://good/",service="x"', "https://good/"),
        ('  bearer  service = "x" , Realm = https://good/', "https://good/"),
        ('Basic realm="x", Bearer realm="https://good/", service="x"', "https://good/"),
        ('Bearer realm="https://good/", Basic realm="https://evil/"', "https://good/"),
        ('Negotiate, Bearer realm="https://good/"', "https://good/"),
        ('Basic realm=", Bearer realm=\\"https://evil/\\"", Bearer realm="https://good/"', "https://good/"),
        ('Bearer service="realm=\\"https://evil/\\"",realm="https://good/"', "https://good/"),
        ('Bearer xrealm="https://evil/",realm="https://good/"', "https://good/"),
        ('Basic realm="https://evil/", charset="UTF-8"', None),
        ('Bearer service="x", Basic realm="https://evil/"', None),
        ('Basic realm=", Bearer realm=https://evil/"', None),
    ],
)
def test_the_realm_is_that_of_the_bearer_challenge(header: str, realm: str | None) -> None:
    """One header may hold several challenges, and quoted text that looks like one."""
    answer = _Answer("GET", httpx.URL("https://x/v2/"), 401, "", httpx.Headers([("www-authenticate", header)]), b"")
    found = _realm(answer, plain=False)
    assert (None if found is None else str(found)) == realm


@pytest.mark.parametrize("challenge", ["", "Basic realm=x", 'Bearer service="s"', 'Bearer realm="ftp://x/"'])
async def test_a_registry_that_names_no_realm_gives_none_a_login(
    fetch: Any, registry: Registry, challenge: str
) -> None:
    """Where the registry's own word is missing, no realm gets the login."""
    registry.challenge = challenge
    with pytest.raises(RpcError, match="does not say where its tokens come from"):
        await fetch()
    assert registry.asked == []


async def test_a_redirect_to_another_host_is_not_followed(fetch: Any, registry: Registry) -> None:
    """Within one host a redirect of a GET is followed, to another it is an error, and circles end."""
    elsewhere = Registry()
    registry.answers["POST"] = 404, {}, {}
    with serve(elsewhere):
        registry.answers["GET"] = 307, {"Location": elsewhere.realm}, {}
        with pytest.raises(RpcError, match=r"sends the request .* on to 127\.0\.0\.1"):
            await fetch()
        registry.answers["POST"] = 307, {"Location": elsewhere.realm}, {}
        with pytest.raises(RpcError, match="307"):
            await fetch()
        assert elsewhere.asked == []
    registry.answers["POST"] = 404, {}, {}
    registry.answers["GET"] = 302, {"Location": "/token"}, {}
    with pytest.raises(RpcError, match="round in circles"):
        await fetch()


async def test_a_realm_that_cannot_be_reached_is_named(fetch: Any, registry: Registry) -> None:
    """A connection that fails says which host did not answer for which registry."""
    gone = Registry()
    with serve(gone):
        pass
    with pytest.raises(RpcError, match=r"127\.0\.0\.1 did not give a token for"):
        await fetch(realm=gone.realm, allowed_realms={registry.host: [gone.realm]})


async def test_a_realm_that_drips_is_given_up(registry: Registry) -> None:
    """The time of a request is that of its whole answer, however often a byte of it comes."""
    over = threading.Event()

    class Dripping(Registry):
        def send(self, handler: Any, status: int, headers: dict[str, str], body: Any) -> None:
            if handler.path == "/v2/":
                super().send(handler, status, headers, body)
                return
            handler.send_response(200)
            handler.end_headers()
            with contextlib.suppress(OSError):
                while not over.wait(0.01):
                    handler.wfile.write(b" ")

    dripping = Dripping()
    with serve(dripping):
        try:
            with pytest.raises(CredentialError, match="it took too long"):
                await TokenFetcher(timeout=0.2).fetch(
                    TokenRequest(dripping.host, dripping.realm), Credentials("user", "pass")
                )
        finally:
            over.set()


async def test_the_loopback_is_asked_without_a_proxy(
    fetch: Any, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A login that is meant for this machine does not travel to a proxy, which would get it in the clear."""
    proxy = Registry()
    with serve(proxy):
        monkeypatch.setenv("HTTP_PROXY", f"http://{proxy.host}")
        monkeypatch.setenv("ALL_PROXY", f"http://{proxy.host}")
        assert (await fetch()).Token == "posted"
        assert proxy.asked == []


async def test_a_login_leaves_this_machine_only_by_tls(fetch: Any, registry: Registry) -> None:
    """A registry on the loopback cannot name a realm elsewhere without TLS."""
    registry.challenge = 'Bearer realm="http://registry.example/token"'
    with pytest.raises(RpcError, match="does not say where its tokens come from"):
        await fetch(realm="http://registry.example/token")


async def test_what_is_no_host_gets_no_request(open_service: OpenService, registry: Registry) -> None:
    """A host with a path, a user or a query cannot lead a request anywhere."""
    async with open_service(Auth({})) as channel:
        for host in (f"{registry.host}/x?", f"user@{registry.host}", f"{registry.host}#", ""):
            with pytest.raises(RpcError, match="is no registry"):
                await channel.unary(
                    SERVICE + "FetchToken", FetchTokenRequest(Host=host, Realm=registry.realm), FetchTokenResponse
                )
    assert registry.asked == []


async def test_a_registry_that_quotes_the_login_is_not_quoted(fetch: Any, registry: Registry) -> None:
    """The words of a refusal are passed on without the secret in them."""
    error = {"code": "UNAUTHORIZED", "message": "hunter22 is wrong"}
    registry.answers["POST"] = 400, {}, {"errors": [error]}
    with pytest.raises(RpcError, match=r"UNAUTHORIZED: \*\*\* is wrong"):
        await fetch(("user", "hunter22"))


@pytest.mark.parametrize(
    ("answer", "expires"),
    [({"token": "t", "expires_in": 10**30}, limits.TOKEN_LIFETIME), ({"token": "t", "expires_in": -1}, 60)],
)
async def test_a_life_of_any_length_fits(fetch: Any, registry: Registry, answer: Any, expires: int) -> None:
    """What a registry says of a token's life is brought into bounds."""
    registry.answers["GET"] = 200, {}, answer
    assert (await fetch(None)).ExpiresIn == expires


async def test_an_answer_is_not_unpacked(fetch: Any, registry: Registry) -> None:
    """A small answer cannot become a large one: compression is neither asked for nor taken."""
    packed = gzip.compress(json.dumps({"token": "t"}).encode())
    registry.answers["GET"] = 200, {"Content-Encoding": "gzip"}, packed
    with pytest.raises(RpcError, match="answered without a token"):
        await fetch(None)


# -- the authority -----------------------------------------------------------------------------------------------------


def test_keys_are_those_of_buildkit() -> None:
    """Public keys and signatures equal the reference's, with a login and without."""
    assert public_key(SALT, SEED).hex() == "c245b8bd198d3a211b4cbd8d2b9d09cb3424b6574320fbe4e4448be2142b7fc4"
    assert public_key(SALT, b"").hex() == "040621616cad1cec87d58de663a3da915dc2bf8afbd0bd361931d2c207644cc4"
    signed = sign(SALT, SEED, PAYLOAD)
    assert signed[:64].hex() == (
        "4b771104ce0d04e89660ad05ddc1495e54fd17b6d81df59f1ea0c8be273ca7fd"
        "5700beeb4e3ac1d50672680662d648bc86c8ae63fe2abf448e34bfbb9b577100"
    )
    assert signed[64:] == PAYLOAD


async def authority(channel: Channel, host: str) -> tuple[bytes, bytes]:
    """Ask for the public key and for a proof of it."""
    key = await channel.unary(
        SERVICE + "GetTokenAuthority", GetTokenAuthorityRequest(Host=host, Salt=SALT), GetTokenAuthorityResponse
    )
    proof = await channel.unary(
        SERVICE + "VerifyTokenAuthority",
        VerifyTokenAuthorityRequest(Host=host, Salt=SALT, Payload=PAYLOAD),
        VerifyTokenAuthorityResponse,
    )
    return key.PublicKey, proof.Signed


async def test_tokens_are_offered_for_a_host_with_a_login(
    open_service: OpenService, registry: Registry, tmp_path: Path
) -> None:
    """Key and proof come from the seed beside the configuration, which is the user's alone to read."""
    async with open_service(Auth({registry.host: ("user", "pass")}, config_dir=tmp_path)) as channel:
        key, signed = await authority(channel, registry.host)
    entry = json.loads((tmp_path / ".token_seed").read_text())
    seed = base64.b64decode(entry[registry.host]["Seed"])
    assert key == public_key(SALT, seed)
    assert signed == sign(SALT, seed, PAYLOAD)
    assert stat.S_IMODE((tmp_path / ".token_seed").stat().st_mode) == 0o600


async def test_tokens_are_not_offered_otherwise(
    open_service: OpenService, registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a login, without a realm, switched off by argument or variable: UNAVAILABLE, and no seed is made."""

    async def refused(**how: Any) -> None:
        async with open_service(
            Auth(**({"source": {registry.host: ("u", "p")}} | how), config_dir=tmp_path)
        ) as channel:
            with pytest.raises(RpcError) as unavailable:
                await authority(channel, registry.host)
            assert unavailable.value.code is StatusCode.UNAVAILABLE

    await refused(source={})
    await refused(tokens=False)
    monkeypatch.setenv("BUILDKIT_NO_CLIENT_TOKEN", "1")
    await refused()
    monkeypatch.delenv("BUILDKIT_NO_CLIENT_TOKEN")
    registry.challenge = 'Basic realm="x"'
    await refused()
    assert not (tmp_path / ".token_seed").exists()


def test_seeds_are_shared_and_survive(tmp_path: Path) -> None:
    """What the docker CLI wrote is used, what it wrote for others is kept, and what is broken is made anew."""
    path = tmp_path / ".token_seed"
    path.write_text(json.dumps({"a": {"Seed": base64.b64encode(SEED).decode()}, "b": {"Seed": "?"}, "c": 1}))
    assert TokenSeeds(tmp_path).seed("a") == SEED
    for host in "bcd":
        assert TokenSeeds(tmp_path).seed(host) == TokenSeeds(tmp_path).seed(host)
    assert TokenSeeds(tmp_path).seed("a") == SEED
    assert sorted(json.loads(path.read_text())) == ["a", "b", "c", "d"]
    path.write_text("{")
    assert len(TokenSeeds(tmp_path).seed("a")) == 16


def test_a_lock_that_is_never_let_go_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever holds the lock of the seeds for ever costs a moment, and then the seed is this process's own."""
    monkeypatch.setattr(limits, "SEED_LOCK_TIMEOUT", 0.02)
    with (tmp_path / ".token_seed.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert len(TokenSeeds(tmp_path).seed("a")) == 16
        assert not (tmp_path / ".token_seed").exists()
    assert TokenSeeds(tmp_path).seed("a") == TokenSeeds(tmp_path).seed("a")


async def test_a_login_that_was_offered_grows_old(
    open_service: OpenService, registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A daemon that asks for the key again and again does not keep a login alive beyond its time."""
    now = 1000.0
    monkeypatch.setattr("mobysession.services.auth.time.monotonic", lambda: now)
    asked = []

    def login(host: str) -> tuple[str, str]:
        asked.append(host)
        return "user", "pass"

    async with open_service(Auth(login, config_dir=tmp_path)) as channel:
        for _ in range(4):
            await authority(channel, registry.host)
            now += limits.CREDENTIAL_CACHE * 0.4
    assert len(asked) == 2


def test_a_home_that_cannot_be_written_is_no_hindrance(tmp_path: Path) -> None:
    """The seed then lives as long as the object, and no longer."""
    (tmp_path / "file").write_text("")
    seeds = TokenSeeds(tmp_path / "file" / "docker")
    assert seeds.seed("a") == seeds.seed("a")
    assert seeds.seed("a") != seeds.seed("b")


async def test_a_registry_token_is_given_as_it_is(
    open_service: OpenService, registry: Registry, docker_config: Path
) -> None:
    """One in config.json is the token: nobody is asked for another, it is offered as one, and is no login."""
    (docker_config / "config.json").write_text(json.dumps({"auths": {registry.host: {"registrytoken": "as-it-is"}}}))
    auth = Auth()
    async with open_service(auth) as channel:
        authority = GetTokenAuthorityRequest(Host=registry.host, Salt=SALT)
        answer = await channel.unary(SERVICE + "GetTokenAuthority", authority, GetTokenAuthorityResponse)
        request = FetchTokenRequest(Host=registry.host, Realm="https://anywhere.example/token")
        token = await channel.unary(SERVICE + "FetchToken", request, FetchTokenResponse)
        login = await channel.unary(
            SERVICE + "Credentials", CredentialsRequest(Host=registry.host), CredentialsResponse
        )
    assert len(answer.PublicKey) == 32
    assert answer.PublicKey != public_key(SALT, b"")
    assert (token.Token, token.ExpiresIn, token.IssuedAt) == ("as-it-is", 60, 0)
    assert (login.Username, login.Secret) == ("", "")
    assert registry.asked == []
    assert auth.redactor.redact("x as-it-is y") == "x *** y"


def test_the_seeds_are_their_users_alone(tmp_path: Path) -> None:
    """Whoever else reads them could sign in the user's place: the file and its lock are made for the user only."""
    folder = tmp_path / "docker"
    TokenSeeds(folder).seed("a")
    for path in folder.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
    assert {path.name for path in folder.iterdir()} == {".token_seed", ".token_seed.lock"}
