"""A model that is fed with files: decoding in threads, inference in batches, a check on every prediction."""

from __future__ import annotations

import copy
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from softcam.backbones import default_preprocessing, identify
from softcam.bundle import BundleConfig, fingerprint, load, read_config
from softcam.errors import IdentityError, UnsupportedModelError
from softcam.export import keep_graph
from softcam.imaging import DecodedImage, Preprocessing
from softcam.nn import Augmented, Ensemble, Evidence, SoftCAM
from softcam.nn.ensemble import average
from softcam.predict.backends import Name, TorchBackend
from softcam.predict.checks import Checker, Checks, Finding
from softcam.predict.choice import Exportable
from softcam.predict.inputs import Outcome, PreparedImage, Source, prepare
from softcam.predict.members import split_members
from softcam.predict.prediction import Prediction, choose_class
from softcam.predict.prefetch import count_threads, map_ahead
from softcam.predict.runners import create_runner
from softcam.predict.uncertainty import Uncertainty

TOLERANCE = 1e-5
"""Largest relative error of "the mean of the maps is the logits" with which a prediction is given out."""

_FAILED_PER_BATCH = 4
_HALF = (torch.float16, torch.bfloat16)


class Predictor:
    """Predict any number of images, in order and in bounded memory, with the evidence of each prediction.

    The predictor works on a copy of a model that is handed to it; the model stays as it is. Of a calibrated model
    (`softcam calibrate`), probabilities are those of the logits divided by its temperature; logits and maps stay raw,
    and so does the identity between them.

    Of an `Ensemble`, each member runs for itself: predictions have what each of them says beside the mean.

    Args:
        model: A bundle's folder, or a SoftCAM model.
        preprocessing: How images become network input; default: what the bundle says, else that of the
            architecture's published weights.
        classes: Class names in the order of the logits; default: what the bundle says, else "0", "1", ...
        batch_size: Images per forward pass, >= 1.
        device: Where to run; default: a bundle on a GPU if there is one, a model where it is.
        autocast: Half-precision type for the trunk, e.g. `torch.bfloat16`. The class evidence layer stays exact.
        backend: What runs the model: "torch", "onnxruntime" or "openvino", the last two on the CPU; or "auto", which
            takes torch on a GPU and for a few images, and the fastest by a short measurement for many. All agree
            within 1e-4.
        checks: What is checked of every image and prediction; default: the sum refuses, and an image that is unlike
            those of the training gets a warning, where the bundle says what they were like.
        augment: Views of each image over which logits and maps are averaged: "mirror", "flips", "turns" or "all", see
            `softcam.nn.AUGMENTATIONS`; None looks once.

    Raises:
        BundleError: If the folder is not a sound bundle of a SoftCAM model.
        ExportError: If a runtime was asked for that cannot run the model.
        MissingExtraError: If a runtime was asked for that is not installed.
        TypeError: If `model` is neither a path nor a SoftCAM model.
        UnsupportedModelError: If the model takes signals or volumes.
        ValueError: If a value is out of range, or the preprocessing is not known.
    """

    def __init__(  # noqa: PLR0913 - the one place where everything about a model is said
        self,
        model: SoftCAM | str | Path,
        *,
        preprocessing: Preprocessing | None = None,
        classes: Sequence[str] | None = None,
        batch_size: int = 8,
        device: str | torch.device | None = None,
        autocast: torch.dtype | None = None,
        backend: Name = "auto",
        checks: Checks | None = None,
        augment: str | None = None,
    ) -> None:
        _check_arguments(model, batch_size, autocast)
        config = None if isinstance(model, SoftCAM) else read_config(model)
        network = copy.deepcopy(model) if isinstance(model, SoftCAM) else load(model)
        _check_dimensions(network)
        self.device = _choose_device(network, device, bundled=config is not None)
        self.batch_size = batch_size
        self.autocast = autocast
        self.classes = _name_classes(network, classes, config)
        self.preprocessing = preprocessing or _find_preprocessing(network, config)
        self.thresholds = {k: v for k, v in config.thresholds.items() if k in self.classes} if config else {}
        # What is reported is decided on the raw logits: no calibration can turn an image over, not even by rounding.
        self._raw_thresholds = dict(config.uncalibrated().thresholds) if config else {}
        self.uncertainty = Uncertainty(self.classes, config.calibration if config else None, network.multi_label)
        self.checker = Checker(checks or Checks(), config.inputs if config else None, self.preprocessing)
        self._stored_fingerprint = config.fingerprint if config else None
        network = network.requires_grad_(requires_grad=False).eval()
        self.model: SoftCAM = network.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.augment = augment
        if self.checker.wants_features and self.checker.checks.features == "refuse":
            backend = _choose_torch(backend)
        members = self.model.members if isinstance(self.model, Ensemble) else (self.model,)
        place = None if config is None else Path(str(model))
        self._runners = [
            create_runner(backend, self._describe_run(member, place, f"member {number}" if len(members) > 1 else ""))
            for number, member in enumerate(members, start=1)
        ]

    def _describe_run(self, member: SoftCAM, bundle: Path | None, title: str) -> Exportable:
        model = member if self.augment is None else Augmented(member, self.augment)
        shape = (self.preprocessing.channels, self.preprocessing.size, self.preprocessing.size)
        reference = TorchBackend(model.eval(), self.device, self.autocast)
        kept = keep_graph(bundle, shape[1:], variant=" ".join(filter(None, (title, self.augment))))
        return Exportable(model, reference, kept, shape)

    @property
    def members(self) -> int:
        """How many models answer: more than one of an ensemble."""
        return len(self._runners)

    @property
    def backend(self) -> str:
        """What runs the model now: `torch`, `onnxruntime` or `openvino`; "auto" may change it as images come."""
        return "+".join(dict.fromkeys(runner.backend.name for runner in self._runners))

    @property
    def backend_reason(self) -> str:
        """Why that one, in a sentence."""
        return "; ".join(dict.fromkeys(runner.reason for runner in self._runners))

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the model's tensors, as in its bundle."""
        return self._stored_fingerprint or fingerprint(self.model)

    @property
    def identity(self) -> dict[str, Any]:
        """All of the model that decides predictions, as JSON gives it back."""
        return {
            "fingerprint": self.fingerprint,
            "classes": list(self.classes),
            "thresholds": self.thresholds,
            "preprocessing": self.preprocessing.to_dict(),
            "autocast": None if self.autocast is None else str(self.autocast),
            **self.uncertainty.identity,
            **({} if self.augment is None else {"augment": self.augment}),
        }

    def __call__(self, inputs: Iterable[Source]) -> Generator[Prediction, None, None]:
        """Yield one prediction per input, in the order of the inputs.

        Args:
            inputs: Paths, bytes of image files, arrays (H, W), (H, W, 1) or (H, W, 3) as `image_from_array` takes
                them, decoded images, or what decodes itself when its turn comes. Taken lazily; may be endless.

        Yields:
            Predictions; what cannot be read has status `failed` and a reason, and does not stop the rest.

        Raises:
            IdentityError: If the maps of an image do not average to its logits, or hold NaN.
            TypeError: If an input is of another type.
        """
        with closing(self.batches(inputs)) as batches:
            for batch in batches:
                yield from (outcome.prediction for outcome in batch)

    def batches(self, inputs: Iterable[Source], *, keep_bytes: int = 0) -> Generator[list[Outcome], None, None]:
        """Yield the predictions as they are computed, a batch at a time, with the original images.

        How inputs fall into batches depends on the inputs alone, so starting again after any whole batch gives the
        same batches and the same numbers.

        Args:
            inputs: As for calling the predictor.
            keep_bytes: Largest image, in bytes of pixels, that is kept for the outcome; reduced ones are never kept.

        Yields:
            At least one outcome, and at most `batch_size` with status `ok`.

        Raises:
            IdentityError: As for calling the predictor.
            TypeError: If an input is of another type, or `inputs` is a single one.
        """
        if isinstance(inputs, str | Path | bytes | np.ndarray | DecodedImage):
            raise TypeError(f"Expected `inputs` to be several inputs, but got one {type(inputs).__name__}. Use a list.")

        def make(position: int, source: Source) -> PreparedImage:
            return prepare(position, source, self.preprocessing, keep_bytes)

        threads = count_threads()
        with closing(map_ahead(make, inputs, threads=threads, ahead=self.batch_size + threads)) as prepared:
            waiting: list[PreparedImage] = []
            for item in prepared:
                waiting.append(item)
                if self._is_full(waiting):
                    yield self._run(waiting)
                    waiting = []
            if waiting:
                yield self._run(waiting)

    def predict_prepared(self, images: Sequence[PreparedImage]) -> list[Prediction]:
        """Return the predictions of images that were prepared elsewhere, in one forward pass per size of input.

        Args:
            images: Prepared as this predictor's `preprocessing` does it; all of them are held in memory.

        Raises:
            IdentityError: As for calling the predictor.
        """
        return [outcome.prediction for outcome in self._run(list(images))]

    def _is_full(self, waiting: list[PreparedImage]) -> bool:
        # Nothing but failures must not pile up either.
        readable = sum(item.tensor is not None for item in waiting)
        return readable == self.batch_size or len(waiting) == self.batch_size * _FAILED_PER_BATCH

    def _run(self, items: list[PreparedImage]) -> list[Outcome]:
        outcomes = [Outcome(Prediction(i.id, "failed", self.classes, i.reason, digest=i.digest), None) for i in items]
        groups: dict[tuple[int, ...], list[int]] = {}
        for index, item in enumerate(items):
            if item.tensor is not None:
                groups.setdefault(tuple(item.tensor.shape), []).append(index)
        for indices in groups.values():
            chosen = [items[index] for index in indices]
            for index, prediction in zip(indices, self._predict(chosen), strict=True):
                outcomes[index] = Outcome(prediction, items[index].image)
        return outcomes

    def _predict(self, items: list[PreparedImage]) -> Iterator[Prediction]:
        # In numpy: torch would share these small sums among threads, which spin on the cores of who decodes.
        images = torch.from_numpy(np.stack([item.tensor.numpy() for item in items if item.tensor is not None]))
        answers, features = self._ask(images)
        evidence, members = answers[0] if len(answers) == 1 else average(answers), split_members(answers)
        findings = self.checker(items, images.numpy(), features)
        with torch.inference_mode():
            errors = sum_errors(evidence)
            logits, maps = (_to_numpy(values) for values in (evidence.logits, evidence.maps))
            for index, item in enumerate(items):
                findings[index] += self._check_identity(item, errors[index], (logits[index], maps[index]))
            probabilities, sets = self.uncertainty(evidence)
            raw = probabilities if self.uncertainty.calibration is None else _to_numpy(evidence.probabilities())
        for index, (item, error, *arrays) in enumerate(zip(items, errors, probabilities, logits, maps, strict=True)):
            predicted = self._decide(raw[index])
            chosen = None if sets is None else sets[index]
            if any(finding.refused for finding in findings[index]):
                yield _refuse(item, self.classes, findings[index])
                continue
            told = tuple(map(str, findings[index]))
            described = self._describe(item, error, *arrays)
            yield replace(described, predicted=predicted, prediction_set=chosen, warnings=told, members=members[index])

    def _ask(self, images: Tensor) -> tuple[list[Evidence], npt.NDArray[np.float64] | None]:
        """Return the evidence of each member and, where torch gives them and they are wanted, the pooled features."""
        if not self.checker.wants_features:
            return [runner.backend(images) for runner in self._runners], None
        pairs = [runner.ask_with_features(images) for runner in self._runners]
        rows = [features for _, features in pairs if features is not None]
        return [answer for answer, _ in pairs], np.concatenate(rows, axis=1) if len(rows) == len(pairs) else None

    def _check_identity(
        self, item: PreparedImage, error: float, arrays: Sequence[npt.NDArray[np.float32]]
    ) -> list[Finding]:
        level = self.checker.checks.sum
        _check_identity(item, error if level == "refuse" else 0.0, arrays)
        if level != "warn" or error <= TOLERANCE:
            return []
        return [Finding("sum", f"relative error {error:.3g} (limit {TOLERANCE:g})", refused=False)]

    def _decide(self, raw: npt.NDArray[np.float32]) -> str:
        return choose_class(raw, self.classes, thresholds=self._raw_thresholds, multi_label=self.model.multi_label)

    def _describe(
        self,
        item: PreparedImage,
        error: float,
        probabilities: npt.NDArray[np.float32],
        logits: npt.NDArray[np.float32],
        maps: npt.NDArray[np.float32],
    ) -> Prediction:
        return Prediction(
            item.id,
            "ok",
            self.classes,
            # Copies, so that keeping one prediction does not keep its batch.
            probabilities=probabilities.copy(),
            logits=logits.copy(),
            maps=maps.copy(),
            geometry=item.geometry,
            sum_error=error,
            digest=item.digest,
            spacing=item.spacing,
            multi_label=self.model.multi_label,
        )


def _choose_torch(name: Name) -> Name:
    """Return the backend that gives features."""
    if name not in ("auto", "torch"):
        raise ValueError(
            f"Expected the backend to be torch, since the check `features` refuses and needs it, but got {name!r}. "
            "Let it warn, or choose the backend torch."
        )
    return "torch"


def _refuse(item: PreparedImage, classes: tuple[str, ...], findings: Sequence[Finding]) -> Prediction:
    reason = "refused, " + ", ".join(str(finding) for finding in findings if finding.refused)
    return Prediction(item.id, "failed", classes, reason, digest=item.digest)


def sum_errors(evidence: Evidence) -> list[float]:
    """Return `Evidence.sum_error` of each image, on the CPU by one thread."""
    if evidence.maps.device.type != "cpu":
        return evidence.sum_error().tolist()
    logits, maps = evidence.logits.numpy(), evidence.maps.flatten(2).numpy()
    scale = np.maximum(np.abs(logits), np.abs(maps).mean(-1, dtype=np.float64)).max(1)
    difference = np.abs(maps.mean(-1, dtype=np.float64) - logits).max(1)
    errors: list[float] = np.divide(difference, scale, out=np.zeros_like(scale), where=difference != 0).tolist()
    return errors


def _check_arguments(model: object, batch_size: int, autocast: torch.dtype | None) -> None:
    if not isinstance(model, SoftCAM | str | Path):
        raise TypeError(
            f"Expected `model` to be a bundle's folder or a SoftCAM model, but got {type(model).__name__}. "
            "Convert a black box with `softcam.convert` first."
        )
    if not isinstance(batch_size, int) or batch_size < 1:
        raise ValueError(f"Expected `batch_size` to be a whole number of at least 1, but got {batch_size!r}.")
    if autocast is not None and autocast not in _HALF:
        raise ValueError(f"Expected `autocast` to be torch.bfloat16, torch.float16 or None, but got {autocast}.")


def _check_dimensions(model: SoftCAM) -> None:
    if len(model.conversion.input_size) != 2:
        kind = "signals (N, C, L)" if len(model.conversion.input_size) == 1 else "volumes (N, C, D, H, W)"
        raise UnsupportedModelError(
            f"Expected a model of images, but got one of {kind}, which no image file holds. "
            "Call `model.evidence(tensor)` instead."
        )


def _choose_device(model: SoftCAM, device: str | torch.device | None, *, bundled: bool) -> torch.device:
    if device is not None:
        return torch.device(device)
    if bundled:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return next((parameter.device for parameter in model.parameters()), torch.device("cpu"))


def _name_classes(model: SoftCAM, classes: Sequence[str] | None, config: BundleConfig | None) -> tuple[str, ...]:
    if classes is None:
        return config.classes if config else tuple(str(index) for index in range(model.num_classes))
    if len(classes) != model.num_classes or len(set(classes)) != len(classes):
        raise ValueError(f"Expected `classes` to be {model.num_classes} different names, but got {len(classes)}.")
    return tuple(classes)


def _find_preprocessing(model: SoftCAM, config: BundleConfig | None) -> Preprocessing:
    if config is not None and config.preprocessing is not None:
        return Preprocessing.from_dict(config.preprocessing)
    architecture = None if config else identify(model.features.network, num_classes=model.num_classes)
    if architecture is None:
        raise ValueError("Expected `preprocessing` to be given, but got None and the model does not know its own.")
    return Preprocessing.from_dict(default_preprocessing(architecture.name))


def _to_numpy(values: Tensor) -> npt.NDArray[np.float32]:
    array: npt.NDArray[np.float32] = values.float().cpu().contiguous().numpy()
    return array


def _check_identity(item: PreparedImage, error: float, arrays: Sequence[npt.NDArray[np.float32]]) -> None:
    if not all(np.isfinite(values).all() for values in arrays):
        raise IdentityError(
            f"Expected finite evidence, but got NaN or infinity for input {item.position} ({item.id}). "
            "Check the weights of the model."
        )
    if not error <= TOLERANCE:
        raise IdentityError(
            f"Expected the maps to average to the logits within {TOLERANCE:g}, but got a relative error of {error:.3g} "
            f"for input {item.position} ({item.id}). Do not use this model's maps as explanations."
        )
