"""The daemon that is used where nobody names one, and what it costs to look."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys
import time
from contextlib import suppress

import pytest

from mobysession import limits
from mobysession.errors import StateCorrupt
from mobysession.state.active import choose_endpoint, find_endpoint
from mobysession.state.client import ClientState
from mobysession.state.location import runtime_directory, state_directory, state_path
from mobysession.transport.address import DEFAULT_SOCKET

DEFAULT = f"unix://{DEFAULT_SOCKET}"


async def remember(address="tcp://box:1", **options):
    async with ClientState() as client:
        await client.register_reference(address, **options)
        client.set_active(address)


async def test_the_active_reference_stands_in_for_the_default():
    """Where nothing names a daemon it is the active one, and says so; its view comes with it."""
    await remember(view="plain")
    choice = choose_endpoint()
    assert (choice.endpoint.url, choice.endpoint.source) == ("tcp://box:1", "active daemon")
    assert choice.reference is not None
    assert choice.reference.view == "plain"
    assert find_endpoint() == choice.endpoint


@pytest.mark.parametrize(
    ("variables", "options", "url"),
    [
        ({"DOCKER_HOST": "tcp://env:1"}, {}, "tcp://env:1"),
        ({}, {"host": "tcp://host:1"}, "tcp://host:1"),
        ({}, {"context": "default"}, DEFAULT),
        ({"DOCKER_CONTEXT": "default"}, {}, DEFAULT),
    ],
)
async def test_what_is_named_wins(monkeypatch, variables, options, url):
    """A host, a variable, and also the context ``default``, are what the docker CLI would use; so do we."""
    await remember()
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    choice = choose_endpoint(**options)
    assert (choice.endpoint.url, choice.reference) == (url, None)


async def test_a_current_context_wins(docker_config):
    """``currentContext`` in config.json names a daemon, or the default."""
    await remember()
    (docker_config / "config.json").write_text('{"currentContext": "default"}')
    assert find_endpoint().url == DEFAULT


async def test_without_an_active_reference_it_is_the_default():
    """References alone change nothing."""
    async with ClientState() as client:
        await client.register_reference("tcp://box:1")
    choice = choose_endpoint()
    assert (choice.endpoint.url, choice.endpoint.source, choice.reference) == (DEFAULT, "default socket", None)


async def test_tls_and_headers_are_as_for_any_host(monkeypatch, docker_config):
    """The active daemon is spoken to as one in DOCKER_HOST would be."""
    await remember()
    (docker_config / "config.json").write_text('{"HttpHeaders": {"X-A": "b"}}')
    monkeypatch.setenv("DOCKER_TLS_VERIFY", "1")
    found = find_endpoint()
    assert (found.url, found.tls is not None, found.headers) == ("tcp://box:1", True, (("X-A", "b"),))


async def test_the_access_is_written_down_now_and_then(monkeypatch):
    """Using the active daemon is an access, which is not written again within the bound."""
    await remember()
    now = time.time()
    times = []
    for passed in (30, 61, 90):
        monkeypatch.setattr(time, "time", lambda passed=passed: now + passed)
        find_endpoint()
        async with ClientState() as client:
            times.append(client.daemons[0].last_accessed)
    assert times[0] < now + 30
    assert times[1:] == [now + 61] * 2


async def test_a_lock_does_not_keep_a_build_waiting(monkeypatch, database_path):
    """Where somebody holds the database, the daemon is found all the same, and the access is not written down."""
    from mobysession.state.database import Database

    await remember()
    later = time.time() + 100
    monkeypatch.setattr(time, "time", lambda: later)
    database = Database.open(database_path)
    with database.transaction():
        began = time.monotonic()
        assert find_endpoint().url == "tcp://box:1"
        assert time.monotonic() - began < limits.STATE_BUSY / 2
    database.close()
    async with ClientState() as client:
        assert client.daemons[0].last_accessed < later


async def test_a_damaged_memory_is_not_gone_around(database_path):
    """To build on another daemon than the active one could do harm: the error is raised, unless a daemon is named."""
    await remember()
    database_path.write_bytes(b"x" * 8192)
    with pytest.raises(StateCorrupt):
        find_endpoint()
    assert find_endpoint(host="tcp://host:1").url == "tcp://host:1"


def test_without_a_database_it_costs_one_look(monkeypatch, database_path):
    """One stat more than the docker CLI's own rules need, nothing is made, and sqlite3 is not loaded."""
    looks = []
    stat = os.stat

    def look(path, **options):
        looks.append(path)
        return stat(path, **options)

    monkeypatch.setattr(pathlib.Path, "stat", look)
    find_endpoint()
    assert looks.count(database_path) == 1
    assert not database_path.parent.exists()
    ask = (
        "import sys\nfrom mobysession.session.attach import EndpointDialer\nEndpointDialer()\n"
        "assert not {'sqlite3', 'platformdirs', 'keyring'} & set(sys.modules), 'loaded'"
    )
    done = subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


async def test_a_session_that_names_no_daemon_goes_to_the_active_one():
    """`Session` and `build` look where the command line looks."""
    from mobysession.session.attach import EndpointDialer

    await remember()
    assert EndpointDialer().endpoint.url == "tcp://box:1"


@pytest.mark.parametrize("named", [None, "", "/state", "relative"])
def test_the_directory_is_the_platforms(monkeypatch, named):
    """Where we put the path together ourselves it is the one that platformdirs says."""
    import platformdirs

    if named is not None:
        monkeypatch.setenv("XDG_STATE_HOME", named)
    assert state_directory() == platformdirs.user_state_path("mobysession", appauthor=False)
    assert state_path() == state_directory() / "memory.db"


def test_sockets_have_a_private_directory(monkeypatch, tmp_path, isolated_environment):
    """In XDG_RUNTIME_DIR, else beside the database, else in /tmp where the path would be too long; 0700 always."""
    assert runtime_directory() == state_directory() / "run"
    assert runtime_directory().stat().st_mode & 0o777 == 0o700
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    assert runtime_directory() == tmp_path / "mobysession"
    monkeypatch.setenv("XDG_RUNTIME_DIR", f"/{'x' * 100}")
    monkeypatch.setenv("XDG_STATE_HOME", f"/{'x' * 100}")
    last = runtime_directory()
    assert str(last) == f"/tmp/mobysession-{os.getuid()}"
    with suppress(OSError):  # sockets of whoever runs this are in it
        last.rmdir()


@pytest.mark.parametrize("kind", ["open", "link", "file"])
def test_a_directory_of_others_is_refused(monkeypatch, tmp_path, kind):
    """One that others may enter, a link, or no directory at all, is named with the way out."""
    from mobysession.errors import StateError

    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    directory = tmp_path / "mobysession"
    if kind == "open":
        directory.mkdir(mode=0o755)
    elif kind == "link":
        directory.symlink_to(tmp_path)
    else:
        directory.write_text("")
    with pytest.raises(StateError, match=str(directory)):
        runtime_directory()
