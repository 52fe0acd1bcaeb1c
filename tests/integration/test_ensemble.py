"""`softcam ensemble` and `--augment` on real files: joined, explained, recorded, checked, evaluated and served."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

import softcam
from softcam.cli import main
from softcam.imaging import Preprocessing
from softcam.predict import Predictor

CLASSES = ("dark", "bright")


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two models with thresholds, a manifest of two splits, keys, and the models joined."""
    folder = tmp_path_factory.mktemp("ensemble")
    for seed in (0, 1):
        torch.manual_seed(seed)
        black_box = softcam.create_black_box("timm:test_resnet", weights="none", num_classes=2).eval()
        record = Preprocessing(size=64).to_dict()
        model = softcam.convert(black_box)
        softcam.save(model, folder / f"{seed}", classes=CLASSES, preprocessing=record, thresholds={"bright": 0.4})
    draw, rows = np.random.default_rng(0), []
    (folder / "images").mkdir()
    for index in range(24):
        pixels = draw.integers(0, 120 + 60 * (index % 2), (48, 64, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "images" / f"{index}.png")
        rows.append((f"images/{index}.png", CLASSES[index % 2], "val" if index < 12 else "test"))
    pd.DataFrame(rows, columns=["image", "label", "split"]).to_csv(folder / "manifest.csv", index=False)
    assert main(["keys", "--out", str(folder / "keys")]) == 0
    assert run("ensemble", folder / "0", folder / "1", "--out", folder / "committee") == 0
    return folder


def run(*words: object) -> int:
    return main(list(map(str, words)))


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def test_explain_tells_how_far_members_are_apart(work: Path) -> None:
    out = work / "explained"
    options = ("--backend", "torch", "--no-overlays", "--regions")
    assert run("explain", work / "committee", work / "images", "--out", out, *options) == 0
    rows = read(out / "predictions.csv")
    alone = [
        list(Predictor(work / name, backend="torch")([work / "images" / r["image"] for r in rows])) for name in "01"
    ]
    for row, *pair in zip(rows, *alone, strict=True):
        logits = np.stack([prediction.logits for prediction in pair])
        assert [float(row[f"logit_{name}"]) for name in CLASSES] == pytest.approx(logits.mean(0), rel=1e-4, abs=1e-6)
        assert [float(row[f"std_{name}"]) for name in CLASSES] == pytest.approx(
            logits.std(0, ddof=1), rel=1e-3, abs=1e-6
        )
        lead = logits[:, 1] - logits[:, 0]
        assert float(row["std_margin"]) == pytest.approx(lead.std(ddof=1), rel=1e-3, abs=1e-6)
        with np.load(out / "evidence" / f"{row['image']}.npz") as arrays:
            maps = np.stack([prediction.maps for prediction in pair])
            np.testing.assert_allclose(arrays["maps"], maps.mean(0), rtol=1e-3, atol=1e-5)
            np.testing.assert_allclose(arrays["maps_std"], maps.std(0, ddof=1), rtol=1e-3, atol=1e-5)
            assert arrays["logits_std"] == pytest.approx(logits.std(0, ddof=1), rel=1e-3, abs=1e-6)
    assert len({row["image"] for row in read(out / "regions.csv")}) == 24


def test_views_are_recorded_and_computed_again(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = work / "seen"
    key = work / "keys" / "key.pem"
    options = ("--backend", "torch", "--no-overlays", "--augment", "flips", "--record", key)
    assert run("explain", work / "committee", work / "images", "--out", out, *options) == 0
    assert json.loads((out / "run.json").read_text())["model"]["augment"] == "flips"
    capsys.readouterr()
    public = work / "keys" / "key.pub.pem"
    again = ("--model", work / "committee", "--images", work / "images", "--backend", "torch", "--json")
    assert run("verify", out, "--key", public, *again) == 0
    found = json.loads(capsys.readouterr().out)
    assert [one["outcome"] for one in found["predictions"]] == ["confirmed"] * 24
    assert run("explain", work / "committee", work / "images", "--out", out, *options[:-4]) == 2


def test_thresholds_and_calibration_are_its_own(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    copy = work / "calibrated"
    options = ("--alpha", "0.2", "--thresholds", "youden", "--out", copy, "--json")
    assert run("calibrate", work / "committee", "--data", work / "manifest.csv", *options) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["threshold_rule"] == {"rule": "youden", "split": "val", "n": 12}
    predictor = Predictor(copy, backend="torch")
    assert predictor.members == 2
    assert set(predictor.thresholds) == {"bright"}


@pytest.mark.slow
def test_an_ensemble_is_evaluated_with_views_like_any_model(work: Path) -> None:
    def evaluate(out: str, *more: object) -> dict[str, Any]:
        options = ("--methods", "evidence", "grad_cam", "random", "--measures", "curves", "--explained", "4")
        where = ("--data", work / "manifest.csv", "--out", work / out)
        assert run("evaluate", work / "committee", *where, *options, *more) == 0
        return json.loads((work / out / "metrics.json").read_text())

    plain, seen = evaluate("plain"), evaluate("views", "--augment", "flips")
    for found in (plain, seen):
        assert found["identity"]["max_relative_error"] <= 1e-5
    run_record = (
        json.loads((work / "views" / "provenance.json").read_text())
        if (work / "views" / "provenance.json").exists()
        else {}
    )
    assert run_record.get("settings", {"augment": "flips"})["augment"] == "flips"
    tables = [pd.read_csv(work / name / "predictions.csv") for name in ("plain", "views")]
    expected = {
        augment: [p.probabilities[1] for p in Predictor(work / "committee", backend="torch", augment=augment)(
            [work / image for image in tables[0]["image"]])]
        for augment in (None, "flips")
    }  # fmt: skip
    for table, augment in zip(tables, (None, "flips"), strict=True):
        np.testing.assert_allclose(table["prob_bright"], expected[augment], rtol=1e-3, atol=1e-5)
    assert not np.allclose(tables[0]["prob_bright"], tables[1]["prob_bright"], rtol=1e-6, atol=1e-7)
    rows = pd.read_csv(work / "views" / "benchmark.csv")
    assert rows[rows["method"] == "evidence"]["value"].notna().any()
    assert rows[rows["method"] == "grad_cam"]["value"].isna().all(), "it has no one last layer to look at"


def test_the_service_answers_with_the_disagreement(work: Path) -> None:
    serving = pytest.importorskip("softcam.serving", reason="the service comes with the extra `serve`")
    from starlette.testclient import TestClient  # noqa: PLC0415

    models = serving.open_models([str(work / "committee")], backend="torch")
    with TestClient(serving.create_app(models), base_url="http://127.0.0.1") as client:
        content = (work / "images" / "3.png").read_bytes()
        found = client.post("/v1/explain", files={"file": content}).json()
        assert client.get("/v1/model").json()["head"] == "mean"
    (prediction,) = Predictor(work / "committee", backend="torch")([work / "images" / "3.png"])
    assert prediction.members is not None
    assert found["disagreement"]["members"] == 2
    np.testing.assert_allclose(found["disagreement"]["logits"], prediction.members.deviate_logits(), rtol=1e-3)
    np.testing.assert_allclose(found["disagreement"]["maps"], prediction.members.deviate_maps(), rtol=1e-2, atol=1e-5)


def test_models_that_differ_are_refused_in_one_line(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("ensemble", work / "0", "--out", work / "one") == 2
    assert "at least two" in capsys.readouterr().err
    assert not (work / "one").exists()
