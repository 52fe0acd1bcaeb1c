"""DICOM files on their way to an archive: by C-STORE or by STOW-RS, one result per file."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from softcam.interop.dicom.destination import Destination
from softcam.interop.dicom.files import Found, list_dicom_files, require_files

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Delivery:
    """What became of one file.

    Args:
        path: The file.
        problem: Why it is not in the archive; empty if it is.
    """

    path: Path
    problem: str = ""


def send(
    paths: Iterable[str | Path], destination: Destination, *, progress: Progress | None = None
) -> Iterator[Delivery]:
    """Send DICOM files and say of each whether the archive took it.

    A file that is refused does not stop the rest. After a lost connection one new one is tried for what is left.
    STOW-RS takes its credentials from the variables `SOFTCAM_DICOMWEB_TOKEN`, or `SOFTCAM_DICOMWEB_USER` and
    `SOFTCAM_DICOMWEB_PASSWORD`, else from the user's netrc file.

    Args:
        paths: Files and folders; see `list_dicom_files`.
        destination: Where they go.
        progress: Called with a stage, the number of files done and their total.

    Yields:
        One delivery per file, in order of the outcome.

    Raises:
        DicomError: If there is no DICOM file, or a file of certificates cannot be used.
    """
    found = require_files(list(list_dicom_files(paths)))
    for done, delivery in enumerate(_deliver(found, destination), start=1):
        yield delivery
        if progress is not None:
            progress("send", done, len(found))


def _deliver(found: list[Found], destination: Destination) -> Iterator[Delivery]:
    yield from (Delivery(file.path, file.problem) for file in found if file.problem)
    good = [file.path for file in found if not file.problem]
    if destination.is_web:
        from softcam.interop.dicom.stow import store_by_web  # noqa: PLC0415 - each way has a library of its own

        outcomes = store_by_web(good, destination)
    else:
        from softcam.interop.dicom.store import store_by_association  # noqa: PLC0415 - see above

        outcomes = store_by_association(good, destination)
    yield from (Delivery(path, problem) for path, problem in outcomes)
