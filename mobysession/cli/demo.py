"""``mobysession demo``: a small real image that proves the callbacks.

The engine reads a file from this process and asks it for a secret, which a Python function makes up on the spot; then
the image is opened, and what the engine's own RUN made of both is compared with what was given. Without any engine at
hand one is started for the run; where that may not be, the same session meets the built-in fake daemon, and the report
says so.
"""

from __future__ import annotations

import hashlib
import secrets
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from mobysession.cli.app import run_async
from mobysession.cli.parser import offer
from mobysession.errors import BuildFailed, MobysessionError, TransportError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from mobysession.build.result import BuildResult
    from mobysession.cli.app import Target
    from mobysession.cli.parser import Parser
    from mobysession.transport.api import EngineApi
    from mobysession.transport.endpoint import Endpoint

__all__ = ["SYNOPSIS", "add_options", "run"]

_TAG = "mobysession-demo"
_DOCKERFILE = """\
{base}
COPY message.txt /demo/message.txt
ARG RUN_ID
RUN --mount=type=secret,id=demo,required=true \\
    /bin/busybox sha256sum < /run/secrets/demo > /demo/secret.sha256
"""
#: With a static busybox of this machine's the base comes from us too, and no registry is needed.
_OWN_BASE = 'FROM scratch\nCOPY busybox /bin/busybox\nSHELL ["/bin/busybox", "sh", "-c"]'
_HUB_BASE = "FROM busybox"
#: Seconds for the engine to delete a container that was never started, or an image.
_CLEANUP_TIMEOUT = 10.0


SYNOPSIS = ""


def add_options(parser: Parser) -> None:
    """Add what `run` takes."""
    kinds = "auto, plain, tty, quiet, none or rawjson."
    progress = parser.add_argument("--progress", default="auto", metavar="KIND", help=kinds)
    offer(progress, "auto", "plain", "tty", "quiet", "none", "rawjson")
    fake = "Use the built-in fake daemon, without looking for an engine."
    parser.add_argument("--fake", action="store_true", help=fake)


def run(target: Target, options: argparse.Namespace) -> int:
    """Build a small image that proves the callbacks: a file and a secret from this process."""
    progress: str = options.progress
    if options.fake:
        return run_async(_against_fake, progress)
    endpoint = target.endpoint()
    reason = run_async(_unreachable, endpoint)
    if reason is None:
        return _on_engine(endpoint, progress)
    if not target.is_default:
        raise reason
    _say(f"no engine answers: {reason.message}")
    return _without_engine(progress)


def _without_engine(progress: str) -> int:
    from mobysession.testing.engine import can_start_engine

    refusal = can_start_engine()
    if refusal is not None:
        _say(f"an engine of its own cannot be started here ({refusal}), so this uses the built-in fake daemon")
        return run_async(_against_fake, progress)
    with _private_engine() as endpoint:
        return _on_engine(endpoint, progress)


@contextmanager
def _private_engine() -> Iterator[Endpoint]:
    from mobysession.testing.base_image import static_busybox
    from mobysession.testing.engine import PrivateEngine, cached_data_root
    from mobysession.testing.packages import install_debian_docker
    from mobysession.transport.endpoint import Endpoint

    install_debian_docker(_say)
    static_busybox(_say)
    with PrivateEngine(data_root=cached_data_root()) as engine:
        _say(f"started Docker {engine.version} for this run, at {engine.host}")
        yield Endpoint.parse(engine.host, source="started for the demo")


def _on_engine(endpoint: Endpoint, progress: str) -> int:
    with tempfile.TemporaryDirectory(prefix="mobysession-demo-") as folder:
        message = _write_context(Path(folder), _busybox())
        return run_async(_build_and_verify, endpoint, folder, message, progress)


def _busybox() -> Path | None:
    """Return a static busybox of this machine's, which is installed where that may be; else Docker Hub has to help."""
    from mobysession.errors import EngineError
    from mobysession.testing.base_image import static_busybox

    try:
        return static_busybox(_say)
    except EngineError:
        return None


def _write_context(folder: Path, busybox: Path | None) -> bytes:
    """Fill ``folder`` and return the message that the image has to hold in the end."""
    import shutil

    message = f"made {secrets.token_hex(8)} by process {folder.name}\n".encode()
    (folder / "message.txt").write_bytes(message)
    (folder / "Dockerfile").write_text(_DOCKERFILE.format(base=_HUB_BASE if busybox is None else _OWN_BASE))
    if busybox is not None:
        shutil.copy(busybox, folder / "busybox")
    return message


async def _unreachable(endpoint: Endpoint) -> MobysessionError | None:
    from mobysession.transport.api import EngineApi

    try:
        await EngineApi(endpoint).ping()
    except TransportError as error:
        return error
    return None


async def _build_and_verify(endpoint: Endpoint, folder: str, message: bytes, progress: str) -> int:
    from mobysession.build.build import build
    from mobysession.transport.api import EngineApi

    secret = secrets.token_bytes(32)
    asked = 0

    def make_up_secret() -> bytes:
        nonlocal asked
        asked += 1
        return secret

    earlier = await _image_id(endpoint)
    result = await build(
        folder,
        endpoint=endpoint,
        progress=progress,
        tags=[_TAG],
        secrets={"demo": make_up_secret},
        # A secret is not part of the cache's key: without this the second run would not ask for it.
        build_args={"RUN_ID": secrets.token_hex(8)},
    )
    files = await _read_image(endpoint, result)
    if earlier not in (None, result.image_id):
        await _delete(EngineApi(endpoint), f"/images/{earlier}")
    digest = files["demo/secret.sha256"].split()[0].decode()
    if files["demo/message.txt"] != message or digest != hashlib.sha256(secret).hexdigest() or not asked:
        raise BuildFailed("the image does not hold what this process gave the engine")
    print(f"image   {result.image_id}")
    print(f"file    message.txt was read from this process and is in the image ({len(message)} bytes)")
    print(f"secret  was asked of this process {asked} time, and RUN saw its {len(secret)} bytes: sha256 {digest[:12]}")
    return 0


async def _read_image(endpoint: Endpoint, result: BuildResult) -> dict[str, bytes]:
    """Return the files below /demo of the image, through a container that is never started."""
    import io
    import json
    import tarfile

    from mobysession.transport.api import EngineApi

    api = EngineApi(endpoint)
    body = json.dumps({"Image": result.image_id, "Cmd": ["/bin/busybox"]}).encode()
    headers = [("Content-Type", "application/json")]
    async with api.request("POST", "/containers/create", headers=headers, body=body) as response:
        if response.status != 201:
            raise await response.error("POST /containers/create")
        container = json.loads(await response.read())["Id"]
    try:
        async with api.request("GET", f"/containers/{container}/archive?path=/demo") as response:
            if response.status != 200:
                raise await response.error("GET /containers/archive")
            archive = await response.read()
    finally:
        await _delete(api, f"/containers/{container}?force=1")
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        members = [(member.name, tar.extractfile(member)) for member in tar if member.isfile()]
        return {name: file.read() for name, file in members if file is not None}


async def _image_id(endpoint: Endpoint) -> str | None:
    """Return the ID of the image that an earlier demo left; None where there is none."""
    from mobysession.errors import ApiError
    from mobysession.transport.api import EngineApi

    try:
        return str((await EngineApi(endpoint).get_json(f"/images/{_TAG}/json")).get("Id"))
    except ApiError:
        return None


async def _delete(api: EngineApi, path: str) -> None:
    """Delete what the demo made, also when it was interrupted; an engine that cannot is not waited for."""
    import trio

    with trio.move_on_after(_CLEANUP_TIMEOUT, shield=True):
        async with api.request("DELETE", path) as response:
            await response.read()


async def _against_fake(progress: str) -> int:
    """The same build and callbacks, against the daemon's half played by this very process."""
    from mobysession.build.build import build
    from mobysession.testing import FakeDaemon

    with tempfile.TemporaryDirectory(prefix="mobysession-demo-") as folder:
        _write_context(Path(folder), None)
        asked = []

        def make_up_secret() -> bytes:
            asked.append(True)
            return secrets.token_bytes(32)

        async with FakeDaemon.listen(Path(folder) / "fake.sock") as daemon:
            result = await build(
                folder,
                endpoint=daemon.endpoint,
                progress=progress,
                tags=[_TAG],
                secrets={"demo": make_up_secret},
            )
    print(f"fake    no engine was used: the built-in fake daemon received the context ({result.digest})")
    print(f"secret  was asked of this process {len(asked)} time; nothing was executed")
    return 0


def _say(line: str) -> None:
    print(line, file=sys.stderr)
