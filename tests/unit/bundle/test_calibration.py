from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from softcam.backbones import create_black_box
from softcam.bundle import BundleConfig, Calibration, load, read_config, save, update
from softcam.errors import BundleError
from softcam.export.kept import keep_graph
from softcam.nn import convert

VALUES: dict[str, Any] = {
    "temperature": 1.5,
    "n": 100,
    "split": "val",
    "data_digest": "a" * 64,
    "method": "lac",
    "alpha": 0.1,
    "quantile": 0.7,
    "thresholds": {"defect": 0.2},
    "verification": {"split": "test", "coverage": {"value": 0.9}},
}


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    model = convert(create_black_box("timm:test_resnet", num_classes=2, weights="none").eval())
    return save(model, tmp_path / "model", classes=["intact", "defect"], thresholds={"defect": 0.2})


def calibrated(folder: Path, **changes: Any) -> BundleConfig:
    return replace(read_config(folder), thresholds={"defect": 0.3}, calibration=Calibration(**{**VALUES, **changes}))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"temperature": 0}, r"`calibration.temperature` to be finite and above 0, but got 0"),
        ({"temperature": float("inf")}, "`calibration.temperature`"),
        ({"temperature": True}, "`calibration.temperature`"),
        ({"n": 0}, "`calibration.n` to be a whole number of at least 1"),
        ({"split": ""}, "`calibration.split`"),
        ({"data_digest": "a"}, "`calibration.data_digest` to be a SHA-256"),
        ({"method": "raps"}, r"`calibration.method` to be one of \('lac', 'aps'\) or null"),
        ({"alpha": 0.0}, r"`calibration.alpha` to be in \(0, 1\)"),
        ({"alpha": 1.0}, r"`calibration.alpha` to be in \(0, 1\)"),
        ({"quantile": 1.01}, r"`calibration.quantile` to be in \[0, 1\]"),
        ({"quantile": None}, "`method`, `alpha` and `quantile` of a calibration together"),
        ({"method": None}, "`method`, `alpha` and `quantile` of a calibration together"),
        ({"thresholds": {"defect": 1.1}}, "`calibration.thresholds`"),
        ({"verification": {"x": {1}}}, "`calibration.verification`"),
        ({"verification": {"x": float("nan")}}, "`calibration.verification`"),
    ],
)
def test_refuses_values_that_no_calibration_has(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Calibration(**{**VALUES, **change})


def test_a_temperature_alone_is_whole() -> None:
    assert not Calibration(2.0, 5, "val", "0" * 64).has_sets
    assert Calibration(**VALUES).has_sets


def test_is_read_back_as_it_was_written(bundle: Path) -> None:
    before = (bundle / "config.json").read_text()
    assert "calibration" not in before
    config = calibrated(bundle)
    assert update(bundle, config) == bundle
    assert read_config(bundle) == config
    assert json.loads((bundle / "config.json").read_text())["calibration"] == VALUES
    card = (bundle / "README.md").read_text()
    assert "divided by 1.5, chosen on 100 images; prediction sets (lac) hold the true class of 90 % of images" in card
    assert load(bundle).num_classes == 2
    assert read_config(bundle).uncalibrated().to_json() == before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"temprature": 1.0}, "Did you mean 'temperature'"),
        ({"temperature": -1.0}, "`calibration` to be a whole record, but: .*above 0"),
        ({"thresholds": {}}, "`calibration.thresholds` to be of the classes of `thresholds`"),
    ],
)
def test_a_wrong_record_is_named(bundle: Path, change: dict[str, Any], message: str) -> None:
    values = json.loads(calibrated(bundle).to_json())
    values["calibration"] |= change
    (bundle / "config.json").write_text(json.dumps(values))
    with pytest.raises(BundleError, match=message):
        read_config(bundle)


def test_an_incomplete_record_is_named(bundle: Path) -> None:
    values = json.loads(calibrated(bundle).to_json())
    del values["calibration"]["n"]
    (bundle / "config.json").write_text(json.dumps(values))
    with pytest.raises(BundleError, match="n is missing"):
        read_config(bundle)


def test_black_boxes_and_independent_classes_have_none(bundle: Path) -> None:
    values = asdict(calibrated(bundle)) | {"calibration": Calibration(**VALUES)}
    with pytest.raises(BundleError, match="black box without `calibration`"):
        BundleConfig(**values | {"kind": "black_box"})
    with pytest.raises(BundleError, match=r"`calibration.method` to be null for independent classes"):
        BundleConfig(**values | {"task": "multilabel"})
    with pytest.raises(BundleError, match="`calibration` to be a `Calibration` or null"):
        BundleConfig(**values | {"calibration": VALUES})


def test_a_copy_leaves_the_original_alone(bundle: Path, tmp_path: Path) -> None:
    before = (bundle / "config.json").read_bytes()
    copy = update(bundle, calibrated(bundle), out=tmp_path / "copy")
    assert (bundle / "config.json").read_bytes() == before
    assert read_config(copy).calibration == Calibration(**VALUES)
    assert (copy / "model.safetensors").read_bytes() == (bundle / "model.safetensors").read_bytes()
    assert {path.name for path in copy.iterdir()} == {"model.safetensors", "config.json", "README.md"}
    update(bundle, calibrated(bundle, temperature=3.0), out=copy)
    assert read_config(copy).calibration == Calibration(**VALUES | {"temperature": 3.0})
    other = tmp_path / "other"
    other.mkdir()
    (other / "note.txt").write_text("mine")
    with pytest.raises(BundleError, match="nothing was changed"):
        update(bundle, calibrated(bundle), out=other)
    with pytest.raises(BundleError, match="description of the same weights"):
        update(bundle, replace(calibrated(bundle), fingerprint="0" * 64))


def test_working_in_place_keeps_exported_graphs(bundle: Path) -> None:
    kept = keep_graph(bundle, (32, 32))
    (bundle / "exports").mkdir()
    (bundle / "exports" / kept.name).write_bytes(b"graph")
    update(bundle, calibrated(bundle), out=bundle)
    assert keep_graph(bundle, (32, 32)).find() == kept.find() is not None
