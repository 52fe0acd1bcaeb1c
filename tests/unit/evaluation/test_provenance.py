from __future__ import annotations

from typing import Any

import torch

from softcam.bundle import read_config
from softcam.evaluation import EvaluationResult
from softcam.evaluation.provenance import describe_machine, list_versions


def test_what_reproduces_the_numbers(result: EvaluationResult, world: Any) -> None:
    found = result.provenance
    assert found["model_fingerprint"] == read_config(world.softcam).fingerprint
    assert found["black_box_fingerprint"] == read_config(world.black_box).fingerprint
    assert len(found["data_digest"]) == 64
    assert found["settings"]["points"] == (0, 4, 8)
    assert found["failures"][0]["image"] == "07.png"
    assert found["undefined"] == {}
    assert set(found["seconds"]) == {
        "predict", "classify", "others", "uncertainty", "explain", "locality", "gallery", "total",
    }  # fmt: skip
    assert found["other_fingerprints"] == {}


def test_subsamples_are_named_with_their_reason(result: EvaluationResult) -> None:
    found = result.provenance["subsamples"]
    assert found["explained"]["n"] == len(found["explained"]["images"]) == 6
    assert set(found["explained_slowly"]["images"]) <= set(found["explained"]["images"])
    assert "07.png" not in found["explained"]["images"]
    assert all(entry["reason"] for entry in found.values())


def test_versions_and_machine() -> None:
    assert list_versions()["torch"].split("+")[0] == torch.__version__.split("+")[0]
    machine = describe_machine(torch.device("cpu"))
    assert machine["device"] == "cpu"
    assert machine["threads"] == torch.get_num_threads()
