from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from softcam.attribution.evidence import evidence_map, evidence_margin
from softcam.errors import IdentityError, UnsupportedModelError
from softcam.nn import Evidence, SoftCAM, convert


def softcam(classes: int = 3) -> SoftCAM:
    torch.manual_seed(0)
    trunk = [nn.Conv2d(3, 6, 3, stride=2, padding=1), nn.ReLU()]
    model = nn.Sequential(*trunk, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, classes))
    return convert(model.eval(), images=torch.randn(1, 3, 8, 8)).eval()


def test_mean_of_the_map_is_the_logit() -> None:
    model, images, target = softcam(), torch.randn(2, 3, 8, 8), torch.tensor([2, 0])
    maps = evidence_map(model, images, target)
    torch.testing.assert_close(maps.mean((-2, -1)), model(images)[[0, 1], target], rtol=1e-5, atol=1e-6)


def test_mean_of_the_margin_is_the_distance_to_the_strongest_rival() -> None:
    model, images, target = softcam(), torch.randn(2, 3, 8, 8), torch.tensor([2, 0])
    logits = model(images).detach()
    rivals = torch.stack([logits[0, :2].max(), logits[1, 1:].max()])
    expected = logits[[0, 1], target] - rivals
    torch.testing.assert_close(evidence_margin(model, images, target).mean((-2, -1)), expected, rtol=1e-5, atol=1e-6)


def test_margin_of_independent_labels_is_the_class_map() -> None:
    model, images, target = softcam(), torch.randn(2, 3, 8, 8), torch.tensor([2, 0])
    expected = evidence_map(model, images, target)
    model.multi_label = True
    torch.testing.assert_close(evidence_margin(model, images, target), expected)


def test_margin_of_an_only_class_is_its_map() -> None:
    model, images, target = softcam(1), torch.randn(2, 3, 8, 8), torch.tensor([0, 0])
    torch.testing.assert_close(evidence_margin(model, images, target), evidence_map(model, images, target))


@pytest.mark.parametrize("method", [evidence_map, evidence_margin])
def test_black_box_has_no_evidence(method: Callable[..., Tensor]) -> None:
    with pytest.raises(UnsupportedModelError, match="Expected `model` to be a SoftCAM, but got Flatten"):
        method(nn.Flatten(), torch.zeros(1, 3, 2, 2), torch.tensor([0]))


def test_class_index_outside_is_refused() -> None:
    with pytest.raises(ValueError, match=r"Expected `target` to be in \[0, 2\], but got a class index of 3"):
        evidence_map(softcam(), torch.zeros(1, 3, 8, 8), torch.tensor([3]))


def test_broken_identity_is_loud(monkeypatch: pytest.MonkeyPatch) -> None:
    model = softcam()

    def broken(images: Tensor) -> Evidence:
        evidence = SoftCAM.evidence(model, images)
        return replace(evidence, maps=evidence.maps + 1.0)

    monkeypatch.setattr(model, "evidence", broken)
    with pytest.raises(IdentityError, match="average to the logits"):
        evidence_map(model, torch.randn(1, 3, 8, 8), torch.tensor([0]))
