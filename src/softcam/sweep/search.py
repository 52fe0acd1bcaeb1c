"""Choose what to train: the sparsest maps whose AUROC is not inferior to that of the dense model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np

from softcam.data import Manifest
from softcam.errors import RecipeError, RunError
from softcam.runs import hold
from softcam.sweep.accuracy import compare_auroc, measure_auroc
from softcam.sweep.places import read_example
from softcam.sweep.sampling import sample_points
from softcam.sweep.selection import SearchResult, TrialRow, choose
from softcam.sweep.settings import SearchSettings
from softcam.sweep.space import Point, Space
from softcam.sweep.trial import Failure, Lens, Measurement, Trials
from softcam.training import Recipe
from softcam.training.pool import run_all
from softcam.training.preparation import load_manifest
from softcam.training.run import prepare_trunk
from softcam.versions import installed_versions

LOCK = "sweep.lock"
Report = Callable[[str], None]
"""Called with a line for each step."""


def search(  # noqa: PLR0913 - two that say what, two where, and the rest how much is told
    recipe: Recipe,
    out: str | Path,
    *,
    space: Space | None = None,
    settings: SearchSettings | None = None,
    manifest: Manifest | None = None,
    cache_dir: str | Path | None = None,
    progress: bool = True,
    say: Report = lambda _line: None,
) -> SearchResult:
    """Train models of different strengths and forms, and choose the sparsest that is not inferior to the dense one.

    One dense model of each form is always among them. All are measured on the validation split: the test split chooses
    nothing. The same call continues interrupted work and ends alike; one with more values goes on from what is there.

    Args:
        recipe: How the models are trained; what `space` names is replaced.
        out: Folder of the runs, `trials/`.
        space: What is tried; default: `Space()`.
        settings: Default: `SearchSettings()`.
        manifest: Table of images; by default the one that the recipe names.
        cache_dir: Where features of frozen trunks are kept; by default `out/cache`. Searches may share it.
        progress: Whether progress of the trainings is shown on stderr; with several at a time it never is.
        say: Called with a line for each step.

    Raises:
        RecipeError: If the recipe is that of a black box, or does not fit a backbone.
        UnsupportedModelError: If a backbone has no such place or stride.
        RunError: If `out` is in use, or holds runs of another recipe or of other data, or no dense model is left.
        MissingExtraError: If `trials` is set and optuna is not installed.
    """
    settings, space = settings or SearchSettings(), (space or Space()).complete(recipe)
    if recipe.model.kind == "black_box":
        raise RecipeError("Expected the recipe of a SoftCAM model, but got that of a black box, which has no maps.")
    folder = Path(out)
    with hold(folder, LOCK):
        table = load_manifest(recipe, folder) if manifest is None else manifest
        lens = Lens(settings.located, settings.fills, settings.batch_size, settings.seed)
        trials = Trials(
            recipe,
            folder / "trials",
            Path(cache_dir or folder / "cache"),
            table,
            digest=table.digest(),
            lens=lens,
            images={name: read_example(_with_backbone(recipe, name), table) for name in space.backbones},
            progress=progress and settings.jobs == 1,
        )
        for point in space.list_dense():
            say(f"{point.name}: preparing")
            prepare_trunk(trials.recipe_of(point), table, trials.cache, progress=progress)
        found = _explore(trials, space, settings, say)
    return _conclude(found, trials, settings)


def _with_backbone(recipe: Recipe, name: str) -> Recipe:
    return replace(recipe, model=replace(recipe.model, backbone=name))


def _explore(trials: Trials, space: Space, settings: SearchSettings, say: Report) -> list[Measurement | Failure]:
    """Return what came of each point, in the order in which they were chosen."""

    def run(points: Sequence[Point]) -> list[Measurement | Failure]:
        done: dict[int, Measurement | Failure] = {}
        with closing(run_all(trials.run, points, jobs=settings.jobs)) as results:
            for number, found in results:
                done[number] = found
                say(_tell(found, settings.sparsity))
        return [done[number] for number in range(len(points))]

    if settings.trials is None:
        return run(space.list_grid())
    dense = run(space.list_dense())
    targets = trials.manifest.subset("val").targets

    def judge(found: Measurement) -> tuple[float, float]:
        return measure_auroc(found.probabilities, targets[found.rows]), found.mean(settings.sparsity)

    return [*dense, *sample_points(space, run, judge, trials=settings.trials, seed=settings.seed)]


def _tell(found: Measurement | Failure, sparsity: str) -> str:
    if isinstance(found, Failure):
        return f"{found.point.name}: left out. {found.reason}"
    return f"{found.point.name}: {sparsity} {found.mean(sparsity):.3f}, {found.seconds:.0f} s"


def _conclude(found: Sequence[Measurement | Failure], trials: Trials, settings: SearchSettings) -> SearchResult:
    measured = [item for item in found if isinstance(item, Measurement)]
    failures = tuple(item for item in found if isinstance(item, Failure))
    validation = trials.manifest.subset("val")
    rows = measured[0].rows if measured else np.empty(0, dtype=np.int64)
    targets = validation.targets[rows].astype(np.int64)
    patients = None if validation.patients is None else validation.patients[rows]
    aurocs = {item.point: measure_auroc(item.probabilities, targets) for item in measured}
    reference = _choose_reference(measured, aurocs, failures)
    table = []
    for item in measured:
        compared = compare_auroc(
            item.probabilities, reference.probabilities, targets, margin=settings.margin, patients=patients
        )
        table.append(
            TrialRow(
                point=item.point,
                map_stride=item.map_stride,
                grid=item.grid,
                auroc=aurocs[item.point],
                difference=compared.difference,
                low=compared.low,
                not_inferior=compared.passed,
                values={name: item.mean(name) for name in item.values},
                seconds=item.seconds,
                model_path=item.model_path,
            )
        )
    chosen = choose(table, settings.sparsity)
    located = max(len(values) for values in measured[0].values.values())
    return SearchResult(
        rows=tuple(table),
        reference=table[measured.index(reference)],
        margin=settings.margin,
        sparsity=settings.sparsity,
        images=len(rows),
        located=located,
        failures=failures,
        recipe=None if chosen is None else trials.recipe_of(chosen.point),
        provenance=_describe(trials, settings),
    )


def _choose_reference(
    measured: Sequence[Measurement], aurocs: dict[Point, float], failures: Sequence[Failure]
) -> Measurement:
    dense = [item for item in measured if item.point.is_dense]
    if not dense:
        raise RunError(f"Expected a dense model to compare with, but none could be trained: {failures[0].reason}")
    return max(dense, key=lambda item: np.nan_to_num(aurocs[item.point], nan=-1.0))


def _describe(trials: Trials, settings: SearchSettings) -> dict[str, object]:
    return {
        "recipe": trials.recipe.to_dict(),
        "data_digest": trials.digest,
        "seed": settings.seed,
        "trials": settings.trials,
        "versions": installed_versions(("softcam", "torch", "torchvision", "timm", "optuna")),
    }
