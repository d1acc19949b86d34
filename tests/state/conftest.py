"""A database of this test's own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from mobysession.state.location import state_path

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def database_path() -> Path:
    """Give the path of the default database, which is not there yet."""
    return state_path()
