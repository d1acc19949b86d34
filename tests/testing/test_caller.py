"""What the fake calls on a session, and that it is a strict judge of the answers."""

from __future__ import annotations

import pytest
import trio

from mobysession.errors import RpcError, StatusCode
from mobysession.services.auth import Auth
from mobysession.services.filesync import FileSync
from mobysession.services.secrets import Secrets
from mobysession.session import open_session
from mobysession.testing import FakeDaemon

_DIFF_COPY = "/moby.filesync.v1.FileSync/DiffCopy"


class Recorder:
    """A FileSync of which only the metadata matters."""

    def __init__(self) -> None:
        self.metadata: list[list[tuple[str, str | bytes]]] = []

    def register(self, registrar) -> None:
        registrar.stream(_DIFF_COPY, self._record)

    async def _record(self, call):
        self.metadata.append(list(call.metadata))
        raise RpcError(StatusCode.NOT_FOUND, "nothing here")


async def test_credentials_come_back():
    """User and secret of a registry, and two empty texts for one that is not known."""
    auth = Auth({"registry.example": ("ann", "pass")})
    async with FakeDaemon() as daemon, open_session(daemon.dialer, auth) as session:
        caller = await daemon.wait_session(session.id)
        assert await caller.credentials("registry.example") == ("ann", "pass")
        assert await caller.credentials("other.example") == ("", "")
        assert await caller.token_authority("registry.example", bytes(32)) is None


async def test_a_tree_arrives_as_it_is(tmp_path):
    """Contents, modes, times, links and empty directories of a context arrive, filtered as asked."""
    source, received = tmp_path / "source", tmp_path / "received"
    (source / "sub" / "empty").mkdir(parents=True)
    (source / "sub" / "large").write_bytes(bytes(range(256)) * 2000)
    (source / "script").write_text("#!/bin/sh\n")
    (source / "script").chmod(0o755)
    (source / "again").hardlink_to(source / "script")
    (source / "link").symlink_to("sub/large")
    (source / "debug.log").write_text("no")
    async with FakeDaemon() as daemon, open_session(daemon.dialer, FileSync({"context": source})) as session:
        caller = await daemon.wait_session(session.id)
        tree = await caller.diffcopy("context", received, exclude=["*.log"])
    assert list(tree.entries) == ["again", "link", "script", "sub", "sub/empty", "sub/large"]
    assert tree.requested == ["again", "sub/large"]
    assert (received / "sub" / "large").read_bytes() == (source / "sub" / "large").read_bytes()
    assert (received / "script").stat().st_mode == (source / "script").stat().st_mode
    assert (received / "script").stat().st_ino == (received / "again").stat().st_ino
    assert (received / "script").stat().st_mtime_ns == (source / "script").stat().st_mtime_ns
    assert (received / "link").readlink().as_posix() == "sub/large"
    assert (received / "sub" / "empty").is_dir()
    assert (received / "sub").stat().st_mtime_ns == (source / "sub").stat().st_mtime_ns


async def test_only_what_is_wanted_is_asked_for(tmp_path):
    """An engine that has a file already does not ask for it again; it is announced all the same."""
    source, received = tmp_path / "source", tmp_path / "received"
    source.mkdir()
    (source / "new").write_text("new")
    (source / "old").write_text("old")
    async with FakeDaemon() as daemon, open_session(daemon.dialer, FileSync({"context": source})) as session:
        caller = await daemon.wait_session(session.id)
        await caller.diffcopy("context", received)
        (source / "new").write_text("newer")
        tree = await caller.diffcopy("context", received, wanted=lambda entry: entry.path == "new")
    assert tree.requested == ["new"]
    assert list(tree.entries) == ["new", "old"]
    assert (received / "new").read_text() == "newer"
    assert (received / "old").read_text() == "old"


async def test_values_outside_ascii_are_escaped_all_together(tmp_path):
    """One value outside ASCII escapes every value of its key, and the companion says so; other keys stay."""
    recorder = Recorder()
    async with FakeDaemon() as daemon, open_session(daemon.dialer, recorder) as session:
        caller = await daemon.wait_session(session.id)
        with pytest.raises(RpcError):
            await caller.diffcopy("context", tmp_path, exclude=["a b/*", "größe"], follow_paths=["a b+%"])
    assert recorder.metadata == [
        [
            ("dir-name", "context"),
            ("exclude-patterns", "a+b%2F%2A"),
            ("exclude-patterns", "gr%C3%B6%C3%9Fe"),
            ("exclude-patterns-encoded", "1"),
            ("followpaths", "a b+%"),
        ]
    ]


async def test_names_outside_ascii_reach_the_service(tmp_path):
    """A real FileSync undoes the escapes: the file that is excluded by such a pattern does not arrive."""
    source = tmp_path / "source"
    source.mkdir()
    (source / "größe").write_text("x")
    (source / "kept").write_text("x")
    async with FakeDaemon() as daemon, open_session(daemon.dialer, FileSync({"größen dir": source})) as session:
        caller = await daemon.wait_session(session.id)
        tree = await caller.diffcopy("größen dir", tmp_path / "received", exclude=["größe"])
    assert list(tree.entries) == ["kept"]


async def test_without_filesync_there_are_no_local_sources(tmp_path):
    """A session that does not expose the method is not even called."""
    async with FakeDaemon() as daemon, open_session(daemon.dialer) as session:
        caller = await daemon.wait_session(session.id)
        with pytest.raises(RpcError, match="no local sources enabled"):
            await caller.diffcopy("context", tmp_path)
        assert caller.calls == []


async def test_a_bad_status_behind_both_fins_fails_the_transfer(tmp_path):
    """As with engines, a transfer is good only when its call ends OK."""

    class Late:
        def register(self, registrar) -> None:
            registrar.stream(_DIFF_COPY, self._serve)

        async def _serve(self, call):
            await call.send(b"")
            assert await call.receive() == b"\x08\x03"
            await call.send(b"\x08\x03")
            raise RpcError(StatusCode.UNKNOWN, "after all")

    async with FakeDaemon() as daemon, open_session(daemon.dialer, Late()) as session:
        caller = await daemon.wait_session(session.id)
        with pytest.raises(RpcError, match="after all"):
            await caller.diffcopy("context", tmp_path)


async def test_an_end_before_the_fins_fails_the_transfer(tmp_path):
    """OK alone is not enough either: both sides must have said FIN."""

    class Early:
        def register(self, registrar) -> None:
            registrar.stream(_DIFF_COPY, self._serve)

        async def _serve(self, call):
            await call.send(b"")

    async with FakeDaemon() as daemon, open_session(daemon.dialer, Early()) as session:
        caller = await daemon.wait_session(session.id)
        with pytest.raises(RpcError, match="EOF"):
            await caller.diffcopy("context", tmp_path)


async def test_calls_are_recorded_without_what_was_said(autojump_clock):
    """The record names methods and ends, in order; times move with trio's clock; values are in none of it."""
    async with FakeDaemon() as daemon, open_session(daemon.dialer, Secrets({"token": b"hush-hush"})) as session:
        caller = await daemon.wait_session(session.id)
        before = caller.last_activity
        await trio.sleep(1)
        await caller.get_secret("token")
        with pytest.raises(RpcError):
            await caller.get_secret("none")
        assert [(record.method.rpartition("/")[2], record.code) for record in caller.calls] == [
            ("GetSecret", StatusCode.OK),
            ("GetSecret", StatusCode.NOT_FOUND),
        ]
        assert caller.last_activity == pytest.approx(before + 1)
        assert "hush" not in repr(caller.calls)


async def test_windows_grow_under_load(tmp_path):
    """A large transfer makes the daemon widen its windows, as grpc-go does: the client sees new settings mid-stream."""
    source = tmp_path / "source"
    source.mkdir()
    (source / "large").write_bytes(bytes(4 * 1024 * 1024))
    async with FakeDaemon() as daemon, open_session(daemon.dialer, FileSync({"context": source})) as session:
        caller = await daemon.wait_session(session.id)
        await caller.diffcopy("context", tmp_path / "received")
        assert caller.channel.stream_limit > 65_535
        assert session.settings["INITIAL_WINDOW_SIZE"] == caller.channel.stream_limit
