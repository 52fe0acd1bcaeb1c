"""A converted model, its bundle, and a hub that is a folder."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from huggingface_hub import HfApi
from torch import nn

from softcam.backbones import create_black_box
from softcam.bundle import save
from softcam.interop import hub
from softcam.nn import SoftCAM, convert

CLASSES = ("intact", "defect", "other")
METRICS = {"metrics": {"auroc": 0.93}, "license": "mit", "penalty": {"l1": 1e-5}, "data_digest": "d" * 64}


@pytest.fixture
def toy(make_toy: Callable[..., nn.Module]) -> nn.Module:
    return make_toy()


@pytest.fixture(scope="session")
def model() -> SoftCAM:
    torch.manual_seed(1)
    return convert(create_black_box("timm:test_resnet", num_classes=3).eval())


@pytest.fixture
def bundle(model: SoftCAM, tmp_path: Path) -> Path:
    return save(model, tmp_path / "bundle", classes=CLASSES, thresholds={"defect": 0.25}, provenance=METRICS)


class Hub:
    """Stands in for the network: what was asked of it, and the folders that were uploaded."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.created: list[dict[str, Any]] = []
        self.uploaded: list[dict[str, Any]] = []
        self.downloads: list[dict[str, Any]] = []

    def create_repo(self, repo_id: str, **options: Any) -> SimpleNamespace:
        self.created.append({"repo_id": repo_id, **options})
        return SimpleNamespace(repo_id=repo_id)

    def upload_folder(self, *, repo_id: str, folder_path: Path, **options: Any) -> str:
        self.uploaded.append({"repo_id": repo_id, **options})
        shutil.copytree(folder_path, self.root / repo_id)
        return f"https://hub/{repo_id}/commit/1"

    def snapshot_download(self, repo_id: str, **options: Any) -> str:
        self.downloads.append({"repo_id": repo_id, **options})
        return str(self.root / repo_id)


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> Callable[[Exception], None]:
    """Let every call to the hub end with an error."""

    def fail_with(error: Exception) -> None:
        def fail(*_: object, **__: object) -> None:
            raise error

        monkeypatch.setattr(hub, "snapshot_download", fail)
        monkeypatch.setattr(HfApi, "create_repo", fail)

    return fail_with


@pytest.fixture
def fake_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    fake = Hub(tmp_path / "hub")
    monkeypatch.setattr(HfApi, "create_repo", fake.create_repo)
    monkeypatch.setattr(HfApi, "upload_folder", fake.upload_folder)
    monkeypatch.setattr(hub, "snapshot_download", fake.snapshot_download)
    return fake
