"""Models by name, and what runs them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from softcam.errors import BundleError, ServiceError
from softcam.serving import choose_backend, open_models


def test_models_are_named_by_their_folder_or_as_one_likes(bundle: Path) -> None:
    models = open_models([str(bundle), f"second={bundle}"], backend="torch")
    assert [model.name for model in models] == ["retina", "second"]
    assert {model.architecture for model in models} == {"timm:resnet10t"}


def test_an_equals_sign_in_a_path_is_no_name(bundle: Path, tmp_path: Path) -> None:
    place = tmp_path / "a=b"
    place.symlink_to(bundle)
    assert open_models([str(place)], backend="torch")[0].name == "retina"


def test_two_models_of_one_name_are_refused(bundle: Path) -> None:
    with pytest.raises(ServiceError, match=r"'retina' twice\. Give name=folder"):
        open_models([str(bundle), f"retina={bundle}"])


def test_a_folder_that_is_no_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleError):
        open_models([str(tmp_path)])
    with pytest.raises(ServiceError, match="at least one model"):
        open_models([])


def test_onnx_runtime_gives_way_where_it_cannot_run(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnxruntime", reason="ONNX Runtime comes with the extra `onnx`")
    assert choose_backend("onnxruntime") == "onnxruntime"
    assert choose_backend("openvino") == "openvino"
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    assert choose_backend("onnxruntime") == "torch"
    monkeypatch.undo()
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert choose_backend("onnxruntime") == "torch"


def test_only_methods_of_seconds_can_be_asked_for(models: Any) -> None:
    methods = models[0].methods
    assert {"grad_cam", "layer_cam", "guided_backprop"} <= set(methods)
    assert not {"score_cam", "rise", "evidence", "random"} & set(methods)
