"""``patch``: clients of docker-py that build with BuildKit, without knowing."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from docker.api.build import BuildApiMixin
from docker.models.images import ImageCollection

from mobysession.dockerpy.collection import build
from mobysession.dockerpy.stream import start_build

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["patch"]


def patch() -> Callable[[], None]:
    """Make ``client.images.build`` and ``client.api.build`` of every client build with BuildKit.

    Returns:
        A function that makes them what they were; calling it again does nothing. Patching twice is undone by one call
        of each, in either order.
    """
    _PATCHES.add(token := object())
    return lambda: _PATCHES.remove(token)


class _Patches:
    """Who has patched and not undone it, and what docker-py had before the first."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._tokens: set[object] = set()
        self._before = (BuildApiMixin.build, ImageCollection.build)

    def add(self, token: object) -> None:
        """Patch, for who holds ``token``."""
        with self._lock:
            if not self._tokens:
                self._before = (BuildApiMixin.build, ImageCollection.build)
            _set(_api_build, _images_build)
            self._tokens.add(token)

    def remove(self, token: object) -> None:
        """Undo it, where nobody else has patched; nothing for who has undone it."""
        with self._lock:
            if token in self._tokens:
                self._tokens.remove(token)
                if not self._tokens:
                    _set(*self._before)


_PATCHES = _Patches()


def _set(api_build: Callable[..., Any], images_build: Callable[..., Any]) -> None:
    setattr(BuildApiMixin, "build", api_build)  # noqa: B010 - a type checker lets no method be assigned to
    setattr(ImageCollection, "build", images_build)  # noqa: B010 - likewise


#: docker-py's arguments may be given by position.
_POSITIONAL = (
    *("path", "tag", "quiet", "fileobj", "nocache", "rm", "timeout", "custom_context", "encoding", "pull", "forcerm"),
    *("dockerfile", "container_limits", "decode", "buildargs", "gzip", "shmsize", "labels", "cache_from", "target"),
    *("network_mode", "squash", "extra_hosts", "platform", "isolation", "use_config_proxy"),
)


def _api_build(self: Any, *positional: Any, **arguments: Any) -> Any:
    """Build with BuildKit; see `mobysession.dockerpy.start_build`."""
    given = dict(zip(_POSITIONAL, positional, strict=False))
    if len(positional) > len(_POSITIONAL) or not given.keys().isdisjoint(arguments):
        raise TypeError("build() got too many arguments, or one of them twice")
    return start_build(self, **given, **arguments)


def _images_build(self: Any, **arguments: Any) -> Any:
    """Build with BuildKit; see `mobysession.dockerpy.build`."""
    return build(self.client, **arguments)
