from __future__ import annotations

import os
from typing import Any

import pytest
import torch

from softcam.errors import RecipeError, RunError
from softcam.training import Hardware, Recipe, is_first_process
from softcam.training.batches import Split
from softcam.training.crew import Crew, connected, find_crew, is_lost
from softcam.training.hardware import choose_precision, count_cores

TORCHRUN = {"RANK": 5, "LOCAL_RANK": 1, "WORLD_SIZE": 8, "LOCAL_WORLD_SIZE": 4, "TORCHELASTIC_RUN_ID": "none"}
SLURM = {
    "SLURM_JOB_ID": 77, "SLURM_JOB_NAME": "job", "SLURM_NTASKS": 6, "SLURM_NTASKS_PER_NODE": 3, "SLURM_NNODES": 2,
    "SLURM_PROCID": 4, "SLURM_LOCALID": 1, "SLURM_NODEID": 1,
}  # fmt: skip


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith(("SLURM_", "TORCHELASTIC_")) or name in TORCHRUN:
            monkeypatch.delenv(name)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


def announce(monkeypatch: pytest.MonkeyPatch, variables: dict[str, Any]) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, str(value))


def test_alone_there_is_one_process() -> None:
    crew = find_crew(Hardware())
    assert (crew.rank, crew.world, crew.nodes, crew.is_first, crew.accelerator) == (0, 1, 1, True, "auto")
    assert is_first_process()
    with connected(crew) as ready:
        assert ready is crew
        assert ready.once(lambda: 3) == 3


@pytest.mark.parametrize(
    ("variables", "crew"),
    [(TORCHRUN, (5, 8, 1, 4, 2)), (SLURM, (4, 6, 1, 3, 2)), ({**SLURM, **TORCHRUN}, (5, 8, 1, 4, 2))],
    ids=["torchrun", "slurm", "torchrun in a slurm job"],
)
def test_the_one_who_started_the_processes_is_recognised(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, Any], crew: tuple[int, ...]
) -> None:
    announce(monkeypatch, variables)
    found = find_crew(Hardware())
    assert (found.rank, found.world, found.local_rank, found.local_world, found.nodes) == crew
    assert not found.is_first
    assert not is_first_process()
    assert found.accelerator == "cpu"
    assert find_crew(Hardware(devices=found.local_world, nodes=2)).rank == found.rank


def test_an_interactive_slurm_job_is_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    announce(monkeypatch, {**SLURM, "SLURM_JOB_NAME": "bash"})
    assert find_crew(Hardware()).world == 1


def test_a_slurm_job_without_tasks_per_node_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    announce(monkeypatch, SLURM)
    monkeypatch.delenv("SLURM_NTASKS_PER_NODE")
    with pytest.raises(RunError, match=r"a SLURM job with `--ntasks-per-node`, but"):
        find_crew(Hardware())


@pytest.mark.parametrize(("wanted", "name", "count"), [({"devices": 3}, "devices", 4), ({"nodes": 1}, "nodes", 2)])
def test_other_numbers_than_those_started_are_refused(
    monkeypatch: pytest.MonkeyPatch, wanted: dict[str, int], name: str, count: int
) -> None:
    announce(monkeypatch, TORCHRUN)
    with pytest.raises(RunError, match=f"`{name}` to be {count}, as the processes were started, but got"):
        find_crew(Hardware(**wanted))


def test_several_nodes_have_to_be_started() -> None:
    with pytest.raises(RunError, match="to start the processes of 2 nodes, but this one was started alone"):
        find_crew(Hardware(nodes=2))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"devices": 0}, "`devices` to be >= 1, but got 0"),
        ({"nodes": 0}, "`nodes` to be >= 1, but got 0"),
        ({"accelerator": "tpu"}, "`accelerator` to be one of auto, cpu, gpu, but got 'tpu'"),
        ({"num_workers": -1}, "`num_workers` to be >= 0, but got -1"),
        ({"accumulate_grad_batches": 0}, "`accumulate_grad_batches` to be >= 1, but got 0"),
    ],
)
def test_hardware_out_of_range_is_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        Hardware(**values)


def test_more_devices_than_there_are_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    cores = count_cores()
    Hardware().check_devices(cores)
    with pytest.raises(RunError, match=f"at most {cores} devices, one for each of the CPU cores here, but got"):
        Hardware().check_devices(cores + 1)
    with pytest.raises(RunError, match="Expected a GPU, but torch finds none"):
        Hardware(accelerator="gpu").check_devices(1)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(RunError, match="at most 1 devices, one for each of the GPUs here, but got 2"):
        Hardware().check_devices(2)


def test_a_batch_has_to_be_divisible() -> None:
    crew = Crew(Hardware(accumulate_grad_batches=2), world=3)
    assert crew.split == Split(0, 3, 2)
    crew.check_batch(12)
    with pytest.raises(RunError, match=r"of 3 processes x 2 micro-batches, but got 32\. Use 30 or 36"):
        crew.check_batch(32)
    with pytest.raises(RunError, match=r"but got 4\. Use 6, or other devices"):
        crew.check_batch(4)


def test_each_process_needs_a_validation_image() -> None:
    Crew(world=4).check_validation(4)
    with pytest.raises(RunError, match=r"a validation image for each of 4 processes, but got 3\. Use fewer devices"):
        Crew(world=4).check_validation(3)


def test_precision_follows_the_recipe_and_the_hardware(recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    assert choose_precision(recipe, Hardware()) == "32-true"
    mixed = Recipe.from_dict({**recipe.to_dict(), "precision": "bf16-mixed"})
    assert choose_precision(mixed, Hardware()) == "bf16-mixed"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    for supported, expected in ((True, "bf16-mixed"), (False, "16-mixed")):
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda supported=supported, **_: supported)
        assert choose_precision(recipe, Hardware()) == expected
    assert choose_precision(recipe, Hardware(accelerator="cpu")) == "32-true"


def test_a_lost_connection_is_told_from_other_errors() -> None:
    lost = RuntimeError("[gloo/transport/tcp/pair.cc:553] Connection closed by peer [127.0.0.1]:1")
    assert is_lost(lost, Crew(world=2))
    assert not is_lost(lost, Crew())
    assert not is_lost(RuntimeError("shapes do not match"), Crew(world=2))
