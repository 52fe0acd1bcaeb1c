from __future__ import annotations

from dataclasses import replace

import pytest

from softcam.bundle import BundleConfig
from softcam.bundle.card import write_card
from softcam.nn import SoftCAM


@pytest.fixture
def config(named: SoftCAM) -> BundleConfig:
    return BundleConfig(
        kind="softcam",
        classes=("intact", "defect", "other"),
        task="multiclass",
        fingerprint="a" * 64,
        architecture={"name": "timm:resnet50", "arguments": {}},
        preprocessing={"size": 96},
        thresholds={"defect": 0.25},
        penalty={"l1": 1e-5},
        conversion=named.conversion.to_dict(),
        provenance={"metrics": {"auroc": {"value": 0.91234, "low": 0.88, "high": 0.94, "n": 120}, "accuracy": 0.8}},
    )


@pytest.mark.parametrize(
    "text",
    [
        "timm:resnet50",
        "intact, defect, other",
        "multiclass",
        "| size | 96 |",
        "defect: 0.25",
        "l1 = 1e-05",
        "| auroc | 0.9123 (0.88 to 0.94, n = 120) |",
        "| accuracy | 0.8 |",
        "the black box's own when it was converted (largest relative error",
        "5x5 cells at 160x160 px",
        "What a map shows, and what it does not",
        "A map explains the model, not the world",
        "a" * 64,
    ],
)
def test_says(config: BundleConfig, text: str) -> None:
    assert text in write_card(config)


def test_signals_and_volumes_have_sizes_of_their_own(config: BundleConfig) -> None:
    for size, grid, field, text in (
        ([128], [4], [63], "4 cells at 128 px; a cell sees 63 px"),
        ([8, 16, 24], [1, 2, 3], [8, 15, 15], "1x2x3 cells at 8x16x24 px; a cell sees 8x15x15 px"),
    ):
        conversion = {**(config.conversion or {}), "input_size": size, "grid": grid, "receptive_field": field}
        assert text in write_card(replace(config, conversion=conversion))


def test_says_what_is_not_known(config: BundleConfig) -> None:
    card = write_card(replace(config, architecture=None, preprocessing=None, provenance={}, penalty=None))
    assert "a module of the user's own" in card
    assert "Not recorded: it has to be given" in card
    assert "No metrics were recorded" in card
    assert "penalty" not in card


def test_shows_metrics_alone_of_the_provenance(config: BundleConfig) -> None:
    provenance = {"patients": ["Doe"], "metrics": {"auroc": 0.5, "note": "Doe", "table": {"Doe": 1}}}
    card = write_card(replace(config, provenance=provenance))
    assert "| auroc | 0.5 |" in card
    assert "Doe" not in card


def test_a_new_layer_is_not_called_exact(config: BundleConfig) -> None:
    conversion = {**(config.conversion or {}), "error": None}
    assert "a new layer, trained rather than copied" in write_card(replace(config, conversion=conversion))


@pytest.mark.parametrize("error", [None, 1e-7])
def test_what_drifted_is_called_neither_new_nor_the_black_boxs_own(config: BundleConfig, error: float | None) -> None:
    card = write_card(replace(config, conversion={**(config.conversion or {}), "error": error, "drift": 0.0967}))
    assert "linear; copied from the black box, whose logits drifted by 0.097 of their size when converted" in card
    assert "the black box's own when" not in card
    assert "a new layer" not in card


def test_class_names_cannot_break_the_page(config: BundleConfig) -> None:
    card = write_card(replace(config, classes=("a|b", "<img src=x>", "[c](d)"), thresholds={}))
    assert r"a\|b, \<img src=x\>, \[c\](d)" in card


def test_a_black_box_has_no_maps(config: BundleConfig) -> None:
    card = write_card(replace(config, kind="black_box", conversion=None))
    assert "gives logits and no evidence maps" in card
    assert "What a map shows" not in card
    assert "load_black_box" in card
