"""Speed of `softcam explain` against the bare network on the same images: the pipeline must keep it busy.

    python benchmarks/explain_speed.py [--quick] [--backend onnxruntime]

JPEGs of 1024 px with the entropy of photographs are drawn into a temporary folder, and a ResNet-50 of 1,000 classes is
converted. `softcam explain --no-overlays` runs in a process of its own, as a user runs it, with and without `--draft`.
Before and after each run, the network alone is timed in a process of its own on tensors that were prepared from the
same images, so that a slow moment of the machine is seen. The rate is that of the run's own clock in `run.json`, from
its journal to its tables; start-up is measured apart, by explaining one image. Stages are timed one by one, on one
core; threads and processes that only read take turns. Writes `benchmarks/results/explain_speed.json`.
"""

from __future__ import annotations

import argparse
import io
import json
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from environment import describe_environment
from options import choose_out, create_parser
from PIL import Image, ImageFilter

from softcam.backbones import create_black_box
from softcam.bundle import save
from softcam.files import write_atomic
from softcam.imaging import Preprocessing, decode_image
from softcam.nn import convert
from softcam.predict import Predictor
from softcam.reporting.evidence_file import encode_evidence

SIDE, BATCH, CLASSES = 1024, 8, 1000
COUNT, QUICK_COUNT = 2000, 96
BARE_BATCHES, QUICK_BARE_BATCHES = 24, 6
DRAWINGS = 24
WORKERS = 2
LEAST_SHARE, LONGEST_START = 0.9, 5.0
MODEL = "timm:resnet50"
RESULT = Path(__file__).parent / "results" / "explain_speed.json"


def draw(seed: int) -> np.ndarray:
    """Draw coloured fields of several sizes and grain, whose JPEG is about as large as that of a photograph."""
    generator = np.random.default_rng(seed)
    mixed = np.full((SIDE, SIDE, 3), 128.0)
    for cells, strength in ((12, 90), (96, 40), (512, 24)):
        noise = Image.fromarray(generator.integers(0, 256, (cells, cells, 3), dtype=np.uint8))
        smooth = noise.resize((SIDE, SIDE), Image.Resampling.BICUBIC).filter(ImageFilter.GaussianBlur(1))
        mixed += (np.asarray(smooth, np.float64) - 128) * (strength / 128)
    return np.clip(mixed, 0, 255).astype(np.uint8)


def write_images(folder: Path, count: int) -> int:
    """Write different images and return their mean size in bytes."""
    folder.mkdir()
    drawings = [draw(seed) for seed in range(min(DRAWINGS, count))]

    def write(number: int) -> int:
        # Shifted by whole blocks, so that every file has its own digest and the same entropy.
        down, right = divmod(number // len(drawings), SIDE // 16)
        pixels = np.roll(drawings[number % len(drawings)], (16 * down, 16 * right), axis=(0, 1))
        stream = io.BytesIO()
        Image.fromarray(pixels).save(stream, "JPEG", quality=90)
        (folder / f"{number:05d}.jpg").write_bytes(stream.getvalue())
        return stream.getbuffer().nbytes

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return sum(pool.map(write, range(count))) // count


def write_model(folder: Path) -> None:
    torch.manual_seed(0)
    save(convert(create_black_box(MODEL, num_classes=CLASSES, weights="none").eval()), folder)


def time_bare(model: Path, images: Path, batches: int, backend: str) -> dict[str, Any]:
    """Return the seconds of each batch that the network takes, without reading or writing."""
    predictor = Predictor(model, batch_size=BATCH, backend=backend)  # type: ignore[arg-type]
    paths = sorted(images.iterdir())[: 2 * BATCH]
    tensors = [predictor.preprocessing(decode_image(path))[0] for path in paths]
    seconds = []
    with torch.inference_mode():
        for number in range(batches + 2):
            chosen = tensors[:BATCH] if number % 2 else tensors[BATCH:]
            started = time.perf_counter()
            predictor._backend(torch.stack(chosen))  # noqa: SLF001 - the network and nothing else
            seconds.append(time.perf_counter() - started)
    return {"seconds": seconds[2:], "backend": predictor.backend}


def run_bare(model: Path, images: Path, batches: int, backend: str) -> dict[str, Any]:
    command = [sys.executable, __file__, "--child", str(model), str(images), str(batches), backend]
    printed = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    found = json.loads(printed.splitlines()[-1])
    return {"backend": found["backend"], "per_second": BATCH / statistics.median(found["seconds"])}


def run_explain(model: Path, inputs: Sequence[Path], out: Path, flags: Sequence[str]) -> dict[str, Any]:
    """Explain as a user does, and return the counts and the seconds by both clocks."""
    command = [sys.executable, "-m", "softcam", "explain", str(model), *map(str, inputs), "--out", str(out)]
    started = time.perf_counter()
    subprocess.run([*command, "--no-overlays", "--batch-size", str(BATCH), *flags], check=True, stdout=subprocess.PIPE)
    whole = time.perf_counter() - started
    record = json.loads((out / "run.json").read_text())
    return {"images": record["counts"]["done"], "seconds": record["seconds"], "with_start_up": whole}


def measure(root: Path, name: str, flags: Sequence[str], plan: argparse.Namespace) -> dict[str, Any]:
    """Return the rate of one kind of run beside the network's own before and after it."""
    bare = [run_bare(root / "model", root / "images", plan.batches, plan.backend)]
    run = run_explain(root / "model", [root / "images"], root / f"out-{len(flags)}-{name}", flags)
    bare.append(run_bare(root / "model", root / "images", plan.batches, plan.backend))
    rates = [one["per_second"] for one in bare]
    rate = run["images"] / run["seconds"]
    return {
        "name": name,
        "backend": bare[0]["backend"],
        "images": run["images"],
        "seconds": round(run["seconds"], 1),
        "per_second": round(rate, 2),
        "bare_per_second": [round(one, 2) for one in rates],
        "share": round(rate / statistics.mean(rates), 4),
        "share_with_start_up": round(run["images"] / run["with_start_up"] / statistics.mean(rates), 4),
    }


def time_start(root: Path, flags: Sequence[str], repeats: int = 3) -> list[float]:
    """Return the seconds from the command to the end of a run of one image."""
    image = [min((root / "images").iterdir())]
    runs = [run_explain(root / "model", image, root / f"one-{number}", flags) for number in range(repeats)]
    return [round(run["with_start_up"], 2) for run in runs]


def time_stages(root: Path) -> dict[str, float]:
    """Return the milliseconds that each step takes per image, on one core."""
    torch.set_num_threads(1)
    predictor = Predictor(root / "model", batch_size=1)
    preprocessing = predictor.preprocessing
    contents = [path.read_bytes() for path in sorted((root / "images").iterdir())[:DRAWINGS]]
    whole = [decode_image(content) for content in contents]
    reduced = [decode_image(content, least_side=preprocessing.least_side) for content in contents]
    predictions = list(predictor(whole[:4]))
    encoded = encode_evidence(predictions[0])
    return {
        "decode": _time(decode_image, contents),
        "resize and normalize": _time(preprocessing, whole),
        "decode, draft": _time(lambda content: _decode_reduced(content, preprocessing), contents),
        "resize and normalize, draft": _time(preprocessing, reduced),
        "encode evidence": _time(encode_evidence, predictions),
        "write evidence": _time(lambda number: write_atomic(root / "w" / f"{number}.npz", encoded), range(DRAWINGS)),
    }


def compare_readers(root: Path, rounds: int = 3) -> dict[str, float]:
    """Return how many images per second threads and processes decode and resize, taking turns."""
    preprocessing = Predictor(root / "model", batch_size=1).preprocessing
    paths = sorted((root / "images").iterdir())[: 4 * DRAWINGS]
    read = partial(_read, preprocessing=preprocessing)
    rates: dict[str, list[float]] = {}
    with (
        ThreadPoolExecutor(1) as one,
        ThreadPoolExecutor(WORKERS) as threads,
        ProcessPoolExecutor(WORKERS, mp_context=multiprocessing.get_context("spawn")) as processes,
    ):
        pools = {"1 thread": one, f"{WORKERS} threads": threads, f"{WORKERS} processes": processes}
        list(processes.map(read, paths[:WORKERS]))  # they start here
        for name, pool in list(pools.items()) * rounds:
            started = time.perf_counter()
            list(pool.map(read, paths))
            rates.setdefault(name, []).append(len(paths) / (time.perf_counter() - started))
    return {name: round(statistics.median(values), 1) for name, values in rates.items()}


def compare_pixels(root: Path) -> dict[str, float]:
    """Return by how many of 255 grey levels what the network sees differs in draft."""
    preprocessing = Predictor(root / "model", batch_size=1).preprocessing
    found = []
    for path in sorted((root / "images").iterdir())[:DRAWINGS]:
        reduced = decode_image(path, least_side=preprocessing.least_side)
        found.append((preprocessing.resize(reduced)[0] - preprocessing.resize(decode_image(path))[0]).abs() * 255)
    differences = torch.stack(found)
    return {"mean": round(float(differences.mean()), 3), "largest": round(float(differences.max()), 1)}


def _read(path: Path, preprocessing: Preprocessing) -> np.ndarray:
    return preprocessing(decode_image(path))[0].numpy()


def _decode_reduced(content: bytes, preprocessing: Preprocessing) -> object:
    return decode_image(content, least_side=preprocessing.least_side)


def _time(function: Callable[[Any], object], items: Sequence[Any]) -> float:
    seconds = []
    for item in items:
        started = time.perf_counter()
        function(item)
        seconds.append(time.perf_counter() - started)
    return round(1000 * statistics.median(seconds), 3)


def measure_all(root: Path, plan: argparse.Namespace) -> dict[str, Any]:
    size = write_images(root / "images", plan.count)
    write_model(root / "model")
    backend = ["--backend", plan.backend]
    start = time_start(root, backend)
    # From here the graph is kept, as it is for every run but the first long one.
    next(Predictor(root / "model", backend="onnxruntime")([next((root / "images").iterdir())]))
    kinds = {"every pixel": backend, "draft": [*backend, "--draft"]}
    runs = [measure(root, name, flags, plan) for name, flags in kinds.items() if plan.only in (None, name)]
    costs = {"stages_ms": time_stages(root), "readers_per_second": compare_readers(root)}
    costs["draft_grey_levels"] = compare_pixels(root)
    return {"image_bytes": size, "start_up_seconds": start, "runs": runs, **costs}


def main(plan: argparse.Namespace) -> int:
    with tempfile.TemporaryDirectory(dir=plan.work) as name:
        found = measure_all(Path(name), plan)
    shares = {run["name"]: run["share"] for run in found["runs"]}
    start = statistics.median(found["start_up_seconds"])
    result = {
        "command": "python benchmarks/explain_speed.py",
        "environment": describe_environment(
            ("torch", "torchvision", "timm", "numpy", "pillow", "onnxruntime"), seeds=[0]
        ),
        "model": MODEL,
        "classes": CLASSES,
        "side": SIDE,
        "batch_size": BATCH,
        **found,
        "least_share": LEAST_SHARE,
        "longest_start": LONGEST_START,
        "passed": max(shares.values()) >= LEAST_SHARE and start <= LONGEST_START,
    }
    print(json.dumps(result, indent=2))
    write_atomic(choose_out(plan, RESULT), json.dumps(result, indent=2) + "\n")
    return 0 if result["passed"] or plan.quick else 1


def parse() -> argparse.Namespace:
    parser = create_parser(__doc__)
    parser.add_argument("--count", type=int, help="number of images")
    parser.add_argument("--backend", default="auto", help="what runs the network")
    parser.add_argument("--only", choices=("every pixel", "draft"), help="one kind of run")
    parser.add_argument("--work", type=Path, help="folder for temporary files, about 1 GB")
    parser.add_argument("--child", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.count = options.count or (QUICK_COUNT if options.quick else COUNT)
    options.batches = QUICK_BARE_BATCHES if options.quick else BARE_BATCHES
    return options


if __name__ == "__main__":
    options = parse()
    if options.child:
        model, images, batches, backend = options.child
        print(json.dumps(time_bare(Path(model), Path(images), int(batches), backend)))
    else:
        sys.exit(main(options))
