"""The house: which rooms there are, and that imports only point down the stairs.

The table below is the truth. Every import counts: at the top of a module, inside a function, and for type checkers
only, for a type that points up the stairs binds two rooms as firmly as a call does.
"""

from __future__ import annotations

import ast
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

PACKAGE = Path(__file__).parent.parent / "mobysession"

#: The ground floor, open to every room. Each of these may import those before it.
GROUND = (
    "errors",
    "limits",
    "_version",
    "_pb",
    "concurrency",
    "program",
    "events",
    "jsontext",
    "dockerconfig",
    "identity",
    "redaction",
    "recording",
)

#: What the arguments of the front doors are made of.
ARGUMENT_TYPES = (
    *("buildkit.status", "filesync.sources", "llb", "progress.view", "rpc.inspection", "rpc.keepalive"),
    *("rpc.registrar", "transport.endpoint"),
)

#: Each room, top down, and what it may import besides itself and the ground floor: rooms, or single modules of them.
ROOMS: dict[str, set[str]] = {
    "cli": {
        *("dockerpy", "sync", "aio", "doctor", "bake", "build", "session", "progress", "llb", "buildkit", "services"),
        *("filesync", "rpc", "transport", "state", "protocol"),
    },
    # Besides what it opens, what docker-py's clients and arguments become: an endpoint, credentials, a context.
    "dockerpy": {
        *("build", "buildkit.logs", "buildkit.status", "filesync.tar_archive", "services.credentials"),
        *("transport.endpoint", "transport.tls"),
    },
    # Besides the rooms they open, the modules whose types stand in their signatures.
    "sync": {"bake", "build", "session", *ARGUMENT_TYPES},
    "aio": {"bake", "build", "session", *ARGUMENT_TYPES},
    "doctor": {"session", "buildkit", "services", "transport"},
    "bake": {"build", "session", "buildkit", "services", "progress", "transport"},
    "build": {"session", "llb", "buildkit", "services", "filesync", "progress", "rpc", "transport", "state"},
    # What a session says of itself, protocol.session_headers, is what it hands to every dialer.
    "session": {"services", "rpc", "transport", "state", "protocol.session_headers"},
    "testing": {"rpc", "filesync", "transport", "protocol"},
    "progress": {"buildkit"},
    "buildkit": {"rpc", "transport"},
    "llb": set(),
    "services": {"rpc", "filesync"},
    "state": {"transport.endpoint"},
    "filesync": {"protocol"},
    "rpc": {"protocol"},
    "transport": {"protocol"},
    "protocol": set(),
}

#: Single modules that may import more than their room.
EXCEPTIONS: dict[str, set[str]] = {
    "cli.demo": {"testing"},
    "cli.replay": {"testing"},
    "__main__": {"cli"},
}

#: What costs too much to be loaded before it is needed, and the one room that may import it at the top of a module.
HEAVY = {
    "asyncio": "aio",
    "argcomplete": "cli",
    "docker": "dockerpy",
    "grpc": "rpc",
    "hcl2": "bake",
    "httpx": "services",
    "IPython": "progress",
    "opentelemetry": "session",
    "platformdirs": "state",
    "rich": "progress",
    "sqlite3": "state",
    "yaml": "bake",
}


class Import(NamedTuple):
    """One imported module, or name in a module."""

    line: int
    target: str
    #: Executed when the importing module is loaded.
    at_load: bool


def imports_of(module: str, source: str) -> Iterator[Import]:
    """Yield every import in a module, with its absolute target."""
    tree = ast.parse(source)
    late = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) or _is_type_checking(node)
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(node.lineno, alias.name, id(node) not in late)
        elif isinstance(node, ast.ImportFrom):
            above = ["mobysession", *module.split(".")][: -node.level] if node.level else []
            start = ".".join([*above, *filter(None, [node.module])])
            for alias in node.names:
                yield Import(node.lineno, f"{start}.{alias.name}", id(node) not in late)


def _is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")


def violations(module: str, source: str) -> list[str]:
    """Say what is wrong with the imports of a module, named without ``mobysession.``, one line each."""
    room = module.partition(".")[0]
    file = f"mobysession/{module.replace('.', '/')}.py"
    found = []
    for line, target, at_load in imports_of(module, source):
        top, _, rest = target.partition(".")
        if top == "mobysession" and not _is_allowed(module, room, rest):
            found.append(f"{file}:{line}: imports {target}; {_rule(module, room)}")
        elif at_load and HEAVY.get(top, room) != room:
            found.append(f"{file}:{line}: imports {top} when it is loaded; only {HEAVY[top]} may, others when needed")
    return found


def _may_import(module: str, room: str) -> set[str]:
    if room in GROUND:
        return set(GROUND[: GROUND.index(room)])
    return ROOMS.get(room, set()) | EXCEPTIONS.get(module, set()) | set(GROUND)


def _is_allowed(module: str, room: str, target: str) -> bool:
    if target.partition(".")[0] == room:
        return True
    return any(f"{target}.".startswith(f"{name}.") for name in _may_import(module, room))


def _rule(module: str, room: str) -> str:
    allowed = _may_import(module, room) - (set() if room in GROUND else set(GROUND))
    more = "" if room in GROUND else " and the ground floor"
    return f"{room} may import {', '.join(sorted(allowed)) or 'nothing'}{more}"


def _modules() -> dict[str, Path]:
    """All modules but the front door, ``mobysession`` itself, which stands above every room."""
    paths = {path.relative_to(PACKAGE).with_suffix(""): path for path in sorted(PACKAGE.rglob("*.py"))}
    names = {".".join(path.parts): file for path, file in paths.items()}
    del names["__init__"]
    return names


def test_every_module_stands_in_a_room():
    """What lies in the package is a room of the house, the ground floor, or the way in: nothing grows beside them."""
    known = {*ROOMS, *GROUND, "__main__"}
    assert sorted({name.partition(".")[0] for name in _modules()} - known) == []


def test_every_room_says_what_it_is():
    """Every folder is a package, and its `__init__` opens with what the room is for."""
    folders = {path.parent for path in _modules().values()} - {PACKAGE}
    silent = [folder.name for folder in sorted(folders) if not _docstring(folder / "__init__.py")]
    assert silent == []


def _docstring(path: Path) -> str | None:
    return ast.get_docstring(ast.parse(path.read_text("utf-8"))) if path.exists() else None


def test_rooms_import_downwards_only():
    """No import in the package breaks the table."""
    found = [line for name, path in _modules().items() for line in violations(name, path.read_text("utf-8"))]
    assert not found, "\n".join(["imports against the stairs:", *found])


def test_the_table_has_no_way_up():
    """A room may only import rooms that stand below it, so that no circle can arise."""
    order = list(ROOMS)
    for room, below in ROOMS.items():
        assert all(order.index(name.partition(".")[0]) > order.index(room) for name in below), room


SERVICE = "services.health"


@pytest.mark.parametrize(
    ("module", "source", "expected"),
    [
        (SERVICE, "from mobysession.rpc.registrar import Registrar", None),
        (SERVICE, "import mobysession.session", "mobysession/services/health.py:1: imports mobysession.session"),
        (SERVICE, "def f():\n    from mobysession.build import x", "health.py:2: imports mobysession.build.x"),
        (SERVICE, "if TYPE_CHECKING:\n    import mobysession.session.session", "health.py:2: imports"),
        (SERVICE, "from mobysession import session", "services may import filesync, rpc and the ground floor"),
        (SERVICE, "from mobysession import Session", "imports mobysession.Session"),
        (SERVICE, "from mobysession.protocol import events", "imports mobysession.protocol.events"),
        (SERVICE, "from . import secrets", None),
        (SERVICE, "from ..session import attach", "imports mobysession.session.attach"),
        (SERVICE, "from .. import limits", None),
        ("services.__init__", "from ..session import attach", "imports mobysession.session.attach"),
        ("state.store", "from mobysession.transport.endpoint import Endpoint", None),
        ("state.store", "from mobysession.transport import endpoint", None),
        ("state.store", "from mobysession.transport import dial", "state may import transport.endpoint"),
        ("state.store", "from mobysession.transport.endpoints import x", "state may import transport.endpoint"),
        ("protocol.framing", "import mobysession.errors", None),
        ("protocol.framing", "from mobysession.rpc import server", "protocol may import nothing and the ground floor"),
        ("sync", "from mobysession.aio import x", "sync may import bake, build,"),
        ("errors", "from mobysession import limits", "errors may import nothing"),
        ("identity", "from mobysession.dockerconfig import config_dir", None),
        ("dockerconfig", "from mobysession import identity", "dockerconfig may import"),
        ("cli.build", "from mobysession.testing import engine", "imports mobysession.testing.engine"),
        ("cli.demo", "from mobysession.testing import engine", None),
        ("__main__", "from mobysession.cli import main", None),
        ("progress.tty", "import rich.live", None),
        ("progress.tty", "import asyncio", "imports asyncio when it is loaded; only aio may"),
        ("rpc.server", "from rich import live", "imports rich when it is loaded; only progress may"),
        ("rpc.server", "def f():\n    import rich", None),
        ("rpc.server", "if TYPE_CHECKING:\n    import rich", None),
        ("rpc.server", "try:\n    import rich\nexcept ImportError:\n    pass", "imports rich when it is loaded"),
    ],
)
def test_the_reader_of_imports_sees(module, source, expected):
    """Each kind of import is judged, wherever it stands, and a breach names file, line and rule."""
    found = violations(module, source)
    assert len(found) == (expected is not None)
    assert expected is None or expected in found[0]
