"""The arguments of ``client.images.build``, as options of a build by BuildKit.

What docker-py checks is checked in the same way, and refused with the same type of exception. What BuildKit has no
word for is refused as well: an image that is not what was asked for is worse than none.

Source: docker/docker-py docker/api/build.py, docker/utils/build.py.
"""

from __future__ import annotations

import io
import os
from collections.abc import Collection, Mapping
from typing import Any

from docker import constants, utils
from docker.errors import DockerException, InvalidArgument

from mobysession.build.options import BuildOptions
from mobysession.errors import ContextError
from mobysession.filesync.tar_archive import TarArchive

__all__ = ["Arguments"]

_REMOTE = ("http://", "https://", "git://", "github.com/", "git@")
#: Each argument of docker-py's that stands for an option under another name.
_RENAMED = {"nocache": "no_cache", "buildargs": "build_args", "shmsize": "shm_size"}
#: Those that mean the same here and there.
_SAME = ("pull", "labels", "target", "cache_from")
#: Of no consequence with BuildKit, whose build containers are its own affair and which takes files as they are needed.
_WITHOUT_EFFECT = ("rm", "forcerm")
_BUILDER_HINT = "BuildKit has no such thing; docker-py's own build, with the older builder, does."


class Arguments:
    """What one call was given: ``options``, and how its output is to be returned.

    Attributes:
        options: for `mobysession.BuildOptions`.
        quiet: only the image's ID is returned.
        decode: chunks are returned as dicts.
        timeout: seconds without any output after which the build is given up; None: never.

    Raises:
        TypeError: there is neither a path nor a file, or an argument does not exist.
        DockerException: arguments are wrong, or cannot be had with BuildKit.
        ContextError: there is no such Dockerfile.
    """

    def __init__(self, given: Mapping[str, Any], proxies: Mapping[str, str]) -> None:
        rest = {name: value for name, value in given.items() if name not in _WITHOUT_EFFECT}
        self.quiet = bool(rest.pop("quiet", False))
        self.decode = bool(rest.pop("decode", False))
        self.timeout: float | None = rest.pop("timeout", None)
        if rest.pop("gzip", False) and rest.get("encoding") is not None:
            raise DockerException("Can not use custom encoding if gzip is enabled")
        rest.pop("encoding", None)  # an archive says itself how it is compressed
        self.options = self._context(rest)
        self._take_tag(rest)
        _refuse(rest)
        arguments = rest.get("buildargs") or {}
        if rest.pop("use_config_proxy", True) and isinstance(arguments, Mapping):
            rest["buildargs"] = {**proxies, **arguments}
        self._take_renamed(rest)
        self._take_new(rest)

    def _context(self, rest: dict[str, Any]) -> dict[str, Any]:
        path, fileobj, dockerfile = rest.pop("path", None), rest.pop("fileobj", None), rest.pop("dockerfile", None)
        custom = rest.pop("custom_context", False)
        if path is None and fileobj is None:
            raise TypeError("Either path or fileobj needs to be provided.")
        if custom:
            if not fileobj:
                raise TypeError("You must specify fileobj with custom_context")
            return {"context": TarArchive(fileobj), "file": dockerfile}
        if fileobj is not None:
            return {"context": {"Dockerfile": _content(fileobj)}}
        path = os.fspath(path)
        if path.startswith(_REMOTE):
            return {"context": path, "file": dockerfile}
        if not os.path.isdir(path):
            raise TypeError("You must specify a directory to build in path")
        if not dockerfile:
            return {"context": path, "file": None}
        file = os.path.join(path, dockerfile)
        if not os.path.exists(file):
            raise ContextError(
                f"there is no Dockerfile {dockerfile!r} in {path}", hint="Its path counts from the build context."
            )
        return {"context": path, "file": file}

    def _take_tag(self, rest: dict[str, Any]) -> None:
        tag = rest.pop("tag", None)
        if tag is None:
            return
        if not utils.match_tag(tag):
            raise DockerException(f"invalid tag '{tag}': invalid reference format")
        more = rest.pop("tags", ())
        is_list = isinstance(more, Collection) and not isinstance(more, str | Mapping)
        # What is no list is refused where all options are checked.
        self.options["tags"] = (tag, *more) if is_list else more

    def _take_renamed(self, rest: dict[str, Any]) -> None:
        for name, value in [(name, rest.pop(name)) for name in (*_RENAMED, *_SAME) if name in rest]:
            if value:
                # docker-py takes numbers for switches.
                is_switch = name in ("nocache", "pull") and isinstance(value, int)
                self.options[_RENAMED.get(name, name)] = True if is_switch else value
        arguments = self.options.get("build_args")
        if isinstance(arguments, Mapping):
            # JSON's null, with which docker-py says nothing; None here means the variable of that name.
            self.options["build_args"] = {name: value for name, value in arguments.items() if value is not None}
        if platform := rest.pop("platform", None):
            self.options["platforms"] = (platform,)
        if network := rest.pop("network_mode", None):
            # BuildKit's default within an engine is the network of this name.
            self.options["network"] = "default" if network == "bridge" else network
        if (hosts := rest.pop("extra_hosts", None)) is not None:
            lines = utils.format_extra_hosts(hosts) if isinstance(hosts, dict) else hosts
            self.options["add_hosts"] = tuple(lines)

    def _take_new(self, rest: dict[str, Any]) -> None:
        known = set(BuildOptions.__dataclass_fields__) - {"context", "file"}
        for name, value in rest.items():
            if name not in known:
                raise TypeError(f"build() got an unexpected keyword argument {name!r}")
            self.options[name] = value


def _content(fileobj: Any) -> bytes:
    """Return the Dockerfile in a file object; docker-py reads those in memory from their beginning."""
    if isinstance(fileobj, (io.BytesIO, io.StringIO)):
        fileobj.seek(0)
    content = fileobj.read()
    return content.encode() if isinstance(content, str) else bytes(content)


def _refuse(rest: dict[str, Any]) -> None:
    limits = rest.pop("container_limits", None) or {}
    if unknown := sorted(set(limits) - set(constants.CONTAINER_LIMITS_KEYS)):
        raise InvalidArgument(f"invalid container_limits: {', '.join(unknown)}")
    if limits:
        raise DockerException(f"container_limits are not supported. {_BUILDER_HINT}")
    if rest.pop("squash", None):
        raise DockerException(f"squash is not supported. {_BUILDER_HINT}")
    if rest.pop("isolation", None) not in (None, "", "default"):
        raise DockerException(f"isolation is not supported. {_BUILDER_HINT}")
    network = rest.get("network_mode")
    if network not in (None, "", "default", "bridge", "none", "host"):
        raise DockerException(
            f"network_mode {network!r} is not supported: only default, bridge, none, host. {_BUILDER_HINT}"
        )
