"""C-STORE: associations with at most 128 kinds of objects each, and the archive's status for every file."""

from __future__ import annotations

import ssl
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pydicom
from pynetdicom import AE
from pynetdicom.presentation import PresentationContext, build_context

from softcam.errors import DicomError
from softcam.imaging.dicom.silence import silenced

if TYPE_CHECKING:
    from pynetdicom.association import Association

    from softcam.interop.dicom.destination import Destination

Outcome = tuple[Path, str]

_MOST_CONTEXTS = 128
_MEANINGS = {
    0x0122: "class of objects not supported",
    0x0124: "not authorized",
    0x0210: "operation not recognized",
    0x0211: "operation not recognized",
}
_RANGES = ((0xA700, 0xA7FF, "out of resources"), (0xA900, 0xA9FF, "object does not fit its class"),
           (0xC000, 0xCFFF, "archive cannot understand it"))  # fmt: skip


class _Kind(NamedTuple):
    """Class of objects and transfer syntax, which an association agrees on beforehand."""

    sop_class: str
    syntax: str


def store_by_association(paths: Iterable[Path], destination: Destination) -> Iterator[Outcome]:
    """Yield each file with the reason why the archive did not take it, empty if it did.

    Args:
        paths: DICOM files.
        destination: A host and a port.

    Raises:
        DicomError: If a file of certificates cannot be used.
    """
    known: dict[Path, _Kind] = {}
    for path in paths:
        kind = _read_kind(path)
        if isinstance(kind, str):
            yield path, kind
        else:
            known[path] = kind
    for batch in _batches(known):
        yield from _store_batch(batch, destination)


def _read_kind(path: Path) -> _Kind | str:
    try:
        with silenced():
            meta = pydicom.filereader.read_file_meta_info(path)
            return _Kind(str(meta.MediaStorageSOPClassUID), str(meta.TransferSyntaxUID))
    except (AttributeError, LookupError, OSError, TypeError, ValueError):
        return "file meta information is missing or damaged"


def _batches(known: dict[Path, _Kind]) -> Iterator[dict[Path, _Kind]]:
    kinds = {kind: number for number, kind in enumerate(dict.fromkeys(known.values()))}
    ordered = sorted(known.items(), key=lambda item: kinds[item[1]] // _MOST_CONTEXTS)
    for _, group in groupby(ordered, key=lambda item: kinds[item[1]] // _MOST_CONTEXTS):
        yield dict(group)


def _store_batch(batch: dict[Path, _Kind], destination: Destination) -> Iterator[Outcome]:
    waiting = list(batch)
    contexts = [build_context(kind.sop_class, kind.syntax) for kind in dict.fromkeys(batch.values())]
    for last_try in (False, True):
        with _associate(contexts, destination) as association:
            if association is None:
                continue
            while waiting and association.is_established:
                problem = _store(association, waiting[0], batch[waiting[0]])
                if problem is None:
                    if last_try:
                        yield waiting.pop(0), "connection lost while it was sent"
                    break
                yield waiting.pop(0), problem
        if not waiting:
            return
    yield from ((path, "no connection, or the archive refused it") for path in waiting)


@contextmanager
def _associate(contexts: list[PresentationContext], destination: Destination) -> Iterator[Association | None]:
    """Yield an association, None if there is none to be had, and release it."""
    entity = AE(ae_title=destination.calling_aet)
    entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = destination.timeout
    entity.connection_timeout = destination.timeout
    host, port = destination.host_and_port
    encryption = (_load_certificates(destination), host) if destination.tls else None
    with silenced():
        association = entity.associate(host, port, contexts, ae_title=destination.aet, tls_args=encryption)
    try:
        yield association if association.is_established else None
    finally:
        with silenced():
            if association.is_established:
                association.release()


def _load_certificates(destination: Destination) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=destination.ca_file)
    except (OSError, ssl.SSLError) as error:
        raise DicomError(f"Expected {destination.ca_file} to hold certificates in PEM, but it does not.") from error


def _store(association: Association, path: Path, kind: _Kind) -> str | None:
    """Send a file; return the problem, empty if there is none, None if the connection was lost."""
    accepted = {(str(c.abstract_syntax), str(c.transfer_syntax[0])) for c in association.accepted_contexts}
    if tuple(kind) not in accepted:
        return "archive does not take this class of objects in this transfer syntax"
    try:
        with silenced():
            status: Any = association.send_c_store(pydicom.dcmread(path, force=True))
    except (AttributeError, LookupError, OSError, TypeError, ValueError, NotImplementedError):
        return "file cannot be read or encoded"
    except RuntimeError:
        return None  # the association ended meanwhile
    if "Status" not in status:
        return None
    return _explain(int(status.Status))


def _explain(status: int) -> str:
    """Return the meaning of a failure, empty for success and for warnings, with which the object is stored."""
    if status in (0x0000, 0x0001) or 0xB000 <= status <= 0xBFFF:
        return ""
    ranged = (text for low, high, text in _RANGES if low <= status <= high)
    meaning = _MEANINGS.get(status) or next(ranged, "refused")
    return f"{meaning} (status 0x{status:04X})"
