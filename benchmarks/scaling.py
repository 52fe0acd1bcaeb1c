"""What explaining costs by stage, on many machines and for very many images: `python benchmarks/scaling.py`.

Measured on one core with one thread: reading a JPEG of 1024 px from the page cache, decoding, resizing, the forward
pass to logits and maps in batches, and writing the evidence to disk. One and two workers, each a process of the
`Predictor` bound to a core of its own, are timed on the same images. `throughput.py` has the formula for many machines
and the simulation that it is checked against here. What was not measured is an assumption, named in the results and
settable: `--estimate --images 1e9 --machines 100` prints the cost for a cluster of your own from the committed results
and measures nothing. Writes `benchmarks/results/scaling.json`.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from environment import describe_environment
from options import choose_out, create_parser
from PIL import Image
from throughput import Cluster, Forecast, Job, forecast, simulate
from timing import find_quartiles

from softcam.files import write_atomic

RESULT = Path(__file__).parent / "results" / "scaling.json"
MODELS = ("timm:resnet50", "timm:tf_efficientnet_lite0")
CLASSES, SIDE, BATCH, DRAWINGS, SEEDS = 1000, 1024, 8, 8, (0, 1, 2, 3, 4)
STAGES = ("read", "decode", "resize", "forward", "write")
COUNTS, MACHINES = (10**6, 10**9), (1, 10, 100, 1000)
GRIDS, KINDS = (7, 14, 28), {"float32": 4, "float16": 2}
GBIT = 1e9 / 8
SCENARIOS: dict[str, dict[str, float]] = {
    "alike": {"spread": 0.0},
    "stragglers": {"spread": 0.2},
    "failures": {"failures": 0.05},
    "slow network": {"network": 0.1 * GBIT},
    "slow store": {"store": 2 * GBIT},
}


def main() -> int:
    options = parse()
    if options.child:
        work(Path(options.child[0]), Path(options.child[1]), int(options.child[2]))
        return 0
    if options.estimate:
        print(render_estimate(json.loads(RESULT.read_text(encoding="utf-8")), options))
        return 0
    names = MODELS[1:] if options.quick else MODELS
    repeats, images, rounds = (1, 16, 1) if options.quick else (7, 160, 3)
    with tempfile.TemporaryDirectory() as folder:
        size = write_images(Path(folder) / "images", DRAWINGS)
        stages = [measure_stages(name, Path(folder), size, repeats=repeats) for name in names]
        workers = [
            measure_workers(row, Path(folder), workers=count, images=images, rounds=rounds)
            for row in stages
            for count in (1, 2)
        ]
    result = {
        "command": "python benchmarks/scaling.py",
        "environment": describe_environment(("torch", "torchvision", "timm", "numpy", "pillow"), seeds=SEEDS),
        "setting": {"side": SIDE, "batch_size": BATCH, "classes": CLASSES, "threads": 1, "images": images},
        "stages": stages,
        "workers": workers,
        "assumptions": describe_assumptions(options),
        "checks": [check(row, name, options) for row in stages for name in SCENARIOS],
        "costs": [estimate(row, int(count), options) for row in stages for count in COUNTS],
        "storage": list_storage(),
    }
    write_atomic(choose_out(options, RESULT), json.dumps(result, indent=2) + "\n")
    print(json.dumps({"stages": stages, "workers": workers}, indent=2))
    return 0


def parse() -> argparse.Namespace:
    parser = create_parser(__doc__)
    parser.add_argument("--estimate", action="store_true", help="print costs from the committed results alone")
    parser.add_argument("--images", type=float, default=1e6, help="for --estimate")
    parser.add_argument("--machines", type=int, default=10, help="for --estimate")
    parser.add_argument("--cores", type=int, default=16, help="of each machine")
    parser.add_argument("--network-gbit", type=float, default=10.0, help="of each machine, in Gbit/s")
    parser.add_argument("--store-gbit", type=float, default=100.0, help="of the store of all machines, in Gbit/s")
    parser.add_argument("--start", type=float, default=60.0, help="seconds until the first image")
    parser.add_argument("--failures", type=float, default=0.001, help="of one machine per hour")
    parser.add_argument("--price", type=float, default=0.04, help="of one core for an hour, in any currency")
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    return parser.parse_args()


def write_images(folder: Path, count: int) -> int:
    """Write JPEGs with the entropy of photographs and return their mean size in bytes."""
    folder.mkdir()
    for number in range(count):
        generator = np.random.default_rng(number)
        mixed = np.full((SIDE, SIDE, 3), 128.0)
        for cells, strength in ((12, 90), (96, 40), (512, 24)):
            noise = Image.fromarray(generator.integers(0, 256, (cells, cells, 3), dtype=np.uint8))
            smooth = noise.resize((SIDE, SIDE), Image.Resampling.BICUBIC)
            mixed += (np.asarray(smooth, np.float64) - 128) * (strength / 128)
        Image.fromarray(np.clip(mixed, 0, 255).astype(np.uint8)).save(folder / f"{number:03d}.jpg", quality=90)
    return sum(path.stat().st_size for path in folder.iterdir()) // count


def write_model(folder: Path, name: str) -> Path:
    """Write a bundle, unless it is there."""
    import torch  # noqa: PLC0415 - an estimate needs none of it

    from softcam.backbones import create_black_box  # noqa: PLC0415
    from softcam.bundle import save  # noqa: PLC0415
    from softcam.nn import convert  # noqa: PLC0415

    path = folder / name.replace(":", "-")
    if not path.is_dir():
        torch.manual_seed(0)
        save(convert(create_black_box(name, num_classes=CLASSES, weights="none").eval()), path)
    return path


def measure_stages(name: str, folder: Path, image_bytes: int, *, repeats: int) -> dict[str, Any]:
    """Return the milliseconds of each stage per image on one core: medians and quartiles over repeats."""
    import torch  # noqa: PLC0415

    from softcam.imaging import decode_image  # noqa: PLC0415
    from softcam.predict import Predictor  # noqa: PLC0415

    torch.set_num_threads(1)
    predictor = Predictor(write_model(folder, name), batch_size=BATCH, device="cpu")
    paths = sorted((folder / "images").iterdir())
    contents = [path.read_bytes() for path in paths]
    decoded = [decode_image(content) for content in contents]
    inputs = torch.stack([predictor.preprocessing(image)[0] for image in decoded])
    batch = inputs[torch.arange(BATCH) % len(inputs)].contiguous(memory_format=torch.channels_last)
    (prediction, *_) = predictor(decoded[:1])
    evidence = encode(prediction)

    def forward() -> None:
        with torch.inference_mode():
            predictor.model.evidence(batch)

    calls: dict[str, tuple[Callable[[], object], int]] = {
        "read": (lambda: [path.read_bytes() for path in paths], len(paths)),
        "decode": (lambda: [decode_image(content) for content in contents], len(contents)),
        "resize": (lambda: [predictor.preprocessing(image) for image in decoded], len(decoded)),
        "forward": (forward, BATCH),
        "write": (lambda: [write_atomic(folder / "w" / f"{n}.npz", encode(prediction)) for n in range(8)], 8),
    }
    times: dict[str, list[float]] = {stage: [] for stage in STAGES}
    for repeat in range(repeats + 1):
        for stage, (call, count) in calls.items():
            started = time.perf_counter()
            call()
            if repeat:
                times[stage].append(1000 * (time.perf_counter() - started) / count)
    totals = [sum(one) for one in zip(*times.values(), strict=True)]
    row: dict[str, Any] = {"model": name, "image_bytes": image_bytes, "evidence_bytes": len(evidence)}
    row["grid"] = list(prediction.maps.shape[1:])
    for stage, found in {**times, "total": totals}.items():
        row[f"{stage}_ms"] = round(statistics.median(found), 3)
        row[f"{stage}_ms_quartiles"] = find_quartiles(found, digits=3)
    return row


def encode(prediction: Any) -> bytes:
    """Return the evidence of a prediction as a file, as it is: packing takes longer than all else and gains little."""
    stream = io.BytesIO()
    np.savez(stream, maps=prediction.maps, logits=prediction.logits)
    return stream.getvalue()


def measure_workers(row: dict[str, Any], folder: Path, *, workers: int, images: int, rounds: int) -> dict[str, Any]:
    """Return the rate of workers that share images, each on a core of its own, beside what the stages add up to."""
    share = images // workers
    command = [sys.executable, "-W", "ignore", __file__, "--child", str(write_model(folder, row["model"]))]
    options: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    options["env"] = {**os.environ, "OMP_NUM_THREADS": "1"}
    running = [subprocess.Popen([*command, str(folder / "images"), str(share)], **options) for _ in range(workers)]
    bind(running)
    for process in running:
        read_line(process)
    rates = [share * workers / time_round(running) for _ in range(rounds)]
    for process in running:
        process.communicate()
    predicted, rate = 1000 * workers / row["total_ms"], statistics.median(rates)
    return {
        "model": row["model"],
        "workers": workers,
        "per_second": round(rate, 3),
        "per_second_quartiles": find_quartiles(rates),
        "predicted": round(predicted, 3),
        "share_of_predicted": round(rate / predicted, 4),
    }


def time_round(running: Sequence[subprocess.Popen[str]]) -> float:
    """Return the seconds until all workers have done their share."""
    started = time.perf_counter()
    for process in running:
        print("go", file=process.stdin, flush=True)
    for process in running:
        read_line(process)
    return time.perf_counter() - started


def bind(running: Sequence[subprocess.Popen[str]]) -> None:
    """Give each process a core of its own, where the system can."""
    if not hasattr(os, "sched_setaffinity"):
        return
    cores = sorted(os.sched_getaffinity(0))
    for number, process in enumerate(running):
        os.sched_setaffinity(process.pid, {cores[number % len(cores)]})


def read_line(process: subprocess.Popen[str]) -> str:
    line = process.stdout.readline() if process.stdout else ""
    if not line:
        raise SystemExit("Expected a worker to go on, but it ended. See what it said above.")
    return line


def work(model: Path, images: Path, count: int) -> None:
    """Be a worker: load, warm up, and explain and write a share of images at every word."""
    import torch  # noqa: PLC0415

    from softcam.predict import Predictor  # noqa: PLC0415

    torch.set_num_threads(1)
    paths = sorted(images.iterdir())
    predictor = Predictor(model, batch_size=BATCH, device="cpu")
    list(predictor(paths[:BATCH]))
    with tempfile.TemporaryDirectory() as folder:
        print("ready", flush=True)
        for _ in sys.stdin:
            for number, prediction in enumerate(predictor(paths[n % len(paths)] for n in range(count))):
                write_atomic(Path(folder) / f"{number}.npz", encode(prediction))
            print("done", flush=True)


def describe_assumptions(options: argparse.Namespace) -> dict[str, Any]:
    """Return what is not measured."""
    return {
        "cores_of_machine": options.cores,
        "network_gbit": options.network_gbit,
        "store_gbit": options.store_gbit,
        "start_seconds": options.start,
        "failures_per_machine_hour": options.failures,
        "price_per_core_hour": options.price,
        "images_per_task": Job(1, 1, 1, 1).task,
        "repair_seconds": create_cluster(1, options).repair,
        "spread_of_speed": create_cluster(1, options).spread,
    }


def create_job(row: dict[str, Any], images: int) -> Job:
    return Job(images, row["total_ms"] / 1000, row["image_bytes"], row["evidence_bytes"])


def create_cluster(machines: int, options: argparse.Namespace) -> Cluster:
    network, store = options.network_gbit * GBIT, options.store_gbit * GBIT
    return Cluster(machines, options.cores, network, store, start=options.start, failures=options.failures)


def check(row: dict[str, Any], scenario: str, options: argparse.Namespace) -> dict[str, Any]:
    """Return the formula's time beside that of the simulation, for a million images on ten machines."""
    job = create_job(row, COUNTS[0])
    cluster = replace(create_cluster(10, options), **SCENARIOS[scenario])  # type: ignore[arg-type]
    found = forecast(job, cluster)
    ratios = [simulate(job, cluster, seed=seed) / found.seconds for seed in SEEDS]
    return {
        "model": row["model"],
        "scenario": scenario,
        "bound": found.bound,
        "forecast_hours": round(found.seconds / 3600, 3),
        "simulated_to_forecast": round(statistics.median(ratios), 4),
        "simulated_to_forecast_range": [round(min(ratios), 4), round(max(ratios), 4)],
    }


def estimate(row: dict[str, Any], images: int, options: argparse.Namespace) -> dict[str, Any]:
    """Return what images cost: core hours, money, and time on several numbers of machines."""
    job = create_job(row, images)
    core_hours = images * job.core_seconds / 3600
    return {
        "model": row["model"],
        "images": images,
        "core_hours": round(core_hours, 1),
        "price": round(core_hours * options.price, 1),
        "read_terabytes": round(images * row["image_bytes"] / 1e12, 3),
        "written_terabytes": round(images * row["evidence_bytes"] / 1e12, 3),
        "times": [describe_time(machines, forecast(job, create_cluster(machines, options))) for machines in MACHINES],
    }


def describe_time(machines: int, found: Forecast) -> dict[str, Any]:
    return {"machines": machines, "hours": round(found.seconds / 3600, 2), "bound": found.bound}


def list_storage() -> list[dict[str, Any]]:
    """Return the bytes of one image's maps by grid, classes and number format; nothing but the numbers themselves."""
    return [
        {
            "grid": grid,
            "classes": classes,
            **{f"{kind}_bytes": grid * grid * classes * size for kind, size in KINDS.items()},
        }
        for grid in GRIDS
        for classes in (2, 1000)
    ]


def render_estimate(result: dict[str, Any], options: argparse.Namespace) -> str:
    lines = []
    for row in result["stages"]:
        job = create_job(row, int(options.images))
        found = forecast(job, create_cluster(options.machines, options))
        hours = job.images * job.core_seconds / 3600
        written = job.images * row["evidence_bytes"] / 1e12
        lines.append(
            f"{row['model']}: {job.images:,} images on {options.machines} machines of {options.cores} cores: "
            f"{found.seconds / 3600:.2f} hours ({found.per_second:,.0f} images/s, bound by the {found.bound}); "
            f"{hours:,.0f} core hours, {hours * options.price:,.0f} at {options.price:g} each; "
            f"{written:,.2f} TB of evidence"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
