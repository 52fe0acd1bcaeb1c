"""De-identified copies of DICOM files, under names that say nothing of the old ones."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pydicom
from pydicom import Dataset

from softcam.errors import DicomError
from softcam.files import atomic_path
from softcam.imaging.dicom.silence import silenced
from softcam.interop.dicom.files import Found, list_dicom_files, require_files
from softcam.interop.dicom.privacy import Deidentifier
from softcam.interop.dicom.runs import KEY_NAME, open_run_key
from softcam.interop.dicom.source import HEADER_ERRORS

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Deidentified:
    """What became of one file.

    Args:
        source: The file that was read.
        path: The copy; None if there is none.
        problem: Why there is none; empty if there is one.
        may_show_text: Whether the pixels may show text: the header says so, or does not say that they do not.
    """

    source: Path
    path: Path | None = None
    problem: str = ""
    may_show_text: bool = False


def deidentify_files(
    paths: Iterable[str | Path], out: str | Path, *, progress: Progress | None = None
) -> Iterator[Deidentified]:
    """Write copies as `<series>/<instance>.dcm`, both new identifiers, with the basic profile of PS3.15 applied.

    References between the files are kept. Pixels stay as they are. A file that cannot be cleaned is reported, and the
    rest goes on. A call that was ended continues when it is repeated; a finished one begins anew in a new folder,
    since its key is gone.

    Args:
        paths: Files and folders; see `list_dicom_files`.
        out: Folder of the copies; new, empty, or of the same unfinished run.
        progress: Called with a stage, the number of files done and their total.

    Yields:
        What became of each file, in order.

    Raises:
        DicomError: If there is no DICOM file, or `out` holds something else.
    """
    folder = Path(out)
    if folder.exists() and any(folder.iterdir()) and not (folder / KEY_NAME).exists():
        raise DicomError(f"Expected {folder} to be new or to hold this unfinished run, but it holds something else.")
    found = require_files(list(list_dicom_files(paths)))
    with open_run_key(folder) as key:
        clean = Deidentifier(key)
        for done, file in enumerate(found, start=1):
            yield _copy(file, folder, clean)
            if progress is not None:
                progress("de-identify", done, len(found))


def _copy(file: Found, folder: Path, clean: Deidentifier) -> Deidentified:
    if file.problem:
        return Deidentified(file.path, problem=file.problem)
    try:
        with silenced():
            dataset = pydicom.dcmread(file.path, force=True)
            may_show_text = _may_show_text(dataset)
            clean(dataset)
            path = folder / str(dataset.SeriesInstanceUID) / f"{dataset.SOPInstanceUID}.dcm"
            if not path.exists():
                with atomic_path(path) as temporary:
                    dataset.save_as(temporary, enforce_file_format=True)
    except DicomError as error:
        return Deidentified(file.path, problem=str(error))
    except OSError as error:
        return Deidentified(file.path, problem=f"cannot be written: {(error.strerror or 'unknown').lower()}")
    except HEADER_ERRORS:
        # The message may quote the header.
        return Deidentified(file.path, problem="damaged, or not a DICOM object as the standard has it")
    return Deidentified(file.path, path, may_show_text=may_show_text)


def _may_show_text(dataset: Dataset) -> bool:
    return "PixelData" in dataset and dataset.get("BurnedInAnnotation") != "NO"
