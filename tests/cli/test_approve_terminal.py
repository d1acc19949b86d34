"""``build --approve`` at a terminal, with the progress table on it: a question is whole, and so is what follows it."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import struct
import sys
import termios
import time
from typing import TYPE_CHECKING

import pytest
import trio

from mobysession.concurrency import open_nursery
from mobysession.testing import BlockingFakeDaemon, FakeSolve
from tests.cli.screen import Screen

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

QUESTION = "The engine asks for secret token, session context ("
PATIENCE = 20.0


async def asking_build(solve: FakeSolve) -> dict[str, str]:
    """Log before and after a secret is asked for, while another step logs on and on."""
    session = await solve.session()
    async with solve.vertex("[1/2] RUN before") as step:
        step.log("first line\n")
    async with open_nursery() as nursery:

        async def chatter() -> None:
            async with solve.vertex("[2/2] RUN meanwhile") as step:
                while True:
                    step.log("and on\n")
                    await trio.sleep(0.02)

        nursery.start_soon(chatter)
        async with solve.vertex("[1/2] RUN --mount=type=secret,id=token") as step:
            step.log(f"got {len(await session.get_secret('token'))} bytes\n")
        nursery.cancel_scope.cancel()
    return {"containerimage.digest": "sha256:" + "0" * 64}


class Person:
    """Who sits at the terminal of a program."""

    def __init__(self, process: int, terminal: int) -> None:
        self.process = process
        self._terminal = terminal
        self.screen = Screen()
        self.written = ""

    def read_until(self, words: str) -> None:
        """Read until ``words`` can be seen; to the end where they are empty."""
        deadline = time.monotonic() + PATIENCE
        while not words or words not in self.screen.text:
            assert time.monotonic() < deadline, self.screen.text
            if select.select([self._terminal], [], [], 0.1)[0]:
                try:
                    text = os.read(self._terminal, 65536).decode()
                except OSError:  # the program has ended
                    assert not words, self.screen.text
                    return
                self.written += text
                self.screen.write(text)

    def stare(self, seconds: float) -> str:
        """Watch for a while; return what was written."""
        before, deadline = len(self.written), time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            if select.select([self._terminal], [], [], left)[0]:
                text = os.read(self._terminal, 65536).decode()
                self.written += text
                self.screen.write(text)
        return self.written[before:]

    def type(self, text: str) -> None:
        """Type."""
        os.write(self._terminal, text.encode())

    def wait(self) -> int:
        """Return the exit status."""
        return os.waitstatus_to_exitcode(os.waitpid(self.process, 0)[1])


@pytest.fixture(params=["tty", "plain"])
def person(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Person]:
    """Sit at a terminal on which a build has been started that will ask."""
    context = tmp_path / "context"
    context.mkdir()
    (context / "Dockerfile").write_text("FROM scratch\n")
    with BlockingFakeDaemon(script=asking_build) as daemon:
        argv = [
            sys.executable,
            "-m",
            "mobysession",
            "-H",
            daemon.host,
            "build",
            "--approve",
            "--progress",
            request.param,
        ]
        argv += ["--secret", "id=token,env=TOKEN", str(context)]
        environment = {**os.environ, "TOKEN": "hush", "TERM": "xterm", "NO_COLOR": "1"}
        process, terminal = pty.fork()
        if not process:  # the child
            os.execve(sys.executable, argv, environment)
        fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 160, 0, 0))
        try:
            yield Person(process, terminal)
        finally:
            os.close(terminal)


def test_a_question_is_whole_while_the_build_goes_on(person: Person) -> None:
    """Nothing is written behind it, however much happens; the answer is read, and what was held back comes then."""
    person.read_until("ne[v]er:")
    last = person.screen.text.splitlines()[-1]
    assert last.startswith(QUESTION)
    assert last.endswith("Allow? [y]es, [a]lways, [N]o, ne[v]er:")
    assert person.stare(0.5) == ""
    person.type("y\n")
    person.read_until("")
    assert person.wait() == 0
    text = person.screen.text
    assert text.count(QUESTION) == 1
    [question] = [line for line in text.splitlines() if QUESTION in line]
    assert question == f"{last} y"
    assert "RUN --mount=type=secret,id=token" in text.partition(question)[2]
    assert "RUN before" in text


def test_a_question_that_is_refused_shows_the_failure_whole(person: Person) -> None:
    """The logs and the error stand below the answer, nothing over it."""
    person.read_until("ne[v]er:")
    person.type("n\n")
    person.read_until("")
    assert person.wait() == 1
    answered = [line for line in person.screen.text.splitlines() if QUESTION in line]
    assert len(answered) == 1
    assert answered[0].endswith("ne[v]er: n")
    below = person.screen.text.partition(answered[0])[2]
    assert "refused by the client" in below
    # A line of the log comes between: it has one of its own, and no table is left behind half drawn.
    assert below.count("[+] Building") <= 1
    [logged] = [line for line in below.splitlines() if "mobysession.session" in line]
    assert logged.endswith("secret token is refused: refused")


def test_ctrl_c_at_a_question_ends_the_build(person: Person) -> None:
    """Status 130; the table that is drawn last begins on a line of its own."""
    person.read_until("ne[v]er:")
    person.type("\x03")
    person.read_until("")
    assert person.wait() == 130
    [asked] = [line for line in person.screen.text.splitlines() if QUESTION in line]
    assert asked.removesuffix("^C").rstrip().endswith("ne[v]er:")
