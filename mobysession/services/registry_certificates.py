"""Which certificates a registry's TLS is checked with: the system's authorities, and the registry's own.

Docker's engine keeps what belongs to one registry in ``/etc/docker/certs.d/HOST[:PORT]``: each ``*.crt`` is an
authority, each ``*.cert`` with its ``*.key`` a certificate of the client. A rootless engine looks in the user's
``~/.config/docker/certs.d``. Tokens are fetched by this side, which then has to believe what the engine believes, for
the registry itself and, as with the engine, for where its tokens come from.

Source: moby/moby daemon/pkg/registry (ReadCertsDirectory, CertsDir).
"""

from __future__ import annotations

import os
import ssl
from pathlib import Path
from typing import TYPE_CHECKING

from mobysession.errors import CredentialError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["certificate_folders", "tls_context"]

_SYSTEM = Path("/etc/docker/certs.d")


def certificate_folders() -> tuple[Path, ...]:
    """Return the folders that hold a folder for each registry, the system's first; they need not exist."""
    settings = os.environ.get("XDG_CONFIG_HOME") or os.path.join(os.path.expanduser("~"), ".config")
    return _SYSTEM, Path(settings, "docker", "certs.d")


def tls_context(hosts: Iterable[str], folders: Sequence[Path] | None = None) -> ssl.SSLContext:
    """Return what TLS to ``hosts`` is checked with; blocking.

    Args:
        hosts: ``host[:port]``: of a registry, and of where its tokens come from. Not trusted: one that is no name of a
            folder has none.
        folders: where to look; None: `certificate_folders`.

    Raises:
        CredentialError: a file is there and cannot be used; the user must mend or remove it.
    """
    context = ssl.create_default_context()
    if not context.get_ca_certs() and not any(map(os.path.exists, _system_authorities())):
        # Pythons that bring an OpenSSL of their own know no authorities: httpx's then, which are Mozilla's.
        import certifi

        context.load_verify_locations(certifi.where())
    names = [host for host in dict.fromkeys(hosts) if Path(host).name == host and host[:1] not in ("", ".")]
    for folder in certificate_folders() if folders is None else folders:
        for name in names:
            _load(context, folder / name)
    return context


def _system_authorities() -> list[str]:
    paths = ssl.get_default_verify_paths()
    return [path for path in (paths.cafile, paths.capath) if path]


def _load(context: ssl.SSLContext, folder: Path) -> None:
    try:
        files = sorted(folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        raise CredentialError(f"{folder} cannot be read: {error.strerror}", hint="Make it readable for you.") from error
    for file in files:
        try:
            if file.suffix == ".crt":
                context.load_verify_locations(file)
            elif file.suffix == ".cert":
                # Without a password OpenSSL would ask for one on the terminal.
                context.load_cert_chain(file, file.with_suffix(".key"), password="")
        except OSError as error:  # an SSLError is one
            raise CredentialError(
                f"{file} cannot be used: {error.strerror or error}",
                hint="It has to be a certificate as PEM; a *.cert needs a *.key beside it.",
            ) from error
