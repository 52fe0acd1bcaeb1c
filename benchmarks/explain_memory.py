"""Peak memory of `explain` on 100 and on 1,000 images: it has to stay flat.

    python benchmarks/explain_memory.py

Every count runs in a fresh process with the EfficientNet-Lite0 backbone. The images are real electroluminescence
images of the package `elpv-dataset` (extra `demo`), half as PNG and half as JPEG. Writes
`benchmarks/results/explain_memory.json`.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from elpv_dataset.utils import load_dataset
from environment import describe_environment, peak_memory
from PIL import Image

from softcam.backbones import create_black_box
from softcam.bundle import save
from softcam.nn import convert
from softcam.predict import Predictor
from softcam.reporting.explanations import explain

COUNTS = (100, 1000)
LIMIT = 1.2
SEED = 0
RESULT = Path(__file__).parent / "results" / "explain_memory.json"


def write_images(folder: Path, count: int) -> None:
    images, _, _ = load_dataset()
    chosen = np.random.default_rng(SEED).permutation(len(images))[:count]
    for position, index in enumerate(chosen):
        suffix = "png" if position % 2 else "jpg"
        Image.fromarray(images[index]).save(folder / f"{position:04d}.{suffix}", quality=95)


def write_model(folder: Path) -> None:
    torch.manual_seed(SEED)
    black_box = create_black_box("timm:tf_efficientnet_lite0", num_classes=2, weights="pretrained")
    save(convert(black_box.eval()), folder, classes=["intact", "defect"])


def run_child(model: Path, images: Path, out: Path) -> None:
    predictor = Predictor(model, device="cpu")
    loaded, started = peak_memory(), time.monotonic()
    summary = explain(predictor, [images], out)
    seconds = time.monotonic() - started
    figures = {"done": summary.done, "failed": summary.failed, "loaded_mib": loaded, "peak_mib": peak_memory()}
    print(json.dumps({**figures, "seconds": seconds}))


def measure(root: Path, count: int) -> dict[str, Any]:
    images = root / f"images-{count}"
    images.mkdir()
    write_images(images, count)
    command = [sys.executable, __file__, "--child", str(root / "model"), str(images), str(root / f"out-{count}")]
    printed = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    return {"images": count, **{k: round(v, 1) for k, v in json.loads(printed).items()}}


def main() -> int:
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        write_model(root / "model")
        runs = [measure(root, count) for count in COUNTS]
    ratio = runs[-1]["peak_mib"] / runs[0]["peak_mib"]
    working = [run["peak_mib"] - run["loaded_mib"] for run in runs]
    result = {
        "command": "python benchmarks/explain_memory.py",
        "environment": describe_environment(("torch", "torchvision", "timm", "safetensors", "numpy")),
        "seed": SEED,
        "model": "timm:tf_efficientnet_lite0",
        "runs": runs,
        "ratio": round(ratio, 4),
        "ratio_above_loaded": round(working[-1] / working[0], 4),
        "limit": LIMIT,
        "passed": ratio <= LIMIT,
    }
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))
    return 0 if result["passed"] else 1


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--child", nargs=3, type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        run_child(*options.child)
    else:
        sys.exit(main())
