from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image

from softcam.backbones import create_black_box
from softcam.bundle import load, measure_inputs, read_config, save, update
from softcam.errors import BundleError, IdentityError
from softcam.imaging import Preprocessing
from softcam.nn import Evidence, convert
from softcam.predict import Checks, Predictor
from softcam.predict.backends import TorchBackend
from softcam.predict.runners import Runner

Picture = npt.NDArray[np.uint8]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that has seen dark, noisy colour images of 40 x 50 pixels."""
    folder = tmp_path_factory.mktemp("checks")
    paths = [folder / f"{index}.png" for index in range(60)]
    for index, path in enumerate(paths):
        Image.fromarray(usual(index)).save(path)
    torch.manual_seed(0)
    model = convert(create_black_box("timm:test_resnet", num_classes=2, weights="none").eval())
    record = Preprocessing(size=32)
    inputs = measure_inputs(model, record, paths[:30], paths[30:])
    return save(
        model, folder / "model", classes=("a", "b"), preprocessing=record.to_dict(), provenance={"inputs": inputs}
    )


def usual(seed: int) -> Picture:
    return np.random.default_rng(seed).integers(0, 90, (40, 50, 3), dtype=np.uint8)


UNUSUAL: dict[str, Picture] = {
    "size": np.random.default_rng(0).integers(0, 90, (40, 50), dtype=np.uint8),  # grey
    "intensity": np.random.default_rng(0).integers(120, 255, (40, 50, 3), dtype=np.uint8),
}


def ask(bundle: Path, *pictures: Picture, **options: Any) -> list[Any]:
    return list(Predictor(bundle, **{"backend": "torch", **options})(pictures))


def test_images_like_those_of_the_training_have_no_warnings(bundle: Path) -> None:
    found = ask(bundle, *(usual(1000 + index) for index in range(20)))
    assert sum(bool(one.warnings) for one in found) <= 2  # a hundredth of them may
    assert all(one.status == "ok" for one in found)


@pytest.mark.parametrize("check", list(UNUSUAL))
def test_each_check_is_off_warns_or_refuses(bundle: Path, check: str) -> None:
    off = Checks.of_inputs("off")
    for level in ("off", "warn", "refuse"):
        checks = replace(off, **{check: level})  # type: ignore[arg-type]
        good, bad = ask(bundle, usual(1000), UNUSUAL[check], checks=checks)
        assert (good.status, good.warnings) == ("ok", ())
        if level == "refuse":
            assert (bad.status, bad.warnings, bad.predicted) == ("failed", (), None)
            assert bad.reason.startswith(f"refused, {check}: ")
            assert bad.digest
            assert bad.maps.size == 0
        else:
            assert bad.status == "ok"
            assert [text.split(":")[0] for text in bad.warnings] == ([check] if level == "warn" else [])


def test_features_tell_an_image_of_another_kind(bundle: Path) -> None:
    ramp = np.ascontiguousarray(np.broadcast_to(np.linspace(0, 89, 50).astype(np.uint8)[None, :, None], (40, 50, 3)))
    checks = replace(Checks.of_inputs("off"), features="warn")
    good, bad = ask(bundle, usual(1000), ramp, checks=checks)
    assert good.warnings == ()
    assert bad.warnings[0].startswith("features: distance ")
    (refused,) = ask(bundle, ramp, checks=replace(checks, features="refuse"))
    assert refused.status == "failed"


def test_predictions_do_not_depend_on_the_checks(bundle: Path) -> None:
    pictures = [usual(index) for index in range(5)]
    for one, other in zip(ask(bundle, *pictures), ask(bundle, *pictures, checks=Checks.of_inputs("off")), strict=True):
        assert one.maps.tobytes() == other.maps.tobytes()
        assert one.logits.tobytes() == other.logits.tobytes()


def test_features_cost_no_pass(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    predictor = Predictor(bundle, backend="torch", batch_size=4)
    passes = []
    forward = predictor.model.features.forward
    monkeypatch.setattr(
        predictor.model.features, "forward", lambda images: (passes.append(len(images)), forward(images))[1]
    )
    list(predictor(usual(index) for index in range(6)))
    assert passes == [4, 2]


def test_features_are_those_of_the_images_asked_for(bundle: Path) -> None:
    model = load(bundle)
    backend = TorchBackend(model, torch.device("cpu"))
    images = torch.randn(3, 3, 32, 32)
    with backend.noting_features() as found:
        backend(torch.zeros(2, 3, 32, 32))
        backend(images)
    with torch.no_grad():
        expected = model.forward_features(images).flatten(2).mean(-1)  # type: ignore[union-attr]
    torch.testing.assert_close(torch.cat(found)[-3:], expected)
    backend(images)
    assert len(found) == 2


def test_without_statistics_nothing_is_compared(bundle: Path, tmp_path: Path) -> None:
    bare = update(bundle, replace(read_config(bundle), inputs=None), out=tmp_path / "bare")
    predictor = Predictor(bare, backend="torch", checks=Checks.of_inputs("refuse"))
    (found,) = predictor([UNUSUAL["intensity"]])
    assert (found.status, found.warnings) == ("ok", ())
    assert not predictor.checker.is_active
    assert predictor.checker.identity == {}


def test_checks_have_an_identity_beside_that_of_the_model(bundle: Path) -> None:
    predictors = [Predictor(bundle, backend="torch", checks=Checks.of_inputs(c)) for c in ("warn", "refuse", "off")]  # type: ignore[arg-type]
    assert predictors[0].identity == predictors[1].identity == predictors[2].identity
    warn, refuse, off = (predictor.checker.identity for predictor in predictors)
    assert warn["checks"] == {"sum": "refuse", "size": "warn", "intensity": "warn", "features": "warn"}
    assert warn["statistics"] == refuse["statistics"]
    assert warn != refuse
    assert off == {}
    assert Predictor(bundle, backend="torch").checker.identity == warn


def test_a_refusal_by_features_needs_torch(bundle: Path) -> None:
    checks = replace(Checks(), features="refuse")
    with pytest.raises(ValueError, match="backend to be torch, since the check `features` refuses"):
        Predictor(bundle, backend="onnxruntime", checks=checks)
    predictor = Predictor(bundle, checks=checks)
    assert predictor.backend_reason == "torch, as asked for"


def test_without_torch_features_are_not_checked(bundle: Path) -> None:
    pytest.importorskip("onnxruntime")
    ramp = np.ascontiguousarray(np.broadcast_to(np.linspace(0, 89, 50).astype(np.uint8)[None, :, None], (40, 50, 3)))
    checks = replace(Checks.of_inputs("off"), features="warn", intensity="warn")
    found = ask(bundle, ramp, UNUSUAL["intensity"], checks=checks, backend="onnxruntime")
    assert not any(text.startswith("features") for one in found for text in one.warnings)
    assert found[1].warnings[0].startswith("intensity")


class Skewed(TorchBackend):
    def __call__(self, images: torch.Tensor) -> Evidence:
        found = super().__call__(images)
        return replace(found, logits=found.logits + 0.01 * found.logits.abs().max())


@pytest.mark.parametrize("level", ["off", "warn", "refuse"])
def test_a_wrong_sum_is_off_warns_or_ends_the_run(bundle: Path, level: Any) -> None:
    predictor = Predictor(bundle, backend="torch", checks=Checks(sum=level))
    skewed = Skewed(predictor.model, predictor.device)
    predictor._runners = [Runner(skewed, skewed)]
    if level == "refuse":
        with pytest.raises(IdentityError, match="average to the logits"):
            list(predictor([usual(1000)]))
        return
    (found,) = predictor([usual(1000)])
    assert [text.split(":")[0] for text in found.warnings if text.startswith("sum")] == ["sum"] * (level == "warn")
    with torch.no_grad():
        predictor.model.head.classifier.weight.fill_(torch.nan)  # type: ignore[union-attr]
    with pytest.raises(IdentityError, match="NaN or infinity"):
        list(predictor([usual(1000)]))


def test_names_and_outputs_are_compared_when_a_model_is_loaded(bundle: Path, tmp_path: Path) -> None:
    copy = update(bundle, read_config(bundle), out=tmp_path / "copy")
    text = (copy / "config.json").read_text()
    more = text.replace('"classes": [\n    "a",', '"classes": [\n    "c",\n    "a",')
    assert more != text
    (copy / "config.json").write_text(more)
    with pytest.raises(BundleError, match="`classes` to be the 2 of `conversion`"):
        Predictor(copy)
    (copy / "config.json").write_text(more.replace('"num_classes": 2', '"num_classes": 3'))
    with pytest.raises(BundleError, match="of shape"):
        Predictor(copy)
    with pytest.raises(ValueError, match="`classes` to be 2 different names, but got 3"):
        Predictor(bundle, classes=["a", "b", "c"])


def test_refuses_unknown_levels() -> None:
    with pytest.raises(ValueError, match="check `size` to be one of off, warn, refuse, but got 'fail'"):
        Checks(size="fail")  # type: ignore[arg-type]
