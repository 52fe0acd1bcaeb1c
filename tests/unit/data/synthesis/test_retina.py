from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from softcam.data.synthesis.retina import CHOROID, INNER, OUTER, Retina, draw_patient, draw_retina, draw_speckle

SIZE = 256
LAYERS = (*INNER, *OUTER)


def draw(seed: int, *, left: bool = True) -> Retina:
    generator = np.random.default_rng(seed)
    return draw_retina(generator, draw_patient(generator), size=SIZE, left=left)


def plain(retina: Retina) -> Retina:
    """Return the layers alone."""
    ones, zeros = np.ones((SIZE, SIZE)), np.zeros((SIZE, SIZE))
    return dataclasses.replace(
        retina, choroid=CHOROID * ones, texture=ones, harmless=zeros, light=ones, gain=(1.0, 0.0)
    )


def test_layers_are_in_their_order_and_have_their_brightness() -> None:
    retina = plain(draw(0))
    picture, column = retina.render(np.zeros(SIZE)), 20
    edges = [*retina.tops[:, column], retina.bottom[column]]
    assert edges == sorted(edges)
    for layer, top, bottom in zip(LAYERS, edges[:-1], edges[1:], strict=True):
        if bottom - top > 3:
            assert picture[round((top + bottom) / 2), column] == pytest.approx(layer.brightness), layer.name
    assert picture[round(edges[0]) - 3, column] < 0.2
    assert picture[round(edges[-1]) + 3, column] == pytest.approx(CHOROID)


def test_the_epithelium_is_brightest_and_the_outer_nuclei_are_darkest() -> None:
    brightness = {layer.name: layer.brightness for layer in LAYERS}
    assert max(brightness, key=brightness.__getitem__) == "pigment epithelium"
    assert min(brightness, key=brightness.__getitem__) == "outer nuclear"
    assert sum(layer.thickness for layer in LAYERS) == pytest.approx(1, abs=0.02)


def test_the_fovea_is_a_pit_near_the_middle() -> None:
    for seed in range(5):
        retina = draw(seed)
        thickness = retina.bottom - retina.tops[0]
        assert 0.3 < thickness.argmin() / SIZE < 0.7
        assert 0.45 < thickness.min() / np.median(thickness) < 0.8


@pytest.mark.parametrize("left", [True, False])
def test_nerve_fibres_are_thicker_on_the_side_of_the_nose(left: bool) -> None:
    fibres = draw(1, left=left).tops
    thickness = fibres[1] - fibres[0]
    assert (thickness[20] > 1.5 * thickness[-20]) == left
    assert (thickness[-20] > 1.5 * thickness[20]) != left


def test_a_lifted_epithelium_takes_the_outer_layers_along_and_nothing_else() -> None:
    retina = plain(draw(2))
    elevation = np.zeros(SIZE)
    elevation[100:140] = 6
    flat, lifted = retina.render(np.zeros(SIZE)), retina.render(elevation)
    changed = flat != lifted
    assert not changed[:, :100].any()
    assert not changed[:, 140:].any()
    for column in (105, 120, 135):
        rows = np.nonzero(changed[:, column])[0]
        assert rows.min() > retina.tops[len(INNER)][column] - 6 - 2
        assert rows.max() < retina.bottom[column] + 2
        top, bottom = retina.tops[-1][column], retina.bottom[column]
        assert lifted[round((top + bottom) / 2) - 6, column] == pytest.approx(OUTER[-1].brightness)
        assert lifted[round(bottom) - 4, column] < 0.5


def test_speckle_is_as_strong_at_every_size_and_weaker_with_more_scans() -> None:
    patient = draw_patient(np.random.default_rng(0))
    spreads = [
        draw_speckle(np.random.default_rng(0), dataclasses.replace(patient, looks=looks), size).std()
        for looks, size in ((2, 64), (2, 512), (5, 512))
    ]
    assert spreads[0] == pytest.approx(spreads[1], rel=0.1)
    assert spreads[2] < 0.75 * spreads[1]


def test_patients_differ_and_come_back() -> None:
    first, again, other = (draw_patient(np.random.default_rng(seed)) for seed in (0, 0, 1))
    assert first == again != other
