from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import pandas as pd
import pytest

from softcam.evaluation import EvaluationResult
from softcam.reporting.charts import Chart, class_names, draw_charts, positive_share
from softcam.reporting.report import consistency_rows, curve_ends, locality_view, render_report, write_report
from softcam.reporting.wording import estimate

_VOID = {"meta", "br", "input", "hr", "link", "img"}


class _Page(HTMLParser):
    """Collects elements and attributes, and checks that every element is closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.words: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in _VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] != "style":
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def _render(result: EvaluationResult, title: str = "A report") -> str:
    """Return the page without charts, which take most of the time."""
    return render_report(result, {}, title=title)


@pytest.fixture(scope="module")
def charts(result: EvaluationResult) -> dict[str, Chart]:
    return draw_charts(result)


@pytest.fixture(scope="module")
def text(result: EvaluationResult, charts: dict[str, Chart]) -> str:
    return render_report(result, charts, title="A report")


@pytest.fixture(scope="module")
def page(text: str) -> _Page:
    return _Page(text)


@pytest.mark.slow
def test_write_report_writes_page_and_figures(
    result: EvaluationResult, tmp_path: Path, text: str, charts: dict[str, Chart]
) -> None:
    path = write_report(result, tmp_path / "new" / "out", title="A report")
    assert path == tmp_path / "new" / "out" / "report.html"
    assert path.read_text(encoding="utf-8") == text
    names = sorted(entry.name for entry in (path.parent / "figures").iterdir())
    assert names == [f"{name}.png" for name in sorted(charts)]
    assert set(draw_charts(result)) == {
        "noninferiority",
        "roc",
        "precision-recall",
        "calibration",
        "locality",
        "deletion",
        "insertion",
        "ranking-deletion-area-mean",
        "ranking-gini",
    }
    assert all(entry.read_bytes().startswith(b"\x89PNG") for entry in (path.parent / "figures").iterdir())
    assert not [entry for entry in path.parent.rglob("*") if "partial" in entry.name]


def test_title_is_used_and_escaped(result: EvaluationResult) -> None:
    text = _render(result, title="<i>T</i>")
    assert "<title>&lt;i&gt;T&lt;/i&gt;</title>" in text


def test_page_asks_for_nothing(text: str, page: _Page) -> None:
    (policy,) = [entry["content"] for entry in page.of("meta") if entry.get("http-equiv") == "Content-Security-Policy"]
    assert policy is not None
    assert policy.startswith("default-src 'none'; style-src 'unsafe-inline'; img-src data:")
    assert not [
        tag for tag, _ in page.elements if tag in {"script", "link", "iframe", "object", "embed", "form", "base"}
    ]
    for _, attributes in page.elements:
        assert not [name for name in attributes if name.startswith("on")]
        for name in ("src", "href", "xlink:href", "action", "poster"):
            value = attributes.get(name)
            assert value is None or value.startswith(("#", "data:image/png;base64,")), value
    assert "@import" not in text
    assert not re.search(r"url\((?!#)", text)
    outside = set(re.findall(r"https?://[^\s\"'<>)]+", text))
    assert outside <= {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}


def test_ids_are_unique_and_links_lead_somewhere(page: _Page) -> None:
    ids = Counter(attributes["id"] for _, attributes in page.elements if "id" in attributes)
    assert [name for name, count in ids.items() if count > 1] == []
    for _, attributes in page.elements:
        for name in ("href", "xlink:href"):
            value = attributes.get(name) or ""
            assert not value.startswith("#") or value[1:] in ids
        for name in ("aria-labelledby", "for"):
            assert attributes.get(name) is None or attributes[name] in ids


def test_headings_descend_one_level_at_a_time(page: _Page) -> None:
    levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch(r"h[1-6]", tag)]
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))


def test_everything_drawn_has_words(page: _Page) -> None:
    for attributes in page.of("svg"):
        described = attributes.get("aria-label") or attributes.get("aria-labelledby")
        assert described or attributes.get("aria-hidden") == "true"
    assert len(page.of("caption")) == len(page.of("table"))
    assert all(attributes.get("scope") in {"col", "row", "rowgroup"} for attributes in page.of("th"))


def test_page_says_what_was_decided(page: _Page) -> None:
    assert "34 of 40 test images were classified correctly" in page.text
    assert "at most 0.015 below that of the black box" in page.text
    assert "average to the logits" in page.text
    assert "What a map does and does not show" in page.text
    assert "exact at the 3 × 3 cells" in page.text  # noqa: RUF001 - the page writes a true multiplication sign
    assert "SoftCAM 0.400" in page.text
    assert "black box 0." not in page.text.split("Threshold")[1].split("chosen")[0]


def test_every_case_has_its_account(result: EvaluationResult, page: _Page) -> None:
    assert page.text.count("Evidence for defect against intact : mean over cells =") == 1
    assert page.text.count("Evidence for intact against defect : mean over cells =") == 2
    for case in result.gallery:
        assert case.image_id in page.text
    assert len([entry for entry in page.of("svg") if (entry.get("aria-label") or "").startswith("Evidence for")]) == 3
    assert len([entry for entry in page.of("rect") if entry.get("class") == "cell"]) == 27
    assert "of the black box: own scales" in page.text


def test_provenance_is_complete_and_long_lists_are_folded(page: _Page) -> None:
    for expected in (
        "softcam evaluate model",
        "d1" * 32,
        "f1" * 32,
        "takes long",
        "resamples",
        "mean, blur",
        "truncated",
    ):
        assert expected in page.text
    assert "20 entries" in page.text
    assert "6 entries" in page.text
    assert "undefined none" in page.text


def test_failed_images_are_told(make_result: Callable[..., EvaluationResult]) -> None:
    counts = {"test": 40, "failed": 3, "faithfulness": 20}
    assert "3 of 43 test images could not be used" in _Page(_render(make_result(counts=counts))).text


def test_best_is_marked_only_when_shown(make_result: Callable[..., EvaluationResult], page: _Page) -> None:
    assert "No method is marked best" in page.text
    assert "● best" not in page.text
    rows = [
        {"metric": "gini", "method": name, "against": "evidence", "low": -0.2, "high": -0.1, "p_holm": 0.001}
        for name in ("grad_cam", "random")
    ]
    found = _Page(_render(make_result(comparisons=rows)))
    assert found.text.count("● best") == 3  # the legend, the summary and the table of the family
    assert found.text.count(" worse than SoftCAM evidence") == 5  # the legend, and both methods in both tables


def test_names_from_data_are_escaped(make_result: Callable[..., EvaluationResult]) -> None:
    evil = ("<script>alert(1)</script>", '"><img src=x onerror=alert(1)>')
    base = make_result(evil)
    gallery = tuple(replace(case, image_id="<script>alert(2)</script>.png") for case in base.gallery)
    provenance = base.provenance | {
        "command": "<script>alert(3)</script>",
        "note": {"<b>": ["<script>alert(4)</script>"]},
    }
    curves = base.curves.assign(fill="<script>alert(5)</script>", method="<script>alert(6)</script>")
    benchmark = base.benchmark.assign(method="<script>alert(7)</script>", metric="<script>alert(8)</script>")[:1]
    result = replace(base, gallery=gallery, provenance=provenance, curves=curves, benchmark=benchmark)
    text = render_report(result, {"deletion": draw_charts(result)["deletion"]}, title="A report")
    page = _Page(text)
    assert "<script" not in text
    assert page.of("img") == []
    assert page.of("b") != []
    for index in range(1, 9):
        assert f"<script>alert({index})</script>" in page.text


def test_page_without_twin_methods_and_gallery(bare_result: EvaluationResult) -> None:
    page = _Page(_render(bare_result))
    assert "Black box" not in page.text
    assert "there was no black box to compare with" in page.text
    assert "Per method" not in page.text
    ids = [attributes.get("id") for attributes in page.of("section")]
    assert ids == ["summary", "performance", "meaning", "maps", "provenance"]
    assert set(draw_charts(bare_result)) == {"roc", "precision-recall", "calibration"}


def test_a_sum_below_zero_is_explained(result: EvaluationResult, page: _Page) -> None:
    case = result.gallery[0]
    turned = replace(case, margin=-case.margin, logits=case.logits[::-1].copy(), maps=case.maps[::-1].copy())
    assert "Where a mean is negative" in _Page(_render(replace(result, gallery=(turned,)))).text
    assert "Where a mean is negative" not in page.text


def test_alt_texts_carry_the_numbers(charts: dict[str, Chart]) -> None:
    assert "SoftCAM 0.850" in charts["roc"].alt
    assert "black box 0.860" in charts["roc"].alt
    assert "Grad-CAM 0.700" in charts["deletion"].alt
    assert "0.015" in charts["noninferiority"].alt


def test_curve_ends_are_a_table_of_the_figure(result: EvaluationResult) -> None:
    rows = curve_ends(result.curves.sample(frac=1, random_state=0))
    assert len(rows) == 12
    row = next(row for row in rows if (row["curve"], row["fill"], row["method"]) == ("deletion", "mean", "Grad-CAM"))
    assert (row["first"], row["mean"], row["n"]) == ("0.900", "0.700", "20")
    assert row["last"].startswith("0.500 (0.400")
    assert row["fraction"].startswith("50")
    assert curve_ends(pd.DataFrame(columns=list(result.curves.columns))) == ()


def test_a_big_result_is_summed_up_first(big_result: EvaluationResult) -> None:
    text = _render(big_result)
    page = _Page(text)
    assert "<i>" not in text
    assert "SoftCAM evidence (<i>stride</i> 8)" in page.text
    assert len([entry for entry in page.of("table") if (entry.get("class") or "").startswith("methods")]) == 7
    assert [entry.get("class") for entry in page.of("details")].count("family") == 6
    assert page.text.index("against the other methods") < page.text.index("Per method")
    assert page.text.count("Better than 29 of 29 other methods, worse than none.") == 5
    assert "Better than none of 29 other methods, worse than 29 (SoftCAM margin," in page.text
    assert "Post-hoc methods, of the black box, at blocks.2" in page.text
    assert "No method has a value of: Confidence increase." in page.text
    assert len(page.of("caption")) == len(page.of("table"))
    assert _render(big_result) == text


@pytest.mark.slow
def test_charts_of_a_big_result_say_what_is_grey(big_result: EvaluationResult) -> None:
    only = replace(big_result, metrics=big_result.metrics | dict.fromkeys(("roc", "pr", "calibration", "locality")))
    charts = draw_charts(only)
    assert [name for name in charts if name.startswith("ranking")] == [
        *("ranking-pointing-game", "ranking-activation-precision", "ranking-topk-precision"),
        *("ranking-deletion-area-mean", "ranking-insertion-area-mean", "ranking-gini"),
    ]
    text = render_report(only, charts, title="A report")
    page = _Page(text)
    assert "thin grey: all others" in page.text
    assert "of the evidence alone" in page.text
    assert charts["deletion"].alt.endswith("; and 22 other methods.")
    assert render_report(only, draw_charts(only), title="A report") == text
    assert "<i>" not in text


def test_other_models_have_a_table_only_if_there_are_any(big_result: EvaluationResult, page: _Page) -> None:
    found = _Page(_render(big_result)).text
    assert "Other models" in found
    assert "? not shown" in found
    assert "✓ not inferior" in found.split("Other models")[1]
    assert "Other models" not in page.text


def test_few_methods_have_no_grey_lines(page: _Page) -> None:
    assert "thin grey" not in page.text
    assert "Bands: 95 % intervals over images." in page.text
    assert "against the other methods" not in page.text


def test_one_method_without_comparisons_columns_or_values(result: EvaluationResult) -> None:
    alone = result.benchmark[result.benchmark["method"] == "evidence"]
    assert "Per method" in _Page(_render(replace(result, benchmark=alone, curves=result.curves[:0]))).text
    nothing = alone.assign(value=float("nan"), low=float("nan"), high=float("nan"))
    found = replace(result, benchmark=nothing, curves=result.curves[:0])
    assert not [name for name in draw_charts(found) if name.startswith("ranking")]
    assert "No method has a value of: Deletion, mean; Sparseness." in _Page(_render(found)).text
    assert "Per method" not in _Page(_render(replace(found, benchmark=pd.DataFrame()))).text


def test_small_parts(result: EvaluationResult) -> None:
    assert positive_share([[6, 0], [1, 1]]) == 0.25
    assert positive_share([[0, 0], [0, 0]]) is None
    assert positive_share([[1, 0, 0]] * 3) is None
    assert positive_share(None) is None
    assert class_names(result) == ("intact", "defect")
    assert [row["title"] for row in consistency_rows({"gini": {"value": 1, "low": 0, "high": 2, "n": 3}, "x": 1})] == [
        "Sparseness"
    ]


def test_locality_is_told_in_numbers(page: _Page, result: EvaluationResult) -> None:
    radius = estimate({"value": 11.0, "low": 10.95, "high": 11.05}, 1)
    assert f"half of what the busiest cell depends on lies within {radius} px of its centre" in page.text
    assert "cells are 16 px apart" in page.text
    assert "sits after fine, coarse" in page.text
    view = locality_view(result.metrics["locality"], result.metrics["conversion"])
    assert view is not None
    expected = [estimate({"value": at, "low": at - 0.05, "high": at + 0.05}) for at in (0.4, 0.2, 0.7, 0.3)]
    assert view.rows == (("32", expected[0]), ("64", expected[1]))
    assert view.scales == tuple(expected[2:])
    assert f"fine {expected[2]}" in page.text


def test_locality_that_was_not_measured_is_left_out(bare_result: EvaluationResult) -> None:
    assert locality_view({}, {}) is None
    assert "Is a cell about its pixels?" not in _Page(_render(bare_result)).text


def test_locality_of_a_model_whose_conversion_is_not_known(make_result: Callable[..., EvaluationResult]) -> None:
    changed = make_result(conversion=None)
    locality = changed.metrics["locality"] | {"scales": []}
    changed = make_result(conversion=None, locality=locality)
    assert "locality" in draw_charts(changed)
    view = locality_view(locality, {})
    assert view is not None
    assert (view.stride, view.places, view.scales) == ("", (), ())


def test_the_rule_of_the_thresholds_is_told(make_result: Callable[..., EvaluationResult], tmp_path: Path) -> None:
    rule = {"rule": "sensitivity=0.9", "split": "val", "n": 20}
    page = write_report(make_result(threshold_rule=rule), tmp_path / "a").read_text(encoding="utf-8")
    assert "chosen on validation data by the rule sensitivity=0.9." in page
    plain = write_report(make_result(), tmp_path / "b").read_text(encoding="utf-8")
    assert "chosen on validation data." in plain
