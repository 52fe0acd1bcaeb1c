from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from softcam.bundle import Calibration
from softcam.predict import Prediction, Uncertainty
from softcam.predict.members import Members
from softcam.reporting.predictions import Columns, make_row, write_tables

CLASSES = ("=a", "b")
SETS = Uncertainty(CLASSES, Calibration(1.5, 9, "val", "0" * 64, method="lac", alpha=0.1, quantile=0.5))


def predictor(uncertainty: Uncertainty, *, checked: bool = False, members: int = 1) -> Any:
    checker = SimpleNamespace(is_active=checked)
    return SimpleNamespace(classes=CLASSES, uncertainty=uncertainty, checker=checker, members=members)


def prediction(members: tuple[str, ...] | None) -> Prediction:
    values: dict[str, Any] = {"probabilities": np.array([0.75, 0.25], np.float32)}
    values["logits"] = np.array([1.0, -0.5], np.float32)
    return Prediction(
        "x", "ok", CLASSES, predicted="=a", sum_error=1e-7, digest=str(members), prediction_set=members, **values
    )


@pytest.fixture
def write(tmp_path: Path) -> Any:
    def run(columns: Columns, *predictions: Prediction | None) -> list[list[str]]:
        entry: Any = SimpleNamespace(id="x.png", refusal="no image", frame=None)
        seen: dict[str, str] = {}
        rows = [make_row(entry, one, seen, columns) for one in predictions]
        write_tables(tmp_path, rows, columns)
        with (tmp_path / "predictions.csv").open(newline="", encoding="utf-8") as stream:
            return list(csv.reader(stream))

    return run


def test_without_a_calibration_the_table_is_as_it_was(write: Any) -> None:
    columns = Columns.of(predictor(Uncertainty(CLASSES)))
    head, good, bad = write(columns, prediction(None), None)
    assert head == ["image", "status", "predicted", "prob_=a", "prob_b", "logit_=a", "logit_b", "sum_error", "error"]
    assert good == ["x.png", "ok", "'=a", "0.75", "0.25", "1", "-0.5", "1e-07", ""]
    assert bad == ["x.png", "failed", *[""] * 6, "no image"]


def test_sets_have_a_column_where_the_model_has_them(write: Any) -> None:
    columns = Columns.of(predictor(SETS))
    head, *rows = write(columns, prediction(("=a", "b")), prediction(()), prediction(("b",)), None)
    assert head[-3:] == ["sum_error", "prediction_set", "error"]
    assert [row[-2] for row in rows] == ["'=a;b", "", "b", ""]
    assert {len(row) for row in rows} == {len(head)}
    assert [row[6] for row in rows[:3]] == ["-0.5"] * 3


def test_a_temperature_alone_adds_no_column() -> None:
    assert SETS.calibration is not None
    alone = replace(SETS.calibration, method=None, alpha=None, quantile=None)
    assert Columns.of(predictor(Uncertainty(CLASSES, alone))) == Columns(CLASSES)


def test_warnings_have_a_column_and_are_counted(write: Any, tmp_path: Path) -> None:
    columns = Columns.of(predictor(SETS, checked=True))
    told = replace(prediction(("b",)), warnings=("size: grey (seen colour alone)", "sum: x"))
    head, good, warned, bad = write(columns, prediction(()), told, None)
    assert head[-4:] == ["sum_error", "prediction_set", "warnings", "error"]
    assert (good[-2], warned[-3:-1], bad[-2]) == ("", ["b", "size: grey (seen colour alone);sum: x"], "")
    entry: Any = SimpleNamespace(id="x.png", refusal="no image", frame=None)
    rows = [make_row(entry, one, {}, columns) for one in (told, None, prediction(()))]
    assert write_tables(tmp_path, rows, columns) == {"inputs": 3, "done": 2, "failed": 1, "warned": 1}
    bare = Columns.of(predictor(SETS))
    rows = [make_row(entry, one, {}, bare) for one in (told, None)]
    assert write_tables(tmp_path, rows, bare) == {"inputs": 2, "done": 1, "failed": 1}


def test_members_of_an_ensemble_have_columns_of_their_spread(write: Any) -> None:
    columns = Columns.of(predictor(SETS, checked=True, members=2))
    members = Members(np.array([[1.0, 0.0], [3.0, 1.0]], np.float32), np.zeros((2, 2, 1, 1), np.float32))
    head, good, bad = write(columns, replace(prediction(("b",)), members=members), None)
    assert head[7:] == ["sum_error", "std_=a", "std_b", "std_margin", "prediction_set", "warnings", "error"]
    assert good[7:] == ["1e-07", "1.41421", "0.707107", "0.707107", "b", "", ""]
    assert bad[2:] == [""] * 11 + ["no image"]
