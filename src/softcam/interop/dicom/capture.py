"""The overlay as a Secondary Capture, for viewers that show nothing else."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from highdicom.sc import SCImage
from pydicom import Dataset

from softcam.imaging import DecodedImage, overlay_view, scale_limit
from softcam.interop.dicom.order import Order
from softcam.interop.dicom.settings import one_line


def make_capture(order: Order) -> Dataset:
    """Return an RGB picture, as large as the source, of the source under the evidence for the predicted class.

    Nothing is written into the pixels, so that burned-in text is there if it is in the source.
    """
    limit = order.settings.color_limit or scale_limit(order.margin)
    header = order.source.header
    result = SCImage.from_ref_dataset(
        ref_dataset=header,
        pixel_array=draw(order.source.decode(), order, limit),
        photometric_interpretation="RGB",
        bits_allocated=8,
        coordinate_system="PATIENT",
        # Whatever highdicom would take; the source's own, which may be empty, takes its place.
        patient_orientation=("L", "P"),
        transfer_syntax_uid="1.2.840.10008.1.2.1",
        **order.equipment,
        **order.place("capture"),
    )
    _describe(result, order, limit)
    return result


def draw(image: DecodedImage, order: Order, limit: float) -> npt.NDArray[np.uint8]:
    """Return the source (H, W, 3) with the evidence where the network looked.

    Args:
        image: The source's pixels.
        order: What is written.
        limit: Logits per cell that get the full colour.
    """
    canvas = image.to_rgb8().copy()
    overlay_view(canvas, order.geometry, order.margin, limit)
    return canvas


def _describe(result: Dataset, order: Order, limit: float) -> None:
    """Say what the picture is, what it is of, and what its source says of its pixels."""
    header, source = order.source.header, Dataset()
    source.ReferencedSOPClassUID = order.source.sop_class_uid
    source.ReferencedSOPInstanceUID = order.source.sop_instance_uid
    result.SourceImageSequence = [source]
    result.DerivationDescription = one_line(
        f"Evidence for {order.question} over the source: orange for, blue against, full colour at {limit:.4g} logits "
        f"per cell. {order.model.title}, fingerprint {order.model.fingerprint}. For research.",
        longest=1024,
    )
    for name in ("PixelSpacing", "BurnedInAnnotation", "RecognizableVisualFeatures"):
        if name in header:
            result[name] = header[name]
    if header.get("LossyImageCompression") == "01":
        for name in ("LossyImageCompression", "LossyImageCompressionRatio", "LossyImageCompressionMethod"):
            if name in header:
                result[name] = header[name]
