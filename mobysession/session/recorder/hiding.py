"""Taking the secrets out of a recording, when it is read: only then all of them are known.

Three things hide a value. Some messages are secret as a whole, by their method (`is_secret`); they never get as far as
here. Some metadata is, by its key. And every value that was given away on the session is hidden wherever it stands, in
each of the forms of `mobysession.redaction`: in texts as ``***``, in bodies by as many asterisks, so that what stands
around it still is a message.

A value may be cut in two by the end of a message. So those of one call and side are looked at as one stream, and what
they carry as another: the longest field of each, and of DiffCopy's packets those of each file (tonistiigi/fsutil
types/wire.proto), between which stand the packets of other files. A recording is therefore read twice: to find the
places, and to hide them.

Frames hold the same bytes otherwise; which of them are shown says `mobysession.session.recorder.frames_shown`.
"""

from __future__ import annotations

from collections import defaultdict, deque
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any, Final

from mobysession.recording import (
    DAEMON,
    AnswerBegan,
    CallBegan,
    CallOver,
    Frame,
    Message,
)
from mobysession.redaction import HIDDEN
from mobysession.session.recorder.frames_shown import ShownFrames

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from mobysession.recording import Metadata, Record

__all__ = ["Hiding", "hidden_records", "is_secret"]

_AUTH: Final = "/moby.filesync.v1.auth/"
_SECRET_ANSWERS: Final = frozenset(
    (
        "/moby.buildkit.secrets.v1.secrets/getsecret",
        _AUTH + "credentials",
        _AUTH + "fetchtoken",
        _AUTH + "gettokenauthority",
        _AUTH + "verifytokenauthority",
        "/moby.sshforward.v1.ssh/forwardagent",
    )
)
_SECRET_REQUESTS: Final = frozenset((_AUTH + "verifytokenauthority", "/moby.sshforward.v1.ssh/forwardagent"))
#: Metadata of which the value is nobody's business.
_SECRET_KEYS: Final = frozenset(("authorization", "proxy-authorization", "cookie", "set-cookie", "x-registry-auth"))
#: Fields whose values are ours, from a fixed list.
_OURS: Final = frozenset(("code", "mode", "sender", "state", "writer"))
_DIFF_COPY: Final = "/diffcopy"
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


def is_secret(method: str, sender: str) -> bool:
    """Tell whether what one side says in calls of a method is never recorded."""
    return method.lower() in (_SECRET_REQUESTS if sender == DAEMON else _SECRET_ANSWERS)


class Hiding:
    """Finds some values, in all their forms, longest first."""

    def __init__(self, forms: Iterable[bytes]) -> None:
        self.forms = sorted(set(forms), key=lambda form: (-len(form), form))
        self._texts = [form.decode("utf-8", "surrogateescape") for form in self.forms]
        #: Bytes that may belong to a value of which the rest is still to come.
        self.reach = max(map(len, self.forms), default=1) - 1

    def spans(self, data: bytes) -> list[tuple[int, int]]:
        """Return the places of values in ``data``, in order and apart."""
        found: list[tuple[int, int]] = []
        for form in self.forms:
            size = len(form)
            at = data.find(form)
            while at >= 0:
                # One may begin inside of another; what they cover together is hidden.
                last = data.rfind(form, at + 1, at + 2 * size - 1)
                found.append((at, max(at, last) + size))
                at = last if last > at else data.find(form, at + size)
        return merged(found)

    def text(self, text: str) -> str:
        """Return ``text`` without the values."""
        for form in self._texts:
            if form in text:
                text = text.replace(form, HIDDEN)
        return text

    def metadata(self, metadata: Metadata) -> Metadata:
        """Return metadata without the values, and without those of keys that are secret."""
        return tuple((self.text(key), self._value(key, value)) for key, value in metadata)

    def _value(self, key: str, value: str | bytes) -> str | bytes:
        if key.lower() in _SECRET_KEYS:
            return HIDDEN
        return self.text(value) if isinstance(value, str) else masked(value, self.spans(value))

    def texts_of(self, record: Any) -> Any:
        """Return a record of which no text, no metadata and no details hold a value."""
        changed: dict[str, Any] = {}
        for one in fields(record):
            value = getattr(record, one.name)
            if isinstance(value, str) and one.name not in _OURS:
                value = self.text(value)
            elif one.type == "Texts":
                value = tuple(map(self.text, value))
            elif one.type == "Metadata":
                value = self.metadata(value)
            elif one.name == "details":
                value = masked(value, self.spans(value))
            else:
                continue
            changed[one.name] = value
        return replace(record, **changed)


def merged(spans: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return places in order, those that touch as one."""
    found: list[tuple[int, int]] = []
    for start, end in sorted(spans):
        if found and start <= found[-1][1]:
            found[-1] = (found[-1][0], max(end, found[-1][1]))
        else:
            found.append((start, end))
    return found


def masked(data: bytes, spans: Sequence[tuple[int, int]]) -> bytes:
    """Return ``data`` with asterisks at some places."""
    if not spans:
        return data
    changed = bytearray(data)
    for start, end in spans:
        changed[start:end] = b"*" * (end - start)
    return bytes(changed)


def hidden_records(records: Callable[[], Iterable[Record]], forms: Iterable[bytes]) -> Iterator[Record]:
    """Yield the records that ``records`` gives at each call, in which none of ``forms`` stands."""
    hiding = Hiding(forms)
    places = _Places(hiding)
    for number, record in enumerate(records()):
        places.look_at(number, record)
    places.settle()
    for number, record in enumerate(records()):
        if number == places.seen:
            # More has come meanwhile.
            return
        if isinstance(record, Message):
            spans = tuple(places.found.get(number, ()))
            if record.body is not None and spans:
                record = replace(record, body=masked(record.body, spans), hidden=spans)
        elif isinstance(record, Frame):
            record = record if places.frames.may_show(record) else replace(record, payload=None)
        else:
            record = hiding.texts_of(record)
        yield record


class _Stream:
    """The latest bytes of a stream, as many as a value may have that is not whole yet, and where they stood."""

    def __init__(self, hiding: Hiding) -> None:
        self._hiding = hiding
        self._tail: deque[tuple[int, int, bytes]] = deque()

    def add(self, number: int, start: int, data: bytes, found: dict[int, list[tuple[int, int]]]) -> None:
        """Take what stands in message ``number`` from ``start`` on; add to ``found`` what is to be hidden."""
        if not data:
            return
        self._tail.append((number, start, data))
        spans = self._hiding.spans(b"".join(piece for _, _, piece in self._tail))
        offset = 0
        for message, begin, piece in self._tail:
            for low, high in spans:
                low, high = max(low - offset, 0), min(high - offset, len(piece))
                if low < high:
                    found[message].append((begin + low, begin + high))
            offset += len(piece)
        self._trim(self._hiding.reach)

    def _trim(self, size: int) -> None:
        kept: deque[tuple[int, int, bytes]] = deque()
        while self._tail and size > 0:
            message, begin, piece = self._tail.pop()
            cut = max(0, len(piece) - size)
            kept.appendleft((message, begin + cut, piece[cut:]))
            size -= len(piece) - cut
        self._tail = kept


class _Places:
    """What is to be hidden, by the number of the record."""

    def __init__(self, hiding: Hiding) -> None:
        self.found: dict[int, list[tuple[int, int]]] = defaultdict(list)
        self.frames = ShownFrames(lambda data: bool(hiding.spans(data)))
        self.seen = 0
        self._hiding = hiding
        self._streams: dict[tuple[object, ...], _Stream] = {}
        #: Of the calls that go on: their methods, and the keys of their streams.
        self._methods: dict[int, str] = {}
        self._by_call: dict[int, list[tuple[object, ...]]] = defaultdict(list)

    def look_at(self, number: int, record: Record) -> None:
        """Find what is to be hidden in a record, and what of earlier ones it completes."""
        self.seen = number + 1
        match record:
            case CallBegan():
                self._methods[record.call] = record.method.lower()
                self.frames.began(record, is_open=self._is_open(record))
            case Message():
                self.frames.said(number, record)
                self._look_at_message(number, record)
            case Frame():
                self.frames.framed(record)
            case AnswerBegan() | CallOver():
                is_over = isinstance(record, CallOver)
                self.frames.answered(record.call, is_open=self._is_open(record), is_over=is_over)
                if is_over:
                    self._methods.pop(record.call, None)
                    for key in self._by_call.pop(record.call, ()):
                        del self._streams[key]
            case _:
                pass

    def settle(self) -> None:
        """Take the news that everything was looked at."""
        self.found = defaultdict(list, {number: merged(spans) for number, spans in self.found.items()})
        self.frames.settle(self.found)

    def _is_open(self, record: Record) -> bool:
        changed: bool = self._hiding.texts_of(record) == record
        return changed

    def _look_at_message(self, number: int, record: Message) -> None:
        if record.body is None or not self._hiding.forms:
            return
        self._stream(record, "whole").add(number, 0, record.body, self.found)
        start, end, entry = _payload(record.body)
        by_entry = self._methods.get(record.call, "").endswith(_DIFF_COPY)
        self._stream(record, entry if by_entry else "payload").add(number, start, record.body[start:end], self.found)

    def _stream(self, record: Message, name: object) -> _Stream:
        key = (record.call, record.sender, name)
        if key not in self._streams:
            self._streams[key] = _Stream(self._hiding)
            self._by_call[record.call].append(key)
        return self._streams[key]


def _payload(message: bytes) -> tuple[int, int, int]:
    """Return from where to where the longest field of a message is, and its field 3 where that is a number.

    Of what is no message of protobuf: all of it.
    """
    at, best, entry = 0, (0, 0), 0
    try:
        while at < len(message):
            tag, at = _varint(message, at)
            if tag & 7 == _VARINT:
                value, at = _varint(message, at)
                entry = value if tag >> 3 == 3 else entry
            elif tag & 7 == _BYTES:
                size, at = _varint(message, at)
                if size > best[1] - best[0]:
                    best = at, at + size
                at += size
            elif tag & 7 in (_FIXED64, _FIXED32):
                at += 8 if tag & 7 == _FIXED64 else 4
            else:
                raise ValueError
    except (IndexError, ValueError):
        return 0, len(message), 0
    return (0, len(message), 0) if at > len(message) else (*best, entry)


def _varint(message: bytes, at: int) -> tuple[int, int]:
    value, shift = 0, 0
    while True:
        byte = message[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at
        if shift > 63:
            raise ValueError
