"""The real command line on real files: outputs, exit codes, streams; some commands in processes of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import command_line
import softcam

RECIPE = """\
name: tiny
data: {{source: {source}, image_size: 64, batch_size: 8}}
model: {{backbone: "timm:resnet10t", weights: none}}
penalty: {{l1: 1.0e-4}}
optimizer: {{lr: 0.003}}
stages:
  - {{epochs: 2}}
"""


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Run `softcam` as a user does, in a process of its own."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "200"}
    command = [sys.executable, "-m", "softcam", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300, check=False)


def draw(path: Path, *, bright: bool, seed: int) -> Path:
    """Write a small noisy image, with a bright square if it belongs to the second class."""
    noise = np.random.default_rng(seed).integers(0, 90, (72, 80, 3), dtype=np.uint8)
    if bright:
        noise[20:44, 30:54] += 140
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(noise).save(path)
    return path


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write 72 images of two classes with patient-wise splits."""
    folder = tmp_path_factory.mktemp("squares")
    rows = []
    for index in range(72):
        bright = index % 2 == 1
        draw(folder / "images" / f"{index:02d}.png", bright=bright, seed=index)
        split = "train" if index < 40 else "val" if index < 52 else "test"
        label = "square" if bright else "blank"
        rows.append({"image": f"images/{index:02d}.png", "label": label, "patient": f"p{index // 2}", "split": split})
    pd.DataFrame(rows).to_csv(folder / "manifest.csv", index=False)
    return folder / "manifest.csv"


@pytest.fixture(scope="module")
def runs(manifest: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train a model and its twin with the command."""
    folder = tmp_path_factory.mktemp("runs")
    recipe = folder / "tiny.yaml"
    recipe.write_text(RECIPE.format(source=manifest))
    for name, flags in (("softcam", []), ("black_box", ["--black-box"])):
        done = command_line.run("train", "--config", recipe, "--out", folder / name, *flags, "--json")
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["metrics"]
    return folder


def test_train_writes_what_the_contract_names_and_repeats_at_once(runs: Path) -> None:
    for name in ("softcam", "black_box"):
        for part in ("checkpoints", "metrics.csv", "run.json", "model/model.safetensors", "model/config.json"):
            assert (runs / name / part).exists(), part
    before = (runs / "softcam" / "run.json").read_bytes()
    assert run("train", "--config", runs / "tiny.yaml", "--out", runs / "softcam").returncode == 0
    assert (runs / "softcam" / "run.json").read_bytes() == before


def test_evaluate_writes_metrics_benchmark_and_report(runs: Path, manifest: Path, tmp_path: Path) -> None:
    out = tmp_path / "evaluation"
    flags = ["--black-box", runs / "black_box", "--explained", 4]
    done = command_line.run("evaluate", runs / "softcam", "--data", manifest, "--out", out, *flags)
    assert done.returncode == 0, done.stderr
    assert "auroc" in done.stdout.lower()
    metrics = json.loads((out / "metrics.json").read_text())
    assert set(metrics["classification"]["auroc"]) == {"value", "low", "high", "n"}
    assert metrics["noninferiority"]["margin"] == 0.02
    columns = ["method", "metric", "direction", "value", "low", "high", "n", "undefined", "model", "layer"]
    assert list(pd.read_csv(out / "benchmark.csv").columns) == columns
    page = (out / "report.html").read_text()
    assert "http://" not in page.replace("http://www.w3.org", "")
    assert len(list((out / "figures").iterdir())) > 0
    measured = {path: path.stat().st_mtime_ns for path in (out / "measured").iterdir()}
    more = ["--methods", "evidence", "edges"]
    done = command_line.run("evaluate", runs / "softcam", "--data", manifest, "--out", out, *flags, *more)
    assert done.returncode == 0, done.stderr
    assert set(pd.read_csv(out / "benchmark.csv")["method"]) == {"evidence", "edges"}
    assert {path: path.stat().st_mtime_ns for path in measured} == measured, "nothing is measured twice"


def test_explain_names_bad_inputs_and_goes_on(runs: Path, tmp_path: Path) -> None:
    inputs = tmp_path / "inputs"
    draw(inputs / "a" / "same.png", bright=True, seed=1)
    draw(inputs / "b" / "same.png", bright=False, seed=2)
    (inputs / "text.png").write_text("no image")
    (inputs / "empty.jpg").write_bytes(b"")
    (inputs / "cut.png").write_bytes((inputs / "a" / "same.png").read_bytes()[:200])
    (inputs / "copy.png").write_bytes((inputs / "a" / "same.png").read_bytes())
    Image.new("L", (1, 1)).save(inputs / "pixel.png")
    done = run("explain", runs / "softcam" / "model", inputs, "--out", tmp_path / "out", "--json")
    assert done.returncode == 1, done.stderr
    table = pd.read_csv(tmp_path / "out" / "predictions.csv", keep_default_na=False)
    assert list(table.columns)[:3] == ["image", "status", "predicted"]
    assert list(table.columns)[-3:] == ["sum_error", "warnings", "error"]
    assert (table["status"] == "ok").sum() == 2
    failures = pd.read_csv(tmp_path / "out" / "failures.csv")
    assert list(failures.columns) == ["image", "reason"]
    assert len(failures) == 5
    assert json.loads((tmp_path / "out" / "run.json").read_text())["complete"] is True
    arrays = sorted((tmp_path / "out" / "evidence").rglob("*.npz"))
    assert len(arrays) == 2
    with np.load(arrays[0], allow_pickle=False) as stored:
        assert np.allclose(stored["maps"].mean((1, 2)), stored["logits"], rtol=1e-4, atol=1e-5)
    assert len(list((tmp_path / "out" / "overlays").rglob("*.png"))) == 2


def test_explain_in_draft_and_where_nothing_can_be_written(runs: Path, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (60, 60, 3), dtype=np.uint8)
    (tmp_path / "inputs").mkdir()
    Image.fromarray(noise).resize((600, 600)).save(tmp_path / "inputs" / "a.jpg")
    command = ["explain", runs / "softcam" / "model", tmp_path / "inputs"]
    done = command_line.run(*command, "--out", tmp_path / "out", "--draft", "--json")
    assert (done.returncode, json.loads(done.stdout)["done"]) == (0, 1), done.stderr
    assert json.loads((tmp_path / "out" / "run.json").read_text())["arguments"]["draft"] is True
    bad = command_line.run(*command, "--out", tmp_path / "inputs" / "a.jpg" / "out")
    assert bad.returncode == 2
    assert bad.stderr.lstrip().startswith("softcam: Expected ")
    assert "\n" not in bad.stderr.strip()
    assert "to take the results, but not a directory" in bad.stderr


def test_explain_takes_archives_and_frames_of_dicom(runs: Path, tmp_path: Path) -> None:
    pydicom = pytest.importorskip("pydicom", reason="DICOM comes with the extra `dicom`")
    files = Path(pydicom.__file__).parent / "data" / "test_files"
    with zipfile.ZipFile(tmp_path / "study.zip", "w") as archive:
        for name in ("CT_small.dcm", "SC_rgb_rle_2frame.dcm", "rtstruct.dcm"):
            archive.write(files / name, f"study/{name}")
    command = ["explain", runs / "softcam" / "model", tmp_path / "study.zip", "--json"]
    each = command_line.run(*command, "--out", tmp_path / "each")
    assert (each.returncode, json.loads(each.stdout)["done"]) == (1, 3), each.stderr
    names = [f"study/{name}" for name in ("CT_small.dcm", "SC_rgb_rle_2frame.dcm#1", "SC_rgb_rle_2frame.dcm#2")]
    assert pd.read_csv(tmp_path / "each" / "predictions.csv")["image"].tolist() == [*names, "study/rtstruct.dcm"]
    second = command_line.run(*command, "--out", tmp_path / "second", "--frames", 2)
    assert json.loads(second.stdout)["done"] == 2, second.stderr
    bad = command_line.run(*command, "--out", tmp_path / "bad", "--frames", "all")
    assert (bad.returncode, "Expected --frames to be 'each' or a whole number" in bad.stderr) == (2, True)


def test_convert_writes_a_model_that_the_library_loads(tmp_path: Path) -> None:
    done = run("convert", "timm:resnet10t", "--weights", "none", "--out", tmp_path / "model", "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["exact"] is True
    assert report["error"] < 1e-5
    assert softcam.load(tmp_path / "model").conversion.to_dict() == report


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["convert", "timm:no_such_model", "--out", "x"], "timm knows"),
        (["convert", "timm:vgg11", "--weights", "none", "--out", "x"], "mean -> affine"),
        (["convert"], "required"),
        (["no-such-command"], "invalid choice"),
        (["train", "--config", "absent.yaml", "--out", "x"], "recipe"),
        (["explain", "absent", "image.png", "--out", "x"], "absent"),
        (["data", "prepare", "absent", "--out", "x"], "built-in"),
    ],
)
def test_bad_usage_is_one_clear_line_and_exit_code_2(
    arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = command_line.run(*arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert done.stdout == ""
    assert not (tmp_path / "x").exists()


def test_data_check_names_rows(manifest: Path, tmp_path: Path) -> None:
    good = run("data", "check", manifest, "--decode")
    assert good.returncode == 0, good.stdout
    table = pd.read_csv(manifest)
    table.loc[3, "image"] = "../outside.png"
    table.loc[5, "patient"] = table.loc[60, "patient"]
    bad = manifest.with_name("bad.csv")
    table.to_csv(bad, index=False)
    done = run("data", "check", bad, "--json")
    bad.unlink()
    assert done.returncode == 2
    problems = " ".join(json.loads(done.stdout)["problems"])
    assert "row 5" in problems
    assert "row" in problems
    assert "p30" not in problems


def test_models_lists_the_survey_and_measures() -> None:
    listed = command_line.run("models", "--filter", "*resnet*", "--json")
    assert listed.returncode == 0, listed.stderr
    rows = json.loads(listed.stdout)
    assert rows
    assert all("resnet" in row["model"] for row in rows)
    measured = command_line.run("models", "--measure", "timm:resnet10t", "--json")
    assert measured.returncode == 0, measured.stderr
    (row,) = json.loads(measured.stdout)
    assert (row["outcome"], row["head"], row["grid"]) == ("exact", "linear", [6, 6])
    assert 0 < row["error"] <= 5e-6
    assert row["error64"] <= 1e-12


@pytest.mark.parametrize("command", ["demo", "convert", "train", "evaluate", "explain", "data", "models"])
def test_help_has_examples(command: str) -> None:
    done = command_line.run(command, "--help")
    assert done.returncode == 0
    if command != "data":
        assert "examples:\n  softcam" in done.stdout
