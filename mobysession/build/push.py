"""Pushing an image from an engine that keeps images in a graph driver: its BuildKit cannot, so the engine is asked.

An image in containerd is pushed by BuildKit, as part of the solve. Elsewhere docker's CLI asks the Engine API for it
once the image is there, with the login in a header, and so is done here. What the engine says of it becomes a step of
the build.

Source: docker/buildx build/build.go, pushWithMoby and remoteDigestWithMoby; moby/moby api, ``POST /images/NAME/push``.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from mobysession._pb import control_pb2
from mobysession.dockerconfig import config_key
from mobysession.errors import ApiError, BuildFailed, HandshakeError
from mobysession.identity import new_id
from mobysession.jsontext import parse_json
from mobysession.services.credentials import credential_source
from mobysession.services.image_name import ImageName
from mobysession.transport.api import EngineApi

if TYPE_CHECKING:
    from mobysession.build.options import BuildOptions
    from mobysession.build.progress import BuildProgress
    from mobysession.services.credentials import CredentialSource
    from mobysession.transport.endpoint import Endpoint

__all__ = ["PushStep", "names_to_push", "push_images"]


def names_to_push(options: BuildOptions) -> list[str]:
    """Return the names under which outputs of a build are to be pushed, each once."""
    names: list[str] = []
    for output in options.exports():
        if output.type in ("image", "registry") and output.is_pushed:
            named = output.attrs.get("name", "")
            names += options.tags or [name for name in named.split(",") if name]
    return list(dict.fromkeys(names))


async def push_images(endpoint: Endpoint, options: BuildOptions, progress: BuildProgress) -> str | None:
    """Push what a build has made, where the engine's BuildKit did not, and return its digest in the registry.

    Returns: None where there is nothing to push, or BuildKit has done it.

    Raises:
        BuildFailed: the registry or the engine refused; the image is in the engine's store.
        CredentialError: the login cannot be had.
        TransportError, ApiError: the engine cannot be asked.

    Cancel: the engine stops pushing.
    """
    names = names_to_push(options)
    engine = EngineApi(endpoint)
    if not names or await _pushes_itself(engine):
        return None
    source = credential_source(options.credentials)
    for name in names:
        await _push(engine, name, await _login(source, name, progress), progress)
    return await _remote_digest(engine, names[0], await _login(source, names[0], progress))


async def _pushes_itself(engine: EngineApi) -> bool:
    from mobysession.build.exports import has_containerd_store

    return has_containerd_store(await engine.get_json("/info"))


async def _login(source: CredentialSource, name: str, progress: BuildProgress) -> tuple[str, str]:
    """Return the header with the login for a name's registry; an identity token is a secret without a user."""
    host = ImageName.parse(name).host
    found = await source.lookup(host)
    if found.secret and progress.redactor is not None:
        progress.redactor.add(found.secret)
    login = (
        {"username": found.username, "password": found.secret} if found.username else {"identitytoken": found.secret}
    )
    document = {**login, "serveraddress": config_key(host)} if found.secret else {}
    return "X-Registry-Auth", base64.urlsafe_b64encode(json.dumps(document).encode()).decode()


async def _push(engine: EngineApi, name: str, auth: tuple[str, str], progress: BuildProgress) -> None:
    repository, colon, tag = name.rpartition(":")
    if not colon or "/" in tag:
        repository, tag = name, "latest"
    step = PushStep(f"pushing {name} with docker", progress)
    path = f"/images/{quote(repository, safe='/:')}/push?tag={quote(tag)}"
    try:
        async with engine.request("POST", path, headers=[auth], patience=math.inf) as answer:
            if answer.status >= 300:
                raise await answer.error(f"pushing {name}")
            async for line in answer.lines():
                if line.strip():
                    step.take(_parse(line))
    except ApiError as error:
        step.fail(error.message)
    step.end()


def _parse(line: bytes) -> dict[str, Any]:
    try:
        item = parse_json(line)
    except ValueError as error:
        raise HandshakeError("the answer to a push is not the JSON stream of a Docker engine") from error
    return item if isinstance(item, dict) else {}


async def _remote_digest(engine: EngineApi, name: str, auth: tuple[str, str]) -> str | None:
    async with engine.request("GET", f"/distribution/{quote(name, safe='/:')}/json", headers=[auth]) as answer:
        if answer.status >= 300:
            return None
        found = _parse(await answer.read())
    descriptor = found.get("Descriptor")
    return str(descriptor.get("digest", "")) or None if isinstance(descriptor, dict) else None


class PushStep:
    """One push, as a step of the build, with what the engine says of it."""

    def __init__(self, name: str, progress: BuildProgress) -> None:
        self._name = name
        self._progress = progress
        self._vertex = control_pb2.Vertex(digest="sha256:" + hashlib.sha256(new_id().encode()).hexdigest(), name=name)
        _stamp(self._vertex.started)
        self._tell()

    def take(self, item: dict[str, Any]) -> None:
        """Show how far a layer is; BuildFailed where the engine tells of an error."""
        detail = item.get("errorDetail")
        if "error" in item or isinstance(detail, dict):
            self.fail(str(detail.get("message") if isinstance(detail, dict) else item.get("error")))
        layer, done, progress = item.get("id"), item.get("status") == "Pushed", item.get("progressDetail")
        if not isinstance(layer, str) or not (done or progress):
            return
        sizes = progress if isinstance(progress, dict) else {}
        current, total = (size if isinstance(size := sizes.get(key), int) else 0 for key in ("current", "total"))
        status = control_pb2.VertexStatus(
            ID=f"pushing layer {layer}", vertex=self._vertex.digest, current=current, total=total
        )
        _stamp(status.timestamp)
        _stamp(status.started)
        if done:
            _stamp(status.completed)
        self._progress.apply(control_pb2.StatusResponse(statuses=[status]))

    def end(self) -> None:
        """Show that it is done."""
        _stamp(self._vertex.completed)
        self._tell()

    def fail(self, message: str) -> None:
        """Raise BuildFailed, once the step is shown as failed."""
        from mobysession.buildkit.hints import hint_for

        message = self.break_off(message)
        raise BuildFailed(message, step=self._name, hint=hint_for(message))

    def break_off(self, message: str) -> str:
        """Show that it failed, and return the message as it may be shown."""
        if self._progress.redactor:
            message = self._progress.redactor.redact(message)
        self._vertex.error = message
        self.end()
        return message

    def _tell(self) -> None:
        self._progress.apply(control_pb2.StatusResponse(vertexes=[self._vertex]))


def _stamp(field: Any) -> None:
    field.FromNanoseconds(time.time_ns())
