"""`ClientState`: the user, the daemons, and where their passwords are."""

from __future__ import annotations

import getpass
import json
import os
import stat
import sys
import threading
import time
from typing import Any

import keyring
import keyring.backend
import keyring.backends.fail
import pytest

from mobysession import limits
from mobysession.errors import CredentialError, EndpointError, UsageError
from mobysession.identity import node_id
from mobysession.state.client import ClientState
from mobysession.state.store import open_store

SECRET = "correct horse battery staple"


class Ring(keyring.backend.KeyringBackend):
    """A key ring in memory."""

    priority = 1

    def __init__(self):
        super().__init__()
        self.kept = {}
        self.fails = False

    def get_password(self, service, username):
        if self.fails:
            raise RuntimeError(f"it quotes {SECRET}")
        return self.kept.get((service, username))

    def set_password(self, service, username, password):
        self.kept[service, username] = password

    def delete_password(self, service, username):
        del self.kept[service, username]


@pytest.fixture(autouse=True)
def no_ring():
    """Let no test see the key ring of whoever runs it."""
    before = keyring.get_keyring()
    keyring.set_keyring(keyring.backends.fail.Keyring())
    yield
    keyring.set_keyring(before)


@pytest.fixture
def ring():
    """Give a key ring that works."""
    ring = Ring()
    keyring.set_keyring(ring)
    return ring


@pytest.fixture
def helper(docker_config, tmp_path, monkeypatch):
    """Give the file in which a docker credential helper keeps what it is given; config.json names the helper."""
    kept = tmp_path / "kept.json"
    program = tmp_path / "docker-credential-mine"
    program.write_text(
        f"#!{sys.executable}\n"
        "import json, pathlib, sys\n"
        f"file = pathlib.Path({str(kept)!r})\n"
        "kept = json.loads(file.read_text()) if file.exists() else {}\n"
        "said = sys.stdin.read()\n"
        "if sys.argv[1] == 'store':\n"
        "    entry = json.loads(said)\n"
        "    kept[entry['ServerURL']] = entry\n"
        "elif said not in kept:\n"
        "    sys.exit(print('credentials not found in native keychain') or 1)\n"
        "elif sys.argv[1] == 'erase':\n"
        "    del kept[said]\n"
        "else:\n"
        "    print(json.dumps(kept[said]))\n"
        "file.write_text(json.dumps(kept))\n"
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    (docker_config / "config.json").write_text('{"credsStore": "mine"}')
    return kept


async def test_the_user_is_remembered():
    """Node ID as BuildKit has it, a name, and when all began, which stays."""
    before = time.time()
    async with ClientState() as client:
        first = client.user
    async with ClientState() as client:
        assert client.user == first
    assert (first.node_id, first.name) == (node_id(), getpass.getuser())
    assert before <= first.created <= time.time()


async def test_two_that_begin_at_once_agree_on_the_user():
    """The one that is stored first is right."""
    async with open_store() as one, open_store() as two:
        # Nothing is written by itself, so that both begin with nothing stored.
        one.wake = two.wake = lambda: None  # type: ignore[method-assign]  # of these two alone
        async with ClientState(store=one) as here, ClientState(store=two) as there:
            first = there.user
            assert here.user != first
            await there.state.flush()
            await here.state.flush()
            assert here.user == there.user == first


async def test_a_reference_is_new_or_refreshed():
    """What is given replaces what was, what is not given stays, and the access counts."""
    async with ClientState() as client:
        first = await client.register_reference("ssh://me@box", view="plain")
        assert (first.address, first.view, first.password) == ("ssh://me@box", "plain", None)
        again = await client.register_reference("ssh://me@box")
        assert (again.view, again.last_accessed > first.last_accessed) == ("plain", True)
        assert (await client.register_reference("ssh://me@box", view="tty")).view == "tty"
        assert len(client.daemons) == 1
    async with ClientState() as client:
        assert [reference.view for reference in client.daemons] == ["tty"]


async def test_the_latest_access_comes_first():
    """Handing a reference out, choosing it and registering it are accesses; looking is none."""
    async with ClientState() as client:
        for address in ("tcp://a:1", "tcp://b:1", "tcp://c:1"):
            await client.register_reference(address)
        await client.get_reference("tcp://b:1")
        client.set_active("tcp://a:1")
        assert client.find("tcp://c:1") is not None
        assert [reference.address for reference in client.daemons] == ["tcp://a:1", "tcp://b:1", "tcp://c:1"]


async def test_an_address_is_the_same_in_any_spelling():
    """A reference is found by what its address means."""
    async with ClientState() as client:
        await client.register_reference("tcp://box:2375")
        await client.register_reference("box")
        assert (await client.get_reference("tcp://box")).address == "tcp://box:2375"
        client.set_active("tcp://box/")
        assert client.is_active("box:2375")


async def test_a_malformed_address_is_refused():
    """What `--host` would not take is not remembered."""
    async with ClientState() as client:
        with pytest.raises(EndpointError, match="is not a way to reach"):
            await client.register_reference("ftp://box")
        assert client.daemons == ()


async def test_one_reference_is_active():
    """`set_active` chooses it, or none; one that is removed is not active any more."""
    async with ClientState() as client:
        for address in ("tcp://a:1", "tcp://b:1"):
            await client.register_reference(address)
        assert (client.active, client.is_active("tcp://a:1")) == (None, False)
        client.set_active("tcp://a:1")
        assert client.active is not None
        assert (client.active.address, client.is_active("tcp://a:1"), client.is_active("tcp://b:1")) == (
            *("tcp://a:1", True, False),
        )
        await client.remove_reference("tcp://b:1")
        assert client.is_active("tcp://a:1")
        await client.remove_reference("tcp://a:1")
        assert client.active is None
        assert client.daemons == ()
        await client.register_reference("tcp://a:1")
        client.set_active("tcp://a:1")
        client.set_active(None)
        assert client.active is None


async def test_what_is_not_remembered():
    """Handing out, choosing and removing an unknown reference is a UsageError that names it."""
    async with ClientState() as client:
        for call in (client.get_reference, client.remove_reference):
            with pytest.raises(UsageError, match="no daemon is remembered at tcp://a:1"):
                await call("tcp://a:1")
        with pytest.raises(UsageError, match="no daemon is remembered"):
            client.set_active("nonsense://")
        assert (client.is_active("nonsense://"), client.find("tcp://a:1")) == (False, None)


async def test_another_persistence_name_is_another_memory():
    """Under a name of its own a program has references of its own."""
    async with ClientState() as client:
        await client.register_reference("tcp://a:1")
    async with ClientState("tool") as client:
        assert client.daemons == ()


async def test_changes_are_observable():
    """Subscribers of the state below hear of references and of the active one."""
    async with ClientState() as client:
        heard: list[Any] = []
        client.state.key("active").on(heard.append)
        await client.register_reference("tcp://a:1")
        client.set_active("tcp://a:1")
        assert heard == ["tcp://a:1"]


async def test_a_password_is_in_the_key_ring_and_nowhere_else(ring, database_path):
    """`get_reference` hands it out; neither the database nor a text has it; it goes with its reference."""
    async with ClientState() as client:
        made = await client.register_reference("tcp://a:1", password=SECRET)
        assert (made.password, made.password_in) == (SECRET, "keyring")
        assert ring.kept == {("mobysession", "tcp://a:1"): SECRET}
        await client.state.flush()
        assert SECRET not in repr((made, client.daemons, client.state.get()))
        assert all(SECRET.encode() not in file.read_bytes() for file in database_path.parent.iterdir())
    async with ClientState() as client:
        assert client.daemons[0].password is None
        assert (await client.get_reference("tcp://a:1")).password == SECRET
        await client.remove_reference("tcp://a:1")
        assert ring.kept == {}


async def test_without_a_key_ring_a_helper_keeps_it(helper, database_path):
    """The credential helper of config.json is given it under a URL of ours, asked for it, and told to forget it."""
    async with ClientState() as client:
        made = await client.register_reference("ssh://me@box", password=SECRET)
        assert (made.password, made.password_in) == (SECRET, "docker-credential-mine")
        (url,) = json.loads(helper.read_text())
        assert url == "https://daemon.mobysession.invalid/ssh%3A%2F%2Fme%40box"
        await client.remove_reference("ssh://me@box")
        assert json.loads(helper.read_text()) == {}
    assert SECRET.encode() not in database_path.read_bytes()


async def test_a_helper_that_has_forgotten(helper):
    """A password that is gone is None, and removing its reference works."""
    async with ClientState() as client:
        await client.register_reference("tcp://a:1", password=SECRET)
        helper.write_text("{}")
        assert (await client.get_reference("tcp://a:1")).password is None
        await client.remove_reference("tcp://a:1")


async def test_with_neither_a_password_is_refused():
    """The error says what to install, and nothing is remembered."""
    async with ClientState() as client:
        with pytest.raises(CredentialError, match="there is nowhere to keep a password") as caught:
            await client.register_reference("tcp://a:1", password=SECRET)
        assert "Install mobysession[keyring]" in str(caught.value.hint)
        assert client.daemons == ()


@pytest.mark.parametrize("password", ["", "x" * (16 * 1024 + 1)])
async def test_a_password_has_bounds(ring, password):
    """An empty one, and one over the bound, are refused."""
    async with ClientState() as client:
        with pytest.raises(UsageError, match="a password has 1 to 16384 bytes"):
            await client.register_reference("tcp://a:1", password=password)


async def test_what_keeps_passwords_may_fail(ring, helper):
    """Its failure is told by its kind, without what it says, which may quote a password."""
    async with ClientState() as client:
        await client.register_reference("tcp://a:1", password=SECRET)
        ring.fails = True
        with pytest.raises(CredentialError, match="the key ring failed with RuntimeError") as caught:
            await client.get_reference("tcp://a:1")
        assert caught.value.__cause__ is None
        keyring.set_keyring(keyring.backends.fail.Keyring())
        await client.register_reference("tcp://b:1", password=SECRET)
        program = helper.parent / "docker-credential-mine"
        program.write_text(f"#!/bin/sh\necho {SECRET}\nexit 3\n")
        with pytest.raises(CredentialError, match="docker-credential-mine failed with exit status 3") as caught:
            await client.get_reference("tcp://b:1")
        assert SECRET not in f"{caught.value} {caught.value.hint}"
        program.write_text(f"#!/bin/sh\necho {SECRET}\n")
        with pytest.raises(CredentialError, match="did not print credentials"):
            await client.get_reference("tcp://b:1")
        program.write_text("#!/bin/sh\nyes\n")
        with pytest.raises(CredentialError, match="printed more than 65536 bytes"):
            await client.get_reference("tcp://b:1")
        program.unlink()
        with pytest.raises(CredentialError, match="cannot be started"):
            await client.remove_reference("tcp://b:1")
        assert client.find("tcp://b:1") is not None


async def test_a_key_ring_that_nobody_unlocks(ring, monkeypatch):
    """It gets its time, and the error says what to do; without its package the error says what to install."""
    unlocked = threading.Event()
    async with ClientState() as client:
        await client.register_reference("tcp://a:1", password=SECRET)
        # No clock that jumps: it would not wait for the threads in which all else is done.
        monkeypatch.setattr(limits, "KEYRING_TIMEOUT", 0.05)
        monkeypatch.setattr(ring, "get_password", lambda *_: unlocked.wait())
        with pytest.raises(CredentialError, match="the key ring did not answer within") as caught:
            await client.get_reference("tcp://a:1")
        assert "Unlock it" in str(caught.value.hint)
        unlocked.set()
        monkeypatch.setattr(limits, "KEYRING_TIMEOUT", 30)
        monkeypatch.setitem(sys.modules, "keyring", None)
        with pytest.raises(CredentialError, match="key rings take the package keyring"):
            await client.get_reference("tcp://a:1")


async def test_a_helper_that_hangs_is_killed(helper, autojump_clock):
    """It gets the time that every credential helper gets."""
    async with ClientState() as client:
        (helper.parent / "docker-credential-mine").write_text("#!/bin/sh\nexec sleep 1000\n")
        with pytest.raises(CredentialError, match="docker-credential-mine did not answer within 30 s"):
            await client.register_reference("tcp://b:1", password=SECRET)
        assert client.daemons == ()


async def test_only_the_user_may_read_what_is_remembered(database_path):
    """The database that a client's state makes is private, as every one."""
    async with ClientState() as client:
        await client.register_reference("tcp://a:1")
    assert stat.S_IMODE(database_path.stat().st_mode) == 0o600


async def test_a_view_that_there_is_not_is_refused():
    """It would be that of every build on the daemon; nothing is remembered."""
    async with ClientState() as client:
        with pytest.raises(UsageError, match="there is no view 'cinema'"):
            await client.register_reference("tcp://box", view="cinema")
        assert client.daemons == ()
        assert (await client.register_reference("tcp://box", view="rawjson")).view == "rawjson"
        assert (await client.register_reference("tcp://box", view="none")).view == "none"
