"""The messages and the stub of the interoperability service, generated once a run."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType

HERE = Path(__file__).parent
_MESSAGES, _SERVICE = "interop_pb2", "interop_pb2_grpc"


@pytest.fixture(scope="session")
def interop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[ModuleType, ModuleType]]:
    """Generate code for ``interop.proto``, in a descriptor pool of its own; return its messages and its service."""
    from grpc_tools import protoc

    folder = tmp_path_factory.mktemp("interop")
    outputs = [f"--python_out={folder}", f"--grpc_python_out={folder}"]
    assert protoc.main(["protoc", f"-I{HERE}", *outputs, "interop.proto"]) == 0
    messages = folder / f"{_MESSAGES}.py"
    # Its names are those of grpc's own test packages, which a user of this machine may have loaded.
    messages.write_text(messages.read_text().replace("descriptor_pool.Default()", "descriptor_pool.DescriptorPool()"))
    yield _load(folder, _MESSAGES), _load(folder, _SERVICE)
    del sys.modules[_MESSAGES], sys.modules[_SERVICE]


def _load(folder: Path, name: str) -> ModuleType:
    specification = importlib.util.spec_from_file_location(name, folder / f"{name}.py")
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    sys.modules[name] = module
    specification.loader.exec_module(module)
    return module
