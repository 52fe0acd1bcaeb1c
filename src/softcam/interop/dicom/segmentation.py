"""Where the evidence for the predicted class is strong, as a binary Segmentation."""

from __future__ import annotations

import numpy as np
from highdicom.seg import SegmentAlgorithmTypeValues, Segmentation, SegmentationTypeValues, SegmentDescription
from pydicom import Dataset
from pydicom.sr.coding import Code

from softcam.interop.dicom.evidence_map import CLASS_ACTIVATION
from softcam.interop.dicom.order import Order
from softcam.interop.dicom.settings import one_line

CATEGORY = Code("309825002", "SCT", "Spatial and Relational Concept")


def make_segmentation(order: Order) -> Dataset:
    """Return the Segmentation of one segment: cells with at least the threshold's evidence for the predicted class.

    Its description states the threshold. Where no cell reaches it, the segment is there and empty.
    """
    mask = order.prediction.placement.spread(order.regions.support, outside=False)
    segment = SegmentDescription(
        segment_number=1,
        segment_label=one_line(f"Evidence for {order.shown}"),
        segmented_property_category=CATEGORY,
        segmented_property_type=CLASS_ACTIVATION,
        algorithm_type=SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=order.algorithm,
    )
    segment.SegmentDescription = f"Evidence for {order.question}, {order.threshold_text}"[:1024]
    return Segmentation(
        source_images=[order.source.header],
        pixel_array=mask.astype(np.uint8),
        segmentation_type=SegmentationTypeValues.BINARY,
        segment_descriptions=[segment],
        content_label="EVIDENCE",
        content_description=one_line(f"Evidence of at least {order.threshold:.4g} logits per cell"),
        **order.equipment,
        **order.place("segmentation"),
    )
