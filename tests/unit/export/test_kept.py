from __future__ import annotations

import gc
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import softcam
from softcam.errors import ExportError, SoftCAMWarning
from softcam.export import KeptGraph, keep_graph, open_graph
from softcam.nn import SoftCAM

pytest.importorskip("onnxscript")
SIZE = (32, 48)


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> None:
    """The graph is a word."""

    def write(model: SoftCAM, path: Path, shape: Any, **options: Any) -> int:
        assert shape == (3, *SIZE)
        path.write_text("graph")
        return 18

    monkeypatch.setattr("softcam.export.kept.write_onnx", write)


def test_a_graph_lies_in_its_bundle_and_harms_nothing(bundle: Path, model: SoftCAM, toy: nn.Module) -> None:
    pytest.importorskip("onnxruntime")
    kept = keep_graph(bundle, SIZE)
    assert kept.find() is None
    path = kept.make(model, SIZE)
    assert path == kept.find() == bundle / "exports" / kept.name
    assert [entry.name for entry in path.parent.iterdir()] == [kept.name]
    images = torch.randn(2, 3, *SIZE)
    logits, _ = open_graph(path)(images.numpy())
    with torch.no_grad():
        torch.testing.assert_close(torch.from_numpy(logits), model(images), rtol=1e-4, atol=1e-5)
    assert softcam.load(bundle, model=toy).num_classes == 3
    # A bundle that is saved anew has other weights, and its graph goes.
    softcam.save(model, bundle)
    assert not (bundle / "exports").exists()


def test_the_name_tells_models_sizes_and_versions_apart(bundle: Path, model: SoftCAM, monkeypatch: Any) -> None:
    names = [keep_graph(bundle, SIZE).name, keep_graph(bundle, (48, 32)).name]
    config = json.loads((bundle / "config.json").read_text())
    assert names[0].startswith(f"{config['fingerprint'][:12]}-32x48-")
    # The same tensors, described otherwise, are another model.
    config["task"] = "multilabel"
    (bundle / "config.json").write_text(json.dumps(config))
    names.append(keep_graph(bundle, SIZE).name)
    monkeypatch.setattr("softcam.export.kept.installed_versions", lambda _: {"torch": "9"})
    names.append(keep_graph(bundle, SIZE).name)
    assert len(set(names)) == 4


def test_a_folder_that_cannot_be_written_gives_way_to_the_users(
    bundle: Path, model: SoftCAM, written: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (bundle / "exports").write_text("in the way")
    kept = keep_graph(bundle, SIZE)
    with pytest.warns(SoftCAMWarning, match=r"cannot be written .*exports.* It is in .*cache.softcam.exports instead"):
        path = kept.make(model, SIZE)
    assert path == kept.find() == tmp_path / "cache" / "softcam" / "exports" / kept.name
    kept.write_notes({"backend": "torch"})
    assert keep_graph(bundle, SIZE).read_notes() == {"backend": "torch"}
    kept.discard()
    assert kept.find() is None
    assert kept.read_notes() == {}


def test_no_folder_at_all_is_an_error(
    bundle: Path, model: SoftCAM, written: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cache").write_text("in the way")
    (bundle / "exports").write_text("in the way")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with pytest.raises(ExportError, match=r"none can be written: .*Set XDG_CACHE_HOME"):
        keep_graph(bundle, SIZE).make(model, SIZE)


def test_a_full_disk_leaves_nothing_behind(
    bundle: Path, model: SoftCAM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_model: SoftCAM, path: Path, _shape: Any, **_: Any) -> int:
        path.write_text("half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("softcam.export.kept.write_onnx", full)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with pytest.raises(ExportError, match="No space left on device"):
        keep_graph(bundle, SIZE).make(model, SIZE)
    assert list((bundle / "exports").iterdir()) == []


@pytest.mark.parametrize("content", ["", "[1]", '{"backend": '])
def test_notes_that_cannot_be_read_count_as_none(bundle: Path, model: SoftCAM, written: None, content: str) -> None:
    kept = keep_graph(bundle, SIZE)
    kept.write_notes({"lost": True})
    assert kept.read_notes() == {}
    path = kept.make(model, SIZE)
    kept.write_notes({"backend": "torch"})
    assert kept.read_notes() == {"backend": "torch"}
    path.with_suffix(".json").write_text(content)
    assert kept.read_notes() == {}


def test_the_graph_of_a_model_without_a_bundle_goes_with_it(model: SoftCAM, written: None) -> None:
    kept = keep_graph(None, SIZE)
    assert not kept.folders[0].exists()
    path = kept.make(model, SIZE)
    assert path.is_file()
    assert keep_graph(None, SIZE).find() is None
    del kept
    gc.collect()
    assert not path.parent.exists()


def test_versions_of_both_runtimes_open_the_same_file(model: SoftCAM) -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("openvino")
    kept = KeptGraph("a.onnx", keep_graph(None, SIZE).folders)
    path = kept.make(model, SIZE)
    images = torch.randn(2, 3, *SIZE).numpy()
    one, other = (open_graph(path, runtime=name, threads=1)(images) for name in ("onnxruntime", "openvino"))
    for first, second in zip(one, other, strict=True):
        torch.testing.assert_close(torch.from_numpy(first), torch.from_numpy(second), rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match="`runtime` to be one of"):
        open_graph(path, runtime="tvm")
    with pytest.raises(ValueError, match=r"opens \.xml"):
        open_graph("a.xml", runtime="onnxruntime")
    with pytest.raises(ValueError, match="`threads` to be at least 1, but got 0"):
        open_graph(path, threads=0)
    kept.discard()
    path.parent.rmdir()


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_batches_of_any_size_are_shared_by_threads(runtime: str, model: SoftCAM, tmp_path: Path) -> None:
    pytest.importorskip(runtime)
    pytest.importorskip("onnxscript")
    path = KeptGraph("a.onnx", [tmp_path]).make(model, SIZE)
    images = torch.randn(8, 3, *SIZE, generator=torch.Generator().manual_seed(0)).numpy()
    alone, shared = (open_graph(path, runtime=runtime, threads=threads) for threads in (1, 3))
    kept = []
    for count in (1, 2, 3, 4, 8):
        expected, found = alone(images[:count]), shared(images[:count])
        kept.append((expected, found, [array.copy() for array in found]))
    for expected, found, then in kept:
        for first, second, third in zip(expected, found, then, strict=True):
            assert first.shape == second.shape
            torch.testing.assert_close(torch.from_numpy(first), torch.from_numpy(second), rtol=1e-4, atol=1e-5)
            assert (second == third).all()  # nothing is overwritten by the next call
