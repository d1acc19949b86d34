"""Every option of a build does on real engines what it says: seen in the image, or in what RUN wrote down."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import docker.errors
import pytest

from integration.contexts import make_context
from integration.images import BUILD_TIMEOUT, build_image
from mobysession.errors import BuildFailed, ContextError, UnsupportedByEngine, UsageError

if TYPE_CHECKING:
    from pathlib import Path

    from integration.engines import Engine
    from integration.images import Witness
    from mobysession.buildkit.status import BuildStatus

FIRST_WITH_RESOURCES = 23
"""The engine since which a build can set /dev/shm and limits."""

FIRST_WITH_GATEWAY = 23
"""The engine since which BuildKit tells what host-gateway stands for."""


@pytest.fixture(params=["control", "classic"])
def driver(request: pytest.FixtureRequest) -> str:
    """Each way of asking the engine."""
    name: str = request.param
    return name


def _ran(engine: Engine, witness: Witness, context: Path, command: str, **options: Any) -> str:
    """Return what ``command`` wrote in a RUN."""
    make_context(context, f"FROM mobysession-base\nRUN ({command}) > /out 2>&1\n")
    return witness.text(build_image(engine, context, no_cache=True, **options).image_id, "/out")


# -- which Dockerfile --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["context/Other", "context/sub/dir/Other.dockerfile", "apart/Other", "späße/Ot her"])
def test_file(engine: Engine, witness: Witness, tmp_path: Path, driver: str, place: str) -> None:
    """``file`` is a Dockerfile anywhere; COPY reads the context all the same."""
    context = make_context(tmp_path / "context", "FROM scratch\nCOPY wrong /\n", {"greeting": place})
    file = tmp_path / place
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("FROM scratch\nCOPY greeting /\n")
    assert witness.text(build_image(engine, context, file=file, driver=driver).image_id, "/greeting") == place


def test_file_counts_from_the_working_directory(
    engine: Engine, witness: Witness, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A relative path of a Dockerfile counts from the working directory, and an error says so to who forgets it."""
    make_context(tmp_path / "context", "unused", {"Other": "FROM scratch\nCOPY Other /\n"})
    monkeypatch.chdir(tmp_path)
    assert witness.read(build_image(engine, "context", file="context/Other").image_id, "/Other")
    with pytest.raises(ContextError) as caught:
        build_image(engine, "context", file="Other")
    assert "counts from the working directory" in (caught.value.hint or "")


def test_lower_case_dockerfile(engine: Engine, witness: Witness, tmp_path: Path, driver: str) -> None:
    """A ``dockerfile`` counts where there is no ``Dockerfile``."""
    context = make_context(tmp_path / "context", "FROM scratch\nCOPY greeting /\n", {"greeting": "lower"})
    (context / "Dockerfile").rename(context / "dockerfile")
    assert witness.text(build_image(engine, context, driver=driver).image_id, "/greeting") == "lower"


# -- what the image is called and says of itself -----------------------------------------------------------------------


def test_tags(engine: Engine, witness: Witness, tmp_path: Path, driver: str) -> None:
    """The image gets all of its names, also one of a registry."""
    tags = ["mobysession-test/one:1", "mobysession-test/two", "127.0.0.1:5000/three:3.0"]
    context = make_context(tmp_path / "context", "FROM scratch\nCOPY greeting /\n", {"greeting": driver})
    result = build_image(engine, context, tags=tags, driver=driver)
    assert {witness.client.images.get(tag).id for tag in tags} == {result.image_id}
    with pytest.raises(docker.errors.ImageNotFound):
        witness.client.images.get("mobysession-test/three")


def test_labels(engine: Engine, witness: Witness, tmp_path: Path, driver: str) -> None:
    """Labels of the image are added to those of the Dockerfile and win over them."""
    context = make_context(tmp_path / "context", "FROM scratch\nLABEL a=1 b=1\nCOPY Dockerfile /\n")
    labels = {"b": "2", "quoted": 'a "b" = c, d', "empty": "", "unicode": "größe"}
    image = build_image(engine, context, labels=labels, driver=driver).image_id
    assert witness.config(image)["Labels"] == {"a": "1", **labels}


def test_build_args(
    engine: Engine, witness: Witness, tmp_path: Path, driver: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A value is given, or taken from the environment; where that has none the Dockerfile's own default stays."""
    monkeypatch.setenv("FROM_ENV", "environment")
    monkeypatch.delenv("UNSET", raising=False)
    dockerfile = """\
ARG BASE=no-such-image
FROM $BASE
ARG GIVEN=default
ARG FROM_ENV=default
ARG UNSET=default
ARG NOT_NAMED=default
RUN printf '%s|' "$GIVEN" "$FROM_ENV" "$UNSET" "$NOT_NAMED" > /out
"""
    context = make_context(tmp_path / "context", dockerfile)
    arguments = {"BASE": "mobysession-base", "GIVEN": 'a=b, "c"', "FROM_ENV": None, "UNSET": None}
    image = build_image(engine, context, build_args=arguments, driver=driver).image_id
    assert witness.text(image, "/out") == 'a=b, "c"|environment|default|default|'


# -- cache -------------------------------------------------------------------------------------------------------------

RANDOM_STAGES = """\
FROM mobysession-base AS one
RUN head -c 16 /dev/urandom | md5sum > /one
FROM mobysession-base AS two
RUN head -c 16 /dev/urandom | md5sum > /two
FROM scratch
COPY --from=one /one /
COPY --from=two /two /
"""


def test_no_cache(engine: Engine, witness: Witness, tmp_path: Path, driver: str) -> None:
    """Without ``no_cache`` everything comes from the cache, with it nothing."""
    context = make_context(tmp_path / "context", f"{RANDOM_STAGES}LABEL driver={driver}\n")
    images = [build_image(engine, context, driver=driver, no_cache=flag).image_id for flag in (False, False, True)]
    first, again, fresh = ([witness.text(image, name) for name in ("/one", "/two")] for image in images)
    assert first == again
    assert fresh[0] != first[0]
    assert fresh[1] != first[1]


def test_no_cache_for_a_stage(engine: Engine, witness: Witness, tmp_path: Path) -> None:
    """``no_cache_filter`` builds the stages anew that it names, and no others."""
    context = make_context(tmp_path / "context", f"{RANDOM_STAGES}LABEL filtered=1\n")
    images = [build_image(engine, context, no_cache_filter=stages).image_id for stages in ([], ["two"], ["one", "two"])]
    first, second, third = ([witness.text(image, name) for name in ("/one", "/two")] for image in images)
    assert second[0] == first[0]
    assert second[1] != first[1]
    assert third[0] != second[0]
    assert third[1] != second[1]


def test_no_cache_for_a_stage_needs_the_control_driver(engine: Engine, tmp_path: Path) -> None:
    """The classic endpoint cannot be asked for it, which is said before anything is built."""
    context = make_context(tmp_path / "context", RANDOM_STAGES)
    with pytest.raises(UnsupportedByEngine, match="POST /build cannot leave out the cache of single stages"):
        build_image(engine, context, no_cache_filter=["one"], driver="classic")


def test_pull_asks_the_registry(engine: Engine, tmp_path: Path, driver: str) -> None:
    """With ``pull`` an image that is only in the engine's own store does not do: the registry is asked, and missed."""
    context = make_context(tmp_path / "context", "FROM mobysession-base\n")
    build_image(engine, context, driver=driver)
    with pytest.raises(BuildFailed, match="mobysession-base") as caught:
        build_image(engine, context, pull=True, driver=driver)
    assert caught.value.hint is not None
    assert "The engine, not this machine" in caught.value.hint


# -- platforms ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("platform", ["linux/arm64", "linux/arm/v7"])
def test_platform(engine: Engine, witness: Witness, tmp_path: Path, driver: str, platform: str) -> None:
    """The image is of the platform that was asked for."""
    dockerfile = "FROM scratch\nARG TARGETPLATFORM\nCOPY greeting /\nLABEL platform=$TARGETPLATFORM\n"
    context = make_context(tmp_path / "context", dockerfile, {"greeting": "any"})
    tag = "mobysession-test/platform:1"
    build_image(engine, context, platforms=[platform], driver=driver, tags=[tag])
    found = witness.inspect(tag)
    assert "/".join(filter(None, (found["Os"], found["Architecture"], found.get("Variant")))) == platform
    assert found["Config"]["Labels"]["platform"] == platform


def test_several_platforms(engine: Engine, witness: Witness, tmp_path: Path) -> None:
    """An image store that holds them gets them all; one that cannot is not asked to build, and the error says why."""
    context = make_context(tmp_path / "context", "FROM scratch\nCOPY greeting /\n", {"greeting": "all"})
    platforms = ["linux/amd64", "linux/arm64"]
    if engine.containerd_image_store:
        result = build_image(engine, context, platforms=platforms, tags=["mobysession-test/several:1"])
        assert witness.client.images.get(result.image_id).id == result.image_id
        listed = engine.get("/images/json?manifests=true")
        (image,) = (image for image in listed if image["Id"] == result.image_id)
        kinds = [manifest["ImageData"]["Platform"] for manifest in image["Manifests"] if manifest["Kind"] == "image"]
        assert {f"{kind['os']}/{kind['architecture']}" for kind in kinds} == set(platforms)
        return
    statuses: list[BuildStatus] = []
    with pytest.raises(UnsupportedByEngine, match="several platforms") as caught:
        build_image(engine, context, platforms=platforms, on_status=statuses.append)
    assert "containerd image store" in (caught.value.hint or "")
    assert statuses == []


def test_several_platforms_need_the_control_driver(engine: Engine, tmp_path: Path) -> None:
    """The classic endpoint makes images of one platform, which is said before anything is built."""
    context = make_context(tmp_path / "context", "FROM scratch\nCOPY Dockerfile /\n")
    with pytest.raises(UnsupportedByEngine, match="one platform only"):
        build_image(engine, context, platforms=["linux/amd64", "linux/arm64"], driver="classic")


# -- what RUN finds around itself --------------------------------------------------------------------------------------


def test_add_hosts(engine: Engine, witness: Witness, tmp_path: Path, driver: str) -> None:
    """Lines for v4 and v6 addresses, in both spellings, are in the /etc/hosts of RUN."""
    hosts = ["four:192.0.2.4", "six:2001:db8::6", "other=192.0.2.5", "brackets=[2001:db8::7]", "many:192.0.2.8"]
    written = _ran(engine, witness, tmp_path / "context", "cat /etc/hosts", add_hosts=hosts, driver=driver)
    lines = {tuple(line.split()) for line in written.splitlines()}
    assert {
        ("192.0.2.4", "four"),
        ("2001:db8::6", "six"),
        ("192.0.2.5", "other"),
        ("2001:db8::7", "brackets"),
        ("192.0.2.8", "many"),
    } <= lines


def test_host_gateway(engine: Engine, witness: Witness, tmp_path: Path, driver: str) -> None:
    """``host-gateway`` stands for the address of the engine's machine; an engine that does not tell it is refused."""
    context = tmp_path / "context"
    if driver == "control" and engine.major < FIRST_WITH_GATEWAY:
        with pytest.raises(UnsupportedByEngine, match="host-gateway") as caught:
            _ran(engine, witness, context, "true", add_hosts=["outside:host-gateway"], driver=driver)
        assert "classic" in (caught.value.hint or "")
        return
    command = "ip route && cat /etc/hosts"
    written = _ran(engine, witness, context, command, add_hosts=["outside:host-gateway"], driver=driver)
    (gateway,) = re.findall(r"^default via (\S+)", written, re.MULTILINE)
    assert gateway in re.findall(r"^(\S+)\s+outside$", written, re.MULTILINE)


@pytest.mark.parametrize("network", ["default", "none", "host"])
def test_network(engine: Engine, witness: Witness, tmp_path: Path, driver: str, network: str) -> None:
    """RUN is alone, has an interface to the engine's bridge, or sees what the engine sees."""
    found = _ran(engine, witness, tmp_path / "context", "ls /sys/class/net", network=network, driver=driver).split()
    assert {"default": "eth0" in found, "none": found == ["lo"], "host": "docker0" in found}[network]


def _refused_resources(engine: Engine, context: Path, **options: Any) -> None:
    make_context(context, "FROM mobysession-base\nRUN true\n")
    statuses: list[BuildStatus] = []
    with pytest.raises(UnsupportedByEngine, match="would be ignored by this engine") as caught:
        build_image(engine, context, on_status=statuses.append, **options)
    assert next(iter(options)) in caught.value.message
    assert "Docker 23" in f"{caught.value.message} {caught.value.hint}"
    assert statuses == []


def test_shm_size(engine: Engine, witness: Witness, tmp_path: Path, driver: str) -> None:
    """/dev/shm of RUN is that large; an engine that would ignore it is not asked."""
    size = 32 * 1024**2 if driver == "control" else "32m"
    if engine.major < FIRST_WITH_RESOURCES:
        _refused_resources(engine, tmp_path / "context", shm_size=size, driver=driver)
        return
    written = _ran(engine, witness, tmp_path / "context", "df -k /dev/shm", shm_size=size, driver=driver)
    assert written.splitlines()[-1].split()[1] == "32768"


def test_ulimits(engine: Engine, witness: Witness, tmp_path: Path, driver: str) -> None:
    """The limits of RUN, soft and hard, are those; an engine that would ignore them is not asked."""
    limits = ["nofile=1000:2000", "core=0", "nproc=321"]
    if engine.major < FIRST_WITH_RESOURCES:
        _refused_resources(engine, tmp_path / "context", ulimits=limits, driver=driver)
        return
    command = "ulimit -Sn; ulimit -Hn; ulimit -Sc; ulimit -Su"
    assert _ran(engine, witness, tmp_path / "context", command, ulimits=limits, driver=driver).split() == [
        "1000",
        "2000",
        "0",
        "321",
    ]


# -- what comes out ----------------------------------------------------------------------------------------------------


def test_iidfile_and_metadata_file(engine: Engine, witness: Witness, tmp_path: Path, driver: str) -> None:
    """The files hold the ID of the image, and the engine's response with what is encoded in it decoded."""
    context = make_context(tmp_path / "context", "FROM scratch\nCOPY Dockerfile /\n")
    files = {"iidfile": tmp_path / "iid", "metadata_file": tmp_path / "metadata.json"}
    result = build_image(engine, context, tags=["mobysession-test/files:1"], driver=driver, **files)
    assert files["iidfile"].read_text() == result.image_id == witness.client.images.get(result.image_id).id
    metadata = json.loads(files["metadata_file"].read_text())
    assert metadata["containerimage.digest"] == result.digest
    assert "mobysession-test/files:1" in metadata["image.name"]
    if driver == "control" and engine.containerd_image_store:
        assert metadata["containerimage.descriptor"]["digest"] == result.image_id
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_file()) == ["iid", "metadata.json"]


def test_files_that_cannot_be_written_stop_a_build_before_it_starts(engine: Engine, tmp_path: Path) -> None:
    """A folder that is missing is seen before the engine is asked for anything."""
    context = make_context(tmp_path / "context", "FROM scratch\nCOPY Dockerfile /\n")
    statuses: list[BuildStatus] = []
    with pytest.raises(Exception, match="cannot be written"):
        build_image(engine, context, iidfile=tmp_path / "missing/iid", on_status=statuses.append)
    assert statuses == []


def _command_line(engine: Engine, context: Path, *options: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "mobysession", "--host", engine.host, "build", *options, str(context)]
    return subprocess.run(argv, capture_output=True, text=True, timeout=BUILD_TIMEOUT, check=False)


LOUD = "FROM mobysession-base\nRUN echo loud-$((1 + 1))\n"


def test_progress_plain(engine: Engine, tmp_path: Path) -> None:
    """Plain progress is on stderr: every step, what it wrote, its end; stdout stays free for data."""
    done = _command_line(engine, make_context(tmp_path / "context", LOUD), "--no-cache", "--progress", "plain")
    assert (done.returncode, done.stdout) == (0, "")
    assert re.search(r"^#\d+ \[2/2\] RUN echo loud", done.stderr, re.MULTILINE)
    assert re.search(r"^#\d+ \d+\.\d+ loud-2$", done.stderr, re.MULTILINE)
    assert re.search(r"^#\d+ DONE \d+\.\ds$", done.stderr, re.MULTILINE)
    assert re.search(r"^image: sha256:[0-9a-f]{64}$", done.stderr, re.MULTILINE)


@pytest.mark.parametrize("options", [["-q"], ["--progress", "quiet"]])
def test_quiet(engine: Engine, witness: Witness, tmp_path: Path, options: list[str]) -> None:
    """Quiet prints the ID of the image, and nothing else anywhere."""
    done = _command_line(engine, make_context(tmp_path / "context", LOUD), *options)
    assert (done.returncode, done.stderr) == (0, "")
    assert witness.client.images.get(done.stdout.strip()).id == done.stdout.strip()


@pytest.mark.parametrize("options", [[], ["--progress", "tty"]])
def test_progress_on_a_terminal(engine: Engine, tmp_path: Path, options: list[str]) -> None:
    """On a terminal the steps are drawn in place, and the last picture shows them done."""
    context = make_context(tmp_path / "context", LOUD)
    argv = [sys.executable, "-m", "mobysession", "--host", engine.host, "build", "--no-cache", *options, str(context)]
    reader, terminal = pty.openpty()
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "100", "LINES": "40"}
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=terminal, env=environment) as process:
        os.close(terminal)
        drawn = _read_terminal(reader)
        assert process.wait(BUILD_TIMEOUT) == 0
    assert "\x1b[" in drawn
    assert "FINISHED" in drawn
    assert "RUN echo loud" in drawn


def _read_terminal(descriptor: int) -> str:
    drawn = b""
    try:
        while data := os.read(descriptor, 65536):
            drawn += data
    except OSError:  # how a terminal says that nobody has it open any more
        pass
    finally:
        os.close(descriptor)
    return drawn.decode()


def test_every_option_of_the_command_line(engine: Engine, witness: Witness, tmp_path: Path) -> None:
    """The options of ``mobysession build``, all at once, come to the image that they describe."""
    dockerfile = """\
FROM mobysession-base AS wanted
ARG GIVEN
ARG FROM_ENV
COPY greeting /
RUN --mount=type=secret,id=token --mount=type=secret,id=TOKEN_VARIABLE (echo "$GIVEN $FROM_ENV" \
    && cat /run/secrets/token /run/secrets/TOKEN_VARIABLE && ls /sys/class/net && grep mapped /etc/hosts) > /out
FROM wanted
RUN false
"""
    context = make_context(tmp_path / "context", "FROM scratch\n", {"greeting": "hello"})
    (tmp_path / "Special").write_text(dockerfile)
    (tmp_path / "token").write_text("from a file\n")
    argv = [sys.executable, "-m", "mobysession", "-H", engine.host, "build", "--progress=plain"]
    argv += ["-f", str(tmp_path / "Special"), "-t", "mobysession-test/a:1", "--tag", "mobysession-test/b:1"]
    argv += ["--target", "wanted", "--build-arg", "GIVEN=given", "--build-arg", "FROM_ENV", "--label", "a=b=c"]
    argv += ["--secret", f"id=token,src={tmp_path / 'token'}", "--secret", "id=TOKEN_VARIABLE,env=TOKEN_VARIABLE"]
    argv += ["--no-cache", "--add-host", "mapped:192.0.2.1", "--network", "none", "--platform", "linux/amd64"]
    argv += ["--iidfile", str(tmp_path / "iid"), "--metadata-file", str(tmp_path / "metadata"), str(context)]
    environment = {**os.environ, "FROM_ENV": "environment", "TOKEN_VARIABLE": "from a variable\n"}
    done = subprocess.run(argv, env=environment, capture_output=True, text=True, timeout=BUILD_TIMEOUT, check=False)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    image = (tmp_path / "iid").read_text()
    assert {witness.client.images.get(f"mobysession-test/{name}:1").id for name in "ab"} == {image}
    assert witness.config(image)["Labels"]["a"] == "b=c"
    wanted = "given environment\nfrom a file\nfrom a variable\nlo\n192.0.2.1\tmapped\n"
    assert witness.text(image, "/out").split() == wanted.split()


@pytest.mark.parametrize(
    "options", [{"tags": ["UPPER"]}, {"network": "bridge"}, {"add_hosts": ["x"]}, {"progress": "no"}]
)
def test_wrong_options_are_refused_before_the_engine_is_asked(
    engine: Engine, tmp_path: Path, options: dict[str, Any]
) -> None:
    """What makes no sense is the caller's to change, and said at once."""
    context = make_context(tmp_path / "context", "FROM scratch\nCOPY Dockerfile /\n")
    with pytest.raises(UsageError):
        build_image(engine, context, **options)
