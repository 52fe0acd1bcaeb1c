"""One prediction and its source become DICOM objects of the same study, each in a file that is there whole or not."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

from pydicom import DataElement, Dataset

from softcam.errors import DicomError
from softcam.files import atomic_path
from softcam.imaging.dicom.silence import silenced
from softcam.interop.dicom.capture import make_capture
from softcam.interop.dicom.evidence_map import make_map
from softcam.interop.dicom.order import Order
from softcam.interop.dicom.privacy import Deidentifier
from softcam.interop.dicom.report import make_report
from softcam.interop.dicom.runs import RunKey
from softcam.interop.dicom.segmentation import make_segmentation
from softcam.interop.dicom.settings import ModelIdentity, ObjectSettings
from softcam.interop.dicom.source import HEADER_ERRORS, SourceFrame
from softcam.predict import Prediction

DEFAULTS = ObjectSettings()

_MAKERS: dict[str, Callable[[Order], Dataset]] = {
    "map": make_map,
    "segmentation": make_segmentation,
    "report": make_report,
    "capture": make_capture,
}
_PICTURES = ("map", "segmentation", "capture")


def write_objects(
    prediction: Prediction,
    source: SourceFrame,
    folder: str | Path,
    *,
    model: ModelIdentity,
    settings: ObjectSettings = DEFAULTS,
    key: RunKey | None = None,
) -> tuple[Path, ...]:
    """Write a prediction as DICOM objects: `<kind>.dcm` for each kind that is asked for.

    They belong to the source's patient and study, begin new series, refer to the source, name the model with its
    fingerprint as their algorithm, and are for research. What is written again is a new object in the same series.

    Args:
        prediction: With status `ok`.
        source: What was predicted; see `read_source`.
        folder: Where the files go.
        model: Who predicted.
        settings: What to write.
        key: Of the run, so that a source's series stay together; default: a fresh one.

    Returns:
        The files, in the order of `settings.kinds`.

    Raises:
        DicomError: If the prediction failed, is not about the source, or if the source's header cannot be built on.
        ImageError: If the capture needs pixels that cannot be read.
    """
    order = Order(prediction, source, model, settings, key or RunKey())
    paths = []
    for kind in settings.kinds:
        path = Path(folder) / f"{kind}.dcm"
        with silenced(), atomic_path(path) as temporary:
            _make(kind, order).save_as(temporary, enforce_file_format=True)
        paths.append(path)
    return tuple(paths)


def _make(kind: str, order: Order) -> Dataset:
    try:
        made = _MAKERS[kind](order)
    except HEADER_ERRORS:
        raise DicomError(f"Expected a source on which a {kind} can be built, but its header does not fit.") from None
    _complete(kind, made, order.source)
    order.source.refer(made)
    if order.settings.deidentify:
        # highdicom puts elements of the source into what it makes; the source is needed as it is for the next kind.
        made = copy.deepcopy(made)
        Deidentifier(order.key)(made)
    return made


def _complete(kind: str, made: Dataset, source: SourceFrame) -> None:
    """Take over, if only empty, what has to be there where nothing else tells left from right."""
    names = ["PatientOrientation"] if kind == "capture" or (kind in _PICTURES and not source.has_place) else []
    # The standard has the side of the body in this module of an image, but not in that of a segmentation.
    names += ["Laterality"] if kind in ("map", "capture") else []
    for name in names:
        made[name] = source.header[name] if name in source.header else DataElement(name, "CS", None)
