from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from softcam.evaluation import EvaluationResult, write_evaluation
from softcam.evaluation.result import plain


def test_files(result: EvaluationResult, tmp_path: Path) -> None:
    out = write_evaluation(result, tmp_path / "deep" / "out")
    names = {"benchmark.csv", "curves.csv", "predictions.csv", "failures.csv", "provenance.json", "metrics.json"}
    assert {path.name for path in out.iterdir()} == names
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["classification"]["auroc"]["n"] == 15
    assert metrics["counts"] == {"test": 15, "failed": 1, "faithfulness": 6, "faithfulness_slow": 2}
    pd.testing.assert_frame_equal(pd.read_csv(out / "benchmark.csv"), result.benchmark)
    assert pd.read_csv(out / "failures.csv")["image"].tolist() == ["07.png"]


def test_failures_have_a_header_also_when_there_are_none(result: EvaluationResult, tmp_path: Path) -> None:
    write_evaluation(replace(result, provenance={}), tmp_path)
    assert (tmp_path / "failures.csv").read_text() == "image,reason\n"


def test_json_is_strict() -> None:
    values = {"a": np.array([1.0, np.inf]), "b": np.int64(3), "c": (None, "x", np.True_), "d": np.nan}
    assert plain(values) == {"a": [1.0, None], "b": 3, "c": [None, "x", True], "d": None}
    with pytest.raises(TypeError, match="Expected JSON values, but got object"):
        plain({"a": object()})
