"""``mobysession daemons``: what is remembered, and that the other verbs go by it."""

from __future__ import annotations

import io
import json
import sqlite3
from typing import TYPE_CHECKING, Any

import keyring
import keyring.backends.fail
import pytest

from mobysession.state.location import state_path
from mobysession.testing import BlockingFakeDaemon
from tests.state.test_client import SECRET, Ring

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import Cli


@pytest.fixture(autouse=True)
def ring():
    """Give a key ring in memory."""
    before = keyring.get_keyring()
    ring = Ring()
    keyring.set_keyring(ring)
    yield ring
    keyring.set_keyring(before)


def listed(cli: Cli) -> list[dict[str, Any]]:
    return json.loads(cli("daemons", "ls", "--json").out)


def test_to_look_makes_nothing(cli: Cli) -> None:
    """An empty list, and no database."""
    assert cli("daemons", "ls") == (0, "", "")
    assert listed(cli) == []
    assert not state_path().parent.exists()


def test_a_daemon_is_added_used_and_removed(cli: Cli) -> None:
    """Each step shows in the list; those that change say nothing."""
    assert cli("daemons", "add", "ssh://me@box", "--view", "plain") == (0, "", "")
    assert cli("daemons", "add", "tcp://other:1") == (0, "", "")
    assert [(one["address"], one["active"], one["view"]) for one in listed(cli)] == [
        ("tcp://other:1", False, None),
        ("ssh://me@box", False, "plain"),
    ]
    assert cli("daemons", "use", "ssh://me@box") == (0, "", "")
    lines = cli("daemons", "ls").out.splitlines()
    assert [line.split()[:3] for line in lines] == [
        ["*", "ssh://me@box", "plain"],
        ["tcp://other:1", "-", lines[1][24:34]],
    ]
    assert cli("daemons", "rm", "ssh://me@box", "other:1") == (0, "", "")
    assert listed(cli) == []


def test_one_step_to_add_and_use(cli: Cli) -> None:
    """`--use` makes it active, `--json` tells what is remembered now."""
    added = json.loads(cli("daemons", "add", "tcp://a:1", "--use", "--json").out)
    assert (added["address"], added["active"], added["password_in"]) == ("tcp://a:1", True, None)
    assert json.loads(cli("daemons", "show", "--json").out) == added
    cli("daemons", "use", "--none")
    assert [one["active"] for one in listed(cli)] == [False]


def test_show_tells_all_but_the_password(cli: Cli, ring: Ring, monkeypatch: pytest.MonkeyPatch) -> None:
    """The active daemon, or the one that is named; of a password, where it is kept."""
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{SECRET}\n"))
    assert cli("daemons", "add", "tcp://a:1", "--password-stdin", "--use").status == 0
    assert ring.kept == {("mobysession", "tcp://a:1"): SECRET}
    shown = cli("daemons", "show").out
    assert [line.split(maxsplit=1) for line in shown.splitlines()[:4]] == [
        ["address", "tcp://a:1"],
        ["active", "yes"],
        ["view", "not said"],
        ["password", "in keyring"],
    ]
    assert cli("daemons", "show", "a:1").out == shown
    assert SECRET not in shown + cli("daemons", "ls", "--json").out + cli("daemons", "show", "--json").out


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["show"], 2, "no daemon is active"),
        (["show", "tcp://x:1"], 2, "no daemon is remembered at tcp://x:1"),
        (["use", "tcp://x:1"], 2, "no daemon is remembered at tcp://x:1"),
        (["use"], 2, "either an address or --none"),
        (["use", "tcp://x:1", "--none"], 2, "either an address or --none"),
        (["rm", "tcp://x:1"], 2, "no daemon is remembered at tcp://x:1"),
        (["add", "ftp://x"], 1, "'ftp' is not a way to reach a Docker daemon"),
        (["add", "tcp://x:1", "--view", "cinema"], 2, "there is no view 'cinema'"),
    ],
)
def test_what_makes_no_sense_is_refused(cli: Cli, arguments: list[str], status: int, said: str) -> None:
    """Each mistake is one line that names it, and the status says whose it is."""
    ran = cli("daemons", *arguments)
    assert (ran.status, ran.out) == (status, "")
    assert said in ran.err


def test_a_password_without_a_key_ring(cli: Cli, monkeypatch: pytest.MonkeyPatch, docker_config: Path) -> None:
    """It is refused with a hint, and the daemon is not remembered."""
    keyring.set_keyring(keyring.backends.fail.Keyring())
    monkeypatch.setattr("sys.stdin", io.StringIO(SECRET))
    status, out, err = cli("daemons", "add", "tcp://a:1", "--password-stdin")
    assert (status, out) == (1, "")
    assert "nowhere to keep a password" in err
    assert "hint: Install mobysession[keyring]" in err
    assert listed(cli) == []


def test_the_other_verbs_go_to_the_active_daemon(cli: Cli) -> None:
    """Where nothing names a daemon, it is the one that is used; ``--context default`` is the default all the same."""
    with BlockingFakeDaemon() as daemon:
        cli("daemons", "add", daemon.host, "--use")
        endpoint = json.loads(cli("probe", "--json").out)["endpoint"]
        assert (endpoint["url"], endpoint["source"]) == (daemon.host, "active daemon")
        assert "/var/run/docker.sock" in cli("--context", "default", "probe").err


def test_its_view_is_the_default_of_progress(cli: Cli, context: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The view of the active daemon is used where neither an option nor BUILDKIT_PROGRESS says another."""
    with BlockingFakeDaemon() as daemon:
        cli("daemons", "add", daemon.host, "--use", "--view", "quiet")
        build = ("build", str(context), "--secret", "id=token,src=/dev/null")
        assert "#1 " not in cli(*build).err
        assert "#1 " in cli(*build, "--progress", "plain").err
        assert "#1 " in cli("--host", daemon.host, *build).err
        monkeypatch.setenv("BUILDKIT_PROGRESS", "plain")
        assert "#1 " in cli(*build).err


def test_a_newer_memory_is_told_in_one_line(cli: Cli) -> None:
    """A database of a newer version is an error with a hint, and stays."""
    cli("daemons", "add", "tcp://a:1")
    connection = sqlite3.connect(state_path())
    connection.execute("PRAGMA user_version = 1000")
    connection.commit()
    connection.close()
    status, out, err = cli("daemons", "ls")
    assert (status, out) == (1, "")
    assert "was made by a newer mobysession: it has version 1000" in err
    assert "hint: Use the newer one" in err
