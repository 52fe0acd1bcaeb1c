"""The evidence of each class as a Parametric Map: floating-point logits on the pixels of the source."""

from __future__ import annotations

import highdicom as hd
import numpy as np
from highdicom.pm import ParametricMap, RealWorldValueMapping
from pydicom import Dataset
from pydicom.datadict import tag_for_keyword
from pydicom.sr.coding import Code

from softcam.imaging import scale_limit
from softcam.imaging.dicom import SPACINGS
from softcam.interop.dicom.order import LOGIT, Order
from softcam.interop.dicom.settings import one_line

PADDING = float(np.finfo(np.float32).min)
"""Value of pixels that the network did not look at; declared in the object where there are any."""
CLASS_ACTIVATION = Code("130402", "DCM", "Class activation")


def make_map(order: Order) -> Dataset:
    """Return the Parametric Map: one frame per class, by falling logit, each pixel with exactly its cell's evidence.

    The values are those of `Prediction.maps`, bit for bit; their unit is the logit, and the mean over the cells of a
    class is its logit.
    """
    classes = np.argsort(-order.prediction.logits, kind="stable")[: order.settings.max_classes]
    pixels = order.prediction.placement.spread(order.prediction.maps[classes], outside=PADDING)
    result = ParametricMap(
        source_images=[order.source.header if order.source.has_place else _place_anew(order)],
        pixel_array=np.moveaxis(pixels, 0, -1)[None],
        contains_recognizable_visual_features=False,
        real_world_value_mappings=[[_describe(order, int(index))] for index in classes],
        voi_lut_transformations=[_show_up_to(scale_limit(order.margin))],
        content_label="EVIDENCE",
        content_description=one_line(f"Evidence of {len(classes)} classes in logits"),
        content_qualification=hd.ContentQualificationValues.RESEARCH,
        derivation=CLASS_ACTIVATION,
        **order.equipment,
        **order.place("map"),
    )
    _index_by_class(result, [one_line(order.prediction.classes[index]) for index in classes])
    if min(map(np.min, order.prediction.placement.find_cells(order.margin.shape))) < 0:
        result.FloatPixelPaddingValue = result.FloatPixelPaddingRangeLimit = PADDING
    return result


def _show_up_to(limit: float) -> hd.VOILUTTransformation:
    # The plain linear function knows no window below 1, which logits per cell often need.
    exact = hd.VOILUTFunctionValues.LINEAR_EXACT
    return hd.VOILUTTransformation(window_center=0.0, window_width=2 * limit, voi_lut_function=exact)


def _place_anew(order: Order) -> Dataset:
    """Return the header with a place in a frame of reference of its own, in which nothing else lies.

    A Parametric Map must have one. Pixel by pixel it is aligned to its source all the same.
    """
    header = Dataset()
    header.update(order.source.header)
    number = "" if order.source.frame is None else str(order.source.frame)
    header.FrameOfReferenceUID = order.key.derive_uid("frame of reference", order.source.sop_instance_uid, number)
    header.ImagePositionPatient = [0, 0, 0]
    header.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    spacing = next((header[name].value for name in SPACINGS if header.get(name)), [1, 1])
    header.PixelSpacing = list(spacing)
    return header


def _index_by_class(result: Dataset, labels: list[str]) -> None:
    """Make the class the first dimension of the frames; highdicom indexes their place alone, which is the same."""
    dimension = Dataset()
    dimension.DimensionOrganizationUID = result.DimensionOrganizationSequence[0].DimensionOrganizationUID
    dimension.DimensionIndexPointer = tag_for_keyword("FrameLabel")
    dimension.FunctionalGroupPointer = tag_for_keyword("FrameContentSequence")
    dimension.DimensionDescriptionLabel = "Class"
    places = list(result.DimensionIndexSequence)
    result.DimensionIndexSequence = [dimension, *places]
    for number, (group, label) in enumerate(zip(result.PerFrameFunctionalGroupsSequence, labels, strict=True), 1):
        content = group.FrameContentSequence[0]
        content.FrameLabel = label
        content.DimensionIndexValues = [number] + [1] * len(places)


def _describe(order: Order, index: int) -> RealWorldValueMapping:
    name = order.prediction.classes[index]
    bound = float(np.finfo(np.float32).max)
    return RealWorldValueMapping(
        lut_label=one_line(name, longest=16),
        lut_explanation=one_line(f"Evidence for {name}, logits per cell"),
        unit=LOGIT,
        value_range=(-bound, bound),
        slope=1.0,
        intercept=0.0,
        quantity_definition=CLASS_ACTIVATION,
    )
