"""What to train: strengths of the penalty and places of the evidence layer, measured on validation data."""

from softcam.sweep.result import PlaceRow, SweepResult
from softcam.sweep.run import SweepSettings, sweep
from softcam.sweep.search import search
from softcam.sweep.selection import SearchResult, TrialRow
from softcam.sweep.settings import SearchSettings
from softcam.sweep.space import Point, Space
from softcam.sweep.write import write_search, write_sweep

__all__ = [
    "PlaceRow",
    "Point",
    "SearchResult",
    "SearchSettings",
    "Space",
    "SweepResult",
    "SweepSettings",
    "TrialRow",
    "search",
    "sweep",
    "write_search",
    "write_sweep",
]
