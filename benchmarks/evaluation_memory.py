"""Peak memory of an evaluation on 100 and on 400 images: it has to stay flat.

    python benchmarks/evaluation_memory.py [--quick]

Every count runs in a fresh process, from reading files to the finished tables, with a mask per image and all images
explained and located: images and masks of all at once would be 65 MiB per hundred. The network is small and the images
are drawn at random, since only their number matters here. Writes `benchmarks/results/evaluation_memory.json`.
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
import pandas as pd
import torch
from environment import describe_environment, peak_memory
from options import choose_out, create_parser
from PIL import Image

from softcam.backbones import create_black_box
from softcam.bundle import save
from softcam.data import read_manifest, write_manifest
from softcam.evaluation import EvaluationSettings, evaluate
from softcam.files import write_atomic
from softcam.imaging import Preprocessing
from softcam.nn import convert

COUNTS, QUICK_COUNTS = (100, 400), (16, 32)
LIMIT = 1.05
SEED, FILE_SIDE, SIDE, BATCH = 0, 300, 224, 8
CLASSES = ("intact", "defect")
MODEL = "timm:test_resnet"
METHODS, MEASURES = ("evidence", "grad_cam"), ("localization", "drop")
RESULT = Path(__file__).parent / "results" / "evaluation_memory.json"


def write_data(folder: Path, count: int) -> Path:
    """Write images of both classes in turn, a mask for all, and return where their manifest is."""
    folder.mkdir(parents=True)
    generator = np.random.default_rng(SEED)
    mask = np.zeros((FILE_SIDE, FILE_SIDE), dtype=np.uint8)
    mask[: FILE_SIDE // 3] = 255
    Image.fromarray(mask).save(folder / "mask.png")
    rows = []
    for position in range(count):
        name = f"{position:05d}.png"
        coarse = Image.fromarray(generator.integers(0, 256, (16, 16), dtype=np.uint8))
        coarse.resize(mask.shape).save(folder / name)
        rows.append((name, CLASSES[position % 2], "test", "mask.png"))
    write_manifest(pd.DataFrame(rows, columns=["image", "label", "split", "mask"]), folder / "manifest.csv")
    return folder / "manifest.csv"


def write_models(folder: Path) -> None:
    """Write a black box and its conversion."""
    torch.manual_seed(SEED)
    black_box = create_black_box(MODEL, num_classes=2, weights="none").eval()
    record = Preprocessing(size=SIDE).to_dict()
    for name, model in (("black_box", black_box), ("model", convert(black_box))):
        save(model, folder / name, classes=CLASSES, preprocessing=record)


def run_child(folder: Path, table: Path) -> None:
    manifest = read_manifest(table, classes=CLASSES)
    count = len(manifest)
    few = {"batch_size": BATCH, "resamples": 200, "gallery_methods": ()}
    settings = EvaluationSettings(methods=METHODS, measures=MEASURES, explained=count, located=count, **few)  # type: ignore[arg-type]
    started = time.perf_counter()
    result = evaluate(folder / "model", manifest, black_box_path=folder / "black_box", settings=settings)
    seconds = time.perf_counter() - started
    counts = result.metrics["counts"]
    found = {"test": counts["test"], "explained": counts["faithfulness"], "failed_masks": counts["failed_masks"]}
    print(
        json.dumps(
            {**found, "located": result.metrics["locality"]["images"], "seconds": seconds, "peak_mib": peak_memory()}
        )
    )


def measure(root: Path, count: int) -> dict[str, Any]:
    table = write_data(root / f"data-{count}", count)
    command = [sys.executable, "-W", "ignore", __file__, "--child", str(root), str(table)]
    printed = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    return {"images": count, **{name: round(value, 1) for name, value in json.loads(printed.splitlines()[-1]).items()}}


def main(options: argparse.Namespace) -> int:
    with tempfile.TemporaryDirectory() as name:
        write_models(Path(name))
        few, many = (measure(Path(name), count) for count in (QUICK_COUNTS if options.quick else COUNTS))
    ratio = many["peak_mib"] / few["peak_mib"]
    complete = all(many[kind] == many["images"] for kind in ("test", "explained", "located"))
    result = {
        "command": "python benchmarks/evaluation_memory.py",
        "environment": describe_environment(seeds=[SEED]),
        "setting": {"model": MODEL, "side": SIDE, "batch_size": BATCH, "methods": METHODS, "measures": MEASURES},
        "runs": [few, many],
        "memory_ratio": round(ratio, 4),
        "kib_per_image": round(1024 * (many["peak_mib"] - few["peak_mib"]) / (many["images"] - few["images"]), 2),
        "limit": LIMIT,
        "passed": complete and ratio <= LIMIT,
    }
    write_atomic(choose_out(options, RESULT), json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))
    # The first batches are still growing in the small version.
    return 0 if result["passed"] or (options.quick and complete) else 1


if __name__ == "__main__":
    parser = create_parser(__doc__)
    parser.add_argument("--child", nargs=2, type=Path, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.child:
        run_child(*chosen.child)
    else:
        sys.exit(main(chosen))
