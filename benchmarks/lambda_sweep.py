"""How strong may the penalty be, on real images: `python benchmarks/lambda_sweep.py [--quick]`.

A search of `softcam.sweep` on the solar cells of ELPV, with a frozen trunk whose features are computed once: strengths
of l1 for a class evidence layer at stride 16. It chooses, on the validation images, the sparsest model whose AUROC is
not inferior to the dense one's. The choice is then looked at once on the test images: the AUROC of both, and the paired
difference. Draws `docs/images/lambda-*.png`. A run that was ended goes on where it was, if `--work` names its folder.
"""

from __future__ import annotations

import json
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from environment import describe_environment
from options import RESULTS, choose_out, create_parser

from softcam.data import Manifest
from softcam.data.sources import prepare_source
from softcam.evaluation.models import load_contestants
from softcam.evaluation.predictions import Predictions, predict_images
from softcam.files import write_atomic
from softcam.metrics import noninferiority
from softcam.reporting.figures import to_png
from softcam.sweep import SearchResult, SearchSettings, Space, TrialRow, search
from softcam.sweep.accuracy import measure_auroc
from softcam.sweep.pareto import pareto_figure
from softcam.sweep.places import Place
from softcam.training import Recipe

RESULT = RESULTS / "lambda_sweep.json"
IMAGES = Path(__file__).resolve().parents[1] / "docs" / "images"
TRUNK = "blocks.4"
"""The deepest features of stride 16; frozen in all models."""
SIZE = 160
"""Side of the network's input: half of the pixels, and of the time, of 224."""
QUICK_IMAGES = 160
LOCATED = 48


@dataclass(frozen=True)
class Setting:
    """One search.

    Args:
        name: As in tables and file names.
        at: Place of the class evidence layer.
        epochs: Length of a training.
        lr: Its learning rate.
        strengths: Of l1; the dense model is added.
    """

    name: str
    at: Place
    epochs: int
    lr: float
    strengths: tuple[float, ...]

    def recipe(self, source: Path, *, quick: bool) -> Recipe:
        """Return how the models are trained, apart from the penalty."""
        return Recipe.from_dict(
            {
                "name": self.name,
                "data": {
                    "source": str(source),
                    "classes": ["intact", "defect"],
                    "image_size": SIZE,
                    "preprocessing": {"crop_fraction": 1.0},
                    "augmentation": {"hflip": True, "vflip": True},
                },
                "model": {"backbone": "timm:tf_efficientnet_lite0", "at": list(self.at)},
                "loss": {"class_weights": "balanced"},
                "optimizer": {"lr": self.lr},
                "stages": [{"epochs": 1 if quick else self.epochs, "trunk": TRUNK}],
            }
        )


SETTINGS = (Setting("stride 16", (16,), epochs=12, lr=5e-3, strengths=(1e-5, 1e-4, 3e-4, 1e-3)),)


def main() -> int:
    parser = create_parser(__doc__)
    parser.add_argument("--work", type=Path, default=None, help="keep the runs here")
    parser.add_argument("--jobs", type=int, default=2, help="trainings at a time")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        work = options.work or Path(scratch)
        manifest = prepare_source("elpv", work / "data")
        if options.quick:
            manifest = thin_out(manifest)
        rows = [measure(setting, manifest, work, jobs=options.jobs, quick=options.quick) for setting in SETTINGS]
    margin, sparsity = SearchSettings.margin, SearchSettings.sparsity
    result = {"environment": describe_environment(seeds=[0]), "margin": margin, "sparsity": sparsity, "searches": rows}
    write_atomic(choose_out(options, RESULT), json.dumps(result, indent=2) + "\n")
    return 0


def measure(setting: Setting, manifest: Manifest, work: Path, *, jobs: int, quick: bool) -> dict[str, Any]:
    recipe = setting.recipe(work / "data" / "manifest.csv", quick=quick)
    space = Space(l1=setting.strengths[:1] if quick else setting.strengths)
    settings = SearchSettings(jobs=1 if quick else jobs, located=8 if quick else LOCATED)
    found = search(
        recipe,
        work / setting.name.replace(" ", "-"),
        space=space,
        settings=settings,
        manifest=manifest,
        cache_dir=work / "cache",
        progress=False,
        say=lambda line: print(line, file=sys.stderr, flush=True),
    )
    if found.chosen is None:
        raise SystemExit(f"{setting.name}: the AUROC is undefined.")
    if not quick:
        write_atomic(IMAGES / f"lambda-{setting.name.replace(' ', '-')}.png", to_png(pareto_figure(found)))
    record = found.to_dict()
    kept = ("chosen", "rule", "reference", "front", "rows", "images", "located", "failures")
    return {
        "name": setting.name,
        "epochs": recipe.epochs,
        **{name: record[name] for name in kept},
        "said": str(found),
        "test": look_at_test(found, found.chosen, manifest),
    }


def look_at_test(found: SearchResult, chosen: TrialRow, manifest: Manifest) -> dict[str, Any]:
    """Return the AUROC of the chosen and of the dense model on the test images, and their paired difference."""
    test = manifest.subset("test")
    ours, dense = (predict(row, test) for row in (chosen, found.reference))
    scores = ours.probabilities[:, 1], dense.probabilities[:, 1]
    compared = noninferiority(ours.targets, *scores, margin=found.margin, groups=ours.patients)
    return {
        "auroc": measure_auroc(ours.probabilities, ours.targets),
        "dense": measure_auroc(dense.probabilities, dense.targets),
        **compared._asdict(),
    }


def predict(row: TrialRow, manifest: Manifest) -> Predictions:
    models = load_contestants(row.model_path, None, manifest, device=None)
    return predict_images(models, manifest, batch_size=32, tolerance=1e-5)


def thin_out(manifest: Manifest) -> Manifest:
    """Return a few images of every split and label."""
    chosen = np.random.default_rng(0).permutation(len(manifest))[:QUICK_IMAGES]
    return manifest.take(np.sort(chosen).astype(np.int64))


if __name__ == "__main__":
    sys.exit(main())
