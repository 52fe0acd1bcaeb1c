"""The prediction and the regions that it is the sum of, as a Structured Report (TID 1500)."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import torch
from highdicom import UID
from highdicom.coding_schemes import CodingSchemeIdentificationItem
from highdicom.sr import (
    AlgorithmIdentification,
    CodedConcept,
    ComprehensiveSR,
    DeviceObserverIdentifyingAttributes,
    GraphicTypeValues,
    ImageRegion,
    Measurement,
    MeasurementReport,
    MeasurementsAndQualitativeEvaluations,
    ObservationContext,
    ObserverContext,
    PlanarROIMeasurementsAndQualitativeEvaluations,
    QualitativeEvaluation,
    SourceImageForMeasurementGroup,
    SourceImageForRegion,
    TrackingIdentifier,
)
from pydicom import Dataset
from pydicom.sr.coding import Code

from softcam.interop.dicom.order import LOGIT, SCHEME, Order
from softcam.interop.dicom.outline import trace_outline
from softcam.interop.dicom.settings import MANUFACTURER, PRODUCT, one_line
from softcam.nn import Region

ONE = Code("1", "UCUM", "no units")
DEVICE = CodedConcept("121007", "DCM", "Device")
PROCEDURE = Code("363679005", "SCT", "Imaging procedure")

PREDICTED = Code("predicted", SCHEME, "Predicted class")
PROBABILITY = Code("122157", "DCM", "Probability")
CLASS_LOGIT = Code("logit", SCHEME, "Logit of the class")
MARGIN = Code("margin", SCHEME, "Logit of the class minus that of its strongest rival")
TO_LOGIT = Code("to-logit", SCHEME, "Contribution to the logit of the class")
TO_MARGIN = Code("to-margin", SCHEME, "Contribution to the logit over the rival")
CELLS = Code("cells", SCHEME, "Cells of the evidence map")
SUPPORTS = Code("supports", SCHEME, "Evidence for the class")
OPPOSES = Code("opposes", SCHEME, "Evidence against the class")
REMAINDER = Code("remainder", SCHEME, "Evidence outside the listed regions")


def make_report(order: Order) -> Dataset:
    """Return the report: what was predicted, each class's probability and logit, and what each region adds.

    The contributions of the regions and of the remainder add up to the logit, and to the logit's lead over the rival.
    Regions are outlined on the pixels of the source.
    """
    content = MeasurementReport(
        observation_context=ObservationContext(observer_device_context=_observe(order)),
        procedure_reported=PROCEDURE,
        imaging_measurements=[_sum_up(order), *_list_classes(order), *_list_regions(order)],
    )
    return ComprehensiveSR(
        evidence=[order.source.header],
        content=content[0],
        is_complete=True,
        is_final=False,
        coding_schemes=[
            CodingSchemeIdentificationItem(
                SCHEME, name="Concepts and classes of softcam", responsible_organization=MANUFACTURER
            )
        ],
        **order.equipment,
        **order.place("report"),
    )


def _observe(order: Order) -> ObserverContext:
    # The same model is the same device, wherever it runs.
    number = int(order.model.fingerprint[:32], 16) & ~(0xF << 76) & ~(0x3 << 62) | (0x8 << 76) | (0x2 << 62)
    return ObserverContext(
        observer_type=DEVICE,
        observer_identifying_attributes=DeviceObserverIdentifyingAttributes(
            uid=f"2.25.{number}",
            name=order.model.title,
            manufacturer_name=MANUFACTURER,
            model_name=PRODUCT,
            serial_number=order.model.fingerprint,
        ),
    )


def _identify(order: Order) -> AlgorithmIdentification:
    return AlgorithmIdentification(
        name=order.model.title,
        version=order.model.fingerprint,
        parameters=[f"fingerprint={order.model.fingerprint}", f"regions: {order.threshold_text}"],
        manufacturer=MANUFACTURER,
    )


def _source_image(order: Order) -> SourceImageForMeasurementGroup:
    header = order.source.header
    return SourceImageForMeasurementGroup(header.SOPClassUID, header.SOPInstanceUID)


def _sum_up(order: Order) -> MeasurementsAndQualitativeEvaluations:
    """Return what was predicted: classes, their logit, and its lead over the rival."""
    prediction = order.prediction
    shown, rival = prediction.contrast
    chosen = [] if prediction.predicted is None else prediction.predicted.split(";")
    if not prediction.multi_label:
        chosen = [order.shown]
    measurements = [_measure(CLASS_LOGIT, prediction.logits[shown])]
    if rival is not None:
        lead = float(prediction.logits[shown]) - float(prediction.logits[rival])
        measurements.append(_measure(MARGIN, lead))
    return MeasurementsAndQualitativeEvaluations(
        tracking_identifier=_track("prediction"),
        algorithm_id=_identify(order),
        finding_type=order.code_class(shown),
        measurements=measurements,
        qualitative_evaluations=[
            QualitativeEvaluation(PREDICTED, order.code_class(prediction.classes.index(name)))
            for name in chosen
            if name in prediction.classes
        ],
        source_images=[_source_image(order)],
    )


def _list_classes(order: Order) -> Iterator[MeasurementsAndQualitativeEvaluations]:
    prediction = order.prediction
    for index in np.argsort(-prediction.logits, kind="stable")[: order.settings.max_classes].tolist():
        yield MeasurementsAndQualitativeEvaluations(
            tracking_identifier=_track(f"class {index + 1}"),
            finding_type=order.code_class(index),
            measurements=[
                _measure(PROBABILITY, prediction.probabilities[index], ONE),
                _measure(CLASS_LOGIT, prediction.logits[index]),
            ],
            source_images=[_source_image(order)],
        )


def _list_regions(
    order: Order,
) -> Iterator[PlanarROIMeasurementsAndQualitativeEvaluations | MeasurementsAndQualitativeEvaluations]:
    regions = order.prediction.regions(share=order.settings.threshold, at_most=order.settings.max_regions)
    for number, region in enumerate(regions, start=1):
        yield PlanarROIMeasurementsAndQualitativeEvaluations(
            tracking_identifier=_track(f"region {number}"),
            referenced_region=_outline(order, region),
            finding_type=SUPPORTS if region.supports else OPPOSES,
            measurements=_contributions(order, region.cells, region.contribution),
        )
    yield MeasurementsAndQualitativeEvaluations(
        tracking_identifier=_track("remainder"),
        finding_type=REMAINDER,
        measurements=_contributions(order, regions.rest, regions.remainder),
        source_images=[_source_image(order)],
    )


def _contributions(order: Order, cells: npt.NDArray[np.bool_], contribution: float) -> list[Measurement]:
    shown, rival = order.prediction.contrast
    found = [_measure(TO_LOGIT, order.prediction.evidence().contribution(torch.from_numpy(cells), shown).item())]
    if rival is not None:
        found.append(_measure(TO_MARGIN, contribution))
    return [*found, _measure(CELLS, int(cells.sum()), ONE)]


def _outline(order: Order, region: Region) -> ImageRegion:
    rows, columns = order.prediction.placement.find_edges(region.cells.shape)
    header = order.source.header
    outline: npt.NDArray[np.float64] = np.array([(columns[x], rows[y]) for x, y in trace_outline(region.cells)])
    return ImageRegion(
        graphic_type=GraphicTypeValues.POLYLINE,
        graphic_data=outline,
        source_image=SourceImageForRegion(header.SOPClassUID, header.SOPInstanceUID),
    )


def _measure(name: Code, value: float, unit: Code = LOGIT) -> Measurement:
    number = float(value)
    if not math.isfinite(number):
        raise ValueError(f"Expected {name.meaning} to be finite, but got {number}.")
    return Measurement(name=CodedConcept.from_code(name), value=number, unit=unit)


def _track(name: str) -> TrackingIdentifier:
    return TrackingIdentifier(uid=UID(), identifier=one_line(f"{PRODUCT} {name}"))
