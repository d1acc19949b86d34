"""What a build may do beyond what builds may: ``--allow``.

``network.host`` and ``security.insecure`` are for RUN of those kinds, ``device`` for devices, one by its name or with
an alias. The engine's configuration has to grant them too. ``fs.read``, ``fs.write``, ``ssh`` and ``image`` are no
engine's matter: they let a bake file name what is outside of its directory. A build reaches what its own options name,
and nothing else, so that they would allow nothing.

Source: moby/buildkit util/entitlements; docker/buildx util/buildflags/entitlements.go.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from mobysession.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["check_entitlements"]

_KNOWN: Final = ("network.host", "security.insecure", "device")
_OF_BAKE: Final = ("fs", "ssh", "image")


def check_entitlements(given: Sequence[str]) -> None:
    """Refuse what no BuildKit knows; UsageError."""
    for entitlement in given:
        name, _, value = entitlement.partition("=")
        if name in _OF_BAKE or name.startswith("fs."):
            raise UsageError(
                f"the entitlement {entitlement!r} is for bake files only",
                hint="A build reads and writes what its own options name: leave it out.",
            )
        if name not in _KNOWN or (value and name != "device"):
            raise UsageError(f"there is no entitlement {entitlement!r}", hint=f"Choose {', '.join(_KNOWN)}.")
