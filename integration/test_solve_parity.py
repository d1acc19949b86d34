"""What an engine is asked for: by us and by ``docker buildx build``, from the same command line, field by field.

Both run against a relay that records what they send. A case says where the two differ, and docs/builds.md why; anything
else that differs fails. Where the build succeeds, the images that come out are compared too. Where the engine cannot do
what is asked (a registry that is not there, an entitlement that is not granted), the request alone is.
"""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
import tarfile
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from integration.contexts import make_context
from integration.images import BUILD_TIMEOUT
from integration.layouts import make_cache_layout, make_image_layout
from integration.prepare import HINT
from integration.solve_requests import Asked, recorded
from mobysession.testing.packages import run_command

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from integration.engines import Buildx, Engine
    from integration.images import Witness

DOCKERFILE = """\
FROM mobysession-base AS one
RUN echo built > /built
FROM one AS two
ARG A=1
COPY file /file
"""
GITHUB = {
    "ACTIONS_RUNTIME_TOKEN": "t0ken",
    "ACTIONS_RESULTS_URL": "http://127.0.0.1:1/r",
    "ACTIONS_CACHE_SERVICE_V2": "1",
}
PROXIES = {"proxies": {"default": {"httpProxy": "http://127.0.0.1:1", "noProxy": "a", "allProxy": "socks5://x"}}}
POLICY = {"rules": [{"action": "DENY", "selector": {"identifier": "docker-image://docker.io/library/denied"}}]}
NEWER = "FROM mobysession-base\nLABEL who=stdin\n"
#: Further Dockerfiles of the context.
AGENT = 'FROM mobysession-base\nRUN --mount=type=ssh test -S "$SSH_AUTH_SOCK"\n'
VARIABLE = "FROM mobysession-base\nRUN --mount=type=secret,id=s,required=true wc -c /run/secrets/s > /size\n"
LAYOUT = "FROM mobysession-base\nCOPY --from=x /leaf /\n"


def archive(**files: str) -> bytes:
    """Return a gzipped tar of files: without the pax headers that keep the engine from seeing what it is."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz", format=tarfile.USTAR_FORMAT) as tar:
        for name, text in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(text)
            tar.addfile(member, io.BytesIO(text.encode()))
    return content.getvalue()


@dataclass(frozen=True, kw_only=True)
class Case:
    """One command line.

    Attributes:
        args: after ``build``; ``CONTEXT`` is a directory, ``TMP`` a folder for outputs.
        differs: names of the fields of `Asked` that are not alike.
        wants: tells of an engine whether both ask it; elsewhere the case proves nothing and is left out.
        makes_image: the result is an image in the engine's store.
        config: docker's configuration.
        prepare: makes what the case needs besides, in the context.
        only: how the fields to compare begin, where the engine refuses before buildx tells it the others.
    """

    args: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)
    stdin: bytes = b""
    differs: tuple[str, ...] = ()
    wants: Callable[[Engine], bool] = lambda engine: True
    makes_image: bool = True
    only: tuple[str, ...] = ()
    config: Mapping[str, Any] = field(default_factory=dict)
    prepare: Callable[[Path], None] = lambda context: None


def _modern(engine: Engine) -> bool:
    return engine.major >= 23


def _containerd(engine: Engine) -> bool:
    return engine.containerd_image_store


def _make_key(context: Path) -> None:
    run_command(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(context / "key")], hint=HINT)


def _make_repository(
    context: Path, *, origin: str = "https://ada:s3cret@127.0.0.1/x.git", committed: bool = True, changed: bool = False
) -> None:
    commands = ["init -q"]
    if committed:
        commands += ["add .", "commit -q -m first"]
    if origin:
        commands.append(f"remote add origin {origin}")
    git = ["git", "-C", str(context), "-c", "user.name=a", "-c", "user.email=a@b"]
    for command in commands:
        run_command([*git, *command.split()], hint=HINT)
    if changed:
        (context / "new").touch()


_CONTEXTS = (("CONTEXT",), ("CONTEXT/sub",), ("-",))


def _case(*args: str, **settings: Any) -> Case:
    return Case(args=args if args[-1:] in _CONTEXTS else (*args, "CONTEXT"), **settings)


def _remote(url: str, *args: str, **settings: Any) -> Case:
    return Case(args=(*args, url), makes_image=False, **settings)


CASES = {
    "nothing": _case(),
    "tags": _case("-t", "mobysession-test/parity:1", "-t", "127.0.0.1:5000/parity"),
    "target": _case("--target", "one"),
    "build-args": _case("--build-arg", "A=2", "--build-arg", "B", "--build-arg", "UNSET", env={"B": "bee"}),
    "labels": _case("--label", "a=b", "--label", "c", "--label", "d=e=f"),
    "no-cache": _case("--no-cache", makes_image=False),
    "no-cache-filter": _case("--no-cache-filter", "one", "--no-cache-filter", "two", makes_image=False),
    "pull": _case("--pull", makes_image=False),
    "platform": _case("--platform", "linux/amd64"),
    "platform-short": _case("--platform", "amd64"),
    "platform-local": _case("--platform", "local"),
    "platform-variant": _case("--platform", "linux/arm64/v8", makes_image=False),
    "platform-arm": _case("--platform", "linux/armhf", makes_image=False),
    "platforms": _case("--platform", "linux/amd64,linux/arm64", wants=_containerd, makes_image=False),
    "hosts": _case("--add-host", "a:1.2.3.4", "--add-host", "b=::1"),
    "host-gateway": _case("--add-host", "a:host-gateway", wants=_modern),
    "network-none": _case("--network", "none"),
    "network-host": _case("--network", "host", makes_image=False),
    "shm-size": _case("--shm-size", "64m", wants=_modern),
    "shm-size-of-nothing": _case("--shm-size", "0"),
    # docker's CLI has them in no order, so that what it builds with them is not found in the cache.
    "ulimits": _case("--ulimit", "nofile=1000:2000", "--ulimit", "core=0", wants=_modern, makes_image=False),
    "cgroup-parent": _case("--cgroup-parent", "/mobysession", wants=_modern),
    "secret": _case("--secret", "id=s,src=CONTEXT/file"),
    "secret-of-a-variable": _case(
        "-f", "CONTEXT/sub/Variable", "--secret", "id=s,env=WORD", env={"WORD": "open sesame"}
    ),
    "ssh": _case("-f", "CONTEXT/sub/Agent", "--ssh", "default=CONTEXT/key", prepare=_make_key),
    "file": _case("-f", "CONTEXT/sub/Other"),
    "iidfile": _case("--iidfile", "TMP/iid"),
    "iidfile-without-attestations": _case("--iidfile", "TMP/iid", "--provenance", "false"),
    "allow": _case("--allow", "network.host"),
    "allow-devices": _case("--allow", "device", "--allow", "device=a.b/c", makes_image=False, only=("entitlements",)),
    "allow-insecure": _case("--allow", "security.insecure", makes_image=False, only=("entitlements",)),
    "output-image": _case("-o", "type=image,name=mobysession-test/named"),
    "output-docker": _case("-o", "type=docker"),
    "load": _case("--load", "-t", "mobysession-test/loaded"),
    "output-local": _case("-o", "TMP/out", makes_image=False),
    "output-local-attributes": _case(
        "-o", "type=local,dest=TMP/out,platform-split=true", makes_image=False, differs=()
    ),
    "output-tar": _case("-o", "type=tar,dest=TMP/out.tar", makes_image=False),
    "output-oci": _case("-o", "type=oci,dest=TMP/oci.tar,compression=zstd", wants=_containerd, makes_image=False),
    "output-oci-directory": _case("-o", "type=oci,dest=TMP/oci,tar=false", wants=_containerd, makes_image=False),
    "output-docker-file": _case(
        "-o", "type=docker,dest=TMP/docker.tar", "-t", "x/y", wants=_containerd, makes_image=False
    ),
    "output-cacheonly": _case("-o", "type=cacheonly", makes_image=False),
    "outputs": _case(
        *("-o", "type=tar,dest=TMP/out.tar", "-o", "type=image", "-t", "mobysession-test/several"),
        wants=lambda engine: engine.api >= (1, 45),
    ),
    "push": _case("--push", "-t", "127.0.0.1:1/parity", makes_image=False),
    "output-registry": _case("-o", "type=registry,name=127.0.0.1:1/parity", makes_image=False),
    "push-of-an-image": _case(
        "--push", "-o", "type=image,name=127.0.0.1:1/parity,oci-mediatypes=true", makes_image=False
    ),
    "cache-from": _case("--cache-from", "mobysession-test/cache", "--cache-from", "type=registry,ref=a/b"),
    "cache-from-local": _case(
        "--cache-from", "type=local,src=CONTEXT/cache", prepare=lambda context: make_cache_layout(context / "cache")
    ),
    "cache-from-local-without-one": _case("--cache-from", "type=local,src=CONTEXT/sub"),
    "cache-inline": _case("--cache-to", "type=inline"),
    "cache-inline-argument": _case("--build-arg", "BUILDKIT_INLINE_CACHE=1"),
    "cache-local": _case("--cache-to", "type=local,dest=TMP/cache,mode=max", wants=_containerd),
    "cache-registry": _case(
        "--cache-to", "type=registry,ref=127.0.0.1:1/cache,mode=max", wants=_containerd, makes_image=False
    ),
    "cache-gha": _case(
        *("--cache-from", "type=gha,scope=main", "--cache-to", "type=gha,mode=max,scope=main,ignore-error=true"),
        env=GITHUB,
        wants=_containerd,
        makes_image=False,
        only=("imports", "exports"),
    ),
    "contexts": _case(
        *("--build-context", "docker.io/library/alpine:latest=docker-image://mobysession-base"),
        *("--build-context", "context=CONTEXT/sub", "--build-context", "g=https://127.0.0.1:1/a/b.git"),
        wants=_modern,
    ),
    "context-layout": _case(
        *("-f", "CONTEXT/sub/Layout", "--build-context", "x=oci-layout://CONTEXT/layout:latest"),
        prepare=lambda context: make_image_layout(context / "layout", {"leaf": "leaf\n"}),
        # A graph driver reads no layout: both clients say so, ours before it builds.
        wants=_containerd,
    ),
    "annotations": _case(
        *("--annotation", "a=b", "--annotation", "index,manifest[linux/amd64]:c=d", "-o", "type=image"),
        wants=_containerd,
    ),
    "annotations-of-descriptors": _case(
        *("--annotation", "index-descriptor:a=b", "--annotation", "manifest-descriptor[linux/amd64]:c=d"),
        *("-o", "type=image"),
        wants=_containerd,
    ),
    "annotations-without-an-output": _case(
        *("--annotation", "a=b"),
        wants=_containerd,
        makes_image=False,
        differs=("exporters[0][annotation.a]", "first"),
    ),
    "provenance-on": _case("--provenance", "true", wants=_containerd),
    "provenance-off": _case("--provenance", "false"),
    "provenance-max": _case("--provenance", "mode=max", wants=_containerd),
    "attest": _case("--attest", "type=provenance,builder-id=me,mode=min", wants=_containerd),
    "attest-disabled": _case("--attest", "type=sbom,disabled=true", "--attest", "type=provenance,disabled=true"),
    "sbom": _case("--sbom", "generator=127.0.0.1:1/scanner", wants=_containerd, makes_image=False),
    "syntax": _case(
        "--build-arg",
        "BUILDKIT_SYNTAX=127.0.0.1:1/front:1 x",
        "--build-arg",
        "BUILDKIT_MULTI_PLATFORM=1",
        makes_image=False,
    ),
    "environment": _case(env={"SOURCE_DATE_EPOCH": "100", "DOCKER_DEFAULT_PLATFORM": "linux/amd64"}),
    "no-default-attestations": _case(env={"BUILDX_NO_DEFAULT_ATTESTATIONS": "1"}),
    "proxies": _case(config=PROXIES, differs=("attrs[build-arg:ALL_PROXY]",)),
    "proxies-and-arguments": _case(
        *("--build-arg", "http_proxy=mine", "--build-arg", "NO_PROXY=b"),
        config=PROXIES,
        differs=("attrs[build-arg:ALL_PROXY]", "attrs[build-arg:HTTP_PROXY]"),
    ),
    "source-policy": _case(env={"EXPERIMENTAL_BUILDKIT_SOURCE_POLICY": "CONTEXT/policy.json"}, wants=_modern),
    "repository": _case(prepare=_make_repository),
    "repository-over-ssh": _case(
        prepare=partial(_make_repository, origin="ssh://git@127.0.0.1/x.git"), env={"BUILDX_GIT_INFO": "1"}
    ),
    "repository-at-a-host": _case(prepare=partial(_make_repository, origin="git@127.0.0.1:x.git")),
    "repository-labels": _case(prepare=_make_repository, env={"BUILDX_GIT_LABELS": "1"}),
    "repository-labels-alone": _case(
        "--label",
        "a=b",
        prepare=_make_repository,
        env={"BUILDX_GIT_LABELS": "full", "BUILDX_GIT_INFO": "false", "BUILDX_GIT_CHECK_DIRTY": "true"},
    ),
    "repository-below": _case("-f", "CONTEXT/sub/Newer", "CONTEXT/sub", prepare=_make_repository),
    "repository-changed": _case(
        prepare=partial(_make_repository, changed=True),
        env={"BUILDX_GIT_CHECK_DIRTY": "1", "BUILDX_GIT_LABELS": "full"},
    ),
    "repository-alone": _case(prepare=partial(_make_repository, origin="")),
    "repository-without-commits": _case(prepare=partial(_make_repository, committed=False)),
    "repository-left-out": _case(prepare=_make_repository, env={"BUILDX_GIT_INFO": "false"}),
    "git": _remote("https://127.0.0.1:1/foo/bar.git#main:sub"),
    "git-query": _remote("https://127.0.0.1:1/foo/bar.git?branch=main&subdir=x", wants=_modern),
    "http": _remote("http://127.0.0.1:1/x.tar"),
    "http-file": _remote("http://127.0.0.1:1/x.tar", "-f", "sub/Other"),
    "http-local-file": _remote("http://127.0.0.1:1/x.tar", "-f", "CONTEXT/sub/Other"),
    "http-stdin-file": _remote("http://127.0.0.1:1/x.tar", "-f", "-", stdin=NEWER.encode()),
    "stdin-file": _case("-f", "-", "CONTEXT", stdin=b"FROM mobysession-base\nCOPY file /\n"),
    "stdin-tar": Case(args=("-",), stdin=archive(Dockerfile=NEWER)),
    "stdin-tar-file": Case(args=("-f", "Other", "-"), stdin=archive(Other=NEWER)),
    "stdin-tar-contexts": Case(
        args=("--build-context", "x=CONTEXT/sub", "-"), stdin=archive(Dockerfile=NEWER), wants=_modern
    ),
    "stdin-dockerfile": Case(args=("-",), stdin=NEWER.encode(), differs=("attrs[context]", "attrs[dockerfilekey]")),
    "call-check": _case("--call", "check", makes_image=False),
    "call-check-of-a-target": _case("--check", "--target", "two", "--build-arg", "A=2", makes_image=False),
    "call-outline": _case("--call", "outline,format=json", "--target", "one", makes_image=False),
    "call-targets": _case("--call=targets", makes_image=False),
}


@dataclass(frozen=True)
class Side:
    """What came of one client: its status, what it said and asked for, what its image and its files of results hold."""

    status: int
    said: str
    asked: list[Asked]
    image: dict[str, Any]
    metadata: dict[str, Any]
    iid: str


@pytest.fixture
def context(tmp_path: Path) -> Path:
    """Give a small context, which is in no repository."""
    files = {
        "file": "content\n",
        "sub/Other": "FROM mobysession-base\nCOPY file /other\n",
        "sub/Newer": NEWER,
        "sub/Agent": AGENT,
        "sub/Variable": VARIABLE,
        "sub/Layout": LAYOUT,
        "policy.json": json.dumps(POLICY),
    }
    return make_context(tmp_path / "context", DOCKERFILE, files)


def _fill(text: str, context: Path, folder: Path) -> str:
    return text.replace("CONTEXT", str(context)).replace("TMP", str(folder))


def _ask(
    engine: Engine,
    witness: Witness,
    run: Callable[[str, list[str], dict[str, str]], Any],
    case: Case,
    context: Path,
    folder: Path,
) -> Side:
    folder.mkdir()
    metadata = folder / "metadata.json"
    args = ["--metadata-file", str(metadata), *(_fill(arg, context, folder) for arg in case.args)]
    env = {name: _fill(value, context, folder) for name, value in case.env.items()}
    done, asked = recorded(engine, lambda host: run(host, args, env))
    known = json.loads(metadata.read_text()) if metadata.exists() else {}
    said = done.stdout.decode() + done.stderr.decode()
    digest = known.get("containerimage.digest") if case.makes_image else None
    # At once: an image in containerd whose name another one gets is gone.
    image = _described(witness, digest) if digest else {}
    iid = folder / "iid"
    return Side(done.returncode, said, asked, image, known, iid.read_text() if iid.exists() else "")


def _both(
    engine: Engine, buildx: Buildx, witness: Witness, case: Case, context: Path, tmp_path: Path
) -> tuple[Side, Side]:
    config = tmp_path / "config"
    config.mkdir()
    (config / "config.json").write_text(json.dumps(dict(case.config)))

    def ours(host: str, args: list[str], env: dict[str, str]) -> subprocess.CompletedProcess[bytes]:
        variables = {**os.environ, "DOCKER_CONFIG": str(config), "PYTHONPATH": str(Path(__file__).parent.parent), **env}
        argv = [sys.executable, "-m", "mobysession", "-H", host, "build", *args]
        return subprocess.run(argv, env=variables, input=case.stdin, capture_output=True, timeout=BUILD_TIMEOUT)

    def theirs(host: str, args: list[str], env: dict[str, str]) -> subprocess.CompletedProcess[bytes]:
        return buildx.run(host, "build", *args, config_dir=config, env=env, stdin=case.stdin, timeout=BUILD_TIMEOUT)

    first = _ask(engine, witness, theirs, case, context, tmp_path / "theirs")
    return _ask(engine, witness, ours, case, context, tmp_path / "ours"), first


def _asked(side: Side, case: Case) -> Asked:
    if case.only:
        return side.asked[-1]
    # buildx asks first, with an empty solve of its own, what the engine can.
    named = [asked for asked in side.asked if asked.frontend]
    assert len(named) == 1, side.said
    return named[0]


def _normal(asked: Asked) -> Asked:
    """Return a request without the path of an output, which each side has for itself."""
    for group in (asked.exporters, asked.imports, asked.exports):
        for _, attributes in group:
            if "dest" in attributes:
                attributes["dest"] = Path(attributes["dest"]).name
    return asked


@pytest.mark.parametrize("name", CASES)
def test_the_engine_is_asked_for_the_same(
    engine: Engine, buildx: Buildx, witness: Witness, context: Path, tmp_path: Path, name: str
) -> None:
    """Every attribute, exporter, cache, entitlement and policy is that of buildx, and so is the image."""
    case = CASES[name]
    if not case.wants(engine):
        # Not a question of what is installed: both clients refuse, or the engine would ignore it.
        return
    case.prepare(context)
    ours, theirs = _both(engine, buildx, witness, case, context, tmp_path)
    differences = _normal(_asked(ours, case)).differences(_normal(_asked(theirs, case)))
    names = [line.partition(": ")[0] for line in differences]
    found = [name for name in names if name.startswith(case.only) or not case.only]
    assert found == list(case.differs), "\n".join(differences)
    assert (ours.status == 0) == (theirs.status == 0), f"{ours.said}\n{theirs.said}"
    if case.makes_image:
        assert ours.status == 0, ours.said
        assert ours.image
        assert ours.image == theirs.image
        if case.stdin or case.differs:
            # It names the upload, which has an ID of its own; and what differs.
            for side in (ours, theirs):
                side.metadata.pop("buildx.build.provenance", None)
        if "--iidfile" in case.args:
            _check_ids(engine, ours, theirs)
        # An old engine does not repeat the names, and we know them.
        known = {"image.name": ours.metadata["image.name"]} if "image.name" in ours.metadata else {}
        assert _told(ours.metadata) == _told({**known, **theirs.metadata})


def _check_ids(engine: Engine, ours: Side, theirs: Side) -> None:
    """Check the files of IDs: alike, but for the name under which an engine with images in containerd finds one."""
    config = theirs.metadata.get("containerimage.config.digest")  # none where there are attestations
    if engine.containerd_image_store:
        assert ours.iid == ours.metadata["containerimage.digest"]
        assert theirs.iid == (config or theirs.metadata["containerimage.digest"])
    else:
        assert ours.iid == theirs.iid != ""


def _described(witness: Witness, image: str) -> dict[str, Any]:
    found = witness.inspect(image)
    return {key: found.get(key) for key in ("Config", "Architecture", "Os", "Variant", "RootFS")}


def _told(metadata: dict[str, Any]) -> dict[str, Any]:
    """Return a metadata file with words in place of what is different at each build."""
    text = json.dumps(metadata)
    text = re.sub(r"sha256:[0-9a-f]{64}|default/default/\w{25}|(?<=oci-layout://)[0-9a-z]{25}", "ID", text)
    told: dict[str, Any] = json.loads(text)
    descriptor = told.get("containerimage.descriptor", {})
    descriptor.get("annotations", {}).pop("org.opencontainers.image.created", None)
    descriptor.pop("size", None)
    return told
