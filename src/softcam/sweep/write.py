"""The files that hold what a sweep found."""

from __future__ import annotations

import json
from pathlib import Path

from softcam.files import write_atomic
from softcam.sweep.figure import draw_sweep
from softcam.sweep.result import SweepResult


def write_sweep(result: SweepResult, out: str | Path) -> Path:
    """Write `sweep.csv`, `sweep.png` and, last, `sweep.json`, each whole or not at all.

    Args:
        result: What `sweep` returned.
        out: The folder; made if needed.

    Returns:
        The folder.
    """
    folder = Path(out)
    write_atomic(folder / "sweep.csv", result.table().to_csv(index=False, lineterminator="\n"))
    write_atomic(folder / "sweep.png", draw_sweep(result))
    write_atomic(folder / "sweep.json", json.dumps(result.to_dict(), indent=2, allow_nan=False) + "\n")
    return folder
