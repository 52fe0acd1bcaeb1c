"""`softcam explain --record` and `softcam verify` on real files, from keys to a changed record."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import command_line
import softcam

pytest.importorskip("cryptography", reason="signing comes with the extra `records`")


def run(*words: object, code: int = 0) -> command_line.Said:
    done = command_line.run(*words)
    assert done.returncode == code, done.stderr
    return done


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, keys, images with a bad one and a copy among them, and their records."""
    folder = tmp_path_factory.mktemp("records")
    black_box = softcam.create_black_box("timm:resnet10t", weights="none", num_classes=3).eval()
    softcam.save(softcam.convert(black_box), folder / "model", classes=["a", "=b", "c"])
    (folder / "images").mkdir()
    generator = np.random.default_rng(0)
    for number in range(5):
        pixels = generator.integers(0, 256, (60, 80, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "images" / f"{number}.png")
    shutil.copy(folder / "images" / "0.png", folder / "images" / "copy.png")
    (folder / "images" / "bad.png").write_bytes(b"words")
    run("keys", "--out", folder / "keys")
    explain(folder, folder / "out")
    return folder


def explain(folder: Path, out: Path) -> None:
    key = folder / "keys" / "key.pem"
    run("explain", folder / "model", folder / "images", "--out", out, "--record", key, "--no-overlays", code=1)


def verify(folder: Path, *words: object, out: Path | None = None, code: int = 0) -> dict[str, Any]:
    key = folder / "keys" / "key.pub.pem"
    return json.loads(run("verify", out or folder / "out", "--key", key, "--json", *words, code=code).stdout)


def test_every_input_has_a_record_and_every_prediction_is_confirmed(work: Path) -> None:
    found = verify(work, "--model", work / "model", "--images", work / "images", "--backend", "torch")
    assert (found["records"], found["faults"], found["signatures_checked"]) == (8, [], True)
    assert [one["outcome"] for one in found["predictions"]] == ["confirmed"] * 5
    assert {one["name"] for one in found["predictions"]} == {f"{number}.png" for number in range(5)}
    summary = json.loads((work / "out" / "run.json").read_text(encoding="utf-8"))
    assert summary["records"]["head"] == found["head"]
    assert verify(work, "--head", found["head"])["faults"] == []


def test_an_image_that_was_changed_or_taken_away_is_missed(work: Path, tmp_path: Path) -> None:
    images = tmp_path / "images"
    shutil.copytree(work / "images", images)
    pixels = np.asarray(Image.open(images / "1.png")).copy()
    pixels[0, 0] ^= 1
    Image.fromarray(pixels).save(images / "1.png")
    (images / "2.png").unlink()
    found = verify(work, "--model", work / "model", "--images", images, code=1)
    outcomes = {one["name"]: one["outcome"] for one in found["predictions"]}
    assert outcomes == {
        "0.png": "confirmed",
        "1.png": "absent",
        "2.png": "absent",
        "3.png": "confirmed",
        "4.png": "confirmed",
    }


def test_a_record_that_was_changed_is_named(work: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    shutil.copytree(work / "out", out)
    path = out / "records.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    path.write_text("".join([lines[0], lines[1].replace("0.png", "9.png"), *lines[2:]]), encoding="utf-8")
    assert verify(work, out=out, code=1)["faults"][0]["kind"] == "edited"
    text = run("verify", out, code=1)
    assert "line 2: record 1" in text.stdout
    assert "signatures were not checked" in text.stderr


def test_a_run_that_was_ended_has_the_records_of_one_that_was_not(work: Path, tmp_path: Path) -> None:
    """What was noted before the end is taken over, with its own time."""
    out = tmp_path / "out"
    key = work / "keys" / "key.pem"
    command = ["explain", work / "model", work / "images", "--out", out, "--record", key, "--no-overlays"]
    program = (
        "import os, sys\n"
        "from softcam.cli import main\n"
        "from softcam.reporting.journal import Journal\n"
        "append = Journal.append\n"
        "def once(self, batches):\n"
        "    append(self, batches)\n"
        "    os.kill(os.getpid(), 9)\n"
        "Journal.append = once\n"
        "main(sys.argv[1:])\n"
    )
    killed = subprocess.run(
        [sys.executable, "-c", program, *map(str, command), "--batch-size", "2"], check=False, capture_output=True
    )
    assert killed.returncode == -9
    assert not (out / "records.jsonl").exists()
    run(*command, "--batch-size", "2", code=1)
    found = verify(work, "--model", work / "model", "--images", work / "images", out=out)
    assert (found["records"], found["faults"]) == (8, [])
    first, again = ((place / "records.jsonl").read_text(encoding="utf-8").splitlines() for place in (work / "out", out))
    for one, other in zip(first[1:], again[1:], strict=True):
        bodies = [json.loads(line)["body"] for line in (one, other)]
        assert bodies[0]["image"] == bodies[1]["image"]
        np.testing.assert_allclose(bodies[0].get("logits", []), bodies[1].get("logits", []), rtol=1e-4, atol=1e-6)


def test_what_cannot_be_is_said_before_any_work(work: Path, tmp_path: Path) -> None:
    common = ["explain", work / "model", work / "images", "--out", tmp_path / "out"]
    assert "softcam keys" in run(*common, "--record", tmp_path / "none", code=2).stderr
    public = work / "keys" / "key.pub.pem"
    assert "private key" in run(*common, "--record", public, code=2).stderr
    assert not (tmp_path / "out").exists()
    assert "--model and --images together" in run("verify", work / "out", "--model", work / "model", code=2).stderr
    assert "cannot be read" in run("verify", tmp_path / "none", code=2).stderr
    assert "not replaced" in run("keys", "--out", work / "keys", code=2).stderr
