"""The PolicyVerifier service, called as a daemon calls it for each source of a build."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from mobysession._pb import ops_pb2, policysession_pb2, sourcemeta_pb2, sourcepolicy_pb2
from mobysession.errors import RpcError, StatusCode, UsageError
from mobysession.services.policy import (
    CHECK_POLICY,
    Allow,
    Ask,
    Attestations,
    Convert,
    Deny,
    GitSource,
    HttpSource,
    ImageSource,
    Policy,
    Source,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractAsyncContextManager

    from mobysession.rpc.client import Channel
    from tests.services.conftest import Ended

    OpenService = Callable[..., AbstractAsyncContextManager[Channel]]

ALPINE = "docker-image://docker.io/library/alpine:latest"
ALLOW, DENY, CONVERT = sourcepolicy_pb2.ALLOW, sourcepolicy_pb2.DENY, sourcepolicy_pb2.CONVERT


def asked(identifier: str = ALPINE, **found: Any) -> policysession_pb2.CheckPolicyRequest:
    """Return what a daemon sends about a source."""
    source = ops_pb2.SourceOp(identifier=identifier, attrs={"image.resolvemode": "local"})
    return policysession_pb2.CheckPolicyRequest(
        Platform=ops_pb2.Platform(OS="linux", Architecture="arm64", Variant="v8"),
        Source=sourcemeta_pb2.ResolveSourceMetaResponse(Source=source, **found),
    )


async def check(
    channel: Channel, request: policysession_pb2.CheckPolicyRequest
) -> policysession_pb2.CheckPolicyResponse:
    return await channel.unary(CHECK_POLICY, request, policysession_pb2.CheckPolicyResponse)


@pytest.mark.parametrize(
    ("decision", "action", "messages"),
    [
        (Allow(), ALLOW, []),
        (True, ALLOW, []),
        (Deny("no latest", "pin it"), DENY, ["no latest", "pin it"]),
        (Deny(), DENY, []),
        (False, DENY, []),
        (None, DENY, ["the policy answered with NoneType, which is no decision"]),
        (1, DENY, ["the policy answered with int, which is no decision"]),
        ("allow", DENY, ["the policy answered with str, which is no decision"]),
        (Allow, DENY, ["the policy answered with type, which is no decision"]),
    ],
)
async def test_a_function_decides(open_service: OpenService, decision: Any, action: int, messages: list[str]) -> None:
    """Allow and True allow; everything that is not clearly one denies."""
    async with open_service(Policy(lambda source: decision)) as channel:
        answer = (await check(channel, asked())).decision
    assert (answer.action, [one.message for one in answer.denyMessages]) == (action, messages)


async def test_what_the_function_sees(open_service: OpenService) -> None:
    """The source with all that the daemon has found out, and a coroutine function is awaited."""
    seen: list[Source] = []

    async def decide(source: Source) -> Allow:
        seen.append(source)
        return Allow()

    chain = sourcemeta_pb2.AttestationChain(
        Root="r", ImageManifest="i", AttestationManifest="a", SignatureManifests=["s"]
    )
    chain.Blobs["sha256:1"].data = b"document"
    image = sourcemeta_pb2.ResolveSourceImageResponse(
        Digest="sha256:d", Config=b'{"os":"linux"}', AttestationChain=chain
    )
    git = sourcemeta_pb2.ResolveSourceGitResponse(
        Checksum="c", Ref="main", CommitChecksum="cc", CommitObject=b"o", TagObject=b"t"
    )
    http = sourcemeta_pb2.ResolveSourceHTTPResponse(Checksum="sha256:h", Filename="f.tgz")
    http.LastModified.seconds = 5
    http.ChecksumResponse.Digest = "sha512:x"
    async with open_service(Policy(decide)) as channel:
        await check(channel, asked())
        await check(channel, asked(Image=image))
        await check(channel, asked("git://x", Git=git))
        await check(channel, asked("https://x/f.tgz", HTTP=http))
    plain, seen_image, seen_git, seen_http = seen
    assert plain == Source(identifier=ALPINE, attrs={"image.resolvemode": "local"}, platform="linux/arm64/v8")
    assert plain.scheme == "docker-image"
    attestations = Attestations(
        root="r",
        image_manifest="i",
        attestation_manifest="a",
        signature_manifests=("s",),
        blobs={"sha256:1": b"document"},
    )
    assert seen_image.image == ImageSource(digest="sha256:d", config=b'{"os":"linux"}', attestations=attestations)
    assert seen_image.image.parsed_config() == {"os": "linux"}
    assert seen_git.git == GitSource(
        checksum="c", ref="main", commit_checksum="cc", commit_object=b"o", tag_object=b"t"
    )
    assert seen_http.http == HttpSource(
        checksum="sha256:h", filename="f.tgz", last_modified=5.0, asked_checksum="sha512:x"
    )


async def test_a_source_is_converted(open_service: OpenService) -> None:
    """Into another identifier, with its attributes or others."""
    pinned = f"{ALPINE}@sha256:{'0' * 64}"
    for attrs, expected in ((None, {"image.resolvemode": "local"}), ({}, {}), ({"a": "b"}, {"a": "b"})):
        async with open_service(Policy(lambda source, attrs=attrs: Convert(pinned, attrs))) as channel:
            answer = (await check(channel, asked())).decision
        assert (answer.action, answer.update.identifier, dict(answer.update.attrs)) == (CONVERT, pinned, expected)


async def test_more_is_asked_for(open_service: OpenService) -> None:
    """With the identifier and the attributes of the source, which the daemon compares, and what was wished for."""
    wishes = {
        "image": Ask(image_config=True, attestation_types=("https://slsa.dev/provenance/v1",), resolve_mode="pull"),
        "digest": Ask(platform="linux/amd64"),
        "git": Ask(git_objects=True),
        "http": Ask(http_checksum="sha512", http_suffix=b"salt"),
    }
    sources = {"image": ALPINE, "digest": ALPINE, "git": "git://x", "http": "https://x/f"}
    answers = {}
    for name, wish in wishes.items():
        async with open_service(Policy(lambda source, wish=wish: wish)) as channel:
            answers[name] = (await check(channel, asked(sources[name]))).request
    for name, answer in answers.items():
        assert answer.Source == asked(sources[name]).Source.Source
    image = answers["image"]
    assert (image.Image.NoConfig, image.Image.AttestationChain) == (False, True)
    assert list(image.Image.ResolveAttestations) == ["https://slsa.dev/provenance/v1"]
    assert (image.ResolveMode, image.Platform.Variant) == ("pull", "v8")
    digest = answers["digest"]
    assert digest.Image.NoConfig
    assert (digest.Platform.OS, digest.Platform.Architecture, digest.Platform.Variant) == ("linux", "amd64", "")
    assert answers["git"].Git.ReturnObject
    assert not answers["git"].HasField("Image")
    checksum = answers["http"].HTTP.ChecksumRequest
    assert (checksum.Algo, checksum.Suffix) == (sourcemeta_pb2.ChecksumRequest.CHECKSUM_ALGO_SHA512, b"salt")


async def test_a_policy_that_fails_denies(open_service: OpenService, ended: Ended) -> None:
    """The daemon gets no decision, which fails the build; the function's words stay here."""

    def broken(source: Source) -> Allow:
        raise KeyError("password=hunter2")

    async with open_service(Policy(broken)) as channel:
        with pytest.raises(RpcError, match=f"the policy failed with KeyError on {ALPINE}$") as caught:
            await check(channel, asked())
    assert caught.value.code is StatusCode.UNKNOWN
    assert "hunter2" in str(ended[0][2])


async def test_an_empty_request_is_decided_too(open_service: OpenService) -> None:
    """A daemon that says nothing about the source gets the function's decision on nothing."""
    seen: list[Source] = []

    def decide(source: Source) -> Deny:
        seen.append(source)
        return Deny("what?")

    async with open_service(Policy(decide)) as channel:
        answer = await check(channel, policysession_pb2.CheckPolicyRequest())
    assert answer.decision.action == DENY
    assert seen == [Source(identifier="")]


def test_a_policy_is_made_right() -> None:
    """A function of two arguments and an unknown checksum are the caller's mistakes."""
    with pytest.raises(UsageError, match="takes one argument"):
        Policy(lambda one, two: True)
    with pytest.raises(UsageError, match="no checksum 'md5'"):
        Ask(http_checksum="md5")  # type: ignore[arg-type]  # that is the point
