"""A recorded session over time, as `mobysession.progress.page` draws it: callbacks, and no steps."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from mobysession.buildkit.printable import printable
from mobysession.progress.timeline import HEALTH, Call, Recorded, call_kind
from mobysession.recording import DAEMON, CallBegan, CallOver, Message

if TYPE_CHECKING:
    from mobysession.recording import Recording

__all__ = ["session_timeline"]

_GET: Final = "/moby.buildkit.secrets.v1.Secrets/GetSecret"
#: Metadata that says what a call is about.
_NAMED: Final = ("dir-name", "urlpath", "exporter-id")


def session_timeline(recording: Recording, title: str) -> Recorded:
    """Return the calls of a recording over time; those that have no end, end with it. Blocks.

    Raises:
        RecordingError: the file is damaged.
    """
    began: dict[int, tuple[CallBegan, str]] = {}
    calls: list[Call] = []
    last = 0.0
    for record in recording:
        last = record.at
        if isinstance(record, CallBegan) and not record.method.startswith(HEALTH):
            began[record.call] = record, _subject(record)
        elif isinstance(record, Message) and record.sender == DAEMON and record.call in began:
            call, subject = began[record.call]
            if call.method == _GET and record.body is not None:
                began[record.call] = call, subject or _secret_id(record.body)
        elif isinstance(record, CallOver) and record.call in began:
            calls.append(_call(*began.pop(record.call), record))
    calls += [
        Call(kind=_kind(one.method), subject=subject, method=printable(one.method), start=one.at, end=last)
        for one, subject in began.values()
    ]
    failed = any(call.code not in ("", "OK") for call in calls)
    return Recorded(
        title=printable(title),
        outcome="failed" if failed else "succeeded" if recording.is_complete else "cancelled",
        error="",
        begun=recording.header.created,
        duration=last,
        steps=(),
        calls=tuple(sorted(calls, key=lambda call: call.start)),
    )


def _call(began: CallBegan, subject: str, over: CallOver) -> Call:
    return Call(
        kind=_kind(began.method),
        subject=subject,
        method=printable(began.method),
        start=began.at,
        end=over.at,
        sent=over.sent,
        received=over.received,
        code=over.code,
        message=printable(over.message),
    )


def _kind(method: str) -> str:
    return printable(call_kind(method)) or "call"


def _subject(began: CallBegan) -> str:
    values = [value for key, value in began.metadata if key in _NAMED and isinstance(value, str)]
    return printable(values[0]) if values else ""


def _secret_id(request: bytes) -> str:
    from google.protobuf.message import DecodeError

    from mobysession._pb.secrets_pb2 import GetSecretRequest

    try:
        return printable(GetSecretRequest.FromString(request).ID)
    except DecodeError:
        return ""
