from __future__ import annotations

import base64
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import trio

from mobysession import limits
from mobysession.errors import CredentialError, UsageError
from mobysession.services.credentials import ANONYMOUS, Credentials, DockerCredentials, credential_source
from mobysession.services.kept_credentials import KeptCredentials

if TYPE_CHECKING:
    from collections.abc import Callable

HUB = "https://index.docker.io/v1/"


@pytest.fixture
def configure(docker_config):
    """Write config.json."""

    def configure(**fields):
        (docker_config / "config.json").write_text(json.dumps(fields))

    return configure


@pytest.fixture
def install(isolated_environment, monkeypatch):
    """Put a credential helper, written in Python, on a PATH that holds nothing else; return the file it may write."""
    folder = isolated_environment / "bin"
    folder.mkdir(parents=True)
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setenv("NOTES", str(folder / "notes"))

    def install(name: str, body: str) -> Path:
        path = folder / f"docker-credential-{name}"
        path.write_text(f"#!{sys.executable} -ISs\nimport os, sys\n{body}\n")
        path.chmod(0o755)
        return folder / "notes"

    return install


def _auth(user: str, password: str) -> dict[str, str]:
    return {"auth": base64.b64encode(f"{user}:{password}".encode()).decode()}


def _prints(username: str, secret: str) -> str:
    return f"print({json.dumps(json.dumps({'Username': username, 'Secret': secret}))})"


async def test_no_configuration_is_anonymous():
    """Without a docker configuration every registry is asked without credentials."""
    assert await DockerCredentials().lookup("registry.example") == ANONYMOUS


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        (_auth("user", "pa:ss"), Credentials("user", "pa:ss")),
        ({"username": "user", "password": "pass"}, Credentials("user", "pass")),
        ({**_auth("user", "pass"), "identitytoken": "id"}, Credentials("", "id")),
        ({"registrytoken": "token"}, Credentials("", "", "token")),
        ({**_auth("user", "pass"), "registrytoken": "token"}, Credentials("user", "pass", "token")),
        ({}, ANONYMOUS),
    ],
)
async def test_plain_logins(configure, entry, expected):
    """Each kind of entry in auths gives what the reference sends for it."""
    configure(auths={"registry.example:5000": entry})
    assert await DockerCredentials().lookup("registry.example:5000") == expected


@pytest.mark.parametrize("other", ["registry.example:5001", "registry.example", "sub.registry.example:5000", "example"])
async def test_other_hosts_get_nothing(configure, other):
    """A login counts for its own host and port, and for no others."""
    configure(auths={"registry.example:5000": _auth("user", "pass")})
    assert await DockerCredentials().lookup(other) == ANONYMOUS


async def test_docker_hub_is_found_under_its_key(configure):
    """The engine's registry-1.docker.io is the docker CLI's https://index.docker.io/v1/."""
    configure(auths={HUB: _auth("user", "pass")})
    assert await DockerCredentials().lookup("registry-1.docker.io") == Credentials("user", "pass")


async def test_a_helper_is_asked_for_its_key(configure, install):
    """The helper gets the action as argument and the key on stdin, and its answer counts instead of the plain entry."""
    notes = install(
        "keys", f"open(os.environ['NOTES'], 'w').write(f'{{sys.argv[1:]}} {{sys.stdin.read()}}')\n{_prints('u', 's')}"
    )
    configure(auths={HUB: _auth("user", "pass")}, credsStore="keys")
    assert await DockerCredentials().lookup("registry-1.docker.io") == Credentials("u", "s")
    assert notes.read_text() == f"['get'] {HUB}"


async def test_a_registry_token_stands_beside_a_helper(configure, install):
    """A helper's answer takes the place of a login, and not of a token; docker's CLI does the same."""
    install("keys", "print('credentials not found in native keychain'); sys.exit(1)")
    install("full", _prints("u", "s"))
    auths = {"a.example": {"registrytoken": "a"}, "b.example": {**_auth("x", "y"), "registrytoken": "b"}}
    configure(auths=auths, credsStore="keys", credHelpers={"b.example": "full"})
    assert await DockerCredentials().lookup("a.example") == Credentials("", "", "a")
    assert await DockerCredentials().lookup("b.example") == Credentials("u", "s", "b")


async def test_a_helper_of_one_registry_goes_before_the_store(configure, install):
    """A helper in credHelpers decides for its hosts, credsStore for the others."""
    install("one", _prints("one", "1"))
    install("all", _prints("all", "2"))
    configure(credsStore="all", credHelpers={"registry.example": "one"})
    source = DockerCredentials()
    assert await source.lookup("registry.example") == Credentials("one", "1")
    assert await source.lookup("other.example") == Credentials("all", "2")


async def test_a_token_user_marks_an_identity_token(configure, install):
    """The user name <token> disappears, and the secret stands alone."""
    install("keys", _prints("<token>", "identity"))
    configure(credsStore="keys")
    assert await DockerCredentials().lookup("registry.example") == Credentials("", "identity")


async def test_a_helper_without_a_login_is_anonymous(configure, install):
    """The one sentence for "nothing here" is no failure, and the plain entry is no fallback."""
    install("keys", "print('credentials not found in native keychain'); sys.exit(1)")
    configure(auths={"registry.example": _auth("user", "pass")}, credsStore="keys")
    assert await DockerCredentials().lookup("registry.example") == ANONYMOUS


async def test_the_platform_store_is_used_where_nothing_is_configured(install):
    """Without any configuration an installed native helper is asked."""
    install("secretservice", _prints("native", "n"))
    assert await DockerCredentials().lookup("registry.example") == Credentials("native", "n")


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("print('the vault is sealed'); sys.exit(1)", "failed with exit status 1: the vault is sealed"),
        ("sys.exit(3)", "failed with exit status 3: it printed no reason"),
        ("print('no credentials server URL'); sys.exit(1)", "failed with exit status 1: no credentials server URL"),
        ("print('it is sealed\\nhunter2'); sys.exit(1)", "failed with exit status 1: it is sealed"),
        ("print('ab ' * 5000); sys.exit(1)", f"failed with exit status 1: {'ab ' * 100}…"),
        (
            "print('vault.example.com: exit status 1'); sys.exit(1)",
            "failed with exit status 1: vault.example.com: exit status 1",
        ),
        *(
            (
                f"print({printed!r}); sys.exit(1)",
                "failed with exit status 1: what it printed may hold credentials and is not shown",
            )
            for printed in (
                '{"ServerURL": "x", "Username": "u", "Secret": "hunter2"}',
                '{"secret":"hunter2"}',
                "token=hunter2",
                "user:hunter2",
                "the value is hunter2",
                "the password is hunter",
                "dXNlcjpodW50ZXIy is refused",
                "hunter",
                "a \x1b[31mb",
            )
        ),
        ("os.kill(os.getpid(), 9)", "failed with signal 9: it printed no reason"),
        ("print('hunter2')", "did not print credentials"),
        ("pass", "did not print credentials"),
        ("print('[1]')", "did not print credentials"),
        ('print(\'{"Username": "hunter2"}\')', "did not print credentials"),
        ('print(\'{"Username": "u", "Secret": 7}\')', "did not print credentials"),
        ("os.write(1, b'{\\xff')", "did not print credentials"),
        ("print('[' * 60000)", "did not print credentials"),
        (
            "while True: os.write(1, b'hunter2 ' * 512)",
            f"printed more than {limits.CREDENTIAL_HELPER_OUTPUT} bytes",
        ),
    ],
)
async def test_a_failing_helper_is_named(configure, install, docker_config, body, reason):
    """Whatever a helper does wrong is an error naming helper, registry and file; output is shown as a reason only."""
    install("keys", body)
    configure(credsStore="keys")
    with pytest.raises(CredentialError) as caught:
        await DockerCredentials().lookup("registry.example")
    prefix = f"docker-credential-keys, named for registry.example in {docker_config / 'config.json'},"
    assert caught.value.message == f"{prefix} {reason}"
    assert "hunter2" not in caught.value.message


@pytest.mark.parametrize("server", ["registry.example", "https://Registry.example:443/v2/", "", None])
async def test_a_helper_may_name_the_registry_otherwise(configure, install, server):
    """A scheme, a path, a port or upper case make no other registry; nor does a helper that does not say."""
    install("keys", f"print({json.dumps({'ServerURL': server, 'Username': 'u', 'Secret': 's'})!r})")
    configure(credsStore="keys")
    assert await DockerCredentials().lookup("registry.example") == Credentials("u", "s")


@pytest.mark.parametrize("server", ["other.example", "https://registry.example.com/", "sub.registry.example"])
async def test_the_login_of_another_registry_is_not_used(configure, install, server):
    """What a helper answers for another host than it was asked for is an error, which shows no secret."""
    install("keys", f"print({json.dumps({'ServerURL': server, 'Username': 'u', 'Secret': 'hunter2'})!r})")
    configure(credsStore="keys")
    with pytest.raises(CredentialError, match="answered with the login of another registry") as caught:
        await DockerCredentials().lookup("registry.example")
    assert "hunter2" not in str(caught.value)


async def test_a_login_of_a_path_counts_for_its_bare_host(configure):
    """As for docker's CLI, a key with a path is a login of its host where there is none of just the host."""
    configure(auths={"ghcr.io/org1": _auth("path", "p"), "https://quay.io/v1/": _auth("old", "p")})
    assert await DockerCredentials().lookup("ghcr.io") == Credentials("path", "p")
    assert await DockerCredentials().lookup("quay.io") == Credentials("old", "p")
    configure(auths={"ghcr.io/org1": _auth("path", "p"), "ghcr.io": _auth("host", "p")})
    assert await DockerCredentials().lookup("ghcr.io") == Credentials("host", "p")


@pytest.mark.parametrize("asked", ["ghcr.io/zzz", "https://ghcr.io", "http://ghcr.io/x", "index.docker.io/evil"])
async def test_what_is_asked_for_is_not_cut_down_to_a_host(configure, asked):
    """Only keys lose scheme and path when they are compared, not what is asked for."""
    configure(auths={"ghcr.io/org1": _auth("path", "p"), HUB: _auth("user", "pass")})
    assert await DockerCredentials().lookup(asked) == ANONYMOUS


@pytest.mark.parametrize("name", ["missing", "nul\0"])
async def test_a_helper_that_cannot_be_started(configure, install, name):
    """A missing helper, or one of an impossible name, is an error and not a crash."""
    configure(credsStore=name)
    with pytest.raises(CredentialError, match=r"is not installed|cannot be started"):
        await DockerCredentials().lookup("registry.example")


_HANG = """
child = os.fork()
if child == 0:
    import time
    while True: time.sleep(1000)
import time
open(os.environ['NOTES'] + '.new', 'w').write(f'{os.getpid()} {child}')
os.rename(os.environ['NOTES'] + '.new', os.environ['NOTES'])
while True: time.sleep(1000)
"""


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def _any_alive(notes: Path) -> bool:
    return any(map(_alive, map(int, notes.read_text().split())))


async def _until(condition: Callable[[], bool]) -> None:
    while not condition():
        await trio.lowlevel.checkpoint()


async def test_a_hanging_helper_is_killed_in_time(configure, install, mock_clock):
    """A helper that says nothing is killed, with its children, when its time is over, and not before."""
    notes = install("keys", _HANG)
    configure(credsStore="keys")

    async def look_up():
        with pytest.raises(CredentialError, match=r"did not answer within 30 s"):
            await DockerCredentials().lookup("registry.example")
        ended.set()

    ended = trio.Event()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(look_up)
        await _until(notes.exists)
        mock_clock.jump(limits.CREDENTIAL_HELPER_TIMEOUT - 1)
        await trio.lowlevel.checkpoint()
        assert not ended.is_set()
        mock_clock.jump(1)
    await _until(lambda: not _any_alive(notes))


async def test_cancelling_kills_the_helper(configure, install):
    """A cancelled lookup leaves no process behind, and the next lookup works."""
    notes = install("keys", _HANG)
    configure(credsStore="keys")
    source = DockerCredentials()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(source.lookup, "registry.example")
        await _until(notes.exists)
        nursery.cancel_scope.cancel()
    await _until(lambda: not _any_alive(notes))
    install("keys", _prints("u", "s"))
    assert await source.lookup("registry.example") == Credentials("u", "s")


async def test_a_helper_that_does_not_read_its_question(configure, install):
    """A helper that closes stdin before it was asked, here more than a pipe holds, may still answer."""
    install("keys", f"os.close(0)\n{_prints('u', 's')}")
    configure(credsStore="keys")
    assert await DockerCredentials().lookup("x" * 2 * limits.MIB) == Credentials("u", "s")


_COUNT = "open(os.environ['NOTES'], 'a').write('x')\n"


async def test_results_are_used_again(configure, install):
    """Any number of lookups for one registry, also at once, cost one run of the helper."""
    notes = install("keys", _COUNT + _prints("u", "s"))
    configure(credsStore="keys")
    source = DockerCredentials()
    async with trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(source.lookup, "registry.example")
    await source.lookup("registry.example")
    assert notes.read_text() == "x"


async def test_helpers_of_different_registries_do_not_wait_for_each_other(configure, install, tmp_path):
    """Each of two helpers ends only once the other runs: one after the other would never end."""
    body = "import time\nopen({mine!r}, 'w').close()\nwhile not os.path.exists({other!r}): time.sleep(0.01)\n"
    paths = [str(tmp_path / name) for name in "ab"]
    install("a", body.format(mine=paths[0], other=paths[1]) + _prints("a", "1"))
    install("b", body.format(mine=paths[1], other=paths[0]) + _prints("b", "2"))
    configure(credHelpers={"a.example": "a", "b.example": "b"})
    source = DockerCredentials(timeout=20)
    found = {}

    async def look(host):
        found[host] = await source.lookup(host)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(look, "a.example")
        nursery.start_soon(look, "b.example")
    assert found == {"a.example": Credentials("a", "1"), "b.example": Credentials("b", "2")}
    assert source._turns == {}


async def test_a_function_is_asked_once_for_each_registry(autojump_clock):
    """What several builds ask it for at once; registries do not wait for each other."""
    asked = []
    both = trio.Event()

    async def login(host):
        asked.append(host)
        if len(asked) == 2:
            both.set()
        with trio.fail_after(1):
            await both.wait()
        return host, "s"

    source = KeptCredentials(credential_source(login))
    found = []

    async def look(host):
        found.append((await source.lookup(host)).username)

    async with trio.open_nursery() as nursery:
        for host in ("a.example", "b.example") * 2:
            nursery.start_soon(look, host)
    assert sorted(asked) == ["a.example", "b.example"]
    assert sorted(found) == ["a.example", "a.example", "b.example", "b.example"]


async def test_a_keychain_that_may_hang_is_asked_one_at_a_time(configure, install, tmp_path):
    """macOS's helper runs once at a time, also for different registries."""
    there = str(tmp_path / "there")
    install(
        "osxkeychain",
        f"import time\nos.mkdir({there!r})\ntime.sleep(0.05)\nos.rmdir({there!r})\n{_prints('u', 's')}",
    )
    configure(credsStore="osxkeychain")
    source = DockerCredentials()
    async with trio.open_nursery() as nursery:
        for host in ("a.example", "b.example", "c.example"):
            nursery.start_soon(source.lookup, host)


async def test_old_results_are_not_used(configure, install):
    """After its time a result is looked up anew."""
    notes = install("keys", _COUNT + _prints("u", "s"))
    configure(credsStore="keys")
    source = DockerCredentials(cache_for=0)
    await source.lookup("registry.example")
    await source.lookup("registry.example")
    assert notes.read_text() == "xx"


async def test_failures_are_not_kept(configure, install):
    """A helper that failed is asked again."""
    install("keys", "sys.exit(1)")
    configure(credsStore="keys")
    source = DockerCredentials()
    with pytest.raises(CredentialError):
        await source.lookup("registry.example")
    install("keys", _prints("u", "s"))
    assert await source.lookup("registry.example") == Credentials("u", "s")


async def test_the_cache_is_bounded(monkeypatch):
    """Of the hosts that a peer names only so many are remembered."""
    monkeypatch.setattr(limits, "CREDENTIAL_CACHE_HOSTS", 2)
    source = DockerCredentials()
    for host in ("a", "b", "c", "c"):
        await source.lookup(host)
    assert list(source._cache) == ["b", "c"]


async def test_broken_configuration_names_the_file(docker_config):
    """A config.json that is not JSON is an error that names it and shows nothing of it."""
    (docker_config / "config.json").write_text('{"auths": {"registry.example": "hunter2"')
    with pytest.raises(CredentialError) as caught:
        await DockerCredentials().lookup("registry.example")
    assert str(docker_config / "config.json") in caught.value.message
    assert "hunter2" not in caught.value.message


async def test_another_directory_can_be_named(tmp_path):
    """The directory given counts instead of DOCKER_CONFIG."""
    (tmp_path / "config.json").write_text(json.dumps({"auths": {"registry.example": _auth("user", "pass")}}))
    assert await DockerCredentials(tmp_path).lookup("registry.example") == Credentials("user", "pass")


async def test_a_mapping_is_a_source():
    """Hosts of a mapping get their pairs, under any name of Docker Hub, and other hosts nothing."""
    source = credential_source({"docker.io": ("user", "pass"), "registry.example": Credentials("", "token")})
    assert await source.lookup("registry-1.docker.io") == Credentials("user", "pass")
    assert await source.lookup("registry.example") == Credentials("", "token")
    assert await source.lookup("other.example") == ANONYMOUS


@pytest.mark.parametrize("name", ["https://reg.example", "http://reg.example/v2/", "Reg.Example", "reg.example/team"])
async def test_a_mapping_names_hosts_as_a_configuration_does(name):
    """Their case, a scheme and a path do not matter; a bare host counts before them, wherever it stands."""
    login, other = ("user", "pass"), ("other", "pass")
    assert await credential_source({name: login}).lookup("reg.example") == Credentials(*login)
    if name.lower() != "reg.example":
        for both in ({name: other, "reg.example": login}, {"reg.example": login, name: other}):
            assert await credential_source(both).lookup("REG.example") == Credentials(*login)


@pytest.mark.parametrize("name", ["", "https://", "/team"])
def test_a_mapping_without_a_host_is_refused(name):
    """It would never be used."""
    with pytest.raises(UsageError, match="is no registry"):
        credential_source({name: ("user", "pass")})


async def _login_later(host):
    await trio.lowlevel.checkpoint()
    return host, "pass"


@pytest.mark.parametrize("function", [_login_later, lambda host: (host, "pass"), lambda host: _login_later(host)])
async def test_a_function_is_a_source(function):
    """Functions of every shape get the host and give a pair."""
    assert await credential_source(function).lookup("registry.example") == Credentials("registry.example", "pass")


async def test_a_function_without_a_login_is_anonymous():
    """None from a function means no credentials."""
    assert await credential_source(lambda host: None).lookup("registry.example") == ANONYMOUS


async def test_a_failing_function_is_not_quoted():
    """Its text may hold a password: only the kind of failure is told, and the failure itself is chained."""
    failure = KeyError("hunter2")

    def fail(host):
        raise failure

    with pytest.raises(CredentialError) as caught:
        await credential_source(fail).lookup("registry.example")
    assert caught.value.message == "the function for credentials of registry.example failed with KeyError"
    assert caught.value.__cause__ is failure


async def test_a_function_must_return_a_pair():
    """What is no pair of texts is refused by its type, without its content."""

    def give_text(host: str) -> Any:
        return "hunter2"

    with pytest.raises(CredentialError, match=r"registry\.example returned an object of type str"):
        await credential_source(give_text).lookup("registry.example")


@pytest.mark.parametrize("source", [7, "user:pass", {"registry.example": "hunter2"}, {"h": ("u",)}, lambda a, b: None])
def test_what_cannot_be_a_source(source):
    """A source that can never work is refused where it is given."""
    with pytest.raises(UsageError) as caught:
        credential_source(source)
    assert "hunter2" not in caught.value.message


async def test_reprs_show_no_secret(configure):
    """Neither credentials nor their sources show a password."""
    assert "hunter2" not in repr(Credentials("user", "hunter2"))
    assert "hunter2" not in repr(credential_source({"registry.example": ("user", "hunter2")}))
    assert repr(DockerCredentials("/etc/docker")) == "DockerCredentials('/etc/docker')"
