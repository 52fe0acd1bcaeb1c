"""Speed of the Ray engine: one worker, two, two of which one is killed, and the local engine on the same images.

    python benchmarks/ray_speed.py [--quick]

Every worker has one thread of the model; so has the local engine, whose rate is for the record. All run torch. The
clock of a rate starts when as many shards are finished as there are workers, so that starting them is not counted;
`seconds` counts it. Writes `benchmarks/results/ray_speed.json`.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import ray
import torch
from environment import describe_environment
from options import choose_out, create_parser
from PIL import Image

from softcam.backbones import create_black_box
from softcam.bundle import save
from softcam.distributed import Listed, RaySettings
from softcam.distributed import explain as explain_on_ray
from softcam.files import write_atomic
from softcam.nn import convert
from softcam.predict import Predictor
from softcam.reporting.explanations import explain
from softcam.reporting.inputs import list_entries
from softcam.reporting.places import describe_place, open_places
from softcam.reporting.products import Products

SEED, SIDE, BATCH = 0, 256, 8
LIMIT = 1.8
RESULT = Path(__file__).parent / "results" / "ray_speed.json"


def write_inputs(root: Path, model: str, count: int) -> None:
    torch.manual_seed(SEED)
    save(convert(create_black_box(f"timm:{model}", num_classes=2, weights="none").eval()), root / "model")
    generator = np.random.default_rng(SEED)
    (root / "images").mkdir()
    for index in range(count):
        coarse = Image.fromarray(generator.integers(0, 256, (32, 32, 3), dtype=np.uint8))
        coarse.resize((SIDE, SIDE), Image.Resampling.BILINEAR).save(root / "images" / f"{index:05d}.jpg", quality=90)


def run_ray(
    root: Path, name: str, workers: int, opener: Callable[[Iterable[str]], Any] = open_places
) -> dict[str, Any]:
    out, marks = root / name, []
    inputs = (
        Listed(entry.id, describe_place(entry), entry.frame, entry.refusal, entry.file.stamp)
        for entry in list_entries([root / "images"], exclude=out)
    )
    settings = RaySettings(workers=workers, predictor={"batch_size": BATCH, "device": "cpu", "backend": "torch"})
    summary = explain_on_ray(
        *(root / "model", inputs, out),
        open_places=opener,
        settings=settings,
        progress=lambda _, done, __: marks.append((time.monotonic(), done)),
    )
    ids = pq.read_table(out / "predictions.parquet", columns=["id"])["id"].to_pylist()
    # The first mark is the state at the start; from the last worker's first shard on, all of them work.
    started, last = marks[workers], marks[-1]
    return {
        "workers": workers,
        "rate": (last[1] - started[1]) / (last[0] - started[0]),
        "seconds": summary.seconds,
        "rows": len(ids),
        "distinct": len(set(ids)),
        "repeated": summary.repeated,
    }


def run_local(root: Path) -> dict[str, Any]:
    predictor = Predictor(root / "model", batch_size=BATCH, device="cpu", backend="torch")
    started = time.monotonic()
    summary = explain(predictor, [root / "images"], root / "local", products=Products(overlays=False))
    seconds = time.monotonic() - started
    return {"rate": summary.done / seconds, "seconds": seconds, "rows": summary.done}


def make_killer(marker: Path, victim: str) -> Callable[[Iterable[str]], Any]:
    def open_or_die(places: Iterable[str]) -> Any:
        places = list(places)
        if any(victim in place for place in places) and not marker.exists():
            marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return open_places(places)

    return open_or_die


def measure(root: Path, rounds: int, count: int) -> dict[str, Any]:
    options = {"num_cpus": 2, "include_dashboard": False, "log_to_driver": False, "object_store_memory": 2**27}
    ray.init(address="local", **options)
    runs: dict[str, list[dict[str, Any]]] = {"one": [], "two": []}
    for number in range(rounds):
        for name, workers in (("one", 1), ("two", 2)):
            runs[name].append(run_ray(root, f"{name}-{number}", workers))
    killed = run_ray(root, "killed", 2, make_killer(root / "marker", f"{count // 2:05d}.jpg"))
    ray.shutdown()
    return {**runs, "killed": killed, "local": run_local(root)}


def main(options: argparse.Namespace) -> int:
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    torch.set_num_threads(1)
    model, count, rounds = ("test_resnet", 48, 1) if options.quick else ("resnet50", 192, 2)
    with tempfile.TemporaryDirectory() as name:
        write_inputs(Path(name), model, count)
        runs = measure(Path(name), rounds, count)
    ratios = [two["rate"] / one["rate"] for one, two in zip(runs["one"], runs["two"], strict=True)]
    whole = all(run["rows"] == run["distinct"] == count for run in [*runs["one"], *runs["two"], runs["killed"]])
    result = {
        "command": "python benchmarks/ray_speed.py",
        "environment": describe_environment(("torch", "timm", "ray", "pyarrow", "pillow"), seeds=[SEED]),
        "seed": SEED,
        "model": f"timm:{model}",
        "images": count,
        "side": SIDE,
        **runs,
        "ratios": ratios,
        "ratio": statistics.median(ratios),
        "limit": LIMIT,
        "passed": whole and runs["killed"]["repeated"] > 0 and statistics.median(ratios) >= LIMIT,
    }
    print(json.dumps(result, indent=2))
    write_atomic(choose_out(options, RESULT), json.dumps(result, indent=2) + "\n")
    return 0 if result["passed"] or options.quick else 1


if __name__ == "__main__":
    sys.exit(main(create_parser(__doc__).parse_args()))
