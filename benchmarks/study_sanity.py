"""Sanity checks of the study: finer maps without new weights, a shortcut to be found, what a fill does by itself."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from depth_measure import read_images, read_preprocessing
from evidence_depth import read
from study_measure import FEW, MARGINS, OWN, POSITIVE
from study_models import Models
from torch import Tensor, nn

from softcam.attribution import attribute
from softcam.bundle import load, load_black_box
from softcam.data import Manifest
from softcam.data.synthesis import SCENES, SynthesisSettings, synthesize
from softcam.data.synthesis.sets import draw_image, is_marked
from softcam.evaluation import EvaluationSettings, evaluate
from softcam.files import write_atomic
from softcam.metrics import FILLS, activation_precision, auroc, bootstrap_interval, deletion_curve, pointing_game
from softcam.metrics.patches import resize_maps

STRIDES = (16, 8)
SHOWN = 48
"""Images on which a check is made."""

STEPS = (5, 10, 20, 30)


def kept(path: Path, make: Callable[[Any], Any], what: Any) -> Any:
    """Return what a JSON file holds, made first of `what` if it is not there."""
    if not path.is_file():
        write_atomic(path, json.dumps(make(what)))
    return read(path)


def measure_resolution(models: Models) -> dict[str, Any]:
    """Return, by map stride, the AUROC and what the maps find of a black box that was converted and not trained."""
    main = models.convert()
    others = {f"stride_{stride}": models.convert(stride) for stride in STRIDES}
    settings = EvaluationSettings(
        methods=("evidence",),
        measures=("localization",),
        explained=SHOWN,
        explained_class="most_probable",
        explained_labels=(POSITIVE[models.data],),
        margin=MARGINS[models.data],
        located=0,
        right=0,
        wrong=0,
    )
    result = evaluate(main, models.seed.manifest, black_box_path=models.black_box, others=others, settings=settings)
    aurocs = {"evidence": result.metrics["classification"]["auroc"]["value"]}
    aurocs |= {
        f"evidence:{name}": result.metrics["others"][name]["classification"]["auroc"]["value"] for name in others
    }
    table = result.benchmark.pivot_table(index="method", columns="metric", values="value")
    return {name: {"auroc": aurocs[name], **{k: float(v) for k, v in table.loc[name].items()}} for name in aurocs}


@dataclass(frozen=True, eq=False)
class Loaded:
    """Models of a seed as modules, with the test or validation images.

    Args:
        networks: SoftCAM models by name, and `black_box`.
        images: (N, C, H, W).
        manifest: Of the images.
    """

    networks: dict[str, nn.Module]
    images: Tensor
    manifest: Manifest


def open_models(models: Models, softcams: dict[str, Path], split: str) -> Loaded:
    """Return models and the images of a split."""
    networks: dict[str, nn.Module] = {"black_box": load_black_box(models.black_box)}
    networks |= {name: load(path) for name, path in softcams.items()}
    for network in networks.values():
        network.eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    manifest = models.seed.manifest.subset(split)
    images = read_images(manifest, range(len(manifest)), read_preprocessing(models.black_box))
    return Loaded(networks, images, manifest)


def ask(network: nn.Module, images: Tensor) -> Tensor:
    """Return probabilities (N, K)."""
    with torch.inference_mode():
        parts = images.contiguous(memory_format=torch.channels_last).split(16)
        return torch.cat([network(part).softmax(1) for part in parts])


def measure_fills(models: Models) -> dict[str, Any]:
    """Return what fills do by themselves: the probability of the second class in validation images of the first.

    By model and fill, with 0, 5, 10, 20 and 30 random patches filled. No map is asked.
    """
    found = open_models(models, models.softcams, "val")
    healthy = np.flatnonzero(found.manifest.targets == 0)[:SHOWN]
    images = found.images[torch.from_numpy(healthy)]
    maps = torch.rand(len(images), 16, 16, generator=torch.Generator().manual_seed(0))
    second = torch.ones(len(images), dtype=torch.long)
    patch = EvaluationSettings().patch_side(images.shape[-1])
    table: dict[str, Any] = {}
    for name, network in found.networks.items():
        table[name] = {}
        for fill in FILLS:
            curve = deletion_curve(
                lambda part, network=network: ask(network, part),  # type: ignore[misc]
                images, maps, second, patch=patch, steps=(0, *STEPS), fill=fill,
            )  # fmt: skip
            table[name][fill] = curve.mean(0).tolist()
    return table


def measure_shortcut(work: Path) -> dict[str, Any]:
    """Train on images in which a mark gives the label away, and see which method shows it where it no longer does.

    Maps are of the lesions' class, on healthy test images with the mark; the mark is where an image differs from
    itself drawn without it. AUROCs are those of validation, where the mark holds, and of testing, where it does not.
    """
    settings = SynthesisSettings(seed=0, shortcut=True)
    manifest = synthesize("lesions", work / "shortcut" / "data", settings)
    models = Models("lesions", work / "shortcut", 0, manifest=manifest)
    layer = models.layers[1]
    chosen = Models("lesions", work, 0).choose(layer)["l1"]
    softcams = {
        "last_stage": models.convert(),
        "stride_8": models.train(layer.arm()),
        "stride_8_sparse": models.train(layer.arm(chosen)),
    }
    found = open_models(models, softcams, "test")
    aurocs = {
        name: {"val": read_validation(models, name, layer, chosen), "test": score(network, found)}
        for name, network in found.networks.items()
    }
    rows, marks = find_marks(found.manifest, settings)
    images = found.images[torch.from_numpy(rows)]
    target = torch.ones(len(rows), dtype=torch.long)
    methods = {}
    for name in softcams:
        methods |= {f"{own}:{name}": locate(own, found.networks[name], images, target, marks) for own in OWN}
    for name in (*FEW, *(f"{few}@{layer.module}" for few in FEW), "guided_backprop", "random", "edges"):
        methods[name] = locate(name, found.networks["black_box"], images, target, marks)
    return {"auroc": aurocs, "methods": methods, "images": len(rows), "mark": float(marks.double().mean())}


def read_validation(models: Models, name: str, layer: Any, chosen: float) -> float:
    """Return the validation AUROC of a model."""
    arms = {"stride_8": layer.arm(), "stride_8_sparse": layer.arm(chosen)}
    if name in arms:
        return float(models.run(arms[name]).metrics["val_auroc"])
    seed = models.seed
    return float(seed.train(seed.plan.black_box(seed.source, seed.seed)).metrics["val_auroc"])


def score(network: nn.Module, found: Loaded) -> float:
    """Return the AUROC on the images."""
    return auroc(ask(network, found.images)[:, 1], torch.from_numpy(found.manifest.targets))


def find_marks(manifest: Manifest, settings: SynthesisSettings) -> tuple[np.ndarray, Tensor]:
    """Return the rows of healthy images with the mark, and where it is, (N, H, W) bool."""
    rows, marks = [], []
    plain = replace(settings, shortcut=False)
    for row in np.flatnonzero(manifest.targets == 0):
        number = int(Path(manifest.cell(int(row), "image")).stem)
        if is_marked(number, settings) and len(rows) < SHOWN:
            pair = (draw_image(SCENES["lesions"], number, which).pixels.astype(int) for which in (settings, plain))
            first, second = pair
            rows.append(row)
            marks.append(torch.from_numpy((first != second).any(-1)))
    return np.array(rows), torch.stack(marks)


def locate(name: str, network: nn.Module, images: Tensor, target: Tensor, marks: Tensor) -> dict[str, Any]:
    """Return how much of a method's positive evidence lies on the mark, and how often it points there."""
    method, _, layer = name.partition("@")
    parts = [
        attribute(method, network, images[rows], target[rows], layer=layer or None)
        for rows in torch.arange(len(images)).split(16)
    ]
    resized = resize_maps(torch.cat(parts).double(), (marks.shape[1], marks.shape[2]))
    values = {
        "activation_precision": activation_precision(resized, marks),
        "pointing_game": pointing_game(resized, marks, tolerance=images.shape[-1] / 14),
    }
    return {metric: bootstrap_interval(found.numpy())._asdict() for metric, found in values.items()}
