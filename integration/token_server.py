"""A server of registry tokens, as small as it can be: what a registry with token authentication points to.

``python -m integration.token_server PORT FOLDER`` listens on the loopback, plain HTTP, and notes each request in
``FOLDER/requests`` without its secrets. It is asked by GET with Basic authentication, or by POST as OAuth has it, and
what may be asked for it reads from ``FOLDER/settings.json`` at each request.

Source: distribution/distribution docs/content/spec/auth (token.md, oauth.md, jwt.md).
"""

from __future__ import annotations

import base64
import datetime
import hmac
import http.server
import json
import sys
import time
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.x509.oid import NameOID

__all__ = ["ISSUER", "SERVICE", "make_identity"]

ISSUER = "mobysession tokens"
SERVICE = "mobysession registry"
LIFETIME = 300


def make_identity(folder: Path) -> Path:
    """Write a signing key and its certificate into ``folder``; return the certificate, which the registry trusts."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, ISSUER)])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    (folder / "key.pem").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    path = folder / "certificate.pem"
    path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    return path


class _Handler(http.server.BaseHTTPRequestHandler):
    folder: Path

    def do_GET(self) -> None:
        fields = parse_qs(urlsplit(self.path).query)
        kind, _, encoded = (self.headers.get("authorization") or "").partition(" ")
        user, _, password = base64.b64decode(encoded).decode().partition(":") if kind == "Basic" else ("", "", "")
        self._answer("GET", fields, user, password)

    def do_POST(self) -> None:
        fields = parse_qs(self.rfile.read(int(self.headers.get("content-length") or 0)).decode())
        if not self._settings()["post"]:
            self._send(404, {})
        elif fields.get("grant_type") == ["refresh_token"]:
            self._answer("POST", fields, "", fields.get("refresh_token", [""])[0])
        else:
            self._answer("POST", fields, fields.get("username", [""])[0], fields.get("password", [""])[0])

    def _settings(self) -> dict[str, Any]:
        settings: dict[str, Any] = json.loads((self.folder / "settings.json").read_text())
        return settings

    def _answer(self, method: str, fields: dict[str, list[str]], user: str, secret: str) -> None:
        scopes = [scope for listed in fields.get("scope", []) for scope in listed.split()]
        # An identity token is a secret without a user name.
        known = self._settings()["users"].get(user)
        allowed = known is not None and hmac.compare_digest(known, secret)
        note = {"method": method, "user": user, "agent": self.headers.get("user-agent", ""), "scopes": scopes}
        with (self.folder / "requests").open("a") as notes:
            notes.write(json.dumps({**note, "service": fields.get("service", []), "allowed": allowed}) + "\n")
        if not allowed:
            self._send(401, {"errors": [{"code": "UNAUTHORIZED", "message": "who are you?"}]})
            return
        self._send(200, {"token": (token := self._token(user, scopes)), "access_token": token, "expires_in": LIFETIME})

    def _token(self, user: str, scopes: list[str]) -> str:
        certificate = x509.load_pem_x509_certificate((self.folder / "certificate.pem").read_bytes())
        key = serialization.load_pem_private_key((self.folder / "key.pem").read_bytes(), None)
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        chain = [base64.b64encode(certificate.public_bytes(serialization.Encoding.DER)).decode()]
        now = int(time.time())
        access = []
        for scope in scopes:
            kind, _, rest = scope.partition(":")
            name, _, actions = rest.rpartition(":")
            access.append({"type": kind, "name": name, "actions": actions.split(",")})
        claims = {"iss": ISSUER, "sub": user, "aud": SERVICE, "exp": now + LIFETIME, "nbf": now - 10, "iat": now}
        parts = {"typ": "JWT", "alg": "ES256", "x5c": chain}, {**claims, "jti": str(now), "access": access}
        signed = ".".join(_encoded(json.dumps(part).encode()) for part in parts)
        r, s = decode_dss_signature(key.sign(signed.encode(), ec.ECDSA(hashes.SHA256())))
        return f"{signed}.{_encoded(r.to_bytes(32, 'big') + s.to_bytes(32, 'big'))}"

    def _send(self, status: int, body: dict[str, Any]) -> None:
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_arguments: object) -> None:
        """Stay silent."""


def _encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def main(port: str, folder: str) -> None:
    """Serve until killed; say on stdout when it listens."""
    _Handler.folder = Path(folder)
    with http.server.ThreadingHTTPServer(("127.0.0.1", int(port)), _Handler) as server:
        print("listening", flush=True)
        server.serve_forever()


if __name__ == "__main__":
    main(*sys.argv[1:])
