from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from softcam.nn import AUGMENTATIONS, Augmented, SoftCAM, convert
from softcam.nn.augment import View

VIEWS = st.builds(View, st.integers(0, 3), st.booleans())


@settings(deadline=None)
@given(VIEWS, st.integers(1, 5), st.integers(1, 5))
def test_a_view_is_undone_exactly(view: View, height: int, width: int) -> None:
    images = torch.arange(float(height * width)).reshape(1, 1, height, width)
    assert torch.equal(view.undo(view.apply(images)), images)


@settings(deadline=None)
@given(VIEWS, st.integers(1, 4), st.integers(1, 4))
def test_cells_lie_on_cells(view: View, cells: int, side: int) -> None:
    """Maps that are the means of what is under each cell are the same, whichever view the network had."""
    images = torch.rand(1, 1, cells * side, cells * side, dtype=torch.float64)

    def pool(shown: torch.Tensor) -> torch.Tensor:
        return nn.functional.avg_pool2d(shown, side)

    torch.testing.assert_close(view.undo(pool(view.apply(images))), pool(images))


def test_the_views_of_an_augmentation_are_different_and_begin_with_the_image() -> None:
    image = torch.arange(6.0).reshape(2, 3)
    for name, count in {"mirror": 2, "flips": 4, "turns": 4, "all": 8}.items():
        views = AUGMENTATIONS[name]
        assert torch.equal(views[0].apply(image), image)
        assert len({(tuple(v.apply(image).shape), tuple(v.apply(image).flatten().tolist())) for v in views}) == count
    up, left = image.flip(0), image.flip(1)
    shown = [view.apply(image) for view in AUGMENTATIONS["flips"]]
    assert all(any(torch.equal(one, other) for one in shown) for other in (image, up, left, up.flip(1)))


@pytest.fixture
def model(make_toy: Callable[..., nn.Module]) -> SoftCAM:
    return convert(make_toy(3))


@pytest.mark.parametrize("name", AUGMENTATIONS)
@pytest.mark.parametrize("seed", range(3))
def test_maps_average_to_the_logits_which_are_the_mean_over_views(model: SoftCAM, name: str, seed: int) -> None:
    images = torch.randn(2, 3, 40, 40, generator=torch.Generator().manual_seed(seed))
    augmented = Augmented(model, name).eval()
    with torch.no_grad():
        evidence, logits = augmented.evidence(images), augmented(images)
        parts = [(view, model.evidence(view.apply(images))) for view in AUGMENTATIONS[name]]
    evidence.check(1e-5)
    torch.testing.assert_close(logits, evidence.logits)
    torch.testing.assert_close(evidence.logits, torch.stack([part.logits for _, part in parts]).mean(0))
    expected = torch.stack([view.undo(part.maps) for view, part in parts]).mean(0)
    torch.testing.assert_close(evidence.maps, expected)


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_a_view_of_the_image_moves_the_maps_and_keeps_the_logits(model: SoftCAM, name: str) -> None:
    images = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    augmented = Augmented(model, name).eval()
    with torch.no_grad():
        straight = augmented.evidence(images)
        for view in AUGMENTATIONS[name]:
            seen = augmented.evidence(view.apply(images))
            torch.testing.assert_close(seen.logits, straight.logits)
            torch.testing.assert_close(view.undo(seen.maps), straight.maps)
        assert not torch.allclose(model(images.flip(-1).rot90(1, (-2, -1))), model(images))


def test_several_layers_are_averaged_as_well(make_toy: Callable[..., nn.Module]) -> None:
    model = convert(make_toy(2), at=["stem", "norm"], num_classes=2, images=torch.rand(2, 3, 32, 32))
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        Augmented(model.eval(), "all").evidence(images).check(1e-5)
        augmented = Augmented(model, "flips").eval()
        assert augmented.pool(augmented.forward_features(images)).shape[1] == model.num_features
        torch.testing.assert_close(
            augmented.pool(augmented.forward_features(images)), model.pool(model.forward_features(images))
        )


def test_refuses_what_has_no_views(model: SoftCAM) -> None:
    with pytest.raises(ValueError, match="one of mirror, flips, turns, all, but got 'zoom'"):
        Augmented(model, "zoom")
    signal = nn.Sequential(nn.Conv1d(1, 3, 3), nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(3, 2)).eval()
    with pytest.raises(ValueError, match="a model of images"):
        Augmented(convert(signal, images=torch.randn(1, 1, 16)), "mirror")


def test_refuses_turned_maps_of_another_grid(model: SoftCAM) -> None:
    class Uneven(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.pool = nn.Conv2d(3, 4, 3, stride=(8, 4)), nn.AdaptiveAvgPool2d(1)
            self.fc = nn.Linear(4, 2)

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return self.fc(self.pool(self.stem(images).relu()).flatten(1))

    uneven = convert(Uneven().eval(), images=torch.rand(1, 3, 32, 32))
    images = torch.rand(1, 3, 32, 32)
    with torch.no_grad():
        Augmented(uneven, "flips").evidence(images).check(1e-5)
        with pytest.raises(ValueError, match="Take the augmentation flips"):
            Augmented(uneven, "turns").evidence(images)
