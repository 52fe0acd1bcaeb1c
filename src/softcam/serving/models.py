"""The models of a service, and what it tells about them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from softcam.attribution import METHODS, attribute
from softcam.bundle import find_bundle, read_config
from softcam.errors import MissingExtraError, ServiceError, SoftCAMError
from softcam.export.runtime import RUNTIMES
from softcam.libraries import load_library
from softcam.predict import Checks, Prediction, Predictor
from softcam.predict.backends import Name
from softcam.serving.batching import Batcher
from softcam.serving.decoding import Decoded
from softcam.serving.problems import Problem
from softcam.serving.settings import Limits
from softcam.viewer import describe_model

BACKENDS: tuple[Name, ...] = ("onnxruntime", "torch", "openvino", "auto")
_OWN = frozenset({"evidence", "evidence_margin", "random", "edges", "center_gaussian"})


@dataclass(frozen=True, eq=False)
class ServedModel:
    """A model that answers.

    Args:
        name: By which clients ask for it.
        predictor: Runs it.
        architecture: What the bundle says; empty for a network of the user's own.
        batcher: Brings requests together.
    """

    name: str
    predictor: Predictor
    architecture: str
    batcher: Batcher[Decoded]

    def describe(self, limits: Limits) -> dict[str, Any]:
        """Return what a client may know of the model, in JSON values."""
        allowed = ("max_bytes", "max_pixels", "max_frames", "max_files")
        return {
            **describe_model(self.predictor, name=self.name),
            "architecture": self.architecture or None,
            "methods": [{"name": m, "title": METHODS[m].title, "notes": METHODS[m].notes} for m in self.methods],
            "limits": {name: getattr(limits, name) for name in allowed},
        }

    @cached_property
    def preprocessing(self) -> dict[str, Any]:
        """How its decoders prepare an image, in JSON values."""
        return self.predictor.preprocessing.to_dict()

    @property
    def methods(self) -> list[str]:
        """Names of the post-hoc methods that it can be compared with within seconds."""
        return [m.name for m in METHODS.values() if m.cost in ("forward", "gradient") and m.name not in _OWN]

    def attribute(self, method: str, upload: Decoded, target: int) -> npt.NDArray[np.float32]:
        """Return the map (h, w) of a post-hoc method; to be called by `Batcher.run`.

        Raises:
            Problem: If the method is not defined for the model, or its library is not installed.
        """
        model = self.predictor.model
        images = self.predictor.preprocessing.to_input(upload.window)[None].to(next(model.parameters()))
        try:
            found = attribute(method, model, images, torch.tensor([target], device=images.device))
        except SoftCAMError as error:
            raise Problem("unusable", f"{METHODS[method].title}: {error}") from error
        maps: npt.NDArray[np.float32] = found[0].cpu().numpy()
        return maps


def open_models(
    places: Sequence[str], *, batch_size: int = 8, backend: Name = "onnxruntime", checks: Checks | None = None
) -> tuple[ServedModel, ...]:
    """Load the models of a service.

    Args:
        places: Folders of bundles or of training runs, each as it is or as `name=folder`.
        batch_size: Most images in one forward pass, >= 1.
        backend: What runs them. ONNX Runtime and OpenVINO run in float32 on the CPU; where a GPU is there, or the
            runtime is not installed, `onnxruntime` gives way to torch.
        checks: What becomes of images that a model was not trained for; default: they are warned of.

    Raises:
        BundleError: If a folder is no sound bundle.
        ExportError: If a model cannot be exported.
        ServiceError: If two models have one name, or there are none.
    """
    if not places:
        raise ServiceError("Expected at least one model to serve, but got none.")
    named = [_split(place) for place in places]
    names = [name for name, _ in named]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ServiceError(f"Expected models of different names, but got {twice[0]!r} twice. Give name=folder.")
    return tuple(_open(name, find_bundle(path), batch_size, backend, checks) for name, path in named)


def choose_backend(wanted: Name) -> Name:
    """Return what runs the models here: ONNX Runtime gives way to torch on a GPU and where it is not installed."""
    if wanted != "onnxruntime":
        return wanted
    if torch.cuda.is_available():
        return "torch"
    try:
        load_library("onnxruntime", extra="onnx")
    except MissingExtraError:
        return "torch"
    return wanted


def _split(place: str) -> tuple[str, Path]:
    name, separator, folder = place.partition("=")
    if separator and name and "/" not in name and "\\" not in name:
        return name, Path(folder)
    path = Path(place)
    return path.resolve().name, path


def _open(name: str, bundle: Path, batch_size: int, backend: Name, checks: Checks | None) -> ServedModel:
    config = read_config(bundle)
    predictor = Predictor(bundle, batch_size=batch_size, backend=backend, checks=checks)
    architecture = "" if config.architecture is None else str(config.architecture["name"])

    def predict(uploads: Sequence[Decoded]) -> list[Prediction]:
        return predictor.predict_prepared([upload.prepare(predictor.preprocessing) for upload in uploads])

    # A graph computes as many images at a time as there are cores, whichever call they came with; torch would take
    # every core for each call.
    lanes = 2 if backend in RUNTIMES else 1
    return ServedModel(name, predictor, architecture, Batcher(predict, batch_size, lanes))
