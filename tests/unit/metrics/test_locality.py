from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from softcam.metrics import context_swap_change, effective_receptive_field

GENERATOR = torch.Generator().manual_seed(0)
IMAGES = torch.randn(4, 3, 32, 48, generator=GENERATOR)
OTHERS = torch.randn(4, 3, 32, 48, generator=GENERATOR)
CELLS = torch.tensor([[0, 0], [3, 5], [1, 2], [2, 4]])


def local(images: Tensor) -> Tensor:
    """Each cell is the mean of its own 8x8 pixels."""
    return F.avg_pool2d(images.mean(1), 8)


def everywhere(images: Tensor) -> Tensor:
    """Every cell is the mean of the image."""
    return local(images) * 0 + images.mean((1, 2, 3))[:, None, None]


def blurred(images: Tensor) -> Tensor:
    """Each cell is the mean of a 24x24 square around it."""
    return F.avg_pool2d(images.mean(1, keepdim=True), 24, 8, padding=8, count_include_pad=False)[:, 0]


def test_the_radius_of_a_cell_of_its_own_pixels() -> None:
    # Half of the 64 pixels of an 8x8 square, by their distance from its middle.
    distances = sorted(math.hypot(row - 3.5, column - 3.5) for row in range(8) for column in range(8))
    found = effective_receptive_field(local, IMAGES, CELLS)
    assert found.tolist() == pytest.approx([distances[31]] * 4)
    assert found.dtype == torch.float64


def test_the_radius_grows_with_what_a_cell_sees_and_with_the_share() -> None:
    inner = CELLS.clamp(1, 2)
    small, medium, large = (effective_receptive_field(maps, IMAGES, inner) for maps in (local, blurred, everywhere))
    assert bool((small < medium).all())
    assert bool((medium < large).all())
    assert bool((effective_receptive_field(blurred, IMAGES, inner, share=0.9) > medium).all())


def test_energy_counts_and_not_reach() -> None:
    def faint(images: Tensor) -> Tensor:
        return local(images) + 1e-3 * everywhere(images)

    assert torch.equal(effective_receptive_field(faint, IMAGES, CELLS), effective_receptive_field(local, IMAGES, CELLS))


def test_a_cell_that_depends_on_nothing_has_no_radius() -> None:
    found = effective_receptive_field(lambda images: local(images) * 0, IMAGES, CELLS)
    assert bool(found.isnan().all())


def test_a_local_cell_is_not_changed_by_its_surroundings() -> None:
    change = context_swap_change(local, IMAGES, OTHERS, CELLS, windows=(8, 16, 100))
    assert change.shape == (4, 3)
    assert change.tolist() == [[0.0] * 3] * 4


def test_half_a_window_changes_what_lies_outside_of_it() -> None:
    images, others = torch.ones(1, 3, 32, 48), torch.zeros(1, 3, 32, 48)
    change = context_swap_change(local, images, others, torch.tensor([[1, 1]]), windows=(4, 8))
    assert change.tolist() == [[pytest.approx(0.75), 0.0]]


def test_a_global_cell_follows_the_area_that_is_replaced() -> None:
    images, others = torch.ones(1, 3, 32, 48), torch.zeros(1, 3, 32, 48)
    change = context_swap_change(everywhere, images, others, torch.tensor([[2, 3]]), windows=(8, 16, 200))
    assert change.tolist() == [[pytest.approx(1 - 64 / 1536), pytest.approx(1 - 256 / 1536), 0.0]]


def test_the_smallest_window_holds_the_pixels_that_touch_the_middle_of_the_cell() -> None:
    images, others = torch.ones(1, 3, 32, 48), torch.zeros(1, 3, 32, 48)
    change = context_swap_change(everywhere, images, others, torch.tensor([[2, 3]]), windows=(1,))
    assert change.tolist() == [[pytest.approx(1 - 4 / 1536)]]


def test_a_corner_cuts_the_window_off() -> None:
    images, others = torch.ones(1, 3, 32, 48), torch.zeros(1, 3, 32, 48)
    change = context_swap_change(everywhere, images, others, torch.tensor([[0, 0]]), windows=(16,))
    assert change.tolist() == [[pytest.approx(1 - 12 * 12 / 1536)]]


def test_the_mean_over_images_is_a_ratio_of_means() -> None:
    change = context_swap_change(blurred, IMAGES, OTHERS, CELLS, windows=(16,))
    picked = tuple(CELLS.T)
    index = torch.arange(4)
    inside = torch.zeros(4, 1, 32, 48, dtype=torch.bool)
    for image, (row, column) in enumerate(CELLS.tolist()):
        inside[image, 0, max(0, row * 8 - 4) : row * 8 + 12, max(0, column * 8 - 4) : column * 8 + 12] = True
    before, mixed, other = (
        blurred(images)[index, picked[0], picked[1]] for images in (IMAGES, torch.where(inside, IMAGES, OTHERS), OTHERS)
    )
    expected = (mixed - before).abs().mean() / (other - before).abs().mean()
    assert change.mean().item() == pytest.approx(expected.item(), rel=1e-5)


def test_what_never_changes_is_undefined() -> None:
    change = context_swap_change(local, IMAGES, IMAGES, CELLS, windows=(8,))
    assert bool(change.isnan().all())


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        (torch.zeros(3, 2, dtype=torch.long), r"cells \(N, 2\) of 4 images"),
        (torch.tensor([[0, 6]] * 4), r"within a grid of \(4, 6\)"),
        (torch.tensor([[-1, 0]] * 4), r"within a grid of \(4, 6\)"),
    ],
)
def test_cells_that_are_none_are_refused(cells: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        effective_receptive_field(local, IMAGES, cells)
    with pytest.raises(ValueError, match=message):
        context_swap_change(local, IMAGES, OTHERS, cells, windows=(8,))


def test_values_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match="`share` to lie in"):
        effective_receptive_field(local, IMAGES, CELLS, share=1.0)
    with pytest.raises(ValueError, match="`windows` to be sides of at least 1 px"):
        context_swap_change(local, IMAGES, OTHERS, CELLS, windows=())
    with pytest.raises(ValueError, match="`windows` to be sides of at least 1 px"):
        context_swap_change(local, IMAGES, OTHERS, CELLS, windows=(8, 0))
    with pytest.raises(ValueError, match="`others` to be images"):
        context_swap_change(local, IMAGES, OTHERS[:3], CELLS, windows=(8,))
