"""What an exported file says about itself: enough to prepare images for it and to name what comes out."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

from softcam.errors import ExportError
from softcam.libraries import load_library

FORMAT_VERSION = 1
PREFIX = "softcam."

_LEFT_OUT = frozenset({"calibration"})


@dataclass(frozen=True)
class ExportRecord:
    """The metadata of an exported model.

    Args:
        classes: Class names in the order of the logits.
        task: `multiclass` (softmax of the logits) or `multilabel` (sigmoid).
        head: Kind of class evidence layer, e.g. `linear`.
        fingerprint: SHA-256 of the tensors of the model that was exported, as its bundle has it.
        channels: C, channels of the images.
        input_size: Size of the images in pixels, (H, W), which is fixed in the graph.
        grid: Cells of a map, (h, w).
        map_stride: Input pixels from one cell to the next, vertically and horizontally.
        preprocessing: `softcam.imaging.Preprocessing` as a dictionary, complete; None if unknown. It makes squares, so
            that where `input_size` is none, images have to be resized to that instead.
        thresholds: Probability from which a class is reported, by class name.
        versions: Versions of softcam, and of the libraries that were installed when the file was written.
        format_version: Version of this record.
        calibration: `softcam.bundle.Calibration` as a dictionary; None for a model without one. The logits of the graph
            are raw: divide them by its `temperature` before softmax or sigmoid, and then apply `thresholds`.

    Raises:
        ExportError: If a value is not as described.
    """

    classes: tuple[str, ...]
    task: str
    head: str
    fingerprint: str
    channels: int
    input_size: tuple[int, ...]
    grid: tuple[int, ...]
    map_stride: tuple[int, ...]
    preprocessing: dict[str, Any] | None = None
    thresholds: dict[str, float] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    format_version: int = FORMAT_VERSION
    calibration: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        """Refuse values that no exported model can have."""
        for name, (holds, constraint) in _CONSTRAINTS.items():
            if not holds(getattr(self, name)):
                shown = repr(getattr(self, name))[:80]
                raise ExportError(f"Expected `{name}` to be {constraint}, but got {shown}. Export the model again.")

    def to_metadata(self) -> dict[str, str]:
        """Return one JSON text per field, under its name with the prefix `softcam.`; no calibration where none is."""
        values = {name: value for name, value in asdict(self).items() if name not in _LEFT_OUT or value is not None}
        return {f"{PREFIX}{name}": json.dumps(value, allow_nan=False) for name, value in values.items()}

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, str]) -> ExportRecord:
        """Return the record that `to_metadata` gave; keys without the prefix belong to others and are passed over.

        Raises:
            ExportError: If a key is missing or unknown, or a value is not as described.
        """
        try:
            values = {
                key.removeprefix(PREFIX): json.loads(text) for key, text in metadata.items() if key.startswith(PREFIX)
            }
        except ValueError as error:
            raise ExportError(f"Expected the metadata of the file to be JSON, but {error}.") from error
        # The version comes first: the keys of another version would only mislead.
        if values.get("format_version") != FORMAT_VERSION:
            raise ExportError(
                f"Expected metadata of `format_version` {FORMAT_VERSION}, but got {values.get('format_version')!r}. "
                "Was the file written by `softcam export`, and by this version?"
            )
        names = {entry.name for entry in fields(cls)}
        if names != values.keys() | _LEFT_OUT:
            differ = sorted(names ^ (values.keys() | _LEFT_OUT))
            raise ExportError(f"Expected the metadata {sorted(names)}, but these differ: {differ}.")
        restored: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in values.items()
        }
        return cls(**restored)


def read_metadata(path: str | Path) -> ExportRecord:
    """Read what an exported file says about itself, without torch and without building the graph.

    Args:
        path: The `.onnx` file, or the `.xml` of an OpenVINO model.

    Raises:
        ExportError: If the file cannot be read or was not written by softcam.
        MissingExtraError: If the package onnx is needed and not installed.
    """
    file = Path(path)
    if file.suffix not in _READERS:
        raise ExportError(f"Expected a file that ends in .onnx or .xml, but got {file.name!r}.")
    return ExportRecord.from_metadata(_READERS[file.suffix](file))


def _read_onnx(file: Path) -> dict[str, str]:
    onnx = load_library("onnx", extra="onnx")
    protobuf = load_library("google.protobuf.message", package="protobuf", extra="onnx")
    try:
        model = onnx.load(file, load_external_data=False)
    except (OSError, protobuf.DecodeError) as error:
        raise _unreadable(file, error) from error
    return {entry.key: entry.value for entry in model.metadata_props}


def _read_openvino(file: Path) -> dict[str, str]:
    try:
        found = ET.parse(file).find("rt_info/softcam")  # noqa: S314 - a local file; expat bounds the expansion
    except (OSError, ET.ParseError) as error:
        raise _unreadable(file, error) from error
    return {f"{PREFIX}{entry.tag}": entry.get("value", "") for entry in ([] if found is None else found)}


def _unreadable(file: Path, error: Exception) -> ExportError:
    return ExportError(f"Expected {file.name!r} to be a whole exported model, but {type(error).__name__}: {error}.")


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _are_texts(value: object) -> bool:
    return isinstance(value, tuple) and bool(value) and all(map(_is_text, value)) and len(set(value)) == len(value)


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _are_counts(value: object) -> bool:
    return isinstance(value, tuple) and bool(value) and all(map(_is_count, value))


def _are_probabilities(value: object) -> bool:
    return isinstance(value, dict) and all(
        isinstance(entry, int | float) and 0 <= entry <= 1 for entry in value.values()
    )


_READERS: dict[str, Callable[[Path], dict[str, str]]] = {".onnx": _read_onnx, ".xml": _read_openvino}

_CONSTRAINTS: dict[str, tuple[Callable[[object], bool], str]] = {
    "format_version": (lambda value: value == FORMAT_VERSION, str(FORMAT_VERSION)),
    "classes": (_are_texts, "unique, non-empty names"),
    "task": (lambda value: value in ("multiclass", "multilabel"), "'multiclass' or 'multilabel'"),
    "head": (_is_text, "a name"),
    "fingerprint": (_is_text, "a digest"),
    "channels": (_is_count, "a whole number of at least 1"),
    "input_size": (_are_counts, "whole numbers of at least 1"),
    "grid": (_are_counts, "whole numbers of at least 1"),
    "map_stride": (_are_counts, "whole numbers of at least 1"),
    "preprocessing": (lambda value: value is None or isinstance(value, dict), "an object or null"),
    "thresholds": (_are_probabilities, "an object of probabilities in [0, 1]"),
    "versions": (lambda value: isinstance(value, dict) and all(map(_is_text, value.values())), "an object of texts"),
    "calibration": (lambda value: value is None or isinstance(value, dict), "an object or null"),
}
