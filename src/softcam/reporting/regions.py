"""The regions that predictions are the sum of, as tables: one row per region, and one row of boxes per image."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from softcam.files import atomic_path
from softcam.nn import Region, Regions
from softcam.nn.regions import check_limits
from softcam.predict import Prediction
from softcam.runs import as_text

REGIONS, BOXES = "regions.csv", "boxes.csv"

REST = "rest"
"""What stands for the number of a region in the row of all other cells."""

_HEADER = [
    "image", "region", "class", "against", "contribution", "cells", "x", "y", "width", "height", "pixels", "mm2",
    "peak", "peak_x", "peak_y",
]  # fmt: skip


@dataclass(frozen=True)
class RegionSettings:
    """Which regions are written of each image.

    Args:
        share: As in `Evidence.regions`.
        threshold: Likewise.
        at_most: Likewise.
        boxes: Whether the overlays show their boxes.

    Raises:
        ValueError: If a value is out of range, or both thresholds are given.
    """

    share: float | None = None
    threshold: float | None = None
    at_most: int | None = 20
    boxes: bool = False

    def __post_init__(self) -> None:
        check_limits(self.share, self.threshold, self.at_most)

    @property
    def arguments(self) -> dict[str, Any]:
        """All that decides them, as JSON gives it back."""
        return asdict(self)

    def find(self, prediction: Prediction) -> Regions:
        """Return the regions of a prediction with status `ok`."""
        return prediction.regions(share=self.share, threshold=self.threshold, at_most=self.at_most)


def describe_regions(prediction: Prediction, settings: RegionSettings) -> dict[str, Any]:
    """Return what the tables say of a prediction, in JSON values.

    Args:
        prediction: With status `ok`.
        settings: Which regions.
    """
    regions = settings.find(prediction)
    shown, rival = prediction.contrast
    rows = [[number, *_describe(region)] for number, region in enumerate(regions, start=1)]
    rest = [REST, regions.remainder, int(regions.rest.sum()), *[None] * 9]
    boxes = [list(region.box) for region in regions if region.supports and region.pixels > 0]
    against = "" if rival is None else prediction.classes[rival]
    return {"class": prediction.classes[shown], "against": against, "rows": [*rows, rest], "boxes": boxes}


def write_regions(out: Path, described: Iterable[tuple[str, dict[str, Any]]]) -> None:
    """Write `regions.csv` and `boxes.csv`, row by row.

    In the first the contributions of an image add up to the logit of its class, or to its lead over the other one. The
    second is a manifest of the boxes that speak for the class, with the class as label.

    Args:
        out: Their folder.
        described: Names of images in the order of the inputs, with what `describe_regions` returned.
    """
    with (
        atomic_path(out / REGIONS) as table,
        atomic_path(out / BOXES) as manifest,
        table.open("w", encoding="utf-8", newline="") as all_regions,
        manifest.open("w", encoding="utf-8", newline="") as all_boxes,
    ):
        writer, boxes = (csv.writer(stream, lineterminator="\n") for stream in (all_regions, all_boxes))
        writer.writerow(_HEADER)
        boxes.writerow(["image", "label", "boxes"])
        for name, found in described:
            texts = as_text(found["class"]), as_text(found["against"])
            for number, *values in found["rows"]:
                cells = ["" if value is None else repr(value) for value in values]
                writer.writerow([as_text(name), number, *texts, *cells])
            boxes.writerow([as_text(name), texts[0], json.dumps(found["boxes"])])


def _describe(region: Region) -> list[float | int | None]:
    return [
        region.contribution, int(region.cells.sum()), *region.box, region.pixels, region.millimetres,
        region.peak_value, *region.peak_point,
    ]  # fmt: skip
