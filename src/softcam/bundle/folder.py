"""Save a model as a folder that appears whole, and build it again from what the folder says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import safetensors.torch
import torch
from torch import Tensor, nn

from softcam.backbones import create_black_box
from softcam.bundle.card import CARD_NAME, write_card
from softcam.bundle.config import CONFIG_NAME, BundleConfig, read_config
from softcam.bundle.describe import describe
from softcam.bundle.parts import list_parts
from softcam.bundle.weights import WEIGHTS_NAME, collect_weights, fill, fingerprint, read_weights, refuse_pickle
from softcam.errors import BundleError, UnsupportedModelError
from softcam.files import atomic_folder, write_atomic
from softcam.nn import Augmented, ConversionReport, Ensemble, Features, SoftCAM, convert, rebuild

Task = Literal["multiclass", "multilabel", "ordinal"]
FILES = frozenset({WEIGHTS_NAME, CONFIG_NAME, CARD_NAME})
EXPORTS = "exports"
"""Folder in a bundle with what can be made from it again; a bundle that is saved anew starts without."""


def save(
    model: nn.Module,
    path: str | Path,
    *,
    classes: Sequence[str] | None = None,
    task: Task | None = None,
    preprocessing: Mapping[str, Any] | None = None,
    thresholds: Mapping[str, float] | None = None,
    provenance: Mapping[str, Any] | None = None,
) -> Path:
    """Write a model as a folder with `model.safetensors`, `config.json` and a model card.

    The folder is written under a temporary name and renamed when it is whole. A bundle that was there before is
    replaced; any other non-empty folder is refused.

    Args:
        model: A SoftCAM model, or a black box.
        path: The folder; its parents are made.
        classes: Class names in the order of the logits; default: "0", "1", ... A single logit has one name, that of
            the class it speaks for.
        task: Default: what a SoftCAM model says of itself, `multiclass` for a black box; `multilabel` for one class.
            `ordinal` for classes that are grades in their order.
        preprocessing: `Preprocessing.to_dict()`; default: that of the architecture's published weights, if known.
        thresholds: Probability from which a class is reported, by class name.
        provenance: JSON values. `penalty`, `data_digest`, `calibration` (`Calibration`), `inputs` (`InputStatistics`)
            and `threshold_rule` get their own place in `config.json`; `metrics`, name to a number or to
            `{"value", "low", "high", "n"}`, are shown in the model card; the rest is kept as it is.

    Returns:
        The folder.

    Raises:
        BundleError: If the weights are not finite, a value does not fit, or something else is in the way.
    """
    folder = Path(path)
    refuse_pickle(folder)
    check_replaceable(folder)
    if isinstance(model, Augmented):
        raise BundleError("Expected the model itself, but got its mean over views. Give `augment` to `Predictor`.")
    weights = collect_weights(model)
    record = {"preprocessing": preprocessing, "thresholds": thresholds, "provenance": provenance}
    config = describe(model, classes, task=task, fingerprint=fingerprint(weights), record=record)
    with atomic_folder(folder) as new:
        write_atomic(new / WEIGHTS_NAME, safetensors.torch.save(weights, metadata={"format": "pt"}))
        write_atomic(new / CONFIG_NAME, config.to_json())
        write_atomic(new / CARD_NAME, write_card(config))
    return folder


def load(path: str | Path, *, model: nn.Module | None = None) -> SoftCAM:
    """Read a SoftCAM model, in eval mode and on the CPU.

    Args:
        path: The bundle's folder.
        model: The black box that the bundle was converted from, with any weights; needed where the architecture is
            not one that softcam can build itself. It stays as it is.

    Returns:
        The model with the stored weights, in the dtype they were stored in.

    Raises:
        BundleError: If a file is missing or damaged, holds another kind of model, or weights and description differ.
    """
    config, weights = _read(path, kind="softcam", other="load_black_box")
    converted = _assemble(config, model)
    fill(converted, weights)
    return converted.eval()


def _assemble(config: BundleConfig, model: nn.Module | None) -> SoftCAM:
    """Return the model as the description has it, with weights that are still to be filled in."""
    if model is None and (parts := list_parts(config)):
        return Ensemble([_assemble(part, None) for part in parts])
    network = _build(config) if model is None else model
    report = None if config.conversion is None else ConversionReport.from_dict(config.conversion)
    options: dict[str, Any] = {"num_classes": len(config.classes), "multi_label": config.task == "multilabel"}
    if report is None:
        converted = convert(network, certify=False, **options)
    else:
        images = _probe_images(network, report, whole=config.architecture is None)
        converted = rebuild(network, report, images=images, **options)
        _restore(converted, report)
    return converted


def load_black_box(path: str | Path, *, model: nn.Module | None = None) -> nn.Module:
    """Read a black box, in eval mode and on the CPU.

    Args:
        path: The bundle's folder.
        model: A module of the same architecture; needed, and filled in place, where softcam cannot build it itself.

    Raises:
        BundleError: As in `load`.
    """
    config, weights = _read(path, kind="black_box", other="load")
    network = _build(config) if model is None else model
    fill(network, weights)
    return network.eval()


def _read(path: str | Path, *, kind: str, other: str) -> tuple[BundleConfig, dict[str, Tensor]]:
    folder = Path(path)
    refuse_pickle(folder)
    _check_present(folder)
    config = read_config(folder)
    if config.kind != kind:
        raise BundleError(f"Expected a bundle of kind {kind!r}, but got {config.kind!r}. Read it with `{other}`.")
    weights = read_weights(folder)
    if (found := fingerprint(weights)) != config.fingerprint:
        raise BundleError(
            f"Expected weights with fingerprint {config.fingerprint[:12]}, as {CONFIG_NAME} says, but got "
            f"{found[:12]}. One of the two files was changed or comes from another bundle."
        )
    return config, weights


def _build(config: BundleConfig) -> nn.Module:
    if config.architecture is None:
        raise BundleError(
            "Expected `model` to be given, since this bundle holds the weights of a user's own module. "
            "Build that module and call load(path, model=module)."
        )
    name, arguments = config.architecture["name"], dict(config.architecture["arguments"])
    arguments.pop("num_classes", None)
    if files := [key for key in arguments if key.startswith("pretrained") or key in ("checkpoint_path", "cache_dir")]:
        # Who wrote the bundle must not choose what is read from this machine, which may be a pickle.
        raise BundleError(
            f"Expected `architecture` to name no other files, but it has {files}. Do not use this bundle."
        )
    try:
        return create_black_box(name, num_classes=len(config.classes), weights="none", **arguments)
    except (UnsupportedModelError, ValueError, TypeError, RuntimeError) as error:
        raise BundleError(f"Expected `architecture` to be one that can be built, but {name!r}: {error}") from error


def _probe_images(network: nn.Module, report: ConversionReport, *, whole: bool) -> Tensor | None:
    """Return an image on which the conversion is repeated; None for the architecture's own default size.

    What softcam builds itself has a default size. A module of the user's own, signals and volumes have none.
    """
    if not whole and len(report.input_size) == 2:
        return None
    first = next((m for m in network.modules() if isinstance(m, nn.Conv1d | nn.Conv2d | nn.Conv3d)), None)
    channels = 3 if first is None else first.in_channels
    generator = torch.Generator().manual_seed(0)
    return torch.randn(1, channels, *report.input_size, generator=generator)


def _restore(model: SoftCAM, report: ConversionReport) -> None:
    """Give back what no tensor holds: how the features lie, the dropout and the report; refuse another trunk."""
    new = model.conversion
    same_grid = new.input_size != report.input_size or new.grid == report.grid
    if (new.head, new.channels) != (report.head, report.channels) or not same_grid:
        raise BundleError(
            f"Expected {report.grid} cells of {report.channels} channels under a {report.head!r} head, as `conversion` "
            f"says, but the architecture gives {new.grid} of {new.channels} under {new.head!r}. "
            "Build the black box as it was before conversion and call load(path, model=black_box)."
        )
    if isinstance(model.features, Features):
        model.features.layout = report.layout  # type: ignore[assignment]
    model.head.dropout = report.dropout
    model.conversion = report


def _check_present(folder: Path) -> None:
    if folder.is_dir():
        return
    set_aside = sorted(folder.parent.glob(f".{folder.name}.*.old"))
    hint = (
        f"A save was interrupted: rename {set_aside[0].name!r} to {folder.name!r}." if set_aside else "Check the path."
    )
    raise BundleError(f"Expected the folder of a bundle, but got {str(folder)!r}. {hint}")


def check_replaceable(folder: Path) -> None:
    """Refuse to write a bundle where something else is.

    Raises:
        BundleError: If the folder holds anything that no bundle holds.
    """
    if not folder.exists() and not folder.is_symlink():
        return
    if folder.is_dir() and not folder.is_symlink():
        names = {entry.name for entry in folder.iterdir()}
        if names <= FILES | {EXPORTS}:
            return
    raise BundleError(
        f"Expected `path` to be new, empty or a bundle, but got {str(folder)!r} with other content. "
        "Choose another folder; nothing was changed."
    )
