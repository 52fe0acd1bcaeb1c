"""Every backend gives the same predictions and the same evidence, whatever the class evidence layer."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import softcam
from softcam.backbones import create_black_box
from softcam.export import keep_graph
from softcam.imaging import Preprocessing
from softcam.nn import convert
from softcam.predict import Predictor

CASES: Mapping[str, tuple[str, int, Mapping[str, Any]]] = {
    "resnet": ("timm:test_resnet", 64, {}),
    "efficientnet-lite0": ("timm:tf_efficientnet_lite0", 64, {}),
    "convnext": ("timm:test_convnext", 64, {}),
    "vit": ("timm:test_vit", 160, {"exact": False}),
    "vgg": ("torchvision:alexnet", 224, {"head": "fully_convolutional"}),
    "scales": ("torchvision:resnet18", 64, {"at": (16, 32), "num_classes": 3}),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_all_backends_agree(case: str, tmp_path: Path) -> None:
    for package in ("onnxscript", "onnxruntime", "openvino"):
        pytest.importorskip(package)
    name, size, options = CASES[case]
    torch.manual_seed(0)
    black_box = create_black_box(name, num_classes=3).eval()
    images = torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(0))
    model = convert(black_box, images=images, **options)
    bundle = softcam.save(model, tmp_path / "model", preprocessing=Preprocessing(size=size).to_dict())
    generator = np.random.default_rng(0)
    pictures = [generator.integers(0, 256, (70, 80 + i, 3), dtype=np.uint8) for i in range(3)]
    expected = list(Predictor(bundle, backend="torch", device="cpu", batch_size=2)(pictures))
    for backend in ("onnxruntime", "openvino"):
        predictor = Predictor(bundle, backend=backend, device="cpu", batch_size=2)  # type: ignore[arg-type]
        assert predictor.backend == backend
        for found, wanted in zip(predictor(pictures), expected, strict=True):
            assert found.predicted == wanted.predicted
            assert np.abs(found.logits - wanted.logits).max() <= 1e-4 * np.abs(wanted.logits).max()
            assert np.abs(found.maps - wanted.maps).max() <= 1e-4 * np.abs(wanted.maps).max()
            assert found.sum_error <= 1e-5
    assert keep_graph(bundle, (size, size)).find() is not None
    assert len(list((bundle / "exports").glob("*.onnx"))) == 1
