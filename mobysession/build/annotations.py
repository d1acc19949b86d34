"""Annotations of an image: texts beside its content, at one of four places of an OCI image.

The short text is ``[TYPE[PLATFORM][,TYPE...]:]KEY=VALUE``. Without a type it is the manifest's, of every platform.

Source: docker/buildx util/buildflags/export.go; moby/buildkit exporter/containerimage/exptypes/annotations.go.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final, NamedTuple

from mobysession.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Annotation", "annotation_attributes", "parse_annotations"]

_TYPES: Final = ("manifest", "manifest-descriptor", "index", "index-descriptor")
_INDEX: Final = frozenset(("index", "index-descriptor"))
_PLACE: Final = r"([a-z-]+)(?:\[([A-Za-z0-9_/-]+)\])?"


class Annotation(NamedTuple):
    """One annotation at one place.

    ``type`` is ``manifest``, ``manifest-descriptor``, ``index`` or ``index-descriptor``, empty for the default, which
    is the manifest; ``platform`` keeps it to one.
    """

    key: str
    value: str
    type: str = ""
    platform: str = ""

    @property
    def attribute(self) -> str:
        """The name under which an exporter takes it."""
        place = f"-{self.type}" if self.type else ""
        return f"annotation{place}{f'[{self.platform}]' if self.platform else ''}.{self.key}"

    @property
    def is_of_index(self) -> bool:
        """Whether it is at an index, which only an image with several manifests has."""
        return self.type in _INDEX


def parse_annotations(given: Mapping[str, str] | Sequence[str | Annotation]) -> list[Annotation]:
    """Return annotations as values.

    Args:
        given: texts or values; or a mapping, whose keys may have a type as the texts have.

    Raises:
        UsageError: one of them is something else.
    """
    if isinstance(given, Mapping):
        return [one for key, value in given.items() for one in _parse(f"{key}={value}")]
    return [one for each in given for one in ([each] if isinstance(each, Annotation) else _parse(each))]


def _parse(text: str) -> list[Annotation]:
    name, separator, value = text.partition("=")
    if not separator:
        raise UsageError(f"annotation {text!r} is not KEY=VALUE")
    places, colon, key = name.partition(":")
    if not colon:
        return [Annotation(name, value)]
    return [Annotation(key, value, *_place(text, place)) for place in places.split(",")]


def _place(text: str, place: str) -> tuple[str, str]:
    found = re.fullmatch(_PLACE, place)
    if found is None or found[1] not in _TYPES:
        raise UsageError(
            f"annotation {text!r}: there is no place {place!r}",
            hint=f"Choose {', '.join(_TYPES)}, each with a platform in brackets where it is for one only.",
        )
    return found[1], found[2] or ""


def annotation_attributes(annotations: Sequence[Annotation]) -> dict[str, str]:
    """Return the attributes of an exporter."""
    return {annotation.attribute: annotation.value for annotation in annotations}
