"""What is exported: a copy of the model that can be traced, and what is said of it."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from softcam.bundle import BundleConfig, fingerprint, list_versions, load, read_config
from softcam.bundle.describe import describe
from softcam.errors import ExportError
from softcam.export.failures import first_line
from softcam.export.record import ExportRecord
from softcam.imaging import Preprocessing
from softcam.nn import SoftCAM
from softcam.nn.features import map_stride
from softcam.versions import installed_versions

WRITERS = ("onnx", "onnxscript", "onnxruntime", "openvino")


@dataclass(frozen=True)
class Source:
    """A model that is ready to be exported.

    Args:
        model: A copy on the CPU, in float32 and in eval mode.
        record: What the file will say.
        notes: What was changed on the way.
    """

    model: SoftCAM
    record: ExportRecord
    notes: tuple[str, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """(C, *size) of the images."""
        return (self.record.channels, *self.record.input_size)


def open_source(
    source: SoftCAM | str | Path, *, input_size: Sequence[int] | None = None, black_box: nn.Module | None = None
) -> Source:
    """Return a copy of the model that can be traced, and its record.

    Args:
        source: A model, or the folder of a bundle.
        input_size: Height and width of the images in pixels; default: what the bundle's preprocessing makes, or what
            the model was converted with.
        black_box: For a bundle of a user's own module, that module, as `softcam.load` takes it.

    Raises:
        ExportError: If the model takes no images of that size.
    """
    original, config = _open(source, black_box)
    stored = original is not source
    size = _choose_size(original, config, input_size, stored=stored)
    dtype_notes = _note_dtype(original)
    # What was loaded here belongs to nobody else, and may be large.
    model = (original if stored else copy.deepcopy(original)).cpu().float().eval()
    channels, maps = _try_channels(model, config, size)
    preprocessing, notes = _fit_preprocessing(config.preprocessing, size)
    grid = tuple(maps.shape[2:])
    record = ExportRecord(
        classes=config.classes,
        # What a reader of the file has to know is how logits become probabilities; grades have a softmax as well.
        task="multilabel" if config.task == "multilabel" else "multiclass",
        head=model.conversion.head,
        fingerprint=config.fingerprint,
        channels=channels,
        input_size=size,
        grid=grid,
        map_stride=map_stride(size, grid),
        preprocessing=preprocessing,
        thresholds=config.thresholds,
        calibration=None if config.calibration is None else asdict(config.calibration),
        versions=list_versions() | installed_versions(WRITERS),
    )
    return Source(model, record, dtype_notes + notes)


def _open(source: SoftCAM | str | Path, black_box: nn.Module | None) -> tuple[SoftCAM, BundleConfig]:
    if isinstance(source, str | Path):
        config = read_config(source)
        if config.kind == "softcam" and config.architecture is None and black_box is None:
            raise ExportError(
                "Expected `black_box` to be given, since this bundle holds the weights of a user's own module. "
                "Build that module and export from Python with black_box=module."
            )
        return load(source, model=black_box), config
    if not isinstance(source, SoftCAM):
        raise TypeError(
            f"Expected a SoftCAM model or the folder of one, but got {type(source).__name__}. "
            "Turn a black box into one with `softcam.convert`."
        )
    if any(parameter.is_meta for parameter in source.parameters()):
        raise ExportError("Expected weights, but got meta tensors. Load the weights, then export.")
    record = {"preprocessing": None, "thresholds": None, "provenance": None}
    return source, describe(source, None, task=None, fingerprint=fingerprint(source), record=record)


def _choose_size(
    model: SoftCAM, config: BundleConfig, wanted: Sequence[int] | None, *, stored: bool
) -> tuple[int, ...]:
    usual = model.conversion.input_size
    if wanted is None:
        # A bundle was trained on what its preprocessing makes; a bare model is known from its conversion alone.
        side = (config.preprocessing or {}).get("size") if stored else None
        return usual if side is None else (int(side),) * len(usual)
    size = tuple(wanted)
    whole = all(isinstance(pixels, int) and not isinstance(pixels, bool) and pixels >= 1 for pixels in size)
    if len(size) != len(usual) or not whole:
        raise ValueError(
            f"Expected `input_size` to be {len(usual)} positive whole numbers of pixels, but got {tuple(wanted)}."
        )
    return size


def _try_channels(model: SoftCAM, config: BundleConfig, size: tuple[int, ...]) -> tuple[int, Tensor]:
    """Return how many channels the images have, and the maps of one; the first that the model takes."""
    failure: Exception | None = None
    for channels in _list_channels(model, config):
        try:
            with torch.no_grad():
                images = torch.zeros(1, channels, *size, dtype=torch.float32, device="cpu")
                return channels, model.evidence(images).maps
        except Exception as error:  # noqa: BLE001 - any network may be inside, and the first failure is raised below
            failure = failure or error
    shown = " x ".join(map(str, size))
    raise ExportError(
        f"Expected the model to take images of {shown} px, but it raised: {failure and first_line(failure)}. "
        "Choose the size that it was made for with `input_size`."
    ) from failure


def _list_channels(model: SoftCAM, config: BundleConfig) -> list[int]:
    network: Any = model.features.network
    first = next((m for m in network.modules() if isinstance(m, nn.Conv1d | nn.Conv2d | nn.Conv3d)), None)
    record = getattr(network, "pretrained_cfg", None) or {}
    candidates = [
        None if first is None else first.in_channels,
        (record.get("input_size") or [None])[0],
        (config.preprocessing or {}).get("channels"),
        3,
    ]
    return [channels for channels in dict.fromkeys(candidates) if channels]


def _fit_preprocessing(
    record: dict[str, Any] | None, size: tuple[int, ...]
) -> tuple[dict[str, Any] | None, tuple[str, ...]]:
    """Return the preprocessing for images of that size, with every default written out, and what to note."""
    if record is None:
        return None, ("the preprocessing is not known: images must come as the model was trained on them",)
    square = len(set(size)) == 1
    side = size[0] if square else record.get("size")
    # Complete, since who reads the file need not know softcam's defaults.
    known = Preprocessing.from_dict(record if side is None else record | {"size": side}).to_dict()
    if square:
        return known, ()
    return known, (f"`preprocessing` makes squares of {known['size']} px; resize images to `input_size` yourself",)


def _note_dtype(model: SoftCAM) -> tuple[str, ...]:
    found = {parameter.dtype for parameter in model.parameters() if parameter.is_floating_point()}
    other = sorted(str(dtype).removeprefix("torch.") for dtype in found - {torch.float32})
    return (f"the weights were {' and '.join(other)}; the file holds and computes float32",) if other else ()
