from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from softcam.imaging import Geometry
from softcam.nn import Evidence, Placement, find_regions

Values = npt.NDArray[np.float32]
MAPS = arrays(np.float32, array_shapes(min_dims=1, max_dims=3, max_side=6), elements=st.floats(-8, 8, width=32))


@given(MAPS, st.floats(0.05, 1), st.none() | st.integers(0, 4))
def test_regions_and_rest_tile_the_map_and_add_up_to_its_mean(
    values: Values, share: float, at_most: int | None
) -> None:
    regions = find_regions(values, share=share, at_most=at_most)
    covered = regions.rest.astype(int) + sum(region.cells.astype(int) for region in regions)
    assert np.array_equal(covered, np.ones(values.shape, int))
    exact = values.astype(np.float64)
    assert regions.total == pytest.approx(exact.mean(), abs=1e-12)
    for region in regions:
        assert region.contribution == pytest.approx(exact[region.cells].sum() / exact.size, abs=1e-12)
        assert (exact[region.cells] * (1 if region.supports else -1) >= regions.threshold).all()
        assert region.cells[region.peak]
        assert abs(region.peak_value) == np.abs(exact[region.cells]).max() == abs(exact[region.peak])
    sizes = [abs(region.contribution) for region in regions]
    assert sizes == sorted(sizes, reverse=True)
    assert at_most is None or len(regions) <= at_most


@given(MAPS, st.floats(0.05, 1))
def test_no_two_regions_of_a_sign_touch(values: Values, share: float) -> None:
    regions = list(find_regions(values, share=share))
    for number, region in enumerate(regions):
        padded = np.pad(region.cells, 1)
        grown = padded.copy()
        for dim in range(values.ndim):
            grown |= np.roll(padded, 1, dim) | np.roll(padded, -1, dim)
        around = grown[(slice(1, -1),) * values.ndim]
        for other in regions[number + 1 :]:
            assert other.supports != region.supports or not (around & other.cells).any()


def test_for_and_against_are_never_one_region() -> None:
    regions = find_regions(np.array([[3.0, -4.0, 1.9], [0.0, -2.0, 2.0]]), threshold=2.0, at_most=9)
    assert [(region.supports, int(region.cells.sum())) for region in regions] == [(False, 2), (True, 1), (True, 1)]
    assert regions.rest.tolist() == [[False, False, True], [True, False, False]]
    assert (regions[0].contribution, regions[0].peak, regions[0].peak_value) == (-1.0, (0, 1), -4.0)
    assert regions.support.tolist() == [[True, False, False], [False, False, True]]
    assert len(regions) == 3


def test_the_share_is_of_the_strongest_evidence_of_either_sign() -> None:
    values = np.array([4.0, 0.0, -8.0, 0.0, 3.9])
    assert find_regions(values).threshold == 4.0
    assert [region.supports for region in find_regions(values)] == [False, True]
    assert len(find_regions(values, share=0.4)) == 3
    assert len(find_regions(values, threshold=4.1)) == 1


def test_a_map_of_zeros_has_no_region() -> None:
    regions = find_regions(np.zeros((2, 3)))
    assert (len(regions), regions.threshold, regions.total) == (0, np.inf, 0.0)
    assert regions.rest.all()
    assert not regions.support.any()


def test_evidence_finds_them_for_each_image_and_class() -> None:
    maps = torch.tensor(
        [[[[4.0, 0.0], [0.0, 0.0]], [[0.0, 0.0], [2.0, 2.0]]], [[[0.0, 0.0], [0.0, -1.0]], [[0.0] * 2] * 2]]
    )
    evidence = Evidence(maps.mean((-2, -1)), maps)
    first, second = evidence.regions(threshold=1.0)
    assert first[0].cells.tolist() == [[True, False], [False, False]]
    assert first.total == evidence.logits[0, 0].item()
    assert len(second) == 0  # the second class is predicted, whose map is empty
    margin, _ = evidence.regions(0, against=1, threshold=1.0, placement=Placement.of((20, 40), (0.5, 0.25)))
    assert [(region.supports, region.contribution) for region in margin] == [(True, 1.0), (False, -1.0)]
    assert margin.total == (evidence.logits[0, 0] - evidence.logits[0, 1]).item()
    below = margin[1]
    assert (below.box, below.pixels, below.millimetres) == ((0.0, 10.0, 40.0, 10.0), 400.0, 50.0)
    assert below.peak_point == (10.0, 15.0)
    assert [len(found) for found in evidence.regions(torch.tensor([1, 0]), threshold=1.0)] == [1, 1]


def test_contributions_are_those_of_masks() -> None:
    torch.manual_seed(0)
    maps = torch.randn(2, 3, 5, 4, 6, dtype=torch.float64)
    evidence = Evidence(maps.mean((-3, -2, -1)), maps)
    for image, regions in zip(evidence, evidence.regions(2, share=0.4), strict=True):
        for region in regions:
            assert image.contribution(torch.from_numpy(region.cells), 2).item() == pytest.approx(region.contribution)


def test_volumes_have_boxes_of_six_numbers_and_cubic_millimetres() -> None:
    values = np.zeros((2, 3, 4))
    values[1, 1:, 2] = 1.0
    (region,) = find_regions(values, placement=Placement.of((4, 9, 8), (2.0, 0.5, 0.5)))
    assert region.box == (4.0, 3.0, 2.0, 2.0, 6.0, 2.0)
    assert (region.pixels, region.millimetres) == (24.0, 12.0)
    mask = np.zeros((4, 9, 8), bool)
    mask[2:, 3:, 4:6] = True
    assert np.array_equal(region.mask, mask)


def test_signals_have_lengths() -> None:
    (region,) = find_regions(np.array([0.0, 3.0, 3.0, 0.0]), placement=Placement.of((100,), (0.1,)))
    assert region.box == (25.0, 50.0)
    assert (region.pixels, region.millimetres) == (50.0, pytest.approx(5.0))


GEOMETRIES = st.builds(
    Geometry, st.integers(3, 40), st.integers(3, 40), st.integers(1, 30), st.integers(1, 30),
    scale_x=st.floats(0.2, 3), scale_y=st.floats(0.2, 3), offset_x=st.floats(-5, 5), offset_y=st.floats(-5, 5),
)  # fmt: skip


def place(geometry: Geometry, spacing: tuple[float, float] | None = None) -> Placement:
    g = geometry
    extent = (g.input_height * g.scale_y, g.input_width * g.scale_x)
    return Placement((g.offset_y, g.offset_x), extent, (g.original_height, g.original_width), spacing)


@given(GEOMETRIES, arrays(np.bool_, st.tuples(st.integers(1, 6), st.integers(1, 6))))
def test_boxes_and_areas_are_those_of_the_rectangles_of_cells(geometry: Geometry, cells: npt.NDArray[np.bool_]) -> None:
    for region in find_regions(cells.astype(float), placement=place(geometry, (0.5, 0.25))):
        rectangles = [
            geometry.cell_rectangle(row, column, grid=cells.shape) for row, column in np.argwhere(region.cells)
        ]
        left, top, right, bottom = zip(*(rectangle.corners for rectangle in rectangles), strict=True)
        expected = (min(left), min(top), max(right) - min(left), max(bottom) - min(top))
        assert region.box == pytest.approx(expected, abs=1e-9)
        assert region.pixels == pytest.approx(sum(part.width * part.height for part in rectangles), abs=1e-8)
        assert region.millimetres == pytest.approx(region.pixels * 0.125)


CROP = place(Geometry(5, 8, 4, 6, scale_x=1.0, scale_y=1.0, offset_x=2.0, offset_y=0.0))


def test_a_pixel_gets_exactly_the_value_of_its_cell() -> None:
    values = np.array([[1.5, -2.25, 0.1], [3.0, 4.0, 5.0]], np.float32)
    pixels = CROP.spread(values, outside=-9.0)
    expected = np.full((5, 8), -9.0, np.float32)
    expected[0:4, 2:8] = np.repeat(np.repeat(values, 2, axis=0), 2, axis=1)
    assert pixels.dtype == np.float32
    assert np.array_equal(pixels, expected)


def test_several_maps_at_once() -> None:
    values = np.arange(12, dtype=np.float32).reshape(2, 2, 3)
    pixels = CROP.spread(values, outside=0.0)
    assert np.array_equal(pixels[1], CROP.spread(values[1], outside=0.0))


def test_a_view_that_reaches_beyond_the_image() -> None:
    letterbox = place(Geometry(2, 4, 4, 4, scale_x=1.0, scale_y=1.0, offset_x=0.0, offset_y=-1.0))
    rows, columns = letterbox.find_cells((4, 2))
    assert rows.tolist() == [1, 2]
    assert columns.tolist() == [0, 0, 1, 1]


@given(st.integers(1, 40), st.integers(1, 9), st.floats(-20, 20), st.floats(0.1, 5.0), st.integers(1, 64))
def test_a_pixel_belongs_to_the_cell_whose_rectangle_holds_its_centre(
    size: int, cells: int, offset: float, scale: float, input_size: int
) -> None:
    geometry = Geometry(
        size, size, input_size, input_size, scale_x=scale, scale_y=scale, offset_x=offset, offset_y=offset
    )
    rows, columns = place(geometry).find_cells((cells, cells))
    assert np.array_equal(rows, columns)
    for pixel, cell in enumerate(rows.tolist()):
        if cell < 0:
            assert not offset + 1e-6 < pixel + 0.5 < offset + scale * input_size - 1e-6
        else:
            left, _, right, _ = geometry.cell_rectangle(cell, cell, grid=(cells, cells)).corners
            assert left - 1e-6 <= pixel + 0.5 <= right + 1e-6


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"share": 0.5, "threshold": 1.0}, "`share` or `threshold`, but got both"),
        ({"share": 0.0}, r"`share` to be in \(0, 1\], but got 0.0"),
        ({"share": 1.01}, r"`share` to be in \(0, 1\], but got 1.01"),
        ({"threshold": 0.0}, "`threshold` to be finite and above 0, but got 0.0"),
        ({"threshold": float("inf")}, "`threshold` to be finite and above 0, but got inf"),
        ({"at_most": -1}, "`at_most` to be at least 0, but got -1"),
        ({"placement": Placement.of((4,))}, r"each dimension of the grid \(2, 2\)"),
    ],
)
def test_refuses_what_makes_no_regions(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        find_regions(np.ones((2, 2)), **options)[0].box  # noqa: B018 - a placement is looked at only then


def test_refuses_evidence_that_is_not_finite() -> None:
    with pytest.raises(ValueError, match="finite evidence"):
        find_regions(np.array([1.0, np.nan]))


@pytest.mark.parametrize(
    ("start", "extent", "size", "spacing", "message"),
    [
        ((0.0,), (1.0, 1.0), (1, 1), None, "a finite number per dimension"),
        ((0.0, np.inf), (1.0, 1.0), (1, 1), None, "a finite number per dimension"),
        ((0.0,), (0.0,), (1,), None, "above 0"),
        ((0.0,), (1.0,), (1,), (0.0,), "above 0"),
    ],
)
def test_refuses_placements_that_are_none(start: Any, extent: Any, size: Any, spacing: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Placement(start, extent, size, spacing)
