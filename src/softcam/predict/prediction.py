"""One image's prediction, with the evidence that it is the sum of."""

from __future__ import annotations

import base64
import html
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch

from softcam.imaging import Geometry, encode_png, scale_limit, signed_colors
from softcam.nn import Evidence, Placement, Regions
from softcam.predict.members import Members

Array = npt.NDArray[np.float32]

_SIDE = 196  # pixels of a map in a notebook
_SHOWN_CLASSES = 8


def _empty(*shape: int) -> Array:
    return np.zeros(shape, np.float32)


@dataclass(frozen=True, eq=False)
class Prediction:
    """What a model says about one image, or the reason why it could not be asked.

    Args:
        id: The input's path as it was given or its own name, or `input-<position>` where there is none.
        status: `ok` or `failed`; a failed prediction has empty arrays.
        classes: Class names in the order of the arrays.
        reason: Why it failed; empty if it did not.
        predicted: The reported class, see `choose_class`; several labels are joined by `;`. None if failed.
        probabilities: (K,) in [0, 1]; of a calibrated model, those of the logits divided by its temperature.
        logits: (K,), raw.
        maps: (K, h, w) signed evidence in logit units; the spatial mean is `logits`.
        geometry: From the network's input, which the maps tile evenly, to the original image. None if failed.
        sum_error: Measured relative error of "the mean of the maps is the logits"; NaN if failed.
        digest: SHA-256 of the input's bytes; empty if it could not be read.
        spacing: Distance of the original's pixels in millimetres, between rows and between columns, where known.
        multi_label: Whether classes are independent rather than exclusive.
        prediction_set: The classes that fit well enough for the true one to be among them as often as the calibration
            asked for, most probable first; possibly none of them. None if the model has no such sets, or it failed.
        warnings: In what the image differs from those of the training, see `Checks`; a failed prediction has none.
        members: What each member of an ensemble says; None of a single model.
    """

    id: str
    status: Literal["ok", "failed"]
    classes: tuple[str, ...]
    reason: str = ""
    predicted: str | None = None
    probabilities: Array = field(default_factory=lambda: _empty(0))
    logits: Array = field(default_factory=lambda: _empty(0))
    maps: Array = field(default_factory=lambda: _empty(0, 0, 0))
    geometry: Geometry | None = None
    sum_error: float = math.nan
    digest: str = ""
    spacing: tuple[float, float] | None = None
    multi_label: bool = False
    prediction_set: tuple[str, ...] | None = None
    warnings: tuple[str, ...] = ()
    members: Members | None = None

    @property
    def contrast(self) -> tuple[int, int | None]:
        """Indices of the class to explain and of its strongest rival; no rival where classes are independent.

        The reported class; of several labels the most probable one, and of all where none is reported.

        Raises:
            ValueError: If the prediction failed.
        """
        _check_ok(self.status)
        if self.multi_label or len(self.classes) == 1:
            names = (self.predicted or "").split(";")
            reported = [self.classes.index(name) for name in names if name in self.classes]
            return max(reported or range(len(self.classes)), key=lambda index: float(self.logits[index])), None
        shown = self.classes.index(self.predicted) if self.predicted is not None else int(self.logits.argmax())
        rivals = np.where(np.arange(len(self.classes)) == shown, -np.inf, self.logits)
        return shown, int(rivals.argmax())

    def margin(self) -> Array:
        """Return the evidence (h, w) for the predicted class against its rival; it averages to the logit difference.

        Where classes are independent, the map of that class alone, which averages to its logit.

        Raises:
            ValueError: If the prediction failed.
        """
        shown, rival = self.contrast
        difference: Array = self.maps[shown] - (0 if rival is None else self.maps[rival])
        return difference

    def evidence(self) -> Evidence:
        """Return logits and maps as the evidence of a batch of one, in float64.

        Raises:
            ValueError: If the prediction failed.
        """
        _check_ok(self.status)
        logits, maps = (torch.from_numpy(values.astype(np.float64))[None] for values in (self.logits, self.maps))
        return Evidence(logits, maps, self.multi_label)

    @property
    def placement(self) -> Placement:
        """Where the cells of the maps lie in the original image.

        Raises:
            ValueError: If the prediction failed.
        """
        _check_ok(self.status)
        if self.geometry is None:
            return Placement.of(self.maps.shape[1:])
        g = self.geometry
        extent = (g.input_height * g.scale_y, g.input_width * g.scale_x)
        return Placement((g.offset_y, g.offset_x), extent, (g.original_height, g.original_width), self.spacing)

    def regions(
        self, *, share: float | None = None, threshold: float | None = None, at_most: int | None = None
    ) -> Regions:
        """Return the connected regions of the evidence for the predicted class against its rival, as `contrast` says.

        Their boxes are in pixels of the original, their contributions and the rest add up to the mean of `margin`.

        Args:
            share: As in `Evidence.regions`.
            threshold: Likewise.
            at_most: Likewise.

        Raises:
            ValueError: If the prediction failed, or a value is out of range.
        """
        (found,) = self.evidence().regions(
            *self.contrast, share=share, threshold=threshold, at_most=at_most, placement=self.placement
        )
        return found

    def _repr_html_(self) -> str:
        if self.status == "failed":
            return f"<p>{html.escape(self.id)}: failed, {html.escape(self.reason)}</p>"
        order = self.logits.argsort()[::-1][:_SHOWN_CLASSES]
        cells = ((self.classes[k], f"{100 * self.probabilities[k]:.1f} %", f"{self.logits[k]:.3f}") for k in order)
        rows = "".join(f"<tr>{''.join(f'<td>{html.escape(cell)}</td>' for cell in row)}</tr>" for row in cells)
        head = "<tr><th>class</th><th>probability</th><th>logit</th></tr>"
        table = f"<table>{head}{rows}</table>"
        return f'<div style="display:flex;gap:24px;align-items:start">{self._draw()}<div>{table}</div></div>'

    def _draw(self) -> str:
        shown, rival = self.contrast
        margin = self.margin()
        limit = scale_limit(margin, quantile=1.0)
        address = base64.b64encode(encode_png(signed_colors(margin, limit))).decode("ascii")
        name = self.classes[shown] + ("" if rival is None else f" rather than {self.classes[rival]}")
        about = html.escape(f"Evidence for {name}")
        rows, columns = margin.shape
        style = f"width:{_SIDE}px;height:{max(1, round(_SIDE * rows / columns))}px;image-rendering:pixelated"
        picture = f'<img alt="{about}" style="{style}" src="data:image/png;base64,{address}">'
        scale = f"mean {margin.mean(dtype=np.float64):+.3f}, scale &plusmn;{limit:.3g} logits"
        return f'<figure style="margin:0">{picture}<figcaption>{about}<br>{scale}</figcaption></figure>'


def _check_ok(status: str) -> None:
    if status == "failed":
        raise ValueError("Expected a prediction with status 'ok', but got a failed one. Look at `reason`.")


def choose_class(
    probabilities: npt.NDArray[np.floating],
    classes: Sequence[str],
    *,
    thresholds: Mapping[str, float],
    multi_label: bool = False,
) -> str:
    """Return the class to report.

    Independent classes: every one that reaches its threshold (default 0.5), joined by `;`, possibly none. Two exclusive
    classes with a threshold for the second: the second if it reaches it, else the first. Otherwise the most probable.

    Args:
        probabilities: (K,) in [0, 1].
        classes: K names.
        thresholds: Probability from which a class is reported, by name.
        multi_label: Whether classes are independent.

    Example:
        >>> choose_class(np.array([0.7, 0.3]), ["intact", "defect"], thresholds={"defect": 0.25})
        'defect'
    """
    if multi_label:
        pairs = zip(classes, probabilities, strict=True)
        return ";".join(name for name, value in pairs if value >= thresholds.get(name, 0.5))
    threshold = thresholds.get(classes[1]) if len(classes) == 2 else None
    return classes[int(decide(probabilities, threshold))]


def decide(probabilities: npt.NDArray[np.floating], threshold: float | None) -> npt.NDArray[np.int64]:
    """Return which of K exclusive classes is reported.

    Args:
        probabilities: (..., K) in [0, 1].
        threshold: For K = 2, the probability from which the second class is reported; None for the most probable.

    Returns:
        (...) class indices.

    Example:
        >>> decide(np.array([[0.6, 0.4], [0.8, 0.2]]), 0.3).tolist()
        [1, 0]
    """
    if threshold is None:
        return np.asarray(probabilities.argmax(axis=-1), np.int64)
    return np.asarray(probabilities[..., 1] >= threshold, np.int64)
