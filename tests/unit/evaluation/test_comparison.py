from __future__ import annotations

import sys
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from softcam.attribution import attribute
from softcam.data import Manifest
from softcam.errors import RunError
from softcam.evaluation import EvaluationResult, evaluate
from softcam.evaluation.comparison import compare_methods
from softcam.evaluation.labels import decide_labels
from softcam.evaluation.localization import LOCALIZATION, measure_localization
from softcam.evaluation.models import Contestants, load_contestants
from softcam.evaluation.predictions import Predictions
from softcam.evaluation.truth import read_truth
from softcam.imaging import decode_image


def test_benchmark_is_tidy_and_complete(result: EvaluationResult) -> None:
    table = result.benchmark
    assert list(table.columns) == [
        "method", "metric", "direction", "value", "low", "high", "n", "undefined", "model", "layer",
    ]  # fmt: skip
    assert not table.duplicated(["method", "metric"]).any()
    assert len(table) == 4 * 12
    assert dict(zip(table["method"], table["model"], strict=True)) == {
        "evidence": "softcam", "evidence_margin": "softcam", "grad_cam": "black_box", "random": "black_box",
    }  # fmt: skip
    assert set(table["layer"]) == {""}
    assert (table["n"] + table["undefined"] == 6).all()
    defined = table[table["n"] > 1]
    assert (defined["low"] <= defined["value"]).all()
    assert (defined["value"] <= defined["high"]).all()


def test_curves_start_with_the_same_images_for_every_method_of_a_model(result: EvaluationResult) -> None:
    table = result.curves
    assert list(table.columns) == [
        "method", "curve", "fill", "patches", "fraction", "probability", "low", "high", "n",
    ]  # fmt: skip
    assert len(table) == 4 * 2 * 2 * 3
    starts = table[(table["patches"] == 0) & (table["fill"] == "mean")].set_index(["method", "curve"])["probability"]
    assert starts["evidence", "deletion"] == starts["evidence_margin", "deletion"]
    assert starts["grad_cam", "deletion"] == starts["random", "deletion"]
    assert starts["evidence", "deletion"] != starts["grad_cam", "deletion"]
    assert table["fraction"].max() == pytest.approx(8 / 256)


def test_differences_are_paired_against_evidence_and_corrected(result: EvaluationResult) -> None:
    records = result.metrics["comparisons"]
    assert {record["method"] for record in records} == {"evidence_margin", "grad_cam", "random"}
    assert {record["against"] for record in records} == {"evidence"}
    assert len(records) == 3 * 12
    assert all(record["p_holm"] >= record["p"] for record in records if not np.isnan(record["p"]))
    values = result.benchmark.set_index(["method", "metric"])["value"]
    for record in records:
        if record["metric"] == "gini":
            expected = values[record["method"], "gini"] - values["evidence", "gini"]
            assert record["difference"] == pytest.approx(expected)


@pytest.fixture
def marked(world: Any) -> Manifest:
    """The test images, with a square as mask."""
    part = world.manifest.subset("test")
    mask = np.zeros((70, 80), dtype=np.uint8)
    mask[20:40, 20:40] = 255
    Image.fromarray(mask).save(part.root / "mask.png")
    return replace(part, table=part.table.assign(mask="mask.png"))


def test_localisation_joins_the_benchmark_where_findings_are_known(
    world: Any, marked: Manifest, models: Contestants, predictions: Predictions
) -> None:
    settings = world.settings(methods=("evidence", "random"), fills=("mean",), explained=15)
    found = compare_methods(models, marked, predictions, settings)
    table = found.benchmark.set_index(["method", "metric"])
    assert models.thresholds == {"softcam": 0.4, "black_box": 0.45}
    decided = decide_labels(predictions.probabilities, 0.4)
    usable = {"evidence": decided, "random": decide_labels(predictions.black_box, 0.45)}
    for method, classes in usable.items():
        right = int((classes == predictions.targets).sum())
        for metric in LOCALIZATION:
            assert table.loc[(method, metric), "n"] == right
            assert table.loc[(method, metric), "undefined"] == len(predictions) - right
            assert table.loc[(method, metric), "direction"] == "higher"
    assert found.failures == ()
    assert {record["metric"] for record in found.differences} > set(LOCALIZATION)


def test_localisation_is_that_of_the_maps(
    world: Any, marked: Manifest, models: Contestants, predictions: Predictions
) -> None:
    settings = world.settings(methods=("evidence",), fills=("mean",), explained=15)
    table = compare_methods(models, marked, predictions, settings).benchmark.set_index("metric")
    chosen = np.flatnonzero(decide_labels(predictions.probabilities, 0.4) == predictions.targets)
    expected: dict[str, list[float]] = {name: [] for name in LOCALIZATION}
    for row, target in zip(map(int, predictions.rows[chosen]), predictions.targets[chosen], strict=True):
        image = models.preprocessing(decode_image(marked.paths[row]))[0]
        truth = read_truth(marked, row, models.preprocessing)
        maps = attribute("evidence", models.softcam, image[None], torch.tensor([int(target)]))
        for name, value in measure_localization(maps, truth[None]).items():
            expected[name].append(float(value))
    for name, values in expected.items():
        assert table.loc[name, "n"] == len(values) > 0
        assert table.loc[name, "value"] == pytest.approx(np.mean(values), abs=1e-4)


def test_a_mask_that_cannot_be_read_is_named(
    world: Any, marked: Manifest, models: Contestants, predictions: Predictions
) -> None:
    (marked.root / "mask.png").write_bytes(b"")
    settings = world.settings(methods=("evidence",), fills=("mean",), explained=15)
    found = compare_methods(models, marked, predictions, settings)
    assert {failure.image for failure in found.failures} == {"mask.png"}
    assert not set(LOCALIZATION) & set(found.benchmark["metric"])


def test_slow_methods_explain_fewer_of_the_same_images(
    world: Any, models: Contestants, predictions: Predictions
) -> None:
    settings = world.settings(methods=("evidence", "integrated_gradients"), fills=("mean",))
    found = compare_methods(models, world.manifest.subset("test"), predictions, settings)
    assert set(found.slow_images) < set(found.images)
    assert len(found.images) == 6
    assert found.benchmark.groupby("method")["n"].max().to_dict() == {"evidence": 6, "integrated_gradients": 2}
    assert {record["n"] for record in found.differences if record["metric"] == "gini"} == {2}
    assert set(found.seconds) == {"evidence", "integrated_gradients"}


def test_a_missing_library_leaves_a_method_undefined(
    world: Any, models: Contestants, predictions: Predictions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pytorch_grad_cam", None)
    settings = world.settings(methods=("evidence", "grad_cam"), fills=("mean",))
    found = compare_methods(models, world.manifest.subset("test"), predictions, settings)
    assert "softcam[peers]" in found.undefined["grad_cam"]
    rows = found.benchmark[found.benchmark["method"] == "grad_cam"]
    assert (rows["undefined"] == 6).all()
    assert rows["value"].isna().all()
    assert found.differences == []
    assert set(found.curves["method"]) == {"evidence"}


def test_no_reference_no_differences(world: Any, models: Contestants, predictions: Predictions) -> None:
    settings = world.settings(methods=("random",), fills=("mean",))
    assert compare_methods(models, world.manifest.subset("test"), predictions, settings).differences == []


def test_comparison_can_be_left_out(world: Any) -> None:
    found = evaluate(world.softcam, world.manifest, settings=world.settings(explained=0, right=0, wrong=0))
    assert found.metrics["counts"]["faithfulness"] == 0
    assert found.metrics["comparisons"] == []
    assert found.benchmark["value"].isna().all()
    assert found.curves.empty
    assert found.gallery == ()


def test_batches_do_not_change_the_numbers(world: Any, models: Contestants, predictions: Predictions) -> None:
    part = world.manifest.subset("test")
    settings = world.settings(methods=("evidence", "random"), fills=("mean",))
    first = compare_methods(models, part, predictions, settings).benchmark
    second = compare_methods(models, part, predictions, replace(settings, batch_size=2)).benchmark
    np.testing.assert_allclose(first["value"], second["value"], rtol=1e-4, atol=1e-4)


def test_progress_counts_methods_and_batches(world: Any, models: Contestants, predictions: Predictions) -> None:
    seen: list[tuple[str, int, int]] = []
    settings = world.settings(methods=("evidence", "random"), fills=("mean",))
    compare_methods(
        models, world.manifest.subset("test"), predictions, settings, progress=lambda *step: seen.append(step)
    )
    assert seen == [("explain", done, 4) for done in (1, 2, 3, 4)]


def test_another_model_is_explained_by_its_own_maps(world: Any, predictions: Predictions) -> None:
    models = load_contestants(
        world.softcam, world.black_box, world.manifest, device="cpu", others={"sparse": world.sparse}
    )
    settings = world.settings(methods=("evidence", "random"), fills=("mean",))
    part = world.manifest.subset("test")
    found = compare_methods(models, part, predictions, settings)
    table = found.benchmark.set_index(["method", "metric"])
    assert list(dict.fromkeys(found.benchmark["method"])) == ["evidence", "evidence:sparse", "random"]
    assert table.loc[("evidence:sparse", "gini"), "model"] == "sparse"
    alone = compare_methods(models.instead("sparse"), part, predictions, settings).benchmark
    expected = alone[alone["method"] == "evidence"].set_index("metric")["value"]
    np.testing.assert_allclose(table.loc["evidence:sparse"].loc[expected.index, "value"], expected, rtol=1e-5)
    assert table.loc[("evidence:sparse", "deletion_area_mean"), "value"] != pytest.approx(
        table.loc[("evidence", "deletion_area_mean"), "value"]
    )
    assert {record["method"] for record in found.differences} == {"evidence:sparse", "random"}


def test_a_method_at_another_layer_is_another_row(world: Any, models: Contestants, predictions: Predictions) -> None:
    names = list(dict(models.black_box.named_modules()))
    first = next(name for name in names if name.startswith("layer1"))
    settings = world.settings(methods=("grad_cam", f"grad_cam@{first}"), measures=("complexity",))
    table = compare_methods(models, world.manifest.subset("test"), predictions, settings).benchmark
    assert set(table["layer"]) == {"", first}
    values = table.set_index(["method", "metric"])["value"]
    assert values[f"grad_cam@{first}", "gini"] != pytest.approx(values["grad_cam", "gini"])


def test_a_layer_without_a_grid_leaves_its_method_undefined(
    world: Any, models: Contestants, predictions: Predictions
) -> None:
    settings = world.settings(methods=("evidence", "grad_cam@fc"), measures=("complexity",))
    found = compare_methods(models, world.manifest.subset("test"), predictions, settings)
    assert "features (N, D, h, w), but got (1, 2)" in found.undefined["grad_cam@fc"]
    assert found.benchmark.set_index(["method", "metric"])["n"]["evidence", "gini"] == 6


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"methods": ("grad_cam@fcc",)}, ValueError, r"black_box model after @, but got 'grad_cam@fcc'\. Did"),
        ({"explained_labels": ("sick",)}, RunError, "`explained_labels` among intact, defect, but got 'sick'"),
        ({"patch": 32, "points": (0, 5)}, RunError, "`points` to be at most the 4 patches of an image, but got 5"),
        ({"patch": 33, "measures": ("infidelity",)}, RunError, "at most half of the input's 64 px for infidelity"),
    ],
)
def test_settings_that_do_not_fit_are_refused_before_any_work(
    world: Any, changes: dict[str, Any], error: type[Exception], message: str
) -> None:
    seen: list[tuple[str, int, int]] = []
    settings = world.settings(**changes)
    with pytest.raises(error, match=message):
        evaluate(
            world.softcam, world.manifest, black_box_path=world.black_box, settings=settings,
            progress=lambda *step: seen.append(step),
        )  # fmt: skip
    assert seen == []


def test_only_images_of_some_labels_are_explained(world: Any, models: Contestants, predictions: Predictions) -> None:
    settings = world.settings(methods=("evidence",), measures=("drop",), explained_labels=("defect",), explained=4)
    found = compare_methods(models, world.manifest.subset("test"), predictions, settings)
    assert predictions.targets[found.images].tolist() == [1] * 4
    assert len(found.values) == 4


def test_values_are_those_of_each_image(result: EvaluationResult) -> None:
    table, benchmark = result.values, result.benchmark.set_index(["method", "metric"])
    assert list(table.columns[:3]) == ["image", "patient", "method"]
    assert not table.duplicated(["image", "method"]).any()
    assert set(table["image"]) == set(result.provenance["subsamples"]["explained"]["images"])
    patients = dict(zip(table["image"], table["patient"], strict=True))
    assert all(patient == f"p{int(image[:2]) // 2}" for image, patient in patients.items())
    for method, rows in table.groupby("method"):
        for metric in table.columns[3:]:
            assert rows[metric].mean() == pytest.approx(benchmark.loc[(method, metric), "value"], nan_ok=True)


def test_masks_of_another_size_are_named_and_empty_ones_counted(
    world: Any, marked: Manifest, models: Contestants, predictions: Predictions
) -> None:
    mask = np.zeros((70, 80), dtype=np.uint8)
    Image.fromarray(mask).save(marked.root / "empty.png")
    Image.fromarray(mask[:50]).save(marked.root / "small.png")
    names = [("mask.png", "empty.png", "small.png")[index % 3] for index in range(len(marked))]
    mixed = replace(marked, table=marked.table.assign(mask=names))
    settings = world.settings(methods=("evidence",), measures=("localization", "complexity"), explained=15)
    found = compare_methods(models, mixed, predictions, settings)
    small = [names[row] for row in predictions.rows].count("small.png")
    assert [failure.image for failure in found.failures] == ["small.png"] * small
    assert {failure.reason for failure in found.failures} == {"the mask has 80 x 50 px, its image 80 x 70"}
    right = decide_labels(predictions.probabilities, 0.4) == predictions.targets
    usable = int((right & (np.asarray(names)[predictions.rows] == "mask.png")).sum())
    table = found.benchmark.set_index("metric")
    assert table.loc["pointing_game", "n"] == usable
    assert table.loc["pointing_game", "undefined"] == 15 - usable
    assert table.loc["gini", "n"] == 15
