"""Benchmarks run one after the other; one that fails costs the others nothing."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

GOOD = """
import argparse, json, pathlib, time
parser = argparse.ArgumentParser()
parser.add_argument("--quick", action="store_true")
parser.add_argument("--out", type=pathlib.Path)
options = parser.parse_args()
environment = {{"machine": {{"cores": 2}}, "versions": {{"python": "3"}}, "date": str(time.time_ns())}}
environment["seeds"] = {seeds}
with open(pathlib.Path(__file__).with_suffix(".count"), "a") as stream:
    stream.write("quick " if options.quick else "whole ")
options.out.write_text(json.dumps({{"environment": environment, "quick": options.quick}}))
"""


class Benches:
    """A folder with benchmarks of a test's own."""

    def __init__(self, bench: Any, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.bench = bench
        self.folder = folder
        self.results = folder / "results"
        self.scripts: list[Any] = []
        monkeypatch.setattr(bench, "HERE", folder)
        monkeypatch.setattr(bench, "RESULTS", folder / "committed")
        monkeypatch.setattr(bench, "QUICK", folder / "quick")
        monkeypatch.setattr(bench, "LONG", ())
        self.patch = monkeypatch

    def add(self, name: str, text: str, **options: Any) -> None:
        (self.folder / f"{name}.py").write_text(text)
        self.scripts.append(self.bench.Script(name, 1, **{"quick": 1.0, **options}))
        self.patch.setattr(self.bench, "SCRIPTS", tuple(self.scripts))

    def run(self, *arguments: str) -> int:
        code: int = self.bench.main(["--out", str(self.results), *arguments])
        return code

    def runs(self, name: str) -> list[str]:
        path = self.folder / f"{name}.count"
        return path.read_text().split() if path.exists() else []


@pytest.fixture
def benches(load: Callable[[str], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Benches:
    return Benches(load("bench"), tmp_path, monkeypatch)


def test_all_are_run_and_the_round_is_closed(benches: Benches, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("one", "two"):
        benches.add(name, GOOD.format(seeds=[0]))
    assert benches.run() == 0
    assert [path.name for path in sorted(benches.results.glob("*.json"))] == ["one.json", "two.json"]
    assert not (benches.results / benches.bench.JOURNAL).exists()
    assert "about 2 minutes on two cores: one, two." in capsys.readouterr().out
    assert benches.run() == 0
    assert benches.runs("one") == ["whole", "whole"]


def test_one_that_fails_costs_the_others_nothing_and_is_run_again_alone(
    benches: Benches, capsys: pytest.CaptureFixture[str]
) -> None:
    benches.add("bad", "raise SystemExit('no such luck')")
    benches.add("good", GOOD.format(seeds=[0]))
    assert benches.run() == 1
    said = capsys.readouterr().out
    assert "failed  bad" in said
    assert "no such luck" in said
    assert "1 of 2 failed: bad." in said
    assert (benches.results / "good.json").exists()
    (benches.folder / "bad.py").write_text(GOOD.format(seeds=[0]))
    assert benches.run() == 0
    assert benches.runs("good") == ["whole"]
    assert benches.runs("bad") == ["whole"]


def test_a_new_round_can_be_asked_for(benches: Benches) -> None:
    benches.add("bad", "raise SystemExit(3)")
    benches.add("good", GOOD.format(seeds=[0]))
    assert benches.run() == 1
    assert benches.run("--again") == 1
    assert benches.runs("good") == ["whole", "whole"]


def test_a_torn_note_counts_as_not_written(benches: Benches) -> None:
    benches.add("bad", "raise SystemExit(3)")
    benches.add("good", GOOD.format(seeds=[0]))
    benches.run()
    journal = benches.results / benches.bench.JOURNAL
    journal.write_text(journal.read_text()[:-5])
    benches.run()
    assert benches.runs("good") == ["whole", "whole"]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (GOOD.format(seeds=[]), "do not say: seeds"),
        (GOOD.format(seeds=[0]).replace('"date"', '"day"'), "do not say: date"),
        (GOOD.format(seeds=[0]).replace("json.dumps(", "str("), "is no JSON"),
        ("import sys", "wrote no odd.json"),
    ],
)
def test_results_that_do_not_say_where_they_are_from_are_refused(
    benches: Benches, capsys: pytest.CaptureFixture[str], text: str, reason: str
) -> None:
    benches.add("odd", text)
    assert benches.run() == 1
    assert reason in capsys.readouterr().out


def test_results_of_an_earlier_run_do_not_count(benches: Benches, capsys: pytest.CaptureFixture[str]) -> None:
    benches.add("odd", GOOD.format(seeds=[0]))
    assert benches.run() == 0
    (benches.folder / "odd.py").write_text("import sys")
    assert benches.run() == 1
    assert "those of an earlier run" in capsys.readouterr().out


def test_what_draws_nothing_needs_no_seed(benches: Benches) -> None:
    benches.add("odd", GOOD.format(seeds=[]), draws=False)
    assert benches.run() == 0


def test_the_small_version_is_asked_for_and_goes_elsewhere(benches: Benches) -> None:
    benches.add("one", GOOD.format(seeds=[0]))
    benches.add("hours", GOOD.format(seeds=[0]), quick=None)
    assert benches.bench.main(["--quick"]) == 0
    assert json.loads((benches.folder / "quick" / "one.json").read_text())["quick"] is True
    assert not (benches.folder / "committed").exists()
    assert benches.runs("hours") == []
    with pytest.raises(SystemExit):
        benches.bench.main(["--quick", "--out", str(benches.folder / "committed")])


@pytest.mark.slow
def test_the_time_is_kept_and_no_child_survives(benches: Benches, capsys: pytest.CaptureFixture[str]) -> None:
    child = "import subprocess, sys, pathlib, time\n"
    child += "process = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
    child += "pathlib.Path(__file__).with_suffix('.pid').write_text(str(process.pid))\ntime.sleep(600)\n"
    benches.add("slow", child)
    benches.add("late", GOOD.format(seeds=[0]))
    started = time.monotonic()
    assert benches.run("--minutes", "0.05") == 1
    assert time.monotonic() - started < 30
    said = capsys.readouterr().out
    assert "was stopped, as the time was up" in said
    assert "no time was left for it" in said
    number = int((benches.folder / "slow.pid").read_text())
    for _ in range(100):
        state = Path(f"/proc/{number}/stat")
        if not state.exists() or state.read_text().rpartition(")")[2].split()[0] == "Z":
            break
        time.sleep(0.05)
    else:
        os.kill(number, 9)
        pytest.fail("the child goes on")


def test_what_is_not_installed_is_left_out_and_said(benches: Benches, capsys: pytest.CaptureFixture[str]) -> None:
    benches.add("odd", GOOD.format(seeds=[0]), needs=("no_such_module",))
    assert benches.run() == 0
    assert "left out  odd" in (said := capsys.readouterr().out)
    assert "no_such_module" in said
    assert benches.runs("odd") == []


def test_names_choose_and_wrong_ones_are_refused(benches: Benches, capsys: pytest.CaptureFixture[str]) -> None:
    benches.add("one", GOOD.format(seeds=[0]))
    benches.add("two", GOOD.format(seeds=[0]))
    assert benches.run("two") == 0
    assert benches.runs("one") == []
    with pytest.raises(SystemExit):
        benches.run("three")
    assert "Expected names among one, two; got three." in capsys.readouterr().err


def test_every_declared_benchmark_has_both_flags(load: Callable[[str], Any]) -> None:
    bench = load("bench")
    assert len({script.name for script in (*bench.SCRIPTS, *bench.LONG)}) == len(bench.SCRIPTS) + len(bench.LONG)
    for script in bench.SCRIPTS:
        text = script.path.read_text(encoding="utf-8")
        own = '"--quick"' in text and '"--out"' in text
        assert script.command or own or "create_parser(" in text, script.name
    anywhere = [script for script in bench.SCRIPTS if not script.gpu]
    assert sum(script.quick or 0 for script in anywhere) <= 60 * bench.QUICK_MINUTES


def test_what_needs_a_gpu_is_left_out_where_there_is_none(
    benches: Benches, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(benches.bench.torch.cuda, "is_available", lambda: False)
    benches.add("fast", "raise SystemExit(1)", gpu=True)
    assert benches.run() == 0
    assert "needs a GPU that torch can use" in capsys.readouterr().out


def test_every_benchmark_is_declared(load: Callable[[str], Any]) -> None:
    bench = load("bench")
    declared = {script.path.resolve() for script in (*bench.SCRIPTS, *bench.LONG)}
    texts = {path: path.read_text(encoding="utf-8") for path in bench.RESULTS.parent.glob("*.py")}
    measuring = {path.resolve() for path, text in texts.items() if "\nRESULT = " in text}
    assert measuring <= declared


def test_small_results_never_take_the_place_of_the_committed_ones(load: Callable[[str], Any]) -> None:
    options = load("options")
    parser = options.create_parser("a benchmark")
    result = options.RESULTS / "one.json"
    assert options.choose_out(parser.parse_args([]), result) == result
    assert options.choose_out(parser.parse_args(["--quick"]), result) == options.QUICK / "one.json"
    assert options.choose_out(parser.parse_args(["--quick", "--out", "a.json"]), result) == Path("a.json")
