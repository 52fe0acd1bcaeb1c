"""One secret per run: the same source gets the same new identifiers for as long as the run lasts."""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from softcam.errors import DicomError

KEY_NAME = ".identifiers.key"
_BYTES = 32


@dataclass(frozen=True)
class RunKey:
    """A secret from which identifiers are derived; without it nobody can tell which old one a new one stands for.

    Args:
        secret: 32 bytes; default: fresh ones.

    Raises:
        ValueError: If there are fewer or more bytes.
    """

    secret: bytes = field(default_factory=lambda: secrets.token_bytes(_BYTES), repr=False)

    def __post_init__(self) -> None:
        if len(self.secret) != _BYTES:
            raise ValueError(f"Expected `secret` to be {_BYTES} bytes, but got {len(self.secret)}.")

    def derive_uid(self, *parts: str) -> str:
        """Return the UID, below the root 2.25 of random ones, that stands for some text in this run."""
        digest = hmac.new(self.secret, "\0".join(parts).encode(), hashlib.sha256).digest()
        # Marked as a UUID of random bits, which is what the root is for.
        number = int.from_bytes(digest[:16]) & ~(0xF << 76) & ~(0x3 << 62) | (0x4 << 76) | (0x2 << 62)
        return f"2.25.{number}"


@contextmanager
def open_run_key(folder: Path) -> Iterator[RunKey]:
    """Yield the key of the run that writes into a folder, and forget it when the work is done.

    Args:
        folder: Where results go; it is created if needed.

    Raises:
        DicomError: If the file of the key is damaged.
    """
    yield load_run_key(folder)
    forget_run_key(folder)


def load_run_key(folder: Path) -> RunKey:
    """Return the key of the run that writes into a folder; a run that was ended before continues with its own.

    It lies in a hidden file that only its owner can read.

    Args:
        folder: Where results go; it is created if needed.

    Raises:
        DicomError: If the file of the key is damaged.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / KEY_NAME
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        secret = path.read_bytes()
    else:
        secret = secrets.token_bytes(_BYTES)
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(secret)
    if len(secret) != _BYTES:
        raise DicomError(f"Expected {KEY_NAME} in {folder} to hold {_BYTES} bytes, but got {len(secret)}. Remove it.")
    return RunKey(secret)


def forget_run_key(folder: Path) -> None:
    """Remove the key of a run that is done: nobody can tell any more which old identifiers the new ones stand for.

    Args:
        folder: Where results went.
    """
    (folder / KEY_NAME).unlink(missing_ok=True)
