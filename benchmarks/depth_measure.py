"""What `evidence_depth.py` measures of one model: accuracy, locality, and where its maps and those of others point."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from softcam.attribution import attribute
from softcam.bundle import load_black_box, read_config
from softcam.data import ImageDataset, Manifest
from softcam.evaluation.locality import ask, measure_locality
from softcam.evaluation.localization import measure_localization
from softcam.evaluation.truth import read_findings
from softcam.imaging import Preprocessing
from softcam.metrics import auroc, noninferiority
from softcam.nn import SoftCAM, convert, theoretical_receptive_field

BATCH = 32
LOCATED = 48
"""Images on which locality is measured, evenly spread over those of the second class."""

WINDOWS = (32, 64, 96, 128, 192)
PEERS = ("grad_cam", "grad_cam_plus_plus", "layer_cam", "hires_cam")

Values = dict[str, np.ndarray]


@dataclass(frozen=True, eq=False)
class Bench:
    """The test images of one seed, and the black box that is explained.

    Args:
        manifest: Test images.
        images: (N, C, H, W).
        targets: (N,) class indices.
        located: (M,) rows with findings; where none are known, of the second class.
        truth: (M, H, W) bool, or None.
        black_box: In eval mode.
        scores: Its log-odds (N,) of the second class.
    """

    manifest: Manifest
    images: Tensor
    targets: Tensor
    located: np.ndarray
    truth: Tensor | None
    black_box: nn.Module
    scores: Tensor

    @property
    def patients(self) -> np.ndarray:
        """(N,) names; every image is its own where there are none."""
        names = self.manifest.patients
        return np.arange(len(self.targets)).astype(str) if names is None else names


def create_bench(manifest: Manifest, run: Path) -> Bench:
    """Return the bench of a trained black box.

    Args:
        manifest: Test images.
        run: Folder of its run.
    """
    preprocessing = read_preprocessing(run / "model")
    images = read_images(manifest, range(len(manifest)), preprocessing)
    findings = read_findings(manifest, range(len(manifest)), preprocessing).truth
    located = np.array(sorted(findings)) if findings else np.flatnonzero(manifest.targets == 1)
    truth = torch.stack([findings[row] for row in located]) if findings else None
    black_box = load_black_box(run / "model").to(memory_format=torch.channels_last)
    targets = torch.from_numpy(manifest.targets)
    return Bench(manifest, images, targets, located, truth, black_box, score(black_box, images))


def read_preprocessing(bundle: Path) -> Preprocessing:
    """Return how a bundle's images become inputs."""
    return Preprocessing.from_dict(dict(read_config(bundle).preprocessing or {}))


def read_images(manifest: Manifest, rows: Sequence[int], preprocessing: Preprocessing) -> Tensor:
    """Return images (N, C, H, W), channels last."""
    dataset = ImageDataset(manifest, preprocessing)
    images = torch.stack([dataset[row][0] for row in rows])
    return images.contiguous(memory_format=torch.channels_last)


def score(model: nn.Module, images: Tensor) -> Tensor:
    """Return the log-odds (N,) of the second class."""
    with torch.inference_mode():
        logits = torch.cat([model(images[start : start + BATCH]) for start in range(0, len(images), BATCH)])
    return logits[:, 1] - logits[:, 0]


def measure_model(model: SoftCAM, bench: Bench, *, margin: float) -> tuple[dict[str, Any], Values]:
    """Return what a model is like, and the metrics of its maps, one value per located image.

    Args:
        model: In eval mode, channels last.
        bench: The images.
        margin: Loss of AUROC against the black box that is accepted.
    """
    found = score(model, bench.images)
    test = noninferiority(bench.targets, found, bench.scores, margin=margin, groups=bench.patients)
    some = bench.located[:: -(-len(bench.located) // LOCATED)]
    local = measure_locality(
        ask(model, bench.images[some], bench.targets[some], batch_size=BATCH), windows=WINDOWS, seed=0
    )
    report = model.conversion
    with torch.no_grad():
        error = float(model.evidence(bench.images[:BATCH]).sum_error().max())
    row = {
        "places": list(report.places),
        "map_stride": report.map_stride[0],
        "theoretical_receptive_field": theoretical_receptive_field(model, bench.images[:1])[0],
        "auroc": auroc(found, bench.targets),
        "against": {"difference": test.difference, "low": test.low, "not_inferior": test.passed},
        "receptive_field": float(np.nanmean(local.receptive_field)),
        "context_swap": [float(value) for value in np.nanmean(local.context_swap, axis=0)],
        "near_zero_share": float(np.nanmean(local.near_zero_share)),
        "shares": [float(value) for value in local.shares.mean(0)] if local.shares.shape[1] > 1 else [],
        "sum_error": error,
    }
    if bench.truth is None:
        return row, {}
    images, targets = bench.images[bench.located], bench.targets[bench.located]
    return row, localize(ask(model, images, targets, batch_size=BATCH).all_maps(images), bench.truth)


def measure_peers(bench: Bench, layers: dict[str, str | None]) -> dict[str, Values]:
    """Return the metrics of post-hoc maps of the black box, by method and place, one value per located image.

    Args:
        bench: The images with findings.
        layers: Name of a place -> module that class activation methods look at; None for the last spatial one.
    """
    if bench.truth is None:
        return {}
    images, targets = bench.images[bench.located], bench.targets[bench.located]

    def explain(method: str, layer: str | None) -> Values:
        parts = [
            attribute(method, bench.black_box, images[rows], targets[rows], layer=layer)
            for rows in (slice(start, start + BATCH) for start in range(0, len(images), BATCH))
        ]
        return localize(torch.cat(parts), bench.truth)  # type: ignore[arg-type]

    found = {f"{method} @ {place}": explain(method, layer) for place, layer in layers.items() for method in PEERS}
    return found | {"random": explain("random", None)}


def localize(maps: Tensor, truth: Tensor) -> Values:
    return {name: values.numpy() for name, values in measure_localization(maps.cpu(), truth).items()}


def convert_black_box(bench: Bench) -> SoftCAM:
    """Return the black box as a SoftCAM model, with the same logits."""
    return convert(bench.black_box, images=bench.images[:2]).eval()
