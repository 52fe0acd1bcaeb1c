"""The `config.json` of a bundle, read strictly: what is unknown, missing or of another kind is an error."""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable, Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, TypeVar

from softcam.bundle.calibration import Calibration
from softcam.bundle.inputs import InputStatistics
from softcam.bundle.values import are_thresholds, is_json, is_number, optional
from softcam.errors import BundleError
from softcam.imaging import Preprocessing
from softcam.imaging.records import read_record
from softcam.nn import ConversionReport

FORMAT_VERSION = 1
KINDS = ("softcam", "black_box")
TASKS = ("multiclass", "multilabel", "ordinal")
CONFIG_NAME = "config.json"

_LEFT_OUT = ("calibration", "inputs", "threshold_rule")

Record = TypeVar("Record")


@dataclass(frozen=True)
class BundleConfig:
    """Everything about a stored model that is not a weight.

    Args:
        kind: `softcam`, or `black_box` for the twin that a conversion started from.
        architecture: `{"name": ..., "arguments": {...}}` as `create_black_box` takes them; None for a module of the
            user's own, which then has to be handed to `load`.
        head: Kind of class evidence layer, e.g. `linear`; None for a black box.
        classes: Unique class names in the order of the logits.
        task: `multiclass` (softmax), `ordinal` (softmax, the classes are grades in their order) or `multilabel`
            (sigmoid).
        preprocessing: `Preprocessing.to_dict()` of the images the model was made for.
        thresholds: Probability in [0, 1] from which a class is reported, by class name; of the calibrated probabilities
            where there is a calibration.
        penalty: Sparsity penalty of the training, e.g. `{"l1": 1e-5, "l2": 0.0}`.
        data_digest: SHA-256 of the training table.
        versions: Versions of the libraries that wrote the bundle.
        conversion: `ConversionReport.to_dict()`.
        fingerprint: SHA-256 of the tensors, see `softcam.bundle.fingerprint`.
        provenance: Free record in JSON values, e.g. `metrics`, `recipe`, `seed`.
        format_version: Version of this layout.
        calibration: How raw logits become calibrated probabilities and prediction sets, see `softcam calibrate`; None
            for a model that was not calibrated.
        inputs: What the images of the training were like; None if that is not known.
        threshold_rule: How the thresholds were chosen: `rule`, as `ThresholdRule.parse` reads it, `split` and `n`; None
            if that is not known.

    Raises:
        BundleError: If a value is not as described.
    """

    kind: str
    classes: tuple[str, ...]
    task: str
    fingerprint: str
    architecture: dict[str, Any] | None = None
    head: str | None = None
    preprocessing: dict[str, Any] | None = None
    thresholds: dict[str, float] = field(default_factory=dict)
    penalty: dict[str, float] | None = None
    data_digest: str | None = None
    versions: dict[str, str] = field(default_factory=dict)
    conversion: dict[str, Any] | None = None
    provenance: dict[str, Any] = field(default_factory=dict)
    format_version: int = FORMAT_VERSION
    calibration: Calibration | None = None
    inputs: InputStatistics | None = None
    threshold_rule: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        """Refuse values that no model can have."""
        for name, (holds, constraint) in _CONSTRAINTS.items():
            if not holds(getattr(self, name)):
                raise BundleError(_expected(name, constraint, getattr(self, name)))
        if unknown := sorted(set(self.thresholds) - set(self.classes)):
            raise BundleError(_expected("thresholds", "keyed by class names", unknown))
        # Several reported classes are one cell of a table, and are found in it again.
        if self.task == "multilabel" and (joined := [name for name in self.classes if ";" in name]):
            raise BundleError(_expected("classes", "names without `;`, which parts several labels", joined))
        self._check_records()

    def to_json(self) -> str:
        """Return the text of `config.json`; what a model need not have is left out where it has none."""
        values = {name: value for name, value in asdict(self).items() if name not in _LEFT_OUT or value is not None}
        return json.dumps(values, indent=2, allow_nan=False) + "\n"

    def uncalibrated(self) -> BundleConfig:
        """Return the description of the same model without its calibration, with the thresholds of its raw logits."""
        if self.calibration is None:
            return self
        return replace(self, calibration=None, thresholds=dict(self.calibration.thresholds))

    @property
    def threshold(self) -> float | tuple[float, ...] | None:
        """From which probability the second class of two is reported, or each of several labels.

        None for the highest probability; a label without a threshold of its own has 0.5.
        """
        if self.task == "multilabel":
            return tuple(self.thresholds.get(name, 0.5) for name in self.classes)
        return self.thresholds.get(self.classes[-1]) if len(self.classes) == 2 else None

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> BundleConfig:
        """Return the configuration that the values describe, or say which key is unknown, missing or wrong."""
        # The version comes first: the keys of another version would only mislead.
        if values.get("format_version") != FORMAT_VERSION:
            raise BundleError(
                f"Expected `format_version` to be {FORMAT_VERSION}, but got {values.get('format_version')!r}. "
                "Read this bundle with the version of softcam that wrote it, or save it again."
            )
        _check_keys(values, [entry.name for entry in fields(cls)], [e.name for e in fields(cls) if _is_required(e)])
        classes = values["classes"]
        read: dict[str, Any] = {"classes": tuple(classes) if isinstance(classes, list) else classes}
        kinds: dict[str, type[Any]] = {"calibration": Calibration, "inputs": InputStatistics}
        read |= {name: _read_record(name, kind, values[name]) for name, kind in kinds.items() if values.get(name)}
        return cls(**{**values, **read})

    def _check_records(self) -> None:
        try:
            if self.preprocessing is not None:
                Preprocessing.from_dict(self.preprocessing)
            report = None if self.conversion is None else ConversionReport.from_dict(self.conversion)
        except (ValueError, TypeError) as error:
            raise BundleError(f"Expected `preprocessing` and `conversion` to be whole records, but: {error}") from error
        if report is not None and report.num_classes != len(self.classes):
            raise BundleError(_expected("classes", f"the {report.num_classes} of `conversion`", self.classes))
        if self.calibration is not None:
            self._check_calibration(self.calibration)
        if not isinstance(self.inputs, InputStatistics | None):
            raise BundleError(_expected("inputs", "`InputStatistics` or null", self.inputs))

    def _check_calibration(self, calibration: Calibration) -> None:
        if not isinstance(calibration, Calibration):
            raise BundleError(_expected("calibration", "a `Calibration` or null", calibration))
        if self.kind != "softcam":
            raise BundleError("Expected a black box without `calibration`, but got one. Calibrate the SoftCAM model.")
        if calibration.has_sets and self.task == "multilabel":
            raise BundleError("Expected `calibration.method` to be null for independent classes, but got one.")
        if set(calibration.thresholds) != set(self.thresholds):
            raise BundleError(_expected("calibration.thresholds", "of the classes of `thresholds`", calibration))


def read_config(path: str | Path) -> BundleConfig:
    """Read the `config.json` of a bundle without touching its weights.

    Args:
        path: The bundle's folder.

    Raises:
        BundleError: If the folder or the file is missing, is not JSON, or does not hold a valid configuration.
    """
    file = Path(path) / CONFIG_NAME
    try:
        values = json.loads(file.read_bytes(), parse_constant=_refuse_constant)
    except OSError as error:
        raise BundleError(f"Expected a bundle with a readable {CONFIG_NAME}, but got {str(path)!r}.") from error
    except (ValueError, RecursionError) as error:
        raise BundleError(f"Expected {CONFIG_NAME} to be JSON, but {type(error).__name__}: {error}.") from error
    if not isinstance(values, dict):
        raise BundleError(f"Expected {CONFIG_NAME} to hold an object, but got {type(values).__name__}.")
    return BundleConfig.from_dict(values)


def _check_keys(values: Mapping[str, Any], known: list[str], required: list[str]) -> None:
    for key in values:
        if key not in known:
            close = difflib.get_close_matches(key, known, n=1)
            hint = f"Did you mean {close[0]!r}?" if close else f"Known keys: {', '.join(known)}."
            raise BundleError(f"Expected only known keys in {CONFIG_NAME}, but got {key!r}. {hint}")
    if missing := [key for key in required if key not in values]:
        raise BundleError(f"Expected {CONFIG_NAME} to hold {missing}, but they are missing. Save the model again.")


def _read_record(name: str, kind: type[Record], values: Any) -> Record:
    try:
        return read_record(kind, values)
    except (TypeError, ValueError) as error:
        raise BundleError(f"Expected `{name}` to be a whole record, but: {error}") from error


def _is_required(entry: Any) -> bool:
    return entry.default is MISSING and entry.default_factory is MISSING


def _expected(name: str, constraint: str, value: object) -> str:
    shown = repr(value)
    return f"Expected `{name}` to be {constraint}, but got {shown if len(shown) < 80 else shown[:77] + '...'}."


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not a JSON number")


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip()) and value.isprintable()


def _are_classes(value: object) -> bool:
    return isinstance(value, tuple) and bool(value) and all(map(_is_text, value)) and len(set(value)) == len(value)


def _is_architecture(value: object) -> bool:
    if value is None:
        return True
    whole = isinstance(value, dict) and set(value) == {"name", "arguments"}
    return whole and _is_text(value["name"]) and isinstance(value["arguments"], dict)  # type: ignore[index]


def _are_numbers(value: object) -> bool:
    return isinstance(value, dict) and all(map(is_number, value.values()))


def _is_rule(value: object) -> bool:
    return is_json(value) and isinstance(value, dict) and _is_text(value.get("rule"))


def _is_digest(value: object) -> bool:
    return isinstance(value, str) and len(value) == 64 and set(value) <= set("0123456789abcdef")


_CONSTRAINTS: dict[str, tuple[Callable[[object], bool], str]] = {
    "format_version": (lambda value: value == FORMAT_VERSION, str(FORMAT_VERSION)),
    "kind": (lambda value: value in KINDS, f"one of {KINDS}"),
    "classes": (_are_classes, "unique, printable, non-empty names"),
    "task": (lambda value: value in TASKS, f"one of {TASKS}"),
    "fingerprint": (_is_digest, "a SHA-256 in hexadecimal"),
    "architecture": (_is_architecture, "an object with exactly `name` and `arguments`, or null"),
    "head": (optional(_is_text), "a name or null"),
    "preprocessing": (optional(is_json), "an object of JSON values or null"),
    "thresholds": (are_thresholds, "an object of probabilities in [0, 1]"),
    "penalty": (optional(_are_numbers), "an object of finite numbers or null"),
    "data_digest": (optional(_is_text), "a digest or null"),
    "versions": (lambda value: isinstance(value, dict) and all(map(_is_text, value.values())), "an object of texts"),
    "conversion": (optional(is_json), "an object of JSON values or null"),
    "provenance": (is_json, "an object of JSON values"),
    "threshold_rule": (optional(_is_rule), "an object with a text `rule`, or null"),
}
