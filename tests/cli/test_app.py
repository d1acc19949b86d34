"""What all verbs share: which daemon, how failures are told, exit statuses, colours, the log."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from mobysession.cli import app

if TYPE_CHECKING:
    from pathlib import Path

    from mobysession.testing import BlockingFakeDaemon
    from tests.cli.conftest import Cli


@pytest.mark.parametrize("verb", ["build", "demo", "dial", "probe"])
def test_every_verb_explains_itself(cli: Cli, verb: str) -> None:
    """``--help`` and ``-h`` end with 0 and print on stdout."""
    for flag in ("--help", "-h"):
        status, out, err = cli(verb, flag)
        assert (status, err) == (0, "")
        assert out.startswith(f"Usage: mobysession {verb} [OPTIONS]")
    assert f"  {verb} " in cli("--help").out


def test_the_version_is_told_by_either_way(cli: Cli) -> None:
    """Alone, which loads nothing, and with other options before it."""
    assert cli("-v", "--version") == cli("--version")
    assert re.fullmatch(r"mobysession [0-9.a-z+]+\n", cli("--version").out)


@pytest.mark.parametrize(
    ("arguments", "usage", "words"),
    [
        ([], "mobysession [OPTIONS] COMMAND", "probe             Open a session"),
        (["bild"], "mobysession [OPTIONS] COMMAND", "Error: argument COMMAND: invalid choice: 'bild' (choose from "),
        (["-x", "build", "."], "mobysession [OPTIONS] COMMAND", "Error: no such option '-x'\n"),
        (["--hots", "x", "build", "."], "mobysession [OPTIONS] COMMAND", "'--hots' (did you mean --host?)"),
        (["-v"], "mobysession [OPTIONS] COMMAND", "Error: the following arguments are required: COMMAND\n"),
        (["-v", "--"], "mobysession [OPTIONS] COMMAND", "Error: the following arguments are required: COMMAND\n"),
        (["--", "-v", "build", "."], "mobysession [OPTIONS] COMMAND", "Error: argument COMMAND: invalid choice: '-v'"),
        (["-H"], "mobysession [OPTIONS] COMMAND", "Error: argument -H/--host: expected one argument\n"),
        (["build"], "mobysession build [OPTIONS] PATH", "Error: the following arguments are required: PATH\n"),
        (["build", "a", "b"], "mobysession build [OPTIONS] PATH", "Error: unexpected argument 'b'\n"),
        (["build", ".", "--iidfil=1"], "mobysession build [OPTIONS] PATH", "'--iidfil' (did you mean --iidfile?)"),
        (["build", "--push=on", "."], "mobysession build [OPTIONS] PATH", "--push: 'on' is neither true nor false\n"),
        (["build", "-t"], "mobysession build [OPTIONS] PATH", "Error: argument -t/--tag: expected one argument\n"),
        (["build", "--verbose", "."], "mobysession build [OPTIONS] PATH", "Error: no such option '--verbose'\n"),
        (["probe", "--hold", "-1"], "mobysession probe [OPTIONS]", "'-1' is no number of seconds\n"),
    ],
)
def test_a_command_line_that_cannot_be_read(cli: Cli, arguments: list[str], usage: str, words: str) -> None:
    """Status 2; stderr has the usage of the verb that was meant, and last what is wrong; no option is abbreviated."""
    status, out, err = cli(*arguments)
    assert (status, out) == (2, "")
    assert err.startswith(f"Usage: {usage}")
    assert words in err


def test_options_may_be_ended_before_the_verb(cli: Cli) -> None:
    """``--`` says that what follows is the verb."""
    assert cli("-H", "unix:///nowhere", "--", "probe") == cli("-H", "unix:///nowhere", "probe")


def test_host_and_context_exclude_each_other(cli: Cli) -> None:
    """Wrong usage, told as any other is."""
    status, out, err = cli("-H", "unix:///x", "-c", "y", "probe")
    assert (status, out) == (2, "")
    assert err.endswith("Error: --host and --context exclude each other\n")


def test_a_context_names_the_daemon(cli: Cli, fake_daemon: BlockingFakeDaemon, docker_config: Path) -> None:
    """One of docker's, found in its configuration."""
    import hashlib

    folder = docker_config / "contexts" / "meta" / hashlib.sha256(b"other").hexdigest()
    folder.mkdir(parents=True)
    (folder / "meta.json").write_text(
        json.dumps({"Name": "other", "Endpoints": {"docker": {"Host": fake_daemon.host}}})
    )
    assert cli("-c", "other", "probe").status == 0
    status, _, err = cli("-c", "missing", "probe")
    assert status == 1
    assert "missing" in err


def test_the_host_wins_over_the_environment(
    cli: Cli, fake_docker_host: BlockingFakeDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And DOCKER_HOST counts without it; errors name where the address came from."""
    assert cli("probe").status == 0
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere/docker.sock")
    assert cli("-H", fake_docker_host.host, "probe").status == 0
    status, out, err = cli("probe")
    assert (status, out) == (1, "")
    assert "there is no socket at unix:///nowhere/docker.sock (DOCKER_HOST)" in err


def _plain_file(folder: Path) -> str:
    (folder / "file").write_text("")
    return f"unix://{folder}/file"


def _deaf_socket(folder: Path) -> str:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(f"{folder}/deaf")
    return f"unix://{folder}/deaf"


HOSTS = {
    "no socket": (lambda folder: f"unix://{folder}/none", "there is no socket at", 1),
    "no socket but a file": (_plain_file, "is not a socket", 1),
    "nobody listens": (_deaf_socket, "nobody listens at", 1),
    "unknown scheme": (lambda folder: "gopher://x", "gopher", 1),
    "empty": (lambda folder: "", "", 1),
}


@pytest.mark.parametrize("name", HOSTS)
def test_a_daemon_that_is_not_there_is_named(cli: Cli, tmp_path: Path, name: str) -> None:
    """One line of error and one of hint, exit status 1, for every verb that connects."""
    make, words, expected = HOSTS[name]
    for verb in (["probe"], ["dial"], ["build", str(tmp_path)]):
        (tmp_path / "Dockerfile").write_text("FROM scratch\n")
        status, out, err = cli("-H", make(tmp_path), *verb)
        assert (status, out) == (expected, "")
        first, *more = err.splitlines()
        assert first.startswith("ERROR: ")
        assert words in first
        assert [line[:6] for line in more] in ([], ["hint: "])
        (tmp_path / "deaf").unlink(missing_ok=True)


def test_what_is_no_docker_daemon_is_said_to_be_none(cli: Cli, tmp_path: Path) -> None:
    """A server that answers in another language is named, and no bytes of it are dumped."""
    import threading

    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s"))
        listener.listen()

        def serve() -> None:
            for _ in range(2):
                connection, _ = listener.accept()
                with connection:
                    connection.recv(1000)
                    connection.sendall(b"SSH-2.0-OpenSSH_9.2\r\n")

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        for verb in ("probe", "dial"):
            status, out, err = cli("-H", f"unix://{tmp_path}/s", verb)
            assert (status, out) == (1, "")
            assert err.startswith("ERROR: ")
            assert "HTTP" in err
        thread.join()


def test_a_fault_of_ours_is_owned_up_to(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """Status 70; the kind of the exception and not its words, which may hold anything; a traceback with -v."""

    def fail(self: object, attach: str) -> None:
        raise LookupError("words with hunter2")

    monkeypatch.setattr(app.Target, "endpoint", fail)
    status, out, err = cli("probe")
    assert (status, out) == (70, "")
    first, second = err.splitlines()
    assert first == "mobysession failed in a way that it should not: LookupError"
    assert second.startswith("hint: Run it again with -v")
    assert "Traceback" in cli("-v", "probe").err


def test_a_run_does_not_inherit_the_log_of_another(cli: Cli, fake_docker_host: BlockingFakeDaemon) -> None:
    """Within one process each line is said once, and a run without -v says none."""
    cli("-vv", "probe")
    verbose = cli("-vv", "probe").err
    assert verbose.count("is ready, attached by tunnel") == 1
    # The fake daemon, in this process too, may still have something to say of the run before.
    assert "mobysession.session" not in cli("probe").err


def test_interrupted_is_130(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever it happens, and without a traceback."""

    def interrupt(self: object, attach: str) -> None:
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(app.Target, "endpoint", interrupt)
    status, out, err = cli("probe")
    assert (status, out, err.strip()) == (130, "", "")


def test_colour_is_for_terminals(cli: Cli, spawned, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pipe gets none; a terminal gets some, unless NO_COLOR says otherwise."""
    assert "\x1b" not in cli("-H", "unix:///nowhere", "probe").err
    assert b"\x1b[" in _on_terminal(spawned, {})
    assert b"\x1b[" not in _on_terminal(spawned, {"NO_COLOR": "1"})


def _on_terminal(spawned, environment: dict[str, str]) -> bytes:
    ours, theirs = os.openpty()
    try:
        with spawned(
            *("-H", "unix:///nowhere", "probe"), stderr=theirs, env={**os.environ, "TERM": "xterm", **environment}
        ) as process:
            process.wait(20)
        return os.read(ours, 10_000)
    finally:
        os.close(ours)
        os.close(theirs)


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["probe"], ["probe", "--json"]])
def test_a_reader_who_leaves_is_no_fault(spawned, fake_docker_host: BlockingFakeDaemon, arguments: list[str]) -> None:
    """``| head -0``: no traceback, nothing on stderr, exit status 1."""
    reader, writer = os.pipe()
    os.close(reader)
    try:
        with spawned(*arguments, stdout=writer) as process:
            _, err = process.communicate(timeout=20)
    finally:
        os.close(writer)
    assert (process.returncode, err) == (1, b"")


@pytest.mark.parametrize(
    ("closed", "arguments", "status", "words"),
    [
        (">&-", ["--version"], 1, ""),
        (">&-", ["context", "explain", "."], 1, "ERROR: the output cannot be written: Bad file descriptor\n"),
        (">&-", ["build", "-q", "."], 1, "ERROR: the output cannot be written: Bad file descriptor\n"),
        ("<&-", ["build", "-f", "-", "."], 1, "Dockerfile on stdin cannot be read: bad file descriptor\n"),
        ("2>&-", ["build", "."], 0, ""),
        ("<&- >&- 2>&-", ["build", "."], 0, ""),
    ],
)
def test_streams_that_are_closed_have_nothing_in_their_place(
    context: Path, fake_docker_host: BlockingFakeDaemon, closed: str, arguments: list[str], status: int, words: str
) -> None:
    """What is to go there is an error, and no connection of ours ever gets their numbers."""
    command = ["sh", "-c", f'exec "$@" {closed}', "sh", sys.executable, "-m", "mobysession", *arguments]
    ran = subprocess.run(command, cwd=context, input=b"", capture_output=True, timeout=60, check=False)
    assert ran.returncode == status, ran.stderr
    assert ran.stderr.decode().endswith(words)
    assert b"Traceback" not in ran.stderr
