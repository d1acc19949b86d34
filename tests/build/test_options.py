"""The options of a build: what is accepted, what is refused, and with which words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from mobysession.build.options import BuildOptions, Ulimit, parse_size
from mobysession.errors import ContextError, UsageError

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("67108864", 67108864),
        ("64m", 64 << 20),
        ("64MB", 64 << 20),
        ("1.5g", 3 << 29),
        (" 2 KiB ", 2048),
        ("7b", 7),
    ],
)
def test_a_size_is_read_in_units_of_1024(text: str, size: int) -> None:
    """Sizes are written as docker takes them."""
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "m", "12x", "1 2", "-1", "0x10", "1..2m"])
def test_what_is_no_size_is_refused(text: str) -> None:
    """A size that cannot be read is the caller's mistake, also a negative one."""
    with pytest.raises(UsageError):
        parse_size(text)


def test_a_negative_number_is_no_size() -> None:
    """Numbers are checked as texts are."""
    with pytest.raises(UsageError, match="negative"):
        parse_size(-1)


@pytest.mark.parametrize(
    ("text", "limit"),
    [
        ("nofile=1024", Ulimit("nofile", 1024, 1024)),
        ("nofile=1024:2048", Ulimit("nofile", 1024, 2048)),
        ("core=0:-1", Ulimit("core", 0, -1)),
        ("memlock=-1:-1", Ulimit("memlock", -1, -1)),
    ],
)
def test_a_ulimit_is_read(text: str, limit: Ulimit) -> None:
    """The hard limit is the soft one where it is not given."""
    assert Ulimit.parse(text) == limit


@pytest.mark.parametrize(
    "text", ["nofile", "nofile=", "=1", "nofile=a", "nofile=2:1", "nofile=-1:5", "nofile=1:2:3", "foo=1", "NOFILE=1"]
)
def test_what_is_no_ulimit_is_refused(text: str) -> None:
    """A soft limit above the hard one, and a name that no engine knows, are refused like a malformed text."""
    with pytest.raises(UsageError):
        Ulimit.parse(text)


@pytest.mark.parametrize(
    ("line", "pair"),
    [
        ("db:10.0.0.1", ("db", "10.0.0.1")),
        ("db=10.0.0.1", ("db", "10.0.0.1")),
        ("db:::1", ("db", "::1")),
        ("db=[2001:db8::1]", ("db", "2001:db8::1")),
        ("db:host-gateway", ("db", "host-gateway")),
    ],
)
def test_a_host_entry_is_read(line: str, pair: tuple[str, str]) -> None:
    """Host and address are parted by the first colon or equals sign."""
    assert BuildOptions(add_hosts=[line]).hosts() == [pair]


@pytest.mark.parametrize("line", ["db", "db:", ":10.0.0.1", "db:nowhere", "db:10.0.0.256"])
def test_what_is_no_host_entry_is_refused(line: str) -> None:
    """An entry needs a host and an IP address."""
    with pytest.raises(UsageError):
        BuildOptions(add_hosts=[line])


@pytest.mark.parametrize("tag", ["x", "x:1", "host:5000/a/b:tag", "a.b/c_d", "localhost/x:1.2-3", "127.0.0.1:5000/x"])
def test_a_tag_is_accepted(tag: str) -> None:
    """Image references pass."""
    assert BuildOptions(tags=[tag]).tags == [tag]


@pytest.mark.parametrize("tag", ["", "X:1 ", "Up", "a:b:c", "a//b", "x@sha256:" + "0" * 64, "x:", "-x"])
def test_a_malformed_tag_is_refused(tag: str) -> None:
    """A slip in a tag is told before anything is built."""
    with pytest.raises(UsageError, match="invalid tag"):
        BuildOptions(tags=[tag])


@pytest.mark.parametrize(
    "options",
    [
        {"tags": "x"},
        {"network": "bridge"},
        {"driver": "magic"},
        {"no_cache": True, "no_cache_filter": ["a"]},
        {"build_args": {"": "x"}},
        {"labels": {"": "x"}},
        {"build_args": ["A=1"]},
        {"build_args": {"A": 5}},
        {"labels": {"a": None}},
        {"secrets": ["id=a"]},
        {"ssh": "default"},
        {"access": lambda request: True},
    ],
)
def test_a_senseless_option_is_refused(options: dict[str, Any]) -> None:
    """Options are checked when they are given, not when the engine chokes on them."""
    with pytest.raises(UsageError):
        BuildOptions(**options)


def test_an_argument_without_a_value_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """None stands for the variable of that name, and for nothing where there is none."""
    monkeypatch.setenv("FROM_ENV", "value")
    monkeypatch.delenv("NOT_THERE", raising=False)
    options = BuildOptions(build_args={"GIVEN": "", "FROM_ENV": None, "NOT_THERE": None})
    assert options.arguments() == {"GIVEN": "", "FROM_ENV": "value"}


def test_the_dockerfile_is_looked_for_in_the_context(tmp_path: Path) -> None:
    """Without a file the context's own Dockerfile is meant, also one written small."""
    (tmp_path / "dockerfile").write_text("FROM scratch")
    assert BuildOptions(context=tmp_path).directories() == (tmp_path, tmp_path, "Dockerfile")


def test_a_dockerfile_may_lie_anywhere(tmp_path: Path) -> None:
    """A named Dockerfile is offered from its own directory."""
    (tmp_path / "context").mkdir()
    (tmp_path / "other.docker").write_text("FROM scratch")
    options = BuildOptions(context=tmp_path / "context", file=tmp_path / "other.docker")
    assert options.directories() == (tmp_path / "context", tmp_path, "other.docker")


def test_a_missing_context_is_named(tmp_path: Path) -> None:
    """The path that does not exist is in the message."""
    with pytest.raises(ContextError, match=r"nowhere does not exist"):
        BuildOptions(context=tmp_path / "nowhere").directories()


def test_a_context_that_is_a_file_is_refused(tmp_path: Path) -> None:
    """A Dockerfile given as the context gets the hint how it is meant."""
    (tmp_path / "Dockerfile").write_text("FROM scratch")
    with pytest.raises(ContextError, match="is not a directory") as caught:
        BuildOptions(context=tmp_path / "Dockerfile").directories()
    assert caught.value.hint is not None
    assert "-f" in caught.value.hint


def test_a_context_without_a_dockerfile_is_refused(tmp_path: Path) -> None:
    """What is missing is said before the engine is asked."""
    with pytest.raises(ContextError, match="no Dockerfile in"):
        BuildOptions(context=tmp_path).directories()


def test_an_empty_context_is_not_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A variable that is not set must not send another tree than was meant."""
    (tmp_path / "Dockerfile").write_text("FROM scratch")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match="the context is empty"):
        BuildOptions(context="").directories()


def test_a_dockerfile_named_relative_to_the_context_gets_a_hint(tmp_path: Path) -> None:
    """The classic slip: the path counts from the working directory, not from the context."""
    (tmp_path / "named").write_text("FROM scratch")
    with pytest.raises(ContextError, match="no Dockerfile") as caught:
        BuildOptions(context=tmp_path, file="named").directories()
    assert caught.value.hint is not None
    assert "working directory" in caught.value.hint


def test_a_dockerfile_that_is_a_directory_is_refused(tmp_path: Path) -> None:
    """A directory is not read as a Dockerfile."""
    with pytest.raises(ContextError, match="is a directory"):
        BuildOptions(context=tmp_path, file=tmp_path).directories()
