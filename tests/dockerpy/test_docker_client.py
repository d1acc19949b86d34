"""What a client of docker-py knows: its daemon and its logins."""

from __future__ import annotations

from typing import TYPE_CHECKING

import docker
import pytest
from docker.errors import DockerException
from docker.tls import TLSConfig

from mobysession.dockerpy.client import credentials_of, endpoint_of
from mobysession.services.credentials import ANONYMOUS, Credentials

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(autouse=True)
def no_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))


def client(**arguments: object) -> docker.APIClient:
    return docker.APIClient(version="1.45", **arguments)  # type: ignore[arg-type]  # any of its arguments


def test_a_unix_socket_is_found() -> None:
    """By the path that the client was given."""
    assert endpoint_of(client(base_url="unix:///tmp/a b.sock")).url == "unix:///tmp/a b.sock"


def test_a_tcp_address_is_found() -> None:
    """In plain text, without TLS."""
    endpoint = endpoint_of(client(base_url="tcp://127.0.0.1:2375"))
    assert endpoint.url == "http://127.0.0.1:2375"
    assert endpoint.tls is None


def test_tls_is_taken_over(tmp_path: Path) -> None:
    """With the CA, the certificate and the key, and whether the daemon's certificate is looked at."""
    for name in ("ca.pem", "cert.pem", "key.pem"):
        (tmp_path / name).touch()
    tls = TLSConfig(
        client_cert=(str(tmp_path / "cert.pem"), str(tmp_path / "key.pem")),
        ca_cert=str(tmp_path / "ca.pem"),
        verify=True,
    )
    found = endpoint_of(client(base_url="https://127.0.0.1:2376", tls=tls)).tls
    assert found is not None
    assert (found.ca, found.cert, found.key) == (tmp_path / "ca.pem", tmp_path / "cert.pem", tmp_path / "key.pem")
    assert found.verify
    unverified = endpoint_of(client(base_url="https://127.0.0.1:2376", tls=TLSConfig(verify=False))).tls
    assert unverified is not None
    assert not unverified.verify


def test_headers_of_the_configuration_are_taken_over(tmp_path: Path) -> None:
    """As the client sends them."""
    (tmp_path / "config.json").write_text('{"HttpHeaders": {"X-Meta": "a"}}')
    assert endpoint_of(client(base_url="tcp://127.0.0.1:2375")).headers == (("X-Meta", "a"),)


def test_an_unknown_transport_is_refused() -> None:
    """With its URL."""
    api = client(base_url="unix:///tmp/a.sock")
    api._custom_adapter = object()  # type: ignore[attr-defined]  # not in its stubs
    with pytest.raises(DockerException, match="cannot tell where"):
        endpoint_of(api)


def test_logins_are_looked_up_where_the_client_has_them(tmp_path: Path) -> None:
    """Those of config.json, whose names for Docker Hub are several; what is not there is anonymous."""
    (tmp_path / "config.json").write_text(
        """{"auths": {"https://index.docker.io/v1/": {"auth": "dTpw"}, "r.test:5000": {"auth": "YTpi"},
            "token.test": {"auth": "OjxuPg==", "identitytoken": "t"}}}"""
    )
    lookup = credentials_of(client(base_url="unix:///tmp/a.sock"))
    assert lookup("registry-1.docker.io") == Credentials("u", "p")
    assert lookup("r.test:5000") == Credentials("a", "b")
    assert lookup("token.test") == Credentials("", "t")
    assert lookup("r.test") == ANONYMOUS
