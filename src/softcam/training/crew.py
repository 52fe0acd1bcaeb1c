"""The processes of a run: which of them this is, and how they wait for each other."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any, TypeVar

import torch
from lightning.fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning.fabric.utilities.warnings import PossibleUserWarning
from torch import distributed

from softcam.errors import RunError
from softcam.training.batches import Split
from softcam.training.hardware import Hardware

T = TypeVar("T")

PATIENCE = timedelta(days=7)
"""How long processes wait for what the first one does alone; one that dies ends the wait at once."""
MEETING = timedelta(minutes=10)
"""How long the first process waits for the others to start."""


@dataclass(frozen=True)
class Crew:
    """The processes that compute a run together, seen from one of them.

    Args:
        hardware: What each of them computes with.
        rank: Number of this one, from 0.
        world: Processes in all.
        local_rank: Number of this one on its machine, from 0.
        local_world: Processes on each machine.
        group: Where they wait for each other, once they are connected.
    """

    hardware: Hardware = field(default_factory=Hardware)
    rank: int = 0
    world: int = 1
    local_rank: int = 0
    local_world: int = 1
    group: Any = field(default=None, compare=False, repr=False)

    @property
    def is_first(self) -> bool:
        """Whether this is the process that writes files."""
        return self.rank == 0

    @property
    def nodes(self) -> int:
        """Machines."""
        return self.world // self.local_world

    @property
    def split(self) -> Split:
        """How the images of a step are split."""
        return Split(self.rank, self.world, self.hardware.accumulate_grad_batches)

    @property
    def accelerator(self) -> str:
        """What Lightning is to use; several processes take GPUs or the CPU, as their connection does."""
        if self.world == 1:
            return self.hardware.accelerator
        return "gpu" if self.hardware.uses_gpu else "cpu"

    @property
    def device(self) -> torch.device:
        """What this process computes on outside of the training proper."""
        return torch.device("cuda", self.local_rank) if self.hardware.uses_gpu else torch.device("cpu")

    def check_batch(self, batch_size: int) -> None:
        """Refuse a batch that cannot be split evenly.

        Args:
            batch_size: Images per optimisation step.

        Raises:
            RunError: If it is no multiple of processes times micro-batches.
        """
        parts = self.split.parts
        if batch_size % parts:
            below, above = batch_size // parts * parts, (batch_size // parts + 1) * parts
            choices = f"{below} or {above}" if below else str(above)
            raise RunError(
                f"Expected `data.batch_size`, which is that of all processes together, to be a multiple of "
                f"{self.world} processes x {self.hardware.accumulate_grad_batches} micro-batches, but got "
                f"{batch_size}. Use {choices}, or other devices."
            )

    def check_validation(self, images: int) -> None:
        """Refuse a validation split that does not give each process its part.

        Args:
            images: Validation images.

        Raises:
            RunError: If there are fewer than processes.
        """
        if images < self.world:
            raise RunError(
                f"Expected a validation image for each of {self.world} processes, but got {images}. Use fewer devices."
            )

    def once(self, work: Callable[[], T]) -> T:
        """Return what the first process computes; the others wait for it as long as it takes.

        Args:
            work: What is called in the first process.

        Raises:
            RunError: If one of them is gone.
        """
        if self.group is None:
            return work()
        box: list[Any] = [work() if self.is_first else None]
        try:
            distributed.broadcast_object_list(box, src=0, group=self.group)
        except RuntimeError as error:
            raise lost_process(self.world) from error
        result: T = box[0]
        return result


def find_environment() -> ClusterEnvironment | None:
    """Return what `torchrun` or SLURM says about the processes of a run; None if neither started this one.

    Raises:
        RunError: If a SLURM job lacks the settings that this takes.
    """
    if TorchElasticEnvironment.detect():
        return TorchElasticEnvironment()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PossibleUserWarning)  # a hint where srun is installed and not used
        if not SLURMEnvironment.detect():
            return None
        try:
            # A job that is queued again runs the same command, which continues at the last whole epoch.
            return SLURMEnvironment(auto_requeue=False)
        except RuntimeError as error:
            raise RunError(f"Expected a SLURM job with `--ntasks-per-node`, but {error}") from error


def is_first_process() -> bool:
    """Whether this process is the one that writes and prints, of those that `torchrun` or SLURM started."""
    environment = find_environment()
    return environment is None or environment.global_rank() == 0


def find_crew(hardware: Hardware) -> Crew:
    """Return this process's place among those of the run.

    Args:
        hardware: What was asked for; a number that is given has to be that of `torchrun` or SLURM, if one of these
            started the processes.

    Raises:
        RunError: If the numbers differ, or there are fewer devices than processes.
    """
    environment = find_environment()
    if environment is None or environment.world_size() == 1:
        if (hardware.nodes or 1) > 1:
            raise RunError(
                f"Expected `torchrun` or `srun` to start the processes of {hardware.nodes} nodes, but this one was "
                "started alone. Start the same command with one of them on each node."
            )
        return Crew(hardware)
    world = environment.world_size()
    crew = Crew(hardware, environment.global_rank(), world, environment.local_rank(), _count_local(world))
    for name, count in {"devices": crew.local_world, "nodes": crew.nodes}.items():
        wanted = getattr(hardware, name)
        if wanted not in (None, count):
            raise RunError(f"Expected `{name}` to be {count}, as the processes were started, but got {wanted}.")
    if hardware.uses_gpu:  # CPU processes may share cores; the one who starts them says so
        hardware.check_devices(crew.local_world)
    return crew


@contextmanager
def connected(crew: Crew) -> Iterator[Crew]:
    """Connect the processes of a run while the body runs; a crew of one has nothing to connect.

    Args:
        crew: This process's place.

    Yields:
        The crew, able to wait for each other.

    Raises:
        RunError: If the others do not come.
    """
    environment = find_environment()
    if environment is None or crew.world == 1:
        yield crew
        return
    os.environ["MASTER_ADDR"] = environment.main_address
    os.environ["MASTER_PORT"] = str(environment.main_port)
    if crew.hardware.uses_gpu:
        torch.cuda.set_device(crew.device)
    try:
        backend = "nccl" if crew.hardware.uses_gpu else "gloo"
        distributed.init_process_group(backend, rank=crew.rank, world_size=crew.world, timeout=MEETING)
        group = distributed.new_group(backend="gloo", timeout=PATIENCE)
    except (RuntimeError, ValueError) as error:
        raise RunError(
            f"Expected {crew.world} processes to meet at {environment.main_address}:{environment.main_port}, "
            f"but {error} Start all of them, with `srun` in a SLURM job."
        ) from error
    yield replace(crew, group=group)
    # Not after a failure: the others may wait within a step, and find the connection closed when this process ends.
    distributed.destroy_process_group()


def is_lost(error: RuntimeError, crew: Crew) -> bool:
    """Whether an error says that the connection to another process is gone.

    Args:
        error: What torch raised.
        crew: The processes.
    """
    words = ("Connection closed", "Connection reset", "Broken pipe", "Timed out waiting", "gloo")
    is_distributed = isinstance(error, distributed.DistError)
    return crew.world > 1 and (is_distributed or any(word in str(error) for word in words))


def lost_process(world: int) -> RunError:
    """Return what is raised in a process that lost another."""
    return RunError(
        f"Expected all {world} processes to go on, but one of them ended, or lost its connection; its own message says "
        "why. The same command continues at the last whole epoch."
    )


def _count_local(world: int) -> int:
    if "LOCAL_WORLD_SIZE" in os.environ:
        return int(os.environ["LOCAL_WORLD_SIZE"])
    return world // int(os.environ.get("SLURM_NNODES", "1"))
