"""A build over every way to an engine: TCP in both families, TLS with client certificates, ssh, docker contexts."""

from __future__ import annotations

import hashlib
import json
import os
import ssl
import sys
import tempfile
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trustme

from integration.contexts import make_context
from integration.images import BUILD_TIMEOUT
from integration.relays import open_relay
from integration.ssh_server import open_ssh_server
from mobysession.build import build
from mobysession.errors import MobysessionError, TLSError, TransportError
from mobysession.transport.endpoint import Endpoint
from mobysession.transport.tls import TLSConfig

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from integration.engines import Buildx, Engine
    from integration.images import Witness
    from mobysession.build.options import Driver


@pytest.fixture
def context(tmp_path: Path) -> Path:
    """A small context with a file that does not fit into one packet."""
    files = {"large": b"0123456789abcdef" * 20_000}
    dockerfile = "FROM mobysession-base\nCOPY large /\nRUN md5sum < /large > /sum\n"
    return make_context(tmp_path / "context", dockerfile, files)


def _check(witness: Witness, image: str, context: Path) -> None:
    expected = hashlib.md5((context / "large").read_bytes()).hexdigest()
    assert witness.text(image, "/sum").split()[0] == expected


def _build_over(
    engine: Engine,
    context: Path,
    url: Callable[[int], str],
    *,
    host: str = "127.0.0.1",
    tls: ssl.SSLContext | None = None,
    config: TLSConfig | None = None,
    **options: Any,
) -> str:
    async def run() -> str:
        with trio.fail_after(BUILD_TIMEOUT):
            async with open_relay(engine.socket, host=host, tls=tls) as port:
                endpoint = Endpoint.parse(url(port), tls=config)
                return (await build(context, endpoint=endpoint, no_cache=True, **options)).image_id

    return trio.run(run)


@pytest.mark.parametrize("driver", ["control", "classic"])
@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_tcp(engine: Engine, witness: Witness, context: Path, host: str, driver: Driver) -> None:
    """An engine is reached over TCP, by an address of either family."""
    shown = f"[{host}]" if ":" in host else host
    image = _build_over(engine, context, lambda port: f"tcp://{shown}:{port}", host=host, driver=driver)
    _check(witness, image, context)


class Certificates:
    """An authority, and what docker keeps in ``DOCKER_CERT_PATH`` for a daemon that demands client certificates."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        authority = trustme.CA()
        self.server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        authority.issue_cert("localhost", "127.0.0.1").configure_cert(self.server)
        authority.configure_trust(self.server)
        self.server.verify_mode = ssl.CERT_REQUIRED
        folder.mkdir()
        client = authority.issue_cert("client@example.org")
        authority.cert_pem.write_to_path(str(folder / "ca.pem"))
        client.private_key_pem.write_to_path(str(folder / "key.pem"))
        client.cert_chain_pems[0].write_to_path(str(folder / "cert.pem"))

    @property
    def config(self) -> TLSConfig:
        """What a client needs."""
        return TLSConfig(ca=self.folder / "ca.pem", cert=self.folder / "cert.pem", key=self.folder / "key.pem")


@pytest.fixture
def certificates(tmp_path: Path) -> Certificates:
    """Certificates of this test's own."""
    return Certificates(tmp_path / "certificates")


@pytest.mark.parametrize("driver", ["control", "classic"])
def test_tls_with_a_client_certificate(
    engine: Engine, witness: Witness, context: Path, certificates: Certificates, driver: Driver
) -> None:
    """Both sides show certificates of one authority, and the session is upgraded inside of TLS."""
    image = _build_over(
        engine,
        context,
        lambda port: f"tcp://localhost:{port}",
        tls=certificates.server,
        config=certificates.config,
        driver=driver,
    )
    _check(witness, image, context)


def test_tls_without_a_client_certificate(engine: Engine, context: Path, certificates: Certificates) -> None:
    """A client that shows none is refused, and the error names the address; a relay sends no alert that says why."""
    config = TLSConfig(ca=certificates.config.ca)
    with pytest.raises(TransportError, match="tcp://localhost"):
        _build_over(engine, context, lambda port: f"tcp://localhost:{port}", tls=certificates.server, config=config)


def test_tls_of_an_unknown_authority(engine: Engine, context: Path, certificates: Certificates, tmp_path: Path) -> None:
    """A daemon whose certificate is signed by somebody else is not talked to."""
    others = Certificates(tmp_path / "others")
    with pytest.raises(TLSError) as caught:
        _build_over(
            engine, context, lambda port: f"tcp://localhost:{port}", tls=others.server, config=certificates.config
        )
    assert "ca.pem" in (caught.value.hint or "")


def _write_context(config_dir: Path, name: str, host: str, certificates: Path | None = None) -> None:
    """Make a docker context, as ``docker context create`` does."""
    folder = hashlib.sha256(name.encode()).hexdigest()
    meta = config_dir / "contexts/meta" / folder / "meta.json"
    meta.parent.mkdir(parents=True)
    endpoint = {"Host": host, "SkipTLSVerify": False}
    meta.write_text(json.dumps({"Name": name, "Metadata": {}, "Endpoints": {"docker": endpoint}}))
    if certificates is not None:
        tls = config_dir / "contexts/tls" / folder / "docker"
        tls.parent.mkdir(parents=True)
        tls.symlink_to(certificates)


async def _command_line(*arguments: str | Path, env: dict[str, str] | None = None) -> str:
    argv = [sys.executable, "-m", "mobysession", *map(str, arguments)]
    with trio.fail_after(BUILD_TIMEOUT):
        done = await trio.run_process(
            argv, env={**os.environ, **(env or {})}, capture_stdout=True, capture_stderr=True, check=False
        )
    assert (done.returncode, done.stderr) == (0, b"")
    written: bytes = done.stdout
    return written.decode().strip()


@pytest.mark.parametrize("way", ["-c", "DOCKER_CONTEXT", "currentContext"])
def test_docker_contexts(engine: Engine, witness: Witness, context: Path, tmp_path: Path, way: str) -> None:
    """A docker context leads to its engine, whether the command line, a variable or the configuration names it."""
    config_dir = tmp_path / "docker-config"
    _write_context(config_dir, "my engine", engine.host)
    options: list[str] = []
    env = {"DOCKER_CONFIG": str(config_dir)}
    if way == "-c":
        options = ["-c", "my engine"]
    elif way == "DOCKER_CONTEXT":
        env["DOCKER_CONTEXT"] = "my engine"
    else:
        (config_dir / "config.json").write_text(json.dumps({"currentContext": "my engine"}))
    image = trio.run(lambda: _command_line(*options, "build", "-q", "--no-cache", context, env=env))
    _check(witness, image, context)


@pytest.mark.parametrize("way", ["context", "variables"])
def test_tls_as_docker_is_configured(
    engine: Engine, witness: Witness, context: Path, certificates: Certificates, tmp_path: Path, way: str
) -> None:
    """Certificates of a docker context, or of DOCKER_CERT_PATH with DOCKER_TLS_VERIFY, serve the command line."""

    async def run() -> str:
        async with open_relay(engine.socket, tls=certificates.server) as port:
            url = f"tcp://localhost:{port}"
            if way == "context":
                _write_context(tmp_path / "docker-config", "secure", url, certificates.folder)
                return await _command_line("-c", "secure", "build", "-q", "--no-cache", context)
            env = {"DOCKER_HOST": url, "DOCKER_TLS_VERIFY": "1", "DOCKER_CERT_PATH": str(certificates.folder)}
            return await _command_line("build", "-q", "--no-cache", context, env=env)

    _check(witness, trio.run(run), context)


def test_ssh(
    engine: Engine, witness: Witness, buildx: Buildx, context: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An engine of another host is reached through ssh, by ``docker system dial-stdio`` there."""
    with open_ssh_server(tmp_path / "ssh", buildx.docker, engine.host) as server:
        monkeypatch.setenv("PATH", f"{server.path}:{os.environ['PATH']}")

        async def run() -> list[str]:
            endpoint = Endpoint.parse(server.url)
            images = []
            with trio.fail_after(BUILD_TIMEOUT):
                for driver in ("control", "classic"):
                    result = await build(context, endpoint=endpoint, no_cache=True, driver=driver)
                    images.append(result.image_id)
            return images

        for image in trio.run(run):
            _check(witness, image, context)
        failing = make_context(tmp_path / "failing", "FROM mobysession-base\nRUN exit 9\n")
        with pytest.raises(MobysessionError, match="exit code: 9"):
            trio.run(lambda: build(failing, endpoint=Endpoint.parse(server.url)))


def test_ssh_to_a_host_without_docker(
    engine: Engine, witness: Witness, context: Path, tmp_path: Path, short_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the other host has no docker CLI, the engine's socket is forwarded by ssh itself, and nothing is left."""
    monkeypatch.setattr(tempfile, "tempdir", str(short_path))
    with open_ssh_server(tmp_path / "ssh", None) as server:
        monkeypatch.setenv("PATH", f"{server.path}:{os.environ['PATH']}")

        async def run() -> str:
            endpoint = Endpoint.parse(f"{server.url}{engine.socket}")
            with trio.fail_after(BUILD_TIMEOUT):
                return (await build(context, endpoint=endpoint, no_cache=True)).image_id

        _check(witness, trio.run(run), context)
        with pytest.raises(TransportError, match=r"was closed: .*open failed") as caught:
            trio.run(lambda: build(context, endpoint=Endpoint.parse(f"{server.url}/nowhere.sock")))
        assert "AllowStreamLocalForwarding" in (caught.value.hint or "")
    assert not list(short_path.iterdir())


def test_a_pinned_version(engine: Engine, witness: Witness, context: Path) -> None:
    """An engine answers in the version of DOCKER_API_VERSION, by both drivers; one that it has not, it refuses."""

    async def run(version: str, driver: Driver) -> str:
        endpoint = Endpoint.parse(engine.host, api_version=version)
        with trio.fail_after(BUILD_TIMEOUT):
            return (await build(context, endpoint=endpoint, no_cache=True, driver=driver)).image_id

    for driver in ("control", "classic"):
        _check(witness, trio.run(run, "1.41", driver), context)
    for version, words in (("1.99", "too new"), ("1.1", "too old")):
        with pytest.raises(MobysessionError, match=words) as caught:
            trio.run(run, version, "control")
        assert "DOCKER_API_VERSION" in (caught.value.hint or "")
