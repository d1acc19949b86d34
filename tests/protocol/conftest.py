"""Properties are checked with the same examples each time: what fails here fails everywhere. `tests.fuzz` looks on."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.load_profile("repeatable")
