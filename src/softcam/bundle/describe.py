"""What a bundle says about a model, gathered when it is saved."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch import nn

from softcam._version import __version__
from softcam.backbones import default_preprocessing, identify
from softcam.bundle.config import BundleConfig
from softcam.bundle.parts import describe_parts
from softcam.errors import BundleError
from softcam.nn import Ensemble, SoftCAM
from softcam.versions import installed_versions

RECORDED = ("torch", "torchvision", "timm", "safetensors", "numpy")


def describe(
    model: nn.Module,
    classes: Sequence[str] | None,
    *,
    task: str | None,
    fingerprint: str,
    record: Mapping[str, Mapping[str, Any] | None],
) -> BundleConfig:
    """Return the configuration of a model's bundle.

    Args:
        model: A SoftCAM model, or a black box.
        classes: Class names in the order of the logits; None: "0", "1", ...
        task: None: what a SoftCAM model says of itself, `multiclass` for a black box of several classes.
        fingerprint: SHA-256 of the tensors.
        record: `preprocessing`, `thresholds` and `provenance`, each as `save` takes them.

    Raises:
        BundleError: If a value does not fit the model.
    """
    names = _name_classes(model, classes)
    architecture, preprocessing = _identify(model, len(names), record["preprocessing"])
    provenance = dict(record["provenance"] or {})
    return BundleConfig(
        kind="softcam" if isinstance(model, SoftCAM) else "black_box",
        classes=names,
        task=_check_task(model, task, len(names)),
        fingerprint=fingerprint,
        architecture=architecture,
        head=model.conversion.head if isinstance(model, SoftCAM) else None,
        preprocessing=preprocessing,
        thresholds=dict(record["thresholds"] or {}),
        penalty=provenance.pop("penalty", None),
        data_digest=provenance.pop("data_digest", None),
        versions=list_versions(),
        conversion=_conversion(model),
        calibration=provenance.pop("calibration", None),
        inputs=provenance.pop("inputs", None),
        threshold_rule=provenance.pop("threshold_rule", None),
        provenance=provenance,
    )


def list_versions() -> dict[str, str]:
    """Return the versions of softcam and of the installed libraries that a result depends on."""
    return {"softcam": __version__, **installed_versions(RECORDED)}


def _name_classes(model: nn.Module, classes: Sequence[str] | None) -> tuple[str, ...]:
    known = getattr(model, "num_classes", None)
    if classes is None and not isinstance(known, int):
        raise BundleError("Expected `classes` to be given, since the model does not say how many it has.")
    names = tuple(str(index) for index in range(known or 0)) if classes is None else tuple(classes)
    if isinstance(known, int) and known != len(names):
        hint = " Name the class that its only logit speaks for." if known == 1 else ""
        msg = f"Expected `classes` to name the {known} outputs of the model, but got {len(names)} names.{hint}"
        raise BundleError(msg)
    return names


def _check_task(model: nn.Module, task: str | None, num_classes: int) -> str:
    if num_classes == 1:
        own, reason = "multilabel", "a single class has no other to exclude"
    elif isinstance(model, SoftCAM):
        own, reason = ("multilabel" if model.multi_label else "multiclass"), "the model's `multi_label` says so"
    else:
        return task or "multiclass"
    if task == "ordinal" and own == "multiclass":
        return task
    if task not in (None, own):
        raise BundleError(f"Expected `task` to be {own!r}, since {reason}, but got {task!r}.")
    return own


def _identify(
    model: nn.Module, num_classes: int, preprocessing: Mapping[str, Any] | None
) -> tuple[dict[str, Any] | None, dict[str, Any] | None]:
    if isinstance(model, Ensemble):
        first = _identify(model.members[0], num_classes, preprocessing)[1]
        return describe_parts(model, lambda part: _identify(part, num_classes, None)[0], _conversion), first
    network = model.features.network if isinstance(model, SoftCAM) else model
    architecture = identify(network, num_classes=num_classes)
    if preprocessing is None and architecture is not None:
        preprocessing = default_preprocessing(architecture.name)
    if architecture is None:
        return None, _as_json(preprocessing)
    return {"name": architecture.name, "arguments": _as_json(architecture.arguments)}, _as_json(preprocessing)


def _as_json(values: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Return the values as `config.json` will give them back, so that a saved record equals the one read."""
    if values is None:
        return None
    try:
        plain: dict[str, Any] = json.loads(json.dumps(dict(values), allow_nan=False))
    except (TypeError, ValueError) as error:
        raise BundleError(f"Expected a record of JSON values, but {error}.") from error
    return plain


def _conversion(model: nn.Module) -> dict[str, Any] | None:
    # A new classifier may have been set since the conversion; the report then speaks of the one that is stored.
    if not isinstance(model, SoftCAM):
        return None
    return replace(model.conversion, num_classes=model.num_classes, dropout=model.head.dropout).to_dict()
