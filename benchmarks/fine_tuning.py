"""What copying a head costs, and what fine-tuning brings back, on real images: `python benchmarks/fine_tuning.py`.

Three networks whose logits no evidence maps can keep (flattened grid, hidden layer after the pooling, class token) are
trained from random weights on the solar cells, converted with `exact=False`, and fine-tuned. On the test images: the
drift of the logits and the AUROC before fine-tuning, and the AUROC after it against the black box's, paired (DeLong).
Nothing is pretrained and the images are small, so the black boxes are not the best there are; it is the difference
that is measured. A run that was ended goes on where it was, if `--work` names its folder.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from environment import describe_environment
from torch import Tensor, nn
from torch.utils.data import DataLoader

from softcam.bundle import load, load_black_box, read_config
from softcam.data import ImageDataset, Manifest
from softcam.data.sources import prepare_source
from softcam.errors import SoftCAMWarning
from softcam.files import write_atomic
from softcam.imaging import Preprocessing
from softcam.metrics.classification import auroc
from softcam.metrics.statistics import noninferiority
from softcam.nn import convert
from softcam.training import Recipe, train

RESULT = Path(__file__).parent / "results" / "fine_tuning.json"
MARGIN = 0.02
PROBES = 32


@dataclass(frozen=True)
class Setting:
    """A network and how it is trained."""

    backbone: str
    epochs: int
    tuning_epochs: int
    lr: float
    tuning_lr: float
    batch_size: int = 32
    size: int = 96
    arguments: dict[str, Any] = field(default_factory=dict)

    def recipe(self, source: Path, *, weights: str, kind: str) -> Recipe:
        """Return the recipe of the black box, or of the model that goes on from it."""
        first = weights == "none"
        return Recipe.from_dict(
            {
                "name": self.backbone.partition(":")[2],
                "data": {
                    "source": str(source),
                    "classes": ["intact", "defect"],
                    "image_size": self.size,
                    "batch_size": self.batch_size,
                    "preprocessing": {"crop_fraction": 1.0},
                    "augmentation": {"hflip": True, "vflip": True},
                },
                "model": {"kind": kind, "backbone": self.backbone, "weights": weights, "arguments": self.arguments},
                "loss": {"class_weights": "balanced"},
                "optimizer": {"lr": self.lr if first else self.tuning_lr, "gradient_clip": 1.0},
                "schedule": {"warmup_epochs": 1 if first else 0.5},
                "stages": [{"epochs": self.epochs if first else self.tuning_epochs}],
            }
        )


SETTINGS = (
    Setting("torchvision:vgg11_bn", epochs=5, tuning_epochs=2, lr=2e-4, tuning_lr=5e-5, size=64),
    Setting("timm:mobilenetv3_large_100", epochs=12, tuning_epochs=4, lr=2e-3, tuning_lr=3e-4),
    Setting(
        "timm:vit_tiny_patch16_224", epochs=10, tuning_epochs=4, lr=5e-4, tuning_lr=1e-4, arguments={"img_size": 96}
    ),
)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=None, help="keep the runs here")
    parser.add_argument("--only", nargs="*", default=None, help="backbones; prints and writes nothing else")
    options = parser.parse_args()
    warnings.simplefilter("ignore", SoftCAMWarning)
    with tempfile.TemporaryDirectory() as scratch:
        work = options.work or Path(scratch)
        manifest = prepare_source("elpv", work / "data")
        chosen = [item for item in SETTINGS if options.only is None or item.backbone in options.only]
        rows = []
        for setting in chosen:
            rows.append(measure(setting, manifest, work))
            print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
    if options.only is None:
        result = {"environment": describe_environment(seeds=[0]), "margin": MARGIN, "rows": rows}
        write_atomic(RESULT, json.dumps(result, indent=2) + "\n")
    return 0


def measure(setting: Setting, manifest: Manifest, work: Path) -> dict[str, Any]:
    folder = work / setting.backbone.replace(":", "-")
    source = work / "data" / "manifest.csv"
    twin = train(setting.recipe(source, weights="none", kind="black_box"), folder / "twin", progress=False)
    run = train(setting.recipe(source, weights=str(twin.path), kind="softcam"), folder / "tuned", progress=False)
    stored = read_config(twin.model_path).preprocessing
    images = ImageDataset(manifest.subset("test"), Preprocessing.from_dict(dict(stored or {})))
    black_box = load_black_box(twin.model_path)
    copied = convert(black_box, images=torch.stack([images[row][0] for row in range(PROBES)]), exact=False)
    scores = {}
    for name, model in (("black_box", black_box), ("copied", copied), ("tuned", load(run.model_path))):
        scores[name], targets = predict(model, images, setting.batch_size)
    report = copied.conversion
    if report.drift is None:
        raise SystemExit(f"{setting.backbone} converts exactly; choose another.")
    return {
        "backbone": setting.backbone,
        "size": setting.size,
        "head": report.head,
        "drift": report.drift,
        "images": len(images),
        "epochs": [setting.epochs, setting.tuning_epochs],
        "seconds": [round(twin.seconds), round(run.seconds)],
        "auroc": {name: round(auroc(values, targets), 4) for name, values in scores.items()},
        **{name: compare(targets, scores[name], scores["black_box"]) for name in ("copied", "tuned")},
    }


def predict(model: nn.Module, images: ImageDataset, batch_size: int) -> tuple[Tensor, Tensor]:
    """Return the score of the positive class and the targets of all images."""
    scores, targets = [], []
    with torch.inference_mode():
        for batch, target, _ in DataLoader(images, batch_size):
            logits = model(batch.contiguous(memory_format=torch.channels_last))
            scores.append(logits[:, 1] - logits[:, 0])
            targets.append(target)
    return torch.cat(scores), torch.cat(targets)


def compare(targets: Tensor, ours: Tensor, theirs: Tensor) -> dict[str, Any]:
    found = noninferiority(targets, ours, theirs, margin=MARGIN)
    return {"difference": found.difference, "low": found.low, "not_inferior": found.passed}


if __name__ == "__main__":
    sys.exit(main())
