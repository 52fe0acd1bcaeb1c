from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from softcam.bundle import save
from softcam.data import Manifest
from softcam.errors import BundleError, RecipeError, RunError
from softcam.training import Recipe, train
from softcam.training.distillation import check_trunk, distillation_loss, load_teacher
from softcam.training.preparation import create_start

IMAGES = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def test_two_classes_by_hand() -> None:
    ours, theirs = torch.tensor([[0.0, 0.0]]), torch.tensor([[0.0, 2 * math.log(3.0)]])
    expected = 4 * (0.25 * math.log(0.25 / 0.5) + 0.75 * math.log(0.75 / 0.5))
    found = distillation_loss(ours, theirs, temperature=2.0, multi_label=False)
    assert found.item() == pytest.approx(expected, rel=1e-5)


def test_independent_classes_by_hand() -> None:
    ours, theirs = torch.tensor([[0.0, 1.0]]), torch.tensor([[math.log(3.0), 1.0]])
    expected = (0.25 * math.log(0.25 / 0.5) + 0.75 * math.log(0.75 / 0.5)) / 2
    found = distillation_loss(ours, theirs, temperature=1.0, multi_label=True)
    assert found.item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("multi_label", [True, False])
def test_agreement_costs_nothing_and_the_gradient_points_to_the_teacher(multi_label: bool) -> None:
    theirs = torch.tensor([[0.5, -1.0, 3.0]])
    assert distillation_loss(theirs, theirs, temperature=3.0, multi_label=multi_label).item() == pytest.approx(0.0)
    ours = (theirs + torch.tensor([[1.0, 0.0, 0.0]])).requires_grad_()
    distillation_loss(ours, theirs, temperature=3.0, multi_label=multi_label).backward()
    assert ours.grad is not None
    assert ours.grad[0, 0] > 0


def with_teacher(values: dict[str, Any], path: Path, **changes: Any) -> Recipe:
    return Recipe.from_dict({**values, "loss": {"teacher": str(path)}, **changes})


@pytest.fixture
def teacher(values: dict[str, Any], manifest: Manifest, tmp_path: Path) -> Path:
    black_box = create_start(Recipe.from_dict(values).twin(), manifest, IMAGES).model
    return save(black_box, tmp_path / "teacher", classes=manifest.classes)


def test_a_teacher_is_frozen(values: dict[str, Any], manifest: Manifest, teacher: Path) -> None:
    assert load_teacher(Recipe.from_dict(values), manifest) is None
    found = load_teacher(with_teacher(values, teacher), manifest)
    assert found is not None
    assert not found.training
    assert not any(parameter.requires_grad for parameter in found.parameters())


def test_a_teacher_of_other_classes_is_refused(values: dict[str, Any], manifest: Manifest, tmp_path: Path) -> None:
    start = create_start(Recipe.from_dict(values).twin(), manifest, IMAGES)
    save(start.model, tmp_path / "other", classes=("spot", "dark"))
    with pytest.raises(RecipeError, match=r"`loss\.teacher` to know the classes of the data, but it knows"):
        load_teacher(with_teacher(values, tmp_path / "other"), manifest)


def test_a_teacher_has_to_be_a_black_box(values: dict[str, Any], manifest: Manifest, tmp_path: Path) -> None:
    save(create_start(Recipe.from_dict(values), manifest, IMAGES).model, tmp_path / "model", classes=manifest.classes)
    with pytest.raises(BundleError, match="kind 'black_box'"):
        load_teacher(with_teacher(values, tmp_path / "model"), manifest)


def test_a_teacher_with_another_trunk_is_refused_for_cached_features(
    values: dict[str, Any], manifest: Manifest
) -> None:
    def start(seed: int) -> nn.Module:
        return create_start(Recipe.from_dict({**values, "seed": seed}), manifest, IMAGES).model

    check_trunk(start(0), start(0), "blocks.1", IMAGES)
    with pytest.raises(RunError, match=r"own trunk up to 'blocks\.1'"):
        check_trunk(start(1), start(0), "blocks.1", IMAGES)


@pytest.mark.parametrize("stage", [{"epochs": 1}, {"epochs": 1, "trunk": "blocks.1"}])
def test_a_run_learns_from_its_teacher(
    values: dict[str, Any], manifest: Manifest, teacher: Path, tmp_path: Path, stage: dict[str, Any]
) -> None:
    values |= {"stages": [stage], "model": {**values["model"], "at": [8]}}
    with_it = train(with_teacher(values, teacher), tmp_path / "with", manifest=manifest, progress=False)
    without = train(Recipe.from_dict(values), tmp_path / "without", manifest=manifest, progress=False)
    assert with_it.metrics["val_loss"] != without.metrics["val_loss"]
    assert not any("teacher" in name for name in torch.load(tmp_path / "with/checkpoints/last.ckpt")["state_dict"])


@pytest.mark.parametrize(
    ("loss", "message"),
    [({"teacher_share": 0.0}, r"loss\.teacher_share"), ({"temperature": 0.0}, r"loss\.temperature")],
)
def test_values_out_of_range_are_refused(values: dict[str, Any], loss: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        Recipe.from_dict({**values, "loss": loss})
