"""A GPU gives what the CPU gives: evidence, training, every explanation method, every measure."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch import Tensor

import softcam
from softcam.attribution import attribute, list_methods
from softcam.backbones import create_black_box
from softcam.data import read_manifest
from softcam.errors import RunError, SoftCAMWarning
from softcam.evaluation import EvaluationSettings, evaluate
from softcam.evaluation.measures import MEASURES, Case
from softcam.evaluation.subjects import choose_subject
from softcam.export.agreement import relative_error
from softcam.imaging import Preprocessing
from softcam.nn import SoftCAM, convert
from softcam.predict import Prediction, Predictor
from softcam.training import Hardware, Learner, Recipe, TrainingRun, train

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU that torch can use"),
]
FLOAT32 = 1e-4
TF32 = 1e-2
"""Of the largest value: ten bits of mantissa, through many layers."""
NAMES = ("timm:resnet18", "timm:tf_efficientnet_lite0", "timm:convnext_atto", "torchvision:densenet121")


@pytest.fixture(params=[False, True], ids=["float32", "tf32"])
def tolerance(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> float:
    """How far the arithmetic of convolutions may be from the CPU's."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", request.param)
    return TF32 if request.param else FLOAT32


@pytest.fixture
def float32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)


def create_model(name: str, size: int = 96) -> SoftCAM:
    torch.manual_seed(0)
    black_box = create_black_box(name, num_classes=3).eval()
    return convert(black_box, images=torch.randn(2, 3, size, size))


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bundle") / "model"
    return softcam.save(create_model(NAMES[0]), path, preprocessing=Preprocessing(size=96).to_dict())


@pytest.fixture(scope="module")
def pictures() -> list[np.ndarray[Any, Any]]:
    generator = np.random.default_rng(0)
    return [generator.integers(0, 256, (90, 100 + i, 3), dtype=np.uint8) for i in range(21)]


def difference(found: Tensor, expected: Tensor) -> float:
    """Return the largest difference, relative to the largest expected value."""
    assert found.shape == expected.shape
    reference = expected.cpu().double()
    return relative_error(found.cpu().double() - reference, reference)


def check_same(found: list[Prediction], expected: list[Prediction], tolerance: float) -> None:
    assert len(found) == len(expected)
    for ours, theirs in zip(found, expected, strict=True):
        assert difference(torch.tensor(ours.logits), torch.tensor(theirs.logits)) <= tolerance
        assert difference(torch.tensor(ours.maps), torch.tensor(theirs.maps)) <= tolerance
        assert ours.sum_error <= 1e-6


@pytest.mark.parametrize("name", NAMES)
def test_predictions_are_those_of_the_cpu(name: str, pictures: list[Any], tolerance: float) -> None:
    model, preprocessing = create_model(name), Preprocessing(size=96)
    expected = list(Predictor(model, device="cpu", preprocessing=preprocessing)(pictures))
    predictor = Predictor(model, device="cuda", preprocessing=preprocessing)
    assert (predictor.backend, predictor.device.type) == ("torch", "cuda")
    check_same(list(predictor(pictures)), expected, tolerance)
    assert next(model.parameters()).device.type == "cpu"  # the predictor works on a copy


@pytest.mark.parametrize("name", NAMES)
def test_maps_average_to_the_logits_with_torch_s_own_settings(name: str) -> None:
    images = torch.randn(3, 3, 96, 96, generator=torch.Generator().manual_seed(1)).cuda()
    model = create_model(name).cuda()
    for memory_format in (torch.contiguous_format, torch.channels_last):
        with torch.no_grad():
            model.evidence(images.contiguous(memory_format=memory_format)).check(1e-5)
    model.evidence(images).check(1e-5).maps.sum().backward()
    assert all(parameter.grad is not None for parameter in model.head.parameters())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", NAMES)
def test_half_precision_keeps_the_sum_exact(name: str, dtype: torch.dtype, pictures: list[Any]) -> None:
    model, preprocessing = create_model(name), Preprocessing(size=96)
    expected = list(Predictor(model, device="cpu", preprocessing=preprocessing)(pictures))
    found = list(Predictor(model, device="cuda", autocast=dtype, preprocessing=preprocessing)(pictures))
    check_same(found, expected, 0.1)


def test_a_bundle_goes_to_the_gpu_by_itself(bundle: Path, pictures: list[Any]) -> None:
    predictor = Predictor(bundle)
    assert predictor.device.type == "cuda"
    assert "torch" in predictor.backend_reason
    assert all(prediction.status == "ok" for prediction in predictor(pictures))


@pytest.fixture
def little_memory() -> Iterator[None]:
    """A GPU with 1 GiB for this process."""
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(2**30 / torch.cuda.get_device_properties(0).total_memory)
    yield
    torch.cuda.set_per_process_memory_fraction(1.0)
    torch.cuda.empty_cache()


@pytest.mark.usefixtures("little_memory", "float32")
def test_batches_that_do_not_fit_are_halved() -> None:
    model = create_model(NAMES[0])
    preprocessing = Preprocessing(size=512)
    generator = np.random.default_rng(0)
    large = [generator.integers(0, 256, (512, 512, 3), dtype=np.uint8) for _ in range(128)]
    with pytest.warns(SoftCAMWarning, match="128 images to fit into the memory of cuda") as caught:
        found = list(Predictor(model, device="cuda", batch_size=128, preprocessing=preprocessing)(large))
    assert len([warning for warning in caught if issubclass(warning.category, SoftCAMWarning)]) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error", SoftCAMWarning)
        check_same(found, list(Predictor(model, device="cuda", preprocessing=preprocessing)(large)), FLOAT32)


@pytest.mark.usefixtures("little_memory")
def test_an_image_that_does_not_fit_alone_is_refused() -> None:
    predictor = Predictor(create_model(NAMES[0]), device="cuda", preprocessing=Preprocessing(size=8192))
    with (
        pytest.warns(SoftCAMWarning, match="2 images to fit"),
        pytest.raises(RunError, match=r"memory of cuda.* to hold one image, but it is full"),
    ):
        list(predictor([np.zeros((64, 64, 3), dtype=np.uint8)] * 2))


@pytest.mark.usefixtures("float32")
@pytest.mark.parametrize("method", list_methods())
def test_explanations_are_those_of_the_cpu(method: str) -> None:
    model = create_model(NAMES[0])
    images = torch.randn(3, 3, 96, 96, generator=torch.Generator().manual_seed(1))
    target = torch.tensor([2, 0, 1])
    expected = attribute(method, model, images, target)
    found = attribute(method, model.cuda(), images.cuda(), target.cuda())
    assert found.device.type == "cuda"
    # Noise is drawn on the CPU, so that a seed means the same everywhere.
    assert difference(found, expected) <= 2e-3


@pytest.mark.usefixtures("float32")
@pytest.mark.parametrize("measure", MEASURES)
def test_measures_are_those_of_the_cpu(measure: str) -> None:
    settings = EvaluationSettings(
        points=(0, 2, 5), fills=("mean",), insertion_fills=("mean",), shares=(0.2,), samples=4, patch=8,
        measures=tuple(MEASURES),
    )  # fmt: skip
    images = 0.5 * torch.randn(3, 3, 96, 96, generator=torch.Generator().manual_seed(2))
    truth = torch.zeros(3, 96, 96, dtype=torch.bool)
    truth[:2, 10:30, 20:40] = True
    found = {}
    for device in ("cpu", "cuda"):
        model = create_model(NAMES[0]).to(device)
        subject = choose_subject(model, images.to(device), settings.fills)
        explain = partial(attribute, "evidence", model)
        maps = explain(subject.images, subject.target)
        case = Case(replace(subject, truth=truth.to(device)), maps, explain, 8, settings)
        found[device] = MEASURES[measure].run(case)
    assert found["cuda"].keys() == found["cpu"].keys()
    for name, values in found["cuda"].items():
        torch.testing.assert_close(values.cpu(), found["cpu"][name].cpu(), rtol=5e-3, atol=5e-3, equal_nan=True)


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """48 images whose brightness says their class."""
    root = tmp_path_factory.mktemp("images")
    generator = np.random.default_rng(0)
    rows = ["image,label,split,patient"]
    for number in range(48):
        label = number % 2
        pixels = generator.integers(0, 120, (64, 64), dtype=np.uint8) + np.uint8(100 * label)
        Image.fromarray(pixels).save(root / f"{number:02}.png")
        split = ("train", "train", "val", "test")[number // 2 % 4]
        rows.append(f"{number:02}.png,{('no', 'yes')[label]},{split},p{number:02}")
    path = root / "manifest.csv"
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")
    return path


def make_recipe(manifest: Path, **changes: Any) -> Recipe:
    return Recipe.from_dict(
        {
            "name": "brightness",
            "data": {"source": str(manifest), "classes": ["no", "yes"], "image_size": 64, "batch_size": 12},
            "model": {"backbone": "timm:test_efficientnet", "weights": "none"},
            "penalty": {"l1": 1e-3, "l2": 1e-2},
            "optimizer": {"name": "adamw", "lr": 0.002},
            "precision": "32-true",
            "stages": [
                {"epochs": 2, "trunk": "blocks.1", "views": 2, "freeze_norms": True},
                {"epochs": 2, "freeze_norms": True},
            ],
        }
        | changes
    )


def read_losses(run: TrainingRun) -> dict[str, list[float]]:
    table = pd.read_csv(run.path / "metrics.csv")
    return {name: table[name].tolist() for name in ("train_loss", "train_penalty", "val_loss")}


@pytest.mark.usefixtures("float32")
def test_training_is_that_of_the_cpu(manifest: Path, tmp_path: Path) -> None:
    recipe = make_recipe(manifest)
    ours = train(recipe, tmp_path / "gpu", hardware=Hardware(accelerator="gpu"), progress=False)
    theirs = train(recipe, tmp_path / "cpu", hardware=Hardware(accelerator="cpu"), progress=False)
    expected = read_losses(theirs)
    for name, values in read_losses(ours).items():
        assert len(values) == 4
        assert values == pytest.approx(expected[name], rel=1e-2), name


def test_the_cpu_goes_on_where_half_precision_on_a_gpu_ended(
    manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = make_recipe(manifest, precision="auto")

    def stop(learner: Learner) -> None:
        if learner.current_epoch == 1:
            raise SystemError("power cut")

    monkeypatch.setattr(Learner, "on_train_epoch_end", stop)
    with pytest.raises(SystemError):
        train(recipe, tmp_path / "run", hardware=Hardware(accelerator="gpu"), progress=False)
    monkeypatch.undo()
    run = train(recipe, tmp_path / "run", hardware=Hardware(accelerator="cpu"), progress=False)
    losses = read_losses(run)
    assert all(len(values) == 4 and np.isfinite(values).all() for values in losses.values())
    model = softcam.load(run.model_path)
    assert all(parameter.dtype == torch.float32 for parameter in model.parameters())


def test_an_evaluation_gives_the_figures_of_the_cpu(manifest: Path, tmp_path: Path, tolerance: float) -> None:
    torch.manual_seed(0)
    model = convert(create_black_box(NAMES[0], num_classes=2).eval(), images=torch.randn(2, 3, 96, 96))
    path = softcam.save(model, tmp_path / "two", preprocessing=Preprocessing(size=96).to_dict(), classes=["no", "yes"])
    results = {}
    for device in ("cpu", "cuda"):
        settings = EvaluationSettings(device=device, methods=("evidence", "grad_cam"), resamples=50)
        results[device] = evaluate(path, read_manifest(manifest), settings=settings)
    ours, theirs = results["cuda"], results["cpu"]
    assert list(ours.benchmark.columns) == list(theirs.benchmark.columns)
    assert len(ours.benchmark) == len(theirs.benchmark) > 10
    for table in ("benchmark", "predictions", "curves"):
        found, expected = (getattr(result, table).select_dtypes("number").to_numpy() for result in (ours, theirs))
        # Where patches nearly tie, another is replaced first.
        np.testing.assert_allclose(found, expected, rtol=10 * tolerance, atol=10 * tolerance)
