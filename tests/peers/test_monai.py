"""MONAI's classifiers of signals, slices and volumes: their own logits, to the rounding of float32."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import softcam
from softcam.survey.weights import randomise

nets: Any = pytest.importorskip("monai.networks.nets")

SIZES = {1: (96,), 2: (64, 48), 3: (64, 32, 32)}


def densenet(dims: int) -> nn.Module:
    return nets.DenseNet121(spatial_dims=dims, in_channels=1, out_channels=3)


def resnet(dims: int, **options: float) -> nn.Module:
    return nets.resnet10(spatial_dims=dims, n_input_channels=1, num_classes=3, **options)


def efficientnet(dims: int) -> nn.Module:
    return nets.EfficientNetBN("efficientnet-b0", pretrained=False, spatial_dims=dims, in_channels=1, num_classes=3)


def squeezing(dims: int) -> nn.Module:
    return nets.SEResNet50(spatial_dims=dims, in_channels=1, num_classes=3)


# Input, then the cells of its map.
GRIDS = {
    (densenet, 1): (3,),
    (densenet, 2): (2, 1),
    (densenet, 3): (2, 1, 1),
    (resnet, 1): (6,),
    (resnet, 3): (4, 2, 2),
    (efficientnet, 1): (3,),
    (efficientnet, 2): (2, 1),
    (efficientnet, 3): (2, 1, 1),
    (squeezing, 1): (3,),
    (squeezing, 2): (2, 2),
}


@pytest.mark.parametrize(("build", "dims"), GRIDS, ids=lambda value: getattr(value, "__name__", value))
def test_the_maps_average_to_the_logits_of_the_library(build: Callable[[int], nn.Module], dims: int) -> None:
    torch.manual_seed(0)
    black_box = randomise(build(dims))
    images = torch.randn(2, 1, *SIZES[dims])
    model = softcam.convert(black_box, images=images)
    with torch.no_grad():
        evidence, expected = model.evidence(images), black_box(images)
    assert model.conversion.exact
    assert evidence.maps.shape == (2, 3, *GRIDS[build, dims])
    assert evidence.maps.flatten(2).std(-1).min() > 0
    for found in (evidence.logits, evidence.maps.flatten(2).mean(-1)):
        assert (found - expected).abs().max() <= 5e-6 * expected.abs().max()


def test_double_precision_leaves_nothing_between_them() -> None:
    torch.manual_seed(0)
    black_box = randomise(resnet(3, widen_factor=0.25)).double()
    images = torch.randn(1, 1, 32, 16, 32, dtype=torch.float64)
    model = softcam.convert(black_box, images=images)
    with torch.no_grad():
        evidence, expected = model.evidence(images), black_box(images)
    assert (evidence.maps.flatten(2).mean(-1) - expected).abs().max() <= 1e-12 * expected.abs().max()


def test_a_saved_model_of_volumes_gives_the_same_bits(tmp_path: Path) -> None:
    torch.manual_seed(0)
    images = torch.randn(1, 1, 32, 16, 32)
    model = softcam.convert(randomise(resnet(3, widen_factor=0.25)), images=images)
    softcam.save(model, tmp_path / "model", classes=["a", "b", "c"])
    loaded = softcam.load(tmp_path / "model", model=resnet(3, widen_factor=0.25))
    with torch.no_grad():
        assert torch.equal(loaded.evidence(images).maps, model.evidence(images).maps)


def test_a_volume_that_ends_in_one_cell_asks_for_a_larger_one() -> None:
    with pytest.raises(softcam.errors.UnsupportedModelError, match=r"got \(1, 1024, 1, 1, 1\). Use larger images"):
        softcam.convert(densenet(3).eval(), images=torch.randn(2, 1, 32, 32, 32))
