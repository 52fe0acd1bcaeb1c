"""Two results are compared figure by figure, and only what is beyond noise is called a difference."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

MACHINE = {"processor": "one", "cores": 2}


def result(**row: Any) -> dict[str, Any]:
    environment = {"machine": dict(MACHINE), "versions": {"torch": "2"}, "date": "2026-01-02T03:04:05+00:00"}
    return {"environment": environment, "setting": {"repeats": 3}, "rows": [{"model": "net", "batch": 8, **row}]}


@pytest.fixture
def measured(load: Callable[[str], Any]) -> Any:
    return load("measured")


def verdicts(measured: Any, old: dict[str, Any], new: dict[str, Any]) -> dict[str, str]:
    return {change.new.name[-1]: change.verdict for change in measured.compare_figures(old, new)}


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("evidence_ms", "time"),
        ("seconds", "time"),
        ("start_up_seconds", "time"),
        ("per_second_and_core", "rate"),
        ("peak_mib", "memory"),
        ("kib_per_image", "memory"),
        ("written_bytes", "memory"),
        ("evidence_ratio", "cost ratio"),
        ("memory_growth", "cost ratio"),
        ("share_with_start_up", "gain ratio"),
        ("speedup", "gain ratio"),
        ("forward_ms", "reference"),
        ("grad_cam_ratio", "reference"),
        ("bare_per_second", "reference"),
        ("classes", None),
        ("passed", None),
        ("done", None),
    ],
)
def test_a_name_says_what_a_number_is(measured: Any, name: str, kind: str | None) -> None:
    assert measured.classify(name) == kind


def test_figures_are_named_by_what_tells_rows_apart(measured: Any) -> None:
    found = result(evidence_ratio=1.5, evidence_ratio_quartiles=[1.4, 1.6])
    found["rows"].append({"model": "net", "batch": 1, "evidence_ratio": 2.0, "evidence_ratio_range": [1.0, 3.0]})
    found["rows"].append({"model": "net", "batch": 1, "evidence_ratio": 3.0})
    found |= {"stages_ms": {"decode": 4.0}, "start_up_seconds": [1.0, 2.0, 9.0], "passed": True, "limit": 1.2}
    figures = {name: (figure.value, figure.spread) for name, figure in measured.list_figures(found).items()}
    assert figures == {
        ("rows", "net, batch 8", "evidence_ratio"): (1.5, (1.4, 1.6)),
        ("rows", "net, batch 1", "evidence_ratio"): (2.0, (1.0, 3.0)),
        ("rows", "net, batch 1 2", "evidence_ratio"): (3.0, None),
        ("stages_ms", "decode"): (4.0, None),
        ("start_up_seconds",): (2.0, (1.5, 5.5)),
    }


def test_the_gain_is_old_over_new_for_costs_and_new_over_old_for_rates(measured: Any) -> None:
    old = result(evidence_ms=10.0, evidence_ms_quartiles=[9.0, 11.0], per_second=10.0, per_second_quartiles=[9, 11])
    new = result(evidence_ms=5.0, evidence_ms_quartiles=[4.0, 6.0], per_second=5.0, per_second_quartiles=[4, 6])
    time, rate = measured.compare_figures(old, new)
    assert (time.gain, time.low, time.high, time.verdict) == (2.0, 9 / 6, 11 / 4, "better")
    assert (rate.gain, rate.low, rate.high, rate.verdict) == (0.5, 4 / 11, 6 / 9, "worse")


@pytest.mark.parametrize(
    ("before", "after", "verdict"),
    [
        ([9.0, 11.0], [11.5, 13.0], "worse"),
        ([9.0, 11.5], [11.0, 13.0], "within noise"),
        ([9.0, 11.0], [11.0, 13.0], "within noise"),
    ],
)
def test_quartiles_that_meet_are_noise(measured: Any, before: list[float], after: list[float], verdict: str) -> None:
    old = result(evidence_ms=10.0, evidence_ms_quartiles=before)
    new = result(evidence_ms=12.0, evidence_ms_quartiles=after)
    assert verdicts(measured, old, new) == {"evidence_ms": verdict}


@pytest.mark.parametrize(("after", "verdict"), [(1.09, "within noise"), (1.12, "worse"), (0.88, "better")])
def test_without_spread_a_tenth_is_noise(measured: Any, after: float, verdict: str) -> None:
    assert verdicts(measured, result(seconds=1.0), result(seconds=after)) == {"seconds": verdict}


def test_a_difference_of_a_hundredth_is_none_however_narrow_the_spread(measured: Any) -> None:
    old = result(seconds=1.0, seconds_quartiles=[1.0, 1.0])
    for after, verdict in ((1.01, "within noise"), (1.03, "worse")):
        assert verdicts(measured, old, result(seconds=after, seconds_quartiles=[after, after])) == {"seconds": verdict}


def test_only_ratios_of_different_machines_are_judged(measured: Any) -> None:
    old, new = result(seconds=1.0, evidence_ratio=1.0), result(seconds=9.0, evidence_ratio=9.0)
    new["environment"]["machine"]["cores"] = 8
    assert verdicts(measured, old, new) == {"seconds": "not judged", "evidence_ratio": "worse"}


def test_what_is_compared_with_is_not_judged(measured: Any) -> None:
    assert verdicts(measured, result(grad_cam_ratio=3.0), result(grad_cam_ratio=9.0)) == {
        "grad_cam_ratio": "not judged"
    }


def test_nothing_before_is_no_gain_that_can_be_judged(measured: Any) -> None:
    assert verdicts(measured, result(seconds=1.0), result(seconds=0.0)) == {"seconds": "not judged"}


class Links(HTMLParser):
    """What a page refers to, and its text."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[str] = []
        self.tags: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.asked += [value or "" for name, value in attributes if name in ("src", "href")]

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    old, new = result(seconds=1.0, evidence_ratio=1.0), result(seconds=1.5, evidence_ratio=0.5)
    new["environment"]["versions"]["torch"] = "<3>"
    for name, content in (("old", old), ("new", new)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "cost.json").write_text(json.dumps(content))
    (tmp_path / "old" / "gone.json").write_text(json.dumps(old))
    (tmp_path / "new" / "fresh.json").write_text(json.dumps(new))
    return tmp_path / "old", tmp_path / "new"


def test_the_summary_says_what_changed(
    load: Callable[[str], Any], folders: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert load("compare").main([str(folder) for folder in folders]) == 0
    said = capsys.readouterr().out
    assert said.splitlines() == [
        "only before: gone",
        "only after: fresh",
        "differs: torch 2 → <3>",
        "cost: 1 worse, 1 better, 0 within noise, 0 not judged",
        "  worse: rows / net, batch 8 / seconds: 1 → 1.5, gain 0.667 (0.606 to 0.733)",
        "  better: rows / net, batch 8 / evidence_ratio: 1 → 0.5, gain 2 (1.82 to 2.2)",
    ]


def test_the_page_holds_all_it_shows(load: Callable[[str], Any], folders: tuple[Path, Path], tmp_path: Path) -> None:
    page = tmp_path / "out" / "page.html"
    load("compare").main([*map(str, folders), "--out", str(page)])
    text = page.read_text(encoding="utf-8")
    found = Links()
    found.feed(text)
    assert all(link.startswith("#") for link in found.asked)
    assert not {"script", "img", "link", "iframe"} & set(found.tags)
    assert "default-src 'none'" in text
    assert "prefers-color-scheme: dark" in text
    assert "url(" not in text
    assert "torch 2 → <3>" in found.text
    assert "<3>" not in text
    assert "gone" in found.text
    assert "0.667" in found.text


@pytest.mark.parametrize(("limit", "code"), [("1.4", 1), ("1.6", 0)])
def test_a_limit_makes_it_fail(load: Callable[[str], Any], folders: tuple[Path, Path], limit: str, code: int) -> None:
    assert load("compare").main([*map(str, folders), "--fail-over", limit]) == code


def test_two_files_are_compared_whatever_their_names(
    load: Callable[[str], Any], folders: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert load("compare").main([str(folders[0] / "gone.json"), str(folders[1] / "cost.json")]) == 0
    assert "1 worse, 1 better" in capsys.readouterr().out


def test_what_cannot_be_compared_is_said(
    load: Callable[[str], Any], folders: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    compare = load("compare")
    with pytest.raises(SystemExit, match="has none"):
        compare.main([str(folders[0]), str(tmp_path / "nowhere")])
    (tmp_path / "odd.json").write_text("[1]")
    with pytest.raises(SystemExit, match="holds list"):
        compare.main([str(folders[0]), str(tmp_path / "odd.json")])
    (tmp_path / "odd.json").write_text("{")
    with pytest.raises(SystemExit, match="to be JSON"):
        compare.main([str(folders[0]), str(tmp_path / "odd.json")])
    with pytest.raises(SystemExit):
        compare.main([*map(str, folders), "--fail-over", "0.9"])
    assert "at least 1" in capsys.readouterr().err


def test_the_committed_results_equal_themselves(load: Callable[[str], Any]) -> None:
    compare = load("compare")
    results = load("options").RESULTS
    same = compare.read_results(results)
    found = [compare.compare(name, one, copy.deepcopy(one)) for name, one in same.items()]
    counts = [change.verdict for one in found for change in one.changes]
    assert len(counts) > 100
    assert not {"worse", "better"} & set(counts)
    assert compare.join_differences(found) == []


def test_gains_lie_on_the_axis(load: Callable[[str], Any]) -> None:
    place = load("compare").place
    assert [place(gain) for gain in (0.0, 0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 100.0)] == [0, 0, 0, 25, 50, 75, 100, 100]
