"""Contexts that the engine fetches: what is one, what is told of it, where the Dockerfile is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from mobysession.build.options import BuildOptions
from mobysession.build.prepare import prepare
from mobysession.build.remote import is_git_ssh, is_remote_context
from mobysession.errors import ContextError, UsageError

if TYPE_CHECKING:
    from pathlib import Path

URL = "https://example.org/a.git"


@pytest.mark.parametrize(
    ("given", "remote"),
    [
        ("https://example.org/x.tar.gz", True),
        ("git://example.org/x", True),
        ("ssh://git@example.org/x", True),
        ("git@example.org:x/y.git", True),
        ("github.com/moby/moby", True),
        (".", False),
        ("a:b", False),
        ("docker-image://x", False),
        (None, False),
    ],
)
def test_what_the_engine_fetches(given: Any, remote: bool) -> None:
    """Addresses that docker's CLI takes for one."""
    assert is_remote_context(given) is remote


def test_a_directory_is_a_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever else its path looks like."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "git@host:dir").mkdir()
    assert not is_remote_context("git@host:dir")


def attributes(context: str, **options: Any) -> dict[str, str]:
    return dict(prepare(BuildOptions(context=context, **options), "unix:///nowhere").options.frontend_attrs)


def test_the_engine_is_told_the_address(tmp_path: Path) -> None:
    """And that the Dockerfile is here, where it is."""
    (tmp_path / "Dockerfile").write_text("FROM scratch\n")
    assert attributes(URL) == {"context": URL}
    assert attributes(URL, file="sub/Dockerfile") == {"context": URL}
    here = {"context": URL, "dockerfilekey": "dockerfile"}
    assert attributes(URL, file=tmp_path / "Dockerfile") == here


def test_the_dockerfile_is_looked_for_in_what_is_fetched() -> None:
    """Its name is not one of this machine."""
    prepared = prepare(BuildOptions(context=URL, file="sub/Other"), "unix:///nowhere")
    assert (prepared.dockerfile.name, prepared.files.transfers) == ("sub/Other", [])


@pytest.mark.parametrize(
    ("options", "error"), [({"file": "/no/such/Dockerfile"}, ContextError), ({"file": "https://a/D"}, UsageError)]
)
def test_a_dockerfile_that_cannot_be_read_is_refused(options: dict[str, Any], error: type[Exception]) -> None:
    """Before the engine is asked."""
    with pytest.raises(error):
        prepare(BuildOptions(context=URL, **options), "unix:///nowhere")


def test_what_the_frontend_must_be_able_to(tmp_path: Path) -> None:
    """Named contexts, and addresses of repositories with a query."""
    query = "https://example.org/a.git?branch=main#:sub"
    git = "moby.buildkit.frontend.gitquerystring"
    assert attributes(query)["frontend.caps"] == git
    assert "frontend.caps" not in attributes("https://example.org/a.tar?x=y")
    (tmp_path / "Dockerfile").write_text("FROM scratch\n")
    named = attributes(str(tmp_path), build_contexts={"x": query})
    assert named["frontend.caps"] == f"moby.buildkit.frontend.contexts+forward,{git}+forward"


def test_a_repository_behind_ssh_gets_the_agent(monkeypatch: pytest.MonkeyPatch) -> None:
    """That of SSH_AUTH_SOCK, unless others are named."""
    assert is_git_ssh("git@example.org:a.git")
    assert not is_git_ssh(URL)
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    with pytest.raises(Exception, match="SSH agent 'default'"):
        prepare(BuildOptions(context="git@example.org:a.git"), "unix:///nowhere")
