"""What is loaded when: start-up time is a feature, and the protocol must run without a loop or a socket.

Each question is put to a fresh interpreter, away from the checkout and from what pytest has loaded.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from mobysession.testing import BlockingFakeDaemon

PACKAGE = Path(__file__).parent.parent / "mobysession"

#: What costs milliseconds and is needed by few: only what uses it may load it.
HEAVY = {
    *("argcomplete", "asyncio", "docker", "grpc", "httpx", "keyring", "opentelemetry", "platformdirs", "rich"),
    "sqlite3",
}
#: How many of our modules a small build may load: each is 0.2 ms, before it does anything.
MOST_OF_OURS = 140
WAITING = {"trio", "anyio", "asyncio", "socket", "_socket", "ssl", "_ssl", "selectors"}

_ASK = """
import json, sys
watched = set({watched!r})
seen = watched & set(sys.modules)
assert not seen, f"the interpreter itself has loaded {{seen}}"
loaded = {{}}
def look(who):
    global seen
    now = watched & set(sys.modules)
    loaded[who] = sorted(now - seen)
    seen = now
{body}
print(json.dumps(loaded))
"""


def _ask(body: str, watched: set[str], directory: Path) -> dict[str, list[str]]:
    """Run ``body``; return which of the watched modules were new at each ``look(who)`` in it."""
    code = _ASK.format(watched=sorted(watched), body=body)
    done = subprocess.run([sys.executable, "-I", "-c", code], cwd=directory, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    answer: dict[str, list[str]] = json.loads(done.stdout.splitlines()[-1])
    return answer


def _modules(*rooms: str) -> list[str]:
    paths = [path for room in rooms for path in sorted((PACKAGE / room).rglob("*.py"))]
    names = [".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts) for path in paths]
    return [name.removesuffix(".__init__") for name in names]


def _import_all(names: list[str]) -> str:
    return "\n".join(f"import {name}; look({name!r})" for name in names)


def test_the_package_loads_nothing_heavy(tmp_path):
    """`import mobysession` loads neither the loop nor any library that only some of its users need."""
    assert _ask("import mobysession; look('mobysession')", HEAVY | {"trio", "h2", "ssl"}, tmp_path) == {
        "mobysession": []
    }


def test_every_exported_name_is_there(tmp_path):
    """What `mobysession` lists in `__all__` can be had from it, although it is loaded late."""
    body = "import mobysession\nfor name in mobysession.__all__: getattr(mobysession, name)\nlook('all')"
    assert _ask(body, {"sqlite3"}, tmp_path) == {"all": []}


def test_the_protocol_needs_neither_loop_nor_socket(tmp_path):
    """No module of `mobysession.protocol`, nor what it imports from others, loads trio, socket or ssl."""
    names = _modules("protocol")
    assert len(names) > 5
    loaded = _ask(_import_all(names), WAITING, tmp_path)
    assert {name: found for name, found in loaded.items() if found} == {}


def test_a_session_and_a_build_load_nothing_heavy(tmp_path):
    """The rooms that every build goes through get by without what only some front doors and views need."""
    names = _modules("rpc", "transport", "filesync", "services", "buildkit", "session", "build")
    # What hosts grpcio's servicers is imported when somebody has one; what fetches tokens, when a registry wants one;
    # what writes an index, when several nodes have built.
    late = {
        *(
            "mobysession.services.registry",
            "mobysession.services.registry_http",
            "mobysession.services.registry_tokens",
        ),
        *(() if sys.platform == "win32" else ("mobysession.transport.pipe_windows",)),
    }
    names = [name for name in names if name not in late and not name.startswith("mobysession.rpc.grpcio")]
    loaded = _ask(_import_all(names), HEAVY, tmp_path)
    assert {name: found for name, found in loaded.items() if found} == {}


def test_a_build_gets_by_with_the_c_half_of_protobuf(tmp_path):
    """Its half in Python took as long as all else about the messages, and the C half needs next to nothing of it."""
    body = """
import mobysession.build.build, mobysession.build.control_driver, mobysession.filesync.sender
look("build")
"""
    assert _ask(body, {"google.protobuf.internal.python_message"}, tmp_path) == {"build": []}


def test_the_first_message_class_is_one_for_all_threads(tmp_path):
    """protobuf's C half imports something when it makes its first class, and lets other threads run meanwhile."""
    code = """
import sys, threading
from mobysession._pb import control_pb2
sys.setswitchinterval(1e-6)
gate, found = threading.Barrier(8), []
def ask():
    gate.wait()
    found.append(control_pb2.PruneRequest)
threads = [threading.Thread(target=ask) for _ in range(8)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
assert len(found) == 8 and len(set(found)) == 1, found
"""
    done = subprocess.run([sys.executable, "-I", "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("implementation", ["upb", "python"])
def test_messages_work_with_either_half_of_protobuf(tmp_path, monkeypatch, implementation):
    """Maps, nested messages, enums and another file's types go there and back, whoever makes the classes."""
    monkeypatch.setenv("PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION", implementation)
    body = """
from google.protobuf.internal import api_implementation
from mobysession._pb import control_pb2, fsutil_pb2, health_pb2
request = control_pb2.SolveRequest(Ref="r", FrontendAttrs={"a": "b"}, Exporters=[control_pb2.Exporter(Type="moby")])
assert control_pb2.SolveRequest.FromString(request.SerializeToString()) == request
vertex = control_pb2.Vertex(digest="d")
vertex.started.seconds = 5
vertex.progressGroup.id = "g"
assert control_pb2.Vertex.FromString(vertex.SerializeToString()).started.ToSeconds() == 5
assert fsutil_pb2.Packet.PACKET_FIN == fsutil_pb2.Packet.PacketType.Value("PACKET_FIN") == 3
answer = health_pb2.HealthCheckResponse(status=health_pb2.HealthCheckResponse.SERVING)
assert (answer.SerializeToString(), type(answer).__module__) == (b"\\x08\\x01", "mobysession._pb.health_pb2")
look(api_implementation.Type())
"""
    watched = {"google.protobuf.internal.python_message"}
    assert _ask(body, watched, tmp_path) == {implementation: sorted(watched) if implementation == "python" else []}


def test_asking_for_the_version_is_cheap(tmp_path):
    """`mobysession --version` prints the version and ends with 0, without the CLI's library and without a loop."""
    body = """
import io
sys.stdout, printed = io.StringIO(), sys.stdout
from mobysession.cli import main
try:
    status = main(["--version"])
except SystemExit as end:
    status = end.code
sys.stdout, printed = printed, sys.stdout.getvalue()
from mobysession._version import __version__
assert not status and __version__ in printed, (status, printed)
look("--version")
"""
    assert _ask(body, HEAVY | {"trio"}, tmp_path) == {"--version": []}


_BUILD = """
import os
from mobysession.cli import entry
from mobysession.cli.deferred import MODULES

def tell(status):
    ran = [name for name in sys.modules if name in MODULES and "__getattr__" not in vars(sys.modules[name])]
    print(json.dumps({"status": status, "loaded": sorted(sys.modules), "ran": ran}), flush=True)
    leave(status)

leave, os._exit = os._exit, tell
sys.argv = ["mobysession", *sys.argv[1:]]
entry()
"""


def test_a_small_build_loads_what_it_uses(tmp_path):
    """From a cold process most of a small build's time is its imports, so what it need not load it does not.

    Whoever comes past the bound has put something on the way of every build: see `mobysession.cli.deferred`, and
    imports inside functions, for what is needed by few.
    """
    (tmp_path / "Dockerfile").write_text("FROM scratch\n")
    with BlockingFakeDaemon() as daemon:
        arguments = ["-H", daemon.host, "build", "--progress", "plain", str(tmp_path)]
        done = subprocess.run(
            [sys.executable, "-I", "-c", "import json, sys\n" + _BUILD, *arguments], capture_output=True, text=True
        )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["status"] == 0, done.stderr
    loaded = set(told["loaded"])
    assert loaded & (HEAVY | {"h11", "hashlib", "secrets", "uuid", "_ssl", "_hashlib"}) == set()
    # From 3.13 on dataclasses asks inspect for the annotations of every class.
    assert set(told["ran"]) <= ({"inspect"} if sys.version_info >= (3, 13) else set())
    assert len([name for name in loaded if name.partition(".")[0] == "mobysession"]) <= MOST_OF_OURS


@pytest.mark.parametrize("name", ["socket", "json"])
def test_the_question_can_be_answered_with_yes(tmp_path, name):
    """A module that is loaded is reported: the other tests could fail."""
    assert _ask(f"import {name}; look('it')", {"socket", "json.tool"}, tmp_path) == {
        "it": ["socket"] if name == "socket" else []
    }
