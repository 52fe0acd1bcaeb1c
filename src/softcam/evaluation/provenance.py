"""What reproduces an evaluation: command, seed, versions, digests, machine, time and subsamples."""

from __future__ import annotations

import os
import platform
import shlex
import sys
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from softcam._version import __version__
from softcam.data.manifest import Manifest
from softcam.evaluation.comparison import Comparison
from softcam.evaluation.labels import Indices
from softcam.evaluation.models import Contestants
from softcam.evaluation.predictions import Predictions
from softcam.evaluation.settings import EvaluationSettings
from softcam.versions import installed_versions

_PACKAGES = ("torch", "torchvision", "timm", "captum", "grad-cam", "numpy", "scipy", "pandas", "pillow")


def record_provenance(
    models: Contestants,
    manifest: Manifest,
    predictions: Predictions,
    comparison: Comparison,
    settings: EvaluationSettings,
    *,
    seconds: dict[str, float],
) -> dict[str, Any]:
    """Return everything needed to repeat the evaluation and to judge how far it reaches.

    Args:
        models: The models.
        manifest: The images that were evaluated, those that could not be read included.
        predictions: Of those that could.
        comparison: Which subsamples were explained.
        settings: All settings.
        seconds: Wall time by stage.
    """
    twin = models.black_box_config
    return {
        "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "seed": settings.seed,
        "settings": asdict(settings),
        "versions": list_versions(),
        "machine": describe_machine(models.device),
        "seconds": seconds | {"total": sum(seconds.values())},
        "seconds_per_map": comparison.seconds,
        "model_fingerprint": models.config.fingerprint,
        "other_fingerprints": {name: models.fingerprints[name] for name in models.others},
        "black_box_fingerprint": None if twin is None else twin.fingerprint,
        "data_digest": manifest.take(predictions.rows).digest(),
        "failures": [failure._asdict() for failure in predictions.failures + comparison.failures],
        "undefined": comparison.undefined,
        "subsamples": describe_subsamples(manifest, predictions, comparison, settings),
    }


def describe_subsamples(
    manifest: Manifest, predictions: Predictions, comparison: Comparison, settings: EvaluationSettings
) -> dict[str, Any]:
    """Return what each subsample is, why it was taken and which images are in it.

    Args:
        manifest: Where the images' names are.
        predictions: What the comparison's positions point to.
        comparison: The positions.
        settings: Which class was explained.
    """
    reasons = {
        "explained": "Deletion and insertion take dozens of forward passes per image and method; "
        "a random part, stratified by label.",
        "explained_slowly": "Methods that take dozens of gradients per map; a random part of the former.",
    }
    positions = {"explained": comparison.images, "explained_slowly": comparison.slow_images}
    record = {
        name: {"reason": reason, "n": len(positions[name]), "images": _names(manifest, predictions, positions[name])}
        for name, reason in reasons.items()
    }
    verb = "reports" if settings.explained_class == "reported" else "finds most probable"
    target = (
        f"Each map is of the class that the explained model {verb}; localisation is measured where that is the label, "
        "since the map of another class has nothing to find."
    )
    gallery = "Random cases, the true classes in turn; right and wrong by the threshold chosen on validation data."
    return record | {"target": {"reason": target}, "gallery": {"reason": gallery}}


def list_versions() -> dict[str, str]:
    """Return the versions of softcam, Python and the libraries that the numbers depend on."""
    return {"softcam": __version__, "python": platform.python_version(), **installed_versions(_PACKAGES)}


def describe_machine(device: torch.device) -> dict[str, Any]:
    """Return what the times were measured on: no name and no path of the machine.

    Args:
        device: Where the models ran.
    """
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
    }


def _names(manifest: Manifest, predictions: Predictions, positions: Indices) -> list[str]:
    return [manifest.cell(int(row), "image") for row in predictions.rows[positions]]
