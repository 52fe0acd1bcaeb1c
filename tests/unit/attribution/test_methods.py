from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from softcam.attribution import METHODS, attribute, get_method, list_methods
from softcam.errors import RunError

MODEL = nn.Sequential(nn.Conv2d(3, 2, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
IMAGES = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
TARGET = torch.tensor([0, 1])


def test_names_are_the_agreed_ones() -> None:
    assert set(list_methods()) == {
        "evidence",
        "evidence_margin",
        "grad_cam",
        "grad_cam_plus_plus",
        "hires_cam",
        "layer_cam",
        "xgrad_cam",
        "finer_cam",
        "refine_cam",
        "eigen_cam",
        "score_cam",
        "ablation_cam",
        "integrated_gradients",
        "guided_backprop",
        "smooth_grad",
        "deep_lift",
        "occlusion",
        "rise",
        "random",
        "edges",
        "center_gaussian",
    }


def test_records_are_filled() -> None:
    for name, method in METHODS.items():
        assert method.name == name
        assert method.title
        assert method.reference
        assert method.notes
    assert {name for name, method in METHODS.items() if method.needs_softcam} == {"evidence", "evidence_margin"}
    assert {name for name, method in METHODS.items() if method.cost == "many"} == {
        "integrated_gradients",
        "smooth_grad",
        "score_cam",
        "ablation_cam",
        "occlusion",
        "rise",
    }


def test_unknown_method_names_the_closest() -> None:
    with pytest.raises(ValueError, match=r"but got 'gradcam'\. Did you mean 'grad_cam'\?"):
        get_method("gradcam")
    with pytest.raises(ValueError, match=r"but got 'zzz'\.$"):
        get_method("zzz")


@pytest.mark.parametrize(
    ("images", "target", "error", "message"),
    [
        (IMAGES.long(), TARGET, TypeError, "`images` to be floating point, but got torch.int64"),
        (IMAGES[0], TARGET, ValueError, r"`images` to be \(N, C, H, W\), but got \(3, 8, 8\)"),
        (IMAGES / 0, TARGET, ValueError, "`images` to be finite"),
        (IMAGES, TARGET.float(), TypeError, "`target` to be of an integer type, but got torch.float32"),
        (IMAGES, TARGET.bool(), TypeError, "`target` to be of an integer type, but got torch.bool"),
        (IMAGES, TARGET[:1], ValueError, r"`target` to be \(2,\), but got \(1,\)"),
        (IMAGES, -TARGET, ValueError, "but got a negative one"),
        (IMAGES, TARGET + 1, ValueError, r"`target` to be in \[0, 1\], but got a class index of 2"),
        (IMAGES[:0], TARGET[:0], ValueError, "at least one image, but got none"),
    ],
)
def test_bad_arguments(images: Tensor, target: Tensor, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        attribute("guided_backprop", MODEL, images, target)


def test_maps_with_nan_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(_model: nn.Module, images: Tensor, _target: Tensor) -> Tensor:
        maps = torch.zeros(len(images), 2, 2)
        maps[1, 0, 0] = torch.nan
        return maps

    monkeypatch.setitem(METHODS, "random", replace(METHODS["random"], run=run))
    with pytest.raises(RunError, match="Expected finite maps from 'random', but 1 of 2 hold NaN or infinity"):
        attribute("random", MODEL, IMAGES, TARGET)


@pytest.mark.parametrize("guard", [torch.no_grad, torch.inference_mode])
def test_gradients_are_found_inside_guards(guard: type) -> None:
    expected = attribute("guided_backprop", MODEL, IMAGES, TARGET)
    with guard():
        torch.testing.assert_close(attribute("guided_backprop", MODEL, IMAGES, TARGET), expected)
        torch.testing.assert_close(
            attribute("grad_cam", MODEL, IMAGES.clone(), TARGET), attribute("grad_cam", MODEL, IMAGES, TARGET)
        )


@pytest.mark.parametrize("method", ["refine_cam", "random"])
def test_a_layer_is_refused_where_the_method_does_not_look_at_one(method: str) -> None:
    with pytest.raises(ValueError, match=f"no `layer` for '{method}', which does not look at one, but got '1'"):
        attribute(method, MODEL, IMAGES, TARGET, layer="1")


def test_a_layer_can_be_chosen() -> None:
    pytest.importorskip("pytorch_grad_cam")
    deeper = nn.Sequential(nn.Conv2d(3, 2, 3), nn.ReLU(), nn.Conv2d(2, 4, 3, 2), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    early = attribute("hires_cam", deeper, IMAGES, TARGET, layer="1")
    assert early.shape == (2, 6, 6)
    assert attribute("hires_cam", deeper, IMAGES, TARGET).shape == (2, 2, 2)


def test_an_unknown_layer_is_refused() -> None:
    pytest.importorskip("pytorch_grad_cam")
    with pytest.raises(ValueError, match="Expected `layer` to name a module of the model, but got 'nowhere'"):
        attribute("grad_cam", MODEL, IMAGES, TARGET, layer="nowhere")


def test_a_layer_for_a_method_without_one_is_refused() -> None:
    with pytest.raises(ValueError, match="Expected no `layer` for 'random'"):
        attribute("random", MODEL, IMAGES, TARGET, layer="0")
