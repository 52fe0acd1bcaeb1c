from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from torch import nn

from softcam._version import __version__
from softcam.bundle.describe import describe, list_versions
from softcam.errors import BundleError
from softcam.nn import SoftCAM, convert

RECORD: dict[str, Any] = {"preprocessing": None, "thresholds": None, "provenance": None}


def test_describes_a_named_model(named: SoftCAM) -> None:
    provenance = {"penalty": {"l1": 1e-5}, "data_digest": "d" * 64, "seed": 3}
    config = describe(
        named, ["a", "b", "c"], task=None, fingerprint="0" * 64, record={**RECORD, "provenance": provenance}
    )
    assert config.kind == "softcam"
    assert config.head == "linear"
    assert config.task == "multiclass"
    assert config.architecture == {"name": "timm:test_resnet", "arguments": {"drop_rate": 0.25}}
    assert config.preprocessing is not None
    assert config.preprocessing["size"] == 160
    assert config.conversion == named.conversion.to_dict()
    assert (config.penalty, config.data_digest, config.provenance) == ({"l1": 1e-5}, "d" * 64, {"seed": 3})


def test_what_is_given_wins(named: SoftCAM) -> None:
    record = {**RECORD, "preprocessing": {"size": 64}, "thresholds": {"b": 0.5}}
    config = describe(named, ["a", "b", "c"], task="multiclass", fingerprint="1" * 64, record=record)
    assert config.preprocessing == {"size": 64}
    assert config.thresholds == {"b": 0.5}
    assert config.fingerprint == "1" * 64


def test_a_module_of_the_users_own_has_no_name(toy: nn.Module) -> None:
    config = describe(convert(toy), None, task=None, fingerprint="0" * 64, record=RECORD)
    assert config.architecture is None
    assert config.preprocessing is None
    assert config.classes == ("0", "1")


def test_a_new_classifier_is_the_one_described(toy: nn.Module) -> None:
    model = convert(toy)
    model.reset_classifier(5)
    config = describe(model, None, task=None, fingerprint="0" * 64, record=RECORD)
    assert config.conversion is not None
    assert config.conversion["num_classes"] == 5


def test_multi_label_is_the_models_own(toy: nn.Module) -> None:
    model = convert(toy, multi_label=True)
    assert describe(model, None, task=None, fingerprint="0" * 64, record=RECORD).task == "multilabel"
    with pytest.raises(BundleError, match="`task` to be 'multilabel'"):
        describe(model, None, task="multiclass", fingerprint="0" * 64, record=RECORD)
    assert describe(toy, ["a", "b"], task="multilabel", fingerprint="0" * 64, record=RECORD).task == "multilabel"


def test_an_only_class_is_independent(make_toy: Callable[..., nn.Module]) -> None:
    for one in (convert(make_toy(1)), make_toy(1)):
        assert describe(one, ["defect"], task=None, fingerprint="0" * 64, record=RECORD).task == "multilabel"
        with pytest.raises(BundleError, match="to be 'multilabel', since a single class has no other to exclude"):
            describe(one, ["defect"], task="multiclass", fingerprint="0" * 64, record=RECORD)
    with pytest.raises(BundleError, match=r"name the 1 outputs .* got 2 names\. Name the class that its only logit"):
        describe(convert(make_toy(1)), ["intact", "defect"], task=None, fingerprint="0" * 64, record=RECORD)


def test_refuses_classes_that_do_not_fit(toy: nn.Module) -> None:
    with pytest.raises(BundleError, match="name the 2 outputs of the model, but got 3"):
        describe(convert(toy), ["a", "b", "c"], task=None, fingerprint="0" * 64, record=RECORD)
    with pytest.raises(BundleError, match="the model does not say how many"):
        describe(toy, None, task=None, fingerprint="0" * 64, record=RECORD)


def test_refuses_what_json_cannot_hold(toy: nn.Module) -> None:
    record = {**RECORD, "preprocessing": {"size": object()}}
    with pytest.raises(BundleError, match="JSON values"):
        describe(convert(toy), None, task=None, fingerprint="0" * 64, record=record)


def test_versions_name_softcam_and_torch() -> None:
    versions = list_versions()
    assert versions["softcam"] == __version__
    assert versions["torch"].startswith("2.")


def test_grades_are_exclusive_classes_in_order(toy: nn.Module) -> None:
    assert describe(convert(toy), None, task="ordinal", fingerprint="0" * 64, record=RECORD).task == "ordinal"
    with pytest.raises(
        BundleError, match="`task` to be 'multilabel', since the model's `multi_label` says so, but got"
    ):
        describe(convert(toy, multi_label=True), None, task="ordinal", fingerprint="0" * 64, record=RECORD)
