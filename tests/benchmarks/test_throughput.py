"""The formula of throughput by hand, and against the simulation where a resource or a failure decides."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest


@pytest.fixture
def throughput(load: Callable[[str], Any]) -> Any:
    return load("throughput")


def create(throughput: Any, **changes: Any) -> tuple[Any, Any]:
    job = {"images": 10_000, "core_seconds": 0.1, "bytes_in": 1e6, "bytes_out": 0.0, "task": 100}
    cluster = {"machines": 2, "cores": 5, "network": 1e9, "store": 1e9, "start": 10.0, "spread": 0.0}
    return (
        throughput.Job(**{**job, **{name: value for name, value in changes.items() if name in job}}),
        throughput.Cluster(**{**cluster, **{name: value for name, value in changes.items() if name not in job}}),
    )


def test_cores_bound_by_hand(throughput: Any) -> None:
    found = throughput.forecast(*create(throughput))
    assert (found.per_second, found.bound) == (pytest.approx(100), "cores")
    # Start, all images at that rate, and of a last task of 10 s what the last of ten workers is behind.
    assert found.seconds == pytest.approx(10 + 100 + 10 * (10 / 11 - 0.5))


@pytest.mark.parametrize(
    ("changes", "per_second", "bound"),
    [
        ({"network": 2e7}, 40, "network"),
        ({"store": 3e7}, 30, "store"),
        ({"store": 3e7, "bytes_out": 5e5}, 20, "store"),
        ({"images": 300}, 30, "cores"),
    ],
)
def test_the_slowest_resource_bounds(throughput: Any, changes: dict[str, float], per_second: float, bound: str) -> None:
    found = throughput.forecast(*create(throughput, **changes))
    assert (found.per_second, found.bound) == (pytest.approx(per_second), bound)


def test_failures_cost_half_a_task_and_the_repair(throughput: Any) -> None:
    found = throughput.forecast(*create(throughput, failures=1.0, repair=100.0))
    assert found.per_second == pytest.approx(100 / (1 + (5 + 100) / 3600))


def test_without_chance_the_simulation_is_plain_division(throughput: Any) -> None:
    job, cluster = create(throughput, machines=1, cores=1, images=1000)
    assert throughput.simulate(job, cluster, seed=0) == pytest.approx(10 + 0.1 + 100)
    job, cluster = create(throughput, store=2e7)
    # The store hands out 20 images per second; the last task is worked on after it was handed out.
    assert throughput.simulate(job, cluster, seed=0) == pytest.approx(10 + 500 + 10)
    job, cluster = create(throughput, machines=1, network=2e7)
    assert throughput.simulate(job, cluster, seed=0) == pytest.approx(10 + 500 + 10)


def test_the_simulation_is_that_of_its_seed(throughput: Any) -> None:
    job, cluster = create(throughput, spread=0.2, failures=5.0)
    times = [throughput.simulate(job, cluster, seed=seed) for seed in (0, 0, 1)]
    assert times[0] == times[1] != times[2]


@pytest.mark.parametrize("changes", [{}, {"machines": 20}, {"store": 4e8}, {"network": 1.5e7}, {"failures": 0.5}])
def test_formula_and_simulation_agree(throughput: Any, changes: dict[str, float]) -> None:
    job, cluster = create(throughput, images=200_000, spread=0.1, **changes)
    times = [throughput.simulate(job, cluster, seed=seed) for seed in range(5)]
    assert throughput.forecast(job, cluster).seconds == pytest.approx(statistics.median(times), rel=0.05)


def test_every_number_of_a_cluster_counts(throughput: Any) -> None:
    job, cluster = create(throughput, failures=1.0, spread=0.1)
    base = throughput.simulate(job, cluster, seed=0)
    for change in ({"machines": 3}, {"cores": 6}, {"network": 1e7}, {"store": 1e7}, {"start": 20.0}, {"spread": 0.3},
                   {"failures": 200.0}):  # fmt: skip
        assert throughput.simulate(job, replace(cluster, **change), seed=0) != base, change
