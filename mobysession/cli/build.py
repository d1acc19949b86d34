"""``mobysession build``: the options of ``docker buildx build``, by their names."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

from mobysession.cli.app import run_async
from mobysession.cli.interrupts import raise_interrupts
from mobysession.cli.parser import add_attach, add_progress, offer

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from mobysession.build.calls import Call, CallAnswer
    from mobysession.build.nodes import Builder
    from mobysession.build.options import BuildOptions
    from mobysession.cli.app import Target
    from mobysession.cli.parser import Parser
    from mobysession.services.secrets import SecretSource
    from mobysession.services.ssh_agents import SshSource
    from mobysession.session.access import Access

__all__ = ["SYNOPSIS", "add_options", "print_answer", "run"]


SYNOPSIS = " PATH|URL|-"
_ATTESTS = ("type=provenance", "type=sbom")
_OUTPUTS = tuple(f"type={kind}" for kind in ("local", "tar", "oci", "docker", "image", "registry", "cacheonly"))


def add_options(parser: Parser) -> None:
    """Add what `run` takes."""
    add = parser.add_argument
    several: dict[str, Any] = {"action": "append", "default": []}
    context = "The directory that COPY and ADD read, or the address of a repository or an archive; - is a tar or a"
    add("context", metavar="PATH", help=f"{context} Dockerfile on stdin.")
    add("-f", "--file", metavar="FILE", help="Dockerfile; - is stdin [default: PATH/Dockerfile]")
    tree = "Further tree for FROM NAME and COPY --from=NAME: a directory, or a text such as docker-image://alpine."
    add("--build-context", dest="build_contexts", **several, metavar="NAME=DIR|URL", help=tree)
    add("--strict", action="store_true", help="Fail over whatever changes in a tree while it is sent.")
    add("-t", "--tag", dest="tags", **several, metavar="NAME[:TAG]", help="Name of the image.")
    add("--target", metavar="STAGE", help="Stage to build.")
    add("--build-arg", dest="build_args", **several, metavar="NAME[=VALUE]", help="Build argument.")
    add("--label", dest="labels", **several, metavar="NAME[=VALUE]", help="Label of the image.")
    add("--no-cache", action="store_true", help="Use no cache.")
    add("--no-cache-filter", **several, metavar="STAGE[,STAGE]", help="Use no cache for these stages.")
    add("--pull", action="store_true", help="Ask for newer base images.")
    add("--platform", dest="platforms", **several, metavar="OS/ARCH[,OS/ARCH]", help="Platform to build for.")
    add("--add-host", dest="add_hosts", **several, metavar="HOST:IP", help="Line for /etc/hosts.")
    network = "What RUN may reach: default, none or host [default: default]"
    offer(add("--network", default="default", metavar="MODE", help=network), "default", "none", "host")
    add("--shm-size", metavar="SIZE", help="Size of /dev/shm, as 64m.")
    add("--ulimit", dest="ulimits", **several, metavar="NAME=SOFT[:HARD]", help="Limit for RUN.")
    mount = "Secret for RUN --mount=type=secret."
    add("--secret", dest="secrets", **several, metavar="id=ID[,src=FILE|,env=NAME]", help=mount)
    agent = "SSH agent for RUN --mount=type=ssh: that of SSH_AUTH_SOCK, a socket, or keys."
    offer(add("--ssh", **several, metavar="ID[=SOCKET|=KEY[,KEY]]", help=agent), "default")
    cache = "NAME|type=TYPE[,KEY=VALUE]"
    source = "Cache to take steps from: an image, or type=local,src=DIR."
    offer(add("--cache-from", **several, metavar=cache, help=source), "type=registry,ref=", "type=local,src=")
    destination = "Cache to write, as type=inline or type=local,dest=DIR."
    offer(add("--cache-to", **several, metavar=cache, help=destination), "type=inline", "type=local,dest=")
    add("--approve", action="store_true", help="Ask on the terminal before a secret, login or SSH agent is given.")
    result = "Where the result goes: DIR for type=local, - for a tar on stdout [default: the engine's image store]"
    output = "DIR|-|type=TYPE[,dest=PATH][,KEY=VALUE]"
    offer(add("-o", "--output", dest="outputs", **several, metavar=output, help=result), *_OUTPUTS)
    add("--push", action="store_true", help="Send the image to its registries, as --output type=registry.")
    add("--load", action="store_true", help="Put the image into the engine's store, as --output type=docker.")
    note = "Annotation of the image, or of its TYPE: manifest, index, manifest[PLATFORM], ..."
    add("--annotation", dest="annotations", **several, metavar="[TYPE:]KEY=VALUE", help=note)
    attest = "Attestation, as type=sbom,generator=IMAGE."
    offer(add("--attest", dest="attests", **several, metavar="type=TYPE[,KEY=VALUE]", help=attest), *_ATTESTS)
    provenance = "Attest where the image comes from: true, false, or attributes as mode=max."
    offer(add("--provenance", metavar="BOOL|KEY=VALUE", help=provenance), "true", "false", "mode=max")
    sbom = "Attest what is in the image: true, false, or attributes as generator=IMAGE."
    offer(add("--sbom", metavar="BOOL|KEY=VALUE", help=sbom), "true", "false")
    allow = "Entitlement: network.host, security.insecure, device or device=NAME."
    offer(add("--allow", **several, metavar="ENTITLEMENT", help=allow), "network.host", "security.insecure", "device")
    add("--cgroup-parent", metavar="CGROUP", help="The cgroup above those of RUN.")
    call = "Ask for something else than a build: check, outline, targets [default: build]"
    offer(add("--call", metavar="NAME[,format=json]", help=call), "build", "check", "outline", "targets")
    add("--check", dest="call", action="store_const", const="check", help="As --call check.")
    add("--iidfile", metavar="FILE", help="Write the image ID to this file.")
    add("--metadata-file", metavar="FILE", help="Write the engine's response to it, as JSON.")
    add("--timeline", metavar="FILE", help="Write the build over time: a page as FILE.html, a trace as FILE.json.")
    add("-q", "--quiet", action="store_true", help="Show no progress, print the image ID.")
    add_progress(parser)
    node = "Engine to build on, and platforms it is for; once for each. An index of what all have built is pushed."
    add("--node", dest="nodes", **several, metavar="URL[,platform=OS/ARCH][,name=NAME]", help=node)
    driver = "How the engine is asked: control, classic or auto [default: auto]"
    offer(add("--driver", default="auto", metavar="KIND", help=driver), "auto", "control", "classic")
    add_attach(parser)


def run(target: Target, options: argparse.Namespace) -> int:
    """Build an image from the directory PATH, in the engine's BuildKit."""
    from mobysession.build.build import build_with

    build = _read(options)
    view = "quiet" if options.quiet else options.progress or os.environ.get("BUILDKIT_PROGRESS")
    if options.nodes:
        # Before the target is looked for: there need not be one.
        _refuse_host(target)
        from mobysession.build.nodes import Builder

        result = run_async(_build_on_nodes, Builder(options.nodes), build, target, view or "auto")
    else:
        view = view or target.view(options.attach) or "auto"
        result = run_async(_build, build_with, build, target, view)
    if message := result.response.get("frontend.result.inlinemessage"):
        # What a frontend wants to be said, and buildx says there.
        print(f"\n{message}", flush=True)
    if (call := build.called()) is not None:
        return print_answer(result.answer, call, _shown_dockerfile(build))
    if any(output.is_stdout for output in build.exports()):
        return 0
    if view == "quiet":
        from mobysession.build.outputs import told_id

        if found := told_id(result):
            print(found, flush=True)
    elif result.image_id and not options.tags and view not in ("none", "rawjson"):
        print(f"image: {result.image_id}", file=sys.stderr)
    return 0


def _refuse_host(target: Target) -> None:
    if not target.is_default:
        from mobysession.errors import UsageError

        raise UsageError(
            "--node says where to build, and --host or --context does too",
            hint="Give that daemon as a further --node, or leave it out.",
        )


def _read(options: argparse.Namespace) -> BuildOptions:
    """Return the build; an empty value is as good as none, as scripts write ``--iidfile "$FILE"``."""
    from mobysession.build.options import BuildOptions

    return BuildOptions(
        context=options.context,
        file=options.file or None,
        build_contexts=_contexts(_filled(options.build_contexts)),
        strict=options.strict,
        tags=options.tags,
        target=options.target,
        build_args=dict(map(_assignment, options.build_args)),
        labels={name: value or "" for name, value in map(_assignment, options.labels)},
        no_cache=options.no_cache,
        no_cache_filter=_listed(options.no_cache_filter),
        pull=options.pull,
        platforms=_listed(options.platforms),
        add_hosts=_listed(options.add_hosts),
        network=options.network or "default",
        shm_size=options.shm_size,
        ulimits=options.ulimits,
        secrets=_secrets(_filled(options.secrets)),
        ssh=_ssh(_filled(options.ssh)),
        access=_access() if options.approve else None,
        cache_from=options.cache_from,
        cache_to=options.cache_to,
        outputs=_filled(options.outputs),
        push=options.push,
        load=options.load,
        annotations=_filled(options.annotations),
        attests=options.attests,
        provenance=options.provenance,
        sbom=options.sbom,
        allow=_filled(options.allow),
        cgroup_parent=options.cgroup_parent,
        call=options.call or None,
        iidfile=options.iidfile or None,
        metadata_file=options.metadata_file or None,
        timeline=options.timeline or None,
        driver=options.driver,
        attach=options.attach,
    )


async def _build(build_with: Any, options: Any, target: Target, view: str) -> Any:
    async with target.around_build():
        return await build_with(options, endpoint=target.endpoint(options.attach), progress=view)


async def _build_on_nodes(builder: Builder, options: BuildOptions, target: Target, view: str) -> Any:
    async with target.around_build():
        return await builder.build_with(options, progress=view)


def print_answer(answer: CallAnswer, call: Call, dockerfile: str, *, target: str = "") -> int:
    """Print what the engine answered: JSON as it is, text below the target's name where there is one."""
    is_headed = target and call.format != "json"
    head, foot = (f"{target}\n\n", "\n") if is_headed else ("", "")
    print(head + answer.render(call.format, dockerfile=dockerfile), end=foot, flush=True)
    if answer.error:
        place = f"{target}: " if target else ""
        print(f"ERROR: {place}{answer.render_error(dockerfile=dockerfile)}", end="", file=sys.stderr)
        return 1
    return 0 if call.ignore_status else answer.status


def _shown_dockerfile(build: BuildOptions) -> str:
    """Return the Dockerfile's name as docker's CLI shows it: as it was given, not as the engine knows it."""
    if build.file is not None:
        return "stdin" if build.file == "-" else os.fspath(build.file)
    return os.path.normpath(os.path.join(str(build.context), "Dockerfile"))


def _contexts(given: list[str]) -> dict[str, str]:
    from mobysession.errors import UsageError

    named = {}
    for text in given:
        name, separator, value = text.partition("=")
        if not name or not separator or not value:
            raise UsageError(f"build context {text!r} is not NAME=DIR or NAME=URL")
        named[name] = value
    return named


def _secrets(specs: Sequence[str]) -> dict[str, SecretSource]:
    if not specs:
        return {}
    from mobysession.services.secrets import parse_secret_spec

    return dict(parse_secret_spec(spec) for spec in specs)


def _ssh(specs: Sequence[str]) -> dict[str, SshSource]:
    if not specs:
        return {}
    from mobysession.services.ssh import ssh_agents
    from mobysession.services.ssh_agents import SshKeys

    agents = ssh_agents(specs)
    if sys.stdin.isatty():
        raise_interrupts()
        # Here, where Ctrl-C ends a question at once, and not once a thread prepares the build.
        for source in agents.values():
            if isinstance(source, SshKeys):
                source.passphrase = _ask_passphrase
                source.check()
    return agents


def _access() -> Access:
    from mobysession.session.access import Access
    from mobysession.session.terminal import TerminalApproval

    return Access(approve=TerminalApproval())


def _ask_passphrase(path: str) -> str:
    import getpass

    return getpass.getpass(f"Passphrase for {path}: ")


def _assignment(text: str) -> tuple[str, str | None]:
    name, separator, value = text.partition("=")
    return name, value if separator else None


def _filled(texts: Sequence[str]) -> list[str]:
    return [text for text in texts if text]


def _listed(texts: Sequence[str]) -> list[str]:
    return [part for text in texts for part in text.split(",") if part]
