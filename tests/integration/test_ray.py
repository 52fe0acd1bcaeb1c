"""A real Ray with two workers: the same rows as the local engine, whatever dies on the way."""

from __future__ import annotations

import csv
import json
import os
import signal
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from softcam.backbones import create_black_box
from softcam.bundle import save
from softcam.distributed import Listed, RaySettings, RaySummary, explain
from softcam.distributed.attempts import FOLDER, Attempts
from softcam.errors import RunError
from softcam.nn import convert
from softcam.predict import Predictor
from softcam.reporting.explanations import explain as explain_here
from softcam.reporting.inputs import list_entries
from softcam.reporting.places import describe_place, open_places

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
COUNT = 40


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    ray = pytest.importorskip("ray", reason="Ray comes with the extra `ray`")
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, object_store_memory=2**27)
    yield
    ray.shutdown()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    black_box = create_black_box("timm:test_resnet", num_classes=2, weights="none")
    return save(convert(black_box.eval()), tmp_path_factory.mktemp("model") / "m", classes=["intact", "defect"])


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, generator = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    for index in range(COUNT):
        path = folder / f"{'sub/' if index % 2 else ''}{index:03d}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(generator.integers(0, 256, (24, 40, 3), dtype=np.uint8)).save(path)
    (folder / "010.png").write_text("no image")
    (folder / "sub" / "011.png").write_bytes(b"")
    (folder / "sub" / "999.png").write_bytes((folder / "000.png").read_bytes())
    return folder


def run(model: Path, images: Path, out: Path, opener: Callable[..., Any] = open_places, **options: Any) -> RaySummary:
    inputs = (
        Listed(entry.id, describe_place(entry), entry.frame, entry.refusal, entry.file.stamp)
        for entry in list_entries([images], exclude=out)
    )
    settings = RaySettings(workers=2, predictor={"batch_size": 4}, **options)
    return explain(model, inputs, out, open_places=opener, settings=settings, visible=[images])


def read(out: Path) -> list[dict[str, Any]]:
    return pq.read_table(out / "predictions.parquet").to_pylist()


def test_rows_are_those_of_the_local_engine_and_a_repeated_call_returns(
    model: Path, images: Path, tmp_path: Path
) -> None:
    summary = run(model, images, tmp_path / "ray")
    assert (summary.done, summary.failed, summary.skipped, summary.repeated) == (COUNT - 2, 3, 0, 0)
    explain_here(Predictor(model, device="cpu"), [images], tmp_path / "local")
    with (tmp_path / "local" / "predictions.csv").open(newline="", encoding="utf-8") as stream:
        expected = list(csv.DictReader(stream))
    rows = read(tmp_path / "ray")
    assert [(r["id"], r["status"], r["reason"], r["predicted"] or "") for r in rows] == [
        (r["image"], r["status"], r["error"], r["predicted"]) for r in expected
    ]
    for row, other in zip(rows, expected, strict=True):
        if row["status"] == "ok":
            wanted = [float(other["logit_intact"]), float(other["logit_defect"])]
            np.testing.assert_allclose(row["logits"], wanted, atol=1e-4)
            maps = np.array(row["evidence"], np.float32).reshape(2, row["h"], row["w"])
            np.testing.assert_allclose(maps.mean((1, 2)), row["logits"], atol=1e-5)
            with np.load(tmp_path / "local" / "evidence" / f"{row['id']}.npz") as stored:
                np.testing.assert_allclose(maps, stored["maps"], atol=1e-4)
                assert row["geometry"] == str(stored["geometry"])
    assert (tmp_path / "ray" / "failures.csv").read_text() == (tmp_path / "local" / "failures.csv").read_text()
    assert json.loads((tmp_path / "ray" / "run.json").read_text())["complete"] is True
    assert {path.name for path in (tmp_path / "ray").iterdir()} == {"predictions.parquet", "failures.csv", "run.json"}
    assert run(model, images, tmp_path / "ray").skipped == COUNT + 1
    with pytest.raises(RunError, match="its arguments differ"):
        run(model, images, tmp_path / "ray", evidence="float16")


def test_a_killed_worker_costs_no_row(model: Path, images: Path, tmp_path: Path) -> None:
    marker = tmp_path / "killed"

    def open_or_die(places: Iterable[str]) -> list[Any]:
        places = list(places)
        if any("002.png" in place for place in places) and not marker.exists():
            marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return list(open_places(places))

    # Shard 5 is recorded as one during whose image 3 two workers died.
    attempts = Attempts(tmp_path / "out" / FOLDER / "000005")
    attempts.path.parent.mkdir(parents=True)
    attempts.path.write_text("begin\nbegin\n3\nbegin\n3\n")
    summary = run(model, images, tmp_path / "out", open_or_die)
    rows = read(tmp_path / "out")
    names = [entry.id for entry in list_entries([images], exclude=tmp_path)]
    assert marker.exists()
    assert [row["id"] for row in rows] == names
    assert {row["id"]: row["reason"] for row in rows if row["status"] == "failed"} == {
        "010.png": "not a readable PNG, JPEG, TIFF, BMP, WebP, GIF or DICOM image",
        "sub/011.png": "file is empty",
        names[5 * 4 + 3]: "ended its worker twice and was left out",
        "sub/999.png": "duplicate of 000.png",
    }
    assert (summary.done, summary.failed) == (COUNT - 3, 4)
    assert 2 <= summary.repeated <= 4


def test_an_ended_run_continues_with_what_is_missing(model: Path, images: Path, tmp_path: Path) -> None:
    run(model, images, tmp_path / "out", evidence="none")
    before = read(tmp_path / "out")
    parts = sorted((tmp_path / "out" / "predictions.parquet").iterdir())
    inputs = [
        Listed(e.id, describe_place(e), e.frame, e.refusal, e.file.stamp)
        for e in list_entries([images], exclude=tmp_path)
    ]
    record = json.loads((tmp_path / "out" / "run.json").read_text())
    state = {name: record[name] for name in ("model", "arguments", "inputs")}
    rows = pq.read_metadata(parts[0]).num_rows
    (tmp_path / "out" / "run.partial.json").write_text(
        json.dumps({"identity": state, "shard_rows": rows, "token": "t"})
    )
    (tmp_path / "out" / "run.json").unlink()
    parts[1].unlink()
    kept = {path: path.stat().st_mtime_ns for path in parts if path.exists()}
    settings = RaySettings(workers=1, evidence="none", predictor={"batch_size": 4})
    summary = explain(model, inputs, tmp_path / "out", open_places=open_places, settings=settings)
    assert (summary.skipped, summary.done) == (len(inputs) - rows, COUNT - 2)
    np.testing.assert_equal(read(tmp_path / "out"), before)  # an unknown spacing is NaN
    assert {path: path.stat().st_mtime_ns for path in kept} == kept


def test_a_full_disk_is_named_and_nothing_half_is_left(model: Path, images: Path, tmp_path: Path) -> None:
    def open_nothing(_: Iterable[str]) -> list[Any]:
        raise OSError(28, "No space left on device")

    with pytest.raises(RunError, match=r"no space left on device \(node .*Make room; the same command continues"):
        run(model, images, tmp_path / "out", open_nothing)
    assert not (tmp_path / "out" / "run.json").exists()
    assert list((tmp_path / "out" / "predictions.parquet").glob("*")) == []
