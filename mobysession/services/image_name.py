"""Names of images in registries, taken apart: ``HOST/REPOSITORY:TAG``, of which all but the repository may be missing.

Source: distribution/reference normalize.go.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from mobysession.errors import UsageError

__all__ = ["ImageName"]

_HUB: Final = ("docker.io", "index.docker.io")
#: The host that answers for Docker Hub.
_HUB_HOST: Final = "registry-1.docker.io"


class ImageName(NamedTuple):
    """One name: the registry as it is dialled, the repository in it, the tag."""

    host: str
    repository: str
    tag: str

    @classmethod
    def parse(cls, text: str) -> ImageName:
        """Read a name as ``docker push`` takes it.

        Raises:
            UsageError: it is none, or has a digest, which nobody can choose.
        """
        first, slash, rest = text.partition("/")
        if slash and ("." in first or ":" in first or first == "localhost" or first != first.lower()):
            host, path = first, rest
        else:
            host, path = _HUB[0], text
        repository, colon, tag = path.rpartition(":")
        if not colon or "/" in tag:
            repository, tag = path, "latest"
        if not repository or not tag or "@" in path:
            raise UsageError(f"{text!r} is no name that an image can be pushed under")
        if host in _HUB:
            host, repository = _HUB_HOST, repository if "/" in repository else f"library/{repository}"
        return cls(host, repository, tag)

    @property
    def place(self) -> str:
        """The name without the tag, as an engine takes it."""
        return f"{_HUB[0] if self.host == _HUB_HOST else self.host}/{self.repository}"

    def __str__(self) -> str:
        return f"{self.place}:{self.tag}"
