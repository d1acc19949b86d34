"""Methods that are compiled when they are called: nobody can tell, but by the time it takes and by their signatures."""

from __future__ import annotations

import subprocess
import sys
from types import FunctionType
from typing import TYPE_CHECKING

import pytest

from mobysession.cli.uncompiled import (
    BUILT_IN,
    compile_annotation,
    compile_definitions,
    evaluate_annotation,
    evaluate_definitions,
    execute_factory,
)

if TYPE_CHECKING:
    from pathlib import Path

CLASSES = """
import dataclasses, pickle, typing
import attr, attrs

@dataclasses.dataclass(frozen=True, order=True)
class Frozen:
    '''Documented, as all of ours are: else the signature would be in its place.'''
    name: str
    number: int = 3
    many: list[int] = dataclasses.field(default_factory=list, compare=False)
    late: dataclasses.InitVar[int] = 5
    def __post_init__(self, late):
        self.many.append(late)

@dataclasses.dataclass(slots=True, kw_only=True)
class Slotted:
    '''Documented.'''
    index: int
    returned: str = "x"
    def __repr__(self):
        return "its own"

@dataclasses.dataclass(unsafe_hash=True)
class Below(Slotted):
    '''Documented.'''
    compile_now: int = 0

@dataclasses.dataclass
class Ring:
    '''Documented.'''
    next: "Ring | None" = None

@dataclasses.dataclass(init=False, repr=False, eq=False)
class Bare:
    '''Documented.'''
    field: int = 1

@attrs.define
class Defined:
    name: str
    turned: int = attrs.field(default=7, validator=attrs.validators.instance_of(int))
    _private: list = attrs.field(factory=list, kw_only=True)

@attrs.frozen(order=True)
class Stiff(Defined):
    arguments: tuple = ()
    def __attrs_post_init__(self):
        object.__setattr__(self, "seen", True) if hasattr(self, "__dict__") else None

@attr.s(hash=True, cache_hash=True)
class Old:
    options = attr.ib(default=1, converter=int)
    function = attr.ib(default=attr.Factory(lambda self: self.options + 1, takes_self=True), eq=False, repr=False)

class Pair(typing.NamedTuple):
    left: "int"
    right: "Ring | None" = None

def attempt(what):
    try:
        return repr(what())
    except Exception as error:
        return f"{type(error).__name__}: {error}"

ring = Ring()
ring.next = ring
one, two = Frozen("a"), Frozen("b", late=9)
outcomes = [attempt(what) for what in (
    lambda: (one, two, one < two, one == Frozen("a"), hash(one) == hash(Frozen("a", many=[2])), one >= two),
    lambda: setattr(one, "name", "c"),
    lambda: delattr(one, "name"),
    lambda: Frozen(),
    lambda: Frozen("a", wrong=1),
    lambda: dataclasses.replace(one, name="z", late=1),
    lambda: dataclasses.asdict(one),
    lambda: (Slotted(index=1), Slotted(index=1) == Slotted(index=1), hasattr(Slotted(index=1), "__dict__")),
    lambda: Slotted(1),
    lambda: hash(Slotted(index=1)),
    lambda: (Below(index=1, compile_now=2).compile_now, hash(Below(index=1)) == hash(Below(index=1))),
    lambda: (Ring(Ring()), ring),
    lambda: (Bare().field, Bare() == Bare()),
    lambda: (Defined("n"), Defined(name="n", turned=2, private=[1]), Defined("n") == Defined("n")),
    lambda: Defined("n", turned="no"),
    lambda: Defined(),
    lambda: hash(Defined("n")),
    lambda: (Stiff("n", arguments=(1,)) < Stiff("o"), hash(Stiff("n", private=())) == hash(Stiff("n", private=()))),
    lambda: setattr(Stiff("n"), "name", "m"),
    lambda: attrs.evolve(Stiff("n"), turned=9),
    lambda: (Old("5"), Old().function, Old(1) == Old(1, 5), hash(Old()) == hash(Old()), Old() < Old()),
    lambda: (Old(1) != Old(2), Old(1) < Old(2), sorted([Old(2), Old(1)])),
    lambda: typing.get_type_hints(Pair),
    lambda: (Pair(1), Pair(1, None)._replace(left=2)),
    lambda: typing.get_type_hints(Ring),
    lambda: pickle.loads(pickle.dumps([one, Defined("n"), Old(), Pair(1)])),
    lambda: [(kind.__init__.__qualname__, kind.__init__.__name__) for kind in (Frozen, Below, Defined, Old)],
)]
"""


def _fresh(code: str, folder: Path) -> str:
    done = subprocess.run([sys.executable, "-I", "-c", code], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


LATE = "from mobysession.cli.uncompiled import compile_late\ncompile_late()\n"


def test_classes_do_the_same(tmp_path: Path) -> None:
    """Made, compared, ordered, hashed, shown, copied, pickled and refused as those that are compiled at once."""
    told = [_fresh(f"{before}{CLASSES}\nprint(*outcomes, sep=chr(10))", tmp_path) for before in ("", LATE)]
    assert told[0].splitlines() == told[1].splitlines()
    assert len(told[0].splitlines()) == 27


def test_nothing_is_compiled_before_it_is_called(tmp_path: Path) -> None:
    """Defining classes compiles none of their methods, one call those that it needs, and the next one nothing."""
    code = f"""
import builtins
compiled = []
def counted(name):
    real = getattr(builtins, name)
    def count(source, *rest):
        if isinstance(source, str):
            compiled.append(source)
        return real(source, *rest)
    setattr(builtins, name, count)
{LATE}
import dataclasses, typing, attr
counted("compile")
counted("exec")

@dataclasses.dataclass(frozen=True)
class Ours:
    '''Documented.'''
    field: int = 1

@attr.s
class Theirs:
    field = attr.ib(default=1)

class Both(typing.NamedTuple):
    field: "int | None"

steps = [len(compiled)]
for step in (Ours, Ours, Theirs, Theirs, lambda: Both(1), lambda: typing.get_type_hints(Both)):
    step()
    steps.append(len(compiled))
print(steps)
"""
    assert _fresh(code, tmp_path).strip() == "[0, 1, 1, 2, 2, 2, 3]"


def test_whoever_comes_first_in_several_threads(tmp_path: Path) -> None:
    """The first calls of a method may be many at once; each does what it should."""
    code = f"""
import sys, threading
{LATE}
import attr, dataclasses
sys.setswitchinterval(1e-6)
failures = []
for _ in range(150):
    @attr.s
    class Theirs:
        field = attr.ib()
        default = attr.ib(default=3)
        named = attr.ib(default=4, kw_only=True)

    @dataclasses.dataclass
    class Ours:
        '''Documented.'''
        field: int
        default: int = 3
        named: int = dataclasses.field(default=4, kw_only=True)

    gate = threading.Barrier(4)
    def call():
        gate.wait()
        for kind in (Theirs, Ours):
            try:
                made = kind(1)
                assert (made.field, made.default, made.named, made == kind(field=1, named=4)) == (1, 3, 4, True)
            except BaseException as error:
                failures.append(error)
    threads = [threading.Thread(target=call) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
print(failures)
"""
    assert _fresh(code, tmp_path).strip() == "[]"


def test_one_that_is_interrupted_is_compiled_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C while a method is compiled ends that call, and no other."""
    names: dict[str, object] = {}
    text = "def double(number, times=2):\n    return number * times\n"
    evaluate_definitions(compile_definitions(text, "here", "exec"), names)
    double = names["double"]
    assert isinstance(double, FunctionType)

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as broken:
        broken.setattr("builtins.compile", interrupt)
        with pytest.raises(KeyboardInterrupt):
            double(4)
    assert (double(4), double(4, times=3), double.__code__.co_filename) == (8, 12, "here")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("found = 5", 5),
        ("", None),
        ("def outer(number):\n    return number\nfound = outer(5)", 5),
        ("if True:\n    found = 5", 5),
    ],
)
def test_what_does_more_than_define_functions_is_run_at_once(text: str, expected: object) -> None:
    """A text of attrs that has another form is compiled and executed where it is."""
    names: dict[str, object] = {}
    evaluate_definitions(compile_definitions(text, "here", "exec"), names)
    assert names.get("found") == expected


def test_other_ways_to_call_the_built_in_ones_lead_to_them() -> None:
    """Expressions, code and options are nothing of ours, nor is what has no place for a factory."""
    assert evaluate_definitions(compile_definitions("2 + 3", "here", "eval")) == 5
    assert evaluate_definitions("2 + 3", {}, {}) == 5
    flagged: dict[str, object] = {}
    evaluate_definitions(compile_definitions("def five(): return 5", "here", "exec", dont_inherit=True), flagged)
    assert isinstance(flagged["five"], FunctionType)
    assert flagged["five"].__code__.co_name == "five"
    executed: dict[str, object] = {}
    execute_factory("found = 5", executed)
    execute_factory("def __create_fn__():\n return 5", executed)
    assert callable(executed["__create_fn__"])
    assert (executed["found"], executed["__create_fn__"]()) == (5, 5)
    assert evaluate_annotation(compile_annotation(b"2 + 3", "here", "eval")) == 5
    assert evaluate_annotation("found", {"found": 5}) == 5


def test_an_annotation_that_is_no_expression_fails_where_it_is_evaluated() -> None:
    """With the error that it would have had at once."""
    kept = compile_annotation("not an expression", "<string>", "eval")
    with pytest.raises(SyntaxError):
        evaluate_annotation(kept, {}, {})


@pytest.mark.parametrize("name", sorted(BUILT_IN))
def test_each_module_finds_them_and_looks_like_any_other(tmp_path: Path, name: str) -> None:
    """Whether it is loaded afterwards or was there before, and its loader is the one that everybody's modules have."""
    code = f"""
import importlib
{LATE}
from mobysession.cli.uncompiled import BUILT_IN
module = importlib.import_module({name!r})
assert BUILT_IN[{name!r}].items() <= vars(module).items()
assert module.__loader__ is module.__spec__.loader
assert type(module.__loader__).__module__ != "mobysession.cli.uncompiled"
"""
    _fresh(code, tmp_path)
