from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
import pytest

from softcam.errors import ExportError, MissingExtraError
from softcam.export import ExportRecord, ExportReport, read_metadata

RECORD = ExportRecord(
    classes=("intact", "zerstört"),
    task="multiclass",
    head="linear",
    fingerprint="ab" * 32,
    channels=1,
    input_size=(64, 96),
    grid=(2, 3),
    map_stride=(32, 32),
    preprocessing={"size": 64, "mean": [0.5]},
    thresholds={"zerstört": 0.25},
    versions={"torch": "2.4.0"},
)


def test_a_record_is_one_json_text_per_field() -> None:
    metadata = RECORD.to_metadata()
    assert metadata["softcam.grid"] == "[2, 3]"
    assert json.loads(metadata["softcam.classes"]) == ["intact", "zerstört"]
    assert len(metadata) == 12
    assert ExportRecord.from_metadata(metadata) == RECORD


def test_a_calibration_travels_with_the_file() -> None:
    record = replace(RECORD, calibration={"temperature": 1.5, "n": 9, "thresholds": {}, "quantile": None})
    assert ExportRecord.from_metadata(record.to_metadata()) == record
    with pytest.raises(ExportError, match="`calibration` to be an object or null"):
        replace(RECORD, calibration=1.5)  # type: ignore[arg-type]


def test_keys_of_others_are_passed_over() -> None:
    assert ExportRecord.from_metadata(RECORD.to_metadata() | {"author": "not JSON"}) == RECORD


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"softcam.format_version": "2"}, r"`format_version` 1, but got 2"),
        ({"softcam.colour": "1"}, r"these differ: \['colour'\]"),
        ({"softcam.grid": "[2,"}, "to be JSON"),
        ({"softcam.grid": "[2, 0]"}, r"`grid` to be whole numbers of at least 1, but got \(2, 0\)"),
    ],
)
def test_other_metadata_is_refused(change: dict[str, str], message: str) -> None:
    with pytest.raises(ExportError, match=message):
        ExportRecord.from_metadata(RECORD.to_metadata() | change)


def test_missing_metadata_is_refused() -> None:
    metadata = RECORD.to_metadata()
    del metadata["softcam.task"]
    with pytest.raises(ExportError, match=r"these differ: \['task'\]"):
        ExportRecord.from_metadata(metadata)
    with pytest.raises(ExportError, match=r"but got None. Was the file written by `softcam export`"):
        ExportRecord.from_metadata({})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("classes", ()),
        ("classes", ("a", "a")),
        ("classes", ("a", " ")),
        ("task", "regression"),
        ("head", ""),
        ("fingerprint", None),
        ("channels", 0),
        ("channels", True),
        ("input_size", (64, 96.0)),
        ("map_stride", ()),
        ("preprocessing", [1]),
        ("thresholds", {"intact": 1.01}),
        ("versions", {"torch": 2}),
    ],
)
def test_values_that_no_model_has_are_refused(name: str, value: Any) -> None:
    with pytest.raises(ExportError, match=f"Expected `{name}` to be"):
        replace(RECORD, **{name: value})


def test_a_file_is_read_without_torch(exported: ExportReport) -> None:
    assert read_metadata(exported.path) == exported.record
    program = (
        "import sys; from softcam.export import read_metadata; print(read_metadata(sys.argv[1]).grid); "
        "print(sorted({'torch', 'numpy.random', 'onnxruntime'} & set(sys.modules) - {'numpy.random'}))"
    )
    done = subprocess.run([sys.executable, "-c", program, exported.path], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["(4, 6)", "[]"]


@pytest.mark.parametrize("name", ["model.onnx", "model.xml"])
def test_a_file_that_is_absent_or_damaged_is_named(name: str, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=f"Expected '{name}' to be a whole exported model, but FileNotFoundError"):
        read_metadata(tmp_path / name)
    (tmp_path / name).write_bytes(b"\xffno graph")
    with pytest.raises(ExportError, match=f"Expected '{name}' to be a whole exported model, but"):
        read_metadata(tmp_path / name)


def test_a_file_of_others_is_refused(tmp_path: Path) -> None:
    onnx.save(onnx.helper.make_model(onnx.helper.make_graph([], "empty", [], [])), tmp_path / "other.onnx")
    with pytest.raises(ExportError, match="Was the file written by `softcam export`"):
        read_metadata(tmp_path / "other.onnx")
    (tmp_path / "other.xml").write_text("<net><layers/></net>")
    with pytest.raises(ExportError, match="Was the file written by `softcam export`"):
        read_metadata(tmp_path / "other.xml")
    with pytest.raises(ExportError, match=r"ends in \.onnx or \.xml, but got 'model.pt'"):
        read_metadata(tmp_path / "model.pt")


def test_the_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(MissingExtraError, match=r"'onnx' to be installed\. Run: pip install 'softcam\[onnx\]'"):
        read_metadata("model.onnx")
