"""The frames of HTTP/2, told from the bytes of a connection (RFC 9113 section 4.1)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from mobysession.recording import CLIENT, DAEMON, Frame

if TYPE_CHECKING:
    from mobysession.session.recorder.recorder import Recorder

__all__ = ["FrameLog"]

_PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_HEAD: Final = 9


class FrameLog:
    """Records the frames of one connection, heard from its first byte on."""

    def __init__(self, recorder: Recorder, connection: int) -> None:
        self._recorder = recorder
        self._connection = connection
        self._read = bytearray()
        self._at_preface = True

    def received(self, data: bytes) -> None:
        """Take what was read, of which the last frame need not be whole."""
        self._read += data
        if self._at_preface:
            if len(self._read) < len(_PREFACE):
                return
            self._at_preface = False
            if self._read.startswith(_PREFACE):
                del self._read[: len(_PREFACE)]
        del self._read[: self._tell(DAEMON, bytes(self._read))]

    def sent(self, data: bytes) -> None:
        """Take what is written: whole frames."""
        self._tell(CLIENT, data)

    def _tell(self, sender: str, data: bytes) -> int:
        at, recorder = 0, self._recorder
        while at + _HEAD <= len(data):
            length = int.from_bytes(data[at : at + 3], "big")
            body = at + _HEAD
            if body + length > len(data):
                break
            recorder.add(
                Frame(
                    at=recorder.now(),
                    connection=self._connection,
                    sender=sender,
                    kind=data[at + 3],
                    flags=data[at + 4],
                    stream=int.from_bytes(data[at + 5 : body], "big") & 0x7FFFFFFF,
                    length=length,
                    payload=data[body : body + length] if recorder.mode == "full" else None,
                )
            )
            at = body + length
        return at
