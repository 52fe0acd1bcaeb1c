"""Peak memory of `explain` on 500 and on 10,000 images: it has to stay flat.

    python benchmarks/explain_memory.py [--quick]

Every count runs in a fresh process, with arrays and overlays. The network and the images are small, so that minutes are
enough: what could grow with the number of images does not depend on their size. Half of the images are PNG, half JPEG,
and they lie in folders of a thousand. Writes `benchmarks/results/explain_memory.json`.
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
from environment import describe_environment, peak_memory
from PIL import Image

from softcam.backbones import create_black_box
from softcam.bundle import save
from softcam.nn import convert
from softcam.predict import Predictor
from softcam.reporting.explanations import explain

COUNTS, QUICK_COUNTS = (500, 10_000), (100, 500)
LIMIT = 1.05
SEED = 0
SIDE, PER_FOLDER = 128, 1000
MODEL = "timm:test_resnet"
RESULT = Path(__file__).parent / "results" / "explain_memory.json"


def write_images(folder: Path, count: int) -> None:
    generator = np.random.default_rng(SEED)
    for position in range(count):
        coarse = generator.integers(0, 256, (16, 16, 3), dtype=np.uint8)
        path = folder / f"{position // PER_FOLDER:02d}" / f"{position:05d}.{'png' if position % 2 else 'jpg'}"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(coarse).resize((SIDE, SIDE), Image.Resampling.BILINEAR).save(path, quality=90)


def write_model(folder: Path) -> None:
    torch.manual_seed(SEED)
    black_box = create_black_box(MODEL, num_classes=2, weights="none")
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
    write_images(images, count)
    command = [sys.executable, __file__, "--child", str(root / "model"), str(images), str(root / f"out-{count}")]
    printed = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    return {"images": count, **{k: round(v, 1) for k, v in json.loads(printed).items()}}


def main(counts: tuple[int, int], *, keep: bool) -> int:
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        write_model(root / "model")
        runs = [measure(root, count) for count in counts]
    few, many = runs
    ratio = many["peak_mib"] / few["peak_mib"]
    grown = 1024 * (many["peak_mib"] - few["peak_mib"]) / (many["images"] - few["images"])
    result = {
        "command": "python benchmarks/explain_memory.py",
        "environment": describe_environment(("torch", "torchvision", "timm", "safetensors", "numpy", "pillow")),
        "seed": SEED,
        "model": MODEL,
        "runs": runs,
        "ratio": round(ratio, 4),
        "kib_per_image": round(grown, 3),
        "limit": LIMIT,
        "passed": ratio <= LIMIT and many["done"] == many["images"],
    }
    print(json.dumps(result, indent=2))
    if keep:
        RESULT.parent.mkdir(exist_ok=True)
        RESULT.write_text(json.dumps(result, indent=2) + "\n")
    return 0 if result["passed"] else 1


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--child", nargs=3, type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--quick", action="store_true", help="few images, and no file of results")
    options = parser.parse_args()
    if options.child:
        run_child(*options.child)
    else:
        sys.exit(main(QUICK_COUNTS if options.quick else COUNTS, keep=not options.quick))
