"""What is to be written of one prediction, and the facts that all its objects share."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
from highdicom import UID, AlgorithmIdentificationSequence
from highdicom.sr import CodedConcept
from pydicom.sr.coding import Code

from softcam.errors import DicomError
from softcam.imaging import Geometry
from softcam.interop.dicom.runs import RunKey
from softcam.interop.dicom.settings import (
    MANUFACTURER,
    PRODUCT,
    PROGRAM,
    ModelIdentity,
    ObjectSettings,
    one_line,
)
from softcam.interop.dicom.source import SourceFrame
from softcam.nn import Regions
from softcam.predict import Prediction

SCHEME = "99SOFTCAM"
LOGIT = Code("{logit}", "UCUM", "logit")
"""The unit: UCUM takes a word in braces for a named pure number."""
LOGIT_PER_CELL = Code("{logit}", "UCUM", "logit per cell")

_SERIES = {
    "map": (9101, "SoftCAM evidence map"),
    "segmentation": (9102, "SoftCAM evidence segmentation"),
    "report": (9103, "SoftCAM prediction report"),
    "capture": (9104, "SoftCAM evidence overlay"),
}


@dataclass(frozen=True, eq=False)
class Order:
    """One prediction, its source, and how it is to be written.

    Args:
        prediction: With status `ok`, about the source.
        source: The frame that was predicted.
        model: Who predicted.
        settings: What to write.
        key: Of the run; equal sources get equal series in it.

    Raises:
        DicomError: If the prediction failed or is about an image of another size.
    """

    prediction: Prediction
    source: SourceFrame
    model: ModelIdentity
    settings: ObjectSettings
    key: RunKey

    def __post_init__(self) -> None:
        geometry = self.prediction.geometry
        if geometry is None:
            raise DicomError("Expected a prediction with status 'ok', but got a failed one. Look at its `reason`.")
        predicted = (geometry.original_height, geometry.original_width)
        if predicted != self.source.size:
            raise DicomError(
                f"Expected the prediction to be about the source of {self.source.size} pixels, but it is about one of "
                f"{predicted}."
            )

    @cached_property
    def geometry(self) -> Geometry:
        """From the network's input to the source's pixels."""
        if self.prediction.geometry is None:
            raise DicomError("Expected a prediction with status 'ok', but got a failed one. Look at its `reason`.")
        return self.prediction.geometry

    @cached_property
    def margin(self) -> npt.NDArray[np.float32]:
        """The evidence (h, w) that is segmented, reported and overlaid."""
        return self.prediction.margin()

    @cached_property
    def regions(self) -> Regions:
        """All regions of that evidence."""
        return self.prediction.regions(share=self.settings.threshold)

    @property
    def threshold(self) -> float:
        """Logits per cell from which cells are segmented: a share of the strongest evidence of this image."""
        return self.regions.threshold if math.isfinite(self.regions.threshold) else 1.0

    @property
    def shown(self) -> str:
        """Name of the class that is explained."""
        return self.prediction.classes[self.prediction.contrast[0]]

    @property
    def question(self) -> str:
        """What the evidence is for: the predicted class, against its strongest rival where classes are exclusive."""
        rival = self.prediction.contrast[1]
        return self.shown if rival is None else f"{self.shown} against {self.prediction.classes[rival]}"

    @property
    def threshold_text(self) -> str:
        """The threshold in words."""
        share = f"{100 * self.settings.threshold:g} % of the strongest evidence of this image"
        return f"at least {self.threshold:.6g} logits per cell, {share}"

    @property
    def equipment(self) -> dict[str, Any]:
        """Who made the object, as highdicom takes it."""
        return {
            "manufacturer": MANUFACTURER,
            "manufacturer_model_name": PRODUCT,
            "software_versions": PROGRAM,
            "device_serial_number": self.model.fingerprint,
        }

    @property
    def algorithm(self) -> AlgorithmIdentificationSequence:
        """The model by name, version and fingerprint."""
        return AlgorithmIdentificationSequence(
            name=self.model.title,
            family=Code("123110", "DCM", "Artificial Intelligence"),
            version=self.model.fingerprint,
            source=PROGRAM,
            parameters={"fingerprint": self.model.fingerprint, "threshold": f"{self.threshold:.9g}"},
        )

    def place(self, kind: str) -> dict[str, Any]:
        """Return series and instance of one of the kinds, as highdicom takes them.

        The series is the same for all frames of a source series in a run. The instance is always new, since whatever
        is written again is not the same object.
        """
        header = self.source.header
        number, description = _SERIES[kind]
        instance = self.source.frame or int(header.get("InstanceNumber") or 1)
        return {
            "series_instance_uid": self.key.derive_uid("series", kind, str(header.SeriesInstanceUID)),
            "series_number": number,
            "sop_instance_uid": UID(),
            "instance_number": max(1, instance),
            "series_description": description,
        }

    def code_class(self, index: int) -> CodedConcept:
        """Return the code of a class, which has a meaning only with this model."""
        return CodedConcept(f"class-{index + 1}", SCHEME, one_line(self.prediction.classes[index]))
