"""Decide what becomes of a model by its head alone, in a fraction of a second and without its weights.

The network is built on the meta device, which computes shapes and nothing else. Only what its head calls gets values.
"""

from __future__ import annotations

from math import prod

import torch
from torch import Tensor, nn

from softcam.backbones import create_black_box
from softcam.errors import UnsupportedModelError
from softcam.nn import input_shape
from softcam.nn.build import Built, build
from softcam.nn.features import map_stride, to_grid
from softcam.nn.split import SeveralSplit, Split, split_network
from softcam.survey.table import SurveyRow, shorten_reason
from softcam.survey.weights import materialise, randomise

CLASSES = 16
"""Enough to judge a head by; it takes memory in proportion, gigabytes for a thousand classes."""


def judge_model(name: str) -> SurveyRow | None:
    """Return what becomes of one model, judged by its head, or None for a model without a classifier.

    Args:
        name: Name as `create_black_box` takes it.
    """
    network = create_empty(name)
    return None if network is None else judge_network(network, name)


def create_empty(name: str) -> nn.Module | None:
    """Return a model on the meta device with few classes, or None if it comes without a classifier."""
    with torch.device("meta"):
        if getattr(create_black_box(name), "num_classes", None) == 0:
            return None
        return create_black_box(name, num_classes=CLASSES).eval()


def judge_network(network: nn.Module, name: str) -> SurveyRow:
    """Return what becomes of a network on the meta device.

    Args:
        network: It is changed: what its head calls gets random weights on the CPU.
        name: What the row is to say.
    """
    size = input_shape(network)
    record = getattr(network, "pretrained_cfg", None) or {}
    # A stem that folds blocks of pixels into channels hides how many the images have.
    channels = (record.get("input_size") or size)[0]
    example = torch.zeros(1, channels, *size[1:], device="meta")
    reason = None
    try:
        split = split_network(network, example)
        _give_values(split)
        try:
            built = build(split, head="auto", exact=True)
        except UnsupportedModelError as error:
            reason = shorten_reason(str(error))
            built = build(split, head="auto", exact=False)
        return _make_row(name, split, built, reason)
    except UnsupportedModelError as error:
        return SurveyRow(name, "no", reason=reason or shorten_reason(str(error)))


def _give_values(split: Split) -> None:
    network = split.network
    called = {name for name, _ in split.tail}
    # Modules hold parameters of their own beside their children's: tokens, positions.
    around = {name.rpartition(".")[0] for name in called} | {""}
    materialise(network.get_submodule(name) for name in called | around)
    split.example = torch.zeros(split.example.shape)
    if not _runs(split):
        # A head that calls parts of the trunk.
        materialise(network.modules())
    randomise(network)


def _runs(split: Split) -> bool:
    try:
        with torch.no_grad():
            logits = (
                split.head_of([torch.zeros(shape) for shape in split.shapes])
                if isinstance(split, SeveralSplit)
                else split.head(torch.zeros(split.shape))
            )
    except (RuntimeError, NotImplementedError):
        return False
    return not logits.is_meta


def _make_row(name: str, split: Split, built: Built, reason: str | None) -> SurveyRow:
    size = tuple(split.example.shape[2:])
    grid = _grid(split, built, size)
    return SurveyRow(
        name,
        "exact" if built.fidelity == "exact" else "trainable",
        reason=reason,
        head=built.head.kind,
        layout=built.layout,
        prefix=built.prefix,
        channels=built.head.channels,
        input_size=size,
        grid=grid,
        map_stride=map_stride(size, grid),
    )


def _grid(split: Split, built: Built, size: tuple[int, ...]) -> tuple[int, ...]:
    """Return the cells of a map; where there are several, of the finest that has a place in the image."""
    if isinstance(split, SeveralSplit):
        parts = [(shape, prefix) for shape, prefix in zip(split.shapes, built.prefixes, strict=True)]
    else:
        parts = [(split.shape, built.prefix)]
    grids = [
        to_grid(_empty(shape), built.layout, size, prefix=prefix).shape[2:]
        for shape, prefix in parts
        if prefix is not None
    ]
    return tuple(max(grids, key=prod))


def _empty(shape: torch.Size) -> Tensor:
    return torch.empty(shape, device="meta")
