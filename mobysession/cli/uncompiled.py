"""Methods that libraries write as text: compiled when they are first called.

dataclasses and attrs write the methods of a class, ``__init__`` and up to eight others, as source text and have it
compiled, and typing compiles every annotation that is a string, to see whether it is an expression. For the classes
that a small build loads, its own and those of trio and h2, that was an eighth of all that it does (of the instructions:
dataclasses 6 %, attrs 5, typing 1); it calls a quarter of the methods, and evaluates none of the annotations.

So in the command line's own process, and in no other, these modules find under the names of the built-in ``compile``,
``eval`` and ``exec`` something that keeps the text, and in place of the methods functions that have it compiled when
they are called. Whatever has not exactly the form that is known here goes to the built-in ones, as ever.

What can be told from the outside: until it is called, such a method has no names of arguments, and an annotation that
is no expression is found out where it is evaluated.
"""

# ruff: noqa: S102, S307 - what is executed here is what dataclasses, attrs and typing would execute themselves

from __future__ import annotations

import builtins
import sys
from types import FunctionType
from typing import TYPE_CHECKING, Any, Final

from mobysession.cli.deferred import OwnFinder, OwnLoader

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import CodeType, ModuleType

__all__ = ["compile_late"]

_FACTORY = "__create_fn__"  # what the text of dataclasses defines


class _Text:
    """What is there in place of code: the arguments of the built-in `compile`."""

    __slots__ = ("filename", "mode", "source")

    def __init__(self, source: str, filename: str, mode: str) -> None:
        self.source = source
        self.filename = filename
        self.mode = mode

    def compile(self) -> CodeType:
        code: CodeType = builtins.compile(self.source, self.filename, self.mode)
        return code


def compile_definitions(source: Any, filename: Any, mode: str, *rest: Any, **options: Any) -> Any:
    """In attrs: keep a text that defines functions and does nothing else."""
    if mode != "exec" or rest or options or not _names_defined(source):
        return builtins.compile(source, filename, mode, *rest, **options)
    return _Text(source, filename, mode)


def evaluate_definitions(code: Any, names: Any = None, local_names: Any = None, /) -> Any:
    """In attrs: put functions where those that the text defines should be; they turn into them at their first call."""
    if not isinstance(code, _Text):
        return builtins.eval(code, names, local_names)
    functions: dict[str, FunctionType] = {}

    def turn() -> None:
        defined: dict[str, Any] = {}
        builtins.eval(code.compile(), names, defined)
        for name, function in functions.items():
            real = defined[name]
            # Other threads may be calling it: at no moment does its code lack a default that it needs.
            function.__defaults__ = real.__defaults__
            function.__kwdefaults__ = {**(function.__kwdefaults__ or {}), **(real.__kwdefaults__ or {})}
            function.__code__ = real.__code__
            function.__kwdefaults__ = real.__kwdefaults__

    def uncompiled(name: str) -> FunctionType:
        function = FunctionType(_call_twice.__code__, names, name)

        def turned() -> FunctionType:
            turn()
            return function

        function.__kwdefaults__ = {"_mobysession_turned": turned}
        return function

    functions.update((name, uncompiled(name)) for name in _names_defined(code.source))
    (names if local_names is None else local_names).update(functions)
    return None


def _call_twice(*arguments: Any, _mobysession_turned: Callable[[], FunctionType], **options: Any) -> Any:
    # It has no names but those of its arguments, of which none may be that of a method's argument.
    return _mobysession_turned()(*arguments, **options)


def _names_defined(source: object) -> list[str]:
    """Return the names of the functions that a text defines; empty when it does anything else."""
    if not isinstance(source, str):
        return []
    heads = [line for line in source.split("\n") if line and line[0] not in " \t"]
    if not all(line.startswith("def ") and "(" in line for line in heads):
        return []
    return [line[4 : line.index("(")] for line in heads]


def execute_factory(source: Any, names: Any = None, local_names: Any = None, /) -> None:
    """In dataclasses: define a factory whose functions have the text compiled when the first of them is called."""
    if not isinstance(source, str) or not source.startswith(f"def {_FACTORY}(") or local_names is None:
        builtins.exec(source, names, local_names)
        return
    returned = source.rpartition("\n return ")[2]

    def create(**options: Any) -> Any:
        compiled: tuple[Any, ...] = ()

        def compile_now() -> tuple[Any, ...]:
            nonlocal compiled
            if not compiled:
                defined: dict[str, Any] = {}
                builtins.exec(source, names, defined)
                made = defined[_FACTORY](**options)
                compiled = made if isinstance(made, tuple) else (made,)
            return compiled

        # Before Python 3.13 there is a text for each method, and since then one for all those of a class.
        if not returned.startswith("("):
            return _delegating(returned, 0, compile_now)
        listed = returned.strip("(,)").split(",")
        return tuple(_delegating(name, index, compile_now) for index, name in enumerate(listed) if name)

    local_names[_FACTORY] = create


def _delegating(name: str, index: int, compile_now: Callable[[], tuple[Any, ...]]) -> Callable[..., Any]:
    # The methods of dataclasses are closures, which no other function can turn into.
    real: Callable[..., Any] | None = None

    def method(*arguments: Any, **options: Any) -> Any:
        nonlocal real
        if real is None:
            real = compile_now()[index]
            real.__qualname__ = method.__qualname__
        return real(*arguments, **options)

    method.__name__ = name
    return method


def compile_annotation(source: Any, filename: Any, mode: str, *rest: Any, **options: Any) -> Any:
    """In typing: keep an annotation."""
    if mode != "eval" or rest or options or not isinstance(source, str):
        return builtins.compile(source, filename, mode, *rest, **options)
    return _Text(source, filename, mode)


def evaluate_annotation(code: Any, names: Any = None, local_names: Any = None, /) -> Any:
    """In typing: evaluate an annotation that was kept, or whatever else it is."""
    return builtins.eval(code.compile() if isinstance(code, _Text) else code, names, local_names)


BUILT_IN: Final[Mapping[str, Mapping[str, Callable[..., Any]]]] = {
    "attr._make": {"compile": compile_definitions, "eval": evaluate_definitions},
    "dataclasses": {"exec": execute_factory},
    "typing": {"compile": compile_annotation, "eval": evaluate_annotation},
}
"""What each module is to find in place of built-in functions."""


def compile_late() -> None:
    """Let classes have their methods compiled late, those made from now on."""
    waiting = {}
    for name, substitutes in BUILT_IN.items():
        if name in sys.modules:
            vars(sys.modules[name]).update(substitutes)
        else:
            waiting[name] = substitutes
    sys.meta_path.insert(0, OwnFinder(waiting, _Naming))


class _Naming(OwnLoader):
    """Gives a module its names, and runs it."""

    def exec_module(self, module: ModuleType) -> None:
        self.hide(module)
        vars(module).update(self._names)
        self._loader.exec_module(module)
