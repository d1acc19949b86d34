"""``mobysession build``: options in, image out, and what is printed where."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
import trio
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from mobysession.cli.app import report
from mobysession.concurrency import single_cause
from mobysession.errors import MobysessionError
from mobysession.testing import BlockingFakeDaemon, FakeSolve, Faults, Refusal

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import Cli

SECRET = "hunter2-hunter2"


def attributes(daemon: BlockingFakeDaemon) -> dict[str, str]:
    """What the frontend was asked with by the last build."""
    (*_, solve) = daemon.daemon.solver.solves.values()
    return dict(solve.request.FrontendAttrs)


def test_a_build_talks_on_stderr(cli: Cli, fake_docker_host: BlockingFakeDaemon, context: Path) -> None:
    """The progress, and for an image without a name its ID; stdout stays empty."""
    ran = cli("build", context)
    assert (ran.status, ran.out) == (0, "")
    assert "COPY hello.txt" in ran.err
    assert ran.err.splitlines()[-1].startswith("image: sha256:")


def test_a_quiet_build_prints_the_id_alone(cli: Cli, fake_docker_host: BlockingFakeDaemon, context: Path) -> None:
    """On stdout, for scripts; nothing on stderr."""
    status, out, err = cli("build", "-q", "-t", "a:1", context)
    assert (status, err) == (0, "")
    assert out.startswith("sha256:")
    assert out.count("\n") == 1


def test_the_progress_is_taken_from_the_environment(
    cli: Cli, fake_docker_host: BlockingFakeDaemon, context: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """BUILDKIT_PROGRESS counts where --progress is not given."""
    monkeypatch.setenv("BUILDKIT_PROGRESS", "quiet")
    assert cli("build", context).err == ""
    assert "hello.txt" in cli("build", "--progress", "plain", context).err


def test_a_build_without_progress_says_nothing(cli: Cli, fake_docker_host: BlockingFakeDaemon, context: Path) -> None:
    """Neither steps nor an ID, on neither stream."""
    assert cli("build", "--progress", "none", context) == (0, "", "")


def test_switches_take_values(cli: Cli, fake_docker_host: BlockingFakeDaemon, context: Path) -> None:
    """As docker has it, and of several the last one counts; a value of another option that looks like one is left."""
    options = ("--pull=true", "--no-cache", "--no-cache=false", "--build-arg", "--pull=false", "-q=1")
    status, out, err = cli("build", *options, context)
    assert (status, err) == (0, "")
    assert out.startswith("sha256:")
    sent = attributes(fake_docker_host)
    assert (sent["image-resolve-mode"], sent["build-arg:--pull"], "no-cache" in sent) == ("pull", "false", False)


def test_what_a_build_may_do_reaches_the_engine(cli: Cli, fake_docker_host: BlockingFakeDaemon, context: Path) -> None:
    """Entitlements, the cgroup, attestations that are left out, and git's attributes, which win over nothing."""
    options = ("--allow", "network.host", "--allow=device=a/b=c", "--cgroup-parent", "/c", "--provenance=false")
    ran = cli("build", *options, "--platform", "AMD64", "--load", context)
    assert ran.status == 0, ran.err
    (*_, solve) = fake_docker_host.daemon.solver.solves.values()
    assert list(solve.request.Entitlements) == ["network.host", "device=a/b=c"]
    found = attributes(fake_docker_host)
    assert (found["cgroup-parent"], found["platform"]) == ("/c", "linux/amd64")
    assert "attest:provenance" not in found
    assert [exporter.Type for exporter in solve.request.Exporters] == ["moby"]


@pytest.mark.parametrize(
    "option",
    [
        *("-f", "--iidfile", "--metadata-file", "--timeline", "--network", "--call", "-o", "--ssh", "--secret"),
        *("--annotation", "--allow", "--build-context", "--target", "--provenance", "--sbom", "--cgroup-parent"),
        *("--cache-from", "--cache-to", "--no-cache-filter", "--add-host", "--progress"),
    ],
)
def test_an_empty_value_is_as_good_as_none(
    cli: Cli, fake_docker_host: BlockingFakeDaemon, context: Path, option: str
) -> None:
    """Scripts write ``--iidfile "$FILE"``, and docker takes it so."""
    ran = cli("build", option, "", context)
    assert ran.status == 0, ran.err
    sent = attributes(fake_docker_host)
    assert cli("build", context).status == 0
    assert sent == attributes(fake_docker_host)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--check", "--push", "-t", "a"), "call has an answer"),
        (("--check", "--load"), "call has an answer"),
        (("--call=outline", "-o", "type=image,name=a"), "call has an answer"),
        (("--build-context", "x=target:y"), "there is no other target"),
        (("--annotation", "a"), "is not KEY=VALUE"),
        (("--attest", "sbom"), "is not key=value"),
        (("--allow", "everything"), "there is no entitlement"),
        (("--call", "check,format=xml"), "a call has no format"),
        (("--platform", "nonsense"), "is no platform"),
    ],
)
def test_options_that_make_no_sense_are_refused(
    cli: Cli, fake_docker_host: BlockingFakeDaemon, context: Path, options: tuple[str, ...], words: str
) -> None:
    """With status 2, before the engine is asked."""
    ran = cli("build", *options, context)
    assert ran.status == 2
    assert words in ran.err
    assert fake_docker_host.daemon.requests == []


@pytest.mark.parametrize("way", ["option", "variable"])
def test_the_engines_messages_are_for_programs(
    cli: Cli, fake_docker_host: BlockingFakeDaemon, context: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    """With rawjson every line of stderr is JSON; no line with the image's ID follows, as it does with other views."""
    if way == "variable":
        monkeypatch.setenv("BUILDKIT_PROGRESS", "rawjson")
    ran = cli("build", *(("--progress", "rawjson") if way == "option" else ()), context)
    assert (ran.status, ran.out) == (0, "")
    lines = [json.loads(line) for line in ran.err.splitlines()]
    assert any("vertexes" in line for line in lines)


def test_a_timeline_is_written(cli: Cli, fake_docker_host: BlockingFakeDaemon, context: Path, tmp_path: Path) -> None:
    """To the file that is named, beside whatever view there is."""
    ran = cli("build", "-q", "--timeline", tmp_path / "out.html", context)
    assert (ran.status, ran.err) == (0, "")
    assert "<title>context: succeeded</title>" in (tmp_path / "out.html").read_text()


def test_every_option_reaches_the_engine(
    cli: Cli, fake_docker_host: BlockingFakeDaemon, context: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Repeated ones as often as given, lists split at commas, arguments without a value from the environment."""
    monkeypatch.setenv("FROM_ENV", "e=1")
    status, _, err = cli(
        *("build", "-q", "-t", "a:1", "--tag", "b"),
        *("--build-arg", "A=1=2", "--build-arg", "FROM_ENV", "--build-arg", "UNSET", "--build-arg", "EMPTY="),
        *("--label", "l=v", "--label", "bare"),
        *("--no-cache-filter", "x,y", "--no-cache-filter", "z", "--pull", "--platform", "linux/arm64"),
        *("--add-host", "db:10.0.0.1,a=10.0.0.2", "--network", "none", "--shm-size", "64m", "--ulimit", "nofile=1:2"),
        *("-f", context / "Dockerfile", context),
    )
    assert (status, err) == (0, "")
    assert attributes(fake_docker_host) == {
        "filename": "Dockerfile",
        "image-resolve-mode": "pull",
        "platform": "linux/arm64",
        "no-cache": "x,y,z",
        "force-network-mode": "none",
        "add-hosts": "db=10.0.0.1,a=10.0.0.2",
        "shm-size": "67108864",
        "ulimit": "nofile=1:2",
        "build-arg:A": "1=2",
        "build-arg:FROM_ENV": "e=1",
        "build-arg:EMPTY": "",
        "label:l": "v",
        "label:bare": "",
    }


def test_the_files_are_written(cli: Cli, fake_docker_host: BlockingFakeDaemon, context: Path, tmp_path: Path) -> None:
    """The ID and the response."""
    _, out, _ = cli("build", "-q", "--iidfile", tmp_path / "iid", "--metadata-file", tmp_path / "m", context)
    assert (tmp_path / "iid").read_text() == out.strip()
    assert json.loads((tmp_path / "m").read_text())["containerimage.digest"] == out.strip()


def test_an_image_that_is_elsewhere_has_its_digest_for_scripts(
    cli: Cli, fake_docker_host: BlockingFakeDaemon, context: Path, tmp_path: Path
) -> None:
    """In the file and with -q, as from buildx; otherwise nobody is told of an image that the engine does not have."""
    command = ("build", "--driver", "classic", "-o", "type=image,store=false", "--iidfile", tmp_path / "iid", context)
    assert "image: " not in cli(*command).err
    out = cli(*command[:1], "-q", *command[1:]).out
    assert out.startswith("sha256:")
    assert (tmp_path / "iid").read_text() == out.strip()


@pytest.mark.parametrize("flags", [[], ["-v"], ["-vv"]])
@pytest.mark.parametrize("driver", ["control", "classic"])
def test_no_secret_is_printed(
    cli: Cli,
    fake_docker_host: BlockingFakeDaemon,
    context: Path,
    monkeypatch: pytest.MonkeyPatch,
    flags: list[str],
    driver: str,
) -> None:
    """It reaches the engine, and neither stdout nor stderr however much is said there."""
    monkeypatch.setenv("TOKEN", SECRET)
    ran = cli(*flags, "build", "--driver", driver, "--secret", "id=token,env=TOKEN", context)
    assert ran.status == 0
    calls = [call.method for session in fake_docker_host.sessions for call in session.calls]
    assert "/moby.buildkit.secrets.v1.Secrets/GetSecret" in calls
    assert SECRET not in ran.out + ran.err


def test_a_named_context_is_offered(
    cli: Cli, fake_docker_host: BlockingFakeDaemon, context: Path, tmp_path: Path
) -> None:
    """A directory given with a name reaches the engine under it, strictly if asked; what has no name is wrong usage."""
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "file").write_text("x")
    ran = cli("build", "--strict", "--build-context", f"extra={tmp_path / 'more'}", context)
    assert ran.status == 0
    assert attributes(fake_docker_host)["context:extra"] == "local:extra"
    for wrong in ("extra", "=x", "extra="):
        assert cli("build", "--build-context", wrong, context).status == 2


def test_a_secret_in_a_wrong_place_is_not_repeated(cli: Cli, context: Path) -> None:
    """Who writes the value in place of ``key=value`` does not find it in a log of the CI."""
    ran = cli("build", "--secret", f"id=token,{SECRET}", context)
    assert ran.status == 2
    assert SECRET not in ran.out + ran.err


def test_a_failed_build_shows_where(cli: Cli, context: Path) -> None:
    """The log of the step, the lines of the Dockerfile, one line of error, a hint; exit status 1."""

    async def script(solve: FakeSolve) -> dict[str, str]:
        async with solve.vertex("[2/2] RUN cat") as step:
            solve.dockerfile = (context / "Dockerfile").read_text()
            step.log("cat: no such file\n", stream=2)
            solve.fail("secret token: not found", line=3, vertex=step)

    with BlockingFakeDaemon(script=script) as daemon:
        status, out, err = cli("-H", daemon.host, "build", "--progress", "quiet", context)
    assert (status, out) == (1, "")
    assert err.splitlines() == [
        "------",
        " > [2/2] RUN cat:",
        *[line for line in err.splitlines() if "cat: no such file" in line][:1],
        "------",
        "Dockerfile:3",
        "--------------------",
        "   1 |     FROM scratch",
        "   2 |     COPY hello.txt /hello.txt",
        "   3 | >>> RUN --mount=type=secret,id=token cat /run/secrets/token",
        "   4 |     ",
        "--------------------",
        "ERROR: failed to solve: secret token: not found",
        (
            'hint: The Dockerfile asks for this secret: pass it with secrets={"token": ...} (--secret id=token,src=FILE'
            " or --secret id=token,env=NAME)."
        ),
    ]


WRONG: dict[str, tuple[list[Any], int, str]] = {
    "no path": (["build"], 2, "the following arguments are required: PATH"),
    "unknown option": (["build", "--tags", "x", "."], 2, "no such option '--tags' (did you mean --tag?)"),
    "unknown verb": (["bild"], 2, "invalid choice: 'bild'"),
    "bad tag": (["build", "-t", "Upper", "."], 2, "hint: Repository names must be lower case."),
    "bad network": (["build", "--network", "mine", "."], 2, "network 'mine' is not supported by BuildKit"),
    "bad driver": (["build", "--driver", "x", "."], 2, "unknown driver 'x'"),
    "bad size": (["build", "--shm-size", "big", "."], 2, "'big' is no size"),
    "bad ulimit": (["build", "--ulimit", "nofile", "."], 2, "'nofile' is no ulimit"),
    "bad secret": (["build", "--secret", "src=x", "."], 2, "secret missing ID"),
    "bad host entry": (["build", "--add-host", "x", "."], 2, "it must look like HOST:IP"),
    "caches": (["build", "--no-cache", "--no-cache-filter", "a", "."], 2, "exclude each other"),
    "empty name": (["build", "--build-arg", "=1", "."], 2, "empty name"),
    "bad progress": (["build", "--progress", "fancy", "."], 2, "hint: Choose one of: auto, plain, tty, quiet"),
    "no context": (["build", "missing"], 1, "does not exist"),
    "a file": (["build", "a-file"], 1, "is not a directory"),
    "no Dockerfile": (["build", "."], 1, "there is no Dockerfile in"),
    "secret file": (["build", "-f", "a-file", "--secret", "id=a,src=missing", "."], 1, "secret 'a': missing cannot be"),
    "large secret": (["build", "-f", "a-file", "--secret", "id=a,src=large", "."], 1, "takes at most 512000"),
    "iidfile": (["build", "-f", "a-file", "--iidfile", "no/iid", "."], 1, "'no/iid' cannot be written"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_said_in_a_line(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fake_docker_host: BlockingFakeDaemon, name: str
) -> None:
    """Exit status 2 for wrong usage, 1 for what cannot be used; no traceback, nothing on stdout, nothing asked."""
    arguments, status, words = WRONG[name]
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a-file").write_text("FROM scratch\n")
    (tmp_path / "large").write_bytes(bytes(512_001))
    ran = cli(*arguments)
    assert (ran.status, ran.out) == (status, "")
    assert words in ran.err
    assert "Traceback" not in ran.err
    assert fake_docker_host.requests == []


DAEMON_FAULTS: dict[str, tuple[Faults, str]] = {
    "404": (Faults(refusal=Refusal(404, "page not found")), "refused POST /session with status 404: page not found"),
    "400": (Faults(refusal=Refusal(400, "bad session")), "with status 400: bad session"),
    "403": (Faults(refusal=Refusal(403, "denied by plugin")), "with status 403: denied by plugin"),
    "500": (Faults(refusal=Refusal(500, "on fire")), "with status 500: on fire"),
    "html": (
        Faults(refusal=Refusal(502, body=b"<html><h1>Bad\nGateway</h1></html>", content_type="text/html")),
        "with status 502",
    ),
    "other": (Faults(upgraded_to="websocket"), "it upgrades to 'websocket'"),
    "closing": (Faults(close_after_101=True), "did not open HTTP/2: the other side closed the connection"),
    "garbage": (Faults(garbage=b"SSH-2.0-OpenSSH\r\n" * 8), "did not open HTTP/2: the other side broke HTTP/2"),
}


@pytest.mark.parametrize("verb", ["build", "probe"])
@pytest.mark.parametrize("name", DAEMON_FAULTS)
def test_a_daemon_that_does_not_open_a_session_is_named(cli: Cli, context: Path, name: str, verb: str) -> None:
    """One line with the daemon's own words where it has any, a hint at most besides, exit status 1."""
    faults, words = DAEMON_FAULTS[name]
    with BlockingFakeDaemon(faults=faults, tunnel_faults=Faults(refusal=Refusal(404, "no tunnel"))) as daemon:
        ran = cli("-H", daemon.host, verb, *([context] if verb == "build" else []))
    assert (ran.status, ran.out) == (1, "")
    lines = ran.err.splitlines()
    assert lines[0].startswith("ERROR: ")
    assert words in lines[0]
    assert len(lines) == 1 or (len(lines) == 2 and lines[1].startswith("hint: "))


def test_a_fallback_to_the_other_driver_is_said_with_v(cli: Cli, context: Path) -> None:
    """Without -v nothing is said of it."""
    with BlockingFakeDaemon(grpc_faults=Faults(refusal=Refusal(404, "page not found"))) as daemon:
        plain = cli("-H", daemon.host, "build", context)
        verbose = cli("-H", daemon.host, "-v", "build", context)
    assert (plain.status, verbose.status) == (0, 0)
    assert "asking with POST /build" not in plain.err
    assert "asking with POST /build" in verbose.err


def test_an_agents_keys_are_listed_before_the_build(
    cli: Cli, fake_docker_host: BlockingFakeDaemon, context: Path, tmp_path: Path
) -> None:
    """-v says which keys each ID has; what is no agent and no key ends the command before it."""
    key = tmp_path / "key"
    key.write_bytes(Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()))
    ran = cli("-v", "build", "-q", "--ssh", f"default={key}", "--ssh", f"work={key},{key}", context)
    assert ran.status == 0
    assert "SSH agent default has ssh-ed25519 SHA256:" in ran.err
    assert "SSH agent work has ssh-ed25519 SHA256:" in ran.err
    for spec, status in (("default=none", 1), ("=x", 2), (f"default={key},raw=true", 2)):
        assert cli("build", "--ssh", spec, context).status == status


def test_nothing_is_given_where_nobody_can_be_asked(fake_docker_host: BlockingFakeDaemon, context: Path) -> None:
    """--approve without a terminal refuses the secret, and says what it was about."""
    options = ["--approve", "--secret", "id=token,env=TOKEN"]
    command = [sys.executable, "-m", "mobysession", "build", *options, str(context)]
    # In a session of its own it has no terminal, whoever runs the tests.
    ran = subprocess.run(
        command,
        env={**os.environ, "TOKEN": SECRET},
        start_new_session=True,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ran.returncode == 1
    assert "secret token is refused by the client: there is no terminal to ask on: /dev/tty" in ran.stderr
    assert SECRET not in ran.stdout + ran.stderr


def test_a_value_may_begin_with_a_dash(cli: Cli, fake_docker_host: BlockingFakeDaemon, context: Path) -> None:
    """What follows an option that takes a value is its value, as docker has it; after -- comes the directory."""
    assert cli("build", "--label", "-l=-v", "--build-arg", "-A=-1", "-q", "--", context).status == 0
    sent = attributes(fake_docker_host)
    assert (sent["label:-l"], sent["build-arg:-A"]) == ("-v", "-1")


@pytest.mark.parametrize("option", ["--build-arg", "--label", "--target", "--tag", "--platform"])
def test_a_value_that_is_not_utf8_is_wrong_usage(cli: Cli, context: Path, option: str) -> None:
    """Neither gRPC nor JSON can carry it; the message shows what it was."""
    status, _, err = cli("build", option, "a=\udcff", context)
    assert status == 2
    assert "'a=\\udcff' is not UTF-8" in err or "'\\udcff' is not UTF-8" in err


@pytest.mark.parametrize("option", ["--host", "--context"])
def test_a_daemon_beside_nodes_is_refused(cli: Cli, context: Path, option: str) -> None:
    """Nothing would be built on it, and nobody would notice."""
    status, out, err = cli(option, "unix:///nowhere", "build", "--node", "unix:///elsewhere", context)
    assert (status, out) == (2, "")
    assert err.startswith("ERROR: --node says where to build, and --host or --context does too\n")


def test_an_error_of_one_node_names_it(cli: Cli, context: Path, tmp_path: Path) -> None:
    """Below the message, in the words of the error's notes."""

    async def script(solve: FakeSolve) -> dict[str, str]:
        if solve.request.FrontendAttrs["platform"] == "linux/s390x":
            solve.fail("no rule")
        await trio.sleep_forever()
        return {}

    with BlockingFakeDaemon(script=script) as first, BlockingFakeDaemon(script=script) as second:
        nodes = (f"{first.host},platform=linux/amd64,name=near", f"{second.host},platform=linux/s390x,name=far")
        options = [option for node in nodes for option in ("--node", node)]
        _, _, err = cli("build", *options, "--platform", "linux/amd64,linux/s390x", "-o", "type=cacheonly", context)
    assert err.endswith("ERROR: failed to solve: no rule\nnote: on the node far\n")


@pytest.mark.parametrize(("level", "told"), [(logging.WARNING, ""), (logging.INFO, "note: also failed: OSError: b\n")])
def test_what_failed_with_an_error_is_told_with_v(
    capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture, level: int, told: str
) -> None:
    """A lost connection ends calls too, of which nobody has to hear who knows that it was lost."""
    caplog.set_level(level, logger="mobysession")
    error = single_cause(BaseExceptionGroup("", [MobysessionError("a", hint="c"), OSError("b")]))
    assert isinstance(error, MobysessionError)
    report(error)
    assert capsys.readouterr().err == f"ERROR: a\n{told}hint: c\n"
