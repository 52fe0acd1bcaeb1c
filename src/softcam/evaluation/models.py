"""The models under evaluation: the SoftCAM, its black-box twin where there is one, and what they share."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from softcam.attribution import Method
from softcam.bundle import BundleConfig, load, load_black_box, read_config
from softcam.data.manifest import Manifest
from softcam.errors import RunError
from softcam.imaging import Preprocessing
from softcam.nn import SoftCAM


@dataclass(frozen=True, eq=False)
class Contestants:
    """A SoftCAM model and the black box it is compared with, ready to run.

    Args:
        softcam: In eval mode, on `device`, channels last.
        black_box: Likewise; None where there is no twin.
        config: Description of the SoftCAM's bundle.
        black_box_config: Description of the twin's bundle.
        preprocessing: How images become inputs, for both.
        device: Where both are.
    """

    softcam: SoftCAM
    black_box: nn.Module | None
    config: BundleConfig
    black_box_config: BundleConfig | None
    preprocessing: Preprocessing
    device: torch.device

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in the order of the logits."""
        return self.config.classes

    @property
    def thresholds(self) -> dict[str, float | None]:
        """Probability of the second class from which it is reported, by model; None for the highest probability."""
        configs = {"softcam": self.config, "black_box": self.black_box_config}
        positive = self.classes[-1] if len(self.classes) == 2 else None
        return {
            name: config.thresholds.get(positive) if positive is not None else None
            for name, config in configs.items()
            if config is not None
        }

    def explained_by(self, method: Method) -> nn.Module:
        """Return the model that a method explains: the SoftCAM for its own maps, else the twin if there is one."""
        if method.needs_softcam or self.black_box is None:
            return self.softcam
        return self.black_box

    def to_device(self, images: Tensor) -> Tensor:
        """Return images (N, C, H, W) where the models are, channels last."""
        return images.to(self.device).contiguous(memory_format=torch.channels_last)


def load_contestants(
    model_path: str | Path, black_box_path: str | Path | None, manifest: Manifest, *, device: str | None
) -> Contestants:
    """Read the bundles and check that models and data belong together.

    Args:
        model_path: Bundle of the SoftCAM.
        black_box_path: Bundle of its twin, if any.
        manifest: The data.
        device: As torch names it; None takes a GPU if there is one.

    Raises:
        BundleError: If a bundle cannot be read.
        RunError: If the classes, the task or the preprocessing of models and data differ.
    """
    config = read_config(model_path)
    twin = None if black_box_path is None else read_config(black_box_path)
    _check_match(config, twin, manifest)
    place = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    black_box = None if black_box_path is None else _prepare(load_black_box(black_box_path), place)
    softcam = load(model_path)
    _prepare(softcam, place)
    preprocessing = Preprocessing.from_dict(config.preprocessing or {})
    return Contestants(softcam, black_box, config, twin, preprocessing, place)


def _prepare(model: nn.Module, device: torch.device) -> nn.Module:
    return model.eval().to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]


def _check_match(config: BundleConfig, twin: BundleConfig | None, manifest: Manifest) -> None:
    if len(config.classes) < 2:
        raise RunError(f"Expected a model of at least two classes, but got {len(config.classes)}.")
    if config.task != "multiclass" or manifest.task != "multiclass":
        raise RunError(
            f"Expected one class per image, but the model is {config.task} and the data {manifest.task}. "
            "Evaluate one label at a time."
        )
    if tuple(manifest.classes) != config.classes:
        raise RunError(
            f"Expected the data's classes to be the model's {config.classes}, but got {tuple(manifest.classes)}. "
            "Read the manifest with classes= in the order of the model."
        )
    if config.preprocessing is None:
        raise RunError("Expected the bundle to say how images are preprocessed. Save the model with preprocessing=.")
    if twin is None:
        return
    for name in ("classes", "preprocessing"):
        if getattr(twin, name) != getattr(config, name):
            raise RunError(
                f"Expected the black box to share the model's {name}. Compare models that were trained alike."
            )
