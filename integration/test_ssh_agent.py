"""``RUN --mount=type=ssh`` on real engines: OpenSSH's own clients in the step, OpenSSH's agent and ours behind them."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from integration.contexts import make_context
from integration.images import BUILD_TIMEOUT, build_image
from mobysession.errors import BuildFailed, SshError
from mobysession.services.ssh_agents import SshAgent, SshKeys
from mobysession.testing.packages import SYSTEM_PATH, run_command

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from integration.engines import Engine
    from integration.images import Witness

HINT = "run `python -m integration.prepare`"
#: OpenSSH's programs run in an image without its libraries: through the loader that lies beside them.
DOCKERFILE = """\
FROM mobysession-base
COPY ssh /ssh
COPY key.pub data /work/
RUN --mount=type=ssh%(mount)s PATH=/ssh:$PATH; %(commands)s
"""


def _run(*argv: str, **options: Any) -> str:
    return subprocess.run(argv, check=True, capture_output=True, text=True, timeout=30, **options).stdout


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """OpenSSH's ssh-add and ssh-keygen as files of a build context, with every library that they need."""
    files = {}
    for name in ("ssh-add", "ssh-keygen"):
        program = shutil.which(name, path=SYSTEM_PATH)
        if program is None:
            pytest.fail(f"{name} is not installed: {HINT}", pytrace=False)
        paths = re.findall(r"(/\S+) \(0x", run_command(["ldd", program], hint=HINT))
        loader = next(path for path in paths if "/ld-linux" in path)
        for path in (program, *paths):
            with open(path, "rb") as file:
                files[f"ssh/lib/{os.path.basename(path)}"] = file.read()
        script = f'#!/bin/sh\nexec /ssh/lib/{os.path.basename(loader)} --library-path /ssh/lib /ssh/lib/{name} "$@"\n'
        files[f"ssh/{name}"] = script.encode()
    return files


@pytest.fixture
def key(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """A private key of the type that the test asks for, with its public key beside it."""
    kind = getattr(request, "param", "ed25519")
    path = tmp_path / "key"
    _run("ssh-keygen", "-q", "-t", kind, "-N", "", "-C", "ada@here", "-f", str(path))
    return path


@pytest.fixture
def agent(tmp_path: Path, key: Path) -> Iterator[Path]:
    """The socket of a real ssh-agent that holds the key."""
    path = tmp_path / "agent.sock"
    process = subprocess.Popen(["ssh-agent", "-D", "-a", str(path)], stdout=subprocess.PIPE)
    assert process.stdout is not None
    try:
        process.stdout.readline()
        _run("ssh-add", "-q", str(key), env={**os.environ, "SSH_AUTH_SOCK": str(path)})
        yield path
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=10)


def _context(folder: Path, key: Path, programs: dict[str, bytes], commands: str, mount: str = "") -> Path:
    context = make_context(
        folder / "context",
        DOCKERFILE % {"mount": mount, "commands": commands},
        {**programs, "key.pub": key.with_suffix(".pub").read_bytes(), "data": "what is signed"},
    )
    for name in ("ssh-add", "ssh-keygen", "lib/ssh-add", "lib/ssh-keygen", *_loaders(programs)):
        (context / "ssh" / name).chmod(0o755)
    return context


def _loaders(programs: dict[str, bytes]) -> list[str]:
    return [name.removeprefix("ssh/") for name in programs if "/ld-linux" in name]


def _fingerprint(key: Path) -> str:
    return _run("ssh-keygen", "-l", "-f", str(key)).split()[1]


def _verify(witness: Witness, image: str, key: Path, folder: Path) -> None:
    """Check, with ssh-keygen, the signature that was made in the build."""
    (folder / "sig").write_bytes(witness.read(image, "/work/data.sig"))
    (folder / "signers").write_text("ada " + key.with_suffix(".pub").read_text())
    command = ["ssh-keygen", "-Y", "verify", "-f", str(folder / "signers"), "-I", "ada", "-n", "test"]
    assert "Good" in _run(*command, "-s", str(folder / "sig"), input="what is signed")


SIGN = "ssh-add -l > /listed && ssh-keygen -Y sign -f /work/key.pub -n test /work/data"


@pytest.mark.parametrize("driver", ["control", "classic"])
def test_the_running_agent(
    engine: Engine,
    witness: Witness,
    tmp_path: Path,
    key: Path,
    agent: Path,
    programs: dict[str, bytes],
    monkeypatch: pytest.MonkeyPatch,
    driver: str,
) -> None:
    """A step sees the keys of the agent in SSH_AUTH_SOCK, and a signature made through it verifies."""
    monkeypatch.setenv("SSH_AUTH_SOCK", str(agent))
    built = build_image(engine, _context(tmp_path, key, programs, SIGN), ssh=["default"], no_cache=True, driver=driver)
    listed = witness.text(built.image_id, "/listed")
    assert _fingerprint(key) in listed
    assert "ada@here" in listed
    _verify(witness, built.image_id, key, tmp_path)


@pytest.mark.parametrize("key", ["ed25519", "ecdsa", "rsa"], indirect=True)
def test_keys_held_in_this_process(
    engine: Engine, witness: Witness, tmp_path: Path, key: Path, programs: dict[str, bytes]
) -> None:
    """The same with a key file and no agent: our own lists it and signs."""
    context = _context(tmp_path, key, programs, SIGN)
    built = build_image(engine, context, ssh=[f"default={key}"], no_cache=True)
    assert _fingerprint(key) in witness.text(built.image_id, "/listed")
    _verify(witness, built.image_id, key, tmp_path)


def test_an_encrypted_key(
    engine: Engine, witness: Witness, tmp_path: Path, key: Path, programs: dict[str, bytes]
) -> None:
    """A key with a passphrase signs in a step that names the agent's ID."""
    _run("ssh-keygen", "-q", "-p", "-N", "open sesame", "-P", "", "-f", str(key))
    source = SshKeys(key, passphrase=lambda _path: "open sesame")
    context = _context(tmp_path, key, programs, SIGN, ",id=work")
    built = build_image(engine, context, ssh={"work": source}, no_cache=True)
    _verify(witness, built.image_id, key, tmp_path)


def test_the_agent_is_not_the_steps_to_change(
    engine: Engine, witness: Witness, tmp_path: Path, key: Path, agent: Path, programs: dict[str, bytes]
) -> None:
    """Removing and locking fail in the step and leave the agent as it was; raw, removing works."""
    commands = "ssh-add -D; ssh-add -d /work/key.pub; ssh-add -l > /listed"
    context = _context(tmp_path, key, programs, commands)
    environment = {**os.environ, "SSH_AUTH_SOCK": str(agent)}
    built = build_image(engine, context, ssh=[f"default={agent}"], no_cache=True)
    assert _fingerprint(key) in witness.text(built.image_id, "/listed")
    assert _fingerprint(key) in _run("ssh-add", "-l", env=environment)
    context = _context(tmp_path, key, programs, "ssh-add -D")
    build_image(engine, context, ssh={"default": SshAgent(agent, raw=True)}, no_cache=True)
    left = subprocess.run(["ssh-add", "-l"], env=environment, capture_output=True, text=True, check=False)
    assert "no identities" in left.stdout


def test_many_connections_at_once(
    engine: Engine, witness: Witness, tmp_path: Path, key: Path, agent: Path, programs: dict[str, bytes]
) -> None:
    """Twenty clients of one step are served side by side."""
    commands = "for n in $(seq 20); do ssh-add -l > /listed$n & done; wait; cat /listed* > /all"
    context = _context(tmp_path, key, programs, commands)
    built = build_image(engine, context, ssh=[f"default={agent}"], no_cache=True)
    assert witness.text(built.image_id, "/all").count(_fingerprint(key)) == 20


def test_an_id_that_was_not_offered(
    engine: Engine, witness: Witness, tmp_path: Path, key: Path, agent: Path, programs: dict[str, bytes]
) -> None:
    """A step that demands another ID fails and names it; one for which it is optional runs without an agent."""
    given = {"ssh": [f"default={agent}"], "no_cache": True}
    with pytest.raises(BuildFailed, match="unset ssh forward key deploy"):
        build_image(engine, _context(tmp_path, key, programs, "true", ",id=deploy,required=true"), **given)
    context = _context(tmp_path, key, programs, "ssh-add -l > /there 2>&1; true", ",id=deploy")
    built = build_image(engine, context, **given)
    assert "agent" in (there := witness.text(built.image_id, "/there"))
    assert _fingerprint(key) not in there


def test_an_agent_that_is_missing_ends_the_build_before_it_starts(engine: Engine, tmp_path: Path) -> None:
    """Nothing is asked of the engine when the agent cannot be used."""
    context = make_context(tmp_path / "context", "FROM mobysession-base\n")
    with pytest.raises(SshError, match=r"SSH agent 'default': no SSH agent at"):
        build_image(engine, context, ssh={"default": SshAgent(tmp_path / "none.sock")})


def test_the_command_line(
    engine: Engine, witness: Witness, tmp_path: Path, key: Path, agent: Path, programs: dict[str, bytes]
) -> None:
    """``--ssh default`` forwards the agent; with -v the keys it holds are listed before the build starts."""
    context = _context(tmp_path, key, programs, SIGN)
    options = ["-q", "--no-cache", "--ssh", "default"]
    done = subprocess.run(
        [sys.executable, "-m", "mobysession", "-v", "--host", engine.host, "build", *options, str(context)],
        env={**os.environ, "SSH_AUTH_SOCK": str(agent)},
        capture_output=True,
        text=True,
        timeout=BUILD_TIMEOUT,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert f"SSH agent default has ssh-ed25519 {_fingerprint(key)} ada@here" in done.stderr
    _verify(witness, done.stdout.strip(), key, tmp_path)
