from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from softcam.attribution import attribute
from softcam.attribution.passes import Passes, digest_tensors, run_once, sharing_passes

CAMS = ("grad_cam", "grad_cam_plus_plus", "hires_cam", "layer_cam", "xgrad_cam")


class Counted(nn.Module):
    """Counts the images that it is asked for."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.trunk = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(inplace=True))
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
        self.batches: list[int] = []

    def forward(self, images: Tensor) -> Tensor:
        self.batches.append(len(images))
        logits: Tensor = self.head(self.trunk(images))
        return logits


IMAGES = torch.randn(3, 3, 8, 8, generator=torch.Generator().manual_seed(1))
TARGET = torch.tensor([0, 1, 1])


def test_methods_share_the_pass_of_a_batch() -> None:
    model, passes = Counted().eval(), Passes()
    alone = {name: attribute(name, model, IMAGES, TARGET) for name in CAMS}
    model.batches.clear()
    with sharing_passes(passes):
        together = {name: attribute(name, model, IMAGES, TARGET) for name in CAMS}
    assert model.batches.count(3) == 1
    for name in CAMS:
        torch.testing.assert_close(together[name], alone[name], rtol=0, atol=0)


@pytest.mark.parametrize("changed", ["images", "target", "layer", "model"])
def test_another_question_is_another_pass(changed: str) -> None:
    model, passes = Counted().eval(), Passes()
    other = Counted().eval()
    other.trunk[0].weight.data.neg_()
    with sharing_passes(passes):
        attribute("grad_cam", model, IMAGES, TARGET)
        asked = {
            "images": (model, IMAGES.flip(0), TARGET, None),
            "target": (model, IMAGES, 1 - TARGET, None),
            "layer": (model, IMAGES, TARGET, "trunk.0"),
            "model": (other, IMAGES, TARGET, None),
        }[changed]
        found = attribute("grad_cam", *asked[:3], layer=asked[3])
    expected = attribute("grad_cam", *asked[:3], layer=asked[3])
    torch.testing.assert_close(found, expected, rtol=0, atol=0)
    assert len(passes) == 2


def test_contrasts_are_not_taken_for_plain_logits() -> None:
    model = Counted().eval()
    expected = attribute("finer_cam", model, IMAGES, TARGET)
    with sharing_passes(Passes()):
        attribute("grad_cam", model, IMAGES, TARGET)
        assert torch.equal(attribute("finer_cam", model, IMAGES, TARGET), expected)


def test_nothing_is_kept_outside_of_a_block() -> None:
    calls: list[int] = []
    for _ in range(2):
        run_once(lambda: pytest.fail("no key is needed"), lambda: calls.append(1))
    with sharing_passes(passes := Passes()):
        run_once(lambda: "key", lambda: calls.append(1))
        run_once(lambda: "key", lambda: calls.append(1))
    run_once(lambda: "key", lambda: calls.append(1))
    assert len(calls) == 4
    assert list(passes) == ["key"]


def test_a_graph_begins_at_the_layer_and_parameters_come_back() -> None:
    model = Counted().eval()
    seen: list[bool] = []
    model.trunk[0].register_forward_hook(lambda _m, _i, output: seen.append(output.requires_grad))
    attribute("grad_cam", model, IMAGES.requires_grad_(), TARGET, layer="trunk")
    IMAGES.requires_grad_(requires_grad=False)
    assert not any(seen[-1:])
    assert all(parameter.requires_grad and parameter.grad is None for parameter in model.parameters())


def test_a_digest_tells_type_shape_and_values_apart() -> None:
    values = torch.arange(6.0)
    different = [[values], [values.double()], [values.reshape(2, 3)], [values + 1], [values, values]]
    assert len({digest_tensors(tensors) for tensors in different}) == len(different)
