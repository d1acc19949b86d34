"""Somebody else changes the directory while it is received into: nothing outside of it is touched.

The attacker is a process of its own, with the rights to do what it likes in the tree, who exchanges names for links to
the outside as fast as it can. What is received may fail then, with an error that says so, or succeed; it may not reach
a file, a directory or an attribute outside.
"""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from mobysession.errors import OutputError
from tests.filesync.landings import DIR, END, LINK, data, entry, feed, open_landing, whole

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

#: Seconds of receiving under each attack.
DURATION = 0.7

#: Exchanges a directory and a link to the outside.
SWAP_DIRECTORY = """
import os, sys
inside, aside, outside = sys.argv[1:]
print("ready", flush=True)
number = 0
while True:
    number += 1
    for step in (
        lambda: os.rename(inside, f"{aside}-{number}"),
        lambda: os.symlink(outside, inside),
        lambda: os.unlink(inside),
        lambda: os.rename(f"{aside}-{number}", inside),
    ):
        try:
            step()
        except OSError:
            pass
"""

#: Puts links to an outside file in the place of whatever appears.
SWAP_NAMES = """
import os, sys
inside, outside, victim = sys.argv[1:]
os.symlink(victim, outside + "/link")
print("ready", flush=True)
number = 0
while True:
    try:
        names = os.listdir(inside)
    except OSError:
        continue
    for name in names:
        number += 1
        made = f"{outside}/made-{number}"
        try:
            os.symlink(victim, made)
            os.rename(made, f"{inside}/{name}")
        except OSError:
            os.unlink(made)
"""


@contextmanager
def attacking(program: str, *arguments: Path) -> Iterator[None]:
    """Run an attacker for the length of the block."""
    process = subprocess.Popen(
        [sys.executable, "-I", "-c", program, *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        yield
        assert process.poll() is None, "the attacker gave up"
    finally:
        process.kill()
        process.communicate()


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Give a folder with a root to receive into, an outside with a victim, and room for the attacker."""
    for name in ("root", "outside", "work"):
        (tmp_path / name).mkdir()
    (tmp_path / "outside" / "victim").write_bytes(b"untouched")
    (tmp_path / "outside" / "victim").chmod(0o600)
    os.utime(tmp_path / "outside" / "victim", ns=(1, 1))
    return tmp_path


def assert_untouched(place: Path) -> None:
    """See that the outside is as it was."""
    outside = place / "outside"
    assert os.listdir(outside) == ["victim"]
    found = os.lstat(outside / "victim")
    assert (outside / "victim").read_bytes() == b"untouched"
    assert (found.st_mode, found.st_mtime_ns, found.st_nlink) == (stat.S_IFREG | 0o600, 1, 1)
    assert (found.st_uid, found.st_gid) == (os.geteuid(), os.getegid())


LISTING = [
    entry(b"d", DIR),
    entry(b"d/deep", DIR),
    *(entry(b"d/deep/%02d" % number, 0x00C0_01FF) for number in range(20)),
    entry(b"d/fifo", 0x0200_01FF),
    entry(b"d/hard", linkname=b"d/deep/00"),
    entry(b"d/link", LINK, linkname=b"/etc/passwd"),
    entry(b"d/victim", 0x00C0_01FF),
    END,
]
CONTENTS = [packet for number in (*range(2, 22), 25) for packet in whole(number, b"from the daemon" * 100)]


def receive_under_attack(root: Path, *, merge: bool) -> tuple[int, int]:
    """Receive again and again; return how often that succeeded and how often it was noticed."""
    succeeded = noticed = 0
    until = time.monotonic() + DURATION
    while time.monotonic() < until or not succeeded + noticed:
        landing = None
        try:
            landing = open_landing(root, merge=merge)
            for start in range(0, len(LISTING), 5):
                landing.take(LISTING[start : start + 5])
            for start in range(0, len(CONTENTS), 7):
                landing.take(CONTENTS[start : start + 7])
            landing.finish()
            succeeded += 1
        except OutputError:
            noticed += 1
        finally:
            if landing is not None:
                landing.close()
    return succeeded, noticed


@pytest.mark.parametrize("merge", [True, False])
@pytest.mark.parametrize("swapped", ["d", "d/deep"])
def test_a_directory_that_becomes_a_link_and_back(place: Path, swapped: str, merge: bool) -> None:
    """At any moment a directory on the way is a link to the outside: nothing is made, changed or removed there."""
    (place / "root" / "d" / "deep").mkdir(parents=True)
    with attacking(SWAP_DIRECTORY, place / "root" / swapped, place / "work" / "aside", place / "outside"):
        _, noticed = receive_under_attack(place / "root", merge=merge)
    assert noticed, "the attack never hit: it proves nothing"
    assert_untouched(place)


def test_names_that_become_links(place: Path) -> None:
    """Whatever appears is replaced by a link to a file outside: neither content nor mode nor time of it changes."""
    (place / "root" / "d" / "deep").mkdir(parents=True)
    with (
        attacking(SWAP_NAMES, place / "root" / "d", place / "work", place / "outside" / "victim"),
    ):
        succeeded, noticed = receive_under_attack(place / "root", merge=True)
    assert succeeded + noticed
    assert_untouched(place)


def test_a_file_that_is_exchanged_while_it_arrives(place: Path) -> None:
    """Its attributes go to the file that was opened, not to what has its name by then."""
    landing = open_landing(place / "root")
    landing.take([entry(b"f", 0x00C0_01FF), END, data(0, b"x")])
    (made,) = os.listdir(place / "root")
    os.unlink(place / "root" / made)
    os.symlink(place / "outside" / "victim", place / "root" / made)
    landing.take([data(0)])
    landing.finish()
    landing.close()
    assert_untouched(place)
    assert os.readlink(place / "root" / "f") == str(place / "outside" / "victim")


def test_a_hard_link_is_not_made_to_a_file_that_was_exchanged(place: Path) -> None:
    """The file that a link would lead to is looked at again once it is linked: a stranger's is refused."""
    landing = open_landing(place / "root")
    landing.take([entry(b"f"), entry(b"g", linkname=b"f"), END, data(0, b"x")])
    (made,) = os.listdir(place / "root")
    os.unlink(place / "root" / made)
    (place / "root" / made).write_bytes(b"another")
    with pytest.raises(OutputError, match="was replaced while it was being written"):
        landing.take([data(0)])
    landing.close()
    assert not (place / "root" / "g").exists()


def test_a_link_is_not_linked_to(place: Path) -> None:
    """A file that arrived and has become a symbolic link since is none to be linked."""
    landing = open_landing(place / "root")
    landing.take([entry(b"f"), data(0)])
    os.unlink(place / "root" / "f")
    os.symlink(place / "outside" / "victim", place / "root" / "f")
    with pytest.raises(OutputError, match="was replaced"):
        landing.take([entry(b"g", linkname=b"f")])
    landing.close()
    assert_untouched(place)
    assert os.listdir(place / "root") == ["f"]


def test_a_directory_that_was_moved_away_is_told(place: Path) -> None:
    """What cannot be found any more is an error that names it and says what to do."""
    landing = open_landing(place / "root")
    landing.take([entry(b"d", DIR), entry(b"d/e", DIR)])
    os.rename(place / "root" / "d", place / "work" / "d")
    landing.take([END])
    with pytest.raises(OutputError, match='d" was replaced while it was being written') as caught:
        landing.finish()
    landing.close()
    assert caught.value.hint == "Leave the directory alone while an output is written to it."


@pytest.mark.parametrize("kind", ["fifo", "device", "socket"])
def test_special_files_that_are_there_are_replaced_and_never_opened(place: Path, kind: str) -> None:
    """A pipe without a reader would block who opens it, a device would take the content: both give way to the file."""
    path = place / "root" / "f"
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "device":
        if os.geteuid() != 0:
            pytest.skip("only root can make a device")
        os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 7))  # /dev/full
    else:
        import socket

        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(path))
    feed(place / "root", entry(b"f"), END, *whole(0, b"content"))
    assert path.read_bytes() == b"content"


def test_the_root_itself_may_be_a_link(place: Path) -> None:
    """Where the user's own path leads is where the user wants it."""
    (place / "way").symlink_to("root")
    feed(place / "way", entry(b"f"), END, *whole(0, b"content"))
    assert (place / "root" / "f").read_bytes() == b"content"
