"""The blocks of the guide on the hub that need one, run against a folder in its place."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import HfApi

from softcam.backbones import create_black_box
from softcam.bundle import save
from softcam.interop import hub
from softcam.nn import convert

GUIDE = Path(__file__).resolve().parents[2] / "docs" / "how-to" / "hub.md"
DOWN, UP = re.findall(r"^```py\n(.*?)^```", GUIDE.read_text(encoding="utf-8"), re.M | re.S)


@pytest.fixture
def bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return save(convert(create_black_box("timm:test_resnet", num_classes=2).eval()), tmp_path / "run" / "model")


def test_the_way_down(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "snapshot_download", lambda *_, **__: str(bundle))
    names: dict[str, Any] = {"images": torch.randn(1, 3, 96, 96)}
    exec(DOWN, names)  # noqa: S102 - the project's own document
    assert names["folder"] == bundle
    assert names["evidence"].maps.shape == (1, 2, 3, 3)


def test_the_way_up(bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Created:
        repo_id = "org/name"

    def upload_folder(_api: HfApi, *, folder_path: Path, **_: object) -> str:
        shutil.copytree(folder_path, tmp_path / "uploaded")
        return "https://hub/org/name/commit/1"

    monkeypatch.setattr(HfApi, "create_repo", lambda *_, **__: Created)
    monkeypatch.setattr(HfApi, "upload_folder", upload_folder)
    exec(UP, {})  # noqa: S102 - the project's own document
    assert "license: apache-2.0" in (tmp_path / "uploaded" / "README.md").read_text()
    weights = "model.safetensors"
    assert (tmp_path / "uploaded" / weights).read_bytes() == (bundle / weights).read_bytes()
