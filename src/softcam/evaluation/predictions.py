"""One forward pass of both models over the test set, kept as a few numbers per image."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from softcam.data.manifest import Manifest
from softcam.errors import RunError
from softcam.evaluation.entries import SOFTCAM
from softcam.evaluation.images import Failure, ImageBatch, read_batches
from softcam.evaluation.labels import Floats, Indices, decide_labels, write_labels
from softcam.evaluation.models import Contestants
from softcam.metrics import negative_share, positive_share
from softcam.nn import Evidence

Progress = Callable[[str, int, int], None]
"""Called with a stage, the steps that are done and the steps in all."""


@dataclass(frozen=True, eq=False)
class Predictions:
    """What the models said about every image that could be read; all arrays have one row per image.

    Args:
        rows: (N,) positions in the manifest.
        targets: (N,) true class indices, or (N, K) of 0 and 1 where classes are independent.
        probabilities: (N, K) of the SoftCAM, calibrated where its bundle says how.
        black_box: (N, K) of its twin; None where there is none.
        sum_error: (N,) relative difference between the logits and the means of the maps.
        shares: (N, 4) share of cells above 0 and below 0 in the disease map, and the same in the margin map; where
            classes are independent, above 0 in the maps of the image's labels and below 0 in those of the others.
        patients: (N,) names; None where the manifest has none.
        failures: Files that are no usable images.
        others: What further SoftCAM models said about the same images, beside the same black box, by name.
        sets: (N, K) which classes are in the prediction set of each image; None where the SoftCAM has none.
    """

    rows: Indices
    targets: Indices
    probabilities: Floats
    black_box: Floats | None
    sum_error: Floats
    shares: Floats
    patients: NDArray[np.object_] | None
    failures: tuple[Failure, ...]
    others: Mapping[str, Predictions] = field(default_factory=dict)
    sets: NDArray[np.bool_] | None = None

    def __len__(self) -> int:
        return len(self.rows)


@dataclass(frozen=True, eq=False)
class _Part:
    """The numbers of one batch."""

    rows: Indices
    probabilities: Floats
    black_box: Floats | None
    sum_error: Floats
    shares: Floats
    sets: NDArray[np.bool_] | None


def predict_images(
    models: Contestants, manifest: Manifest, *, batch_size: int, tolerance: float, progress: Progress | None = None
) -> Predictions:
    """Run all models once over every image, which is read once.

    Args:
        models: The models.
        manifest: The images.
        batch_size: Images in one forward pass.
        tolerance: Largest relative difference between logits and mean maps.
        progress: Told after each batch, with stage "predict".

    Raises:
        IdentityError: If the maps of any image do not average to its logits, or hold NaN.
        RunError: If no image could be read, or if the black box gives NaN.
    """
    askers = {SOFTCAM: models, **{name: models.instead(name) for name in models.others}}
    parts: dict[str, list[_Part]] = {name: [] for name in askers}
    failures: list[Failure] = []
    targets, patients = manifest.targets.astype(np.int64), manifest.patients
    for batch in read_batches(manifest, range(len(manifest)), models.preprocessing, batch_size=batch_size):
        failures += batch.failures
        for name, asker in askers.items() if len(batch.rows) else ():
            parts[name].append(_predict_batch(asker, batch, targets[batch.rows], tolerance))
        if progress is not None:
            progress("predict", sum(len(part.rows) for part in parts[SOFTCAM]) + len(failures), len(manifest))
    if not parts[SOFTCAM]:
        raise RunError(f"Expected at least one usable image, but none of {len(manifest)} could be read.")
    found = {name: _join(several, targets, patients, tuple(failures)) for name, several in parts.items()}
    own = found.pop(SOFTCAM)
    return replace(own, others={name: replace(other, black_box=own.black_box) for name, other in found.items()})


def tabulate_predictions(predictions: Predictions, models: Contestants, manifest: Manifest) -> pd.DataFrame:
    """Return one row per image that was read, in the order of the manifest.

    Args:
        predictions: Of all images.
        models: Their classes and thresholds.
        manifest: Where the images' names are.

    Returns:
        `image, label, predicted, prediction_set, prob_<class>…, black_box_prob_<class>…, sum_error`; the black box's
        columns only where there is one, and the sets, joined by `;`, only where the model has some.
    """
    decided = decide_labels(predictions.probabilities, models.thresholds["softcam"])
    columns: dict[str, Sequence[object] | NDArray[np.generic]] = {
        "image": [manifest.cell(int(row), "image") for row in predictions.rows],
        "label": write_labels(predictions.targets, models.classes),
        "predicted": write_labels(decided, models.classes),
    }
    if predictions.sets is not None:
        columns["prediction_set"] = write_labels(predictions.sets.astype(np.int64), models.classes)
    for prefix, values in (("prob_", predictions.probabilities), ("black_box_prob_", predictions.black_box)):
        if values is not None:
            columns |= {f"{prefix}{name}": values[:, index] for index, name in enumerate(models.classes)}
    return pd.DataFrame(columns | {"sum_error": predictions.sum_error})


def _join(
    parts: Sequence[_Part], targets: Indices, patients: NDArray[np.object_] | None, failures: tuple[Failure, ...]
) -> Predictions:
    rows = np.concatenate([part.rows for part in parts])
    twins = [part.black_box for part in parts if part.black_box is not None]
    sets = [part.sets for part in parts if part.sets is not None]
    return Predictions(
        rows=rows,
        targets=targets[rows],
        probabilities=np.concatenate([part.probabilities for part in parts]),
        black_box=np.concatenate(twins) if twins else None,
        sum_error=np.concatenate([part.sum_error for part in parts]),
        shares=np.concatenate([part.shares for part in parts]),
        patients=None if patients is None else patients[rows],
        failures=failures,
        sets=np.concatenate(sets) if sets else None,
    )


def _predict_batch(models: Contestants, batch: ImageBatch, targets: Indices, tolerance: float) -> _Part:
    images = models.to_device(batch.images)
    with torch.no_grad():
        evidence = models.softcam.evidence(images).check(tolerance)
        other = None if models.black_box is None else _probabilities(models, models.black_box(images))
    probabilities, sets = models.uncertainty.measure(evidence)
    return _Part(
        rows=batch.rows,
        probabilities=probabilities,
        black_box=other,
        sum_error=_to_numpy(evidence.sum_error()),
        shares=_sign_shares(evidence, torch.from_numpy(targets)),
        sets=sets,
    )


def _probabilities(models: Contestants, logits: Tensor) -> Floats:
    if not bool(logits.isfinite().all()):
        raise RunError("Expected finite logits from the black box, but got NaN or infinity. Check its weights.")
    return _to_numpy(logits.sigmoid() if models.multi_label else logits.softmax(dim=1))


def _sign_shares(evidence: Evidence, targets: Tensor) -> Floats:
    if targets.ndim == 2:
        return _label_shares(evidence, targets)
    # The disease map: with two classes that of the second, whatever the label; with more that of the image's label.
    disease = torch.ones_like(targets) if evidence.num_classes == 2 else targets
    maps = evidence.map_of(disease)
    margin = evidence.margin(disease, against=evidence.runner_up(disease))
    columns = [positive_share(maps), negative_share(maps), positive_share(margin), negative_share(margin)]
    return _to_numpy(torch.stack(columns, dim=1))


def _label_shares(evidence: Evidence, flags: Tensor) -> Floats:
    # Independent labels have no rival, hence no margin; NaN where an image has no label, or every one.
    maps, flags = evidence.maps.flatten(0, 1), flags.to(evidence.maps)
    above, below = (share(maps).view(flags.shape) for share in (positive_share, negative_share))
    present = (above * flags).sum(1) / flags.sum(1)
    absent = (below * (1 - flags)).sum(1) / (1 - flags).sum(1)
    nothing = torch.full_like(present, torch.nan)
    return _to_numpy(torch.stack([present, absent, nothing, nothing], dim=1))


def _to_numpy(values: Tensor) -> Floats:
    array: Floats = values.detach().double().cpu().numpy()
    return array
