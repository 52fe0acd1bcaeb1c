from __future__ import annotations

import io
import re
import xml.etree.ElementTree as ET

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from softcam.evaluation import EvaluationResult
from softcam.reporting.figures import (
    PALETTE,
    calibration_figure,
    chart_style,
    noninferiority_figure,
    precision_recall_figure,
    roc_figure,
    to_png,
    to_svg,
    wilson_interval,
)
from softcam.reporting.perturbation import method_styles, perturbation_figure


def _legend(figure: Figure) -> list[str]:
    legends = [axes.get_legend() for axes in figure.axes if axes.get_legend()] + figure.legends
    return [text.get_text() for legend in legends if legend for text in legend.get_texts()]


def _known(result: EvaluationResult) -> dict[str, object]:
    return {"softcam": result.metrics["classification"], "black_box": result.metrics["black_box"]}


def test_roc_names_areas_and_marks_the_points_of_use(result: EvaluationResult) -> None:
    figure = roc_figure(result.metrics["roc"], _known(result))
    assert [text.split(" ")[0] for text in _legend(figure)] == ["chance", "SoftCAM", "black"]
    assert "0.850" in _legend(figure)[1]
    assert "0.860" in _legend(figure)[2]
    marks = [line for line in figure.axes[0].lines if line.get_marker() == "o"]
    assert [(line.get_xdata()[0], line.get_ydata()[0]) for line in marks] == [pytest.approx((0.15, 0.85))] * 2
    many = roc_figure(result.metrics["roc"], _known(result), binary=False)
    assert not [line for line in many.axes[0].lines if line.get_marker() == "o"]


def test_one_model_alone_is_drawn_alone(bare_result: EvaluationResult) -> None:
    figure = roc_figure(bare_result.metrics["roc"], {"softcam": {}, "black_box": {}})
    assert _legend(figure)[1:] == ["SoftCAM"]


def test_precision_recall_draws_steps_by_recall_and_chance(result: EvaluationResult) -> None:
    curves = {"softcam": {"recall": [1, 0.2, 0.8], "precision": [0.5, 1, 0.9]}}
    figure = precision_recall_figure(curves, _known(result), prevalence=0.25)
    chance, line = figure.axes[0].lines[:2]
    assert chance.get_ydata()[0] == 0.25
    assert list(line.get_xdata()) == [0.2, 0.8, 1]
    assert line.get_drawstyle() == "steps-pre"
    assert "chance" not in " ".join(_legend(precision_recall_figure(curves, _known(result))))


def test_calibration_leaves_empty_bins_out() -> None:
    bins = [{"confidence": 0.1, "accuracy": 0.2, "count": 5}, {"confidence": 0.9, "accuracy": 0.0, "count": 0}]
    figure = calibration_figure({"softcam": bins})
    assert [list(line.get_xdata()) for line in figure.axes[0].lines if line.get_marker() == "o"] == [[0.1]]
    assert [patch.get_height() for patch in figure.axes[1].patches] == [5]


@pytest.mark.parametrize(("low", "difference"), [(-0.015, -0.01), (-0.09, -0.05), (0.01, 0.02)])
def test_noninferiority_keeps_bound_margin_and_zero_in_view(low: float, difference: float) -> None:
    test = {"metric": "auroc", "difference": difference, "low": low, "margin": 0.02, "passed": low > -0.02}
    figure = noninferiority_figure(test)
    start, end = figure.axes[0].get_xlim()
    assert start < min(low, -0.02)
    assert end > max(difference, 0)
    shown = " ".join(text.get_text() for text in figure.axes[0].texts)
    assert f"{abs(low):.3f}" in shown
    assert f"{abs(difference):.3f}" in shown


def test_perturbation_has_a_panel_per_fill_and_a_line_per_method(result: EvaluationResult) -> None:
    deletion = perturbation_figure(result.curves, "deletion")
    assert [axes.get_title(loc="left") for axes in deletion.axes] == ["fill: mean", "fill: blur"]
    assert [len(axes.lines) for axes in deletion.axes] == [3, 3]
    assert [len(axes.collections) for axes in deletion.axes] == [3, 3]
    assert deletion.axes[0].get_xlabel() == "share of the image replaced"
    assert perturbation_figure(result.curves, "insertion").axes[0].get_xlabel() == "share of the image shown"
    assert list(deletion.axes[0].lines[0].get_xdata()) == [0, 0.25, 0.5]


def test_methods_differ_in_colour_or_line() -> None:
    names = [
        "evidence",
        "evidence_margin",
        "random",
        "grad_cam",
        "layer_cam",
        "integrated_gradients",
        "guided_backprop",
    ]
    styles = method_styles(names)
    assert len({styles[name] for name in names}) == len(names)
    assert {ink for ink, _ in styles.values()} <= set(PALETTE)


def test_wilson_interval_by_hand() -> None:
    low, high = wilson_interval(np.array([0.0, 0.5, 1.0]), np.array([10, 10, 10]))
    # For 0 of n the upper end is z^2 / (n + z^2).
    assert high[0] == pytest.approx(3.841459 / 13.841459)
    assert low[0] == 0
    assert low[2] == pytest.approx(1 - high[0])
    assert low[1] == pytest.approx(0.5 - 1.959964 / (1 + 3.841459 / 10) * np.sqrt(0.025 + 3.841459 / 400))
    assert (wilson_interval(np.array([0.5]), np.array([100]))[0] > low[1]).all()


def test_no_colour_of_the_palette_is_another_in_light() -> None:
    lights = [ink.light for ink in PALETTE.values()]
    assert len(set(lights)) == len(lights)


def test_lines_stand_out_from_the_paper() -> None:
    def luminance(color: str) -> float:
        parts = [int(color[index : index + 2], 16) / 255 for index in (1, 3, 5)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    for name, ink in PALETTE.items():
        if name not in {"rule", "paper"}:
            assert 1.05 / (luminance(ink.light) + 0.05) >= 3, name
            assert (luminance(ink.dark) + 0.05) / (luminance(PALETTE["paper"].dark) + 0.05) >= 3, name


@pytest.fixture
def svg(result: EvaluationResult) -> str:
    return str(to_svg(roc_figure(result.metrics["roc"], _known(result)), "roc", alt='areas < 1 & "more"'))


def test_svg_is_the_same_every_time_and_well_formed(result: EvaluationResult, svg: str) -> None:
    again = to_svg(roc_figure(result.metrics["roc"], _known(result)), "roc", alt='areas < 1 & "more"')
    assert svg == again
    root = ET.fromstring(svg)  # noqa: S314 - our own output
    assert root.attrib["role"] == "img"
    title = root.find("{http://www.w3.org/2000/svg}title")
    assert title is not None
    assert title.text == 'areas < 1 & "more"'
    assert root.attrib["aria-labelledby"] == title.attrib["id"] == "roc-alt"


def test_svg_holds_no_date_no_program_and_no_colour_of_its_own(svg: str) -> None:
    assert "metadata" not in svg
    assert "matplotlib" not in svg.lower()
    assert not re.search(r"\b20\d\d-\d\d-\d\d", svg)
    assert "<style" not in svg
    assert not {ink.light for ink in PALETTE.values()} & set(re.findall(r"#[0-9a-f]{6}", svg))
    assert "var(--softcam)" in svg
    assert "DejaVu" not in svg


def test_svg_ids_carry_the_name_and_point_somewhere(svg: str) -> None:
    ids = re.findall(r' id="([^"]*)"', svg)
    assert ids
    assert all(name.startswith("roc-") for name in ids)
    assert len(set(ids)) == len(ids)
    assert set(re.findall(r'(?:url\(|href=")#([^)"]+)', svg)) <= set(ids)


def test_png_is_the_same_every_time_without_metadata(result: EvaluationResult) -> None:
    first, second = (to_png(noninferiority_figure(result.metrics["noninferiority"])) for _ in range(2))
    assert first == second
    with Image.open(io.BytesIO(first)) as image:
        assert "Software" not in image.info
        assert image.width > 1000


def test_png_before_svg_changes_nothing(result: EvaluationResult, svg: str) -> None:
    figure = roc_figure(result.metrics["roc"], _known(result))
    to_png(figure)
    assert to_svg(figure, "roc", alt='areas < 1 & "more"') == svg


def test_style_is_given_back_even_after_an_error() -> None:
    before = dict(mpl.rcParams)

    def fail() -> None:
        with chart_style():
            assert mpl.rcParams["text.parse_math"] is False
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        fail()
    assert dict(mpl.rcParams) == before


def test_dollar_signs_are_text(result: EvaluationResult) -> None:
    curves = result.curves.assign(fill="a$b$\\frac{")
    assert "a$b$\\frac{" in to_svg(perturbation_figure(curves, "deletion"), "x", alt="x")
