"""What is attested about an image: where it comes from (``provenance``), and what is in it (``sbom``).

An engine that keeps its images in containerd adds attestations to the image as manifests of its index. docker's CLI
asks such an engine for a small provenance unless it is told otherwise, and so does a build here.

Source: docker/buildx util/buildflags/attests.go and build/opt.go.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from mobysession.build.fields import join_pairs, parse_bool, split_pairs
from mobysession.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["DEFAULT_PROVENANCE", "Attest", "attest_attributes", "parse_attests"]

_TYPES: Final = ("provenance", "sbom")
#: What buildx asks for where nobody says anything: the least, and only where the image can hold it.
DEFAULT_PROVENANCE: Final = "mode=min,inline-only=true"


@dataclass(frozen=True)
class Attest:
    """One ``--attest``.

    Args:
        type: ``provenance`` or ``sbom``.
        attrs: of it, as text: ``mode`` (``min`` or ``max``), ``version``, ``builder-id`` of a provenance; ``generator``
            of an sbom, an image.
        disabled: leave it out, also where it would be there by default.

    Raises:
        UsageError: there is no such attestation.
    """

    type: str
    attrs: Mapping[str, str] = field(default_factory=dict)
    disabled: bool = False

    def __post_init__(self) -> None:
        if self.type not in _TYPES:
            raise UsageError(f"there is no attestation of type {self.type!r}", hint=f"Choose {' or '.join(_TYPES)}.")
        attrs: object = self.attrs
        if not isinstance(attrs, Mapping) or not all(isinstance(text, str) for text in attrs.values()):
            raise UsageError("attrs of an attestation is a mapping of names to texts")
        if self.type == "provenance" and self.attrs.get("mode", "min") not in ("min", "max"):
            raise UsageError(f"a provenance has no mode {self.attrs['mode']!r}", hint="Choose min or max.")

    @classmethod
    def parse(cls, text: str) -> Attest:
        """Read ``type=TYPE[,disabled=true][,KEY=VALUE]``; UsageError where it is something else."""
        attrs, kind, disabled = {}, "", False
        for key, value in split_pairs("attestation", text).items():
            match key.lower():
                case "type":
                    kind = value
                case "disabled":
                    disabled = _bool(text, value)
                case _:
                    attrs[key] = value
        if not kind:
            raise UsageError(f"attestation {text!r} has no type", hint="Write type=provenance or type=sbom.")
        return cls(kind, attrs, disabled)

    @classmethod
    def shorthand(cls, kind: str, given: bool | str) -> Attest:
        """Read what ``--provenance`` and ``--sbom`` take: true, false, or attributes."""
        on = given if isinstance(given, bool) else parse_bool(given)
        if on is not None:
            return cls(kind, disabled=not on)
        return cls(kind, split_pairs(kind, str(given)))


def _bool(text: str, value: str) -> bool:
    on = parse_bool(value)
    if on is None:
        raise UsageError(f"attestation {text!r}: disabled is true or false, not {value!r}")
    return on


def parse_attests(
    given: Sequence[str | Attest], provenance: bool | str | None, sbom: bool | str | None
) -> dict[str, Attest]:
    """Return attestations by their types; of one type, the first that was given counts, as with buildx."""
    attests = [one if isinstance(one, Attest) else Attest.parse(one) for one in given]
    attests += [
        Attest.shorthand(kind, short)
        for kind, short in (("provenance", provenance), ("sbom", sbom))
        if short is not None and short != ""
    ]
    by_type: dict[str, Attest] = {}
    for attest in attests:
        by_type.setdefault(attest.type, attest)
    return by_type


def attest_attributes(attests: Mapping[str, Attest], *, default: bool) -> dict[str, str]:
    """Return the frontend's attributes; ``default`` adds a provenance where none was spoken of."""
    attributes = {
        f"attest:{kind}": ",".join(filter(None, (f"type={kind}", join_pairs(attest.attrs))))
        for kind, attest in attests.items()
        if not attest.disabled
    }
    if default and "provenance" not in attests:
        attributes["attest:provenance"] = DEFAULT_PROVENANCE
    return attributes
