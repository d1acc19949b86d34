"""A small image to build ``FROM`` where no registry can be reached: busybox, imported into it. All of it blocks."""

from __future__ import annotations

import hashlib
import io
import json
import logging
import shutil
import struct
import tarfile
import urllib.parse
from pathlib import Path
from typing import TYPE_CHECKING

from mobysession.errors import EngineError, MobysessionError
from mobysession.testing.engine_api import engine_request
from mobysession.testing.packages import SYSTEM_PATH, install_debian_packages, run_command

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["BASE_IMAGE", "find_static_busybox", "import_base_image", "static_busybox"]

logger = logging.getLogger(__name__)

BASE_IMAGE = "mobysession-base:latest"

_LABEL = "mobysession.base-image.sha256"


def import_base_image(
    host: str,
    *,
    name: str = BASE_IMAGE,
    busybox: Path | None = None,
    say: Callable[[str], None] = logger.info,
) -> bool:
    """Give an engine a small image to build ``FROM``, without any registry: busybox with all its applets in /bin.

    Args:
        host: ``unix://`` or ``tcp://`` endpoint of the engine.
        busybox: a statically linked busybox. None: this machine's; Debian's busybox-static is installed if there is
            none.
        say: told when something is installed.

    Returns: True if it was imported, False if the engine had this very image already.
    Raises: EngineError (user): no static busybox, or the engine refused the import.
    """
    archive = _base_image_tar(busybox or static_busybox(say))
    digest = hashlib.sha256(archive).hexdigest()
    if _image_label(host, name) == digest:
        return False
    repository, _, tag = name.partition(":")
    changes = ['CMD ["/bin/sh"]', "ENV PATH=/bin", f"LABEL {_LABEL}={digest}"]
    query = urllib.parse.urlencode(
        {"fromSrc": "-", "repo": repository, "tag": tag or "latest", "changes": changes}, doseq=True
    )
    answer = engine_request(host, "POST", f"/images/create?{query}", body=archive, timeout=120)
    for line in answer.splitlines():
        if error := json.loads(line).get("error"):
            raise EngineError(f"the engine did not import {name}: {error}")
    return True


def _image_label(host: str, name: str) -> str | None:
    """What our label says on an image, or None if the image or the label is missing."""
    try:
        image = json.loads(engine_request(host, "GET", f"/images/{urllib.parse.quote(name)}/json"))
    except MobysessionError:
        return None
    labels: dict[str, str] = (image.get("Config") or {}).get("Labels") or {}
    return labels.get(_LABEL)


def static_busybox(say: Callable[[str], None]) -> Path:
    """Return a busybox that runs in a folder without libraries; install Debian's where there is none.

    Raises: EngineError (user): there is none, and it cannot be installed.
    """
    found = find_static_busybox()
    if found is None:
        install_debian_packages(["busybox-static"], say)
        found = find_static_busybox()
    if found is None:
        raise EngineError("no statically linked busybox was found", hint="give its path")
    return found


def find_static_busybox() -> Path | None:
    """Return this machine's statically linked busybox, if it has one."""
    found = shutil.which("busybox", path=SYSTEM_PATH)
    return Path(found) if found is not None and _is_static(Path(found)) else None


def _is_static(binary: Path) -> bool:
    """Whether a 64-bit ELF file asks for no interpreter (PT_INTERP), that is: runs in a folder without libraries."""
    header = binary.read_bytes()[:4096]
    if header[:5] != b"\x7fELF\x02":
        return False
    order = "<" if header[5] == 1 else ">"
    (table,) = struct.unpack_from(f"{order}Q", header, 32)
    size, count = struct.unpack_from(f"{order}HH", header, 54)
    pt_interp = 3
    return all(struct.unpack_from(f"{order}I", header, table + index * size)[0] != pt_interp for index in range(count))


def _base_image_tar(busybox: Path) -> bytes:
    """An image's file system as a tar archive; the same bytes for the same busybox."""
    hint = "give the path of a statically linked busybox"
    applets = run_command([str(busybox), "--list"], hint=hint).split()
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for folder, mode in (("bin", 0o755), ("etc", 0o755), ("root", 0o700), ("tmp", 0o1777), ("var", 0o755)):
            _add(tar, folder, tarfile.DIRTYPE, mode=mode)
        _add(tar, "bin/busybox", mode=0o755, content=busybox.read_bytes())
        for applet in sorted({*applets} - {"busybox"}):
            _add(tar, f"bin/{applet}", tarfile.SYMTYPE, mode=0o777, link="busybox")
        _add(tar, "etc/passwd", content=b"root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n")
        _add(tar, "etc/group", content=b"root:x:0:\nnogroup:x:65534:\n")
    return archive.getvalue()


def _add(
    tar: tarfile.TarFile,
    name: str,
    kind: bytes = tarfile.REGTYPE,
    *,
    mode: int = 0o644,
    content: bytes = b"",
    link: str = "",
) -> None:
    member = tarfile.TarInfo(name)
    member.type, member.mode, member.size, member.linkname = kind, mode, len(content), link
    tar.addfile(member, io.BytesIO(content))
