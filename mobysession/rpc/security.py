"""How a connection is secured, and who is at its other end, in the words of gRPC's ``auth_context``.

What a handshake has found out is asked of the TLS layer, wherever in the stream it stands. A certificate says something
only where it was verified; one that nobody asked for, or that was not checked, names nobody.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

import trio

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["COMMON_NAME", "SUBJECT_NAMES", "Security", "security_of"]

#: By key, the values that gRPC's ``auth_context`` has.
Security = dict[str, list[bytes]]

#: The two keys that may name the other end; the second is preferred.
COMMON_NAME = "x509_common_name"
SUBJECT_NAMES = "x509_subject_alternative_name"

#: By what Python calls a kind of name in a certificate, the key under which gRPC has such names besides.
_KINDS = {"DNS": "peer_dns", "IP Address": "peer_ip", "email": "peer_email", "URI": "peer_uri"}


def security_of(stream: trio.abc.Stream) -> Security:
    """Return what gRPC says of a connection on ``stream``, whose handshake must be over.

    Python's TLS does not tell the subject as one text, the name that the other side asked for, nor the group of the key
    exchange; they are missing.

    Source: grpc/grpc src/core/tsi/ssl_transport_security.cc (peer_from_x509) and
    src/core/lib/security/security_connector/ssl_utils.cc (grpc_ssl_peer_to_auth_context).
    """
    below: Any = stream
    while below is not None and not isinstance(below, trio.SSLStream):
        below = getattr(below, "transport_stream", None)
    if below is None:
        return {"transport_security_type": [b"insecure"], "security_level": [b"TSI_SECURITY_NONE"]}
    return {
        "transport_security_type": [b"ssl"],
        "security_level": [b"TSI_PRIVACY_AND_INTEGRITY"],
        "ssl_session_reused": [b"true" if below.session_reused else b"false"],
        "ssl_tls_version": [(below.version() or "").encode()],
        **_certificate(below),
    }


def _certificate(stream: Any) -> Security:
    """Return what a verified certificate of the other end says; nothing where there is none."""
    import ssl

    names: Mapping[str, Any] = stream.getpeercert() or {}
    if not names:
        return {}
    said: Security = {
        COMMON_NAME: [dict(pair for part in names.get("subject", ()) for pair in part).get("commonName", "").encode()],
        "x509_pem_cert": [ssl.DER_cert_to_PEM_cert(stream.getpeercert(binary_form=True)).encode()],
    }
    for kind, name in names.get("subjectAltName", ()):
        if kind in _KINDS:
            value = _spelled(kind, name)
            said.setdefault(SUBJECT_NAMES, []).append(value)
            said.setdefault(_KINDS[kind], []).append(value)
    return said


def _spelled(kind: str, name: str) -> bytes:
    if kind == "IP Address":
        import ipaddress

        # Python writes all eight groups of an IPv6 address, and words for what is none.
        with suppress(ValueError):
            name = str(ipaddress.ip_address(name.strip()))
    return name.encode()
