from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor

from softcam.errors import ExportError, MissingExtraError, RunError, UnsupportedModelError
from softcam.evaluation import MEASURES, rounds
from softcam.evaluation.comparison import Comparison, compare_methods
from softcam.evaluation.entries import list_entries
from softcam.evaluation.models import Contestants, load_contestants
from softcam.evaluation.predictions import Predictions
from softcam.evaluation.rounds import Engines, Scores
from softcam.evaluation.settings import EvaluationSettings
from softcam.imaging import decode_image


@pytest.fixture
def compare(world: Any, models: Contestants, predictions: Predictions) -> Any:
    """Compare two methods on six images, two batches."""

    def run(**changes: Any) -> Comparison:
        settings = world.settings(**{"methods": ("evidence", "grad_cam"), "fills": ("mean",)} | changes)
        return compare_methods(models, world.manifest.subset("test"), predictions, settings)

    return run


class Spoiled:
    """Stands in for `attribute`: some of the maps of one method are NaN."""

    def __init__(self, method: str, *, calls: set[int], places: list[int]) -> None:
        self.real = rounds.attribute
        self.method = method
        self.calls = calls
        self.places = places
        self.asked = 0

    def __call__(self, method: str, *arguments: Any, finite: bool = True, **options: Any) -> Tensor:
        maps = self.real(method, *arguments, finite=finite, **options)
        if method == self.method:
            self.asked += 1
            if self.asked in self.calls:
                maps[self.places] = torch.nan
        return maps


def by_image(found: Comparison, method: str) -> pd.DataFrame:
    table: pd.DataFrame = found.values[found.values["method"] == method].set_index("image")
    return table.drop(columns=["patient", "method"])


def test_a_map_that_is_not_finite_is_left_out_and_counted(compare: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = compare()
    monkeypatch.setattr(rounds, "attribute", Spoiled("grad_cam", calls={1}, places=[2]))
    found = compare()
    pd.testing.assert_frame_equal(by_image(found, "evidence"), by_image(whole, "evidence"))
    expected = by_image(whole, "grad_cam")
    expected.iloc[2] = np.nan
    pd.testing.assert_frame_equal(by_image(found, "grad_cam"), expected)
    rows = found.benchmark[(found.benchmark["method"] == "grad_cam") & (found.benchmark["metric"] == "gini")]
    assert rows[["n", "undefined"]].to_numpy().tolist() == [[5, 1]]
    assert {record["n"] for record in found.differences if record["metric"] == "gini"} == {5}
    assert set(found.curves.loc[found.curves["method"] == "grad_cam", "n"]) == {5}
    assert found.undefined == {}


def test_a_method_without_a_finite_map_is_undefined_and_the_rest_goes_on(
    compare: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rounds, "attribute", Spoiled("grad_cam", calls={1, 2}, places=[0]))
    found = compare(batch_size=1, explained=2)
    rows = found.benchmark[found.benchmark["method"] == "grad_cam"]
    assert (rows["n"] == 0).all()
    assert (rows["undefined"] == 2).all()
    assert rows["value"].isna().all()
    assert (found.benchmark[found.benchmark["method"] == "evidence"]["n"] > 0).any()
    assert all(np.isnan(record["p_holm"]) for record in found.differences)


def test_a_changed_image_whose_map_is_not_finite_spoils_no_other(
    world: Any, models: Contestants, predictions: Predictions, compare: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, part = rounds.attribute, world.manifest.subset("test")
    row = int(predictions.rows[compare(methods=()).images[0]])
    marked, _ = models.preprocessing(decode_image(part.paths[row]))

    def attribute(method: str, model: Any, images: Tensor, target: Tensor, *, finite: bool, **options: Any) -> Tensor:
        # Only maps of changed images have to be finite.
        if method == "grad_cam" and finite and ((images - marked).abs().amax(dim=(1, 2, 3)) < 0.1).any():
            raise RunError("Expected finite maps")
        return real(method, model, images, target, finite=finite, **options)

    monkeypatch.setattr(rounds, "attribute", attribute)
    found = compare(measures=("max_sensitivity", "complexity"))
    values = by_image(found, "grad_cam")
    assert values["max_sensitivity"].isna().tolist() == [True, False, False, False, False, False]
    assert values["gini"].notna().all()
    assert by_image(found, "evidence")["max_sensitivity"].notna().all()


@pytest.mark.parametrize("error", [UnsupportedModelError("has no grid"), MissingExtraError("peers", "grad-cam")])
def test_a_method_that_is_not_defined_says_so_once(
    compare: Any, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    real, asked = rounds.attribute, []

    def attribute(method: str, *arguments: Any, **options: Any) -> Tensor:
        if method == "grad_cam":
            asked.append(method)
            raise error
        return real(method, *arguments, **options)

    monkeypatch.setattr(rounds, "attribute", attribute)
    found = compare()
    assert found.undefined == {"grad_cam": str(error)}
    assert len(asked) == 1
    assert set(found.seconds) == {"evidence"}
    rows = found.benchmark[found.benchmark["method"] == "grad_cam"]
    assert (rows["undefined"] == 6).all()


def test_the_map_is_of_the_class_that_each_model_reports(
    world: Any, predictions: Predictions, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, list[int]] = {}
    models = load_contestants(world.softcam, None, world.manifest, device="cpu", others={"sparse": world.sparse})
    real = rounds.attribute

    def attribute(method: str, model: Any, images: Tensor, target: Tensor, **options: Any) -> Tensor:
        name = next(key for key, network in models.networks.items() if network is model)
        asked.setdefault(name, []).extend(target.tolist())
        return real(method, model, images, target, **options)

    monkeypatch.setattr(rounds, "attribute", attribute)
    part, few = world.manifest.subset("test"), {"methods": ("evidence",), "measures": ("complexity",), "explained": 15}
    images = torch.stack([models.preprocessing(decode_image(part.paths[int(row)]))[0] for row in predictions.rows])
    with torch.no_grad():
        likely = {name: network(images).softmax(1)[:, 1] for name, network in models.networks.items()}
    # Each model's own, by which half of the images are of either class.
    thresholds = {name: float(values.median()) - 1e-6 for name, values in likely.items()}
    other = models.others["sparse"]
    models = replace(
        models,
        config=replace(models.config, thresholds={"defect": thresholds["softcam"]}),
        others={"sparse": replace(other, config=replace(other.config, thresholds={"defect": thresholds["sparse"]}))},
    )
    compare_methods(models, part, predictions, world.settings(**few))
    assert asked == {name: (likely[name] >= at).long().tolist() for name, at in thresholds.items()}
    assert [sum(found) for found in asked.values()] == [8, 8]
    asked.clear()
    compare_methods(models, part, predictions, world.settings(**few, explained_class="most_probable"))
    assert asked == {name: (values > 0.5).long().tolist() for name, values in likely.items()}


def test_scores_are_filled_at_their_places() -> None:
    settings = EvaluationSettings(fills=("mean",), points=(0, 3))
    (entry,) = list_entries(("random",), has_black_box=False)
    scores = Scores(entry, np.ones(4, dtype=bool), ["gini", "entropy"], settings)
    scores.add({"gini": torch.tensor([0.25, 0.5]), "deletion/mean": torch.tensor([[1.0, 2], [3, 4]])}, np.array([3, 1]))
    np.testing.assert_array_equal(scores.values["gini"], [np.nan, 0.5, np.nan, 0.25])
    assert np.isnan(scores.values["entropy"]).all()
    np.testing.assert_array_equal(scores.curves["deletion", "mean"][[3, 1]], [[1, 2], [3, 4]])
    assert np.isnan(scores.curves["insertion", "mean"]).all()
    assert Scores(entry, np.ones(4, dtype=bool), [], EvaluationSettings(measures=("drop",))).curves == {}


def test_a_network_is_compiled_once(models: Contestants, monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[Any] = []
    monkeypatch.setattr(rounds, "compile_forward", lambda model, images: compiled.append(model) or (lambda x: x + 1))
    engines = Engines(models.networks, "openvino")
    images = torch.zeros(1, 3, 64, 64)
    assert torch.equal(engines.forward("softcam", images)(images), images + 1)
    engines.forward("softcam", images)
    engines.forward("black_box", images)
    assert compiled == [models.softcam, models.black_box]
    torch.testing.assert_close(
        Engines(models.networks, "torch").forward("softcam", images)(images), models.softcam(images)
    )
    assert len(compiled) == 2


@pytest.fixture
def openvino() -> None:
    pytest.importorskip("openvino")


@pytest.mark.slow
@pytest.mark.usefixtures("openvino")
def test_another_engine_gives_the_same_numbers(compare: Any) -> None:
    measures = tuple(name for name in MEASURES if name not in ("localization", "randomization", "max_sensitivity"))
    changes = {"explained": 3, "measures": measures, "samples": 4, "shares": (0.2,)}
    first, second = compare(**changes), compare(**changes, engine="openvino")
    for columns in (["value"], ["n", "undefined"]):
        np.testing.assert_allclose(first.benchmark[columns], second.benchmark[columns], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(first.curves["probability"], second.curves["probability"], rtol=1e-4, atol=1e-4)


@pytest.mark.usefixtures("openvino")
@pytest.mark.slow
def test_an_engine_that_disagrees_ends_the_evaluation(compare: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("softcam.export.compiled.TOLERANCE", 0.0)
    with pytest.raises(ExportError, match="Run it in torch instead"):
        compare(engine="openvino")
