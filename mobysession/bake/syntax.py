"""The syntax of HCL, as python-hcl2 reads it, and the two other places where its expressions stand.

A body is a list of attributes and blocks. In a file of HCL an attribute's value is an expression; in a JSON file it is
JSON, every text of which is a template. Templates stand in quotes, in heredocs, where python-hcl2 leaves them alone,
and in JSON: there they are taken apart here.

Source: hashicorp/hcl hclsyntax/spec.md, json/spec.md.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any, Final

from mobysession.errors import BakeError, UsageError
from mobysession.jsontext import parse_json

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = [
    "Block",
    "Body",
    "Expression",
    "body_of",
    "branches",
    "parse_hcl",
    "parse_json_body",
    "parse_template",
    "significant",
    "source_of",
]

_NOISE: Final = ("new_line_or_comment",)


@dataclass(frozen=True)
class Expression:
    """A value that is not evaluated yet: a tree of HCL, or JSON.

    Attributes:
        tree: of HCL; None where it is JSON.
        json: the JSON.
        file, line: where it stands.
    """

    tree: Any
    json: Any
    file: str
    line: int


@dataclass
class Block:
    """A block: its type, its label, and what is in it."""

    type: str
    label: str
    body: Body
    line: int


@dataclass
class Body:
    """Attributes by name, and blocks, in the order of the file."""

    file: str
    attributes: dict[str, Expression] = field(default_factory=dict)
    blocks: list[Block] = field(default_factory=list)


def parse_hcl(text: str, file: str) -> Body:
    """Return what a file of HCL says; BakeError where it says nothing that can be read."""
    return _body(_parse(text, file), file)


def _parse(text: str, file: str) -> Any:
    try:
        import hcl2
        from lark.exceptions import UnexpectedInput
    except ImportError:
        hint = "Install mobysession[bake], or write the file as JSON."
        raise BakeError("HCL needs the package python-hcl2, which is not installed", hint=hint, file=file) from None
    try:
        # A last line without an end is no line for the grammar.
        return hcl2.parses_to_tree(text.replace("\r\n", "\n") + "\n").children[0]
    except UnexpectedInput as error:
        line = max(getattr(error, "line", 0), 0)
        lines = text.splitlines()
        at = lines[line - 1].strip() if 0 < line <= len(lines) else ""
        raise BakeError(f"this is no HCL: {at!r}" if at else "this is no HCL", file=file, line=line) from None
    except RecursionError:
        raise BakeError("nested too deeply", file=file) from None


def _body(tree: Any, file: str) -> Body:
    body = Body(file)
    for node in significant(tree):
        parts = significant(node)
        if node.data == "attribute":
            name = _word(parts[0])
            if name in body.attributes:
                raise BakeError(f"{name!r} is set twice", file=file, line=_line(node))
            body.attributes[name] = Expression(parts[-1], None, file, _line(node))
        else:
            labels = [_word(part) for part in parts[1:] if getattr(part, "data", "") not in ("body", "")]
            if len(labels) > 1:
                raise BakeError(f"a {_word(parts[0])} has one name, not {len(labels)}", file=file, line=_line(node))
            inner = next(part for part in parts if getattr(part, "data", "") == "body")
            body.blocks.append(Block(_word(parts[0]), "".join(labels), _body(inner, file), _line(node)))
    return body


def significant(tree: Any) -> list[Any]:
    """Return the children of a tree without the ends of lines and comments."""
    return [child for child in tree.children if getattr(child, "data", "") not in _NOISE]


def branches(tree: Any) -> list[Any]:
    """Return the children of a tree that are trees themselves, and no signs."""
    return [child for child in significant(tree) if hasattr(child, "data")]


def source_of(tree: Any) -> str:
    """Return a tree as it was written, more or less."""
    return "".join(map(str, _tokens(tree))) if hasattr(tree, "data") else str(tree)


def _word(tree: Any) -> str:
    """Return the text of a name or of a quoted label."""
    return "".join(str(token) for token in _tokens(tree) if token.type != "DBLQUOTE")


def _tokens(tree: Any) -> Iterator[Any]:
    tokens: Iterator[Any] = tree.scan_values(lambda _token: True)
    return tokens


def _line(tree: Any) -> int:
    return next((token.line or 0 for token in _tokens(tree)), 0)


def parse_json_body(text: str, file: str) -> Body:
    """Return what a JSON file says; BakeError where that is no bake file."""
    try:
        document = parse_json(text, partial(_without_duplicates, file))
    except ValueError as error:
        line = getattr(error, "lineno", 0)
        raise BakeError(f"this is no JSON: {getattr(error, 'msg', error)}", file=file, line=line) from None
    return body_of(document, file)


def _without_duplicates(file: str, pairs: list[tuple[str, object]]) -> dict[str, object]:
    """Return the table of pairs; BakeError where a name is there twice, of which JSON does not say what counts."""
    table = dict(pairs)
    if len(table) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise BakeError(f"{twice!r} is there twice in one table", file=file)
    return table


def body_of(document: object, file: str) -> Body:
    """Return the body that a dictionary of JSON's types stands for."""
    if not isinstance(document, dict):
        raise BakeError("a bake file is a table with target, group and variable in it", file=file)
    body = Body(file)
    for name, value in document.items():
        if name in ("target", "group", "variable", "function"):
            body.blocks += _json_blocks(name, value, file)
        else:
            body.attributes[name] = Expression(None, value, file, 0)
    return body


def _json_blocks(kind: str, given: object, file: str) -> Iterator[Block]:
    for table in given if isinstance(given, list) else [given]:
        if not isinstance(table, dict):
            raise BakeError(f"{kind} is a table of names", file=file)
        for label, content in table.items():
            for one in content if isinstance(content, list) else [content]:
                if not isinstance(one, dict):
                    raise BakeError(f"{kind} {label!r} is a table", file=file)
                yield Block(kind, label, _json_content(kind, one, file), 0)


def _json_content(kind: str, given: dict[str, Any], file: str) -> Body:
    body = Body(file)
    for name, value in given.items():
        if kind == "variable" and name == "validation":
            for rule in value if isinstance(value, list) else [value]:
                if not isinstance(rule, dict):
                    raise BakeError("a validation is a table", file=file)
                body.blocks.append(Block("validation", "", _json_content("", rule, file), 0))
        else:
            body.attributes[name] = Expression(None, value, file, 0)
    return body


@lru_cache(maxsize=4096)
def parse_template(text: str, file: str) -> tuple[str | Expression, ...]:
    """Return the literal texts and the expressions that a template without escapes of quotes consists of.

    Raises:
        UsageError: an expression has no end, or is none; or there is a directive, which is not supported.
    """
    parts: list[str | Expression] = []
    at = 0
    for match in re.finditer(r"\$\$\{|%%\{|\$\{|%\{", text):
        if match.start() < at:
            continue
        parts.append(text[at : match.start()])
        if match[0] in ("$${", "%%{"):
            parts.append(match[0][1:])
            at = match.end()
        elif match[0] == "%{":
            raise UsageError(f"directives are not supported: {text[match.start() :][:60]!r}")
        else:
            at = _closing(text, match.end(), file)
            parts.append(_inner_expression(text[match.end() : at - 1], file))
    parts.append(text[at:])
    return tuple(part for part in parts if part != "")


def _inner_expression(source: str, file: str) -> Expression:
    trimmed = source.strip().removeprefix("~").removesuffix("~").strip()
    if trimmed != source.strip():
        raise UsageError(f"markers that trim spaces are not supported: {source!r}")
    try:
        tree = _parse(f"value = ({trimmed}\n)", file)
    except UsageError:
        raise UsageError(f"this is no expression: {source!r}") from None
    return _body(tree, file).attributes["value"]


def _closing(text: str, at: int, file: str) -> int:
    """Return the place behind the brace that ends an expression which begins at ``at``."""
    depth, quoted, start = 1, [False], at
    while at < len(text):
        letter = text[at]
        if quoted[-1]:
            if letter == "\\":
                at += 1
            elif letter == '"':
                quoted.pop()
            elif text.startswith("${", at):
                quoted.append(False)
                depth += 1
                at += 1
        elif letter == '"':
            quoted.append(True)
        elif letter == "{":
            quoted.append(False)
            depth += 1
        elif letter == "}":
            depth -= 1
            if depth == 0:
                return at + 1
            quoted.pop()
        at += 1
    raise UsageError(f"an expression has no end: {text[start - 2 :][:60]!r}")
