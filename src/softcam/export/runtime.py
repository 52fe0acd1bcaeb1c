"""Run an exported file: images in, logits and maps out, as numpy arrays and without torch."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache, cached_property, partial
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Protocol

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
    opener: _Opener = partial(_open_onnx if chosen == "onnxruntime" else _open_openvino, file)
    return opener(threads, 1) if threads in (None, 1) else _SideBySide(opener, threads)


class _Opener(Protocol):
    """Opens a file for so many threads, shared evenly by so many calls at a time."""

    def __call__(self, threads: int | None, calls: int) -> Graph: ...


class _SideBySide:
    """As many parts of a batch at a time as there are threads; a smaller batch on all threads together.

    Threads that compute an image together wait for the slowest of them at every layer. Apart, one that has to give way
    to whoever decodes the next images holds up no other.
    """

    def __init__(self, opener: _Opener, threads: int) -> None:
        self._opener, self._threads = opener, threads
        self._apart = opener(threads, threads)
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="softcam-graph")

    @cached_property
    def _together(self) -> Graph:
        return self._opener(self._threads, 1)

    def __call__(self, images: Array) -> tuple[Array, Array]:
        if len(images) < self._threads:
            return self._together(images)
        found = self._pool.map(self._apart, np.array_split(images, self._threads))
        logits, maps = (np.concatenate(parts) for parts in zip(*found, strict=True))
        return logits, maps


_FIRST = threading.Lock()


def get_openvino() -> Any:
    """Return the one core of OpenVINO in this process, which compiles models and stays until the process ends.

    OpenVINO gives the thread that first compiles a model a stack for signal handlers, and frees it with the last core
    and model. Where another thread drops that one, the first keeps a pointer to freed memory, and the next signal with
    a handler (Ctrl-C, SIGTERM, the end of a child process) ends the process.

    Its first inference sets up what later ones share, and two threads that run it at the same time wait for each other
    for ever: one has the interpreter's lock, the other what is being set up. So it is run here, by one thread.

    Raises:
        MissingExtraError: If openvino is not installed.
    """
    with _FIRST:
        return _start_openvino()


@cache
def _start_openvino() -> Any:
    openvino = load_library("openvino", extra="openvino")
    core = openvino.Core()
    image = openvino.opset8.parameter([1, 1], np.float32)
    compiled = core.compile_model(openvino.Model([openvino.opset8.relu(image)], [image]), "CPU")
    compiled.create_infer_request().infer({0: np.zeros((1, 1), np.float32)})[0].copy()
    return core


def _open_onnx(file: Path, threads: int | None, calls: int) -> Graph:
    runtime = load_library("onnxruntime", extra="onnx")
    options = runtime.SessionOptions()
    if threads is not None:
        options.intra_op_num_threads = threads // calls
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


def _open_openvino(file: Path, threads: int | None, calls: int) -> Graph:
    core = get_openvino()
    # On processors that have bfloat16, OpenVINO would calculate in it unless told not to.
    options: dict[str, Any] = {"INFERENCE_PRECISION_HINT": "f32", "NUM_STREAMS": calls}
    if threads is not None:
        # Pinned, several processes with fewer threads than cores would share the first cores and leave the others.
        options |= {"INFERENCE_NUM_THREADS": threads, "ENABLE_CPU_PINNING": False}
    try:
        compiled: Any = core.compile_model(str(file), "CPU", options)
    except Exception as error:
        raise _refused("OpenVINO", file, error) from error
    requests: SimpleQueue[Any] = SimpleQueue()
    for _ in range(calls):
        requests.put(compiled.create_infer_request())

    def run(images: Array) -> tuple[Array, Array]:
        request = requests.get()
        try:
            found = request.infer({INPUT: images})
            # Copies, since the next call uses the same memory.
            return found[OUTPUTS[0]].copy(), found[OUTPUTS[1]].copy()
        finally:
            requests.put(request)

    return run


def _refused(name: str, file: Path, error: Exception) -> ExportError:
    return ExportError(f"Expected {name} to open {file.name!r}, but it said: {first_line(error)}")
