"""The DICOM objects of a whole run, in one folder, counted; a run that was ended continues."""

from __future__ import annotations

import threading
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from softcam.errors import DicomError, ImageError
from softcam.files import write_atomic
from softcam.imaging.dicom import is_dicom
from softcam.interop.dicom.objects import write_objects
from softcam.interop.dicom.runs import RunKey, forget_run_key, load_run_key
from softcam.interop.dicom.settings import ModelIdentity, ObjectSettings
from softcam.interop.dicom.source import read_source
from softcam.predict import Prediction

FAILURE = "failure.txt"
_HEAD = 132  # bytes that tell a DICOM file


@dataclass(frozen=True)
class WriterSummary:
    """What a run came to, with what an earlier call of it did.

    Args:
        written: Images of which there are objects.
        failures: Why there are none of others that are DICOM, by the name of their folder.
    """

    written: int
    failures: dict[str, str]


class ObjectWriter:
    """Write `<name>/<kind>.dcm` for each prediction of a DICOM image; may be called from several threads.

    Args:
        folder: Where the objects go.
        model: Who predicted.
        settings: What to write.
    """

    def __init__(self, folder: str | Path, model: ModelIdentity, settings: ObjectSettings) -> None:
        self.folder = Path(folder)
        self._model = model
        self._settings = settings
        self._key: RunKey | None = None
        self._lock = threading.Lock()

    @property
    def arguments(self) -> dict[str, Any]:
        """What decides the objects beside model and images, as JSON gives it back."""
        return {**asdict(self._settings), "kinds": list(self._settings.kinds)}

    def write(self, prediction: Prediction, content: bytes, name: str, *, frame: int | None = None) -> None:
        """Write the objects of one prediction; what is no DICOM file gets none.

        If they cannot be written, `<name>/failure.txt` says why.

        Args:
            prediction: With status `ok`.
            content: The bytes of the file that was predicted.
            name: Relative path of the folder for the objects.
            frame: Number of the frame from 1, where there are several.
        """
        if not is_dicom(content[:_HEAD]):
            return
        folder = self.folder / name
        try:
            source = read_source(content, frame=frame)
            key = self._load_key()
            write_objects(prediction, source, folder, model=self._model, settings=self._settings, key=key)
        except (DicomError, ImageError) as error:
            write_atomic(folder / FAILURE, f"{error}\n")

    def finish(self) -> WriterSummary:
        """Forget the key of the run and return what is there.

        Call it when all is written: what is written afterwards begins new series.
        """
        forget_run_key(self.folder)
        failures = {
            path.parent.relative_to(self.folder).as_posix(): path.read_text(encoding="utf-8").strip()
            for path in sorted(self.folder.rglob(FAILURE))
        }
        folders = {path.parent for path in self.folder.rglob("*.dcm") if path.is_file()}
        written = len({folder for folder in folders if not (folder / FAILURE).exists()})
        return WriterSummary(written, failures)

    def _load_key(self) -> RunKey:
        with self._lock:
            if self._key is None:
                self._key = load_run_key(self.folder)
            return self._key
