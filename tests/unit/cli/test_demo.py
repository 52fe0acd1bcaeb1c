from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import softcam.demo
from softcam.cli import demo, main

METRICS = {"classification": {"auroc": {"value": 0.9, "low": 0.8, "high": 1.0, "n": 10}}}


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, Any]:
    """What the command asks the library for; nothing is trained."""
    found: dict[str, Any] = {}

    def run_demo(out: Path, *, full: bool, say: Any, progress: Any) -> Any:
        found.update(out=out, full=full)
        say("training")
        progress("train", 1, 2)
        result = SimpleNamespace(metrics=METRICS)
        return SimpleNamespace(evaluation=result, seconds={"train": 61.4, "report": 2.0}, report=tmp_path / "r.html")

    monkeypatch.setattr(softcam.demo, "run_demo", run_demo)
    return found


def test_says_how_long_it_took_and_where_the_report_is(
    asked: dict[str, Any], tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[Any] = []
    monkeypatch.setattr(demo, "show_headline", shown.append)
    assert main(["demo", "--out", str(tmp_path / "demo")]) == 0
    assert asked == {"out": tmp_path / "demo", "full": False}
    assert shown == [METRICS]
    said = " ".join(capfd.readouterr().err.split())
    assert "training" in said
    assert "train 61 s; report 2 s" in said
    assert "report:" in said


def test_gives_the_metrics_as_json(asked: dict[str, Any], capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "--full", "--json"]) == 0
    assert asked == {"out": Path("demo"), "full": True}
    assert json.loads(capfd.readouterr().out) == METRICS
