"""What a bake file may ask for only with leave: it may come from others, and says which files are read and written.

Leave is given with ``--allow``: ``network.host``, ``security.insecure``, ``device``, ``ssh`` for the agent,
``fs.read=PATH``, ``fs.write=PATH`` and ``fs=PATH`` for what lies outside of the working directory, ``*`` for
everything there. Paths and entitlements in an override were typed by who would give the leave, and need none:
``--set app.output=DIR`` lets ``app`` write to that directory, and nobody else, and nothing else.

Source: docker/buildx bake/entitlements.go.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from mobysession.bake.overrides import apply_overrides
from mobysession.bake.plan import dockerfile_path
from mobysession.build.contexts import is_remote
from mobysession.build.fields import parse_bool
from mobysession.build.layouts import LAYOUT_SCHEME, LayoutAddress
from mobysession.build.remote import is_git_ssh, is_remote_context
from mobysession.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from mobysession.bake.definition import Selection
    from mobysession.bake.overrides import Override
    from mobysession.bake.target import Target

__all__ = ["refuse_ungranted"]

_FLAGS: Final = ("network.host", "security.insecure", "ssh", "device")
_PATHS: Final = ("fs", "fs.read", "fs.write")
#: Given to buildx's bake for what every build here does anyway.
_MEANINGLESS: Final = ("image", "image.push", "image.load", "buildx.local.delete")


def refuse_ungranted(selection: Selection, allow: Sequence[str]) -> None:
    """Refuse targets that need leave which was not given; looks at the disk.

    Raises:
        UsageError: there is such a target, and its hint says what to allow; or ``allow`` makes no sense.
    """
    granted = _parsed(allow)
    missing: dict[str, str] = {}
    for name, target in selection.targets.items():
        by_caller = set(_overridden(target, selection.overrides.get(name, ())))
        for needed, path in _needs(target):
            if not _is_granted(needed, path, granted) and not _is_among(needed, path, by_caller):
                missing.setdefault(f"{needed}={path}" if path else needed, name)
    if missing:
        needed = ", ".join(f"{what} (target {name})" for what, name in missing.items())
        options = " ".join(f"--allow={what}" for what in missing)
        hint = f"If you trust the definition: allow={list(missing)} ({options})"
        raise UsageError(f"the definition needs what was not allowed: {needed}", hint=hint)


def _overridden(target: Target, overrides: Sequence[Override]) -> Iterator[tuple[str, str]]:
    """Yield the paths and entitlements that the overrides of a target would need if the definition had nothing else."""
    for override in overrides:
        alone = apply_overrides({}, [override])
        is_leave = override.attribute == "entitlements"
        yield from ((needed, path) for needed, path in _needs(alone) if path or is_leave)
        if "dockerfile" in alone:
            # It counts from the context, which may be the definition's and then needs leave of its own.
            yield "fs.read", dockerfile_path({**target, **alone})


def _is_among(needed: str, path: str, given: Collection[tuple[str, str]]) -> bool:
    """Tell whether a need was given, a path by itself or by a directory that it is in."""
    if not path:
        return (needed, path) in given
    real = os.path.realpath(path)
    return any(kind == needed and _is_inside(real, os.path.realpath(root)) for kind, root in given if root)


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
    if not target.get("ssh") and is_git_ssh(target.get("context", "")):
        # Such a repository is fetched with the agent.
        yield "ssh", ""


def _read(target: Target) -> Iterator[str]:
    if "context" in target:
        yield from _read_as_context(target)
    for value in target.get("contexts", {}).values():
        if value.startswith(LAYOUT_SCHEME):
            yield LayoutAddress.parse(value).path
        elif value.startswith("cwd://") or not is_remote(value):
            yield value.removeprefix("cwd://") or "."
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


def _read_as_context(target: Target) -> Iterator[str]:
    """Yield the context and the Dockerfile, where they are of this machine: as the build sees it."""
    context = target["context"].removeprefix("cwd://") or "."
    is_local = not is_remote_context(context)
    if is_local:
        yield context
    if target.get("dockerfile") and not target.get("dockerfile-inline"):
        path = dockerfile_path(target)
        if is_local or os.path.isabs(path):
            yield path
