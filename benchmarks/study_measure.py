"""What the study measures: every method on every model of a seed, through `softcam.evaluation`; kept, so it goes on."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
from study_models import Models

from softcam.evaluation import CHEAP_MEASURES, MEASURES, EvaluationSettings, evaluate, write_evaluation
from softcam.files import write_atomic

AT_LAYER = ("grad_cam", "grad_cam_plus_plus", "layer_cam", "hires_cam", "xgrad_cam", "finer_cam", "eigen_cam")
ELSEWHERE = ("refine_cam", "guided_backprop", "deep_lift")
SLOW = ("integrated_gradients", "smooth_grad", "occlusion", "score_cam", "ablation_cam", "rise")
FLOORS = ("random", "edges", "center_gaussian")
OWN = ("evidence", "evidence_margin")
FEW = ("grad_cam", "layer_cam", "hires_cam")
"""The class activation methods that every measure is taken of."""

MARGINS = {"lesions": 0.01, "elpv": 0.02}
"""Losses of AUROC against the black box that were accepted beforehand."""

POSITIVE = {"lesions": "lesions", "elpv": "defect"}


@dataclass(frozen=True)
class Part:
    """One evaluation of a seed.

    Args:
        name: Of its folder.
        settings: What is measured of which methods.
    """

    name: str
    settings: EvaluationSettings


def list_parts(data: str, module: str) -> tuple[Part, ...]:
    """Return the evaluations of a data set.

    `broad` takes the cheap measures of every method, on images of the second class alone, since deletion asks what
    speaks for a finding; `deep` takes the costly measures of fewer methods on a few images of both classes.

    Args:
        data: Name of the data set.
        module: Where post-hoc methods look a second time.
    """

    def twice(names: tuple[str, ...]) -> tuple[str, ...]:
        return (*names, *(f"{name}@{module}" for name in names))

    basis = EvaluationSettings(
        batch_size=24,
        engine="openvino",
        margin=MARGINS[data],
        located=48,
        right=0,
        wrong=0,
    )
    costly = tuple(name for name in MEASURES if name not in CHEAP_MEASURES)
    broad = replace(
        basis,
        methods=(*OWN, *twice(AT_LAYER), *ELSEWHERE, *SLOW, *FLOORS),
        explained=48,
        explained_slowly=4,
        explained_labels=(POSITIVE[data],),
    )
    deep = replace(
        basis,
        methods=(*OWN, *twice(FEW), "guided_backprop", "integrated_gradients", "random", "edges"),
        measures=costly,
        explained=6,
        explained_slowly=6,
        located=0,
    )
    return Part("broad", broad), Part("deep", deep)


def measure(models: Models) -> dict[str, Path]:
    """Return the folders of a seed's evaluations, made where they are not there yet."""
    module = models.layers[1].module
    found = {}
    for part in list_parts(models.data, str(module)):
        folder = models.seed.folder / f"evaluation-{part.name}"
        found[part.name] = folder
        if not (folder / "metrics.json").is_file():
            softcams = dict(models.softcams)
            main = softcams.pop(name_main(models))
            started = time.perf_counter()
            result = evaluate(
                main,
                models.seed.manifest,
                black_box_path=models.black_box,
                others=softcams,
                settings=part.settings,
                keep=folder / "measured",
                progress=_say(f"{models.data}, seed {models.number}, {part.name}"),
            )
            write_evaluation(result, folder)
            write_atomic(folder / "seconds.json", json.dumps({"seconds": time.perf_counter() - started}))
    return found


def name_main(models: Models) -> str:
    """Return the name of the model that plain `evidence` is of: at the chosen place, without a penalty."""
    return models.layers[1].name.replace(" ", "_")


def read_values(folder: Path, main: str) -> pd.DataFrame:
    """Return one row per image and method, SoftCAM's own maps with their model's name."""
    values = pd.read_csv(folder / "values.csv", dtype={"image": str, "patient": str, "method": str})
    plain = values["method"].isin(OWN)
    values.loc[plain, "method"] = values.loc[plain, "method"] + f":{main}"
    return values


def read_metrics(folder: Path) -> dict[str, Any]:
    """Return what an evaluation found about predictions."""
    found: dict[str, Any] = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    return found


def _say(what: str) -> Any:
    started = time.perf_counter()

    def report(stage: str, done: int, total: int) -> None:
        if stage == "explain":
            elapsed = time.perf_counter() - started
            print(f"{what}: {done} of {total}, {elapsed:.0f} s", file=sys.stderr, flush=True)

    return report
