from __future__ import annotations

import matplotlib as mpl
import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from torch import Tensor

from softcam.imaging import overlay, signed_colors
from softcam.nn.evidence import Evidence
from softcam.reporting.plotting import plot
from softcam.reporting.wording import MINUS


def _evidence(classes: int = 2, count: int = 2, *, multi_label: bool = False) -> Evidence:
    maps = torch.randn(count, classes, 3, 3, generator=torch.Generator().manual_seed(1))
    return Evidence(maps.mean((-2, -1)), maps, multi_label=multi_label)


def _images(count: int = 2, channels: int = 3) -> Tensor:
    return torch.rand(count, channels, 12, 15, generator=torch.Generator().manual_seed(2))


def _titles(figure: Figure) -> list[str]:
    return [axes.get_title() for axes in figure.axes if axes.get_images()]


def _pixels(figure: Figure, index: int) -> np.ndarray:
    return np.asarray(figure.axes[index].get_images()[0].get_array())


def test_one_row_per_image_with_every_class() -> None:
    evidence = _evidence()
    figure = plot(evidence, _images(), classes=["cat", "dog"])
    titles = _titles(figure)
    assert [title.splitlines()[0] for title in titles] == ["image", "cat", "dog"] * 2
    logit = f"{float(evidence.logits[1, 1]):+.2f}".replace("-", MINUS)
    probability = f"{float(evidence.probabilities()[1, 1]):.2f}"
    assert titles[5] == f"dog\nlogit {logit}, p {probability}"


def test_probabilities_are_those_of_the_task() -> None:
    several = _evidence(multi_label=True)
    assert _titles(plot(several, _images()))[1].endswith(f"p {float(several.logits[0, 0].sigmoid()):.2f}")


def test_overlay_and_bar_share_one_scale() -> None:
    evidence, images = _evidence(), _images()
    figure = plot(evidence, images, limit=1.5)
    photo = (255 * images[1]).round().to(torch.uint8).permute(1, 2, 0).numpy()
    assert (_pixels(figure, 3) == photo).all()
    assert (_pixels(figure, 5) == overlay(photo, evidence.maps[1, 1].numpy(), 1.5)).all()
    bar = figure.axes[-1]
    assert bar.get_ylim() == (-1.5, 1.5)
    assert "logits" in bar.get_ylabel()
    assert (_pixels(plot(evidence, images, limit=0.5), 5) != _pixels(figure, 5)).any()


def test_the_limit_is_found_over_all_rows() -> None:
    evidence = _evidence()
    larger = Evidence(evidence.logits * 10, evidence.maps * 10)
    ratio = plot(larger, _images()).axes[-1].get_ylim()[1] / plot(evidence, _images()).axes[-1].get_ylim()[1]
    assert ratio == pytest.approx(10, rel=1e-4)


def test_target_alone_and_against() -> None:
    evidence = _evidence(3)
    assert [title.splitlines()[0] for title in _titles(plot(evidence, _images(), target=2))] == ["image", "class 2"] * 2
    figure = plot(evidence, _images(), target=2, against=0, limit=1.0)
    total = float(evidence.logits[0, 2] - evidence.logits[0, 0])
    assert _titles(figure)[1] == f"class 2 against class 0\nmean {total:+.2f} logits".replace("-", MINUS)
    assert (_pixels(figure, 1) == overlay(_pixels(figure, 0), evidence.margin(2, 0)[0].numpy(), 1.0)).all()


def test_against_alone_weighs_the_predicted_class_or_its_rival() -> None:
    maps = torch.tensor([3.0, 1.0, 2.0])[None, :, None, None].expand(1, 3, 2, 2)
    evidence = Evidence(maps.mean((-2, -1)), maps)
    assert _titles(plot(evidence, _images(1), against=1))[1].startswith("class 0 against class 1")
    assert _titles(plot(evidence, _images(1), against=0))[1].startswith("class 2 against class 0")


def test_of_many_classes_the_three_strongest() -> None:
    evidence = _evidence(6, 1)
    order = evidence.logits[0].argsort(descending=True)[:3].tolist()
    titles = _titles(plot(evidence, _images(1)))
    assert [title.splitlines()[0] for title in titles[1:]] == [f"class {index}" for index in order]


def test_normalisation_is_undone() -> None:
    images = _images()
    mean, std = [0.4, 0.5, 0.6], [0.2, 0.3, 0.1]
    columns = torch.tensor(mean)[:, None, None], torch.tensor(std)[:, None, None]
    normalised = (images - columns[0]) / columns[1]
    plain = plot(_evidence(), images)
    undone = plot(_evidence(), normalised, mean=mean, std=std)
    assert np.abs(_pixels(plain, 0).astype(int) - _pixels(undone, 0)).max() <= 1
    stretched = _pixels(plot(_evidence(), normalised), 0)
    assert (stretched.min(), stretched.max()) == (0, 255)


def test_grey_images_and_graphs_are_accepted() -> None:
    evidence = _evidence()
    attached = Evidence(evidence.logits.requires_grad_(), evidence.maps.requires_grad_())
    figure = plot(attached, _images(channels=1).double())
    assert _pixels(figure, 0).shape == (12, 15)
    assert attached.maps.requires_grad


@pytest.mark.parametrize(
    ("images", "arguments", "message"),
    [
        (torch.rand(3, 3, 8, 8), {}, r"`images` to be \(2, 1 or 3, H, W\)"),
        (torch.rand(2, 4, 8, 8), {}, r"got \(2, 4, 8, 8\)"),
        (torch.rand(2, 8, 8), {}, "`images`"),
        (torch.rand(2, 3, 8, 8), {"classes": ["one"]}, "2 names, but got 1"),
        (torch.rand(2, 3, 8, 8), {"target": 2}, r"`target` to be in \[0, 1\], but got 2"),
        (torch.rand(2, 3, 8, 8), {"against": -1}, r"`against` to be in \[0, 1\]"),
        (torch.rand(2, 3, 8, 8), {"target": 1, "against": 1}, "another class than `target`"),
        (torch.rand(2, 3, 8, 8), {"mean": [0.5] * 3}, "`mean` and `std` to be given together"),
        (torch.rand(2, 3, 8, 8), {"mean": [0.5], "std": [0.5] * 3}, "`mean` to hold 3 values"),
        (torch.rand(2, 3, 8, 8), {"mean": [0.5] * 3, "std": [0.5]}, "`std` to hold 3 values"),
        (torch.rand(2, 3, 8, 8), {"limit": -1.0}, "`limit`"),
        (torch.rand(2, 3, 8, 8), {"limit": 0.0}, "`limit`"),
    ],
)
def test_refused(images: Tensor, arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        plot(_evidence(), images, **arguments)


def test_a_signal_is_a_line_over_the_colours_of_its_cells() -> None:
    maps = torch.tensor([[[1.0, -1.0], [0.0, 0.5]]])
    evidence, signals = Evidence(maps.mean(-1), maps), torch.arange(24.0).reshape(1, 3, 8)
    figure = plot(evidence, signals, classes=["a", "b"], limit=1.0, mean=[0.0] * 3, std=[2.0] * 3)
    assert [axes.get_title().splitlines()[0] for axes in figure.axes[:3]] == ["signal", "a", "b"]
    assert not figure.axes[0].get_images()
    assert (_pixels(figure, 1)[0] == signed_colors(maps[0, :1].numpy(), 1.0)[0]).all()
    assert figure.axes[1].get_images()[0].get_extent()[:2] == [0.0, 8.0]
    for axes in figure.axes[:3]:
        assert [line.get_ydata().tolist() for line in axes.get_lines()] == (2 * signals[0]).tolist()
        assert axes.get_lines()[0].get_xdata().tolist() == [index + 0.5 for index in range(8)]
    figure.canvas.draw()


@pytest.mark.parametrize(("depth", "layer"), [(0, 0), (3, 0), (4, 1), (7, 1)])
def test_a_volume_is_drawn_by_the_slice(depth: int, layer: int) -> None:
    maps = torch.randn(1, 2, 2, 3, 3, generator=torch.Generator().manual_seed(1))
    evidence, volumes = Evidence(maps.mean((2, 3, 4)), maps), torch.rand(1, 1, 8, 12, 15)
    figure = plot(evidence, volumes, limit=1.0, depth=depth, target=1)
    assert _titles(figure)[0] == f"slice {depth} of 0-7"
    photo = (255 * volumes[0, 0, depth]).round().to(torch.uint8).numpy()
    assert (_pixels(figure, 0) == photo).all()
    assert (_pixels(figure, 1) == overlay(photo, maps[0, 1, layer].numpy(), 1.0)).all()


def test_a_volume_needs_a_slice_and_nothing_else_has_one() -> None:
    maps = torch.zeros(1, 2, 2, 3, 3)
    evidence, volumes = Evidence(maps.mean((2, 3, 4)), maps), torch.rand(1, 1, 8, 12, 15)
    for depth in (None, 8, -1):
        with pytest.raises(ValueError, match=rf"`depth` .* in \[0, 7\], but got {depth}\. The middle one is 4"):
            plot(evidence, volumes, depth=depth)
    with pytest.raises(ValueError, match="`depth` to be left out"):
        plot(_evidence(), _images(), depth=0)
    with pytest.raises(
        ValueError, match=r"`images` to be \(1, 1 or 3, D, H, W\), at least one, but got \(1, 1, 8, 12\)"
    ):
        plot(evidence, volumes[..., 0], depth=0)
    with pytest.raises(ValueError, match=r"`images` to be \(1, C, L\)"):
        plot(Evidence(torch.zeros(1, 2), torch.zeros(1, 2, 4)), volumes)


def test_an_only_class_has_its_sigmoid() -> None:
    one = _evidence(1)
    assert _titles(plot(one, _images()))[1].endswith(f"p {float(one.logits[0, 0].sigmoid()):.2f}")


def test_an_only_class_has_no_rival() -> None:
    with pytest.raises(ValueError, match="at least two classes"):
        plot(_evidence(1), _images(), against=0)


def test_names_are_text_and_no_style_is_left_behind() -> None:
    before = dict(mpl.rcParams)
    figure = plot(_evidence(), _images(), classes=["$x_{", "<b>"])
    figure.canvas.draw()
    assert dict(mpl.rcParams) == before
    assert _titles(figure)[1].startswith("$x_{\n")
