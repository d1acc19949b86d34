"""An SSH agent inside this process, for private keys that lie in files.

It lists its keys and signs with them; it takes no further keys, gives none away and knows no locks. Keys are read, and
decrypted, once, before the build starts: a passphrase can be asked for while a person still looks at the terminal.

Source: RFC 4253 section 6.6, RFC 5656 section 3.1.2, RFC 8332, RFC 8709; moby/buildkit session/sshforward/sshprovider.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from mobysession import limits
from mobysession.errors import RemoteProtocolError, SshError
from mobysession.services.agent_frames import (
    FAILURE,
    IDENTITIES_ANSWER,
    REMOVE_ALL_RSA_IDENTITIES,
    REQUEST_IDENTITIES,
    REQUEST_RSA_IDENTITIES,
    RSA_IDENTITIES_ANSWER,
    SIGN_REQUEST,
    SIGN_RESPONSE,
    SUCCESS,
    Identity,
    encode_frame,
    encode_identities,
    encode_string,
    read_string,
)

if TYPE_CHECKING:
    import os

__all__ = ["KeyRing", "Passphrase", "load_key_ring"]

#: A passphrase, or a function that is given the path of an encrypted key and returns its passphrase.
Passphrase: TypeAlias = str | bytes | Callable[[str], str | bytes | None]

_SHA2_256: Final = 2
_SHA2_512: Final = 4
#: What each elliptic curve of SSH signs with.
_CURVE_HASHES: Final = {"nistp256": "SHA256", "nistp384": "SHA384", "nistp521": "SHA512"}


class KeyRing:
    """The keys, and what an agent that holds them answers."""

    def __init__(self, keys: Iterable[tuple[Identity, Any]]) -> None:
        self._keys = dict(keys)

    def __repr__(self) -> str:
        return f"KeyRing({', '.join(identity.fingerprint for identity in self._keys)})"

    @property
    def identities(self) -> tuple[Identity, ...]:
        """The keys, in the order of their files."""
        return tuple(self._keys)

    def answer(self, request: bytes) -> bytes:
        """Return the whole answer, with its length, to one request of the agent protocol; blocking, some ms at most."""
        kind = request[0]
        if kind == REQUEST_IDENTITIES:
            return encode_frame(IDENTITIES_ANSWER, encode_identities(self.identities))
        if kind == SIGN_REQUEST:
            return self._sign(request)
        if kind == REQUEST_RSA_IDENTITIES:
            return encode_frame(RSA_IDENTITIES_ANSWER, bytes(4))
        if kind == REMOVE_ALL_RSA_IDENTITIES:
            return encode_frame(SUCCESS)
        return encode_frame(FAILURE)

    def _sign(self, request: bytes) -> bytes:
        try:
            blob, offset = read_string(request, 1)
            data, offset = read_string(request, offset)
        except RemoteProtocolError:
            return encode_frame(FAILURE)
        flags = int.from_bytes(request[offset : offset + 4], "big")
        key = next((key for identity, key in self._keys.items() if identity.blob == blob), None)
        signature = None if key is None else _signature(key, data, flags)
        return encode_frame(FAILURE) if signature is None else encode_frame(SIGN_RESPONSE, encode_string(signature))


def load_key_ring(paths: Iterable[str | os.PathLike[str]], passphrase: Passphrase | None = None) -> KeyRing:
    """Read private keys, each unencrypted or with ``passphrase``; blocking.

    Raises:
        SshError: a file is unreadable, over ``limits.MAX_KEY_FILE``, no private key, or its passphrase is missing or
            wrong; the message names the file and the user must act.
    """
    return KeyRing([_load(Path(path), passphrase) for path in paths])


def _load(path: Path, passphrase: Passphrase | None) -> tuple[Identity, Any]:
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    key = _private_key(path, _read(path), passphrase)
    public = key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
    return Identity(base64.b64decode(public.split()[1]), str(path)), key


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            content = file.read(limits.MAX_KEY_FILE + 1)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise SshError(f"the SSH key {path} cannot be read: {reason}") from error
    if len(content) > limits.MAX_KEY_FILE:
        raise SshError(f"{path} has more than {limits.MAX_KEY_FILE} bytes: it is no SSH key")
    return content


def _private_key(path: Path, content: bytes, passphrase: Passphrase | None) -> Any:
    """Return the key of cryptography's that ``content`` encodes, of a type that SSH knows."""
    encrypted = _is_encrypted(content)
    word = _passphrase(path, passphrase) if encrypted else None
    try:
        key = _parse(content, word)
    except ImportError as error:
        raise SshError(
            f"the SSH key {path} is encrypted in OpenSSH's own format, which takes the package bcrypt",
            hint="Install mobysession[ssh], or use the SSH agent, which holds the key decrypted.",
        ) from error
    except Exception as error:  # of many kinds, and none may show the passphrase
        what = (
            "cannot be decrypted: the passphrase is wrong, or the file is damaged" if encrypted else "is no private key"
        )
        raise SshError(f"the SSH key {path} {what}") from error
    if _kind(key) is None:
        raise SshError(
            f"the SSH key {path} is of a type that is not supported", hint="Use an ed25519, an ECDSA or an RSA key."
        )
    return key


def _parse(content: bytes, word: bytes | None) -> Any:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_ssh_private_key

    if b"BEGIN OPENSSH PRIVATE KEY" not in content:
        return load_pem_private_key(content, word)
    try:
        return load_ssh_private_key(content, word)
    except UnsupportedAlgorithm as error:
        if "bcrypt" in str(error):
            raise ImportError("bcrypt") from error
        raise


def _is_encrypted(content: bytes) -> bool:
    if b"ENCRYPTED" in content:
        return True
    begin, _, rest = content.partition(b"-----BEGIN OPENSSH PRIVATE KEY-----")
    try:
        binary = base64.b64decode(rest.partition(b"-----END")[0], validate=False)
    except ValueError:
        return False
    # The magic word, then the name of the cipher (PROTOCOL.key of OpenSSH).
    magic = b"openssh-key-v1\0"
    if begin.strip() or not binary.startswith(magic):
        return False
    try:
        return read_string(binary, len(magic))[0] != b"none"
    except RemoteProtocolError:
        return False


def _passphrase(path: Path, passphrase: Passphrase | None) -> bytes:
    try:
        word = passphrase(str(path)) if callable(passphrase) else passphrase
    except Exception as error:  # of any kind: the function is not ours, and its words may hold a passphrase
        raise SshError(
            f"the function for the passphrase of the SSH key {path} failed with {type(error).__name__}"
        ) from error
    if word is None:
        raise SshError(
            f"the SSH key {path} is encrypted, and there is no passphrase for it",
            hint="Give passphrase=, or add the key to the SSH agent with ssh-add and forward the agent.",
        )
    if not isinstance(word, str | bytes):
        raise SshError(f"the passphrase of the SSH key {path} is an object of type {type(word).__name__}, not a text")
    return word.encode() if isinstance(word, str) else word


def _kind(key: Any) -> str | None:
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

    if isinstance(key, ed25519.Ed25519PrivateKey):
        return "ed25519"
    if isinstance(key, rsa.RSAPrivateKey):
        return "rsa"
    return "ecdsa" if isinstance(key, ec.EllipticCurvePrivateKey) and _curve(key) else None


def _curve(key: Any) -> str:
    return {"secp256r1": "nistp256", "secp384r1": "nistp384", "secp521r1": "nistp521"}.get(key.curve.name, "")


def _signature(key: Any, data: bytes, flags: int) -> bytes | None:
    """Return the signature as SSH encodes it: its algorithm, then what that algorithm says."""
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec, padding
    from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

    kind = _kind(key)
    if kind == "ed25519":
        return encode_string(b"ssh-ed25519") + encode_string(key.sign(data))
    if kind == "ecdsa":
        curve = _curve(key)
        digest = getattr(hashes, _CURVE_HASHES[curve])()
        r, s = decode_dss_signature(key.sign(data, ec.ECDSA(digest)))
        return encode_string(b"ecdsa-sha2-" + curve.encode()) + encode_string(_mpint(r) + _mpint(s))
    rsa_digest: hashes.HashAlgorithm
    if flags & _SHA2_512:
        name, rsa_digest = b"rsa-sha2-512", hashes.SHA512()
    elif flags & _SHA2_256:
        name, rsa_digest = b"rsa-sha2-256", hashes.SHA256()
    else:
        # ssh-rsa, which is SHA-1: no server that is kept up to date takes it, and asking for SHA-2 is a flag.
        return None
    return encode_string(name) + encode_string(key.sign(data, padding.PKCS1v15(), rsa_digest))


def _mpint(number: int) -> bytes:
    # RFC 4251: a leading zero byte where the highest bit would say that the number is negative.
    return encode_string(number.to_bytes(number.bit_length() // 8 + 1, "big"))
