"""Run an exported file: images in, logits and maps out, as numpy arrays and without torch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from softcam.errors import ExportError
from softcam.export.failures import first_line
from softcam.libraries import load_library

Array = npt.NDArray[np.float32]
Graph = Callable[[Array], tuple[Array, Array]]

INPUT, OUTPUTS = "images", ("logits", "maps")
"""Names in the graph: images (N, C, *size) to logits (N, K) and maps (N, K, *grid)."""


def open_graph(path: str | Path) -> Graph:
    """Open an exported file on the CPU, in float32.

    Args:
        path: An `.onnx` file, which ONNX Runtime runs, or the `.xml` of an OpenVINO model.

    Returns:
        A function from images (N, C, *size) float32 to logits (N, K) and maps (N, K, *grid).

    Raises:
        ExportError: If the runtime refuses the file.
        MissingExtraError: If the runtime is not installed.
    """
    file = Path(path)
    openers = {".onnx": _open_onnx, ".xml": _open_openvino}
    if file.suffix not in openers:
        raise ExportError(f"Expected a file that ends in .onnx or .xml, but got {file.name!r}.")
    return openers[file.suffix](file)


def _open_onnx(file: Path) -> Graph:
    runtime = load_library("onnxruntime", extra="onnx")
    try:
        session: Any = runtime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    except Exception as error:
        raise _refused("ONNX Runtime", file, error) from error

    def run(images: Array) -> tuple[Array, Array]:
        logits, maps = session.run(list(OUTPUTS), {INPUT: images})
        return logits, maps

    return run


def _open_openvino(file: Path) -> Graph:
    runtime = load_library("openvino", extra="openvino")
    try:
        # On processors that have bfloat16, OpenVINO would calculate in it unless told not to.
        compiled: Any = runtime.Core().compile_model(str(file), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    except Exception as error:
        raise _refused("OpenVINO", file, error) from error

    def run(images: Array) -> tuple[Array, Array]:
        found = compiled({INPUT: images})
        return found[OUTPUTS[0]], found[OUTPUTS[1]]

    return run


def _refused(name: str, file: Path, error: Exception) -> ExportError:
    return ExportError(f"Expected {name} to open {file.name!r}, but it said: {first_line(error)}")
