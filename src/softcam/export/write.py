"""Export a model: open it, write the graph under another name, compare it with the model, give it its name."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from torch import nn

from softcam.export.agreement import measure
from softcam.export.graph import full_precision, write_onnx, write_openvino
from softcam.export.report import ExportReport, Format
from softcam.export.source import Source, open_source
from softcam.files import atomic_files
from softcam.libraries import load_library
from softcam.nn import SoftCAM
from softcam.runs import say_what_the_disk_lacks


def export_onnx(
    source: SoftCAM | str | Path,
    out: str | Path,
    *,
    input_size: Sequence[int] | None = None,
    opset: int | None = None,
    black_box: nn.Module | None = None,
) -> ExportReport:
    """Write a model as one ONNX graph: `images` (N, C, *size) to `logits` (N, K) and `maps` (N, K, *grid).

    The batch size is free, the size of the images is fixed, weights are float32 and the network is in eval mode; the
    source stays as it is. Classes, preprocessing and thresholds are in the file, see `read_metadata`. It gets its name
    only after ONNX has checked it and ONNX Runtime has given what torch gives.

    Args:
        source: A model, or the folder of a bundle.
        out: The file, ending in .onnx; an older one is replaced. Weights of more than 1.5 GB go to `<out>.data`.
        input_size: Height and width of the images in pixels; default: what the bundle's preprocessing makes, or what
            the model was converted with.
        opset: Version of the ONNX operators, from 18; default: the exporter's.
        black_box: For a bundle of a user's own module, that module, as `softcam.load` takes it.

    Returns:
        What was written, with the measured differences.

    Raises:
        ExportError: If the model cannot be exported, or if the file does not agree with it. Nothing is written.
        RunError: If the disk is full. Nothing is written.
        MissingExtraError: If onnx, onnxscript or onnxruntime is not installed.
        ValueError: If `out`, `input_size` or `opset` is not as described.
    """
    path = _check_name(out, ".onnx")
    _require("onnx", "onnxscript", "onnxruntime")
    ready = open_source(source, input_size=input_size, black_box=black_box)
    with say_what_the_disk_lacks(path.parent, room=True), full_precision(), atomic_files(path) as folder:
        staged = folder / path.name
        version = write_onnx(ready.model, staged, ready.shape, metadata=ready.record.to_metadata(), opset=opset)
        return _report(ready, staged, path, form="onnx", opset=version)


def export_openvino(
    source: SoftCAM | str | Path,
    out: str | Path,
    *,
    input_size: Sequence[int] | None = None,
    opset: int | None = None,
    black_box: nn.Module | None = None,
) -> ExportReport:
    """Write a model as an OpenVINO graph, `.xml` and `.bin`, by way of ONNX.

    Inputs, outputs, metadata and checks are those of `export_onnx`; OpenVINO takes the place of ONNX Runtime. Weights
    stay float32.

    Args:
        source: A model, or the folder of a bundle.
        out: The file, ending in .xml; the .bin is put beside it.
        input_size: As in `export_onnx`.
        opset: As in `export_onnx`.
        black_box: As in `export_onnx`.

    Returns:
        As in `export_onnx`; the opset is that of the ONNX graph on the way.

    Raises:
        ExportError: As in `export_onnx`.
        MissingExtraError: If onnx, onnxscript or openvino is not installed.
        ValueError: As in `export_onnx`.
    """
    path = _check_name(out, ".xml")
    _require("onnx", "onnxscript")
    load_library("openvino", extra="openvino")
    ready = open_source(source, input_size=input_size, black_box=black_box)
    with say_what_the_disk_lacks(path.parent, room=True), full_precision(), atomic_files(path) as folder:
        staged, bridge = folder / path.name, folder / "bridge" / "graph.onnx"
        bridge.parent.mkdir()
        version = write_onnx(ready.model, bridge, ready.shape, metadata={}, opset=opset)
        write_openvino(bridge, staged, metadata=ready.record.to_metadata())
        return _report(ready, staged, path, form="openvino", opset=version)


def _report(ready: Source, staged: Path, path: Path, *, form: Format, opset: int) -> ExportReport:
    agreement = measure(ready.model, staged, ready.shape).check()
    files = sorted((file for file in staged.parent.iterdir() if file.is_file()), key=lambda file: file != staged)
    return ExportReport(
        path=path,
        files=tuple(path.with_name(file.name) for file in files),
        bytes=sum(file.stat().st_size for file in files),
        format=form,
        opset=opset,
        agreement=agreement,
        record=ready.record,
        notes=ready.notes,
    )


def _check_name(out: str | Path, suffix: str) -> Path:
    path = Path(out)
    if path.suffix != suffix or path.is_dir():
        raise ValueError(f"Expected `out` to be a file that ends in {suffix}, but got {str(out)!r}.")
    return path


def _require(*packages: str) -> None:
    # Before the work, which takes seconds to minutes.
    for package in packages:
        load_library(package, extra="onnx")
