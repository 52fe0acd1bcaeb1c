"""Speed and memory of `softcam data prepare rsna`: radiographs per second and core, and memory that stays flat.

    python benchmarks/prepare_speed.py

A download in the official layout is written with as many DICOM files as are asked for, each 1024 x 1024 pixels in JPEG
baseline as the challenge has them. Every count runs in a fresh process, with one worker (in the process itself) and
with one per core; the time includes reading the tables and writing the manifest. The rate per core is that of one
worker by its processor time, which does not depend on what else the machine does; wall-clock time is given as well.
Memory is that of the process and its workers together, looked at from outside four times a second, without the
libraries' own files; what they share counts once. Writes `benchmarks/results/prepare_speed.json`.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from environment import describe_environment
from options import choose_out, create_parser
from PIL import Image, ImageFilter
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import JPEGBaseline8Bit, SecondaryCaptureImageStorage, generate_uid

from softcam.cores import count_cores
from softcam.data.sources import PreparationSettings, prepare_download
from softcam.files import write_atomic

COUNTS, QUICK_COUNTS = (200, 800), (8, 16)
SIDE, SIZE = 1024, 512
LEAST_RATE, MOST_GROWTH = 60.0, 1.1
RESULT = Path(__file__).parent / "results" / "prepare_speed.json"


def draw_radiograph(seed: int) -> Image.Image:
    """Draw grey fields of several sizes and grain, whose JPEG is about as large as that of a radiograph."""
    generator = np.random.default_rng(seed)
    coarse = Image.fromarray(generator.integers(40, 200, (12, 12), dtype=np.uint8)).resize((SIDE, SIDE), 3)
    grain = Image.fromarray(generator.integers(96, 160, (SIDE, SIDE), dtype=np.uint8)).filter(
        ImageFilter.GaussianBlur(1)
    )
    mixed = np.asarray(coarse, np.int16) + np.asarray(grain, np.int16) - 128
    return Image.fromarray(np.clip(mixed, 0, 255).astype(np.uint8))


def write_dicom(path: Path, image: Image.Image, name: str) -> None:
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=90)
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID = SecondaryCaptureImageStorage
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID = generate_uid()
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = generate_uid(), generate_uid()
    dataset.PatientID, dataset.Modality, dataset.PixelSpacing = name, "CR", [0.143, 0.143]
    dataset.Rows = dataset.Columns = SIDE
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation, dataset.PixelRepresentation = 1, "MONOCHROME2", 0
    dataset.BitsAllocated = dataset.BitsStored = 8
    dataset.HighBit = 7
    dataset.LossyImageCompression = "01"
    dataset.PixelData = encapsulate([stream.getvalue()])
    dataset.save_as(path, enforce_file_format=True)


def write_download(folder: Path, count: int) -> int:
    """Write a download and return the mean size of its images in bytes."""
    images = folder / "stage_2_train_images"
    images.mkdir(parents=True)
    labels, details = ["patientId,x,y,width,height,Target"], ["patientId,class"]
    drawings = [draw_radiograph(seed) for seed in range(8)]
    for number in range(count):
        name = f"{number:08d}"
        write_dicom(images / f"{name}.dcm", drawings[number % len(drawings)], name)
        labels.append(f"{name},100,200,300,400,1" if number % 3 == 0 else f"{name},,,,,0")
        details.append(f"{name},{'Lung Opacity' if number % 3 == 0 else 'Normal'}")
    (folder / "stage_2_train_labels.csv").write_text("\n".join(labels) + "\n")
    (folder / "stage_2_detailed_class_info.csv").write_text("\n".join(details) + "\n")
    return sum(path.stat().st_size for path in images.iterdir()) // count


def watch(process: subprocess.Popen[str]) -> float:
    """Return the largest memory, in MiB, that a process and all that it started had until it ended."""
    peak = 0.0
    while process.poll() is None:
        peak = max(peak, sum(_resident(member) for member in _family(process.pid)))
        time.sleep(0.25)
    return peak


def _family(process: int) -> list[int]:
    found = [process]
    for task in Path(f"/proc/{process}/task").glob("*/children"):
        try:
            found += [member for child in task.read_text().split() for member in _family(int(child))]
        except OSError:
            continue
    return found


def _resident(process: int) -> float:
    # Proportional: what worker processes share counts once. Anonymous: libraries, which other programs share, do not.
    try:
        lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("Pss_Anon:")), 0.0)


def run_child(source: Path, out: Path, workers: int) -> None:
    started, busy = time.perf_counter(), time.process_time()
    found = prepare_download("rsna", source, out, PreparationSettings(size=SIZE, workers=workers))
    seconds = {"seconds": time.perf_counter() - started}
    # What worker processes spend is not this one's to count.
    seconds |= {"processor_seconds": time.process_time() - busy} if workers == 1 else {}
    print(json.dumps({"images": len(found.manifest), "skipped": len(found.skipped), **seconds}))


def measure(root: Path, count: int, workers: int) -> dict[str, Any]:
    source = root / f"download-{count}"
    size = write_download(source, count) if not source.is_dir() else None
    out = root / f"out-{count}-{workers}"
    command = [sys.executable, __file__, "--child", str(source), str(out), str(workers)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        peak = watch(process)
        printed = process.communicate()[0]
    found = json.loads(printed.splitlines()[-1]) | {"peak_mib": peak}
    written = sum(path.stat().st_size for path in (out / "images").iterdir()) // max(found["images"], 1)
    rates = {"per_second": found["images"] / found["seconds"]}
    if workers == 1:
        rates["per_second_and_core"] = found["images"] / found["processor_seconds"]
    return {
        "workers": workers,
        **({} if size is None else {"source_bytes": size}),
        "written_bytes": written,
        **{name: round(value, 2) for name, value in found.items()},
        **{name: round(value, 1) for name, value in rates.items()},
    }


def main(options: argparse.Namespace) -> int:
    cores = count_cores()
    counts, kinds = (QUICK_COUNTS, [1]) if options.quick else (COUNTS, sorted({1, cores}))
    with tempfile.TemporaryDirectory() as name:
        runs = [measure(Path(name), count, workers) for count in counts for workers in kinds]
    single = [run for run in runs if run["workers"] == 1]
    growth = max(
        runs[-1 - offset]["peak_mib"] / runs[len(runs) // 2 - 1 - offset]["peak_mib"]
        for offset in range(len(runs) // 2)
    )
    rate = single[-1]["per_second_and_core"]
    result = {
        "command": "python benchmarks/prepare_speed.py",
        "environment": describe_environment(("pydicom", "pylibjpeg", "pillow", "numpy", "pandas"), seeds=range(8)),
        "side": SIDE,
        "size": SIZE,
        "runs": runs,
        "per_second_and_core": rate,
        "least": LEAST_RATE,
        "memory_growth": round(growth, 4),
        "most": MOST_GROWTH,
        "passed": rate >= LEAST_RATE and growth <= MOST_GROWTH,
    }
    write_atomic(choose_out(options, RESULT), json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))
    # A few images say nothing about rates.
    return 0 if result["passed"] or options.quick else 1


if __name__ == "__main__":
    parser = create_parser(__doc__)
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        run_child(Path(options.child[0]), Path(options.child[1]), int(options.child[2]))
    else:
        sys.exit(main(options))
