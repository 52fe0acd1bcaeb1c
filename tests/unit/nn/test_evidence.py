from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils import _pytree as pytree

from softcam.errors import IdentityError
from softcam.nn.evidence import Evidence


def make_evidence(maps: Tensor, **options: bool) -> Evidence:
    return Evidence(maps.flatten(2).mean(-1), maps, **options)


@pytest.fixture
def evidence() -> Evidence:
    """Two images, three classes, 2x3 cells; the logits of image 0 are (1, 2, -1), those of image 1 (0, -3, 4)."""
    first = [[[6.0, 0, 0], [0, 0, 0]], [[2.0, 2, 2], [2, 2, 2]], [[0.0, -6, 6], [-6, 0, 0]]]
    second = [[[3.0, -3, 0], [0, 0, 0]], [[0.0, 0, -9], [0, 0, -9]], [[24.0, 0, 0], [0, 0, 0]]]
    return make_evidence(torch.tensor([first, second]))


@pytest.fixture
def signal() -> Evidence:
    """One signal, two classes, 4 cells; the logits are (-1, 1)."""
    return make_evidence(torch.tensor([[[4.0, 0.0, 0.0, -8.0], [0.0, 2.0, 2.0, 0.0]]]))


@pytest.fixture
def volume() -> Evidence:
    """One volume, one class, 2x2x2 cells; the logit is 0.5."""
    maps = torch.zeros(1, 1, 2, 2, 2)
    maps[0, 0, 0, 0, 0], maps[0, 0, 1, 1, 1] = 8.0, -4.0
    return make_evidence(maps)


@pytest.mark.parametrize(
    ("logits", "maps"),
    [
        ((2, 3), (2, 3)),
        ((2, 3), (2, 3, 4, 4, 4, 4)),
        ((2, 3), (2, 4, 4)),
        ((2, 3), (2, 4, 4, 4, 4)),
        ((6,), (2, 3, 4, 4)),
        ((2, 3), (2, 4, 4, 4)),
        ((2, 3), (1, 3, 4, 4)),
        ((2, 3, 1), (2, 3, 1, 1)),
    ],
)
def test_shapes_that_do_not_belong_together_are_refused(logits: tuple[int, ...], maps: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"Expected `logits` \(N, K\) and `maps` \(N, K, h, w\)"):
        Evidence(torch.zeros(logits), torch.zeros(maps))


def test_it_cannot_be_changed(evidence: Evidence) -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        evidence.logits = torch.zeros(2, 3)  # type: ignore[misc]


def test_sizes(evidence: Evidence) -> None:
    assert len(evidence) == 2
    assert evidence.num_classes == 3
    assert evidence.grid == (2, 3)


def test_signals_and_volumes_have_grids_of_their_own(signal: Evidence, volume: Evidence) -> None:
    assert signal.grid == (4,)
    assert volume.grid == (2, 2, 2)
    assert signal.map_of(1).tolist() == [[0.0, 2.0, 2.0, 0.0]]
    assert signal.margin(0, against=1).tolist() == [[4.0, -2.0, -2.0, -8.0]]
    assert volume.map_of(torch.tensor([0])).shape == (1, 2, 2, 2)
    for part in (signal[0], *signal, signal.to(torch.float64), signal.detach()):
        assert part.grid == (4,)
        assert part.logits.tolist() == [[-1.0, 1.0]]
    assert volume[torch.tensor([True])].check().grid == (2, 2, 2)


@pytest.mark.parametrize("grid", [(5,), (2, 3, 5)])
def test_the_identity_is_checked_on_every_grid(grid: tuple[int, ...]) -> None:
    maps = torch.ones(2, 1, *grid, dtype=torch.float64)
    logits = torch.tensor([[1.0], [0.8]], dtype=torch.float64)
    assert Evidence(logits, maps).sum_error().tolist() == pytest.approx([0.0, 0.2])
    Evidence(logits, maps).check(0.21)
    with pytest.raises(IdentityError, match=r"relative error of 0\.2"):
        Evidence(logits, maps).check(0.19)


@pytest.mark.parametrize(
    ("index", "rows"),
    [
        (0, [0]),
        (1, [1]),
        (-1, [1]),
        (-2, [0]),
        (slice(1, None), [1]),
        (slice(None, None, 2), [0]),
        (slice(2, None), []),
    ],
)
def test_an_index_keeps_the_batch_dimension(evidence: Evidence, index: int | slice, rows: list[int]) -> None:
    part = evidence[index]
    assert torch.equal(part.logits, evidence.logits[rows])
    assert torch.equal(part.maps, evidence.maps[rows])


@pytest.mark.parametrize("index", [torch.tensor([1, 0]), torch.tensor([True, False])])
def test_a_tensor_selects_images(evidence: Evidence, index: Tensor) -> None:
    assert torch.equal(evidence[index].logits, evidence.logits[index])
    assert torch.equal(evidence[index].maps, evidence.maps[index])


@pytest.mark.parametrize("index", [2, -3])
def test_an_index_outside_the_batch_is_refused(evidence: Evidence, index: int) -> None:
    with pytest.raises(IndexError, match=rf"within the batch of 2, but got {index}"):
        evidence[index]


def test_iteration_gives_one_image_at_a_time(evidence: Evidence) -> None:
    parts = list(evidence)
    assert [len(part) for part in parts] == [1, 1]
    assert torch.equal(torch.cat([part.maps for part in parts]), evidence.maps)


def test_probabilities_of_exclusive_classes_are_a_softmax() -> None:
    logits = torch.tensor([[0.0, math.log(3.0)]])
    probabilities = Evidence(logits, logits[..., None, None]).probabilities()
    torch.testing.assert_close(probabilities, torch.tensor([[0.25, 0.75]]))


def test_probabilities_of_independent_classes_are_sigmoids() -> None:
    logits = torch.tensor([[0.0, math.log(3.0)]])
    probabilities = Evidence(logits, logits[..., None, None], multi_label=True).probabilities()
    torch.testing.assert_close(probabilities, torch.tensor([[0.5, 0.75]]))


@pytest.mark.parametrize("multi_label", [False, True])
def test_the_probability_of_an_only_class_is_a_sigmoid(multi_label: bool) -> None:
    logits = torch.tensor([[0.0], [math.log(3.0)]])
    probabilities = Evidence(logits, logits[..., None], multi_label=multi_label).probabilities()
    torch.testing.assert_close(probabilities, torch.tensor([[0.5], [0.75]]))


def test_predicted_and_runner_up(evidence: Evidence) -> None:
    assert evidence.predicted().tolist() == [1, 2]
    assert evidence.runner_up().tolist() == [0, 0]
    assert evidence.runner_up(of=0).tolist() == [1, 2]
    assert evidence.runner_up(of=torch.tensor([1, 0])).tolist() == [0, 2]


def test_runner_up_leaves_the_logits_alone(evidence: Evidence) -> None:
    before = evidence.logits.clone()
    evidence.runner_up()
    assert torch.equal(evidence.logits, before)


def test_a_single_class_has_no_runner_up() -> None:
    with pytest.raises(ValueError, match="at least two classes"):
        make_evidence(torch.zeros(1, 1, 2, 2)).runner_up()


def test_map_of_one_class_or_one_class_per_image(evidence: Evidence) -> None:
    assert torch.equal(evidence.map_of(1), evidence.maps[:, 1])
    per_image = evidence.map_of(torch.tensor([2, 0]))
    assert torch.equal(per_image[0], evidence.maps[0, 2])
    assert torch.equal(per_image[1], evidence.maps[1, 0])


@pytest.mark.parametrize("target", [-1, 3, torch.tensor([0, 3]), torch.tensor([-1, 0])])
def test_a_class_outside_is_refused(evidence: Evidence, target: int | Tensor) -> None:
    with pytest.raises(IndexError, match=r"Expected class indices in \[0, 2\]"):
        evidence.map_of(target)


@pytest.mark.parametrize("target", [torch.tensor([0]), torch.tensor([0, 1, 2]), torch.zeros(2, 1)])
def test_class_indices_of_another_batch_are_refused(evidence: Evidence, target: Tensor) -> None:
    with pytest.raises(ValueError, match=r"Expected a class index or indices \(2,\)"):
        evidence.map_of(target)


def test_margin_is_the_difference_of_the_maps(evidence: Evidence) -> None:
    margin = evidence.margin(1, against=0)
    assert margin[0].tolist() == [[-4.0, 2, 2], [2, 2, 2]]
    torch.testing.assert_close(margin.mean((-2, -1)), evidence.logits[:, 1] - evidence.logits[:, 0])
    assert torch.equal(evidence.margin(0, against=1), -margin)


def test_margin_between_predicted_and_runner_up_is_not_negative(evidence: Evidence) -> None:
    margin = evidence.margin(evidence.predicted(), against=evidence.runner_up())
    assert margin.mean((-2, -1)).tolist() == pytest.approx([1.0, 4.0])


def test_margin_is_the_log_odds_of_the_softmax(evidence: Evidence) -> None:
    p = evidence.probabilities()
    log_odds = (p[:, 1] / p[:, 2]).log()
    torch.testing.assert_close(evidence.margin(1, against=2).mean((-2, -1)), log_odds, atol=1e-5, rtol=1e-5)


def test_contribution_of_cells_by_hand(evidence: Evidence) -> None:
    corner = torch.tensor([[True, False, False], [False, False, False]])
    assert evidence.contribution(corner, target=0).tolist() == [1.0, 0.5]
    assert evidence.contribution(corner, target=1).tolist() == pytest.approx([1 / 3, 0.0])
    assert evidence.contribution(corner, target=0, against=1).tolist() == pytest.approx([2 / 3, 0.5])
    assert evidence.contribution(corner, target=torch.tensor([0, 2])).tolist() == [1.0, 4.0]


def test_contribution_of_a_share_of_a_cell(evidence: Evidence) -> None:
    half = torch.zeros(2, 3)
    half[0, 0] = 0.5
    assert evidence.contribution(half, target=0).tolist() == [0.5, 0.25]


def test_contribution_of_pixels_counts_covered_area(evidence: Evidence) -> None:
    pixels = torch.zeros(4, 6, dtype=torch.bool)
    pixels[0, :2] = True  # the upper half of the first cell
    assert evidence.contribution(pixels, target=0).tolist() == [0.5, 0.25]


def test_contribution_with_a_region_per_image(evidence: Evidence) -> None:
    regions = torch.zeros(2, 2, 3, dtype=torch.bool)
    regions[0, 0, 0] = True
    regions[1, 0, 1] = True
    assert evidence.contribution(regions, target=0).tolist() == [1.0, -0.5]


def slow_coverage(mask: Tensor, grid: tuple[int, ...]) -> Tensor:
    """Share of each cell that a pixel mask covers: every pixel and cell is cut into equal small pieces."""
    fine = mask.double()
    for dim, cells in enumerate(grid):
        fine = fine.repeat_interleave(cells, dim)
    shape = [extent for pair in zip(grid, mask.shape, strict=True) for extent in pair]
    return fine.reshape(shape).mean(tuple(range(1, 2 * len(grid), 2)))


GRIDS = {1: (5,), 2: (3, 5), 3: (2, 3, 5)}
SIZES = [(5,), (8,), (37,), (3, 5), (7, 9), (16, 20), (37, 29), (32, 5), (2, 3, 5), (4, 6, 10), (3, 7, 8), (2, 11, 5)]


@pytest.mark.parametrize("size", SIZES)
def test_contribution_of_pixels_against_a_slow_reference(size: tuple[int, ...]) -> None:
    grid = GRIDS[len(size)]
    evidence = make_evidence(torch.randn(2, 2, *grid, dtype=torch.float64))
    mask = torch.rand(size) < 0.4
    expected = (evidence.maps[:, 1] * slow_coverage(mask, grid)).flatten(1).mean(1)
    torch.testing.assert_close(evidence.contribution(mask, target=1), expected, atol=1e-12, rtol=0)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("parts", [2, 6])
def test_contributions_of_a_partition_add_up_to_the_logit(size: tuple[int, ...], parts: int) -> None:
    evidence = make_evidence(torch.randn(3, 4, *GRIDS[len(size)]))
    owner = torch.randint(parts, size)
    total = sum(evidence.contribution(owner == part, target=2) for part in range(parts))
    torch.testing.assert_close(total, evidence.logits[:, 2], atol=1e-6, rtol=0)
    margin = sum(evidence.contribution(owner == part, target=2, against=0) for part in range(parts))
    torch.testing.assert_close(margin, evidence.logits[:, 2] - evidence.logits[:, 0], atol=1e-6, rtol=0)


def test_contributions_to_a_signal_by_hand(signal: Evidence) -> None:
    assert signal.logits.tolist() == [[-1.0, 1.0]]
    assert signal.contribution(torch.tensor([True, False, False, False]), target=0).tolist() == [1.0]
    assert signal.contribution(torch.tensor([[0, 1, 0, 1]]), target=0, against=1).tolist() == [-2.5]
    sample = torch.zeros(6)
    sample[1] = 1.0  # of three halves of a sample to a cell, one half lies in the first cell and one in the second
    assert signal.contribution(sample, target=0).tolist() == pytest.approx([1 / 3])
    assert signal.contribution(sample, target=1).tolist() == pytest.approx([1 / 6])


def test_contributions_to_a_volume_by_hand(volume: Evidence) -> None:
    assert volume.logits.tolist() == [[0.5]]
    cells = torch.zeros(2, 2, 2, dtype=torch.bool)
    cells[0, 0, 0] = True
    assert volume.contribution(cells, target=0).tolist() == [1.0]
    voxel = torch.zeros(1, 4, 4, 6, dtype=torch.bool)
    voxel[0, 3, 3, 5] = True  # one of the twelve of the last cell
    assert volume.contribution(voxel, target=0).tolist() == pytest.approx([-4 / 12 / 8])


def test_a_region_of_another_dimension_is_refused(signal: Evidence, volume: Evidence) -> None:
    with pytest.raises(ValueError, match=r"at least \(4,\) cells or pixels, \(l\) or \(1, l\), but got \(3,\)"):
        signal.contribution(torch.zeros(3), target=0)
    with pytest.raises(ValueError, match=r"\(l\) or \(1, l\), but got \(1, 4, 4\)"):
        signal.contribution(torch.zeros(1, 4, 4), target=0)
    with pytest.raises(ValueError, match=r"at least \(2, 2, 2\) cells or pixels, \(d, h, w\) or \(1, d, h, w\)"):
        volume.contribution(torch.zeros(4, 4), target=0)


@pytest.mark.parametrize("shape", [(1, 3), (2, 2), (6,), (1, 1, 2, 3), (3, 2, 3), (2, 1, 3)])
def test_a_region_that_does_not_fit_is_refused(evidence: Evidence, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"Expected `region` to be a mask of at least \(2, 3\) cells or pixels"):
        evidence.contribution(torch.zeros(shape), target=0)


@pytest.mark.parametrize(
    "size", [(2, 3), (5, 7), (64, 96), (31, 3), (1, 1), (5,), (97,), (2,), (2, 3, 5), (4, 7, 31), (1, 1, 1)]
)
def test_upsampling_keeps_the_mean(size: tuple[int, ...]) -> None:
    evidence = make_evidence(torch.randn(2, 3, *GRIDS[len(size)], dtype=torch.float64))
    resized = evidence.upsample(size)
    assert resized.shape == (2, 3, *size)
    torch.testing.assert_close(resized.flatten(2).mean(-1), evidence.logits, atol=1e-12, rtol=0)


def test_upsampling_a_signal_by_hand() -> None:
    # Between the centres of the cells 0, 0, 6 lie 0, 0, 0, 3.6, 6, of mean 1.92 instead of 2.
    resized = make_evidence(torch.tensor([[[0.0, 0.0, 6.0]]])).upsample((5,))
    torch.testing.assert_close(resized, torch.tensor([[[0.08, 0.08, 0.08, 3.68, 6.08]]]))


def test_upsampling_a_volume_by_hand(volume: Evidence) -> None:
    rows = volume.upsample((2, 2, 4))[0, 0].tolist()
    assert rows == [[[8.0, 6.0, 2.0, 0.0], [0.0] * 4], [[0.0] * 4, [0.0, -1.0, -3.0, -4.0]]]


@pytest.mark.parametrize("size", [(8,), (8, 8, 8), (), (0, 8), (8, -1)])
def test_upsampling_to_another_number_of_dimensions_is_refused(evidence: Evidence, size: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"Expected `size` to be 2 lengths of at least 1.*\(2, 3\), but got \("):
        evidence.upsample(size)


def test_upsampling_is_bilinear_up_to_a_constant_per_map(evidence: Evidence) -> None:
    plain = F.interpolate(evidence.maps, size=(7, 11), mode="bilinear", align_corners=False)
    shift = evidence.upsample((7, 11)) - plain
    assert shift.flatten(2).std(-1).max() < 1e-6
    assert shift.abs().max() > 1e-3  # the case needs the correction


def test_upsampling_to_the_grid_changes_nothing(evidence: Evidence) -> None:
    torch.testing.assert_close(evidence.upsample((2, 3)), evidence.maps)


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [(torch.bfloat16, torch.float32), (torch.float32, torch.float32), (torch.float64, torch.float64)],
)
def test_upsampling_never_works_in_half_precision(
    evidence: Evidence, dtype: torch.dtype, expected: torch.dtype
) -> None:
    assert evidence.to(dtype).upsample((8, 8)).dtype == expected


def test_sum_error_is_relative_to_the_largest_logit() -> None:
    maps = torch.tensor([[[[2.0, 4.0]], [[-8.0, -12.0]]]])  # means 3 and -10, mean absolutes 3 and 10
    logits = torch.tensor([[3.5, -10.0]])
    assert Evidence(logits, maps).sum_error().tolist() == pytest.approx([0.05])


def test_sum_error_of_a_balance_is_relative_to_what_was_added() -> None:
    maps = torch.tensor([[[[8.0, -8.0]]]])
    assert Evidence(torch.tensor([[0.4]]), maps).sum_error().tolist() == pytest.approx([0.05])


def test_sum_error_counts_every_image_and_class() -> None:
    maps = torch.ones(2, 2, 1, 2)
    logits = torch.tensor([[1.0, 1.0], [1.0, 1.25]])
    error = Evidence(logits, maps).sum_error()
    assert error.dtype == torch.float64
    assert error.tolist() == pytest.approx([0.0, 0.2])


def test_sum_error_of_nothing_is_zero() -> None:
    assert make_evidence(torch.zeros(1, 2, 2, 2)).sum_error().tolist() == [0.0]


def test_check_returns_sound_evidence(evidence: Evidence) -> None:
    assert evidence.check() is evidence
    assert len(make_evidence(torch.zeros(0, 2, 2, 2)).check()) == 0


@pytest.mark.parametrize("tolerance", [1e-5, 1e-2])
def test_check_refuses_an_error_just_above_the_tolerance(tolerance: float) -> None:
    maps = torch.ones(2, 1, 2, 2, dtype=torch.float64)

    def with_error(relative: float) -> Evidence:
        # Judged by the larger of logit and mean absolute map, hence the sign.
        return Evidence(torch.tensor([[1.0], [1.0 - relative]], dtype=torch.float64), maps)

    with_error(0.99 * tolerance).check(tolerance)
    with pytest.raises(IdentityError, match=rf"within {tolerance:g}, but got a relative error of"):
        with_error(1.01 * tolerance).check(tolerance)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("place", ["logits", "maps"])
def test_check_refuses_values_that_are_not_finite(evidence: Evidence, value: float, place: str) -> None:
    spoilt = getattr(evidence, place).clone()
    spoilt.view(-1)[-1] = value
    with pytest.raises(IdentityError, match="Expected finite evidence, but got NaN or infinity"):
        dataclasses.replace(evidence, **{place: spoilt}).check()


def test_to_moves_both_tensors(evidence: Evidence) -> None:
    moved = evidence.to(torch.float64)
    assert (moved.logits.dtype, moved.maps.dtype) == (torch.float64, torch.float64)
    assert torch.equal(moved.maps.float(), evidence.maps)


def test_detach_cuts_both_tensors() -> None:
    evidence = make_evidence(torch.randn(1, 2, 2, 2, requires_grad=True))
    assert evidence.logits.requires_grad
    detached = evidence.detach()
    assert not detached.logits.requires_grad
    assert not detached.maps.requires_grad


def test_multi_label_survives_every_copy() -> None:
    evidence = make_evidence(torch.randn(2, 2, 2, 2), multi_label=True)
    copies = [evidence[0], evidence[:1], evidence.to(torch.float64), evidence.detach(), evidence.check(), *evidence]
    assert all(part.multi_label for part in copies)


def test_torch_looks_inside(evidence: Evidence) -> None:
    leaves, spec = pytree.tree_flatten(dataclasses.replace(evidence, multi_label=True))
    assert [leaf.shape for leaf in leaves] == [(2, 3), (2, 3, 2, 3)]
    doubled = pytree.tree_unflatten([2 * leaf for leaf in leaves], spec)
    assert isinstance(doubled, Evidence)
    assert torch.equal(doubled.maps, 2 * evidence.maps)
    assert doubled.multi_label
    assert pytree.tree_unflatten(["logits", "maps"], spec).maps == "maps"
