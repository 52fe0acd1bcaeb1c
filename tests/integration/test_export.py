"""`softcam export` as a user calls it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

import softcam
from softcam.cli import main
from softcam.export import read_metadata


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    model = softcam.convert(softcam.create_black_box("timm:test_resnet", num_classes=2).eval())
    return softcam.save(model, tmp_path_factory.mktemp("model") / "model", classes=["intact", "cracked"])


def test_a_model_becomes_one_onnx_file(bundle: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "model.onnx"
    assert main(["export", str(bundle), "--out", str(out), "--size", "64", "96", "--json"]) == 0
    printed, messages = capfd.readouterr()
    report = json.loads(printed)
    assert messages == ""
    assert report["record"]["classes"] == ["intact", "cracked"]
    assert report["agreement"]["maps"] < 1e-4
    assert [file.name for file in tmp_path.iterdir()] == ["model.onnx"]
    session = onnxruntime.InferenceSession(out)
    logits, maps = session.run(["logits", "maps"], {"images": np.ones((5, 3, 64, 96), np.float32)})
    assert (logits.shape, maps.shape) == ((5, 2), (5, 2, 2, 3))
    assert np.allclose(maps.mean((2, 3)), logits, rtol=1e-4, atol=1e-5)


def test_a_model_becomes_an_openvino_model(bundle: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("openvino", reason="OpenVINO comes with the extra `openvino`")
    out = tmp_path / "model.xml"
    assert main(["export", str(bundle), "--format", "openvino", "--out", str(out)]) == 0
    printed = capfd.readouterr().out
    assert "model.bin" in printed
    assert "images          N x 3 x 160 x 160" in printed
    assert read_metadata(out).input_size == (160, 160)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--out", "model.pt"], "ends in .onnx"),
        (["--out", "model.onnx", "--size", "64"], "2 positive whole numbers"),
        (["--out", "model.onnx", "--format", "tflite"], "invalid choice"),
        ([], "required"),
    ],
)
def test_bad_usage_is_one_line_and_exit_code_2(
    arguments: list[str], message: str, bundle: Path, tmp_path: Path,
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    assert main(["export", str(bundle), *arguments]) == 2
    printed, messages = capfd.readouterr()
    assert printed == ""
    assert message in messages
    assert len(messages.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_no_model_is_refused(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["export", str(tmp_path), "--out", str(tmp_path / "model.onnx")]) == 2
    assert "Expected a model folder" in capfd.readouterr().err
