"""Convert whole networks with weights that look trained, and measure what is promised."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import nn

from softcam.backbones import create_black_box
from softcam.errors import UnsupportedModelError
from softcam.nn import SoftCAM, convert
from softcam.survey.table import SurveyRow, shorten_reason
from softcam.survey.weights import randomise


def measure_model(name: str, *, seed: int = 0, in_double: bool = True) -> SurveyRow:
    """Convert one model with random weights, at its default input size, and say what was measured.

    Args:
        name: Name as `create_black_box` takes it.
        seed: Seed of the weights.
        in_double: Whether to convert it in float64 too, if it converts exactly.

    Returns:
        A row with the error in float32 and float64 where it converts exactly, else with the drift in float32.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = randomise(create_black_box(name), seed=seed)
    return measure_network(network, name, in_double=in_double)


def measure_network(network: nn.Module, name: str, *, in_double: bool = True) -> SurveyRow:
    """Convert a network in eval mode and say what was measured.

    Args:
        network: A black box in float32; it is in float64 afterwards if that was measured.
        name: What the row is to say.
        in_double: As in `measure_model`.
    """
    try:
        row = _make_row(name, convert(network), None)
    except UnsupportedModelError as error:
        return _measure_copy(network, name, shorten_reason(str(error)))
    return replace(row, error64=convert(network.double()).conversion.error) if in_double else row


def _measure_copy(network: nn.Module, name: str, reason: str) -> SurveyRow:
    try:
        return _make_row(name, convert(network, exact=False), reason)
    except UnsupportedModelError:
        return SurveyRow(name, "no", reason=reason)


def _make_row(name: str, converted: SoftCAM, reason: str | None) -> SurveyRow:
    report = converted.conversion
    return SurveyRow(
        name,
        "exact" if report.exact else "trainable",
        reason=reason,
        head=report.head,
        layout=report.layout,
        prefix=getattr(converted.features, "prefix", 0),
        channels=report.channels,
        input_size=report.input_size,
        grid=report.grid,
        map_stride=report.map_stride,
        error=report.error,
        drift=report.drift,
    )
