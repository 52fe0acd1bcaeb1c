from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pandas as pd

from softcam.evaluation import EvaluationResult, write_evaluation


def test_files(result: EvaluationResult, tmp_path: Path) -> None:
    out = write_evaluation(result, tmp_path / "deep" / "out")
    tables = {f"{name}.csv" for name in ("benchmark", "values", "curves", "predictions", "failures")}
    names = tables | {"provenance.json", "metrics.json"}
    assert {path.name for path in out.iterdir()} == names
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["classification"]["auroc"]["n"] == 15
    counts = {"test": 15, "failed": 1, "failed_masks": 0, "faithfulness": 6, "faithfulness_slow": 2}
    assert metrics["counts"] == counts
    for name in ("benchmark", "values"):
        again = pd.read_csv(out / f"{name}.csv", keep_default_na=False, na_values={"value": "", "low": "", "high": ""})
        assert list(again.columns) == list(getattr(result, name).columns)
        assert len(again) == len(getattr(result, name))
    columns = ["method", "metric", "value", "n", "undefined", "model"]
    pd.testing.assert_frame_equal(pd.read_csv(out / "benchmark.csv")[columns], result.benchmark[columns])
    assert pd.read_csv(out / "failures.csv")["image"].tolist() == ["07.png"]


def test_failures_have_a_header_also_when_there_are_none(result: EvaluationResult, tmp_path: Path) -> None:
    write_evaluation(replace(result, provenance={}), tmp_path)
    assert (tmp_path / "failures.csv").read_text() == "image,reason\n"
