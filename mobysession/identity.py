"""BuildKit's random IDs, the node ID of this user, and the shared key of a local directory."""

from __future__ import annotations

import importlib
import os
from pathlib import Path

from mobysession.dockerconfig import config_dir

__all__ = ["new_id", "node_id", "shared_key"]

_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"
_ENTROPY_BYTES = 17


def new_id() -> str:
    """Return a fresh random ID of 25 characters ``0-9a-z``, as sessions and solves use them.

    Source: moby/buildkit identity/randomid.go.
    """
    return _encode_id(os.urandom(_ENTROPY_BYTES))


def _encode_id(entropy: bytes) -> str:
    number = int.from_bytes(bytes([entropy[0] | 0x80]) + entropy[1:], "big")
    digits = ""
    while number:
        number, digit = divmod(number, 36)
        digits = _DIGITS[digit] + digits
    return digits[1:26]


def node_id(directory: str | os.PathLike[str] | None = None) -> str:
    """Return the ID by which the engine tells this user's directories from others'; create it on first use.

    It is kept where the docker CLI keeps it, ``.buildNodeID`` in the configuration directory: 32 random bytes in hex,
    readable by the user alone. Where it can be neither read nor made, the path of that directory stands in for it, as
    with the docker CLI.

    Source: docker/cli cli/command/image/build_buildkit.go (20.10), trypBuildNodeID.
    """
    folder = Path(directory) if directory is not None else config_dir()
    path = folder / ".buildNodeID"
    try:
        return path.read_text("ascii").strip() or _create_node_id(path)
    except FileNotFoundError:
        return _create_node_id(path)
    except (OSError, UnicodeDecodeError):
        return str(folder)


def _create_node_id(path: Path) -> str:
    fresh = os.urandom(32).hex()
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        scratch = path.with_name(f"{path.name}.{os.urandom(4).hex()}")
        scratch.touch(mode=0o600, exist_ok=False)
        scratch.write_text(fresh, "ascii")
        try:
            # A link refuses to replace: of two processes that start at once, both use the file that came first.
            os.link(scratch, path)
        except FileExistsError:
            fresh = path.read_text("ascii").strip() or fresh
        finally:
            scratch.unlink()
    except (OSError, UnicodeDecodeError):
        return str(path.parent)
    return fresh


def shared_key(directory: str | os.PathLike[str], *, node: str | None = None) -> str:
    """Return the key under which the engine finds its earlier copy of ``directory``.

    Hex SHA-256 of node ID, colon, absolute real path: two checkouts of one name never share a key, two runs on one
    directory always do. ``node`` overrides the user's node ID.
    """
    path = os.path.realpath(directory)
    seed = f"{node if node is not None else node_id()}:{path}"
    return _sha256(seed.encode("utf-8", "surrogateescape"))


def _sha256(data: bytes) -> str:
    # Python's own, as the standard library's random takes it (3.12, 3.11): hashlib loads OpenSSL first, which takes as
    # long as all else that is done here.
    for module in ("_sha2", "_sha256"):
        try:
            return str(importlib.import_module(module).sha256(data).hexdigest())
        except ImportError:
            continue
    import hashlib

    return hashlib.sha256(data).hexdigest()
