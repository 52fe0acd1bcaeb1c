"""What the model of a fold says of the images that it left out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from softcam.bundle import load, load_black_box, read_config
from softcam.data import ImageDataset, Manifest
from softcam.imaging import Preprocessing
from softcam.metrics import Interval, classification_report
from softcam.runs import as_text
from softcam.training.run import TrainingRun
from softcam.training.scoring import score_images

TOGETHER = ("auroc", "average_precision", "brier", "ece")
"""What is measured of all folds together: numbers that need no threshold, of which each fold has its own."""


@dataclass(frozen=True, eq=False)
class HeldOut:
    """The predictions of a fold's model for the images that it left out.

    Args:
        number: Of the fold, from 1.
        manifest: The images.
        probabilities: (N, K).
        metrics: By name, at the threshold that the fold chose on its validation images; NaN where undefined.
    """

    number: int
    manifest: Manifest
    probabilities: NDArray[np.float64]
    metrics: Mapping[str, float]

    def table(self) -> pd.DataFrame:
        """Return one row per image: `image,fold,label,prob_<class>…`, or a column of 0 and 1 for each label."""
        names, table = self.manifest.classes, self.manifest.table
        labels = ["label"] if self.manifest.task == "multiclass" else list(names)
        columns = {"image": table["image"].map(as_text), "fold": self.number, **{name: table[name] for name in labels}}
        scores = {f"prob_{name}": self.probabilities[:, index] for index, name in enumerate(names)}
        return pd.DataFrame({**columns, **scores})


def predict_held_out(run: TrainingRun, manifest: Manifest, number: int, *, batch_size: int) -> HeldOut:
    """Return what a finished run says of images, and how right it is.

    Args:
        run: The fold's training.
        manifest: The images that it left out.
        number: Of the fold, from 1.
        batch_size: Images in one pass.
    """
    config = read_config(run.model_path)
    model = (load if config.kind == "softcam" else load_black_box)(run.model_path)
    dataset = ImageDataset(manifest, Preprocessing.from_dict(dict(config.preprocessing or {})))
    scores, _ = score_images(model, dataset, batch_size=batch_size, multi_label=manifest.task == "multilabel")
    probabilities = scores.double().numpy()
    # One resample: only the values are wanted here.
    report = classification_report(probabilities, manifest.targets, threshold=config.threshold, resamples=1)
    return HeldOut(number, manifest, probabilities, {name: found.value for name, found in report.items()})


def measure_together(held: Sequence[HeldOut]) -> dict[str, Interval]:
    """Return metrics of the predictions of all folds, with 95 % intervals over patients.

    Args:
        held: One per fold.
    """
    report = classification_report(
        np.concatenate([one.probabilities for one in held]),
        np.concatenate([one.manifest.targets for one in held]),
        groups=np.concatenate([name_units(one.manifest) for one in held]),
    )
    return {name: report[name] for name in TOGETHER}


def name_units(manifest: Manifest) -> NDArray[np.object_]:
    """Return the patient of each image, (N,); an image without one stands for itself."""
    images = ("image " + manifest.table["image"].astype(str)).to_numpy(dtype=object)
    patients = manifest.patients
    return images if patients is None else np.where(patients == "", images, "patient " + patients)
