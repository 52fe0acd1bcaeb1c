"""A model as one graph for ONNX Runtime or OpenVINO, with two outputs: logits and evidence maps."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from softcam.export.compiled import compile_forward
    from softcam.export.kept import KeptGraph, keep_graph
    from softcam.export.record import ExportRecord, read_metadata
    from softcam.export.report import ExportReport
    from softcam.export.runtime import open_graph
    from softcam.export.write import export_onnx, export_openvino

# Lazy, since whoever runs an exported file may have no torch.
_HOMES = {
    "ExportRecord": "softcam.export.record",
    "ExportReport": "softcam.export.report",
    "KeptGraph": "softcam.export.kept",
    "compile_forward": "softcam.export.compiled",
    "export_onnx": "softcam.export.write",
    "export_openvino": "softcam.export.write",
    "keep_graph": "softcam.export.kept",
    "open_graph": "softcam.export.runtime",
    "read_metadata": "softcam.export.record",
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


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
