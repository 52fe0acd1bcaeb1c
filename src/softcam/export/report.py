"""What an export wrote, and how well it agrees with the model."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from softcam.export.agreement import BATCHES, Agreement
from softcam.export.record import ExportRecord

Format = Literal["onnx", "openvino"]


@dataclass(frozen=True)
class ExportReport:
    """An exported model.

    Args:
        path: The file to open.
        files: All files that belong together, `path` first.
        bytes: Their size.
        format: `onnx` or `openvino`.
        opset: Version of the ONNX operators.
        agreement: Largest relative errors against the model, measured on noise with batches of 1 and 3 images.
        record: What the file says about itself.
        notes: What else a user should know.
    """

    path: Path
    files: tuple[Path, ...]
    bytes: int
    format: Format
    opset: int
    agreement: Agreement
    record: ExportRecord
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON-ready values."""
        values = asdict(self)
        paths = {"path": str(self.path), "files": [str(file) for file in self.files]}
        return values | paths | {"notes": list(self.notes), "record": _plain(values["record"])}

    def __str__(self) -> str:
        record, errors = self.record, self.agreement
        size, grid, batches = _by(record.input_size), _by(record.grid), " and ".join(map(str, BATCHES))
        lines = [
            f"file            {', '.join(map(str, self.files))} ({self.bytes / 1e6:.1f} MB, opset {self.opset})",
            f"images          N x {record.channels} x {size}, float32, any batch size",
            f"logits          N x {len(record.classes)}, relative error {errors.logits:.1e}",
            f"maps            N x {len(record.classes)} x {grid}, relative error {errors.maps:.1e}",
            f"mean of maps    is the logits within {errors.mean:.1e} ({batches} images of noise)",
        ]
        return "\n".join(lines + [f"note            {note}" for note in self.notes])


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}


def _by(sizes: tuple[int, ...]) -> str:
    return " x ".join(map(str, sizes))
