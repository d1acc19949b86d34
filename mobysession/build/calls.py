"""Asking a frontend for something else than a build: ``--call``.

A frontend that knows a request answers in the metadata of its result: JSON (``result.json``), the same as text
(``result.txt``), and for some a status (``result.statuscode``). Requests are ``lint`` (``check`` to users),
``outline``, ``targets``, ``subrequests.describe`` for what else there is.

Source: docker/buildx util/buildflags/callfunc.go and commands/build.go; moby/buildkit frontend/subrequests.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from mobysession.build.fields import parse_bool, split_fields
from mobysession.errors import UsageError
from mobysession.jsontext import parse_json

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["Call", "CallAnswer", "make_answer"]

_LINT: Final = "lint"
_FORMATS: Final = ("text", "json")
#: What a frontend answers with, by the keys of its metadata.
_DESCRIBE = "subrequests.describe"
_JSON, _TEXT, _STATUS, _VERSION = "result.json", "result.txt", "result.statuscode", "version"


@dataclass(frozen=True)
class Call:
    """One ``--call``.

    Args:
        name: ``check``, ``outline``, ``targets``, or a request that the frontend names in ``subrequests.describe``.
        format: ``text`` or ``json``: how the command line prints the answer.
        ignore_status: the command ends with 0 whatever the answer says.

    Raises:
        UsageError: there is no such format.
    """

    name: str
    format: str = "text"
    ignore_status: bool = False

    def __post_init__(self) -> None:
        if not self.name or self.name == "build":
            raise UsageError("a call needs the name of a request", hint="Such as check, outline or targets.")
        if self.format not in _FORMATS:
            raise UsageError(f"a call has no format {self.format!r}", hint="Choose text or json.")

    @classmethod
    def parse(cls, text: str) -> Call | None:
        """Read ``NAME[,format=json][,ignorestatus=true]``; None where the name is ``build``, which is no call.

        Raises:
            UsageError: it is something else.
        """
        name, form, ignore = "", "text", False
        for field in split_fields("call", text):
            key, separator, value = field.partition("=")
            if not separator and not name:
                name = field
            elif separator and key == "format":
                form = value or "text"
            elif separator and key == "ignorestatus" and (given := parse_bool(value)) is not None:
                ignore = given
            else:
                raise UsageError(f"call {text!r}: {field!r} is not understood", hint="Write NAME[,format=json].")
        return None if name == "build" else cls(name, form, ignore)

    @property
    def request(self) -> str:
        """The request as frontends call it."""
        return f"frontend.{_LINT if self.name == 'check' else self.name}"


@dataclass(frozen=True, kw_only=True)
class CallAnswer:
    """What a frontend said.

    Attributes:
        name: of the request, as it was asked for.
        data: the answer; None where it has none as JSON.
        json: the same as the frontend wrote it.
        text: the answer for people.
        status: 0, or what a program that checks should end with: 1 where a check found something.
        error: why the Dockerfile could not be checked to its end; empty otherwise.
    """

    name: str
    data: Any = None
    json: str = ""
    text: str = ""
    status: int = 0
    error: str = ""

    def render(self, form: str = "text", *, dockerfile: str | None = None) -> str:
        """Return what ``docker buildx build --call`` prints of it.

        Args:
            form: ``text`` or ``json``.
            dockerfile: what to call the Dockerfile, where the frontend's name for it would mislead.
        """
        if form == "json" and self.json:
            return self.json + "\n"
        if self.name in ("check", _LINT):
            return "".join(_lint_lines(self.data, dockerfile))
        if not self.text and self.name == _DESCRIBE:
            # Docker 20.10's frontend leaves the text to its client.
            return "".join(_described(self.data))
        return self.text or f"{self.json}\n"

    def render_error(self, *, dockerfile: str | None = None) -> str:
        """Return ``error`` with its place in the Dockerfile; empty where there is none."""
        if not self.error:
            return ""
        place = self.data["buildError"].get("location") or {}
        return f"{self.error}\n{_excerpt(self.data, place, dockerfile)}"


def make_answer(call: Call, response: Mapping[str, str]) -> CallAnswer:
    """Return the answer that is in a response."""
    text = response.get(_JSON, "")
    try:
        data: Any = parse_json(text) if text else None
    except ValueError:
        data = None
    status = response.get(_STATUS, "0")
    error = data.get("buildError") if isinstance(data, dict) else None
    return CallAnswer(
        name=call.name,
        data=data,
        json=text,
        text=response.get(_TEXT, ""),
        status=int(status) if status.isascii() and status.isdigit() else 0,
        error=str(error.get("message", "")) if isinstance(error, dict) else "",
    )


def _described(data: Any) -> Iterator[str]:
    requests = [one for one in data if isinstance(one, dict)] if isinstance(data, list) else []
    names = [str(one.get("name", "")).removeprefix("frontend.") for one in requests]
    rows = [("NAME", "VERSION", "DESCRIPTION")]
    rows += [
        (name, str(one.get("version", "")), str(one.get("description", "")))
        for name, one in zip(names, requests, strict=True)
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for name, version, description in rows:
        yield f"{name:<{widths[0]}} {version:<{widths[1]}} {description}\n"


def _lint_lines(data: Any, dockerfile: str | None) -> Iterator[str]:
    warnings = _list(data, "warnings")
    if not warnings:
        if not isinstance(data, dict) or not data.get("buildError"):
            yield "Check complete, no warnings found.\n"
        return
    found = "1 warning has been found!" if len(warnings) == 1 else f"{len(warnings)} warnings have been found!"
    yield f"Check complete, {found}\n"
    for warning in sorted(warnings, key=_line):
        url = warning.get("url")
        yield f"\nWARNING: {warning.get('ruleName', '')}{f' - {url}' if url else ''}\n{warning.get('detail', '')}\n"
        yield _excerpt(data, warning.get("location") or {}, dockerfile)


def _list(data: Any, key: str) -> list[Any]:
    found = data.get(key) if isinstance(data, dict) else None
    return [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []


def _line(warning: Mapping[str, Any]) -> tuple[int, str]:
    ranges = _list(warning.get("location"), "ranges")
    return (int(_position(ranges[0], "start")) if ranges else 0, "" if ranges else str(warning.get("ruleName")))


def _position(bounds: Mapping[str, Any], end: str) -> int:
    place = bounds.get(end)
    line = place.get("line", 0) if isinstance(place, dict) else 0
    return line if isinstance(line, int) else 0


def _excerpt(data: Any, location: Mapping[str, Any], dockerfile: str | None) -> str:
    from mobysession.buildkit.source import Source, excerpt

    sources, index = _list(data, "sources"), location.get("sourceIndex", 0)
    if not isinstance(index, int) or not 0 <= index < len(sources):
        return ""
    source = sources[index]
    try:
        text = base64.b64decode(source.get("data", "")).decode("utf-8", "replace")
    except (ValueError, TypeError):
        return ""
    ranges = tuple((_position(one, "start"), _position(one, "end")) for one in _list(location, "ranges"))
    shown = excerpt(Source(dockerfile or str(source.get("filename", "")), text, ranges))
    return f"{shown}\n" if shown else ""
