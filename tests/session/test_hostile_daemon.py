"""A daemon that asks for everything there could be: each request is refused and recorded, and the session goes on."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest

from mobysession._pb import auth_pb2, content_pb2, secrets_pb2, ssh_pb2
from mobysession.errors import RpcError, StatusCode
from mobysession.events import AccessDecided, CallEnded
from mobysession.services.auth import Auth
from mobysession.services.content import SERVICE as CONTENT
from mobysession.services.content import STORE_ID, Content
from mobysession.services.filesend import DirectoryTarget, FileSend
from mobysession.services.filesync import FileSync
from mobysession.services.oci_layout import OciLayout
from mobysession.services.secrets import Secrets
from mobysession.services.ssh import Ssh
from mobysession.services.upload import Upload
from mobysession.session import Session
from mobysession.session.access import Access
from mobysession.testing import FakeDaemon

if TYPE_CHECKING:
    from pathlib import Path

    from mobysession.testing.caller import FakeCaller

DIFF_COPY = "/moby.filesync.v1.FileSync/DiffCopy"
FILE_SEND = "/moby.filesync.v1.FileSend/DiffCopy"
PULL = "/moby.upload.v1.Upload/Pull"
SECRET = "/moby.buildkit.secrets.v1.Secrets/GetSecret"
FORWARD = "/moby.sshforward.v1.SSH/ForwardAgent"
CHECK = "/moby.sshforward.v1.SSH/CheckAgent"
CREDENTIALS = "/moby.filesync.v1.Auth/Credentials"
FETCH = "/moby.filesync.v1.Auth/FetchToken"
ELSEWHERE = ("/etc", "..", "../..", "/", "context/../..", "\0", "no such name", "x" * 10_000)


def secret(name: str) -> bytes:
    """Return a request for a secret."""
    return secrets_pb2.GetSecretRequest(ID=name).SerializeToString()


def login(host: str) -> bytes:
    """Return a request for a login."""
    return auth_pb2.CredentialsRequest(Host=host).SerializeToString()


def token(host: str, realm: str) -> bytes:
    """Return a request for a token."""
    return auth_pb2.FetchTokenRequest(Host=host, Realm=realm).SerializeToString()


async def outcome(
    caller: FakeCaller, method: str, message: bytes = b"", *metadata: tuple[str, str]
) -> tuple[StatusCode, bytes]:
    """Make a call of one message; return what it ended with, and everything that was said."""
    said = b""
    try:
        async with caller.channel.open_call(method, metadata=metadata) as call:
            await call.send(message)
            await call.end()
            while (answer := await call.receive()) is not None:
                said += answer
    except RpcError as error:
        return error.code, said
    return StatusCode.OK, said


#: What is asked for: method, message, metadata.
Demand = tuple[str, bytes, tuple[tuple[str, str], ...]]


def demands() -> list[Demand]:
    """Return what a daemon could ask for that nobody has offered."""
    read = content_pb2.ReadContentRequest(digest="sha256:" + "0" * 64).SerializeToString()
    stat = content_pb2.WriteContentRequest(ref="x").SerializeToString()
    found: list[Demand] = []
    for name in ELSEWHERE:
        escaped = (("dir-name", "%00"), ("dir-name-encoded", "1")) if name == "\0" else (("dir-name", name),)
        found.append((DIFF_COPY, b"", escaped))
        found += [(SECRET, secret(name), ()), (CHECK, ssh_pb2.CheckAgentRequest(ID=name).SerializeToString(), ())]
        if name != "\0":
            found.append((FORWARD, b"", (("buildkit.ssh.id", name),)))
            found.append((PULL, b"", (("urlpath", f"/{name}"), ("urlhost", "buildkit-session"))))
            found += [(CONTENT + "Read", read, ((STORE_ID, f"local:{name}"),))]
            found += [(CONTENT + "Write", stat, ((STORE_ID, f"local:{name}"),))]
    found += [(FILE_SEND, b"", (("buildkit-attachable-exporter-id", number),)) for number in ("1", "-1", "99")]
    found += [
        (CONTENT + "Write", stat, ((STORE_ID, "local:read-only"),)),
        (CONTENT + "Delete", read, ((STORE_ID, "local:read-only"),)),
        (FETCH, token("registry.example/../other", "https://evil.example/"), ()),
        (FETCH, token("registry.example", "file:///etc/passwd"), ()),
        ("/evil.Service/Method", b"", ()),
        ("/moby.buildkit.v1.Control/Solve", b"", ()),
        ("/moby.exporter.v1.Exporter/FindExporters", b"", ()),
        (SECRET, b"\xff" * 100, ()),
    ]
    return found


async def test_a_daemon_that_asks_for_everything(tmp_path: Path) -> None:
    """No demand is granted, none says anything that is a secret, each is an event, and what was offered still works."""
    (tmp_path / "context").mkdir()
    (tmp_path / "context" / "file").write_text("offered")
    (tmp_path / "layout").mkdir()
    heard: list[Any] = []
    async with FakeDaemon() as daemon:
        session = Session(daemon.dialer, access=Access())
        session.allow(
            FileSync({"context": tmp_path / "context"}),
            FileSend({0: DirectoryTarget(path=tmp_path / "out")}),
            Auth({"registry.example": ("me", "hunter2hunter2")}, config_dir=tmp_path),
            Secrets({"token": "hush-hush-hush"}),
            Ssh({}),
            Upload(),
            Content({"local:read-only": OciLayout(tmp_path / "layout")}),
        )
        session.listen(heard.append)
        async with session.attach():
            caller = await daemon.wait_session(session.id)
            granted = []
            for method, message, metadata in demands():
                code, said = await outcome(caller, method, message, *metadata)
                if code is StatusCode.OK or b"hunter2" in said or b"hush" in said:
                    granted.append((method, message, metadata, code, said))
            assert granted == []
            ended = [event for event in heard if isinstance(event, CallEnded)]
            assert len(ended) >= len(demands())
            assert await caller.get_secret("token") == b"hush-hush-hush"
            assert await caller.credentials("registry.example") == ("me", "hunter2hunter2")
            assert await caller.credentials("other.example") == ("", "")
            await caller.health()
            tree = await caller.diffcopy("context", tmp_path / "received")
            assert list(tree.entries) == ["file"]
    assert sorted(os.listdir(tmp_path)) == ["context", "layout", "received"]
    refused = [event for event in heard if isinstance(event, AccessDecided) and not event.allowed]
    assert {event.subject for event in refused if event.kind == "secret"} == set(ELSEWHERE)
    assert "hush" not in repr(heard)
    assert "hunter2" not in repr(heard)


async def test_links_in_a_context_lead_nowhere(tmp_path: Path) -> None:
    """They are sent as links, whatever they lead to and however they are asked for; what is behind them is not."""
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "key").write_text("hush")
    context = tmp_path / "context"
    context.mkdir()
    (context / "file").symlink_to(tmp_path / "outside" / "key")
    (context / "folder").symlink_to(tmp_path / "outside")
    (context / "up").symlink_to("../outside")
    async with FakeDaemon() as daemon:
        session = Session(daemon.dialer)
        session.allow(FileSync({"context": context}))
        async with session.attach():
            caller = await daemon.wait_session(session.id)
            for number, asked in enumerate(([], ["file", "folder", "up"], ["folder/key", "up/key"])):
                tree = await caller.diffcopy("context", tmp_path / f"received-{number}", follow_paths=asked)
                assert set(tree.entries) <= {"file", "folder", "up"}
                assert tree.requested == []


@pytest.mark.parametrize("method", [SECRET, DIFF_COPY, FORWARD])
async def test_a_service_that_was_not_given_is_not_there(method: str) -> None:
    """A session without services is one that only answers for its health."""
    async with FakeDaemon() as daemon:
        session = Session(daemon.dialer)
        async with session.attach():
            caller = await daemon.wait_session(session.id)
            assert (await outcome(caller, method))[0] is StatusCode.UNIMPLEMENTED
            await caller.health()
