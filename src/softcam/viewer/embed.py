"""Predictions in a page of their own, for a notebook or a file."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from softcam.files import write_atomic
from softcam.imaging import DecodedImage, decode_image, image_from_array
from softcam.viewer.page import build_page
from softcam.viewer.payload import ImageSource, ModelName, describe, describe_model
from softcam.viewer.preview import make_preview

if TYPE_CHECKING:
    from softcam.predict import Prediction, Predictor

Picture = str | Path | bytes | npt.NDArray[Any] | DecodedImage


@dataclass(frozen=True)
class View:
    """A page that shows predictions; a notebook draws it, `save` writes it.

    Args:
        page: The whole page as HTML, which loads nothing.
        height: Its height in a notebook in pixels.
    """

    page: str
    height: int = 720

    def save(self, path: str | Path) -> Path:
        """Write the page as one file that any browser opens, without a network.

        Args:
            path: Where to; a file that is there is replaced, whole or not at all.

        Returns:
            The path.
        """
        target = Path(path)
        write_atomic(target, self.page)
        return target

    def _repr_html_(self) -> str:
        style = f"width:100%;height:{self.height}px;border:1px solid #8884;border-radius:8px"
        allowed = "allow-scripts allow-downloads allow-modals"
        page = html.escape(self.page, quote=True)
        return f'<iframe title="Evidence" style="{style}" sandbox="{allowed}" srcdoc="{page}"></iframe>'


def view(
    predictions: Prediction | Iterable[Prediction],
    images: Picture | Sequence[Picture] | None = None,
    *,
    predictor: Predictor | None = None,
    name: str = "model",
    height: int = 720,
) -> View:
    """Show predictions with their evidence: regions can be measured, classes compared, evidence removed.

    Args:
        predictions: What a `Predictor` gave, one or several; failed ones are listed with their reasons.
        images: The images they are about, in the same order: paths, bytes, arrays or decoded images, to lie under the
            maps. Without them the maps stand alone.
        predictor: Where the predictions come from; tells how far a cell sees, which the page then draws, and the
            temperature of a calibrated model, which is otherwise found from the probabilities.
        name: What the page calls the model.
        height: Height in a notebook in pixels.

    Returns:
        The page, with everything inside.

    Raises:
        ImageError: If an image cannot be read.
        ValueError: If there are no predictions, or another number of images.
    """
    shown = _list_predictions(predictions)
    pictures = _list_pictures(images, len(shown))
    model = ModelName(name) if predictor is None else ModelName.of(predictor, name)
    records = [
        {"name": prediction.id} | _describe(prediction, picture, model)
        for prediction, picture in zip(shown, pictures, strict=True)
    ]
    models = [] if predictor is None else [describe_model(predictor, name=name)]
    return View(build_page({"models": models, "predictions": records}), height)


def _list_predictions(predictions: Any) -> list[Any]:
    shown = [predictions] if hasattr(predictions, "status") else list(predictions)
    if not shown:
        raise ValueError("Expected `predictions` to hold at least one prediction, but got none.")
    return shown


def _list_pictures(images: Any, count: int) -> list[Picture | None]:
    if images is None:
        return [None] * count
    single = isinstance(images, str | Path | bytes | DecodedImage) or (isinstance(images, np.ndarray) and count == 1)
    pictures: list[Picture | None] = [images] if single and not _is_batch(images) else list(images)
    if len(pictures) != count:
        raise ValueError(f"Expected `images` to hold one for each of {count} predictions, but got {len(pictures)}.")
    return pictures


def _is_batch(images: Any) -> bool:
    return isinstance(images, np.ndarray) and images.ndim == 4


def _describe(prediction: Prediction, picture: Picture | None, model: ModelName) -> dict[str, Any]:
    if picture is None or prediction.status == "failed":
        return describe(prediction, model=model)
    image = _decode(picture)
    source = ImageSource(image.format, frame=image.frame)
    return describe(prediction, model=model, source=source, preview=make_preview(image))


def _decode(picture: Picture) -> DecodedImage:
    if isinstance(picture, DecodedImage):
        return picture
    return image_from_array(picture) if isinstance(picture, np.ndarray) else decode_image(picture)
