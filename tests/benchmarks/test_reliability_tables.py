"""The page's tables say what the results say, and name a command for each figure."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def tables(load: Callable[[str], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The module, with a folder of results that is empty."""
    module = load("reliability_tables")
    monkeypatch.setattr(module, "RESULTS", tmp_path)
    return module


def put(folder: Path, name: str, result: dict[str, Any]) -> None:
    (folder / f"{name}.json").write_text(json.dumps(result))


def test_nothing_is_claimed_without_results(tables: Any) -> None:
    assert tables.render_figures().splitlines() == ["| what | figure | measured by |", "|---|---|---|"]
    for render in (tables.render_full_disk, tables.render_mutation, tables.render_rooms):
        assert render().endswith("measures it.\n")


def test_kills_and_full_disks_are_added_up(tables: Any, tmp_path: Path) -> None:
    rows = [
        {"command": "explain", "kills": 25, "torn": [], "different": []},
        {"command": "train", "kills": 30, "torn": ["a: EOFError"], "different": ["b", "c"]},
    ]
    put(tmp_path, "crash_safety", {"rows": rows})
    disks = [{"command": "export", "kib": 9, "sizes": 8, "unclear": ["x"], "torn": [], "different": []}]
    put(tmp_path, "full_disk", {"rows": disks})
    killed, filled = (row.split(" | ")[1] for row in tables.render_figures().splitlines()[2:])
    assert killed == "55 kills: 1 torn files, 2 different results"
    assert filled == "8 disks: 1 unclear messages, 0 torn files, 0 different results with room"
    assert tables.render_full_disk().splitlines()[2] == "| export | 9 KiB | 8 | 1 | 0 | 0 |"


def test_safeguards_have_a_row_for_each_part_that_was_measured(tables: Any, tmp_path: Path) -> None:
    result = {
        "corpus": {"files": 400, "refused": 399, "longest_seconds": 0.5},
        "fuzz": {"seconds": 60, "runs": {"image": 1000, "boxes": 500}, "failed": []},
        "malicious": {"inputs": 20, "held": 19},
        "records": {"one bit": {"changes": 10, "found": 9}, "end cut off": {"changes": 2, "found": 2}},
    }
    put(tmp_path, "safeguards", result)
    rows = [row.split(" | ")[1:] for row in tables.render_figures().splitlines()[2:]]
    command = "`python benchmarks/safeguards.py --parts"
    assert rows == [
        ["399 of 400 refused for the expected reason, within 0.5 s", f"{command} corpus` |"],
        ["1,500 inputs in 60 s each: 0 findings", f"{command} fuzz` |"],
        ["19 of 20 held back", f"{command} malicious` |"],
        ["11 of 12 found", f"{command} records` |"],
    ]


def test_mutation_and_coverage_keep_their_intervals_and_counts(tables: Any, tmp_path: Path) -> None:
    part = {"tried": 100, "killed": 90, "share": 0.9, "interval": [0.826, 0.945], "equivalent": 4}
    put(tmp_path, "mutation", {"faults": 13000, "sample": part, "penalties": None})
    assert tables.render_mutation().splitlines()[2:] == [
        "| nn and metrics, a sample | 100 | 90 | 90.0% (82.6% to 94.5%) | 4 | 6 |"
    ]
    room = {"num_statements": 1000, "covered_lines": 980, "num_branches": 200, "covered_branches": 190, "share": 0.975}
    put(tmp_path, "branch_coverage", {"complete": False, "rooms": {"all": room}})
    least = "at least 98.0% of the lines run by tests, at least 95.0% of the branches both ways"
    assert f"| {least} |" in tables.render_figures()
    assert "| run, at least | branches | taken both ways, at least |" in tables.render_rooms()
    put(tmp_path, "branch_coverage", {"rooms": {"all": room}})
    assert tables.render_rooms().splitlines()[2] == "| all | 1,000 | 98.0% | 200 | 95.0% |"
    assert "| 1,000 lines and 200 branches of the package | 98.0% of the lines run" in tables.render_figures()
    put(tmp_path, "branch_coverage", {"rooms": {"all": room, "survey": {**room, "num_branches": 0}}})
    assert tables.render_rooms().splitlines()[3] == "| survey | 1,000 | 98.0% | 0 |  |"


def test_coverage_is_summed_by_room(load: Callable[[str], Any]) -> None:
    module = load("branch_coverage")

    def entry(statements: int, covered: int, branches: int, taken: int) -> dict[str, Any]:
        counts = dict(zip(module.COUNTS, (statements, covered, branches, taken), strict=True))
        return {"summary": counts}

    report = {
        "files": {
            "src/softcam/nn/a.py": entry(10, 10, 4, 2),
            "src/softcam/nn/heads/b.py": entry(6, 3, 0, 0),
            "/tmp/copied/softcam/nn/a.py": entry(10, 0, 4, 0),  # noqa: S108 - named only
            "src/softcam/files.py": entry(5, 5, 0, 0),
        }
    }
    found = module.summarize(report)
    assert {room: row["share"] for room, row in found["rooms"].items()} == {"nn": 0.75, "(root)": 1.0, "all": 0.8}
    assert [row["module"] for row in found["least"]] == ["nn/heads/b.py", "nn/a.py", "files.py"]
