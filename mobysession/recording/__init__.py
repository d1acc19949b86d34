"""The file of a recording: what was said on a session, a line of JSON each, in the order in which it was said.

::

    {"format": "mobysession-recording", "version": 1, "created": 1790000000.0, "writer": "...", "mode": "full", ...}
    {"type": "connection", "at": 0.0, "connection": 1, "session_id": "...", "name": "...", "methods": [...]}
    {"type": "call", "at": 0.01, "call": 1, "connection": 1, "stream": 1, "method": "/a.B/C", "metadata": [], "run": 0}
    {"type": "message", "at": 0.01, "call": 1, "sender": "daemon", "size": 7, "body": "...", "hidden": []}
    {"type": "daemon_done", "at": 0.01, "call": 1}
    {"type": "answer", "at": 0.02, "call": 1, "metadata": [...]}
    {"type": "call_over", "at": 0.03, "call": 1, "code": "OK", ...}
    {"type": "end", "at": 9.5}

Bytes are base64, times seconds after ``created``. The file may be compressed with gzip. Where a secret stood, the bytes
of a body are asterisks, as many as there were, and ``hidden`` has their places; a body that is a secret as a whole, or
too much of one, is null. A file without an ``end`` was cut, and is good up to there. A reader passes over types and
fields that it does not know; what it could not pass over has a higher version.
"""

from mobysession.recording.file import MethodSummary, Recording, read_recording, write_recording
from mobysession.recording.records import (
    CLIENT,
    DAEMON,
    AnswerBegan,
    CallBegan,
    CallOver,
    ConnectionBegan,
    DaemonDone,
    End,
    Frame,
    Header,
    Message,
    Metadata,
    Record,
    RunChanged,
    Spans,
    decode_record,
    encode_record,
)

__all__ = [
    "CLIENT",
    "DAEMON",
    "AnswerBegan",
    "CallBegan",
    "CallOver",
    "ConnectionBegan",
    "DaemonDone",
    "End",
    "Frame",
    "Header",
    "Message",
    "Metadata",
    "MethodSummary",
    "Record",
    "Recording",
    "RunChanged",
    "Spans",
    "decode_record",
    "encode_record",
    "read_recording",
    "write_recording",
]
