from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import softcam.demo as module
from softcam.bundle import load, load_black_box
from softcam.data import Manifest, read_manifest, write_manifest
from softcam.demo import DemoResult, run_demo
from softcam.evaluation import EvaluationSettings, evaluate
from softcam.training import Recipe

# One tiny demo is trained, evaluated and reported for most of them.
pytestmark = pytest.mark.slow

CLASSES = ("intact", "defect")
SETTINGS = EvaluationSettings(
    resamples=50, methods=("evidence", "random"), explained=2, points=(0, 4), fills=("mean",),
    right=1, wrong=0, gallery_methods=(),
)  # fmt: skip


def tiny_recipe(name: str) -> Recipe:
    data = {"image_size": 64, "batch_size": 8}
    model = {"backbone": "timm:test_efficientnet", "weights": "none"}
    values = {"name": name, "data": data, "model": model, "penalty": {"l1": 1e-4}, "stages": [{"epochs": 1}]}
    return Recipe.from_dict(values)


def tiny_data(folder: Path) -> Manifest:
    """16 images, 16x16; every second one is brighter."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for index in range(16):
        pixels = np.random.default_rng(index).integers(0, 90, (16, 16), dtype=np.uint8) + np.uint8(index % 2 * 150)
        Image.fromarray(pixels).save(folder / f"{index:02}.png")
        rows.append((f"{index:02}.png", CLASSES[index % 2], ("train", "train", "val", "test")[index // 2 % 4]))
    write_manifest(pd.DataFrame(rows, columns=["image", "label", "split"]), folder / "manifest.csv")
    return read_manifest(folder / "manifest.csv", classes=CLASSES)


@pytest.fixture(scope="module", autouse=True)
def _tiny() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module.elpv, "prepare", tiny_data)
        patch.setattr(module, "read_recipe", tiny_recipe)
        patch.setattr(module, "evaluate", partial(evaluate, settings=SETTINGS))
        yield


@pytest.fixture(scope="module")
def said() -> list[str]:
    return []


@pytest.fixture(scope="module")
def stages() -> list[str]:
    return []


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("demo")


@pytest.fixture(scope="module")
def result(out: Path, said: list[str], stages: list[str]) -> DemoResult:
    return run_demo(out, say=said.append, progress=lambda stage, done, total: stages.append(stage))


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_everything_lies_where_it_is_promised(result: DemoResult, out: Path) -> None:
    assert {path.name for path in out.iterdir()} - {"cache"} == {
        "data", "runs", "model", "black_box", "evaluation", "report.html"
    }  # fmt: skip
    for name in ("model", "black_box"):
        assert files(out / name) == files(out / "runs" / name / "model")
    assert result.report == out / "report.html"
    assert result.report.read_bytes() == (out / "evaluation" / "report.html").read_bytes()
    assert "SoftCAM on solar cells (elpv-demo)" in result.report.read_text(encoding="utf-8")


def test_the_twins_are_a_softcam_and_a_black_box(result: DemoResult, out: Path) -> None:
    assert load(out / "model").num_classes == 2
    load_black_box(out / "black_box")
    metrics = result.evaluation.metrics
    assert metrics["counts"]["test"] == 4
    assert metrics["noninferiority"] is not None
    assert result.evaluation.provenance["settings"]["resamples"] == 50


def test_each_step_is_announced_and_timed(result: DemoResult, said: list[str], stages: list[str]) -> None:
    names = ["data", "black box", "convert", "softcam", "evaluation"]
    assert [line.partition(":")[0] for line in said if line.endswith(" ...")] == names
    assert list(result.seconds) == names
    assert all(0 < seconds < 60 for seconds in result.seconds.values())
    assert len(said) == len(names) + 1, "and the report of the conversion"
    assert {"predict", "explain"} <= set(stages)


def test_the_same_call_trains_nothing_again(result: DemoResult, out: Path, said: list[str]) -> None:
    before = {path: path.read_bytes() for path in (out / "runs").rglob("run.json")}
    again = run_demo(out, say=said.append, progress=lambda *_: None)
    assert {path: path.read_bytes() for path in (out / "runs").rglob("run.json")} == before
    assert again.evaluation.metrics == result.evaluation.metrics


def test_a_copy_that_cannot_take_its_place_leaves_the_old_model(
    result: DemoResult, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = files(out / "black_box")
    rename = Path.rename

    def fail(self: Path, target: Path) -> Path:
        if self.suffix == ".partial":
            raise OSError("interrupted")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fail)
    with pytest.raises(OSError, match="interrupted"):
        run_demo(out, say=lambda _: None, progress=lambda *_: None)
    assert files(out / "black_box") == before
    assert not [path for path in out.iterdir() if path.name.startswith(".")]


def test_the_full_demo_takes_the_full_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    class StopError(Exception):
        pass

    def ask(name: str) -> Recipe:
        asked.append(name)
        raise StopError

    monkeypatch.setattr(module, "read_recipe", ask)
    for full in (False, True):
        with pytest.raises(StopError):
            run_demo(tmp_path, full=full, say=lambda _: None, progress=lambda *_: None)
    assert asked == ["elpv-demo", "elpv-full"]
