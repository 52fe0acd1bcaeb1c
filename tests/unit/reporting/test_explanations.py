from __future__ import annotations

import csv
import errno
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import softcam.reporting.explanations as module
from softcam.bundle import fingerprint
from softcam.errors import IdentityError, RunError
from softcam.imaging import Geometry, Preprocessing, decode_image, image_from_array, overlay
from softcam.nn import convert
from softcam.predict import Prediction, Predictor
from softcam.reporting.explanations import ExplainSummary, explain
from softcam.reporting.inputs import Reading
from softcam.reporting.overlays import draw_overlay
from softcam.reporting.products import Products


class Toy(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, stride=8, padding=1)
        self.fc = nn.Linear(4, 2)

    def forward(self, images: Tensor) -> Tensor:
        return self.fc(nn.functional.adaptive_avg_pool2d(self.stem(images).relu(), 1).flatten(1))


def make_predictor(seed: int = 0, **options: Any) -> Predictor:
    torch.manual_seed(seed)
    settings = {"preprocessing": Preprocessing(size=32), "classes": ["intact", "=defect"], "batch_size": 3}
    # Results are compared byte by byte: with `auto` they would be those of another backend after many images.
    return Predictor(convert(Toy().eval()), **{**settings, "backend": "torch", **options})


def make_images(folder: Path, count: int) -> Path:
    generator = np.random.default_rng(0)
    for index in range(count):
        path = folder / f"{'sub/' if index % 2 else ''}{index:03d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(generator.integers(0, 256, (24, 40, 3), dtype=np.uint8)).save(path)
    return folder


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def tree(folder: Path) -> dict[str, bytes]:
    """All results but the record, which holds times."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != "run.json")
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    return make_predictor()


@pytest.fixture
def images(tmp_path: Path) -> Path:
    return make_images(tmp_path / "in", 8)


def test_the_table_holds_the_predictions(tmp_path: Path, images: Path, predictor: Predictor) -> None:
    summary = explain(predictor, [images], tmp_path / "out")
    assert (summary.done, summary.failed, summary.skipped) == (8, 0, 0)
    rows = read(tmp_path / "out" / "predictions.csv")
    assert list(rows[0]) == [
        *("image", "status", "predicted", "prob_intact", "prob_=defect", "logit_intact", "logit_=defect"),
        *("sum_error", "error"),
    ]
    names = [f"{i:03d}.png" for i in (0, 2, 4, 6)] + [f"sub/{i:03d}.png" for i in (1, 3, 5, 7)]
    assert [row["image"] for row in rows] == names
    for row, prediction in zip(rows, predictor([images / name for name in names]), strict=True):
        assert row["status"] == "ok"
        assert row["predicted"].lstrip("'") == prediction.predicted
        assert np.float32(row["prob_=defect"]) == prediction.probabilities[1]
        assert np.float32(row["logit_intact"]) == prediction.logits[0]
        assert float(row["sum_error"]) == pytest.approx(prediction.sum_error, rel=1e-2)
        assert row["error"] == ""
    assert read(tmp_path / "out" / "failures.csv") == []


def test_arrays_hold_the_evidence(tmp_path: Path, images: Path, predictor: Predictor) -> None:
    explain(predictor, [images], tmp_path / "out")
    prediction = next(predictor([images / "sub" / "001.png"]))
    with np.load(tmp_path / "out" / "evidence" / "sub" / "001.png.npz", allow_pickle=False) as arrays:
        assert arrays["maps"].dtype == np.float32
        np.testing.assert_allclose(arrays["maps"], prediction.maps, rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(arrays["maps"].mean((1, 2)), arrays["logits"], rtol=1e-4, atol=1e-6)
        assert arrays["classes"].tolist() == ["intact", "=defect"]
        assert Geometry.from_json(str(arrays["geometry"])) == prediction.geometry


def test_the_record_is_written_last_and_says_what_was_done(tmp_path: Path, images: Path, predictor: Predictor) -> None:
    explain(predictor, [images], tmp_path / "out", products=Products(overlays=False))
    record = json.loads((tmp_path / "out" / "run.json").read_text())
    assert record["complete"] is True
    assert record["model"]["fingerprint"] == fingerprint(predictor.model)
    assert record["backend"] == {"name": "torch", "reason": predictor.backend_reason}
    assert record["model"]["preprocessing"]["size"] == 32
    assert record["counts"] == {"inputs": 8, "done": 8, "failed": 0}
    assert record["arguments"] == {"overlays": False, "arrays": True, "limit": None, "frames": "each"}
    assert record["versions"]["torch"] == torch.__version__.split("+")[0]
    newest = max((tmp_path / "out").rglob("*"), key=lambda path: path.stat().st_mtime_ns if path.is_file() else 0)
    assert newest.name == "run.json"
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        *("predictions.csv", "failures.csv", "run.json", "evidence"),
    }


@pytest.mark.parametrize(("overlays", "arrays"), [(True, False), (False, True), (False, False)])
def test_writes_what_is_asked_for(
    tmp_path: Path, images: Path, predictor: Predictor, overlays: bool, arrays: bool
) -> None:
    explain(predictor, [images], tmp_path / "out", products=Products(overlays, arrays))
    assert (tmp_path / "out" / "overlays").exists() == overlays
    assert (tmp_path / "out" / "evidence").exists() == arrays


def test_bad_inputs_are_named_and_the_rest_goes_on(tmp_path: Path, predictor: Predictor) -> None:
    folder = make_images(tmp_path / "in", 5)
    (folder / "=cmd|calc.png").write_text("not an image")
    (folder / "empty.png").write_bytes(b"")
    (folder / "copy.png").write_bytes((folder / "000.png").read_bytes())
    (folder / "cut.png").write_bytes((folder / "002.png").read_bytes()[:300])
    (tmp_path / "secret.png").write_bytes((folder / "002.png").read_bytes())
    (folder / "zlink.png").symlink_to(tmp_path / "secret.png")
    Image.new("L", (1, 1)).save(folder / "one.png")
    summary = explain(predictor, [folder, tmp_path / "gone.png"], tmp_path / "out")
    assert (summary.done, summary.failed) == (5, 7)
    rows = read(tmp_path / "out" / "predictions.csv")
    failures = {row["image"]: row["reason"] for row in read(tmp_path / "out" / "failures.csv")}
    assert failures == {
        "'=cmd_calc.png": "not a readable PNG, JPEG, TIFF, BMP, WebP, GIF or DICOM image",
        "copy.png": "duplicate of 000.png",
        "cut.png": "image data are truncated or damaged",
        "empty.png": "file is empty",
        "gone.png": "file not found",
        "one.png": "1x1 pixels, expected at least 2 on each side",
        "zlink.png": "link that leaves the folder",
    }
    assert {row["image"]: row["error"] for row in rows if row["status"] == "failed"} == failures
    assert all(not row["prob_intact"] and not row["sum_error"] for row in rows if row["status"] == "failed")
    assert len(list((tmp_path / "out" / "evidence").rglob("*.npz"))) == 5
    assert rows[-1]["image"] == "gone.png"


@pytest.mark.parametrize("start", ["=", "+", "-", "@"])
def test_no_text_is_taken_for_a_formula(tmp_path: Path, start: str) -> None:
    path = make_images(tmp_path / "in", 1) / "000.png"
    path = path.rename(path.with_name(f"{start}1.png"))
    explain(make_predictor(classes=[f"{start}a", f"{start}b"]), [path], tmp_path / "out")
    (row,) = read(tmp_path / "out" / "predictions.csv")
    assert row["image"] == f"'{start}1.png"
    assert row["predicted"].startswith(f"'{start}")
    assert all(np.isfinite(float(row[f"logit_{start}{name}"])) for name in "ab")  # negative numbers stay numbers


def test_a_finished_run_returns_at_once(tmp_path: Path, images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = explain(make_predictor(), [images], tmp_path / "out")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")}
    again = make_predictor()
    monkeypatch.setattr(again, "batches", None)
    second = explain(again, [images], tmp_path / "out")
    assert (second.done, second.failed, second.skipped) == (first.done, first.failed, 8)
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")} == before


@pytest.mark.parametrize("finished", [True, False])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"predictor": lambda: make_predictor(1)}, "its model differ"),
        ({"predictor": lambda: make_predictor(preprocessing=Preprocessing(size=40))}, "its model differ"),
        ({"products": Products(overlays=False)}, "its arguments differ"),
        ({"products": Products(limit=1.0)}, "its arguments differ"),
        ({"reading": Reading(2)}, "its arguments differ"),
        ({"reading": Reading(draft=True)}, "its arguments differ"),
        ({"inputs": lambda folder: [folder / "000.png"]}, "its inputs differ"),
    ],
)
def test_another_run_does_not_enter_the_folder(
    tmp_path: Path, images: Path, monkeypatch: pytest.MonkeyPatch, finished: bool, change: dict[str, Any], message: str
) -> None:
    predictor = make_predictor()
    if finished:
        explain(predictor, [images], tmp_path / "out")
    else:
        interrupt(monkeypatch, "stage", 3)
        with pytest.raises(KeyboardInterrupt):
            explain(predictor, [images], tmp_path / "out")
        monkeypatch.undo()
    before = tree(tmp_path / "out")
    options = dict(change)
    other = options.pop("predictor", lambda: predictor)()
    inputs = options.pop("inputs", lambda folder: [folder])(images)
    with pytest.raises(RunError, match=message):
        explain(other, inputs, tmp_path / "out", **options)
    assert tree(tmp_path / "out") == before


def test_changed_files_are_another_run(tmp_path: Path, images: Path, predictor: Predictor) -> None:
    explain(predictor, [images], tmp_path / "out")
    os.utime(images / "000.png", ns=(5, 5))
    with pytest.raises(RunError, match="its inputs differ"):
        explain(predictor, [images], tmp_path / "out")


def test_results_of_another_program_are_not_overwritten(tmp_path: Path, images: Path, predictor: Predictor) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "predictions.csv").write_text("mine")
    with pytest.raises(RunError, match=r"holds predictions\.csv of another"):
        explain(predictor, [images], tmp_path / "out")
    (tmp_path / "out" / "run.json").write_text("{")
    with pytest.raises(RunError, match=r"run\.json in .* cannot be read"):
        explain(predictor, [images], tmp_path / "out")


def test_nothing_to_explain_is_an_error(tmp_path: Path, predictor: Predictor) -> None:
    (tmp_path / "in").mkdir()
    with pytest.raises(RunError, match="at least one image"):
        explain(predictor, [tmp_path / "in"], tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("limit", [0.0, -1.0, float("nan"), float("inf")])
def test_refuses_a_scale_that_is_none(limit: float) -> None:
    with pytest.raises(ValueError, match="`limit` to be positive and finite"):
        Products(limit=limit)


@pytest.mark.parametrize("frames", [0, -1, "all", 1.5])
def test_refuses_frames_that_are_none(tmp_path: Path, images: Path, predictor: Predictor, frames: Any) -> None:
    with pytest.raises(ValueError, match="`frames` to be 'each' or a whole number of at least 1"):
        explain(predictor, [images], tmp_path / "out", reading=Reading(frames))


def test_one_path_is_enough(tmp_path: Path, images: Path, predictor: Predictor) -> None:
    assert explain(predictor, str(images / "000.png"), tmp_path / "out").done == 1


def test_output_inside_the_input_is_not_explained(images: Path, predictor: Predictor) -> None:
    explain(predictor, [images], images / "out")
    assert explain(predictor, [images], images / "out").skipped == 8


def test_refused_inputs_alone(tmp_path: Path, predictor: Predictor) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.png").symlink_to("/etc/hostname")
    assert explain(predictor, [tmp_path / "in"], tmp_path / "out").failed == 1
    assert len(read(tmp_path / "out" / "predictions.csv")) == 1


def test_progress_counts_to_the_total(tmp_path: Path, images: Path, predictor: Predictor) -> None:
    calls: list[tuple[str, int, int]] = []
    explain(predictor, [images], tmp_path / "out", progress=lambda *call: calls.append(call))
    assert calls == [("explain", done, 8) for done in (0, 3, 6, 8)]


def test_a_broken_model_is_loud_and_leaves_no_table(tmp_path: Path, images: Path) -> None:
    predictor = make_predictor()
    predictor.model.head.classifier.bias.data[0] = torch.nan
    with pytest.raises(IdentityError, match="NaN"):
        explain(predictor, [images], tmp_path / "out")
    assert not (tmp_path / "out" / "predictions.csv").exists()


def interrupt(monkeypatch: pytest.MonkeyPatch, name: str, at: int) -> None:
    """Let a function of the module be hit by Ctrl-C at its n-th call, in the middle of its work."""
    original: Callable[..., Any] = getattr(module, name)
    calls = 0

    def hit(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == at:
            raise KeyboardInterrupt
        return original(*args, **kwargs)

    monkeypatch.setattr(module, name, hit)


@pytest.mark.parametrize(
    ("name", "at"),
    [
        *(("stage", at) for at in (1, 4, 8, 13, 16)),
        ("write_atomic", 1),
        *(("encode_evidence", at) for at in (1, 5, 8)),
        *(("make_row", at) for at in (1, 4, 8)),
        ("write_tables", 1),
        ("_take_over", 1),
    ],
)
def test_the_same_command_continues_and_nothing_tells(
    tmp_path: Path, images: Path, predictor: Predictor, monkeypatch: pytest.MonkeyPatch, name: str, at: int
) -> None:
    (images / "005.png").write_bytes((images / "000.png").read_bytes())
    explain(predictor, [images], tmp_path / "whole")
    interrupt(monkeypatch, name, at)
    with pytest.raises(KeyboardInterrupt):
        explain(predictor, [images], tmp_path / "out")
    assert not (tmp_path / "out" / "run.json").exists()
    monkeypatch.undo()
    summary = explain(predictor, [images], tmp_path / "out")
    assert (summary.done, summary.failed) == (8, 1)
    assert tree(tmp_path / "out") == tree(tmp_path / "whole")


CHILD = """
import sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from test_explanations import make_predictor
from softcam.reporting.explanations import explain

explain(make_predictor(), [Path(sys.argv[2])], Path(sys.argv[3]), progress=lambda *call: print(*call, flush=True))
"""


@pytest.mark.slow
def test_killed_runs_lose_and_duplicate_nothing(tmp_path: Path, predictor: Predictor) -> None:
    images = make_images(tmp_path / "in", 60)
    explain(predictor, [images], tmp_path / "whole")
    whole = tree(tmp_path / "whole")
    command = [sys.executable, "-c", CHILD, str(Path(__file__).parent), str(images)]
    children = {
        seed: subprocess.Popen([*command, str(tmp_path / str(seed))], stdout=subprocess.PIPE, text=True)
        for seed in range(3)
    }
    kept = []
    for seed, child in children.items():
        assert child.stdout is not None
        chance = random.Random(seed)
        for _ in range(chance.randint(2, 18)):
            child.stdout.readline()
        time.sleep(chance.uniform(0, 0.03))
        child.send_signal(signal.SIGKILL)
        child.communicate()
        out = tmp_path / str(seed)
        finished = (out / "run.json").exists()
        for name, content in tree(out).items():
            temporary = ".partial." in name
            assert temporary or content == whole[name]
        summary = explain(predictor, [images], out)
        assert (summary.done, summary.failed) == (60, 0)
        assert tree(out) == whole
        kept.append(finished or summary.skipped)
    assert any(0 < skipped < 60 for skipped in kept)


def test_the_overlay_lies_where_the_network_looked() -> None:
    pixels = np.full((20, 40, 3), 100, np.uint8)
    maps = np.zeros((2, 2, 2), np.float32)
    maps[0, 0, 0], maps[1, 1, 1] = 1.0, 1.0
    geometry = Preprocessing(size=8, crop_fraction=0.5).locate(20, 40)
    prediction = Prediction(
        "x", "ok", ("a", "b"), predicted="a", logits=maps.mean((1, 2)), maps=maps, geometry=geometry
    )
    drawn = draw_overlay(image_from_array(pixels), prediction, limit=1.0)
    changed = (drawn != 100).any(axis=2)
    rows, columns = np.where(changed)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (5, 14, 15, 24)
    assert drawn[5, 15, 0] > 100 > drawn[5, 15, 2]  # orange: for the predicted class
    assert drawn[14, 24, 2] > 100 > drawn[14, 24, 0]  # blue: against it
    assert np.array_equal(drawn[5:15, 15:25], overlay(pixels[5:15, 15:25], prediction.margin(), 1.0))
    assert (pixels == 100).all()


def test_a_large_image_is_reduced_with_its_evidence() -> None:
    pixels = np.full((1024, 4096), 100, np.uint8)
    maps = np.ones((1, 1, 1), np.float32)
    geometry = Preprocessing(size=8).locate(1024, 4096)
    prediction = Prediction("x", "ok", ("a",), predicted="a", logits=np.ones(1), maps=maps, geometry=geometry)
    drawn = draw_overlay(image_from_array(pixels), prediction, limit=1.0)
    assert drawn.shape == (512, 2048, 3)
    columns = np.where((drawn != 100).any(axis=(0, 2)))[0]
    assert (columns.min(), columns.max()) == (768, 1279)


def test_the_overlay_refuses_another_image() -> None:
    image = image_from_array(np.zeros((8, 8), np.uint8))
    with pytest.raises(ValueError, match="to be one of `image`"):
        draw_overlay(image, Prediction("x", "failed", ("a",)), limit=1.0)
    other = Prediction("x", "ok", ("a",), predicted="a", geometry=Preprocessing(size=8).locate(8, 9))
    with pytest.raises(ValueError, match="to be one of `image`"):
        draw_overlay(image, other, limit=1.0)


def test_one_scale_for_all_overlays(tmp_path: Path, images: Path, predictor: Predictor) -> None:
    explain(predictor, [images], tmp_path / "out")
    explain(predictor, [images], tmp_path / "set", products=Products(limit=50.0))
    limit = json.loads((tmp_path / "out" / "run.json").read_text())["overlay_limit"]
    assert json.loads((tmp_path / "set" / "run.json").read_text())["overlay_limit"] == 50.0
    for name in ("000.png", "sub/007.png"):
        image, prediction = decode_image(images / name), next(predictor([images / name]))
        shown = np.asarray(Image.open(tmp_path / "out" / "overlays" / f"{name}.png"))
        assert np.abs(shown.astype(int) - draw_overlay(image, prediction, limit=limit)).max() <= 1
        paler = np.asarray(Image.open(tmp_path / "set" / "overlays" / f"{name}.png"))
        assert not np.array_equal(shown, paler)


def test_large_images_are_decoded_again_for_the_overlay(
    tmp_path: Path, images: Path, predictor: Predictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    explain(predictor, [images], tmp_path / "kept")
    monkeypatch.setattr(module, "_KEPT_PIXELS", 0)
    explain(predictor, [images], tmp_path / "again")
    assert tree(tmp_path / "kept") == tree(tmp_path / "again")


def test_the_summary_measures_time(tmp_path: Path, images: Path, predictor: Predictor) -> None:
    summary = explain(predictor, [images], tmp_path / "out")
    assert isinstance(summary, ExplainSummary)
    assert 0 < summary.seconds < 60


def fill_disk(monkeypatch: pytest.MonkeyPatch, name: str, at: int) -> None:
    """Let the n-th call of a function of `os` find the disk full, and every later one too."""
    original: Callable[..., Any] = getattr(os, name)
    calls = 0

    def fail(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls >= at:
            raise OSError(errno.ENOSPC, "No space left on device")
        return original(*args, **kwargs)

    monkeypatch.setattr(os, name, fail)


@pytest.mark.parametrize("at", [1, 2, 3, 8, 12, 20])
def test_a_full_disk_is_said_and_the_same_command_continues(
    tmp_path: Path, images: Path, predictor: Predictor, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    explain(predictor, [images], tmp_path / "whole")
    fill_disk(monkeypatch, "fsync", at)
    with pytest.raises(
        RunError, match=r"out to take the results, but the disk is full\. Free some space; the same com"
    ):
        explain(predictor, [images], tmp_path / "out")
    assert not (tmp_path / "out" / "run.json").exists()
    assert not [path for path in (tmp_path / "out").rglob("*.partial.*") if path.name != "run.partial.jsonl"]
    monkeypatch.undo()
    summary = explain(predictor, [images], tmp_path / "out")
    assert (summary.done, summary.failed) == (8, 0)
    assert tree(tmp_path / "out") == tree(tmp_path / "whole")


def test_a_place_that_cannot_be_a_folder_is_said(tmp_path: Path, images: Path, predictor: Predictor) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(RunError, match=r"file/out to take the results, but not a directory\. Allow it, or choose ano"):
        explain(predictor, [images], tmp_path / "file" / "out")
    assert (tmp_path / "file").read_text() == "mine"


def make_photographs(folder: Path) -> Path:
    folder.mkdir()
    for index in range(4):
        noise = np.random.default_rng(index).integers(0, 256, (40, 30, 3), dtype=np.uint8)
        Image.fromarray(noise).resize((150, 200), Image.Resampling.BICUBIC).save(folder / f"{index}.jpg", quality=95)
    return folder


def test_drafts_differ_little_and_lie_where_the_whole_lies(tmp_path: Path, predictor: Predictor) -> None:
    photographs = make_photographs(tmp_path / "in")
    explain(predictor, [photographs], tmp_path / "whole")
    explain(predictor, [photographs], tmp_path / "draft", reading=Reading(draft=True))
    arguments = json.loads((tmp_path / "draft" / "run.json").read_text())["arguments"]
    assert arguments == {"overlays": True, "arrays": True, "limit": None, "frames": "each", "draft": True}
    for name in (f"{index}.jpg" for index in range(4)):
        arrays = [np.load(tmp_path / out / "evidence" / f"{name}.npz") for out in ("whole", "draft")]
        seen = decode_image(photographs / name, least_side=64)
        assert seen.reduction == 2
        np.testing.assert_allclose(arrays[1]["logits"], next(predictor([seen])).logits, rtol=1e-4, atol=1e-6)
        assert not np.array_equal(arrays[0]["logits"], arrays[1]["logits"])
        np.testing.assert_allclose(arrays[0]["logits"], arrays[1]["logits"], atol=0.05)
        assert str(arrays[0]["geometry"]) == str(arrays[1]["geometry"])
        assert Image.open(tmp_path / "draft" / "overlays" / f"{name}.png").size == (150, 200)


def test_a_draft_continues_as_a_draft(tmp_path: Path, predictor: Predictor, monkeypatch: pytest.MonkeyPatch) -> None:
    photographs = make_photographs(tmp_path / "in")
    explain(predictor, [photographs], tmp_path / "whole", reading=Reading(draft=True))
    interrupt(monkeypatch, "make_row", 4)
    with pytest.raises(KeyboardInterrupt):
        explain(predictor, [photographs], tmp_path / "out", reading=Reading(draft=True))
    monkeypatch.undo()
    with pytest.raises(RunError, match="its arguments differ"):
        explain(predictor, [photographs], tmp_path / "out")
    explain(predictor, [photographs], tmp_path / "out", reading=Reading(draft=True))
    assert tree(tmp_path / "out") == tree(tmp_path / "whole")
