"""PolicyVerifier: the daemon asks, for each thing that a build would read, whether it may.

The request names the session that decides (``SourcePolicySession``, BuildKit 0.26). Before the daemon fetches an image,
a git repository, a URL or a directory, it calls ``CheckPolicy`` with the source's identifier and attributes. The answer
is a decision, or a wish to know more first: the daemon then resolves what was asked for and calls again, ten times at
the most. A source that is converted is asked for again as what it has become.

Whatever goes wrong here denies: the daemon fails a build that it gets no decision for.

Source: moby/buildkit sourcepolicy/policysession, solver/llbsolver/policy.go.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

from mobysession._pb import policysession_pb2, sourcemeta_pb2, sourcepolicy_pb2
from mobysession.errors import MobysessionError, RpcError, StatusCode, UsageError
from mobysession.jsontext import parse_json
from mobysession.services.provider import Provider

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from mobysession.rpc.registrar import Registrar
    from mobysession.rpc.server import ServerCall

__all__ = [
    "CHECK_POLICY",
    "Allow",
    "Ask",
    "Attestations",
    "Convert",
    "Decision",
    "Deny",
    "GitSource",
    "HttpSource",
    "ImageSource",
    "Policy",
    "Source",
]

_logger = logging.getLogger("mobysession.services")

CHECK_POLICY: Final = "/moby.buildkit.v1.sourcepolicy.policysession.PolicyVerifier/CheckPolicy"
_ALGORITHMS: Final = ("sha256", "sha384", "sha512")


@dataclass(frozen=True, kw_only=True)
class Attestations:
    """The chain from an image to what is attested of it: digests, and the documents by their digests."""

    root: str
    image_manifest: str
    attestation_manifest: str
    signature_manifests: tuple[str, ...]
    blobs: Mapping[str, bytes]


@dataclass(frozen=True, kw_only=True)
class ImageSource:
    """What the daemon has found out about an image."""

    digest: str
    config: bytes = b""
    attestations: Attestations | None = None

    def parsed_config(self) -> dict[str, Any] | None:
        """Return the configuration as an object; None where there is none, or it is no JSON."""
        try:
            config = parse_json(self.config)
        except ValueError:
            return None
        return config if isinstance(config, dict) else None


@dataclass(frozen=True, kw_only=True)
class GitSource:
    """What the daemon has found out about a git repository; the objects only where they were asked for."""

    checksum: str
    ref: str = ""
    commit_checksum: str = ""
    commit_object: bytes = b""
    tag_object: bytes = b""


@dataclass(frozen=True, kw_only=True)
class HttpSource:
    """What the daemon has found out about a URL.

    ``last_modified`` is in seconds since the epoch; ``asked_checksum`` is of the content and the suffix asked with.
    """

    checksum: str
    filename: str = ""
    last_modified: float | None = None
    asked_checksum: str = ""


@dataclass(frozen=True, kw_only=True)
class Source:
    """Something that a build would read.

    Attributes:
        identifier: ``docker-image://docker.io/library/alpine:latest``, ``git://...``, ``https://...``, ``local://...``.
        attrs: its attributes in LLB, such as ``image.resolvemode``.
        platform: for which it is read, as ``linux/arm64/v8``; empty where the daemon does not say.
        image, git, http: what the daemon has found out; None before it was asked for.
    """

    identifier: str
    attrs: Mapping[str, str] = field(default_factory=dict)
    platform: str = ""
    image: ImageSource | None = None
    git: GitSource | None = None
    http: HttpSource | None = None

    @property
    def scheme(self) -> str:
        """What is before ``://``: ``docker-image``, ``git``, ``https``, ``http``, ``local``, ``oci-layout``."""
        return self.identifier.partition("://")[0]


@dataclass(frozen=True)
class Allow:
    """The source may be read as it is."""


@dataclass(frozen=True, init=False)
class Deny:
    """The source may not be read; the messages are in the build's error."""

    messages: tuple[str, ...]

    def __init__(self, *messages: str) -> None:
        object.__setattr__(self, "messages", messages)


@dataclass(frozen=True)
class Convert:
    """Something else is read instead; it is asked for once more as such, so that nothing passes unseen.

    Args:
        identifier: of the other source.
        attrs: its attributes; None: those of the source.
    """

    identifier: str
    attrs: Mapping[str, str] | None = None


@dataclass(frozen=True, kw_only=True)
class Ask:
    """The daemon shall find out more and come back.

    Args:
        image_config: of an image: its configuration too, besides its digest.
        attestations: of an image: its attestation chain; ``attestation_types``: documents of these predicate types.
        git_objects: of a git repository: the commit and the tag as they are stored.
        http_checksum: of a URL: the checksum by this algorithm (``sha256``, ``sha384``, ``sha512``) of its content and
            ``http_suffix``.
        platform: for which an image is looked at, as ``linux/arm64``; None: that of the source.
        resolve_mode: of an image: ``default``, ``pull`` or ``local``.
    """

    image_config: bool = False
    attestations: bool = False
    attestation_types: tuple[str, ...] = ()
    git_objects: bool = False
    http_checksum: Literal["sha256", "sha384", "sha512"] | None = None
    http_suffix: bytes = b""
    platform: str | None = None
    resolve_mode: str = ""

    def __post_init__(self) -> None:
        if self.http_checksum is not None and self.http_checksum not in _ALGORITHMS:
            raise UsageError(f"there is no checksum {self.http_checksum!r}", hint=f"Choose {', '.join(_ALGORITHMS)}.")


#: What a policy may answer; True allows and False denies.
Decision: TypeAlias = Allow | Deny | Convert | Ask | bool


class Policy:
    """Let a function decide on each source of a build.

    Args:
        decide: is called with a `Source` and returns a `Decision`; anything else, and whatever it raises, denies. A
            plain function runs in a worker thread, a coroutine function in the loop.

    Raises:
        UsageError: the function does not take one argument.
    """

    def __init__(self, decide: Callable[..., Decision | Awaitable[Decision]]) -> None:
        try:
            self._decide = Provider(decide)
        except TypeError:
            raise UsageError("the function of a Policy takes one argument: the source") from None

    def register(self, registrar: Registrar) -> None:
        """Host the one method of the service."""
        registrar.unary_unary(CHECK_POLICY, self._check_policy, policysession_pb2.CheckPolicyRequest)

    async def _check_policy(
        self, request: policysession_pb2.CheckPolicyRequest, call: ServerCall
    ) -> policysession_pb2.CheckPolicyResponse:
        source = _source(request)
        try:
            decision = await self._decide.call(source)
        except MobysessionError:
            raise
        except Exception as error:  # of any kind: the function is not ours
            # Its words may hold anything; they are in the cause.
            words = f"the policy failed with {type(error).__name__} on {source.identifier}"
            raise RpcError(StatusCode.UNKNOWN, words) from error
        _logger.debug("policy: %s: %r", source.identifier, decision)
        return _answer(decision, request)


def _source(request: policysession_pb2.CheckPolicyRequest) -> Source:
    found = request.Source
    platform = request.Platform
    parts = (platform.OS, platform.Architecture, platform.Variant)
    return Source(
        identifier=found.Source.identifier,
        attrs=dict(found.Source.attrs),
        platform="/".join(filter(None, parts)),
        image=_image(found.Image) if found.HasField("Image") else None,
        git=_git(found.Git) if found.HasField("Git") else None,
        http=_http(found.HTTP) if found.HasField("HTTP") else None,
    )


def _image(found: sourcemeta_pb2.ResolveSourceImageResponse) -> ImageSource:
    attestations = None
    if found.HasField("AttestationChain"):
        chain = found.AttestationChain
        attestations = Attestations(
            root=chain.Root,
            image_manifest=chain.ImageManifest,
            attestation_manifest=chain.AttestationManifest,
            signature_manifests=tuple(chain.SignatureManifests),
            blobs={digest: blob.data for digest, blob in chain.Blobs.items()},
        )
    return ImageSource(digest=found.Digest, config=found.Config, attestations=attestations)


def _git(found: sourcemeta_pb2.ResolveSourceGitResponse) -> GitSource:
    return GitSource(
        checksum=found.Checksum,
        ref=found.Ref,
        commit_checksum=found.CommitChecksum,
        commit_object=found.CommitObject,
        tag_object=found.TagObject,
    )


def _http(found: sourcemeta_pb2.ResolveSourceHTTPResponse) -> HttpSource:
    modified = found.LastModified
    return HttpSource(
        checksum=found.Checksum,
        filename=found.Filename,
        last_modified=modified.seconds + modified.nanos / 10**9 if found.HasField("LastModified") else None,
        asked_checksum=found.ChecksumResponse.Digest,
    )


def _answer(decision: object, request: policysession_pb2.CheckPolicyRequest) -> policysession_pb2.CheckPolicyResponse:
    if isinstance(decision, Ask):
        return policysession_pb2.CheckPolicyResponse(request=_wish(decision, request))
    answer = policysession_pb2.DecisionResponse()
    if isinstance(decision, Allow) or decision is True:
        answer.action = sourcepolicy_pb2.ALLOW
    elif isinstance(decision, Convert):
        answer.action = sourcepolicy_pb2.CONVERT
        answer.update.identifier = decision.identifier
        attrs = request.Source.Source.attrs if decision.attrs is None else decision.attrs
        answer.update.attrs.update(attrs)
    else:
        answer.action = sourcepolicy_pb2.DENY
        for message in _reasons(decision):
            answer.denyMessages.add(message=message)
    return policysession_pb2.CheckPolicyResponse(decision=answer)


def _reasons(decision: object) -> tuple[str, ...]:
    if isinstance(decision, Deny):
        return decision.messages
    return () if decision is False else (f"the policy answered with {type(decision).__name__}, which is no decision",)


def _wish(ask: Ask, request: policysession_pb2.CheckPolicyRequest) -> sourcemeta_pb2.ResolveSourceMetaRequest:
    """Return what the daemon is to find out. Identifier and attributes must be those that it sent."""
    source = request.Source.Source
    wish = sourcemeta_pb2.ResolveSourceMetaRequest(Source=source, ResolveMode=ask.resolve_mode)
    if ask.platform is not None:
        os, _, rest = ask.platform.partition("/")
        wish.Platform.OS = os
        wish.Platform.Architecture, _, wish.Platform.Variant = rest.partition("/")
    elif request.HasField("Platform"):
        wish.Platform.CopyFrom(request.Platform)
    if source.identifier.startswith(("docker-image://", "oci-layout://")):
        wish.Image.NoConfig = not ask.image_config
        wish.Image.AttestationChain = ask.attestations or bool(ask.attestation_types)
        wish.Image.ResolveAttestations.extend(ask.attestation_types)
    if ask.git_objects:
        wish.Git.ReturnObject = True
    if ask.http_checksum is not None:
        algorithm = f"CHECKSUM_ALGO_{ask.http_checksum.upper()}"
        checksum = sourcemeta_pb2.ChecksumRequest(Algo=algorithm, Suffix=ask.http_suffix)
        wish.HTTP.ChecksumRequest.CopyFrom(checksum)
    return wish
