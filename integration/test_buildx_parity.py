"""One directory, built by us and by ``docker buildx build``: the same files in the image, to the last attribute."""

from __future__ import annotations

import dataclasses
import hashlib
import subprocess
import sys
from typing import TYPE_CHECKING

from integration.contexts import make_context, make_rich_tree
from integration.images import BUILD_TIMEOUT

if TYPE_CHECKING:
    from pathlib import Path

    from integration.engines import Buildx, Engine
    from integration.images import FileState, Witness

FIRST_THAT_KEEPS_DIRECTORY_TIMES = 23
"""The engine since which a COPY gives directories the time that they have in the context."""

FIRST_THAT_COPIES_FIFOS = 23
"""The engine since which a COPY takes named pipes with it; an older one drops them, whoever asks."""

COPY_ALL = "FROM scratch\nCOPY . /all/\n"


def _ours(engine: Engine, context: Path, *options: str | Path) -> str:
    argv = [sys.executable, "-m", "mobysession", "-H", engine.host, "build", "-q", "--no-cache", *options, context]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=BUILD_TIMEOUT, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.strip()


def _theirs(engine: Engine, buildx: Buildx, context: Path, *options: str | Path) -> str:
    # Without a cache, for a layer that we built would be taken as theirs.
    name = "mobysession-test/buildx:1"
    arguments = ("build", "--no-cache", "--provenance=false", "-t", name, *options, context)
    done = buildx.run(engine.host, *arguments, config_dir=context.parent / "buildx")
    assert done.returncode == 0, done.stderr.decode()
    return name


def _both(
    engine: Engine, buildx: Buildx, witness: Witness, context: Path, *options: str | Path
) -> tuple[dict[str, FileState], dict[str, FileState]]:
    """Build with both clients; return what either image has below /all."""
    ours = witness.tree(_ours(engine, context, *options), "/all")
    theirs = witness.tree(_theirs(engine, buildx, context, *options), "/all")
    return _comparable(engine, ours), _comparable(engine, theirs)


def _comparable(engine: Engine, tree: dict[str, FileState]) -> dict[str, FileState]:
    """Leave out when directories were changed last, where the engine's COPY does not take that from the context."""
    return tree if engine.major >= FIRST_THAT_KEEPS_DIRECTORY_TIMES else _without_directory_times(tree)


def _without_directory_times(tree: dict[str, FileState]) -> dict[str, FileState]:
    return {
        name: dataclasses.replace(state, mtime=0) if state.kind == "directory" else state
        for name, state in tree.items()
    }


def test_a_rich_tree(engine: Engine, buildx: Buildx, witness: Witness, tmp_path: Path) -> None:
    """Kinds, modes, owners, times, link targets, hard links, names, contents are those of buildx, and of the disk."""
    context = make_context(tmp_path / "context", COPY_ALL)
    make_rich_tree(context)
    ours, theirs = _both(engine, buildx, witness, context)
    assert ours == theirs
    lost = {"fifo"} if engine.major < FIRST_THAT_COPIES_FIFOS else set()
    assert set(ours) == {str(path.relative_to(context)) for path in context.rglob("*")} - lost
    for name, state in ours.items():
        path = context / name
        found = path.lstat()
        if state.kind != "symlink":
            assert (name, oct(state.mode)) == (name, oct(found.st_mode & 0o7777))
        if state.mtime:
            assert (name, state.mtime) == (name, int(found.st_mtime))
        assert (state.uid, state.gid) == (0, 0)
        if state.kind == "file":
            assert state.digest == hashlib.sha256(path.read_bytes()).hexdigest()
        if path.is_symlink():
            assert (state.kind, state.target) == ("symlink", str(path.readlink()))
    assert ours["hard-a"].names == {"hard-a", "sub/hard-b", "zz-hard-c"}


IGNORED = {
    "keep/a": "a",
    "drop/b": "b",
    "drop/keep/c": "c",
    "drop/keep/d.log": "d",
    "x.log": "x",
    "important.log": "y",
    "deep/er/x.tmp": "z",
    "deep/er/y.txt": "t",
    "späße/x": "u",
}
DOCKERIGNORE = "# a comment\n*.log\n!important.log\ndrop\n!drop/keep\ndrop/keep/*.log\n**/*.tmp\nsp*e\n"


def test_a_dockerignore_with_exceptions(engine: Engine, buildx: Buildx, witness: Witness, tmp_path: Path) -> None:
    """Both leave out the same files, and take back the same ones."""
    context = make_context(tmp_path / "context", COPY_ALL, {**IGNORED, ".dockerignore": DOCKERIGNORE})
    ours, theirs = _both(engine, buildx, witness, context)
    assert ours == theirs
    files = {name for name, state in ours.items() if state.kind == "file"}
    assert files == {".dockerignore", "Dockerfile", "keep/a", "drop/keep/c", "important.log", "deep/er/y.txt"}


def test_a_dockerignore_of_the_dockerfiles_own(
    engine: Engine, buildx: Buildx, witness: Witness, tmp_path: Path
) -> None:
    """``<Dockerfile>.dockerignore`` counts instead of ``.dockerignore``, for a Dockerfile that lies elsewhere too."""
    context = make_context(tmp_path / "context", COPY_ALL, {**IGNORED, ".dockerignore": DOCKERIGNORE})
    apart = make_context(tmp_path / "apart", "FROM mobysession-base", {"Special": COPY_ALL})
    (apart / "Special.dockerignore").write_text("*\n!drop\n**/*.log\n")
    ours, theirs = _both(engine, buildx, witness, context, "--file", apart / "Special")
    assert ours == theirs
    assert {name for name, state in ours.items() if state.kind == "file"} == {"drop/b", "drop/keep/c"}


PARTS = """\
FROM scratch
COPY link/leaf /all/1/
COPY l?nk /all/2/
COPY --chown=5:6 way/to /all/3/
ADD a* /all/4/
COPY ["with space", "/all/5/"]
"""


def test_parts_and_links(engine: Engine, buildx: Buildx, witness: Witness, tmp_path: Path) -> None:
    """Only parts of the context are asked for, through links and wildcards; what arrives is the same for both."""
    files = {"real/leaf": "leaf", "a1": "1", "a2": "2", "with space": "s", "inner/to/here": "here", "inner/no": "no"}
    context = make_context(tmp_path / "context", PARTS, files)
    (context / "link").symlink_to("real")
    (context / "way").symlink_to("/inner")
    ours, theirs = _both(engine, buildx, witness, context)
    # The directories were made by COPY, at a time of their own.
    assert _without_directory_times(ours) == _without_directory_times(theirs)
    assert {"1/leaf", "2", "3/here", "4/a1", "4/a2", "5/with space"} <= set(ours)


def test_the_configuration(engine: Engine, buildx: Buildx, witness: Witness, tmp_path: Path) -> None:
    """What the Dockerfile says about running the image, and labels, come to the same configuration."""
    dockerfile = """\
FROM mobysession-base
ENV A=1 B="two words"
WORKDIR /work
USER nobody
EXPOSE 80/tcp
VOLUME /data
LABEL one=1
ENTRYPOINT ["cat"]
HEALTHCHECK CMD true
STOPSIGNAL SIGINT
"""
    context = make_context(tmp_path / "context", dockerfile)
    options = ("--label", "two=2")
    ours, theirs = (
        witness.config(image)
        for image in (_ours(engine, context, *options), _theirs(engine, buildx, context, *options))
    )
    assert ours == theirs
    assert ours["Labels"]["two"] == "2"
