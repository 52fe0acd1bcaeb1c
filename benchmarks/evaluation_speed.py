"""How long a whole evaluation takes, and its memory: `python benchmarks/evaluation_speed.py`.

600 of the ELPV test images, EfficientNet-Lite0 with a new classifier and its conversion, the six cheap methods and the
cheap measures (deletion with two fills, insertion with one, average drop, complexity), in a process of its own: from
reading files to the written report. Writes `benchmarks/results/evaluation_speed.json`.
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
from evaluation_memory import CLASSES, write_data
from options import choose_out, create_parser

from softcam.backbones import create_black_box
from softcam.bundle import save
from softcam.data import Manifest, read_manifest
from softcam.data.sources import prepare_source
from softcam.evaluation import EvaluationSettings, evaluate, write_evaluation
from softcam.files import write_atomic
from softcam.imaging import Preprocessing
from softcam.nn import convert
from softcam.reporting import write_report

RESULT = Path(__file__).parent / "results" / "evaluation_speed.json"
FEW = 100
BACKBONE = "timm:tf_efficientnet_lite0"
# The usual ones but for the imputation, which solves a system of equations for every point of a curve.
FILLS, INSERTION_FILLS = ("mean", "blur"), ("blur",)
METHODS = ("evidence", "grad_cam", "grad_cam_plus_plus", "layer_cam", "hires_cam", "random")


def main() -> None:
    parser = create_parser(__doc__)
    parser.add_argument("--images", type=int, default=None, help="default: 600, or 12 with --quick")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--engines", nargs="+", default=("openvino",))
    parser.add_argument("--child", type=str, default=None, help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.images = options.images or (12 if options.quick else 600)
    torch.set_num_threads(options.threads)
    if options.child:
        print(json.dumps(run(Path(options.child), options.images, options.engines[0])))
        return
    rows = []
    for engine in options.engines:
        with tempfile.TemporaryDirectory() as folder:
            arguments = ["--child", folder, "--images", str(options.images), "--threads", str(options.threads)]
            command = [sys.executable, "-W", "ignore", __file__, *arguments, "--engines", engine]
            rows.append(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
    setting = {
        "images": options.images,
        "threads": options.threads,
        "methods": METHODS,
        "fills": FILLS,
        "insertion_fills": INSERTION_FILLS,
        "backbone": BACKBONE,
    }
    write_atomic(
        choose_out(options, RESULT),
        json.dumps({"environment": describe_environment(seeds=[0]), "setting": setting, "rows": rows}, indent=2) + "\n",
    )
    for row in rows:
        print(f"{row['engine']}: {row['seconds'] / 60:.1f} minutes, {row['peak_gib']:.2f} GiB")


def read_test_images(folder: Path, count: int) -> Manifest:
    """Return some of the ELPV test images; a few are written without all the others."""
    if count < FEW:
        return read_manifest(write_data(folder, count), classes=CLASSES)
    manifest = prepare_source("elpv", folder)
    return manifest.take(np.flatnonzero((manifest.table["split"] == "test").to_numpy())[:count])


def run(folder: Path, images: int, engine: str) -> dict[str, Any]:
    """Evaluate and write the report; return seconds by stage and the peak of the process's memory."""
    part = read_test_images(folder / "data", images)
    torch.manual_seed(0)
    black_box = create_black_box(BACKBONE, num_classes=2, weights="pretrained").eval()
    record = Preprocessing(crop_fraction=1.0).to_dict()
    for name, model in (("black_box", black_box), ("model", convert(black_box))):
        save(model, folder / name, classes=part.classes, preprocessing=record)
    fills = {"fills": FILLS, "insertion_fills": INSERTION_FILLS}
    settings = EvaluationSettings(methods=METHODS, explained=images, engine=engine, **fills)  # type: ignore[arg-type]
    started = time.perf_counter()
    result = evaluate(folder / "model", part, black_box_path=folder / "black_box", settings=settings)
    write_report(result, write_evaluation(result, folder / "evaluation"))
    seconds = time.perf_counter() - started
    return {
        "engine": engine,
        "seconds": seconds,
        "stages": result.provenance["seconds"],
        "peak_gib": peak_memory() / 1024,
        "images": result.metrics["counts"]["test"],
    }


if __name__ == "__main__":
    main()
