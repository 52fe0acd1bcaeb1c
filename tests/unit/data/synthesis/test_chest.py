from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from softcam.data.synthesis.chest import Chest, draw_chest, draw_grain
from softcam.data.synthesis.ribcage import draw_patient

SIZE = 128
EMPTY = np.zeros((SIZE, SIZE))


def draw(seed: int) -> Chest:
    generator = np.random.default_rng(seed)
    return draw_chest(generator, draw_patient(generator), SIZE)


@pytest.mark.parametrize("seed", range(4))
def test_lungs_are_dark_and_flesh_is_bright(seed: int) -> None:
    chest = draw(seed)
    picture = chest.render(EMPTY)
    lungs = chest.lungs > 0.9
    assert 0.15 < lungs.mean() < 0.4
    assert picture[lungs].mean() < 0.5 * picture[100:, 30:98].mean()
    assert picture[0, 0] < picture[lungs].mean() + 0.05


@pytest.mark.parametrize("seed", range(4))
def test_the_heart_is_in_the_lower_middle_more_to_the_right_of_the_image(seed: int) -> None:
    lungs = draw(seed).lungs > 0.5
    row = round(0.65 * SIZE)
    air = np.nonzero(lungs[row])[0]
    gap = int(np.argmax(np.diff(air)))
    left, right = air[gap], air[gap + 1]
    assert 0.15 * SIZE < right - left < 0.5 * SIZE
    assert right - SIZE / 2 > 1.3 * (SIZE / 2 - left)


@pytest.mark.parametrize("seed", range(4))
def test_the_diaphragm_is_two_domes_of_which_the_left_of_the_image_is_higher(seed: int) -> None:
    lungs = draw(seed).lungs > 0.5
    rows = SIZE - 1 - lungs[::-1].argmax(0)
    tops = []
    for half in (rows[: SIZE // 2], rows[: SIZE // 2 - 1 : -1]):
        # From the wall inwards, as far as no heart hides it.
        dome = half[(half > 0.7 * SIZE) & (half < SIZE - 1)]
        assert dome[0] > dome.min() + 5
        tops.append(dome.min())
    assert tops[0] < tops[1]


def test_an_opacity_brightens_lung_alone() -> None:
    chest = draw(1)
    change = chest.render(np.full((SIZE, SIZE), 0.2)) - chest.render(EMPTY)
    assert not change[chest.lungs == 0].any()
    assert (change[chest.lungs > 0.9] > 0.01).all()


def test_the_tone_is_steeper_and_darker_as_asked() -> None:
    chest = draw(0)
    dark, light = (dataclasses.replace(chest, tone=(5.0, middle)).render(EMPTY) for middle in (0.55, 0.45))
    assert (dark < light).all()
    flat, steep = (dataclasses.replace(chest, tone=(steepness, 0.5)).render(EMPTY) for steepness in (4.0, 6.0))
    assert flat.std() < steep.std()


def test_grain_is_stronger_where_it_is_bright() -> None:
    picture = np.repeat((0.1, 0.9), SIZE // 2)[:, None] * np.ones((SIZE, SIZE))
    grain = draw_grain(np.random.default_rng(0), picture)
    assert grain[SIZE // 2 :].std() > 1.5 * grain[: SIZE // 2].std() > 0
    assert abs(grain.mean()) < 0.002
