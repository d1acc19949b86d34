"""The variables of compose files: ``$NAME``, ``${NAME}`` and what may stand behind the name; and ``.env`` files.

``:-`` and ``-`` give another value where there is none, ``:+`` and ``+`` where there is one, ``:?`` and ``?`` refuse;
with the colon an empty value counts as none. ``$$`` is a dollar.

Source: compose-spec spec.md, interpolation; compose-go template/template.go, dotenv.
"""

from __future__ import annotations

import logging
import os
import re
from typing import TYPE_CHECKING, Final

from mobysession import limits
from mobysession.errors import BakeError, UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["interpolated", "with_env_file"]

_log = logging.getLogger("mobysession.bake")

_NAME: Final = "[_a-zA-Z][_a-zA-Z0-9]*"
_START = re.compile(rf"\$(?:(\$)|({_NAME})|\{{({_NAME})(:?[-+?])?)")
#: Defaults in defaults.
_DEPTH: Final = 20


def interpolated(text: str, variables: Mapping[str, str], depth: int = 0) -> str:
    """Return a text with its variables filled in; UsageError where one is required and missing, or it is malformed."""
    if "$" not in text:
        return text
    if depth > _DEPTH:
        raise UsageError(f"defaults are nested too deeply: {text!r:.100}")
    parts, at = [], 0
    while (dollar := text.find("$", at)) >= 0:
        parts.append(text[at:dollar])
        match = _START.match(text, dollar)
        if match is None:
            raise UsageError(f"{text!r}: a dollar that is no variable is written $$")
        if match[1]:
            parts.append("$")
        elif match[2]:
            parts.append(_value(match[2], variables))
        else:
            end = _closing(text, match.end())
            rest = text[match.end() : end - 1]
            if not match[4] and rest:
                raise UsageError(f"{text!r}: {text[dollar:end]!r} is no variable")
            parts.append(_chosen(match[3], match[4] or "", rest, variables, depth))
            at = end
            continue
        at = match.end()
    return "".join([*parts, text[at:]])


def _value(name: str, variables: Mapping[str, str]) -> str:
    if name not in variables:
        _log.warning("the variable %s is not set, and taken as empty", name)
    return variables.get(name, "")


def _chosen(name: str, sign: str, rest: str, variables: Mapping[str, str], depth: int) -> str:
    if not sign:
        return _value(name, variables)
    value = variables.get(name)
    there = bool(value) if sign.startswith(":") else value is not None
    if sign.endswith("+"):
        return interpolated(rest, variables, depth + 1) if there else ""
    if there:
        return value or ""
    if sign.endswith("-"):
        return interpolated(rest, variables, depth + 1)
    reason = interpolated(rest, variables, depth + 1)
    raise UsageError(f"the variable {name} is required{f': {reason}' if reason else ''}")


def _closing(text: str, at: int) -> int:
    depth = 1
    while at < len(text):
        if text.startswith("${", at):
            depth += 1
            at += 1
        elif text[at] == "}":
            depth -= 1
            if depth == 0:
                return at + 1
        at += 1
    raise UsageError(f"{text!r}: a variable has no end")


def with_env_file(environment: Mapping[str, str], path: str = ".env") -> dict[str, str]:
    """Return an environment with what a ``.env`` file adds to it; what is set already stays; blocking.

    Raises:
        BakeError: there is one, and it cannot be read.
    """
    if not os.path.isfile(path):
        return dict(environment)
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read(limits.MAX_BAKE_FILE + 1)
    except (OSError, UnicodeDecodeError) as error:
        raise BakeError(f"cannot be read: {error}", file=path) from error
    if len(text) > limits.MAX_BAKE_FILE:
        raise BakeError("is too large", file=path)
    return {**_pairs(text, environment, path), **environment}


def _pairs(text: str, environment: Mapping[str, str], path: str) -> dict[str, str]:
    found: dict[str, str] = {}
    value = r"""(?:'([^']*)'|"((?:[^"\\]|\\.)*)"|([^\n]*?))"""
    pattern = re.compile(rf"(?:export[ \t]+)?([\w.-]+)[ \t]*[=:][ \t]*{value}[ \t]*(?:[ \t]#[^\n]*)?$", re.MULTILINE)
    at = 0
    while at < len(text):
        end = text.find("\n", at)
        raw = text[at : end if end >= 0 else len(text)]
        line = raw.strip()
        match = pattern.match(text, at + len(raw) - len(raw.lstrip(" \t")))
        if not line or line.startswith("#"):
            at = end + 1 if end >= 0 else len(text)
            continue
        if match is None:
            raise BakeError(f"{line!r} is not NAME=VALUE", file=path, line=text.count("\n", 0, at) + 1)
        found[match[1]] = _env_value(match, {**found, **environment})
        at = match.end() + 1
    return found


def _env_value(match: re.Match[str], known: Mapping[str, str]) -> str:
    if match[2] is not None:
        return match[2]
    if match[3] is not None:
        escapes = {"n": "\n", "r": "\r", "t": "\t"}
        return interpolated(re.sub(r"\\(.)", lambda m: escapes.get(m[1], m[1]), match[3], flags=re.DOTALL), known)
    return interpolated(match[4], known)
