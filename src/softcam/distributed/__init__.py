"""The same Predictor on every worker of a Ray cluster: Parquet out, one row per input whatever dies on the way."""

from __future__ import annotations

from softcam.distributed.engine import RaySummary, explain
from softcam.distributed.plan import Listed
from softcam.distributed.settings import RaySettings

__all__ = ["Listed", "RaySettings", "RaySummary", "explain"]
