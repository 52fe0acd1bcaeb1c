from __future__ import annotations

from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from softcam.interop.dicom.regions import Region, find_regions

RING = np.array([[1, 1, 1, 1], [1, 0, 1, 1], [1, 1, 0, 1], [1, 1, 1, 1]], bool)


def enclosed(line: tuple[tuple[int, int], ...], shape: tuple[int, ...]) -> npt.NDArray[np.bool_]:
    """Return which cell centres lie inside a closed line, by counting its vertical pieces to the left."""
    inside = np.zeros(shape, int)
    for (x0, y0), (x1, y1) in pairwise(line):
        assert x0 == x1 or y0 == y1, "pieces run along the sides of cells"
        if x0 == x1:
            inside[min(y0, y1) : max(y0, y1), x0:] += 1
    return inside % 2 == 1


def test_a_square_has_four_corners() -> None:
    cells = np.zeros((4, 4), bool)
    cells[1:3, 1:3] = True
    assert Region(cells, supports=True).trace() == ((1, 1), (3, 1), (3, 3), (1, 3), (1, 1))


def test_holes_are_left_out_of_the_line() -> None:
    line = Region(RING, supports=True).trace()
    assert line[0] == line[-1]
    assert np.array_equal(enclosed(line, RING.shape), RING)


@given(arrays(np.bool_, st.tuples(st.integers(1, 9), st.integers(1, 9))))
def test_every_line_encloses_exactly_its_region(cells: npt.NDArray[np.bool_]) -> None:
    regions, rest = find_regions(cells.astype(float), 1.0, at_most=100)
    covered = rest.astype(int)
    for region in regions:
        assert np.array_equal(enclosed(region.trace(), cells.shape), region.cells)
        covered += region.cells
    assert np.array_equal(covered, np.ones(cells.shape, int)), "regions and rest tile the map"


@given(arrays(np.float32, (5, 6), elements=st.floats(-8, 8, width=32)), st.integers(1, 4))
def test_contributions_add_up_to_the_mean(evidence: npt.NDArray[np.float32], at_most: int) -> None:
    regions, rest = find_regions(evidence, 2.0, at_most=at_most)
    parts = [region.sum_up(evidence) for region in (*regions, Region(rest, supports=True))]
    assert sum(parts) == pytest.approx(evidence.astype(np.float64).mean(), abs=1e-12)
    sizes = [abs(part) for part in parts[:-1]]
    assert sizes == sorted(sizes, reverse=True)
    assert len(regions) <= at_most


def test_for_and_against_are_never_one_region() -> None:
    regions, rest = find_regions(np.array([[3.0, -4.0, 1.9], [0.0, -2.0, 2.0]]), 2.0, at_most=9)
    assert [(region.supports, int(region.cells.sum())) for region in regions] == [(False, 2), (True, 1), (True, 1)]
    assert rest.tolist() == [[False, False, True], [True, False, False]]
    assert regions[0].sum_up(np.array([[3.0, -4.0, 1.9], [0.0, -2.0, 2.0]])) == -1.0
