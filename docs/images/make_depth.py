"""Draw the pictures of the study of depth: `python docs/images/make_depth.py FOLDER`, the study's `--work` folder.

`depth-lesions.png` and `depth-elpv.png` show the maps of seed 0 by place, on the first test images of the second class;
`depth-curve.png` shows accuracy and localisation against locality, from `benchmarks/results/evidence_depth.json`.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle
from torch import Tensor

from softcam.bundle import load, load_black_box, read_config
from softcam.data import ImageDataset, read_manifest
from softcam.evaluation.locality import ask, find_busiest
from softcam.evaluation.truth import read_findings
from softcam.files import atomic_path
from softcam.imaging import Preprocessing, overlay, scale_limit
from softcam.metrics import effective_receptive_field
from softcam.nn import SoftCAM, convert

RESULT = Path(__file__).resolve().parents[2] / "benchmarks" / "results" / "evidence_depth.json"
IMAGES = 3
PLACES = ("last stage", "stride 16", "stride 8", "stride 4")
TITLES = {"lesions": "Drawn lesions", "elpv": "Solar cells"}
MAPS = {
    "pointing_game": "pointing game, 16 px",
    "pixel_auroc": "pixel AUROC",
    "activation_precision": "activation precision",
    "topk_precision": "top-3 patches",
}
INK, MUTED, OURS, LIMIT = "#1b1f27", "#59616e", "#00776a", "#b3261e"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path, help="folder of the study")
    options = parser.parse_args()
    save(draw_maps(options.work / "lesions", options.work / "lesions" / "data-0", PLACES), "depth-lesions.png")
    save(draw_maps(options.work / "elpv", options.work / "elpv" / "data", PLACES[:3]), "depth-elpv.png")
    save(draw_curve(json.loads(RESULT.read_text(encoding="utf-8"))), "depth-curve.png")


def save(figure: Figure, name: str) -> None:
    with atomic_path(Path(__file__).with_name(name)) as temporary:
        figure.savefig(temporary, dpi=110, metadata={"Software": None})


def draw_maps(work: Path, data: Path, places: Sequence[str]) -> Figure:
    """Return the maps of each place, with the measured receptive field of the cell that says most.

    Args:
        work: Folder of one data set in the study.
        data: Folder of its images.
        places: Names of models.
    """
    config = read_config(work / "seed-0" / "black box" / "model")
    preprocessing = Preprocessing.from_dict(dict(config.preprocessing or {}))
    manifest = read_manifest(data / "manifest.csv", classes=config.classes).subset("test")
    # The first test images of the second class, in the manifest's order: none is picked by its look.
    rows = [row for row, target in enumerate(manifest.targets) if target == 1][:IMAGES]
    dataset = ImageDataset(manifest, preprocessing)
    images = torch.stack([dataset[row][0] for row in rows]).contiguous(memory_format=torch.channels_last)
    mean, std = (torch.tensor(values).reshape(-1, 1, 1) for values in (preprocessing.mean, preprocessing.std))
    photos = (255 * (images * std + mean).clamp(0, 1)).round().byte().permute(0, 2, 3, 1).numpy()
    findings = read_findings(manifest, rows, preprocessing).truth

    figure = Figure(figsize=(2.3 * (1 + len(places)), 2.4 * len(rows) + 0.4), layout="constrained")
    grid = figure.subplots(len(rows), 1 + len(places))
    for axes, photo, row in zip(grid[:, 0], photos, rows, strict=True):
        axes.imshow(photo)
        if row in findings:
            axes.contour(findings[row], levels=[0.5], colors="white", linewidths=0.7)
    grid[0, 0].set_title("image" + (", lesions outlined" if findings else ""), fontsize=9)
    # Evidence is orange, and so is a fundus: the maps lie on grey.
    grey = photos.mean(axis=3).astype(np.uint8)
    for column, place in zip(grid.T[1:], places, strict=True):
        draw_place(column, place, open_model(work / "seed-0", place, images), images, grey)
    for axes in grid.flat:
        axes.set_axis_off()
        axes.set_xlim(0, photos.shape[2])
        axes.set_ylim(photos.shape[1], 0)
    return figure


def open_model(folder: Path, place: str, images: Tensor) -> SoftCAM:
    if place == "last stage":
        return convert(load_black_box(folder / "black box" / "model"), images=images).eval()
    return load(folder / place / "model").to(memory_format=torch.channels_last)


def draw_place(column: Sequence[Axes], place: str, model: SoftCAM, images: Tensor, photos: np.ndarray) -> None:
    question = ask(model, images, torch.ones(len(images), dtype=torch.long), batch_size=len(images))
    maps = question.all_maps(images)
    cells = find_busiest(maps)
    fields = effective_receptive_field(question.maps, images, cells)
    limit = scale_limit(maps.numpy())
    stride = images.shape[2] / maps.shape[1]
    for number, axes in enumerate(column):
        axes.imshow(overlay(photos[number], maps[number].numpy(), limit, opacity=0.9))
        y, x = ((float(index) + 0.5) * stride for index in cells[number])
        radius = float(fields[number])
        axes.add_patch(Circle((x, y), radius, fill=False, edgecolor="white", linewidth=2.2, clip_on=True))
        axes.add_patch(Circle((x, y), radius, fill=False, edgecolor=INK, linewidth=1.0, clip_on=True))
        title = f"half within {radius:.0f} px"
        axes.set_title(f"{place}, {maps.shape[1]}x{maps.shape[2]}\n{title}" if number == 0 else title, fontsize=9)


def draw_curve(result: Mapping[str, Any]) -> Figure:
    """Return accuracy against the black box, and where maps point, by what a cell depends on."""
    figure = Figure(figsize=(12, 3.6), layout="constrained")
    lesions, cells, maps = figure.subplots(1, 3)
    draw_accuracy(lesions, "lesions", result["lesions"])
    draw_accuracy(cells, "elpv", result["elpv"])
    rows = by_locality(row for row in result["lesions"]["rows"] if row["name"] in PLACES)
    for (name, title), marker in zip(MAPS.items(), "os^D", strict=True):
        values = [row["metrics"][name] for row in rows]
        spread = [[one["value"] - one["low"] for one in values], [one["high"] - one["value"] for one in values]]
        heights = [one["value"] for one in values]
        maps.errorbar([radius(row) for row in rows], heights, yerr=spread, marker=marker, label=title, capsize=2)
    maps.set_ylim(0, 1.02)
    maps.legend(fontsize=7, frameon=False)
    finish(maps, "Drawn lesions: how well maps find them")
    return figure


def draw_accuracy(axes: Axes, name: str, found: Mapping[str, Any]) -> None:
    """Draw the mean difference of AUROC over the seeds, down to the lowest bound, against the black box."""
    rows = by_locality(row for row in found["rows"] if "receptive_field" in row)
    for row in rows:
        height = statistics.mean(one["difference"] for one in row["against"])
        low = min(one["low"] for one in row["against"])
        plain = row["name"] in PLACES
        axes.errorbar(
            radius(row), height, yerr=[[height - low], [0.0]], marker="o", capsize=3, color=OURS if plain else MUTED
        )
        if plain:
            axes.annotate(row["name"], (radius(row), height), xytext=(6, -9), textcoords="offset points", fontsize=8)
    axes.axhline(0.0, color=INK, linewidth=1)
    axes.axhline(-found["margin"], color=LIMIT, linewidth=1, linestyle="--", label="accepted beforehand")
    axes.legend(fontsize=7, frameon=False, loc="center right")
    finish(axes, f"{TITLES[name]}: AUROC less the black box's")


def by_locality(rows: Any) -> list[Mapping[str, Any]]:
    return sorted(rows, key=radius)


def radius(row: Mapping[str, Any]) -> float:
    return statistics.mean(row["receptive_field"])


def finish(axes: Axes, title: str) -> None:
    axes.set_title(title, fontsize=9, loc="left", color=MUTED)
    axes.set_xscale("log", base=2)
    axes.set_xticks([4, 8, 16, 32, 64], labels=["4", "8", "16", "32", "64"])
    axes.set_xlabel("px around a cell that hold half of what it depends on", fontsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8)


if __name__ == "__main__":
    main()
