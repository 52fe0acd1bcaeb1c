from __future__ import annotations

from typing import Any

import pytest

from softcam.errors import ManifestError
from softcam.evaluation import EvaluationResult, evaluate


def test_everything_is_there(result: EvaluationResult) -> None:
    assert set(result.metrics) == {
        "classification", "black_box", "noninferiority", "identity", "calibration", "confusion", "roc", "pr",
        "consistency", "locality", "comparisons", "thresholds", "classes", "conversion", "counts",
        "others",
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
