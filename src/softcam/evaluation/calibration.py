"""Calibrate a model on validation images, and measure on test images whether that holds."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from softcam.bundle import BundleConfig, Calibration, measure_inputs, read_config
from softcam.data.manifest import Manifest
from softcam.errors import RunError
from softcam.evaluation.images import Failure
from softcam.evaluation.labels import Floats, Indices, decide_labels
from softcam.evaluation.models import check_match
from softcam.evaluation.predictions import Progress
from softcam.evaluation.thresholds import choose_thresholds
from softcam.evaluation.uncertainty import describe_selection, describe_sets
from softcam.metrics import (
    ThresholdRule,
    classification_report,
    conformal_quantile,
    fit_temperature,
    least_images,
    negative_log_likelihood,
    prediction_sets,
    scale_probabilities,
    scale_threshold,
    true_scores,
)
from softcam.metrics.calibration import HIGHEST, LOWEST
from softcam.metrics.conformal import Score
from softcam.predict import Predictor
from softcam.runs import plain

VERIFIED = "test"
"""Split on which a calibration is verified, where there is one."""

_MANY_EMPTY = 0.05


@dataclass(frozen=True)
class CalibrationSettings:
    """How a model is calibrated.

    Args:
        split: Split of the manifest that it is calibrated on.
        alpha: Share of images whose prediction set may miss the true class, in (0, 1).
        score: `lac` for the smallest sets, `aps` for sets that are larger where an image is harder.
        batch_size: Images per forward pass.
        device: As torch names it; None takes a GPU if there is one.
        resamples: Of bootstrap intervals.
        seed: Of bootstrap intervals.
        thresholds: Rule by which the thresholds are chosen anew; None leaves every decision as it is.

    Raises:
        ValueError: If `alpha` or `score` is out of range.
    """

    split: str = "val"
    alpha: float = 0.1
    score: Score = "lac"
    batch_size: int = 8
    device: str | None = None
    resamples: int = 2000
    seed: int = 0
    thresholds: ThresholdRule | None = None

    def __post_init__(self) -> None:
        """Refuse values that no calibration can have."""
        least_images(self.alpha)
        if self.score not in ("lac", "aps"):
            raise ValueError(f"Expected `score` to be lac or aps, but got {self.score!r}.")

    @property
    def random(self) -> dict[str, Any]:
        """What decides the intervals."""
        return {"resamples": self.resamples, "seed": self.seed}


@dataclass(frozen=True, eq=False)
class CalibrationResult:
    """What a calibration found.

    Args:
        config: The description of the bundle with its calibration.
        metrics: The same and what was measured, in JSON values.
        failures: Files that are no usable images.
    """

    config: BundleConfig
    metrics: dict[str, Any]
    failures: tuple[Failure, ...]


@dataclass(frozen=True, eq=False)
class _Answers:
    """What the model says about every image of a split that could be read."""

    logits: Floats
    targets: Indices
    patients: NDArray[np.object_] | None
    failures: tuple[Failure, ...]


def calibrate(
    model_path: str | Path,
    manifest: Manifest,
    *,
    settings: CalibrationSettings | None = None,
    progress: Progress | None = None,
) -> CalibrationResult:
    """Fit a temperature and, for exclusive classes, the quantile of prediction sets; nothing is written.

    Both are chosen from raw logits, so that a calibrated model is calibrated again from its beginning. Thresholds move
    with the probabilities: what is reported of an image stays as it is. Verified on the split `test`, if the manifest
    has one. Where the bundle does not say what the training's images were like, the manifest's are measured: those of
    the split `train`, or of the one that is calibrated on.

    Args:
        model_path: Bundle of the SoftCAM.
        manifest: The data.
        settings: Default: `CalibrationSettings()`.
        progress: Called as `progress(split, done, total)`.

    Raises:
        BundleError: If the bundle cannot be read.
        ManifestError: If the manifest has no such split.
        RunError: If model and data do not belong together, no image could be read, or there are too few for `alpha`.
        IdentityError: If the maps of any image do not average to its logits.
    """
    settings = settings or CalibrationSettings()
    config = read_config(model_path)
    if config.kind != "softcam":
        raise RunError("Expected a SoftCAM model, but got its black-box twin. Calibrate the model that is used.")
    check_match(config, manifest)
    part = manifest.subset(settings.split)
    exclusive = config.task != "multilabel"
    if exclusive:
        _check_count(len(part), settings)
    predictor = Predictor(model_path, batch_size=settings.batch_size, device=settings.device, backend="torch")
    answers = _ask(predictor, part, settings.split, progress)
    if exclusive:
        _check_count(len(answers.logits), settings)
    base, notes = config.uncalibrated(), tuple[str, ...]()
    if settings.thresholds is not None:
        base, notes = choose_thresholds(
            base, answers.logits, answers.targets, settings.thresholds, split=settings.split
        )
    calibrated = _fit(base, answers, part.digest(), settings)
    held_out = None
    if settings.split != VERIFIED and VERIFIED in set(manifest.table["split"]):
        held_out = _ask(predictor, manifest.subset(VERIFIED), VERIFIED, progress)
    verification = None if held_out is None else _measure(calibrated, held_out, settings, split=VERIFIED)
    calibrated = _note_inputs(_note_verification(calibrated, verification), predictor, manifest, part)
    names = ("temperature", "method", "alpha", "quantile", "n", "split", "data_digest")
    metrics = {
        **{name: getattr(calibrated.calibration, name) for name in names},
        "thresholds": {"raw": dict(base.thresholds), "calibrated": dict(calibrated.thresholds)},
        "threshold_rule": calibrated.threshold_rule,
        "fit": _measure(calibrated, answers, settings, split=settings.split),
        "verification": verification,
    }
    failures = answers.failures + (() if held_out is None else held_out.failures)
    metrics |= {
        "notes": [*notes, *_list_notes(metrics, exclusive=exclusive)],
        "failed": [entry._asdict() for entry in failures],
    }
    return CalibrationResult(calibrated, plain(metrics), failures)


def _check_count(count: int, settings: CalibrationSettings) -> None:
    if count < (least := least_images(settings.alpha)):
        raise RunError(
            f"Expected at least {least} images in split {settings.split!r} for an alpha of {settings.alpha:g}, but got "
            f"{count}. Choose a larger alpha, or more validation images."
        )


def _ask(predictor: Predictor, part: Manifest, split: str, progress: Progress | None) -> _Answers:
    logits, rows, failures = [], [], []
    with closing(predictor(part.paths)) as predictions:
        for row, prediction in enumerate(predictions):
            if prediction.status == "ok":
                logits.append(prediction.logits)
                rows.append(row)
            else:
                failures.append(Failure(part.cell(row, "image"), prediction.reason))
            if progress is not None:
                progress(split, row + 1, len(part))
    if not rows:
        raise RunError(f"Expected at least one usable image in split {split!r}, but none of {len(part)} could be read.")
    targets = part.targets[rows].astype(np.int64)
    patients = None if part.patients is None else part.patients[rows]
    return _Answers(np.stack(logits).astype(np.float64), targets, patients, tuple(failures))


def _fit(config: BundleConfig, answers: _Answers, digest: str, settings: CalibrationSettings) -> BundleConfig:
    """Return the description of a raw model with its calibration and the thresholds that go with it."""
    temperature = fit_temperature(answers.logits, answers.targets)
    sets: dict[str, Any] = {}
    if config.task != "multilabel":
        probabilities = scale_probabilities(answers.logits, temperature=temperature)
        scores = true_scores(probabilities, answers.targets, score=settings.score)
        quantile = conformal_quantile(scores, alpha=settings.alpha)
        sets = {"method": settings.score, "alpha": settings.alpha, "quantile": quantile}
    calibration = Calibration(
        temperature=temperature,
        n=len(answers.logits),
        split=settings.split,
        data_digest=digest,
        thresholds=dict(config.thresholds),
        **sets,
    )
    thresholds = dict(config.thresholds)
    if config.task == "multilabel" or len(config.classes) == 2:
        thresholds = {
            name: _move(value, config.classes.index(name), answers.logits, calibration, config)
            for name, value in thresholds.items()
        }
    return replace(config, thresholds=thresholds, calibration=calibration)


def _move(threshold: float, index: int, logits: Floats, calibration: Calibration, config: BundleConfig) -> float:
    """Return the threshold that decides calibrated probabilities as the given one decides those of raw logits.

    A threshold that is the score of an image would turn that image over by rounding alone; then it moves to the middle
    between the scores on its two sides.
    """
    raw, new = (
        scale_probabilities(logits, temperature=value, multi_label=config.task == "multilabel")[:, index]
        for value in (1.0, calibration.temperature)
    )
    moved = scale_threshold(threshold, calibration.temperature)
    above = raw.astype(np.float32) >= threshold  # as a predictor decides
    if ((new >= moved) == above).all():
        return moved
    if above.all():
        return float(new.min())
    low = float(new[~above].max())
    if not above.any():
        return float(np.nextafter(low, 1))
    high = float(new[above].min())
    middle = (low + high) / 2
    return middle if middle > low else high


def _measure(config: BundleConfig, answers: _Answers, settings: CalibrationSettings, *, split: str) -> dict[str, Any]:
    """Return how well raw and calibrated probabilities fit a split, and how good sets and confidence are there."""
    calibration = config.calibration
    assert calibration is not None  # noqa: S101 - `_fit` gave it one
    multi_label = config.task == "multilabel"
    random: dict[str, Any] = settings.random | {"groups": answers.patients}
    found: dict[str, Any] = {"split": split, "n": len(answers.logits), "nll": {}, "ece": {}, "brier": {}}
    decisions = []
    for name, described in (("raw", config.uncalibrated()), ("calibrated", config)):
        temperature = calibration.temperature if name == "calibrated" else 1.0
        values = scale_probabilities(answers.logits, temperature=temperature, multi_label=multi_label)
        threshold = described.threshold
        report = classification_report(values, answers.targets, threshold=threshold, **random)
        found["nll"][name] = negative_log_likelihood(answers.logits, answers.targets, temperature=temperature)
        found["ece"][name], found["brier"][name] = report["ece"]._asdict(), report["brier"]._asdict()
        decisions.append(decide_labels(values.astype(np.float32) if name == "raw" else values, threshold))
    found["changed_decisions"] = int((decisions[0] != decisions[1]).sum())
    arguments: dict[str, Any] = {"groups": answers.patients, "random": settings.random}
    found["selective"] = describe_selection(values, answers.targets, threshold, **arguments)
    if calibration.quantile is not None:
        score: Any = calibration.method
        sets = prediction_sets(values, quantile=calibration.quantile, score=score)
        found["sets"] = describe_sets(sets, answers.targets, calibration, classes=config.classes, **arguments)
    return found


def _note_verification(config: BundleConfig, found: dict[str, Any] | None) -> BundleConfig:
    """Put what was measured on other images beside the calibration, in short."""
    assert config.calibration is not None  # noqa: S101 - `_fit` gave it one
    if found is None:
        return config
    short = {"split": found["split"], "n": found["n"], "ece": found["ece"]}
    if "sets" in found:
        short |= {"coverage": found["sets"]["coverage"], "size": found["sets"]["size"]}
    return replace(config, calibration=replace(config.calibration, verification=plain(short)))


def _note_inputs(config: BundleConfig, predictor: Predictor, manifest: Manifest, part: Manifest) -> BundleConfig:
    """Put beside the calibration what images were like, if the bundle does not say so yet."""
    if config.inputs is not None:
        return config
    seen = manifest.subset("train") if "train" in set(manifest.table["split"]) else part
    return replace(config, inputs=measure_inputs(predictor.model, predictor.preprocessing, seen.paths, part.paths))


def _list_notes(metrics: Mapping[str, Any], *, exclusive: bool) -> list[str]:
    """Return what a reader of the numbers has to know."""
    notes = []
    if not exclusive:
        notes.append("classes are independent: a temperature alone, no prediction sets")
    if metrics["temperature"] in (LOWEST, HIGHEST):
        notes.append(
            f"the temperature is at the end of its range, {metrics['temperature']:g}: too few images, or a model that "
            "is right about all of them"
        )
    if metrics["verification"] is None:
        notes.append(f"not verified: the manifest has no split {VERIFIED!r} beside the one that was used")
    found = metrics["verification"] or metrics["fit"]
    if exclusive and found["sets"]["size"]["empty"] > _MANY_EMPTY:
        notes.append(
            f"{100 * found['sets']['size']['empty']:.0f} % of the sets are empty: the model is right more often than "
            f"an alpha of {metrics['alpha']:g} asks for; a smaller one gives sets that say more"
        )
    if exclusive and found["sets"]["coverage"]["high"] < found["sets"]["target"]:
        notes.append("the sets hold the true class less often than promised: are these images of another kind?")
    return notes
