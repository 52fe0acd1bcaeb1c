"""Every measure of an evaluation gives every method's maps values in the range that it promises."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest
import torch

from softcam.attribution import attribute
from softcam.backbones import create_black_box
from softcam.evaluation import EvaluationSettings
from softcam.evaluation.measures import MEASURES, Case
from softcam.evaluation.subjects import choose_subject
from softcam.nn import SoftCAM, convert

SETTINGS = EvaluationSettings(
    points=(0, 2, 5),
    fills=("mean",),
    insertion_fills=("mean",),
    shares=(0.2,),
    samples=4,
    patch=8,
    measures=tuple(MEASURES),
)
METHODS = ("evidence", "grad_cam", "guided_backprop", "random")

INF = float("inf")
RANGES: dict[str, tuple[float, float]] = {
    "average_drop": (0, 1),
    "confidence_increase": (0, 1),
    "road_combined": (-0.5, 0.5),
    "irof": (-INF, 1),
    "infidelity": (0, 1),
    "sensitivity_n": (-1, 1),
    "max_sensitivity": (0, INF),
    "randomization_top": (-1, 1),
    "randomization_all": (-1, 1),
    "random_logit": (-1, 1),
    "relative_drop_mean": (0, INF),
    "entropy": (0, INF),
    "components": (1, INF),
}
"""All others are shares."""


@pytest.fixture(scope="module")
def softcam() -> SoftCAM:
    torch.manual_seed(0)
    black_box = create_black_box("timm:test_resnet", num_classes=3).eval()
    return convert(black_box, images=torch.randn(2, 3, 64, 64))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("measure", MEASURES)
def test_values_are_in_range_or_undefined(softcam: SoftCAM, measure: str, method: str) -> None:
    images = 0.5 * torch.randn(3, 3, 64, 64, generator=torch.Generator().manual_seed(2))
    subject = choose_subject(softcam, images, SETTINGS.fills)
    truth = torch.zeros(3, 64, 64, dtype=torch.bool)
    truth[:2, 10:30, 20:40] = True
    explain = partial(attribute, method, softcam)
    case = Case(replace(subject, truth=truth), explain(images, subject.target), explain, 8, SETTINGS)
    before = {name: value.clone() for name, value in softcam.state_dict().items()}
    found = MEASURES[measure].run(case)
    assert all(torch.equal(value, before[name]) for name, value in softcam.state_dict().items())
    assert set(found) >= set(MEASURES[measure].metrics(SETTINGS))
    for name, values in found.items():
        low, high = RANGES.get(name, (0, 1))
        assert values.shape == ((3, 3) if "/" in name else (3,)), name
        assert values.dtype == torch.float64, name
        assert not values.isinf().any(), name
        defined = values[~values.isnan()]
        assert ((defined >= low - 1e-9) & (defined <= high + 1e-9)).all(), name
