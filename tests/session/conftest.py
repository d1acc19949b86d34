"""Listeners, and sessions on fake daemons."""

from __future__ import annotations

import pytest


@pytest.fixture
def heard():
    """Give a list that is a listener too: ``session.listen(heard.append)``."""
    return []
