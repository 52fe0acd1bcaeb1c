"""What `softcam verify` says to people; `tests/integration/test_records.py` looks at the JSON."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import softcam
from softcam.cli import main
from softcam.imaging import Preprocessing

pytest.importorskip("cryptography", reason="signing comes with the extra `records`")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, 25 images, and what it said of them, signed."""
    folder = tmp_path_factory.mktemp("verify")
    (folder / "images").mkdir()
    draw = np.random.default_rng(0)
    for number in range(25):
        Image.fromarray(draw.integers(0, 256, (20, 24, 3), np.uint8)).save(folder / "images" / f"{number:02}.png")
    for name in ("model", "other"):
        black_box = softcam.create_black_box("timm:test_resnet", weights="none", num_classes=2).eval()
        softcam.save(softcam.convert(black_box), folder / name, preprocessing=Preprocessing(size=32).to_dict())
    assert main(["keys", "--out", str(folder / "keys")]) == 0
    images, out = str(folder / "images"), str(folder / "explained")
    record = ["--record", str(folder / "keys" / "key.pem"), "--no-overlays"]
    assert main(["explain", str(folder / "model"), images, "--out", out, *record]) == 0
    return folder


def verify(world: Path, *flags: object) -> int:
    key = str(world / "keys" / "key.pub.pem")
    return main(["verify", str(world / "explained"), "--key", key, *map(str, flags)])


def test_a_whole_chain_and_its_predictions_are_confirmed(world: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert verify(world) == 0
    assert capfd.readouterr().out.startswith("26 records, 0 faults, head ")
    assert verify(world, "--model", world / "model", "--images", world / "images") == 0
    said = capfd.readouterr()
    assert "; 25 confirmed (25 to the last bit), 0 differ, 0 without their image" in said.out
    assert "signatures were not checked" not in said.err


def test_an_absent_image_is_named(world: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "one.png").write_bytes((world / "images" / "00.png").read_bytes())
    assert verify(world, "--model", world / "model", "--images", tmp_path) == 1
    lines = capfd.readouterr().out.splitlines()
    assert lines[0] == "record 2, 01.png: no image with the recorded digest was given"
    assert re.search(r"; 1 confirmed \([01] to the last bit\), 0 differ, 24 without their image$", lines[-1])
    assert len([line for line in lines if "no image with" in line]) == 20


def test_another_model_is_named_field_by_field(world: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert verify(world, "--model", world / "other", "--images", world / "images") == 1
    first, *_, last = capfd.readouterr().out.splitlines()
    assert first.startswith("record 1, 00.png: ")
    assert "logits" in first
    assert "0 confirmed" in last


def test_an_edit_is_named_with_its_line_and_much_of_it_is_cut_short(
    world: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    lines = (world / "explained" / "records.jsonl").read_bytes().splitlines(keepends=True)
    path = tmp_path / "records.jsonl"
    edited = [json.dumps({**json.loads(line), "time": "2020-01-01T00:00:00+00:00"}).encode() + b"\n" for line in lines]
    path.write_bytes(b"".join(edited))
    assert main(["verify", str(path)]) == 1
    said = capfd.readouterr()
    shown = [line for line in said.out.splitlines() if line.startswith("line ")]
    assert shown[0].startswith("line 1: ")
    assert len(shown) == 20
    assert f"{len(lines) - 20} more are not shown; --json shows all of them" in " ".join(said.err.split())
    assert "signatures were not checked: give the public key with --key" in said.err


def test_model_and_images_go_together(world: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert verify(world, "--model", world / "model") == 2
    assert "--model and --images together" in capfd.readouterr().err
