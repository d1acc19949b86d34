"""What the messages of one Write do to an ingest, and how each is answered.

The rules are containerd's, down to those that look odd: an offset of 0 behind data that are there takes them away, also
in a COMMIT; an expected digest that is there already ends the ingest with ALREADY_EXISTS, which the daemon takes for
success. One thing differs: the answer to a WRITE has no digest. The daemon takes one from the answer where it is there,
and looks at that of the COMMIT only; without, it sends the next piece while this one is hashed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from google.protobuf.message import DecodeError

from mobysession._pb import content_pb2
from mobysession.errors import MobysessionError, RpcError, StatusCode
from mobysession.services.oci_layout_ingest import Ingest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mobysession.services.oci_layout import OciLayout

__all__ = ["Writing", "decode_write"]

_NANOSECONDS: Final = 10**9


class Writing:
    """One Write, from its first message on; used in worker threads, one at a time.

    Raises:
        RpcError, OutputError: as `Ingest`.
    """

    def __init__(self, layout: OciLayout, first: content_pb2.WriteContentRequest) -> None:
        self._layout = layout
        self._total = max(0, first.total)
        self._expected = first.expected
        self._ingest = Ingest(layout, first.ref, self._total, self._expected)
        self.is_committed = False

    @property
    def digest(self) -> str:
        """The digest of what was written so far."""
        return self._ingest.digest

    @property
    def unhashed(self) -> int:
        """Bytes that `catch_up` has before it."""
        return self._ingest.unhashed

    def catch_up(self) -> None:
        """Hash what was written so far, so that the COMMIT need not."""
        self._ingest.catch_up()

    def take(self, messages: Sequence[bytes]) -> tuple[list[bytes], MobysessionError | None]:
        """Apply messages in order; return the answers, and what ended it before the last one."""
        answers: list[bytes] = []
        try:
            for message in messages:
                if self.is_committed:
                    break
                answers.append(self._apply(decode_write(message)).SerializeToString())
        except MobysessionError as error:
            return answers, error
        return answers, None

    def close(self) -> None:
        """Let go of the ingest; what is not committed can be gone on with."""
        self._ingest.close()

    def _apply(self, request: content_pb2.WriteContentRequest) -> content_pb2.WriteContentResponse:
        ingest = self._ingest
        self._note_expectations(request)
        answer = content_pb2.WriteContentResponse(action=request.action, offset=ingest.offset)
        if request.action == content_pb2.STAT:
            answer.total = self._total
            answer.started_at.seconds, answer.started_at.nanos = divmod(ingest.started, _NANOSECONDS)
            answer.updated_at.seconds, answer.updated_at.nanos = divmod(ingest.updated, _NANOSECONDS)
            answer.digest = ingest.digest
        elif request.action in (content_pb2.WRITE, content_pb2.COMMIT):
            answer.offset = self._write(request)
        else:
            raise RpcError(StatusCode.INVALID_ARGUMENT, f"there is no action {request.action}")
        if request.action == content_pb2.COMMIT:
            answer.digest = ingest.digest
            ingest.commit(self._total, self._expected)
            self.is_committed = True
        return answer

    def _note_expectations(self, request: content_pb2.WriteContentRequest) -> None:
        if request.expected:
            self._expected = request.expected
            if self._layout.has(request.expected):
                self._ingest.remove()
                raise RpcError(StatusCode.ALREADY_EXISTS, f"blob with expected digest {request.expected} exists")
        if request.total > 0:
            self._total = request.total

    def _write(self, request: content_pb2.WriteContentRequest) -> int:
        ingest = self._ingest
        if request.offset not in (0, ingest.offset):
            raise RpcError(
                StatusCode.OUT_OF_RANGE,
                f"write @{request.offset} must occur at current offset {ingest.offset}",
            )
        if request.offset == 0 and ingest.offset:
            ingest.truncate()
        if request.data:
            ingest.append(request.data)
        return ingest.offset


def decode_write(message: bytes) -> content_pb2.WriteContentRequest:
    """Return a message of a Write; RpcError INTERNAL where it is none."""
    try:
        return content_pb2.WriteContentRequest.FromString(message)
    except DecodeError as error:
        raise RpcError(StatusCode.INTERNAL, "a message of Write cannot be decoded") from error
