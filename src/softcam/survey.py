"""What converts: measured on random weights, one row per model, and kept with the package."""

from __future__ import annotations

import fnmatch
import json
import time
from dataclasses import asdict, dataclass
from importlib import resources
from typing import Any

import torch
from torch import Tensor, nn

from softcam.backbones import create_black_box
from softcam.errors import UnsupportedModelError
from softcam.nn import convert

SURVEY = "survey.json"


@dataclass(frozen=True)
class SurveyRow:
    """What became of one model.

    Args:
        model: Name as `create_black_box` takes it.
        exact: Whether it converts with the same logits.
        seconds: Time that the conversion, or the refusal, took.
        error: Largest relative difference of logits in float32.
        head: Kind of class evidence layer.
        layout: Order of the feature dimensions in the black box.
        channels: D, channels under the evidence layer.
        input_size: Default height and width in pixels.
        grid: Cells (h, w) of a map at that size.
        map_stride: Input pixels from one cell to the next.
        refusal: Why it does not convert exactly; then all that describes a conversion is None.
    """

    model: str
    exact: bool
    seconds: float
    error: float | None = None
    head: str | None = None
    layout: str | None = None
    channels: int | None = None
    input_size: tuple[int, int] | None = None
    grid: tuple[int, int] | None = None
    map_stride: tuple[int, int] | None = None
    refusal: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the row as JSON-ready values."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}


def survey_model(name: str, *, seed: int = 0) -> SurveyRow:
    """Convert one model with random weights, norms included, and say what was measured.

    Args:
        name: Name as `create_black_box` takes it.
        seed: Seed of the weights.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        black_box = randomise(create_black_box(name))
    started = time.perf_counter()
    try:
        report = convert(black_box).conversion
    except UnsupportedModelError as error:
        return SurveyRow(name, exact=False, seconds=_since(started), refusal=str(error))
    return SurveyRow(
        name,
        exact=report.exact,
        seconds=_since(started),
        error=report.error,
        head=report.head,
        layout=report.layout,
        channels=report.channels,
        input_size=report.input_size,
        grid=report.grid,
        map_stride=report.map_stride,
    )


def randomise(network: nn.Module) -> nn.Module:
    """Give a fresh network the look of a trained one, and put it into eval mode.

    Norms close to the identity, zero biases and zero-initialised classifiers would hide mistakes.
    """
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if parameter.ndim <= 1 and not name.endswith("bias"):
                _uniform(parameter)
            elif parameter.ndim <= 1 or not parameter.any():
                _normal(parameter)
        for name, buffer in network.named_buffers():
            if name.endswith("running_mean"):
                _normal(buffer)
            elif name.endswith("running_var"):
                _uniform(buffer)
    return network.eval()


def read_survey(pattern: str = "*") -> tuple[SurveyRow, ...]:
    """Return the rows of the survey that comes with the package.

    Args:
        pattern: Shell-style pattern on the model's name, with or without `timm:` or `torchvision:`.
    """
    stored = json.loads(resources.files("softcam").joinpath(SURVEY).read_text(encoding="utf-8"))
    return tuple(row for row in map(_row, stored["models"]) if _matches(row.model, pattern))


def _row(values: dict[str, Any]) -> SurveyRow:
    restored: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value for key, value in values.items()
    }
    return SurveyRow(**restored)


def _matches(model: str, pattern: str) -> bool:
    return any(fnmatch.fnmatch(name, pattern) for name in (model, model.partition(":")[2]))


def _since(started: float) -> float:
    return round(time.perf_counter() - started, 2)


def _uniform(tensor: Tensor) -> None:
    tensor.uniform_(0.5, 1.5)


def _normal(tensor: Tensor) -> None:
    tensor.normal_(std=0.1)
