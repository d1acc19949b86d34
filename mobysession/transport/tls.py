"""TLS towards a daemon: certificates from ``ca.pem``, ``cert.pem`` and ``key.pem``, and what it means when it fails.

By ALPN only ``http/1.1`` is offered, unless gRPC is to be spoken at once: an engine from 29.2 on that is offered ``h2``
takes it, and nothing can be hijacked on an HTTP/2 connection. At least TLS 1.2 is asked for, as by docker
(docker/go-connections tlsconfig/config.go). A CA that is given is the only one trusted.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mobysession.dockerconfig import config_dir as default_config_dir
from mobysession.errors import EndpointError, TLSError

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Mapping, Sequence

__all__ = ["TLSConfig", "tls_failure"]

_FILES = ("ca", "cert", "key")

_PEM_HINT = "ca.pem, cert.pem and key.pem must be PEM files; the key must not be encrypted."
_CLIENT_CERTIFICATE_HINT = "Give cert.pem and key.pem, signed by the CA that the daemon's --tlscacert names."
_PLAIN_HINT = "If the daemon listens without TLS, unset DOCKER_TLS_VERIFY and DOCKER_TLS; mind the port (2376 is TLS)."
_CA_HINT = "Give the CA that signed the daemon's certificate: ca.pem in DOCKER_CERT_PATH or in the docker context."

# OpenSSL's X509_V_ERR codes.
_VERIFY_HINTS = {
    9: "It is not valid yet: check the clock of this machine.",
    10: "It has expired: renew it, or check the clock of this machine.",
    62: "Connect by a name that is in the certificate.",
    64: "Connect by an address that is in the certificate.",
}

# Substrings of OpenSSL's reason codes, which are the only stable name it has for an alert.
_ALERTS = {
    "CERTIFICATE_REQUIRED": ("the daemon demands a client certificate and got none", _CLIENT_CERTIFICATE_HINT),
    "ALERT_HANDSHAKE_FAILURE": ("the daemon broke off the TLS handshake", _CLIENT_CERTIFICATE_HINT),
    "ALERT_BAD_CERTIFICATE": ("the daemon does not accept the client certificate", _CLIENT_CERTIFICATE_HINT),
    "ALERT_UNKNOWN_CA": ("the daemon does not know the CA of the client certificate", _CLIENT_CERTIFICATE_HINT),
    "ALERT_CERTIFICATE": ("the daemon does not accept the client certificate", _CLIENT_CERTIFICATE_HINT),
    "ALERT_DECRYPT_ERROR": ("the daemon does not accept the client certificate", _CLIENT_CERTIFICATE_HINT),
    "WRONG_VERSION_NUMBER": ("the endpoint was spoken to in TLS and answered in plain text", _PLAIN_HINT),
    "RECORD_LAYER_FAILURE": ("the endpoint was spoken to in TLS and answered in plain text", _PLAIN_HINT),
    "NO_APPLICATION_PROTOCOL": (
        "the endpoint does not speak the protocol that is needed, by its own word (ALPN)",
        None,
    ),
    "UNEXPECTED_EOF": ("the endpoint closed the connection in the TLS handshake", _PLAIN_HINT),
    "PROTOCOL_VERSION": ("the endpoint offers no TLS version from 1.2 on", None),
}


@dataclass(frozen=True, kw_only=True)
class TLSConfig:
    """How to speak TLS to a daemon.

    Attributes:
        ca: file of the CA certificates to trust; None: those of the system.
        cert: file of the client certificate; None: without one.
        key: file of its private key.
        verify: check the daemon's certificate and name; without, anybody can pretend to be the daemon.
        server_name: name to expect in the certificate instead of the endpoint's host.
    """

    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None
    verify: bool = True
    server_name: str | None = None

    def __post_init__(self) -> None:
        if (self.cert is None) != (self.key is None):
            missing, present = ("key", self.cert) if self.key is None else ("certificate", self.key)
            raise EndpointError(f"TLS client authentication needs a {missing} to go with {present}", hint=_PEM_HINT)

    @classmethod
    def from_directory(cls, directory: str | os.PathLike[str], *, verify: bool = True) -> TLSConfig:
        """Take those of ``ca.pem``, ``cert.pem`` and ``key.pem`` that are in a directory; blocking."""
        files = [path if path.exists() else None for path in (Path(directory, f"{name}.pem") for name in _FILES)]
        return cls(ca=files[0], cert=files[1], key=files[2], verify=verify)

    @classmethod
    def from_env(
        cls, environ: Mapping[str, str] | None = None, *, config_dir: str | os.PathLike[str] | None = None
    ) -> TLSConfig | None:
        """Read what DOCKER_TLS_VERIFY, DOCKER_TLS and DOCKER_CERT_PATH ask for; blocking. None: no TLS.

        Any value counts, also ``0``, as with the docker CLI (docker/cli cli/flags/options.go).

        Raises:
            EndpointError: verification is asked for, DOCKER_CERT_PATH is set and has no ``ca.pem``.
        """
        environ = os.environ if environ is None else environ
        verify = bool(environ.get("DOCKER_TLS_VERIFY"))
        if not verify and not environ.get("DOCKER_TLS"):
            return None
        named = environ.get("DOCKER_CERT_PATH")
        config = cls.from_directory(named or config_dir or default_config_dir(environ), verify=verify)
        if named and verify and config.ca is None:
            raise EndpointError(
                f"DOCKER_TLS_VERIFY is set, and there is no {Path(named, 'ca.pem')}",
                hint="Point DOCKER_CERT_PATH to the directory of ca.pem, cert.pem and key.pem.",
            )
        return config

    def context(self, alpn: Sequence[str] = ("http/1.1",)) -> ssl.SSLContext:
        """Make the SSL context; blocking, as it reads the files.

        Args:
            alpn: the protocols to offer.

        Raises:
            EndpointError: a file cannot be read or is not what it should be; the user must mend it.
        """
        import ssl  # only for who uses TLS: start-up

        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols(list(alpn))
        if not self.verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        elif self.ca is None:
            context.load_default_certs()
        else:
            _load(self.ca, context.load_verify_locations)
        if self.cert is not None:
            # A callable that gives nothing keeps OpenSSL from asking for a password on the terminal.
            _load(self.cert, lambda cert: context.load_cert_chain(cert, self.key, lambda: ""))
        return context


def _load(path: Path, load: Callable[[Path], None]) -> None:
    try:
        load(path)
    except OSError as error:  # SSLError is one
        reason = error.strerror if error.errno and error.strerror and "]" not in error.strerror else "it is not usable"
        raise EndpointError(f"the TLS files at {path} cannot be loaded: {reason}", hint=_PEM_HINT) from error


def tls_failure(error: BaseException, host: str) -> TLSError | None:
    """Find out whether TLS is behind an error of a stream, and say what it means; None when it is not."""
    import ssl  # as above

    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, ssl.SSLError):
        cause = cause.__cause__ or cause.__context__
    if cause is None:
        return None
    if isinstance(cause, ssl.SSLCertVerificationError):
        advice = _VERIFY_HINTS.get(cause.verify_code, _CA_HINT)
        return TLSError(f"the certificate of {host} is not trusted: {cause.verify_message}", hint=advice)
    reason = cause.reason or ("UNEXPECTED_EOF" if isinstance(cause, ssl.SSLEOFError) else "")
    for mark, (text, hint) in _ALERTS.items():
        if mark in reason:
            return TLSError(f"{host}: {text}", hint=hint)
    return TLSError(f"TLS with {host} failed: {reason.replace('_', ' ').lower() or 'no reason given'}")
