from __future__ import annotations

from itertools import pairwise

import numpy as np
import numpy.typing as npt
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from softcam.interop.dicom.outline import trace_outline
from softcam.nn import find_regions

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
    assert trace_outline(cells) == ((1, 1), (3, 1), (3, 3), (1, 3), (1, 1))


def test_holes_are_left_out_of_the_line() -> None:
    line = trace_outline(RING)
    assert line[0] == line[-1]
    assert np.array_equal(enclosed(line, RING.shape), RING)


@given(arrays(np.bool_, st.tuples(st.integers(1, 9), st.integers(1, 9))))
def test_every_line_encloses_exactly_its_region(cells: npt.NDArray[np.bool_]) -> None:
    for region in find_regions(cells.astype(float), threshold=1.0):
        assert np.array_equal(enclosed(trace_outline(region.cells), cells.shape), region.cells)
