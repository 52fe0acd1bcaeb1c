"""Thresholds chosen on validation images, by a stated rule: of the second class of two, or of each label."""

from __future__ import annotations

from dataclasses import replace

from softcam.bundle import BundleConfig
from softcam.errors import RunError
from softcam.evaluation.labels import Floats, Indices
from softcam.metrics import ThresholdRule, choose_threshold, scale_probabilities
from softcam.metrics.inputs import to_flags


def choose_thresholds(
    config: BundleConfig, logits: Floats, targets: Indices, rule: ThresholdRule, *, split: str
) -> tuple[BundleConfig, tuple[str, ...]]:
    """Return the description of a model that is not calibrated with other thresholds, and what to note about them.

    Args:
        config: The description.
        logits: (N, K) of validation images.
        targets: (N,) class indices, or (N, K) of 0 and 1 where classes are independent.
        rule: How they are chosen.
        split: Which images these are.

    Raises:
        RunError: If the model reports the most probable of several classes, which needs no threshold, or if the rule
            cannot be followed.
    """
    multi_label = config.task == "multilabel"
    if not multi_label and len(config.classes) != 2:
        raise RunError(
            "Expected a model of two classes or of independent labels to choose thresholds for, but got "
            f"{len(config.classes)} classes that exclude each other: the most probable one is reported."
        )
    probabilities = scale_probabilities(logits, temperature=1.0, multi_label=multi_label)
    flags = to_flags(targets, len(config.classes))
    thresholds, notes = dict(config.thresholds), []
    for index in range(len(config.classes)) if multi_label else (1,):
        name, own = config.classes[index], flags[:, index]
        if not 0 < own.sum() < len(own):
            notes.append(f"{name}: its threshold stays, as {split!r} has no image with it, or none without it")
            continue
        try:
            thresholds[name] = choose_threshold(probabilities[:, index], own.astype(int), rule)
        except ValueError as error:
            raise RunError(f"{name}: {error}") from error
    record = {"rule": str(rule), "split": split, "n": len(logits)}
    return replace(config, thresholds=thresholds, threshold_rule=record), tuple(notes)
