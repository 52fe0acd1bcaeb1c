"""Any module's forward pass, compiled by OpenVINO for many calls on the CPU."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from softcam.errors import ExportError
from softcam.export.agreement import TOLERANCE
from softcam.export.failures import first_line
from softcam.export.runtime import get_openvino
from softcam.libraries import load_library

_CHUNK = 8
"""Images per call: more of them leave the processor's caches."""


def compile_forward(model: nn.Module, images: Tensor) -> Callable[[Tensor], Tensor]:
    """Return a function that gives what a model gives, several times faster than eager torch on a CPU.

    Args:
        model: In eval mode, on the CPU, with one output (N, K) for any number of images.
        images: (N, C, H, W) images to try it on; later ones have the same size.

    Returns:
        Images (N, C, H, W) to outputs (N, K), float32, without gradients.

    Raises:
        ExportError: If the images are not on the CPU, if torch or OpenVINO cannot compile the model, or if the outputs
            for `images` differ by more than 1e-4 of the largest.
        MissingExtraError: If openvino is not installed.
    """
    if images.device.type != "cpu":
        raise ExportError(
            f"Expected model and images on the CPU, where OpenVINO runs, but got {images.device}. Use torch there."
        )
    openvino = load_library("openvino", extra="openvino")
    # Two images, since the tracer takes a single one for a constant.
    example = images[:1].detach().contiguous().float().repeat(2, 1, 1, 1)
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            program = torch.export.export(model, (example,), dynamic_shapes=({0: torch.export.Dim("batch")},))
            graph = openvino.convert_model(program)
        # On processors that have bfloat16, OpenVINO would calculate in it unless told not to.
        options = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": torch.get_num_threads()}
        compiled: Any = get_openvino().compile_model(graph, "CPU", options)
    except Exception as error:
        raise ExportError(
            f"Expected OpenVINO to compile {type(model).__name__}, but: {first_line(error)} Run it in torch instead."
        ) from error

    def run(batch: Tensor) -> Tensor:
        parts = torch.split(batch.detach().contiguous().float(), _CHUNK)
        # The output's memory is used again by the next call.
        return torch.cat([torch.from_numpy(compiled(part.numpy())[0]).clone() for part in parts])

    _compare(model, run, images)
    return run


def _compare(model: nn.Module, run: Callable[[Tensor], Tensor], images: Tensor) -> None:
    with torch.no_grad():
        expected = model(images)
    error = float((run(images) - expected).abs().max() / expected.abs().max().clamp_min(torch.finfo(torch.float32).eps))
    if not error <= TOLERANCE:  # NaN as well
        raise ExportError(
            f"Expected the compiled {type(model).__name__} to agree with torch within {TOLERANCE:g}, but got a "
            f"relative difference of {error:.3g}. Run it in torch instead."
        )
