"""`softcam export`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser

from softcam.cli.console import show, show_json

SUMMARY = "Write a model as one graph with two outputs, logits and maps, for ONNX Runtime or OpenVINO"
EXAMPLES = """\
  softcam export model --out model.onnx
  softcam export model --out model.onnx --size 320 320 --json
  softcam export model --format openvino --out model.xml
"""


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the flags."""
    parser.add_argument("model", type=Path, help="model folder")
    parser.add_argument("--format", choices=["onnx", "openvino"], default="onnx", help="what to write")
    parser.add_argument("--out", type=Path, required=True, help="file that ends in .onnx, or in .xml for OpenVINO")
    parser.add_argument("--size", type=int, nargs="+", default=None, help="height and width of the images in pixels")
    parser.add_argument("--opset", type=int, default=None, help="version of the ONNX operators")
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    parser.add_argument("--config", action="config", help="YAML file with these options")


def run(options: Any) -> int:
    """Export, compare with the model, print the report."""
    from softcam.bundle import find_bundle
    from softcam.export import export_onnx, export_openvino

    write = export_openvino if options.format == "openvino" else export_onnx
    report = write(find_bundle(options.model), options.out, input_size=options.size, opset=options.opset)
    if options.json:
        show_json(report.to_dict())
    else:
        show(str(report))
    return 0
