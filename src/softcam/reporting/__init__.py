"""Figures, the one-file HTML report, and the files of explained images."""

from __future__ import annotations

from typing import TYPE_CHECKING

from softcam.libraries import lazy_names

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

# Who explains images needs neither plots nor reports.
__getattr__, __dir__ = lazy_names(__name__, _HOMES)
