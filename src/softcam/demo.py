"""The main job, end to end, on real images that come as a package: convert, fine-tune, evaluate, report."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from softcam.bundle import load_black_box
from softcam.data import Manifest
from softcam.data.sources import elpv
from softcam.evaluation import EvaluationResult, Progress, evaluate, write_evaluation
from softcam.files import atomic_folder, atomic_path
from softcam.nn import convert
from softcam.reporting import write_report
from softcam.training import Recipe, TrainingRun, read_recipe, train

RECIPES = {False: "elpv-demo", True: "elpv-full"}


@dataclass(frozen=True)
class DemoResult:
    """What the demo leaves behind.

    Args:
        evaluation: Every number and picture of the report.
        report: The page.
        seconds: Wall time by step.
    """

    evaluation: EvaluationResult
    report: Path
    seconds: dict[str, float]


def run_demo(out: Path, *, full: bool = False, say: Callable[[str], None], progress: Progress) -> DemoResult:
    """Train a black box and its SoftCAM twin on solar cells, compare them on test images, and write a report.

    The same call continues interrupted work.

    Args:
        out: Folder for `data/`, `runs/`, `model/`, `black_box/`, `evaluation/` and `report.html`.
        full: Whether every layer is trained instead of the last ones.
        say: Called with a line for each step.
        progress: Called with stage, steps done and steps in all.
    """
    seconds: dict[str, float] = {}
    step = partial(_announce, say=say, seconds=seconds)
    with step("data: 2,624 electroluminescence images of solar cells (CC BY-NC-SA 4.0)"):
        manifest = elpv.prepare(out / "data")
    recipe = read_recipe(RECIPES[full])
    with step("black box: the twin to compare with"):
        black_box = _train(recipe.twin(), manifest, out, "black_box")
    with step("convert: the trained black box, weights copied"):
        say(str(convert(load_black_box(black_box.model_path)).conversion))
    with step("softcam: trained alike, with a penalty on its evidence maps"):
        model = _train(recipe, manifest, out, "model")
    with step("evaluation: accuracy and explanations on the test images"):
        result = _evaluate(model, black_box, manifest, out=out, progress=progress)
    report = _report(result, out, recipe.name)
    return DemoResult(result, report, seconds)


def _train(recipe: Recipe, manifest: Manifest, out: Path, name: str) -> TrainingRun:
    run = train(recipe, out / "runs" / name, manifest=manifest, cache_dir=out / "cache")
    with atomic_folder(out / name) as new:
        shutil.copytree(run.model_path, new, dirs_exist_ok=True)
    return run


def _evaluate(
    model: TrainingRun, black_box: TrainingRun, manifest: Manifest, *, out: Path, progress: Progress
) -> EvaluationResult:
    folder = out / "evaluation"
    result = evaluate(
        model.model_path, manifest, black_box_path=black_box.model_path, keep=folder / "measured", progress=progress
    )
    write_evaluation(result, folder)
    return result


def _report(result: EvaluationResult, out: Path, recipe: str) -> Path:
    page = write_report(result, out / "evaluation", title=f"SoftCAM on solar cells ({recipe})")
    with atomic_path(out / "report.html") as temporary:
        shutil.copyfile(page, temporary)
    return out / "report.html"


@contextmanager
def _announce(step: str, say: Callable[[str], None], seconds: dict[str, float]) -> Iterator[None]:
    """Say what is done now, and note under the words before the colon how long it took."""
    say(f"{step} ...")
    started = time.perf_counter()
    yield
    seconds[step.partition(":")[0]] = time.perf_counter() - started
