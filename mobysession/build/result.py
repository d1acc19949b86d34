"""What a build came to, as values."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from mobysession.build.calls import CallAnswer
    from mobysession.build.exports import Output
    from mobysession.buildkit.status import BuildStatus, VertexWarning
    from mobysession.services.filesend import ReceivedOutput
    from mobysession.services.filesync import DirectoryTransfer
    from mobysession.session.session import Session

__all__ = ["BuildResult", "ContextTransfer", "StepResult", "context_transfer", "make_result", "steps_of"]

#: Types of outputs of which the engine says what image they made.
_IMAGES = ("image", "registry", "docker", "oci")


@dataclass(frozen=True, kw_only=True)
class StepResult:
    """One step: its name as shown, whether it came from the cache, and seconds that it took."""

    name: str
    cached: bool
    duration: float


@dataclass(frozen=True, kw_only=True)
class ContextTransfer:
    """What one request of the engine for a directory moved; a build makes several.

    ``directory`` is ``context``, ``dockerfile`` or the name of a named context; files and bytes offered, files that the
    engine asked for, bytes sent; ``warnings`` name files that changed meanwhile.
    """

    directory: str
    files_offered: int
    bytes_offered: int
    files_requested: int
    bytes_sent: int
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class BuildResult:
    """A finished build.

    Attributes:
        image_id: ID by which the engine knows the image, ``sha256:...``; empty where the build put none into its store.
            Of several outputs that are images the engine names the last one's only: empty too where that is elsewhere.
        digest: digest of its manifest, wherever the image is, where there are manifests; otherwise the image ID.
        tags: the names the image was given.
        ref: the ID of the solve; empty with the classic driver, where the engine chooses it.
        session_id: of the session it ran on.
        driver: ``control`` or ``classic``.
        response: the exporter's response as the engine gave it.
        steps: in order of their first start, without BuildKit's internal ones' parts.
        transfers: what the engine read from us, in the order in which it was done.
        outputs: what the engine sent us, in the order in which it was complete.
        warnings: of the Dockerfile's checks and of the engine.
        answer: what the frontend said, where it was asked for something else than a build.
        provenance: how the engine says that the result came about, by platform, by an empty name where there is one
            result only: SLSA predicates as it wrote them. Read where ``metadata_file`` or ``provenance`` was given.
        duration: seconds between the first step's start and the last one's end.
    """

    image_id: str
    digest: str
    tags: tuple[str, ...] = ()
    ref: str = ""
    session_id: str = ""
    driver: str = "control"
    response: Mapping[str, str] = field(default_factory=dict)
    steps: tuple[StepResult, ...] = ()
    transfers: tuple[ContextTransfer, ...] = ()
    outputs: tuple[ReceivedOutput, ...] = ()
    warnings: tuple[VertexWarning, ...] = ()
    answer: CallAnswer | None = None
    provenance: Mapping[str, Any] = field(default_factory=dict)
    duration: float = 0.0

    @property
    def cached_steps(self) -> int:
        """Number of steps that came from the cache."""
        return sum(step.cached for step in self.steps)

    def metadata(self) -> dict[str, Any]:
        """Return what ``--metadata-file`` holds, which is what buildx's has.

        That is the response, with what is JSON in it as objects; the provenance; the build's reference; and with
        ``BUILDX_METADATA_WARNINGS=true`` the warnings.
        """
        from mobysession.build.metadata import metadata_of  # only for who asks: start-up

        return metadata_of(self)


def make_result(
    response: Mapping[str, str],
    status: BuildStatus,
    session: Session,
    *,
    tags: tuple[str, ...],
    driver: str,
    ref: str = "",
    provenance: Mapping[str, Any] | None = None,
    outputs: Sequence[Output] = (),
    has_store: bool = True,
) -> BuildResult:
    """Return the result of a build that the engine has finished.

    ``outputs`` are what it was asked for, none being an image; ``has_store`` is False for a buildkitd.
    """
    return BuildResult(
        image_id=_named(response) if has_store and _is_stored(outputs, response, driver) else "",
        digest=response.get("containerimage.digest", ""),
        tags=tags,
        ref=ref,
        session_id=session.id,
        driver=driver,
        response=dict(response),
        steps=steps_of(status),
        warnings=tuple(status.warnings),
        provenance=provenance or {},
        duration=status.totals.duration / 10**9,
    )


def _named(response: Mapping[str, str]) -> str:
    # With images in containerd the engine calls an image by its manifest, and does not find it by its configuration;
    # with images in a graph driver the exporter names the configuration here, which is the ID then.
    return response.get("containerimage.digest") or response.get("containerimage.config.digest", "")


def _is_stored(outputs: Sequence[Output], response: Mapping[str, str], driver: str) -> bool:
    """Tell whether the image that a response names is in the engine's store."""
    if not outputs:
        return True
    # What exporters say is put together by key, so that the last one is heard.
    last = next((output for output in reversed(outputs) if output.type in _IMAGES), None)
    if last is None or last.is_received:
        return False
    if "store" not in last.attrs:
        return True
    from mobysession.build.fields import parse_bool  # only for who says so: start-up

    # A graph driver stores every image, and is known by having no descriptor to tell of. POST /build tells of none
    # either way: there the option is believed.
    is_obeyed = driver == "classic" or "containerimage.descriptor" in response
    return not is_obeyed or parse_bool(last.attrs["store"]) is not False


def steps_of(status: BuildStatus) -> tuple[StepResult, ...]:
    """Return the steps that are known by now."""
    # Steps from the cache start all at once, with one time; the engine tells of a step after those that it stands on.
    steps = sorted(status.steps, key=lambda step: (not step.intervals, min(step.intervals, default=0), step.number))
    return tuple(StepResult(name=step.name, cached=step.cached, duration=step.duration() / 10**9) for step in steps)


def context_transfer(transfer: DirectoryTransfer) -> ContextTransfer:
    """Return the figures of one call of the engine."""
    figures = transfer.report.progress
    return ContextTransfer(
        directory=transfer.dir_name,
        files_offered=figures.files,
        bytes_offered=figures.offered_bytes,
        files_requested=figures.requested,
        bytes_sent=figures.sent_bytes,
        warnings=transfer.report.warnings,
    )
