"""Train a model for every place of the class evidence layer, and measure them on the validation images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from softcam.data import Manifest
from softcam.errors import RecipeError
from softcam.evaluation.labels import Floats
from softcam.evaluation.locality import Question, ask, measure_locality
from softcam.evaluation.models import Contestants, load_contestants
from softcam.evaluation.predictions import Predictions, predict_images
from softcam.sweep.accuracy import compare_auroc, measure_auroc
from softcam.sweep.maps import Sample, average, draw_sample
from softcam.sweep.places import Place, list_places, name_place, place_recipe, read_example
from softcam.sweep.result import PlaceRow, SweepResult
from softcam.training import Recipe, TrainingRun, train
from softcam.training.preparation import load_manifest
from softcam.versions import installed_versions

Report = Callable[[str], None]


@dataclass(frozen=True)
class SweepSettings:
    """What decides a sweep beside its recipe.

    Args:
        places: Where the evidence layer is tried; by default where the backbone pools, and every stride from 8 px on.
        margin: Loss of AUROC against the black box that counts as acceptable, in (0, 1), stated beforehand.
        located: Validation images on which locality is measured, >= 2: those with ground truth, where there are any.
        window: Side in pixels of the window outside of which everything is replaced, as a share of the image's side.
        batch_size: Images in one forward pass, >= 1.
        seed: Seed of the choice of images and cells.
    """

    places: tuple[Place, ...] | None = None
    margin: float = 0.02
    located: int = 32
    window: float = 2 / 7
    batch_size: int = 32
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse values out of range."""
        ranges = {
            "places": self.places is None or len(self.places) == len(set(self.places)) > 0,
            "margin": 0 < self.margin < 1,
            "located": self.located >= 2,
            "window": 0 < self.window < 1,
            "batch_size": self.batch_size >= 1,
        }
        if wrong := [name for name, fits in ranges.items() if not fits]:
            values = {name: getattr(self, name) for name in wrong}
            raise RecipeError(f"Expected the settings of the sweep to be in range, but got {values}.")


def sweep(
    recipe: Recipe,
    out: str | Path,
    *,
    settings: SweepSettings | None = None,
    manifest: Manifest | None = None,
    progress: bool = True,
    say: Report = lambda _line: None,
) -> SweepResult:
    """Find the most local place of the evidence layer that keeps the black box's AUROC.

    The recipe's black-box twin and one model per place are trained alike, on shared cached features where the recipe
    has a frozen trunk; a trunk that would end after a place ends there. All are measured on the validation split:
    the test split chooses nothing. The same call continues interrupted work.

    Args:
        recipe: How the models are trained; its `model.at` is replaced.
        out: Folder of the runs: `black_box/`, one per place, and `cache/`.
        settings: Default: `SweepSettings()`.
        manifest: Table of images; by default the one that the recipe names.
        progress: Whether progress of the trainings is shown on stderr.
        say: Called with a line for each step.

    Raises:
        UnsupportedModelError: If the backbone has no such place.
        RecipeError: If the recipe is that of a black box.
        RunError: If `out` holds runs of another recipe or of other data.
    """
    settings = settings or SweepSettings()
    if recipe.model.kind == "black_box":
        raise RecipeError("Expected the recipe of a SoftCAM model, but got that of a black box, which has no maps.")
    folder = Path(out)
    table = load_manifest(recipe, folder) if manifest is None else manifest
    images = read_example(recipe, table)
    places = settings.places or list_places(recipe, images)
    recipes = {name_place(place): place_recipe(recipe, place, images) for place in places}

    def run(name: str, what: Recipe) -> TrainingRun:
        say(f"{name}: training")
        return train(what, folder / name, manifest=table, cache_dir=folder / "cache", progress=progress)

    twin = run("black_box", recipe.twin())
    validation = table.subset("val")
    rows = []
    for name, placed in recipes.items():
        trained = run(name.replace("+", "-"), placed)
        models = load_contestants(trained.model_path, twin.model_path, validation, device=None)
        predictions = predict_images(models, validation, batch_size=settings.batch_size, tolerance=1e-5)
        rows.append(_measure(name, models, predictions, validation, settings, seconds=trained.seconds))
        say(f"{name}: AUROC {rows[-1].auroc:.4f}, {rows[-1].receptive_field:.0f} px")
    return SweepResult(
        rows=tuple(rows),
        black_box=measure_auroc(_twin(predictions), predictions.targets),
        margin=settings.margin,
        images=len(predictions),
        located=min(settings.located, len(predictions)),
        provenance={
            "recipe": recipe.to_dict(),
            "data_digest": table.digest(),
            "seed": settings.seed,
            "window": settings.window,
            "versions": installed_versions(("softcam", "torch", "torchvision", "timm")),
        },
    )


def _measure(
    name: str,
    models: Contestants,
    predictions: Predictions,
    manifest: Manifest,
    settings: SweepSettings,
    *,
    seconds: float,
) -> PlaceRow:
    report = models.softcam.conversion
    new, old, targets = predictions.probabilities, _twin(predictions), predictions.targets
    compared = compare_auroc(new, old, targets, margin=settings.margin, patients=predictions.patients)
    sample = draw_sample(manifest, predictions.rows, models.preprocessing, count=settings.located, seed=settings.seed)
    images = models.to_device(sample.images)
    question = ask(models.softcam, images, sample.targets, batch_size=settings.batch_size)
    window = round(settings.window * images.shape[-1])
    local = measure_locality(question, windows=(window,), seed=settings.seed)
    return PlaceRow(
        place=name,
        modules=report.places,
        map_stride=report.map_stride,
        grid=report.grid,
        auroc=measure_auroc(new, targets),
        difference=compared.difference,
        low=compared.low,
        not_inferior=compared.passed,
        receptive_field=average(local.receptive_field),
        context_swap=average(local.context_swap),
        near_zero_share=average(local.near_zero_share),
        localization=_localize(question, sample),
        shares=tuple(map(float, local.shares.mean(0))) if local.shares.shape[1] > 1 else (),
        seconds=seconds,
    )


def _localize(question: Question, sample: Sample) -> dict[str, float]:
    found = sample.localize(question.all_maps(question.images))
    return {name: average(values.numpy()) for name, values in found.items()}


def _twin(predictions: Predictions) -> Floats:
    if predictions.black_box is None:
        raise RecipeError("Expected a black box to compare with, but got none.")
    return predictions.black_box
