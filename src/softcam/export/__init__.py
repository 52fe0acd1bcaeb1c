"""A model as one graph for ONNX Runtime or OpenVINO, with two outputs: logits and evidence maps."""

from __future__ import annotations

from typing import TYPE_CHECKING

from softcam.libraries import lazy_names

if TYPE_CHECKING:
    from softcam.export.compiled import compile_forward
    from softcam.export.kept import KeptGraph, keep_graph
    from softcam.export.record import ExportRecord, read_metadata
    from softcam.export.report import ExportReport
    from softcam.export.runtime import open_graph
    from softcam.export.write import export_onnx, export_openvino

# Lazy, since whoever runs an exported file may have no torch.
_HOMES = {
    "ExportRecord": "record",
    "ExportReport": "report",
    "KeptGraph": "kept",
    "compile_forward": "compiled",
    "export_onnx": "write",
    "export_openvino": "write",
    "keep_graph": "kept",
    "open_graph": "runtime",
    "read_metadata": "record",
}

__all__ = [
    "ExportRecord",
    "ExportReport",
    "KeptGraph",
    "compile_forward",
    "export_onnx",
    "export_openvino",
    "keep_graph",
    "open_graph",
    "read_metadata",
]

__getattr__, __dir__ = lazy_names(__name__, _HOMES)
