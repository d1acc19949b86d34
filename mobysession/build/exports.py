"""Where the result of a build goes: what ``--output`` says, what the engine is asked for it, and who takes it here.

An output is a type with attributes, and for some a destination of ours: ``local`` fills a directory; ``tar``, ``oci``
and ``docker`` are one file, stdout or any other place for a stream of bytes; ``image`` stays in the engine, which is
what happens without any output; ``registry`` is an image that is pushed; ``cacheonly`` keeps nothing but the cache.

Source: docker/buildx util/buildflags/export.go and build/opt.go.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from mobysession.build.fields import parse_bool, split_fields, split_pairs
from mobysession.errors import OutputError, UnsupportedByEngine, UsageError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from mobysession.services.filesend import FileSend, Target
    from mobysession.services.sink import Writable
    from mobysession.transport.endpoint import Endpoint

__all__ = ["Export", "Output", "check_destinations", "check_received", "exports_of", "refuse_impossible", "targets_of"]

_TYPES: Final = ("local", "tar", "oci", "docker", "image", "registry", "cacheonly")
_STREAMS: Final = frozenset(("tar", "oci", "docker"))
_IN_ENGINE: Final = frozenset(("image", "registry", "cacheonly"))
_STDOUT: Final = "-"
#: How the attributes begin that are annotations; see `mobysession.build.annotations.Annotation.attribute`.
_ANNOTATION: Final = r"annotation[-.\[]"
#: The Engine API version since which a build may have several outputs (Docker 26, BuildKit 0.13).
_SEVERAL_SINCE: Final = (1, 45)
#: The last Engine API version of which all engines lack mode=delete (BuildKit 0.31).
_DELETE_AFTER: Final = (1, 52)


@dataclass(frozen=True)
class Output:
    """One ``--output``.

    Args:
        type: ``local``, ``tar``, ``oci``, ``docker``, ``image``, ``registry`` or ``cacheonly``.
        dest: for ``local`` a directory, made when it is missing. For ``tar``, ``oci`` and ``docker`` a path, ``-`` for
            stdout, a binary file object, a trio stream, or a function that is given the exporter's metadata and returns
            one of these; see `mobysession.services.filesend.FileTarget`. None is stdout, but for ``docker`` the engine.
        attrs: what else the exporter takes, as text: ``platform-split``, ``compression``, ``annotation...``. With
            ``mode=delete`` a local directory loses what is not in the output.

    Raises:
        UsageError: no build could have such an output.
    """

    type: str
    dest: Writable | Callable[..., Writable | Awaitable[Writable | None] | None] | None = None
    attrs: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.type not in _TYPES:
            raise UsageError(f"there is no output of type {self.type!r}", hint=f"Choose {', '.join(_TYPES)}.")
        attrs: object = self.attrs
        if not isinstance(attrs, Mapping) or not all(isinstance(text, str) for text in attrs.values()):
            raise UsageError("attrs of an output is a mapping of names to texts")
        push = self.attrs.get("push", "")
        if push and parse_bool(push) is None:
            # An engine that does not push itself would be asked for no push.
            raise UsageError(f"push={push} of an output is neither true nor false")
        if self.dest is not None and self.type in _IN_ENGINE:
            raise UsageError(f"an output of type {self.type} has no dest: it stays with the engine")
        if self.type == "local":
            self._check_directory("local", "type=tar")
        elif self.is_layout:
            self._check_directory(f"{self.type} with tar=false", "Without tar=false it")

    def _check_directory(self, what: str, instead: str) -> None:
        if not isinstance(self.dest, str | os.PathLike) or not os.fspath(self.dest):
            raise UsageError(f"an output of type {what} needs a directory as its dest")
        if os.fspath(self.dest) == _STDOUT:
            raise UsageError(
                f"an output of type {what} is a directory, and stdout is none", hint=f"{instead} goes to stdout."
            )

    @classmethod
    def parse(cls, text: str) -> Output:
        """Read an output as ``docker buildx build --output`` takes it.

        A path alone is ``type=local``, ``-`` alone a tar on stdout; otherwise ``key=value``, separated by commas and
        quoted as in CSV, keys in any case.

        Raises:
            UsageError: it is something else.
        """
        if text and split_fields("output", text) == [text] and not text.startswith("type="):
            return cls("tar" if text == _STDOUT else "local", text)
        pairs = split_pairs("output", text) if text else {}
        attributes = {key.lower(): value for key, value in pairs.items()}
        kind = attributes.pop("type", "")
        if not kind:
            raise UsageError(f"output {text!r} has no type", hint=f"Write type=TYPE with one of {', '.join(_TYPES)}.")
        return cls(kind, attributes.pop("dest", None), attributes)

    @property
    def is_layout(self) -> bool:
        """Whether it is an image in a directory, which the engine writes blob by blob."""
        return self.type in ("oci", "docker") and parse_bool(self.attrs.get("tar", "")) is False

    @property
    def is_pushed(self) -> bool:
        """Whether it goes to a registry."""
        return self.type == "registry" or parse_bool(self.attrs.get("push", "")) is True

    @property
    def annotations(self) -> list[str]:
        """The names of its attributes that are annotations, as ``annotation-index.KEY``."""
        return [name for name in self.attrs if re.match(_ANNOTATION, name)]

    @property
    def is_stdout(self) -> bool:
        """Whether it goes to stdout."""
        if (self.type == "docker" and self.dest is None) or self.is_layout:
            return False
        return self.type in _STREAMS and (self.dest is None or self.dest == _STDOUT)

    @property
    def is_received(self) -> bool:
        """Whether the engine sends it to us."""
        return self.type == "local" or (self.type in _STREAMS and not (self.type == "docker" and self.dest is None))


class Export(NamedTuple):
    """What the engine is asked for, in a solve's words."""

    type: str
    attributes: dict[str, str]


def exports_of(outputs: Sequence[Output], tags: Sequence[str]) -> list[Export]:
    """Return the exporters of a solve; those of outputs that are received stand where they do in `targets_of`."""
    kept = [output for output in outputs if output.type != "cacheonly"]
    if not outputs:
        kept = [Output("image")]
    return [_export(output, tags) for output in kept]


def _export(output: Output, tags: Sequence[str]) -> Export:
    attributes = dict(output.attrs)
    kind = output.type
    if tags and kind not in ("local", "tar"):
        attributes["name"] = ",".join(tags)
    if kind == "registry":
        attributes["push"] = "true"
    if not output.is_received:
        kind = "moby"
    return Export(kind, attributes)


def targets_of(outputs: Sequence[Output]) -> dict[int, Target]:
    """Return who takes what the engine sends, by the index of its exporter; layouts are written, not sent."""
    from mobysession.services.filesend import DirectoryTarget, FileTarget

    targets: dict[int, Target] = {}
    for number, output in enumerate(output for output in outputs if output.type != "cacheonly"):
        if not output.is_received or output.is_layout:
            continue
        if output.type == "local":
            path: Any = output.dest
            targets[number] = DirectoryTarget(path=path, delete=_deletes(output))
        else:
            to: Any = sys.stdout.buffer if output.is_stdout else output.dest
            targets[number] = FileTarget(to)
    return targets


def check_destinations(outputs: Sequence[Output], *, tags: Sequence[str] = (), platforms: Sequence[str] = ()) -> None:
    """Refuse what cannot work, before an engine is asked; looks at the disk.

    Raises:
        UsageError: the outputs do not go together, or not with the other options.
        OutputError: a destination cannot be written.
    """
    if sum(output.is_stdout for output in outputs) > 1:
        raise UsageError("several outputs go to stdout", hint="Give all but one of them a dest.")
    if sum(output.is_layout for output in outputs) > 1:
        raise UsageError(
            "several outputs have tar=false, and the engine writes to one directory only",
            hint="Build once for each: all but the first come from the cache.",
        )
    for output in outputs:
        if output.type == "docker" and output.is_received and len(platforms) > 1:
            raise UsageError(
                "an output of type docker holds an image of one platform only", hint="type=oci holds several."
            )
        if output.is_pushed and not tags and not output.attrs.get("name"):
            raise UsageError("an image needs a tag to be pushed", hint="Give tags (-t on the command line).")
        if output.is_stdout and sys.stdout.isatty():
            raise UsageError(
                f"an output of type {output.type} is not written to a terminal",
                hint="Name a file with dest=, or send stdout to one.",
            )
        if output.is_received and isinstance(output.dest, str | os.PathLike) and not output.is_stdout:
            _check_place(os.fspath(output.dest), directory=output.type == "local" or output.is_layout)


def _check_place(path: str, *, directory: bool) -> None:
    reason = _reason_against_directory(path) if directory else _reason_against_file(path)
    if reason is not None:
        raise OutputError(f"{path!r} cannot be written: {reason}", path=path)


def _reason_against_directory(path: str) -> str | None:
    at = os.path.abspath(path)
    while not os.path.lexists(at):
        at = os.path.dirname(at)
    if not os.path.isdir(at):
        return "it is not a directory" if at == os.path.abspath(path) else f"{at} is not a directory"
    return None if os.access(at, os.W_OK) else "permission denied"


def _reason_against_file(path: str) -> str | None:
    if not path:
        return "its name is empty"
    if os.path.isdir(path):
        return "it is a directory"
    if os.path.exists(path) and not os.path.isfile(path):
        return None if os.access(path, os.W_OK) else "permission denied"
    folder = os.path.dirname(os.path.realpath(path))
    if not os.path.isdir(folder):
        return f"there is no directory {folder}"
    return None if os.access(folder, os.W_OK) else "permission denied"


async def refuse_impossible(endpoint: Endpoint, outputs: Sequence[Output]) -> None:
    """Ask the engine about what not every engine can do.

    Raises:
        UnsupportedByEngine: it cannot; the message says what could.
        TransportError, ApiError: it cannot be asked.
    """
    from mobysession.transport.api import EngineApi

    engine = EngineApi(endpoint)
    asked = [output for output in outputs if output.type != "cacheonly"]
    deletes = any(map(_deletes, asked))
    if len(asked) > 1 or deletes:
        api = (await engine.ping()).api
        if len(asked) > 1 and api < _SEVERAL_SINCE:
            raise UnsupportedByEngine(
                "this engine gives a build one output only; Docker 26 and later take several",
                hint="Build once for each output: all but the first come from the cache.",
            )
        if deletes and api <= _DELETE_AFTER:
            raise UnsupportedByEngine(
                "this engine would ignore mode=delete; BuildKit 0.31 and later have it",
                hint="Leave mode=delete out, and empty the directory first.",
            )
    wanting = [output for output in asked if _wants_containerd(output)]
    if wanting and not has_containerd_store(await engine.get_json("/info")):
        what = "push by digest" if wanting[0].is_pushed else f"make an output of type {wanting[0].type}"
        instead = (
            "Push by name"
            if wanting[0].is_pushed
            else "type=tar and type=local work here, and docker save makes a file of an image"
        )
        raise UnsupportedByEngine(
            f"this engine keeps images in a graph driver, and cannot {what}",
            hint=f"{instead}; or enable the containerd image store in the engine's configuration.",
        )


def check_received(outputs: FileSend) -> None:
    """See that every output has come, after a build has succeeded; OutputError where one has not."""
    for number in outputs.missing:
        raise OutputError(
            f"the engine has finished the build and not sent output {number + 1}", hint="Its log may say why."
        )


def _deletes(output: Output) -> bool:
    return output.type == "local" and output.attrs.get("mode") == "delete"


def _wants_containerd(output: Output) -> bool:
    # By name, the engine itself pushes what its BuildKit cannot: see `mobysession.build.push`.
    by_digest = output.is_pushed and parse_bool(output.attrs.get("push-by-digest", "")) is True
    return by_digest or (output.is_received and output.type in ("oci", "docker"))


def has_containerd_store(info: Mapping[str, object]) -> bool:
    """Tell from the engine's ``/info`` whether it keeps images in containerd."""
    status = info.get("DriverStatus")
    return isinstance(status, list) and ["driver-type", "io.containerd.snapshotter.v1"] in status
