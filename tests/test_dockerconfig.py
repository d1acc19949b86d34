"""Reading config.json."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest

from mobysession import errors
from mobysession.dockerconfig import DOCKER_HUB_KEY, AuthEntry, DockerConfig, config_dir, config_key, load

SECRET = "swordfish"


def encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def read(directory: Path, document: object, **environ: str) -> DockerConfig:
    (directory / "config.json").write_text(document if isinstance(document, str) else json.dumps(document))
    return load(directory, environ=environ)


def test_the_directory_is_docker_config_or_in_the_home() -> None:
    """DOCKER_CONFIG names it; empty or unset, it is .docker in the home directory."""
    assert config_dir({"DOCKER_CONFIG": "/x/y", "HOME": "/home/me"}) == Path("/x/y")
    assert config_dir({"DOCKER_CONFIG": "", "HOME": "/home/me"}) == Path("/home/me/.docker")
    assert config_dir({}).name == ".docker"


def test_a_missing_file_is_an_empty_configuration(tmp_path: Path) -> None:
    """Nobody needs a config.json."""
    config = load(tmp_path / "nowhere", environ={})
    assert config.creds_store is None
    assert config.current_context is None
    assert config.http_headers == ()
    assert config.auth_entry("docker.io") is None
    assert config.proxy_arguments("unix:///x") == {}


def test_the_fields_are_read_whatever_their_case(tmp_path: Path) -> None:
    """Keys are found as Go finds them: exactly, else in any case; unknown ones do not matter."""
    config = read(
        tmp_path,
        {
            "CredsStore": "file",
            "credhelpers": {"r.example.com": "ecr"},
            "httpHeaders": {"X-Meta": "1", "X-Other": "2"},
            "currentContext": "box",
            "plugins": {"a": {"b": "c"}},
            "proxies": {"default": {"httpProxy": "http://p"}, "tcp://x": {"noProxy": "y"}},
        },
    )
    assert config.creds_store == "file"
    assert config.cred_helpers == {"r.example.com": "ecr"}
    assert config.http_headers == (("X-Meta", "1"), ("X-Other", "2"))
    assert config.current_context == "box"
    assert config.proxy_arguments("tcp://x") == {"NO_PROXY": "y", "no_proxy": "y"}
    assert config.proxy_arguments("tcp://y") == {"HTTP_PROXY": "http://p", "http_proxy": "http://p"}


@pytest.mark.parametrize("host", ["docker.io", "index.docker.io", "registry-1.docker.io", DOCKER_HUB_KEY])
def test_docker_hub_has_one_key(tmp_path: Path, host: str) -> None:
    """All names of Docker Hub find the login and the helper under the one key that docker login writes."""
    config = read(
        tmp_path, {"auths": {DOCKER_HUB_KEY: {"auth": encoded("me:pw")}}, "credHelpers": {DOCKER_HUB_KEY: "h"}}
    )
    assert config_key(host) == DOCKER_HUB_KEY
    assert config.auth_entry(host) == AuthEntry(username="me", password="pw")
    assert config.helper_for(host) == "h"


@pytest.mark.parametrize(
    "key",
    [
        "reg.example.com:5000",
        "https://reg.example.com:5000",
        "http://reg.example.com:5000/v1/",
        "reg.example.com:5000/v2",
    ],
)
def test_legacy_keys_match_by_their_host(tmp_path: Path, key: str) -> None:
    """An entry written as a URL counts for its host, and only for that one."""
    config = read(tmp_path, {"auths": {key: {"auth": encoded("me:pw")}}})
    assert config.auth_entry("reg.example.com:5000") == AuthEntry(username="me", password="pw")
    assert config.auth_entry("reg.example.com") is None
    assert config.auth_entry("example.com:5000") is None


def test_an_exact_key_comes_before_a_legacy_one(tmp_path: Path) -> None:
    """Of two entries for a host the exact one counts, wherever it stands."""
    auths = {"https://r.example.com/v1/": {"auth": encoded("old:x")}, "r.example.com": {"auth": encoded("new:x")}}
    entry = read(tmp_path, {"auths": auths}).auth_entry("r.example.com")
    assert entry is not None
    assert entry.username == "new"


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ({"auth": encoded("me:a:b")}, AuthEntry(username="me", password="a:b")),
        ({"auth": encoded("me:\0pw\0")}, AuthEntry(username="me", password="pw")),
        ({"auth": encoded("me:")}, AuthEntry(username="me")),
        ({"auth": encoded("a:b"), "username": "x", "password": "y"}, AuthEntry(username="a", password="b")),
        ({"username": "x", "password": "y"}, AuthEntry(username="x", password="y")),
        ({"identitytoken": "t"}, AuthEntry(identity_token="t")),
        ({"registrytoken": "t", "email": "e"}, AuthEntry(registry_token="t")),
        ({"auth": None, "password": None}, AuthEntry()),
        ({}, AuthEntry()),
    ],
)
def test_an_entry_is_decoded_as_docker_decodes_it(tmp_path: Path, entry: object, expected: AuthEntry) -> None:
    """``auth`` wins over user and password, is cut at its first colon and trimmed of NULs; tokens stand beside it."""
    config = read(tmp_path, {"auths": {"r": entry}})
    assert config.auth_entry("r") == expected


@pytest.mark.parametrize(
    "entry",
    [
        SECRET,
        [SECRET],
        None,
        {"auth": SECRET + "*"},
        {"auth": encoded(SECRET)},
        {"auth": encoded(":" + SECRET)},
        {"auth": base64.b64encode(b"\xff:" + SECRET.encode()).decode()},
        {"auth": "ä" + SECRET},
        {"auth": [SECRET]},
        {"password": {"x": SECRET}},
    ],
)
def test_a_broken_entry_is_told_without_showing_it(tmp_path: Path, entry: object) -> None:
    """The error names registry and file, nothing of the entry, and only who asks for that registry gets it."""
    config = read(tmp_path, {"auths": {"bad.example.com": entry, "good": {"username": "me"}}})
    assert config.auth_entry("good") == AuthEntry(username="me")
    with pytest.raises(errors.CredentialError) as caught:
        config.auth_entry("bad.example.com")
    assert "bad.example.com" in str(caught.value)
    assert str(tmp_path / "config.json") in str(caught.value)
    assert "docker login bad.example.com" in str(caught.value.hint)
    assert SECRET not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


def test_no_secret_is_in_a_repr(tmp_path: Path) -> None:
    """Neither the configuration nor an entry shows passwords, tokens, headers or proxies with passwords."""
    config = read(
        tmp_path,
        {
            "auths": {"r": {"username": "me", "password": SECRET, "identitytoken": SECRET, "registrytoken": SECRET}},
            "HttpHeaders": {"Authorization": SECRET},
            "proxies": {"default": {"httpProxy": f"http://u:{SECRET}@p"}},
        },
        DOCKER_AUTH_CONFIG=json.dumps({"auths": {"q": {"auth": encoded(f"me:{SECRET}")}}}),
    )
    assert SECRET not in repr(config)
    assert encoded(f"me:{SECRET}") not in repr(config)
    assert SECRET not in repr(config.auth_entry("r"))
    assert SECRET not in repr(config.auth_entry("q"))


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ("{", "not JSON"),
        (f'{{"auths": {{"r": {{"password": "{SECRET}"', "not JSON, line 1"),
        ("[1]", "JSON object"),
        ('{"a":' * 200_000, "not JSON"),
        ("\udcff", "not JSON"),
        ({"auths": [SECRET]}, "auths in"),
        ({"credsStore": 1}, "credsStore in"),
        ({"credHelpers": {"r": 1}}, "credHelpers.r in"),
        ({"HttpHeaders": {"r": [SECRET]}}, "HttpHeaders.r in"),
        ({"proxies": {"default": {"httpProxy": 3}}}, "proxies.default.httpProxy in"),
        ({"currentContext": {}}, "currentContext in"),
    ],
)
def test_a_broken_file_is_named_with_the_key(tmp_path: Path, document: object, words: str) -> None:
    """The error names the file and the key, never a value, and does not carry the document."""
    path = tmp_path / "config.json"
    text = document if isinstance(document, str) else json.dumps(document)
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(errors.EndpointError) as caught:
        load(tmp_path, environ={})
    assert words in str(caught.value)
    assert str(path) in str(caught.value)
    assert SECRET not in str(caught.value)
    assert caught.value.__cause__ is None


def test_an_unreadable_file_is_told(tmp_path: Path) -> None:
    """What is there and cannot be read is an error that says why; here a directory, which also root cannot read."""
    (tmp_path / "config.json").mkdir()
    with pytest.raises(errors.EndpointError, match="cannot be read: Is a directory"):
        load(tmp_path, environ={})


def test_a_registrys_own_helper_comes_before_the_store(tmp_path: Path) -> None:
    """credHelpers wins over credsStore; an empty helper means that the plain entry counts."""
    config = read(tmp_path, {"credsStore": "all", "credHelpers": {"a": "one", "b": ""}})
    assert config.helper_for("a") == "one"
    assert config.helper_for("b") is None
    assert config.helper_for("c") == "all"


def test_an_empty_configuration_takes_the_native_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without any login or helper the platform's store is asked, if its helper is installed; with one, never."""
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert load(tmp_path).helper_for("r") is None
    for name in ("docker-credential-secretservice", "docker-credential-pass"):
        (tmp_path / name).touch(mode=0o755)
    assert load(tmp_path).helper_for("r") == "secretservice"
    (tmp_path / "pass").touch(mode=0o755)
    assert load(tmp_path).helper_for("r") == "pass"
    assert read(tmp_path, {"auths": {"r": {}}}).helper_for("r") is None


def test_logins_from_the_environment_win(tmp_path: Path) -> None:
    """DOCKER_AUTH_CONFIG wins over the file and its helpers, for the registries that it lists."""
    config = read(
        tmp_path,
        {"auths": {"a": {"username": "file"}, "b": {"username": "file"}}, "credsStore": "all"},
        DOCKER_AUTH_CONFIG=json.dumps({"auths": {"a": {"auth": encoded("env:pw")}}}),
    )
    assert config.auth_entry("a") == AuthEntry(username="env", password="pw")
    assert config.helper_for("a") is None
    assert config.auth_entry("b") == AuthEntry(username="file")
    assert config.helper_for("b") == "all"


@pytest.mark.parametrize(
    "value",
    [
        SECRET,
        "[]",
        "{}",
        '{"auths":[]}',
        '{"auths":{"a":{}}}',
        '{"auths":{"a":{"auth":"YTpi"}},"x":1}',
        '{"auths":{}} {}',
    ],
)
def test_a_malformed_variable_is_ignored_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, value: str
) -> None:
    """A DOCKER_AUTH_CONFIG of another form is ignored as a whole, and said without its value."""
    config = read(tmp_path, {"auths": {"a": {"username": "file"}}}, DOCKER_AUTH_CONFIG=value)
    assert config.auth_entry("a") == AuthEntry(username="file")
    assert "DOCKER_AUTH_CONFIG is ignored" in caplog.text
    assert SECRET not in caplog.text


def test_headers_from_the_environment_replace_those_of_the_file(tmp_path: Path) -> None:
    """DOCKER_CUSTOM_HEADERS is comma-separated, with CSV's quotes, and replaces HttpHeaders."""
    config = read(tmp_path, {"HttpHeaders": {"X": "file"}}, DOCKER_CUSTOM_HEADERS='A=1,"B=x,y",C=a=b')
    assert config.http_headers == (("A", "1"), ("B", "x,y"), ("C", "a=b"))
    with pytest.raises(errors.EndpointError, match="DOCKER_CUSTOM_HEADERS"):
        read(tmp_path, {}, DOCKER_CUSTOM_HEADERS="novalue")
    with pytest.raises(errors.EndpointError, match="DOCKER_CUSTOM_HEADERS"):
        read(tmp_path, {}, DOCKER_CUSTOM_HEADERS="A=1\rB=2")
