"""A manager whose sessions are attached to a fake daemon in memory."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import NamedTuple

import pytest

from mobysession.session.managed import SessionConfig, SessionManager
from mobysession.testing import FakeDaemon


class Managed(NamedTuple):
    """A manager and the daemon behind it."""

    manager: SessionManager
    daemon: FakeDaemon


@pytest.fixture
def managed():
    """Give ``async with managed(...) as (manager, daemon)``; options are those of `SessionConfig`."""

    @asynccontextmanager
    async def opened(**options):
        async with FakeDaemon() as daemon:
            yield Managed(SessionManager(SessionConfig(dialer=daemon.dialer, **options)), daemon)

    return opened
