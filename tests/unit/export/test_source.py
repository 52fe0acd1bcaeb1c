from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import softcam
from softcam.bundle import fingerprint
from softcam.errors import BundleError, ExportError
from softcam.export.source import open_source
from softcam.nn import SoftCAM, convert


def test_a_model_is_known_from_its_conversion(model: SoftCAM) -> None:
    source = open_source(model)
    record = source.record
    assert source.shape == (3, 32, 48)
    assert (record.classes, record.task, record.head) == (("0", "1", "2"), "multiclass", "linear")
    assert (record.grid, record.map_stride) == ((4, 6), (8, 8))
    assert record.fingerprint == fingerprint(model)
    assert record.versions["onnx"]
    assert record.preprocessing is None
    assert source.notes == ("the preprocessing is not known: images must come as the model was trained on them",)


def test_a_bundle_says_more(bundle: Path, toy: nn.Module) -> None:
    source = open_source(bundle, black_box=toy)
    record = source.record
    assert source.shape == (3, 64, 64)
    assert record.classes == ("intact", "cracked", "soiled")
    assert record.thresholds == {"cracked": 0.25}
    assert (record.grid, record.preprocessing["size"]) == ((8, 8), 64)  # type: ignore[index]
    assert source.notes == ()


def test_the_preprocessing_is_written_out_in_full(bundle: Path, toy: nn.Module) -> None:
    record = open_source(bundle, black_box=toy).record
    assert record.preprocessing == {
        "size": 64,
        "fit": "squash",
        "crop_fraction": 1.0,
        "mean": [0.5] * 3,
        "std": [0.25] * 3,
        "interpolation": "bilinear",
        "channels": 3,
    }


def test_a_users_own_module_has_to_be_given(bundle: Path) -> None:
    with pytest.raises(ExportError, match=r"Expected `black_box` to be given, .* from Python with black_box=module"):
        open_source(bundle)


def test_the_map_stride_is_the_networks_own(model: SoftCAM) -> None:
    # 41 pixels at stride 8 give 6 cells: their ratio is nearer to 7.
    record = open_source(model, input_size=(30, 41)).record
    assert (record.grid, record.map_stride) == ((4, 6), (8, 8))


def test_the_preprocessing_follows_the_size(bundle: Path, toy: nn.Module) -> None:
    larger = open_source(bundle, input_size=[96, 96], black_box=toy)
    assert larger.record.preprocessing["size"] == 96  # type: ignore[index]
    assert larger.record.preprocessing["mean"] == [0.5] * 3  # type: ignore[index]
    assert (larger.record.grid, larger.notes) == ((12, 12), ())
    wide = open_source(bundle, input_size=(64, 96), black_box=toy)
    assert wide.record.input_size == (64, 96)
    assert wide.notes == ("`preprocessing` makes squares of 64 px; resize images to `input_size` yourself",)


def test_a_multi_label_model_stays_one(toy: nn.Module, images: torch.Tensor) -> None:
    assert open_source(convert(toy, images=images, multi_label=True)).record.task == "multilabel"


def test_the_copy_is_float32_in_eval_mode_and_the_source_stays(model: SoftCAM) -> None:
    model.half().train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    source = open_source(model)
    assert {parameter.dtype for parameter in source.model.parameters()} == {torch.float32}
    assert not any(module.training for module in source.model.modules())
    assert "the weights were float16; the file holds and computes float32" in source.notes
    assert all(module.training for module in model.modules())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert next(model.parameters()).dtype == torch.float16


@pytest.mark.parametrize("size", [(32,), (32, 32, 32), (32, 0), (32, 32.0), (True, 32)])
def test_a_size_that_is_none_is_refused(model: SoftCAM, size: Any) -> None:
    with pytest.raises(ValueError, match="Expected `input_size` to be 2 positive whole numbers of pixels, but got"):
        open_source(model, input_size=size)


def test_a_size_that_the_model_does_not_take_is_refused() -> None:
    torch.manual_seed(0)
    sized = softcam.create_black_box("timm:deit_tiny_patch16_224", num_classes=2, img_size=32, depth=1).eval()
    model = convert(sized, num_classes=2)
    with pytest.raises(ExportError, match=r"images of 48 x 48 px, but it raised: .*\. Choose the size"):
        open_source(model, input_size=(48, 48))


@pytest.mark.parametrize("channels", [1, 2])
def test_the_channels_are_those_of_the_first_convolution(channels: int, make_toy: Callable[..., nn.Module]) -> None:
    toy = make_toy()
    toy.stem = nn.Conv2d(channels, 4, 3, stride=8, padding=1)
    model = convert(toy, images=torch.randn(2, channels, 16, 16))
    assert open_source(model).shape == (channels, 16, 16)


def test_other_sources_are_refused(toy: nn.Module, model: SoftCAM, tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=r"folder of one, but got Toy\. Turn a black box into one with `softcam.conv"):
        open_source(toy)  # type: ignore[arg-type]
    with pytest.raises(BundleError, match="absent"):
        open_source(tmp_path / "absent")
    with pytest.raises(ExportError, match="Expected weights, but got meta tensors"):
        open_source(model.to("meta"))
