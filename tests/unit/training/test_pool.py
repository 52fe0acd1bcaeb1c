from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from softcam.cores import count_cores
from softcam.errors import RecipeError, RunError
from softcam.training.pool import run_all


def square(number: int) -> int:
    if number < 0:
        raise RunError(f"Expected a number >= 0, but got {number}.")
    return number**2


def tell_threads(_item: int) -> tuple[int, int]:
    return os.getpid(), torch.get_num_threads()


def end_itself(_item: int) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def wait(path: Path) -> None:
    path.with_name(f"{os.getpid()}.pid").touch()
    time.sleep(120)


PROGRAM = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from test_pool import wait
from softcam.training.pool import run_all
if __name__ == "__main__":
    list(run_all(wait, [Path(sys.argv[2]) / "a", Path(sys.argv[2]) / "b"], jobs=2))
"""


def test_one_job_works_in_this_process_in_order() -> None:
    assert list(run_all(square, [1, 2, 3])) == [(0, 1), (1, 4), (2, 9)]
    assert list(run_all(tell_threads, [0, 0])) == [(0, tell_threads(0)), (1, tell_threads(0))]
    assert list(run_all(square, [], jobs=4)) == []
    with pytest.raises(RecipeError, match="Expected `jobs` to be >= 1, but got 0"):
        list(run_all(square, [1], jobs=0))


@pytest.mark.slow
def test_several_jobs_share_the_cores() -> None:
    found = dict(run_all(tell_threads, [0, 0, 0], jobs=2))
    assert sorted(found) == [0, 1, 2]
    assert {threads for _, threads in found.values()} == {max(1, count_cores() // 2)}
    assert os.getpid() not in {process for process, _ in found.values()}


@pytest.mark.slow
def test_a_failure_is_that_of_the_item_and_a_lost_process_is_named() -> None:
    with pytest.raises(RunError, match="a number >= 0, but got -1"):
        list(run_all(square, [-1, 2], jobs=2))
    with pytest.raises(RunError, match=r"the process of one was ended\. If memory ran out, use fewer than 2 jobs"):
        list(run_all(end_itself, [1, 2], jobs=2))


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc").is_dir(), reason="the processes that are left are read from /proc")
def test_processes_end_with_the_one_that_started_them(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    (tmp_path / "work").mkdir()
    parent = subprocess.Popen(
        [sys.executable, program, Path(__file__).parent, tmp_path / "work"], stderr=subprocess.DEVNULL
    )
    try:
        workers = wait_for(lambda: sorted((tmp_path / "work").glob("*.pid")), count=2)
        parent.kill()
        parent.wait()
        wait_for(lambda: [item for item in workers if not is_running(int(item.stem))], count=2)
    finally:
        parent.kill()


def wait_for(found: object, *, count: int) -> list[Path]:
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline:
        items: list[Path] = found()  # type: ignore[operator]
        if len(items) == count:
            return items
        time.sleep(0.1)
    pytest.fail(f"{count} were expected")


def is_running(process: int) -> bool:
    try:
        # The third word; a zombie has ended, and waits for one that reads its exit code.
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
