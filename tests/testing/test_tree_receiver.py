"""The receiver as a machine: rules a sender can break, each refused."""

from __future__ import annotations

from typing import Any

import pytest

from mobysession._pb import fsutil_pb2
from mobysession.errors import RemoteProtocolError, RpcError
from mobysession.testing.tree_receiver import TreeReceiver

DIRECTORY = 0x8000_0000 | 0o755
SYMLINK = 0x0800_0000 | 0o777
FILE = 0o644
FIN = b"\x08\x03"


def stat(path: str, mode: int = FILE, **fields: Any) -> bytes:
    """Return the packet that announces an entry."""
    return fsutil_pb2.Packet(stat=fsutil_pb2.Stat(path=path.encode(), mode=mode, **fields)).SerializeToString()


def data(entry_id: int, content: bytes = b"") -> bytes:
    """Return the packet with a piece of a file, or its end."""
    return fsutil_pb2.Packet(type=fsutil_pb2.Packet.PACKET_DATA, ID=entry_id, data=content).SerializeToString()


@pytest.fixture
def receiver(tmp_path):
    """Give a receiver into an empty directory, closed at the end."""
    receiver = TreeReceiver(tmp_path)
    yield receiver
    receiver.close()


def test_a_whole_conversation(receiver, tmp_path):
    """IDs count every entry, files are asked for as they are announced, and FIN comes when all is there."""
    assert receiver.take([stat("dir", DIRECTORY), stat("dir/file")]) == [b"\x08\x01\x18\x01"]
    assert receiver.take([stat("link", SYMLINK, linkname=b"dir/file"), b""]) == []
    assert receiver.take([data(1, b"con"), data(1, b"tent")]) == []
    assert receiver.take([data(1)]) == [FIN]
    assert receiver.take([FIN]) == []
    assert receiver.finished
    assert (tmp_path / "link").read_text() == "content"


def test_an_empty_tree_is_finished_at_once(receiver):
    """Nothing announced, nothing to ask for: FIN answers the end of the listing."""
    assert receiver.take([b""]) == [FIN]


@pytest.mark.parametrize(
    ("paths", "words"),
    [
        (["/etc"], "unclean"),
        (["../up"], "leads out"),
        ([".."], "unclean"),
        (["a/../b"], "unclean"),
        (["a//b"], "unclean"),
        (["a/"], "unclean"),
        (["./a"], "unclean"),
        ([""], "unclean"),
        (["b", "a"], "out of order"),
        (["a", "a"], "out of order"),
        (["missing/file"], "out of order"),
        (["file", "file/below"], "out of order"),
    ],
)
def test_paths_that_no_sender_may_send(receiver, paths, words):
    """Paths that are not clean, lead out, repeat, go back, or lie below what is no directory end the transfer."""
    with pytest.raises(RemoteProtocolError, match=words):
        receiver.take([stat(path) for path in paths])


def test_a_directory_goes_before_longer_names(receiver):
    """The order is that of path components, not of whole paths: ``a/b`` comes before ``a-b``."""
    receiver.take([stat("a", DIRECTORY), stat("a/b", DIRECTORY), stat("a-b", DIRECTORY)])
    with pytest.raises(RemoteProtocolError, match="out of order"):
        receiver.take([stat("a/c", DIRECTORY)])


def test_nothing_is_written_through_a_link(receiver, tmp_path):
    """An entry below a symlink is refused: the link is no directory."""
    with pytest.raises(RemoteProtocolError):
        receiver.take([stat("link", SYMLINK, linkname=b"/etc"), stat("link/passwd")])


@pytest.mark.parametrize("first", [stat("a", SYMLINK, linkname=b"x"), stat("a", DIRECTORY), stat("b")])
def test_a_hard_link_needs_an_earlier_file(receiver, first):
    """A hard link to anything but an earlier regular file is refused."""
    with pytest.raises(RemoteProtocolError, match="invalid link"):
        receiver.take([first, stat("z", linkname=b"a")])


@pytest.mark.parametrize(
    "packets",
    [[data(0, b"x")], [stat("d", DIRECTORY), data(0, b"x")], [stat("f"), data(0), data(0)]],
    ids=["unknown", "directory", "ended"],
)
def test_data_that_nobody_asked_for(receiver, packets):
    """DATA for an ID that is not outstanding is refused."""
    with pytest.raises(RemoteProtocolError, match="invalid file request"):
        receiver.take(packets)


def test_the_sender_must_not_finish_first(receiver):
    """FIN is the receiver's to say first."""
    with pytest.raises(RemoteProtocolError, match="FIN"):
        receiver.take([stat("f"), FIN])


def test_an_entry_behind_the_end_is_refused(receiver):
    """The listing ends once."""
    with pytest.raises(RemoteProtocolError, match="after the end"):
        receiver.take([b"", stat("a")])


def test_the_senders_error_is_quoted(receiver):
    """ERR ends the transfer with the sender's words."""
    packet = fsutil_pb2.Packet(type=fsutil_pb2.Packet.PACKET_ERR, data=b"disk on fire").SerializeToString()
    with pytest.raises(RpcError, match="error from sender: disk on fire"):
        receiver.take([packet])


def test_the_digest_is_of_what_arrived(tmp_path):
    """A byte, a mode or a name that differs makes another digest; the same tree makes the same."""
    trees = []
    for number, (name, mode, content) in enumerate(
        [("f", FILE, b"x"), ("f", FILE, b"y"), ("f", 0o600, b"x"), ("g", FILE, b"x")]
    ):
        root = tmp_path / str(number)
        root.mkdir()
        receiver = TreeReceiver(root)
        receiver.take([stat(name, mode), b"", data(0, content), data(0)])
        trees.append(receiver.tree)
    digests = [tree.digest() for tree in trees]
    assert len(set(digests)) == 4
    assert trees[-1].digest() == digests[-1]
