"""Why a solve failed: from the end of a call, or a line of text, to a :class:`~mobysession.errors.BuildFailed`.

``grpc-status-details-bin`` holds a ``google.rpc.Status`` whose details BuildKit fills with typed errors. Although they
sit in ``google.protobuf.Any``, those of BuildKit are JSON, not protobuf: their type URLs end in ``+json``. They come
from the outermost wrapper to the innermost; sources are shown in that order, and of vertices and exit codes the
innermost is the one that failed. The classic ``/build`` has only text; what the text names is taken from there, the
rest from the status of the build.
"""

from __future__ import annotations

import base64
import json
import re
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from mobysession._pb import rpcstatus_pb2
from mobysession.buildkit.hints import hint_for
from mobysession.buildkit.printable import printable
from mobysession.buildkit.source import Source, excerpt, find_instruction
from mobysession.errors import BuildFailed, RpcError, StatusCode

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from mobysession.buildkit.status import BuildStatus, Vertex

__all__ = ["SolveDetails", "build_failed", "decode_details", "excerpt"]

_T = TypeVar("_T")
_PREFIX = "github.com/moby/buildkit/"
_FAILED = "failed to solve"
#: Lines of the failed step's log that a BuildFailed carries; ours.
_LOG_LINES = 20


class SolveDetails(NamedTuple):
    """The typed errors of one failed call.

    Attributes:
        code: of the status message; the trailer's counts where they differ.
        message: of the status message.
        sources: places in the Dockerfile, in the order in which they are shown.
        vertex: digest of the step that failed; None when none is named.
        exit_code: of its process; None when none is named.
        frontend_cap: a capability that the frontend needs and the engine lacks; None when none is named.
        subrequest: a request to the frontend that it does not know; None when none is named.
        deny_messages: why a policy refused.
        description: of the operation that failed, e.g. its name.
        stacks: JSON of the engine's stack traces, as they came.
        rest: type URL and bytes of every detail that is of another type or could not be decoded.
    """

    code: int = 0
    message: str = ""
    sources: tuple[Source, ...] = ()
    vertex: str | None = None
    exit_code: int | None = None
    frontend_cap: str | None = None
    subrequest: str | None = None
    deny_messages: tuple[str, ...] = ()
    description: tuple[tuple[str, str], ...] = ()
    stacks: tuple[bytes, ...] = ()
    rest: tuple[tuple[str, bytes], ...] = ()


def decode_details(status_bytes: bytes) -> SolveDetails:
    """Decode a serialized ``google.rpc.Status``; never raises.

    What cannot be decoded is kept in ``rest``; bytes that are no such message at all under an empty type URL.

    Source: moby/buildkit util/grpcerrors/grpcerrors.go and solver/errdefs/errdefs.proto.
    """
    status = rpcstatus_pb2.Status()
    try:
        status.ParseFromString(status_bytes)
    except Exception:  # protobuf's implementations differ in what they raise
        return SolveDetails(rest=(("", status_bytes),))
    details = SolveDetails(code=status.code, message=status.message)
    for detail in status.details:
        details = _with_detail(details, detail.type_url, detail.value)
    return details


def _with_detail(details: SolveDetails, url: str, value: bytes) -> SolveDetails:
    kind = url.removeprefix(_PREFIX)
    if kind == "stack.Stack+json":
        return details._replace(stacks=(*details.stacks, value))
    decode = _DECODERS.get(kind)
    try:
        if decode is not None:
            return decode(details, json.loads(value))
    except (ValueError, TypeError, KeyError, RecursionError):
        pass
    return details._replace(rest=(*details.rest, (url, value)))


def _with_source(details: SolveDetails, value: object) -> SolveDetails:
    fields = _typed(value, dict)
    info = _typed(fields.get("info", {}), dict)
    source = Source(
        filename=_typed(info.get("filename", ""), str),
        text=base64.b64decode(_typed(info.get("data", ""), str)).decode("utf-8", "replace"),
        ranges=tuple(_range(each) for each in _typed(fields.get("ranges") or [], list)),
    )
    return details._replace(sources=(*details.sources, source))


def _range(value: object) -> tuple[int, int]:
    fields = _typed(value, dict)
    start, end = (_typed(fields.get(key) or {}, dict) for key in ("start", "end"))
    return _typed(start.get("line", 0), int), _typed(end.get("line", 0), int)


def _with_vertex(details: SolveDetails, value: object) -> SolveDetails:
    return details._replace(vertex=_typed(_typed(value, dict)["digest"], str))


def _with_exit(details: SolveDetails, value: object) -> SolveDetails:
    return details._replace(exit_code=_typed(_typed(value, dict).get("Code", 0), int))


def _with_cap(details: SolveDetails, value: object) -> SolveDetails:
    return details._replace(frontend_cap=_typed(_typed(value, dict)["name"], str))


def _with_subrequest(details: SolveDetails, value: object) -> SolveDetails:
    return details._replace(subrequest=_typed(_typed(value, dict)["name"], str))


def _with_denial(details: SolveDetails, value: object) -> SolveDetails:
    denials = _typed(_typed(value, dict).get("denyMessages") or [], list)
    messages = tuple(_typed(_typed(each, dict).get("message", ""), str) for each in denials)
    return details._replace(deny_messages=(*details.deny_messages, *messages))


def _with_description(details: SolveDetails, value: object) -> SolveDetails:
    description = _typed(_typed(value, dict).get("description") or {}, dict)
    return details._replace(description=tuple((str(key), _typed(text, str)) for key, text in description.items()))


_DECODERS: dict[str, Callable[[SolveDetails, object], SolveDetails]] = {
    "errdefs.Source+json": _with_source,
    "errdefs.Vertex+json": _with_vertex,
    "errdefs.FrontendCap+json": _with_cap,
    "errdefs.Subrequest+json": _with_subrequest,
    "errdefs.Solve+json": _with_description,
    "gatewayapi.ExitMessage+json": _with_exit,
    "policysession.DecisionResponse+json": _with_denial,
}


def _typed(value: object, kind: type[_T]) -> _T:
    if not isinstance(value, kind) or isinstance(value, bool):
        message = f"{kind.__name__} expected"
        raise TypeError(message)
    return value


def build_failed(
    error: RpcError | str, status: BuildStatus | None = None, *, dockerfile: bytes | None = None
) -> BuildFailed:
    """Return what to raise for a solve that ended in ``error``.

    Args:
        error: the end of the Solve call, or the text of the classic endpoint.
        status: what the build has told; gives the name and the log of the step, and the step itself for plain text.
        dockerfile: the Dockerfile as it was sent, for an excerpt where the engine names a line and sends no text.

    Returns:
        An error whose text is safe for a terminal; chain ``error`` to it with ``raise ... from``.
    """
    text, code, details = _parts(error)
    step = _failed_step(details, status, text)
    exit_code = details.exit_code if details.exit_code is not None else _exit_code(text)
    sources = details.sources or _found_source(text, step, status, dockerfile)
    placed = next((source for source in sources if source.lines is not None), None)
    excerpts = [block for block in map(excerpt, sources) if block]
    return BuildFailed(
        _message(text, code),
        step=printable(step.name) if step is not None else None,
        exit_code=exit_code,
        log=[printable(line.text) for line in step.log.last(_LOG_LINES)] if step is not None else (),
        dockerfile=printable(placed.filename) if placed is not None else None,
        lines=placed.lines if placed is not None else None,
        excerpt="\n".join(excerpts),
        code=code,
        stage=_stage(step.name, placed.text if placed is not None else _decoded(dockerfile))
        if step is not None
        else None,
        details=b"" if isinstance(error, str) else error.details,
        hint=_hint(text, details, step),
    )


def _stage(step: str, dockerfile: str) -> str | None:
    """Return the stage in a step's name: ``[builder 2/3] RUN``, ``[linux/amd64 stage-1 2/3] RUN``, or ``[2/3] RUN``.

    BuildKit leaves out the name of a Dockerfile's only stage, which has to be read there; None without a Dockerfile.
    """
    found = re.match(r"\[(?:\S+/\S+ )?(?:(?P<name>\S+) )?\d+/\d+\] ", step)
    if found is None:
        return None
    return printable(found["name"]) if found["name"] else _only_stage(dockerfile)


def _only_stage(dockerfile: str) -> str | None:
    """Return the name of the only stage, as BuildKit would show it; None where there may be more."""
    joined = re.sub(r"[\\`][ \t\r]*\n", " ", dockerfile)
    found: Sequence[str] = re.findall(r"(?im)^[ \t]*FROM[ \t]+(.+)$", joined)
    if len(found) != 1:
        return None
    named = re.search(r"(?i)[ \t]AS[ \t]+(\S+)[ \t\r]*$", found[0])
    return printable(named[1].lower()) if named is not None else "stage-0"


def _decoded(dockerfile: bytes | None) -> str:
    return dockerfile.decode("utf-8", "replace") if dockerfile is not None else ""


def _parts(error: RpcError | str) -> tuple[str, StatusCode, SolveDetails]:
    if isinstance(error, str):
        return error, StatusCode.UNKNOWN, SolveDetails()
    details = decode_details(error.details) if error.details else SolveDetails()
    return error.message or details.message or "the engine gave no reason", error.code, details


def _message(text: str, code: StatusCode) -> str:
    text = re.sub(r"rpc error: code = \w+ desc = ", "", printable(text, newlines=True)).strip()
    if code not in (StatusCode.OK, StatusCode.UNKNOWN):
        text = f"{_go_name(code)}: {text}"
    return text if text.startswith(_FAILED) else f"{_FAILED}: {text}"


def _go_name(code: StatusCode) -> str:
    if code is StatusCode.CANCELLED:
        return "Canceled"
    return code.name.title().replace("_", "")


def _failed_step(details: SolveDetails, status: BuildStatus | None, text: str) -> Vertex | None:
    if status is None:
        return None
    named = status.vertex(details.vertex) if details.vertex is not None else None
    if named is not None:
        return named
    # An import of a cache may fail and the build go on; so the step whose words are in the message comes first.
    failures = status.failures
    told = next((vertex for vertex in failures if vertex.error in text), next(iter(failures), None))
    return told if told is not None else _reader(text, status)


def _reader(text: str, status: BuildStatus) -> Vertex | None:
    """Return the step that names what the engine misses; None where there is not just one.

    The classic endpoint may say of the step that failed that it was cancelled, or end its answer before it says more.
    """
    missing = re.search(
        r"failed to (?:compute cache key|calculate checksum)[^\n]*?\"/(?P<path>[^\"]+)\":? not found", text
    )
    if missing is None:
        return None
    undone = [vertex for vertex in status.vertices if vertex.error or not vertex.is_completed]
    readers = [vertex for vertex in undone if missing["path"] in (word.strip("/") for word in vertex.name.split())]
    return readers[0] if len(readers) == 1 else None


def _exit_code(text: str) -> int | None:
    codes: Sequence[str] = re.findall(r"exit code: (\d{1,10})\b", text)
    return int(codes[-1]) if codes else None


def _found_source(
    text: str, step: Vertex | None, status: BuildStatus | None, dockerfile: bytes | None
) -> tuple[Source, ...]:
    """Find the place without the engine's help: by the line in its text, or by the step's name in the Dockerfile."""
    content = _decoded(dockerfile)
    named = re.search(r"dockerfile parse error (?:on )?line (\d{1,9})\b", text)
    lines = (int(named[1]), int(named[1])) if named is not None else None
    if lines is None and step is not None:
        lines = find_instruction(content, step.name)
    return (Source(_dockerfile_name(status), content, (lines,)),) if lines is not None else ()


def _dockerfile_name(status: BuildStatus | None) -> str:
    begin = "[internal] load build definition from "
    names = (vertex.name for vertex in status.vertices) if status is not None else ()
    return next((name.removeprefix(begin) for name in names if name.startswith(begin)), "Dockerfile")


def _hint(text: str, details: SolveDetails, step: Vertex | None) -> str | None:
    if details.deny_messages:
        return printable("Policy: " + "; ".join(details.deny_messages))
    if details.frontend_cap is not None:
        return (
            f"The engine lacks {printable(details.frontend_cap)}, which the Dockerfile's frontend needs: update either."
        )
    return hint_for(text, step=step.name if step is not None else None)
