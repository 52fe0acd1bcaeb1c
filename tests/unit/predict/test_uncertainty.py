from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import nn

from softcam.backbones import create_black_box
from softcam.bundle import Calibration, read_config, save, update
from softcam.errors import IdentityError
from softcam.imaging import Preprocessing
from softcam.metrics import scale_threshold
from softcam.nn import Evidence, convert
from softcam.predict import Predictor
from softcam.predict.uncertainty import Uncertainty

Pictures = list[npt.NDArray[np.uint8]]
CLASSES = ("a", "b", "c")


def calibration(**values: Any) -> Calibration:
    return Calibration(**{"temperature": 2.0, "n": 50, "split": "val", "data_digest": "0" * 64, **values})


def evidence(logits: list[list[float]], *, multi_label: bool = False) -> Evidence:
    values = torch.tensor(logits)
    return Evidence(values, values[..., None, None].expand(-1, -1, 2, 2), multi_label)


def test_without_a_calibration_probabilities_are_those_of_the_evidence() -> None:
    found = evidence([[1.0, -2.0, 0.3]])
    probabilities, sets = Uncertainty(CLASSES)(found)
    assert probabilities.tobytes() == found.probabilities().numpy().tobytes()
    assert sets is None
    assert (Uncertainty(CLASSES).temperature, Uncertainty(CLASSES).identity) == (None, {})


def test_logits_are_divided_and_sets_are_sorted() -> None:
    found = evidence([[1.0, -2.0, 0.3], [9.0, 0.0, 0.0]])
    uncertainty = Uncertainty(CLASSES, calibration(method="lac", alpha=0.1, quantile=0.65))
    probabilities, sets = uncertainty(found)
    np.testing.assert_allclose(probabilities, (found.logits / 2).softmax(1), rtol=1e-6)
    assert probabilities.dtype == np.float32
    assert sets == [("a", "c"), ("a",)]
    assert uncertainty.identity == {"calibration": {"temperature": 2.0, "method": "lac", "quantile": 0.65}}
    none = Uncertainty(CLASSES, calibration(method="lac", alpha=0.1, quantile=0.01))(found)[1]
    assert none == [(), ()]
    adaptive = Uncertainty(CLASSES, calibration(method="aps", alpha=0.1, quantile=0.93))(found)[1]
    assert adaptive == [("a", "c"), ()]


def test_independent_classes_have_sigmoids_and_no_sets() -> None:
    found = evidence([[1.0, -2.0, 0.3]], multi_label=True)
    probabilities, sets = Uncertainty(CLASSES, calibration(), multi_label=True)(found)
    np.testing.assert_allclose(probabilities, (found.logits / 2).sigmoid(), rtol=1e-6)
    assert sets is None


@pytest.mark.parametrize(("classes", "multi_label"), [(1, False), (2, False), (3, False), (3, True)])
@pytest.mark.parametrize("temperature", [0.3, 3.0])
def test_calibration_changes_probabilities_and_nothing_else(
    tmp_path: Path,
    preprocessing: Preprocessing,
    pictures: Pictures,
    classes: int,
    multi_label: bool,
    temperature: float,
) -> None:
    black_box = create_black_box("timm:test_resnet", num_classes=classes, weights="none").eval()
    torch.manual_seed(1)
    for module in black_box.modules():
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight)
    model = convert(black_box, multi_label=multi_label)
    names = [f"class-{index}" for index in range(classes)]
    raw = {} if classes == 3 and not multi_label else {names[-1]: 0.3}
    save(model, tmp_path / "model", classes=names, preprocessing=preprocessing.to_dict(), thresholds=raw)
    config = read_config(tmp_path / "model")
    exclusive = config.task == "multiclass"
    sets = {"method": "lac", "alpha": 0.1, "quantile": 0.9} if exclusive else {}
    moved = {name: scale_threshold(value, temperature) for name, value in raw.items()}
    record = calibration(temperature=temperature, thresholds=raw, **sets)
    update(tmp_path / "model", replace(config, thresholds=moved, calibration=record), out=tmp_path / "new")
    before, after = (Predictor(tmp_path / name, backend="torch") for name in ("model", "new"))
    assert "calibration" not in before.identity
    assert after.identity["calibration"]["temperature"] == temperature
    assert before.fingerprint == after.fingerprint
    changed = 0
    for old, new in zip(before(pictures), after(pictures), strict=True):
        assert new.predicted == old.predicted
        assert (new.logits.tobytes(), new.maps.tobytes()) == (old.logits.tobytes(), old.maps.tobytes())
        assert new.sum_error == old.sum_error <= 1e-5
        scaled = torch.from_numpy(new.logits).double() / temperature
        expected = scaled.softmax(0) if exclusive else scaled.sigmoid()
        np.testing.assert_allclose(new.probabilities, expected, rtol=1e-6)
        changed += not np.allclose(new.probabilities, old.probabilities, atol=1e-4)
        assert old.prediction_set is None
        if exclusive:
            kept = {name for name, value in zip(names, expected, strict=True) if 1 - value <= 0.9}
            assert new.prediction_set is not None
            assert set(new.prediction_set) == kept
        else:
            assert new.prediction_set is None
    assert changed


def test_an_infinite_logit_is_still_named(preprocessing: Preprocessing, pictures: Pictures, tmp_path: Path) -> None:
    model = convert(create_black_box("timm:test_resnet", num_classes=2, weights="none").eval())
    save(model, tmp_path / "model", preprocessing=preprocessing.to_dict())
    record = calibration(method="lac", alpha=0.1, quantile=0.9)
    update(tmp_path / "model", replace(read_config(tmp_path / "model"), calibration=record))
    predictor = Predictor(tmp_path / "model", backend="torch")
    with torch.no_grad():
        predictor.model.head.classifier.weight.fill_(torch.inf)  # type: ignore[union-attr]
    with pytest.raises(IdentityError, match="NaN or infinity for input 0"):
        list(predictor(pictures[:1]))
