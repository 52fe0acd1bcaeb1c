from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from softcam.attribution.passes import digest_tensors
from softcam.data import Manifest
from softcam.evaluation import evaluate, rounds
from softcam.evaluation.comparison import compare_methods
from softcam.evaluation.kept import Kept
from softcam.evaluation.models import Contestants
from softcam.evaluation.predictions import Predictions

FOUND = {
    "gini": torch.tensor([0.25, float("nan")], dtype=torch.float64),
    # Not contiguous.
    "deletion/mean": torch.rand(3, 2, dtype=torch.float64).T,
    "finite": torch.tensor([1, 0], dtype=torch.uint8),
}


def refuse() -> Any:
    raise AssertionError("this is not to be measured again")


def test_what_was_measured_is_taken_from_the_folder(tmp_path: Path) -> None:
    tensors = (torch.rand(2, 3), torch.tensor([True, False]))

    def inputs() -> str:
        return digest_tensors(tensors)

    Kept(tmp_path, seed=0).get("evidence", inputs, lambda: FOUND)
    measured = Kept(tmp_path, seed=0).get("evidence", inputs, refuse)
    assert set(measured) == set(FOUND)
    assert all(measured[name].dtype == values.dtype for name, values in FOUND.items())
    assert torch.equal(measured["gini"].isnan(), torch.tensor([False, True]))
    assert torch.equal(measured["deletion/mean"], FOUND["deletion/mean"])
    assert torch.equal(measured["finite"], FOUND["finite"])


def test_a_measure_without_a_value_is_kept_too(tmp_path: Path) -> None:
    assert Kept(tmp_path).get("evidence localization", str, dict) == {}
    assert Kept(tmp_path).get("evidence localization", str, refuse) == {}


def test_files_are_named_after_what_they_hold(tmp_path: Path) -> None:
    kept = Kept(tmp_path)
    for name in ("evidence:sparse curves", "evidence-sparse curves", "grad_cam@Stage.1/../x maps"):
        kept.get(name, str, lambda: FOUND)
    names = sorted(path.name.rpartition("-")[0] for path in tmp_path.iterdir())
    assert names == ["evidence-sparse-curves", "evidence-sparse-curves", "grad_cam-stage.1-..-x-maps"]


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
    assert set(Kept(tmp_path).get("evidence", str, refuse)) == set(FOUND)


def test_nothing_is_kept_without_a_folder() -> None:
    kept = Kept()
    assert kept.get("evidence", str, lambda: FOUND) is FOUND
    with pytest.raises(AssertionError, match="measured again"):
        kept.get("evidence", str, refuse)


class Watched:
    """Stands in for `attribute` and writes down who asks; breaks off at one of the calls."""

    def __init__(self, *, last: int | None = None) -> None:
        self.real = rounds.attribute
        self.calls: list[str] = []
        self.last = last

    def __call__(self, method: str, *arguments: Any, **options: Any) -> Any:
        self.calls.append(method)
        if len(self.calls) == self.last:
            raise KeyboardInterrupt
        return self.real(method, *arguments, **options)


def test_an_evaluation_goes_on_where_it_was_ended(
    world: Any, models: Contestants, predictions: Predictions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    part: Manifest = world.manifest.subset("test")
    settings = world.settings(methods=("evidence", "random"))
    whole = compare_methods(models, part, predictions, settings)
    watched = Watched(last=4)
    monkeypatch.setattr(rounds, "attribute", watched)
    with pytest.raises(KeyboardInterrupt):
        compare_methods(models, part, predictions, settings, kept=Kept(tmp_path))
    assert watched.calls == ["evidence", "random", "evidence", "random"]
    again = compare_methods(models, part, predictions, settings, kept=Kept(tmp_path))
    assert watched.calls[4:] == ["random"]
    assert again.benchmark.equals(whole.benchmark)
    assert again.curves.equals(whole.curves)
    assert again.values.equals(whole.values)
    assert set(again.seconds) == {"evidence", "random"}


@pytest.mark.slow
def test_only_what_is_new_is_measured(world: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(**changes: Any) -> set[str]:
        others = changes.pop("others", None)
        before = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
        settings = world.settings(**{"methods": ("evidence",), "right": 0, "wrong": 0, "located": 0} | changes)
        evaluate(world.softcam, world.manifest, others=others, settings=settings, keep=tmp_path)
        assert {path: path.stat().st_mtime_ns for path in before} == before
        return {path.name.rpartition("-")[0] for path in set(tmp_path.iterdir()) - set(before)}

    watched = Watched()
    monkeypatch.setattr(rounds, "attribute", watched)
    cheap = {"maps", "localization", "curves", "drop", "complexity"}
    assert run() == {f"evidence-{name}" for name in cheap}
    assert run() == set()
    assert run(methods=("evidence", "random")) == {f"random-{name}" for name in cheap}
    assert watched.calls == ["evidence", "evidence", "random", "random"]
    watched.calls.clear()
    # A further measure takes the maps again, but measures nothing else.
    assert run(measures=("curves", "irof")) == {"evidence-irof"}
    assert watched.calls == ["evidence", "evidence"]
    watched.calls.clear()
    assert run(others={"sparse": world.sparse}) == {f"evidence-sparse-{name}" for name in cheap}
    assert watched.calls == ["evidence", "evidence"]
    watched.calls.clear()
    # Another model of the same name is another model.
    assert run(others={"sparse": world.softcam}) == {f"evidence-sparse-{name}" for name in cheap}
    assert run(fills=("mean",)) == {f"evidence-{name}" for name in cheap}
    assert run(seed=1) == {f"evidence-{name}" for name in cheap}
