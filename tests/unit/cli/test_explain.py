"""What `softcam explain` asks of Ray, and what it refuses; `tests/integration` runs both engines."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import softcam
from softcam.cli import main
from softcam.imaging import Preprocessing

distributed = pytest.importorskip("softcam.distributed", reason="Parquet comes with the library's pyarrow")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("explain")
    black_box = softcam.create_black_box("timm:test_resnet", weights="none", num_classes=2).eval()
    softcam.save(softcam.convert(black_box), folder / "model", preprocessing=Preprocessing(size=64).to_dict())
    Image.fromarray(np.full((40, 50), 90, np.uint8)).save(folder / "a.png")
    return folder


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--engine", "ray", "--dicom-out"], "--dicom-out with --engine local"),
        (["--engine", "ray", "--deidentify"], "--dicom-out with --engine local"),
        (["--engine", "ray", "--record", "key.pem"], "--record with --engine local"),
        (["--engine", "ray", "--draw-boxes"], "--regions with --engine local"),
        (["--engine", "ray", "--draft"], "--draft with --engine local"),
        (["--workers", "2"], "--workers, --address and --evidence together with --engine ray"),
        (["--evidence", "float16"], "--workers, --address and --evidence together with --engine ray"),
        (["--deidentify"], "--deidentify together with --dicom-out"),
        (["--frames", "first"], "--frames"),
    ],
)
def test_what_does_not_go_together_is_refused(
    flags: list[str], message: str, world: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    command = ["explain", str(world / "model"), str(world / "a.png"), "--out", str(tmp_path / "out")]
    assert main([*command, *flags]) == 2
    assert message in capfd.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the command asks the engine for; no cluster is started."""
    found: dict[str, Any] = {"failed": 0}

    def explain(model: Path, inputs: Any, out: Path, **options: Any) -> Any:
        found.update(model=model, inputs=list(inputs), out=out, **options)
        return distributed.RaySummary(3, found["failed"], 0, repeated=1, seconds=1.0)

    monkeypatch.setattr(distributed, "explain", explain)
    return found


def test_ray_is_asked_for_what_the_flags_say(
    asked: dict[str, Any], world: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    command = ["explain", str(world / "model"), str(world / "a.png"), "--out", str(tmp_path), "--engine", "ray"]
    flags = [
        "--workers",
        "2",
        "--address",
        "host:1",
        "--evidence",
        "float16",
        "--batch-size",
        "5",
        "--backend",
        "torch",
    ]
    assert main([*command, *flags]) == 0
    settings = asked["settings"]
    assert (settings.workers, settings.address, settings.evidence) == (2, "host:1", "float16")
    assert (settings.predictor["batch_size"], settings.predictor["backend"]) == (5, "torch")
    assert [item.id for item in asked["inputs"]] == ["a.png"]
    assert (asked["model"], asked["visible"]) == (world / "model", [str(world / "a.png")])
    said = capfd.readouterr()
    assert said.out.startswith("3 explained, 0 failed: ")
    assert "1 shards were begun again" in said.err


def test_failures_are_told_and_make_the_exit_code_1(
    asked: dict[str, Any], world: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    asked["failed"] = 2
    command = ["explain", str(world / "model"), str(world / "a.png"), "--out", str(tmp_path), "--engine", "ray"]
    assert main([*command, "--json", "--no-arrays"]) == 1
    assert asked["settings"].evidence == "none"
    said = capfd.readouterr()
    assert json.loads(said.out) == {"done": 3, "failed": 2, "out": str(tmp_path)}
    assert "2 inputs failed" in said.err
