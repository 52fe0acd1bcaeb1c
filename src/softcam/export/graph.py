"""From torch to a graph on disk."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import torch

from softcam.errors import ExportError
from softcam.export.failures import first_line
from softcam.export.record import PREFIX
from softcam.export.runtime import INPUT, OUTPUTS
from softcam.libraries import load_library
from softcam.nn import SoftCAM

INLINE_BYTES = 1_500_000_000
"""Size of the weights up to which an ONNX file holds them itself; its format ends at 2 GiB, constants included."""

LOWEST_OPSET = 18
"""Torch's exporter is written in this version; a later one is converted from it, which fails for an earlier one."""

TRACED_BATCH = 2


def write_onnx(
    model: SoftCAM, path: Path, shape: Sequence[int], *, metadata: Mapping[str, str], opset: int | None = None
) -> int:
    """Write a model as one ONNX graph with any batch size, and let ONNX check it.

    Args:
        model: The model in eval mode, on the CPU.
        path: The file; weights of more than 1.5 GB go to `<path>.data` beside it.
        shape: (C, *size) of the images.
        metadata: Texts to be kept in the file.
        opset: Version of the operators, from 18; default: the exporter's.

    Returns:
        The version of the operators.

    Raises:
        ExportError: If the model cannot be traced or written, or if the graph is not valid.
        ValueError: If there is no such opset.
    """
    onnx = load_library("onnx", extra="onnx")
    _check_opset(opset, onnx.defs.onnx_opset_version())
    program = _trace(model, shape, opset)
    program.model.metadata_props.update(metadata)
    found = int(program.model.opset_imports[""])
    weights = sum(tensor.numel() * tensor.element_size() for tensor in model.state_dict().values())
    program.save(path, external_data=weights > INLINE_BYTES)
    try:
        onnx.checker.check_model(str(path), full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ExportError(f"Expected a valid ONNX graph, but: {first_line(error)}") from error
    return found


def write_openvino(onnx_path: Path, path: Path, *, metadata: Mapping[str, str]) -> None:
    """Write the graph of an ONNX file as OpenVINO's `.xml` and `.bin`, with all weights in float32.

    Args:
        onnx_path: The ONNX file.
        path: The `.xml` file; the `.bin` is put beside it.
        metadata: Texts to be kept in the file, under `softcam`.

    Raises:
        ExportError: If OpenVINO cannot convert the graph.
    """
    openvino = load_library("openvino", extra="openvino")
    try:
        graph = openvino.convert_model(str(onnx_path))
        for name, text in metadata.items():
            graph.set_rt_info(text, ["softcam", name.removeprefix(PREFIX)])
        openvino.save_model(graph, str(path), compress_to_fp16=False)
    except Exception as error:
        raise ExportError(f"Expected OpenVINO to convert the graph, but it said: {first_line(error)}") from error


def full_precision() -> AbstractContextManager[None]:
    """Return a context without autocast: a graph that is traced under a caller's would hold its casts."""
    return torch.autocast("cpu", enabled=False)


def _check_opset(opset: int | None, newest: int) -> None:
    # Before the trace: what the exporter cannot convert, it logs with a traceback and leaves as it was.
    if opset is not None and (isinstance(opset, bool) or opset not in range(LOWEST_OPSET, newest + 1)):
        raise ValueError(
            f"Expected `opset` to be a whole number from {LOWEST_OPSET} to {newest}, but got {opset!r}. "
            "A later onnx knows later versions."
        )


def _trace(model: SoftCAM, shape: Sequence[int], opset: int | None) -> torch.onnx.ONNXProgram:
    try:
        with torch.no_grad():
            program = torch.onnx.export(
                model.with_evidence(),
                (torch.zeros(TRACED_BATCH, *shape, dtype=torch.float32, device="cpu"),),
                input_names=[INPUT],
                output_names=list(OUTPUTS),
                opset_version=opset,
                dynamic_shapes=({0: torch.export.Dim("batch")},),
                dynamo=True,
                verbose=False,
            )
    except Exception as error:
        cause = error.__cause__ or error
        raise ExportError(
            f"Expected torch to trace the model, but {type(cause).__name__}: {first_line(cause)}"
        ) from error
    return _check_program(program, opset)


def _check_program(program: torch.onnx.ONNXProgram | None, opset: int | None) -> torch.onnx.ONNXProgram:
    # The exporter rather gives something else than what was asked for than nothing.
    if program is None:
        raise ExportError("Expected torch to return the ONNX graph, but got none.")
    shapes = [value.shape for value in (*program.model.graph.inputs, *program.model.graph.outputs)]
    if fixed := [shape[0] for shape in shapes if shape is not None and isinstance(shape[0], int)]:
        raise ExportError(
            f"Expected a graph that takes any number of images, but the model fixes it at {fixed[0]}. "
            "Look for `len(...)` or a number of images written down in its forward."
        )
    found = program.model.opset_imports[""]
    if opset not in (None, found):
        raise ExportError(f"Expected operators of version {opset}, but the exporter gave {found}. Choose another.")
    return program
