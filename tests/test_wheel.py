"""What is installed is what was tested: the wheel, built and imported away from the checkout.

In a flat tree every module can be imported from the working directory, packed or not; so the wheel is unpacked
elsewhere and asked there.
"""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from mobysession._version import __version__

ROOT = Path(__file__).parent.parent
METADATA = f"mobysession-{__version__}.dist-info"


def _run(*command: str | Path, cwd: Path) -> str:
    done = subprocess.run(list(map(str, command)), cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel, without the network."""
    folder = tmp_path_factory.mktemp("dist")
    _run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, ROOT, cwd=folder)
    (path,) = folder.glob("*.whl")
    return path


@pytest.fixture(scope="session")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install the wheel, without its dependencies, into a folder of its own."""
    folder = tmp_path_factory.mktemp("installed")
    options = ("--no-deps", "--no-index", "--no-compile", "--disable-pip-version-check", "--target", folder)
    _run(sys.executable, "-m", "pip", "install", *options, wheel, cwd=folder)
    return folder


def _ask(installed: Path, body: str) -> object:
    """Run ``body`` where the installed package comes first; return what it leaves in ``answer``."""
    code = f"import json, sys; sys.path.insert(0, {str(installed)!r})\n{body}\nprint(json.dumps(answer))"
    return json.loads(_run(sys.executable, "-I", "-c", code, cwd=installed).splitlines()[-1])


def test_only_the_package_is_packed(wheel):
    """Nothing but `mobysession/` and its metadata is in the wheel, and no compiled leftovers."""
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.partition("/")[0] for name in names} == {"mobysession", METADATA}
    assert [name for name in names if "__pycache__" in name or name.endswith((".pyc", ".proto"))] == []


def test_the_whole_package_is_packed(wheel):
    """Every module, every stub and the marker for type checkers are in the wheel."""
    sources = (path for path in (ROOT / "mobysession").rglob("*") if path.suffix in (".py", ".pyi", ".typed"))
    expected = {path.relative_to(ROOT).as_posix() for path in sources}
    packed = set(zipfile.ZipFile(wheel).namelist())
    assert "mobysession/py.typed" in packed
    assert expected - packed == set()


def test_every_public_module_can_be_imported(installed):
    """Each module without an underscore in its path is importable here, and comes from the wheel."""
    body = """
import importlib, pathlib
root = pathlib.Path(sys.path[0])
paths = [path.relative_to(root).with_suffix("") for path in sorted(root.joinpath("mobysession").rglob("*.py"))]
names = [".".join(path.parts).removesuffix(".__init__") for path in paths]
names = [name for name in names if not any(part.startswith("_") for part in name.split("."))]
if sys.platform != "win32":
    names = [name for name in names if not name.endswith("_windows")]
answer = {name: importlib.import_module(name).__file__ for name in names}
"""
    files = _ask(installed, body)
    assert isinstance(files, dict)
    assert len(files) > 20
    assert [name for name, file in files.items() if not file.startswith(f"{installed}/")] == []


def test_the_entry_points_lead_somewhere(installed):
    """The command and the pytest plugin that the metadata name are there."""
    body = """
import importlib.metadata
(found,) = importlib.metadata.distributions(name="mobysession", path=[sys.path[0]])
answer = {point.group: callable(point.load()) for point in found.entry_points}
"""
    assert _ask(installed, body) == {"console_scripts": True, "pytest11": False}


def test_the_metadata_say_what_the_package_says(installed):
    """Name, version and the oldest Python are told to installers as the package has them."""
    body = """
import importlib.metadata
from mobysession._version import __version__
(found,) = importlib.metadata.distributions(name="mobysession", path=[sys.path[0]])
answer = [found.metadata["Name"], found.version == __version__, found.metadata["Requires-Python"]]
"""
    assert _ask(installed, body) == ["mobysession", True, ">=3.11"]
