"""What a bake file may ask for only with leave: it may come from others, and says which files are read and written.

Leave is given with ``--allow``: ``network.host``, ``security.insecure``, ``device``, ``ssh`` for the agent,
``fs.read=PATH``, ``fs.write=PATH`` and ``fs=PATH`` for what lies outside of the working directory, ``*`` for
everything there. What an override names was given by the caller, and needs none.

Source: docker/buildx bake/entitlements.go.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from mobysession.build.contexts import is_remote
from mobysession.build.fields import parse_bool
from mobysession.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from mobysession.bake.target import Target

__all__ = ["refuse_ungranted"]

_FLAGS: Final = ("network.host", "security.insecure", "ssh", "device")
_PATHS: Final = ("fs", "fs.read", "fs.write")
#: Given to buildx's bake for what every build here does anyway.
_MEANINGLESS: Final = ("image", "image.push", "image.load", "buildx.local.delete")


def refuse_ungranted(targets: Mapping[str, Target], allow: Sequence[str], sets: Sequence[str]) -> None:
    """Refuse targets that need leave which was not given; looks at the disk.

    Raises:
        UsageError: there is such a target, and its hint says what to allow; or ``allow`` makes no sense.
    """
    granted = _parsed(allow)
    by_caller = {named for text in sets for named in _named(text.partition("=")[2])}
    missing: dict[str, str] = {}
    for name, target in targets.items():
        for needed, path in _needs(target):
            if path and path in by_caller:
                continue
            if not _is_granted(needed, path, granted):
                missing.setdefault(f"{needed}={path}" if path else needed, name)
    if missing:
        needed = ", ".join(f"{what} (target {name})" for what, name in missing.items())
        hint = "If you trust the definition: " + " ".join(f"--allow={what}" for what in missing)
        raise UsageError(f"the definition needs what was not allowed: {needed}", hint=hint)


def _named(value: str) -> Iterator[str]:
    """Yield what a value of ``--set`` may name as a path: itself and its fields, whole, as a part proves no leave."""
    for field in (value, *value.split(",")):
        for text in (field, field.partition("=")[2]):
            yield text
            yield text.removeprefix("cwd://").removeprefix("oci-layout://").partition("@")[0]


def _parsed(allow: Sequence[str]) -> list[tuple[str, str]]:
    granted = [(kind, value) for kind, _, value in (text.partition("=") for text in allow)]
    for kind, value in granted:
        if kind not in (*_FLAGS, *_PATHS, *_MEANINGLESS):
            raise UsageError(f"there is no entitlement {kind!r}", hint=f"Choose {', '.join((*_FLAGS, *_PATHS))}.")
        if kind in _PATHS and not value:
            raise UsageError(f"{kind} needs a path", hint=f"Write {kind}=PATH.")
    return granted


def _is_granted(needed: str, path: str, granted: Sequence[tuple[str, str]]) -> bool:
    if not path:
        name, _, value = needed.partition("=")
        return any(kind == name and given in ("", value) for kind, given in granted)
    if parse_bool(os.environ.get("BUILDX_BAKE_ENTITLEMENTS_FS", "")) is False:
        return True
    roots = [os.getcwd(), *(given for kind, given in granted if kind in ("fs", needed))]
    real = os.path.realpath(path)
    return any(root == "*" or _is_inside(real, os.path.realpath(root)) for root in roots)


def _is_inside(path: str, root: str) -> bool:
    return path == root or path.startswith(root.rstrip("/") + "/")


def _needs(target: Target) -> Iterator[tuple[str, str]]:
    """Yield what a target needs: an entitlement, and the path for which."""
    for entitlement in target.get("entitlements", ()):
        yield entitlement, ""
    for path in _read(target):
        yield "fs.read", path
    for entry in target.get("output", ()):
        if entry.get("dest") and entry["dest"] != "-":
            yield "fs.write", entry["dest"]
    for entry in target.get("cache-to", ()):
        if entry["type"] == "local" and entry.get("dest"):
            yield "fs.write", entry["dest"]
    for entry in target.get("ssh", ()):
        if not entry.get("paths"):
            yield "ssh", ""


def _read(target: Target) -> Iterator[str]:
    context = target["context"]
    if not is_remote(context):
        yield context
        dockerfile = target["dockerfile"]
        if not target.get("dockerfile-inline"):
            yield os.path.join(context, dockerfile.removeprefix("cwd://"))
    for value in target.get("contexts", {}).values():
        path = value.removeprefix("cwd://").removeprefix("oci-layout://").partition("@")[0]
        if value.startswith(("cwd://", "oci-layout://")) or not is_remote(value):
            yield path
    for entry in target.get("cache-from", ()):
        if entry["type"] == "local" and entry.get("src"):
            yield entry["src"]
    for entry in target.get("secret", ()):
        if entry.get("src"):
            yield entry["src"]
        elif not entry.get("env") and entry.get("id", "") not in os.environ:
            # Where nothing says where it is, it is the file of its own name.
            yield entry.get("id", "")
    for entry in target.get("ssh", ()):
        yield from entry.get("paths", ())
