"""BuildKit's Control API on real engines, apart from the solves that builds make."""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING

import trio

from integration.contexts import make_context
from integration.images import build_image
from mobysession import Endpoint, open_control

if TYPE_CHECKING:
    from pathlib import Path

    from integration.engines import Engine


def test_what_an_engine_says_of_its_buildkit(engine: Engine) -> None:
    """Every engine names a worker that builds for Linux; from 23 on they tell BuildKit's version, older ones cannot."""

    async def ask() -> None:
        async with open_control(Endpoint.parse(engine.host)) as control:
            version = await control.info()
            workers = await control.list_workers()
        assert (version is not None) == (engine.major >= 23)
        assert any(platform.startswith("linux/") for worker in workers for platform in worker.platforms)

    trio.run(ask)


def test_cache_is_counted_and_pruned(engine: Engine, tmp_path: Path) -> None:
    """What a build left in the cache is in the disk usage, and what prune yields is not there any more."""
    build_image(engine, make_context(tmp_path / "context", "FROM scratch\nCOPY file /\n", {"file": "to be pruned"}))

    async def count_and_prune() -> None:
        async with open_control(Endpoint.parse(engine.host)) as control:
            before = {record.id for record in await control.disk_usage()}
            async with aclosing(control.prune(all=True)) as records:
                pruned = {record.id async for record in records}
            after = {record.id for record in await control.disk_usage()}
        assert pruned
        assert pruned <= before
        assert not pruned & after

    trio.run(count_and_prune)
