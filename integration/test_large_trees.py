"""Trees that are large in one way each go through with the memory that small ones take.

Both leave the machine as it was: nothing of the first is kept by anybody, and the second goes into an engine of its
own, whose data are in memory where there is room, because file systems are slow with so many files.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from integration.bench.client import our_client
from integration.bench_files.__main__ import roomy
from integration.bench_files.rows import LARGE_TIMEOUT
from integration.bench_files.sender import send_to_nobody
from integration.bench_files.trees import CROWD, make_crowd, make_sparse

if TYPE_CHECKING:
    from collections.abc import Iterator

    from integration.engines import EngineSpec

GIB = 1024**3
PEAK = 64 * 1024**2
"""Bytes of resident memory: 38 MiB were seen, and one `Entry` kept for each of 300,000 files would add 60."""


@pytest.fixture
def folder() -> Iterator[Path]:
    """Give an empty folder, in memory where there is room."""
    with tempfile.TemporaryDirectory(prefix="mobysession-large-", dir=roomy()) as name:
        yield Path(name)


@pytest.mark.slow
@pytest.mark.timeout(LARGE_TIMEOUT)
def test_a_file_of_twenty_gibibytes(folder: Path) -> None:
    """A sparse file of 20 GiB goes to its last byte to a receiver that keeps nothing, and is never held as a whole."""
    make_sparse(folder / "sparse")
    figures = send_to_nobody(folder / "sparse", folder)
    assert figures["files"] == 2
    assert figures["bytes"] == 20 * GIB + (folder / "sparse" / "Dockerfile").stat().st_size
    assert figures["peak"] < PEAK


@pytest.mark.slow
@pytest.mark.timeout(LARGE_TIMEOUT)
def test_three_hundred_thousand_files(newest_engine_spec: EngineSpec, folder: Path) -> None:
    """An engine that has none of 300,000 files asks for all of them, and they are never all known at once."""
    make_crowd(folder / "crowd")
    with newest_engine_spec.private_engine(data_root=folder / "engine") as engine:
        run = our_client(engine.host, folder / "client").build(folder / "crowd", folder / "said", timeout=LARGE_TIMEOUT)
    # Names and attributes are counted too: some 40 bytes a file besides its 16 of content.
    assert run.transferred > CROWD * (16 + 40)
    assert run.sample.peak < PEAK
