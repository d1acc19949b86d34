"""Evaluating the expressions of HCL: operators, conditions, calls, ``for`` expressions, indexes and templates.

A scope says what names stand for; everything else is here. Whatever is evaluated is counted, so that a small file
cannot ask for endless work.

Source: hashicorp/hcl hclsyntax/spec.md.
"""

from __future__ import annotations

import math
import operator
import re
from typing import TYPE_CHECKING, Any, Final, Protocol

from mobysession import limits
from mobysession.bake.functions import FUNCTIONS
from mobysession.bake.syntax import Expression, branches, parse_template, significant, source_of
from mobysession.bake.values import Value, as_bool, as_number, as_text, equal, type_name
from mobysession.errors import BakeError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

__all__ = ["Budget", "Evaluator", "Lazy", "Scope"]

_ESCAPES: Final = {"n": "\n", "r": "\r", "t": "\t", '"': '"', "\\": "\\"}
_ARITHMETIC: Final[Mapping[str, Callable[[Any, Any], Any]]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.truediv,
    "%": math.fmod,
    "<": operator.lt,
    ">": operator.gt,
    "<=": operator.le,
    ">=": operator.ge,
}


class Scope(Protocol):
    """What names stand for."""

    def variable(self, name: str) -> Value:
        """Return the value of a variable; UsageError where there is none."""
        ...

    def function(self, name: str) -> Callable[..., Value] | None:
        """Return a function that the files define."""
        ...


class Lazy:
    """Something of which only parts have values: ``target``, and a target in it."""

    def __init__(self, what: str, part: Callable[[str], Any]) -> None:
        self.what = what
        self.part = part


class Budget:
    """How much may still be evaluated, and how deep it is."""

    def __init__(self) -> None:
        self._left = limits.MAX_BAKE_VALUES
        self.depth = 0

    def spend(self, amount: int = 1) -> None:
        """Take note of work; BakeError where it is too much."""
        self._left -= amount
        if self._left < 0:
            raise UsageError(f"the definition makes more than {limits.MAX_BAKE_VALUES} values")


class _Locals:
    """A scope with some more names in it."""

    def __init__(self, names: Mapping[str, Value], above: Scope) -> None:
        self._names = names
        self._above = above

    def variable(self, name: str) -> Value:
        return self._names[name] if name in self._names else self._above.variable(name)

    def function(self, name: str) -> Callable[..., Value] | None:
        return self._above.function(name)


class Evaluator:
    """Evaluates expressions in one scope."""

    def __init__(self, scope: Scope, budget: Budget | None = None, file: str = "") -> None:
        self.scope = scope
        self.budget = budget or Budget()
        self._file = file

    def inside(self, names: Mapping[str, Value]) -> Evaluator:
        """Return an evaluator that knows some more names."""
        return Evaluator(_Locals(names, self.scope), self.budget, self._file)

    def evaluate(self, expression: Expression) -> Value:
        """Return the value of an expression; BakeError with its place where it has none."""
        within = Evaluator(self.scope, self.budget, expression.file)
        try:
            value = within.json(expression.json) if expression.tree is None else within.value(expression.tree)
        except BakeError as error:
            if error.file:
                raise
            raise BakeError(error.message, hint=error.hint, file=expression.file, line=expression.line) from None
        except UsageError as error:
            raise BakeError(error.message, hint=error.hint, file=expression.file, line=expression.line) from None
        if isinstance(value, Lazy):
            raise BakeError(f"{value.what} is no value by itself", file=expression.file, line=expression.line)
        return value

    def json(self, value: Any) -> Value:
        """Return the value of JSON whose texts are templates."""
        self.budget.spend()
        if isinstance(value, str):
            return self._template(parse_template(value, self._file))
        if isinstance(value, list):
            return [self.json(item) for item in value]
        if isinstance(value, dict):
            return {as_text(self.json(key), "a key"): self.json(item) for key, item in value.items()}
        return value

    def value(self, tree: Any) -> Value:
        """Return the value of a tree of HCL."""
        self.budget.spend()
        visit = getattr(self, f"_{tree.data}", None)
        if visit is None:
            raise UsageError(f"{tree.data} is not supported: {source_of(tree)!r}")
        self.budget.depth += 1
        try:
            if self.budget.depth > limits.MAX_BAKE_DEPTH:
                raise UsageError("an expression is nested too deeply, or a function calls itself")
            return visit(tree)
        finally:
            self.budget.depth -= 1

    def _template(self, parts: Sequence[str | Expression]) -> Value:
        values = [part if isinstance(part, str) else self.value(part.tree) for part in parts]
        return values[0] if len(values) == 1 else self._joined(values)

    def _joined(self, values: Iterable[Value]) -> str:
        text = "".join(as_text(value, "a template") for value in values)
        self.budget.spend(len(text) // 64)
        return text

    def _expr_term(self, tree: Any) -> Value:
        return self.value(branches(tree)[0])

    def _identifier(self, tree: Any) -> Value:
        return self.scope.variable(str(tree.children[0]))

    def _literal_value(self, tree: Any) -> Value:
        return {"true": True, "false": False, "null": None}[str(tree.children[0])]

    def _int_lit(self, tree: Any) -> Value:
        return int(tree.children[0])

    def _float_lit(self, tree: Any) -> Value:
        return as_number(str(tree.children[0]))

    def _string(self, tree: Any) -> Value:
        values = [self._string_part(part) for part in tree.children if hasattr(part, "data")]
        return values[0] if len(values) == 1 else self._joined(values)

    def _string_part(self, tree: Any) -> Value:
        (part,) = tree.children
        if hasattr(part, "data"):
            if part.data != "interpolation":
                raise UsageError(f"directives are not supported: {source_of(part)!r}")
            return self.value(part)
        if part.type in ("ESCAPED_INTERPOLATION", "ESCAPED_DIRECTIVE"):
            # All of it up to the brace is one token, whatever stands in it.
            return _unescaped(str(part)[1:])
        return _unescaped(str(part))

    def _interpolation(self, tree: Any) -> Value:
        return self.value(branches(tree)[0])

    def _heredoc_template(self, tree: Any) -> Value:
        return self._template(parse_template(_heredoc(str(tree.children[0])), self._file)) or ""

    def _heredoc_template_trim(self, tree: Any) -> Value:
        lines = _heredoc(str(tree.children[0])).splitlines(keepends=True)
        indent = min((len(line) - len(line.lstrip(" \t")) for line in lines if line.strip()), default=0)
        text = "".join(line[indent:] if line.strip() else line for line in lines)
        return self._template(parse_template(text, self._file)) or ""

    def _tuple(self, tree: Any) -> Value:
        return [self._plain(part) for part in branches(tree)]

    def _object(self, tree: Any) -> Value:
        return dict(self._element(part) for part in branches(tree))

    def _element(self, tree: Any) -> tuple[str, Value]:
        key, *_, value = significant(tree)
        (written,) = significant(key)
        if not hasattr(written, "data") or written.data == "keyword":
            return source_of(written), self._plain(value)
        if written.data == "expr_term" and getattr(written.children[0], "data", "") in ("identifier", "literal_value"):
            # A bare word is its own name; a variable stands in parentheses.
            return str(written.children[0].children[0]), self._plain(value)
        return as_text(self.value(written), "a key"), self._plain(value)

    def _plain(self, tree: Any) -> Value:
        """Return a value that may stand in a list or table."""
        value = self.value(tree)
        if isinstance(value, Lazy):
            raise UsageError(f"{value.what} is no value by itself")
        return value

    def _conditional(self, tree: Any) -> Value:
        condition, yes, no = branches(tree)
        return self.value(yes if as_bool(self.value(condition), "a condition") else no)

    def _binary_op(self, tree: Any) -> Value:
        left, term = significant(tree)
        sign_tree, right = significant(term)
        sign = source_of(sign_tree)
        if sign in ("&&", "||"):
            first = as_bool(self.value(left), sign)
            second = as_bool(self.value(right), sign)
            return (first and second) if sign == "&&" else (first or second)
        first, second = self.value(left), self.value(right)
        if sign in ("==", "!="):
            return equal(first, second) is (sign == "==")
        numbers = as_number(first, sign), as_number(second, sign)
        try:
            result = _ARITHMETIC[sign](*numbers)
        except (ArithmeticError, ValueError):
            raise UsageError(f"{first!r} {sign} {second!r} has no result") from None
        return result if isinstance(result, bool) else as_number(result)

    def _unary_op(self, tree: Any) -> Value:
        sign, term = significant(tree)
        value = self.value(term)
        return not as_bool(value, "!") if str(sign) == "!" else as_number(-as_number(value, "-"))

    def _function_call(self, tree: Any) -> Value:
        parts = branches(tree)
        names = [part for part in parts if part.data == "identifier"]
        if len(names) > 1:
            raise UsageError(f"there is no function {source_of(tree)!r}")
        name = str(names[0].children[0])
        written = next((significant(part) for part in parts if part.data == "arguments"), [])
        if name in ("try", "can"):
            return self._try(name, [part for part in written if hasattr(part, "data")])
        values = [self._plain(part) for part in written if hasattr(part, "data")]
        if any(getattr(part, "type", "") == "ELLIPSIS" for part in written):
            if not isinstance(values[-1], list):
                raise UsageError(f"... stands behind a list, not behind {type_name(values[-1])}")
            values[-1:] = values[-1]
        return self._call(name, values)

    def _call(self, name: str, values: list[Value]) -> Value:
        function = self.scope.function(name) or FUNCTIONS.get(name)
        if function is None:
            raise UsageError(f"there is no function {name!r}", hint="docs/bake.md lists those that there are.")
        try:
            result = function(*values)
        except BakeError:
            # Of a function in a file, and it has its place.
            raise
        except UsageError as error:
            raise UsageError(f"{name}(): {error.message}", hint=error.hint) from None
        except (TypeError, ValueError, ArithmeticError, LookupError, AttributeError, re.error) as error:
            raise UsageError(f"{name}() cannot be called with {values!r:.200}: {error}") from None
        if isinstance(result, str | list | dict):
            self.budget.spend(len(result) // (64 if isinstance(result, str) else 1))
        return result

    def _try(self, name: str, parts: list[Any]) -> Value:
        for part in parts:
            try:
                value = self._plain(part)
            except UsageError:
                continue
            return True if name == "can" else value
        if name == "can":
            return False
        raise UsageError("none of the expressions of try() has a value")

    def _get_attr_expr_term(self, tree: Any) -> Value:
        term, attribute = significant(tree)
        return self._part(self.value(term), source_of(significant(attribute)[-1]))

    def _index_expr_term(self, tree: Any) -> Value:
        term, index = significant(tree)
        return self._part(self.value(term), self._index(index))

    def _index(self, tree: Any) -> Value:
        last = [part for part in significant(tree) if getattr(part, "type", "") not in ("LSQB", "RSQB", "DOT")][-1]
        return self.value(last) if hasattr(last, "data") else int(last)

    def _part(self, value: Value, key: Value) -> Value:
        if isinstance(value, Lazy):
            return value.part(as_text(key, "an index"))
        if isinstance(value, dict):
            name = as_text(key, "an index")
            if name not in value:
                raise UsageError(f"there is no {name!r} in the table")
            return value[name]
        if isinstance(value, list):
            number = as_number(key, "an index")
            if not isinstance(number, int) or not 0 <= number < len(value):
                raise UsageError(f"there is no element {key!r} in a list of {len(value)}")
            return value[number]
        raise UsageError(f"{type_name(value)} has no {key!r}")

    def _full_splat_expr_term(self, tree: Any) -> Value:
        term, splat = significant(tree)
        steps = branches(splat)
        value = self.value(term)
        items = value if isinstance(value, list) else [] if value is None else [value]
        return [self._walked(item, steps) for item in items]

    _attr_splat_expr_term = _full_splat_expr_term

    def _walked(self, value: Value, steps: list[Any]) -> Value:
        for step in steps:
            key = source_of(significant(step)[-1]) if step.data == "get_attr" else self._index(step)
            value = self._part(value, key)
        return value

    def _for_tuple_expr(self, tree: Any) -> Value:
        parts = branches(tree)
        condition = parts[2] if len(parts) > 2 else None
        return [inner._plain(parts[1]) for inner in self._iterated(parts[0], condition)]

    def _for_object_expr(self, tree: Any) -> Value:
        nodes = significant(tree)
        grouped = any(getattr(part, "type", "") == "ELLIPSIS" for part in nodes)
        parts = [part for part in nodes if hasattr(part, "data")]
        result: dict[str, Any] = {}
        for inner in self._iterated(parts[0], parts[3] if len(parts) > 3 else None):
            key, value = as_text(inner.value(parts[1]), "a key"), inner._plain(parts[2])
            if grouped:
                result.setdefault(key, []).append(value)
            elif key in result:
                raise UsageError(f"the key {key!r} comes twice", hint="Write ... behind the value to get lists.")
            else:
                result[key] = value
        return result

    def _iterated(self, intro: Any, condition: Any) -> Iterable[Evaluator]:
        parts = branches(intro)
        names = [str(part.children[0]) for part in parts[:-1]]
        collection = self.value(parts[-1])
        if not isinstance(collection, list | dict):
            raise UsageError(f"for goes over a list or a table, not over {type_name(collection)}")
        pairs = sorted(collection.items()) if isinstance(collection, dict) else enumerate(collection)
        for key, value in pairs:
            inner = self.inside({names[0]: key, names[1]: value} if len(names) > 1 else {names[0]: value})
            if condition is None or as_bool(inner._condition(condition), "if"):
                yield inner

    def _condition(self, tree: Any) -> Value:
        return self.value(branches(tree)[-1])


def _heredoc(text: str) -> str:
    """Return what stands between the first line and the last."""
    lines = text.splitlines(keepends=True)
    while lines and not lines[-1].strip():
        lines.pop()
    return "".join(lines[1:-1])


def _unescaped(text: str) -> str:
    if "\\" not in text:
        return text

    def replaced(match: re.Match[str]) -> str:
        if number := match[1] or match[2]:
            return chr(int(number, 16))
        if match[3] not in _ESCAPES:
            raise UsageError(f"there is no escape {match[0]!r}")
        return _ESCAPES[match[3]]

    return re.sub(r"\\(?:u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|(.))", replaced, text, flags=re.DOTALL)
