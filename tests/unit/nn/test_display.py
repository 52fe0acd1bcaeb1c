from __future__ import annotations

import base64
import io
import re

import numpy as np
import pytest
import torch
from PIL import Image

from softcam.imaging import signed_colors
from softcam.nn import Evidence
from softcam.nn.display import MOST_IMAGES


def make(*grid: int, batch: int = 2, classes: int = 3, multi_label: bool = False) -> Evidence:
    maps = torch.randn(batch, classes, *grid, generator=torch.Generator().manual_seed(0))
    return Evidence(maps.flatten(2).mean(-1), maps, multi_label)


def read_pictures(text: str) -> list[np.ndarray]:
    found = re.findall(r"base64,([A-Za-z0-9+/=]+)", text)
    return [np.asarray(Image.open(io.BytesIO(base64.b64decode(data)))) for data in found]


def test_the_deciding_map_has_the_colours_of_imaging() -> None:
    evidence = make(5, 7)
    text = evidence._repr_html_()
    first, second = read_pictures(text)
    margins = evidence.margin(evidence.predicted(), evidence.runner_up()).numpy()
    limit = float(np.abs(margins).max())
    for picture, margin in ((first, margins[0]), (second, margins[1])):
        # Straight lines in sRGB instead of OKLab: the ends are the same, between them a little is lost.
        assert np.abs(picture.astype(int) - signed_colors(margin, limit).astype(int)).max() <= 16
    assert f"class {evidence.predicted()[0]}" in text
    assert f"{margins[0].mean():+.3f} logits" in text


def test_the_ends_are_those_of_imaging() -> None:
    maps = torch.tensor([[[[4.0, -4.0, 0.0]]]])
    (picture,) = read_pictures(Evidence(maps.mean((2, 3)), maps)._repr_html_())
    assert picture.tolist() == signed_colors([[4.0, -4.0, 0.0]], 4.0).tolist()


@pytest.mark.parametrize(("grid", "shape"), [((9,), (1, 9)), ((2, 3, 4), (3, 4)), ((6, 2), (6, 2))])
def test_signals_and_volumes_are_shown(grid: tuple[int, ...], shape: tuple[int, int]) -> None:
    for picture in read_pictures(make(*grid)._repr_html_()):
        assert picture.shape == (*shape, 3)


@pytest.mark.parametrize(("classes", "multi_label"), [(1, False), (3, True)])
def test_independent_classes_show_one_map(classes: int, multi_label: bool) -> None:
    text = make(4, 4, classes=classes, multi_label=multi_label)._repr_html_()
    assert "highest logit" in text
    assert "over class" not in text


def test_large_batches_are_cut_and_empty_ones_are_said() -> None:
    text = make(3, 3, batch=MOST_IMAGES + 3)._repr_html_()
    assert len(read_pictures(text)) == MOST_IMAGES
    assert "and 3 more images" in text
    assert "no image" in make(3, 3, batch=1)[:0]._repr_html_()


def test_nothing_of_the_graph_is_kept() -> None:
    maps = torch.randn(1, 2, 3, 3, requires_grad=True)
    assert "<figure" in Evidence(maps.mean((2, 3)), maps)._repr_html_()
