"""What very many images cost, by hand, and the page's tables of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

ROW = {"model": "net", "image_bytes": 400_000, "evidence_bytes": 100_000, "grid": [7, 7]}
ROW |= {f"{stage}_ms": 20.0 for stage in ("read", "decode", "resize", "forward", "write")}
ROW |= {f"{stage}_ms_quartiles": [19.0, 21.0] for stage in ("read", "decode", "resize", "forward", "write", "total")}
ROW["total_ms"] = 100.0


@pytest.fixture
def scaling(load: Callable[[str], Any]) -> Any:
    return load("scaling")


@pytest.fixture
def options(scaling: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr("sys.argv", ["scaling.py", "--failures", "0", "--cores", "10", "--price", "0.5"])
    return scaling.parse()


@pytest.fixture
def result(scaling: Any, options: Any) -> dict[str, Any]:
    worker = {"model": "net", "workers": 2, "per_second": 19.0, "per_second_quartiles": [18.0, 20.0]}
    return {
        "environment": {"machine": {"processor": "a processor"}},
        "setting": {"side": 1024, "classes": 1000, "batch_size": 8},
        "stages": [ROW],
        "workers": [worker | {"predicted": 20.0, "share_of_predicted": 0.95}],
        "assumptions": scaling.describe_assumptions(options),
        "checks": [scaling.check(ROW, scenario, options) for scenario in scaling.SCENARIOS],
        "costs": [scaling.estimate(ROW, images, options) for images in scaling.COUNTS],
        "storage": scaling.list_storage(),
    }


def test_a_million_images_by_hand(scaling: Any, options: Any) -> None:
    found = scaling.estimate(ROW, 10**6, options)
    # 0.1 s each: 10^5 core seconds; 500 kB in and out.
    assert (found["core_hours"], found["price"]) == (27.8, 13.9)
    assert (found["read_terabytes"], found["written_terabytes"]) == (0.4, 0.1)
    one, *_, many = found["times"]
    assert (one["machines"], one["bound"]) == (1, "cores")
    # A minute, 10^6 images at 100 per second, and of a last task of 100 s what the last of ten is behind.
    assert one["hours"] == pytest.approx((60 + 1e4 + 100 * (10 / 11 - 0.5)) / 3600, abs=0.005)
    assert many["hours"] < one["hours"]


def test_the_store_bounds_what_more_machines_can_do(scaling: Any, options: Any) -> None:
    options.store_gbit = 1.0
    bound = {one["machines"]: one for one in scaling.estimate(ROW, 10**9, options)["times"]}
    assert bound[1000]["bound"] == bound[100]["bound"] == "store"
    # 125 MB/s for 500 kB each: 250 images per second.
    assert bound[100]["hours"] == pytest.approx(10**9 / 250 / 3600, rel=1e-3)


def test_maps_take_their_numbers(scaling: Any) -> None:
    rows = {(row["grid"], row["classes"]): row for row in scaling.list_storage()}
    assert rows[7, 1000] == {"grid": 7, "classes": 1000, "float32_bytes": 196_000, "float16_bytes": 98_000}
    assert rows[14, 2]["float32_bytes"] == 4 * rows[7, 2]["float32_bytes"] == 1568


def test_formula_and_simulation_are_close_in_every_case(result: dict[str, Any]) -> None:
    assert {check["bound"] for check in result["checks"]} == {"cores", "network", "store"}
    for check in result["checks"]:
        assert 0.9 < check["simulated_to_forecast"] < 1.1, check
        low, high = check["simulated_to_forecast_range"]
        assert low <= check["simulated_to_forecast"] <= high


def test_an_estimate_says_what_bounds_it(scaling: Any, options: Any, result: dict[str, Any]) -> None:
    options.images, options.machines = 1e6, 1
    said = scaling.render_estimate(result, options)
    assert said.startswith(
        "net: 1,000,000 images on 1 machines of 10 cores: 2.81 hours (100 images/s, bound by the cores)"
    )
    assert "28 core hours, 14 at 0.5 each; 0.10 TB of evidence" in said


def test_the_page_shows_what_the_file_holds(load: Callable[[str], Any], result: dict[str, Any]) -> None:
    shown = {name: table() for name, table in load("scaling_tables").list_tables(result).items()}
    assert "| **all** | 100.0 (19.0 to 21.0) |" in shown["scaling-stages"]
    assert "| images per second and core | 10.0 |" in shown["scaling-stages"]
    assert "| net | 2 | 19.0 (18.0 to 20.0) | 20.0 | 0.95 |" in shown["scaling-workers"]
    assert "| net | 1,000,000 | 28 | 14 | 400.0 GB | 100.0 GB | 2.8 h (cores) |" in shown["scaling-costs"]
    assert "| 7 x 7 | 1000 | 196.0 kB | 98.0 kB | 196.0 TB | 98.0 TB |" in shown["scaling-storage"]
    assert "| price of a core for an hour, in any currency | 0.5 |" in shown["scaling-assumptions"]
    assert shown["scaling-checks"].count("| net |") == 5


def test_a_page_without_measurements_says_so(load: Callable[[str], Any]) -> None:
    for table in load("scaling_tables").list_tables(None).values():
        assert table() == "Not measured yet: `python benchmarks/scaling.py`.\n"
