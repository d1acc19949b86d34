"""The Content service, called as a daemon calls it: each method, each refusal, and what a hostile daemon tries."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

import pytest
import trio
from google.protobuf.empty_pb2 import Empty

from mobysession import limits
from mobysession._pb import content_pb2
from mobysession.errors import ContextError, DiskFull, OutputError, RpcError, StatusCode
from mobysession.services.content import SERVICE, STORE_ID, Content
from mobysession.services.oci_layout import OciLayout, cannot_store
from tests.services.stores import STORE, digest_of, put_blob, read, send, tree_of, unary, write_all

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    from mobysession.rpc.client import Channel
    from tests.services.conftest import Ended

    OpenService = Callable[..., AbstractAsyncContextManager[Channel]]

WRITE, COMMIT, STAT = content_pb2.WRITE, content_pb2.COMMIT, content_pb2.STAT
OTHER = digest_of(b"nobody has this")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Give the directory of a store, in one whose other files nobody may touch."""
    (tmp_path / "outside").write_bytes(b"outside")
    return tmp_path / "store"


def content(folder: Path, *, writable: bool = True, deletable: bool = False) -> Content:
    return Content({"local:cache": OciLayout(folder, writable=writable, deletable=deletable)})


# -- which store -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("metadata", "code", "words"),
    [
        ([], StatusCode.INVALID_ARGUMENT, f'request lacks metadata "{STORE_ID}"'),
        ([(STORE_ID, "local:other")], StatusCode.NOT_FOUND, "unknown store local:other"),
        ([(STORE_ID, "")], StatusCode.NOT_FOUND, "unknown store "),
        ([(STORE_ID, "local:../store")], StatusCode.NOT_FOUND, "unknown store local:../store"),
        ([(STORE_ID, "oci:x"), *STORE], StatusCode.NOT_FOUND, "unknown store oci:x"),
    ],
)
async def test_only_stores_that_were_given_exist(
    open_service: OpenService, folder: Path, metadata: list[tuple[str, str]], code: StatusCode, words: str
) -> None:
    """Each method asks for the store by its ID; the first one that is named counts, and a path is no way to one."""
    digest = put_blob(folder, b"x")
    asked = {
        "Info": (content_pb2.InfoRequest(digest=digest), content_pb2.InfoResponse),
        "Update": (content_pb2.UpdateRequest(), content_pb2.UpdateResponse),
        "List": (content_pb2.ListContentRequest(), content_pb2.ListContentResponse),
        "Delete": (content_pb2.DeleteContentRequest(digest=digest), Empty),
        "Read": (content_pb2.ReadContentRequest(digest=digest), content_pb2.ReadContentResponse),
        "Status": (content_pb2.StatusRequest(ref="x"), content_pb2.StatusResponse),
        "ListStatuses": (content_pb2.ListStatusesRequest(), content_pb2.ListStatusesResponse),
        "Write": (content_pb2.WriteContentRequest(ref="x"), content_pb2.WriteContentResponse),
        "Abort": (content_pb2.AbortRequest(ref="x"), Empty),
    }
    async with open_service(content(folder)) as channel:
        for method, (request, response) in asked.items():
            with pytest.raises(RpcError) as caught:
                await unary(channel, method, request, response, metadata)
            assert (caught.value.code, caught.value.message) == (code, words), method


async def test_a_store_that_is_only_read_is_only_read(open_service: OpenService, folder: Path) -> None:
    """Nothing is written, changed, removed or aborted in it; and from one that is written nothing is removed either."""
    digest = put_blob(folder, b"x")
    before = tree_of(folder)
    asked = {
        "Update": (content_pb2.UpdateRequest(info=content_pb2.Info(digest=digest)), content_pb2.UpdateResponse),
        "Delete": (content_pb2.DeleteContentRequest(digest=digest), Empty),
        "Write": (content_pb2.WriteContentRequest(ref="x"), content_pb2.WriteContentResponse),
        "Abort": (content_pb2.AbortRequest(ref="x"), Empty),
    }
    async with open_service(content(folder, writable=False)) as channel:
        for method, (request, response) in asked.items():
            with pytest.raises(RpcError, match="store local:cache is read only") as caught:
                await unary(channel, method, request, response)
            assert caught.value.code is StatusCode.PERMISSION_DENIED
    async with open_service(content(folder)) as channel:
        with pytest.raises(RpcError, match="nothing is deleted"):
            await unary(channel, "Delete", *asked["Delete"])
    assert tree_of(folder) == before


# -- blobs -------------------------------------------------------------------------------------------------------------


async def test_what_a_store_says_of_a_blob(open_service: OpenService, folder: Path) -> None:
    """Info has size and time; Update answers with the labels it was given and keeps none."""
    digest = put_blob(folder, b"12345")
    os.utime(folder / "blobs" / digest.replace(":", "/"), ns=(0, 1_500_000_000_000_000_007))
    async with open_service(content(folder)) as channel:
        info = (await unary(channel, "Info", content_pb2.InfoRequest(digest=digest), content_pb2.InfoResponse)).info
        assert (info.digest, info.size, info.updated_at.seconds, info.updated_at.nanos) == (digest, 5, 1_500_000_000, 7)
        update = content_pb2.UpdateRequest(info=content_pb2.Info(digest=digest, size=99, labels={"a": "b"}))
        updated = (await unary(channel, "Update", update, content_pb2.UpdateResponse)).info
        assert (updated.size, dict(updated.labels)) == (5, {"a": "b"})
        again = await unary(channel, "Info", content_pb2.InfoRequest(digest=digest), content_pb2.InfoResponse)
        assert not again.info.labels


async def test_blobs_are_listed_in_pages(open_service: OpenService, folder: Path) -> None:
    """A hundred in each message; what is no blob is not listed, and filters are refused, not ignored."""
    digests = {put_blob(folder, str(number).encode()) for number in range(limits.CONTENT_LISTING + 3)}
    blobs = folder / "blobs" / "sha256"
    (blobs / "README").write_text("no blob")
    (blobs / ("A" * 64)).write_text("no blob")
    (blobs / ("a" * 64)).symlink_to(folder.parent / "outside")
    (blobs / ("b" * 64)).mkdir()
    async with open_service(content(folder)) as channel:
        pages = []
        async with channel.open_call(SERVICE + "List", metadata=STORE) as call:
            await call.end(content_pb2.ListContentRequest().SerializeToString())
            while (message := await call.receive()) is not None:
                pages.append(content_pb2.ListContentResponse.FromString(message).info)
        with pytest.raises(RpcError, match="does not filter") as caught:
            await unary(channel, "List", content_pb2.ListContentRequest(filters=["size>1"]), content_pb2.InfoResponse)
        statuses = content_pb2.ListStatusesRequest(filters=["ref~=(a+)+$"])
        with pytest.raises(RpcError, match="does not filter"):
            await unary(channel, "ListStatuses", statuses, content_pb2.ListStatusesResponse)
    assert caught.value.code is StatusCode.INVALID_ARGUMENT
    assert [len(page) for page in pages] == [limits.CONTENT_LISTING, 3]
    assert {info.digest for page in pages for info in page} == digests


async def test_an_empty_store_is_empty(open_service: OpenService, folder: Path) -> None:
    """A directory that is not there yet has no blobs and no ingests, and asking makes none."""
    async with open_service(content(folder)) as channel:
        async with channel.open_call(SERVICE + "List", metadata=STORE) as call:
            await call.end(b"")
            assert await call.receive() is None
        found = await unary(
            channel, "ListStatuses", content_pb2.ListStatusesRequest(), content_pb2.ListStatusesResponse
        )
        assert not found.statuses
        await unary(channel, "Abort", content_pb2.AbortRequest(ref="never"), Empty)
    assert folder.name not in os.listdir(folder.parent)


async def test_a_blob_is_deleted_where_that_is_allowed(open_service: OpenService, folder: Path) -> None:
    """It is gone; a second time it is NOT_FOUND."""
    digest = put_blob(folder, b"x")
    async with open_service(content(folder, deletable=True)) as channel:
        await unary(channel, "Delete", content_pb2.DeleteContentRequest(digest=digest), Empty)
        with pytest.raises(RpcError, match="not found") as caught:
            await unary(channel, "Delete", content_pb2.DeleteContentRequest(digest=digest), Empty)
    assert caught.value.code is StatusCode.NOT_FOUND
    assert not tree_of(folder)


BAD_DIGESTS = {
    "": "invalid checksum digest format",
    "sha256": "invalid checksum digest format",
    "sha256:": "invalid checksum digest format",
    "sha256:../../../outside": "invalid checksum digest format",
    "sha256:" + "A" * 64: "invalid checksum digest format",
    "sha256:" + "a" * 63 + "\n": "invalid checksum digest format",
    "sha256:" + "a" * 63: "invalid checksum digest length",
    "sha512:" + "a" * 64: "invalid checksum digest length",
    "md5:" + "a" * 32: "unsupported digest algorithm",
    "../../outside:" + "a" * 64: "unsupported digest algorithm",
    "sha256:" + "/" * 64: "invalid checksum digest format",
}


@pytest.mark.parametrize("digest", BAD_DIGESTS)
async def test_what_is_no_digest_is_refused(open_service: OpenService, folder: Path, digest: str) -> None:
    """Before it is part of any path."""
    put_blob(folder, b"x")
    async with open_service(content(folder, deletable=True)) as channel:
        for method, request, response in (
            ("Info", content_pb2.InfoRequest(digest=digest), content_pb2.InfoResponse),
            ("Delete", content_pb2.DeleteContentRequest(digest=digest), Empty),
            ("Read", content_pb2.ReadContentRequest(digest=digest), content_pb2.ReadContentResponse),
        ):
            with pytest.raises(RpcError, match=BAD_DIGESTS[digest]) as caught:
                await unary(channel, method, request, response)
            assert caught.value.code is StatusCode.INVALID_ARGUMENT
    assert (folder.parent / "outside").read_bytes() == b"outside"


# -- Read --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("offset", "size", "expected"),
    [
        (0, 0, b"0123456789"),
        (-5, 0, b"0123456789"),
        (0, -1, b"0123456789"),
        (3, 0, b"3456789"),
        (3, 4, b"3456"),
        (3, 100, b"3456789"),
        (3, 2**63 - 1, b"3456789"),
        (-(2**63), -(2**63), b"0123456789"),
        (10, 0, b""),
        (10, 5, b""),
    ],
)
async def test_any_part_of_a_blob_is_read(
    open_service: OpenService, folder: Path, offset: int, size: int, expected: bytes
) -> None:
    """From the offset on, as many bytes as were asked for and are there; the messages count from the part's start."""
    digest = put_blob(folder, b"0123456789")
    async with open_service(content(folder, writable=False)) as channel:
        found = await read(channel, digest, offset, size)
    assert b"".join(message.data for message in found) == expected
    assert [message.offset for message in found] == ([0] if expected else [])


@pytest.mark.parametrize("offset", [11, 2**63 - 1])
async def test_reading_behind_the_end_is_refused(open_service: OpenService, folder: Path, offset: int) -> None:
    """With the length, as the reference says it."""
    digest = put_blob(folder, b"0123456789")
    async with open_service(content(folder)) as channel:
        with pytest.raises(RpcError, match="read past object length 10 bytes") as caught:
            await read(channel, digest, offset)
        assert caught.value.code is StatusCode.OUT_OF_RANGE
        with pytest.raises(RpcError, match=f"content {OTHER}: not found") as caught:
            await read(channel, OTHER)
        assert caught.value.code is StatusCode.NOT_FOUND


async def test_a_large_blob_is_read_in_pieces(open_service: OpenService, folder: Path) -> None:
    """No message has more than 1 MiB, and several batches make up the whole; so they do for a part."""
    blob = os.urandom(limits.CONTENT_BATCH + limits.CONTENT_CHUNK + 7)
    digest = put_blob(folder, blob)
    async with open_service(content(folder)) as channel:
        found = await read(channel, digest)
        part = await read(channel, digest, 5, len(blob) - 5)
    assert [len(message.data) for message in found] == [limits.CONTENT_CHUNK] * 5 + [7]
    assert [message.offset for message in found] == [limits.CONTENT_CHUNK * number for number in range(6)]
    assert b"".join(message.data for message in found) == blob
    assert b"".join(message.data for message in part) == blob[5:]


@pytest.mark.parametrize("size", [100, limits.CONTENT_BATCH + 100])
async def test_a_damaged_blob_is_not_given_away(
    open_service: OpenService, folder: Path, ended: Ended, size: int
) -> None:
    """Its last part is held back until the whole was verified; our own error says what to do."""
    path = folder / "blobs" / put_blob(folder, bytes(size)).replace(":", "/")
    path.write_bytes(bytes(size - 1) + b"x")
    received: list[int] = []

    async def read_it(channel: Channel) -> None:
        async with channel.open_call(SERVICE + "Read", metadata=STORE) as call:
            await call.end(content_pb2.ReadContentRequest(digest=f"sha256:{path.name}").SerializeToString())
            while messages := await call.receive_batch():
                received.extend(map(len, messages))

    async with open_service(content(folder)) as channel:
        with pytest.raises(RpcError, match="is damaged"):
            await read_it(channel)
    assert sum(received) < size
    assert isinstance(ended[0][2], ContextError)
    assert ended[0][2].hint


async def test_a_blob_that_shrinks_while_it_is_read(open_service: OpenService, folder: Path) -> None:
    """The daemon hears of it, instead of getting less than it was told there is."""
    size = 3 * limits.CONTENT_BATCH
    digest = put_blob(folder, bytes(size))
    path = folder / "blobs" / digest.replace(":", "/")

    async def read_while_it_shrinks(channel: Channel) -> None:
        async with channel.open_call(SERVICE + "Read", metadata=STORE) as call:
            await call.end(content_pb2.ReadContentRequest(digest=digest).SerializeToString())
            assert await call.receive() is not None
            os.truncate(path, limits.CONTENT_BATCH)
            while await call.receive_batch():
                pass

    async with open_service(content(folder)) as channel:
        with pytest.raises(RpcError, match=f"ends after .* bytes, of {size}"):
            await read_while_it_shrinks(channel)


@pytest.mark.parametrize("what", ["blob", "algorithm", "blobs"])
async def test_no_link_leads_out_of_a_store(open_service: OpenService, folder: Path, what: str) -> None:
    """A link in the place of a blob, or of a directory on the way to it, is an error and is not followed."""
    outside = folder.parent / "elsewhere"
    digest = put_blob(outside, b"not in the store")
    target = {"blob": f"blobs/{digest.replace(':', '/')}", "algorithm": "blobs/sha256", "blobs": "blobs"}[what]
    os.makedirs(os.path.dirname(folder / target))
    os.symlink(outside / target, folder / target)
    async with open_service(content(folder, deletable=True)) as channel:
        with pytest.raises(RpcError, match="through a link, which is not followed"):
            await read(channel, digest)
        with pytest.raises(RpcError, match="through a link"):
            await write_all(channel, "ref", b"not in the store", expected=digest)
        with pytest.raises(RpcError):
            await write_all(channel, "ref", b"not in the store")
    assert tree_of(outside) == {f"blobs/{digest.replace(':', '/')}"}


async def test_a_pipe_in_the_place_of_a_blob_is_no_blob(open_service: OpenService, folder: Path) -> None:
    """It is refused at once; nobody waits for its writer."""
    path = folder / "blobs" / OTHER.replace(":", "/")
    path.parent.mkdir(parents=True)
    os.mkfifo(path)
    async with open_service(content(folder)) as channel:
        with trio.fail_after(5), pytest.raises(RpcError, match="is no file"):
            await read(channel, OTHER)


# -- Write -------------------------------------------------------------------------------------------------------------


async def test_a_blob_is_written_and_read_back(open_service: OpenService, folder: Path) -> None:
    """It appears under its digest, read only, and nothing else is left."""
    blob = os.urandom(5000)
    async with open_service(content(folder)) as channel:
        assert await write_all(channel, "layer-1", blob, expected=digest_of(blob)) == digest_of(blob)
        assert b"".join(message.data for message in await read(channel, digest_of(blob))) == blob
    name = digest_of(blob).replace(":", "/")
    assert tree_of(folder) == {f"blobs/{name}"}
    assert (folder / "blobs" / name).stat().st_mode & 0o777 == 0o444
    assert not list((folder / "ingest").iterdir())


async def test_each_message_is_answered_once(open_service: OpenService, folder: Path) -> None:
    """With its action, the offset, and what STAT tells besides; also when several come at once."""
    requests = [
        content_pb2.WriteContentRequest(action=STAT, ref="r", total=4),
        content_pb2.WriteContentRequest(action=WRITE, data=b"ab"),
        content_pb2.WriteContentRequest(action=WRITE, offset=2, data=b"cd"),
        content_pb2.WriteContentRequest(action=STAT),
        content_pb2.WriteContentRequest(action=COMMIT, offset=4),
    ]
    async with open_service(content(folder)) as channel, channel.open_call(SERVICE + "Write", metadata=STORE) as call:
        await call.send_batch([request.SerializeToString() for request in requests])
        answers = []
        while (message := await call.receive()) is not None:
            answers.append(content_pb2.WriteContentResponse.FromString(message))
    assert [(answer.action, answer.offset) for answer in answers] == [
        (STAT, 0),
        (WRITE, 2),
        (WRITE, 4),
        (STAT, 4),
        (COMMIT, 4),
    ]
    assert answers[3].total == 4
    assert answers[3].started_at.seconds
    assert answers[3].updated_at.seconds
    assert [answer.digest for answer in answers[1:]] == ["", "", *[digest_of(b"abcd")] * 2]


async def test_a_large_blob_is_hashed_beside_its_coming(open_service: OpenService, folder: Path) -> None:
    """In lock step, as the daemon writes, whatever is hashed later: resumed, begun anew, and verified at the end."""
    pieces = [bytes([number]) * (limits.CONTENT_HASHED_LATER + number) for number in range(4)]
    blob = b"".join(pieces)
    async with open_service(content(folder)) as channel:
        async with channel.open_call(SERVICE + "Write", metadata=STORE) as call:
            await send(call, action=STAT, ref="r")
            await send(call, action=WRITE, data=b"to be forgotten" * limits.CONTENT_HASHED_LATER)
            # An offset of zero takes it away again.
            offset = (await send(call, action=WRITE, data=pieces[0])).offset
            assert (await send(call, action=STAT)).digest == digest_of(pieces[0])
            offset = (await send(call, action=WRITE, offset=offset, data=pieces[1])).offset
            await call.end()
            assert await call.receive() is None
        async with channel.open_call(SERVICE + "Write", metadata=STORE) as call:
            resumed = await send(call, action=STAT, ref="r")
            assert (resumed.offset, resumed.digest) == (offset, digest_of(pieces[0] + pieces[1]))
            for piece in pieces[2:]:
                offset = (await send(call, action=WRITE, offset=offset, data=piece)).offset
            done = await send(call, action=COMMIT, offset=offset, total=len(blob), expected=digest_of(blob))
        assert (done.offset, done.digest) == (len(blob), digest_of(blob))
        assert b"".join(part.data for part in await read(channel, digest_of(blob))) == blob


@pytest.mark.parametrize("action", [STAT, WRITE, COMMIT])
@pytest.mark.parametrize(("ref", "words"), [("", "first message must have a reference"), ("r" * 4097, "at most 4096")])
async def test_a_write_begins_with_a_reference(
    open_service: OpenService, folder: Path, action: int, ref: str, words: str
) -> None:
    """One that is not empty, and not endless."""
    async with open_service(content(folder)) as channel, channel.open_call(SERVICE + "Write", metadata=STORE) as call:
        with pytest.raises(RpcError, match=words) as caught:
            await send(call, action, ref=ref)
    assert caught.value.code is StatusCode.INVALID_ARGUMENT
    assert folder.name not in os.listdir(folder.parent)


@pytest.mark.parametrize("ref", ["../../outside", "/etc/passwd", ".", "a/b/../..", "\x00", "späße\n", "r" * 4096])
async def test_a_reference_is_no_path(open_service: OpenService, folder: Path, ref: str) -> None:
    """Whatever it is, the ingest is in a directory of its own below the store, and its status has the very text."""
    async with open_service(content(folder)) as channel:
        async with channel.open_call(SERVICE + "Write", metadata=STORE) as call:
            await send(call, WRITE, ref=ref, data=b"x", total=7)
            found = await unary(channel, "Status", content_pb2.StatusRequest(ref=ref), content_pb2.StatusResponse)
            assert (found.status.ref, found.status.offset, found.status.total) == (ref, 1, 7)
        (ingest,) = (folder / "ingest").iterdir()
        assert len(ingest.name) == 64
        await unary(channel, "Abort", content_pb2.AbortRequest(ref=ref), Empty)
    assert not tree_of(folder)
    assert (folder.parent / "outside").read_bytes() == b"outside"


@pytest.mark.parametrize("offset", [1, 3, -1, 2**63 - 1, -(2**63)])
@pytest.mark.parametrize("action", [WRITE, COMMIT])
async def test_a_wrong_offset_is_refused(open_service: OpenService, folder: Path, offset: int, action: int) -> None:
    """It has to be the current one, or 0."""
    async with open_service(content(folder)) as channel, channel.open_call(SERVICE + "Write", metadata=STORE) as call:
        await send(call, WRITE, ref="r", data=b"ab")
        with pytest.raises(RpcError, match=f"write @{offset} must occur at current offset 2") as caught:
            await send(call, action, offset=offset, data=b"x")
    assert caught.value.code is StatusCode.OUT_OF_RANGE


async def test_an_offset_of_zero_begins_anew(open_service: OpenService, folder: Path) -> None:
    """What was written is taken away; a COMMIT without its offset does that too, as in the reference."""
    async with open_service(content(folder)) as channel:
        async with channel.open_call(SERVICE + "Write", metadata=STORE) as call:
            await send(call, WRITE, ref="r", data=b"wrong")
            assert (await send(call, WRITE, offset=0, data=b"ok")).offset == 2
            answer = await send(call, COMMIT, offset=2, expected=digest_of(b"ok"))
        assert answer.digest == digest_of(b"ok")
        async with channel.open_call(SERVICE + "Write", metadata=STORE) as call:
            await send(call, WRITE, ref="r", data=b"gone")
            with pytest.raises(RpcError, match="unexpected commit size 0, expected 4"):
                await send(call, COMMIT, total=4)


async def test_what_is_not_what_was_expected_is_no_blob(open_service: OpenService, folder: Path) -> None:
    """A wrong size or digest is FAILED_PRECONDITION; data that cannot become right are removed."""
    async with open_service(content(folder)) as channel:
        for fields, words, kept in (
            ({"expected": OTHER}, f"unexpected commit digest {digest_of(b'data')}, expected", False),
            ({"expected": "sha512:" + "0" * 128}, "unexpected commit digest", False),
            ({"expected": "nonsense"}, "unexpected commit digest", False),
            ({"total": 3}, "unexpected commit size 4, expected 3", False),
            ({"total": 5}, "unexpected commit size 4, expected 5", True),
        ):
            async with channel.open_call(SERVICE + "Write", metadata=STORE) as call:
                await send(call, WRITE, ref="r", data=b"data")
                with pytest.raises(RpcError, match=words) as caught:
                    await send(call, COMMIT, offset=4, **fields)
            assert caught.value.code is StatusCode.FAILED_PRECONDITION
            assert any((folder / "ingest").iterdir()) is kept
    assert not (folder / "blobs").exists()


async def test_what_is_there_already_is_told(open_service: OpenService, folder: Path) -> None:
    """When the write begins, with any message that expects it, and when it is committed; nothing is left of it."""
    digest = put_blob(folder, b"there")

    async def write_it(channel: Channel, expected: str) -> None:
        async with channel.open_call(SERVICE + "Write", metadata=STORE) as call:
            await send(call, WRITE, ref="r", data=b"there", expected=expected)
            await send(call, COMMIT, offset=5)

    async with open_service(content(folder)) as channel:
        for expected in (digest, ""):
            with pytest.raises(RpcError, match=f"blob with expected digest {digest} exists") as caught:
                await write_it(channel, expected)
            assert caught.value.code is StatusCode.ALREADY_EXISTS
        async with channel.open_call(SERVICE + "Write", metadata=STORE) as call:
            await send(call, STAT, ref="r")
            with pytest.raises(RpcError, match="exists"):
                await send(call, WRITE, expected=digest, data=b"th")
    assert tree_of(folder) == {f"blobs/{digest.replace(':', '/')}"}


async def test_a_lost_write_is_gone_on_with(open_service: OpenService, folder: Path) -> None:
    """The next writer of that reference is told how far it came, and the digest is that of the whole."""
    blob = os.urandom(3000)
    async with open_service(content(folder)) as channel:
        async with channel.open_call(SERVICE + "Write", metadata=STORE) as call:
            await send(call, WRITE, ref="r", data=blob[:2000], total=3000)
        assert not (folder / "blobs").exists()
        with trio.fail_after(5):
            offset = await _resume(channel, blob)
        assert offset == 2000
        assert b"".join(message.data for message in await read(channel, digest_of(blob))) == blob


async def _resume(channel: Channel, blob: bytes) -> int:
    """Write the rest of a blob as soon as the lost writer is gone; return the offset that it was at."""
    while True:
        try:
            async with channel.open_call(SERVICE + "Write", metadata=STORE) as call:
                status = await send(call, STAT, ref="r")
                await send(call, WRITE, offset=status.offset, data=blob[status.offset :])
                await send(call, COMMIT, offset=len(blob), expected=digest_of(blob))
                return status.offset
        except RpcError as error:
            if error.code is not StatusCode.UNAVAILABLE:
                raise


async def test_the_end_of_a_stream_leaves_what_came(open_service: OpenService, folder: Path) -> None:
    """A daemon that half-closes without a COMMIT is told OK, and the ingest is listed."""
    async with open_service(content(folder)) as channel:
        async with channel.open_call(SERVICE + "Write", metadata=STORE) as call:
            await send(call, WRITE, ref="one", data=b"abc")
            await call.end()
            assert await call.receive() is None
        (folder / "ingest" / ("f" * 64)).mkdir()
        (folder / "ingest" / "stray").write_text("no ingest")
        found = await unary(
            channel, "ListStatuses", content_pb2.ListStatusesRequest(), content_pb2.ListStatusesResponse
        )
        assert [(status.ref, status.offset) for status in found.statuses] == [("one", 3)]
        with pytest.raises(RpcError, match="could not get status for ref 'two'") as caught:
            await unary(channel, "Status", content_pb2.StatusRequest(ref="two"), content_pb2.StatusResponse)
    assert caught.value.code is StatusCode.NOT_FOUND


async def test_one_reference_has_one_writer(open_service: OpenService, folder: Path) -> None:
    """A second is told to come again; another reference is another matter, and both may bring the same blob."""
    blob = b"the same"
    async with open_service(content(folder)) as channel, channel.open_call(SERVICE + "Write", metadata=STORE) as call:
        await send(call, WRITE, ref="r", data=blob[:3])
        with pytest.raises(RpcError, match="ref 'r' locked") as caught:
            await write_all(channel, "r", blob)
        assert caught.value.code is StatusCode.UNAVAILABLE
        await write_all(channel, "other", blob)
        await send(call, WRITE, offset=3, data=blob[3:])
        with pytest.raises(RpcError, match="exists"):
            await send(call, COMMIT, offset=len(blob))
        assert b"".join(message.data for message in await read(channel, digest_of(blob))) == blob
    assert not list((folder / "ingest").iterdir())


async def test_many_write_at_once(open_service: OpenService, folder: Path) -> None:
    """Twenty blobs side by side arrive as what they are."""
    blobs = [os.urandom(2000) for _ in range(20)]
    async with open_service(content(folder)) as channel, trio.open_nursery() as nursery:
        for number, blob in enumerate(blobs):
            nursery.start_soon(write_all, channel, f"layer-{number}", blob)
    assert tree_of(folder) == {f"blobs/{digest_of(blob).replace(':', '/')}" for blob in blobs}


async def test_an_ingest_that_is_aborted_under_its_writer(open_service: OpenService, folder: Path) -> None:
    """The writer is told so when it commits, and there is no blob."""
    async with open_service(content(folder)) as channel, channel.open_call(SERVICE + "Write", metadata=STORE) as call:
        await send(call, WRITE, ref="r", data=b"abc")
        await unary(channel, "Abort", content_pb2.AbortRequest(ref="r"), Empty)
        with pytest.raises(RpcError, match="ref 'r' was aborted") as caught:
            await send(call, COMMIT, offset=3)
    assert caught.value.code is StatusCode.ABORTED
    assert not tree_of(folder)


@pytest.mark.parametrize("message", [b"\xff\xff\xff", b"\x0a\x05ab"])
async def test_what_is_no_message_is_refused(open_service: OpenService, folder: Path, message: bytes) -> None:
    """Garbage ends the call and nothing else, as the first message and as a later one."""

    async def write_it(channel: Channel, messages: list[bytes]) -> None:
        async with channel.open_call(SERVICE + "Write", metadata=STORE) as call:
            await call.send_batch(messages)
            while await call.receive() is not None:
                pass

    async with open_service(content(folder)) as channel:
        for lead in ([], [content_pb2.WriteContentRequest(ref="r").SerializeToString()]):
            with pytest.raises(RpcError, match="cannot be decoded") as caught:
                await write_it(channel, [*lead, message])
            assert caught.value.code is StatusCode.INTERNAL
        await write_all(channel, "still", b"alive")


async def test_an_unknown_action_is_refused(open_service: OpenService, folder: Path) -> None:
    """Nobody knows what it would mean."""
    async with open_service(content(folder)) as channel, channel.open_call(SERVICE + "Write", metadata=STORE) as call:
        with pytest.raises(RpcError, match="there is no action 9"):
            await send(call, 9, ref="r")


async def test_totals_are_only_words(open_service: OpenService, folder: Path) -> None:
    """The largest one reserves nothing, a negative one counts as none."""
    async with open_service(content(folder)) as channel:
        for total in (2**63 - 1, -(2**63)):
            async with channel.open_call(SERVICE + "Write", metadata=STORE) as call:
                assert (await send(call, STAT, ref=str(total), total=total)).total == max(total, 0)
        await write_all(channel, "r", b"fine")
    assert sum(os.stat(folder / name).st_size for name in tree_of(folder) if name.endswith("/data")) == 0


# -- the disk ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EACCES])
def test_a_full_disk_is_a_type_of_its_own(number: int) -> None:
    """No space and no quota are DiskFull, with the path and a hint; anything else is an OutputError."""
    error = cannot_store("/some/where", OSError(number, "Words of the System"))
    assert isinstance(error, DiskFull) is (number != errno.EACCES)
    assert isinstance(error, OutputError)
    assert (error.message, error.path) == ("'/some/where' cannot be written: words of the system", "/some/where")


async def test_a_directory_that_cannot_be_written(open_service: OpenService, tmp_path: Path, ended: Ended) -> None:
    """A file in the place of the store is named."""
    (tmp_path / "store").write_text("a file")
    async with open_service(content(tmp_path / "store")) as channel:
        with pytest.raises(RpcError, match=r"store' cannot be written"):
            await write_all(channel, "r", b"x")
    assert any(isinstance(error, OutputError) for _, _, error in ended)
