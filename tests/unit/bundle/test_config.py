from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from softcam.bundle import BundleConfig, read_config
from softcam.errors import BundleError


@pytest.fixture
def values() -> dict[str, Any]:
    return {
        "format_version": 1,
        "kind": "black_box",
        "classes": ["intact", "defect"],
        "task": "multiclass",
        "fingerprint": "0" * 64,
        "thresholds": {"defect": 0.25},
        "preprocessing": {"size": 64},
        "provenance": {"seed": 3},
    }


def write(folder: Path, content: object) -> Path:
    (folder / "config.json").write_text(content if isinstance(content, str) else json.dumps(content))
    return folder


def test_reads_what_was_written(tmp_path: Path, values: dict[str, Any]) -> None:
    config = read_config(write(tmp_path, values))
    assert config.classes == ("intact", "defect")
    assert config.thresholds == {"defect": 0.25}
    assert config.architecture is None
    assert read_config(write(tmp_path, config.to_json())) == config


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format_version": 2}, "`format_version` to be 1, but got 2"),
        ({"format_version": None}, "`format_version` to be 1"),
        ({"threshold": {}}, "'threshold'. Did you mean 'thresholds'"),
        ({"zzz": 1}, "Known keys: kind"),
        ({"kind": "other"}, "`kind` to be one of"),
        ({"classes": []}, "`classes` to be unique"),
        ({"classes": ["a", "a"]}, "`classes` to be unique"),
        ({"classes": "ab"}, "`classes` to be unique"),
        ({"classes": ["a", "b\n"]}, "`classes` to be unique"),
        ({"classes": ["a", " "]}, "`classes` to be unique"),
        ({"task": "regression"}, "`task` to be one of"),
        (
            {"task": "multilabel", "classes": ["defect", "a; b"]},
            r"without `;`, which parts several labels, but got \['a; b'\]",
        ),
        ({"fingerprint": "0" * 63}, "`fingerprint` to be a SHA-256"),
        ({"fingerprint": "G" * 64}, "`fingerprint` to be a SHA-256"),
        ({"architecture": {"name": "timm:x"}}, "`architecture` to be an object with exactly"),
        ({"architecture": "timm:x"}, "`architecture` to be an object"),
        ({"thresholds": {"defect": 1.0001}}, "`thresholds` to be an object of probabilities"),
        ({"thresholds": {"defect": True}}, "`thresholds` to be an object of probabilities"),
        ({"thresholds": {"scratch": 0.5}}, "keyed by class names"),
        ({"penalty": {"l1": "much"}}, "`penalty` to be an object of finite numbers"),
        ({"versions": {"torch": 2}}, "`versions` to be an object of texts"),
        ({"data_digest": 7}, "`data_digest` to be a digest"),
        ({"provenance": []}, "`provenance` to be an object"),
        ({"preprocessing": {"sise": 64}}, "Did you mean 'size'"),
        ({"preprocessing": {"size": 0}}, "`size` to be a whole number"),
        ({"conversion": {"head": "linear"}}, "conversion report"),
    ],
)
def test_refuses_what_is_wrong(tmp_path: Path, values: dict[str, Any], change: dict[str, Any], message: str) -> None:
    with pytest.raises(BundleError, match=message):
        read_config(write(tmp_path, {**values, **change}))


@pytest.mark.parametrize("key", ["kind", "classes", "task", "fingerprint"])
def test_refuses_what_is_missing(tmp_path: Path, values: dict[str, Any], key: str) -> None:
    del values[key]
    with pytest.raises(BundleError, match=rf"\['{key}'\], but they are missing"):
        read_config(write(tmp_path, values))


@pytest.mark.parametrize(
    ("content", "message"),
    [("{", "to be JSON"), ("[]", "to hold an object, but got list"), ('{"format_version": NaN}', "NaN is not a JSON")],
)
def test_refuses_other_content(tmp_path: Path, content: str, message: str) -> None:
    with pytest.raises(BundleError, match=message):
        read_config(write(tmp_path, content))


def test_refuses_a_folder_without_one(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"a readable config\.json"):
        read_config(tmp_path)


def test_boundaries_of_thresholds_are_allowed(tmp_path: Path, values: dict[str, Any]) -> None:
    config = read_config(write(tmp_path, {**values, "thresholds": {"intact": 0, "defect": 1}}))
    assert config.thresholds == {"intact": 0, "defect": 1}


def test_refuses_a_class_count_that_conversion_contradicts(named_config: BundleConfig) -> None:
    with pytest.raises(BundleError, match="`classes` to be the 3 of `conversion`"):
        replace(named_config, classes=("a", "b"))


@pytest.fixture
def named_config(named: Any) -> BundleConfig:
    return BundleConfig("softcam", ("a", "b", "c"), "multiclass", "0" * 64, conversion=named.conversion.to_dict())
