"""What real engines told of builds, and builders of messages that none has sent."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from mobysession._pb import control_pb2
from mobysession.errors import RpcError, StatusCode

if TYPE_CHECKING:
    from collections.abc import Callable

_DATA = Path(__file__).parent.parent / "data"


@pytest.fixture
def recorded() -> Callable[[str], list[control_pb2.StatusResponse]]:
    """Give the Status messages of a recorded build by ``engine-build``."""

    def load(build: str) -> list[control_pb2.StatusResponse]:
        lines = (_DATA / f"status-{build}.txt").read_text("ascii").splitlines()
        return [control_pb2.StatusResponse.FromString(base64.b64decode(line.split()[1])) for line in lines]

    return load


@pytest.fixture
def recorded_error() -> Callable[[str], RpcError]:
    """Give the end of the Solve call of a recorded build that failed."""

    def load(build: str) -> RpcError:
        code, message, details = (_DATA / f"status-{build}.error.txt").read_text("utf-8").split("\n")[:3]
        return RpcError(StatusCode(int(code)), message, details=base64.b64decode(details))

    return load
