"""The options of a build, named and behaving as those of ``docker buildx build``, checked before anything is asked."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, cast, get_args

from mobysession.errors import ContextError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mobysession.build.annotations import Annotation
    from mobysession.build.attests import Attest
    from mobysession.build.cache import CacheEntry
    from mobysession.build.calls import Call
    from mobysession.build.exports import Output
    from mobysession.filesync.sources import SourceLike
    from mobysession.llb import Definition, State
    from mobysession.rpc.registrar import Attachable
    from mobysession.services.credentials import CredentialsFrom
    from mobysession.services.secrets import SecretSource
    from mobysession.services.ssh import SshAgents
    from mobysession.session.access import Access
    from mobysession.session.tracing import Tracing

__all__ = [
    "Attach",
    "BuildOptions",
    "Driver",
    "Ulimit",
    "check_count",
    "check_listener",
    "check_switch",
    "parse_size",
]

#: How the engine is asked: BuildKit's Control API, or the Engine API's ``/build?version=2``; auto prefers the first.
Driver = Literal["auto", "control", "classic"]
#: By which way the session is attached; see `mobysession.session.attach`.
Attach = Literal["auto", "hijack", "tunnel", "native", "buildkitd"]

_SIZE_UNITS = {"": 1, "b": 1, "k": 1024, "m": 1024**2, "g": 1024**3, "t": 1024**4, "p": 1024**5}
_NOT_A_PATH = "An address, and - for stdin, is given as a text and not as a path."
#: What docker's CLI takes for a repository or an archive to fetch, as it looks once it has become a path.
_REMOTE = r"(?:https?|git|ssh):/|git@|github\.com/"
_NETWORK_MODES = ("default", "none", "host")
#: What an image reference looks like, loosely: the engine has the last word, this catches slips before a build starts.
_REFERENCE = r"(?:[A-Za-z0-9.\-_\[\]:]+/)*[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?::[\w][\w.\-]{0,127})?"


#: What docker/go-units ulimit.go has names for; engines refuse others.
_LIMITS = frozenset(
    (
        *("core", "cpu", "data", "fsize", "locks", "memlock", "msgqueue", "nice", "nofile", "nproc", "rss", "rtprio"),
        *("rttime", "sigpending", "stack"),
    )
)


#: The lists: of texts, or of values of a class too, by its name: its module is only loaded by who has some (start-up).
_LISTS = {
    **dict.fromkeys(("tags", "no_cache_filter", "platforms", "add_hosts", "allow", "ssh", "services"), ""),
    **dict.fromkeys(("cache_from", "cache_to"), "CacheEntry"),
    "ulimits": "Ulimit",
    "outputs": "Output",
    "attests": "Attest",
    "annotations": "Annotation",
}

#: What is on or off, and no text: "false" would be on.
_SWITCHES = ("no_cache", "pull", "push", "load", "strict")


class Ulimit(NamedTuple):
    """One ``--ulimit``; ``hard`` is ``soft`` where it is not given, -1 means unlimited."""

    name: str
    soft: int
    hard: int

    @classmethod
    def parse(cls, text: str) -> Ulimit:
        """Read ``NAME=SOFT[:HARD]``.

        Raises:
            UsageError: it is something else.
        """
        name, _, limits = text.partition("=")
        soft, _, hard = limits.partition(":")
        try:
            limit = cls(name, int(soft), int(hard or soft))
        except ValueError:
            raise UsageError(f"{text!r} is no ulimit: it must look like nofile=1024:2048") from None
        if name not in _LIMITS:
            raise UsageError(f"there is no ulimit {name!r}", hint=f"Choose one of {', '.join(sorted(_LIMITS))}.")
        if limit.hard != -1 and (limit.soft > limit.hard or limit.soft == -1):
            raise UsageError(f"ulimit {text!r}: the soft limit must not exceed the hard one")
        return limit

    def __str__(self) -> str:
        return f"{self.name}={self.soft}:{self.hard}"


@dataclass(frozen=True, kw_only=True)
class BuildOptions:
    """What to build. Every field has the meaning of the option of ``docker buildx build`` that bears its name.

    Args:
        context: the directory that COPY and ADD read; or a mapping of paths to contents, or any other source, see
            `mobysession.filesync`; or the address of a repository, an archive or a Dockerfile that the engine fetches.
        build_contexts: further trees by name, for ``FROM name`` and ``COPY --from=name``: as ``context``, or a text
            that the engine resolves, such as ``docker-image://alpine``.
        file: path of the Dockerfile, relative to the working directory; None is ``Dockerfile`` in the context. With a
            context that is no directory, it is looked for in the context first.
        strict: fail the build over everything that changes in a tree while it is sent.
        tags: names for the image, ``NAME[:TAG]``.
        target: the stage to build; None is the last.
        build_args: values of ARGs; None takes the value of the environment variable of that name, if it is set.
        labels: labels of the image.
        no_cache: use no cache at all. ``no_cache_filter`` names stages instead.
        pull: ask the registries for newer base images.
        platforms: what to build for, as ``linux/arm64``; empty is the engine's own.
        add_hosts: ``HOST:IP`` or ``HOST=IP`` lines for /etc/hosts; the IP may be ``host-gateway``.
        network: what RUN may reach: ``default``, ``none`` or ``host``.
        shm_size: size of /dev/shm, in bytes or as ``64m``; 0 is the engine's own.
        ulimits: limits for RUN, as ``nofile=1024:2048``.
        secrets: what each ``RUN --mount=type=secret,id=...`` gets; see `mobysession.services.secrets.SecretSource`.
        ssh: the SSH agents for ``RUN --mount=type=ssh``, as specs like ``default`` or ``work=id_ed25519``, see
            `mobysession.services.ssh.parse_ssh_spec`, or as a mapping of ID to `SshAgent`, `SshKeys` or `SshStream`.
        cache_from: caches to take steps from, as `CacheEntry` or as text like ``type=local,src=DIR`` or an image's
            name; ``cache_to``: caches to write, as ``type=local,dest=DIR,mode=max``. See
            `mobysession.build.cache.CacheEntry`.
        outputs: where the result goes, as `Output` or as text like ``type=local,dest=out``; none is the engine's image
            store. See `mobysession.build.exports.Output`.
        push: send the image to the registries that its tags name; as an output ``type=registry``, where there is none.
        load: put the image into the engine's image store besides the outputs; an output ``type=docker``.
        annotations: texts beside the image: a mapping, whose keys may begin with a place as ``index:``, or a list of
            `Annotation` or texts like ``manifest[linux/amd64]:KEY=VALUE``.
        attests: attestations, as `Attest` or as text like ``type=sbom,generator=IMAGE``; ``provenance`` and ``sbom``
            are shorter: True, False, or the attributes, as ``mode=max``.
        allow: entitlements: ``network.host``, ``security.insecure``, ``device`` or ``device=NAME``.
        cgroup_parent: the cgroup above those of RUN.
        call: ask for something else than a build: ``check``, ``outline``, ``targets``, or a request of the frontend's
            own; as `Call` or as text like ``outline,format=json``. What it says is ``answer`` of the result. Not with
            ``outputs``, ``push`` or ``load``.
        source_policy: rules on what sources become: a file as ``EXPERIMENTAL_BUILDKIT_SOURCE_POLICY`` names one, or its
            JSON as a mapping. None: the file of that variable.
        frontend_attrs: further attributes of the frontend, as BuildKit knows them; they win over those made of options.
        image_config: with a graph, the configuration of the image, under docker's names: ``Cmd``, ``Entrypoint``,
            ``Env`` and so on.
        iidfile: file that the image ID is written to; ``metadata_file``: one for the engine's response, as JSON.
        timeline: file for the build over time: a page as ``FILE.html``, a trace as ``FILE.json``; written also when the
            build fails.
        credentials: registry credentials, and no others are looked up then; None asks docker's configuration. See
            `mobysession.services.auth.Auth`.
        services: further services to host while the build runs.
        access: who decides on each request of the engine's; see `mobysession.session.access.Access`.
        tracing: makes spans of the build and of the engine's callbacks; None: as the program's OpenTelemetry, or else
            its variables, have it; False: nobody does. See `mobysession.session.tracing.Tracing`.
        driver: how the engine is asked.
        attach: by which way the session is attached; ``auto`` takes the newest that the engine has.
    """

    context: SourceLike | State | Definition = "."
    build_contexts: Mapping[str, SourceLike] = field(default_factory=dict)
    file: str | os.PathLike[str] | None = None
    tags: Sequence[str] = ()
    target: str | None = None
    build_args: Mapping[str, str | None] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    no_cache: bool = False
    no_cache_filter: Sequence[str] = ()
    pull: bool = False
    platforms: Sequence[str] = ()
    add_hosts: Sequence[str] = ()
    network: str = "default"
    shm_size: int | str | None = None
    ulimits: Sequence[str | Ulimit] = ()
    secrets: Mapping[str, SecretSource] = field(default_factory=dict)
    ssh: SshAgents = ()
    cache_from: Sequence[str | CacheEntry] = ()
    cache_to: Sequence[str | CacheEntry] = ()
    outputs: Sequence[str | Output] = ()
    push: bool = False
    load: bool = False
    annotations: Mapping[str, str] | Sequence[str | Annotation] = ()
    attests: Sequence[str | Attest] = ()
    provenance: bool | str | None = None
    sbom: bool | str | None = None
    allow: Sequence[str] = ()
    cgroup_parent: str | None = None
    call: str | Call | None = None
    source_policy: str | os.PathLike[str] | Mapping[str, object] | None = None
    frontend_attrs: Mapping[str, str] = field(default_factory=dict)
    image_config: Mapping[str, Any] | None = None
    iidfile: str | os.PathLike[str] | None = None
    metadata_file: str | os.PathLike[str] | None = None
    timeline: str | os.PathLike[str] | None = None
    credentials: CredentialsFrom | None = None
    strict: bool = False
    services: Sequence[Attachable] = ()
    access: Access | None = None
    tracing: Tracing | Literal[False] | None = None
    driver: Driver = "auto"
    attach: Attach = "auto"

    def __post_init__(self) -> None:
        _check_kinds(self)
        if not all(self.build_contexts):
            raise UsageError("a named context has an empty name")
        if self.access is not None and not hasattr(self.access, "decide"):
            raise UsageError(f"access takes an Access, not an object of type {type(self.access).__name__}")
        if self.tracing not in (None, False) and not hasattr(self.tracing, "tracer"):
            raise UsageError(
                f"tracing takes a Tracing, None or False, not {_said(self.tracing)}",
                hint="Tracing() makes spans, and Tracing(provider) those of a provider of OpenTelemetry's.",
            )
        for text in (self.target or "", *self.tags, *self.platforms, *_texts(self.build_args), *_texts(self.labels)):
            _check_text(text)
        for tag in self.tags:
            _check_tag(tag)
        if self.network not in _NETWORK_MODES:
            raise UsageError(
                f"network {self.network!r} is not supported by BuildKit", hint="Choose default, none or host."
            )
        if self.driver not in get_args(Driver):
            raise UsageError(f"unknown driver {self.driver!r}", hint="Choose auto, control or classic.")
        if self.attach not in get_args(Attach):
            ways = ", ".join(get_args(Attach))
            raise UsageError(f"there is no way {self.attach!r} to attach", hint=f"Choose one of {ways}.")
        if self.no_cache and self.no_cache_filter:
            raise UsageError("no_cache and no_cache_filter exclude each other")
        if any(not name for name in (*self.build_args, *self.labels)):
            raise UsageError("a build argument or a label has an empty name")
        self.hosts(), self.limits(), self.shm_bytes(), self.exports()
        self.imported_caches(), self.exported_caches()
        self.annotated(), self.attested(), self.built_for()
        if self.called() is None:
            # Whoever asks for a build by its name asks for nothing else, and nobody need look twice.
            object.__setattr__(self, "call", None)
        elif self.outputs or self.push or self.load:
            # The engine would put an empty image under the name of the real one.
            raise UsageError(
                "call has an answer and makes nothing that outputs, push or load could take",
                hint="Leave them out, or call (--call, --check).",
            )
        if self.timeline is not None:
            from mobysession.build.timeline import check_timeline  # only for who wants one: start-up

            check_timeline(self.timeline)
        if self.allow:
            from mobysession.build.entitlements import check_entitlements  # only for who has some: start-up

            check_entitlements(self.allow)

    def hosts(self) -> list[tuple[str, str]]:
        """Return ``add_hosts`` as (host, address)."""
        return [_parse_host(line) for line in self.add_hosts]

    def built_for(self) -> list[str]:
        """Return ``platforms`` by the names that the engine knows."""
        if not self.platforms:
            return []
        from mobysession.build.platforms import normal_platform  # only for who names some: start-up

        return [normal_platform(platform) for platform in self.platforms]

    def limits(self) -> list[Ulimit]:
        """Return ``ulimits`` as values."""
        return [limit if isinstance(limit, Ulimit) else Ulimit.parse(limit) for limit in self.ulimits]

    def exports(self) -> list[Output]:
        """Return ``outputs`` as values, with what ``push`` and ``load`` add."""
        if not self.outputs and not self.push and not self.load:
            return []
        from mobysession.build.exports import Output  # only for who has outputs: start-up

        given = [output if isinstance(output, Output) else Output.parse(output) for output in self.outputs]
        if not self.push and not self.load:
            return given
        from mobysession.build.shorthands import with_shorthands

        return with_shorthands(given, push=self.push, load=self.load)

    def annotated(self) -> list[Annotation]:
        """Return ``annotations`` as values."""
        if not self.annotations:
            return []
        from mobysession.build.annotations import parse_annotations  # only for who has some: start-up

        return parse_annotations(self.annotations)

    def attested(self) -> Mapping[str, Attest]:
        """Return ``attests``, ``provenance`` and ``sbom`` as values, by their types."""
        if not self.attests and self.provenance in (None, "") and self.sbom in (None, ""):
            return {}
        from mobysession.build.attests import parse_attests  # only for who has some: start-up

        return parse_attests(self.attests, self.provenance, self.sbom)

    def called(self) -> Call | None:
        """Return ``call`` as a value; None where it is a build."""
        if self.call is None or self.call == "build":
            return None
        from mobysession.build.calls import Call  # only for who calls: start-up

        return Call.parse(self.call) if isinstance(self.call, str) else self.call

    def imported_caches(self) -> list[CacheEntry]:
        """Return ``cache_from`` as values."""
        return _caches(self.cache_from, exported=False)

    def exported_caches(self) -> list[CacheEntry]:
        """Return ``cache_to`` as values."""
        return _caches(self.cache_to, exported=True)

    def shm_bytes(self) -> int | None:
        """Return ``shm_size`` in bytes; None where it is the engine's own."""
        if not isinstance(self.shm_size, int | str | None):
            raise UsageError(f"shm_size takes a number of bytes or a text, not {_said(self.shm_size)}")
        return (parse_size(self.shm_size) or None) if self.shm_size is not None else None

    def arguments(self) -> dict[str, str]:
        """Return the build arguments, with those of the environment filled in and those it lacks left out."""
        given = {name: os.environ.get(name) if value is None else value for name, value in self.build_args.items()}
        return {name: value for name, value in given.items() if value is not None}

    @property
    def is_graph(self) -> bool:
        """Whether the context is a graph of LLB, told without loading any."""
        return hasattr(self.context, "definition")

    def tree(self) -> SourceLike:
        """Return the context, where it is a tree; UsageError where it is a graph."""
        if self.is_graph:
            raise UsageError("a graph of LLB has no files")
        return cast("SourceLike", self.context)

    def graph(self) -> State | Definition:
        """Return the context, where it is a graph of LLB; UsageError where it is a tree."""
        if not self.is_graph:
            raise UsageError("the context is no graph of LLB")
        return cast("State | Definition", self.context)

    def directory(self) -> Path:
        """Return the context directory; looks at the disk.

        Raises:
            ContextError: it is missing, or no directory.
        """
        if not isinstance(self.context, (str, os.PathLike)):
            raise UsageError("the context is no directory of this machine")
        if not os.fspath(self.context):
            # Most likely a variable that is not set: the working directory would be another tree than was meant.
            raise UsageError("the context is empty", hint="The working directory is '.'.")
        context = Path(self.context)
        _check_directory(context)
        return context

    def directories(self) -> tuple[Path, Path, str]:
        """Return the context directory, the Dockerfile's directory, and the Dockerfile's name in it; looks at the disk.

        Raises:
            ContextError: one of them is missing, or not what it must be.
        """
        context = self.directory()
        if self.file is None:
            there = [context / name for name in ("Dockerfile", "dockerfile") if os.path.exists(context / name)]
            if not there:
                raise ContextError(
                    f"there is no Dockerfile in {context.absolute()}",
                    hint="Name it with file= (-f on the command line).",
                )
            _check_dockerfile(there[0])
            return context, context, "Dockerfile"
        dockerfile = Path(self.file)
        if not os.path.exists(dockerfile):
            raise ContextError(f"there is no Dockerfile {dockerfile.absolute()}", hint=_file_hint(context, dockerfile))
        _check_dockerfile(dockerfile)
        return context, dockerfile.parent, dockerfile.name


def _check_dockerfile(path: Path) -> None:
    """Raise `ContextError` for what can be no Dockerfile; of a pipe or a device the engine would wait for the end."""
    mode = os.stat(path).st_mode
    if stat.S_ISDIR(mode):
        raise ContextError(f"{path} is a directory, not a Dockerfile")
    if not stat.S_ISREG(mode):
        raise ContextError(f"{path} is not a regular file", hint='Give it as standard input: file="-" (-f -).')


def _caches(given: Sequence[str | CacheEntry], *, exported: bool) -> list[CacheEntry]:
    if not given:
        return []
    from mobysession.build.cache import parse_entries  # only for who has caches: start-up

    return parse_entries(given, exported=exported)


def _check_kinds(options: BuildOptions) -> None:
    """Refuse what is of another type than its option, which type checkers find and nobody else."""
    for name, kind in _LISTS.items():
        _check_list(name, getattr(options, name), kind)
    for name in _SWITCHES:
        check_switch(name, getattr(options, name))
    for name in ("provenance", "sbom"):
        if not isinstance(given := getattr(options, name), bool | str | None):
            raise UsageError(f"{name} takes True, False or a text, not {_said(given)}")
    for name in ("target", "cgroup_parent"):
        if not isinstance(given := getattr(options, name), str | None):
            raise UsageError(f"{name} takes a text, not {_said(given)}")
    for name in ("file", "iidfile", "metadata_file", "timeline"):
        if not isinstance(given := getattr(options, name), str | os.PathLike | None):
            raise UsageError(f"{name} takes a path, not {_said(given)}")
    if not isinstance(options.source_policy, str | os.PathLike | Mapping | None):
        raise UsageError(f"source_policy takes a path or a mapping, not {_said(options.source_policy)}")
    if options.call is not None and not _is_text_or(options.call, "Call"):
        raise UsageError(f"call takes a text or a Call, not {_said(options.call)}")
    if not isinstance(options.build_contexts, Mapping):
        raise UsageError("build_contexts takes a mapping of name to tree")
    if not isinstance(options.secrets, Mapping):
        raise UsageError("secrets takes a mapping of secret ID to source")
    if not isinstance(options.image_config, Mapping | None):
        raise UsageError("image_config takes a mapping of docker's names to values")
    _check_mapping("build_args", options.build_args, optional=True)
    _check_mapping("labels", options.labels)
    _check_mapping("frontend_attrs", options.frontend_attrs)


def check_switch(name: str, given: object) -> None:
    """Refuse what is neither True nor False; UsageError."""
    if given is not True and given is not False:
        raise UsageError(f"{name} takes True or False, not {_said(given)}")


def check_count(what: str, given: object, *, least: int) -> None:
    """Refuse what is no number from ``least`` on; UsageError, which says ``what`` it is."""
    if not isinstance(given, int) or given < least:
        raise UsageError(f"{what}, {least} or more")


def _check_list(name: str, given: object, kind: str) -> None:
    if isinstance(given, str):
        raise UsageError(f"{name} takes a list, not one string")
    if isinstance(given, Mapping) and name in ("ssh", "annotations"):
        return
    if isinstance(given, bytes | Mapping) or not isinstance(given, Collection):
        raise UsageError(f"{name} takes a list, not {_said(given)}")
    for one in given:
        if name == "services":
            if not hasattr(one, "register"):
                raise UsageError(f"services takes services to host, not {_said(one)}")
        elif not _is_text_or(one, kind):
            hint = "Write it as a text, str(path)." if isinstance(one, os.PathLike) else None
            values = f" or values of {kind}" if kind else ""
            raise UsageError(f"{name} takes texts{values}, not {_said(one)}", hint=hint)


def _is_text_or(given: object, kind: str) -> bool:
    return isinstance(given, str) or any(one.__name__ == kind for one in type(given).__mro__)


def _said(given: object) -> str:
    return "None" if given is None else f"an object of type {type(given).__name__}"


def _check_mapping(name: str, given: object, *, optional: bool = False) -> None:
    if not isinstance(given, Mapping):
        raise UsageError(f"{name} takes a mapping of name to value")
    for key, value in given.items():
        if not isinstance(key, str) or not (isinstance(value, str) or (optional and value is None)):
            raise UsageError(f"{name}: {key!r} needs a text as its value, not {_said(value)}")


def parse_size(value: int | str) -> int:
    """Return a size in bytes from a number or a text like ``64m`` or ``1.5GB``, units of 1024.

    Raises:
        UsageError: it is no size.
    """
    if isinstance(value, int):
        size = value
    else:
        match = re.fullmatch(r"\s*([0-9]*\.?[0-9]+)\s*([bkmgtp]?)(?:i?b)?\s*", value.lower())
        if match is None:
            raise UsageError(f"{value!r} is no size", hint="Write it as 67108864 or 64m.")
        size = int(float(match[1]) * _SIZE_UNITS[match[2]])
    if size < 0:
        raise UsageError(f"a size cannot be negative: {value}")
    return size


def _parse_host(line: str) -> tuple[str, str]:
    # An IPv6 address has colons, a host name has none: the first separator counts.
    match = re.fullmatch(r"([^:=]+)[:=](.+)", line)
    if match is None:
        raise UsageError(f"{line!r} is no host entry: it must look like HOST:IP")
    host, address = match[1], match[2].removeprefix("[").removesuffix("]")
    if address != "host-gateway":
        import ipaddress  # only for who adds hosts: start-up

        try:
            ipaddress.ip_address(address)
        except ValueError:
            raise UsageError(f"host entry {line!r}: {address!r} is no IP address, nor host-gateway") from None
    return host, address


def check_listener(on_status: object) -> None:
    """Refuse what cannot be called with a status, or would have to be awaited; UsageError."""
    if on_status is None:
        return
    from inspect import iscoroutinefunction  # only for who listens: start-up

    if not callable(on_status):
        raise UsageError(f"on_status takes a function, not {_said(on_status)}")
    if iscoroutinefunction(on_status) or iscoroutinefunction(type(on_status).__call__):
        raise UsageError(
            "on_status is called and not awaited, so that an async function would do nothing",
            hint="Give a plain function, or watch the build with open_build.",
        )


def _texts(mapping: Mapping[str, str | None]) -> list[str]:
    return [text for pair in mapping.items() for text in pair if text is not None]


def _check_text(text: str) -> None:
    """Refuse what came from bytes that are no UTF-8: neither gRPC nor JSON can carry it."""
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            raise UsageError(f"{text!r} is not UTF-8, and the engine takes nothing else") from None


def _check_tag(tag: str) -> None:
    if "@" in tag:
        raise UsageError(f"invalid tag {tag!r}: a tag cannot hold a digest")
    if re.fullmatch(_REFERENCE, tag) is None:
        lowered = tag != tag.lower() and re.fullmatch(_REFERENCE, tag.lower())
        hint = "Repository names must be lower case." if lowered else "A tag looks like [HOST[:PORT]/]NAME[:TAG]."
        raise UsageError(f"invalid tag {tag!r}", hint=hint)


def _check_directory(context: Path) -> None:
    try:
        mode = os.stat(context).st_mode
    except FileNotFoundError:
        is_text = str(context) == "-" or re.match(_REMOTE, os.fspath(context))
        hint = (
            _NOT_A_PATH
            if is_text
            else "Name the directory that COPY reads; the path counts from the working directory."
        )
        raise ContextError(f"the build context {context.absolute()} does not exist", hint=hint) from None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise ContextError(f"the build context {context} cannot be used: {reason}") from error
    if not stat.S_ISDIR(mode):
        raise ContextError(f"the build context {context} is not a directory", hint="Name a Dockerfile with file= (-f).")


def _file_hint(context: Path, dockerfile: Path) -> str:
    if not dockerfile.is_absolute() and os.path.exists(context / dockerfile):
        return f"The path counts from the working directory: {context / dockerfile} exists."
    return "The path counts from the working directory."
