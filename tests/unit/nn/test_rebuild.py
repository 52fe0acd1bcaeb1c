from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest
import torch

from softcam.backbones import create_black_box
from softcam.nn import convert, probe, pruning, rebuild


@pytest.mark.parametrize(
    "options", [{}, {"head": "linear"}, {"at": 8}, {"at": (8, 16), "layers": 1}, {"map_stride": 16}]
)
def test_has_the_form_of_the_conversion(options: dict[str, Any]) -> None:
    black_box = create_black_box("timm:resnet10t", num_classes=3).eval()
    model = convert(black_box, num_classes=3, certify=False, **options)
    again = rebuild(copy.deepcopy(black_box), model.conversion, num_classes=3, images=None, multi_label=True)
    again.load_state_dict(model.state_dict())
    images = torch.randn(2, 3, 96, 64)
    evidence, expected = again.eval().evidence(images), model.eval().evidence(images)
    assert torch.equal(evidence.maps, expected.maps)
    assert evidence.multi_label
    report = again.conversion
    assert report.receptive_field == ()
    assert model.conversion.receptive_field != ()
    assert replace(report, receptive_field=model.conversion.receptive_field) == model.conversion


def test_measures_nothing_and_looks_for_no_values(monkeypatch: pytest.MonkeyPatch) -> None:
    black_box = create_black_box("timm:resnet10t", num_classes=3).eval()
    report = convert(black_box, certify=False).conversion

    def refuse(*_: object) -> None:
        raise AssertionError

    monkeypatch.setattr(pruning, "_measure_extent", refuse)
    monkeypatch.setattr(probe, "_fold", refuse)
    assert rebuild(black_box, report, num_classes=3, images=None, multi_label=False).num_classes == 3


def test_refuses_a_module_that_is_not_there() -> None:
    black_box = create_black_box("timm:resnet10t", num_classes=3).eval()
    report = replace(convert(black_box, certify=False).conversion, arguments={"features": "layer9"})
    with pytest.raises(ValueError, match="`features` to be a module of the model, but got 'layer9'"):
        rebuild(black_box, report, num_classes=3, images=None, multi_label=False)
