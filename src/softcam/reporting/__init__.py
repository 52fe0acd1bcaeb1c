"""Figures and the one-file HTML report."""

from __future__ import annotations

from softcam.reporting.explanations import ExplainSummary, explain
from softcam.reporting.plotting import plot
from softcam.reporting.report import write_report

__all__ = ["ExplainSummary", "explain", "plot", "write_report"]
