"""How well an exported file and the model it came from agree, measured on noise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from softcam.errors import ExportError
from softcam.export.failures import first_line
from softcam.export.runtime import Graph, open_graph
from softcam.nn import SoftCAM

TOLERANCE = 1e-4
"""Largest relative difference that is accepted; float32 on different kernels gives 1e-7 to 1e-5."""

BATCHES = (1, 3)
"""Batch sizes that are compared; neither is the one that the graph was traced with."""


@dataclass(frozen=True)
class Agreement:
    """Largest relative errors over all images of all batches.

    Args:
        logits: `max |file - model| / max |model|` of the logits.
        maps: The same of the evidence maps.
        mean: `max |mean of maps - logits| / max(|logits|, mean |maps|)` of what the file gives.
    """

    logits: float
    maps: float
    mean: float

    def check(self, tolerance: float = TOLERANCE) -> Agreement:
        """Return this agreement if no error exceeds the tolerance.

        Raises:
            ExportError: If one does, or is NaN.
        """
        for name, error in (("logits", self.logits), ("maps", self.maps), ("mean of the maps", self.mean)):
            if not error <= tolerance:  # NaN as well
                raise ExportError(
                    f"Expected the {name} of the exported file to agree with the model within {tolerance:g}, but got "
                    f"a relative error of {error:.3g}. Nothing was written."
                )
        return self


def measure(model: SoftCAM, path: Path, shape: Sequence[int]) -> Agreement:
    """Run the model and the file on the same noise.

    Args:
        model: The model in eval mode and in float32, on the CPU.
        path: The exported file.
        shape: (C, *size) of the images.

    Raises:
        ExportError: If the file cannot be run.
    """
    graph = open_graph(path)
    found = [_compare(model, graph, _noise(batch, shape)) for batch in BATCHES]
    # A tensor's maximum keeps NaN, which Python's would drop.
    worst = torch.tensor(found, dtype=torch.float64).amax(0).tolist()
    return Agreement(*worst)


def _noise(batch: int, shape: Sequence[int]) -> Tensor:
    generator = torch.Generator().manual_seed(batch)
    return torch.randn(batch, *shape, generator=generator, dtype=torch.float32, device="cpu")


def _compare(model: SoftCAM, graph: Graph, images: Tensor) -> tuple[float, float, float]:
    with torch.no_grad():
        expected = model.evidence(images)
    logits, maps = (torch.from_numpy(array).double() for array in _run(graph, images))
    for name, one, other in (("logits", logits, expected.logits), ("maps", maps, expected.maps)):
        if one.shape != other.shape:
            raise ExportError(
                f"Expected the exported file to give {name} {tuple(other.shape)} for {len(images)} images, but got "
                f"{tuple(one.shape)}. Nothing was written."
            )
    cells = maps.flatten(2)
    scale = torch.maximum(logits.abs().amax(), cells.abs().mean(-1).amax())
    return (
        relative_error(logits - expected.logits, expected.logits),
        relative_error(maps - expected.maps, expected.maps),
        relative_error(cells.mean(-1) - logits, scale),
    )


def _run(graph: Graph, images: Tensor) -> tuple[object, object]:
    try:
        return graph(images.numpy())
    except Exception as error:
        raise ExportError(
            f"Expected the exported file to take {len(images)} images, but the runtime said: {first_line(error)}"
        ) from error


def relative_error(difference: Tensor, reference: Tensor) -> float:
    """Return the largest of some differences relative to the largest reference; NaN where there is one.

    Args:
        difference: Of any shape.
        reference: Of any shape.
    """
    largest = difference.abs().amax()
    # A tensor divides by zero, into infinity; a new classifier of zeros gives exact zeros, which agree.
    return 0.0 if largest == 0 else float(largest / reference.abs().amax())
