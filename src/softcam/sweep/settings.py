"""What decides a search beside its recipe and its space."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from softcam.errors import RecipeError
from softcam.metrics import FILLS

Sparsity = Literal["gini", "near_zero_share"]


@dataclass(frozen=True)
class SearchSettings:
    """How a search goes about it, and what its rule accepts.

    Args:
        margin: Loss of AUROC against the dense model that counts as acceptable, in (0, 1), stated beforehand.
        sparsity: What says how sparse maps are: `gini` of their absolute values, or `near_zero_share`, the share of
            cells within 1 % of the map's largest; both on the grid of the input.
        trials: Models that optuna chooses, >= 1, with l1 and l2 between their smallest and largest strengths above 0;
            by default every point of the grid is trained.
        located: Validation images on which maps are measured, >= 2: those with ground truth, where there are any.
        fills: What replaces patches in deletion.
        batch_size: Images in one forward pass, >= 1.
        seed: Seed of the choice of images and of optuna's draws.
        jobs: Trainings at a time, >= 1; each has its share of the cores. It decides nothing but rounding.

    Raises:
        RecipeError: If a value is out of range.
    """

    margin: float = 0.02
    sparsity: Sparsity = "gini"
    trials: int | None = None
    located: int = 64
    fills: tuple[str, ...] = ("mean", "blur")
    batch_size: int = 32
    seed: int = 0
    jobs: int = 1

    def __post_init__(self) -> None:
        """Refuse values out of range."""
        ranges = {
            "margin": 0 < self.margin < 1,
            "sparsity": self.sparsity in get_args(Sparsity),
            "trials": self.trials is None or self.trials >= 1,
            "located": self.located >= 2,
            "fills": len(self.fills) > 0 and set(self.fills) <= set(FILLS),
            "batch_size": self.batch_size >= 1,
            "seed": self.seed >= 0,
            "jobs": self.jobs >= 1,
        }
        if wrong := [name for name, fits in ranges.items() if not fits]:
            values = {name: getattr(self, name) for name in wrong}
            raise RecipeError(f"Expected the settings of the search to be in range, but got {values}.")
