"""What the study measures: every method on every model of a seed, through `softcam.evaluation`; kept, so it goes on."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from study_models import SEEDS, Models

from softcam.data import Manifest
from softcam.evaluation import CHEAP_MEASURES, MEASURES, EvaluationSettings, evaluate, write_evaluation
from softcam.files import write_atomic
from softcam.reporting.methods import FLOORS

OWN = ("evidence", "evidence_margin")
TWICE = ("grad_cam", "grad_cam_plus_plus", "layer_cam", "hires_cam")
"""Class activation methods that look at the last stage and at the chosen place of the black box."""

ONCE = ("xgrad_cam", "finer_cam", "eigen_cam", "refine_cam", "guided_backprop", "deep_lift")
DOZENS = ("integrated_gradients", "smooth_grad", "occlusion")
"""Methods of some 50 to 170 passes per map."""

THOUSANDS = ("score_cam", "ablation_cam", "rise")
"""Methods of a thousand passes per map and more."""

FEW = ("grad_cam", "layer_cam", "hires_cam")
"""Class activation methods in the costly parts."""

MARGINS = {"lesions": 0.01, "elpv": 0.02}
"""Losses of AUROC against the black box that were accepted beforehand."""

POSITIVE = {"lesions": "lesions", "elpv": "defect"}
COMPANY = 4
"""Images of the other class in a part, which are not explained there."""


@dataclass(frozen=True)
class Part:
    """One evaluation of a seed.

    Args:
        name: Of its folder.
        settings: What is measured of which methods.
        images: Test images of the second class that it takes, evenly spread; None for the whole test split.
        seeds: Where it is made.
    """

    name: str
    settings: EvaluationSettings
    images: int | None
    seeds: tuple[int, ...] = SEEDS


def list_parts(data: str, module: str) -> tuple[Part, ...]:
    """Return the evaluations of a data set.

    `predictions` is about the whole test split. `broad`, `dozens` and `thousands` take the cheap measures of methods
    by what they cost, on images of the second class, since deletion asks what speaks for a finding; `deep` takes the
    costly measures of fewer methods on a few images of both classes.

    Args:
        data: Name of the data set.
        module: Where post-hoc methods look a second time.
    """

    def twice(names: tuple[str, ...]) -> tuple[str, ...]:
        return (*names, *(f"{name}@{module}" for name in names))

    plain = EvaluationSettings(margin=MARGINS[data], explained=0, explained_class="most_probable", right=0, wrong=0)
    broad = replace(
        plain,
        engine="openvino",
        batch_size=16,
        methods=(*OWN, *twice(TWICE), *ONCE, *FLOORS),
        explained=100,
        explained_slowly=100,
        explained_labels=(POSITIVE[data],),
        located=0,
    )
    deep = replace(
        broad,
        methods=(*OWN, *twice(FEW), "guided_backprop", "random", "edges"),
        measures=tuple(name for name in MEASURES if name not in CHEAP_MEASURES),
        explained_labels=(),
        samples=16,
    )
    return (
        Part("predictions", plain, None),
        Part("broad", broad, 24),
        Part("dozens", replace(broad, methods=DOZENS), 8),
        Part("deep", deep, 6, seeds=SEEDS[:1]),
        Part("thousands", replace(broad, methods=THOUSANDS), 4, seeds=SEEDS[:1] if data == "lesions" else ()),
    )


def measure(models: Models) -> dict[str, Path]:
    """Return the folders of a seed's evaluations, made where they are not there yet."""
    found = {}
    for part in list_parts(models.data, str(models.layers[1].module)):
        if models.number not in part.seeds:
            continue
        folder = models.seed.folder / f"evaluation-{part.name}"
        found[part.name] = folder
        if (folder / "seconds.json").is_file():
            continue
        softcams = dict(models.softcams)
        main = softcams.pop(name_main(models))
        started = time.perf_counter()
        result = evaluate(
            main,
            take(models.seed.manifest, part.images),
            black_box_path=models.black_box,
            others=softcams,
            settings=part.settings,
            keep=folder / "measured",
            progress=_say(f"{models.data}, seed {models.number}, {part.name}"),
        )
        write_evaluation(result, folder)
        write_atomic(folder / "seconds.json", json.dumps({"seconds": time.perf_counter() - started}))
    return found


def take(manifest: Manifest, images: int | None) -> Manifest:
    """Return so many test images of the second class, evenly spread, with a few of the first; all for None."""
    if images is None:
        return manifest
    test = manifest.table.index[manifest.table["split"] == "test"].to_numpy()
    positive, negative = (test[manifest.targets[test] == label] for label in (1, 0))
    rows = np.sort(np.concatenate([_spread(positive, images), _spread(negative, COMPANY)]))
    return manifest.take(rows)


def _spread(rows: np.ndarray, count: int) -> np.ndarray:
    # In the order of their reversed binary digits, so that fewer images are among more of them: methods of different
    # cost share images.
    order = np.argsort([int(f"{place:016b}"[::-1], 2) for place in range(len(rows))], kind="stable")
    return rows[order][:count]


def name_main(models: Models) -> str:
    """Return the name of the model that plain `evidence` is of: at the chosen place, without a penalty."""
    return models.layers[1].name.replace(" ", "_")


def read_values(folders: dict[str, Path], names: tuple[str, ...], main: str) -> pd.DataFrame:
    """Return one row per image and method of some parts, SoftCAM's own maps with their model's name."""
    tables = [
        pd.read_csv(folders[name] / "values.csv", dtype={"image": str, "patient": str, "method": str})
        for name in names
        if name in folders
    ]
    values = pd.concat(tables, ignore_index=True)
    plain = values["method"].isin(OWN)
    values.loc[plain, "method"] = values.loc[plain, "method"] + f":{main}"
    return values


def _say(what: str) -> Callable[[str, int, int], None]:
    started = time.perf_counter()

    def report(stage: str, done: int, total: int) -> None:
        if stage == "explain" or done == total:
            elapsed = time.perf_counter() - started
            print(f"{what}, {stage}: {done} of {total}, {elapsed:.0f} s", file=sys.stderr, flush=True)

    return report
