"""The fundus circle: found where it is, also cut off, dim or noisy; refused where there is none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from softcam.data.fundus import Circle, find_circle, find_square


def draw(height: int, width: int, circle: Circle, *, brightness: float = 120, noise: float = 3) -> np.ndarray:
    """A reddish disc that darkens towards its edge on a black, noisy background."""
    rows, columns = np.mgrid[:height, :width] + 0.5
    distance = np.hypot(columns - circle.x, rows - circle.y) / circle.radius
    disc = np.where(distance < 1, brightness * (1 - 0.5 * distance**2), 0)
    picture = disc[..., None] * np.array([1.0, 0.55, 0.3])
    generator = np.random.default_rng(0)
    return np.clip(picture + generator.normal(0, noise, picture.shape) + 4, 0, 255).astype(np.uint8)


CASES = {
    "whole": (600, 800, Circle(400, 300, 280)),
    "off centre": (600, 900, Circle(350, 310, 250)),
    "cut at top and bottom": (500, 800, Circle(400, 250, 300)),
    "cut on all sides": (520, 520, Circle(260, 260, 290)),
    "cut at one side": (600, 600, Circle(220, 300, 270)),
    "large": (1200, 1800, Circle(900, 600, 660)),
    "small image": (90, 120, Circle(60, 45, 40)),
}


@pytest.mark.parametrize("name", CASES)
def test_the_circle_is_found(name: str) -> None:
    height, width, circle = CASES[name]
    found = find_circle(draw(height, width, circle))
    assert found is not None
    assert found == pytest.approx(circle, abs=0.02 * circle.radius)


def test_a_dim_photograph_with_a_notch_and_a_label_is_no_obstacle() -> None:
    pixels = draw(600, 800, Circle(400, 300, 260), brightness=40)
    pixels[270:330, 120:150] = 0  # a notch
    pixels[10:40, 10:200] = 200  # writing in the corner
    found = find_circle(pixels)
    assert found == pytest.approx((400, 300, 260), abs=6)


def test_grey_images_are_taken() -> None:
    assert find_circle(draw(300, 400, Circle(200, 150, 120))[..., 0]) == pytest.approx((200, 150, 120), abs=3)


@pytest.mark.parametrize("kind", ["black", "white", "noise", "stripes", "square"])
def test_where_there_is_no_circle_there_is_none(kind: str) -> None:
    pictures = {
        "black": np.zeros((200, 300), np.uint8),
        "white": np.full((200, 300), 255, np.uint8),
        "noise": np.random.default_rng(0).integers(0, 255, (200, 300), dtype=np.uint8),
        "stripes": np.tile(np.repeat(np.array([0, 200], np.uint8), 20), (200, 8)),
        "square": np.pad(np.full((120, 120), 200, np.uint8), ((40, 40), (90, 90))),
    }
    assert find_circle(pictures[kind]) is None


def test_the_square_is_around_the_circle_and_may_reach_beyond_the_image() -> None:
    square = find_square(draw(500, 800, Circle(400, 250, 300)))
    assert square.found
    assert square.side == pytest.approx(600, abs=8)
    assert square.x == pytest.approx(100, abs=6)
    assert square.y == pytest.approx(-50, abs=6)
    left, top, right, bottom = square.corners
    assert (right - left, bottom - top) == (square.side, square.side)


def test_without_a_circle_the_square_is_the_largest_in_the_middle() -> None:
    assert find_square(np.zeros((200, 300, 3), np.uint8)) == (50, 0, 200, False)
    assert find_square(np.zeros((300, 201, 3), np.uint8)) == (0, 49, 201, False)


def test_real_photographs_that_were_cropped_to_the_circle_have_it_at_their_border(shared_data: Path) -> None:
    paths = sorted((shared_data / "fundus_samples").glob("*.png"))
    assert len(paths) == 15
    found = [find_circle(np.asarray(Image.open(path).convert("RGB"))) for path in paths]
    assert all(circle is not None for circle in found)
    circles = np.array([circle for circle in found if circle is not None])
    assert np.abs(circles - (256, 256, 256)).max() < 20


def test_real_photographs_in_a_wider_frame_are_found_again(shared_data: Path) -> None:
    for path in sorted((shared_data / "fundus_samples").glob("*.png")):
        photograph = np.asarray(Image.open(path).convert("RGB"))
        framed = np.pad(photograph[40:-40], ((0, 0), (150, 90), (0, 0)))
        found = find_circle(framed)
        assert found is not None, path.name
        assert found == pytest.approx((256 + 150, 256 - 40, 256), abs=20), path.name
