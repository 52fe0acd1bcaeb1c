from __future__ import annotations

import dataclasses
import json

import pytest

from softcam.imaging.geometry import Geometry, Rectangle

# 300x200 original, central 200x200 window seen as 100x50 input: 2 original pixels per input pixel in x, 4 in y.
GEOMETRY = Geometry(200, 300, 50, 100, scale_x=2.0, scale_y=4.0, offset_x=50.0, offset_y=0.0)


def test_points_by_hand() -> None:
    assert GEOMETRY.to_original(0, 0) == (50, 0)
    assert GEOMETRY.to_original(100, 50) == (250, 200)
    assert GEOMETRY.to_original(10, 3) == (70, 12)
    assert GEOMETRY.to_input(70, 12) == (10, 3)
    assert GEOMETRY.to_input(0, 0) == (-25, 0)


def test_cells_by_hand() -> None:
    assert GEOMETRY.cell_rectangle(0, 0, grid=(5, 4)) == Rectangle(50, 0, 50, 40)
    assert GEOMETRY.cell_rectangle(4, 3, grid=(5, 4)) == Rectangle(200, 160, 50, 40)
    assert GEOMETRY.cell_rectangle(2, 1, grid=(5, 4)) == Rectangle(100, 80, 50, 40)


def test_a_map_of_one_cell_covers_the_view() -> None:
    assert GEOMETRY.cell_rectangle(0, 0, grid=(1, 1)) == GEOMETRY.view == Rectangle(50, 0, 200, 200)


def test_what_lies_beyond_the_image_is_clipped() -> None:
    padded = dataclasses.replace(GEOMETRY, offset_x=-20.0, offset_y=100.0)
    assert padded.view == Rectangle(0, 100, 180, 100)
    assert padded.cell_rectangle(0, 0, grid=(2, 2)) == Rectangle(0, 100, 80, 100)
    assert padded.cell_rectangle(1, 0, grid=(2, 2)) == Rectangle(0, 200, 80, 0)


@pytest.mark.parametrize(("row", "column"), [(-1, 0), (0, -1), (5, 0), (0, 4)])
def test_cells_outside_the_grid(row: int, column: int) -> None:
    with pytest.raises(IndexError, match=rf"5x4 grid, but got \({row}, {column}\)"):
        GEOMETRY.cell_rectangle(row, column, grid=(5, 4))


def test_corners() -> None:
    assert Rectangle(1, 2, 3, 5).corners == (1, 2, 4, 7)


def test_json_returns_the_same_geometry_bit_by_bit() -> None:
    geometry = dataclasses.replace(GEOMETRY, scale_x=1 / 3, offset_x=-0.1)
    assert Geometry.from_json(geometry.to_json()) == geometry
    assert Geometry.from_dict(json.loads(geometry.to_json())) == geometry
    assert set(geometry.to_dict()) == {field.name for field in dataclasses.fields(Geometry)}


def test_from_dict_refuses_other_keys() -> None:
    with pytest.raises(ValueError, match="Did you mean 'scale_x'"):
        Geometry.from_dict({**GEOMETRY.to_dict(), "scalex": 1.0})


@pytest.mark.parametrize(
    ("name", "value", "constraint"),
    [
        ("original_height", 0, "finite and positive"),
        ("original_width", -1, "finite and positive"),
        ("input_height", 0, "finite and positive"),
        ("input_width", 0, "finite and positive"),
        ("scale_x", 0.0, "finite and positive"),
        ("scale_y", float("nan"), "finite and positive"),
        ("offset_x", float("inf"), "finite"),
        ("offset_y", float("nan"), "finite"),
    ],
)
def test_values_out_of_range(name: str, value: float, constraint: str) -> None:
    with pytest.raises(ValueError, match=f"Expected `{name}` to be {constraint}, but got {value}"):
        dataclasses.replace(GEOMETRY, **{name: value})
