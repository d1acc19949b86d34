"""Files of a definition, written where a test works."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give an empty working directory, and an environment that says nothing of bakes."""
    for name in list(os.environ):
        if name.startswith(("BUILDX_", "BAKE_", "SOURCE_DATE_EPOCH")):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    return tmp_path
