"""A program in a container of an engine: asked for, spoken with, and what became of it; booting one."""

from __future__ import annotations

import json
from contextlib import aclosing, asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

from mobysession import errors, limits
from mobysession.testing.http_side import HttpSide, Refused
from mobysession.transport import boot
from mobysession.transport.boot import host_config
from mobysession.transport.command import CommandLost, CommandNotConnected
from mobysession.transport.container import ContainerUnavailable, ExecStream, find_engine, open_exec
from mobysession.transport.dial import dial
from mobysession.transport.endpoint import Endpoint
from mobysession.transport.remote import ContainerAddress

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from mobysession.testing.http_side import Request
    from tests.transport.conftest import Daemon, Serve

    Program = Callable[[trio.abc.Stream], Awaitable[None]]


def out(data: bytes, stream: int = 1) -> bytes:
    return bytes([stream, 0, 0, 0]) + len(data).to_bytes(4, "big") + data


class Engine:
    """As much of an engine as has one container. ``program`` is what every exec runs but ``debug workers``.

    Attributes:
        container: what ``inspect`` says of it; None: there is none.
        status: of every exec; None: it runs.
        answers: the statuses of ``debug workers``, in turn; the last one stays.
        asked: method and path of each request, and its body as JSON.
    """

    def __init__(self, program: Program | None = None, *, status: int | None = 0) -> None:
        self.program = program or self.echo
        self.status = status
        self.container: dict[str, Any] | None = {"Id": "c1", "State": {"Running": True}}
        self.answers = [0]
        self.image_there = True
        self.pull = [{"status": "Pulling"}, {"status": "Done"}]
        self.asked: list[tuple[str, str, Any]] = []
        self.info: dict[str, Any] = {"CgroupDriver": "systemd", "SecurityOptions": ["name=seccomp,profile=default"]}
        self._commands: dict[str, list[str]] = {}

    async def echo(self, stream: trio.abc.Stream) -> None:
        await stream.send_all(out(b"note", 2) + out(b"ready"))
        async for data in stream:
            await stream.send_all(out(bytes(data)))

    async def __call__(self, stream: trio.abc.Stream) -> None:
        http = HttpSide(stream, api_version="1.51", server="a test")
        async with aclosing(http.requests()) as requests:  # type: ignore[type-var]  # a generator, and says less
            async for request in requests:
                body = await http.body()
                self.asked.append((request.method, request.path, json.loads(body) if body else None))
                try:
                    if await self._answer(http, request, self.asked[-1][2]):
                        return
                except Refused as refused:
                    await http.refuse(refused)

    async def _answer(self, http: HttpSide, request: Request, body: Any) -> bool:
        path = request.path
        if path.startswith("/exec/") and path.endswith("/start"):
            await http.switch("tcp")
            if "debug" not in self._commands[path.split("/")[2]]:
                await self.program(http.stream)
            return True
        if path.startswith("/exec/"):
            asks = "debug" in self._commands[path.split("/")[2]]
            status = (self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]) if asks else self.status
            await http.answer_json({"ExitCode": status, "Running": status is None})
        elif path == "/info":
            await http.answer_json(self.info)
        elif path.startswith("/images/") and path != "/images/create":
            if not self.image_there:
                raise Refused(404, "No such image")
            await http.answer_json({})
        elif path == "/images/create":
            await http.answer(
                200, b"".join(json.dumps(line).encode() + b"\n" for line in self.pull), "application/json"
            )
        elif path == "/containers/create":
            self.container = {"Id": "c2", "State": {"Running": False}}
            await http.answer_json({"Id": "c2"}, status=201)
        elif path.endswith("/logs"):
            await http.answer(200, out(b"its last words\n"), "application/octet-stream")
        else:
            await self._about_the_container(http, path, body)
        return False

    async def _about_the_container(self, http: HttpSide, path: str, body: Any) -> None:
        if self.container is None:
            raise Refused(404, "No such container: bk")
        if path.endswith("/start"):
            self.container["State"]["Running"] = True
            await http.answer(204, b"", "text/plain")
        elif path.endswith("/exec"):
            if not self.container["State"]["Running"]:
                raise Refused(409, "container bk is not running")
            number = f"e{len(self._commands)}"
            self._commands[number] = body["Cmd"]
            await http.answer_json({"Id": number}, status=201)
        else:
            await http.answer_json(self.container)


@asynccontextmanager
async def program(serve: Serve, engine: Engine) -> AsyncIterator[ExecStream]:
    async with serve(engine) as endpoint, await open_exec(endpoint, "bk", ["p", "x"], name="the test") as stream:
        yield stream


async def test_a_program_in_a_container_is_a_stream(serve: Serve) -> None:
    """Bytes go both ways, stderr is kept apart, sizes of reads are obeyed, and the end is passed on and back."""
    engine = Engine()
    async with program(serve, engine) as stream:
        assert await stream.receive_some(3) == b"rea"
        assert await stream.receive_some() == b"dy"
        assert stream.last_words == "note"
        await stream.wait_send_all_might_not_block()
        await stream.send_all(b"ping")
        assert await stream.receive_some() == b"ping"
        with pytest.raises(ValueError, match="max_bytes"):
            await stream.receive_some(0)
        assert isinstance(stream, trio.abc.HalfCloseableStream)
        await stream.send_eof()
        assert [await stream.receive_some() for _ in range(2)] == [b"", b""]
    with pytest.raises(trio.ClosedResourceError):
        await stream.receive_some()
    assert engine.asked[0] == (
        "POST",
        "/containers/bk/exec",
        {"AttachStdin": True, "AttachStdout": True, "AttachStderr": True, "Tty": False, "Cmd": ["p", "x"]},
    )
    assert engine.asked[1] == ("POST", "/exec/e0/start", {"Detach": False, "Tty": False})


async def test_it_is_a_stream_by_trios_own_rules(serve: Serve) -> None:
    """trio's checks of a half-closeable stream pass, with a program at the other end that ends when it is told to."""

    async def make_pair() -> tuple[trio.abc.HalfCloseableStream, trio.abc.HalfCloseableStream]:
        far, near = trio.testing.memory_stream_pair()

        async def run(stream: trio.abc.Stream) -> None:
            async with near, trio.open_nursery() as inner:
                inner.start_soon(read, stream)
                with suppress(trio.BrokenResourceError):
                    while data := await near.receive_some():
                        await stream.send_all(out(bytes(data)))
                inner.cancel_scope.cancel()

        async def read(stream: trio.abc.Stream) -> None:
            with suppress(trio.BrokenResourceError):
                while data := await stream.receive_some():
                    await near.send_all(data)
                await near.send_eof()

        stream: ExecStream = await nursery.start(hold, run)
        assert isinstance(stream, trio.abc.HalfCloseableStream)
        return stream, far

    async def hold(run: Program, *, task_status: trio.TaskStatus[ExecStream]) -> None:
        async with program(serve, Engine(run)) as stream:
            task_status.started(stream)
            await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        await trio.testing.check_half_closeable_stream(make_pair, None)
        nursery.cancel_scope.cancel()


async def test_a_large_output_arrives_whole(serve: Serve) -> None:
    """Frames larger than a read, and many in one, give the same bytes."""
    data = bytes(range(256)) * 8192

    async def write(stream: trio.abc.Stream) -> None:
        await stream.send_all(out(data) + b"".join(out(data[at : at + 100]) for at in range(0, 100_000, 100)))

    async with program(serve, Engine(write)) as stream:
        received = b"".join([chunk async for chunk in stream])
    assert received == data + data[:100_000]


async def end(stream: trio.abc.Stream) -> None:
    await stream.send_all(out(b"no such\nsocket", 2))


async def end_late(stream: trio.abc.Stream) -> None:
    await stream.send_all(out(b"x") + out(b"gone", 2))


async def never_ran(stream: trio.abc.Stream) -> None:
    for piece in (b"OCI runtime exec failed: exec failed:", b' "p": executable file not found in $PATH: unknown\r\n'):
        await stream.send_all(out(piece))


async def by_the_engine(stream: trio.abc.Stream) -> None:
    await stream.send_all(out(b"the engine lost it", 3))
    await trio.sleep_forever()


async def cut_off(stream: trio.abc.Stream) -> None:
    await stream.send_all(out(b"half of it")[:-3])


async def junk(stream: trio.abc.Stream) -> None:
    await stream.send_all(b"a terminal's output")


@pytest.mark.parametrize(
    ("run", "status", "words", "hint"),
    [
        (end, 1, "p in the container ended with status 1: no such socket", None),
        (end, None, "p in the container ended: no such socket", None),
        (never_ran, 126, 'status 126: OCI runtime exec failed: exec failed: "p": executable file not found', "PATH"),
        (by_the_engine, 255, "the engine lost it", None),
        (junk, 0, "not in frames", None),
    ],
)
async def test_why_a_program_failed_is_told(
    serve: Serve, run: Program, status: int | None, words: str, hint: str | None
) -> None:
    """Before it has said anything: it was not connected to. Also what the engine says in its place is told."""
    async with program(serve, Engine(run, status=status)) as stream:
        with pytest.raises(CommandNotConnected) as caught:
            await stream.receive_some()
        if run is not junk:
            with pytest.raises(CommandNotConnected):
                await stream.receive_some()
    assert words in str(caught.value)
    assert str(caught.value).isprintable()
    assert (hint or "") in (caught.value.hint or "")


async def test_a_program_that_fails_later_is_a_lost_connection(serve: Serve) -> None:
    """What it had said is read first."""
    async with program(serve, Engine(end_late, status=137)) as stream:
        assert await stream.receive_some() == b"x"
        with pytest.raises(CommandLost, match="status 137: gone") as caught:
            await stream.receive_some()
    assert caught.value.status == 137


@pytest.mark.parametrize("status", [None, 0])
async def test_an_end_in_the_middle_is_a_lost_connection(serve: Serve, status: int | None) -> None:
    """What has come is read; that more was promised is told, whatever the engine says of the program."""
    async with program(serve, Engine(cut_off, status=status)) as stream:
        assert await stream.receive_some() == b"half of"
        with pytest.raises(CommandLost, match="p in the container was cut off"):
            await stream.receive_some()


async def test_an_answer_that_is_no_json_is_told(serve: Serve, daemon: Daemon) -> None:
    """What accepts a program and says something else than its ID is no engine to speak with."""
    answer = b"HTTP/1.1 201 Created\r\nContent-Length: 4\r\n\r\nfine"
    async with serve(daemon.answer(answer)) as endpoint:
        with pytest.raises(errors.ConnectError, match="gave no ID"):
            await open_exec(endpoint, "bk", ["p"], name="the test")


@pytest.mark.parametrize(("container", "words"), [(None, "does not exist"), ({"State": {"Running": False}}, "not run")])
async def test_a_container_that_is_not_there_is_told(serve: Serve, container: Any, words: str) -> None:
    """The hint is how to have it made and started."""
    engine = Engine()
    engine.container = container
    async with serve(engine) as endpoint:
        with pytest.raises(ContainerUnavailable, match=words) as caught:
            await dial(Endpoint.parse(f"docker-container://bk?host={endpoint.url.replace('%', '%25')}"))
    assert "?boot=1" in (caught.value.hint or "")


async def test_cancelling_leaves_nothing(serve: Serve) -> None:
    """An engine that does not answer is left at once."""

    async def wait(_: trio.abc.Stream) -> None:
        await trio.sleep_forever()

    with trio.move_on_after(0.05) as scope:
        async with serve(wait) as endpoint:
            await open_exec(endpoint, "bk", ["p"], name="the test")
    assert scope.cancelled_caught


def test_which_engine_has_the_container(monkeypatch: pytest.MonkeyPatch, docker_config: Any) -> None:
    """The one that is named, else that of the environment; a buildkitd is none."""
    monkeypatch.setenv("DOCKER_HOST", "tcp://there:1")
    assert find_engine(ContainerAddress("bk"), "x").url == "tcp://there:1"
    assert find_engine(ContainerAddress("bk", engine="unix:///here"), "x").url == "unix:///here"
    assert find_engine(ContainerAddress("bk", context="default"), "x").url == "tcp://there:1"
    monkeypatch.setenv("DOCKER_HOST", "docker-container://bk")
    with pytest.raises(errors.EndpointError, match="which is a buildkitd") as caught:
        find_engine(ContainerAddress("bk"), "x")
    assert "?host=" in (caught.value.hint or "")


# -- booting -----------------------------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def _forget() -> None:
    boot._answered.clear()


@asynccontextmanager
async def booted(serve: Serve, engine: Engine, options: str = "") -> AsyncIterator[Callable[[], Awaitable[Any]]]:
    async with serve(engine) as endpoint:
        url = f"docker-container://bk?boot=1{options}&host={endpoint.url.replace('%', '%25')}"

        async def connect() -> None:
            async with await dial(Endpoint.parse(url)):
                pass

        yield connect


def paths(engine: Engine) -> list[str]:
    return [f"{method} {path}" for method, path, _ in engine.asked if not path.startswith("/exec/")]


async def test_a_container_is_made_started_and_waited_for(serve: Serve, autojump_clock: trio.testing.MockClock) -> None:
    """It is of the image and with the options that were asked for; the connection comes when its buildkitd answers."""
    engine = Engine()
    engine.container, engine.answers, engine.image_there = None, [1, 1, 0], False
    async with booted(
        serve, engine, "&image=reg:5000/bk&env.A=b&network=host&buildkitd-flags=--debug%20--x=%27y%20z%27"
    ) as connect:
        await connect()
    assert paths(engine) == [
        *("GET /containers/bk/json", "GET /images/reg:5000/bk/json", "POST /images/create", "GET /info"),
        *("POST /containers/create", "POST /containers/bk/start", "POST /containers/bk/exec"),
        *("GET /containers/bk/json", "POST /containers/bk/exec") * 2,
        "POST /containers/bk/exec",
    ]
    (wanted,) = [body for _, path, body in engine.asked if path == "/containers/create"]
    assert wanted["Image"] == "reg:5000/bk"
    assert wanted["Cmd"] == ["--debug", "--x=y z"]
    assert wanted["Env"] == ["A=b"]
    assert wanted["HostConfig"]["NetworkMode"] == "host"


async def test_a_container_that_runs_is_asked_once(serve: Serve) -> None:
    """It is left as it is, and from the second connection on it is known to answer."""
    engine = Engine()
    async with booted(serve, engine) as connect:
        await connect()
        await connect()
    assert paths(engine) == [
        *("GET /containers/bk/json", "POST /containers/bk/exec", "POST /containers/bk/exec"),
        *("GET /containers/bk/json", "POST /containers/bk/exec"),
    ]


async def test_a_buildkitd_that_never_answers_is_given_up(serve: Serve, autojump_clock: trio.testing.MockClock) -> None:
    """After as many times as buildx asks, with the container's last words."""
    engine = Engine()
    engine.answers = [1]
    async with booted(serve, engine) as connect:
        with pytest.raises(errors.ConnectError, match="no buildkitd answers in it") as caught:
            await connect()
    assert "its last words" in (caught.value.hint or "")
    assert paths(engine).count("POST /containers/bk/exec") == 1 + limits.BOOT_ATTEMPTS


async def test_a_pull_that_fails_is_told(serve: Serve) -> None:
    """The engine's error comes in the middle of a good answer."""
    engine = Engine()
    engine.container, engine.image_there = None, False
    engine.pull = [{"status": "Pulling"}, {"error": "denied: no access"}]
    async with booted(serve, engine, "&image=x@sha256:0") as connect:
        with pytest.raises(errors.ConnectError, match="cannot get the image x@sha256:0: denied") as caught:
            await connect()
    assert "docker pull x@sha256:0" in (caught.value.hint or "")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("&memory=much", "memory cannot be 'much'"),
        ("&cpu-quota=1.5", "cpu-quota cannot be '1.5'"),
        ("&restart-policy=on-failure:x", "restart-policy cannot be 'x'"),
        ("&buildkitd-flags=%27", "buildkitd-flags cannot be taken apart"),
    ],
)
async def test_an_option_that_makes_no_sense_is_told(serve: Serve, options: str, words: str) -> None:
    """Before anything is made."""
    engine = Engine()
    engine.container = None
    async with booted(serve, engine, options) as connect:
        with pytest.raises(errors.EndpointError, match=words):
            await connect()
    assert engine.container is None


def test_the_container_is_as_buildx_makes_it() -> None:
    """Privileged, with an init, its state in a volume of its own, under buildx's cgroup where that is a directory."""
    assert host_config("bk", {}, {}, name="x") == {
        "Privileged": True,
        "Init": True,
        "RestartPolicy": {"Name": "unless-stopped", "MaximumRetryCount": 0},
        "Mounts": [{"Type": "volume", "Source": "bk_state", "Target": "/var/lib/buildkit"}],
    }
    info = {"CgroupDriver": "cgroupfs", "SecurityOptions": ["name=userns"]}
    config = host_config(
        "bk",
        {
            "memory": "512m",
            "memory-swap": "-1",
            "cpu-shares": "5",
            "cpuset-cpus": "0-1",
            "restart-policy": "on-failure:3",
            "privileged": "0",
        },
        info,
        name="x",
    )
    assert config["RestartPolicy"] == {"Name": "on-failure", "MaximumRetryCount": 3}
    assert (config["CgroupParent"], config["UsernsMode"]) == ("/docker/buildx", "host")
    assert (config["Memory"], config["MemorySwap"], config["CpuShares"]) == (512 * 2**20, -1, 5)
    assert config["CpusetCpus"] == "0-1"
    assert config["Privileged"] is False
    assert host_config("bk", {"cgroup-parent": "/x"}, info, name="x")["CgroupParent"] == "/x"
