"""Builds for several platforms on several machines: each platform on the node that has it natively.

Every node builds its platforms as one build, and pushes what it made; then an index over all of it is written into the
registry, under the names that were asked for. A buildkitd pushes its part by digest, without a name. Docker's engine
cannot (moby/moby gives every name a tag, which BuildKit then refuses to push by digest): its part is pushed under the
tag with the platforms behind it, ``1.0-linux-arm64``, and stays there under that name too.

::

    builder = Builder({"ssh://arm": ["linux/arm64"], "unix:///var/run/docker.sock": []})
    await builder.build(".", platforms=["linux/amd64", "linux/arm64"], tags=["registry.example.com/app:1.0"], push=True)

Source: docker/buildx build/build.go (BuildWithResultHandler, toRepoOnly), driver resolving in build/driver.go.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, NamedTuple

import trio

from mobysession.build.build import build_with, make_options
from mobysession.build.exports import Output
from mobysession.build.many import Many, open_many
from mobysession.build.options import check_listener
from mobysession.build.outputs import check_outputs, write_outputs
from mobysession.build.platforms import normal_platform
from mobysession.build.push import PushStep
from mobysession.build.result import BuildResult
from mobysession.build.shorthands import with_environment
from mobysession.buildkit.control import open_control
from mobysession.concurrency import open_nursery
from mobysession.errors import ApiError, MobysessionError, UnsupportedByEngine, UsageError
from mobysession.services.credentials import credential_source
from mobysession.services.image_name import ImageName
from mobysession.session.attach import EndpointDialer
from mobysession.transport.endpoint import Endpoint

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from typing import Unpack

    from mobysession.build.keywords import BuildKeywords
    from mobysession.build.many import OnStatus
    from mobysession.build.options import BuildOptions
    from mobysession.buildkit.status import BuildStatus
    from mobysession.filesync.sources import SourceLike
    from mobysession.llb import Definition, State
    from mobysession.progress.view import View

    #: What a builder is made of.
    Nodes = Sequence[Endpoint | "Node" | str] | Mapping[str, Sequence[str]] | Mapping[Endpoint, Sequence[str]]

__all__ = ["Builder", "Node", "NodeResult", "NodesResult", "build_on"]

#: How well a node fits a platform: it was given to it, it is its own, it has it somehow.
_GIVEN, _NATIVE, _SOMEHOW, _NOT = range(4)
_IMAGES: Final = ("image", "registry")


@dataclass(frozen=True)
class Node:
    """One engine of a `Builder`.

    Args:
        endpoint: where it is.
        platforms: what it is to build for before others are asked; none: what it says that it has.
        name: what it is called in the view; empty: its address.
    """

    endpoint: Endpoint
    platforms: tuple[str, ...] = ()
    name: str = ""

    @classmethod
    def parse(cls, text: str) -> Node:
        """Read ``URL[,platform=PLATFORM]...[,name=NAME]``.

        Raises:
            UsageError: it is something else.
            EndpointError: the address is none.
        """
        url, *rest = text.split(",")
        platforms, name = [], ""
        for field in rest:
            key, _, value = field.partition("=")
            if key == "platform" and value:
                platforms.append(value)
            elif key == "name" and value:
                name = value
            else:
                raise UsageError(f"node {text!r}: {field!r} is not platform=OS/ARCH or name=NAME")
        return cls(Endpoint.parse(url, source="--node"), tuple(platforms), name)

    @property
    def label(self) -> str:
        """What it is called."""
        return self.name or self.endpoint.url


class NodeResult(NamedTuple):
    """What one node built: its name, its platforms, and the result of its build."""

    node: str
    platforms: tuple[str, ...]
    result: BuildResult


@dataclass(frozen=True, kw_only=True)
class NodesResult(BuildResult):
    """A finished build on several nodes.

    ``digest`` and ``image_id`` are those of the index, ``steps`` and ``transfers`` those of all nodes; ``session_id``
    and ``ref`` are empty, as each node has its own, in ``parts``.
    """

    parts: tuple[NodeResult, ...] = ()


class Builder:
    """Builds on several engines.

    Args:
        nodes: endpoints, addresses or `Node` values, the preferred first; or a mapping of endpoints or addresses to
            platforms.

    Raises:
        UsageError: there are none, or one text stands where a list belongs.
        EndpointError: an address is none.
    """

    def __init__(self, nodes: Nodes) -> None:
        if isinstance(nodes, str):
            raise UsageError("nodes takes a list, not one string")
        if isinstance(nodes, Mapping):
            self.nodes = [replace(_node(given), platforms=tuple(has)) for given, has in nodes.items()]
        else:
            self.nodes = [_node(given) for given in nodes]
        if not self.nodes:
            raise UsageError("a builder needs one node at least")
        for node in self.nodes:
            for platform in node.platforms:
                normal_platform(platform)

    async def assign(self, platforms: Iterable[str], *, attach: str = "auto") -> dict[int, list[str]]:
        """Return the platforms that each node is to build for, by the number of the node.

        A platform goes to the node that it was given to; else to the first that has it natively; else to the first
        that has it at all, by emulation.

        Raises:
            UnsupportedByEngine: no node has one of them.
            TransportError: a node cannot be reached.
        """
        wanted = list(dict.fromkeys(map(normal_platform, platforms)))
        has: list[tuple[str, ...]] = [()] * len(self.nodes)

        async def ask(number: int) -> None:
            with _noted(self.nodes[number]):
                has[number] = await _platforms_of(self.nodes[number], attach)

        async with open_nursery() as nursery:
            for number in range(len(self.nodes)):
                nursery.start_soon(ask, number)
        assigned: dict[int, list[str]] = {}
        for platform in wanted:
            fits = [_fit(platform, node, has[number]) for number, node in enumerate(self.nodes)]
            if min(fits) == _NOT:
                known = "; ".join(f"{node.label} has {', '.join(has[n])}" for n, node in enumerate(self.nodes))
                raise UnsupportedByEngine(
                    f"no node builds for {platform}",
                    hint=f"{known}. Add a node, or install emulation (tonistiigi/binfmt) on one of them.",
                )
            assigned.setdefault(fits.index(min(fits)), []).append(platform)
        return assigned

    async def build(
        self,
        context: SourceLike | State | Definition = ".",
        *,
        progress: str | View | None = None,
        on_status: OnStatus | None = None,
        **options: Unpack[BuildKeywords],
    ) -> BuildResult:
        """Build on the nodes that have the platforms, and push one index over all of it.

        Args:
            context, options: as of `mobysession.build.build`. Without ``platforms`` the first node builds for its own.
            progress: as there; one view shows all nodes.
            on_status: called with the name of a node and the status of its build.

        Returns: `NodesResult`; what one node has made alone is a `BuildResult` as ever.

        Raises:
            UsageError: the result cannot be put together from several nodes.
            UnsupportedByEngine: no node has a platform, or one of them cannot do what is asked for.
            BuildFailed: a node could not build, or the registry refused the index; no name was given to anything then.
            As `mobysession.build.build`.

        Cancel: all nodes cancel their builds.
        """
        return await self.build_with(make_options(context, options), progress=progress, on_status=on_status)

    async def build_with(
        self, options: BuildOptions, *, progress: str | View | None = None, on_status: OnStatus | None = None
    ) -> BuildResult:
        """Build what ``options`` say; see `build`."""
        check_listener(on_status)
        options = await trio.to_thread.run_sync(with_environment, options)
        assigned = await self._assigned(options)
        if len(assigned) == 1:
            ((number, platforms),) = assigned.items()
            node = self.nodes[number]

            def told(status: BuildStatus) -> None:
                if on_status is not None:
                    on_status(node.label, status)

            alone = replace(options, platforms=platforms)
            with _noted(node):
                return await build_with(alone, endpoint=node.endpoint, progress=progress, on_status=told)
        names = _checked(options)
        await trio.to_thread.run_sync(check_outputs, options)
        parts: dict[int, BuildOptions] = {}
        for number, platforms in assigned.items():
            endpoint = EndpointDialer(self.nodes[number].endpoint, options.attach).endpoint
            parts[number] = _part(options, names, platforms, by_digest=endpoint.is_buildkitd)
        async with open_many(progress=progress, at_once=len(parts), on_status=on_status) as many:
            results = await self._build_parts(many, parts)
            result = await _merged(many, options, names, results)
        await trio.to_thread.run_sync(write_outputs, options, result)
        return result

    async def _assigned(self, options: BuildOptions) -> dict[int, list[str]]:
        if not options.platforms or options.call is not None:
            return {0: list(options.platforms)}
        if len(self.nodes) == 1:
            return {0: options.built_for()}
        return await self.assign(options.built_for(), attach=options.attach)

    async def _build_parts(self, many: Many, parts: Mapping[int, BuildOptions]) -> list[NodeResult]:
        results: dict[int, NodeResult] = {}

        async def build(number: int, part: BuildOptions) -> None:
            node = self.nodes[number]
            part = many.shared(part)
            with _noted(node):
                result = await many.build(part, name=node.label, on=many.ground(part, node.endpoint))
            results[number] = NodeResult(node.label, tuple(part.platforms), result)

        async with open_nursery() as nursery:
            for number, part in parts.items():
                nursery.start_soon(build, number, part)
        return [results[number] for number in parts]


async def build_on(
    nodes: Nodes,
    context: SourceLike | State | Definition = ".",
    *,
    progress: str | View | None = None,
    on_status: OnStatus | None = None,
    **options: Unpack[BuildKeywords],
) -> BuildResult:
    """Build on several engines: `Builder.build` of ``Builder(nodes)``, whose arguments, result and errors it has."""
    return await Builder(nodes).build(context, progress=progress, on_status=on_status, **options)


@contextmanager
def _noted(node: Node) -> Iterator[None]:
    """Note on an error of the block that it is one of this node."""
    try:
        yield
    except MobysessionError as error:
        error.add_note(f"on the node {node.label}")
        raise


def _node(given: Endpoint | Node | str) -> Node:
    if isinstance(given, Node):
        return given
    return Node(given) if isinstance(given, Endpoint) else Node.parse(given)


async def _platforms_of(node: Node, attach: str) -> tuple[str, ...]:
    """Return what a node says that it builds for, its own platform first."""
    async with open_control(EndpointDialer(node.endpoint, attach).endpoint) as control:
        workers = await control.list_workers()
    return tuple(dict.fromkeys(normal_platform(platform) for worker in workers for platform in worker.platforms))


def _fit(platform: str, node: Node, has: Sequence[str]) -> int:
    if platform in map(normal_platform, node.platforms):
        return _GIVEN
    if platform not in has:
        return _NOT
    return _NATIVE if platform.split("/")[:2] == has[0].split("/")[:2] else _SOMEHOW


def _checked(options: BuildOptions) -> list[ImageName]:
    """Return the names of the index, one at least; UsageError where several nodes cannot make what is asked for."""
    if options.timeline is not None:
        raise UsageError("a timeline is that of one engine", hint="Leave it out, or build for one platform.")
    exports = options.exports()
    if exports and all(output.type == "cacheonly" for output in exports):
        return []
    if not exports or any(output.type == "docker" and output.dest is None for output in exports):
        raise UsageError(
            "an image that several nodes build cannot be loaded into a store: none of them has all of it",
            hint="Push it (push=True, --push) and pull it from there, or build for one platform.",
        )
    if len(exports) > 1:
        raise UsageError(
            "several nodes give one output", hint="Push the image, and make the other outputs in builds of their own."
        )
    (output,) = exports
    if output.type not in _IMAGES:
        raise UsageError(
            f"an output of type {output.type} cannot be put together from several nodes",
            hint="Push the image (push=True, --push), or build one platform at a time.",
        )
    if not output.is_pushed:
        raise UsageError(
            "an image of several nodes exists nowhere but in a registry, and this one is not to be pushed",
            hint="Add push=true to the output, or push=True (--push).",
        )
    if any(cache.type == "local" for cache in options.exported_caches()):
        raise UsageError(
            "several nodes cannot write one local cache", hint="Use type=registry or type=inline, or leave it out."
        )
    names = list(options.tags) or [name for name in output.attrs.get("name", "").split(",") if name]
    if not names:
        raise UsageError("an image needs a tag to be pushed", hint="Give tags (-t on the command line).")
    return [ImageName.parse(name) for name in names]


def _part(
    options: BuildOptions, names: Sequence[ImageName], platforms: Sequence[str], *, by_digest: bool
) -> BuildOptions:
    """Return what one node builds: its platforms, pushed into each repository without being what the name means."""
    part = replace(
        options,
        platforms=list(platforms),
        push=False,
        iidfile=None,
        metadata_file=None,
        annotations=[one for one in options.annotated() if not one.is_of_index],
    )
    if not names:
        return part
    (output,) = options.exports()
    attrs = {key: value for key, value in output.attrs.items() if key not in ("name", "push", "push-by-digest")}
    attrs["push"] = "true"
    if by_digest:
        places = dict.fromkeys(name.place for name in names)
        attrs |= {"push-by-digest": "true", "name": ",".join(places)}
        return replace(part, tags=(), outputs=[Output("image", attrs=attrs)])
    firsts = {name.place: name for name in reversed(names)}
    suffix = "-".join(platform.replace("/", "-") for platform in platforms)
    tags = [str(name._replace(tag=f"{name.tag}-{suffix}")) for name in firsts.values()]
    return replace(part, tags=tags, outputs=[Output("image", attrs=attrs)])


async def _merged(
    many: Many, options: BuildOptions, names: Sequence[ImageName], parts: Sequence[NodeResult]
) -> NodesResult:
    """Write the index under each name, and return what it came to."""
    digest, response = "", {}
    if names:
        media_type, digest, size = await _push_index(many, options, names, [part.result.digest for part in parts])
        response = {
            "containerimage.digest": digest,
            "containerimage.descriptor": _descriptor(media_type, digest, size),
            "image.name": ",".join(map(str, names)),
        }
    results = [part.result for part in parts]
    return NodesResult(
        image_id=digest,
        digest=digest,
        tags=tuple(options.tags),
        driver=results[0].driver,
        response=response,
        steps=tuple(step for result in results for step in result.steps),
        transfers=tuple(transfer for result in results for transfer in result.transfers),
        warnings=tuple(warning for result in results for warning in result.warnings),
        provenance={name: one for result in results for name, one in result.provenance.items()},
        duration=max(result.duration for result in results),
        parts=tuple(parts),
    )


async def _push_index(
    many: Many, options: BuildOptions, names: Sequence[ImageName], digests: Sequence[str]
) -> tuple[str, str, int]:
    from mobysession.build.index import push_index
    from mobysession.redaction import Redactor
    from mobysession.services.registry import Registry  # loads httpx

    progress = many.progress()
    progress.redactor = Redactor()
    registry = Registry(credential_source(many.shared(options).credentials), redactor=progress.redactor)
    annotations = {one.key: one.value for one in options.annotated() if one.type == "index"}
    made = ("", "", 0)
    for name in names:
        step = PushStep(f"pushing the index {name}", progress)
        try:
            made = await push_index(registry, name, digests, annotations)
        except ApiError as error:
            step.fail(error.message)
        except MobysessionError as error:
            step.break_off(error.message)
            raise
        step.end()
    return made


def _descriptor(media_type: str, digest: str, size: int) -> str:
    import base64
    import json

    document = {"mediaType": media_type, "digest": digest, "size": size}
    return base64.b64encode(json.dumps(document, separators=(",", ":")).encode()).decode()
