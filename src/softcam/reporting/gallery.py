"""Cases of the report: each image with its evidence on the one logit scale of all cases, and its peers' maps."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from softcam.evaluation.result import GalleryCase
from softcam.imaging import scale_limit, signed_colors
from softcam.nn import find_regions
from softcam.reporting.wording import MINUS, method_title, number, percent, scientific

_OPACITY = 0.75
_FINEST = 56
_WITHIN = 0.98


@dataclass(frozen=True)
class Layer:
    """A signed map as a small transparent image, one pixel per cell, to be laid over the photograph."""

    title: str
    uri: str
    note: str


@dataclass(frozen=True)
class Cell:
    """One cell of the margin: its place on a 100 x 100 canvas and what it says when pointed at."""

    x: float
    y: float
    width: float
    height: float
    note: str


@dataclass(frozen=True)
class ClassScore:
    """What the model says about one class."""

    name: str
    probability: str
    share: float
    logit: str
    predicted: bool
    true: bool


@dataclass(frozen=True)
class Account:
    """How the evidence for one class against another (for an independent one, alone) adds up, in logit units."""

    target: str
    against: str
    cells: int
    positive: str
    negative: str
    total: str
    equation: str
    error: str
    share_positive: float
    share_negative: float
    negative_sum: bool


@dataclass(frozen=True)
class CaseView:
    """All that the page shows of one case."""

    anchor: str
    image_id: str
    kind: str
    label: str
    predicted: str
    probability: str
    photo: str
    margin: Layer
    cells: tuple[Cell, ...]
    account: Account
    regions: str
    scores: tuple[ClassScore, ...]
    classes: tuple[Layer, ...]
    peers: tuple[Layer, ...]


@dataclass(frozen=True)
class Scale:
    """The colour scale of all evidence overlays: its stops from the left (against) to the right (for) and its ticks."""

    limit: float
    stops: tuple[tuple[float, str], ...]
    ticks: tuple[tuple[float, str], ...]


def shared_scale(cases: Sequence[GalleryCase]) -> Scale:
    """Return the one scale of all margins of all cases, in logit units.

    Args:
        cases: The gallery; without cases the scale reaches from -1 to 1.
    """
    margins = [np.ravel(case.margin) for case in cases]
    # A few peaks beyond the ends leave the rest visible.
    limit = scale_limit(np.concatenate(margins), quantile=_WITHIN) if cases else 1.0
    values = np.linspace(-limit, limit, 33, dtype=np.float32)
    stops = tuple(
        (100 * index / 32, "#{:02x}{:02x}{:02x}".format(*(int(part) for part in color)))
        for index, color in enumerate(signed_colors(values[None], limit)[0])
    )
    ticks = tuple((25.0 * index, number(limit * (index - 2) / 2, 1, signed=True)) for index in range(5))
    return Scale(limit, stops, ticks)


def case_views(cases: Sequence[GalleryCase], scale: Scale) -> tuple[CaseView, ...]:
    """Prepare the cases for the page.

    Args:
        cases: The gallery, in the order in which it is shown.
        scale: The scale of `shared_scale`.
    """
    return tuple(_case_view(case, scale.limit, f"case-{index}") for index, case in enumerate(cases, 1))


def runner_up(case: GalleryCase) -> int | None:
    """Return the index of the class with the highest logit other than the predicted one; None for independent classes.

    Args:
        case: A case of at least two classes; with a single class its own index is returned.
    """
    if case.multi_label:
        return None
    target = case.classes.index(case.predicted)
    others = [index for index in np.argsort(-case.logits, kind="stable") if index != target]
    return int(others[0]) if others else target


def data_uri(pixels: np.ndarray) -> str:
    """Return an image array (h, w), (h, w, 3) or (h, w, 4), uint8, as a PNG in a data URI."""
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode("ascii")


def signed_layer(values: np.ndarray, limit: float) -> np.ndarray:
    """Return a signed map as colours (h, w, 4), uint8, that grow opaque with the distance from zero.

    Args:
        values: Map (h, w) in any unit.
        limit: Value in that unit, positive, from which on colour and opacity no longer change.
    """
    alpha = _OPACITY * np.clip(np.abs(values) / limit, 0.0, 1.0)
    return np.dstack([signed_colors(values, limit), np.rint(255 * alpha).astype(np.uint8)])


def coarsen(values: np.ndarray, finest: int = _FINEST) -> np.ndarray:
    """Average a map down to at most `finest` cells a side; sums per area are kept, the file stays small.

    Args:
        values: Map (h, w).
        finest: Largest number of rows and of columns that is returned.
    """
    for axis in (0, 1):
        size = values.shape[axis]
        if size > finest:
            starts = np.arange(finest) * size // finest
            counts = np.diff([*starts, size])
            shape = (-1, 1) if axis == 0 else (1, -1)
            values = np.add.reduceat(values, starts, axis=axis) / counts.reshape(shape)
    return values


def _case_view(case: GalleryCase, limit: float, anchor: str) -> CaseView:
    target, against = case.classes.index(case.predicted), runner_up(case)
    pixels = case.pixels
    grey = pixels[..., 0] if pixels.ndim == 3 and np.ptp(pixels, axis=-1).max(initial=0) == 0 else pixels
    title = case.predicted if against is None else f"{case.predicted} against {case.classes[against]}"
    return CaseView(
        anchor=anchor,
        image_id=case.image_id,
        kind=case.kind,
        label=case.label,
        predicted=case.predicted,
        probability=percent(float(case.probabilities[target])),
        photo=data_uri(np.ascontiguousarray(grey)),
        margin=Layer(title, data_uri(signed_layer(case.margin, limit)), describe_peak(case.margin)),
        cells=_cells(case.margin),
        account=_account(case, target, against),
        regions=describe_regions(case.margin),
        scores=_scores(case),
        classes=tuple(
            Layer(name, data_uri(signed_layer(evidence, limit)), f"logit {number(logit, 2, signed=True)}")
            for name, evidence, logit in _strongest(case)
        ),
        peers=tuple(_peer_layer(name, values) for name, values in case.peers.items()),
    )


def describe_peak(values: np.ndarray) -> str:
    """Say in words where a map is highest and lowest.

    >>> describe_peak(np.array([[0.0, 2.0], [1.0, 0.0]]))
    'strongest for at row 1, column 2 (+2.00)'
    """
    parts = []
    for word, place in (("for", int(np.argmax(values))), ("against", int(np.argmin(values)))):
        row, column = np.unravel_index(place, values.shape)
        value = float(values[row, column])
        if (value > 0) == (word == "for") and value != 0:
            where = f"row {row + 1}, column {column + 1} ({number(value, 2, signed=True)})"
            parts.append(f"strongest {word} at {where}")
    return "; ".join(parts) or "no evidence either way"


def describe_regions(values: np.ndarray, most: int = 3) -> str:
    """Say in words which connected regions of a map add most to its mean, and what all other cells add.

    >>> describe_regions(np.array([[0.0, 8.0], [1.0, 6.0]]))
    '+3.50 from 2 cells in row 1 to 2, column 2; +0.25 from the rest'
    """
    regions = find_regions(values, at_most=most)
    parts = []
    for region in regions:
        rows, columns = (np.flatnonzero(region.cells.any(axis=axis)) + 1 for axis in (1, 0))
        count = int(region.cells.sum())
        size = f"{count} cell" + "s" * (count > 1)
        place = f"row {_span(rows)}, column {_span(columns)}"
        parts.append(f"{number(region.contribution, 2, signed=True)} from {size} in {place}")
    return "; ".join([*parts, f"{number(regions.remainder, 2, signed=True)} from the rest"])


def _span(places: np.ndarray) -> str:
    return f"{places[0]}" if len(places) == 1 else f"{places[0]} to {places[-1]}"


def _peer_layer(name: str, values: np.ndarray) -> Layer:
    coarse = coarsen(np.asarray(values, dtype=np.float64))
    return Layer(method_title(name), data_uri(signed_layer(coarse, scale_limit(coarse, quantile=_WITHIN))), "own scale")


def _cells(margin: np.ndarray, most: int = 400) -> tuple[Cell, ...]:
    # A finer grid would make the page heavy and its cells too small to be pointed at.
    height, width = margin.shape
    if margin.size > most:
        return ()
    cell = 100 / width, 100 / height
    return tuple(
        Cell(
            round(column * cell[0], 3), round(row * cell[1], 3), round(cell[0], 3), round(cell[1], 3),
            f"row {row + 1}, column {column + 1}: {number(value, 2, signed=True)} logits "
            f"(adds {number(value / margin.size, 3, signed=True)} to the sum)",
        )
        for (row, column), value in np.ndenumerate(margin)
    )  # fmt: skip


def _account(case: GalleryCase, target: int, against: int | None) -> Account:
    share = np.asarray(case.margin, dtype=np.float64) / case.margin.size
    positive, negative, total = (float(part.sum()) for part in (np.maximum(share, 0), np.minimum(share, 0), share))
    a, b = float(case.logits[target]), 0.0 if against is None else float(case.logits[against])
    widest = max(positive, -negative) or 1.0
    subtracted = f"({number(b, 2)})" if b < 0 else number(b, 2)
    return Account(
        target=case.predicted,
        against="" if against is None else case.classes[against],
        cells=int(case.margin.size),
        positive=number(positive, 2, signed=True),
        negative=number(negative, 2, signed=True),
        total=number(total, 2, signed=True),
        equation=number(a, 2, signed=True)
        if against is None
        else f"{number(a, 2)} {MINUS} {subtracted} = {number(a - b, 2, signed=True)}",
        error=scientific(abs(total - (a - b))),
        share_positive=100 * positive / widest,
        share_negative=-100 * negative / widest,
        negative_sum=total < 0,
    )


def _strongest(case: GalleryCase, most: int = 6) -> list[tuple[str, np.ndarray, float]]:
    classes = list(zip(case.classes, case.maps, map(float, case.logits), strict=True))
    return classes if len(classes) <= most else sorted(classes, key=lambda entry: -entry[2])[:most]


def _scores(case: GalleryCase) -> tuple[ClassScore, ...]:
    order = np.argsort(-case.probabilities, kind="stable")[:6]
    return tuple(
        ClassScore(
            name=case.classes[index],
            probability=percent(float(case.probabilities[index])),
            share=100 * float(case.probabilities[index]),
            logit=number(float(case.logits[index]), 2, signed=True),
            predicted=case.classes[index] == case.predicted,
            true=case.classes[index] in (case.label.split(";") if case.multi_label else (case.label,)),
        )
        for index in order
    )
