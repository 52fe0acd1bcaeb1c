from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

import softcam
from softcam.errors import ExportError, MissingExtraError
from softcam.export import ExportReport, export_onnx, export_openvino, graph, open_graph, read_metadata, write
from softcam.export.agreement import Agreement
from softcam.nn import Evidence, SoftCAM, convert

pytestmark = pytest.mark.slow


def check_same(path: Path, model: SoftCAM, images: Tensor) -> None:
    """Compare a file with the model on images that the export has not seen."""
    logits, maps = map(torch.from_numpy, open_graph(path)(images.numpy()))
    with torch.no_grad():
        expected = model.evidence(images)
    torch.testing.assert_close(logits, expected.logits, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(maps, expected.maps, rtol=1e-4, atol=1e-5)
    Evidence(logits, maps).check()


def test_the_graph_has_the_promised_form(exported: ExportReport, model: SoftCAM, images: Tensor) -> None:
    loaded = onnx.load(exported.path)
    shapes = {
        value.name: [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in (*loaded.graph.input, *loaded.graph.output)
    }
    assert shapes == {
        "images": ["batch", 3, 32, 48],
        "logits": ["batch", 3],
        "maps": ["batch", 3, 4, 6],
    }
    check_same(exported.path, model, images)


def test_everything_is_in_one_file(exported: ExportReport) -> None:
    assert [file.name for file in exported.path.parent.iterdir()] == ["model.onnx"]
    assert exported.files == (exported.path,)
    assert exported.bytes == exported.path.stat().st_size
    assert exported.opset == onnx.load(exported.path).opset_import[0].version


def test_the_report_says_what_was_measured(exported: ExportReport) -> None:
    errors = exported.agreement
    assert max(errors.logits, errors.maps, errors.mean) < 1e-5
    assert json.loads(json.dumps(exported.to_dict()))["record"]["grid"] == [4, 6]
    text = str(exported)
    assert "N x 3 x 32 x 48" in text
    assert f"N x 3 x 4 x 6, relative error {errors.maps:.1e}" in text
    assert "note            the preprocessing is not known" in text


def test_dropout_and_batch_statistics_are_left_out(toy: nn.Module, images: Tensor, tmp_path: Path) -> None:
    toy.fc = nn.Sequential(nn.Dropout(0.5), nn.Linear(4, 3))
    model = convert(toy, images=images).train()
    assert model.head.dropout == 0.5
    export_onnx(model, tmp_path / "a.onnx")
    assert all(module.training for module in model.modules())
    operators = {node.op_type for node in onnx.load(tmp_path / "a.onnx").graph.node}
    assert "Conv" in operators
    assert operators.isdisjoint({"Dropout", "RandomUniform", "RandomUniformLike", "Bernoulli"})
    check_same(tmp_path / "a.onnx", model.eval(), images)


def test_large_weights_lie_beside_the_file(
    model: SoftCAM, images: Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(graph, "INLINE_BYTES", 0)
    report = export_onnx(model, tmp_path / "first" / "large.onnx")
    assert [file.name for file in report.files] == ["large.onnx", "large.onnx.data"]
    assert report.bytes == sum(file.stat().st_size for file in report.files)
    shutil.move(tmp_path / "first", tmp_path / "second")
    check_same(tmp_path / "second" / "large.onnx", model, images)
    assert read_metadata(tmp_path / "second" / "large.onnx") == report.record


def test_a_file_that_disagrees_never_gets_its_name(
    model: SoftCAM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "old.onnx").write_text("the old file")
    monkeypatch.setattr(write, "measure", lambda *_: Agreement(0.0, 2e-4, 0.0))
    with pytest.raises(ExportError, match=r"maps of the exported file to agree .* 0.0002. Nothing was written"):
        export_onnx(model, tmp_path / "old.onnx")
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [("old.onnx", "the old file")]


def test_an_older_file_is_replaced(bundle: Path, toy: nn.Module, tmp_path: Path) -> None:
    (tmp_path / "a.onnx").write_text("the old file")
    report = export_onnx(bundle, tmp_path / "a.onnx", input_size=(32, 32), black_box=toy)
    assert read_metadata(tmp_path / "a.onnx") == report.record
    assert report.record.input_size == (32, 32)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a.onnx", "model"]


def test_the_opset_can_be_chosen(model: SoftCAM, tmp_path: Path) -> None:
    assert export_onnx(model, tmp_path / "a.onnx", opset=18).opset == 18
    later = export_onnx(model, tmp_path / "b.onnx", opset=21)
    assert later.opset == onnx.load(later.path).opset_import[0].version == 21


@pytest.mark.parametrize("opset", [17, onnx.defs.onnx_opset_version() + 1, True, 18.5])
def test_an_opset_that_cannot_be_written_is_refused(opset: Any, model: SoftCAM, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"Expected `opset` to be a whole number from 18 to \d+, but got"):
        export_onnx(model, tmp_path / "a.onnx", opset=opset)
    assert list(tmp_path.iterdir()) == []


def test_what_a_caller_has_set_does_not_reach_the_file(model: SoftCAM, images: Tensor, tmp_path: Path) -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16), torch.inference_mode():
        export_onnx(model, tmp_path / "a.onnx")
    check_same(tmp_path / "a.onnx", model, images)
    torch.set_default_dtype(torch.float64)
    try:
        export_onnx(model, tmp_path / "b.onnx")
    finally:
        torch.set_default_dtype(torch.float32)
    check_same(tmp_path / "b.onnx", model, images)


def test_a_bundle_in_half_precision_gives_a_file_in_float32(
    model: SoftCAM, images: Tensor, toy: nn.Module, tmp_path: Path
) -> None:
    softcam.save(model.bfloat16(), tmp_path / "half")
    report = export_onnx(tmp_path / "half", tmp_path / "a.onnx", black_box=toy)
    assert "the weights were bfloat16; the file holds and computes float32" in report.notes
    types = {tensor.data_type for tensor in onnx.load(tmp_path / "a.onnx").graph.initializer}
    assert onnx.TensorProto.FLOAT in types
    assert types.isdisjoint({onnx.TensorProto.BFLOAT16, onnx.TensorProto.FLOAT16})
    check_same(tmp_path / "a.onnx", model.float(), images)


class _Counting(nn.Module):
    """A stem that writes the number of images down."""

    def __init__(self, stem: nn.Module) -> None:
        super().__init__()
        self.stem = stem

    def forward(self, images: Tensor) -> Tensor:
        return self.stem(images).reshape(len(images), 4, 4, 6)


def test_a_fixed_number_of_images_is_refused(toy: nn.Module, images: Tensor, tmp_path: Path) -> None:
    toy.stem = _Counting(toy.stem)
    model = convert(toy, images=images)
    with pytest.raises(ExportError, match=r"takes any number of images|Expected torch to trace"):
        export_onnx(model, tmp_path / "a.onnx")
    assert list(tmp_path.iterdir()) == []


class _Branching(nn.Module):
    """A stem whose path depends on the values of the images."""

    def __init__(self, stem: nn.Module) -> None:
        super().__init__()
        self.stem = stem

    def forward(self, images: Tensor) -> Tensor:
        features = self.stem(images)
        return features * 2 if float(images.sum()) > 0 else features


def test_what_cannot_be_traced_is_refused(toy: nn.Module, images: Tensor, tmp_path: Path) -> None:
    toy.stem = _Branching(toy.stem)
    model = convert(toy, images=images)
    with pytest.raises(ExportError) as caught:
        export_onnx(model, tmp_path / "a.onnx")
    assert list(tmp_path.iterdir()) == []
    assert len(str(caught.value)) < 1000


def test_openvino_gets_the_same_in_float32(model: SoftCAM, images: Tensor, tmp_path: Path) -> None:
    report = export_openvino(model, tmp_path / "model.xml")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["model.bin", "model.xml"]
    assert report.files == (tmp_path / "model.xml", tmp_path / "model.bin")
    assert report.format == "openvino"
    assert 0 < max(report.agreement.logits, report.agreement.maps) < 1e-5
    assert read_metadata(report.path) == report.record
    weights = model.features.network.stem.weight.detach().numpy()  # type: ignore[union-attr]
    assert (tmp_path / "model.bin").stat().st_size >= 4 * sum(part.numel() for part in model.parameters()) - 64
    assert weights.dtype == np.float32
    check_same(report.path, model, images)


@pytest.mark.parametrize(
    ("export", "name"), [(export_onnx, "a.xml"), (export_onnx, "a"), (export_openvino, "a.onnx"), (export_onnx, ".")]
)
def test_another_suffix_is_refused(export: object, name: str, model: SoftCAM, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"Expected `out` to be a file that ends in \.(onnx|xml), but got"):
        export(model, tmp_path / name)  # type: ignore[operator]


def test_a_folder_of_that_name_is_refused(model: SoftCAM, tmp_path: Path) -> None:
    (tmp_path / "a.onnx").mkdir()
    with pytest.raises(ValueError, match="Expected `out` to be a file"):
        export_onnx(model, tmp_path / "a.onnx")


@pytest.mark.parametrize("package", ["onnx", "onnxscript", "onnxruntime"])
def test_missing_packages_are_named_before_the_work(
    package: str, model: SoftCAM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtraError, match=rf"'{package}' to be installed\. Run: pip install 'softcam\[onnx\]'"):
        export_onnx(model, tmp_path / "x" / "a.onnx")
    assert list(tmp_path.iterdir()) == []


def test_missing_openvino_is_named(model: SoftCAM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'softcam\[openvino\]'"):
        export_openvino(model, tmp_path / "a.xml")


@pytest.mark.parametrize(("name", "runtime"), [("a.onnx", "ONNX Runtime"), ("a.xml", "OpenVINO")])
def test_a_damaged_file_is_refused_by_the_runtime(name: str, runtime: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text("<no graph>")
    with pytest.raises(ExportError, match=f"Expected {runtime} to open '{name}', but it said"):
        open_graph(tmp_path / name)
    with pytest.raises(ExportError, match=r"ends in \.onnx or \.xml"):
        open_graph(tmp_path / "a.pt")
