"""Where should the evidence layer sit? Several places, measured against the black box on validation data."""

from softcam.sweep.result import PlaceRow, SweepResult
from softcam.sweep.run import SweepSettings, sweep
from softcam.sweep.write import write_sweep

__all__ = ["PlaceRow", "SweepResult", "SweepSettings", "sweep", "write_sweep"]
