"""K trainings, each of which leaves out other images: every image is judged by a model that never saw it."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from softcam.data import Manifest, assign_splits
from softcam.errors import ManifestError, RunError
from softcam.files import write_atomic
from softcam.metrics import Interval
from softcam.runs import RECORD, check_same_run, hold, plain, write_table
from softcam.training.crew import find_crew
from softcam.training.hardware import Hardware
from softcam.training.held_out import HeldOut, measure_together, name_units, predict_held_out
from softcam.training.preparation import load_manifest
from softcam.training.recipe import Recipe
from softcam.training.run import claim, train
from softcam.training.values import require

UNIT = "unit of a fold"
"""Column that holds together what has to be in the same fold, while they are assigned."""


@dataclass(frozen=True)
class FoldsRun:
    """K finished trainings.

    Args:
        path: Their folder.
        metrics: Per metric its value in each fold, on the images that the fold left out; NaN where it is undefined.
        together: Metrics of the predictions of all folds together, with 95 % intervals over patients.
        seconds: Wall-clock time of the call that finished them.
    """

    path: Path
    metrics: Mapping[str, tuple[float, ...]]
    together: Mapping[str, Interval]
    seconds: float

    def mean(self, metric: str) -> float:
        """Return the mean of a metric over the folds in which it is defined; NaN where that is none."""
        defined = self._defined(metric)
        return float(defined.mean()) if defined.size else float("nan")

    def spread(self, metric: str) -> float:
        """Return its standard deviation between folds; NaN where it is defined in fewer than two."""
        defined = self._defined(metric)
        return float(defined.std(ddof=1)) if defined.size > 1 else float("nan")

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON-ready values; NaN becomes None."""
        metrics = {
            name: {"mean": self.mean(name), "spread": self.spread(name), "folds": list(values)}
            for name, values in self.metrics.items()
        }
        together = {name: found._asdict() for name, found in self.together.items()}
        return {"metrics": plain(metrics), "together": plain(together), "seconds": self.seconds}

    def _defined(self, metric: str) -> NDArray[np.float64]:
        values = np.asarray(self.metrics[metric], dtype=np.float64)
        found: NDArray[np.float64] = values[~np.isnan(values)]
        return found


def train_folds(
    recipe: Recipe,
    out: str | Path,
    *,
    folds: int,
    manifest: Manifest | None = None,
    progress: bool = True,
    hardware: Hardware | None = None,
) -> FoldsRun:
    """Train K models: each leaves one fold out, chooses its epoch on the next one, and learns from the rest.

    Writes `fold-1/` to `fold-K/`, each as `train` does, `folds.csv`, `predictions.csv` (what each image got from the
    model that left it out) and, last, `run.json`. The same call goes on where it was interrupted.

    Args:
        recipe: Everything that decides a training; its seed also draws the folds.
        out: Folder of the runs, created if needed.
        folds: K, >= 3.
        manifest: Table of images; by default the one that the recipe names. Its splits `train` and `val` are joined,
            images of the split `test` are left out of everything.
        progress: Whether progress is shown on stderr.
        hardware: What the runs are computed with; several devices are started from here.

    Raises:
        RecipeError: If there are fewer than three folds, or the recipe does not fit the backbone.
        ManifestError: If there are too few patients, or a fold would lack a class.
        RunError: If `out` holds something else or is in use, or `torchrun` or SLURM started several processes.
    """
    require(folds >= 3, "folds", ">= 3: one to leave out, one to choose the epoch, one to learn from", folds)
    started, folder = time.perf_counter(), Path(out)
    if find_crew(hardware or Hardware()).world > 1:
        raise RunError("Expected folds to be trained from one process, but got several. Use `--devices`.")
    with hold(folder):
        claim(folder, recipe, is_first=True)
        table = load_manifest(recipe, folder) if manifest is None else manifest
        identity = {"folds": folds, "data_digest": table.digest()}
        if (folder / RECORD).is_file():
            return _read(folder, identity)
        held = []
        for number, one in enumerate(split_folds(table, folds, seed=recipe.seed), start=1):
            place = folder / f"fold-{number}"
            run = train(recipe, place, manifest=one, cache_dir=folder / "cache", progress=progress, hardware=hardware)
            held.append(predict_held_out(run, one.subset("test"), number, batch_size=recipe.data.batch_size))
        return _finish(folder, held, identity, started)


def split_folds(manifest: Manifest, folds: int, *, seed: int) -> tuple[Manifest, ...]:
    """Return a table for each fold, in which it is the split `test`, the next one `val` and the rest `train`.

    The images of a patient are in one fold, and each fold has about its share of each label.

    Args:
        manifest: The images; those whose split is `test` are left out.
        folds: K, >= 3.
        seed: Draws other folds for another number.

    Raises:
        ManifestError: If there are too few patients, or a fold would lack a class.
    """
    table = manifest.table
    pool = manifest.take(np.flatnonzero(table["split"] != "test")) if "split" in table else manifest
    numbers = _assign(pool, folds, seed)
    _check_classes(pool, numbers, folds)
    tables = []
    for number in range(folds):
        split = np.full(len(pool), "train", dtype=object)
        split[numbers == (number + 1) % folds] = "val"
        split[numbers == number] = "test"
        tables.append(Manifest(pool.table.assign(split=split), pool.root, pool.classes, pool.task, rows=pool.rows))
    return tuple(tables)


def _assign(manifest: Manifest, folds: int, seed: int) -> NDArray[np.int64]:
    """Return the number of each image's fold, from 0."""
    units = name_units(manifest)
    count = len(set(units.tolist()))
    if count < folds:
        raise ManifestError([f"Expected at least {folds} patients for {folds} folds, but got {count}."])
    labels = ["label"] if manifest.task == "multiclass" else list(manifest.classes)
    shares = {str(number): 1 / folds for number in range(folds)}
    table = manifest.table.assign(**{UNIT: units})
    found = assign_splits(table, shares, seed=seed, stratify=labels, group=UNIT)
    return found.to_numpy().astype(np.int64)


def _check_classes(manifest: Manifest, numbers: NDArray[np.int64], folds: int) -> None:
    """Refuse folds that lack a class; of independent labels, a rare one may be absent."""
    targets = manifest.targets
    if targets.ndim == 2:
        return
    for number in range(folds):
        found = set(targets[numbers == number].tolist())
        if lacking := [name for index, name in enumerate(manifest.classes) if index not in found]:
            problem = (
                f"Expected images of each class in each of {folds} folds, but one lacks {lacking}. Use fewer folds."
            )
            raise ManifestError([problem])


def _finish(folder: Path, held: list[HeldOut], identity: Mapping[str, Any], started: float) -> FoldsRun:
    metrics = {name: tuple(one.metrics[name] for one in held) for name in held[0].metrics}
    run = FoldsRun(folder, metrics, measure_together(held), round(time.perf_counter() - started, 1))
    rows = [{"fold": one.number, "images": len(one.manifest), **one.metrics} for one in held]
    write_table(folder / "folds.csv", pd.DataFrame(rows))
    write_table(folder / "predictions.csv", pd.concat([one.table() for one in held]))
    record = {"complete": True, **identity, **run.to_dict()}
    write_atomic(folder / RECORD, json.dumps(record, indent=2, allow_nan=False) + "\n")
    return run


def _read(folder: Path, identity: Mapping[str, Any]) -> FoldsRun:
    record = json.loads((folder / RECORD).read_bytes())
    check_same_run(record, identity, folder)
    metrics = {name: tuple(map(_to_number, found["folds"])) for name, found in record["metrics"].items()}
    together = {
        name: Interval(_to_number(found["value"]), _to_number(found["low"]), _to_number(found["high"]), found["n"])
        for name, found in record["together"].items()
    }
    return FoldsRun(folder, metrics, together, record["seconds"])


def _to_number(value: float | None) -> float:
    return float("nan") if value is None else value
