"""Is a chain of records whole, and whose is it?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from softcam.records.chain import START, Record, read_chain
from softcam.records.keys import Verifier

MOST_FAULTS = 1000


@dataclass(frozen=True)
class Fault:
    """Something that is wrong with a chain.

    Args:
        line: Of the file, from 1; 0 for the file as a whole.
        kind: `damaged`, `edited`, `missing`, `moved`, `foreign` or `cut`.
        text: What is wrong, in a sentence.
    """

    line: int
    kind: str
    text: str


@dataclass(frozen=True)
class ChainReport:
    """What a check found.

    Args:
        records: Lines of the file.
        head: Digest of the last record.
        faults: What is wrong, at most 1,000 of them; empty if nothing is.
        signed: Whether signatures were checked.
    """

    records: int
    head: str
    faults: tuple[Fault, ...]
    signed: bool


def check_chain(path: str | Path, *, keys: Sequence[Verifier] = (), head: str | None = None) -> ChainReport:
    """Check every digest, every link and, with keys, every signature.

    An edit shows in the record's own digest, a record that is gone or at another place in the link of the one after it.
    Records that were cut off at the end leave no trace in the file itself: for that, give a digest that was kept
    elsewhere. Whoever has the private key can write another chain altogether; only a digest kept elsewhere shows it.

    Args:
        path: The file.
        keys: Whose signatures count; without any they are not checked.
        head: Digest that one of the records must have.

    Raises:
        RecordError: If the file cannot be read.
    """
    check = _Check({key.name: key for key in keys})
    for record in read_chain(path):
        check.take(record, head)
    if head is not None and not check.met:
        check.say(0, "cut", "no record has the digest that was expected: records were cut off, or it is another chain")
    return ChainReport(check.line, check.head, tuple(check.faults[:MOST_FAULTS]), bool(keys))


class _Check:
    def __init__(self, keys: dict[str, Verifier]) -> None:
        self._keys = keys
        self.line, self.head, self.sequence, self.met = 0, START, 0, False
        self.faults: list[Fault] = []

    def say(self, line: int, kind: str, text: str) -> None:
        if len(self.faults) <= MOST_FAULTS:
            self.faults.append(Fault(line, kind, text))

    def take(self, record: Record | None, wanted: str | None) -> None:
        self.line += 1
        if record is None:
            self.say(self.line, "damaged", "no record can be read")
            return
        self.met |= record.digest == wanted
        self._check_link(record)
        if record.digest != record.compute_digest():
            self.say(self.line, "edited", f"record {record.sequence} does not have its digest: it was changed")
        elif self._keys:
            self._check_signature(record)
        self.sequence, self.head = record.sequence + 1, record.digest

    def _check_link(self, record: Record) -> None:
        if record.previous == self.head and record.sequence == self.sequence:
            return
        if record.sequence > self.sequence:
            gone = record.sequence - self.sequence
            which = f"{self.sequence}" if gone == 1 else f"{self.sequence} to {record.sequence - 1}"
            self.say(self.line, "missing", f"before record {record.sequence}, {which} is missing")
        elif record.sequence < self.sequence:
            self.say(self.line, "moved", f"record {record.sequence} stands where {self.sequence} belongs")
        else:
            self.say(self.line, "missing", f"record {record.sequence} does not follow the one before it")

    def _check_signature(self, record: Record) -> None:
        key = self._keys.get(record.key)
        if key is None:
            self.say(
                self.line, "foreign", f"record {record.sequence} is signed by the key {record.key}, not by one given"
            )
        elif not key.verify(record.signature, bytes.fromhex(record.digest)):
            self.say(
                self.line, "foreign", f"record {record.sequence} has a signature that is not of the key {record.key}"
            )
