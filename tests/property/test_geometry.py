"""What holds for the geometry of every image size and every preprocessing."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from softcam.imaging.decode import image_from_array
from softcam.imaging.geometry import Geometry
from softcam.imaging.preprocessing import Preprocessing

SIDES = st.integers(2, 5000)
PREPROCESSINGS = st.builds(
    Preprocessing,
    size=st.integers(1, 600),
    fit=st.sampled_from(["shorter", "squash"]),
    crop_fraction=st.floats(0.05, 1.0),
)


@given(PREPROCESSINGS, SIDES, SIDES, st.floats(0, 1), st.floats(0, 1))
def test_there_and_back_is_the_same_point(
    preprocessing: Preprocessing, height: int, width: int, x: float, y: float
) -> None:
    geometry = preprocessing.locate(height, width)
    point = (x * width, y * height)
    assert geometry.to_original(*geometry.to_input(*point)) == pytest.approx(point, abs=1e-6)


@given(PREPROCESSINGS, SIDES, SIDES)
def test_the_view_is_centred_inside_the_image_and_keeps_proportions(
    preprocessing: Preprocessing, height: int, width: int
) -> None:
    geometry = preprocessing.locate(height, width)
    left, top, right, bottom = geometry.view.corners
    assert 0 <= left < right <= width
    assert 0 <= top < bottom <= height
    assert left + right == pytest.approx(width)
    assert top + bottom == pytest.approx(height)
    if preprocessing.fit == "shorter":
        assert geometry.scale_x == geometry.scale_y


@given(PREPROCESSINGS, SIDES, SIDES, st.integers(1, 20), st.integers(1, 20))
def test_cells_tile_the_view(preprocessing: Preprocessing, height: int, width: int, rows: int, columns: int) -> None:
    geometry = preprocessing.locate(height, width)
    cells = [
        geometry.cell_rectangle(row, column, grid=(rows, columns)) for row in range(rows) for column in range(columns)
    ]
    view = geometry.view
    assert sum(cell.width * cell.height for cell in cells) == pytest.approx(view.width * view.height)
    assert cells[0].corners[:2] == pytest.approx(view.corners[:2])
    assert cells[-1].corners[2:] == pytest.approx(view.corners[2:])


@given(PREPROCESSINGS, SIDES, SIDES)
def test_records_survive_text(preprocessing: Preprocessing, height: int, width: int) -> None:
    geometry = preprocessing.locate(height, width)
    assert Geometry.from_json(geometry.to_json()) == geometry
    assert Preprocessing.from_dict(preprocessing.to_dict()) == preprocessing


@settings(max_examples=60)
@given(
    size=st.integers(8, 64),
    fit=st.sampled_from(["shorter", "squash"]),
    height=st.integers(9, 150),
    width=st.integers(9, 150),
    place=st.tuples(st.floats(0.3, 0.7), st.floats(0.3, 0.7)),
)
def test_a_marker_lands_where_the_geometry_says(
    size: int, fit: str, height: int, width: int, place: tuple[float, float]
) -> None:
    preprocessing = Preprocessing(size=size, fit=fit)
    geometry = preprocessing.locate(height, width)
    left, top, right, bottom = geometry.view.corners
    row, column = int(top + place[1] * (bottom - top)), int(left + place[0] * (right - left))
    pixels = np.zeros((height, width), np.uint16)
    pixels[row, column] = 65_535
    tensor, _ = preprocessing.resize(image_from_array(pixels))
    y, x = np.unravel_index(int(tensor[0].argmax()), (size, size))
    found = geometry.to_original(x + 0.5, y + 0.5)
    # A pixel of the input cannot say more than its own extent, nor the original more than one pixel.
    tolerance = (0.5 + max(0.5, geometry.scale_x / 2), 0.5 + max(0.5, geometry.scale_y / 2))
    assert abs(found[0] - column - 0.5) <= tolerance[0]
    assert abs(found[1] - row - 0.5) <= tolerance[1]
