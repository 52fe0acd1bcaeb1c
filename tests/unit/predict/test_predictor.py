from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import nn

from softcam.backbones import create_black_box
from softcam.bundle import fingerprint, save
from softcam.errors import BundleError, IdentityError, UnsupportedModelError
from softcam.imaging import Preprocessing, encode_png, image_from_array
from softcam.nn import Evidence, LinearEvidence, SoftCAM, convert
from softcam.predict import Predictor
from softcam.predict.predictor import sum_errors

Pictures = list[npt.NDArray[np.uint8]]


def test_gives_what_the_model_gives(model: SoftCAM, preprocessing: Preprocessing, pictures: Pictures) -> None:
    predictor = Predictor(model, preprocessing=preprocessing, batch_size=3)
    predictions = list(predictor(pictures))
    images = torch.stack([preprocessing(image_from_array(picture))[0] for picture in pictures])
    with torch.no_grad():
        evidence = model.evidence(images)
    assert [p.id for p in predictions] == [f"input-{i}" for i in range(7)]
    for index, prediction in enumerate(predictions):
        assert prediction.status == "ok"
        np.testing.assert_allclose(prediction.logits, evidence.logits[index], rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(prediction.maps, evidence.maps[index], rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(prediction.probabilities, evidence.probabilities()[index], rtol=1e-4)
        assert prediction.maps.mean((1, 2)) == pytest.approx(prediction.logits, rel=1e-4, abs=1e-6)
        assert 0 <= prediction.sum_error <= 1e-5
        assert prediction.predicted == str(evidence.logits[index].argmax().item())
        assert prediction.geometry == preprocessing.locate(*pictures[index].shape[:2])
        assert prediction.digest == image_from_array(pictures[index]).digest


def test_an_only_class_is_reported_from_its_threshold(
    tmp_path: Path, preprocessing: Preprocessing, pictures: Pictures
) -> None:
    model = convert(create_black_box("timm:test_resnet", num_classes=1, weights="none").eval())
    probability = next(iter(Predictor(model, preprocessing=preprocessing)(pictures[:1]))).probabilities
    assert probability == pytest.approx(0.5, abs=0.49)
    for shift, predicted in ((-1e-4, "defect"), (1e-4, "")):
        record = preprocessing.to_dict()
        thresholds = {"defect": float(probability[0]) + shift}
        save(model, tmp_path / "model", classes=["defect"], preprocessing=record, thresholds=thresholds)
        (found,) = Predictor(tmp_path / "model")(pictures[:1])
        assert (found.predicted, found.multi_label, found.contrast) == (predicted, True, (0, None))
        assert found.probabilities == pytest.approx(1 / (1 + np.exp(-found.logits)))
        assert found.margin().mean() == pytest.approx(found.logits[0], rel=1e-4)


@pytest.mark.parametrize(("layer", "size", "kind"), [(nn.Conv1d, (16,), "signals"), (nn.Conv3d, (4, 6, 8), "volumes")])
def test_refuses_models_of_what_no_image_file_holds(layer: type[nn.Module], size: tuple[int, ...], kind: str) -> None:
    pool = nn.AdaptiveAvgPool1d(1) if len(size) == 1 else nn.AdaptiveAvgPool3d(1)
    black_box = nn.Sequential(layer(1, 3, 3), pool, nn.Flatten(), nn.Linear(3, 2)).eval()
    model = convert(black_box, images=torch.randn(1, 1, *size))
    with pytest.raises(UnsupportedModelError, match=rf"Expected a model of images, but got one of {kind}.*evidence"):
        Predictor(model, preprocessing=Preprocessing(size=32))


def test_takes_paths_bytes_arrays_and_decoded_images(
    tmp_path: Path, model: SoftCAM, preprocessing: Preprocessing, pictures: Pictures
) -> None:
    content = encode_png(pictures[0])
    (tmp_path / "a.png").write_bytes(content)
    inputs = [tmp_path / "a.png", str(tmp_path / "a.png"), content, pictures[0], image_from_array(pictures[0])]
    predictions = list(Predictor(model, preprocessing=preprocessing)(inputs))
    assert [p.id for p in predictions[:3]] == [str(tmp_path / "a.png")] * 2 + ["input-2"]
    for prediction in predictions[1:]:
        np.testing.assert_allclose(prediction.logits, predictions[0].logits, rtol=1e-5, atol=1e-6)


def test_failures_are_named_in_their_place(
    tmp_path: Path, model: SoftCAM, preprocessing: Preprocessing, pictures: Pictures
) -> None:
    nan = np.full((8, 8), np.nan)
    inputs: list[Any] = [b"", pictures[0], tmp_path / "missing.png", nan, b"text", pictures[1]]
    predictions = list(Predictor(model, preprocessing=preprocessing, batch_size=2)(inputs))
    assert [p.status for p in predictions] == ["failed", "ok", "failed", "failed", "failed", "ok"]
    assert [p.reason for p in predictions[:4]] == ["file is empty", "", "file not found", "pixels hold NaN or infinity"]
    assert "not a readable" in predictions[4].reason
    assert predictions[0].maps.size == 0


def test_an_error_of_the_system_is_a_failure_too(
    model: SoftCAM, preprocessing: Preprocessing, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_source: object) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("softcam.predict.inputs.decode_image", broken)
    (prediction,) = Predictor(model, preprocessing=preprocessing)([b"x"])
    assert prediction.reason == "input/output error"


@pytest.mark.parametrize("batch_size", [1, 2, 7, 100])
def test_batches_hold_so_many_and_no_more(
    model: SoftCAM, preprocessing: Preprocessing, pictures: Pictures, batch_size: int
) -> None:
    predictor = Predictor(model, preprocessing=preprocessing, batch_size=batch_size)
    sizes = [len(batch) for batch in predictor.batches(pictures)]
    assert sizes == [batch_size] * (7 // batch_size) + [7 % batch_size] * (7 % batch_size > 0)


def test_failures_alone_do_not_pile_up(model: SoftCAM, preprocessing: Preprocessing) -> None:
    batches = Predictor(model, preprocessing=preprocessing, batch_size=2).batches(itertools.repeat(b""))
    assert len(next(batches)) == 8
    batches.close()


def test_starting_after_a_batch_gives_the_same_numbers(
    model: SoftCAM, preprocessing: Preprocessing, pictures: Pictures
) -> None:
    predictor = Predictor(model, preprocessing=preprocessing, batch_size=3)
    inputs: list[Any] = [pictures[0], b"", *pictures[1:]]
    first, *rest = predictor.batches(inputs)
    again = list(predictor.batches(inputs[len(first) :]))
    for old, new in zip(itertools.chain(*rest), itertools.chain(*again), strict=True):
        assert old.prediction.maps.tobytes() == new.prediction.maps.tobytes()


def test_an_endless_stream_is_taken_lazily(model: SoftCAM, preprocessing: Preprocessing, pictures: Pictures) -> None:
    taken = itertools.count()

    def endless() -> Iterator[npt.NDArray[np.uint8]]:
        while True:
            next(taken)
            yield pictures[0]

    stream = Predictor(model, preprocessing=preprocessing, batch_size=2)(endless())
    next(stream)
    assert next(taken) <= 2 + 4 + 2
    stream.close()
    assert not [t for t in threading.enumerate() if t.name.startswith("softcam-decode")]


def test_images_are_kept_only_up_to_a_size(model: SoftCAM, preprocessing: Preprocessing, pictures: Pictures) -> None:
    predictor = Predictor(model, preprocessing=preprocessing)
    limit = pictures[1].nbytes
    (batch,) = predictor.batches(pictures[:3], keep_bytes=limit)
    assert [outcome.image is not None for outcome in batch] == [True, True, False]
    assert batch[1].image is not None
    assert np.array_equal(batch[1].image.pixels, pictures[1])


def test_inputs_of_different_shapes_are_run_apart_and_stay_in_order(model: SoftCAM, pictures: Pictures) -> None:
    class Uneven(Preprocessing):
        def __call__(self, image: Any) -> Any:
            size = 32 if image.width % 2 else 64
            return Preprocessing(size=size)(image)

    predictions = list(Predictor(model, preprocessing=Uneven())(pictures))
    assert [p.maps.shape for p in predictions] == [(3, 4, 4) if i % 2 else (3, 8, 8) for i in range(7)]


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_nan_is_loud(model: SoftCAM, preprocessing: Preprocessing, pictures: Pictures, bad: float) -> None:
    model.head.classifier.bias.data[1] = bad
    with pytest.raises(IdentityError, match=r"finite evidence, but got NaN or infinity for input 0 \(input-0\)"):
        list(Predictor(model, preprocessing=preprocessing)(pictures))


class Leaky(LinearEvidence):
    """A layer whose maps do not average to its logits."""

    def evidence(self, features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        logits, maps = super().evidence(features)
        off = torch.zeros(len(maps), 1, 1, 1)
        off[1] = 3e-5 * float(maps.abs().max())
        return logits, maps + off


def test_a_broken_identity_is_loud(model: SoftCAM, preprocessing: Preprocessing, pictures: Pictures) -> None:
    model.head.__class__ = Leaky
    with pytest.raises(IdentityError, match=r"within 1e-05, but got a relative error of .* for input 1 \(input-1\)"):
        list(Predictor(model, preprocessing=preprocessing)(pictures))


def test_reads_a_bundle(tmp_path: Path, model: SoftCAM, pictures: Pictures) -> None:
    named = convert(_named_network())
    path = save(
        named, tmp_path / "m", classes=["x", "y"], thresholds={"y": 0.0}, preprocessing=Preprocessing(size=64).to_dict()
    )
    predictor = Predictor(path, device="cpu")
    assert predictor.classes == ("x", "y")
    assert predictor.preprocessing == Preprocessing(size=64)
    assert predictor.fingerprint == fingerprint(named)
    assert {p.predicted for p in predictor(pictures)} == {"y"}
    assert {p.maps.shape for p in predictor(pictures)} == {(2, 2, 2)}
    assert Predictor(str(path), preprocessing=Preprocessing(size=96)).preprocessing.size == 96
    renamed = Predictor(path, classes=["n", "m"])
    assert (renamed.classes, renamed.thresholds) == (("n", "m"), {})


def _named_network() -> nn.Module:
    from softcam.backbones import create_black_box  # noqa: PLC0415

    return create_black_box("timm:test_resnet", num_classes=2).eval()


def test_a_named_model_knows_its_preprocessing() -> None:
    assert Predictor(convert(_named_network())).preprocessing.size == 160


def test_the_model_handed_in_stays_as_it_is(model: SoftCAM, preprocessing: Preprocessing, pictures: Pictures) -> None:
    model.train()
    model.head.dropout = 0.5
    before = fingerprint(model)
    predictor = Predictor(model, preprocessing=preprocessing)
    one, two = (next(predictor(pictures)).logits for _ in range(2))
    assert np.array_equal(one, two)
    assert model.training
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert fingerprint(model) == before
    model.head.classifier.weight.data.zero_()
    assert np.array_equal(next(predictor(pictures)).logits, one)


@pytest.mark.parametrize("autocast", [torch.bfloat16, None])
def test_the_identity_holds_in_half_precision(
    model: SoftCAM, preprocessing: Preprocessing, pictures: Pictures, autocast: torch.dtype | None
) -> None:
    exact = list(Predictor(model, preprocessing=preprocessing)(pictures))
    half = model if autocast else model.bfloat16()
    predictions = list(Predictor(half, preprocessing=preprocessing, autocast=autocast)(pictures))
    for rough, fine in zip(predictions, exact, strict=True):
        assert rough.sum_error <= 1e-12
        assert not np.array_equal(rough.logits, fine.logits)
        np.testing.assert_allclose(rough.logits, fine.logits, atol=0.03)


def test_multi_label_gives_sigmoids(black_box: nn.Module, preprocessing: Preprocessing, pictures: Pictures) -> None:
    model = convert(black_box, multi_label=True)
    prediction = next(Predictor(model, preprocessing=preprocessing, classes=["a", "b", "c"])(pictures))
    np.testing.assert_allclose(prediction.probabilities, 1 / (1 + np.exp(-prediction.logits)), rtol=1e-5)
    assert prediction.multi_label


def test_gradients_and_modes_around_it_are_not_touched(
    model: SoftCAM, preprocessing: Preprocessing, pictures: Pictures
) -> None:
    for _ in Predictor(model, preprocessing=preprocessing, batch_size=2)(pictures):
        assert torch.is_grad_enabled()
        assert not torch.is_inference_mode_enabled()


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"batch_size": 0}, ValueError, "`batch_size` to be a whole number of at least 1, but got 0"),
        ({"batch_size": 2.0}, ValueError, "`batch_size`"),
        ({"autocast": torch.float32}, ValueError, "`autocast` to be torch.bfloat16"),
        ({"classes": ["a", "b"]}, ValueError, "`classes` to be 3 different names, but got 2"),
        ({"classes": ["a", "a", "b"]}, ValueError, "`classes` to be 3 different names"),
        ({"preprocessing": None}, ValueError, "`preprocessing` to be given"),
    ],
)
def test_refuses(
    model: SoftCAM, preprocessing: Preprocessing, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        Predictor(model, **{"preprocessing": preprocessing, **options})


def test_refuses_what_is_no_model_and_no_bundle(tmp_path: Path, black_box: nn.Module) -> None:
    with pytest.raises(TypeError, match="a bundle's folder or a SoftCAM model, but got Toy"):
        Predictor(black_box)  # type: ignore[arg-type]
    with pytest.raises(BundleError, match="bundle"):
        Predictor(tmp_path / "nothing")


@pytest.mark.parametrize("single", ["a.png", Path("a.png"), b"x", np.zeros((4, 4), np.uint8)])
def test_refuses_a_single_input(model: SoftCAM, preprocessing: Preprocessing, single: Any) -> None:
    with pytest.raises(TypeError, match="several inputs, but got one"):
        list(Predictor(model, preprocessing=preprocessing)(single))


def test_refuses_an_input_of_another_type(model: SoftCAM, preprocessing: Preprocessing) -> None:
    with pytest.raises(TypeError, match="but got int"):
        list(Predictor(model, preprocessing=preprocessing)([3]))  # type: ignore[list-item]


def test_its_identity_is_all_of_the_model_that_decides_predictions(tmp_path: Path) -> None:
    model = convert(create_black_box("timm:test_resnet", num_classes=2, weights="none").eval())
    record, names = Preprocessing(size=32).to_dict(), ["intact", "defect"]
    save(model, tmp_path / "model", classes=names, preprocessing=record, thresholds={names[1]: 0.3})
    predictor = Predictor(tmp_path / "model", autocast=torch.bfloat16)
    assert predictor.identity == {
        "fingerprint": predictor.fingerprint,
        "classes": names,
        "thresholds": {names[1]: 0.3},
        "preprocessing": record,
        "autocast": "torch.bfloat16",
    }


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_error_of_the_sum_is_that_of_the_evidence(dtype: torch.dtype) -> None:
    maps = torch.randn(5, 3, 4, 6, generator=torch.Generator().manual_seed(0), dtype=dtype)
    logits = maps.mean((2, 3)) * (1 + 1e-3 * torch.arange(5)[:, None])
    maps[3], logits[3] = 0, 0
    maps[4, 0, 0, 0] = float("nan")
    evidence = Evidence(logits, maps)
    np.testing.assert_allclose(sum_errors(evidence), evidence.sum_error().numpy(), rtol=1e-9, atol=1e-15)
    assert sum_errors(evidence)[3] == 0
