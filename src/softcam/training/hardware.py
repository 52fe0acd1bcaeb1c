"""What a run is computed with: processes, devices, loader workers. None of it decides the result."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch

from softcam.cores import count_cores
from softcam.errors import RunError
from softcam.training.recipe import Recipe
from softcam.training.values import require

Accelerator = Literal["auto", "cpu", "gpu"]
Precision = Literal["32-true", "16-mixed", "bf16-mixed"]


@dataclass(frozen=True)
class Hardware:
    """What a run is computed with.

    The recipe's batch is that of all processes together, so that none of these numbers changes what is learned beyond
    the order of sums, dropout, and the statistics of batch norms that are not frozen. A run may be taken up again with
    others.

    Args:
        devices: Processes per machine, one per GPU, or per share of the CPU's cores; by default one, or as many as
            `torchrun` or SLURM started.
        nodes: Machines; by default as many as `torchrun` or SLURM started. Several need one of these.
        accelerator: `auto` takes GPUs where there are any.
        num_workers: Processes per process that decode images; by default the recipe's.
        accumulate_grad_batches: Parts that a process takes its images of a step in, one after the other, so that they
            fit into memory.
    """

    devices: int | None = None
    nodes: int | None = None
    accelerator: Accelerator = "auto"
    num_workers: int | None = None
    accumulate_grad_batches: int = 1

    def __post_init__(self) -> None:
        """Refuse values out of range."""
        require(self.devices is None or self.devices >= 1, "devices", ">= 1", self.devices)
        require(self.nodes is None or self.nodes >= 1, "nodes", ">= 1", self.nodes)
        choices = ("auto", "cpu", "gpu")
        require(self.accelerator in choices, "accelerator", f"one of {', '.join(choices)}", self.accelerator)
        require(self.num_workers is None or self.num_workers >= 0, "num_workers", ">= 0", self.num_workers)
        parts = self.accumulate_grad_batches
        require(parts >= 1, "accumulate_grad_batches", ">= 1", parts)

    @property
    def uses_gpu(self) -> bool:
        """Whether a run is computed on GPUs."""
        return self.accelerator != "cpu" and torch.cuda.is_available()

    def check_devices(self, devices: int) -> None:
        """Refuse more processes on this machine than it has devices.

        Args:
            devices: Processes on this machine.

        Raises:
            RunError: If there are fewer GPUs, or fewer cores where there is no GPU.
        """
        if self.accelerator == "gpu" and not torch.cuda.is_available():
            raise RunError("Expected a GPU, but torch finds none. Use `--accelerator cpu`, or a torch built for CUDA.")
        found = torch.cuda.device_count() if self.uses_gpu else count_cores()
        kind = "GPUs" if self.uses_gpu else "CPU cores"
        if devices > found:
            raise RunError(f"Expected at most {found} devices, one for each of the {kind} here, but got {devices}.")


def choose_precision(recipe: Recipe, hardware: Hardware) -> Precision:
    """Return the arithmetic of a run: a recipe's own, or by the hardware.

    Args:
        recipe: Its `precision` is followed unless that is `auto`.
        hardware: What the run is computed with.
    """
    if recipe.precision != "auto":
        return recipe.precision
    if not hardware.uses_gpu:
        return "32-true"
    return "bf16-mixed" if torch.cuda.is_bf16_supported(including_emulation=False) else "16-mixed"
