"""The files that hold what a sweep or a search found."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from softcam.files import atomic_folder, write_atomic
from softcam.reporting.figures import to_png, to_vector
from softcam.runs import write_table
from softcam.sweep.figure import places_figure
from softcam.sweep.pareto import pareto_figure
from softcam.sweep.result import SweepResult
from softcam.sweep.selection import SearchResult
from softcam.training.recipe import write_recipe

NAME = "sweep"


def write_sweep(result: SweepResult, out: str | Path) -> Path:
    """Write `sweep.csv`, `sweep.png`, `sweep.svg` and, last, `sweep.json`, each whole or not at all.

    Args:
        result: What `sweep` returned.
        out: The folder; made if needed.

    Returns:
        The folder.
    """
    folder = Path(out)
    _write_tables(folder, result.table(), places_figure(result))
    _write_record(folder, result.to_dict())
    return folder


def write_search(result: SearchResult, out: str | Path) -> Path:
    """Write `sweep.csv`, `sweep.png`, `sweep.svg`, what the rule chose, and, last, `sweep.json`.

    `recipe.yaml` trains the chosen model again, from anywhere; `model/` is its bundle. Where nothing could be chosen,
    neither is written. Each is whole or not at all.

    Args:
        result: What `search` returned.
        out: The folder; made if needed.

    Returns:
        The folder.
    """
    folder, chosen = Path(out), result.chosen
    _write_tables(folder, result.table(), pareto_figure(result))
    if chosen is not None and result.recipe is not None:
        write_recipe(result.recipe, folder / "recipe.yaml")
        with atomic_folder(folder / "model") as new:
            shutil.copytree(chosen.model_path, new, dirs_exist_ok=True)
    _write_record(folder, result.to_dict())
    return folder


def _write_tables(folder: Path, table: pd.DataFrame, figure: Figure) -> None:
    write_table(folder / f"{NAME}.csv", table)
    write_atomic(folder / f"{NAME}.png", to_png(figure))
    write_atomic(folder / f"{NAME}.svg", to_vector(figure))


def _write_record(folder: Path, values: Mapping[str, Any]) -> None:
    write_atomic(folder / f"{NAME}.json", json.dumps(values, indent=2, allow_nan=False) + "\n")
