"""An explanation of a context as text for people, and as a value for programs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mobysession.filesync.naming import quote

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mobysession.filesync.explain import Explanation, Reason, Weight

__all__ = ["as_value", "render"]

_UNITS = ("B", "kB", "MB", "GB", "TB")


def render(explanation: Explanation, *, every: bool = False) -> str:
    """Return the explanation as lines of text.

    Args:
        every: name each entry that is offered, and not only what is left out.
    """
    return "\n".join(_lines(explanation, every)) + "\n"


def _lines(explanation: Explanation, every: bool) -> Iterator[str]:
    total = explanation.total
    name = explanation.ignore_file
    yield f"offered:  {_weight(total.files, total.size)}"
    yield f"left out: {_weight(total.files_out, total.size_out)}" + (f", by {name}" if name else "")
    shown = [reason for reason in explanation.reasons if reason.pattern or every]
    if shown:
        yield ""
        yield from map(_reason, shown)
    yield ""
    yield "by directory, offered and left out:"
    yield from _directories(explanation.weights)
    if explanation.requested is not None:
        yield ""
        yield f"the engine asked for {len(explanation.requested)} of {total.files} files:"
        yield from (f"  {quote(path)[1:-1]}" for path in explanation.requested)
    if explanation.hints:
        yield ""
        yield from (f"hint: {hint}" for hint in explanation.hints)


def _reason(reason: Reason) -> str:
    sign = "+" if reason.offered else "-"
    why = f"  {reason.line} {quote(reason.pattern.strip())}" if reason.line else ""
    weight = f"  ({_weight(reason.files, reason.size)})" if reason.files > 1 else ""
    return f"{sign} {quote(reason.path)[1:-1]}{why}{weight}"


def _directories(weights: dict[str, Weight]) -> Iterator[str]:
    """Name the top, and what is directly in it, the heaviest first."""
    near = sorted((path for path in weights if "/" not in path), key=lambda path: (path != "", -weights[path].size))
    for path in near:
        weight = weights[path]
        name = quote(path)[1:-1] or "."
        yield f"  {_size(weight.size):>9} {weight.files:>8}  {_size(weight.size_out):>9} {weight.files_out:>8}  {name}"


def _weight(files: int, size: int) -> str:
    return f"{files} {'file' if files == 1 else 'files'}, {_size(size)}"


def _size(size: float) -> str:
    for unit in _UNITS:
        if size < 1000 or unit == _UNITS[-1]:
            break
        size /= 1000
    return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"


def as_value(explanation: Explanation) -> dict[str, Any]:
    """Return the explanation as what JSON can hold; names that are not UTF-8 have their bytes as surrogates."""
    total = explanation.total
    return {
        "ignore_file": explanation.ignore_file,
        "offered": {"files": total.files, "bytes": total.size},
        "left_out": {"files": total.files_out, "bytes": total.size_out},
        "entries": [
            {
                "path": reason.path,
                "offered": reason.offered,
                "pattern": reason.pattern,
                "line": reason.line,
                "files": reason.files,
                "bytes": reason.size,
            }
            for reason in explanation.reasons
        ],
        "directories": {
            path: {
                "offered": {"files": weight.files, "bytes": weight.size},
                "left_out": {"files": weight.files_out, "bytes": weight.size_out},
            }
            for path, weight in explanation.weights.items()
        },
        "unused": [{"pattern": pattern, "line": line} for pattern, line in explanation.unused],
        "hints": explanation.hints,
        "requested": explanation.requested,
    }
