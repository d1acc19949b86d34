"""Rules on what the sources of a build become, as BuildKit has had them since 0.11: allow, deny, convert.

They are written as JSON, or as the protobuf message itself, and go to the engine with the solve. A policy that is asked
for each source is another thing, see `mobysession.services.policy`.

Source: docker/buildx build/build.go, ReadSourcePolicy; moby/buildkit sourcepolicy/pb.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from google.protobuf.json_format import MessageToDict, ParseDict, ParseError
from google.protobuf.message import DecodeError

from mobysession._pb import sourcepolicy_pb2
from mobysession.errors import ContextError, UsageError
from mobysession.jsontext import parse_json

if TYPE_CHECKING:
    from mobysession.build.options import BuildOptions

__all__ = ["parse_source_policy", "read_source_policy"]

_VARIABLE: Final = "EXPERIMENTAL_BUILDKIT_SOURCE_POLICY"


def read_source_policy(options: BuildOptions) -> Mapping[str, object] | None:
    """Return the policy of a build as a mapping, from the file that it or the environment names; blocking.

    Raises:
        ContextError: the file cannot be read.
        UsageError: it holds something else.
    """
    given = options.source_policy if options.source_policy is not None else os.environ.get(_VARIABLE) or None
    if given is None or isinstance(given, Mapping):
        return given
    path = os.fspath(given)
    try:
        with open(path, "rb") as file:
            content = file.read()
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        reason = (error.strerror or "failed").lower() if isinstance(error, OSError) else str(error)
        raise ContextError(f"the source policy {path!r} cannot be read: {reason}") from error
    return _parse(path, content)


def _parse(path: str, content: bytes) -> Mapping[str, object]:
    try:
        document = parse_json(content)
    except ValueError:
        try:
            policy: Any = sourcepolicy_pb2.Policy.FromString(content)
        except DecodeError:
            raise UsageError(f"the source policy {path!r} is neither JSON nor a protobuf message") from None
        document = MessageToDict(policy)
    if not isinstance(document, dict):
        raise UsageError(f"the source policy {path!r} is not a JSON object")
    parse_source_policy(document)
    return document


def parse_source_policy(policy: object) -> sourcepolicy_pb2.Policy:
    """Return a policy as the engine takes it.

    Raises:
        UsageError: there is something in it that no policy has: a rule with a slip would hold nothing up.
    """
    if not isinstance(policy, Mapping):
        raise UsageError("a source policy is a mapping", hint="Its rules are under the key rules.")
    try:
        return ParseDict(dict(policy), sourcepolicy_pb2.Policy())
    except (ParseError, TypeError) as error:
        raise UsageError(f"this is no source policy: {error}") from None
