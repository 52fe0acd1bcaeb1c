"""Where should the evidence sit, and what does it cost? `python benchmarks/evidence_depth.py --work FOLDER`.

On drawn fundus photographs whose lesions are known to the pixel, and on the solar cells: a black box, and models whose
class evidence layer sits where it pools, or earlier, trained in several ways. Every model of a seed is measured on the
same test images: AUROC against the black box's (DeLong, over patients), how local a cell is, and, where the findings
are known, how well its maps find them, beside those of post-hoc methods on the black box at its last stage and at the
same places. Differences are paired, over the test images of all seeds, with intervals over patients. The arms were
chosen on the validation images of seed 0. Work that was ended goes on. Writes `benchmarks/results/evidence_depth.json`.
"""

from __future__ import annotations

import argparse
import json
import sys
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from depth_arms import PLANS, Arm, Plan
from depth_measure import WINDOWS, Bench, Values, convert_black_box, create_bench, measure_model, measure_peers
from environment import describe_environment

from softcam.bundle import load
from softcam.data import Manifest
from softcam.data.sources import prepare_source
from softcam.data.synthesis import LesionSettings, synthesize_lesions
from softcam.files import write_atomic
from softcam.imaging import decode_image
from softcam.metrics import bootstrap_interval, holm, paired_bootstrap
from softcam.training import Recipe, TrainingRun, train
from softcam.training.preparation import choose_preprocessing

RESULT = Path(__file__).parent / "results" / "evidence_depth.json"
LAYERS = {"last stage": None, "stride 16": "blocks.4", "stride 8": "blocks.2"}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder for data, runs and what was measured")
    parser.add_argument("--data", choices=sorted(PLANS), nargs="+", default=sorted(PLANS))
    parser.add_argument("--seeds", type=int, nargs="+", default=None, help="the result is then not written")
    parser.add_argument("--arms", nargs="+", default=None, help="names of models; the result is then not written")
    options = parser.parse_args()
    result: dict[str, Any] = {
        "environment": describe_environment(seeds=sorted({seed for plan in PLANS.values() for seed in plan.seeds})),
        "windows": list(WINDOWS),
        "images": {},
    }
    for name in options.data:
        plan = PLANS[name]
        arms = [arm for arm in plan.arms if options.arms is None or arm.name in options.arms]
        studies = []
        for seed in options.seeds or plan.seeds:
            study = Seed(plan, name, options.work / name, seed)
            studies.append([study.run_arm(arm) for arm in arms] + study.run_peers())
        result[name] = {"seeds": plan.seeds, **summarize(plan, studies)}
        result["images"][name] = count(study.manifest)
    if (set(options.data), options.seeds, options.arms) == (set(PLANS), None, None):
        write_atomic(RESULT, json.dumps(result, indent=2) + "\n")
    return 0


def count(manifest: Manifest) -> dict[str, int]:
    """Return how many images are in each split."""
    return {split: len(manifest.subset(split)) for split in ("train", "val", "test")}


def prepare(name: str, work: Path, seed: int) -> Manifest:
    """Return the images of a seed: lesions are drawn anew for each, solar cells are what they are."""
    if name == "elpv":
        return prepare_source("elpv", work / "data")
    return synthesize_lesions(work / f"data-{seed}", LesionSettings(seed=seed))


class Seed:
    """The runs of one seed on one data set, and what was measured of them; all of it is kept in a folder."""

    def __init__(self, plan: Plan, name: str, work: Path, seed: int, *, manifest: Manifest | None = None) -> None:
        self.plan, self.name, self.seed = plan, name, seed
        self.manifest = prepare(name, work, seed) if manifest is None else manifest
        self.source = self.manifest.root / "manifest.csv"
        self.folder = work / f"seed-{seed}"
        self.black_box = self.train(plan.black_box(self.source, seed)).path

    def train(self, recipe: Recipe) -> TrainingRun:
        """Train by a recipe, or take the run that is there."""
        run = train(recipe, self.folder / recipe.name, cache_dir=self.folder / "cache", progress=False)
        found = f"validation AUROC {run.metrics['val_auroc']:.4f}, {run.seconds:.0f} s"
        print(f"{self.name}, seed {self.seed}, {recipe.name}: {found}", file=sys.stderr, flush=True)
        return run

    @cached_property
    def bench(self) -> Bench:
        """The test images."""
        return create_bench(self.manifest.subset("test"), self.black_box)

    @cached_property
    def example(self) -> torch.Tensor:
        """One image as the network sees it."""
        recipe = self.plan.black_box(self.source, self.seed)
        return choose_preprocessing(recipe)(decode_image(self.manifest.paths[0]))[0][None]

    def run_arm(self, arm: Arm) -> dict[str, Any]:
        """Train and measure a model."""
        run = None
        if arm.trained:
            run = self.train(self.plan.recipe(self.source, self.seed, arm, self.example, self.black_box))
        path = self.folder / f"{arm.name}.json"
        if not path.is_file():
            model = convert_black_box(self.bench) if run is None else load(run.model_path)
            model.to(memory_format=torch.channels_last)
            row, values = measure_model(model, self.bench, margin=self.plan.margin)
            self.keep(
                path, {"name": arm.name, "l1": arm.l1, "seconds": 0 if run is None else run.seconds, **row}, values
            )
        return read(path)

    def run_peers(self) -> list[dict[str, Any]]:
        """Measure the post-hoc methods on the black box."""
        path = self.folder / "peers.json"
        if not path.is_file():
            peers = measure_peers(self.bench, LAYERS)
            for name, values in peers.items():
                self.keep(self.folder / f"peer {name}.json", {"name": name}, values)
            write_atomic(path, json.dumps(list(peers)))
        return [read(self.folder / f"peer {name}.json") for name in json.loads(path.read_text(encoding="utf-8"))]

    def keep(self, path: Path, row: dict[str, Any], values: Values) -> None:
        """Write what was measured, with the patient of each located image."""
        patients = [str(name) for name in self.bench.patients[self.bench.located]]
        record = {**row, "values": {name: found.tolist() for name, found in values.items()}, "patients": patients}
        write_atomic(path, json.dumps(record))


def read(path: Path) -> dict[str, Any]:
    record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return record


def summarize(plan: Plan, studies: list[list[dict[str, Any]]]) -> dict[str, Any]:
    """Return one row per model or method over all seeds, and paired differences between maps.

    Args:
        plan: What was compared.
        studies: By seed, what was measured, in the same order.
    """
    together = [gather(rows) for rows in zip(*studies, strict=True)]
    models = [row for row in together if "auroc" in row]
    peers = [row for row in together if "auroc" not in row]
    pairs = [(model, other) for model in models[1:] for other in (models[0], *peers)]
    differences = [
        {"model": model["name"], "against": other["name"], **compare(model, other, metric)}
        for model, other in pairs
        for metric in model["values"]
    ]
    adjusted = holm([row["p"] for row in differences]).tolist() if differences else []
    differences = [row | {"p_holm": p} for row, p in zip(differences, adjusted, strict=True)]
    return {
        "margin": plan.margin,
        "rows": [{key: value for key, value in row.items() if key not in ("values", "patients")} for row in together],
        "differences": differences,
    }


def gather(rows: tuple[dict[str, Any], ...]) -> dict[str, Any]:
    """Return the row of one model or method over all seeds: a list per number, intervals for the metrics of maps."""
    first = rows[0]
    patients = [f"{seed} {name}" for seed, row in enumerate(rows) for name in row["patients"]]
    values = {metric: np.concatenate([row["values"][metric] for row in rows]) for metric in first["values"]}
    same = ("name", "l1", "places", "map_stride")
    listed = {key: [row[key] for row in rows] for key in first if key not in (*same, "values", "patients")}
    intervals = {name: bootstrap_interval(found, groups=patients)._asdict() for name, found in values.items()}
    fixed = {key: first[key] for key in same if key in first}
    return {**fixed, **listed, "metrics": intervals, "values": values, "patients": patients}


def compare(model: dict[str, Any], other: dict[str, Any], metric: str) -> dict[str, Any]:
    found = paired_bootstrap(model["values"][metric], other["values"][metric], groups=model["patients"])
    ratio = float(np.nanmean(model["values"][metric]) / np.nanmean(other["values"][metric]))
    return {
        "metric": metric, "difference": found.value, "low": found.low, "high": found.high, "n": found.n,
        "p": found.p_value, "ratio": ratio,
    }  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
