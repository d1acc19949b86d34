"""An image as a directory: which output that is, what of a build's options refuses it, and what its index says."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING

import pytest

from mobysession.build import build
from mobysession.build.cache_stores import open_stores
from mobysession.build.exports import Output, check_destinations, exports_of, targets_of
from mobysession.build.layout_output import EXPORT_STORE, LayoutOutput, open_layout
from mobysession.build.options import BuildOptions
from mobysession.build.prepare import prepare
from mobysession.errors import OutputError, UsageError
from mobysession.redaction import Redactor
from mobysession.services.content import STORE_ID, Content
from mobysession.services.oci_layout import OciLayout
from mobysession.testing import FakeDaemon
from tests.services.stores import put_blob, write_all

if TYPE_CHECKING:
    from pathlib import Path

    from mobysession.testing import FakeSolve


def _response(digest: str, **more: str) -> dict[str, str]:
    descriptor = json.dumps({"mediaType": "m", "digest": digest, "size": 8}).encode()
    return {"containerimage.descriptor": base64.b64encode(descriptor).decode(), **more}


def _opened(*outputs: str) -> LayoutOutput:
    found = open_layout([Output.parse(text) for text in outputs])
    assert found is not None
    return found


@pytest.mark.parametrize("tar", ["0", "f", "F", "false", "FALSE", "False"])
def test_a_layout_is_written_and_not_sent(tmp_path: Path, tar: str) -> None:
    """The engine is asked for it in its words, in its place among the outputs; nobody waits for a stream of it."""
    outputs = [Output.parse(text) for text in ("out", f"type=oci,dest={tmp_path}/image,tar={tar}")]
    assert exports_of(outputs, ["n:1"])[1] == ("oci", {"tar": tar, "name": "n:1"})
    assert list(targets_of(outputs)) == [0]
    assert open_layout(outputs) is not None
    assert (tmp_path / "image").is_dir()


@pytest.mark.parametrize("text", ["type=oci,dest=x", "type=oci,dest=x,tar=true", "type=docker,dest=x", "x"])
def test_anything_else_is_none(text: str) -> None:
    """An archive stays one."""
    assert open_layout([Output.parse(text)]) is None


def test_the_build_offers_the_store(tmp_path: Path) -> None:
    """Under the name that engines ask for, and with the caches of the build in one service."""
    (tmp_path / "Dockerfile").write_text("FROM scratch")
    outputs = [f"type=docker,dest={tmp_path}/image,tar=false"]
    stores = open_stores(BuildOptions(context=tmp_path, outputs=outputs), Redactor())
    assert stores.stores[EXPORT_STORE].path == str(tmp_path / "image")
    cache_to = [f"type=local,dest={tmp_path}/cache"]
    prepared = prepare(BuildOptions(context=tmp_path, outputs=outputs, cache_to=cache_to), "unix:///nowhere")
    assert prepared.outputs is None
    assert sum(isinstance(service, Content) for service in prepared.services) == 1


def test_there_is_one_of_them(tmp_path: Path) -> None:
    """Engines know one store only, and a second image would be mixed into the first."""
    outputs = [Output("oci", tmp_path / name, {"tar": "false"}) for name in ("a", "b")]
    with pytest.raises(UsageError, match="several outputs have tar=false"):
        check_destinations(outputs)


def test_a_file_in_its_place_is_told_first(tmp_path: Path) -> None:
    """Before the engine is asked."""
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="file' cannot be written: it is not a directory"):
        check_destinations([Output("oci", tmp_path / "file", {"tar": "false"})])
    with pytest.raises(OutputError, match="file' cannot be written"):
        _opened(f"type=oci,dest={tmp_path}/file,tar=false")


def test_the_index_has_all_names(tmp_path: Path) -> None:
    """Those that the engine tells, each with its tag; what came is counted without what was there before."""
    put_blob(tmp_path, b"was there")
    output = _opened("type=cacheonly", f"type=oci,dest={tmp_path},tar=false")
    digest = put_blob(tmp_path, b"manifest")
    came = output.complete(_response(digest, **{"image.name": "docker.io/x/y:1,docker.io/x/z:2"}))
    assert (came.exporter, came.path, came.size, came.complete) == (0, str(tmp_path), len(b"manifest"), True)
    manifests = json.loads((tmp_path / "index.json").read_text())["manifests"]
    assert [(given["digest"], given["annotations"]) for given in manifests] == [
        (digest, {"io.containerd.image.name": f"docker.io/x/{name}", "org.opencontainers.image.ref.name": tag})
        for name, tag in (("y:1", "1"), ("z:2", "2"))
    ]
    assert json.loads((tmp_path / "oci-layout").read_text()) == {"imageLayoutVersion": "1.0.0"}


def test_an_image_without_a_name_is_the_latest(tmp_path: Path) -> None:
    """And takes the place of the one that was it before."""
    output = _opened(f"type=oci,dest={tmp_path},tar=false")
    digests = [put_blob(tmp_path, content) for content in (b"first", b"second")]
    for digest in digests:
        output.complete(_response(digest))
    (given,) = json.loads((tmp_path / "index.json").read_text())["manifests"]
    assert (given["digest"], given["annotations"]) == (digests[1], {"org.opencontainers.image.ref.name": "latest"})
    assert len(list(OciLayout(tmp_path).walk())) == 2


async def test_an_engine_writes_the_image(tmp_path: Path) -> None:
    """A whole build: the blobs come through the session, the index is there afterwards, the result tells of both."""
    (tmp_path / "Dockerfile").write_text("FROM scratch")

    async def export(solve: FakeSolve) -> dict[str, str]:
        caller = await solve.session()
        digest = await write_all(caller.channel, "manifest", b"manifest", metadata=[(STORE_ID, EXPORT_STORE)])
        return _response(digest)

    outputs = [f"type=oci,dest={tmp_path}/image,tar=false"]
    async with FakeDaemon.listen(script=export, buildkitd=True) as daemon:
        result = await build(tmp_path, endpoint=daemon.endpoint, attach="buildkitd", outputs=outputs)
    (came,) = result.outputs
    assert (came.path, came.size, came.complete) == (f"{tmp_path}/image", len(b"manifest"), True)
    (given,) = json.loads((tmp_path / "image/index.json").read_text())["manifests"]
    assert OciLayout(tmp_path / "image").has(given["digest"])


@pytest.mark.parametrize(
    "response",
    [
        {},
        {"containerimage.descriptor": "no base64!"},
        {"containerimage.descriptor": base64.b64encode(b"{").decode()},
        _response("sha256:" + 64 * "0"),
    ],
)
def test_an_image_that_did_not_come_is_an_error(tmp_path: Path, response: dict[str, str]) -> None:
    """Whatever the engine says, and the index stays as it was."""
    output = _opened(f"type=oci,dest={tmp_path},tar=false")
    with pytest.raises(OutputError, match="not written its image to"):
        output.complete(response)
    assert not (tmp_path / "index.json").exists()
