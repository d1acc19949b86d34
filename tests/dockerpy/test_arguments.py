"""docker-py's arguments, one by one: what each becomes, and what is refused as docker-py or BuildKit would."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import pytest
from docker.errors import DockerException

from mobysession.build import BuildOptions
from mobysession.dockerpy.arguments import Arguments
from mobysession.errors import UsageError
from mobysession.filesync.tar_archive import TarArchive

if TYPE_CHECKING:
    from pathlib import Path


def options(proxies: dict[str, str] | None = None, **given: Any) -> dict[str, Any]:
    given.setdefault("fileobj", io.BytesIO(b"FROM scratch\n"))
    return Arguments(given, proxies or {}).options


@pytest.mark.parametrize(
    ("given", "name", "value"),
    [
        ({"tag": "a:1"}, "tags", ("a:1",)),
        ({"tag": "a:1", "tags": ["b:2"]}, "tags", ("a:1", "b:2")),
        ({"nocache": True}, "no_cache", True),
        ({"nocache": 1}, "no_cache", True),
        ({"pull": True}, "pull", True),
        ({"buildargs": {"A": "1", "B": None}}, "build_args", {"A": "1"}),
        ({"shmsize": 1024}, "shm_size", 1024),
        ({"labels": {"a": "b"}}, "labels", {"a": "b"}),
        ({"cache_from": ["a", "b"]}, "cache_from", ["a", "b"]),
        ({"target": "stage"}, "target", "stage"),
        ({"network_mode": "none"}, "network", "none"),
        ({"extra_hosts": {"a": "1.2.3.4"}}, "add_hosts", ("a:1.2.3.4",)),
        ({"extra_hosts": ["a:1.2.3.4"]}, "add_hosts", ("a:1.2.3.4",)),
        ({"network_mode": "bridge"}, "network", "default"),
        ({"platform": "linux/arm64"}, "platforms", ("linux/arm64",)),
        ({"secrets": {"a": b"b"}}, "secrets", {"a": b"b"}),
    ],
)
def test_an_argument_becomes_an_option(given: dict[str, Any], name: str, value: object) -> None:
    """Under BuildKit's name, with its value; BuildOptions takes it."""
    found = options(**given)
    assert found[name] == value
    BuildOptions(**found)


def test_what_has_no_effect_is_taken() -> None:
    """Code that says how intermediate containers are removed goes on working."""
    assert options(
        rm=True, forcerm=True, gzip=True, isolation="default", timeout=3, network_mode=None, platform=""
    ) == {"context": {"Dockerfile": b"FROM scratch\n"}}


@pytest.mark.parametrize("tags", ["abc", {"a": "b"}, None])
def test_names_beside_the_tag_are_a_list(tags: object) -> None:
    """One text is not taken for as many names as it has letters; it is refused as without a tag."""
    with pytest.raises(UsageError, match="tags takes a list"):
        BuildOptions(**options(tag="a:1", tags=tags))


def test_proxies_of_the_client_become_build_arguments() -> None:
    """Unless they are given, or not wanted."""
    proxies = {"HTTP_PROXY": "a", "NO_PROXY": "b"}
    assert options(proxies, buildargs={"NO_PROXY": "c"})["build_args"] == {"HTTP_PROXY": "a", "NO_PROXY": "c"}
    assert "build_args" not in options(proxies, use_config_proxy=False)


def test_a_file_object_is_the_dockerfile() -> None:
    """One in memory is read from its start, as docker-py does; any other from where it stands."""
    file = io.BytesIO(b"FROM scratch\n")
    file.read()
    assert options(fileobj=file)["context"] == {"Dockerfile": b"FROM scratch\n"}
    assert options(fileobj=io.StringIO("FROM a\n"))["context"] == {"Dockerfile": b"FROM a\n"}


def test_a_custom_context_is_an_archive() -> None:
    """However it is compressed; the Dockerfile is named in it."""
    found = options(fileobj=io.BytesIO(), custom_context=True, encoding="gzip", dockerfile="a/Dockerfile")
    assert isinstance(found["context"], TarArchive)
    assert found["file"] == "a/Dockerfile"


def test_a_path_is_the_context(tmp_path: Path) -> None:
    """A Dockerfile is named from there, or absolutely; URLs pass through."""
    assert options(fileobj=None, path=str(tmp_path)) == {"context": str(tmp_path), "file": None}
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "D").touch()
    (tmp_path / "E").touch()
    assert options(fileobj=None, path=tmp_path, dockerfile="sub/D")["file"] == f"{tmp_path}/sub/D"
    assert options(fileobj=None, path=tmp_path / "sub", dockerfile=f"{tmp_path}/E")["file"] == f"{tmp_path}/E"
    assert options(fileobj=None, path="https://example.com/a.git")["context"] == "https://example.com/a.git"


@pytest.mark.parametrize(
    ("given", "kind", "text"),
    [
        ({"fileobj": None}, TypeError, "Either path or fileobj"),
        ({"fileobj": None, "path": "/does/not/exist"}, TypeError, "must specify a directory"),
        ({"fileobj": None, "path": ".", "custom_context": True}, TypeError, "must specify fileobj"),
        ({"gzip": True, "encoding": "gzip"}, DockerException, "custom encoding"),
        ({"tag": "A B"}, DockerException, "invalid tag"),
        ({"container_limits": {"memory": 1}}, DockerException, "container_limits are not supported"),
        ({"container_limits": {"what": 1}}, DockerException, "invalid container_limits: what"),
        ({"squash": True}, DockerException, "squash is not supported"),
        ({"isolation": "hyperv"}, DockerException, "isolation is not supported"),
        ({"network_mode": "mynet"}, DockerException, "'mynet' is not supported"),
        ({"nosuch": 1}, TypeError, "unexpected keyword argument 'nosuch'"),
        ({"context": "."}, TypeError, "unexpected keyword argument 'context'"),
    ],
)
def test_what_is_wrong_is_refused(given: dict[str, Any], kind: type[Exception], text: str) -> None:
    """With docker-py's type of exception, before anything is dialled."""
    with pytest.raises(kind, match=text):
        options(**given)
