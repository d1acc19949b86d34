"""Names of platforms as the engine knows them: ``OS/ARCH[/VARIANT]``, from the many ways in which people write them.

Source: containerd/platforms platforms.go (Parse, FormatAll) and database.go; docker/buildx util/platformutil/parse.go.
"""

from __future__ import annotations

import platform as machine
import re
import sys
from typing import Final

from mobysession.errors import UsageError

__all__ = ["normal_platform"]

_SYSTEMS: Final = (
    r"aix|android|darwin|dragonfly|freebsd|hurd|illumos|ios|js|linux|macos|netbsd|openbsd|plan9|solaris|windows|zos"
)
_ARCHITECTURES: Final = r"386|amd64|arm|arm64|loong64|mips(?:64)?(?:le)?|ppc64(?:le)?|riscv64|s390x|wasm"
#: Architectures under other names, with the variant that goes without saying there.
_ALIASES: Final = {
    "i386": ("386", ""),
    "x86_64": ("amd64", ""),
    "x86-64": ("amd64", ""),
    "aarch64": ("arm64", ""),
    "armhf": ("arm", "v7"),
    "armel": ("arm", "v6"),
}
_PART: Final = r"[A-Za-z0-9_.-]+(?:\([A-Za-z0-9_.-]*\))?"


def normal_platform(text: str) -> str:
    """Return the name of a platform; ``local`` is that of this machine.

    Raises:
        UsageError: it is none.
    """
    parts = text.strip().lower().split("/")
    if not 1 <= len(parts) <= 3 or not all(re.fullmatch(_PART, part) for part in parts):
        raise UsageError(f"{text!r} is no platform", hint="Write it as linux/amd64 or linux/arm/v7.")
    if parts == ["local"]:
        parts = [_system(), machine.machine().lower()]
    elif len(parts) == 1:
        parts = _from_one(text, parts[0])
    system = {"macos": "darwin"}.get(parts[0], parts[0])
    architecture, variant = _architecture(parts[1], parts[2] if len(parts) == 3 else "")
    return "/".join(part for part in (system, architecture, variant) if part)


def _from_one(text: str, part: str) -> list[str]:
    system = part.partition("(")[0]
    if re.fullmatch(_SYSTEMS, system):
        return [part, machine.machine().lower()]
    if re.fullmatch(_ARCHITECTURES, _architecture(part, "")[0]):
        return [_system(), part]
    raise UsageError(f"{text!r} is no platform: there is neither such a system nor such an architecture")


def _system() -> str:
    # Engines on Macs are in a machine with Linux, but buildx takes its own system here, and so must we.
    return {"win32": "windows", "darwin": "darwin"}.get(sys.platform, "linux")


def _architecture(name: str, variant: str) -> tuple[str, str]:
    if name in _ALIASES:
        name, implied = _ALIASES[name]
        variant = variant or implied
    if (name == "amd64" and variant == "v1") or (name == "arm64" and variant in ("8", "v8", "v8.0")):
        variant = ""
    elif name == "arm":
        variant = {"": "v7", "5": "v5", "6": "v6", "7": "v7", "8": "v8"}.get(variant, variant)
    return name, variant
