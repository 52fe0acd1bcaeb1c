"""Figures, the one-file HTML report, and the files of explained images."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from softcam.reporting.explanations import ExplainSummary, explain
    from softcam.reporting.plotting import plot
    from softcam.reporting.report import write_report

_HOMES = {
    "ExplainSummary": "explanations",
    "explain": "explanations",
    "plot": "plotting",
    "write_report": "report",
}

__all__ = ["ExplainSummary", "explain", "plot", "write_report"]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used: who explains images needs neither plots nor reports."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"softcam.reporting.{_HOMES[name]}"), name)
