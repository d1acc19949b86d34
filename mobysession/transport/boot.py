"""A buildkitd in a container, made and started when it is asked for: ``docker-container://NAME?boot=1``.

The container is as buildx's docker-container driver makes it: privileged, with an init that reaps, its state in a
volume named after it, and started again with the engine. One that is there already is started as it is, whatever the
options say; of which image it is, only a new one is asked. An image that the engine has is not pulled again. Two that
boot the same name at once get the same container.

===================================  ===================================================================================
``image``                            ``moby/buildkit:buildx-stable-1`` where not said
``network``                          its network mode: ``host``, a network's name
``buildkitd-flags``                  of buildkitd, quoted as for a shell
``env.NAME``                         a variable of its environment
``memory``, ``memory-swap``          bytes, or with ``k``, ``m`` or ``g`` behind
``cpu-period``, ``cpu-quota``,       as ``docker run`` has them
``cpu-shares``, ``cpuset-cpus``,
``cpuset-mems``, ``cgroup-parent``
``restart-policy``                   ``unless-stopped`` where not said; ``on-failure:3``
``privileged``                       ``0`` for an image without root (``moby/buildkit:rootless``): no privileges, and no
                                     confinement by seccomp, AppArmor and hidden paths either, as such an image wants
===================================  ===================================================================================

Source: docker/buildx driver/docker-container/driver.go.
"""

from __future__ import annotations

import json
import logging
import re
import shlex
from typing import TYPE_CHECKING, Final
from urllib.parse import quote, urlencode

import trio

from mobysession import limits
from mobysession.errors import ConnectError, EndpointError, MobysessionError
from mobysession.protocol.http1 import one_line
from mobysession.protocol.stdcopy import StdcopyDecoder
from mobysession.transport.api import EngineApi
from mobysession.transport.container import JSON, MISSING, open_exec, parse_object

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mobysession.transport.container import ExecStream
    from mobysession.transport.endpoint import Endpoint
    from mobysession.transport.remote import ContainerAddress

__all__ = ["BOOT_OPTIONS", "boot_container"]

#: Options of a container that is made, besides ``env.NAME``; in HostConfig those that are passed on as they are.
_NUMBERS: Final = {"cpu-period": "CpuPeriod", "cpu-quota": "CpuQuota", "cpu-shares": "CpuShares"}
_TEXTS: Final = {"cpuset-cpus": "CpusetCpus", "cpuset-mems": "CpusetMems", "cgroup-parent": "CgroupParent"}
_SIZES: Final = {"memory": "Memory", "memory-swap": "MemorySwap"}
BOOT_OPTIONS: Final = frozenset(
    {"image", "network", "buildkitd-flags", "restart-policy", "privileged", *_NUMBERS, *_TEXTS, *_SIZES}
)

_IMAGE: Final = "moby/buildkit:buildx-stable-1"
_STATE: Final = "/var/lib/buildkit"
_CGROUP: Final = "/docker/buildx"  # what buildx puts its containers under, so that limits on it reach all of them
_RESTART: Final = "unless-stopped"
_SIZE: Final = re.compile(r"(-?\d+)([bkmg]?)b?", re.IGNORECASE)
_UNITS: Final = {"": 1, "b": 1, "k": 2**10, "m": 2**20, "g": 2**30}
_CONFLICT: Final = 409
#: Containers that have answered, by the engine's address and their ID: they are not asked at every connection.
_answered: set[tuple[str, str]] = set()
_log = logging.getLogger("mobysession.transport")


async def boot_container(engine: Endpoint, address: ContainerAddress, *, name: str) -> None:
    """See to it that a buildkitd runs in the container and answers.

    Raises:
        EndpointError: an option cannot be understood; the user must change it.
        ConnectError: the container cannot be made or started, or what runs in it is no buildkitd; with its last words.
        TransportError: the engine could not be asked.

    Cancel: what was made stays.
    """
    boot = _Boot(engine, address, name)
    if not await boot.find_or_create():
        await boot.start()
        await boot.wait_ready()
    boot.remember()


class _Boot:
    """One container of one engine."""

    def __init__(self, engine: Endpoint, address: ContainerAddress, name: str) -> None:
        self._engine = engine
        self._api = EngineApi(engine)
        self._container = address.name
        self._options: Mapping[str, str] = address.boot or {}
        self._program = (*address.argv[:-1], "debug", "workers")
        self._name = name
        #: Of the container, as far as it was looked at.
        self._id = ""

    async def find_or_create(self) -> bool:
        """Make the container where there is none; tell whether it was there, runs and answers."""
        status, found = await self._inspect()
        if status == MISSING:
            await self._create()
            return False
        if not _is_running(found):
            return False
        # Somebody else may have started it only now.
        return (self._engine.url, self._id) in _answered or await self._answers() is None

    def remember(self) -> None:
        """Take the container, as it was found, for one that has answered."""
        if self._id and len(_answered) < limits.REMEMBERED_ENDPOINTS:
            _answered.add((self._engine.url, self._id))

    async def _inspect(self) -> tuple[int, dict[str, object]]:
        path = f"/containers/{quote(self._container, safe='')}/json"
        status, found = await self._ask("GET", path, good=(200, MISSING))
        self._id = str(found.get("Id") or "")
        return status, found

    async def _create(self) -> None:
        image = self._options.get("image") or _IMAGE
        await self._have_image(image)
        _log.info("%s: creating the container from %s", self._name, image)
        wanted = {
            "Image": image,
            "Cmd": self._flags(),
            "Env": [f"{key[4:]}={value}" for key, value in self._options.items() if key.startswith("env.")],
            "HostConfig": host_config(self._container, self._options, await self._info(), name=self._name),
        }
        path = f"/containers/create?{urlencode({'name': self._container})}"
        await self._ask("POST", path, wanted, good=(201, _CONFLICT))

    def _flags(self) -> list[str]:
        try:
            return shlex.split(self._options.get("buildkitd-flags", ""))
        except ValueError as error:
            raise EndpointError(f"{self._name}: buildkitd-flags cannot be taken apart: {error}") from None

    async def _info(self) -> dict[str, object]:
        return (await self._ask("GET", "/info", good=(200,)))[1]

    async def _have_image(self, image: str) -> None:
        status, _ = await self._ask("GET", f"/images/{quote(image, safe='/:@')}/json", good=(200, MISSING))
        if status != MISSING:
            return
        _log.info("%s: pulling %s", self._name, image)
        digest = "@" in image
        repository, colon, tag = image.rpartition(":")
        if digest or not colon or "/" in tag:
            repository, tag = image, "" if digest else "latest"
        query = urlencode({"fromImage": repository, **({"tag": tag} if tag else {})})
        async with self._api.request("POST", f"/images/create?{query}", patience=limits.PULL_SILENCE) as response:
            if response.status >= 400:
                raise self._not_pulled(image, (await response.error("the pull")).message)
            async for line in response.lines():
                said = parse_object(line)
                if "error" in said:
                    raise self._not_pulled(image, one_line(str(said["error"])))

    def _not_pulled(self, image: str, words: str) -> ConnectError:
        return ConnectError(
            f"{self._name}: the engine cannot get the image {image}: {words}",
            hint=f"Log in and pull it by hand (docker pull {image}), or name another with image=.",
        )

    async def start(self) -> None:
        """Start the container; one that runs already is left alone."""
        path = f"/containers/{quote(self._container, safe='')}/start"
        await self._ask("POST", path, good=(204, 304))

    async def wait_ready(self) -> None:
        """Ask until a buildkitd answers, each time a little later, as buildx does."""
        reason: str | None = ""
        for attempt in range(1, limits.BOOT_ATTEMPTS + 1):
            reason = await self._answers()
            if reason is None:
                return
            if not await self._runs():
                break
            await trio.sleep(attempt * limits.BOOT_PAUSE)
        raise ConnectError(
            f"{self._name}: the container was started, and no buildkitd answers in it: {reason}",
            hint=await self._last_words() or "Look into its log (docker logs), and at the image that it is of.",
        )

    async def _answers(self) -> str | None:
        """Ask buildkitd for its workers; None where it lists them, else why not."""
        try:
            stream = await open_exec(self._engine, self._container, self._program, name=self._name)
        except ConnectError as error:
            return error.message
        try:
            with trio.move_on_after(limits.HANDSHAKE_TIMEOUT):
                while await stream.receive_some():
                    pass
                status = await stream.exit_status()
                return None if status == 0 else stream.last_words or "it did not say why"
            return f"it did not answer within {limits.HANDSHAKE_TIMEOUT:g} s"
        except MobysessionError as error:
            return error.message
        finally:
            await _close(stream)

    async def _runs(self) -> bool:
        return _is_running((await self._inspect())[1])

    async def _last_words(self) -> str | None:
        """Return the last words of the container."""
        path = f"/containers/{quote(self._container, safe='')}/logs?stdout=1&stderr=1&tail=5"
        try:
            async with self._api.request("GET", path) as response:
                data = await response.read(limits.MAX_REFUSAL_BODY, timeout=limits.HANDSHAKE_TIMEOUT)
            pieces = StdcopyDecoder().receive_data(data) if response.status == 200 else []
        except MobysessionError:  # a hint is all that this is for
            return None
        words = one_line(b"".join(piece for _, piece in pieces).decode("utf-8", "replace"))
        return f"Its log ends in: {words}" if words else None

    async def _ask(
        self, method: str, path: str, document: object = None, *, good: tuple[int, ...]
    ) -> tuple[int, dict[str, object]]:
        body = None if document is None else json.dumps(document).encode()
        headers = [] if document is None else [JSON]
        async with self._api.request(method, path, headers=headers, body=body) as response:
            if response.status not in good:
                error = await response.error(f"{method} {path.partition('?')[0]}")
                raise ConnectError(f"{self._name}: {error.message}") from error
            content = await response.read(limits.MAX_MESSAGE, timeout=limits.HANDSHAKE_TIMEOUT)
            return response.status, parse_object(content)


def host_config(
    container: str, options: Mapping[str, str], info: Mapping[str, object], *, name: str
) -> dict[str, object]:
    """Return the HostConfig of a container for a buildkitd.

    Args:
        container: its name, after which the volume of its state is called.
        options: those of the address; see the head of this module.
        info: what the engine says of itself.
        name: for messages.

    Raises:
        EndpointError: an option has a value that it cannot have.
    """
    policy, _, count = options.get("restart-policy", _RESTART).partition(":")
    config: dict[str, object] = {
        "Privileged": options.get("privileged", "1").lower() not in ("0", "false"),
        "Init": True,  # reaps what BuildKit's steps leave behind
        "RestartPolicy": {"Name": policy, "MaximumRetryCount": _number(name, "restart-policy", count or "0")},
        "Mounts": [{"Type": "volume", "Source": f"{container}_state", "Target": _STATE}],
    }
    if not config["Privileged"]:
        # BuildKit's docs/rootless.md; empty lists are docker's systempaths=unconfined.
        config |= {"SecurityOpt": ["seccomp=unconfined", "apparmor=unconfined"], "MaskedPaths": [], "ReadonlyPaths": []}
    if info.get("CgroupDriver") == "cgroupfs":
        config["CgroupParent"] = _CGROUP
    security = info.get("SecurityOptions")
    if isinstance(security, list) and any("name=userns" in str(option).split(",") for option in security):
        config["UsernsMode"] = "host"
    if "network" in options:
        config["NetworkMode"] = options["network"]
    config |= {field: _number(name, key, options[key]) for key, field in _NUMBERS.items() if key in options}
    config |= {field: _size(name, key, options[key]) for key, field in _SIZES.items() if key in options}
    config |= {field: options[key] for key, field in _TEXTS.items() if key in options}
    return config


def _is_running(found: Mapping[str, object]) -> bool:
    state = found.get("State")
    return isinstance(state, dict) and bool(state.get("Running"))


def _number(name: str, key: str, text: str) -> int:
    if not (text.isascii() and text.removeprefix("-").isdecimal()):
        raise EndpointError(f"{name}: {key} cannot be {text!r}", hint="Write a whole number.")
    return int(text)


def _size(name: str, key: str, text: str) -> int:
    match = _SIZE.fullmatch(text)
    if match is None:
        raise EndpointError(f"{name}: {key} cannot be {text!r}", hint="Write a number of bytes, or 512m, or 2g.")
    return int(match[1]) * _UNITS[match[2].lower()]


async def _close(stream: ExecStream) -> None:
    # A checkpoint of a cancelled caller would take the place of the error that is on its way.
    with trio.CancelScope(shield=True):
        await trio.aclose_forcefully(stream)
