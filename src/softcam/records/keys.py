"""Keys that sign records: Ed25519 in PEM files, through the library `cryptography`."""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from softcam.errors import RecordError
from softcam.files import write_atomic
from softcam.libraries import load_library

PASSPHRASE = "SOFTCAM_KEY_PASSPHRASE"  # noqa: S105 - the name of a variable
"""Environment variable with the passphrase of a private key that is encrypted."""

_PRIVATE, _PUBLIC = "key.pem", "key.pub.pem"


@dataclass(frozen=True)
class Signer:
    """A private key.

    Args:
        key: Of `cryptography`.
        name: The first 16 hexadecimal digits of the public key's SHA-256.
    """

    key: Any
    name: str

    def __repr__(self) -> str:
        return f"Signer(name={self.name!r})"

    def sign(self, message: bytes) -> str:
        """Return the signature of a message in base64."""
        return base64.b64encode(self.key.sign(message)).decode()

    @property
    def verifier(self) -> Verifier:
        """The public key that belongs to it."""
        return Verifier(self.key.public_key(), self.name)


@dataclass(frozen=True)
class Verifier:
    """A public key.

    Args:
        key: Of `cryptography`.
        name: As that of its `Signer`.
    """

    key: Any
    name: str

    def verify(self, signature: str, message: bytes) -> bool:
        """Return whether a signature, in base64, is this key's of that message."""
        exceptions = load_library("cryptography.exceptions", extra="records")
        try:
            raw = base64.b64decode(signature, validate=True)
            self.key.verify(raw, message)
        except (exceptions.InvalidSignature, binascii.Error, ValueError):
            return False
        # The last digit of base64 has bits that decoding ignores.
        return base64.b64encode(raw).decode() == signature


def create_key(folder: str | Path) -> tuple[Path, Path]:
    """Write a new pair of keys: `key.pem`, which signs and which nobody else may read, and `key.pub.pem`.

    With a passphrase in `SOFTCAM_KEY_PASSPHRASE` the first is encrypted.

    Args:
        folder: Where to; it is made if needed.

    Returns:
        The files.

    Raises:
        MissingExtraError: If cryptography is not installed.
        RecordError: If there is a key already, which is never replaced.
    """
    ed25519, serialization = _load_libraries()
    private, public = Path(folder) / _PRIVATE, Path(folder) / _PUBLIC
    if private.exists() or public.exists():
        raise RecordError(f"Expected no key in {folder}, but there is one. It is not replaced: choose another folder.")
    key = ed25519.Ed25519PrivateKey.generate()
    secret = os.environ.get(PASSPHRASE, "").encode()
    encryption = serialization.BestAvailableEncryption(secret) if secret else serialization.NoEncryption()
    pem = serialization.Encoding.PEM
    content = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, encryption)
    private.parent.mkdir(parents=True, exist_ok=True)
    # Never readable for others, not even for a moment.
    descriptor = os.open(private, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())
    write_atomic(public, key.public_key().public_bytes(pem, serialization.PublicFormat.SubjectPublicKeyInfo))
    return private, public


def load_signer(path: str | Path) -> Signer:
    """Read a private key.

    Args:
        path: `key.pem`.

    Raises:
        MissingExtraError: If cryptography is not installed.
        RecordError: If the file is no Ed25519 private key, or its passphrase is missing or wrong.
    """
    ed25519, serialization = _load_libraries()
    secret = os.environ.get(PASSPHRASE, "").encode() or None
    try:
        content = Path(path).read_bytes()
        key = serialization.load_pem_private_key(content, secret if b"ENCRYPTED" in content else None)
    except (OSError, ValueError, TypeError) as error:
        raise RecordError(
            f"Expected {path} to be a private key, but it cannot be read. Make one with `softcam keys`; "
            f"an encrypted one needs its passphrase in {PASSPHRASE}."
        ) from error
    if not isinstance(key, ed25519.Ed25519PrivateKey):
        raise RecordError(
            f"Expected {path} to be an Ed25519 key, but it is another kind. Make one with `softcam keys`."
        )
    return Signer(key, _name(key.public_key(), serialization))


def load_verifier(path: str | Path) -> Verifier:
    """Read a public key.

    Args:
        path: `key.pub.pem`.

    Raises:
        MissingExtraError: If cryptography is not installed.
        RecordError: If the file is no Ed25519 public key.
    """
    ed25519, serialization = _load_libraries()
    try:
        key = serialization.load_pem_public_key(Path(path).read_bytes())
    except (OSError, ValueError) as error:
        raise RecordError(f"Expected {path} to be a public key in PEM, but it cannot be read.") from error
    if not isinstance(key, ed25519.Ed25519PublicKey):
        raise RecordError(f"Expected {path} to be an Ed25519 public key, but it is another kind.")
    return Verifier(key, _name(key, serialization))


def _load_libraries() -> tuple[Any, Any]:
    base = "cryptography.hazmat.primitives"
    return (
        load_library(f"{base}.asymmetric.ed25519", extra="records"),
        load_library(f"{base}.serialization", extra="records"),
    )


def _name(key: Any, serialization: Any) -> str:
    raw = key.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    return hashlib.sha256(raw).hexdigest()[:16]
