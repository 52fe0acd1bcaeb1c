from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from softcam.imaging import Geometry
from softcam.interop.dicom.alignment import find_cells, spread

CROP = Geometry(5, 8, 4, 6, scale_x=1.0, scale_y=1.0, offset_x=2.0, offset_y=0.0)


def test_a_pixel_gets_exactly_the_value_of_its_cell() -> None:
    values = np.array([[1.5, -2.25, 0.1], [3.0, 4.0, 5.0]], np.float32)
    pixels = spread(values, CROP, outside=-9.0)
    expected = np.full((5, 8), -9.0, np.float32)
    expected[0:4, 2:8] = np.repeat(np.repeat(values, 2, axis=0), 2, axis=1)
    assert pixels.dtype == np.float32
    assert np.array_equal(pixels, expected)


def test_several_maps_at_once() -> None:
    values = np.arange(12, dtype=np.float32).reshape(2, 2, 3)
    pixels = spread(values, CROP, outside=0.0)
    assert np.array_equal(pixels[1], spread(values[1], CROP, outside=0.0))


def test_a_view_that_reaches_beyond_the_image() -> None:
    letterbox = Geometry(2, 4, 4, 4, scale_x=1.0, scale_y=1.0, offset_x=0.0, offset_y=-1.0)
    rows, columns = find_cells(letterbox, (4, 2))
    assert rows.tolist() == [1, 2]
    assert columns.tolist() == [0, 0, 1, 1]


@given(st.integers(1, 40), st.integers(1, 9), st.floats(-20, 20), st.floats(0.1, 5.0), st.integers(1, 64))
def test_a_pixel_belongs_to_the_cell_whose_rectangle_holds_its_centre(
    size: int, cells: int, offset: float, scale: float, input_size: int
) -> None:
    geometry = Geometry(
        size, size, input_size, input_size, scale_x=scale, scale_y=scale, offset_x=offset, offset_y=offset
    )
    rows, columns = find_cells(geometry, (cells, cells))
    assert np.array_equal(rows, columns)
    for pixel, cell in enumerate(rows.tolist()):
        if cell < 0:
            assert not offset + 1e-6 < pixel + 0.5 < offset + scale * input_size - 1e-6
        else:
            left, _, right, _ = geometry.cell_rectangle(cell, cell, grid=(cells, cells)).corners
            assert left - 1e-6 <= pixel + 0.5 <= right + 1e-6
