"""The stand-in for the frontend ``dockerfile.v0``: asks the session for what the real one asks for, in its order."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Final

import trio

from mobysession.errors import RpcError, StatusCode
from mobysession.testing.dockerfile import BadDockerfile, Instruction, Stage, parse_dockerfile, parse_ignore_file
from mobysession.testing.status_log import FakeVertex

if TYPE_CHECKING:
    from mobysession.testing.script import FakeSolve
    from mobysession.testing.tree_receiver import ReceivedTree

__all__ = ["Frontend"]

_NOT_EXECUTED: Final = "the fake daemon executes nothing: this command did not run\n"
_WILDCARDS: Final = frozenset("*?[")


class Frontend:
    """One build of a Dockerfile."""

    def __init__(self, solve: FakeSolve, *, ask_credentials: bool) -> None:
        self._solve = solve
        self._attributes = dict(solve.request.FrontendAttrs)
        self._ask_credentials = ask_credentials
        self._digests: list[str] = []

    async def build(self) -> dict[str, str]:
        """Run it and return the exporter's response."""
        solve = self._solve
        excludes = await self._load_definition()
        try:
            stages = parse_dockerfile(solve.dockerfile, self._attributes.get("target", ""))
        except BadDockerfile as error:
            solve.fail(error.message, line=error.line or None)
        await self._load_metadata(stages)
        if excludes is None:
            excludes = await self._load_ignore_file()
        await self._run(stages, excludes)
        return await self._export()

    # -- what is fetched -----------------------------------------------------------------------------------------------

    async def _load_definition(self) -> list[str] | None:
        """Fetch the Dockerfile; return the patterns of an ignore file of its own, None where it has none."""
        solve = self._solve
        name = solve.filename
        wanted = [name, f"{name}.dockerignore"]
        directory, slash, base = name.rpartition("/")
        if base == "Dockerfile":
            wanted.append(f"{directory}{slash}dockerfile")
        async with solve.vertex(f"[internal] load build definition from {name}") as vertex:
            tree = await self._receive(vertex, "dockerfile", follow_paths=wanted)
        text = await _read(tree, name)
        if text is None and base == "Dockerfile":
            text = await _read(tree, wanted[-1])
        if text is None:
            solve.fail(f"failed to read dockerfile: open {name}: no such file or directory")
        solve.dockerfile = text
        ignored = await _read(tree, wanted[1])
        return None if ignored is None else parse_ignore_file(ignored)

    async def _load_metadata(self, stages: list[Stage]) -> None:
        names = {stage.name for stage in stages}
        images = dict.fromkeys(stage.image for stage in stages if not stage.from_scratch and stage.image not in names)
        for image in images:
            async with self._solve.vertex(f"[internal] load metadata for {_full_name(image)}"):
                if self._ask_credentials:
                    await self._authorize(image)

    async def _authorize(self, image: str) -> None:
        host, _, repository = _full_name(image).partition("/")
        host = "registry-1.docker.io" if host == "docker.io" else host
        caller = await self._solve.session()
        async with self._solve.vertex(f"[auth] {repository.partition(':')[0]}:pull token for {host}"):
            if await caller.token_authority(host, salt=bytes(32)) is None:
                await caller.credentials(host)

    async def _load_ignore_file(self) -> list[str]:
        async with self._solve.vertex("[internal] load .dockerignore") as vertex:
            tree = await self._receive(vertex, "context", follow_paths=[".dockerignore"])
        return parse_ignore_file(await _read(tree, ".dockerignore") or "")

    async def _receive(self, vertex: FakeVertex, dir_name: str, **filters: list[str]) -> ReceivedTree:
        tree = await self._solve.receive(vertex, dir_name, **filters)
        self._digests.append(await trio.to_thread.run_sync(tree.digest))
        return tree

    # -- steps ---------------------------------------------------------------------------------------------------------

    async def _run(self, stages: list[Stage], excludes: list[str]) -> None:
        sources = [path for stage in stages for step in stage.steps() for path in step.sources()]
        context: FakeVertex | None = None
        if sources:
            context = FakeVertex(self._solve.log, "[internal] load build context")
            context.announce()
        plan = [planned for stage in stages for planned in self._plan(stage, context)]
        for vertex, _ in plan:
            vertex.announce()
        tree = await self._load_context(context, sources, excludes) if context is not None else None
        for vertex, step in plan:
            async with self._solve.vertex(vertex.name, announced=vertex):
                if step is not None:
                    await self._step(vertex, step, tree)

    def _plan(self, stage: Stage, context: FakeVertex | None) -> list[tuple[FakeVertex, Instruction | None]]:
        steps: list[Instruction | None] = [*stage.steps()]
        names = [step.text for step in stage.steps()]
        if not stage.from_scratch:
            steps.insert(0, None)
            names.insert(0, f"FROM {_full_name(stage.image)}")
        plan: list[tuple[FakeVertex, Instruction | None]] = []
        for number, (step, name) in enumerate(zip(steps, names, strict=True), start=1):
            shown = f"{stage.shown} {number}/{len(steps)}".lstrip()
            inputs = [plan[-1][0]] if plan else []
            if context is not None and step is not None and step.sources():
                inputs.append(context)
            plan.append((FakeVertex(self._solve.log, f"[{shown}] {name}", inputs), step))
        return plan

    async def _load_context(self, vertex: FakeVertex, sources: list[str], excludes: list[str]) -> ReceivedTree:
        filters = {"exclude": excludes} if excludes else {}
        if "" not in sources:
            filters["follow_paths"] = sorted(set(sources))
        async with self._solve.vertex(vertex.name, announced=vertex):
            return await self._receive(vertex, "context", **filters)

    async def _step(self, vertex: FakeVertex, step: Instruction, context: ReceivedTree | None) -> None:
        solve = self._solve
        for mount in step.mounts("secret"):
            secret_id = mount.get("id") or mount.get("target", "").rpartition("/")[2]
            try:
                secret = await (await solve.session()).get_secret(secret_id)
            except RpcError as error:
                if error.code not in (StatusCode.NOT_FOUND, StatusCode.UNIMPLEMENTED):
                    raise
                if mount.get("required", "true" if "required" in mount else "false") != "false":
                    self._blame(vertex, step, f"secret {secret_id}: not found")
            else:
                self._digests.append(hashlib.sha256(secret).hexdigest())
        for path in step.sources():
            if context is not None and path and not _WILDCARDS.intersection(path) and path not in context.entries:
                words = f'failed to calculate checksum of ref {solve.ref}::{solve.ref}: "/{path}": not found'
                self._blame(vertex, step, f"failed to compute cache key: {words}")
        if step.name == "RUN":
            vertex.log(_NOT_EXECUTED)

    def _blame(self, vertex: FakeVertex, step: Instruction, message: str) -> None:
        self._solve.fail(message, line=step.first_line, last_line=step.last_line, vertex=vertex)

    async def _export(self) -> dict[str, str]:
        solve = self._solve
        exporter = solve.request.Exporters[0] if solve.request.Exporters else None
        kind = exporter.Type if exporter is not None else solve.request.ExporterDeprecated
        if not kind:
            return {}
        given = exporter.Attrs if exporter is not None else solve.request.ExporterAttrsDeprecated
        names = [_full_name(name) for name in given.get("name", "").split(",") if name]
        seed = "\n".join([*sorted(f"{key}={value}" for key, value in self._attributes.items()), *self._digests])
        digest = f"sha256:{hashlib.sha256(seed.encode()).hexdigest()}"
        async with solve.vertex("exporting to image") as vertex:
            for status in ("exporting layers", f"writing image {digest}", *(f"naming to {name}" for name in names)):
                vertex.status(status)
                vertex.status(status, done=True)
        response = {"containerimage.config.digest": digest, "containerimage.digest": digest}
        return response | ({"image.name": ",".join(names)} if names else {})


async def _read(tree: ReceivedTree, path: str) -> str | None:
    entry = tree.entries.get(path)
    if entry is None:
        return None
    text = await trio.to_thread.run_sync(lambda: (tree.root / path).read_bytes())
    return text.decode("utf-8", "replace")


def _full_name(image: str) -> str:
    """Return an image's name with the registry and the tag that it stands for (distribution/reference)."""
    first, slash, _ = image.partition("/")
    if not slash:
        image = f"docker.io/library/{image}"
    elif not (first == "localhost" or "." in first or ":" in first):
        image = f"docker.io/{image}"
    return image if ":" in image.rpartition("/")[2] or "@" in image else f"{image}:latest"
