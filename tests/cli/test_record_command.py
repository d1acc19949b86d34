"""``mobysession record``, ``recording`` and ``replay``: a build in a file, shown, and played again."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
from html.parser import HTMLParser
from typing import TYPE_CHECKING

import pytest

from mobysession.recording import (
    CallBegan,
    CallOver,
    ConnectionBegan,
    Header,
    Message,
    Record,
    Recording,
    RunChanged,
    read_recording,
    write_recording,
)
from mobysession.testing import BlockingFakeDaemon

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.cli.conftest import Cli

SECRET = "correct horse battery"
EVIL = "</script><script>alert(1)</script><img src=x onerror=alert(2)>\x1b[2J"


@pytest.fixture
def daemon(monkeypatch: pytest.MonkeyPatch) -> Iterator[BlockingFakeDaemon]:
    """Give a fake daemon that DOCKER_HOST names."""
    with BlockingFakeDaemon() as daemon:
        monkeypatch.setenv("DOCKER_HOST", daemon.host)
        yield daemon


@pytest.fixture
def words(context: Path, tmp_path: Path) -> list[str]:
    """Give the words of a build whose context holds its secret."""
    (context / "hello.txt").write_text(f"hello {SECRET}")
    (tmp_path / "token").write_text(SECRET)
    return ["build", "--secret", f"id=token,src={tmp_path / 'token'}", str(context)]


@pytest.fixture
def file(cli: Cli, daemon: BlockingFakeDaemon, words: list[str], tmp_path: Path) -> Path:
    """Give the recording of the build."""
    path = tmp_path / "build.recording"
    ran = cli("record", "-o", path, "--frames", "--", *words, "--build-arg", f"PASSWORD={SECRET[:7]}")
    assert ran.status == 0, ran.err
    assert f"recorded 4 calls in {path}" in ran.err
    return path


def test_a_build_is_recorded_without_its_secrets(file: Path, words: list[str]) -> None:
    """The file has the build's words but for build arguments, its calls, and no secret."""
    recording = read_recording(file)
    assert list(recording.header.command) == words
    assert recording.header.frames
    assert SECRET.encode() not in file.read_bytes()
    assert SECRET[:7] not in " ".join(recording.header.command)
    bodies = [record.body or b"" for record in recording if isinstance(record, Message)]
    assert any(b"hello ****" in body for body in bodies)
    assert not any(SECRET.encode() in body for body in bodies)


def test_a_build_that_fails_is_recorded_too(
    cli: Cli, daemon: BlockingFakeDaemon, context: Path, tmp_path: Path
) -> None:
    """The status is the build's, and what was said until then is in the file; lightweight has no bodies."""
    path = tmp_path / "failed.gz"
    (context / "Dockerfile").write_text("FROM scratch\nCOPY missing.txt /\n")
    ran = cli("record", "--lightweight", "-o", path, "--", "build", context)
    assert ran.status == 1
    assert "missing.txt" in ran.err
    assert gzip.decompress(path.read_bytes()).startswith(b'{"format":"mobysession-recording"')
    recording = read_recording(path)
    assert recording.header.mode == "lightweight"
    kinds = {type(record) for record in recording}
    assert CallOver in kinds
    assert Message not in kinds


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--build-arg", "A=b", "--label=x=y", "--target", "t", "."], ["--target", "t", "."]),
        (["--build-arg=A=b", "--annotation", "c=d", "."], ["."]),
        (["https://ada:hunter2@host/x.git"], ["https://***@host/x.git"]),
        (["--build-context", "a=https://ada@host/x", "."], ["--build-context", "a=https://***@host/x", "."]),
    ],
)
def test_words_that_may_be_secret(given: list[str], said: list[str]) -> None:
    """Build arguments and the like are left out of the words of a build, and logins out of addresses."""
    from mobysession.cli.record import said_words

    assert said_words(given) == said


def test_only_builds_are_recorded(cli: Cli, tmp_path: Path) -> None:
    """Another verb, or none, is wrong usage; nothing is written."""
    for words in ([], ["--"], ["--", "du"], ["build", "."]):
        ran = cli("record", "-o", tmp_path / "none", *words)
        assert ran.status == 2
    assert "only builds are recorded" in cli("record", "--", "du").err
    assert not (tmp_path / "none").exists()


def test_show(cli: Cli, file: Path) -> None:
    """The text has a line for each call and each method; JSON has all of it."""
    lines = cli("recording", "show", file).out.splitlines()
    assert lines[0].startswith("full recording of ")
    assert sum("DiffCopy  context" in line for line in lines) == 2
    assert any("/moby.buildkit.secrets.v1.Secrets/GetSecret  1 calls, " in line for line in lines)
    shown = json.loads(cli("recording", "show", "--json", file).out)
    assert shown["is_complete"]
    assert {record["type"] for record in shown["records"]} >= {"connection", "call", "message", "call_over", "frame"}
    assert shown["summary"]["/moby.buildkit.secrets.v1.Secrets/GetSecret"]["calls"] == 1


class Tags(HTMLParser):
    """Counts the elements of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Count it, and see that nothing on it runs."""
        self.tags.append(tag)
        assert not any(name.startswith("on") for name, _ in attrs)


def test_nothing_in_a_recording_becomes_markup_or_speaks_to_the_terminal(cli: Cli, tmp_path: Path) -> None:
    """Whatever stands in any text of a recording, the page has the same elements, and the text no escapes."""
    pages = []
    for text in ("harmless", EVIL):
        path = tmp_path / "x.recording"
        records: list[Record] = [
            ConnectionBegan(at=0, connection=1, session_id=text, name=text, methods=(text,)),
            RunChanged(at=0, run=1, state=text),
            CallBegan(at=0, call=1, connection=1, stream=1, method=f"/{text}", metadata=(("dir-name", text),)),
            CallOver(at=1, call=1, code="ABORTED", message=text),
            CallBegan(at=0, call=2, connection=1, stream=3, method=text),
        ]
        write_recording(path, Header(command=(text,), writer=text), records)
        parser = Tags()
        page = cli("recording", "show", "--html", path)
        assert page.status == 0, page.err
        parser.feed(page.out)
        pages.append(parser.tags)
        assert "\x1b" not in page.out
        assert "\x1b" not in cli("recording", "show", path).out
    assert pages[0] == pages[1]
    assert pages[0].count("script") == 2


def test_a_cut_recording_says_so(cli: Cli, file: Path) -> None:
    """What is there is shown, and that the end is missing."""
    file.write_bytes(file.read_bytes()[:-20])
    ran = cli("recording", "show", file)
    assert ran.status == 0
    assert ran.out.endswith("the end of the file is missing\n")


def test_what_is_no_recording(cli: Cli, context: Path) -> None:
    """It is one line, and status 1."""
    ran = cli("recording", "show", context / "Dockerfile")
    assert (ran.status, ran.out) == (1, "")
    assert ran.err == f"ERROR: {context / 'Dockerfile'} is no recording of mobysession\n"
    assert cli("replay", context / "Dockerfile").status == 1


def test_replay(cli: Cli, file: Path, words: list[str], context: Path) -> None:
    """The recorded build is played again, or the one that is given; what differs is told, with status 1."""
    ran = cli("replay", file)
    assert ran.status == 0, ran.out + ran.err
    assert ran.out.splitlines()[-1] == "4 equal, 0 different, 0 skipped"
    report = json.loads(cli("replay", file, "--json", "--", *words).out)
    assert report["is_equal"]
    (context / "hello.txt").write_text("HELLO, and something longer")
    ran = cli("replay", file)
    assert ran.status == 1
    assert "differs: 'hello.txt'" in ran.out
    ran = cli("replay", file, "--", "build", str(context))
    assert "GetSecret: it is not hosted" in ran.out


def test_replay_needs_no_nodes(cli: Cli, file: Path, words: list[str]) -> None:
    """A build that is given with engines of its own is asked of the recording, and of none of them."""
    ran = cli("replay", file, "--", *words, "--node", "tcp://127.0.0.1:1")
    assert ran.status == 0, ran.out + ran.err
    assert ran.out.splitlines()[-1] == "4 equal, 0 different, 0 skipped"


def test_replay_of_something_that_is_no_build(cli: Cli, tmp_path: Path) -> None:
    """A recording that names no build wants one to be said."""
    Recording(Header(), list).write(tmp_path / "x")
    ran = cli("replay", tmp_path / "x")
    assert ran.status == 2
    assert "does not say which build" in ran.err


def test_serve(file: Path, words: list[str], tmp_path: Path) -> None:
    """A program that is given runs against the recorded daemon; its status, or the comparison's, is returned."""
    program = [sys.executable, "-m", "mobysession"]
    serve = [*program, "replay", str(file), "--serve", "--"]
    environment = {name: value for name, value in os.environ.items() if name != "DOCKER_HOST"}
    done = subprocess.run([*serve, *program, *words], env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "4 equal, 0 different, 0 skipped" in done.stderr
    failed = subprocess.run([*serve, "sh", "-c", "exit 7"], env=environment, timeout=60)
    assert failed.returncode == 7
    unused = subprocess.run([*serve, "true"], env=environment, timeout=60)
    assert unused.returncode == 1


def test_serve_until_interrupted(file: Path, tmp_path: Path) -> None:
    """Without a program it says where it listens, and goes on until it is interrupted."""
    command = [sys.executable, "-m", "mobysession", "replay", str(file), "--serve", "--socket", str(tmp_path / "s")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == f"DOCKER_HOST=unix://{tmp_path / 's'}\n"
        process.send_signal(2)
        assert process.wait(30) in (130, -2)


@pytest.mark.parametrize("output", ["", "-"])
def test_a_recording_goes_to_a_file(cli: Cli, context: Path, output: str) -> None:
    """stdout has what the build prints; before anything is built."""
    ran = cli("record", "-o", output, "--", "build", context)
    assert (ran.status, "is no file for a recording" in ran.err) == (2, True)


def test_a_moment_that_no_calendar_has(cli: Cli, tmp_path: Path) -> None:
    """A header says what it likes; the recording is shown all the same."""
    Recording(Header(created=1e300), list).write(tmp_path / "x")
    ran = cli("recording", "show", tmp_path / "x")
    assert ran.status == 0, ran.err
    assert "recording of 1e+300 s after 1970" in ran.out


def test_serve_to_a_command_that_is_not_there(cli: Cli, file: Path) -> None:
    """It is named."""
    ran = cli("replay", file, "--serve", "--", "no-such-command", "x")
    assert (ran.status, "cannot run no-such-command: No such file or directory" in ran.err) == (2, True)
