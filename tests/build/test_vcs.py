"""What git knows of a context, read from git's own files, against what git says."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest

from mobysession.build.vcs import find_repository, vcs_attributes

if TYPE_CHECKING:
    from pathlib import Path


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "init.defaultBranch=main"]
    done = subprocess.run(["git", "-C", str(folder), *identity, *arguments], capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """Give a repository with one commit and a remote, and a context in it."""
    root = tmp_path / "repository"
    (root / "app").mkdir(parents=True)
    (root / "app/Dockerfile").write_text("FROM scratch\n")
    git(root, "init", "-q")
    git(root, "add", ".")
    git(root, "commit", "-q", "-m", "first")
    git(root, "remote", "add", "origin", "https://ada:s3cret@example.org/app.git")
    return root


def attributes(root: Path) -> dict[str, str]:
    context = root / "app"
    return vcs_attributes(
        {"context": context, "dockerfile": context}, context=context, dockerfile=context / "Dockerfile"
    )


def test_the_commit_the_remote_and_the_places(repository: Path) -> None:
    """The commit is git's, the address has no login, each directory has its place in the repository."""
    assert attributes(repository) == {
        "vcs:revision": git(repository, "rev-parse", "HEAD"),
        "vcs:source": "https://example.org/app.git",
        "vcs:localdir:context": "app",
        "vcs:localdir:dockerfile": "app",
    }


@pytest.mark.parametrize(
    ("origin", "told"),
    [
        ("https://ada:s3cret@example.org/app.git", "https://example.org/app.git"),
        ("https://t0ken@example.org:8443/app.git?a=b@c#d@e", "https://example.org:8443/app.git?a=b@c#d@e"),
        ("https://ada@example.com:s3cret@[::1]:5/app.git", "https://[::1]:5/app.git"),
        ("https://ada:s3%zzcret@example.org/app.git", "https://example.org/app.git"),
        ("git+ssh://git@example.org/~ada/app.git", "git+ssh://example.org/~ada/app.git"),
        ("//ada:s3cret@example.org/app.git", "//example.org/app.git"),
        ("helper::https://ada:s3cret@example.org/app.git", "helper::https://example.org/app.git"),
        ("https://example.org/@team/app.git", "https://example.org/@team/app.git"),
        ("git@example.org:app.git", "git@example.org:app.git"),
        ("../a@b/app.git", "../a@b/app.git"),
    ],
)
def test_an_address_has_no_login(repository: Path, origin: str, told: str) -> None:
    """Neither user nor password nor a mark in their place; what only looks like a login stays."""
    git(repository, "config", "remote.origin.url", origin)
    assert attributes(repository)["vcs:source"] == told


@pytest.mark.parametrize("state", ["packed", "detached", "worktree", "branch of another remote"])
def test_the_commit_is_found_wherever_git_keeps_it(repository: Path, tmp_path: Path, state: str) -> None:
    """As a packed ref, without a branch, and in a working tree that shares another one's repository."""
    source = "https://example.org/app.git"
    match state:
        case "packed":
            git(repository, "pack-refs", "--all")
        case "detached":
            git(repository, "checkout", "-q", "--detach")
        case "worktree":
            git(repository, "worktree", "add", "-q", str(tmp_path / "other"))
            repository = tmp_path / "other"
        case _:
            source = "git@example.org:fork.git"
            git(repository, "remote", "add", "fork", source)
            git(repository, "config", "branch.main.remote", "fork")
    found = attributes(repository)
    assert found["vcs:revision"] == git(repository, "rev-parse", "HEAD")
    assert found["vcs:source"] == source


def test_variables_choose(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What buildx's variables leave out, make labels of, and mark as changed."""
    monkeypatch.setenv("BUILDX_GIT_INFO", "false")
    assert attributes(repository) == {}
    monkeypatch.setenv("BUILDX_GIT_LABELS", "1")
    commit = git(repository, "rev-parse", "HEAD")
    assert attributes(repository) == {
        "label:org.opencontainers.image.revision": commit,
        "label:org.opencontainers.image.source": "https://example.org/app.git",
        "label:com.docker.image.source.entrypoint": "app/Dockerfile",
    }
    monkeypatch.setenv("BUILDX_GIT_CHECK_DIRTY", "1")
    assert attributes(repository)["label:org.opencontainers.image.revision"] == commit
    (repository / "new").write_text("")
    assert attributes(repository)["label:org.opencontainers.image.revision"] == f"{commit}-dirty"


def test_without_a_repository_there_is_nothing(tmp_path: Path) -> None:
    """Neither outside of one, nor before the first commit."""
    assert find_repository(tmp_path) is None
    git(tmp_path, "init", "-q")
    (tmp_path / "app").mkdir()
    assert attributes(tmp_path) == {"vcs:localdir:context": "app", "vcs:localdir:dockerfile": "app"}


@pytest.mark.parametrize("content", ["ref: refs/heads/../../../etc/passwd\n", "\0", "ref:", "not a hash", ""])
def test_a_damaged_repository_names_no_commit(repository: Path, content: str) -> None:
    """What is no commit is not told as one."""
    (repository / ".git/HEAD").write_text(content)
    assert "vcs:revision" not in attributes(repository)
