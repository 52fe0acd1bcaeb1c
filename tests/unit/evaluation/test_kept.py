from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from softcam.data import Manifest
from softcam.evaluation import comparison, evaluate
from softcam.evaluation.comparison import compare_methods
from softcam.evaluation.kept import Kept, digest_tensors
from softcam.evaluation.measures import Measured
from softcam.evaluation.models import Contestants
from softcam.evaluation.predictions import Predictions

FOUND = (
    Measured(
        {"gini": torch.tensor([0.25, float("nan")], dtype=torch.float64)},
        {("deletion", "mean"): torch.rand(2, 3, dtype=torch.float64)},
    ),
    1.5,
)


def refuse() -> Any:
    raise AssertionError("this is not to be measured again")


def test_what_was_measured_is_taken_from_the_folder(tmp_path: Path) -> None:
    tensors = (torch.rand(2, 3), torch.tensor([True, False]))

    def inputs() -> str:
        return digest_tensors(tensors)

    Kept(tmp_path, seed=0).get("evidence", inputs, lambda: FOUND)
    measured, seconds = Kept(tmp_path, seed=0).get("evidence", inputs, refuse)
    assert seconds == 1.5
    assert torch.equal(measured.values["gini"].isnan(), torch.tensor([False, True]))
    assert torch.equal(measured.curves["deletion", "mean"], FOUND[0].curves["deletion", "mean"])


@pytest.mark.parametrize("changed", ["method", "values", "shape", "dtype", "decides"])
def test_whatever_decides_is_measured_again(tmp_path: Path, changed: str) -> None:
    inputs = torch.arange(4.0)
    Kept(tmp_path, seed=0).get("evidence", lambda: digest_tensors([inputs]), lambda: FOUND)
    others = {"values": inputs + 1, "shape": inputs[None], "dtype": inputs.int()}
    other = others.get(changed, inputs)
    kept = Kept(tmp_path, seed=1 if changed == "decides" else 0)
    with pytest.raises(AssertionError, match="measured again"):
        kept.get("random" if changed == "method" else "evidence", lambda: digest_tensors([other]), refuse)


def test_a_damaged_file_is_measured_again(tmp_path: Path) -> None:
    Kept(tmp_path).get("evidence", str, lambda: FOUND)
    (path,) = tmp_path.iterdir()
    path.write_bytes(path.read_bytes()[:20])
    assert Kept(tmp_path).get("evidence", str, lambda: FOUND) is FOUND
    assert Kept(tmp_path).get("evidence", str, refuse)[1] == 1.5


def test_nothing_is_kept_without_a_folder() -> None:
    kept = Kept()
    assert kept.get("evidence", str, lambda: FOUND) is FOUND
    with pytest.raises(AssertionError, match="measured again"):
        kept.get("evidence", str, refuse)


def test_an_evaluation_goes_on_where_it_was_ended(
    world: Any, models: Contestants, predictions: Predictions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    part: Manifest = world.manifest.subset("test")
    settings = world.settings(methods=("evidence", "random"))
    whole = compare_methods(models, part, predictions, settings)
    real, calls = comparison.attribute, []

    def attribute(method: str, *arguments: Any) -> Any:
        calls.append(method)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return real(method, *arguments)

    monkeypatch.setattr(comparison, "attribute", attribute)
    with pytest.raises(KeyboardInterrupt):
        compare_methods(models, part, predictions, settings, kept=Kept(tmp_path))
    assert calls == ["evidence", "random", "evidence", "random"]
    again = compare_methods(models, part, predictions, settings, kept=Kept(tmp_path))
    assert calls[4:] == ["random"]
    assert again.benchmark.equals(whole.benchmark)
    assert again.curves.equals(whole.curves)


def test_a_further_method_is_measured_alone(world: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    few = world.settings(methods=("evidence",), right=0, wrong=0, located=0)
    evaluate(world.softcam, world.manifest, settings=few, keep=tmp_path)
    real, calls = comparison.attribute, []

    def attribute(method: str, *arguments: Any) -> Any:
        calls.append(method)
        return real(method, *arguments)

    monkeypatch.setattr(comparison, "attribute", attribute)
    more = world.settings(methods=("evidence", "random"), right=0, wrong=0, located=0)
    found = evaluate(world.softcam, world.manifest, settings=more, keep=tmp_path)
    assert set(calls) == {"random"}
    assert set(found.benchmark["method"]) == {"evidence", "random"}
    calls.clear()
    other = world.settings(methods=("evidence",), right=0, wrong=0, located=0, fills=("mean",))
    evaluate(world.softcam, world.manifest, settings=other, keep=tmp_path)
    assert set(calls) == {"evidence"}
