from __future__ import annotations

from pathlib import Path

import pytest

from softcam.distributed import Listed, RaySettings
from softcam.distributed.attempts import Attempts, is_careful
from softcam.distributed.cluster import Pool, check_workers, choose_pool
from softcam.distributed.plan import Plan, choose_shard_rows, write_plan
from softcam.errors import RunError


def make_inputs(count: int) -> list[Listed]:
    return [Listed(f"{i}.png", f"place {i}", i or None, "bad" if i == 3 else "", str(i)) for i in range(count)]


def test_shards_hold_every_input_once_in_order(tmp_path: Path) -> None:
    inputs = make_inputs(9001)
    count, _ = write_plan(tmp_path / "plan.parquet", iter(inputs))
    plan = Plan(tmp_path / "plan.parquet", count, 1000)
    assert (count, plan.shards, plan.count_rows(8), plan.count_rows(9)) == (9001, 10, 1000, 1)
    assert [row for shard in range(plan.shards) for row in plan.read(shard)] == inputs


@pytest.mark.parametrize("change", [{"id": "other"}, {"stamp": "other"}, {"refusal": "other"}])
def test_the_digest_changes_with_the_inputs(tmp_path: Path, change: dict[str, str]) -> None:
    values = {"id": "a", "place": "a", **change}
    first, second = (
        write_plan(tmp_path / f"{i}", [row])[1] for i, row in enumerate([Listed("a", "a"), Listed(**values)])
    )
    assert first != second


@pytest.mark.parametrize(
    ("count", "workers", "row_bytes", "expected"),
    [(3, 2, 100, 8), (300, 2, 100, 16), (10**6, 2, 100, 1024), (10**6, 2, 1_000_000, 64), (300, 1, 100, 32)],
)
def test_shards_are_whole_batches_that_fit_into_memory(count: int, workers: int, row_bytes: int, expected: int) -> None:
    assert choose_shard_rows(count, workers=workers, row_bytes=row_bytes, batch_size=8) == expected


@pytest.mark.parametrize(
    ("nodes", "settings", "expected"),
    [
        ([{"CPU": 2.0}], {}, Pool(2, 2, 0.5, 0)),
        ([{"CPU": 2.0}, {"CPU": 4.0}], {"threads": 2}, Pool(3, 3, 1.0, 0)),
        ([{"CPU": 8.0, "GPU": 2.0}], {}, Pool(2, 2, 0.5, 1)),
        ([{"CPU": 8.0, "GPU": 2.0}], {"predictor": {"device": "cpu"}}, Pool(8, 8, 0.5, 0)),
        ([{"CPU": 2.0}], {"workers": 6}, Pool(2, 6, 0.5, 0)),
        ([{}], {"workers": 6}, Pool(1, 6, 0.5, 0)),
    ],
)
def test_workers_leave_room_for_rays_own_tasks(
    nodes: list[dict[str, float]], settings: dict[str, object], expected: Pool
) -> None:
    pool = choose_pool(nodes, RaySettings(**settings))
    assert pool == expected
    if sum(node.get("CPU", 0) for node in nodes) >= 2:
        assert pool.least * pool.cpus <= sum(node["CPU"] for node in nodes) / 2


def test_what_a_cluster_cannot_hold_is_refused() -> None:
    with pytest.raises(RunError, match="cluster with GPUs, but it has none"):
        choose_pool([{"CPU": 2.0}], RaySettings(predictor={"device": "cuda"}))
    with pytest.raises(RunError, match="cluster with CPUs, but it has none"):
        choose_pool([{}], RaySettings())
    check_workers([{"CPU": 2.0}], RaySettings(workers=2))
    with pytest.raises(ValueError, match=r"at most 2 workers.* but got 3"):
        check_workers([{"CPU": 2.0}], RaySettings(workers=3))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"workers": 0}, "`workers` to be a whole number of at least 1, but got 0"),
        ({"threads": 0}, "`threads` to be a whole number of at least 1, but got 0"),
        ({"evidence": "float64"}, "`evidence` to be one of float32, float16, none, but got 'float64'"),
        ({"address": "ray://head:10001"}, "Run the command on a node of the cluster"),
    ],
)
def test_settings_are_checked(values: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RaySettings(**values)


def test_an_image_that_ended_two_careful_attempts_is_fatal(tmp_path: Path) -> None:
    attempts = Attempts(tmp_path / "attempts" / "000000")
    assert [attempts.begin() for _ in range(3)] == [0, 1, 2]
    assert (is_careful(1), is_careful(2)) == (False, True)
    for row in (0, 1):
        attempts.begin_row(row)
    attempts.begin()
    assert attempts.list_fatal() == set()
    for row in (0, 1):
        attempts.begin_row(row)
    attempts.begin()
    assert attempts.list_fatal() == {1}
