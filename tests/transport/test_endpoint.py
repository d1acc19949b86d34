"""Finding the daemon as the docker CLI does."""

from __future__ import annotations

import hashlib
import json
import logging
from typing import TYPE_CHECKING

import pytest

from mobysession import errors
from mobysession.transport import endpoint as endpoint_module
from mobysession.transport.contexts import context_id
from mobysession.transport.endpoint import Endpoint
from mobysession.transport.tls import TLSConfig

if TYPE_CHECKING:
    from pathlib import Path


def add_context(config_dir: Path, name: str, meta: object, tls: tuple[str, ...] = ()) -> Path:
    identity = hashlib.sha256(name.encode()).hexdigest()
    directory = config_dir / "contexts" / "meta" / identity
    directory.mkdir(parents=True)
    (directory / "meta.json").write_text(meta if isinstance(meta, str) else json.dumps(meta))
    tls_dir = config_dir / "contexts" / "tls" / identity / "docker"
    for file in tls:
        tls_dir.mkdir(parents=True, exist_ok=True)
        (tls_dir / file).touch()
    return tls_dir


def meta(name: str, host: str, **more: object) -> dict[str, object]:
    return {"Name": name, "Metadata": {"Description": "x", "k": 1}, "Endpoints": {"docker": {"Host": host, **more}}}


@pytest.fixture
def config_dir(docker_config: Path) -> Path:
    """Give a configuration with two contexts, one of them current."""
    add_context(docker_config, "named", meta("named", "tcp://named:1"))
    add_context(docker_config, "current", meta("current", "ssh://me@current"))
    (docker_config / "config.json").write_text('{"currentContext": "current", "HttpHeaders": {"X-Meta": "v"}}')
    return docker_config


ORDER = [
    ({"DOCKER_HOST": "tcp://h:1", "DOCKER_CONTEXT": "named"}, {"host": "tcp://e:1"}, "tcp://e:1", "--host"),
    ({"DOCKER_HOST": "tcp://h:1"}, {"context": "named"}, "tcp://named:1", 'context "named", from --context'),
    ({"DOCKER_HOST": "tcp://h:1"}, {"context": "default"}, "tcp://h:1", "DOCKER_HOST"),
    ({"DOCKER_HOST": "tcp://h:1", "DOCKER_CONTEXT": "named"}, {}, "tcp://h:1", "DOCKER_HOST"),
    ({"DOCKER_HOST": "", "DOCKER_CONTEXT": "named"}, {}, "tcp://named:1", 'context "named", from DOCKER_CONTEXT'),
    ({"DOCKER_CONTEXT": ""}, {}, "ssh://me@current", 'context "current", from currentContext of {}/config.json'),
    ({"DOCKER_CONTEXT": "default"}, {}, "unix:///var/run/docker.sock", "default socket"),
    ({}, {"context": "default"}, "unix:///var/run/docker.sock", "default socket"),
]


@pytest.mark.parametrize(("environ", "given", "url", "source"), ORDER)
def test_the_order_is_the_docker_clis(
    config_dir: Path, environ: dict[str, str], given: dict[str, str], url: str, source: str
) -> None:
    """Explicit, DOCKER_HOST, DOCKER_CONTEXT, currentContext, default; empty variables do not count."""
    found = Endpoint.from_env(environ, config_dir=config_dir, **given)
    assert found.url == url
    assert found.source == source.format(config_dir)
    assert found.headers == (("X-Meta", "v"),)
    assert str(found) == f"{url} ({found.source})"


def test_the_process_environment_is_the_default(config_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without arguments the process's own environment counts, DOCKER_CONFIG included."""
    assert Endpoint.from_env().url == "ssh://me@current"
    monkeypatch.setenv("DOCKER_HOST", "tcp://h:1")
    assert Endpoint.from_env().url == "tcp://h:1"
    assert Endpoint.from_context("named").url == "tcp://named:1"
    assert Endpoint.from_context("default").url == "tcp://h:1"


def test_both_a_host_and_a_context_make_no_sense(tmp_path: Path) -> None:
    """As with the docker CLI, giving both is an error of the caller."""
    with pytest.raises(errors.UsageError):
        Endpoint.from_env({}, config_dir=tmp_path, host="tcp://a", context="b")


@pytest.mark.parametrize("default_exists", [True, False])
@pytest.mark.parametrize("rootless_exists", [True, False])
def test_the_rootless_socket_is_taken_where_the_default_does_not_exist(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    default_exists: bool,
    rootless_exists: bool,
) -> None:
    """Only if it exists and the default does not; then it is said, in the source and in the log."""
    default, rootless = tmp_path / "default.sock", tmp_path / "docker.sock"
    monkeypatch.setattr(endpoint_module, "DEFAULT_SOCKET", str(default))
    for path, exists in ((default, default_exists), (rootless, rootless_exists)):
        if exists:
            path.touch()
    with caplog.at_level(logging.INFO, "mobysession.transport"):
        found = Endpoint.from_env({"XDG_RUNTIME_DIR": str(tmp_path)}, config_dir=tmp_path)
    taken = rootless_exists and not default_exists
    assert found.url == f"unix://{rootless if taken else default}"
    assert ("rootless" in found.source) is taken
    assert (str(rootless) in caplog.text) is taken


def test_context_ids_are_the_sha256_of_the_name() -> None:
    """The vector that the docker CLI's own store gives."""
    assert context_id("mycontext") == "d232625c6b1bfc9a433d25ff530da3cee87a687ed366f59b2a525a469fe5c752"


def test_a_contexts_tls_files_are_used_as_far_as_they_exist(tmp_path: Path) -> None:
    """TLS is on when there are files or when verification is to be skipped; each file is optional."""
    tls_dir = add_context(tmp_path, "ca", meta("ca", "tcp://x"), ("ca.pem",))
    assert Endpoint.from_context("ca", config_dir=tmp_path).tls == TLSConfig(ca=tls_dir / "ca.pem")
    tls_dir = add_context(tmp_path, "all", meta("all", "tcp://x"), ("ca.pem", "cert.pem", "key.pem"))
    assert Endpoint.from_context("all", config_dir=tmp_path).tls == TLSConfig(
        ca=tls_dir / "ca.pem", cert=tls_dir / "cert.pem", key=tls_dir / "key.pem"
    )
    add_context(tmp_path, "skip", meta("skip", "tcp://x", SkipTLSVerify=True))
    assert Endpoint.from_context("skip", config_dir=tmp_path).tls == TLSConfig(verify=False)
    add_context(tmp_path, "none", meta("none", "tcp://x", SkipTLSVerify=False))
    assert Endpoint.from_context("none", config_dir=tmp_path).tls is None


def test_keys_of_a_context_are_found_in_any_case(tmp_path: Path) -> None:
    """Go matches them without case, and so do we; other endpoints do not matter."""
    add_context(tmp_path, "odd", {"name": "odd", "endpoints": {"kubernetes": {}, "docker": {"host": "tcp://x:1"}}})
    assert Endpoint.from_context("odd", config_dir=tmp_path).url == "tcp://x:1"


def test_an_unknown_context_is_told_with_those_that_exist(config_dir: Path) -> None:
    """The hint lists the contexts, and a broken one does not stop it."""
    add_context(config_dir, "broken", "{")
    with pytest.raises(errors.EndpointError, match="no docker context 'nope'") as caught:
        Endpoint.from_env({"DOCKER_CONTEXT": "nope"}, config_dir=config_dir)
    assert caught.value.hint == "There are: default, current, named"


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ("{", "not JSON"),
        ({"Name": "x"}, "names no Docker daemon"),
        ({"Endpoints": {"docker": {"Host": 1}}}, "Endpoints.docker.Host in"),
        ({"Endpoints": {"docker": {"Host": "x", "SkipTLSVerify": "yes"}}}, "Endpoints.docker.SkipTLSVerify in"),
        ({"Endpoints": {"docker": {"Host": "ftp://x"}}}, "'ftp'"),
    ],
)
def test_a_broken_context_is_told(tmp_path: Path, document: object, words: str) -> None:
    """A context that cannot be used is an error that names what is wrong in it."""
    add_context(tmp_path, "x", document)
    with pytest.raises(errors.EndpointError) as caught:
        Endpoint.from_context("x", config_dir=tmp_path)
    assert words in str(caught.value)


def test_a_broken_configuration_is_told(tmp_path: Path) -> None:
    """A config.json that cannot be read is no reason to guess."""
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(errors.EndpointError, match="not JSON"):
        Endpoint.from_env({}, config_dir=tmp_path)


@pytest.mark.parametrize(("host", "source"), [("unix:///x", "--host"), (None, "DOCKER_HOST")])
def test_a_broken_configuration_does_not_matter_to_a_named_daemon(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, host: str | None, source: str
) -> None:
    """Where the address is said, the file costs its header lines and a warning; those of the environment stay."""
    (tmp_path / "config.json").write_text('{"HttpHeaders": {"X": "y"}')
    environ = {"DOCKER_HOST": "unix:///x", "DOCKER_CUSTOM_HEADERS": "A=b"}
    endpoint = Endpoint.from_env(environ, config_dir=tmp_path, host=host)
    assert (endpoint.url, endpoint.source, endpoint.headers) == ("unix:///x", source, (("A", "b"),))
    assert f"config.json is not JSON, line 1; going on without it, as {source} names the daemon" in caplog.text


def test_broken_header_lines_of_the_environment_are_told(tmp_path: Path) -> None:
    """Header lines that were set for this run are not left out."""
    with pytest.raises(errors.EndpointError, match="DOCKER_CUSTOM_HEADERS"):
        Endpoint.from_env({"DOCKER_CUSTOM_HEADERS": "a"}, config_dir=tmp_path, host="unix:///x")


def certificate_files(directory: Path, *names: str) -> Path:
    directory.mkdir(exist_ok=True)
    for name in names:
        (directory / name).touch()
    return directory


def test_tls_variables_are_read_as_the_docker_cli_reads_them(tmp_path: Path) -> None:
    """Any value of DOCKER_TLS_VERIFY counts; DOCKER_TLS does not verify; the directory alone means nothing."""
    certs = certificate_files(tmp_path / "certs", "ca.pem", "cert.pem", "key.pem")
    ca, cert, key = (certs / f"{name}.pem" for name in ("ca", "cert", "key"))
    named = {"DOCKER_HOST": "tcp://box", "DOCKER_CERT_PATH": str(certs)}
    for variables, expected in (
        ({"DOCKER_TLS_VERIFY": "0"}, TLSConfig(ca=ca, cert=cert, key=key)),
        ({"DOCKER_TLS_VERIFY": "", "DOCKER_TLS": "1"}, TLSConfig(ca=ca, cert=cert, key=key, verify=False)),
        ({"DOCKER_TLS": "1", "DOCKER_TLS_VERIFY": "1"}, TLSConfig(ca=ca, cert=cert, key=key)),
        ({}, None),
    ):
        assert Endpoint.from_env({**named, **variables}, config_dir=tmp_path).tls == expected


def test_tls_files_are_looked_for_in_the_configuration_directory(tmp_path: Path) -> None:
    """Without DOCKER_CERT_PATH the configuration directory has them; what is absent there is left out."""
    config_dir = certificate_files(tmp_path / "docker", "ca.pem")
    found = Endpoint.from_env({"DOCKER_HOST": "tcp://box", "DOCKER_TLS_VERIFY": "1"}, config_dir=config_dir)
    assert found.tls == TLSConfig(ca=config_dir / "ca.pem")


def test_a_directory_without_ca_is_told(tmp_path: Path) -> None:
    """Who names a directory and asks for verification expects a CA in it."""
    environ = {"DOCKER_HOST": "tcp://box", "DOCKER_TLS_VERIFY": "1", "DOCKER_CERT_PATH": str(tmp_path)}
    with pytest.raises(errors.EndpointError, match=r"ca\.pem"):
        Endpoint.from_env(environ, config_dir=tmp_path)


def test_a_missing_ca_does_not_matter_to_a_socket(tmp_path: Path) -> None:
    """Variables that concern ports only do not stand in the way of anything else."""
    environ = {"DOCKER_TLS_VERIFY": "1", "DOCKER_CERT_PATH": str(tmp_path / "none")}
    add_context(tmp_path, "plain", meta("plain", "tcp://x:1"))
    for found in (
        Endpoint.from_env({**environ, "DOCKER_HOST": "unix:///x"}, config_dir=tmp_path),
        Endpoint.from_env(environ, config_dir=tmp_path, host="ssh://box"),
        Endpoint.from_env({**environ, "DOCKER_CONTEXT": "plain"}, config_dir=tmp_path),
    ):
        assert found.tls is None


def test_half_a_client_certificate_is_told(tmp_path: Path) -> None:
    """A certificate without its key is an error that names the one that is there."""
    certs = certificate_files(tmp_path / "certs", "ca.pem", "cert.pem")
    with pytest.raises(errors.EndpointError, match=r"key to go with .*cert\.pem"):
        TLSConfig.from_directory(certs)


def test_the_default_address_with_tls_is_a_port(tmp_path: Path) -> None:
    """DOCKER_TLS_VERIFY alone means the TLS port on this machine, and not the socket."""
    found = Endpoint.from_env({"DOCKER_TLS_VERIFY": "1"}, config_dir=tmp_path)
    assert found.url == "tcp://localhost:2376"
    assert found.tls == TLSConfig()


def test_tls_concerns_only_ports() -> None:
    """A socket and ssh are not wrapped in TLS, https always is."""
    tls = TLSConfig(verify=False)
    assert Endpoint.parse("unix:///x", tls=tls).tls is None
    assert Endpoint.parse("ssh://x", tls=tls).tls is None
    assert Endpoint.parse("tcp://x", tls=tls).tls is tls
    assert Endpoint.parse("https://x").tls == TLSConfig()
    assert Endpoint.parse("http://x").tls is None


def test_endpoints_are_values() -> None:
    """Equal parts make equal endpoints, and no header value is in a repr."""
    one, two = (Endpoint.parse("tcp://x/p", headers=(("A", "swordfish"),)) for _ in range(2))
    assert one == two
    assert hash(one) == hash(two)
    assert "swordfish" not in repr(one)
    assert one.target("/_ping") == "/p/_ping"


@pytest.mark.parametrize("url", ["unix:///x", "tcp://box:1/prefix", "ssh://box"])
def test_a_pinned_version_is_in_the_paths(tmp_path: Path, url: str) -> None:
    """As DOCKER_API_VERSION has it, with its letter or without; behind a prefix, and not for who asks for versions."""
    prefix = "/prefix" if url.startswith("tcp") else ""
    for version in ("1.41", "v1.41", " 1.41 "):
        found = Endpoint.from_env({"DOCKER_HOST": url, "DOCKER_API_VERSION": version}, config_dir=tmp_path)
        assert found.target("/session") == f"{prefix}/v1.41/session"
        assert found.target("/_ping") == f"{prefix}/_ping"
        assert found.pinned_api == (1, 41)
    unpinned = Endpoint.from_env({"DOCKER_HOST": url, "DOCKER_API_VERSION": ""}, config_dir=tmp_path)
    assert unpinned.target("/session") == f"{prefix}/session"
    assert unpinned.pinned_api is None
    with pytest.raises(errors.EndpointError, match="not a version") as caught:
        Endpoint.from_env({"DOCKER_HOST": url, "DOCKER_API_VERSION": "latest"}, config_dir=tmp_path)
    assert "DOCKER_API_VERSION" in (caught.value.hint or "")


def test_the_environment_counts_for_contexts_too(config_dir: Path) -> None:
    """A proxy and a pinned version are the same whoever names the daemon."""
    environ = {"DOCKER_API_VERSION": "1.41", "HTTP_PROXY": "proxy:1"}
    found = Endpoint.from_context("named", config_dir=config_dir, environ=environ)
    assert (found.api_version, found.proxy) == ("1.41", "proxy:1")
