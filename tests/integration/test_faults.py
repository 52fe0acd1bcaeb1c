"""What the system does to a command: full and read-only disks, other processes, signals, clocks, inputs that go."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import softcam
from softcam.cli import main
from softcam.imaging import Preprocessing
from softcam.reporting.inputs import Entry
from softcam.runs import LOCK, hold
from softcam.training.callbacks import BestAndLast

pytestmark = pytest.mark.slow

RECIPE = """\
name: tiny
data: {{source: {source}, image_size: 64, batch_size: 8}}
model: {{backbone: "timm:test_efficientnet", weights: none}}
optimizer: {{lr: 0.003}}
stages:
  - {{epochs: {epochs}}}
"""
EXPECTED = "to take the results, but"


@dataclass(frozen=True)
class World:
    """Inputs of every command.

    Args:
        root: Where they are.
    """

    root: Path

    def words(self, command: str, out: Path) -> list[str]:
        """Return the words of a command that writes into a folder."""
        model, manifest = self.root / "model", self.root / "manifest.csv"
        words: dict[str, list[object]] = {
            "explain": ["explain", model, self.root / "images", "--out", out, "--backend", "torch"],
            "train": ["train", "--config", self.root / "recipe.yaml", "--out", out],
            "prepare": ["data", "prepare", "retinal-oct", self.root / "OCT", "--out", out, "--workers", 1],
            "evaluate": [
                *("evaluate", model, "--data", manifest, "--out", out, "--explained", 4),
                *("--methods", "evidence", "edges"),
            ],
            "export": ["export", model, "--out", out / "model.onnx"],
        }
        return [str(word) for word in words[command]]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """Sixteen images, a manifest, a recipe, a model and a download."""
    root = tmp_path_factory.mktemp("world")
    (root / "images").mkdir()
    rows = ["image,label,patient,split"]
    for number in range(16):
        noise = np.random.default_rng(number).integers(0, 90, (48, 56, 3), dtype=np.uint8)
        noise[12:30, 20:38] += 140 * (number % 2)
        Image.fromarray(noise).save(root / "images" / f"{number:02}.png")
        split = "test" if number < 4 else "val" if number < 8 else "train"
        rows.append(f"images/{number:02}.png,{('blank', 'square')[number % 2]},p{number},{split}")
    (root / "manifest.csv").write_text("\n".join(rows) + "\n")
    (root / "recipe.yaml").write_text(RECIPE.format(source=root / "manifest.csv", epochs=2))
    torch.manual_seed(0)
    black_box = softcam.create_black_box("timm:test_efficientnet", weights="none", num_classes=2).eval()
    preprocessing = Preprocessing(size=64).to_dict()
    softcam.save(softcam.convert(black_box), root / "model", classes=["blank", "square"], preprocessing=preprocessing)
    draw = ["data", "synthesize", "retinal-oct", "--images", "12", "--size", "64", "--out", str(root / "OCT")]
    assert main(draw) == 0
    return World(root)


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Callable[..., Path]]:
    """Mount a file system in memory with further options, or change those of the one that is mounted."""
    path = tmp_path / "disk"
    path.mkdir()

    def call(*words: str) -> Path:
        done = subprocess.run(["mount", *words, str(path)], capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"no file system can be mounted here: {done.stderr.strip()}")
        return path

    def change(options: str) -> Path:
        if path.is_mount():
            return call("-o", f"remount,{options}")
        return call("-t", "tmpfs", "-o", options, "tmpfs")

    if sys.platform != "linux":
        pytest.skip("file systems in memory are mounted on Linux")
    yield change
    if path.is_mount():
        subprocess.run(["umount", "--lazy", str(path)], check=True)


def tell(capsys: pytest.CaptureFixture[str], words: list[str]) -> tuple[int, str]:
    """Return a command's exit code and its last line on stderr."""
    capsys.readouterr()
    code = main(words)
    return code, capsys.readouterr().err.strip().rpartition("\n")[2]


@pytest.mark.parametrize(
    ("command", "size"), [("explain", 40), ("train", 200), ("prepare", 24), ("evaluate", 100), ("export", 300)]
)
def test_a_full_disk_is_one_clear_line_and_room_lets_the_same_command_go_on(
    command: str, size: int, world: World, mount: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    out = mount(f"size={size}k") / "out"
    code, line = tell(capsys, world.words(command, out))
    assert (code, line) == (
        2, f"softcam: Expected {out} {EXPECTED} the disk is full. Free some space; the same command continues.",
    )  # fmt: skip
    mount("size=64m")
    assert tell(capsys, world.words(command, out))[0] == 0
    assert not list(out.rglob("*.partial.*"))


@pytest.mark.parametrize("command", ["explain", "train", "prepare", "evaluate", "export"])
def test_a_disk_that_is_read_only_is_named(
    command: str, world: World, mount: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    mount("size=1m")
    out = mount("ro") / "out"
    code, line = tell(capsys, world.words(command, out))
    assert code == 2
    assert "ead-only file system" in line
    assert str(out) in line


@pytest.mark.parametrize("command", ["explain", "train", "prepare", "evaluate"])
def test_a_folder_belongs_to_one_process_and_the_other_is_told_which(
    command: str, world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    with hold(out):
        code, line = tell(capsys, world.words(command, out))
        assert code == 2
        assert f"softcam: Expected {out} to be free, but process {os.getpid()} on " in line
        assert line.endswith("is writing there. Wait for its end, or choose another folder.")
    assert tell(capsys, world.words(command, out))[0] == 0
    assert not (out / LOCK).exists()


def start(words: list[str]) -> subprocess.Popen[str]:
    # A measurement of coverage would take the signal for itself.
    kept = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}
    environment = {**kept, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "softcam", *words]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.parametrize(("command", "sign"), [("explain", "run.partial.jsonl"), ("train", "metrics.csv")])
def test_sigterm_ends_a_command_in_order_and_the_same_one_goes_on(
    command: str, sign: str, world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, recipe = tmp_path / "out", tmp_path / "recipe.yaml"
    recipe.write_text(RECIPE.format(source=world.root / "manifest.csv", epochs=60))
    (tmp_path / "many").mkdir()
    for number in range(600):  # enough to be met at work
        pixels = np.random.default_rng(number).integers(0, 256, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "many" / f"{number:03}.png")
    words = world.words(command, out)
    words[2] = str(recipe if command == "train" else tmp_path / "many")
    process = start(words)
    deadline = time.monotonic() + 240
    while not (out / sign).exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    said = process.communicate(timeout=120)[1]
    assert process.returncode == 143, said
    assert said.strip().endswith("softcam: terminated; the same command continues")
    assert "Traceback" not in said
    assert not (out / "run.json").exists()
    assert not (out / LOCK).exists()
    assert [path.name for path in out.rglob("*.partial.*") if path.name != "run.partial.jsonl"] == []
    if command == "explain":
        code, line = tell(capsys, [*words, "--json"])
        assert (code, (out / "run.json").exists()) == (0, True), line


@pytest.mark.parametrize("years", [-30, 30])
def test_a_clock_that_jumps_changes_nothing(
    years: int, world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that is ended, and goes on when the machine believes it is another year."""
    whole, out = tmp_path / "whole", tmp_path / "out"
    assert main(world.words("train", whole)) == 0
    _end_after_the_first_epoch(world.words("train", out), monkeypatch)
    elsewhen = datetime.now(UTC) + timedelta(days=365 * years)
    for path in out.rglob("*"):
        os.utime(path, (elsewhen.timestamp(), elsewhen.timestamp()))
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() - 365 * 86400 * years)
    assert tell(capsys, world.words("train", out))[0] == 0
    tables = [list(csv.DictReader((folder / "metrics.csv").open())) for folder in (whole, out)]
    for row in (row for table in tables for row in table):
        assert 0 <= float(row.pop("seconds")) < 600
    assert tables[0] == tables[1]
    weights = [(folder / "model" / "model.safetensors").read_bytes() for folder in (whole, out)]
    assert weights[0] == weights[1]
    assert 0 < json.loads((out / "run.json").read_text())["seconds"] < 600


def _end_after_the_first_epoch(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    original = BestAndLast.on_train_epoch_end

    def stop(self: Any, *arguments: Any) -> None:
        original(self, *arguments)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(BestAndLast, "on_train_epoch_end", stop)
        assert main(words) == 130


def test_an_image_that_goes_while_others_are_explained_is_a_failure_of_its_own(
    world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = shutil.copytree(world.root / "images", tmp_path / "images")
    original = Entry.decode

    def decode(self: Any, **options: Any) -> Any:
        if self.id == "07.png":
            (folder / "07.png").unlink(missing_ok=True)
        return original(self, **options)

    monkeypatch.setattr(Entry, "decode", decode)
    words = world.words("explain", tmp_path / "out")
    words[2] = str(folder)
    code, _ = tell(capsys, words)
    failures = list(csv.DictReader((tmp_path / "out" / "failures.csv").open()))
    assert code == 1
    assert failures == [{"image": "07.png", "reason": "file not found"}]


def test_a_table_whose_image_goes_is_refused_by_its_row(
    world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (world.root / "manifest.csv").read_text().replace("images/09.png", "images/gone.png")
    table = world.root / f"{tmp_path.name}.csv"
    table.write_text(text)
    words = [*world.words("train", tmp_path / "out"), "--data", str(table)]
    code, line = tell(capsys, words)
    assert code == 2
    assert "row 11: expected `image` to be a file" in line
