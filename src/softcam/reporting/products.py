"""What an explanation writes for each image."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from softcam.predict import Outcome
from softcam.records import Signer
from softcam.reporting.inputs import Entry
from softcam.reporting.regions import RegionSettings


@dataclass(frozen=True)
class Further:
    """Files that another part of the program writes for each image.

    Args:
        name: What they are called in `run.json`.
        arguments: What decides them, as JSON gives it back; a run continues only with the same.
        write: Called with the image and what was predicted for it, in worker threads.
    """

    name: str
    arguments: dict[str, Any]
    write: Callable[[Entry, Outcome], None]


@dataclass(frozen=True)
class Products:
    """What is written for each image.

    Args:
        overlays: Whether to write `overlays/<id>.png`: the upright image under the evidence for the predicted class
            against its strongest rival (independent classes: for the highest logit), where the network looked.
        arrays: Whether to write `evidence/<id>.npz`: `maps` (K, h, w) float32 in logit units, `logits` (K,),
            `classes`, `geometry` as JSON, and where the file has it `spacing` of the original's pixels in millimetres,
            between rows and between columns.
        limit: Logits per cell that get the full colour, the same for all overlays; default: chosen from the first
            batch and noted in `run.json`.
        further: What else is written, e.g. DICOM objects.
        signer: Signs `records.jsonl`, which says of every image what was predicted and can be checked later; None for
            no records.
        regions: Which regions `regions.csv` and `boxes.csv` list; None for neither.

    Raises:
        ValueError: If `limit` is not positive and finite.
    """

    overlays: bool = True
    arrays: bool = True
    limit: float | None = None
    further: Further | None = None
    signer: Signer | None = None
    regions: RegionSettings | None = None

    def __post_init__(self) -> None:
        if self.limit is not None and not 0 < self.limit < math.inf:
            raise ValueError(
                f"Expected `limit` to be positive and finite, but got {self.limit}. Leave it out to have one chosen."
            )

    @property
    def arguments(self) -> dict[str, Any]:
        """All that decides them, as JSON gives it back."""
        own: dict[str, Any] = {"overlays": self.overlays, "arrays": self.arrays, "limit": self.limit}
        if self.further is not None:
            own[self.further.name] = self.further.arguments
        if self.regions is not None:
            own["regions"] = self.regions.arguments
        return own if self.signer is None else {**own, "records": self.signer.name}


EVERYTHING = Products()
