"""BuildKit's IDs, the user's node ID and the key of a directory."""

from __future__ import annotations

import hashlib
import os
import stat
from typing import TYPE_CHECKING

import pytest

from mobysession.identity import _encode_id, new_id, node_id, shared_key

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("entropy", "encoded"),
    [
        (bytes(17), "hvy0lj3x0b883f8e30fyp2172"),
        (b"\xff" * 17, "zrw1727u0mgg6ugs60vxe42e4"),
        (bytes(range(17)), "hw05xdvcpbrfi4jekqvbjy4b2"),
    ],
)
def test_vectors(entropy: bytes, encoded: str) -> None:
    """Known entropy gives the IDs that BuildKit's own function gives."""
    assert _encode_id(entropy) == encoded


def test_new_ids() -> None:
    """IDs have 25 characters 0-9a-z and differ."""
    ids = {new_id() for _ in range(100)}
    assert len(ids) == 100
    assert all(len(one) == 25 and set(one) <= set("0123456789abcdefghijklmnopqrstuvwxyz") for one in ids)


def test_node_id_is_made_once(tmp_path: Path) -> None:
    """The node ID is created on first use, for the user's eyes only, and then stays."""
    directory = tmp_path / "made" / "too"
    first = node_id(directory)
    assert len(bytes.fromhex(first)) == 32
    assert node_id(directory) == first
    assert os.listdir(directory) == [".buildNodeID"]
    assert stat.S_IMODE((directory / ".buildNodeID").stat().st_mode) == 0o600
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700


def test_node_id_of_the_docker_cli(docker_config: Path) -> None:
    """An ID that the docker CLI left in its configuration directory is used."""
    (docker_config / ".buildNodeID").write_text("abcdef\n")
    assert node_id() == "abcdef"


def test_node_id_without_a_place(tmp_path: Path) -> None:
    """Where no ID can be kept, the path of the configuration directory stands in."""
    blocked = tmp_path / "file"
    blocked.touch()
    assert node_id(blocked / "folder") == str(blocked / "folder")
    (tmp_path / ".buildNodeID").mkdir()
    assert node_id(tmp_path) == str(tmp_path)
    (tmp_path / ".buildNodeID").rmdir()
    (tmp_path / ".buildNodeID").write_bytes(b"\xff\xfe")
    assert node_id(tmp_path) == str(tmp_path)


def test_lost_race(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two processes that start at once, both use the ID that was there first."""
    link = os.link

    def late(source: str, target: str) -> None:
        (tmp_path / ".buildNodeID").write_text("theirs")
        link(source, target)

    monkeypatch.setattr(os, "link", late)
    assert node_id(tmp_path) == "theirs"
    assert os.listdir(tmp_path) == [".buildNodeID"]


def test_shared_key(tmp_path: Path) -> None:
    """The key is the hash of node ID and real path: stable for a directory, different for another."""
    directory = tmp_path / "real"
    directory.mkdir()
    (tmp_path / "link").symlink_to(directory)
    expected = hashlib.sha256(f"node:{os.path.realpath(directory)}".encode()).hexdigest()
    assert shared_key(directory, node="node") == expected
    assert shared_key(tmp_path / "link", node="node") == expected
    assert shared_key(tmp_path, node="node") != expected
    assert shared_key(directory, node="other") != expected


def test_shared_key_uses_the_node_id(docker_config: Path, tmp_path: Path) -> None:
    """Without a node the user's own is taken."""
    (docker_config / ".buildNodeID").write_text("abc")
    assert shared_key(tmp_path) == shared_key(tmp_path, node="abc")
