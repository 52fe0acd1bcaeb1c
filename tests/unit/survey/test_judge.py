"""What is said of a model by its head alone is what converting all of it gives."""

from __future__ import annotations

from dataclasses import replace

import pytest

from softcam.survey import read_survey
from softcam.survey.judge import CLASSES, create_empty, judge_model
from softcam.survey.measure import measure_model

NOT_JUDGED = {"error": None, "error64": None, "drift": None}


@pytest.mark.parametrize(
    "name", ["timm:test_resnet", "timm:test_efficientnet", "timm:test_vit", "timm:test_convnext", "timm:coat_tiny"]
)
def test_a_head_says_what_the_whole_network_does(name: str) -> None:
    judged, measured = judge_model(name), measure_model(name)
    assert judged is not None
    assert not judged.measured
    assert measured.measured
    assert judged == replace(measured, **NOT_JUDGED)


def test_nothing_of_the_network_but_its_head_takes_memory() -> None:
    network = create_empty("timm:vit_giant_patch14_224")
    assert network is not None
    assert network.num_classes == CLASSES
    assert {parameter.device.type for parameter in network.parameters()} == {"meta"}


def test_the_survey_has_what_is_judged_today() -> None:
    rows = {row.model: row for row in read_survey().rows}
    name = "timm:resnetv2_50"
    judged = judge_model(name)
    assert judged is not None
    assert judged == replace(rows[name], **NOT_JUDGED)


def test_a_model_without_a_classifier_has_no_row() -> None:
    assert judge_model("timm:vit_small_patch14_dinov2") is None
