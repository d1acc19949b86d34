"""The SSH service, called as a daemon calls it, with agents that listen on sockets, key files and streams."""

from __future__ import annotations

import base64
import contextlib
import socket
import socketserver
import threading
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from mobysession import limits
from mobysession._pb.ssh_pb2 import CheckAgentRequest, CheckAgentResponse
from mobysession.errors import RemoteProtocolError, RpcError, SshError, StatusCode, UsageError
from mobysession.services.agent_frames import (
    AgentFrames,
    Identity,
    encode_frame,
    encode_identities,
    encode_string,
    parse_identities,
    read_string,
)
from mobysession.services.bytes_message import decode_bytes_message, encode_bytes_message
from mobysession.services.ssh import Ssh, parse_ssh_spec, ssh_agents
from mobysession.services.ssh_agents import SshAgent, SshKeys, SshStream

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    from mobysession.rpc.client import Channel, ClientCall

    OpenService = Callable[..., AbstractAsyncContextManager[Channel]]

CHECK = "/moby.sshforward.v1.SSH/CheckAgent"
FORWARD = "/moby.sshforward.v1.SSH/ForwardAgent"
KEY = Identity(encode_string(b"ssh-ed25519") + encode_string(bytes(32)), "me@here")


async def ask(call: ClientCall, kind: int, body: bytes = b"") -> bytes:
    """Send one request through a forwarded connection and return the answer without its length."""
    await call.send(encode_bytes_message(encode_frame(kind, body)))
    return await answer(call)


async def answer(call: ClientCall) -> bytes:
    """Return the next answer of a forwarded connection."""
    frames = AgentFrames()
    while (message := await call.receive()) is not None:
        for found in frames.receive_data(decode_bytes_message(message)):
            return found
    raise AssertionError("the connection ended without an answer")


class FakeAgent:
    """An agent on a socket that lists one key, signs with a fixed text and notes what it was asked."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.asked: list[int] = []
        self.half_closed = threading.Event()

    def serve(self, connection: socket.socket) -> None:
        """Answer one connection until it ends."""
        frames = AgentFrames()
        with contextlib.suppress(OSError):
            while data := connection.recv(4096):
                for request in frames.receive_data(data):
                    self.asked.append(request[0])
                    connection.sendall(self.reply(request))
            self.half_closed.set()
            connection.sendall(encode_frame(99, b"late"))

    def reply(self, request: bytes) -> bytes:
        """Return the whole answer to one request."""
        if request[0] == 11:
            return encode_frame(12, encode_identities([KEY]))
        if request[0] == 13:
            return encode_frame(14, encode_string(b"signed"))
        return encode_frame(6)


@contextlib.contextmanager
def listen(path: Path, serve: Callable[[socket.socket], None]) -> Iterator[None]:
    """Call ``serve`` in a thread with each connection to a socket."""

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            serve(self.request)

    with socketserver.ThreadingUnixStreamServer(str(path), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[FakeAgent]:
    """Give an agent that listens on a socket."""
    fake = FakeAgent(tmp_path / "agent.sock")
    with listen(fake.path, fake.serve):
        yield fake


@pytest.fixture
def silent(tmp_path: Path) -> Path:
    """Give the path of a socket on which nobody listens any more."""
    path = tmp_path / "dead.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    return path


async def check(channel: Channel, agent_id: str) -> None:
    """Ask whether there is an agent of an ID."""
    await channel.unary(CHECK, CheckAgentRequest(ID=agent_id), CheckAgentResponse)


async def test_only_the_ids_given_are_there(open_service: OpenService) -> None:
    """An ID that was given is confirmed, no ID means default, and any other is refused in the engine's words."""
    async with open_service(Ssh({"default": SshAgent("/none"), "work": SshAgent("/none")})) as channel:
        await check(channel, "work")
        await check(channel, "default")
        await check(channel, "")
        with pytest.raises(RpcError, match="unset ssh forward key other") as refused:
            await check(channel, "other")
        assert refused.value.code is StatusCode.UNKNOWN


async def test_a_forwarded_agent_lists_and_signs_and_nothing_else(agent: FakeAgent, open_service: OpenService) -> None:
    """Listing and signing reach the user's agent; adding, removing, locking and extensions are answered before it."""
    async with (
        open_service(Ssh({"default": SshAgent(agent.path)})) as channel,
        channel.open_call(FORWARD, metadata=[("buildkit.ssh.id", "default")]) as call,
    ):
        assert parse_identities(await ask(call, 11)) == [KEY]
        assert await ask(call, 13, encode_string(KEY.blob)) == b"\x0e" + encode_string(b"signed")
        answers = {kind: (await ask(call, kind))[0] for kind in (17, 18, 19, 20, 21, 22, 23, 25, 26, 200)}
        assert set(answers.values()) == {5}
        assert await ask(call, 27, encode_string(b"session-bind@openssh.com")) == b"\x1c"
        assert await ask(call, 1) == b"\x02" + bytes(4)
        assert await ask(call, 9) == b"\x06"
    assert agent.asked == [11, 13]


async def test_requests_are_filtered_however_they_are_cut(agent: FakeAgent, open_service: OpenService) -> None:
    """A forbidden request is refused also where it comes behind an allowed one in one message, or in single bytes."""
    both = encode_frame(11) + encode_frame(19)
    async with (
        open_service(Ssh({"default": SshAgent(agent.path)})) as channel,
        channel.open_call(FORWARD) as call,
    ):
        await call.send(encode_bytes_message(both))
        for byte in both:
            await call.send(encode_bytes_message(bytes((byte,))))
        await call.end()
        frames = AgentFrames()
        answers = []
        while (message := await call.receive()) is not None:
            answers += frames.receive_data(decode_bytes_message(message))
    assert [found[0] for found in answers] == [12, 5, 12, 5]
    assert agent.asked == [11, 11]


async def test_a_raw_agent_gets_everything_and_may_answer_after_the_end(
    agent: FakeAgent, open_service: OpenService
) -> None:
    """Raw bytes are passed on as they are; the step's end is a half-close, after which the agent still answers."""
    async with (
        open_service(Ssh({"default": SshAgent(agent.path, raw=True)})) as channel,
        channel.open_call(FORWARD) as call,
    ):
        assert await ask(call, 19) == b"\x06"
        await call.end()
        assert await answer(call) == b"\x63late"
        assert await call.receive() is None
    assert agent.asked == [19]
    assert agent.half_closed.is_set()


async def test_an_oversized_request_ends_the_connection(agent: FakeAgent, open_service: OpenService) -> None:
    """A length over the limit, or of nothing, ends the call; the agent is not asked."""
    for size in (0, limits.MAX_AGENT_REQUEST + 1):
        async with (
            open_service(Ssh({"default": SshAgent(agent.path)})) as channel,
            channel.open_call(FORWARD) as call,
        ):
            await call.send(encode_bytes_message(size.to_bytes(4, "big") + b"\x0b"))
            with pytest.raises(RpcError, match="are allowed"):
                await call.receive()
    assert agent.asked == []


async def test_a_dead_agent_is_named(silent: Path, open_service: OpenService, ended: list[Any]) -> None:
    """A connection to an agent that is gone fails with its path, before the build and during it."""
    service = Ssh({"default": SshAgent(silent)})
    with pytest.raises(SshError, match=r"SSH agent 'default': no SSH agent at .*dead\.sock"):
        service.check()
    async with open_service(service) as channel, channel.open_call(FORWARD) as call:
        with pytest.raises(RpcError, match=r"no SSH agent at .*dead\.sock"):
            await call.receive()
    assert isinstance(ended[-1][2], SshError)


def test_the_agent_of_the_environment(agent: FakeAgent, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a path SSH_AUTH_SOCK names the agent, when it is used; unset is an error that says so."""
    service = Ssh({"default": SshAgent()})
    monkeypatch.setenv("SSH_AUTH_SOCK", str(agent.path))
    assert service.check() == {"default": [KEY]}
    monkeypatch.delenv("SSH_AUTH_SOCK")
    with pytest.raises(SshError, match="SSH_AUTH_SOCK is not set"):
        service.check()


def test_what_is_no_agent_is_found_before_the_build(tmp_path: Path) -> None:
    """A socket that answers something else is refused when the build is prepared."""
    path = tmp_path / "other.sock"

    def serve(connection: socket.socket) -> None:
        connection.recv(100)
        connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    with (
        listen(path, serve),
        pytest.raises(SshError, match="is not an SSH agent"),
    ):
        Ssh({"default": SshAgent(path)}).check()


async def test_cancelling_a_call_closes_the_agents_side(agent: FakeAgent, open_service: OpenService) -> None:
    """A step that goes away takes its connection to the agent with it."""
    async with open_service(Ssh({"default": SshAgent(agent.path)})) as channel:
        async with channel.open_call(FORWARD) as call:
            await ask(call, 11)
        assert await trio.to_thread.run_sync(agent.half_closed.wait, 5)


async def test_a_stream_of_the_users_is_passed_on_raw(open_service: OpenService) -> None:
    """Bytes go both ways to whatever a function connects to; its end is the end of the call."""
    far_ends = []

    async def connect() -> trio.abc.Stream:
        near, far = trio.testing.memory_stream_pair()
        far_ends.append(far)
        return near

    async with (
        open_service(Ssh({"db": SshStream(connect)})) as channel,
        channel.open_call(FORWARD, metadata=[("buildkit.ssh.id", "db")]) as call,
    ):
        await call.send(encode_bytes_message(b"hello"))
        while not far_ends:
            await trio.testing.wait_all_tasks_blocked()
        assert await far_ends[0].receive_some() == b"hello"
        await far_ends[0].send_all(b"x" * (limits.AGENT_CHUNK + 1))
        await far_ends[0].send_eof()
        sizes = []
        while (message := await call.receive()) is not None:
            sizes.append(len(decode_bytes_message(message)))
        assert sum(sizes) == limits.AGENT_CHUNK + 1
        assert max(sizes) <= limits.AGENT_CHUNK


async def test_a_function_that_cannot_connect_is_told_without_its_words(open_service: OpenService) -> None:
    """What the function raised may hold a secret: the daemon hears its type only."""

    async def connect() -> trio.abc.Stream:
        raise ValueError("password=hunter2")

    async with open_service(Ssh({"default": SshStream(connect)})) as channel, channel.open_call(FORWARD) as call:
        with pytest.raises(RpcError, match="failed with ValueError") as failed:
            await call.receive()
    assert "hunter2" not in str(failed.value)


async def test_connections_at_once_are_bounded(
    agent: FakeAgent, open_service: OpenService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A daemon that opens more connections than the limit is refused, and one that closes some may open others."""
    monkeypatch.setattr(limits, "MAX_AGENT_CONNECTIONS", 2)
    async with open_service(Ssh({"default": SshAgent(agent.path)})) as channel:
        async with channel.open_call(FORWARD) as one, channel.open_call(FORWARD) as two:
            await ask(one, 11)
            await ask(two, 11)
            async with channel.open_call(FORWARD) as three:
                with pytest.raises(RpcError) as refused:
                    await three.receive()
            assert refused.value.code is StatusCode.RESOURCE_EXHAUSTED
            for call in (one, two):
                await call.end()
                assert await call.receive() is None
        async with channel.open_call(FORWARD) as again:
            assert parse_identities(await ask(again, 11)) == [KEY]


async def test_the_first_id_of_the_metadata_counts(agent: FakeAgent, open_service: OpenService) -> None:
    """A repeated key means its first value, as for the reference."""
    metadata = [("buildkit.ssh.id", "default"), ("buildkit.ssh.id", "other")]
    async with (
        open_service(Ssh({"default": SshAgent(agent.path)})) as channel,
        channel.open_call(FORWARD, metadata=metadata) as call,
    ):
        assert parse_identities(await ask(call, 11)) == [KEY]


def test_an_agents_list_cannot_harm(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A key that is none, and a comment that speaks to the terminal, are told as what they are."""
    caplog.set_level("INFO", "mobysession.services")
    odd = [Identity(b"\xff", "x"), Identity(KEY.blob, "evil\x1b[2J\nline")]

    def serve(connection: socket.socket) -> None:
        connection.recv(100)
        connection.sendall(encode_frame(12, encode_identities(odd)))

    path = tmp_path / "odd.sock"
    with listen(path, serve):
        assert Ssh({"default": SshAgent(path)}).check() == {"default": odd}
    assert [record.getMessage().split(" ", 4)[4] for record in caplog.records] == [
        f"unknown {odd[0].fingerprint} x",
        f"ssh-ed25519 {odd[1].fingerprint} evil\\x1b[2J\\nline",
    ]


def test_an_agent_that_drips_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The time to list the keys is that of the whole answer, not of each byte."""
    monkeypatch.setattr(limits, "AGENT_LIST_TIMEOUT", 0.05)
    over = threading.Event()

    def serve(connection: socket.socket) -> None:
        connection.recv(100)
        connection.sendall(bytes.fromhex("00ffffff"))
        with contextlib.suppress(OSError):
            while not over.wait(0.005):
                connection.sendall(b"\0")

    path = tmp_path / "drip.sock"
    with listen(path, serve):
        try:
            with pytest.raises(SshError, match="it does not answer"):
                SshAgent(path).check()
        finally:
            over.set()


# -- key files ---------------------------------------------------------------------------------------------------------

PRIVATE_KEYS = {
    "ed25519": ed25519.Ed25519PrivateKey.generate(),
    "ecdsa-256": ec.generate_private_key(ec.SECP256R1()),
    "ecdsa-384": ec.generate_private_key(ec.SECP384R1()),
    "ecdsa-521": ec.generate_private_key(ec.SECP521R1()),
    "rsa": rsa.generate_private_key(65537, 2048),
}


def write_key(path: Path, key: Any, passphrase: bytes | None = None, *, pem: bool = False) -> Path:
    """Write a private key as ssh-keygen, or openssl, does."""
    form = serialization.PrivateFormat.PKCS8 if pem else serialization.PrivateFormat.OpenSSH
    lock: Any = serialization.BestAvailableEncryption(passphrase) if passphrase else serialization.NoEncryption()
    path.write_bytes(key.private_bytes(serialization.Encoding.PEM, form, lock))
    return path


def blob_of(key: Any) -> bytes:
    """Return the public key as SSH encodes it."""
    line = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    return base64.b64decode(line.split()[1])


def verify(name: str, key: Any, signature: bytes, data: bytes) -> None:
    """Check a signature as an SSH server does; InvalidSignature if it is wrong."""
    algorithm, offset = read_string(signature, 0)
    raw, end = read_string(signature, offset)
    assert end == len(signature)
    public = key.public_key()
    if name == "ed25519":
        assert algorithm == b"ssh-ed25519"
        public.verify(raw, data)
    elif name == "rsa":
        digest = {b"rsa-sha2-256": hashes.SHA256(), b"rsa-sha2-512": hashes.SHA512()}[algorithm]
        public.verify(raw, data, padding.PKCS1v15(), digest)
    else:
        r, offset = read_string(raw, 0)
        s, _ = read_string(raw, offset)
        digest = {"256": hashes.SHA256(), "384": hashes.SHA384(), "521": hashes.SHA512()}[name[-3:]]
        public.verify(encode_dss_signature(int.from_bytes(r, "big"), int.from_bytes(s, "big")), data, ec.ECDSA(digest))


@pytest.mark.parametrize("pem", [False, True], ids=["openssh", "pem"])
@pytest.mark.parametrize("name", PRIVATE_KEYS)
async def test_keys_in_files_are_listed_and_sign(
    tmp_path: Path, open_service: OpenService, name: str, pem: bool
) -> None:
    """Each type of key, in each format, is listed and gives signatures that its public key verifies."""
    key = PRIVATE_KEYS[name]
    path = write_key(tmp_path / "id", key, pem=pem)
    service = Ssh({"default": SshKeys(path)})
    assert [found.blob for found in service.check()["default"]] == [blob_of(key)]
    async with open_service(service) as channel, channel.open_call(FORWARD) as call:
        (listed,) = parse_identities(await ask(call, 11))
        assert listed == Identity(blob_of(key), str(path))
        for flags in (2, 4):
            request = encode_string(listed.blob) + encode_string(b"data") + flags.to_bytes(4, "big")
            answered = await ask(call, 13, request)
            assert answered[0] == 14
            signature, _ = read_string(answered, 1)
            verify(name, key, signature, b"data")
            with pytest.raises(InvalidSignature):
                verify(name, key, signature, b"other data")
        unknown = encode_string(KEY.blob) + encode_string(b"data") + bytes(4)
        assert await ask(call, 13, unknown) == b"\x05"
        assert await ask(call, 13, b"\x00\x00\x00\xff") == b"\x05"
        assert await ask(call, 27, encode_string(b"x")) == b"\x05"


async def test_rsa_does_not_sign_with_sha1(tmp_path: Path, open_service: OpenService) -> None:
    """A request without the flags for SHA-2 fails."""
    key = PRIVATE_KEYS["rsa"]
    service = Ssh({"default": SshKeys(write_key(tmp_path / "id", key))})
    async with open_service(service) as channel, channel.open_call(FORWARD) as call:
        assert await ask(call, 13, encode_string(blob_of(key)) + encode_string(b"data") + bytes(4)) == b"\x05"


@pytest.mark.parametrize("pem", [False, True], ids=["openssh", "pem"])
def test_an_encrypted_key_takes_its_passphrase(tmp_path: Path, pem: bool) -> None:
    """The passphrase, or what a function says for the path, opens the key; none and a wrong one are told apart."""
    key = PRIVATE_KEYS["ed25519"]
    path = write_key(tmp_path / "id", key, b"geheim", pem=pem)
    asked = []

    def passphrase(path: str) -> str:
        asked.append(path)
        return "geheim"

    for given in ("geheim", b"geheim", passphrase):
        assert [found.blob for found in SshKeys(path, passphrase=given).check()] == [blob_of(key)]
    assert asked == [str(path)]
    with pytest.raises(SshError, match=r"id is encrypted, and there is no passphrase"):
        SshKeys(path).check()
    with pytest.raises(SshError, match=r"id is encrypted, and there is no passphrase"):
        SshKeys(path, passphrase=lambda _path: None).check()
    with pytest.raises(SshError, match="the passphrase is wrong") as wrong:
        SshKeys(path, passphrase="falsch").check()
    assert "falsch" not in str(wrong.value)


def test_a_passphrase_is_asked_for_once(tmp_path: Path) -> None:
    """Of two connections that need the key at once one asks for the passphrase, and the other waits for it."""
    path = write_key(tmp_path / "id", PRIVATE_KEYS["ed25519"], b"geheim")
    asked: list[str] = []
    second = threading.Event()

    def passphrase(path: str) -> str:
        asked.append(path)
        second.wait(0.05)
        return "geheim"

    keys = SshKeys(path, passphrase=passphrase)
    threads = [threading.Thread(target=keys.check) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(asked) == 1


def test_a_function_for_the_passphrase_that_fails_is_told_without_its_words(tmp_path: Path) -> None:
    """What it raised may hold the passphrase: its type is told, and the key; so is an object that is no text."""
    path = write_key(tmp_path / "id", PRIVATE_KEYS["ed25519"], b"geheim")

    def broken(_path: str) -> str:
        raise LookupError("geheim")

    with pytest.raises(SshError, match=r"id failed with LookupError") as failed:
        SshKeys(path, passphrase=broken).check()
    assert "geheim" not in str(failed.value)
    wrong: Any = lambda _path: 7  # noqa: E731 - typed Any: it is wrong on purpose
    with pytest.raises(SshError, match="an object of type int"):
        SshKeys(path, passphrase=wrong).check()


def test_what_is_no_key_is_named(tmp_path: Path) -> None:
    """Files that are missing, too large, no key, or of a type that SSH does not know fail with their path."""
    rubbish, large = tmp_path / "rubbish", tmp_path / "large"
    rubbish.write_bytes(b"-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n-----END OPENSSH PRIVATE KEY-----\n")
    large.write_bytes(bytes(limits.MAX_KEY_FILE + 1))
    curve = write_key(tmp_path / "curve", ec.generate_private_key(ec.SECP256K1()), pem=True)
    for path, words in ((tmp_path / "gone", "No such file"), (rubbish, "no private key"), (large, "bytes")):
        with pytest.raises(SshError, match=rf"{path.name}.*{words}"):
            SshKeys(path).check()
    with pytest.raises(SshError, match="type that is not supported"):
        SshKeys(curve).check()


# -- specs and messages ------------------------------------------------------------------------------------------------


def test_a_spec_is_read_as_buildx_reads_it(agent: FakeAgent, tmp_path: Path) -> None:
    """An ID alone, a socket, keys, and raw; what makes no sense is refused."""
    key = write_key(tmp_path / "id", PRIVATE_KEYS["ed25519"])
    assert repr(parse_ssh_spec("default")) == "('default', SshAgent(SSH_AUTH_SOCK))"
    assert repr(parse_ssh_spec(f"a={agent.path}")) == f"('a', SshAgent({agent.path}))"
    assert repr(parse_ssh_spec(f"a={agent.path},raw=true")) == f"('a', SshAgent({agent.path}, raw=True))"
    assert repr(parse_ssh_spec(f"a={key},{key},raw=0")) == f"('a', SshKeys({key}, {key}))"
    for spec, words in (
        ("", "no ID"),
        (f"a={agent.path},{key}", "and something else"),
        (f"a={agent.path},{agent.path}", "and something else"),
        (f"a={key},raw=1", "is no socket"),
        ("a=raw=maybe", "raw"),
    ):
        with pytest.raises((UsageError, SshError), match=words):
            parse_ssh_spec(spec)
    with pytest.raises(SshError, match="No such file"):
        parse_ssh_spec(f"a={tmp_path}/gone")


def test_an_id_is_given_once(agent: FakeAgent) -> None:
    """Two specs of one ID are refused; a mapping is taken as it is."""
    source = SshAgent(agent.path)
    assert ssh_agents({"a": source}) == {"a": source}
    assert list(ssh_agents(["default", f"b={agent.path}"])) == ["default", "b"]
    with pytest.raises(UsageError, match="a is given twice"):
        ssh_agents(["a", f"a={agent.path}"])


def test_a_service_takes_agents_only() -> None:
    """What cannot answer as an agent is refused when the service is made."""
    wrong: Any = {"default": "/run/agent.sock"}
    with pytest.raises(UsageError, match="cannot come from an object of type str"):
        Ssh(wrong)
    with pytest.raises(UsageError, match="not empty"):
        Ssh({"": SshAgent()})
    with pytest.raises(UsageError, match="path of a private key"):
        SshKeys()


def test_a_broken_list_of_keys_is_refused() -> None:
    """A list that ends within a field, or says more than it has, is a protocol error and nothing else."""
    whole = b"\x0c" + encode_identities([KEY])
    assert parse_identities(whole) == [KEY]
    for end in range(len(whole)):
        with pytest.raises(RemoteProtocolError):
            parse_identities(whole[:end])
    with pytest.raises(RemoteProtocolError):
        parse_identities(b"\x0c" + b"\xff\xff\xff\xff")


def test_a_key_is_described_as_ssh_add_does() -> None:
    """Type and fingerprint are those that OpenSSH prints."""
    blob = base64.b64decode("AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl")
    key = Identity(blob, "")
    assert key.kind == "ssh-ed25519"
    assert key.fingerprint == "SHA256:+DiY3wvvV6TuJJhbpZisF/zLDA0zPMSvHdkr4UvCOqU"
