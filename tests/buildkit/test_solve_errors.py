"""From the end of a failed solve to an error that says what failed, where, and what helps."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobysession._pb import control_pb2, rpcstatus_pb2
from mobysession.buildkit.hints import hint_for
from mobysession.buildkit.solve_errors import build_failed, decode_details
from mobysession.buildkit.source import Source
from mobysession.buildkit.status import BuildStatus
from mobysession.errors import RpcError, StatusCode

if TYPE_CHECKING:
    from collections.abc import Callable

PREFIX = "github.com/moby/buildkit/"
DETAIL_TYPES = [
    "errdefs.Source+json",
    "errdefs.Vertex+json",
    "errdefs.Solve+json",
    "errdefs.FrontendCap+json",
    "errdefs.Subrequest+json",
    "gatewayapi.ExitMessage+json",
    "policysession.DecisionResponse+json",
]


def details(*parts: tuple[str, object]) -> bytes:
    """Return a serialized status with these details; a value of bytes is taken as it is, others become JSON."""
    status = rpcstatus_pb2.Status(code=2, message="boom")
    for kind, value in parts:
        raw = value if isinstance(value, bytes) else json.dumps(value).encode()
        status.details.add(type_url=PREFIX + kind, value=raw)
    return status.SerializeToString()


def source(name: str, text: str, *lines: int) -> tuple[str, object]:
    """Return a source detail that means these lines."""
    ranges = [{"start": {"line": line}, "end": {"line": line}} for line in lines]
    info = {"filename": name, "data": base64.b64encode(text.encode()).decode()}
    return "errdefs.Source+json", {"info": info, "ranges": ranges}


def status_of(*steps: tuple[str, str, str, bytes]) -> BuildStatus:
    """Return the model of completed steps: digest, name, error, log."""
    response = control_pb2.StatusResponse()
    for moment, (digest, name, error, log) in enumerate(steps):
        vertex = response.vertexes.add(digest=digest, name=name, error=error)
        vertex.started.seconds = vertex.completed.seconds = moment + 1
        response.logs.add(vertex=digest, stream=1, msg=log)
    status = BuildStatus()
    status.apply(response)
    return status


@pytest.mark.parametrize("engine", ["engine-28.5.2", "engine-api1.56"])
def test_a_recorded_failure_says_everything(
    recorded: Callable[[str], list[control_pb2.StatusResponse]], recorded_error: Callable[[str], RpcError], engine: str
) -> None:
    """Step, exit code, log, place and excerpt of a build that a real engine refused."""
    status = BuildStatus()
    for message in recorded(f"{engine}-failing"):
        status.apply(message)
    failed = build_failed(recorded_error(f"{engine}-failing"), status)
    command = "/bin/sh -c echo before; ls /nonexistent"
    assert failed.message == f'failed to solve: process "{command}" did not complete successfully: exit code: 1'
    assert failed.step == "[2/2] RUN --network=none echo before; ls /nonexistent"
    assert failed.exit_code == 1
    assert sorted(failed.log) == ["before", "ls: /nonexistent: No such file or directory"]
    assert (failed.dockerfile, failed.lines) == ("Dockerfile.fail", (2, 2))
    assert "   2 | >>> RUN --network=none echo before; ls /nonexistent" in failed.excerpt.split("\n")
    assert failed.code is StatusCode.UNKNOWN


def test_an_old_engines_failure_is_read_from_its_text(
    recorded: Callable[[str], list[control_pb2.StatusResponse]], recorded_error: Callable[[str], RpcError]
) -> None:
    """Without details the exit code comes from the message and the step from the status."""
    status = BuildStatus()
    for message in recorded("engine-20.10.24-failing"):
        status.apply(message)
    failed = build_failed(recorded_error("engine-20.10.24-failing"), status)
    assert failed.exit_code == 1
    assert failed.step == "[2/2] RUN echo before; ls /nonexistent"
    assert failed.log == ("before", "ls: /nonexistent: No such file or directory")
    assert (failed.dockerfile, failed.lines, failed.excerpt) == (None, None, "")


@pytest.mark.parametrize("engine", ["engine-20.10.24", "engine-28.5.2", "engine-api1.56"])
def test_a_missing_dockerfile_is_named_and_has_a_hint(recorded_error: Callable[[str], RpcError], engine: str) -> None:
    """Engines put it differently; the message names the file once and the hint says which option."""
    failed = build_failed(recorded_error(f"{engine}-missing-dockerfile"))
    assert failed.message.startswith("failed to solve")
    assert failed.message.endswith("Dockerfile.none: no such file or directory")
    assert "rpc error" not in failed.message
    assert failed.hint is not None
    assert "Dockerfile.none" in failed.hint
    assert "file= (--file, -f)" in failed.hint


def test_sources_keep_their_order_and_the_innermost_vertex_counts() -> None:
    """Several places are all shown, in list order; of several vertices the last is the one that failed."""
    raw = details(
        source("outer", "a\nb", 1),
        ("errdefs.Vertex+json", {"digest": "sha256:outer"}),
        source("inner", "c\nd", 2),
        ("errdefs.Vertex+json", {"digest": "sha256:inner"}),
        ("gatewayapi.ExitMessage+json", {"Code": 137}),
    )
    decoded = decode_details(raw)
    assert decoded.sources == (Source("outer", "a\nb", ((1, 1),)), Source("inner", "c\nd", ((2, 2),)))
    assert decoded.vertex == "sha256:inner"
    failed = build_failed(RpcError(StatusCode.UNKNOWN, "boom", details=raw))
    assert failed.exit_code == 137
    assert [line for line in failed.excerpt.split("\n") if ":" in line] == ["outer:1", "inner:2"]
    assert (failed.dockerfile, failed.lines) == ("outer", (1, 1))


@pytest.mark.parametrize("kind", DETAIL_TYPES)
@pytest.mark.parametrize(
    "value",
    [b"", b"{", b"\xff", b"[]", b"null", b"[" * 100_000, b'{"info":3,"ranges":3,"digest":3,"Code":"x","name":{}}'],
)
def test_a_detail_that_makes_no_sense_is_kept_and_harms_nothing(kind: str, value: bytes) -> None:
    """Broken JSON, other types and deep nesting leave the other details as they are."""
    decoded = decode_details(details((kind, value), ("errdefs.Vertex+json", {"digest": "sha256:x"})))
    assert decoded.vertex == "sha256:x"
    assert decoded.message == "boom"
    assert decoded.rest in (((PREFIX + kind, value),), ())


def test_details_of_other_types_are_kept() -> None:
    """A protobuf detail and a stack trace are not decoded and not lost."""
    raw = details(("stack.Stack+json", b'{"frames":[]}'), ("errdefs.Frontend+json", b"{}"))
    decoded = decode_details(raw)
    assert decoded.stacks == (b'{"frames":[]}',)
    assert decoded.rest == ((PREFIX + "errdefs.Frontend+json", b"{}"),)


@given(st.binary(max_size=60))
def test_any_bytes_decode_to_something(raw: bytes) -> None:
    """Bytes that are no status are kept whole; nothing is raised."""
    decode_details(raw)
    assert build_failed(RpcError(StatusCode.UNKNOWN, "boom", details=raw)).message == "failed to solve: boom"


@pytest.mark.parametrize(
    ("text", "code", "message"),
    [
        ("boom", StatusCode.UNKNOWN, "failed to solve: boom"),
        ("failed to solve: boom", StatusCode.UNKNOWN, "failed to solve: boom"),
        (
            "rpc error: code = Unknown desc = a: rpc error: code = NotFound desc = b",
            StatusCode.UNKNOWN,
            "failed to solve: a: b",
        ),
        ("no such job x", StatusCode.NOT_FOUND, "failed to solve: NotFound: no such job x"),
        ("context canceled", StatusCode.CANCELLED, "failed to solve: Canceled: context canceled"),
        ("late", StatusCode.DEADLINE_EXCEEDED, "failed to solve: DeadlineExceeded: late"),
        ("\x1b[2Jboom\x07", StatusCode.UNKNOWN, "failed to solve: boom"),
        ("", StatusCode.UNKNOWN, "failed to solve: the engine gave no reason"),
    ],
)
def test_the_message_is_put_as_buildx_puts_it(text: str, code: StatusCode, message: str) -> None:
    """One prefix, no repeated gRPC prefixes, the code's name where it says something, nothing for a terminal."""
    failed = build_failed(RpcError(code, text))
    assert failed.message == str(failed) == message
    assert failed.code is code


def test_the_step_whose_words_the_text_has_comes_before_an_earlier_failure() -> None:
    """A cache import that failed earlier, and was survived, is not taken for the cause."""
    status = status_of(
        ("c", "importing cache manifest", "cache: not found", b""),
        ("x", "[1/2] RUN a", "context canceled", b"cancelled\n"),
        ("r", "[2/2] RUN \x1b[31mfalse", "exit code: 3", b"first\n\x1b[1mlast\x1b[0m\n"),
    )
    failed = build_failed("process did not complete successfully: exit code: 3", status)
    assert failed.step == "[2/2] RUN false"
    assert failed.log == ("first", "last")
    assert failed.exit_code == 3


def test_a_parse_error_in_plain_text_gives_the_line_and_with_the_file_an_excerpt() -> None:
    """The classic endpoint names the line only; the file is the one that the build loaded."""
    status = status_of(("a", "[internal] load build definition from Dockerfile.dev", "", b""))
    text = "dockerfile parse error line 2: unknown instruction: RUM"
    failed = build_failed(text, status, dockerfile=b"FROM scratch\nRUM x\n")
    assert (failed.dockerfile, failed.lines) == ("Dockerfile.dev", (2, 2))
    assert "   2 | >>> RUM x" in failed.excerpt
    assert build_failed(text.replace("line", "on line")).lines == (2, 2)
    assert build_failed(text).excerpt == ""


def test_a_failed_step_is_found_in_the_dockerfile_where_the_engine_names_no_place() -> None:
    """With plain text and the Dockerfile as it was sent, the step's instruction is the place."""
    status = status_of(("a", "[2/2] RUN false", "exit code: 1", b""))
    failed = build_failed("process: exit code: 1", status, dockerfile=b"FROM x\nRUN false\n")
    assert (failed.dockerfile, failed.lines) == ("Dockerfile", (2, 2))
    assert "   2 | >>> RUN false" in failed.excerpt.split("\n")


def test_a_policy_says_why_it_refused() -> None:
    """The denials of a policy are the hint."""
    raw = details(("policysession.DecisionResponse+json", {"action": 1, "denyMessages": [{"message": "not pinned"}]}))
    assert build_failed(RpcError(StatusCode.UNKNOWN, "denied", details=raw)).hint == "Policy: not pinned"


@pytest.mark.parametrize(
    ("text", "help_"),
    [
        ("failed to solve: no active session for abc: context deadline exceeded", "session"),
        ("failed to read dockerfile: open Dockerfile: no such file or directory", "file= (--file, -f)"),
        ("pull access denied, repository does not exist or may require authorization", "docker login"),
        ("failed to authorize: failed to fetch oauth token: unauthorized: who are you?", "docker login"),
        (
            "failed to fetch oauth token: unexpected status from POST request to https://r.example/: 401 Unauthorized",
            "docker login",
        ),
        ("docker.io/library/nothing:latest: not found", "docker.io/library/nothing:latest"),
        ("dial tcp: lookup registry-1.docker.io on 10.0.0.2:53: server misbehaving", "DNS"),
        ("dial tcp: lookup registry-1.docker.io: no such host", "DNS"),
        ("dial tcp 10.1.2.3:443: connect: connection refused", "network"),
        ("failed to stat secret: secret token: not found", 'secrets={"token": ...} (--secret id=token,'),
        ("secret token not found: not found", 'secrets={"token": ...} (--secret id=token,'),
        ('no SSH key "default" forwarded from the client', 'ssh=["default"] (--ssh default)'),
        ('no SSH key "" forwarded from the client', 'ssh=["default"] (--ssh default)'),
        ("unset ssh forward key work: no ssh handler for id work", 'ssh=["work=KEYFILE"] (--ssh work=KEYFILE)'),
        ("granting entitlement network.host is not allowed by build daemon configuration", "builder.entitlements"),
        ("network.host is not allowed", 'allow=["network.host"] (--allow network.host)'),
        ("security.insecure is not allowed", 'allow=["security.insecure"] (--allow security.insecure)'),
        (
            "failed to walk /var/lib/docker/tmp/buildkit-mount123/no: lstat /x: no such file",
            "no is not in what the step",
        ),
        (
            'failed to compute cache key: failed to calculate checksum of ref x::y: "/app/a.txt": not found',
            ".dockerignore",
        ),
        ('failed to compute cache key: "/a.txt" not found: not found', ".dockerignore"),
        ("write /x: no space left on device", "prune"),
        ("dockerfile parse error line 2: Unknown flag: mount", "# syntax="),
        ("x509: certificate signed by unknown authority", "certificate"),
        ('Head "https://h:5000/v2/": tls: first record does not look like a TLS handshake', "insecure-registries"),
        ('Get "https://h:5000/v2/": http: server gave HTTP response to HTTPS client', "insecure-registries"),
        (
            "failed to load LLB: requested feature mergeop  has been disabled on the build server: only enabled with x",
            "containerd image store",
        ),
        ("failed to load LLB: unknown API capability diffop", "containerd image store"),
    ],
)
def test_common_failures_have_a_hint(text: str, help_: str) -> None:
    """What many builds meet comes with what to do about it."""
    hint = hint_for(text)
    assert hint is not None
    assert help_ in hint


@pytest.mark.parametrize(
    ("text", "help_"),
    [
        ("the --mount option requires BuildKit. Refer to https://docs.docker.com/ to learn more", "old builder"),
        ("dockerfile parse error line 12: Unknown flag: mount", "too old for --mount"),
        ("no active session for xyz: context deadline exceeded", "keep it open"),
        ("failed to resolve source metadata for docker.io/library/x: no active session", "keep it open"),
        ('no SSH key "" forwarded from the client', 'ssh=["default"] (--ssh default)'),
        (
            r"could not parse ssh: [default]: failed to open //./pipe/openssh-ssh-agent: All pipe instances are busy.",
            "Get-Service ssh-agent",
        ),
        (
            'error getting credentials - err: exec: "docker-credential-desktop.exe": executable file not found',
            "docker-credential-desktop.exe, which is not installed",
        ),
        ('changes out of order: "a" "b"', "report this"),
        ("invalid link x to unknown path: y", "report this"),
        ("http2: frame too large", "attach='tunnel' (--attach tunnel)"),
        ("only one connection allowed", "a session for each build"),
        ("""Syntax error - can't find = in "label.decode". Must be of the form: name=value""", "label.decode"),
    ],
)
def test_what_users_of_this_field_paste_is_recognised(text: str, help_: str) -> None:
    """Each of the messages that are asked about again and again has a hint of its own."""
    hint = hint_for(text)
    assert hint is not None
    assert help_ in hint


@pytest.mark.parametrize(
    ("text", "has_hint"),
    [
        ("dockerfile parse error line 3: unknown instruction: HELLO", True),
        ("dockerfile parse error line 12: unknown instruction: HELLO", True),
        ("dockerfile parse error line 1: unknown instruction: FRON", False),
        ("dockerfile parse error line 2: unknown instruction: COPPY", False),
        ("dockerfile parse error line 3: unknown instruction: COPPY (did you mean COPY?)", False),
        ("dockerfile parse error on line 3: unknown instruction: COPPY (did you mean COPY?)", False),
        ("dockerfile parse error on line 3: unknown instruction: XYZZY", False),
    ],
)
def test_heredocs_are_spoken_of_where_there_may_be_one(text: str, has_hint: bool) -> None:
    """Not where the engine has them, nor where it proposes something itself, nor above where one can begin."""
    hint = hint_for(text)
    assert (hint is not None) is has_hint
    assert hint is None or hint.startswith("There is no instruction HELLO. If it is in a heredoc")


MISSING = 'failed to compute cache key: failed to calculate checksum of ref a::b: "/no": not found'
MISSING_20_10 = 'failed to compute cache key: "/no" not found: not found'
IN_CONTEXT = "/no is not in the build context"


@pytest.mark.parametrize("text", [MISSING, MISSING_20_10])
@pytest.mark.parametrize(
    ("step", "begin"),
    [
        ("[2/2] COPY no /", IN_CONTEXT),
        ("[linux/amd64 two 2/2] ADD --chown=1:1 no /", IN_CONTEXT),
        ("[two 2/2] COPY --from=base /no /", "/no is not in base:"),
        ("[linux/amd64 two 2/2] COPY --link --from=busybox:1.36 --chmod=644 /no /", "/no is not in busybox:1.36:"),
        ("[2/2] COPY no --from=base /", IN_CONTEXT),
        ("[2/2] RUN --mount=type=bind,source=no,target=/x true", IN_CONTEXT),
        ("[2/2] RUN --mount=from=a,src=yes --mount=from=b,source=/no,target=/x true", "/no is not in b:"),
        ("[2/2] RUN --mount=from=a,source=yes true", "/no is not in what the step copies from"),
        ("copy /no /", "/no is not in what the step copies from"),
        (None, "/no is not in what the step copies from"),
    ],
)
def test_what_is_missing_is_missed_where_the_step_looks_for_it(text: str, step: str | None, begin: str) -> None:
    """In the context, or in the stage, image or context that ``from`` names; of a graph's step nobody knows."""
    assert (hint_for(text, step=step) or "").startswith(begin)


@pytest.mark.parametrize("at", ["", "/var/lib/docker/overlay2/0a1b/merged", "/var/lib/docker/tmp/buildkit-mount42"])
def test_what_is_missing_in_an_image_is_told_without_the_engines_place_for_it(at: str) -> None:
    """Only a step that copies from one can mean this by its words."""
    text = f"failed to solve: lstat {at}/no: no such file or directory"
    assert (hint_for(text, step="[2/2] COPY --from=busybox /no /") or "").startswith("/no is not in busybox:")
    assert hint_for(text, step="[2/2] RUN ls") is None
    assert hint_for(text) is None


def test_the_hint_of_a_failure_knows_its_step() -> None:
    """The step comes from the status, the words from the message."""
    status = status_of(("a", "[two 2/2] COPY --from=base /no /", '"/no" not found: not found', b""))
    assert "/no is not in base" in (build_failed(MISSING_20_10, status).hint or "")


@pytest.mark.parametrize("has_ended", [False, True])
def test_a_step_of_which_no_failure_is_told_is_known_by_what_it_copies(has_ended: bool) -> None:
    """The classic endpoint of 28.5.2 says now and then that it was cancelled, and may not tell its end at all."""
    copying, error = "[two 2/2] COPY --from=base /no /", "context canceled: context canceled" if has_ended else ""
    status = status_of(("r", "[base 2/2] RUN ls /no", "", b""), ("a", copying, error, b""))
    if not has_ended:
        again = control_pb2.StatusResponse()
        again.vertexes.add(digest="a", name=copying).started.seconds = 2
        status.apply(again)
    failed = build_failed(MISSING_20_10, status)
    assert (failed.step, failed.stage) == (copying, "two")
    assert "/no is not in base" in (failed.hint or "")
    assert build_failed("it broke", status).step is None
    twice = status_of(("a", copying, "context canceled", b""), ("b", f"{copying}other", "context canceled", b""))
    assert build_failed(MISSING_20_10, twice).step is None


def failed_in(step: str, dockerfile: bytes | None = None) -> str | None:
    """Return the stage of a build that failed in this step."""
    return build_failed("it broke", status_of(("1", step, "it broke", b"")), dockerfile=dockerfile).stage


@pytest.mark.parametrize(
    ("name", "stage"),
    [
        ("[builder 2/3] RUN make", "builder"),
        ("[linux/amd64 stage-1 2/3] RUN make", "stage-1"),
        ("[linux/arm64 2/3] RUN make", None),
        ("[2/3] RUN make", None),
        ("[internal] load build definition from Dockerfile", None),
        ("exporting to image", None),
    ],
)
def test_the_stage_is_in_the_name_of_the_step(name: str, stage: str | None) -> None:
    """A failed step's stage is the one that its name says; none is guessed."""
    assert failed_in(name) == stage


@pytest.mark.parametrize(
    ("dockerfile", "stage"),
    [
        (b"FROM busybox\nRUN make\n", "stage-0"),
        (b"# FROM a\nARG A\nfrom --platform=linux/amd64 busybox as Builder \r\nRUN make\n", "builder"),
        (b"FROM busybox \\\n  AS builder\nRUN make\n", "builder"),
        (b"FROM busybox\nCOPY <<E /a\nFROM x AS y\nE\nRUN make\n", None),
        (b"", None),
    ],
)
def test_the_name_of_an_only_stage_is_read_in_the_dockerfile(dockerfile: bytes, stage: str | None) -> None:
    """BuildKit leaves it out of the step's name; the Dockerfile is ours, or what the engine sends of it."""
    assert failed_in("[2/3] RUN make", dockerfile) == stage
    raw = details(source("Dockerfile", dockerfile.decode(), 1), ("errdefs.Vertex+json", {"digest": "1"}))
    status = status_of(("1", "[linux/arm64 2/3] RUN make", "it broke", b""))
    assert build_failed(RpcError(StatusCode.UNKNOWN, "boom", details=raw), status).stage == stage


@pytest.mark.parametrize("text", ["boom", "process did not complete successfully: exit code: 1", ""])
def test_other_failures_have_none(text: str) -> None:
    """A hint that might mislead is not given."""
    assert hint_for(text) is None
