"""Modules that others import and a build does not use: loaded at the first name that is asked of them.

trio loads all of itself, and with it OpenSSL, domain names in Unicode, child processes and more, of which a build over
a unix socket touches nothing; together that was a tenth of a small build's time. So in the command line's own process,
and in no other, a few modules are made empty when they are imported, and are run where a name is first missed in them
(PEP 562). Nobody else can tell the difference: ``import`` finds them, ``from ... import`` loads them, and one that
cannot be loaded raises its ImportError there, and is as empty afterwards as it was before. While one runs, other
threads that ask anything of it wait. Python's own ``importlib.util.LazyLoader`` would not do: under it the second
import of a module loads it, and trio imports ssl twice.

Some are asked one thing only, and answer it without being loaded. To name its threads for the system, trio asks ctypes
where the C library for threads is, which asks the program ``ldconfig``, in a child process: it finds none, and they
stay without such names. attrs asks platform for the name of the interpreter. argparse asks gettext for translations, of
which this program has none. outcome, which is trio's, asks attrs for one of its validators, and trio asks inspect about
coroutines, and for tidy docstrings, which nobody reads here. Of trio's own modules the one for TLS in datagrams waits
until somebody makes one.

What each costs when it is loaded, in ms, with what nobody else loads (Python 3.11, ``-X importtime``): attr.validators
7, trio._dtls 6, ctypes 6, ctypes.util 5 and its child process 3, ssl 5, inspect 4, hmac 4 (OpenSSL again), gettext 4,
platform 2, idna 2, subprocess 2, traceback and tokenize 2, ipaddress 1, calendar 1.
"""

from __future__ import annotations

import sys
from _thread import RLock  # all of threading that is needed here
from importlib.machinery import PathFinder
from types import CoroutineType
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from importlib.abc import Loader
    from importlib.machinery import ModuleSpec
    from types import ModuleType
else:
    # An import asks what a loader does, not what it is; the abstract class would load importlib.resources.
    Loader = object

__all__ = ["MODULES", "Later", "OwnFinder", "OwnLoader", "defer_imports"]


class _InstanceOf:
    """attrs' validator of this name, whose own is loaded to say what is wrong."""

    def __init__(self, kind: type) -> None:
        self._kind = kind

    def __call__(self, instance: object, attribute: Any, value: Any) -> None:
        if not isinstance(value, self._kind):
            from attr import validators

            # `optional` is not known here: to look it up is what loads the module, and with it the real `instance_of`.
            validators.optional(validators.instance_of(self._kind))(instance, attribute, value)


def _no_library_for_threads(name: str | None, *_: object, **__: object) -> None:
    if name == "libc.so":  # where trio looks next; loaded by that name it is a text for the linker in most systems
        raise OSError("no library is loaded to give names to threads")


MODULES: Final[Mapping[str, Mapping[str, Any]]] = {
    "attr.validators": {"instance_of": _InstanceOf},
    "attrs.validators": {},
    "calendar": {},
    "ctypes": {"CDLL": _no_library_for_threads},
    "ctypes.util": {"find_library": {"pthread": ""}.get},
    "gettext": {"gettext": lambda text: text, "ngettext": lambda one, several, count: one if count == 1 else several},
    "hmac": {},
    "idna": {},
    "inspect": {
        "CORO_CLOSED": "CORO_CLOSED",
        "cleandoc": str,
        "getcoroutinestate": lambda coroutine: "CORO_RUNNING" if coroutine.cr_running else None,
        "iscoroutine": lambda value: isinstance(value, CoroutineType),
    },
    "ipaddress": {},
    "platform": {"python_implementation": lambda: "CPython"} if sys.implementation.name == "cpython" else {},
    "shutil": {},
    "ssl": {},
    "subprocess": {},
    "tempfile": {},
    "tokenize": {},
    "traceback": {},
    "trio._dtls": dict.fromkeys(("DTLSChannel", "DTLSChannelStatistics", "DTLSEndpoint"), lambda *_, **__: None),
}
"""What is deferred, and what of it need not wait for that: a function that returns None has it loaded and asked."""


def defer_imports() -> None:
    """Defer those of `MODULES` that are imported for the first time from now on."""
    sys.meta_path.insert(0, OwnFinder(MODULES, Later))


class OwnLoader(Loader):
    """Has a module loaded by the loader that it would have anyway, and knows names for it."""

    def __init__(self, loader: Loader, names: Mapping[str, Any]) -> None:
        self._loader = loader
        self._names = names

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def hide(self, module: ModuleType) -> None:
        """Let the module look like any other to whoever asks where it comes from."""
        vars(module)["__loader__"] = vars(module)["__spec__"].loader = self._loader


class OwnFinder:
    """A finder, for ``sys.meta_path``, of modules that a loader of ours is to load."""

    def __init__(self, modules: Mapping[str, Mapping[str, Any]], kind: type[OwnLoader]) -> None:
        self._modules = modules
        self._kind = kind

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Find one of the modules where everybody finds it; None for all others, which are for the next finder."""
        if name not in self._modules:
            return None
        spec = PathFinder.find_spec(name, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = self._kind(spec.loader, self._modules[name])
        return spec


class Later(OwnLoader):
    """Loads a module when something is missed in it."""

    def __init__(self, loader: Loader, names: Mapping[str, Any]) -> None:
        super().__init__(loader, names)
        # Other threads wait while it runs; this one may ask for what has run already.
        self._lock = RLock()
        self._is_running = False

    def exec_module(self, module: ModuleType) -> None:
        names = module.__dict__
        self.hide(module)

        def look_up(name: str) -> Any:
            if name == "__path__":  # which `from ... import` asks for; a package has it already
                raise AttributeError(f"module {module.__name__!r} has no attribute {name!r}")
            with self._lock:
                if names.get("__getattr__") is look_up:
                    if self._is_running:
                        raise AttributeError(f"module {module.__name__!r} has no attribute {name!r}")
                    self._run(module)
                    if names.get("__getattr__") is look_up:
                        del names["__getattr__"]
            return getattr(module, name)

        def answering(name: str, answer: Callable[..., object]) -> Callable[..., object]:
            def ask(*arguments: object, **options: object) -> object:
                found = answer(*arguments, **options)
                if found is None:
                    look_up("__name__")
                    found = names[name](*arguments, **options)
                return found

            return ask

        names["__getattr__"] = look_up
        for name, answer in self._names.items():
            names[name] = answering(name, answer) if callable(answer) else answer

    def _run(self, module: ModuleType) -> None:
        before = module.__dict__.copy()
        kind = module.__class__
        self._is_running = True
        module.__class__ = self._held_back(kind)
        try:
            self._loader.exec_module(module)
        except BaseException:
            # Half a module is none: what it has defined so far would be taken for all of it the next time.
            module.__dict__.clear()
            module.__dict__.update(before)
            raise
        finally:
            module.__class__ = kind
            self._is_running = False

    def _held_back(self, kind: type[ModuleType]) -> type[ModuleType]:
        """Return what a module is while it runs: one whose names, those it has already too, are its own thread's."""
        lock = self._lock

        def look_up(module: ModuleType, name: str) -> Any:
            with lock:  # and by then the module may be of its own kind again
                return kind.__getattribute__(module, name)

        return type("Running", (kind,), {"__getattribute__": look_up})
