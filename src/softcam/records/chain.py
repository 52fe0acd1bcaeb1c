"""A file of records, each of which holds the digest of the one before: nothing in it can change without a trace."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import threading
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from io import RawIOBase
from pathlib import Path
from typing import Any, BinaryIO, Self

from softcam.errors import RecordError
from softcam.files import atomic_path
from softcam.records.facts import canonical
from softcam.records.keys import Signer
from softcam.runs import lock

START = "0" * 64
"""What the first record holds as the digest of the one before."""

LONGEST_LINE = 64 * 1024 * 1024


@dataclass(frozen=True)
class Record:
    """One line of the file.

    Args:
        sequence: Its place, from 0.
        time: When it was made, in UTC, as the machine's clock had it.
        previous: Digest of the record before; `START` for the first.
        key: Name of the key that signed it.
        body: What it says, in JSON values.
        digest: SHA-256 of all of the above.
        signature: Ed25519 of the digest, in base64.
    """

    sequence: int
    time: str
    previous: str
    key: str
    body: dict[str, Any]
    digest: str
    signature: str

    def compute_digest(self) -> str:
        """Return what the digest has to be."""
        own = {name: getattr(self, name) for name in ("sequence", "time", "previous", "key", "body")}
        return hashlib.sha256(canonical(own)).hexdigest()

    def to_line(self) -> bytes:
        """Return the record as a line of JSON."""
        return json.dumps(asdict(self), ensure_ascii=False, allow_nan=False).encode() + b"\n"

    @classmethod
    def from_line(cls, line: bytes) -> Record:
        """Return the record of a line.

        Raises:
            ValueError: If it is none.
        """
        values = json.loads(line, parse_constant=_refuse)
        kinds = {
            "sequence": int,
            "time": str,
            "previous": str,
            "key": str,
            "body": dict,
            "digest": str,
            "signature": str,
        }
        if not isinstance(values, dict) or set(values) != set(kinds):
            raise ValueError("Expected the fields of a record, but got others.")
        if not all(isinstance(values[name], kind) for name, kind in kinds.items()):
            raise ValueError("Expected fields of a record's types, but got others.")
        return cls(**values)


class Chain:
    """The end of a chain, to which records are added.

    Args:
        signer: Signs them.
        sequence: Place of the next one.
        head: Digest of the last one.
    """

    def __init__(self, signer: Signer, sequence: int = 0, head: str = START) -> None:
        self._signer, self.sequence, self.head = signer, sequence, head

    def add(self, body: dict[str, Any], *, time: str | None = None) -> Record:
        """Return the next record.

        Args:
            body: What it says.
            time: When that was; default: now.
        """
        moment = time or now()
        record = Record(self.sequence, moment, self.head, self._signer.name, body, "", "")
        digest = record.compute_digest()
        signed = Record(**{**vars(record), "digest": digest, "signature": self._signer.sign(bytes.fromhex(digest))})
        self.sequence, self.head = self.sequence + 1, digest
        return signed


class ChainWriter:
    """Append to a file of records that only this process writes; what was added is on disk when `add` returns.

    A last line that was torn by a crash was never acknowledged, and is dropped.

    Args:
        path: The file; it is made if needed, for its owner alone.
        signer: Signs what is added; its name may differ from that of earlier records.

    Raises:
        RecordError: If the file is no chain, or another process writes it.
    """

    def __init__(self, path: str | Path, signer: Signer) -> None:
        self.path = Path(path)
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        # Unbuffered: what could not be written must not be tried again with the next record.
        self._stream = os.fdopen(descriptor, "ab", buffering=0)
        self._lock = threading.Lock()
        try:
            lock(self._stream, self.path.parent)
            self._chain = self._continue(signer)
        except BaseException:
            self._stream.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def head(self) -> str:
        """Digest of the last record; kept elsewhere, it shows whether records were cut off at the end."""
        return self._chain.head

    def add(self, *bodies: dict[str, Any]) -> list[Record]:
        """Add records, and wait until they are on disk; may be called from several threads.

        Args:
            *bodies: What they say.

        Raises:
            OSError: If they cannot be written; then none of them is in the file.
        """
        with self._lock:
            before = self._chain.sequence, self._chain.head
            end = self._stream.seek(0, os.SEEK_END)
            records = [self._chain.add(body) for body in bodies]
            try:
                _write(self._stream, b"".join(record.to_line() for record in records))
            except OSError:
                self._chain.sequence, self._chain.head = before
                self._stream.truncate(end)
                raise
            return records

    def close(self) -> None:
        """Let others write the file."""
        self._stream.close()

    def _continue(self, signer: Signer) -> Chain:
        with self.path.open("rb") as lines:
            return self._follow(lines, Chain(signer))

    def _follow(self, lines: BinaryIO, chain: Chain) -> Chain:
        whole = 0
        for line in lines:
            if not line.endswith(b"\n"):
                self._stream.truncate(whole)
                break
            whole += len(line)
            try:
                record = Record.from_line(line)
            except ValueError as error:
                raise _damaged(self.path, chain.sequence) from error
            if (record.sequence, record.previous) != (chain.sequence, chain.head):
                raise _damaged(self.path, chain.sequence)
            chain.sequence, chain.head = record.sequence + 1, record.digest
        return chain


def write_chain(path: str | Path, bodies: Iterable[tuple[dict[str, Any], str]], signer: Signer) -> str:
    """Write a whole chain, which appears with all its records or not at all.

    Args:
        path: The file.
        bodies: What the records say, and when that was.
        signer: Signs them.

    Returns:
        The digest of the last record.
    """
    chain = Chain(signer)
    with atomic_path(Path(path)) as temporary, temporary.open("wb") as stream:
        for body, moment in bodies:
            stream.write(chain.add(body, time=moment).to_line())
    return chain.head


def read_chain(path: str | Path) -> Iterator[Record | None]:
    """Yield the records of a file in bounded memory; None for a line that is none.

    Args:
        path: The file.

    Raises:
        RecordError: If it cannot be read.
    """
    try:
        with Path(path).open("rb") as stream:
            while line := stream.readline(LONGEST_LINE):
                try:
                    yield Record.from_line(line)
                except (ValueError, RecursionError):
                    yield None
    except OSError as error:
        raise RecordError(f"Expected {path} to be a file of records, but it cannot be read.") from error


def _write(stream: RawIOBase, content: bytes) -> None:
    if stream.write(content) != len(content):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    os.fsync(stream.fileno())


def _refuse(constant: str) -> None:
    raise ValueError(f"Expected JSON, but got {constant}.")


def now() -> str:
    """Return the present time in UTC."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def _damaged(path: Path, sequence: int) -> RecordError:
    return RecordError(
        f"Expected {path} to be a chain of records, but it is damaged at record {sequence}. "
        "`softcam verify` says how. Keep the file, and begin another."
    )
