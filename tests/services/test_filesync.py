"""The FileSync service, called as a daemon calls it."""

from __future__ import annotations

import os
import tarfile
from typing import TYPE_CHECKING, Any

import pytest
import trio

from mobysession._pb.fsutil_pb2 import Packet
from mobysession.errors import ContextError, RpcError, StatusCode, UsageError
from mobysession.filesync import Content, Directory, FilesLike, Overlay, TarArchive
from mobysession.services.filesync import DIFF_COPY, TAR_STREAM, FileSync
from mobysession.testing.tree_receiver import TreeReceiver

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    from mobysession.filesync import TransferProgress
    from mobysession.rpc.client import Channel

    OpenService = Callable[..., AbstractAsyncContextManager[Channel]]


async def copy(channel: Channel, destination: Path, *metadata: tuple[str, str]) -> set[str]:
    """Receive a directory as the daemon does, to the end of the call; return the paths that arrived."""
    _make(destination)
    async with channel.open_call(DIFF_COPY, metadata=metadata) as call:
        receiver = TreeReceiver(destination)
        while messages := await call.receive_batch():
            if answers := receiver.take(messages):
                await call.send_batch(answers)
        assert receiver.finished
    return _paths(destination)


def _make(directory: Path) -> None:
    directory.mkdir(exist_ok=True)


def _paths(directory: Path) -> set[str]:
    return {str(path.relative_to(directory)) for path in directory.rglob("*")}


@pytest.fixture
def context(tmp_path: Path) -> Path:
    """Give a small build context."""
    root = tmp_path / "context"
    (root / "src").mkdir(parents=True)
    (root / "src" / "größe +%41.txt").write_bytes(b"1")
    (root / "src" / "b.txt").write_bytes(b"2" * 100_000)
    (root / "Dockerfile").write_bytes(b"FROM scratch\n")
    return root


async def test_a_directory_is_read_by_its_name(tmp_path: Path, context: Path, open_service: OpenService) -> None:
    """The daemon names a directory and filters, and gets what they leave; the call ends with OK and a report."""
    service = FileSync({"context": context, "dockerfile": str(context)})
    async with open_service(service) as channel:
        everything = await copy(channel, tmp_path / "a", ("dir-name", "context"))
        assert everything == {"Dockerfile", "src", "src/b.txt", "src/größe +%41.txt"}
        followed = await copy(channel, tmp_path / "b", ("dir-name", "dockerfile"), ("followpaths", "Dockerfile"))
        assert followed == {"Dockerfile"}
        filtered = await copy(
            channel,
            tmp_path / "c",
            ("dir-name", "context"),
            ("include-patterns", "src"),
            ("exclude-patterns", "**/*.txt"),
            ("exclude-patterns", "!**/b.txt"),
        )
        assert filtered == {"src", "src/b.txt"}
    first, second, third = service.transfers
    assert (first.dir_name, second.dir_name, third.dir_name) == ("context", "dockerfile", "context")
    assert (first.report.progress.files, first.report.progress.sent) == (3, 3)
    assert third.report.progress.sent_bytes == 100_000


async def test_one_directory_is_read_by_several_calls_at_once(
    tmp_path: Path, context: Path, open_service: OpenService
) -> None:
    """Calls for the same name do not disturb one another."""
    service = FileSync({"context": context})
    async with open_service(service) as channel, trio.open_nursery() as nursery:
        for number in range(5):
            nursery.start_soon(copy, channel, tmp_path / str(number), ("dir-name", "context"))
    assert [done.report.progress.sent for done in service.transfers] == [3] * 5


async def test_encoded_values_are_decoded(tmp_path: Path, context: Path, open_service: OpenService) -> None:
    """A companion key tells that all values of a key are encoded; without it they are taken literally."""
    async with open_service(FileSync({"context": context})) as channel:
        arrived = await copy(
            channel,
            tmp_path / "a",
            ("dir-name", "context"),
            ("include-patterns", "src%2Fgr%C3%B6%C3%9Fe+%2B%2541.txt"),
            ("include-patterns-encoded", "1"),
        )
        assert arrived == {"src", "src/größe +%41.txt"}
        arrived = await copy(channel, tmp_path / "b", ("dir-name", "context"), ("include-patterns", "src%2Fb.txt"))
        assert arrived == set()


@pytest.mark.parametrize(("name", "quoted"), [("other", '"other"'), ('a"\\b\n', '"a\\"\\\\b\\n"'), ("", '""')])
async def test_an_unknown_name_is_not_found(
    tmp_path: Path, context: Path, open_service: OpenService, name: str, quoted: str
) -> None:
    """Only names that were given are answered, never paths."""
    encoded = "".join(f"%{byte:02X}" for byte in name.encode())
    async with open_service(FileSync({"context": context})) as channel:
        with pytest.raises(RpcError) as caught:
            await copy(channel, tmp_path / "a", ("dir-name", encoded), ("dir-name-encoded", "true"))
    assert caught.value.code is StatusCode.NOT_FOUND
    assert caught.value.message == f"no access allowed to dir {quoted}"


async def test_a_tar_stream_is_refused(context: Path, open_service: OpenService) -> None:
    """The protocol that nobody speaks is answered as the reference answers it."""
    async with open_service(FileSync({"context": context})) as channel, channel.open_call(TAR_STREAM) as call:
        with pytest.raises(RpcError) as caught:
            await call.receive_batch()
    assert (caught.value.code, caught.value.message) == (StatusCode.UNKNOWN, "failed to negotiate protocol")


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ((("exclude-patterns", "a["),), 'invalid excludepatterns: ["a["]: syntax error in pattern'),
        ((("include-patterns", "!"),), 'invalid includepatterns: ["!"]: illegal exclusion pattern: "!"'),
    ],
)
async def test_a_bad_pattern_is_unknown_with_its_text(
    tmp_path: Path,
    context: Path,
    open_service: OpenService,
    ended: list[Any],
    metadata: tuple[tuple[str, str], ...],
    message: str,
) -> None:
    """The daemon gets a text that it can show, this side the error behind it."""
    async with open_service(FileSync({"context": context})) as channel:
        with pytest.raises(RpcError) as caught:
            await copy(channel, tmp_path / "a", ("dir-name", "context"), *metadata)
    assert (caught.value.code, caught.value.message) == (StatusCode.UNKNOWN, message)
    ((_, _, error),) = ended
    assert isinstance(error, ContextError)


def test_directories_are_checked_early(tmp_path: Path, context: Path) -> None:
    """A directory that cannot be sent is an error before anything is asked of a daemon."""
    FileSync({"context": context}).check()
    with pytest.raises(ContextError, match="does not exist") as caught:
        FileSync({"context": context, "other": tmp_path / "missing"}).check()
    assert caught.value.hint
    with pytest.raises(ContextError, match="is not a directory"):
        FileSync({"context": context / "Dockerfile"}).check()


def test_a_directory_needs_a_name() -> None:
    """The daemon cannot ask for a directory without one."""
    with pytest.raises(UsageError):
        FileSync({"": "."})


async def test_progress_is_told_by_name(tmp_path: Path, context: Path, open_service: OpenService) -> None:
    """The callback hears the name of the directory with every step."""
    heard: list[tuple[str, TransferProgress]] = []
    service = FileSync({"context": context}, on_progress=lambda name, progress: heard.append((name, progress)))
    async with open_service(service) as channel:
        await copy(channel, tmp_path / "a", ("dir-name", "context"))
    assert {name for name, _ in heard} == {"context"}
    assert heard[-1][1].entries == 4


async def test_any_source_is_read_by_its_name(tmp_path: Path, context: Path, open_service: OpenService) -> None:
    """A mapping is a directory to the daemon, alone and laid over one of the disk."""
    mapping: FilesLike = {"Dockerfile": "FROM busybox\n", "made": lambda: b"now"}
    service = FileSync({"context": Overlay(context, mapping), "dockerfile": mapping})
    async with open_service(service) as channel:
        await copy(channel, tmp_path / "a", ("dir-name", "context"))
        assert await copy(channel, tmp_path / "b", ("dir-name", "dockerfile")) == {"Dockerfile", "made"}
    assert (tmp_path / "a" / "Dockerfile").read_bytes() == b"FROM busybox\n"
    assert (tmp_path / "a" / "made").read_bytes() == b"now"
    assert (tmp_path / "a" / "src" / "b.txt").stat().st_size == 100_000


@pytest.mark.parametrize(
    ("name", "content", "sent", "line"),
    [
        (".dockerignore", "# a comment\n\n*.log\n /x/./a[ \n", "x/a[", 4),
        (".dockerignore", "\ufeff! b[\r\n", "!b[", 1),
        ("Dockerfile.dockerignore", "*\n!\n", "!", 2),
    ],
)
async def test_a_bad_pattern_is_found_in_its_file(
    tmp_path: Path, context: Path, open_service: OpenService, name: str, content: str, sent: str, line: int
) -> None:
    """The error names the file and the line from which the daemon made the pattern."""
    (context / name).write_text(content, "utf-8")
    async with open_service(FileSync({"context": context, "dockerfile": context})) as channel:
        await _ask_for_ignore_files(channel, tmp_path / "a")
        with pytest.raises(RpcError) as caught:
            await copy(channel, tmp_path / "b", ("dir-name", "context"), ("exclude-patterns", sent))
    assert caught.value.message.startswith(f"{name}:{line}: invalid excludepatterns: [")


async def _ask_for_ignore_files(channel: Channel, destination: Path, *, by: str = "followpaths") -> None:
    """Ask as BuildKit did before 0.12, which takes the Dockerfile's own ignore file where both are there."""
    await copy(channel, destination, ("dir-name", "context"), (by, ".dockerignore"))
    own = ("Dockerfile", "Dockerfile.dockerignore")
    await copy(channel, destination, ("dir-name", "dockerfile"), *((by, name) for name in own))


@pytest.mark.parametrize("by", ["followpaths", "include-patterns"])
async def test_the_bad_pattern_is_in_the_ignore_file_that_counts(
    tmp_path: Path, context: Path, open_service: OpenService, by: str
) -> None:
    """Of several files with a bad pattern the Dockerfile's own is named, and no other as long as it is there."""
    for name, content in ((".dockerignore", "a["), ("Dockerfile.dockerignore", "\na["), ("A.dockerignore", "a[")):
        (context / name).write_text(content)
    service = FileSync({"context": context, "dockerfile": context})
    async with open_service(service) as channel:
        await _ask_for_ignore_files(channel, tmp_path / "a", by=by)
        with pytest.raises(RpcError, match=r"^UNKNOWN: Dockerfile\.dockerignore:2: "):
            await copy(channel, tmp_path / "b", ("dir-name", "context"), ("exclude-patterns", "a["))
    words = "syntax error in pattern"
    assert service.hint_for(words) == "correct the pattern in Dockerfile.dockerignore:2"
    (context / "Dockerfile.dockerignore").write_text("fine")
    assert service.hint_for(words) is None
    (context / "Dockerfile.dockerignore").unlink()
    assert service.hint_for(words) == "correct the pattern in .dockerignore:1"


@pytest.mark.parametrize(
    ("words", "patterns", "hint"),
    [
        ("failed parsing .dockerignore: bufio.Scanner: token too long", "a\n" + "b" * 65_536, "break up the line in"),
        ('header key "exclude-patterns" contains value with non-printable ASCII', "a\nb\x01", "take the control"),
    ],
)
async def test_a_line_that_the_engine_cannot_take_is_found(
    tmp_path: Path, context: Path, open_service: OpenService, words: str, patterns: str, hint: str
) -> None:
    """The engine names neither file nor line; the hint does."""
    (context / ".dockerignore").write_text(patterns)
    service = FileSync({"context": context, "dockerfile": context})
    async with open_service(service) as channel:
        await _ask_for_ignore_files(channel, tmp_path / "a")
    found = service.hint_for(words) or ""
    assert found.startswith(hint)
    assert found.endswith(" .dockerignore:2")


async def test_a_context_is_not_sent_without_its_ignore_file(
    tmp_path: Path, context: Path, open_service: OpenService
) -> None:
    """A pipe, which an engine would wait for, is refused; an engine that goes on without it gets nothing else."""
    os.mkfifo(context / ".dockerignore")
    asked = (("dir-name", "context"), ("followpaths", ".dockerignore"))
    async with open_service(FileSync({"context": context})) as channel:
        for metadata in (asked, asked[:1]):
            with pytest.raises(RpcError, match=r'"\.dockerignore" is a named pipe'):
                await copy(channel, tmp_path / "a", *metadata)
        (context / ".dockerignore").unlink()
        await copy(channel, tmp_path / "a", *asked)
        assert "Dockerfile" in await copy(channel, tmp_path / "a", *asked[:1])


async def test_an_ignore_file_that_was_not_asked_for_is_not_blamed(
    tmp_path: Path, context: Path, open_service: OpenService
) -> None:
    """The bad pattern is sought where the engine has looked, also behind a link, and for each directory in its own."""
    (context / "Dockerfile.dockerignore").write_text("a[")
    (context / "patterns").write_text("fine\na[")
    (context / ".dockerignore").symlink_to("patterns")
    service = FileSync({"context": context, "dockerfile": context, "more": {".dockerignore": "\n\na["}})
    assert service.hint_for("syntax error in pattern") is None
    async with open_service(service) as channel:
        for name, line in (("context", 2), ("more", 3)):
            await copy(channel, tmp_path / "a", ("dir-name", name), ("followpaths", ".dockerignore"))
            with pytest.raises(RpcError, match=rf"^UNKNOWN: \.dockerignore:{line}: "):
                await copy(channel, tmp_path / "b", ("dir-name", name), ("exclude-patterns", "a["))


async def test_a_bad_pattern_of_nobody_stays_as_it_is(tmp_path: Path, context: Path, open_service: OpenService) -> None:
    """Where no file has the pattern, the error says what the daemon sent."""
    async with open_service(FileSync({"context": context})) as channel:
        with pytest.raises(RpcError) as caught:
            await copy(channel, tmp_path / "a", ("dir-name", "context"), ("include-patterns", "a["))
    assert caught.value.message == 'invalid includepatterns: ["a["]: syntax error in pattern'


async def test_owners_are_kept_where_that_is_wanted(tmp_path: Path, open_service: OpenService) -> None:
    """Owners are reset as every client does, unless the service is told not to."""
    with tarfile.open(tmp_path / "t", "w") as archive:
        info = tarfile.TarInfo("f")
        info.uid, info.gid = 12, 34
        archive.addfile(info)
    for reset, expected in ((True, (0, 0)), (False, (12, 34))):
        service = FileSync({"context": TarArchive(tmp_path / "t")}, reset_owner=reset)
        async with (
            open_service(service) as channel,
            channel.open_call(DIFF_COPY, metadata=[("dir-name", "context")]) as call,
        ):
            stat = Packet.FromString((await call.receive_batch())[0]).stat
            assert (stat.uid, stat.gid) == expected
            await call.send_batch([Packet(type=Packet.PACKET_FIN).SerializeToString()])
            while await call.receive_batch():
                pass


async def test_a_strict_service_fails_over_a_change(tmp_path: Path, context: Path, open_service: OpenService) -> None:
    """What others would send as it is ends the call with an error that names it."""

    class Growing(Directory):
        def fetch(self, path: bytes, offered: int) -> bytes | Content:
            with (context / "Dockerfile").open("ab") as file:
                file.write(b"# more\n")
            return super().fetch(path, offered)

    async with open_service(FileSync({"context": Growing(context)}, strict=True)) as channel:
        with pytest.raises(RpcError, match='"Dockerfile" grew from 13 to 20 bytes while'):
            await copy(channel, tmp_path / "a", ("dir-name", "context"), ("include-patterns", "Dockerfile"))
