from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from softcam.nn import Augmented, Ensemble, Evidence, SoftCAM, convert
from softcam.nn.ensemble import align, average, resample

GRIDS = st.lists(st.tuples(st.integers(1, 7), st.integers(1, 7)), min_size=2, max_size=2)


class Striding(nn.Module):
    def __init__(self, stride: int, classes: int = 3, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.stem, self.pool = nn.Conv2d(3, 4, 3, stride=stride, padding=1), nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(4, classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.fc(self.pool(self.stem(images).relu()).flatten(1))


def make(stride: int = 8, classes: int = 3, seed: int = 0, **options: Any) -> SoftCAM:
    return convert(Striding(stride, classes, seed).eval(), images=torch.rand(1, 3, 32, 32), **options)


@settings(deadline=None)
@given(GRIDS, st.integers(0, 1000))
def test_resampling_keeps_the_mean_and_invents_no_values(grids: list[tuple[int, int]], seed: int) -> None:
    old, new = grids
    maps = torch.randn(2, 3, *old, generator=torch.Generator().manual_seed(seed))
    found = resample(maps, new)
    assert found.shape == (2, 3, *new)
    exact = maps.double().mean((-2, -1))
    torch.testing.assert_close(found.double().mean((-2, -1)), exact, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(resample(maps.double(), new).mean((-2, -1)), exact, rtol=1e-12, atol=1e-12)
    assert found.max() <= maps.max() + 1e-5
    assert found.min() >= maps.min() - 1e-5


def test_a_cell_is_shared_by_area() -> None:
    maps = torch.tensor([[[[1.0, 3.0], [5.0, 7.0]]]])
    assert torch.equal(resample(maps, (4, 4)), maps.repeat_interleave(2, -1).repeat_interleave(2, -2))
    torch.testing.assert_close(resample(maps, (2, 3))[0, 0, 0], torch.tensor([1.0, 2.0, 3.0]))


@settings(deadline=None)
@given(st.integers(0, 1000))
def test_what_a_coarse_cell_adds_stays(seed: int) -> None:
    maps = torch.randn(1, 1, 2, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    fine = resample(maps, (8, 6))
    blocks = fine.reshape(2, 4, 3, 2).sum((1, 3)) / fine[0, 0].numel()
    torch.testing.assert_close(blocks, maps[0, 0] / maps[0, 0].numel())


@pytest.mark.parametrize("strides", [(8, 8), (8, 4), (8, 4, 5)])
def test_logits_and_maps_are_the_means_of_the_members(strides: tuple[int, ...]) -> None:
    models = [make(stride, seed=number) for number, stride in enumerate(strides)]
    ensemble, images = Ensemble(models).eval(), torch.randn(3, 3, 32, 32)
    with torch.no_grad():
        evidence, logits = ensemble.evidence(images), ensemble(images)
        parts = [model.evidence(images) for model in models]
    evidence.check(1e-5)
    assert evidence.grid == (32 // min(strides),) * 2
    torch.testing.assert_close(logits, evidence.logits)
    torch.testing.assert_close(logits, torch.stack([part.logits for part in parts]).mean(0))
    torch.testing.assert_close(evidence.maps, average(parts).maps)
    for part, aligned in zip(parts, align(parts), strict=True):
        aligned.check(1e-5)
        torch.testing.assert_close(part.logits, aligned.logits)
    for member, part, scale in zip(ensemble.members, parts, ensemble.scales(images), strict=True):
        torch.testing.assert_close(member.evidence(images).maps, part.maps)
        torch.testing.assert_close(scale.maps, part.maps)


def test_grids_that_are_finer_along_different_dimensions_meet_in_the_finest_of_both() -> None:
    wide, tall = torch.randn(1, 2, 2, 6), torch.randn(1, 2, 4, 3)
    parts = [Evidence(maps.mean((-2, -1)), maps) for maps in (wide, tall)]
    assert average(parts).check(1e-5).grid == (4, 6)


def test_weights_are_shared_and_held_once() -> None:
    models = [make(seed=0), make(seed=1)]
    ensemble = Ensemble(models)
    assert len(ensemble.state_dict()) == sum(len(model.state_dict()) for model in models)
    assert {p.data_ptr() for p in ensemble.parameters()} == {p.data_ptr() for m in models for p in m.parameters()}
    assert (ensemble.num_classes, ensemble.num_features, len(ensemble.get_classifier())) == (3, 8, 2)
    assert not ensemble.eval().members[0].training
    assert ensemble.conversion.head == "mean"
    assert ensemble.conversion.exact


def test_the_report_says_what_all_members_keep() -> None:
    report = Ensemble([make(8), make(4)]).conversion
    assert (report.grid, report.map_stride, report.channels) == ((8, 8), (4, 4), 8)
    assert report.notes == ("the mean of 2 models",)
    assert "mean" in str(report)


def test_an_ensemble_can_be_seen_in_several_views(make_toy: Callable[..., nn.Module]) -> None:
    ensemble, images = Ensemble([make(8, seed=0), make(4, seed=1)]).eval(), torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        whole = Augmented(ensemble, "all").eval().evidence(images).check(1e-5)
        parts = [Augmented(member, "all").eval().evidence(images) for member in ensemble.members]
    torch.testing.assert_close(whole.logits, average(parts).logits)
    torch.testing.assert_close(whole.maps, average(parts).maps)


@pytest.mark.parametrize(
    ("models", "message"),
    [
        (lambda: [make()], "at least two SoftCAM models, but got 1"),
        (lambda: [make(), make(classes=2)], r"same number of classes, but got \[3, 2\]"),
        (lambda: [make(), make(multi_label=True)], r"same kind of classes \(`multi_label`\)"),
        (lambda: [make(), Ensemble([make(), make()])], "an ensemble or an augmented one"),
        (lambda: [make(), Augmented(make(), "flips")], "an ensemble or an augmented one"),
        (lambda: [make(), Striding(8)], "at least two SoftCAM models"),
    ],
)
def test_refuses_what_has_no_mean(models: Callable[[], Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Ensemble(models())
