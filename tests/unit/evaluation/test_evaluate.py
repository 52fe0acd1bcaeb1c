from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from softcam.data import Manifest
from softcam.errors import ManifestError
from softcam.evaluation import EvaluationResult, evaluate, write_evaluation
from softcam.reporting import write_report


def test_everything_is_there(result: EvaluationResult) -> None:
    assert set(result.metrics) == {
        "classification", "black_box", "noninferiority", "identity", "calibration", "confusion", "roc", "pr",
        "consistency", "locality", "comparisons", "thresholds", "classes", "conversion", "counts",
        "others", "uncertainty", "threshold_rule",
    }  # fmt: skip
    assert result.metrics["identity"]["n"] == 15
    assert 0 <= result.metrics["identity"]["max_relative_error"] <= 1e-5
    assert result.metrics["noninferiority"]["n"] == 15
    assert len(result.predictions) == 15


def test_repeatable(result: EvaluationResult, world: Any) -> None:
    again = evaluate(world.softcam, world.manifest, black_box_path=world.black_box, settings=world.settings())
    assert again.benchmark.equals(result.benchmark)
    assert again.metrics["classification"] == result.metrics["classification"]
    assert again.provenance["data_digest"] == result.provenance["data_digest"]
    assert [case.image_id for case in again.gallery] == [case.image_id for case in result.gallery]


def test_without_a_twin_peers_explain_the_softcam(world: Any) -> None:
    found = evaluate(world.softcam, world.manifest, settings=world.settings(right=0, wrong=0))
    assert found.metrics["black_box"] is None
    assert found.metrics["noninferiority"] is None
    starts = found.curves[(found.curves["patches"] == 0) & (found.curves["curve"] == "deletion")]
    assert starts["probability"].nunique() == 1
    assert found.provenance["black_box_fingerprint"] is None


def test_split(world: Any) -> None:
    settings = world.settings(explained=0, right=0, wrong=0, split=None)
    assert evaluate(world.softcam, world.manifest, settings=settings).metrics["counts"]["test"] == 17
    with pytest.raises(ManifestError, match="split 'val'"):
        evaluate(world.softcam, world.manifest, settings=world.settings(split="val"))


def test_stages_are_told_in_order(world: Any) -> None:
    seen: list[str] = []
    settings = world.settings(methods=("evidence",), right=1, wrong=1)
    evaluate(world.softcam, world.manifest, settings=settings, progress=lambda stage, _done, _all: seen.append(stage))
    assert list(dict.fromkeys(seen)) == ["predict", "explain", "gallery"]


def test_others_classify_the_same_images(world: Any, result: EvaluationResult) -> None:
    settings = world.settings(explained=0, right=0, wrong=0, located=0)
    found = evaluate(
        world.softcam, world.manifest, black_box_path=world.black_box, others={"sparse": world.sparse},
        settings=settings,
    )  # fmt: skip
    alone = evaluate(world.sparse, world.manifest, black_box_path=world.black_box, settings=settings)
    (other,) = found.metrics["others"].values()
    assert set(found.metrics["others"]) == {"sparse"}
    assert set(other) == {"classification", "noninferiority", "consistency", "max_relative_error"}
    for part in ("classification", "noninferiority", "consistency"):
        assert other[part] == alone.metrics[part]
    assert other["max_relative_error"] == alone.metrics["identity"]["max_relative_error"]
    assert found.metrics["classification"] == result.metrics["classification"] != other["classification"]
    assert found.provenance["other_fingerprints"] == {"sparse": alone.provenance["model_fingerprint"]}


def take(manifest: Manifest, chosen: Any) -> Manifest:
    """Return some rows of the test split."""
    part = manifest.subset("test")
    return part.take(np.flatnonzero(chosen(part)))


@pytest.fixture
def finish(world: Any, tmp_path: Path) -> Any:
    """Evaluate, write everything, and return the result, the numbers as they are on disk, and the page."""

    def run(manifest: Manifest, **changes: Any) -> tuple[EvaluationResult, dict[str, Any], str]:
        few = {
            "methods": ("evidence", "grad_cam"),
            "fills": ("mean",),
            "insertion_fills": ("mean",),
            "right": 1,
            "wrong": 1,
        }
        settings = world.settings(split=None, **{**few, **changes})
        found = evaluate(world.softcam, manifest, black_box_path=world.black_box, settings=settings)
        write_evaluation(found, tmp_path)
        metrics: dict[str, Any] = json.loads((tmp_path / "metrics.json").read_text())
        return found, metrics, write_report(found, tmp_path).read_text(encoding="utf-8")

    return run


@pytest.mark.parametrize("label", [0, 1])
@pytest.mark.slow
def test_a_test_set_of_one_class(world: Any, finish: Any, label: int) -> None:
    found, metrics, page = finish(take(world.manifest, lambda part: part.targets == label))
    assert metrics["classification"]["auroc"]["value"] is None
    assert metrics["classification"]["accuracy"]["value"] == pytest.approx(
        (found.predictions["predicted"] == world.classes[label]).mean()
    )
    assert metrics["noninferiority"] is None
    assert (found.benchmark.set_index("metric").loc["gini", "n"] == 6).all()
    assert "</html>" in page


@pytest.mark.slow
def test_a_test_set_of_one_patient(world: Any, finish: Any) -> None:
    part = world.manifest.subset("test")
    found, metrics, page = finish(replace(part, table=part.table.assign(patient="p0")))
    for entry in metrics["classification"].values():
        assert entry["low"] is entry["high"] is None
    assert metrics["classification"]["auroc"]["value"] is not None
    assert metrics["noninferiority"] is None
    assert found.benchmark[["low", "high"]].isna().all(axis=None)
    assert found.benchmark.set_index(["method", "metric"])["value"]["evidence", "gini"] > 0
    assert {record["p"] for record in metrics["comparisons"]} == {None}
    assert "</html>" in page


@pytest.mark.slow
def test_a_test_set_of_one_image(world: Any, finish: Any) -> None:
    found, metrics, page = finish(take(world.manifest, lambda part: np.arange(len(part)) == 0))
    assert metrics["counts"]["test"] == metrics["counts"]["faithfulness"] == 1
    assert metrics["classification"]["accuracy"]["value"] in (0, 1)
    assert metrics["classification"]["accuracy"]["low"] is None
    assert metrics["noninferiority"] is metrics["classification"]["auroc"]["value"] is None
    assert len(found.gallery) == 1
    assert len(found.values) == 2
    assert "</html>" in page


@pytest.mark.parametrize(
    ("changes", "explained", "rows"),
    [
        ({"explained": 0}, 0, 2 * 9),
        ({"explained": 999, "explained_slowly": 999, "located": 999, "right": 99, "wrong": 99}, 15, 2 * 9),
        ({"methods": (), "gallery_methods": ()}, 6, 0),
        ({"measures": ()}, 6, 0),
        ({"fills": (), "insertion_fills": ()}, 6, 2 * 6),
        ({"located": 0, "right": 0, "wrong": 0}, 6, 2 * 9),
    ],
    ids=["explained=0", "more than there are", "no methods", "no measures", "no fills", "neither located nor shown"],
)
@pytest.mark.slow
def test_nothing_and_too_much_asked_for(
    world: Any, finish: Any, changes: dict[str, Any], explained: int, rows: int
) -> None:
    found, metrics, page = finish(world.manifest.subset("test"), **changes)
    assert metrics["counts"]["faithfulness"] == explained
    assert len(found.benchmark) == rows
    assert metrics["classification"]["accuracy"]["n"] == 15
    assert "</html>" in page


@pytest.mark.slow
def test_masks_that_cannot_be_used_are_counted_and_listed(world: Any, finish: Any, tmp_path: Path) -> None:
    part = world.manifest.subset("test")
    Image.fromarray(np.zeros((9, 9), dtype=np.uint8)).save(part.root / "tiny.png")
    found, metrics, page = finish(replace(part, table=part.table.assign(mask="tiny.png")))
    assert metrics["counts"]["failed"] == 1
    assert metrics["counts"]["failed_masks"] == 6
    assert pd.read_csv(tmp_path / "failures.csv")["image"].tolist() == ["07.png"] + ["tiny.png"] * 6
    assert "pointing_game" not in set(found.benchmark["metric"])
    assert found.benchmark.set_index(["method", "metric"])["n"]["evidence", "gini"] == 6
    assert "</html>" in page
