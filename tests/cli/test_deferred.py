"""Modules that load when they are used: nobody can tell, but by the time it takes."""

from __future__ import annotations

import importlib
import subprocess
import sys
import threading
from importlib.machinery import SourceFileLoader
from typing import TYPE_CHECKING

import pytest

from mobysession.cli.deferred import MODULES, Later, OwnFinder

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from types import ModuleType

NAME = "mobysession_tests_deferred"


@pytest.fixture
def deferred(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Return the file of a module that is deferred, and answers one question."""
    answers = {"answer": {"known": 1}.get, "CONSTANT": 7}
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "meta_path", [OwnFinder({NAME: answers}, Later), *sys.meta_path])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    importlib.invalidate_caches()
    file = tmp_path / f"{NAME}.py"
    file.write_text("import sys\nsys.deferred_runs = getattr(sys, 'deferred_runs', 0) + 1\nvalue = 5\n")
    yield file
    sys.modules.pop(NAME, None)
    sys.__dict__.pop("deferred_runs", None)


def runs() -> int:
    """Return how often the module was run."""
    count: int = getattr(sys, "deferred_runs", 0)
    return count


def load() -> ModuleType:
    return importlib.import_module(NAME)


def test_it_runs_at_the_first_name_and_once(deferred: Path) -> None:
    """Importing it, again and again, does not run it; a name does."""
    module = load()
    assert load() is module
    assert (runs(), module.__file__, module.__name__) == (0, str(deferred), NAME)
    assert (module.value, module.value, runs()) == (5, 5, 1)
    assert not hasattr(module, "other")
    assert runs() == 1


def test_from_import_runs_it(deferred: Path) -> None:
    """Both kinds: of a name, and of all of them."""
    names: dict[str, object] = {}
    exec(f"from {NAME} import value", names)
    assert (names["value"], runs()) == (5, 1)
    del sys.modules[NAME]
    exec(f"from {NAME} import *", names := {})
    assert (names["value"], runs()) == (5, 2)


def test_it_looks_like_any_other(deferred: Path) -> None:
    """Its loader is the one that everybody's modules have, for tracebacks and for whoever wants the source."""
    module = load()
    assert module.__spec__ is not None
    assert module.__spec__.loader is module.__loader__
    assert isinstance(module.__loader__, SourceFileLoader)
    assert module.__loader__.get_source(NAME) == deferred.read_text()
    assert runs() == 0


def test_what_is_known_needs_no_running(deferred: Path) -> None:
    """A constant, and a question; one that has no answer here is put to the module."""
    deferred.write_text(deferred.read_text() + "CONSTANT = 7\ndef answer(word): return 2\n")
    module = load()
    assert (module.CONSTANT, module.answer("known"), runs()) == (7, 1, 0)
    ask = module.answer
    assert (ask("unknown"), runs()) == (2, 1)
    assert (module.answer("known"), ask("unknown"), runs()) == (2, 2, 1)


def test_one_that_fails_fails_where_it_is_used(deferred: Path) -> None:
    """Its own error, each time, whatever it had defined by then; and once it can be loaded, it is."""
    working = deferred.read_text()
    deferred.write_text("value = 4\n__getattr__ = answer = None\nimport mobysession_tests_missing")
    module = load()
    for _ in range(2):
        with pytest.raises(ModuleNotFoundError, match="mobysession_tests_missing"):
            _ = module.value
        assert module.answer("known") == 1
    deferred.write_text(working)
    assert module.value == 5


def test_one_that_is_interrupted_runs_again(deferred: Path) -> None:
    """From its beginning: Ctrl-C while it runs leaves nothing of it."""
    working = deferred.read_text()
    deferred.write_text(f"{working}raise KeyboardInterrupt")
    module = load()
    with pytest.raises(KeyboardInterrupt):
        _ = module.value
    deferred.write_text(working)
    assert (module.value, runs()) == (5, 2)


def test_it_may_have_an_own_way_to_find_names(deferred: Path) -> None:
    """A module's ``__getattr__`` is its own, once it runs."""
    deferred.write_text("def __getattr__(name): return name.upper()\n")
    assert load().word == "WORD"


def test_it_may_ask_itself_while_it_runs(deferred: Path) -> None:
    """What is there already is found, and what is not is missing, as in every module that is half loaded."""
    deferred.write_text(
        f"import sys\nvalue = 5\nme = sys.modules[{NAME!r}]\nfound = me.value\nlater = hasattr(me, 'last')\nlast = 1\n"
    )
    module = load()
    assert (module.found, module.later, module.last) == (5, False, 1)


def test_other_threads_wait_until_it_has_run(deferred: Path) -> None:
    """Nobody sees it half loaded, not even the names that it has already, and it runs once."""
    deferred.write_text(
        "import sys\nvalue = 4\nsys.deferred_began.set()\nassert sys.deferred_may_end.wait(10)\n" + deferred.read_text()
    )
    began, may_end = threading.Event(), threading.Event()
    sys.__dict__.update(deferred_began=began, deferred_may_end=may_end)
    module = load()
    found: list[int] = []
    threads = [threading.Thread(target=lambda: found.append(module.value)) for _ in range(3)]
    for thread in threads:
        thread.start()
    assert began.wait(10)
    threads.append(threading.Thread(target=lambda: found.append(module.value)))
    threads[-1].start()
    threads[-1].join(0.05)  # it would have found the value that is there by now
    assert found == []
    may_end.set()
    for thread in threads:
        thread.join(10)
    del sys.__dict__["deferred_began"], sys.__dict__["deferred_may_end"]
    assert (found, runs()) == ([5, 5, 5, 5], 1)


def _fresh(code: str, folder: Path) -> str:
    done = subprocess.run([sys.executable, "-I", "-c", code], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("name", sorted(MODULES))
def test_each_can_be_deferred(tmp_path: Path, name: str) -> None:
    """In a fresh interpreter each is imported without being run, unless it was there already, and has all its names."""
    code = f"""
import importlib, sys
from mobysession.cli.deferred import MODULES, defer_imports
early = {name!r} in sys.modules
defer_imports()
module = importlib.import_module({name!r})
assert early or "__getattr__" in vars(module), "it has run"
expected = [*getattr(module, "__all__", ()), *MODULES[{name!r}]]
assert all(hasattr(module, each) for each in expected)
assert "__getattr__" not in vars(module), "it has not run"
"""
    _fresh(code, tmp_path)


def test_trio_gives_its_threads_no_names_for_the_system(tmp_path: Path) -> None:
    """For that it would load a library, and what loads libraries; whoever else wants one gets it."""
    code = """
import sys
from mobysession.cli.deferred import defer_imports
defer_imports()
import trio
import ctypes, ctypes.util
assert trio._core._thread_cache.set_os_thread_name is None
assert "__getattr__" in vars(ctypes)
assert ctypes.CDLL(None).getpid() > 0
try:
    ctypes.CDLL("libmobysession-tests-missing.so")
except OSError as error:
    assert "libmobysession-tests-missing" in str(error)
"""
    _fresh(code, tmp_path)


def test_the_answers_are_those_of_the_modules(tmp_path: Path) -> None:
    """What is said in place of a module is what it says itself, where that does not differ from system to system."""
    code = """
import attr, gettext, inspect, platform
from attr import validators
from mobysession.cli.deferred import MODULES as ours

name = platform.python_implementation
assert ours["platform"].get("python_implementation", name)() == name()
for text in ("usage: ", None):
    assert ours["gettext"]["gettext"](text) == gettext.gettext(text)
for count in (0, 1, 2):
    assert ours["gettext"]["ngettext"]("one", "more", count) == gettext.ngettext("one", "more", count)

async def ask():
    assert ours["inspect"]["CORO_CLOSED"] == inspect.CORO_CLOSED
    for question in ("getcoroutinestate", "iscoroutine"):
        assert ours["inspect"][question](coroutine) == getattr(inspect, question)(coroutine)
    assert not ours["inspect"]["iscoroutine"](ask)

coroutine = ask()
try:
    coroutine.send(None)
except StopIteration:
    pass
assert ours["inspect"]["getcoroutinestate"](coroutine) is None

@attr.s
class Theirs: field = attr.ib(validator=validators.instance_of(int))
@attr.s
class Ours: field = attr.ib(validator=ours["attr.validators"]["instance_of"](int))

complaints = []
for kind in (Theirs, Ours):
    assert kind(1).field == 1
    try:
        kind("text")
    except TypeError as error:
        complaints.append(error.args[0])
assert complaints[0] == complaints[1]
"""
    _fresh(code, tmp_path)
