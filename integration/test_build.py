"""Builds on real engines, asked for in the three ways: from trio, from blocking code, from the command line."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.lowlevel

import mobysession.errors
from integration.contexts import make_context
from integration.images import BUILD_TIMEOUT, build_image
from mobysession import sync
from mobysession.build import build
from mobysession.services.secrets import SecretEnv, SecretFile
from mobysession.transport.endpoint import Endpoint

if TYPE_CHECKING:
    from pathlib import Path

    from integration.engines import Engine
    from integration.images import Witness
    from mobysession.build import BuildResult
    from mobysession.build.options import Driver

EVERYTHING = """\
FROM mobysession-base AS tools
RUN --mount=type=cache,target=/cache echo cached >> /cache/lines && cp /cache/lines /lines
RUN --mount=type=secret,id=token sha256sum < /run/secrets/token > /digest

FROM mobysession-base AS early
COPY greeting /early

FROM mobysession-base
COPY greeting /greeting
COPY --from=tools /digest /digest
RUN tr a-z A-Z < /greeting > /loud
CMD ["cat", "/greeting", "/loud", "/digest"]
"""
SECRET_DIGEST = "5e884898da28047151d0e56f8dc6292773603d0d6aabbdd62a11ef721d1542d8"
"""SHA-256 of ``password``."""


def _command_line(engine: Engine, context: Path, target: str | None) -> str:
    (context.parent / "token").write_text("password")
    argv = [sys.executable, "-m", "mobysession", "--host", engine.host, "build", "-q"]
    argv += ["--secret", f"id=token,src={context.parent / 'token'}", str(context)]
    done = subprocess.run(
        argv + (["--target", target] if target else []),
        capture_output=True,
        text=True,
        timeout=BUILD_TIMEOUT,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.strip()


def _from_trio(engine: Engine, context: Path, target: str | None) -> str:
    return build_image(engine, context, target=target, secrets={"token": b"password"}).image_id


def _from_blocking_code(engine: Engine, context: Path, target: str | None) -> str:
    endpoint = Endpoint.parse(engine.host)
    return sync.build(context, endpoint=endpoint, target=target, secrets={"token": "password"}).image_id


@pytest.mark.parametrize("ask", [_from_trio, _from_blocking_code, _command_line])
def test_a_build_makes_the_image(engine: Engine, witness: Witness, tmp_path: Path, ask: Any) -> None:
    """COPY, RUN, secrets, a cache mount and several stages come to an image that shows the right bytes when it runs."""
    context = make_context(tmp_path / "context", EVERYTHING, {"greeting": "hello\n"})
    image = ask(engine, context, None)
    assert witness.run(image) == f"hello\nHELLO\n{SECRET_DIGEST}  -\n".encode()


@pytest.mark.parametrize("ask", [_from_trio, _from_blocking_code, _command_line])
def test_a_target_is_the_stage_that_is_built(engine: Engine, witness: Witness, tmp_path: Path, ask: Any) -> None:
    """``target`` names a stage, and its image has nothing of the others."""
    context = make_context(tmp_path / "context", EVERYTHING, {"greeting": "early\n"})
    image = ask(engine, context, "early")
    assert witness.run(image, "sh", "-c", "cat /early; ls /loud /digest 2>&1 | wc -l") == b"early\n2\n"


async def _token() -> bytes:
    await trio.lowlevel.checkpoint()
    return b"password"


@pytest.mark.parametrize("driver", ["control", "classic"])
def test_every_kind_of_secret_reaches_run(
    engine: Engine, witness: Witness, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, driver: Driver
) -> None:
    """Whatever a secret comes from, RUN finds its bytes, and the image does not have them."""
    (tmp_path / "token").write_text("password")
    monkeypatch.setenv("TOKEN", "password")
    secrets: dict[str, Any] = {
        "bytes": b"password",
        "text": "password",
        "file": SecretFile(tmp_path / "token"),
        "path": tmp_path / "token",
        "env": SecretEnv("TOKEN"),
        "function": lambda: "password",
        "function-of-the-id": lambda secret_id: {"function-of-the-id": b"password"}[secret_id],
        "coroutine-function": _token,
    }
    mounts = " ".join(f"--mount=type=secret,id={name}" for name in secrets)
    run = f"RUN {mounts} cd /run/secrets && sha256sum * > /digests\n"
    context = make_context(tmp_path / "context", "FROM mobysession-base\n" + run)
    image = build_image(engine, context, no_cache=True, driver=driver, secrets=secrets).image_id
    found = [line.split() for line in witness.text(image, "/digests").splitlines()]
    assert {name: digest for digest, name in found} == dict.fromkeys(secrets, SECRET_DIGEST)
    assert witness.run(image, "sh", "-c", "cat /run/secrets/* 2>/dev/null | wc -c") == b"0\n"


@pytest.mark.parametrize("driver", ["control", "classic"])
def test_a_cache_mount_is_kept_between_builds(engine: Engine, witness: Witness, tmp_path: Path, driver: Driver) -> None:
    """The second build finds what the first one left in the cache mount."""
    # Not no_cache, which starts cache mounts anew as well.
    dockerfile = f"""FROM mobysession-base
ARG ROUND
RUN --mount=type=cache,id={driver}-lines,target=/cache echo "$ROUND" >> /cache/f && cp /cache/f /f
"""
    context = make_context(tmp_path / "context", dockerfile)
    images = [build_image(engine, context, build_args={"ROUND": n}, driver=driver).image_id for n in ("one", "two")]
    assert [witness.text(image, "/f") for image in images] == ["one\n", "one\ntwo\n"]


@pytest.mark.parametrize("tags", [[], ["mobysession-test/named:1"]])
@pytest.mark.parametrize("driver", ["control", "classic"])
def test_the_image_id_is_the_engines_own(
    engine: Engine, witness: Witness, tmp_path: Path, driver: Driver, tags: list[str]
) -> None:
    """``image_id`` is what the engine calls the image, with every image store, whether it has a name or not."""
    context = make_context(tmp_path / "context", "FROM mobysession-base\nCOPY greeting /\n", {"greeting": "id"})
    result = build_image(engine, context, driver=driver, tags=tags)
    assert result.driver == driver
    assert result.tags == tuple(tags)
    assert witness.client.images.get(result.image_id).id == result.image_id
    assert witness.text(result.image_id, "/greeting") == "id"


@pytest.mark.parametrize("driver", ["control", "classic"])
def test_a_second_build_sends_no_contents(engine: Engine, tmp_path: Path, driver: Driver) -> None:
    """An unchanged context is compared and not sent again, and every step of the Dockerfile comes from the cache."""
    dockerfile = "FROM mobysession-base\nCOPY . /all\nRUN wc -c < /all/large > /size\n"
    context = make_context(tmp_path / "context", dockerfile, {"large": b"x" * 300_000, "small": driver})
    first, second = (build_image(engine, context, driver=driver) for _ in range(2))
    # The Dockerfile comes in a transfer of its own, for which newer engines keep no earlier copy.
    sent = [_context_bytes(result) for result in (first, second)]
    assert sent == [300_000 + len(driver) + len(dockerfile), 0]
    assert _uncached(first) == 2
    assert _uncached(second) == 0
    if not engine.containerd_image_store or driver == "classic":
        # Elsewhere an image has a provenance beside it, in which stands when it was built.
        assert first.image_id == second.image_id


def _context_bytes(result: BuildResult) -> int:
    """Count the bytes of file contents that were sent for the build context."""
    return sum(transfer.bytes_sent for transfer in result.transfers if transfer.directory == "context")


def _uncached(result: BuildResult) -> int:
    """Count the steps for COPY and RUN that did not come from the cache."""
    return sum(not step.cached for step in result.steps if "COPY" in step.name or "RUN" in step.name)


@pytest.mark.parametrize("driver", ["control", "classic"])
def test_many_builds_leave_nothing_open(engine: Engine, tmp_path: Path, driver: Driver) -> None:
    """Twenty builds in one loop, of which some fail, leave as many descriptors and tasks as there were."""
    good = make_context(tmp_path / "good", "FROM mobysession-base\nCOPY greeting /\n", {"greeting": driver})
    bad = make_context(tmp_path / "bad", "FROM mobysession-base\nCOPY missing /\n")
    endpoint = Endpoint.parse(engine.host)

    async def build_many() -> list[tuple[int, int]]:
        seen = []
        for number in range(20):
            with trio.fail_after(BUILD_TIMEOUT):
                try:
                    await build(bad if number % 4 == 3 else good, endpoint=endpoint, driver=driver)
                except mobysession.errors.BuildFailed:
                    assert number % 4 == 3
            descriptors = len(os.listdir("/proc/self/fd"))
            seen.append((descriptors, trio.lowlevel.current_statistics().tasks_living))
        return seen

    seen = trio.run(build_many)
    assert seen[4:] == seen[:1] * 16


def test_builds_at_the_same_time_do_not_meet(engine: Engine, witness: Witness, tmp_path: Path) -> None:
    """Builds that run in one loop at the same time each get their own context and secret."""
    names = [f"parallel-{number}" for number in range(6)]
    run = "RUN --mount=type=secret,id=who cat /run/secrets/who > /who\n"
    contexts = [
        make_context(tmp_path / name, f"FROM mobysession-base\nCOPY name /\n{run}", {"name": name}) for name in names
    ]
    images: dict[str, str] = {}

    async def build_one(context: Path) -> None:
        result = await build(
            context, endpoint=Endpoint.parse(engine.host), secrets={"who": context.name}, no_cache=True
        )
        images[context.name] = result.image_id

    async def build_all() -> None:
        with trio.fail_after(BUILD_TIMEOUT):
            async with trio.open_nursery() as nursery:
                for context in contexts:
                    nursery.start_soon(build_one, context)

    trio.run(build_all)
    found = {name: (witness.text(images[name], "/name"), witness.text(images[name], "/who")) for name in names}
    assert found == {name: (name, name) for name in names}
