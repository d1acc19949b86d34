"""Contexts and Dockerfiles that are streams, pulled by real engines from the Upload service."""

from __future__ import annotations

import gzip
import io
import tarfile
from typing import TYPE_CHECKING

import pytest
import trio

from integration.images import BUILD_TIMEOUT
from mobysession.build.options import BuildOptions
from mobysession.build.request import solve_request
from mobysession.buildkit.control import open_control
from mobysession.identity import new_id
from mobysession.services.filesend import FileSend, FileTarget
from mobysession.services.upload import Upload
from mobysession.session.session import Session
from mobysession.transport.endpoint import Endpoint

if TYPE_CHECKING:
    from pathlib import Path

    from integration.engines import Engine
    from mobysession.services.upload import Body

DOCKERFILE = b"FROM scratch\nCOPY hello /greeting\n"


def _tar(**files: bytes) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return packed.getvalue()


async def _build_upload(engine: Engine, body: Body) -> tuple[list[str], dict[str, int]]:
    """Build a stream into a tar; return the names in it and what was uploaded."""
    endpoint, upload, result = Endpoint.parse(engine.host), Upload(), io.BytesIO()
    session = Session(endpoint)
    session.allow(upload, FileSend([FileTarget(result)]))
    options = BuildOptions(outputs=["type=tar"])
    with trio.fail_after(BUILD_TIMEOUT):
        async with session.attach(), open_control(endpoint) as control:
            request = solve_request(options, ref=new_id(), session_id=session.id, dockerfile="Dockerfile")
            request.FrontendAttrs["context"] = upload.add(body)
            await control.solve(request)
    with tarfile.open(fileobj=io.BytesIO(result.getvalue())) as archive:
        return archive.getnames(), upload.sent


@pytest.mark.parametrize("packed", [False, True])
def test_a_tar_is_a_context(engine: Engine, tmp_path: Path, packed: bool) -> None:
    """Plain or compressed, of several messages' size, from a file: its Dockerfile is found and its files copied."""
    content = _tar(Dockerfile=DOCKERFILE, hello=b"hello" * 2_000_000)
    (tmp_path / "context.tar").write_bytes(gzip.compress(content, 1) if packed else content)
    names, sent = trio.run(_build_upload, engine, tmp_path / "context.tar")
    assert names == ["greeting"]
    assert list(sent.values()) == [(tmp_path / "context.tar").stat().st_size]


def test_anything_else_is_the_dockerfile(engine: Engine) -> None:
    """A stream that is no archive is built without a context."""
    names, _ = trio.run(_build_upload, engine, io.BytesIO(b"FROM mobysession-base\nRUN echo x > /made\n"))
    assert "made" in names
