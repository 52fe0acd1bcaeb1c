"""The models under evaluation: the SoftCAM, its black-box twin where there is one, and what they share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from softcam.attribution import Method
from softcam.bundle import BundleConfig, load, load_black_box, read_config
from softcam.data.manifest import Manifest
from softcam.errors import RunError
from softcam.evaluation.entries import BLACK_BOX, SOFTCAM, name_model
from softcam.evaluation.labels import Threshold
from softcam.imaging import Preprocessing
from softcam.nn import Augmented, SoftCAM
from softcam.predict import Uncertainty


@dataclass(frozen=True, eq=False)
class Other:
    """A further SoftCAM model of the same task.

    Args:
        softcam: In eval mode, on the device, channels last.
        config: Description of its bundle.
    """

    softcam: SoftCAM
    config: BundleConfig


@dataclass(frozen=True, eq=False)
class Contestants:
    """A SoftCAM model and what it is compared with, ready to run.

    Args:
        softcam: In eval mode, on `device`, channels last.
        black_box: Likewise; None where there is no twin.
        config: Description of the SoftCAM's bundle.
        black_box_config: Description of the twin's bundle.
        preprocessing: How images become inputs, for both.
        device: Where all are.
        others: Further SoftCAM models by name.
    """

    softcam: SoftCAM
    black_box: nn.Module | None
    config: BundleConfig
    black_box_config: BundleConfig | None
    preprocessing: Preprocessing
    device: torch.device
    others: Mapping[str, Other] = field(default_factory=dict)

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in the order of the logits."""
        return self.config.classes

    @property
    def multi_label(self) -> bool:
        """Whether classes are independent (sigmoid) rather than exclusive (softmax)."""
        return self.config.task == "multilabel"

    @property
    def ordinal(self) -> bool:
        """Whether the classes are grades in their order."""
        return self.config.task == "ordinal"

    @property
    def thresholds(self) -> dict[str, Threshold]:
        """From which probability classes are reported, as `BundleConfig.threshold` has it, by model."""
        return {name: self.threshold(name) for name in self.configs if name not in self.others}

    def threshold(self, name: str, *, raw: bool = False) -> Threshold:
        """Return the same of one model, by the names of `configs`.

        Args:
            name: Which model.
            raw: Whether the probabilities are those of the raw logits, where the model is calibrated.
        """
        config = self.configs[name]
        return (config.uncalibrated() if raw else config).threshold

    @property
    def uncertainty(self) -> Uncertainty:
        """How the SoftCAM's logits become probabilities and prediction sets."""
        return Uncertainty(self.classes, self.config.calibration, self.multi_label)

    @property
    def configs(self) -> dict[str, BundleConfig]:
        """The description of every model, by the names of `networks`."""
        twin = {} if self.black_box_config is None else {BLACK_BOX: self.black_box_config}
        return {SOFTCAM: self.config, **twin, **{name: other.config for name, other in self.others.items()}}

    @property
    def networks(self) -> dict[str, nn.Module]:
        """Every model by the name that an entry of the comparison has for it."""
        twin = {} if self.black_box is None else {BLACK_BOX: self.black_box}
        return {SOFTCAM: self.softcam, **twin, **{name: other.softcam for name, other in self.others.items()}}

    @property
    def fingerprints(self) -> dict[str, str]:
        """The fingerprint of each model's weights, by the same names."""
        return {name: config.fingerprint for name, config in self.configs.items()}

    def instead(self, name: str) -> Contestants:
        """Return another of the SoftCAM models under evaluation, alone."""
        other = self.others[name]
        return replace(
            self, softcam=other.softcam, config=other.config, black_box=None, black_box_config=None, others={}
        )

    def explained_by(self, method: Method) -> nn.Module:
        """Return the model that a method explains: the SoftCAM for its own maps, else the twin if there is one."""
        return self.networks[name_model(method, has_black_box=self.black_box is not None)]

    def to_device(self, images: Tensor) -> Tensor:
        """Return images (N, C, H, W) where the models are, channels last."""
        return images.to(self.device).contiguous(memory_format=torch.channels_last)


def load_contestants(
    model_path: str | Path,
    black_box_path: str | Path | None,
    manifest: Manifest,
    *,
    device: str | None,
    others: Mapping[str, str | Path] | None = None,
    augment: str | None = None,
) -> Contestants:
    """Read the bundles and check that models and data belong together.

    Args:
        model_path: Bundle of the SoftCAM.
        black_box_path: Bundle of its twin, if any.
        manifest: The data.
        device: As torch names it; None takes a GPU if there is one.
        others: Bundles of further SoftCAM models by the names that tables give them.
        augment: Views of each image that the SoftCAM models look at, as `EvaluationSettings` has it.

    Raises:
        BundleError: If a bundle cannot be read.
        RunError: If the classes, the task or the preprocessing of models and data differ, or a name cannot be used.
    """
    paths = dict(others or {})
    _check_names(paths)
    config = read_config(model_path)
    twin = None if black_box_path is None else read_config(black_box_path)
    if len(config.classes) < 2:
        raise RunError(f"Expected a model of at least two classes, but got {len(config.classes)}.")
    check_match(config, manifest)
    more = {name: read_config(path) for name, path in paths.items()}
    for name, other in {**({} if twin is None else {"the black box": twin}), **more}.items():
        _check_alike(config, other, name)
    place = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    black_box = None if black_box_path is None else _prepare(load_black_box(black_box_path), place)
    softcam = _load_softcam(model_path, place, augment)
    preprocessing = Preprocessing.from_dict(config.preprocessing or {})
    further = {name: Other(_load_softcam(path, place, augment), more[name]) for name, path in paths.items()}
    return Contestants(softcam, black_box, config, twin, preprocessing, place, further)


def _prepare(model: nn.Module, device: torch.device) -> nn.Module:
    return model.eval().to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]


def _load_softcam(path: str | Path, device: torch.device, augment: str | None) -> SoftCAM:
    model = load(path) if augment is None else Augmented(load(path), augment)
    _prepare(model, device)
    return model


def _check_names(names: Mapping[str, object]) -> None:
    for name in names:
        if name in (SOFTCAM, BLACK_BOX) or not name.replace("_", "").replace("-", "").isalnum():
            raise RunError(
                f"Expected the name of another model to be of letters, digits, - and _ and not to be {SOFTCAM} or "
                f"{BLACK_BOX}, but got {name!r}."
            )


def check_match(config: BundleConfig, manifest: Manifest) -> None:
    """Check that a model and data are of the same classes and kind.

    Raises:
        RunError: If they are not, or the bundle does not say how images become inputs.
    """
    if (config.task == "multilabel") != (manifest.task == "multilabel"):
        raise RunError(
            f"Expected model and data of the same kind, but the model is {config.task} and the data {manifest.task}. "
            "A multi-label manifest has a 0/1 column per class and no column `label`."
        )
    if tuple(manifest.classes) != config.classes:
        raise RunError(
            f"Expected the data's classes to be the model's {config.classes}, but got {tuple(manifest.classes)}. "
            "Read the manifest with classes= in the order of the model."
        )
    if config.preprocessing is None:
        raise RunError("Expected the bundle to say how images are preprocessed. Save the model with preprocessing=.")


def _check_alike(config: BundleConfig, other: BundleConfig, title: str) -> None:
    for name in ("classes", "task", "preprocessing"):
        if getattr(other, name) != getattr(config, name):
            raise RunError(f"Expected {title} to share the model's {name}. Compare models that were trained alike.")
