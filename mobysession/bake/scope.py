"""What the files define together: variables, functions and blocks, each evaluated when somebody first needs it.

Variables have defaults, and the environment overrides them, by their types; attributes at the top of a file are
variables too, which nothing overrides. Expressions may name any of them, in whatever order they stand, and attributes
of other targets as ``target.NAME.ATTRIBUTE``. A target with a ``matrix`` is as many as it has combinations.

Source: docker/buildx bake/hclparser/hclparser.go.
"""

from __future__ import annotations

import json
from itertools import product
from typing import TYPE_CHECKING, Any

from mobysession import limits
from mobysession.bake.definition import Definition, Group, Variable, valid_name
from mobysession.bake.evaluate import Budget, Evaluator, Lazy
from mobysession.bake.functions import FUNCTIONS
from mobysession.bake.target import ATTRIBUTES, Target, convert_attribute
from mobysession.bake.types import constraint_of, converted, from_environment
from mobysession.bake.values import Value, as_bool, as_text, type_name
from mobysession.errors import BakeError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from mobysession.bake.syntax import Block, Body, Expression

__all__ = ["Files"]

_PARTS_OF_FUNCTION = ("params", "variadic_params", "result")
_PARTS_OF_VARIABLE = ("default", "type", "description")
_PARTS_OF_GROUP = ("targets", "description")


class Files:
    """The bodies of all files, as one scope.

    Args:
        bodies: in the order of the files.
        environment: what overrides variables.
        constants: variables that are there without a definition.
    """

    def __init__(
        self, bodies: Sequence[Body], environment: Mapping[str, str], constants: Mapping[str, str] | None = None
    ) -> None:
        self._environment = environment
        self._values: dict[str, Value] = dict(constants or {})
        self._constants = frozenset(self._values)
        self._attributes: dict[str, Expression] = {}
        self._variables: dict[str, Block] = {}
        self._functions: dict[str, Block] = {}
        self._blocks: list[Block] = []
        self._pending: list[str] = []
        self._names: dict[int, list[tuple[str, Evaluator]]] = {}
        self._evaluator = Evaluator(self, Budget())
        for body in bodies:
            self._attributes |= {k: v for k, v in body.attributes.items() if k not in self._constants}
            for block in body.blocks:
                self._take(block)

    def _take(self, block: Block) -> None:
        if block.type not in ("variable", "function", "target", "group"):
            raise BakeError(f"there are no {block.type!r} blocks", file=block.body.file, line=block.line)
        if not block.label:
            raise BakeError(f"a {block.type} has no name", file=block.body.file, line=block.line)
        if block.type == "variable":
            if block.label not in self._constants:
                self._variables[block.label] = block
        elif block.type == "function":
            self._functions[block.label] = block
        else:
            self._blocks.append(block)

    def define(self, definition: Definition) -> None:
        """Evaluate everything, and add it to a definition; BakeError where something has no value."""
        try:
            definition.variables += [self._described(name) for name in self._variables]
            for block in self._variables.values():
                self._validate(block)
            for name in self._functions:
                self.function(name)
            renamed: dict[tuple[str, str], list[str]] = {}
            for block in self._blocks:
                self._define_block(block, definition, renamed)
            for (kind, label), names in renamed.items():
                if list(dict.fromkeys(names)) != [label] and kind == "target":
                    definition.groups.setdefault(label, Group(list(dict.fromkeys(names))))
            for name in self._attributes:
                self.variable(name)
        except RecursionError:
            raise BakeError("an expression is nested too deeply, or a function calls itself") from None

    # -- what names stand for

    def variable(self, name: str) -> Value:
        """Return the value of a variable; UsageError where there is none, or where it depends on itself."""
        if name in self._values:
            return self._values[name]
        if name == "target":
            return Lazy("target", self._target)
        if name in self._pending:
            raise UsageError(f"the variable {name!r} depends on itself")
        self._pending.append(name)
        try:
            self._values[name] = self._resolve(name)
        finally:
            self._pending.pop()
        return self._values[name]

    def _resolve(self, name: str) -> Value:
        if name in self._attributes and name not in self._variables:
            return self._evaluator.evaluate(self._attributes[name])
        block = self._variables.get(name)
        if block is None:
            raise UsageError(f"there is no variable {name!r}")
        _known(block, _PARTS_OF_VARIABLE)
        kind = constraint_of(block.body.attributes.get("type"))
        default = self._attributes.get(name) or block.body.attributes.get("default")
        value = self._evaluator.evaluate(default) if default is not None else None if kind else ""
        try:
            if default is not None and kind:
                value = converted(value, kind)
            return from_environment(name, value, kind, self._environment, self._variables, default is not None)
        except UsageError as error:
            message = f"variable {name!r}: {error.message}"
            raise BakeError(message, hint=error.hint, file=block.body.file, line=block.line) from None

    def function(self, name: str) -> Callable[..., Value] | None:
        """Return a function that the files define; None where they define none of that name."""
        block = self._functions.get(name)
        if block is None or name in FUNCTIONS:
            return None
        _known(block, _PARTS_OF_FUNCTION)
        attributes = block.body.attributes
        for part in ("params", "result"):
            if part not in attributes:
                raise BakeError(f"function {name!r} has no {part}", file=block.body.file, line=block.line)
        params = _words(attributes["params"])
        rest = _words(attributes["variadic_params"])[0] if "variadic_params" in attributes else None
        result = attributes["result"]

        def call(*values: Value) -> Value:
            if len(values) < len(params) or (len(values) > len(params) and rest is None):
                raise UsageError(f"it takes {len(params)} values, not {len(values)}")
            names: dict[str, Value] = dict(zip(params, values, strict=False))
            if rest is not None:
                names[rest] = list(values[len(params) :])
            return self._evaluator.inside(names).evaluate(result)

        return call

    def _target(self, name: str) -> Lazy:
        return Lazy(f"target.{name}", lambda attribute: self._attribute(name, attribute))

    def _attribute(self, name: str, attribute: str) -> Value:
        """Return what the files say of an attribute of a target, without what that inherits."""
        if attribute not in ATTRIBUTES:
            raise UsageError(f"a target has no attribute {attribute!r}")
        key = f"target.{name}.{attribute}"
        if key in self._pending:
            raise UsageError(f"{key} depends on itself")
        self._pending.append(key)
        try:
            found: Target | None = None
            for block in self._blocks:
                if block.type != "target":
                    continue
                for of_block, evaluator in self._named(block):
                    if of_block == name:
                        found = {**(found or {}), **self._read(block, evaluator, only=attribute)}
        finally:
            self._pending.pop()
        if found is None:
            raise UsageError(f"there is no target {name!r}")
        return found.get(attribute)

    # -- blocks

    def _described(self, name: str) -> Variable:
        value = self.variable(name)
        attributes = self._variables[name].body.attributes
        description = self._evaluator.evaluate(attributes["description"]) if "description" in attributes else ""
        shown = None if value is None else json.dumps(value) if isinstance(value, list | dict) else as_text(value)
        return Variable(name, shown, constraint_of(attributes.get("type")), as_text(description))

    def _validate(self, block: Block) -> None:
        for rule in block.body.blocks:
            if rule.type != "validation":
                raise BakeError(f"a variable has no {rule.type!r} blocks", file=rule.body.file, line=rule.line)
            _known(rule, ("condition", "error_message"))
            attributes = rule.body.attributes
            if "condition" not in attributes or "error_message" not in attributes:
                message = "a validation needs condition and error_message"
                raise BakeError(message, file=rule.body.file, line=rule.line)
            if not as_bool(self._evaluator.evaluate(attributes["condition"]), "a condition"):
                message = as_text(self._evaluator.evaluate(attributes["error_message"]))
                raise BakeError(f"variable {block.label!r}: {message}", file=rule.body.file, line=rule.line)

    def _define_block(self, block: Block, definition: Definition, renamed: dict[tuple[str, str], list[str]]) -> None:
        if block.type == "group":
            definition.groups[valid_name(block.label)] = self._group(block)
            return
        for name, evaluator in self._named(block):
            definition.add(name, self._read(block, evaluator))
            renamed.setdefault((block.type, block.label), []).append(name)

    def _group(self, block: Block) -> Group:
        for name in ("name", "matrix"):
            if name in block.body.attributes:
                raise BakeError(f"a group has no {name}", file=block.body.file, line=block.line)
        _known(block, _PARTS_OF_GROUP)
        values = {name: self._evaluator.evaluate(value) for name, value in block.body.attributes.items()}
        targets = values.get("targets")
        if not isinstance(targets, list):
            raise BakeError(f"group {block.label!r} has no list of targets", file=block.body.file, line=block.line)
        named = list(dict.fromkeys(as_text(target, "targets") for target in targets))
        return Group(named, as_text(values.get("description") or ""))

    def _named(self, block: Block) -> list[tuple[str, Evaluator]]:
        """Return the targets that a block is, each with what evaluates its attributes."""
        if id(block) in self._names:
            return self._names[id(block)]
        attributes = block.body.attributes
        if "name" in attributes and "matrix" not in attributes:
            message = f"target {block.label!r} has a name, which only a matrix needs"
            raise BakeError(message, file=block.body.file, line=block.line)
        named = []
        for combination in self._combinations(block):
            evaluator = self._evaluator.inside(combination) if combination is not None else self._evaluator
            name = as_text(evaluator.evaluate(attributes["name"]), "name") if "name" in attributes else block.label
            named.append((valid_name(name), evaluator))
        if len({name for name, _ in named}) < len(named):
            message = f"the targets of {block.label!r} have the same name"
            hint = "Give it a name in which the variables of the matrix stand."
            raise BakeError(message, hint=hint, file=block.body.file, line=block.line)
        self._names[id(block)] = named
        return named

    def _combinations(self, block: Block) -> Sequence[Mapping[str, Value] | None]:
        written = block.body.attributes.get("matrix")
        if written is None:
            return [None]
        matrix = self._evaluator.evaluate(written)
        if not isinstance(matrix, dict) or not all(isinstance(values, list) for values in matrix.values()):
            message = f"the matrix of {block.label!r} is a table of lists, not {type_name(matrix)}"
            raise BakeError(message, file=block.body.file, line=block.line)
        if _size(matrix) > limits.MAX_BAKE_TARGETS:
            message = f"the matrix of {block.label!r} makes more than {limits.MAX_BAKE_TARGETS} targets"
            raise BakeError(message, file=block.body.file, line=block.line)
        # As buildx has it, the first name changes fastest.
        names = list(reversed(matrix))
        return [dict(zip(names, values, strict=True)) for values in product(*(matrix[name] for name in names))]

    def _read(self, block: Block, evaluator: Evaluator, only: str | None = None) -> Target:
        target: Target = {}
        for inner in block.body.blocks:
            raise BakeError(f"a target has no {inner.type!r} blocks", file=block.body.file, line=inner.line)
        for name, written in block.body.attributes.items():
            if name in ("name", "matrix") or (only is not None and name != only):
                continue
            if name not in ATTRIBUTES:
                message = f"a target has no attribute {name!r}"
                hint = f"It has {', '.join(ATTRIBUTES)}."
                raise BakeError(message, hint=hint, file=written.file, line=written.line or block.line)
            value = evaluator.evaluate(written)
            try:
                converted_value = convert_attribute(name, value)
            except UsageError as error:
                message = f"target {block.label!r}: {error.message}"
                raise BakeError(message, hint=error.hint, file=written.file, line=written.line) from None
            if converted_value is not None:
                target[name] = converted_value
        return target


def _size(matrix: Mapping[str, list[Any]]) -> int:
    size = 1
    for values in matrix.values():
        size *= len(values)
    return size


def _known(block: Block, names: tuple[str, ...]) -> None:
    for name, written in block.body.attributes.items():
        if name not in names:
            message = f"a {block.type} has no {name!r}"
            raise BakeError(message, hint=f"It has {', '.join(names)}.", file=block.body.file, line=written.line)


def _words(written: Expression) -> list[str]:
    """Return the bare words that a list is made of, or the one that stands alone."""
    if written.tree is None:
        words = written.json if isinstance(written.json, list) else [written.json]
    else:
        words = [str(token) for token in written.tree.scan_values(lambda token: token.type == "NAME")]
    if not all(isinstance(word, str) and word.isidentifier() for word in words):
        raise BakeError("the parameters of a function are bare words", file=written.file, line=written.line)
    return words
