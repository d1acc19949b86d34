"""Builds from standard input: what is uploaded, what is read at once, and what does not go together."""

from __future__ import annotations

import io
import tarfile
from typing import TYPE_CHECKING, Any, Literal

import pytest

from mobysession import limits
from mobysession.build import build
from mobysession.errors import ContextError, UnsupportedByEngine, UsageError
from mobysession.services.bytes_message import decode_bytes_message
from mobysession.services.upload import PULL
from mobysession.testing import FakeDaemon

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from mobysession.testing import FakeSolve

DIGEST = {"containerimage.digest": "sha256:1"}


@pytest.fixture
def stdin(monkeypatch: pytest.MonkeyPatch) -> Callable[[bytes], None]:
    """Give a function that sets what comes on standard input."""

    def set_stdin(content: bytes) -> None:
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(content)))

    return set_stdin


def _tar(mode: Literal["w", "w:gz", "w:bz2", "w:xz"]) -> bytes:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode=mode) as archive:
        archive.addfile(tarfile.TarInfo("other"))
    return content.getvalue()


@pytest.mark.parametrize(
    ("mode", "file"),
    [(None, None), *[(mode, name) for mode in ("w", "w:gz", "w:bz2", "w:xz") for name in ("other", None)]],
)
async def test_a_context_on_stdin_is_uploaded_when_the_engine_pulls_it(
    stdin: Callable[[bytes], None], mode: Literal["w", "w:gz", "w:bz2", "w:xz"] | None, file: str | None
) -> None:
    """The engine is told a URL that only this session answers, and no directory is offered."""
    sent = b"a tar or not" if mode is None else _tar(mode)
    pulled: list[bytes] = []

    async def pull(solve: FakeSolve) -> dict[str, str]:
        url = solve.request.FrontendAttrs["context"]
        assert url.startswith("http://buildkit-session/")
        assert solve.request.FrontendAttrs["filename"] == (file or "Dockerfile")
        caller = await solve.session()
        async with caller.channel.open_call(PULL, metadata=[("urlpath", url)]) as call:
            while messages := await call.receive_batch():
                pulled.extend(bytes(decode_bytes_message(message)) for message in messages)
        return DIGEST

    stdin(sent)
    async with FakeDaemon.listen(script=pull) as daemon:
        result = await build("-", file=file, endpoint=daemon.endpoint)
    assert b"".join(pulled) == sent
    assert result.transfers == ()


async def test_a_dockerfile_on_stdin_stands_beside_the_context(context: Path, stdin: Callable[[bytes], None]) -> None:
    """The context is the directory, and its own Dockerfile is not looked at."""
    read: dict[str, str] = {}

    async def look(solve: FakeSolve) -> dict[str, str]:
        async with solve.vertex("load") as vertex:
            for name in ("dockerfile", "context"):
                tree = await solve.receive(vertex, name)
                read[name] = (tree.root / "Dockerfile").read_text()
        return DIGEST

    stdin(b"FROM scratch")
    async with FakeDaemon.listen(script=look) as daemon:
        await build(context, file="-", endpoint=daemon.endpoint)
    assert read == {"dockerfile": "FROM scratch", "context": (context / "Dockerfile").read_text()}


@pytest.mark.parametrize(
    ("context", "options", "error", "words"),
    [
        ("-", {"file": "-"}, UsageError, "cannot both come from stdin"),
        ("/nowhere", {"file": "-"}, ContextError, "does not exist"),
    ],
)
async def test_what_does_not_go_together(
    stdin: Callable[[bytes], None], context: str, options: dict[str, Any], error: type[Exception], words: str
) -> None:
    """Is refused before the engine is asked."""
    stdin(b"FROM scratch")
    with pytest.raises(error, match=words):
        await build(context, **options)


@pytest.mark.parametrize("sent", [b"", b"FROM scratch\n", b"BZ", bytes(1024)])
async def test_a_dockerfile_on_stdin_leaves_no_place_for_another(stdin: Callable[[bytes], None], sent: bytes) -> None:
    """Which of the two was meant cannot be told, so neither is built."""
    stdin(sent)
    with pytest.raises(UsageError, match="is no archive but a Dockerfile, and another one is named"):
        await build("-", file="other")


async def test_a_terminal_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody types a tar, and a thread that waits for a terminal cannot be interrupted."""
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    with pytest.raises(ContextError, match="stdin is a terminal"):
        await build("-")


async def test_a_dockerfile_that_is_none_is_refused(context: Path, stdin: Callable[[bytes], None]) -> None:
    """A tar sent to ``-f -`` by mistake is not read into memory to its end."""
    stdin(bytes(limits.MAX_DOCKERFILE + 1))
    with pytest.raises(ContextError, match="has more than 8388608 bytes"):
        await build(context, file="-")


async def test_the_classic_endpoint_has_no_uploads(stdin: Callable[[bytes], None]) -> None:
    """What it cannot be asked is refused, with what could."""
    stdin(b"FROM scratch")
    async with FakeDaemon.listen() as daemon:
        with pytest.raises(UnsupportedByEngine, match="cannot take a context from stdin"):
            await build("-", endpoint=daemon.endpoint, driver="classic")
