from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from softcam.backbones import create_black_box
from softcam.bundle import read_config, save, update
from softcam.data import Manifest, read_manifest, write_manifest
from softcam.errors import ManifestError, RunError
from softcam.evaluation import CalibrationSettings, calibrate
from softcam.evaluation.calibration import _Answers, _fit, _move
from softcam.imaging import Preprocessing
from softcam.metrics import fit_temperature, scale_probabilities, scale_threshold
from softcam.nn import convert
from softcam.predict import Predictor

QUICK = CalibrationSettings(resamples=50, alpha=0.2)


def split(manifest: Manifest, *, val: int = 12) -> Manifest:
    """Let the first images of the test split be validation images."""
    table = manifest.table.copy()
    table.loc[: val - 1, "split"] = "val"
    return replace(manifest, table=table)


@pytest.fixture(scope="module")
def manifest(world: Any) -> Manifest:
    return split(world.manifest)


def test_decisions_stay_and_a_second_time_gives_the_same(world: Any, manifest: Manifest, tmp_path: Path) -> None:
    found = calibrate(world.softcam, manifest, settings=QUICK)
    assert json.dumps(found.metrics, allow_nan=False)
    record = found.config.calibration
    assert record is not None
    assert record.thresholds == read_config(world.softcam).thresholds == {"defect": 0.4}
    assert found.config.thresholds != record.thresholds
    assert (record.n, record.split, record.alpha) == (11, "val", 0.2)  # one file is no image
    assert [failure.image for failure in found.failures] == ["07.png"]
    assert found.metrics["fit"]["changed_decisions"] == found.metrics["verification"]["changed_decisions"] == 0
    assert record.verification is not None
    assert record.verification["n"] == found.metrics["verification"]["n"] == 4
    assert record.verification["coverage"] == found.metrics["verification"]["sets"]["coverage"]
    new = update(world.softcam, found.config, out=tmp_path / "new")
    before, after = (list(Predictor(path)(manifest.subset("test").paths)) for path in (world.softcam, new))
    assert [p.predicted for p in before] == [p.predicted for p in after]
    again = calibrate(new, manifest, settings=QUICK)
    assert again.config == found.config
    other = calibrate(new, manifest, settings=replace(QUICK, score="aps", alpha=0.3)).config
    assert other.calibration is not None
    assert other.calibration.method == "aps"
    assert other.calibration.temperature == record.temperature
    assert other.thresholds == found.config.thresholds


def test_temperature_and_quantile_are_those_of_the_logits(world: Any, manifest: Manifest) -> None:
    found = calibrate(world.softcam, manifest, settings=QUICK)
    part = manifest.subset("val")
    answers = [p for p in Predictor(world.softcam)(part.paths) if p.status == "ok"]
    logits = np.stack([p.logits for p in answers]).astype(float)
    targets = np.delete(part.targets, 7)
    record = found.config.calibration
    assert record is not None
    assert record.temperature == pytest.approx(fit_temperature(logits, targets), rel=1e-4)
    odds = scale_probabilities(logits, temperature=record.temperature)
    scores = np.sort(1 - odds[np.arange(11), targets])
    assert record.quantile == pytest.approx(scores[math.ceil(12 * 0.8) - 1], rel=1e-5)
    assert record.data_digest == part.digest()
    losses = found.metrics["fit"]["nll"]
    assert losses["calibrated"] <= losses["raw"]


def test_progress_and_notes(world: Any, manifest: Manifest) -> None:
    told: list[tuple[str, int, int]] = []
    found = calibrate(world.softcam, manifest, settings=QUICK, progress=lambda *step: told.append(step))
    assert told[-1] == ("test", 4, 4)
    assert ("val", 12, 12) in told
    table = manifest.table.assign(split=["val" if name == "test" else name for name in manifest.table["split"]])
    alone = calibrate(world.softcam, replace(manifest, table=table), settings=QUICK)
    assert alone.metrics["verification"] is None
    assert alone.config.calibration is not None
    assert alone.config.calibration.verification is None
    assert any("not verified" in note for note in alone.metrics["notes"])
    assert not any("not verified" in note for note in found.metrics["notes"])


def test_says_what_is_wrong(world: Any, manifest: Manifest, tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="split 'val', but got splits"):
        calibrate(world.softcam, world.manifest, settings=QUICK)
    with pytest.raises(RunError, match=r"at least 19 images in split 'val' for an alpha of 0.05, but got 12"):
        calibrate(world.softcam, manifest, settings=replace(QUICK, alpha=0.05))
    # Enough rows, but one of them is no image.
    with pytest.raises(RunError, match=r"at least 9 images in split 'val' for an alpha of 0.1, but got 8"):
        calibrate(world.softcam, split(world.manifest, val=9), settings=replace(QUICK, alpha=0.1))
    with pytest.raises(RunError, match="SoftCAM model, but got its black-box twin"):
        calibrate(world.black_box, manifest, settings=QUICK)
    for alpha in (0.0, 1.0):
        with pytest.raises(ValueError, match="`alpha` to lie in"):
            CalibrationSettings(alpha=alpha)
    with pytest.raises(ValueError, match="`score` to be lac or aps"):
        CalibrationSettings(score="raps")  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def several(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Manifest]:
    """A model of independent classes with its images."""
    folder = tmp_path_factory.mktemp("several")
    generator = np.random.default_rng(0)
    rows = []
    for index in range(16):
        Image.fromarray(generator.integers(0, 255, (40, 40, 3), dtype=np.uint8)).save(folder / f"{index}.png")
        rows.append((f"{index}.png", index % 2, int(index % 3 == 0), "val" if index < 10 else "test"))
    write_manifest(pd.DataFrame(rows, columns=["image", "a", "b", "split"]), folder / "manifest.csv")
    torch.manual_seed(0)
    model = convert(create_black_box("timm:test_resnet", num_classes=2).eval(), multi_label=True)
    record = Preprocessing(size=32).to_dict()
    save(model, folder / "model", classes=("a", "b"), preprocessing=record, thresholds={"a": 0.45})
    return folder / "model", read_manifest(folder / "manifest.csv", classes=("a", "b"))


def test_independent_classes_get_a_temperature_alone(several: tuple[Path, Manifest], tmp_path: Path) -> None:
    bundle, manifest = several
    found = calibrate(bundle, manifest, settings=replace(QUICK, alpha=0.01))  # too few images for sets, but none asked
    record = found.config.calibration
    assert record is not None
    assert (record.method, record.alpha, record.quantile) == (None, None, None)
    assert "a temperature alone, no prediction sets" in found.metrics["notes"][0]
    assert "sets" not in found.metrics["fit"]
    assert set(found.config.thresholds) == {"a"}
    assert found.metrics["verification"]["changed_decisions"] == 0
    new = update(bundle, found.config, out=tmp_path / "new")
    before, after = (list(Predictor(path)(manifest.paths)) for path in (bundle, new))
    assert [p.predicted for p in before] == [p.predicted for p in after]
    assert after[0].prediction_set is None


@pytest.mark.parametrize("seed", [2, 3])
def test_a_threshold_that_is_a_score_turns_nobody_over(seed: int, world: Any) -> None:
    logits = np.random.default_rng(seed).normal(size=(200, 2)).astype(np.float32).astype(float)
    scores = scale_probabilities(logits, temperature=1.0)[:, 1].astype(np.float32)
    ordered = np.sort(scores)[[0, 50, 100, 150, 199]]
    config = replace(read_config(world.softcam), thresholds={"defect": 0.5})
    fitted = _fit(config, _Answers(logits, np.arange(200) % 2, None, ()), "0" * 64, QUICK)
    assert fitted.calibration is not None
    turned_by_scaling_alone = 0
    for threshold in map(float, (*ordered, *np.nextafter(ordered, np.float32(1)))):
        for temperature in (0.2, 0.9, 13.0):
            record = replace(fitted.calibration, temperature=temperature)
            new, above = scale_probabilities(logits, temperature=temperature)[:, 1], scores >= threshold
            moved = _move(threshold, 1, logits, record, config)
            assert ((new >= moved) == above).all(), (threshold, temperature)
            turned_by_scaling_alone += not ((new >= scale_threshold(threshold, temperature)) == above).all()
    assert turned_by_scaling_alone > 0, "otherwise this shows nothing"
