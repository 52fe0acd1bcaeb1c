"""Run an exported file: images in, logits and maps out, as numpy arrays and without torch."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
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


RUNTIMES = ("onnxruntime", "openvino")


def open_graph(path: str | Path, *, runtime: str | None = None, threads: int | None = None) -> Graph:
    """Open an exported file on the CPU, in float32.

    Args:
        path: An `.onnx` file, or the `.xml` of an OpenVINO model.
        runtime: "onnxruntime" or "openvino", which opens both kinds of files; default: the one that the file is for.
        threads: How many the runtime may use, >= 1; default: its own choice, which is every core.

    Returns:
        A function from images (N, C, *size) float32 to logits (N, K) and maps (N, K, *grid).

    Raises:
        ExportError: If the runtime refuses the file.
        MissingExtraError: If the runtime is not installed.
        ValueError: If `runtime` or `threads` is not as described.
    """
    file = Path(path)
    usual = {".onnx": "onnxruntime", ".xml": "openvino"}
    if file.suffix not in usual:
        raise ExportError(f"Expected a file that ends in .onnx or .xml, but got {file.name!r}.")
    chosen = runtime or usual[file.suffix]
    if chosen not in RUNTIMES or (chosen == "onnxruntime" and file.suffix == ".xml"):
        raise ValueError(f"Expected `runtime` to be one of {RUNTIMES} that opens {file.suffix}, but got {runtime!r}.")
    if threads is not None and threads < 1:
        raise ValueError(f"Expected `threads` to be at least 1, but got {threads}.")
    return _open_onnx(file, threads) if chosen == "onnxruntime" else _open_openvino(file, threads)


@cache
def get_openvino() -> Any:
    """Return the one core of OpenVINO in this process, which compiles models and stays until the process ends.

    OpenVINO gives the thread that first compiles a model a stack for signal handlers, and frees it with the last core
    and model. Where another thread drops that one, the first keeps a pointer to freed memory, and the next signal with
    a handler (Ctrl-C, SIGTERM, the end of a child process) ends the process.

    Raises:
        MissingExtraError: If openvino is not installed.
    """
    return load_library("openvino", extra="openvino").Core()


def _open_onnx(file: Path, threads: int | None) -> Graph:
    runtime = load_library("onnxruntime", extra="onnx")
    options = runtime.SessionOptions()
    if threads is not None:
        options.intra_op_num_threads = threads
        # Between two batches the cores belong to whoever decodes the next one.
        options.add_session_config_entry("session.force_spinning_stop", "1")
    try:
        session: Any = runtime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise _refused("ONNX Runtime", file, error) from error

    def run(images: Array) -> tuple[Array, Array]:
        logits, maps = session.run(list(OUTPUTS), {INPUT: images})
        return logits, maps

    return run


def _open_openvino(file: Path, threads: int | None) -> Graph:
    core = get_openvino()
    # On processors that have bfloat16, OpenVINO would calculate in it unless told not to.
    options: dict[str, Any] = {"INFERENCE_PRECISION_HINT": "f32"}
    if threads is not None:
        # Pinned, several processes with fewer threads than cores would share the first cores and leave the others.
        options |= {"INFERENCE_NUM_THREADS": threads, "ENABLE_CPU_PINNING": False}
    try:
        compiled: Any = core.compile_model(str(file), "CPU", options)
    except Exception as error:
        raise _refused("OpenVINO", file, error) from error

    def run(images: Array) -> tuple[Array, Array]:
        found = compiled({INPUT: images})
        return found[OUTPUTS[0]], found[OUTPUTS[1]]

    return run


def _refused(name: str, file: Path, error: Exception) -> ExportError:
    return ExportError(f"Expected {name} to open {file.name!r}, but it said: {first_line(error)}")
