"""A training run: recipe in, folder with checkpoints, metrics and bundle out; the same call continues it."""

from __future__ import annotations

import json
import math
import time
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from torch import nn

from softcam.bundle import InputStatistics, measure_inputs, read_config, save
from softcam.data import ImageDataset, Manifest
from softcam.errors import RecipeError, RunError
from softcam.files import write_atomic
from softcam.metrics.thresholds import YOUDEN, choose_threshold
from softcam.nn import SoftCAM
from softcam.runs import RECORD, hold, say_what_the_disk_lacks
from softcam.training.crew import Crew, connected, find_crew
from softcam.training.data import StagedDataModule
from softcam.training.distillation import check_trunk, load_teacher
from softcam.training.fitting import Fit, Place, fit
from softcam.training.hardware import Hardware
from softcam.training.launch import launch
from softcam.training.module import Learner, Task
from softcam.training.preparation import choose_preprocessing, create_start, load_manifest, prepare_features
from softcam.training.progress import track
from softcam.training.recipe import Recipe
from softcam.training.scoring import score_images
from softcam.training.state import borrowed_process
from softcam.training.trunk import find_trunk

PROBES = 2
"""Images on which conversion and trunk are checked before the work starts."""


@dataclass(frozen=True)
class TrainingRun:
    """A finished run.

    Args:
        path: Its folder.
        model_path: The bundle in it.
        metrics: Validation metrics of the best epoch, and its number.
        seconds: Wall-clock time of the call that finished the run, and of the epochs before an interruption.
    """

    path: Path
    model_path: Path
    metrics: dict[str, float]
    seconds: float


def train(
    recipe: Recipe,
    out: str | Path,
    *,
    manifest: Manifest | None = None,
    cache_dir: str | Path | None = None,
    progress: bool = True,
    hardware: Hardware | None = None,
) -> TrainingRun:
    """Train a model by a recipe, with one process or many.

    Writes `recipe.yaml`, `metrics.csv`, `tensorboard/`, `checkpoints/` (`best.ckpt`, `last.ckpt`), `model/` (the
    bundle of the best epoch) and, last, `run.json`. The same call takes an interrupted run up at its last whole epoch,
    with the same result as without the interruption, and returns a finished run at once.

    Args:
        recipe: Everything that decides the result.
        out: Folder of the run, created if needed.
        manifest: Table of images; by default the one that the recipe names.
        cache_dir: Where features of a frozen trunk are kept; by default `out/cache`. Share it between twins.
        progress: Whether progress is shown on stderr.
        hardware: What the run is computed with; by default one process. With several devices, this call starts their
            processes, so that a script has to guard it by `if __name__ == "__main__":`; under `torchrun` or SLURM, each
            process makes the same call.

    Raises:
        RunError: If `out` holds a run of another recipe or of other data, another process writes there, its disk is
            full, or the loss is not finite.
        RecipeError: If the recipe does not fit the backbone.
        ManifestError: If anything in the table of images is wrong.
        UnsupportedModelError: If the backbone is unknown or cannot be converted as the recipe asks.
        KeyboardInterrupt: If interrupted; the last whole epoch is kept.
    """
    out, hardware = Path(out), hardware or Hardware()
    cache = Path(cache_dir or out / "cache")
    with borrowed_process(), say_what_the_disk_lacks(out, room=True):
        crew = find_crew(hardware)
        alone = crew.world == 1
        devices = (hardware.devices or 1) if alone else crew.world
        if alone:
            hardware.check_devices(devices)
        replace(crew, world=devices).check_batch(recipe.data.batch_size)
        claim(out, recipe, is_first=crew.is_first)
        if (out / RECORD).is_file():
            return _read_run(out, manifest)
        if alone and devices > 1:
            return _launch(recipe, out, crew, manifest=manifest, cache=cache, progress=progress)
        with hold(out) if crew.is_first else nullcontext(), connected(crew) as ready:
            return _train(recipe, out, ready, manifest=manifest, cache=cache, progress=progress)


def prepare_trunk(recipe: Recipe, manifest: Manifest, cache_dir: str | Path, *, progress: bool = True) -> None:
    """Create the model of a recipe once, and cache the features of its frozen trunk, if it has one.

    Args:
        recipe: What will be trained.
        manifest: Table of images.
        cache_dir: Where the features are kept.
        progress: Whether progress is shown on stderr.

    Raises:
        RecipeError: If the recipe does not fit the backbone.
        UnsupportedModelError: If the backbone is unknown or cannot be converted as the recipe asks.
    """
    with borrowed_process():
        work = _Work(recipe, Path(cache_dir), manifest, Crew())
        if recipe.trunk is not None:
            find_trunk(work.model, recipe.trunk, work.probes)
            work.cache_features(Path(cache_dir), progress=progress)


def _launch(
    recipe: Recipe, out: Path, crew: Crew, *, manifest: Manifest | None, cache: Path, progress: bool
) -> TrainingRun:
    """Start the processes of a run on this machine, once it is clear that there is something to learn from."""
    table = load_manifest(recipe, out) if manifest is None else manifest
    work = partial(train, recipe, out, manifest=table, cache_dir=cache, progress=progress, hardware=crew.hardware)
    launch(work, count=crew.hardware.devices or 1)
    return _read_run(out, None)


def _train(
    recipe: Recipe, out: Path, crew: Crew, *, manifest: Manifest | None, cache: Path, progress: bool
) -> TrainingRun:
    started = time.perf_counter()
    table = crew.once(lambda: load_manifest(recipe, out)) if manifest is None else manifest
    if not (out / "recipe.yaml").is_file():
        raise RunError(f"Expected {out} to be a folder that all processes share, but process {crew.rank} does not.")
    crew.check_validation(len(table.subset("val")))
    work = _Work(recipe, out, table, crew)
    result = work.run(cache, progress=progress and crew.is_first)
    crew.once(lambda: work.finish(result, started))
    return _read_run(out, None)


class _Work:
    """The steps of a run on one table of images."""

    def __init__(self, recipe: Recipe, out: Path, manifest: Manifest, crew: Crew) -> None:
        if crew.hardware.num_workers is not None:
            recipe = replace(recipe, data=replace(recipe.data, num_workers=crew.hardware.num_workers))
        self.recipe = recipe
        self.out = out
        self.manifest = manifest
        self.crew = crew
        self.digest = crew.once(manifest.digest)
        self.preprocessing = choose_preprocessing(recipe)
        augmentation = recipe.data.augmentation
        self.datasets = {
            "train": ImageDataset(manifest.subset("train"), self.preprocessing, augmentation, seed=recipe.seed),
            "val": ImageDataset(manifest.subset("val"), self.preprocessing),
        }
        validation = self.datasets["val"]
        self.probes = torch.stack([validation[index][0] for index in range(min(PROBES, len(validation)))])
        self.start = create_start(recipe, manifest, self.probes)

    @property
    def model(self) -> nn.Module:
        return self.start.model

    def run(self, cache: Path, *, progress: bool) -> Fit:
        data = StagedDataModule(self.manifest, self.preprocessing, self.recipe, split=self.crew.split)
        trunk = None
        if self.recipe.trunk is not None:
            trunk = find_trunk(self.model, self.recipe.trunk, self.probes)
            paths = self.crew.once(partial(self.cache_features, cache, progress=progress))
            data.use_features({split: np.load(path, mmap_mode="r") for split, path in paths.items()})
        several = self.manifest.task == "multilabel"
        learner = Learner(
            self.model,
            self.recipe,
            task=Task(len(self.manifest.classes), several, data.balance, self.recipe.data.ordinal),
            steps_per_epoch=math.ceil(len(self.datasets["train"]) / self.recipe.data.batch_size),
            trunk=trunk,
            teacher=self.find_teacher(),
        )
        return fit(learner, data, Place(self.out, self.crew, progress), data_digest=self.digest)

    def cache_features(self, folder: Path, *, progress: bool) -> dict[str, Path]:
        self.model.to(self.crew.device)
        with track("Features of the frozen trunk", visible=progress) as report:
            paths = prepare_features(self.start, self.recipe, self.datasets, folder, report=report)
        self.model.cpu()
        return paths

    def find_teacher(self) -> nn.Module | None:
        teacher = load_teacher(self.recipe, self.manifest)
        if teacher is not None and self.recipe.trunk is not None:
            check_trunk(teacher, self.model, self.recipe.trunk, self.probes)
        return teacher

    def finish(self, result: Fit, started: float) -> None:
        self.model.cpu().load_state_dict(result.weights)
        self.model.eval().requires_grad_()
        thresholds = self.choose_thresholds()
        metrics = {name: value for name, value in result.row.items() if name.startswith("val_")}
        metrics["best_epoch"] = result.row["epoch"]
        model_path = save(
            self.model,
            self.out / "model",
            classes=self.manifest.classes,
            task="ordinal" if self.recipe.data.ordinal else self.manifest.task,
            preprocessing=self.preprocessing.to_dict(),
            thresholds=thresholds,
            provenance={**self.describe(metrics), "threshold_rule": self.describe_rule() if thresholds else None},
        )
        seconds = round(time.perf_counter() - started, 1)
        record = {"complete": True, "model": model_path.name, "metrics": metrics, "seconds": seconds}
        record |= {"training_seconds": round(result.seconds, 1), "thresholds": thresholds, "data_digest": self.digest}
        config = read_config(model_path)
        record |= {"model_fingerprint": config.fingerprint, "versions": config.versions, "processes": self.crew.world}
        write_atomic(self.out / RECORD, json.dumps(record, indent=2) + "\n")

    def choose_thresholds(self) -> dict[str, float]:
        """Return the threshold of the positive class, or of each class for multi-label data, on validation images."""
        classes = self.manifest.classes
        multi_label = self.manifest.task == "multilabel"
        if not multi_label and len(classes) != 2:
            return {}
        self.model.to(self.crew.device)
        probabilities, targets = score_images(
            self.model, self.datasets["val"], batch_size=self.recipe.data.batch_size, multi_label=multi_label
        )
        self.model.cpu()
        flags = targets if multi_label else torch.nn.functional.one_hot(targets, 2)
        chosen = range(len(classes)) if multi_label else (1,)
        both = [index for index in chosen if 0 < int(flags[:, index].sum()) < len(flags)]
        return {classes[index]: choose_threshold(probabilities[:, index], flags[:, index]) for index in both}

    def describe(self, metrics: dict[str, float]) -> dict[str, Any]:
        penalty = self.recipe.penalty
        strengths = {"l1": penalty.l1, "l2": penalty.l2, "size_free": float(penalty.size_free)}
        return {
            "penalty": strengths if self.recipe.model.kind == "softcam" else None,
            "data_digest": self.digest,
            "recipe": self.recipe.to_dict(),
            "metrics": metrics,
            "seed": self.recipe.seed,
            "inputs": self.measure_inputs(),
        }

    def describe_rule(self) -> dict[str, Any]:
        return {"rule": str(YOUDEN), "split": "val", "n": len(self.datasets["val"])}

    def measure_inputs(self) -> InputStatistics | None:
        """Return what the images were like, for a model that will be used to explain others."""
        if not isinstance(self.model, SoftCAM):
            return None
        paths = [self.manifest.subset(split).paths for split in ("train", "val")]
        self.model.to(self.crew.device)
        found = measure_inputs(self.model, self.preprocessing, *paths, seed=self.recipe.seed)
        self.model.cpu()
        return found


def claim(out: Path, recipe: Recipe, *, is_first: bool) -> None:
    """Write the recipe into a new run's folder, or compare it with the one that is there.

    Args:
        out: The folder.
        recipe: What is to be trained.
        is_first: Whether this is the process that writes.

    Raises:
        RunError: If the folder holds another recipe, or one that this version cannot read.
    """
    path = out / "recipe.yaml"
    if not path.is_file():
        if not is_first:
            return
        write_atomic(path, yaml.safe_dump(recipe.to_dict(), sort_keys=False))
        return
    try:
        earlier = Recipe.from_dict(yaml.safe_load(path.read_text(encoding="utf-8")))
    except (RecipeError, yaml.YAMLError) as error:
        raise RunError(f"Expected {out} to hold a run of this version, but {error} Use another `out`.") from error
    if earlier != recipe:
        theirs, ours = earlier.to_dict(), recipe.to_dict()
        changed = ", ".join(key for key in ours if ours[key] != theirs[key])
        raise RunError(
            f"Expected {out} to be new or a run of the same recipe, but {changed} differ. Use another `out`."
        )


def _read_run(out: Path, manifest: Manifest | None) -> TrainingRun:
    record = json.loads((out / RECORD).read_text(encoding="utf-8"))
    if "model" not in record:
        raise RunError(f"Expected {out} to be new or to hold one training, but it holds several. Use another `out`.")
    if manifest is not None and manifest.digest() != record["data_digest"]:
        raise RunError(f"Expected the data that the run in {out} was made from, but got others. Use another `out`.")
    return TrainingRun(out, out / record["model"], record["metrics"], record["seconds"])
