from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from softcam.data.synthesis.fluid import DRAWN, EPITHELIUM, Finding, between
from softcam.data.synthesis.retina import INNER, Retina, draw_patient, draw_retina

SIZE = 160
ILL = ("CNV", "DME", "DRUSEN")


def draw(label: str, seed: int, *, grade: int = 3, strength: float = 1.0) -> tuple[Retina, Finding]:
    generator = np.random.default_rng(seed)
    retina = draw_retina(generator, draw_patient(generator), size=SIZE, left=True)
    return retina, DRAWN[label](np.random.default_rng((seed, 1)), retina, grade, strength)


def test_a_normal_retina_is_left_as_it_is() -> None:
    retina, finding = draw("NORMAL", 0)
    picture, mask = finding.render(retina)
    assert np.array_equal(picture, retina.render(np.zeros(SIZE)))
    assert not mask.any()


@pytest.mark.parametrize("label", ILL)
@pytest.mark.parametrize("seed", range(4))
def test_the_mask_is_in_the_retina_and_the_picture_differs_there(label: str, seed: int) -> None:
    retina, finding = draw(label, seed)
    picture, mask = finding.render(retina)
    assert picture.min() >= 0
    assert picture.max() <= 1
    rows, columns = np.nonzero(mask)
    assert 0.001 < mask.mean() < 0.15
    assert (rows >= (retina.tops[0] - finding.raised[0])[columns] - 2).all()
    assert (rows <= retina.bottom[columns] + 2).all()
    assert (np.abs(picture - retina.render(np.zeros(SIZE)))[mask] > 0.02).mean() > 0.7


@pytest.mark.parametrize("label", ILL)
def test_layers_keep_their_order(label: str) -> None:
    for seed in range(4):
        retina, finding = draw(label, seed, grade=4)
        tops = retina.tops - finding.raised
        tops[len(INNER) :] -= finding.elevation
        if label != "DRUSEN":
            assert (np.diff(tops, axis=0) >= -1).all()
        assert (finding.elevation >= 0).all()
        assert (finding.raised >= 0).all()


@pytest.mark.parametrize("label", ILL)
def test_grade_and_strength_make_it_larger(label: str) -> None:
    def change(**asked: float) -> float:
        total = 0.0
        for seed in range(5):
            retina, finding = draw(label, seed, **asked)  # type: ignore[arg-type]
            total += np.abs(finding.render(retina)[0] - retina.render(np.zeros(SIZE))).sum()
        return total

    assert change(grade=4) > change(grade=1) > 0
    assert change(strength=1.0) > change(strength=0.5) > 0


def test_oedema_thickens_the_retina_with_dark_cysts_in_it() -> None:
    for seed in range(4):
        retina, finding = draw("DME", seed)
        picture, mask = finding.render(retina)
        assert finding.raised[0].max() > 0.04 * SIZE
        assert not finding.elevation.any()
        assert picture[mask].mean() < 0.6 * picture[~mask & (retina.render(np.zeros(SIZE)) > 0.25)].mean()
        assert ndimage.label(mask)[1] >= 3


def test_new_vessels_lift_the_epithelium_with_bright_and_dark_above_it() -> None:
    for seed in range(4):
        retina, finding = draw("CNV", seed)
        picture, mask = finding.render(retina)
        assert finding.elevation.max() > 0.02 * SIZE
        assert finding.raised[0].max() > finding.elevation.max()
        assert not finding.raised[EPITHELIUM].any()
        low, high = np.quantile(picture[mask], (0.1, 0.9))
        assert high - low > 0.15


def test_what_lies_between_two_lines_is_one_and_nothing_where_they_meet() -> None:
    top, bottom = np.full(40, 10.0), np.full(40, 20.0)
    bottom[:5] = 10
    plane = between(top, bottom)
    assert (plane[12:18, 5:] == 1).all()
    assert not plane[:, :5].any()
    assert not plane[:9].any()
    assert not plane[22:].any()
